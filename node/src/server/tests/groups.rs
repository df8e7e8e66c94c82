//! Consumer groups over the wire: every API in every version, and what the node does by itself.

mod consumers;

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::delete_groups::DeleteGroupsRequest;
use headwater_protocol::kafka::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use headwater_protocol::kafka::describe_groups::DescribeGroupsRequest;
use headwater_protocol::kafka::find_coordinator::FindCoordinatorRequest;
use headwater_protocol::kafka::heartbeat::HeartbeatRequest;
use headwater_protocol::kafka::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use headwater_protocol::kafka::leave_group::{LeaveGroupRequest, MemberIdentity};
use headwater_protocol::kafka::list_groups::ListGroupsRequest;
use headwater_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic};
use headwater_protocol::kafka::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use headwater_protocol::kafka::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use headwater_protocol::kafka::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use headwater_protocol::kafka::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

use super::*;
use crate::metadata::topic::OFFSETS_TOPIC;
use headwater_protocol::ids::PartitionIndex;
use headwater_protocol::primitives::Uuid;

const GROUP: Str = Str::from_static("g");

/// An edge whose groups begin at once, with a topic `t` of two partitions.
async fn edge() -> (Edge, std::sync::Arc<Topic>, Client) {
    edge_with(&[]).await
}

async fn edge_with(set: &[(&str, &str)]) -> (Edge, std::sync::Arc<Topic>, Client) {
    let mut all = vec![("group.initial.rebalance.delay.ms", "0")];
    all.extend_from_slice(set);
    let edge = Edge::with(&all).await;
    let topic = edge.topic("t", 2).await;
    let mut client = edge.client().await;
    let found = client.call(&find(), 0).await;
    assert_eq!(found.error_code, 0);
    until_loaded(&mut client).await;
    (edge, topic, client)
}

/// A new coordinator reads its partition first.
async fn until_loaded(client: &mut Client) {
    for _ in 0..1000 {
        let listed = client.call(&ListGroupsRequest::default(), 0).await;
        if listed.error_code == 0 && client.call(&fetch_old(Some(&[0])), 2).await.error_code == 0 {
            return;
        }
        settle().await;
    }
    panic!("the coordinators never were there");
}

fn find() -> FindCoordinatorRequest {
    FindCoordinatorRequest {
        key: GROUP,
        ..FindCoordinatorRequest::default()
    }
}

fn join(member: &Str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: GROUP,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: member.clone(),
        protocol_type: Str::from_static("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Str::from_static("range"),
            metadata: Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b't']),
            ..JoinGroupRequestProtocol::default()
        }],
        ..JoinGroupRequest::default()
    }
}

/// Joins, by an id that is taken first where the version has that.
async fn joined(client: &mut Client, version: i16) -> JoinGroupResponse {
    let first = client.call(&join(&Str::default()), version).await;
    if version < 4 {
        assert_eq!(first.error_code, 0);
        return first;
    }
    assert_eq!(first.error_code, ErrorCode::MEMBER_ID_REQUIRED.0);
    let second = client.call(&join(&first.member_id), version).await;
    assert_eq!(second.member_id, first.member_id);
    second
}

fn sync(joined: &JoinGroupResponse, version: i16) -> SyncGroupRequest {
    let named = |name: &'static str| (version >= 5).then(|| Str::from_static(name));
    SyncGroupRequest {
        group_id: GROUP,
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: named("consumer"),
        protocol_name: named("range"),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from_static(b"all"),
            ..SyncGroupRequestAssignment::default()
        }],
        ..SyncGroupRequest::default()
    }
}

