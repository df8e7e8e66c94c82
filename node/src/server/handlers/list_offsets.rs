//! ListOffsets (key 2): earliest, latest, by timestamp, and the record with the highest timestamp (KIP-734).

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};

use super::{current_epoch, isolation, partition};
use crate::partition::{Isolation, LookupError, OffsetQuery};
use crate::server::errors;
use crate::server::request::Context;

// Timestamps that stand for something else (`ListOffsetsRequest` in Kafka).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// Older clients do not know the error.
const OFFSET_NOT_AVAILABLE_SINCE: i16 = 5;

pub(in crate::server) async fn handle(context: &Context, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation = isolation(request.isolation_level);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            partitions.push(find(context, &topic.name, partition, isolation).await);
        }
        topics.push(ListOffsetsTopicResponse {
            name: topic.name,
            partitions,
            ..ListOffsetsTopicResponse::default()
        });
    }
    ListOffsetsResponse {
        topics,
        ..ListOffsetsResponse::default()
    }
}

async fn find(
    context: &Context,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
) -> ListOffsetsPartitionResponse {
    let mut response = ListOffsetsPartitionResponse {
        partition_index: wanted.partition_index,
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
        ..ListOffsetsPartitionResponse::default()
    };
    let partition = match partition(context, topic, wanted.partition_index) {
        Ok(partition) => partition,
        Err(code) => {
            response.error_code = code.0;
            return response;
        }
    };
    let query = match wanted.timestamp {
        LATEST => OffsetQuery::Latest,
        // Nothing is tiered: what is local is all there is.
        EARLIEST | EARLIEST_LOCAL => OffsetQuery::Earliest,
        MAX_TIMESTAMP => OffsetQuery::MaxTimestamp,
        // Nothing is tiered or waits to be: Kafka answers with no offset.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => return response,
        timestamp if timestamp >= 0 => OffsetQuery::At(timestamp),
        _ => {
            response.error_code = ErrorCode::UNSUPPORTED_VERSION.0;
            return response;
        }
    };
    match partition
        .list_offset(query, isolation, current_epoch(wanted.current_leader_epoch))
        .await
    {
        Ok(Some(found)) => {
            response.timestamp = found.timestamp_ms;
            response.offset = found.offset.0;
            if context.version >= 4 {
                response.leader_epoch = found.leader_epoch.0;
            }
        }
        Ok(None) => {}
        Err(LookupError::NotAvailable) if context.version < OFFSET_NOT_AVAILABLE_SINCE => {
            response.error_code = ErrorCode::LEADER_NOT_AVAILABLE.0;
        }
        Err(error) => response.error_code = errors::of_lookup(&error).0,
    }
    response
}
