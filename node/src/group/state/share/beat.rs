//! A member's heartbeat: it comes in, says what it wants, is told what it is to read, or goes.
//!
//! What a group is to become is drawn up on a copy; a wish that is refused has changed nothing of it.

use super::super::super::error::GroupError;
use super::super::super::request::{Epoch, Name, Reconciled, ShareHeartbeat};
use super::super::super::store::{CurrentShare, ShareMember};
use super::super::Settings;
use super::super::consumer::{Looked, Subscriber, Topics};
use super::{ShareGroup, Sharer, assignor};
use crate::group::request::Assignment;
use headwater_protocol::ids::TopicId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What wishes are judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) settings: &'a Settings,
    pub(super) topics: &'a Topics,
}

#[derive(Debug)]
pub(super) struct Draft {
    /// Shared with the group itself until something changes.
    pub(super) group: Arc<ShareGroup>,
    pub(super) looked: Looked,
    /// How many new epochs the group has had.
    pub(super) rebalances: u64,
}

impl Draft {
    pub(super) fn new(group: &Arc<ShareGroup>, looked: Looked) -> Self {
        Self {
            group: Arc::clone(group),
            looked,
            rebalances: 0,
        }
    }

    pub(super) fn beat(
        &mut self,
        beat: &ShareHeartbeat,
        rules: &Rules<'_>,
    ) -> Result<Reconciled, GroupError> {
        if beat.epoch == Epoch::LEAVING {
            let member = self.group.members.get(&beat.member);
            member.ok_or(GroupError::UnknownMember)?;
            self.remove(&beat.member, rules);
            return Ok(Reconciled {
                member: beat.member.clone(),
                epoch: Epoch::LEAVING,
                heartbeat_interval: Duration::ZERO,
                assignment: None,
            });
        }
        let before = self.group.members.get(&beat.member).cloned();
        check_epoch(before.as_deref(), beat.epoch)?;
        let is_full = self.group.members.len() >= rules.settings.share_size_max;
        if before.is_none() && is_full {
            return Err(GroupError::GroupFull);
        }
        let said = said_now(beat, before.as_deref());
        let subscribes_anew = before.as_ref().is_none_or(|it| it.said.topics != said.topics);
        let had = before.as_ref().map(|it| it.current.clone()).unwrap_or_default();
        if before.is_none_or(|it| it.said != said) {
            let current = had.clone();
            let sharer = Arc::new(Sharer { said, current });
            self.change().members.insert(beat.member.clone(), sharer);
        }
        self.look_at_topics(subscribes_anew, rules);
        self.assign(rules);
        let current = self.reconcile(&beat.member);
        // Whoever is behind has not heard what it was told.
        let is_told = beat.epoch != current.epoch || current.assigned != had.assigned;
        Ok(Reconciled {
            member: beat.member.clone(),
            epoch: current.epoch,
            heartbeat_interval: rules.settings.share_heartbeat_interval,
            assignment: is_told.then_some(current.assigned),
        })
    }

    /// Takes a member out, if it is one.
    pub(super) fn remove(&mut self, id: &Name, rules: &Rules<'_>) {
        if self.group.members.contains_key(id) {
            self.change().remove(id);
            self.look_at_topics(true, rules);
        }
    }

    fn change(&mut self) -> &mut ShareGroup {
        Arc::make_mut(&mut self.group)
    }

    /// Begins a new epoch if somebody wants one, or if what is subscribed to has changed.
    fn look_at_topics(&mut self, needs_epoch: bool, rules: &Rules<'_>) {
        if !needs_epoch && !rules.topics.have_changed_since(self.looked) {
            return;
        }
        let hash = rules.topics.hash_of(self.group.subscribed());
        if needs_epoch || hash != self.group.metadata.topics_hash {
            let metadata = &mut self.change().metadata;
            metadata.topics_hash = hash;
            metadata.epoch = metadata.epoch.next();
            self.rebalances += 1;
        }
        self.looked = rules.topics.looked();
    }

    /// Deals the partitions out for the group's epoch, if that was not done yet.
    fn assign(&mut self, rules: &Rules<'_>) {
        if self.group.metadata.epoch == self.group.assignment_epoch {
            return;
        }
        let group = self.change();
        let mut counts: BTreeMap<TopicId, i32> = BTreeMap::new();
        let subscribers = group.members.iter().map(|(id, member)| {
            let topics = rules.topics.count_partitions(&member.said.topics, &mut counts);
            Subscriber {
                id: id.clone(),
                instance: None,
                topics,
                before: (*group.target(id)).clone(),
            }
        });
        let subscribers: Vec<Subscriber> = subscribers.collect();
        let assignments = assignor::assign(&subscribers, &counts);
        for (member, assignment) in subscribers.into_iter().zip(assignments) {
            let before = group.targets.get(&member.id);
            if before.is_none_or(|before| **before != assignment) {
                group.targets.insert(member.id, Arc::new(assignment));
            }
        }
        group.assignment_epoch = group.metadata.epoch;
    }

    /// Gives a member all that it is to have.
    fn reconcile(&mut self, id: &Name) -> CurrentShare {
        let (target, epoch) = (self.group.target(id), self.group.assignment_epoch);
        let Some(member) = self.group.members.get(id).cloned() else {
            return CurrentShare::default();
        };
        if member.current.epoch == epoch && member.current.assigned == *target {
            return member.current.clone();
        }
        let current = CurrentShare {
            epoch,
            previous_epoch: member.current.epoch,
            assigned: Assignment::clone(&target),
        };
        let said = member.said.clone();
        let kept = current.clone();
        let sharer = Arc::new(Sharer { said, current: kept });
        self.change().members.insert(id.clone(), sharer);
        current
    }
}

/// A member may be one epoch behind, if the answer with its newest one was lost.
fn check_epoch(member: Option<&Sharer>, epoch: Epoch) -> Result<(), GroupError> {
    if epoch == Epoch::JOINING {
        return Ok(());
    }
    let current = &member.ok_or(GroupError::UnknownMember)?.current;
    if epoch == current.epoch || epoch == current.previous_epoch {
        return Ok(());
    }
    Err(GroupError::FencedEpoch)
}

/// What a member says now: what is absent in its heartbeat is as before.
fn said_now(beat: &ShareHeartbeat, before: Option<&Sharer>) -> ShareMember {
    let before = before.map(|it| &it.said);
    let topics: Option<&BTreeSet<Name>> = beat.topics.as_ref().or_else(|| before.map(|it| &it.topics));
    let rack = beat.rack.as_ref().or_else(|| before?.rack.as_ref());
    ShareMember {
        rack: rack.cloned(),
        client_id: beat.client_id.clone(),
        client_host: beat.client_host.clone(),
        topics: topics.cloned().unwrap_or_default(),
    }
}
