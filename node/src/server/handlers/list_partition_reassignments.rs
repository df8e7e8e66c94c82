//! ListPartitionReassignments (key 46, KIP-455): which replicas are being moved.

use headwater_protocol::ids::{NodeId, PartitionIndex};
use headwater_protocol::kafka::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, OngoingPartitionReassignment,
    OngoingTopicReassignment,
};
use headwater_protocol::primitives::Str;

use crate::metadata::{PartitionState, Topic};
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let image = context.services().view.image();
    let all = |topic: &Topic| ongoing(topic, topic.indexes());
    let topics = match request.topics {
        None => image.topics.values().filter_map(|topic| all(topic)).collect(),
        Some(asked) => asked
            .into_iter()
            .filter_map(|asked| {
                let indexes = asked.partition_indexes.into_iter().map(PartitionIndex);
                ongoing(image.topic(&asked.name)?, indexes)
            })
            .collect(),
    };
    ListPartitionReassignmentsResponse {
        error_message: None,
        topics,
        ..ListPartitionReassignmentsResponse::default()
    }
}

/// What is being moved of a topic; nothing where nothing is.
fn ongoing(topic: &Topic, indexes: impl Iterator<Item = PartitionIndex>) -> Option<OngoingTopicReassignment> {
    let partitions: Vec<_> = indexes
        .filter_map(|index| partition(index, topic.partition(index)?))
        .collect();
    (!partitions.is_empty()).then(|| OngoingTopicReassignment {
        name: Str::from(&*topic.name),
        partitions,
        ..OngoingTopicReassignment::default()
    })
}

fn partition(index: PartitionIndex, state: &PartitionState) -> Option<OngoingPartitionReassignment> {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.value()).collect();
    state.is_moving().then(|| OngoingPartitionReassignment {
        partition_index: index.value(),
        replicas: ids(&state.replicas),
        adding_replicas: ids(&state.adding),
        removing_replicas: ids(&state.removing),
        ..OngoingPartitionReassignment::default()
    })
}
