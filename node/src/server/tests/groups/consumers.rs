//! The consumer protocol (KIP-848) over the wire.

use super::*;
use headwater_protocol::kafka::consumer_group_describe::ConsumerGroupDescribeRequest;
use headwater_protocol::kafka::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, RequestTopicPartitions,
};

fn joins(member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: GROUP,
        member_id: Str::from(member),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![Str::from_static("t")]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

fn stays(member: &Str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: GROUP,
        member_id: member.clone(),
        member_epoch: epoch,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

fn given(told: &ConsumerGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let assignment = told.assignment.as_ref()?;
    let topics = assignment.topic_partitions.iter();
    Some(topics.flat_map(|topic| topic.partitions.clone()).collect())
}

#[tokio::test]
async fn members_of_both_versions_share_a_topic() {
    let (_edge, topic, mut client) = edge().await;
    let first = client.call(&joins(""), 0).await;
    assert_eq!((first.error_code, first.member_epoch), (0, 1));
    assert_eq!(
        (first.heartbeat_interval_ms, given(&first)),
        (5000, Some(vec![0, 1]))
    );
    let id = first.member_id.clone().unwrap();
    let nameless = client.call(&joins(""), 1).await;
    assert_eq!(nameless.error_code, ErrorCode::INVALID_REQUEST.0);
    assert!(nameless.error_message.is_some());
    let second = client.call(&joins("b"), 1).await;
    assert_eq!((second.member_epoch, given(&second)), (2, Some(vec![])));
    let asked = client.call(&stays(&id, 1), 1).await;
    assert_eq!((asked.member_epoch, given(&asked)), (1, Some(vec![0])));
    let owned = RequestTopicPartitions {
        topic_id: topic.id.into(),
        partitions: vec![0],
        ..RequestTopicPartitions::default()
    };
    let gave_up = ConsumerGroupHeartbeatRequest {
        topic_partitions: Some(vec![owned]),
        ..stays(&id, 1)
    };
    assert_eq!(client.call(&gave_up, 1).await.member_epoch, 2);
    let b = Str::from_static("b");
    assert_eq!(given(&client.call(&stays(&b, 2), 1).await), Some(vec![1]));
    let fenced = client.call(&stays(&b, 7), 1).await;
    assert_eq!(fenced.error_code, ErrorCode::FENCED_MEMBER_EPOCH.0);
    let left = client.call(&stays(&b, -1), 0).await;
    assert_eq!((left.error_code, left.member_epoch), (0, -1));
    let invalid = ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some(Str::from_static("(")),
        ..joins("c")
    };
    let refused = client.call(&invalid, 1).await;
    assert_eq!(refused.error_code, ErrorCode::INVALID_REGULAR_EXPRESSION.0);
}

#[tokio::test]
async fn such_groups_are_listed_described_and_deleted() {
    let (_edge, topic, mut client) = edge().await;
    client.call(&joins("a"), 1).await;
    let listed = client.call(&ListGroupsRequest::default(), 5).await;
    let group = &listed.groups[0];
    assert_eq!(
        (
            group.group_type.as_str(),
            group.group_state.as_str(),
            group.protocol_type.as_str()
        ),
        ("consumer", "Stable", "consumer")
    );
    let classic = ListGroupsRequest {
        types_filter: vec![Str::from_static("classic")],
        ..ListGroupsRequest::default()
    };
    assert_eq!(client.call(&classic, 5).await.groups, []);
    for version in 0..=1 {
        let request = ConsumerGroupDescribeRequest {
            group_ids: vec![GROUP, Str::from_static("none")],
            include_authorized_operations: true,
            ..ConsumerGroupDescribeRequest::default()
        };
        let described = client.call(&request, version).await;
        let group = &described.groups[0];
        assert_eq!((group.error_code, group.group_state.as_str()), (0, "Stable"));
        assert_eq!((group.group_epoch, group.assignment_epoch), (1, 1));
        assert_eq!(group.assignor_name.as_str(), "uniform");
        let member = &group.members[0];
        assert_eq!((member.member_epoch, member.client_id.as_str()), (1, "test"));
        assert_eq!(member.member_type, if version >= 1 { 1 } else { -1 });
        for assignment in [&member.assignment, &member.target_assignment] {
            let it = &assignment.topic_partitions[0];
            assert_eq!((it.topic_name.as_str(), &it.partitions[..]), ("t", &[0, 1][..]));
            assert_eq!(it.topic_id, topic.id.into());
        }
        assert_eq!(described.groups[1].error_code, ErrorCode::GROUP_ID_NOT_FOUND.0);
    }
    let of_classic = DescribeGroupsRequest {
        groups: vec![GROUP],
        ..DescribeGroupsRequest::default()
    };
    let described = client.call(&of_classic, 6).await;
    assert_eq!(described.groups[0].error_code, ErrorCode::GROUP_ID_NOT_FOUND.0);
    let delete = DeleteGroupsRequest {
        groups_names: vec![GROUP],
        ..DeleteGroupsRequest::default()
    };
    let refused = client.call(&delete, 2).await;
    assert_eq!(refused.results[0].error_code, ErrorCode::NON_EMPTY_GROUP.0);
    client.call(&stays(&Str::from_static("a"), -1), 1).await;
    assert_eq!(client.call(&delete, 2).await.results[0].error_code, 0);
    assert_eq!(client.call(&ListGroupsRequest::default(), 5).await.groups, []);
}

#[tokio::test]
async fn commits_and_reads_name_the_epoch() {
    let (_edge, topic, mut client) = edge().await;
    client.call(&joins("a"), 1).await;
    for (version, epoch, code) in [
        (9, 1, ErrorCode::NONE),
        (10, 1, ErrorCode::NONE),
        (9, 0, ErrorCode::STALE_MEMBER_EPOCH),
        (8, 1, ErrorCode::UNSUPPORTED_VERSION),
    ] {
        let commit = OffsetCommitRequest {
            member_id: Str::from_static("a"),
            generation_id_or_member_epoch: epoch,
            ..commit(&topic, version, 4)
        };
        let committed = client.call(&commit, version).await;
        let told = committed.topics[0].partitions[0].error_code;
        assert_eq!(told, code.0, "version {version}, epoch {epoch}");
    }
    let fetch = |member: Option<&'static str>, epoch| OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: GROUP,
            member_id: member.map(Str::from_static),
            member_epoch: epoch,
            topics: None,
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    for (member, epoch, code) in [
        (None, -1, ErrorCode::NONE),
        (Some("a"), 1, ErrorCode::NONE),
        (Some("a"), 0, ErrorCode::STALE_MEMBER_EPOCH),
        (Some("b"), 1, ErrorCode::UNKNOWN_MEMBER_ID),
    ] {
        let found = client.call(&fetch(member, epoch), 9).await;
        assert_eq!(found.groups[0].error_code, code.0, "{member:?} {epoch}");
    }
}