fn commit(topic: &Topic, version: i16, offset: i64) -> OffsetCommitRequest {
    let partition = |index, metadata| OffsetCommitRequestPartition {
        partition_index: index,
        committed_offset: offset,
        committed_leader_epoch: if version >= 6 { 3 } else { -1 },
        committed_metadata: Some(Str::from_static(metadata)),
        ..OffsetCommitRequestPartition::default()
    };
    let (name, topic_id) = named(topic, version);
    OffsetCommitRequest {
        group_id: GROUP,
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name,
            topic_id,
            partitions: vec![partition(0, "m"), partition(7, "")],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

/// How a version names a topic.
fn named(topic: &Topic, version: i16) -> (Str, Uuid) {
    match version {
        ..10 => (Str::from(&*topic.name), Uuid::default()),
        _ => (Str::default(), topic.id.into()),
    }
}

fn fetch_old(partitions: Option<&[i32]>) -> OffsetFetchRequest {
    let topic = |partitions: &[i32]| OffsetFetchRequestTopic {
        name: Str::from_static("t"),
        partition_indexes: partitions.to_vec(),
        ..OffsetFetchRequestTopic::default()
    };
    OffsetFetchRequest {
        group_id: GROUP,
        topics: partitions.map(|partitions| vec![topic(partitions)]),
        ..OffsetFetchRequest::default()
    }
}

/// What is committed of partitions 0 and 1.
async fn fetched(client: &mut Client, topic: &Topic, version: i16) -> Vec<(i64, i32, String)> {
    if version < 8 {
        let mut response = client.call(&fetch_old(Some(&[0, 1])), version).await;
        assert_eq!(response.error_code, 0);
        let partitions = response.topics.remove(0).partitions.into_iter();
        return partitions
            .map(|it| {
                (
                    it.committed_offset,
                    it.committed_leader_epoch,
                    it.metadata.unwrap().into(),
                )
            })
            .collect();
    }
    let (name, topic_id) = named(topic, version);
    let wanted = OffsetFetchRequestTopics {
        name,
        topic_id,
        partition_indexes: vec![0, 1],
        ..OffsetFetchRequestTopics::default()
    };
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: GROUP,
            topics: Some(vec![wanted]),
            member_epoch: -1,
            ..OffsetFetchRequestGroup::default()
        }],
        require_stable: true,
        ..OffsetFetchRequest::default()
    };
    let mut response = client.call(&request, version).await;
    let mut group = response.groups.remove(0);
    assert_eq!(group.error_code, 0);
    let found = group.topics.remove(0);
    let by_id = version >= 10;
    assert_eq!(
        (found.name.is_empty(), found.topic_id == topic.id.into()),
        (by_id, by_id)
    );
    let partitions = found.partitions.into_iter();
    partitions
        .map(|it| {
            (
                it.committed_offset,
                it.committed_leader_epoch,
                it.metadata.unwrap().into(),
            )
        })
        .collect()
}

#[tokio::test]
async fn any_version_finds_the_coordinator_and_makes_the_topic() {
    let edge = Edge::new().await;
    let mut client = edge.client().await;
    for version in 0..=6 {
        let request = if version < 4 {
            find()
        } else {
            FindCoordinatorRequest {
                coordinator_keys: vec![GROUP, Str::from_static("h")],
                ..FindCoordinatorRequest::default()
            }
        };
        let found = client.call(&request, version).await;
        let place = |id, host: &Str, port| (id, host.to_string(), port);
        let expected = (1, "tcp.example".to_owned(), 9092);
        if version < 4 {
            assert_eq!(place(found.node_id, &found.host, found.port), expected);
        } else {
            assert_eq!(found.coordinators.len(), 2);
            for it in &found.coordinators {
                assert_eq!(
                    (it.error_code, place(it.node_id, &it.host, it.port)),
                    (0, expected.clone())
                );
            }
        }
    }
    let topic = edge
        .services
        .view
        .topic(OFFSETS_TOPIC)
        .expect("made when it was needed");
    assert!(topic.internal);
    assert_eq!(
        (topic.partitions.len(), topic.partitions[0].replicas.len()),
        (12, 1)
    );
    assert_eq!(topic.configs["cleanup.policy"], "compact");
    for key_type in [2, 9] {
        let request = FindCoordinatorRequest { key_type, ..find() };
        let refused = client.call(&request, 2).await;
        assert_eq!(refused.error_code, ErrorCode::INVALID_REQUEST.0);
    }
}

