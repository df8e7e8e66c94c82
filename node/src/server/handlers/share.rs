//! What the handlers of share groups have in common: who asks, what it says of records, and where partitions are led.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use headwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::primitives::{Str, Uuid};

use super::addresses;
use crate::group::{self, GroupError, ShareDescription};
use crate::metadata::Image;
use crate::partition::Partition;
use crate::server::errors;
use crate::server::request::Context;
use crate::share::{Ack, Acknowledge, Asks, Key, Name, Place};

/// The longest name: a string of the protocol.
const NAME_BYTES_MAX: usize = 32_000;

/// A member of a share group.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) group: Name,
    pub(super) id: Name,
}

impl Member {
    pub(super) fn of(group: Option<&Str>, member: Option<&Str>) -> Result<Self, ErrorCode> {
        let name = |text: Option<&Str>| {
            let text = text.map_or("", Str::as_str);
            let is_valid = !text.is_empty() && text.len() <= NAME_BYTES_MAX;
            is_valid
                .then(|| Name::from(text))
                .ok_or(ErrorCode::INVALID_REQUEST)
        };
        Ok(Self {
            group: name(group)?,
            id: name(member)?,
        })
    }

    pub(super) fn key(&self, place: Place) -> Key {
        Key {
            group: Name::clone(&self.group),
            place,
        }
    }
}

/// What a request says of one partition's records.
pub(super) type Words = (Place, Result<Vec<Acknowledge>, ErrorCode>);

