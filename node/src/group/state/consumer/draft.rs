//! What a group is to become: drawn up on a copy, wish by wish, while the group stays as the log has it.
//!
//! A wish that is refused has changed nothing of the draft.

use super::super::super::request::{Assignor, Epoch, Name};
use super::super::super::store::MemberStage;
use super::super::Settings;
use super::reconcile::{Target, next_step};
use super::topics::{Looked, Topics};
use super::{ConsumerGroup, Member};
use crate::group::request::Assignment;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What wishes are judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) settings: &'a Settings,
    pub(super) topics: &'a Topics,
    pub(super) unix_ms: i64,
}

#[derive(Debug)]
pub(super) struct Draft {
    /// Shared with the group itself until something changes.
    pub(super) group: Arc<ConsumerGroup>,
    pub(super) looked: Looked,
    /// How many new epochs the group has had.
    pub(super) rebalances: u64,
}

/// Why a member is taken out without its asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was not heard of.
    Silent,
    /// It has not given up what it had to in this epoch.
    Slow(Epoch),
}

impl Draft {
    pub(super) fn new(group: &Arc<ConsumerGroup>, looked: Looked) -> Self {
        Self {
            group: Arc::clone(group),
            looked,
            rebalances: 0,
        }
    }

    pub(super) fn change(&mut self) -> &mut ConsumerGroup {
        Arc::make_mut(&mut self.group)
    }

    /// Begins a new epoch if somebody wants one, or if what is subscribed to has changed.
    pub(super) fn look_at_topics(&mut self, needs_epoch: bool, rules: &Rules<'_>) {
        if !needs_epoch && !rules.topics.have_changed_since(self.looked) {
            return;
        }
        let looked = self.looked;
        let group = self.change();
        let has_others = rules.topics.resolve(group, looked, rules.unix_ms);
        let hash = rules.topics.hash(group);
        if needs_epoch || has_others || hash != group.topics_hash {
            group.topics_hash = hash;
            group.epoch = group.epoch.next();
            self.rebalances += 1;
        }
        self.looked = rules.topics.looked();
    }

    /// Deals the partitions out for the group's epoch, if that was not done yet.
    pub(super) fn assign(&mut self, rules: &Rules<'_>) {
        if self.group.epoch == self.group.assignment_epoch {
            return;
        }
        let assignor = assignor_of(&self.group, &rules.settings.assignors);
        let group = self.change();
        rules.topics.assign(group, assignor);
        group.assignment_epoch = group.epoch;
    }

    /// Takes a member one step towards what it is to have.
    pub(super) fn reconcile(&mut self, id: &Name, owned: Option<&Assignment>) {
        let Some(member) = self.group.member(id).cloned() else {
            return;
        };
        let assignment = self.group.target(id);
        let target = Target {
            epoch: self.group.assignment_epoch,
            assignment: &assignment,
            owned,
        };
        let current = next_step(&self.group, &member, &target);
        if current != member.current {
            self.change().put(Member {
                current,
                ..(*member).clone()
            });
        }
    }

    /// Takes a member out.
    pub(super) fn remove(&mut self, id: &Name, rules: &Rules<'_>) {
        if self.change().remove(id).is_some() {
            self.look_at_topics(true, rules);
        }
    }

    /// Takes a member out that has not done what it had to; one that has by now stays.
    pub(super) fn fence(&mut self, id: &Name, cause: Cause, rules: &Rules<'_>) {
        let Some(member) = self.group.member(id) else {
            return;
        };
        let current = &member.current;
        match cause {
            Cause::Slow(epoch) if current.epoch != epoch || current.stage != MemberStage::Unrevoked => {}
            Cause::Silent | Cause::Slow(_) => self.remove(id, rules),
        }
    }
}

/// The assignor that most members ask for; the first one of the node's where none does.
pub(super) fn assignor_of(group: &ConsumerGroup, known: &[Assignor]) -> Assignor {
    let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
    for member in group.members.values() {
        let named = member.said.assignor.as_deref().and_then(Assignor::of);
        if let Some(assignor) = named.filter(|assignor| known.contains(assignor)) {
            *votes.entry(assignor).or_default() += 1;
        }
    }
    let preferred = votes.into_iter().max_by_key(|(_, count)| *count);
    preferred
        .map(|(assignor, _)| assignor)
        .or_else(|| known.first().copied())
        .unwrap_or(Assignor::Uniform)
}
