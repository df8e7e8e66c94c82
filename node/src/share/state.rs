//! What a node delivers to share groups: the sessions of their members, and the records of the partitions it leads. Pure: time is
//! an argument, and what is to be read, written or answered comes out as effects.
//!
//! What it must never do: answer that something holds before `written` has said so.

mod sessions;

#[cfg(test)]
mod tests;

use super::coordinator::{BATCH_BYTES, STATE_BYTES};
use super::delivery::{Delivery, Rules, WriteNumber};
use super::error::{ShareError, Unkept};
use super::request::{Acknowledge, Acquire, Acquired, Kept, KeptBatch, Key, Name, Place};
use headwater_protocol::ids::{LeaderEpoch, Offset};
use sessions::Sessions;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

pub(super) use sessions::SessionId;

/// Partitions that are delivered from at a time, each for one group; whoever wants more is to ask again.
const HELD_MAX: usize = 100_000;
/// Partitions whose states are written at once, and about how much of the log they take.
const WRITES_MAX: usize = 256;
const WRITE_BYTES: usize = 192 << 10;

/// How share groups are run, by the properties of the node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) rules: Rules,
    pub(super) sessions_max: usize,
}

/// Somebody who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallId(pub(super) u64);

/// One reading of a state; what comes of an older one is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading(u64);

/// One state on its way to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) place: Place,
    pub(super) state_epoch: i32,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) start: Offset,
    pub(super) batches: Vec<KeptBatch>,
    pub(super) mark: Mark,
}

/// What a write was of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    reading: Reading,
    number: WriteNumber,
}

/// What the state wants done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Answer {
        call: CallId,
        answer: Answer,
    },
    /// The state of a partition is to be read, for its leader in an epoch.
    Read {
        key: Key,
        epoch: LeaderEpoch,
        reading: Reading,
    },
    Write {
        group: Name,
        writes: Vec<Write>,
    },
    /// There may be something to be given that there was not before.
    News(Key),
    /// The partition is not delivered from any more.
    Dropped(Key),
    /// A session is over.
    Ended(SessionId),
}

/// The end of a call that had to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Where to read.
    Next(Result<Option<Offset>, ShareError>),
    Acknowledged(Result<(), ShareError>),
}

/// One partition that is delivered from.
#[derive(Debug)]
struct Held {
    epoch: LeaderEpoch,
    reading: Reading,
    phase: Phase,
    /// Where it stands in `deadlines`.
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    /// Its state is being read. Who waits for where to read, and where the log begins for it.
    Loading(Vec<(CallId, Offset)>),
    Ready(Box<Ready>),
}

#[derive(Debug)]
struct Ready {
    delivery: Delivery,
    state_epoch: i32,
    /// Who is answered when a write is done.
    waiting: Vec<(WriteNumber, CallId)>,
}

