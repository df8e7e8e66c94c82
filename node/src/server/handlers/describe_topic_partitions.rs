//! DescribeTopicPartitions (key 75, KIP-966): topics by name in pages.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic, ResponseCursor,
};
use headwater_protocol::primitives::Str;

use super::{OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS};
use crate::metadata::{PartitionState, Topic};
use crate::server::request::Context;

/// Partitions in one answer, whatever the client asks for (`max.request.partition.size.limit` in Kafka).
const PARTITIONS_MAX: i32 = 2000;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = context.services().view.image();
    let mut names: Vec<Str> = request.topics.into_iter().map(|topic| topic.name).collect();
    if names.is_empty() {
        names = image.topics.keys().map(|name| Str::from(&**name)).collect();
    }
    names.sort();
    names.dedup();
    let (from_topic, mut from_partition) = request.cursor.map_or((None, 0), |cursor| {
        (Some(cursor.topic_name), cursor.partition_index.max(0))
    });
    let mut left = request.response_partition_limit.clamp(1, PARTITIONS_MAX);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names
        .into_iter()
        .filter(|name| from_topic.as_ref().is_none_or(|from| name >= from))
    {
        if from_topic.as_ref() != Some(&name) {
            from_partition = 0;
        }
        let Some(topic) = image.topic(&name) else {
            response.topics.push(unknown(name));
            continue;
        };
        if left == 0 {
            response.next_cursor = Some(cursor(name, 0));
            return response;
        }
        let described = describe(topic, from_partition, left);
        let given = described.partitions.len() as i32;
        left -= given;
        response.topics.push(described);
        if from_partition + given < topic.partitions.len() as i32 {
            response.next_cursor = Some(cursor(name, from_partition + given));
            return response;
        }
    }
    response
}

fn cursor(topic_name: Str, partition_index: i32) -> ResponseCursor {
    ResponseCursor {
        topic_name,
        partition_index,
        ..ResponseCursor::default()
    }
}

fn unknown(name: Str) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
        name: Some(name),
        topic_authorized_operations: OPERATIONS_NOT_ASKED,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn describe(topic: &Topic, from: i32, most: i32) -> DescribeTopicPartitionsResponseTopic {
    let indexed = (0..)
        .zip(&topic.partitions)
        .skip(from as usize)
        .take(most as usize);
    DescribeTopicPartitionsResponseTopic {
        name: Some(Str::from(&*topic.name)),
        topic_id: topic.id.into(),
        is_internal: topic.internal,
        partitions: indexed.map(|(index, state)| partition(index, state)).collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn partition(index: i32, state: &PartitionState) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition {
        partition_index: index,
        leader_id: state.leader.0,
        leader_epoch: state.leader_epoch.0,
        replica_nodes: state.replicas.iter().map(|node| node.0).collect(),
        isr_nodes: state.isr.iter().map(|node| node.0).collect(),
        // Java's client throws on null, which the schema allows.
        eligible_leader_replicas: Some(state.eligible.iter().map(|node| node.0).collect()),
        last_known_elr: Some(Vec::new()),
        ..DescribeTopicPartitionsResponsePartition::default()
    }
}
