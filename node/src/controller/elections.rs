//! Who leads a partition and who counts as in sync when nodes come and go. Pure: a partition's state goes in, the next
//! one comes out.
//!
//! - Nobody leads who may lack a committed record: a leader is taken from the in-sync set, else from the eligible
//!   replicas (KIP-966), else, where the topic allows the loss, from whoever is there.
//! - The in-sync set is never empty: its last member keeps its place while it is away, since nobody else is known to hold
//!   everything.
//! - Each new leader reigns in a new epoch. Every change has a new partition epoch.

use crate::config::TopicConfig;
use crate::metadata::PartitionState;
use headwater_protocol::ids::{LeaderEpoch, NodeId};

/// What a topic's properties say of its elections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) min_insync: usize,
    /// `unclean.leader.election.enable`: rather lose records than wait.
    pub(super) unclean: bool,
    /// Acknowledged records may be in memory only: a replica that crashed is not known to hold them.
    pub(super) cached: bool,
}

impl Rules {
    pub(super) fn of(config: &TopicConfig) -> Self {
        Self {
            min_insync: config.min_insync_replicas,
            unclean: config.unclean_leader_election,
            cached: config.write_caching,
        }
    }
}

/// How a node went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    /// It is silent, or came back as another process.
    Lost,
    /// It hands over before it stops: everything it has is on its disk.
    Handover,
}

/// The state without `gone`, or None where nothing changes by its going.
pub(super) fn without(
    state: &PartitionState,
    gone: NodeId,
    departure: Departure,
    rules: Rules,
    is_active: impl Fn(NodeId) -> bool,
) -> Option<PartitionState> {
    // The only replica there is can neither be replaced nor differ from another.
    if state.replicas == [gone] || !state.replicas.contains(&gone) {
        return None;
    }
    let mut next = state.clone();
    if next.isr.iter().any(|replica| *replica != gone) {
        set_in_sync(&mut next, |replica| *replica != gone, rules);
    }
    if rules.cached && departure == Departure::Lost {
        next.eligible.retain(|replica| *replica != gone);
    }
    if state.leader == gone || !is_active(state.leader) {
        elect(&mut next, rules, |node| node != gone && is_active(node));
        if departure == Departure::Handover && next.leader == NodeId::NONE {
            // It goes on leading until it is gone: there is nobody to take over.
            return None;
        }
    }
    finish(state, next)
}

/// The state with a leader, if it has none and somebody may lead now.
pub(super) fn revived(
    state: &PartitionState,
    rules: Rules,
    is_active: impl Fn(NodeId) -> bool,
) -> Option<PartitionState> {
    if state.leader != NodeId::NONE {
        return None;
    }
    let mut next = state.clone();
    elect(&mut next, rules, is_active);
    finish(state, next)
}

/// The state led by the first of its replicas, if that one may lead and does not yet.
pub(super) fn preferred(
    state: &PartitionState,
    is_active: impl Fn(NodeId) -> bool,
) -> Option<PartitionState> {
    let first = *state.replicas.first()?;
    if state.leader == first || !state.isr.contains(&first) || !is_active(first) {
        return None;
    }
    let mut next = state.clone();
    reign(&mut next, first);
    finish(state, next)
}

/// The state with another in-sync set, as its leader asked for.
pub(super) fn resized(state: &PartitionState, in_sync: &[NodeId], rules: Rules) -> PartitionState {
    let mut next = state.clone();
    next.isr
        .extend(in_sync.iter().filter(|replica| !state.isr.contains(replica)));
    set_in_sync(&mut next, |replica| in_sync.contains(replica), rules);
    next.partition_epoch += 1;
    next
}

/// Keeps the replicas that `stays` says in sync. Those that leave a set that is too small to commit anything stay
/// eligible: nothing is committed without them until it has grown again.
fn set_in_sync(next: &mut PartitionState, stays: impl Fn(&NodeId) -> bool, rules: Rules) {
    let (kept, left): (Vec<NodeId>, Vec<NodeId>) = next.isr.iter().copied().partition(|it| stays(it));
    next.isr = kept;
    if next.isr.len() >= rules.min_insync {
        next.eligible.clear();
        return;
    }
    let isr = &next.isr;
    next.eligible.retain(|replica| !isr.contains(replica));
    for replica in left {
        if !next.eligible.contains(&replica) {
            next.eligible.push(replica);
        }
    }
}

/// Gives it the first leader that may be, or none.
pub(super) fn elect(next: &mut PartitionState, rules: Rules, may_lead: impl Fn(NodeId) -> bool) {
    let first = |of: &dyn Fn(&NodeId) -> bool| {
        let mut candidates = next.replicas.iter().filter(|replica| of(replica));
        candidates.find(|replica| may_lead(**replica)).copied()
    };
    if let Some(leader) = first(&|replica| next.isr.contains(replica)) {
        reign(next, leader);
    } else if let Some(leader) = first(&|replica| next.eligible.contains(replica)) {
        next.eligible.retain(|replica| *replica != leader);
        let away = std::mem::replace(&mut next.isr, vec![leader]);
        if next.isr.len() < rules.min_insync {
            next.eligible.extend(away);
        }
        reign(next, leader);
    } else if let Some(leader) = first(&|_| rules.unclean) {
        next.isr = vec![leader];
        next.eligible.clear();
        reign(next, leader);
    } else if next.leader != NodeId::NONE {
        reign(next, NodeId::NONE);
    }
}

/// A new reign, of the same leader or of another.
pub(super) fn reign(next: &mut PartitionState, leader: NodeId) {
    next.leader = leader;
    next.leader_epoch = LeaderEpoch(next.leader_epoch.value() + 1);
}

/// The state as it is to be written, or None where nothing changed.
pub(super) fn finish(before: &PartitionState, mut next: PartitionState) -> Option<PartitionState> {
    if next == *before {
        return None;
    }
    next.partition_epoch = before.partition_epoch + 1;
    assert!(!next.isr.is_empty(), "an in-sync set keeps its last member");
    assert!(
        next.leader == NodeId::NONE || next.isr.contains(&next.leader),
        "a leader is in sync"
    );
    Some(next)
}

#[cfg(test)]
mod tests;
