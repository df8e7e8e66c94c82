//! How a group gets from one generation to the next: it waits for its members to join, chooses leader and protocol, and
//! waits for the leader's assignment.

use super::super::error::{AppendRefused, GroupError};
use super::super::request::{Generation, Name, Synced};
use super::super::store::{self, GroupRecord};
use super::group::{Group, Phase};
use super::join::joined;
use super::{Answer, Due, Now, State, Undertaking, refusal};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

impl State {
    /// Has the members join again, unless they are asked to already.
    pub(super) fn prepare_rebalance(&mut self, name: &Name, now: Now) {
        let initial_delay = self.settings.initial_delay;
        let group = self.group(name);
        let (wait, initial) = match group.phase {
            Phase::Preparing { .. } => return,
            Phase::Empty => {
                group.has_newcomers = false;
                let longer = group.rebalance_timeout().saturating_sub(initial_delay);
                (initial_delay, Some(longer))
            }
            Phase::Completing | Phase::Stable => (group.rebalance_timeout(), None),
        };
        if group.phase == Phase::Completing {
            self.give_assignments(name, &BTreeMap::new(), Err(GroupError::RebalanceInProgress), now);
        }
        let group = self.group(name);
        group.sync_until = None;
        group.unsynced.clear();
        self.wait_for_members(name, wait, initial, now);
        self.complete_if_all_joined(name, now);
    }

    fn wait_for_members(&mut self, name: &Name, wait: Duration, initial: Option<Duration>, now: Now) {
        let until = now.at + wait;
        self.group(name).phase = Phase::Preparing { until, initial };
        self.deadlines.put(until, Due::Rebalance(name.clone()));
    }

