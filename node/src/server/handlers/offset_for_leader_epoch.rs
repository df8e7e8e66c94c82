//! OffsetForLeaderEpoch (key 23, KIP-101 and KIP-320): where an epoch ends, so that a reader finds where histories part.

use headwater_protocol::ids::LeaderEpoch;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
};

use super::{current_epoch, partition};
use crate::server::errors;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            partitions.push(end(context, &topic.topic, partition).await);
        }
        topics.push(OffsetForLeaderTopicResult {
            topic: topic.topic,
            partitions,
            ..OffsetForLeaderTopicResult::default()
        });
    }
    OffsetForLeaderEpochResponse {
        topics,
        ..OffsetForLeaderEpochResponse::default()
    }
}

async fn end(context: &Context, topic: &str, wanted: &OffsetForLeaderPartition) -> EpochEndOffset {
    let found = match partition(context, topic, wanted.partition) {
        Err(code) => Err(code),
        Ok(partition) => {
            let current = current_epoch(wanted.current_leader_epoch);
            let found = partition
                .epoch_end(LeaderEpoch(wanted.leader_epoch), current)
                .await;
            found.map_err(|error| errors::of_lookup(&error))
        }
    };
    let (leader_epoch, end_offset, code) = match found {
        Ok(end) => (end.epoch.0, end.end.0, ErrorCode::NONE),
        Err(code) => (-1, -1, code),
    };
    EpochEndOffset {
        error_code: code.0,
        partition: wanted.partition,
        leader_epoch,
        end_offset,
        ..EpochEndOffset::default()
    }
}