/// Reads batches of words: in order, each with one word for all its offsets or with one for each.
pub(super) fn words<'a>(
    batches: impl Iterator<Item = (i64, i64, &'a [i8])>,
    may_renew: bool,
) -> Result<Vec<Acknowledge>, ErrorCode> {
    let mut words: Vec<Acknowledge> = Vec::new();
    let mut next = 0;
    for (first, last, codes) in batches {
        // One more than the last one is an offset, too.
        if first < next || last < first || last == i64::MAX {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        next = last + 1;
        let ack = |code: &i8| {
            let ack = Ack::of(*code).filter(|ack| may_renew || *ack != Ack::Renew);
            ack.ok_or(ErrorCode::INVALID_REQUEST)
        };
        if let [code] = codes {
            words.push(Acknowledge {
                first: Offset(first),
                last: Offset(last),
                ack: ack(code)?,
            });
            continue;
        }
        if i64::try_from(codes.len()).ok() != Some(last - first + 1) {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        for (offset, code) in (first..).map(Offset).zip(codes) {
            let ack = ack(code)?;
            match words.last_mut() {
                Some(word) if word.ack == ack && word.last.plus(1) == offset => word.last = offset,
                _ => words.push(Acknowledge {
                    first: offset,
                    last: offset,
                    ack,
                }),
            }
        }
    }
    Ok(words)
}

/// Says everything, and returns when each of it is written down, or refused.
pub(super) async fn acknowledge(
    context: &Context,
    member: &Member,
    all: Vec<Words>,
) -> Vec<(Place, ErrorCode)> {
    let said = all.into_iter().map(async |(place, words)| {
        let code = match words {
            Ok(words) => acknowledge_one(context, member, place, words).await,
            Err(code) => Err(code),
        };
        (place, code.err().unwrap_or(ErrorCode::NONE))
    });
    join_all(said).await
}

async fn acknowledge_one(
    context: &Context,
    member: &Member,
    place: Place,
    words: Vec<Acknowledge>,
) -> Result<(), ErrorCode> {
    let (_, epoch) = locate(context, place)?;
    let (key, by) = (member.key(place), Name::clone(&member.id));
    let said = context.services().shares.acknowledge(key, epoch, by, words).await;
    said.map_err(|error| errors::of_share(&error))
}

/// The partition, with the epoch in which this node leads it.
pub(super) fn locate(context: &Context, place: Place) -> Result<(Partition, LeaderEpoch), ErrorCode> {
    let services = context.services();
    let (topic, index) = place;
    let Some(partition) = services.registry.get_by_id(topic, index) else {
        return Err(match services.view.topic_by_id(topic) {
            Some(topic) => {
                let code = errors::absent(Some(&topic), index.value(), services.node_id());
                // Members know no other word for a leader that is not here yet: they ask again.
                match code == ErrorCode::LEADER_NOT_AVAILABLE {
                    true => ErrorCode::NOT_LEADER_OR_FOLLOWER,
                    false => code,
                }
            }
            None => ErrorCode::UNKNOWN_TOPIC_ID,
        });
    };
    if !partition.is_leader() {
        return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    }
    let epoch = partition.leader_epoch();
    Ok((partition, epoch))
}

pub(super) fn place(topic: Uuid, index: i32) -> Place {
    (topic.into(), PartitionIndex(index))
}

/// Who leads a partition, and in which epoch, as an answer says it to whoever asked elsewhere.
pub(super) fn leader(image: &Image, place: Place, code: ErrorCode) -> Option<(i32, i32)> {
    if !errors::is_elsewhere(code) {
        return None;
    }
    let topic = image.topic_by_id(place.0)?;
    let state = topic.partition(place.1)?;
    Some((state.leader.value(), state.leader_epoch.value()))
}

/// Where a node is reached: its id, host, port and rack.
pub(super) type Endpoint = (i32, Str, i32, Option<Str>);

pub(super) fn endpoints(context: &Context, image: &Image, nodes: &BTreeSet<i32>) -> Vec<Endpoint> {
    let endpoint = |id: &i32| {
        let node = image.nodes.get(&(*id).into())?;
        let (host, port) = addresses::of(node, context.listener())?;
        Some((*id, host, port, node.rack.as_ref().map(Str::from)))
    };
    nodes.iter().filter_map(endpoint).collect()
}

/// How long members may take for what they have acquired, as answers say it.
pub(super) fn lock_timeout_ms(context: &Context) -> i32 {
    let timeout = context.services().shares.lock_timeout();
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// A share group that is coordinated here.
pub(super) async fn known_group(context: &Context, group: &Str) -> Result<ShareDescription, ErrorCode> {
    let refused = |error: GroupError| errors::of_group(&error);
    let name = group::name(group).map_err(refused)?;
    if name.is_empty() {
        return Err(ErrorCode::INVALID_GROUP_ID);
    }
    let described = context.services().groups.describe_sharers(name).await;
    described.map_err(refused)?.ok_or(ErrorCode::GROUP_ID_NOT_FOUND)
}

/// One without members: nobody is delivered to by what is to be changed.
pub(super) async fn empty_group(context: &Context, group: &Str) -> Result<Name, ErrorCode> {
    let description = known_group(context, group).await?;
    match description.members.is_empty() {
        true => Ok(description.group),
        false => Err(ErrorCode::NON_EMPTY_GROUP),
    }
}

/// Answers another node. Nobody else is to touch what is kept.
pub(super) async fn answer_node<R: Asks>(context: &Context, request: &R) -> R::Response {
    match context.caller.peer.node {
        Some(_) => context.services().shares.answer(request).await,
        None => {
            tracing::warn!(peer = %context.caller.peer.address, "a client asks for what nodes only may");
            request.refuse()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_in_order_and_one_or_one_each() {
        let read = |batches: &[(i64, i64, &[i8])], may_renew| {
            let words = words(batches.iter().copied(), may_renew)?;
            let text = |word: &Acknowledge| format!("{}-{}:{:?}", word.first, word.last, word.ack);
            Ok(words.iter().map(text).collect::<Vec<_>>().join(" "))
        };
        let wrong = Err(ErrorCode::INVALID_REQUEST);
        assert_eq!(
            read(&[(0, 9, &[1]), (12, 12, &[2])], false),
            Ok("0-9:Accept 12-12:Release".to_owned())
        );
        assert_eq!(
            read(&[(3, 6, &[1, 1, 0, 3])], false),
            Ok("3-4:Accept 5-5:Gap 6-6:Reject".to_owned())
        );
        assert_eq!(read(&[(3, 3, &[4])], true), Ok("3-3:Renew".to_owned()));
        for batches in [
            &[(3, 3, &[4][..])][..],
            &[(3, 4, &[])],
            &[(3, 5, &[1, 1])],
            &[(5, 3, &[1])],
            &[(-1, 3, &[1])],
            &[(0, 3, &[1]), (3, 4, &[1])],
            &[(0, 3, &[9])],
            &[(0, i64::MAX, &[1])],
        ] {
            assert_eq!(read(batches, false), wrong, "{batches:?}");
        }
    }
}
