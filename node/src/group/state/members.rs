//! SyncGroup, Heartbeat and LeaveGroup, and members that are not heard of.

use super::super::error::GroupError;
use super::super::request::{Heartbeat, Identity, Name, SyncGroup};
use super::group::{Group, Phase};
use super::rebalance::synced;
use super::{Answer, CallId, Due, Now, State};
use std::time::Duration;

impl State {
    pub(crate) fn sync(&mut self, now: Now, call: CallId, sync: &SyncGroup) {
        if let Err(error) = self.try_sync(now, call, sync) {
            self.answer(call, Answer::Synced(Err(error)));
        }
    }

    fn try_sync(&mut self, now: Now, call: CallId, sync: &SyncGroup) -> Result<(), GroupError> {
        let Identity {
            group: name,
            member: id,
            ..
        } = &sync.who;
        let group = self.living(name)?.ok_or(GroupError::UnknownMember)?;
        group.check(id, sync.who.instance.as_ref())?;
        if sync.generation != group.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |named: &Option<Name>, ours: &Option<Name>| named.is_some() && named != ours;
        if differs(&sync.protocol_type, &group.protocol_type) || differs(&sync.protocol, &group.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        match group.phase {
            Phase::Empty => Err(GroupError::UnknownMember),
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            Phase::Completing => {
                let group = self.group(name);
                group.unsynced.remove(id);
                let is_leader = group.is_leader(id);
                let member = group.members.get_mut(id).expect("it was checked above");
                let forgotten = member.syncing.replace(call);
                if let Some(forgotten) = forgotten {
                    self.answer(forgotten, Answer::Synced(Err(GroupError::RebalanceInProgress)));
                }
                if is_leader {
                    self.assign(name, &sync.assignments, now);
                }
                Ok(())
            }
            Phase::Stable => {
                let told = synced(group, id);
                self.group(name).unsynced.remove(id);
                self.expect_heartbeat(name, id, now);
                self.answer(call, Answer::Synced(Ok(told)));
                Ok(())
            }
        }
    }

    pub(crate) fn heartbeat(&mut self, now: Now, beat: &Heartbeat) -> Result<(), GroupError> {
        let Identity {
            group: name,
            member: id,
            ..
        } = &beat.who;
        let group = self.living(name)?.ok_or(GroupError::UnknownMember)?;
        group.check(id, beat.who.instance.as_ref())?;
        if beat.generation != group.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let answer = match group.phase {
            Phase::Empty => return Err(GroupError::UnknownMember),
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            Phase::Completing | Phase::Stable => Ok(()),
        };
        self.expect_heartbeat(name, id, now);
        answer
    }

    /// Takes members out of a group, each by its id, or by its instance id alone.
    pub(crate) fn leave(
        &mut self,
        now: Now,
        name: &Name,
        leaving: &[Identity],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.living(name)?.is_none() {
            return Ok(vec![Err(GroupError::UnknownMember); leaving.len()]);
        }
        let results = leaving.iter().map(|who| self.leave_one(now, name, who));
        Ok(results.collect())
    }

    fn leave_one(&mut self, now: Now, name: &Name, who: &Identity) -> Result<(), GroupError> {
        let group = self.group(name);
        if who.member.is_empty() {
            let instance = who.instance.as_ref().ok_or(GroupError::UnknownMember)?;
            let id = group
                .instances
                .get(instance)
                .ok_or(GroupError::UnknownMember)?
                .clone();
            self.remove_member(name, &id, now);
            return Ok(());
        }
        if group.promised.remove(&who.member).is_some() {
            self.complete_if_all_joined(name, now);
            self.remove_if_bare(name);
            return Ok(());
        }
        group.check(&who.member, who.instance.as_ref())?;
        self.remove_member(name, &who.member, now);
        Ok(())
    }

    /// The member is gone, whatever it waits for, and the group divides its partitions anew.
    pub(super) fn remove_member(&mut self, name: &Name, id: &str, now: Now) {
        let Some(gone) = self.group(name).remove(id) else {
            return;
        };
        if let Some(call) = gone.joining {
            self.answer(call, Answer::Joined(Err(GroupError::UnknownMember)));
        }
        if let Some(call) = gone.syncing {
            self.answer(call, Answer::Synced(Err(GroupError::UnknownMember)));
        }
        match self.group(name).phase {
            Phase::Empty => {}
            Phase::Preparing { .. } => self.complete_if_all_joined(name, now),
            Phase::Completing | Phase::Stable => self.prepare_rebalance(name, now),
        }
    }

    /// From now on the member has a whole session to be heard of.
    pub(super) fn expect_heartbeat(&mut self, name: &Name, id: &str, now: Now) {
        let Some(member) = self.group(name).members.get(id) else {
            return;
        };
        let session = member.session_timeout;
        self.expect_within(name, id, session, now);
    }

    pub(super) fn expect_within(&mut self, name: &Name, id: &str, patience: Duration, now: Now) {
        let deadline = now.at + patience;
        let group = self.groups.get_mut(name).expect("the caller has found it");
        let Some(member) = group.members.get_mut(id) else {
            return;
        };
        member.deadline = Some(deadline);
        // A later deadline is found when the earlier look is due: a heartbeat costs nothing more.
        let looks_in_time = member.looked_at.is_some_and(|looked_at| looked_at <= deadline);
        if looks_in_time {
            return;
        }
        let due = Due::Session(name.clone(), member.id.clone());
        if let Some(before) = member.looked_at.replace(deadline) {
            self.deadlines.remove(before, due.clone());
        }
        self.deadlines.put(deadline, due);
    }

    pub(super) fn session_is_due(&mut self, name: &Name, id: &Name, now: Now) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let Some(member) = group.members.get_mut(id) else {
            return;
        };
        // One that was taken out and came back by the same id is looked at by a deadline of its own.
        if member.looked_at.is_none_or(|looked_at| looked_at > now.at) {
            return;
        }
        member.looked_at = None;
        let Some(deadline) = member.deadline else { return };
        if deadline > now.at {
            member.looked_at = Some(deadline);
            self.deadlines
                .put(deadline, Due::Session(name.clone(), id.clone()));
        } else if !member.is_owed() {
            tracing::info!(group = %name, member = %id, "a member was not heard of in time");
            self.remove_member(name, id, now);
        }
    }

    /// Nobody came back with the member id that was told.
    pub(super) fn promise_is_due(&mut self, name: &Name, id: &Name, now: Now) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let is_over = |group: &Group| group.promised.get(id).is_some_and(|until| *until <= now.at);
        if is_over(group) {
            group.promised.remove(id);
            self.complete_if_all_joined(name, now);
            self.remove_if_bare(name);
        }
    }
}
