//! DescribeQuorum (key 55, KIP-595): who leads the metadata quorum, who takes part, and how far each is.

use headwater_protocol::ids::{NodeId, Offset};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Listener, Node, ReplicaState, RequestTopicData,
    ResponsePartitionData, ResponseTopicData,
};
use headwater_protocol::primitives::{Str, Uuid};

use super::addresses;
use super::refusal::Refusal;
use crate::controller::QuorumState;
use crate::metadata::{self, Image};
use crate::server::request::Context;
use crate::transport::ListenerKind;

/// What Kafka calls the quorum's log.
const TOPIC: &str = "__cluster_metadata";
/// The first version that says which directory a replica is on.
const DIRECTORIES_SINCE: i16 = 2;
/// A time that is not told.
const UNKNOWN: i64 = -1;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let mut response = DescribeQuorumResponse {
        error_message: None,
        ..DescribeQuorumResponse::default()
    };
    let state = match context.services().controller.describe_quorum().await {
        Ok(state) => state,
        Err(error) => {
            let refusal = Refusal::from(error);
            response.error_code = refusal.code.0;
            response.error_message = refusal.text();
            return response;
        }
    };
    let image = context.services().controller.known();
    let describe = |asked: RequestTopicData| {
        let partitions = asked.partitions.into_iter().map(|partition| {
            let index = partition.partition_index;
            if *asked.topic_name == *TOPIC && index == 0 {
                described(&state, &image, context.version)
            } else {
                unknown(index)
            }
        });
        ResponseTopicData {
            partitions: partitions.collect(),
            topic_name: asked.topic_name,
            ..ResponseTopicData::default()
        }
    };
    response.topics = request.topics.into_iter().map(describe).collect();
    if context.version >= 2 {
        let members = image
            .nodes
            .values()
            .filter(|node| state.addresses.contains_key(&node.id));
        response.nodes = members.map(node).collect();
    }
    response
}

fn unknown(partition_index: i32) -> ResponsePartitionData {
    ResponsePartitionData {
        partition_index,
        error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
        error_message: None,
        ..ResponsePartitionData::default()
    }
}

fn described(state: &QuorumState, image: &Image, version: i16) -> ResponsePartitionData {
    let replica = |id: &NodeId| replica(*id, state, image, version);
    ResponsePartitionData {
        error_message: None,
        leader_id: state.leader.unwrap_or(NodeId::NONE).value(),
        leader_epoch: i32::try_from(state.term).unwrap_or(i32::MAX),
        high_watermark: state.applied.plus(1).value(),
        current_voters: state.voters.iter().map(replica).collect(),
        observers: state.observers.iter().map(replica).collect(),
        ..ResponsePartitionData::default()
    }
}

fn replica(id: NodeId, state: &QuorumState, image: &Image, version: i16) -> ReplicaState {
    let end = if state.leader == Some(id) {
        Some(state.log_end)
    } else {
        state.reached.get(&id).copied()
    };
    let directory = image.nodes.get(&id).and_then(|node| node.directory.parse().ok());
    let directory = directory.filter(|_| version >= DIRECTORIES_SINCE);
    ReplicaState {
        replica_id: id.value(),
        replica_directory_id: directory.unwrap_or(Uuid::ZERO),
        log_end_offset: end.map_or(UNKNOWN, Offset::value),
        last_fetch_timestamp: UNKNOWN,
        last_caught_up_timestamp: UNKNOWN,
        ..ReplicaState::default()
    }
}

fn node(node: &metadata::Node) -> Node {
    let listener = addresses::of(node, ListenerKind::Quic).map(|(host, port)| Listener {
        name: Str::from_static("QUIC"),
        host,
        port: u16::try_from(port).unwrap_or(0),
        ..Listener::default()
    });
    Node {
        node_id: node.id.value(),
        listeners: listener.into_iter().collect(),
        ..Node::default()
    }
}
