//! Share groups over the wire (KIP-932): records are given, spoken of, and come again.

mod lag;

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use headwater_protocol::kafka::delete_groups::DeleteGroupsRequest;
use headwater_protocol::kafka::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequestTopic,
};
use headwater_protocol::kafka::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};
use headwater_protocol::kafka::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsResponse,
};
use headwater_protocol::kafka::find_coordinator::FindCoordinatorRequest;
use headwater_protocol::kafka::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use headwater_protocol::kafka::list_groups::ListGroupsRequest;
use headwater_protocol::kafka::share_acknowledge::{
    self as acknowledge, ShareAcknowledgeRequest, ShareAcknowledgeResponse,
};
use headwater_protocol::kafka::share_fetch::{
    AcknowledgementBatch, FetchPartition, FetchTopic, PartitionData, ShareFetchRequest, ShareFetchResponse,
};
use headwater_protocol::kafka::share_group_describe::ShareGroupDescribeRequest;
use headwater_protocol::kafka::share_group_heartbeat::{
    ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
};
use headwater_protocol::kafka::write_share_group_state as write;

use super::*;
use crate::transport::CloseCode;

const GROUP: Str = Str::from_static("g");

fn heartbeat(member: &'static str, epoch: i32) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: GROUP,
        member_id: Str::from_static(member),
        member_epoch: epoch,
        subscribed_topic_names: (epoch == 0).then(|| vec![Str::from_static("t")]),
        ..ShareGroupHeartbeatRequest::default()
    }
}

