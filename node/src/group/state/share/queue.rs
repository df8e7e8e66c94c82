//! Wishes of members, in their order: those that come while a group is being written wait, and are written together. And how
//! long members may be silent.

use super::super::super::error::{AppendRefused, GroupError};
use super::super::super::request::{Epoch, Name, Reconciled, ShareHeartbeat};
use super::super::consumer::Looked;
use super::super::group::Group;
use super::super::{Answer, CallId, Due, Now, State, Undertaking, refusal};
use super::beat::{Draft, Rules};
use super::{ShareGroup, Sharers};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Wishes of one group that wait; whoever sends more is to ask again.
const WAITING_MAX: usize = 16_384;
/// A member that could not be taken out is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is wanted of a group.
#[derive(Debug)]
pub(super) enum Wish {
    Beat {
        call: CallId,
        beat: Box<ShareHeartbeat>,
    },
    /// A member was not heard of in time, and is out.
    Fence(Name),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    /// When the member must have been heard of again.
    deadline: Instant,
    /// When that is looked at: never behind `deadline`.
    looked_at: Instant,
}

/// A group on its way into the log.
#[derive(Debug)]
pub(in super::super) struct Sharing {
    group: Name,
    next: Arc<ShareGroup>,
    looked: Looked,
    /// What is answered when it is kept.
    answers: Vec<(CallId, Result<Reconciled, GroupError>)>,
}

impl State {
    pub(crate) fn share_heartbeat(&mut self, now: Now, call: CallId, beat: ShareHeartbeat) {
        let name = beat.group.clone();
        if let Err(error) = self.try_share_heartbeat(now, call, beat) {
            self.answer(call, Answer::Reconciled(Err(error)));
        }
        self.advance_sharers(&name, now);
    }

    fn try_share_heartbeat(
        &mut self,
        now: Now,
        call: CallId,
        beat: ShareHeartbeat,
    ) -> Result<(), GroupError> {
        beat.check()?;
        let name = &beat.group;
        match self.living(name)? {
            None if beat.epoch != Epoch::JOINING => return Err(GroupError::GroupNotFound),
            None => {
                let group = self.add_group(Group::new(name.clone()), now);
                group.sharers = Some(Box::default());
            }
            Some(group) if group.sharers.is_some() => {}
            Some(_) => return Err(GroupError::OtherProtocol),
        }
        // If it waits, the member is not silent.
        self.expect_sharer(name, &beat.member, now);
        let sharers = self.sharers(name).expect("it was seen to above");
        if sharers.waiting.len() >= WAITING_MAX {
            return Err(GroupError::NotAvailable);
        }
        let beat = Box::new(beat);
        sharers.waiting.push_back(Wish::Beat { call, beat });
        Ok(())
    }

    fn sharers(&mut self, name: &str) -> Option<&mut Sharers> {
        self.groups.get_mut(name)?.sharers.as_deref_mut()
    }

