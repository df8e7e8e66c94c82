//! What an operator's tools do to a cluster: moving replicas, electing leaders, members of the quorum.

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_raft_voter::AddRaftVoterRequest;
use headwater_protocol::kafka::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use headwater_protocol::kafka::describe_quorum::{
    DescribeQuorumRequest, RequestPartitionData, RequestTopicData,
};
use headwater_protocol::kafka::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use headwater_protocol::kafka::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsTopics,
};
use headwater_protocol::kafka::remove_raft_voter::RemoveRaftVoterRequest;
use headwater_protocol::kafka::unregister_broker::UnregisterBrokerRequest;
use headwater_protocol::primitives::Uuid;

use super::*;

/// A second node that registered and was not heard of since.
async fn register_second(edge: &Edge) {
    let addresses = Addresses {
        tcp: "second.example:9092".to_owned(),
        tls: String::new(),
        quic: "second.example:9094".to_owned(),
        http: String::new(),
    };
    let mut node = Node::new(NodeId(2), addresses, None);
    node.directory = Uuid::from_u128(2).to_string();
    node.features = features::Supported::default().registered();
    edge.services
        .controller
        .propose(Change::RegisterNode(node))
        .await
        .unwrap();
}

fn move_to(topic: &str, index: i32, replicas: Option<&[i32]>) -> AlterPartitionReassignmentsRequest {
    let partition = ReassignablePartition {
        partition_index: index,
        replicas: replicas.map(<[i32]>::to_vec),
        ..Default::default()
    };
    AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: Str::from(topic),
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    }
}

async fn moved(client: &mut Client, request: &AlterPartitionReassignmentsRequest, version: i16) -> ErrorCode {
    let response = client.call(request, version).await;
    let partition = &response.responses[0].partitions[0];
    assert_eq!(response.error_code, 0);
    assert_eq!(response.responses[0].name, request.topics[0].name);
    assert_eq!(
        partition.partition_index,
        request.topics[0].partitions[0].partition_index
    );
    assert_eq!(partition.error_code == 0, partition.error_message.is_none());
    ErrorCode(partition.error_code)
}

/// What is being moved: topic, partition, replicas, adding, removing.
async fn listed(client: &mut Client, topics: Option<&[(&str, &[i32])]>) -> Vec<(String, i32, [Vec<i32>; 3])> {
    let topics = topics.map(|topics| {
        let topics = topics
            .iter()
            .map(|(name, indexes)| ListPartitionReassignmentsTopics {
                name: Str::from(*name),
                partition_indexes: indexes.to_vec(),
                ..Default::default()
            });
        topics.collect()
    });
    let request = ListPartitionReassignmentsRequest {
        topics,
        ..Default::default()
    };
    let response = client.call(&request, 0).await;
    assert_eq!(response.error_code, 0);
    let of_topic = response.topics.into_iter().flat_map(|topic| {
        let name = topic.name.to_string();
        topic.partitions.into_iter().map(move |it| {
            let sets = [it.replicas, it.adding_replicas, it.removing_replicas];
            (name.clone(), it.partition_index, sets)
        })
    });
    of_topic.collect()
}

