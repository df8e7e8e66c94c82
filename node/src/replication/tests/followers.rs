//! What followers answer to consumers, and to whom a leader sends them.

use super::cluster::{TOPIC, peer};
use super::*;
use crate::transport::{Stream, memory};
use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ReplicaState,
};
use headwater_protocol::kafka::{ErrorCode, decode_response, encode_request};
use headwater_protocol::primitives::Str;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

fn open(cluster: &Cluster, node: i32, as_node: Option<i32>) -> Stream {
    let (here, there) = memory::pair(&CancellationToken::new());
    cluster.members[&NodeId(node)]
        .server
        .serve_stream(there, peer(as_node.map(NodeId)));
    here
}

async fn fetch(stream: &mut Stream, request: &FetchRequest, version: i16) -> FetchResponse {
    let client_id = Str::from_static("test");
    for buffer in encode_request(request, version, 1, Some(&client_id)).unwrap() {
        stream.writer.write_all(&buffer).await.unwrap();
    }
    let length = stream.reader.read_u32().await.unwrap();
    let mut frame = vec![0; length as usize];
    stream.reader.read_exact(&mut frame).await.unwrap();
    decode_response::<FetchRequest>(frame.into(), version).unwrap().1
}

fn request(offset: i64, rack: &str) -> FetchRequest {
    let partition = FetchPartition {
        fetch_offset: offset,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    FetchRequest {
        min_bytes: 1,
        max_bytes: 1 << 20,
        rack_id: Str::from(rack),
        topics: vec![FetchTopic {
            topic: Str::from_static("t"),
            topic_id: TOPIC.into(),
            partitions: vec![partition],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

#[tokio::test]
async fn a_consumer_is_sent_to_the_follower_in_its_rack_and_served_there() {
    let cluster = Cluster::new(1, 3, 1, &[]).await;
    let leader = cluster.get(1, 0);
    for round in 0..3 {
        let bytes = batch(&values(round, 1));
        write(&leader, bytes).await;
    }
    cluster.converged(0).await;
    let mut at_leader = open(&cluster, 1, None);
    let only = |response: FetchResponse| response.responses[0].partitions[0].clone();
    for (rack, version, preferred) in [
        ("rack 2", 13, 2),
        ("rack 1", 13, -1),
        ("rack 9", 13, -1),
        ("", 13, -1),
    ] {
        let found = only(fetch(&mut at_leader, &request(0, rack), version).await);
        assert_eq!(found.preferred_read_replica, preferred, "{rack}");
        assert_eq!(found.records.unwrap_or_default().is_empty(), preferred >= 0);
    }
    let mut at_follower = open(&cluster, 2, None);
    let found = only(fetch(&mut at_follower, &request(1, "rack 2"), 13).await);
    assert_eq!((found.error_code, found.high_watermark), (0, 3));
    assert!(!found.records.unwrap_or_default().is_empty());
    let found = only(fetch(&mut at_follower, &request(9, "rack 2"), 13).await);
    assert_eq!(found.error_code, ErrorCode::OFFSET_NOT_AVAILABLE.0);
    // A consumer of old knows leaders only.
    let old = FetchRequest {
        rack_id: Str::default(),
        ..request(1, "")
    };
    let found = only(fetch(&mut at_follower, &old, 10).await);
    assert_eq!(found.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
}

#[tokio::test]
async fn a_session_hears_that_somebody_else_leads_though_no_record_came() {
    let cluster = Cluster::new(1, 2, 1, &[]).await;
    cluster.converged(0).await;
    let mut stream = open(&cluster, 1, None);
    let begin = FetchRequest {
        session_epoch: 0,
        ..request(0, "")
    };
    let id = fetch(&mut stream, &begin, 10).await.session_id;
    assert_ne!(id, 0);
    let next = |epoch| FetchRequest {
        session_id: id,
        session_epoch: epoch,
        topics: Vec::new(),
        ..request(0, "")
    };
    let response = fetch(&mut stream, &next(1), 10).await;
    assert!(response.responses.is_empty(), "there is nothing to say");
    cluster.elect(0, 2, &[1, 2]).await;
    let response = fetch(&mut stream, &next(2), 10).await;
    let told = response.responses[0].partitions[0].error_code;
    assert_eq!(ErrorCode(told), ErrorCode::NOT_LEADER_OR_FOLLOWER);
}

#[tokio::test]
async fn nobody_is_a_replica_but_on_his_own_stream() {
    let cluster = Cluster::new(1, 2, 1, &[]).await;
    let as_replica = |node: i32, epoch: i64| FetchRequest {
        replica_state: ReplicaState {
            replica_id: node,
            replica_epoch: epoch,
            ..ReplicaState::default()
        },
        ..request(0, "")
    };
    for (as_node, named, epoch, expected) in [
        (None, 2, 0, ErrorCode::CLUSTER_AUTHORIZATION_FAILED),
        (Some(1), 2, 0, ErrorCode::CLUSTER_AUTHORIZATION_FAILED),
        (Some(2), 2, 0, ErrorCode::NONE),
    ] {
        let mut stream = open(&cluster, 1, as_node);
        let response = fetch(&mut stream, &as_replica(named, epoch), 17).await;
        assert_eq!(ErrorCode(response.error_code), expected);
    }
    let named_as_of_old = FetchRequest {
        replica_id: 2,
        ..request(0, "")
    };
    let mut stream = open(&cluster, 1, None);
    let response = fetch(&mut stream, &named_as_of_old, 13).await;
    assert_eq!(
        ErrorCode(response.error_code),
        ErrorCode::CLUSTER_AUTHORIZATION_FAILED
    );
}

#[tokio::test]
async fn followers_hear_soon_how_far_all_is_committed() {
    let cluster = Cluster::new(1, 3, 1, &[]).await;
    let leader = cluster.get(1, 0);
    cluster.converged(0).await;
    write(&leader, batch(&values(0, 1))).await;
    cluster.clock.sleep(Duration::from_millis(30)).await;
    assert_eq!(cluster.records(2, 0).await.len(), 1);
    assert_eq!(cluster.records(3, 0).await.len(), 1);
}

#[tokio::test]
async fn acknowledgements_take_no_time_but_the_way_whatever_other_partitions_do() {
    let cluster = Cluster::new(1, 3, 20, &[("min.insync.replicas", "3")]).await;
    for index in 0..20 {
        cluster.converged(index).await;
    }
    cluster.clock.sleep(Duration::from_secs(2)).await;
    for round in 0..50 {
        let leader = cluster.get(1, round % 20);
        let before = cluster.clock.now();
        let bytes = batch(&values(0, 1));
        write(&leader, bytes).await;
        // Nothing here takes time: whoever waited for a timer would show.
        let took = cluster.clock.now().duration_since(before);
        assert!(took <= Duration::from_millis(1), "round {round} took {took:?}");
    }
}
