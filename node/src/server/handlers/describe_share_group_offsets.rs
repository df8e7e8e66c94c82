//! DescribeShareGroupOffsets (key 90, KIP-932): where a share group is in each partition: everything before that is done with.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use headwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsRequestTopic, DescribeShareGroupOffsetsResponse,
    DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
    DescribeShareGroupOffsetsResponseTopic,
};
use headwater_protocol::primitives::Str;

use super::{ends, share};
use crate::metadata::Image;
use crate::server::errors;
use crate::server::request::Context;
use crate::share::{Place, Seen};

/// What is told where nobody knows.
const UNKNOWN: i64 = -1;

/// Where a group is in each partition that it was delivered from, or was told to begin in.
type Places = BTreeMap<Place, Seen>;

/// What all groups of a request are told from.
struct Basis<'a> {
    image: &'a Image,
    ends: BTreeMap<Place, Offset>,
}

pub(in crate::server) async fn handle(
    context: &Context,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let groups = request.groups.into_iter().map(async |group| {
        let seen = see(context, &group).await;
        (group, seen)
    });
    let groups = join_all(groups).await;
    let image = context.services().view.image();
    let seen = groups.iter().filter_map(|(_, seen)| seen.as_ref().ok());
    let known = seen.flatten().filter(|(_, seen)| seen.start.is_some());
    let places: BTreeSet<Place> = known.map(|(place, _)| *place).collect();
    let basis = Basis {
        image: &image,
        ends: ends::of(context, &image, &places).await,
    };
    let described = |(wanted, seen): (DescribeShareGroupOffsetsRequestGroup, Result<Places, ErrorCode>)| {
        let (topics, code) = match seen {
            Ok(seen) => (basis.topics(&wanted, &seen), ErrorCode::NONE),
            Err(code) => (Vec::new(), code),
        };
        DescribeShareGroupOffsetsResponseGroup {
            group_id: wanted.group_id,
            topics,
            error_code: code.0,
            ..DescribeShareGroupOffsetsResponseGroup::default()
        }
    };
    DescribeShareGroupOffsetsResponse {
        groups: groups.into_iter().map(described).collect(),
        ..DescribeShareGroupOffsetsResponse::default()
    }
}

/// Of all partitions, or of those that are asked for.
async fn see(context: &Context, wanted: &DescribeShareGroupOffsetsRequestGroup) -> Result<Places, ErrorCode> {
    let group = share::known_group(context, &wanted.group_id).await?.group;
    let seen = context.services().shares.see(&group, None).await;
    let mut seen: Places = seen
        .map_err(|error| errors::of_share(&error))?
        .into_iter()
        .collect();
    if let Some(topics) = &wanted.topics {
        let image = context.services().view.image();
        let named = topics.iter().filter_map(|topic| {
            let id = image.topic(&topic.topic_name)?.id;
            Some(
                topic
                    .partitions
                    .iter()
                    .map(move |index| (id, PartitionIndex(*index))),
            )
        });
        let named: BTreeSet<Place> = named.flatten().collect();
        seen.retain(|place, _| named.contains(place));
    }
    Ok(seen)
}

impl Basis<'_> {
    fn topics(
        &self,
        wanted: &DescribeShareGroupOffsetsRequestGroup,
        seen: &Places,
    ) -> Vec<DescribeShareGroupOffsetsResponseTopic> {
        if let Some(topics) = &wanted.topics {
            return topics.iter().map(|topic| self.named(topic, seen)).collect();
        }
        let mut topics: BTreeMap<TopicId, Vec<(PartitionIndex, &Seen)>> = BTreeMap::new();
        for ((topic, index), seen) in seen {
            topics.entry(*topic).or_default().push((*index, seen));
        }
        let known = topics.into_iter().filter_map(|(id, partitions)| {
            let topic = self.image.topic_by_id(id)?;
            let partitions = partitions.into_iter();
            Some(DescribeShareGroupOffsetsResponseTopic {
                topic_name: Str::from(&*topic.name),
                topic_id: id.into(),
                partitions: partitions
                    .map(|(index, seen)| self.partition((id, index), Some(seen)))
                    .collect(),
                ..DescribeShareGroupOffsetsResponseTopic::default()
            })
        });
        known.collect()
    }

    fn named(
        &self,
        topic: &DescribeShareGroupOffsetsRequestTopic,
        seen: &Places,
    ) -> DescribeShareGroupOffsetsResponseTopic {
        let id = self.image.topic(&topic.topic_name).map(|topic| topic.id);
        let told = |index: &i32| match id {
            Some(id) => {
                let place = (id, PartitionIndex(*index));
                self.partition(place, seen.get(&place))
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

    /// A group that was never delivered from a partition is nowhere in it.
    fn partition(&self, place: Place, seen: Option<&Seen>) -> DescribeShareGroupOffsetsResponsePartition {
        let start = seen.and_then(|seen| seen.start);
        let lag = || {
            let end = self.ends.get(&place)?;
            // The end may be older than what was delivered since.
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
}