#[tokio::test]
async fn a_member_lives_through_every_version() {
    let (edge, topic, mut client) = edge().await;
    for version in 0..=9i16 {
        let joined = joined(&mut client, version).await;
        assert_eq!(
            (joined.error_code, &joined.leader),
            (0, &joined.member_id),
            "version {version}"
        );
        assert_eq!(joined.members.len(), 1);
        let sync_version = version.min(5);
        let synced = client.call(&sync(&joined, sync_version), sync_version).await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
        let beat = HeartbeatRequest {
            group_id: GROUP,
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            ..HeartbeatRequest::default()
        };
        assert_eq!(client.call(&beat, version.min(4)).await.error_code, 0);
        let commit = OffsetCommitRequest {
            generation_id_or_member_epoch: joined.generation_id,
            member_id: joined.member_id.clone(),
            ..commit(&topic, version.max(2), i64::from(version))
        };
        let committed = client.call(&commit, version.max(2)).await;
        let codes: Vec<_> = committed.topics[0]
            .partitions
            .iter()
            .map(|it| it.error_code)
            .collect();
        assert_eq!(codes, [0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0]);
        let leave_version = version.min(5);
        let leave = if leave_version < 3 {
            LeaveGroupRequest {
                group_id: GROUP,
                member_id: joined.member_id.clone(),
                ..LeaveGroupRequest::default()
            }
        } else {
            LeaveGroupRequest {
                group_id: GROUP,
                members: ["nobody", joined.member_id.as_str()]
                    .map(|member| MemberIdentity {
                        member_id: Str::from(member),
                        ..MemberIdentity::default()
                    })
                    .to_vec(),
                ..LeaveGroupRequest::default()
            }
        };
        let left = client.call(&leave, leave_version).await;
        assert_eq!(left.error_code, 0);
        if leave_version >= 3 {
            let codes: Vec<_> = left.members.iter().map(|it| it.error_code).collect();
            assert_eq!(codes, [ErrorCode::UNKNOWN_MEMBER_ID.0, 0]);
        }
        let late = client.call(&beat, version.min(4)).await;
        assert_eq!(late.error_code, ErrorCode::UNKNOWN_MEMBER_ID.0);
    }
    drop(edge);
}

