//! Asks the nodes that know of groups and offsets.
//!
//! It owns what a refusal means. It must never ask twice: what changed may have been changed.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use headwater_protocol::ids::{NodeId, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use headwater_protocol::primitives::Str;

use super::Place;
use crate::http::Api;
use crate::http::error::ApiError;
use crate::http::nodes::ask;
use crate::metadata::topic::OFFSETS_TOPIC;

const LIST_OFFSETS_VERSION: i16 = 7;

/// Where a partition is looked up: at its first record, behind its last one, or at a time.
pub(super) const EARLIEST: i64 = -2;
pub(super) const LATEST: i64 = -1;

/// The node that coordinates a group. There is none before anybody needed one.
pub(super) async fn coordinator(api: &Api, group: &str) -> Result<NodeId, ApiError> {
    if api.view.topic(OFFSETS_TOPIC).is_none() {
        return Err(unknown(group));
    }
    coordinator_to_be(api, group).await
}

/// As `coordinator`, for a group that may be about to begin.
pub(super) async fn coordinator_to_be(api: &Api, group: &str) -> Result<NodeId, ApiError> {
    let found = api.groups.coordinator_of(group).await;
    found.map_err(|error| ApiError::unavailable("NO_COORDINATOR", error.to_string()))
}

pub(super) fn unknown(group: &str) -> ApiError {
    ApiError::not_found("UNKNOWN_GROUP", format!("group {group:?} is not known"))
}

/// What a coordinator's code means.
pub(super) fn check(group: &str, code: i16) -> Result<(), ApiError> {
    let code = ErrorCode(code);
    match code {
        ErrorCode::NONE => Ok(()),
        ErrorCode::GROUP_ID_NOT_FOUND => Err(unknown(group)),
        // As a commit from outside is refused while there are members.
        ErrorCode::NON_EMPTY_GROUP | ErrorCode::UNKNOWN_MEMBER_ID => {
            let message = format!("group {group:?} has members");
            Err(ApiError::conflict("GROUP_HAS_MEMBERS", message).hint("Stop them first."))
        }
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        | ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::NOT_COORDINATOR => {
            let message = format!("group {group:?} has no coordinator at the moment: {code}");
            Err(ApiError::unavailable("NO_COORDINATOR", message).hint("Try again."))
        }
        _ => {
            let message = format!("group {group:?}: its coordinator says {code}");
            Err(ApiError::conflict("REFUSED", message))
        }
    }
}

/// Looks a time, or a place by meaning, up in partitions. Those that nobody leads, whose leader does not answer, or that
/// have no record that late, are absent.
pub(super) async fn look_up(
    api: &Api,
    places: impl Iterator<Item = &Place>,
    timestamp: i64,
) -> BTreeMap<Place, i64> {
    let image = api.view.image();
    let mut leaders: BTreeMap<NodeId, BTreeMap<&str, Vec<ListOffsetsPartition>>> = BTreeMap::new();
    for (topic, index) in places {
        let known = image.topic(topic);
        let state = known.and_then(|topic| topic.partition(PartitionIndex(*index)));
        let Some(state) = state.filter(|state| state.leader != NodeId::NONE) else {
            continue;
        };
        let topics = leaders.entry(state.leader).or_default();
        topics.entry(topic).or_default().push(ListOffsetsPartition {
            partition_index: *index,
            timestamp,
            ..ListOffsetsPartition::default()
        });
    }
    let asked = leaders.into_iter().map(|(node, topics)| async move {
        let topic = |(name, partitions): (&str, _)| ListOffsetsTopic {
            name: Str::from(name),
            partitions,
            ..ListOffsetsTopic::default()
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: topics.into_iter().map(topic).collect(),
            ..ListOffsetsRequest::default()
        };
        ask(api, node, LIST_OFFSETS_VERSION, &request).await
    });
    let answers = join_all(asked).await.into_iter().flatten();
    let topics = answers.flat_map(|answer| answer.topics);
    let found = topics.flat_map(|topic| {
        let sound = topic
            .partitions
            .into_iter()
            .filter(|it| it.error_code == ErrorCode::NONE.0 && it.offset >= 0);
        let name = topic.name.to_string();
        sound.map(move |it| ((name.clone(), it.partition_index), it.offset))
    });
    found.collect()
}
