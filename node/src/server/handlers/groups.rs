//! What the handlers of the group APIs have in common.

use headwater_protocol::ids::PartitionIndex;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::primitives::{Str, Uuid};

use crate::group::{self, GroupError, Identity, Name, TopicPartition};
use crate::metadata::Image;
use crate::server::errors;
use crate::server::request::Context;

/// Who asks, by the names in the request.
pub(super) fn identity(group: &Str, member: &Str, instance: Option<&Str>) -> Result<Identity, GroupError> {
    Ok(Identity {
        group: group::name(group)?,
        member: group::name(member)?,
        instance: instance.map(|instance| group::name(instance)).transpose()?,
    })
}

/// Waits for an answer that may take as long as a rebalance, or until nobody waits for it any more.
pub(super) async fn patiently<T>(
    context: &Context,
    answer: impl Future<Output = Result<T, GroupError>>,
) -> Result<T, GroupError> {
    tokio::select! {
        biased;
        answer = answer => answer,
        // The node drains: another one will coordinate the group.
        () = context.caller.hurry.cancelled() => Err(GroupError::NotCoordinator),
    }
}

pub(super) fn code<T>(result: &Result<T, GroupError>) -> i16 {
    result
        .as_ref()
        .map_or_else(errors::of_group, |_| ErrorCode::NONE)
        .0
}

/// The topic that a request names, by name or from some version on by id.
pub(super) fn topic_name(image: &Image, name: &Str, id: Uuid, by_id: bool) -> Result<Name, ErrorCode> {
    if by_id {
        let topic = image.topic_by_id(id.into()).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
        return Ok(Name::clone(&topic.name));
    }
    group::name(name).map_err(|error| errors::of_group(&error))
}

/// A partition that is there.
pub(super) fn known_partition(image: &Image, topic: &Name, index: i32) -> Result<TopicPartition, ErrorCode> {
    let known = image
        .topic(topic)
        .and_then(|topic| topic.partition(PartitionIndex(index)));
    known.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    Ok(TopicPartition {
        topic: Name::clone(topic),
        index: PartitionIndex(index),
    })
}