#[tokio::test]
async fn offsets_come_back_in_every_version() {
    let (_edge, topic, mut client) = edge().await;
    for version in 2..=10 {
        let committed = client
            .call(&commit(&topic, version, i64::from(version)), version)
            .await;
        let partitions = &committed.topics[0].partitions;
        assert_eq!(partitions[0].error_code, 0, "version {version}");
        assert_eq!(partitions[1].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
        for fetch_version in 1..=10 {
            let epoch = if version >= 6 && fetch_version >= 5 { 3 } else { -1 };
            let expected = [
                (i64::from(version), epoch, "m".to_owned()),
                (-1, -1, String::new()),
            ];
            assert_eq!(fetched(&mut client, &topic, fetch_version).await, expected);
        }
    }
    // All of the group's.
    let all = client.call(&fetch_old(None), 2).await;
    assert_eq!(all.topics.len(), 1);
    assert_eq!(all.topics[0].partitions.len(), 1);
    let unknown = OffsetCommitRequest {
        topics: vec![OffsetCommitRequestTopic {
            topic_id: Uuid([9; 16]),
            partitions: vec![OffsetCommitRequestPartition::default()],
            ..OffsetCommitRequestTopic::default()
        }],
        ..commit(&topic, 10, 1)
    };
    let refused = client.call(&unknown, 10).await;
    let code = refused.topics[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::UNKNOWN_TOPIC_ID.0);
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted() {
    let (_edge, topic, mut client) = edge().await;
    client.call(&commit(&topic, 8, 1), 8).await;
    let joined = joined(&mut client, 9).await;
    client.call(&sync(&joined, 5), 5).await;
    for version in 0..=5 {
        let listed = client.call(&ListGroupsRequest::default(), version).await;
        assert_eq!((listed.error_code, listed.groups.len()), (0, 1));
        let group = &listed.groups[0];
        assert_eq!(
            (group.group_id.as_str(), group.protocol_type.as_str()),
            ("g", "consumer")
        );
        assert_eq!(
            group.group_state.as_str(),
            if version >= 4 { "Stable" } else { "" }
        );
        assert_eq!(
            group.group_type.as_str(),
            if version >= 5 { "classic" } else { "" }
        );
    }
    let filtered = |states: &[&'static str], types: &[&'static str]| ListGroupsRequest {
        states_filter: states.iter().map(|it| Str::from_static(it)).collect(),
        types_filter: types.iter().map(|it| Str::from_static(it)).collect(),
        ..ListGroupsRequest::default()
    };
    for (states, types, count) in [
        (&["empty", "stable"][..], &[][..], 1),
        (&["Empty"], &[], 0),
        (&[], &["Classic"], 1),
        (&[], &["consumer"], 0),
    ] {
        let listed = client.call(&filtered(states, types), 5).await;
        assert_eq!(listed.groups.len(), count, "{states:?} {types:?}");
    }
    for version in 0..=6 {
        let request = DescribeGroupsRequest {
            groups: vec![GROUP, Str::from_static("none")],
            include_authorized_operations: version >= 3,
            ..DescribeGroupsRequest::default()
        };
        let described = client.call(&request, version).await;
        let group = &described.groups[0];
        assert_eq!((group.error_code, group.group_state.as_str()), (0, "Stable"));
        assert_eq!(group.protocol_data.as_str(), "range");
        let member = &group.members[0];
        assert_eq!(
            (member.client_id.as_str(), &member.member_assignment[..]),
            ("test", &b"all"[..])
        );
        let none = &described.groups[1];
        assert_eq!(none.group_state.as_str(), "Dead");
        let expected = if version >= 6 {
            ErrorCode::GROUP_ID_NOT_FOUND.0
        } else {
            0
        };
        assert_eq!(none.error_code, expected);
    }
    let delete = DeleteGroupsRequest {
        groups_names: vec![GROUP, Str::from_static("none")],
        ..DeleteGroupsRequest::default()
    };
    let codes = |response: headwater_protocol::kafka::delete_groups::DeleteGroupsResponse| {
        let codes: Vec<_> = response.results.iter().map(|it| it.error_code).collect();
        codes
    };
    let refused = codes(client.call(&delete, 2).await);
    assert_eq!(
        refused,
        [ErrorCode::NON_EMPTY_GROUP.0, ErrorCode::GROUP_ID_NOT_FOUND.0]
    );
    let of = |topic| OffsetDeleteRequest {
        group_id: GROUP,
        topics: vec![OffsetDeleteRequestTopic {
            name: Str::from_static(topic),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    for (topic, code) in [
        ("t", ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC),
        ("u", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
    ] {
        let deleted = client.call(&of(topic), 0).await;
        assert_eq!(
            (deleted.error_code, deleted.topics[0].partitions[0].error_code),
            (0, code.0)
        );
    }
    let leave = LeaveGroupRequest {
        group_id: GROUP,
        member_id: joined.member_id,
        ..LeaveGroupRequest::default()
    };
    client.call(&leave, 0).await;
    let deleted = client.call(&of("t"), 0).await;
    assert_eq!(deleted.topics[0].partitions[0].error_code, 0);
    assert_eq!(fetched(&mut client, &topic, 5).await[0].0, -1);
    let gone = codes(client.call(&delete, 0).await);
    assert_eq!(gone, [0, ErrorCode::GROUP_ID_NOT_FOUND.0]);
    assert_eq!(client.call(&ListGroupsRequest::default(), 5).await.groups, []);
}

#[tokio::test]
async fn a_member_that_goes_silent_is_replaced() {
    let (edge, _topic, mut client) = edge().await;
    let first = joined(&mut client, 5).await;
    client.call(&sync(&first, 3), 3).await;
    let mut other = edge.client().await;
    let promised = other.call(&join(&Str::default()), 5).await.member_id;
    other.send(&join(&promised), 5).await;
    settle().await;
    edge.pass(Duration::from_secs(11)).await;
    let (_, second) = other.receive::<JoinGroupRequest>(5).await;
    assert_eq!((second.error_code, &second.leader), (0, &promised));
    assert_eq!((second.generation_id, second.members.len()), (2, 1));
}

#[tokio::test]
async fn whoever_waits_for_a_generation_is_sent_on_when_the_node_drains() {
    let (edge, _topic, mut client) = edge().await;
    let first = joined(&mut client, 5).await;
    client.call(&sync(&first, 3), 3).await;
    let mut other = edge.client().await;
    other.send(&join(&Str::default()), 3).await;
    settle().await;
    edge.server.drain(Duration::from_secs(1)).await;
    let (_, told) = other.receive::<JoinGroupRequest>(3).await;
    assert_eq!(told.error_code, ErrorCode::NOT_COORDINATOR.0);
}

#[tokio::test]
async fn names_that_cannot_be_kept_and_groups_without_a_name_are_refused() {
    let (_edge, topic, mut client) = edge().await;
    let long = Str::from("x".repeat(32_001));
    let request = JoinGroupRequest {
        group_id: long.clone(),
        ..join(&Str::default())
    };
    assert_eq!(
        client.call(&request, 9).await.error_code,
        ErrorCode::INVALID_REQUEST.0
    );
    let request = JoinGroupRequest {
        group_id: Str::default(),
        ..join(&Str::default())
    };
    assert_eq!(
        client.call(&request, 9).await.error_code,
        ErrorCode::INVALID_GROUP_ID.0
    );
    let mut request = commit(&topic, 9, 1);
    request.topics[0].partitions[0].committed_metadata = Some(long);
    let refused = client.call(&request, 9).await;
    let code = refused.topics[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::OFFSET_METADATA_TOO_LARGE.0);
    // A generation of a group that nobody knows.
    for version in 2..=10 {
        let of_nobody = OffsetCommitRequest {
            group_id: Str::from_static("nobody's"),
            generation_id_or_member_epoch: 3,
            member_id: Str::from_static("m"),
            ..commit(&topic, version, 1)
        };
        let refused = client.call(&of_nobody, version).await;
        let code = match version {
            ..9 => ErrorCode::ILLEGAL_GENERATION,
            _ => ErrorCode::GROUP_ID_NOT_FOUND,
        };
        assert_eq!(
            refused.topics[0].partitions[0].error_code, code.0,
            "version {version}"
        );
    }
    // Old tools commit for a group without a name.
    let request = OffsetCommitRequest {
        group_id: Str::default(),
        ..commit(&topic, 9, 1)
    };
    assert_eq!(
        client.call(&request, 9).await.topics[0].partitions[0].error_code,
        0
    );
}

#[tokio::test]
async fn the_offsets_topic_is_the_nodes_own() {
    let (edge, _topic, mut client) = edge().await;
    let topic = edge.services.view.topic(OFFSETS_TOPIC).unwrap();
    let refused = client.produce(&topic, batch(&["x"])).await;
    assert_eq!(refused.error_code, ErrorCode::INVALID_TOPIC_EXCEPTION.0);
    let trim = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: Str::from_static(OFFSETS_TOPIC),
            partitions: vec![DeleteRecordsPartition::default()],
            ..DeleteRecordsTopic::default()
        }],
        ..DeleteRecordsRequest::default()
    };
    let refused = client.call(&trim, 2).await;
    let code = refused.topics[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::INVALID_TOPIC_EXCEPTION.0);

    let edge = Edge::new().await;
    let mut client = edge.client().await;
    let ask = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(Str::from_static(OFFSETS_TOPIC)),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    let told = client.call(&ask, 8).await;
    assert_eq!(told.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
    let made = edge
        .services
        .controller
        .propose(Change::CreateTopic(NewTopic::named(OFFSETS_TOPIC)))
        .await;
    assert!(made.is_err(), "a client's topic would have the wrong shape");
}

#[tokio::test]
async fn offsets_of_a_deleted_topic_are_forgotten() {
    let (edge, topic, mut client) = edge().await;
    client.call(&commit(&topic, 8, 5), 8).await;
    let deleted = Change::DeleteTopic {
        topic: controller::change::TopicRef::Name("t".to_owned()),
    };
    edge.services.controller.propose(deleted).await.unwrap();
    // Made again at once: nothing of what was committed is of this one.
    let topic = edge.topic("t", 2).await;
    settle().await;
    assert_eq!(fetched(&mut client, &topic, 5).await[0].0, -1);
}

#[tokio::test]
async fn the_log_stays_small_however_often_the_same_is_committed() {
    let segment = 16_384;
    let (edge, topic, mut client) = edge_with(&[
        ("offsets.topic.segment.bytes", "16384"),
        ("offsets.topic.num.partitions", "1"),
    ])
    .await;
    let log = || {
        edge.services
            .registry
            .get(OFFSETS_TOPIC, PartitionIndex(0))
            .unwrap()
    };
    for offset in 0..2_000 {
        let committed = client.call(&commit(&topic, 8, offset), 8).await;
        assert_eq!(committed.topics[0].partitions[0].error_code, 0);
        let size = log().size_bytes();
        assert!(size < 4 * segment, "{size} bytes after {offset} commits");
    }
    assert!(log().watermarks().borrow().log_start.value() > 0);
    assert_eq!(fetched(&mut client, &topic, 5).await[0].0, 1_999);
}
