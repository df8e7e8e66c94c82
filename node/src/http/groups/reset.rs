//! Where a group without members goes on: each offset within what its partition holds, and told before it is set.

use std::collections::BTreeMap;

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use headwater_protocol::primitives::Str;

use super::ask::{EARLIEST, LATEST, check, coordinator, coordinator_to_be, look_up};
use super::{OffsetSet, OffsetsSet, Place, SetOffsets, SetOffsetsTo, SetOffsetsTopic, seen, share};
use crate::http::Api;
use crate::http::error::ApiError;
use crate::http::nodes::ask;
use crate::http::topics;

const COMMIT_VERSION: i16 = 8;

pub(super) async fn run(api: &Api, group: &str, body: SetOffsets) -> Result<OffsetsSet, ApiError> {
    let value = wanted(body.to, body.value)?;
    let node = if body.topics.is_empty() {
        coordinator(api, group).await?
    } else {
        // One that has committed nothing yet may be told where to begin.
        coordinator_to_be(api, group).await?
    };
    let is_shared = share::is_one(api, node, group).await;
    let committed = match is_shared {
        true => share::started(api, node, group).await?,
        false => seen::committed(api, node, group).await?,
    };
    let places = chosen(api, &body.topics, &committed)?;
    let plan = plan(api, &places, body.to, value, &committed).await?;
    match (body.dry_run, is_shared) {
        (true, _) => {}
        (false, true) => share::set(api, node, group, &plan).await?,
        (false, false) => commit(api, node, group, &plan).await?,
    }
    let row = |((topic, partition), after): (Place, i64)| OffsetSet {
        before: committed.get(&(topic.clone(), partition)).copied(),
        topic,
        partition,
        after,
    };
    Ok(OffsetsSet {
        dry_run: body.dry_run,
        partitions: plan.into_iter().map(row).collect(),
    })
}

async fn commit(api: &Api, node: NodeId, group: &str, plan: &BTreeMap<Place, i64>) -> Result<(), ApiError> {
    let answer = ask(api, node, COMMIT_VERSION, &request(group, plan)).await?;
    let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.try_for_each(|partition| check(group, partition.error_code))
}

/// The value, if this way needs one.
fn wanted(to: SetOffsetsTo, value: Option<i64>) -> Result<i64, ApiError> {
    let refuse = |message| Err(ApiError::bad_request("INVALID_REQUEST", message));
    match (to, value) {
        (SetOffsetsTo::Earliest | SetOffsetsTo::Latest, None) => Ok(0),
        (SetOffsetsTo::Earliest | SetOffsetsTo::Latest, Some(_)) => refuse("`value` says nothing here"),
        (SetOffsetsTo::Offset | SetOffsetsTo::Time | SetOffsetsTo::By, None) => refuse("`value` is missing"),
        (SetOffsetsTo::Offset | SetOffsetsTo::Time, Some(value)) if value < 0 => {
            refuse("`value` cannot be negative here")
        }
        (SetOffsetsTo::Offset | SetOffsetsTo::Time | SetOffsetsTo::By, Some(value)) => Ok(value),
    }
}

/// The partitions that are named, or those that the group has committed.
fn chosen(
    api: &Api,
    topics: &[SetOffsetsTopic],
    committed: &BTreeMap<Place, i64>,
) -> Result<Vec<Place>, ApiError> {
    let mut places = Vec::new();
    for named in topics {
        let topic = topics::find(api, &named.topic)?;
        let there: Vec<i32> = topic.indexes().map(|index| index.0).collect();
        let indexes = named.partitions.as_ref().unwrap_or(&there);
        if let Some(missing) = indexes.iter().find(|index| !there.contains(index)) {
            let message = format!("topic {:?} has no partition {missing}", named.topic);
            return Err(ApiError::bad_request("UNKNOWN_PARTITION", message));
        }
        places.extend(indexes.iter().map(|index| (named.topic.clone(), *index)));
    }
    if topics.is_empty() {
        places.extend(committed.keys().cloned());
    }
    if places.is_empty() {
        let message = "the group has committed nothing";
        return Err(ApiError::conflict("NOTHING_COMMITTED", message).hint("Name topics."));
    }
    Ok(places)
}

async fn plan(
    api: &Api,
    places: &[Place],
    to: SetOffsetsTo,
    value: i64,
    committed: &BTreeMap<Place, i64>,
) -> Result<BTreeMap<Place, i64>, ApiError> {
    let begins = look_up(api, places.iter(), EARLIEST).await;
    let ends = look_up(api, places.iter(), LATEST).await;
    let timed = match to {
        SetOffsetsTo::Time => look_up(api, places.iter(), value).await,
        SetOffsetsTo::Earliest | SetOffsetsTo::Latest | SetOffsetsTo::Offset | SetOffsetsTo::By => {
            BTreeMap::new()
        }
    };
    let mut plan = BTreeMap::new();
    for place in places {
        let (topic, partition) = place;
        let (Some(begin), Some(end)) = (begins.get(place).copied(), ends.get(place).copied()) else {
            let message =
                format!("partition {partition} of {topic:?} is gone, or its leader does not answer");
            return Err(ApiError::conflict("PARTITION_UNAVAILABLE", message).hint("Name the others."));
        };
        let offset = match to {
            SetOffsetsTo::Earliest => begin,
            SetOffsetsTo::Latest => end,
            SetOffsetsTo::Offset => value,
            SetOffsetsTo::Time => timed.get(place).copied().unwrap_or(end),
            SetOffsetsTo::By => {
                let before = committed.get(place).copied().ok_or_else(|| {
                    let message = format!("nothing was committed of partition {partition} of {topic:?}");
                    ApiError::conflict("NOTHING_COMMITTED", message)
                })?;
                before.saturating_add(value)
            }
        };
        plan.insert(place.clone(), offset.clamp(begin, end.max(begin)));
    }
    Ok(plan)
}

fn request(group: &str, plan: &BTreeMap<Place, i64>) -> OffsetCommitRequest {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), offset) in plan {
        topics
            .entry(topic)
            .or_default()
            .push(OffsetCommitRequestPartition {
                partition_index: *partition,
                committed_offset: *offset,
                committed_leader_epoch: -1,
                committed_metadata: Some(Str::default()),
                ..OffsetCommitRequestPartition::default()
            });
    }
    let topic = |(name, partitions): (&str, _)| OffsetCommitRequestTopic {
        name: Str::from(name),
        partitions,
        ..OffsetCommitRequestTopic::default()
    };
    OffsetCommitRequest {
        group_id: Str::from(group),
        generation_id_or_member_epoch: -1,
        topics: topics.into_iter().map(topic).collect(),
        ..OffsetCommitRequest::default()
    }
}
