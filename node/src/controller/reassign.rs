//! Moving replicas (KIP-455): those that are added catch up first, then those that are to go leave. Pure.
//!
//! - Until it is finished, everybody who held the partition before holds it still: a reassignment can always be taken back
//!   to them, and another one that replaces it starts from them.
//! - A replica leaves the in-sync set only by leaving the partition. Where nobody would be left who holds every committed
//!   record, nothing happens.
//! - A replica that is alone may lead on in its epoch after a crash, since nobody can differ from it. So alone and with
//!   others it never leads in the same epoch.
//! - A replica that leaves takes its log away, and may come back without. What it fetched in the leader's epoch before says
//!   nothing of the new one: no epoch sees it leave and come back.

use super::change::{Factor, Reassignment};
use super::decide::{Context, Decision, Tell};
use super::elections::{self, Rules};
use super::error::ProposeError;
use super::nodes;
use crate::metadata::{Image, PartitionState};
use headwater_protocol::ids::NodeId;
use std::collections::BTreeSet;

/// Starts, replaces or takes back a reassignment of one partition.
pub(super) fn reassign(
    reassignment: Reassignment,
    image: &Image,
    context: &Context,
) -> Result<Decision, ProposeError> {
    let Reassignment {
        topic,
        index,
        replicas,
        factor,
    } = reassignment;
    let name = format!("{topic}-{index}");
    let found = image.topic(&topic);
    let known = found.and_then(|topic| Some((topic, topic.partition(index)?)));
    let (topic, state) = known.ok_or_else(|| ProposeError::UnknownTopic(name.clone()))?;
    let rules = nodes::rules(topic, context);
    let is_active = |node| nodes::is_active(image, node);
    let next = match &replicas {
        Some(target) => {
            check_target(target, state, factor, image)?;
            moved(state, target, rules, is_active)
        }
        None if state.is_moving() => moved(state, &origin(state), rules, is_active),
        None => return Err(ProposeError::NoReassignment(name)),
    };
    let next = next.ok_or_else(|| {
        let reason = "none of the replicas that would be left is known to hold every record";
        ProposeError::InvalidAssignment(reason.to_owned())
    })?;
    let records = elections::finish(state, next).map(|next| nodes::record(topic, index, next));
    Ok(Decision {
        records: records.into_iter().collect(),
        tell: Tell::Partition(topic.id, index),
    })
}

/// Ends a reassignment whose new replicas are all in sync: what was to be removed goes, and if it led, the first replica
/// that stays and is in sync takes over. Waits while that would leave fewer in sync than `min.insync.replicas` asks for.
pub(super) fn finish(next: &mut PartitionState, rules: Rules, is_active: impl Fn(NodeId) -> bool) {
    if !next.is_moving() || !next.adding.iter().all(|added| next.isr.contains(added)) {
        return;
    }
    let stays = |node: &&NodeId| !next.removing.contains(node);
    let replicas: Vec<NodeId> = next.replicas.iter().filter(stays).copied().collect();
    let in_sync: Vec<NodeId> = next.isr.iter().filter(stays).copied().collect();
    let enough = rules.min_insync.min(replicas.len()).min(next.isr.len());
    let is_led = in_sync.contains(&next.leader) || in_sync.iter().any(|node| is_active(*node));
    if !is_led || in_sync.len() < enough {
        return;
    }
    next.adding.clear();
    next.removing.clear();
    hold(next, replicas, rules, is_active);
}

fn check_target(
    target: &[NodeId],
    state: &PartitionState,
    factor: Factor,
    image: &Image,
) -> Result<(), ProposeError> {
    let refuse = |reason: String| Err(ProposeError::InvalidAssignment(reason));
    if target.is_empty() {
        return refuse("no replica is named".to_owned());
    }
    if target.iter().collect::<BTreeSet<_>>().len() != target.len() {
        return refuse("a node is named twice".to_owned());
    }
    if let Some(stranger) = target.iter().find(|node| !image.nodes.contains_key(node)) {
        return refuse(format!("node {stranger} is not known"));
    }
    let present = origin(state).len();
    match factor {
        Factor::Fixed if target.len() != present => Err(ProposeError::InvalidReplicationFactor {
            factor: i16::try_from(target.len()).unwrap_or(i16::MAX),
            reason: format!("there are {present} replicas, and their number is not to change"),
        }),
        Factor::Fixed | Factor::Free => Ok(()),
    }
}

/// Who held the partition before the reassignment that is under way.
fn origin(state: &PartitionState) -> Vec<NodeId> {
    let was_there = |node: &&NodeId| !state.adding.contains(node);
    state.replicas.iter().filter(was_there).copied().collect()
}

/// The state on its way to `target`; there already, if nobody has to catch up. None: nobody would be left who holds every
/// committed record.
fn moved(
    state: &PartitionState,
    target: &[NodeId],
    rules: Rules,
    is_active: impl Fn(NodeId) -> bool + Copy,
) -> Option<PartitionState> {
    let origin = origin(state);
    let without = |of: &[NodeId], others: &[NodeId]| -> Vec<NodeId> {
        of.iter().filter(|node| !others.contains(node)).copied().collect()
    };
    let mut next = state.clone();
    next.adding = without(target, &origin);
    next.removing = without(&origin, target);
    let replicas = [target, &next.removing].concat();
    hold(&mut next, replicas, rules, is_active);
    if next.isr.is_empty() {
        return None;
    }
    finish(&mut next, rules, is_active);
    Some(next)
}

/// Makes these the replicas: who is none of them is not in sync either. If the leader is none of them, another one leads.
fn hold(next: &mut PartitionState, replicas: Vec<NodeId>, rules: Rules, is_active: impl Fn(NodeId) -> bool) {
    let epoch = next.leader_epoch;
    next.isr.retain(|node| replicas.contains(node));
    next.eligible.retain(|node| replicas.contains(node));
    let before = std::mem::replace(&mut next.replicas, replicas);
    let must_elect = next.leader != NodeId::NONE && !next.isr.contains(&next.leader);
    if must_elect || next.isr.is_empty() {
        elections::elect(next, rules, is_active);
    }
    let is_alone_or_was = (before.len() == 1) != (next.replicas.len() == 1);
    let has_left = before.iter().any(|node| !next.replicas.contains(node));
    if (is_alone_or_was || has_left) && next.leader != NodeId::NONE && next.leader_epoch == epoch {
        elections::reign(next, next.leader);
    }
}

#[cfg(test)]
mod tests;
