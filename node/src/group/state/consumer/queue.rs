//! Wishes of members, in their order: those that come while a group is being written wait, and are written together.

use super::super::super::error::{AppendRefused, GroupError};
use super::super::super::request::{ConsumerHeartbeat, Epoch, Name, Reconciled};
use super::super::super::store;
use super::super::group::{Group, Phase};
use super::super::{Answer, CallId, Now, State, Undertaking, refusal};
use super::draft::{Cause, Draft, Rules};
use super::topics::Looked;
use super::{ConsumerGroup, Consumers};
use crate::metadata::Image;
use std::sync::Arc;

/// Wishes of one group that wait; whoever sends more is to ask again.
const WAITING_MAX: usize = 16_384;

/// What is wanted of a group.
#[derive(Debug)]
pub(super) enum Wish {
    Beat {
        call: CallId,
        beat: Box<ConsumerHeartbeat>,
        fresh: u128,
    },
    /// A member is out.
    Fence { member: Name, cause: Cause },
}

/// A group on its way into the log.
#[derive(Debug)]
pub(in super::super) struct Reconciling {
    group: Name,
    next: Arc<ConsumerGroup>,
    looked: Looked,
    /// What is answered when it is kept.
    answers: Vec<(CallId, Result<Reconciled, GroupError>)>,
}

impl State {
    /// The metadata by which partitions are dealt out from now on.
    pub(crate) fn see(&mut self, image: Arc<Image>) {
        self.topics.see(image);
    }

    /// How often groups had to be assigned anew.
    pub(crate) fn rebalances(&self) -> u64 {
        self.rebalances
    }

    /// `fresh` is a number that no member of any group was ever given.
    pub(crate) fn consumer_heartbeat(
        &mut self,
        now: Now,
        call: CallId,
        beat: ConsumerHeartbeat,
        fresh: u128,
    ) {
        let name = beat.who.group.clone();
        if let Err(error) = self.try_heartbeat(now, call, beat, fresh) {
            self.answer(call, Answer::Reconciled(Err(error)));
        }
        self.advance(&name, now);
    }

    fn try_heartbeat(
        &mut self,
        now: Now,
        call: CallId,
        beat: ConsumerHeartbeat,
        fresh: u128,
    ) -> Result<(), GroupError> {
        beat.check(&self.settings.assignors)?;
        let name = &beat.who.group;
        let joins = beat.epoch == Epoch::JOINING;
        match self.living(name)? {
            None if !joins => return Err(GroupError::GroupNotFound),
            None => {
                let group = self.add_group(Group::new(name.clone()), now);
                group.consumers = Some(Box::default());
            }
            Some(group) if group.consumers.is_some() => {}
            // Groups without members may become any kind of group, but for share groups.
            Some(group) if joins && group.phase == Phase::Empty && group.sharers.is_none() => {
                self.group(name).consumers = Some(Box::default());
            }
            Some(_) => return Err(GroupError::OtherProtocol),
        }
        if self.group(name).is_believable(&beat) {
            self.expect_consumer(name, &beat.who.member, now);
        }
        let consumers = self.group(name).consumers.as_mut().expect("it was seen to above");
        if consumers.waiting.len() >= WAITING_MAX {
            return Err(GroupError::NotAvailable);
        }
        let beat = Box::new(beat);
        consumers.waiting.push_back(Wish::Beat { call, beat, fresh });
        Ok(())
    }

    /// Wishes for a member to be out. There are no more such wishes than members.
    pub(super) fn want_out(&mut self, name: &Name, member: &Name, cause: Cause, now: Now) {
        if let Some(consumers) = self.consumers(name) {
            let member = member.clone();
            consumers.waiting.push_back(Wish::Fence { member, cause });
            self.advance(name, now);
        }
    }

    pub(super) fn consumers(&mut self, name: &str) -> Option<&mut Consumers> {
        self.groups.get_mut(name)?.consumers.as_deref_mut()
    }

