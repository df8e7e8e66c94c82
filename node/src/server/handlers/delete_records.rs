//! DeleteRecords (key 21, KIP-107): makes everything below an offset unreadable.

use headwater_protocol::ids::Offset;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};

use super::partition;
use crate::metadata::topic::is_reserved;
use crate::server::errors;
use crate::server::request::Context;

/// Stands for the high watermark.
const TO_HIGH_WATERMARK: i64 = -1;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            partitions.push(delete(context, &topic.name, partition).await);
        }
        topics.push(DeleteRecordsTopicResult {
            name: topic.name,
            partitions,
            ..DeleteRecordsTopicResult::default()
        });
    }
    DeleteRecordsResponse {
        topics,
        ..DeleteRecordsResponse::default()
    }
}

async fn delete(
    context: &Context,
    topic: &str,
    wanted: &DeleteRecordsPartition,
) -> DeleteRecordsPartitionResult {
    let done = match partition(context, topic, wanted.partition_index) {
        Err(code) => Err(code),
        // What coordinators still need is theirs to know.
        Ok(_) if is_reserved(topic) => Err(ErrorCode::INVALID_TOPIC_EXCEPTION),
        Ok(_) if wanted.offset < TO_HIGH_WATERMARK => Err(ErrorCode::OFFSET_OUT_OF_RANGE),
        Ok(partition) => {
            let before = (wanted.offset != TO_HIGH_WATERMARK).then_some(Offset(wanted.offset));
            partition
                .delete_records(before)
                .await
                .map_err(|error| errors::of_lookup(&error))
        }
    };
    let (low_watermark, code) = match done {
        Ok(start) => (start.0, ErrorCode::NONE),
        Err(code) => (-1, code),
    };
    DeleteRecordsPartitionResult {
        partition_index: wanted.partition_index,
        low_watermark,
        error_code: code.0,
        ..DeleteRecordsPartitionResult::default()
    }
}