    /// Deals with all wishes of a group, unless it is being written.
    fn advance_sharers(&mut self, name: &Name, now: Now) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let Some(sharers) = group.sharers.as_deref_mut().filter(|it| !it.is_writing) else {
            return;
        };
        let wishes = std::mem::take(&mut sharers.waiting);
        let rules = Rules {
            settings: &self.settings,
            topics: &self.topics,
        };
        let mut draft = Draft::new(&sharers.group, sharers.looked);
        let mut answers = Vec::with_capacity(wishes.len());
        for wish in wishes {
            match wish {
                Wish::Beat { call, beat } => answers.push((call, draft.beat(&beat, &rules))),
                Wish::Fence(member) if is_silent(sharers, &member, now) => draft.remove(&member, &rules),
                Wish::Fence(_) => {}
            }
        }
        let records = draft.group.records_since(&sharers.group, name);
        self.rebalances += draft.rebalances;
        if records.is_empty() {
            (sharers.group, sharers.looked) = (draft.group, draft.looked);
            self.answer_sharers(name, answers, now);
            self.drop_sharers_if_not_kept(name);
            return;
        }
        sharers.is_writing = true;
        let then = Sharing {
            group: name.clone(),
            next: draft.group,
            looked: draft.looked,
            answers,
        };
        self.write(records, Undertaking::Sharing(then));
    }

    pub(in super::super) fn sharing_is_done(
        &mut self,
        sharing: Sharing,
        result: Result<(), AppendRefused>,
        now: Now,
    ) {
        let Sharing {
            group: name,
            next,
            looked,
            answers,
        } = sharing;
        let before = self.group(&name).live_bytes();
        let sharers = self.sharers(&name).expect("it stays while it is being written");
        sharers.is_writing = false;
        match result {
            Ok(()) => {
                (sharers.group, sharers.looked) = (next, looked);
                self.live_bytes = self.live_bytes + self.groups[&name].live_bytes() - before;
                self.keep_sharers_time(&name, now);
                self.answer_sharers(&name, answers, now);
            }
            Err(refused) => {
                let error = refusal(refused, GroupError::GroupTooLarge);
                let answers = answers.into_iter().map(|(call, _)| (call, Err(error.clone())));
                self.answer_sharers(&name, answers, now);
                self.look_at_sharers_again(&name, now);
            }
        }
        self.advance_sharers(&name, now);
        self.drop_sharers_if_not_kept(&name);
    }

    fn answer_sharers(
        &mut self,
        name: &Name,
        answers: impl IntoIterator<Item = (CallId, Result<Reconciled, GroupError>)>,
        now: Now,
    ) {
        for (call, answer) in answers {
            if let Ok(reconciled) = &answer {
                // Nobody heard of it while it waited.
                self.expect_sharer(name, &reconciled.member, now);
            }
            self.answer(call, Answer::Reconciled(answer));
        }
    }

    /// A group that was made for wishes that came to nothing is none.
    fn drop_sharers_if_not_kept(&mut self, name: &Name) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        if group
            .sharers
            .as_ref()
            .is_some_and(|it| !it.is_kept() && it.is_empty())
        {
            group.sharers = None;
            self.remove_if_bare(name);
        }
    }

    /// From now on a member that is known has a whole session to be heard of.
    fn expect_sharer(&mut self, name: &Name, member: &Name, now: Now) {
        let deadline = now.at + self.settings.share_session_timeout;
        let Some(session) = self.sharers(name).and_then(|it| it.sessions.get_mut(member)) else {
            return;
        };
        session.deadline = deadline;
        // An earlier look finds out, if it is still to come.
        if session.looked_at <= now.at {
            session.looked_at = deadline;
            let due = Due::ShareSession(name.clone(), member.clone());
            self.deadlines.put(deadline, due);
        }
    }

    /// Each member has a session.
    pub(in super::super) fn keep_sharers_time(&mut self, name: &Name, now: Now) {
        let deadline = now.at + self.settings.share_session_timeout;
        let Some(sharers) = self.groups.get_mut(name).and_then(|it| it.sharers.as_deref_mut()) else {
            return;
        };
        let members = &sharers.group.members;
        sharers.sessions.retain(|id, _| members.contains_key(id));
        for id in members.keys() {
            if sharers.sessions.contains_key(id) {
                continue;
            }
            let looked_at = deadline;
            let session = Session { deadline, looked_at };
            sharers.sessions.insert(id.clone(), session);
            self.deadlines
                .put(deadline, Due::ShareSession(name.clone(), id.clone()));
        }
    }

    pub(in super::super) fn share_session_is_due(&mut self, name: &Name, id: &Name, now: Now) {
        let Some(session) = self.sharers(name).and_then(|it| it.sessions.get_mut(id)) else {
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
                .put(at, Due::ShareSession(name.clone(), id.clone()));
            return;
        }
        tracing::info!(group = %name, member = %id, "a member was not heard of in time");
        if let Some(sharers) = self.sharers(name) {
            sharers.waiting.push_back(Wish::Fence(id.clone()));
        }
        self.advance_sharers(name, now);
    }

    /// Whoever is overdue could not be taken out.
    fn look_at_sharers_again(&mut self, name: &Name, now: Now) {
        let Some(sharers) = self.groups.get_mut(name).and_then(|it| it.sharers.as_deref_mut()) else {
            return;
        };
        let at = now.at + LOOK_AGAIN;
        for (id, session) in &mut sharers.sessions {
            if session.deadline <= now.at {
                session.looked_at = at;
                self.deadlines
                    .put(at, Due::ShareSession(name.clone(), id.clone()));
            }
        }
    }
}

/// Whether there still is a reason for a member to be out.
fn is_silent(sharers: &Sharers, member: &Name, now: Now) -> bool {
    sharers
        .sessions
        .get(member)
        .is_some_and(|it| it.deadline <= now.at)
}