#[tokio::test]
async fn replicas_are_moved_listed_and_moved_back() {
    let edge = Edge::new().await;
    register_second(&edge).await;
    let topic = edge.topic("t", 2).await;
    let mut client = edge.client().await;
    assert_eq!(client.produce(&topic, batch(&["before"])).await.error_code, 0);
    for version in 0..=1 {
        for (request, expected) in [
            (move_to("u", 0, Some(&[1])), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            (move_to("t", 2, Some(&[1])), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            (
                move_to("t", i32::MIN, None),
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            ),
            (move_to("t", 0, None), ErrorCode::NO_REASSIGNMENT_IN_PROGRESS),
            (move_to("t", 0, Some(&[])), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
            (
                move_to("t", 0, Some(&[1, 1])),
                ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            ),
            (
                move_to("t", 0, Some(&[1, 7])),
                ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            ),
            (
                move_to("t", 0, Some(&[-1])),
                ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            ),
            (move_to("t", 0, Some(&[2, 1])), ErrorCode::NONE),
        ] {
            assert_eq!(moved(&mut client, &request, version).await, expected);
        }
        let ongoing = ("t".to_owned(), 0, [vec![2, 1], vec![2], vec![]]);
        assert_eq!(listed(&mut client, None).await, std::slice::from_ref(&ongoing));
        assert_eq!(
            listed(&mut client, Some(&[("t", &[1, 0, 5]), ("u", &[0])])).await,
            [ongoing]
        );
        assert_eq!(listed(&mut client, Some(&[("t", &[1])])).await, []);
        assert_eq!(
            moved(&mut client, &move_to("t", 0, None), version).await,
            ErrorCode::NONE
        );
        assert_eq!(listed(&mut client, None).await, []);
    }
    let fixed = AlterPartitionReassignmentsRequest {
        allow_replication_factor_change: false,
        ..move_to("t", 0, Some(&[1, 2]))
    };
    assert_eq!(
        moved(&mut client, &fixed, 1).await,
        ErrorCode::INVALID_REPLICATION_FACTOR
    );
    let written = edge.services.controller.known().offset;
    edge.services.registry.reconciled(written).await;
    assert_eq!(client.produce(&topic, batch(&["after"])).await.error_code, 0);
}

#[tokio::test]
async fn leaders_are_elected_where_that_is_needed() {
    let edge = Edge::new().await;
    register_second(&edge).await;
    edge.topic("t", 2).await;
    let mut client = edge.client().await;
    let mut elect = async |version, election_type, partitions: Option<&[i32]>| {
        let topics = partitions.map(|partitions| {
            vec![TopicPartitions {
                topic: Str::from_static("t"),
                partitions: partitions.to_vec(),
                ..Default::default()
            }]
        });
        let request = ElectLeadersRequest {
            election_type,
            topic_partitions: topics,
            timeout_ms: 1000,
            ..Default::default()
        };
        let response = client.call(&request, version).await;
        let results = response.replica_election_results.into_iter();
        let codes = results.flat_map(|topic| topic.partition_result);
        (
            ErrorCode(response.error_code),
            codes
                .map(|result| (result.partition_id, ErrorCode(result.error_code)))
                .collect::<Vec<_>>(),
        )
    };
    for (version, kinds) in [(0, 0..=0), (1, 0..=1), (2, 0..=1)] {
        for kind in kinds {
            assert_eq!(elect(version, kind, None).await, (ErrorCode::NONE, vec![]));
            let codes = vec![
                (1, ErrorCode::ELECTION_NOT_NEEDED),
                (9, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            ];
            assert_eq!(
                elect(version, kind, Some(&[1, 9])).await,
                (ErrorCode::NONE, codes)
            );
        }
    }
    assert_eq!(elect(2, 7, None).await.0, ErrorCode::INVALID_REQUEST);
    // The second node is preferred from now on, and holds nothing yet.
    let mut other = edge.client().await;
    let request = move_to("t", 1, Some(&[2, 1]));
    assert_eq!(moved(&mut other, &request, 0).await, ErrorCode::NONE);
    let codes = vec![(1, ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE)];
    assert_eq!(elect(2, 0, None).await, (ErrorCode::NONE, codes));
}

#[tokio::test]
async fn the_quorum_is_described() {
    let edge = Edge::new().await;
    let mut client = edge.client().await;
    for version in 0..=2 {
        let asked = |topic: &'static str, index| RequestTopicData {
            topic_name: Str::from_static(topic),
            partitions: vec![RequestPartitionData {
                partition_index: index,
                ..Default::default()
            }],
            ..Default::default()
        };
        let request = DescribeQuorumRequest {
            topics: vec![
                asked("__cluster_metadata", 0),
                asked("__cluster_metadata", 1),
                asked("t", 0),
            ],
            ..Default::default()
        };
        let response = client.call(&request, version).await;
        let of_topic = response.topics.iter().map(|topic| &topic.partitions[0]);
        let codes: Vec<_> = of_topic
            .map(|partition| ErrorCode(partition.error_code))
            .collect();
        let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        assert_eq!(codes, [ErrorCode::NONE, unknown, unknown]);
        let quorum = &response.topics[0].partitions[0];
        let [voter] = &quorum.current_voters[..] else {
            panic!("{quorum:?}")
        };
        assert_eq!((quorum.leader_id, voter.replica_id), (1, 1));
        let directory = if version < 2 { 0 } else { 1 };
        assert_eq!(voter.replica_directory_id, Uuid::from_u128(directory));
        assert!(quorum.high_watermark > 0 && voter.log_end_offset >= quorum.high_watermark);
        assert!(quorum.observers.is_empty() && quorum.leader_epoch > 0);
        let nodes: Vec<i32> = response.nodes.iter().map(|node| node.node_id).collect();
        assert_eq!(nodes, if version < 2 { vec![] } else { vec![1] });
    }
}

#[tokio::test]
async fn members_are_named_well_or_refused() {
    let edge = Edge::new().await;
    register_second(&edge).await;
    edge.topic("t", 1).await;
    let mut client = edge.client().await;
    let add = |id, cluster: Option<&'static str>, directory| AddRaftVoterRequest {
        cluster_id: cluster.map(Str::from_static),
        timeout_ms: 1000,
        voter_id: id,
        voter_directory_id: directory,
        ..Default::default()
    };
    for version in 0..=1 {
        for (request, expected) in [
            (add(1, Some("lab"), Uuid::ZERO), ErrorCode::DUPLICATE_VOTER),
            (
                add(2, Some("other"), Uuid::ZERO),
                ErrorCode::INCONSISTENT_CLUSTER_ID,
            ),
            (add(2, None, Uuid::from_u128(3)), ErrorCode::INVALID_VOTER_KEY),
            (add(9, None, Uuid::ZERO), ErrorCode::POLICY_VIOLATION),
        ] {
            let response = client.call(&request, version).await;
            assert_eq!(
                ErrorCode(response.error_code),
                expected,
                "{:?}",
                response.error_message
            );
        }
    }
    let remove = |id| RemoveRaftVoterRequest {
        cluster_id: None,
        voter_id: id,
        ..Default::default()
    };
    for (id, expected) in [(2, ErrorCode::VOTER_NOT_FOUND), (1, ErrorCode::POLICY_VIOLATION)] {
        let response = client.call(&remove(id), 0).await;
        assert_eq!(
            ErrorCode(response.error_code),
            expected,
            "{:?}",
            response.error_message
        );
    }
    let mut unregister = async |id| {
        let request = UnregisterBrokerRequest {
            broker_id: id,
            ..Default::default()
        };
        ErrorCode(client.call(&request, 0).await.error_code)
    };
    assert_eq!(unregister(9).await, ErrorCode::BROKER_ID_NOT_REGISTERED);
    assert_eq!(unregister(1).await, ErrorCode::POLICY_VIOLATION);
    assert_eq!(unregister(2).await, ErrorCode::NONE);
    assert_eq!(unregister(2).await, ErrorCode::BROKER_ID_NOT_REGISTERED);
    let state = edge.services.controller.quorum();
    assert!(state.observers.is_empty(), "{state:?}");
}
