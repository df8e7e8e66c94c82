//! AlterShareGroupOffsets (key 91, KIP-932): a share group without members begins anew at other offsets.

use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestTopic, AlterShareGroupOffsetsResponse,
    AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
};

use super::share;
use crate::metadata::Image;
use crate::server::errors;
use crate::server::request::Context;
use crate::share::Place;

pub(in crate::server) async fn handle(
    context: &Context,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    match alter(context, &request).await {
        Ok(responses) => AlterShareGroupOffsetsResponse {
            responses,
            ..AlterShareGroupOffsetsResponse::default()
        },
        Err(code) => AlterShareGroupOffsetsResponse {
            error_code: code.0,
            ..AlterShareGroupOffsetsResponse::default()
        },
    }
}

async fn alter(
    context: &Context,
    request: &AlterShareGroupOffsetsRequest,
) -> Result<Vec<AlterShareGroupOffsetsResponseTopic>, ErrorCode> {
    let group = share::empty_group(context, &request.group_id).await?;
    let image = context.services().view.image();
    let mut starts = Vec::new();
    let topics = request.topics.iter();
    let responses = topics.map(|topic| told(&image, topic, &mut starts)).collect();
    if !starts.is_empty() {
        let altered = context.services().shares.alter(&group, starts).await;
        altered.map_err(|error| errors::of_share(&error))?;
    }
    Ok(responses)
}

/// Partitions that are there are altered, others told of.
fn told(
    image: &Image,
    topic: &AlterShareGroupOffsetsRequestTopic,
    starts: &mut Vec<(Place, Offset)>,
) -> AlterShareGroupOffsetsResponseTopic {
    let known = image.topic(&topic.topic_name);
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for wanted in &topic.partitions {
        let index = PartitionIndex(wanted.partition_index);
        let code = match known.filter(|topic| topic.partition(index).is_some()) {
            Some(topic) if wanted.start_offset >= 0 => {
                starts.push(((topic.id, index), Offset(wanted.start_offset)));
                ErrorCode::NONE
            }
            Some(_) => ErrorCode::INVALID_REQUEST,
            None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        };
        partitions.push(AlterShareGroupOffsetsResponsePartition {
            partition_index: wanted.partition_index,
            error_code: code.0,
            ..AlterShareGroupOffsetsResponsePartition::default()
        });
    }
    AlterShareGroupOffsetsResponseTopic {
        topic_name: topic.topic_name.clone(),
        topic_id: known.map(|topic| topic.id.into()).unwrap_or_default(),
        partitions,
        ..AlterShareGroupOffsetsResponseTopic::default()
    }
}