/// - A group has one write on its way at most, so that states arrive in the order in which they were.
/// - `loose` has those of `held` that no session names: they are forgotten when there is nothing to be done with them.
/// - `deadlines` has what each of `held` looks at next.
#[derive(Debug)]
pub(super) struct State {
    settings: Settings,
    sessions: Sessions,
    held: BTreeMap<Key, Held>,
    loose: BTreeSet<Key>,
    writing: BTreeSet<Name>,
    /// Where a group's last write ended that left something for the next one, which goes on behind it.
    written_up_to: BTreeMap<Name, Place>,
    deadlines: BTreeSet<(Instant, Key)>,
    effects: Vec<Effect>,
    next_reading: u64,
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            sessions: Sessions::default(),
            held: BTreeMap::new(),
            loose: BTreeSet::new(),
            writing: BTreeSet::new(),
            written_up_to: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            effects: Vec::new(),
            next_reading: 0,
        }
    }

    /// What is to be done since the last time this was asked.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(super) fn session_count(&self) -> usize {
        self.sessions.count()
    }

    pub(super) fn held_count(&self) -> usize {
        self.held.len()
    }

    /// Where to read for a group in a partition, led here in an epoch; answered when its state is known.
    pub(super) fn next(&mut self, call: CallId, key: &Key, epoch: LeaderEpoch, log_start: Offset) {
        let is_full = self.held.len() >= HELD_MAX;
        match self.held.get_mut(key) {
            Some(held) if held.epoch > epoch => {
                self.answer(call, Answer::Next(Err(ShareError::NotLeader)));
            }
            Some(held) if held.epoch == epoch => match &mut held.phase {
                Phase::Loading(waiting) => waiting.push((call, log_start)),
                Phase::Ready(ready) => {
                    let next = ready.delivery.next(log_start, &self.settings.rules);
                    self.answer(call, Answer::Next(Ok(next)));
                    self.advance(&key.group);
                }
            },
            Some(_) => {
                self.drop_held(key, ShareError::NotLeader);
                self.load(call, key, epoch, log_start);
            }
            None if is_full => {
                self.answer(call, Answer::Next(Err(ShareError::NotAvailable)));
                self.effects.push(Effect::Dropped(key.clone()));
            }
            None => self.load(call, key, epoch, log_start),
        }
    }

    fn load(&mut self, call: CallId, key: &Key, epoch: LeaderEpoch, log_start: Offset) {
        let reading = Reading(self.next_reading);
        self.next_reading += 1;
        let held = Held {
            epoch,
            reading,
            phase: Phase::Loading(vec![(call, log_start)]),
            deadline: None,
        };
        self.held.insert(key.clone(), held);
        if !self.sessions.names(key) {
            self.loose.insert(key.clone());
        }
        let key = key.clone();
        self.effects.push(Effect::Read { key, epoch, reading });
    }

    /// What became of a reading. A state that is read says where the group begins.
    pub(super) fn read(&mut self, key: &Key, reading: Reading, result: Result<Kept, ShareError>) {
        let Some(held) = self.held.get_mut(key).filter(|held| held.reading == reading) else {
            return;
        };
        let kept = match result {
            Ok(kept) => kept,
            Err(error) => return self.drop_held(key, error),
        };
        let start = kept.start.unwrap_or(Offset::ZERO);
        let ready = Ready {
            delivery: Delivery::restored(start, &kept.batches),
            state_epoch: kept.state_epoch,
            waiting: Vec::new(),
        };
        let before = std::mem::replace(&mut held.phase, Phase::Ready(Box::new(ready)));
        let epoch = held.epoch;
        if let Phase::Loading(waiting) = before {
            for (call, log_start) in waiting {
                self.next(call, key, epoch, log_start);
            }
        }
        self.sweep(&key.group);
    }

    /// Gives records to a member. Nothing, where its session or the state has been given up meanwhile.
    pub(super) fn acquire(
        &mut self,
        now: Instant,
        session: SessionId,
        (key, epoch): (&Key, LeaderEpoch),
        wanted: &Acquire,
    ) -> Vec<Acquired> {
        if !self.sessions.is_current(session, &key.group, &wanted.by) {
            return Vec::new();
        }
        let rules = self.settings.rules;
        let Some(ready) = self.ready(key, epoch) else {
            return Vec::new();
        };
        let acquired = ready.delivery.acquire(now, wanted, &rules);
        self.note_deadline(key);
        acquired
    }

    /// A member says what became of what it has acquired; answered when that is written down.
    pub(super) fn acknowledge(
        &mut self,
        now: Instant,
        call: CallId,
        (key, epoch): (&Key, LeaderEpoch),
        by: &Name,
        batches: &[Acknowledge],
    ) {
        let rules = self.settings.rules;
        let is_old = self.held.get(key).is_some_and(|held| held.epoch != epoch);
        let Some(ready) = self.ready(key, epoch) else {
            let error = if is_old {
                ShareError::NotLeader
            } else {
                ShareError::InvalidState
            };
            return self.answer(call, Answer::Acknowledged(Err(error)));
        };
        match ready.delivery.acknowledge(now, by, batches, &rules) {
            Ok(Some(number)) => {
                ready.waiting.push((number, call));
                self.advance(&key.group);
            }
            Ok(None) => self.answer(call, Answer::Acknowledged(Ok(()))),
            Err(_) => self.answer(call, Answer::Acknowledged(Err(ShareError::InvalidState))),
        }
    }

    /// Locks run out.
    pub(super) fn tick(&mut self, now: Instant) {
        let rules = self.settings.rules;
        while let Some((at, key)) = self.deadlines.first().cloned() {
            if at > now {
                return;
            }
            let Some(Held {
                phase: Phase::Ready(ready),
                ..
            }) = self.held.get_mut(&key)
            else {
                self.deadlines.pop_first();
                continue;
            };
            let any = ready.delivery.expire(now, &rules);
            self.note_deadline(&key);
            if any {
                self.effects.push(Effect::News(key.clone()));
                self.advance(&key.group);
            }
            self.sweep(&key.group);
        }
    }

    /// What became of the writes of a group.
    pub(super) fn written(&mut self, group: &Name, results: Vec<(Place, Mark, Result<(), Unkept>)>) {
        self.writing.remove(group);
        for (place, mark, result) in results {
            let group = Name::clone(group);
            let key = Key { group, place };
            let held = self.held.get_mut(&key);
            let Some(Held {
                phase: Phase::Ready(ready),
                ..
            }) = held.filter(|held| held.reading == mark.reading)
            else {
                continue;
            };
            if let Err(unkept) = result {
                // What is kept is not known, or not ours any more: it is read anew when somebody wants it.
                tracing::info!(group = %key.group, topic = %key.place.0, partition = %key.place.1, reason = %unkept, "what was delivered could not be written down");
                self.drop_held(&key, unkept.into());
                continue;
            }
            let is_news = ready.delivery.written(mark.number);
            let done: Vec<CallId> = ready
                .waiting
                .extract_if(.., |(number, _)| *number <= mark.number)
                .map(|(_, call)| call)
                .collect();
            for call in done {
                self.answer(call, Answer::Acknowledged(Ok(())));
            }
            if is_news {
                self.effects.push(Effect::News(key));
            }
        }
        self.advance(group);
        self.sweep(group);
    }

    fn ready(&mut self, key: &Key, epoch: LeaderEpoch) -> Option<&mut Ready> {
        match self.held.get_mut(key) {
            Some(Held {
                phase: Phase::Ready(ready),
                epoch: at,
                ..
            }) if *at == epoch => Some(ready),
            Some(_) | None => None,
        }
    }

    fn of_group(&self, group: &Name) -> impl Iterator<Item = (&Key, &Held)> {
        let held = self.held.range(first_of(group)..);
        held.take_while(move |(key, _)| key.group == *group)
    }

    /// Writes down what has changed for a group, unless it is writing.
    fn advance(&mut self, group: &Name) {
        if self.writing.contains(group) {
            return;
        }
        let is_dirty = |held: &Held| matches!(&held.phase, Phase::Ready(ready) if ready.delivery.is_dirty());
        let dirty = self.of_group(group).filter(|(_, held)| is_dirty(held));
        let mut dirty: Vec<Key> = dirty.map(|(key, _)| key.clone()).collect();
        if let Some(last) = self.written_up_to.remove(group) {
            let behind = dirty.partition_point(|key| key.place <= last);
            dirty.rotate_left(behind);
        }
        let count = dirty.len();
        let mut writes = Vec::with_capacity(count.min(WRITES_MAX));
        let mut bytes = 0;
        for key in dirty {
            if bytes >= WRITE_BYTES || writes.len() >= WRITES_MAX {
                break;
            }
            let Some(held) = self.held.get_mut(&key) else {
                continue;
            };
            if let Phase::Ready(ready) = &mut held.phase {
                let (number, start, batches) = ready.delivery.begin_write();
                bytes += STATE_BYTES + group.len() + BATCH_BYTES * batches.len();
                writes.push(Write {
                    place: key.place,
                    state_epoch: ready.state_epoch,
                    leader_epoch: held.epoch,
                    start,
                    batches,
                    mark: Mark {
                        reading: held.reading,
                        number,
                    },
                });
            }
        }
        if let Some(last) = writes.last() {
            let group = Name::clone(group);
            if writes.len() < count {
                self.written_up_to.insert(Name::clone(&group), last.place);
            }
            self.writing.insert(Name::clone(&group));
            self.effects.push(Effect::Write { group, writes });
        }
    }

    /// Partitions that nobody of a group fetches any more are forgotten, once everything is written down and nobody has
    /// anything of them.
    fn sweep(&mut self, group: &Name) {
        if self.loose.is_empty() || self.writing.contains(group) {
            return;
        }
        let is_idle = |key: &&Key| match self.held.get(*key).map(|held| &held.phase) {
            None => true,
            Some(Phase::Loading(_)) => false,
            Some(Phase::Ready(ready)) => {
                let delivery = &ready.delivery;
                ready.waiting.is_empty() && !delivery.is_dirty() && !delivery.has_acquired()
            }
        };
        let loose = self.loose.range(first_of(group)..);
        let loose = loose.take_while(|key| key.group == *group);
        let idle: Vec<Key> = loose.filter(is_idle).cloned().collect();
        for key in idle {
            self.loose.remove(&key);
            self.drop_held(&key, ShareError::NotAvailable);
        }
    }

    /// Gives up what is known of a partition. Who waits is told why.
    fn drop_held(&mut self, key: &Key, error: ShareError) {
        let Some(held) = self.held.remove(key) else {
            return;
        };
        self.loose.remove(key);
        if let Some(at) = held.deadline {
            self.deadlines.remove(&(at, key.clone()));
        }
        match held.phase {
            Phase::Loading(waiting) => {
                for (call, _) in waiting {
                    self.answer(call, Answer::Next(Err(error)));
                }
            }
            Phase::Ready(ready) => {
                for (_, call) in ready.waiting {
                    self.answer(call, Answer::Acknowledged(Err(error)));
                }
            }
        }
        self.effects.push(Effect::Dropped(key.clone()));
    }

    fn note_deadline(&mut self, key: &Key) {
        let Some(held) = self.held.get_mut(key) else {
            return;
        };
        let Phase::Ready(ready) = &held.phase else {
            return;
        };
        let deadline = ready.delivery.next_deadline();
        if held.deadline == deadline {
            return;
        }
        if let Some(before) = std::mem::replace(&mut held.deadline, deadline) {
            self.deadlines.remove(&(before, key.clone()));
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, key.clone()));
        }
    }

    fn answer(&mut self, call: CallId, answer: Answer) {
        self.effects.push(Effect::Answer { call, answer });
    }
}

/// No key of a group is before it.
fn first_of(group: &Name) -> Key {
    Key {
        group: Name::clone(group),
        place: (headwater_protocol::ids::TopicId([0; 16]), i32::MIN.into()),
    }
}
