//! How long members may be silent, and how long they may take to give up what they have to.

use super::super::super::request::{Epoch, Name};
use super::super::super::store::MemberStage;
use super::super::{Due, Now, State};
use super::Consumers;
use super::draft::Cause;
use std::time::{Duration, Instant};

/// A member that could not be taken out is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    /// When the member must have been heard of again.
    deadline: Instant,
    /// When that is looked at: never behind `deadline`.
    looked_at: Instant,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Revocation {
    /// The member's epoch in which it is to give something up.
    epoch: Epoch,
    until: Instant,
}

impl Consumers {
    /// Whether there still is a reason for a member to be out.
    pub(super) fn is_overdue(&self, member: &str, cause: Cause, now: Now) -> bool {
        match cause {
            Cause::Silent => self.sessions.get(member).is_some_and(|it| it.deadline <= now.at),
            Cause::Slow(epoch) => {
                let revocation = self.revocations.get(member);
                revocation.is_some_and(|it| it.epoch == epoch && it.until <= now.at)
            }
        }
    }
}

impl State {
    /// From now on a member that is known has a whole session to be heard of.
    pub(super) fn expect_consumer(&mut self, name: &str, member: &str, now: Now) {
        let deadline = now.at + self.settings.consumer_session_timeout;
        if let Some(session) = self.consumers(name).and_then(|it| it.sessions.get_mut(member)) {
            session.deadline = deadline;
            // An earlier look finds out, if it is still to come.
            if session.looked_at <= now.at {
                session.looked_at = deadline;
                self.deadlines.put(
                    deadline,
                    Due::ConsumerSession(Name::from(name), Name::from(member)),
                );
            }
        }
    }

    /// Each member has a session, and a time to give up what it is to give up.
    pub(in super::super) fn keep_time(&mut self, name: &Name, now: Now) {
        let deadline = now.at + self.settings.consumer_session_timeout;
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let Some(consumers) = group.consumers.as_deref_mut() else {
            return;
        };
        let members = &consumers.group.members;
        consumers.sessions.retain(|id, _| members.contains_key(id));
        let is_revoking = |id: &Name| {
            let member = members.get(id)?;
            (member.current.stage == MemberStage::Unrevoked).then_some(member.current.epoch)
        };
        consumers
            .revocations
            .retain(|id, revocation| is_revoking(id) == Some(revocation.epoch));
        for (id, member) in members {
            if !consumers.sessions.contains_key(id) {
                let looked_at = deadline;
                consumers
                    .sessions
                    .insert(id.clone(), Session { deadline, looked_at });
                self.deadlines
                    .put(deadline, Due::ConsumerSession(name.clone(), id.clone()));
            }
            let timeout = u64::try_from(member.said.rebalance_timeout_ms);
            if let (Some(epoch), Ok(ms)) = (is_revoking(id), timeout)
                && !consumers.revocations.contains_key(id)
            {
                let until = now.at + Duration::from_millis(ms);
                consumers
                    .revocations
                    .insert(id.clone(), Revocation { epoch, until });
                self.deadlines
                    .put(until, Due::Revocation(name.clone(), id.clone()));
            }
        }
    }

    pub(in super::super) fn consumer_session_is_due(&mut self, name: &Name, id: &Name, now: Now) {
        let Some(session) = self.consumers(name).and_then(|it| it.sessions.get_mut(id)) else {
            return;
        };
        // One that came back by the same id is looked at by a deadline of its own.
        if session.looked_at > now.at {
            return;
        }
        if session.deadline > now.at {
            let at = session.deadline;
            session.looked_at = at;
            self.deadlines
                .put(at, Due::ConsumerSession(name.clone(), id.clone()));
            return;
        }
        tracing::info!(group = %name, member = %id, "a member was not heard of in time");
        self.want_out(name, id, Cause::Silent, now);
    }

    pub(in super::super) fn revocation_is_due(&mut self, name: &Name, id: &Name, now: Now) {
        let revocation = self.consumers(name).and_then(|it| it.revocations.get(id));
        let Some(Revocation { epoch, until }) = revocation.copied() else {
            return;
        };
        if until > now.at {
            return;
        }
        tracing::info!(group = %name, member = %id, "a member did not give its partitions up in time");
        self.want_out(name, id, Cause::Slow(epoch), now);
    }

    /// Whoever is overdue could not be taken out.
    pub(super) fn look_again(&mut self, name: &Name, now: Now) {
        let Some(consumers) = self.groups.get_mut(name).and_then(|it| it.consumers.as_mut()) else {
            return;
        };
        let at = now.at + LOOK_AGAIN;
        for (id, session) in &mut consumers.sessions {
            if session.deadline <= now.at {
                session.looked_at = at;
                self.deadlines
                    .put(at, Due::ConsumerSession(name.clone(), id.clone()));
            }
        }
        for (id, revocation) in &consumers.revocations {
            if revocation.until <= now.at {
                self.deadlines.put(at, Due::Revocation(name.clone(), id.clone()));
            }
        }
    }
}
