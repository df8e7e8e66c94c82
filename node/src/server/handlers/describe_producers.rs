//! DescribeProducers (key 61, KIP-664): who writes to a partition with sequence numbers, as this replica knows.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};

use super::partition;
use super::refusal::Refusal;
use crate::partition::Unavailable;
use crate::partition::producers::ProducerDescription;
use crate::server::errors;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut indexes = topic.partition_indexes;
        // Named a thousand times, a partition would fill the memory with one small request.
        indexes.sort_unstable();
        indexes.dedup();
        let mut partitions = Vec::with_capacity(indexes.len());
        for index in indexes {
            let described = described(context, &topic.name, index).await;
            partitions.push(response(index, described));
        }
        topics.push(TopicResponse {
            name: topic.name,
            partitions,
            ..TopicResponse::default()
        });
    }
    DescribeProducersResponse {
        topics,
        ..DescribeProducersResponse::default()
    }
}

async fn described(context: &Context, topic: &str, index: i32) -> Result<Vec<ProducerDescription>, Refusal> {
    let found = partition(context, topic, index).map_err(|code| {
        let message = format!("no replica of partition {index} of {topic:?} is here");
        Refusal::new(code, message)
    })?;
    let described = found.describe_producers().await;
    described.map_err(|error: Unavailable| Refusal::new(errors::of_unavailable(&error), error.to_string()))
}

fn response(index: i32, described: Result<Vec<ProducerDescription>, Refusal>) -> PartitionResponse {
    let (producers, code, message) = match described {
        Ok(producers) => (producers, ErrorCode::NONE, None),
        Err(refusal) => (Vec::new(), refusal.code, refusal.text()),
    };
    PartitionResponse {
        partition_index: index,
        error_code: code.0,
        error_message: message,
        active_producers: producers.into_iter().map(state).collect(),
        ..PartitionResponse::default()
    }
}

fn state(producer: ProducerDescription) -> ProducerState {
    ProducerState {
        producer_id: producer.id.value(),
        producer_epoch: producer.epoch.value().into(),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.seen_ms,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.open_from.map_or(-1, |offset| offset.value()),
        ..ProducerState::default()
    }
}