type Batches<'a> = &'a [(i64, i64, &'a [i8])];

fn share_fetch(topic: &Topic, member: &'static str, epoch: i32, words: Batches<'_>) -> ShareFetchRequest {
    let batch = |(first, last, codes): &(i64, i64, &[i8])| AcknowledgementBatch {
        first_offset: *first,
        last_offset: *last,
        acknowledge_types: codes.to_vec(),
        ..AcknowledgementBatch::default()
    };
    ShareFetchRequest {
        group_id: Some(GROUP),
        member_id: Some(Str::from_static(member)),
        share_session_epoch: epoch,
        min_bytes: 1,
        max_records: 500,
        batch_size: 500,
        topics: vec![FetchTopic {
            topic_id: topic.id.into(),
            partitions: vec![FetchPartition {
                partition_index: 0,
                acknowledgement_batches: words.iter().map(batch).collect(),
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..ShareFetchRequest::default()
    }
}

fn say(topic: &Topic, member: &'static str, epoch: i32, words: Batches<'_>) -> ShareAcknowledgeRequest {
    let batch = |(first, last, codes): &(i64, i64, &[i8])| acknowledge::AcknowledgementBatch {
        first_offset: *first,
        last_offset: *last,
        acknowledge_types: codes.to_vec(),
        ..acknowledge::AcknowledgementBatch::default()
    };
    ShareAcknowledgeRequest {
        group_id: Some(GROUP),
        member_id: Some(Str::from_static(member)),
        share_session_epoch: epoch,
        topics: vec![acknowledge::AcknowledgeTopic {
            topic_id: topic.id.into(),
            partitions: vec![acknowledge::AcknowledgePartition {
                partition_index: 0,
                acknowledgement_batches: words.iter().map(batch).collect(),
                ..acknowledge::AcknowledgePartition::default()
            }],
            ..acknowledge::AcknowledgeTopic::default()
        }],
        ..ShareAcknowledgeRequest::default()
    }
}

fn only(response: &ShareFetchResponse) -> &PartitionData {
    assert_eq!(response.error_code, 0, "{response:?}");
    &response.responses[0].partitions[0]
}

/// As `0-2x1`.
fn given(response: &ShareFetchResponse) -> String {
    assert_eq!(response.error_code, 0, "{response:?}");
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let ranges = partitions.flat_map(|it| &it.acquired_records);
    let text = ranges.map(|it| format!("{}-{}x{}", it.first_offset, it.last_offset, it.delivery_count));
    text.collect::<Vec<_>>().join(" ")
}

fn refused(response: &ShareAcknowledgeResponse) -> ErrorCode {
    assert_eq!(response.error_code, 0, "{response:?}");
    ErrorCode(response.responses[0].partitions[0].error_code)
}

fn describe_offsets() -> DescribeShareGroupOffsetsRequest {
    DescribeShareGroupOffsetsRequest {
        groups: vec![DescribeShareGroupOffsetsRequestGroup {
            group_id: GROUP,
            topics: None,
            ..DescribeShareGroupOffsetsRequestGroup::default()
        }],
        ..DescribeShareGroupOffsetsRequest::default()
    }
}

/// Where a group starts, and its lag, in each partition that it has begun.
fn starts(described: &DescribeShareGroupOffsetsResponse) -> Vec<(i64, i64)> {
    let group = &described.groups[0];
    assert_eq!(group.error_code, 0);
    let partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|it| (it.start_offset, it.lag)).collect()
}

/// An edge with a topic `t` of one partition, and a member's session that has seen its beginning.
struct Lab {
    edge: Edge,
    topic: std::sync::Arc<Topic>,
    client: Client,
    epoch: i32,
}

impl Lab {
    async fn new() -> Self {
        Self::with(&[("group.share.auto.offset.reset", "earliest")]).await
    }

    async fn with(set: &[(&str, &str)]) -> Self {
        Self::of(Edge::with(set).await).await
    }

    async fn of(edge: Edge) -> Self {
        let topic = edge.topic("t", 1).await;
        let client = edge.client().await;
        let mut lab = Self {
            edge,
            topic,
            client,
            epoch: 0,
        };
        lab.join("a").await;
        lab.until_begun("a").await;
        lab
    }

    /// Fetches, and is given nothing, until it is written down where the group begins.
    async fn until_begun(&mut self, member: &'static str) {
        for _ in 0..1000 {
            assert_eq!(given(&self.fetch(member, &[]).await), "");
            let starts = starts(&self.client.call(&describe_offsets(), 1).await);
            if starts.iter().any(|(start, _)| *start >= 0) {
                return;
            }
            self.edge.pass(Duration::from_millis(2)).await;
        }
        panic!("the group has not begun");
    }

    /// Makes the group, with a member.
    async fn join(&mut self, member: &'static str) -> ShareGroupHeartbeatResponse {
        let find = FindCoordinatorRequest {
            key: GROUP,
            ..FindCoordinatorRequest::default()
        };
        assert_eq!(self.client.call(&find, 3).await.error_code, 0);
        for _ in 0..1000 {
            let joined = self.client.call(&heartbeat(member, 0), 1).await;
            if joined.error_code == 0 {
                return joined;
            }
            self.edge.pass(Duration::from_millis(2)).await;
        }
        panic!("nobody coordinates the group");
    }

    /// Fetches until there is something.
    async fn until_given(&mut self, member: &'static str) -> String {
        for _ in 0..1000 {
            let response = self.fetch(member, &[]).await;
            let found = given(&response);
            if !found.is_empty() {
                return found;
            }
            self.edge.pass(Duration::from_millis(2)).await;
        }
        panic!("nothing is given");
    }

    async fn fetch(&mut self, member: &'static str, words: Batches<'_>) -> ShareFetchResponse {
        let request = share_fetch(&self.topic, member, self.epoch, words);
        self.epoch += 1;
        self.client.call(&request, 2).await
    }

    async fn say(&mut self, member: &'static str, words: Batches<'_>) -> ErrorCode {
        let request = say(&self.topic, member, self.epoch, words);
        self.epoch += 1;
        refused(&self.client.call(&request, 2).await)
    }

    async fn produce(&mut self, values: &[&str]) {
        let produced = self.client.produce(&self.topic, batch(values)).await;
        assert_eq!(produced.error_code, 0);
    }
}

#[tokio::test]
async fn records_are_given_spoken_of_and_come_again() {
    let mut lab = Lab::new().await;
    lab.produce(&["a", "b", "c", "d"]).await;
    assert_eq!(lab.until_given("a").await, "0-3x1");
    assert_eq!(given(&lab.fetch("a", &[]).await), "");
    assert_eq!(lab.say("a", &[(0, 3, &[1, 2, 3, 1])]).await, ErrorCode::NONE);
    // What was released comes again; it is told with the batch that it lies in.
    let again = lab.fetch("a", &[]).await;
    assert_eq!(given(&again), "1-1x2");
    assert!(
        only(&again)
            .records
            .as_ref()
            .is_some_and(|records| !records.is_empty())
    );
    assert_eq!(again.acquisition_lock_timeout_ms, 30_000);
    assert_eq!(
        lab.say("a", &[(1, 2, &[1])]).await,
        ErrorCode::INVALID_RECORD_STATE
    );
    // Words may come with a fetch.
    let last = lab.fetch("a", &[(1, 1, &[1])]).await;
    assert_eq!(
        (only(&last).acknowledge_error_code, only(&last).error_code),
        (0, 0)
    );
    let wrong = lab.fetch("a", &[(9, 9, &[1])]).await;
    let invalid = ErrorCode::INVALID_RECORD_STATE;
    assert_eq!(only(&wrong).acknowledge_error_code, invalid.0);
    assert_eq!(lab.say("a", &[(3, 1, &[1])]).await, ErrorCode::INVALID_REQUEST);
}

#[tokio::test]
async fn a_group_begins_at_the_end_unless_told_otherwise() {
    let mut lab = Lab::with(&[]).await;
    lab.produce(&["a", "b"]).await;
    assert_eq!(lab.until_given("a").await, "0-1x1");
    // A group may say it for itself.
    let alter = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 32,
            resource_name: Str::from_static("g"),
            configs: vec![AlterableConfig {
                name: Str::from_static("share.auto.offset.reset"),
                value: Some(Str::from_static("earliest")),
                ..AlterableConfig::default()
            }],
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    let describe = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 32,
            resource_name: Str::from_static("g"),
            ..DescribeConfigsResource::default()
        }],
        ..DescribeConfigsRequest::default()
    };
    let told = |described: &DescribeConfigsResponse| {
        let configs = &described.results[0].configs;
        let reset = configs
            .iter()
            .find(|it| it.name.as_str() == "share.auto.offset.reset");
        let reset = reset.unwrap();
        (reset.value.clone().unwrap().to_string(), reset.config_source)
    };
    assert_eq!(
        told(&lab.client.call(&describe, 4).await),
        ("latest".to_owned(), 5)
    );
    assert_eq!(lab.client.call(&alter, 1).await.responses[0].error_code, 0);
    assert_eq!(
        told(&lab.client.call(&describe, 4).await),
        ("earliest".to_owned(), 8)
    );
    let other = lab.edge.topic("u", 1).await;
    lab.client.produce(&other, batch(&["x"])).await;
    lab.topic = other;
    lab.epoch = 0;
    assert_eq!(lab.until_given("b").await, "0-0x1");
}

#[tokio::test]
async fn records_of_a_member_whose_connection_is_gone_are_for_others() {
    let mut lab = Lab::new().await;
    lab.produce(&["a", "b"]).await;
    assert_eq!(lab.until_given("a").await, "0-1x1");
    // It breaks without an end.
    let broken = std::mem::replace(&mut lab.client, lab.edge.client().await);
    let Stream { reader, writer } = broken.stream;
    writer.reset(CloseCode::Done);
    drop(reader);
    lab.epoch = 0;
    assert_eq!(lab.until_given("b").await, "0-1x2");
    // A lock that runs out does the same.
    lab.edge.pass(Duration::from_secs(31)).await;
    assert_eq!(lab.until_given("b").await, "0-1x3");
    // And so does a session that is closed.
    let closes = say(&lab.topic, "b", -1, &[]);
    let closed = lab.client.call(&closes, 1).await;
    assert_eq!(closed.error_code, 0);
    lab.epoch = 0;
    assert_eq!(lab.until_given("c").await, "0-1x4");
}

#[tokio::test]
async fn sessions_that_are_not_there_or_not_counted_are_refused() {
    let mut lab = Lab::new().await;
    let topic = lab.topic.clone();
    for (request, code) in [
        (
            share_fetch(&topic, "x", 3, &[]),
            ErrorCode::SHARE_SESSION_NOT_FOUND,
        ),
        (
            share_fetch(&topic, "a", 99, &[]),
            ErrorCode::INVALID_SHARE_SESSION_EPOCH,
        ),
        (share_fetch(&topic, "", 0, &[]), ErrorCode::INVALID_REQUEST),
        (
            ShareFetchRequest {
                group_id: None,
                ..share_fetch(&topic, "a", 0, &[])
            },
            ErrorCode::INVALID_REQUEST,
        ),
    ] {
        for version in 1..=2 {
            let response = lab.client.call(&request, version).await;
            assert_eq!(ErrorCode(response.error_code), code, "{request:?}");
        }
    }
    let begins = lab.client.call(&say(&topic, "a", 0, &[]), 1).await;
    assert_eq!(
        ErrorCode(begins.error_code),
        ErrorCode::INVALID_SHARE_SESSION_EPOCH
    );
    // A topic that is not there is told of, and the session goes on.
    let mut unknown = share_fetch(&topic, "a", lab.epoch, &[]);
    unknown.topics[0].topic_id = Uuid::from_u128(77);
    let response = lab.client.call(&unknown, 2).await;
    assert_eq!(ErrorCode(only(&response).error_code), ErrorCode::UNKNOWN_TOPIC_ID);
}

#[tokio::test]
async fn nothing_is_begun_for_a_group_that_is_not_there() {
    let mut lab = Lab::new().await;
    let request = ShareFetchRequest {
        group_id: Some(Str::from_static("none")),
        ..share_fetch(&lab.topic, "a", 0, &[])
    };
    let mut refused = 0;
    for _ in 0..50 {
        refused = lab.client.call(&request, 2).await.error_code;
        if refused != 0 {
            break;
        }
        lab.edge.pass(Duration::from_millis(50)).await;
    }
    assert_eq!(ErrorCode(refused), ErrorCode::GROUP_ID_NOT_FOUND);
}

#[tokio::test]
async fn members_are_told_what_to_read_and_groups_are_seen() {
    let mut lab = Lab::new().await;
    let joined = lab.join("a").await;
    assert_eq!((joined.error_code, joined.member_epoch), (0, 1));
    assert_eq!(joined.assignment.unwrap().topic_partitions[0].partitions, [0]);
    let listed = lab.client.call(&ListGroupsRequest::default(), 5).await;
    let group = &listed.groups[0];
    let seen = [&group.group_type, &group.group_state, &group.protocol_type].map(Str::as_str);
    assert_eq!(seen, ["share", "Stable", "share"]);
    let describe = ShareGroupDescribeRequest {
        group_ids: vec![GROUP, Str::from_static("none")],
        ..ShareGroupDescribeRequest::default()
    };
    let described = lab.client.call(&describe, 1).await;
    assert_eq!(
        described.groups[0].members[0].assignment.topic_partitions[0].partitions,
        [0]
    );
    assert_eq!(described.groups[0].assignor_name.as_str(), "simple");
    assert_eq!(described.groups[1].error_code, ErrorCode::GROUP_ID_NOT_FOUND.0);
    let share = FindCoordinatorRequest {
        key_type: 2,
        coordinator_keys: vec![Str::from_static("g:AAAAAAAAAAAAAAAAAAAAAQ:0"), GROUP],
        ..FindCoordinatorRequest::default()
    };
    let found = lab.client.call(&share, 6).await;
    let codes: Vec<i16> = found.coordinators.iter().map(|it| it.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::INVALID_REQUEST.0]);
    administer(&mut lab).await;
}

/// The offsets of a group are described, altered and deleted, and it is.
async fn administer(lab: &mut Lab) {
    lab.produce(&["a", "b", "c"]).await;
    assert_eq!(lab.until_given("a").await, "0-2x1");
    assert_eq!(lab.say("a", &[(0, 1, &[1])]).await, ErrorCode::NONE);
    assert_eq!(starts(&lab.client.call(&describe_offsets(), 1).await), [(2, 1)]);
    let alter = AlterShareGroupOffsetsRequest {
        group_id: GROUP,
        topics: vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: Str::from_static("t"),
            partitions: vec![AlterShareGroupOffsetsRequestPartition {
                partition_index: 0,
                start_offset: 1,
                ..AlterShareGroupOffsetsRequestPartition::default()
            }],
            ..AlterShareGroupOffsetsRequestTopic::default()
        }],
        ..AlterShareGroupOffsetsRequest::default()
    };
    let delete = DeleteShareGroupOffsetsRequest {
        group_id: GROUP,
        topics: vec![DeleteShareGroupOffsetsRequestTopic {
            topic_name: Str::from_static("t"),
            ..DeleteShareGroupOffsetsRequestTopic::default()
        }],
        ..DeleteShareGroupOffsetsRequest::default()
    };
    let delete_group = DeleteGroupsRequest {
        groups_names: vec![GROUP],
        ..DeleteGroupsRequest::default()
    };
    let has_members = ErrorCode::NON_EMPTY_GROUP.0;
    assert_eq!(lab.client.call(&alter, 0).await.error_code, has_members);
    assert_eq!(lab.client.call(&delete, 0).await.error_code, has_members);
    let deleted = lab.client.call(&delete_group, 2).await;
    assert_eq!(deleted.results[0].error_code, has_members);
    assert_eq!(lab.client.call(&heartbeat("a", -1), 1).await.error_code, 0);
    lab.client.call(&say(&lab.topic, "a", -1, &[]), 1).await;
    assert_eq!(
        lab.client.call(&alter, 0).await.responses[0].partitions[0].error_code,
        0
    );
    assert_eq!(starts(&lab.client.call(&describe_offsets(), 1).await), [(1, 2)]);
    lab.epoch = 0;
    assert_eq!(lab.until_given("b").await, "1-2x1");
    lab.client.call(&say(&lab.topic, "b", -1, &[]), 1).await;
    assert_eq!(lab.client.call(&delete, 0).await.responses[0].error_code, 0);
    assert_eq!(starts(&lab.client.call(&describe_offsets(), 0).await), []);
    let deleted = lab.client.call(&delete_group, 2).await;
    assert_eq!(deleted.results[0].error_code, 0);
    let listed = lab.client.call(&ListGroupsRequest::default(), 5).await;
    assert_eq!(listed.groups, []);
    // From the start of the log, as if it had never been.
    lab.epoch = 0;
    lab.join("c").await;
    assert_eq!(lab.until_given("c").await, "0-2x1");
}

#[tokio::test]
async fn what_is_kept_is_not_for_clients_to_touch() {
    let mut lab = Lab::new().await;
    let forged = write::WriteShareGroupStateRequest {
        group_id: GROUP,
        ..write::WriteShareGroupStateRequest::default()
    };
    let response = lab.client.call(&forged, 1).await;
    let code = response.results[0].partitions[0].error_code;
    assert_eq!(ErrorCode(code), ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
}