    /// Deals with all wishes of a group, unless it is being written.
    fn advance(&mut self, name: &Name, now: Now) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let Some(consumers) = group.consumers.as_deref_mut().filter(|it| !it.is_writing) else {
            return;
        };
        let wishes = std::mem::take(&mut consumers.waiting);
        let rules = Rules {
            settings: &self.settings,
            topics: &self.topics,
            unix_ms: now.unix_ms,
        };
        let mut draft = Draft::new(&consumers.group, consumers.looked);
        let mut answers = Vec::with_capacity(wishes.len());
        for wish in wishes {
            match wish {
                Wish::Beat { call, beat, fresh } => answers.push((call, draft.beat(&beat, fresh, &rules))),
                Wish::Fence { member, cause } if consumers.is_overdue(&member, cause, now) => {
                    draft.fence(&member, cause, &rules);
                }
                Wish::Fence { .. } => {}
            }
        }
        let mut records = draft.group.records_since(&consumers.group, name);
        self.rebalances += draft.rebalances;
        if records.is_empty() {
            (consumers.group, consumers.looked) = (draft.group, draft.looked);
            self.answer_all(name, answers, now);
            self.drop_if_not_kept(name);
            return;
        }
        if group.value.is_some() {
            records.insert(0, store::group_tombstone(name));
        }
        consumers.is_writing = true;
        let then = Reconciling {
            group: name.clone(),
            next: draft.group,
            looked: draft.looked,
            answers,
        };
        self.write(records, Undertaking::Reconciling(then));
    }

    pub(in super::super) fn reconciling_is_done(
        &mut self,
        reconciling: Reconciling,
        result: Result<(), AppendRefused>,
        now: Now,
    ) {
        let Reconciling {
            group: name,
            next,
            looked,
            answers,
        } = reconciling;
        let group = self.group(&name);
        let before = group.live_bytes();
        let consumers = group
            .consumers
            .as_mut()
            .expect("it stays while it is being written");
        consumers.is_writing = false;
        match result {
            Ok(()) => {
                (consumers.group, consumers.looked) = (next, looked);
                group.end_classic(now.unix_ms);
                self.live_bytes = self.live_bytes + self.groups[&name].live_bytes() - before;
                self.keep_time(&name, now);
                self.answer_all(&name, answers, now);
            }
            Err(refused) => {
                let error = refusal(refused, GroupError::GroupTooLarge);
                let answers = answers.into_iter().map(|(call, _)| (call, Err(error.clone())));
                self.answer_all(&name, answers, now);
                self.look_again(&name, now);
            }
        }
        self.advance(&name, now);
    }

    fn answer_all(
        &mut self,
        name: &Name,
        answers: impl IntoIterator<Item = (CallId, Result<Reconciled, GroupError>)>,
        now: Now,
    ) {
        for (call, answer) in answers {
            if let Ok(reconciled) = &answer {
                // Nobody heard of it while it waited.
                self.expect_consumer(name, &reconciled.member, now);
            }
            self.answer(call, Answer::Reconciled(answer));
        }
    }

    /// A group that was made for wishes that came to nothing is what it was before.
    fn drop_if_not_kept(&mut self, name: &Name) {
        let group = self.group(name);
        if group
            .consumers
            .as_ref()
            .is_some_and(|it| !it.is_kept() && it.is_empty())
        {
            group.consumers = None;
            self.remove_if_bare(name);
        }
    }
}

impl Group {
    /// Whether a heartbeat may be a member's sign of life, as far as the log tells. If it waits, the member is not silent.
    fn is_believable(&self, beat: &ConsumerHeartbeat) -> bool {
        let member = self
            .consumers
            .as_ref()
            .and_then(|it| it.group.member(&beat.who.member));
        member.is_some_and(|member| {
            let current = &member.current;
            [Epoch::JOINING, current.epoch, current.previous_epoch].contains(&beat.epoch)
        })
    }

    /// Nothing is left of the classic protocol, beside the offsets.
    fn end_classic(&mut self, unix_ms: i64) {
        if self.value.take().is_some() || self.protocol_type.is_some() || !self.promised.is_empty() {
            *self = Self {
                offsets: std::mem::take(&mut self.offsets),
                committing: std::mem::take(&mut self.committing),
                consumers: self.consumers.take(),
                since_ms: Some(unix_ms),
                ..Self::new(self.name.clone())
            };
        }
    }
}