    pub(super) fn rebalance_is_due(&mut self, name: &Name, now: Now) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let Phase::Preparing { until, initial } = group.phase else {
            return;
        };
        if until > now.at {
            return;
        }
        match initial {
            Some(longer) if group.has_newcomers && !longer.is_zero() => {
                group.has_newcomers = false;
                let wait = self.settings.initial_delay.min(longer);
                self.wait_for_members(name, wait, Some(longer - wait), now);
            }
            Some(_) | None => self.complete_join(name, now),
        }
    }

    /// Begins the next generation if nobody is waited for. The first one of an empty group takes its time.
    pub(super) fn complete_if_all_joined(&mut self, name: &Name, now: Now) {
        let Some(group) = self.groups.get(name) else {
            return;
        };
        let all_here = group.awaiting_join() == group.members.len() && group.promised.is_empty();
        if matches!(group.phase, Phase::Preparing { initial: None, .. }) && all_here {
            self.complete_join(name, now);
        }
    }

    fn complete_join(&mut self, name: &Name, now: Now) {
        let group = self.group(name);
        let absent = |group: &Group| -> Vec<Name> {
            let absent = group
                .members
                .values()
                .filter(|member| member.joining.is_none() && member.instance.is_none());
            absent.map(|member| member.id.clone()).collect()
        };
        for id in absent(group) {
            group.remove(&id);
        }
        if !elect_leader(group) && !group.members.is_empty() {
            // Static members only, and none has come: until one does, or their sessions end.
            let wait = group.rebalance_timeout();
            self.wait_for_members(name, wait, None, now);
            return;
        }
        group.generation = next(group.generation);
        group.unsynced.clear();
        if group.members.is_empty() {
            self.become_empty(name, now);
            return;
        }
        let protocol = group.choose_protocol();
        group.protocol = protocol;
        group.subscribed = group.subscriptions();
        group.phase = Phase::Completing;
        let members: Vec<Name> = group.members.keys().cloned().collect();
        group.unsynced = members.iter().cloned().collect();
        let until = now.at + group.rebalance_timeout();
        group.sync_until = Some(until);
        self.deadlines.put(until, Due::Sync(name.clone()));
        for id in &members {
            let group = self.group(name);
            let told = joined(group, id);
            let member = group.members.get_mut(id).expect("they are the group's own");
            member.is_new = false;
            let call = member.joining.take();
            self.expect_heartbeat(name, id, now);
            if let Some(call) = call {
                self.answer(call, Answer::Joined(Ok(told)));
            }
        }
    }

    fn become_empty(&mut self, name: &Name, now: Now) {
        let group = self.group(name);
        group.phase = Phase::Empty;
        group.protocol = None;
        group.subscribed = None;
        group.since_ms = Some(now.unix_ms);
        let value = store::group_value(&group.metadata(&BTreeMap::new(), now.unix_ms));
        let record = GroupRecord {
            key: store::group_key(name),
            value: Some(value.clone()),
        };
        let group = name.clone();
        self.write(vec![record], Undertaking::Emptied { group, value });
    }

    /// The leader has assigned: that is kept before anybody is told.
    pub(super) fn assign(&mut self, name: &Name, given: &[(Name, Bytes)], now: Now) {
        let group = self.group(name);
        let mut assignments: BTreeMap<Name, Bytes> = given.iter().cloned().collect();
        assignments.retain(|id, _| group.members.contains_key(id));
        for id in group.members.keys() {
            assignments.entry(id.clone()).or_default();
        }
        let value = store::group_value(&group.metadata(&assignments, now.unix_ms));
        let record = GroupRecord {
            key: store::group_key(name),
            value: Some(value.clone()),
        };
        let then = Undertaking::Assignment {
            group: name.clone(),
            generation: group.generation,
            assignments,
            value,
        };
        self.write(vec![record], then);
    }

    pub(super) fn assignment_is_done(
        &mut self,
        name: &Name,
        generation: Generation,
        assignments: &BTreeMap<Name, Bytes>,
        result: Result<(), AppendRefused>,
        now: Now,
    ) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        // Somebody else may have come meanwhile.
        if group.phase != Phase::Completing || group.generation != generation {
            return;
        }
        match result {
            Ok(()) => {
                group.phase = Phase::Stable;
                group.since_ms = Some(now.unix_ms);
                self.give_assignments(name, assignments, Ok(()), now);
            }
            Err(refused) => {
                let error = refusal(refused, GroupError::GroupTooLarge);
                self.give_assignments(name, &BTreeMap::new(), Err(error), now);
                self.prepare_rebalance(name, now);
            }
        }
    }

    /// Answers whoever waits for its assignment. Those who do not wait get theirs when they ask.
    fn give_assignments(
        &mut self,
        name: &Name,
        assignments: &BTreeMap<Name, Bytes>,
        result: Result<(), GroupError>,
        now: Now,
    ) {
        let group = self.group(name);
        let members: Vec<Name> = group.members.keys().cloned().collect();
        for id in &members {
            let group = self.group(name);
            let member = group.members.get_mut(id).expect("they are the group's own");
            member.assignment = assignments.get(id).cloned().unwrap_or_default();
            let Some(call) = member.syncing.take() else {
                continue;
            };
            let answer = result.clone().map(|()| synced(group, id));
            // Nobody heard of it while it waited.
            self.expect_heartbeat(name, id, now);
            self.answer(call, Answer::Synced(answer));
        }
    }

    /// Those who never asked for their assignment are gone.
    pub(super) fn sync_is_due(&mut self, name: &Name, now: Now) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        if group.sync_until.is_none_or(|until| until > now.at) {
            return;
        }
        group.sync_until = None;
        let late = std::mem::take(&mut group.unsynced);
        if late.is_empty() || !matches!(group.phase, Phase::Completing | Phase::Stable) {
            return;
        }
        for id in &late {
            group.remove(id);
        }
        tracing::info!(group = %name, members = late.len(), "members did not ask for their assignment in time");
        self.prepare_rebalance(name, now);
    }
}

/// What a member is told of its assignment.
pub(super) fn synced(group: &Group, id: &str) -> Synced {
    Synced {
        protocol_type: group.protocol_type.clone(),
        protocol: group.protocol.clone(),
        assignment: group
            .members
            .get(id)
            .map(|member| member.assignment.clone())
            .unwrap_or_default(),
    }
}

/// Whether the group has a leader that has joined; another one is chosen where it has not.
fn elect_leader(group: &mut Group) -> bool {
    let has_joined = |id: &Name| {
        group
            .members
            .get(id)
            .is_some_and(|member| member.joining.is_some())
    };
    if group.leader.as_ref().is_some_and(has_joined) {
        return true;
    }
    let joined = group.members.values().find(|member| member.joining.is_some());
    let Some(joined) = joined.map(|member| member.id.clone()) else {
        return false;
    };
    group.leader = Some(joined);
    true
}

/// Counts on, and begins anew before it would become negative.
fn next(generation: Generation) -> Generation {
    Generation(generation.0.checked_add(1).unwrap_or(1))
}
