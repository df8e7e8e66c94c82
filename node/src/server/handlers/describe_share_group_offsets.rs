//! DescribeShareGroupOffsets (key 90, KIP-932): where a share group is in each partition: everything before that is done with.

use std::collections::BTreeMap;

use headwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsRequestTopic, DescribeShareGroupOffsetsResponse,
    DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
    DescribeShareGroupOffsetsResponseTopic,
};
use headwater_protocol::primitives::Str;

use super::share;
use crate::metadata::Image;
use crate::server::errors;
use crate::server::request::Context;
use crate::share::{Place, Seen};

/// What is told where nobody knows.
const UNKNOWN: i64 = -1;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let described = describe(context, &group).await;
        groups.push(
            described.unwrap_or_else(|code| DescribeShareGroupOffsetsResponseGroup {
                group_id: group.group_id,
                error_code: code.0,
                ..DescribeShareGroupOffsetsResponseGroup::default()
            }),
        );
    }
    DescribeShareGroupOffsetsResponse {
        groups,
        ..DescribeShareGroupOffsetsResponse::default()
    }
}

async fn describe(
    context: &Context,
    wanted: &DescribeShareGroupOffsetsRequestGroup,
) -> Result<DescribeShareGroupOffsetsResponseGroup, ErrorCode> {
    let group = share::known_group(context, &wanted.group_id).await?.group;
    let seen = context.services().shares.see(&group, None).await;
    let seen = seen.map_err(|error| errors::of_share(&error))?;
    let image = context.services().view.image();
    let topics = match &wanted.topics {
        Some(topics) => {
            let seen: BTreeMap<Place, Seen> = seen.into_iter().collect();
            topics
                .iter()
                .map(|topic| named(context, &image, topic, &seen))
                .collect()
        }
        None => {
            let mut topics: BTreeMap<TopicId, Vec<(PartitionIndex, Seen)>> = BTreeMap::new();
            for ((topic, index), seen) in seen {
                topics.entry(topic).or_default().push((index, seen));
            }
            let known = topics.into_iter().filter_map(|(id, partitions)| {
                let topic = image.topic_by_id(id)?;
                let partitions = partitions.into_iter();
                Some(DescribeShareGroupOffsetsResponseTopic {
                    topic_name: Str::from(&*topic.name),
                    topic_id: id.into(),
                    partitions: partitions
                        .map(|(index, seen)| partition(context, (id, index), Some(&seen)))
                        .collect(),
                    ..DescribeShareGroupOffsetsResponseTopic::default()
                })
            });
            known.collect()
        }
    };
    Ok(DescribeShareGroupOffsetsResponseGroup {
        group_id: wanted.group_id.clone(),
        topics,
        ..DescribeShareGroupOffsetsResponseGroup::default()
    })
}

fn named(
    context: &Context,
    image: &Image,
    topic: &DescribeShareGroupOffsetsRequestTopic,
    seen: &BTreeMap<Place, Seen>,
) -> DescribeShareGroupOffsetsResponseTopic {
    let id = image.topic(&topic.topic_name).map(|topic| topic.id);
    let told = |index: &i32| match id {
        Some(id) => {
            let place = (id, PartitionIndex(*index));
            partition(context, place, seen.get(&place))
        }
        None => DescribeShareGroupOffsetsResponsePartition {
            partition_index: *index,
            start_offset: UNKNOWN,
            error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
            ..DescribeShareGroupOffsetsResponsePartition::default()
        },
    };
    DescribeShareGroupOffsetsResponseTopic {
        topic_name: topic.topic_name.clone(),
        topic_id: id.unwrap_or(TopicId::NONE).into(),
        partitions: topic.partitions.iter().map(told).collect(),
        ..DescribeShareGroupOffsetsResponseTopic::default()
    }
}

/// A group that was never delivered from a partition is nowhere in it. How far it lags is known where the partition is led.
fn partition(
    context: &Context,
    place: Place,
    seen: Option<&Seen>,
) -> DescribeShareGroupOffsetsResponsePartition {
    let start = seen.and_then(|seen| seen.start);
    let lag = || {
        let (partition, _) = share::locate(context, place).ok()?;
        let end = partition.watermarks().borrow().high_watermark;
        Some((end.since(start?) - seen?.complete).max(0))
    };
    DescribeShareGroupOffsetsResponsePartition {
        partition_index: place.1.value(),
        start_offset: start.map_or(UNKNOWN, Offset::value),
        leader_epoch: seen.map_or(0, |seen| seen.leader_epoch.value()),
        lag: lag().unwrap_or(UNKNOWN),
        ..DescribeShareGroupOffsetsResponsePartition::default()
    }
}
