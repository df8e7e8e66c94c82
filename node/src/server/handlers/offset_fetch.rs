//! OffsetFetch (key 9): what groups have committed. A partition with commits in an open transaction is refused to whoever asks for
//! stable ones (KIP-447).

use std::collections::BTreeMap;

use headwater_protocol::ids::PartitionIndex;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use headwater_protocol::primitives::{Str, Uuid};

use super::groups;
use crate::group::{self, Committed, Epoch, GroupError, Name, TopicPartition};
use crate::metadata::Image;
use crate::server::errors;
use crate::server::request::Context;

/// From these versions on the answer has an error of its own, many groups are asked for at once (KIP-709), and topics are
/// named by id.
const OWN_ERROR_SINCE: i16 = 2;
const BATCHED_SINCE: i16 = 8;
const BY_ID_SINCE: i16 = 10;
/// From this version on a member of the consumer protocol says which one it is, and its epoch (KIP-848).
const BY_MEMBER_SINCE: i16 = 9;

pub(in crate::server) async fn handle(context: &Context, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if context.version < BATCHED_SINCE {
        return single(context, request).await;
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    for wanted in request.groups {
        groups.push(one_of_many(context, wanted, request.require_stable).await);
    }
    OffsetFetchResponse {
        groups,
        ..OffsetFetchResponse::default()
    }
}

async fn single(context: &Context, request: OffsetFetchRequest) -> OffsetFetchResponse {
    // In the first version, which cannot ask for all, no topics means none.
    let wanted = request.topics.as_ref().map(|topics| {
        let partitions = topics.iter().flat_map(|topic| {
            let name = Name::from(topic.name.as_str());
            topic.partition_indexes.iter().map(move |index| TopicPartition {
                topic: Name::clone(&name),
                index: PartitionIndex(*index),
            })
        });
        partitions.collect::<Vec<_>>()
    });
    let stable = request.require_stable;
    let (error, offsets) = match fetch(context, &request.group_id, None, wanted.clone(), stable).await {
        Ok(offsets) => (ErrorCode::NONE, offsets),
        Err(error) => {
            let none = wanted.unwrap_or_default().into_iter();
            (
                errors::of_group(&error),
                none.map(|partition| (partition, Ok(None))).collect(),
            )
        }
    };
    let topics = by_topic(offsets)
        .into_iter()
        .map(|(name, partitions)| OffsetFetchResponseTopic {
            name: Str::from(&*name),
            partitions: partitions
                .into_iter()
                .map(|(index, found)| {
                    let committed = found.as_ref().ok().and_then(Option::as_ref);
                    OffsetFetchResponsePartition {
                        partition_index: index.value(),
                        committed_offset: offset_of(committed),
                        committed_leader_epoch: epoch_of(committed),
                        metadata: Some(metadata_of(committed)),
                        error_code: found.as_ref().err().map_or(error.0, |code| code.0),
                        ..OffsetFetchResponsePartition::default()
                    }
                })
                .collect(),
            ..OffsetFetchResponseTopic::default()
        });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: if context.version >= OWN_ERROR_SINCE {
            error.0
        } else {
            ErrorCode::NONE.0
        },
        ..OffsetFetchResponse::default()
    }
}

async fn one_of_many(
    context: &Context,
    wanted: OffsetFetchRequestGroup,
    stable: bool,
) -> OffsetFetchResponseGroup {
    let image = context.services().view.image();
    let by_id = context.version >= BY_ID_SINCE;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for topic in wanted.topics.iter().flatten() {
        match groups::topic_name(&image, &topic.name, topic.topic_id, by_id) {
            Ok(name) => known.extend(topic.partition_indexes.iter().map(|index| TopicPartition {
                topic: Name::clone(&name),
                index: PartitionIndex(*index),
            })),
            Err(code) => unknown.push(refused(topic, code)),
        }
    }
    let known = wanted.topics.is_some().then_some(known);
    let who = member(context.version, &wanted);
    let (error, topics) = match fetch(context, &wanted.group_id, who, known, stable).await {
        Ok(offsets) => {
            let found = by_topic(offsets).into_iter();
            let found = found.filter_map(|(name, partitions)| found_topic(&image, &name, partitions, by_id));
            (ErrorCode::NONE, found.chain(unknown).collect())
        }
        Err(error) => (errors::of_group(&error), Vec::new()),
    };
    OffsetFetchResponseGroup {
        group_id: wanted.group_id,
        topics,
        error_code: error.0,
        ..OffsetFetchResponseGroup::default()
    }
}

/// Who asks, if it says so.
fn member(version: i16, wanted: &OffsetFetchRequestGroup) -> Option<(Name, Epoch)> {
    if version < BY_MEMBER_SINCE || (wanted.member_id.is_none() && wanted.member_epoch < 0) {
        return None;
    }
    let id = wanted.member_id.as_ref().map_or("", |id| id.as_str());
    Some((Name::from(id), Epoch(wanted.member_epoch)))
}

async fn fetch(
    context: &Context,
    group: &str,
    who: Option<(Name, Epoch)>,
    wanted: Option<Vec<TopicPartition>>,
    stable: bool,
) -> Result<Found, GroupError> {
    let group = group::name(group)?;
    let groups = &context.services().groups;
    let (offsets, unstable) = groups.offsets_and_unstable(group, who, wanted).await?;
    let found = offsets.into_iter().map(|(partition, committed)| {
        let found = match stable && unstable.contains(&partition) {
            true => Err(ErrorCode::UNSTABLE_OFFSET_COMMIT),
            false => Ok(committed),
        };
        (partition, found)
    });
    Ok(found.collect())
}

/// What was committed of each partition, or why that is not told.
type Found = Vec<(TopicPartition, Result<Option<Committed>, ErrorCode>)>;
type Partitions = Vec<(PartitionIndex, Result<Option<Committed>, ErrorCode>)>;

fn by_topic(offsets: Found) -> BTreeMap<Name, Partitions> {
    let mut topics: BTreeMap<Name, Partitions> = BTreeMap::new();
    for (partition, committed) in offsets {
        let of_topic = topics.entry(partition.topic).or_default();
        of_topic.push((partition.index, committed));
    }
    topics
}

/// Nothing for a topic that is gone, where topics are named by id.
fn found_topic(
    image: &Image,
    name: &Name,
    partitions: Partitions,
    by_id: bool,
) -> Option<OffsetFetchResponseTopics> {
    let (name, topic_id) = if by_id {
        (Str::default(), image.topic(name)?.id.into())
    } else {
        (Str::from(&**name), Uuid::default())
    };
    let partitions = partitions.into_iter().map(|(index, found)| {
        let committed = found.as_ref().ok().and_then(Option::as_ref);
        OffsetFetchResponsePartitions {
            partition_index: index.value(),
            committed_offset: offset_of(committed),
            committed_leader_epoch: epoch_of(committed),
            metadata: Some(metadata_of(committed)),
            error_code: found.as_ref().err().map_or(ErrorCode::NONE.0, |code| code.0),
            ..OffsetFetchResponsePartitions::default()
        }
    });
    Some(OffsetFetchResponseTopics {
        name,
        topic_id,
        partitions: partitions.collect(),
        ..OffsetFetchResponseTopics::default()
    })
}

fn refused(topic: &OffsetFetchRequestTopics, code: ErrorCode) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter();
    let partitions = partitions.map(|index| OffsetFetchResponsePartitions {
        partition_index: *index,
        committed_offset: offset_of(None),
        committed_leader_epoch: epoch_of(None),
        metadata: Some(metadata_of(None)),
        error_code: code.0,
        ..OffsetFetchResponsePartitions::default()
    });
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
        ..OffsetFetchResponseTopics::default()
    }
}

/// -1: nothing was committed.
fn offset_of(committed: Option<&Committed>) -> i64 {
    committed.map_or(-1, |committed| committed.offset.value())
}

fn epoch_of(committed: Option<&Committed>) -> i32 {
    committed.map_or(-1, |committed| committed.leader_epoch.value())
}

fn metadata_of(committed: Option<&Committed>) -> Str {
    committed.map_or_else(Str::default, |committed| Str::from(&*committed.metadata))
}
