//! The transactional ids of one partition of `__transaction_state`, by the rules of KIP-98, 360 and 890. Pure: time is an argument,
//! and what is to be written, answered or marked comes out as effects.
//!
//! What it must never do: answer that something is so before `written` has said so, or let a transaction be marked before its
//! decision is kept.

mod due;
mod ending;

#[cfg(test)]
mod tests;

use super::error::{NotNow, TransactionError};
use super::request::{Add, Begin, Description, Producer, Stage, TopicPartition, TransactionalId};
use super::store::{self, Kept, Record};
use due::Due;
use headwater_protocol::ids::{ProducerEpoch, ProducerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How transactions are run, by the server properties of the same names.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) timeout_max: Duration,
    /// How long a transactional id is kept that nobody uses.
    pub(crate) expiration: Duration,
}

/// Both times of one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    pub(crate) unix_ms: i64,
}

/// Somebody who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId(pub(crate) u64);

/// A record on its way into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WriteId(pub(crate) u64);

/// A transaction whose end is decided, and where that has to be marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) id: TransactionalId,
    pub(crate) producer: Producer,
    pub(crate) commit: bool,
    pub(crate) partitions: BTreeSet<TopicPartition>,
}

/// What somebody is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is in the log.
    Kept(Producer),
    /// By what is remembered: true for as long as nobody else coordinates.
    Remembered(Result<Producer, TransactionError>),
}

impl Answer {
    pub(crate) fn result(self) -> Result<Producer, TransactionError> {
        match self {
            Self::Kept(producer) => Ok(producer),
            Self::Remembered(result) => result,
        }
    }
}

/// What the state wants done. Writes are appended in the order in which they come out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Answer {
        call: CallId,
        answer: Answer,
    },
    Write {
        write: WriteId,
        record: Record,
    },
    /// `marked` is to be called when it is done.
    Mark(Decided),
}

/// What is to happen when a record is in the log for good, or is not.
#[derive(Debug)]
struct Undertaking {
    id: TransactionalId,
    /// None: the transactional id is forgotten.
    kept: Option<Kept>,
    /// Who waits, and for what.
    asked: Option<(CallId, Producer)>,
}

#[derive(Debug, Default)]
struct Entry {
    /// None: its first record is on its way.
    kept: Option<Kept>,
    is_writing: bool,
    /// All its partitions have the marker.
    is_marked: bool,
}

/// Every transactional id of the partition.
///
/// - `kept` is what the log's committed part says; while a record is on its way nothing else is begun.
/// - Each that is kept has something due.
pub(crate) struct State {
    settings: Settings,
    known: BTreeMap<TransactionalId, Entry>,
    due: Due,
    effects: Vec<Effect>,
    undertakings: BTreeMap<WriteId, Undertaking>,
    next_write: u64,
}

/// The last epoch that a producer may have; one is left for fencing it.
const EPOCH_MAX: ProducerEpoch = ProducerEpoch(i16::MAX - 1);

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            known: BTreeMap::new(),
            due: Due::default(),
            effects: Vec::new(),
            undertakings: BTreeMap::new(),
            next_write: 0,
        }
    }

    /// Takes over what the log says. What was decided is marked again.
    pub(crate) fn restore(&mut self, known: BTreeMap<TransactionalId, Kept>, now: Now) {
        for (id, kept) in known {
            if kept.stage.is_preparing() {
                self.effects.push(Effect::Mark(decided(&id, &kept)));
            }
            let entry = Entry {
                kept: Some(kept),
                ..Entry::default()
            };
            self.known.insert(id.clone(), entry);
            self.expect(&id, now);
        }
    }

    /// What is to be done since the last time this was asked.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.due.next()
    }

    pub(crate) fn count(&self) -> usize {
        self.known.len()
    }

    /// A producer begins under a transactional id, and fences whoever had it before.
    pub(crate) fn begin(&mut self, now: Now, call: CallId, begin: &Begin) {
        match self.begun(now, begin) {
            Ok(kept) => {
                let producer = kept.producer;
                self.write(&begin.id, Some(kept), Some((call, producer)));
            }
            Err(error) => self.answer(call, Err(error)),
        }
    }

    fn begun(&mut self, now: Now, begin: &Begin) -> Result<Kept, TransactionError> {
        let timeout_ms = self.timeout_ms(begin.timeout)?;
        let empty = |producer: Producer, before: Option<Producer>| Kept {
            producer,
            before,
            next: None,
            timeout_ms,
            stage: Stage::Empty,
            partitions: BTreeSet::new(),
            updated_ms: now.unix_ms,
            started_ms: None,
            bumps_epoch: false,
        };
        let fresh = begin
            .fresh
            .map(new_producer)
            .ok_or(TransactionError::NeedsProducerId);
        let Some(entry) = self.known.get(&begin.id) else {
            return fresh.map(|fresh| empty(fresh, None));
        };
        let kept = entry.idle()?;
        if begin.before.is_some_and(|before| !kept.goes_on_as(before)) {
            return Err(TransactionError::Fenced);
        }
        match kept.stage {
            Stage::PrepareCommit | Stage::PrepareAbort => Err(TransactionError::Concurrent),
            Stage::Ongoing => {
                // Asked again, it is done with.
                self.abort_and_fence(&begin.id, now);
                Err(TransactionError::Concurrent)
            }
            Stage::Empty | Stage::CompleteCommit | Stage::CompleteAbort => match begin.before {
                // Asked before, and the answer was lost.
                Some(before) if kept.before == Some(before) && before != kept.producer => {
                    Ok(empty(kept.producer, kept.before))
                }
                before if kept.producer.epoch >= EPOCH_MAX => fresh.map(|fresh| empty(fresh, before)),
                before => Ok(empty(next_epoch(kept.producer), before)),
            },
        }
    }

    fn timeout_ms(&self, timeout: Duration) -> Result<i32, TransactionError> {
        if timeout.is_zero() || timeout > self.settings.timeout_max {
            return Err(TransactionError::InvalidTimeout);
        }
        i32::try_from(timeout.as_millis()).map_err(|_| TransactionError::InvalidTimeout)
    }

    /// Partitions become part of a transaction, which begins with the first of them.
    pub(crate) fn add(&mut self, now: Now, call: CallId, add: &Add) {
        match self.added(now, add) {
            Ok(Some(kept)) => self.write(&add.id, Some(kept), Some((call, add.producer))),
            Ok(None) => self.answer(call, Ok(add.producer)),
            Err(error) => self.answer(call, Err(error)),
        }
    }

    /// None: all of them are part of it.
    fn added(&self, now: Now, add: &Add) -> Result<Option<Kept>, TransactionError> {
        let entry = self.known.get(&add.id).ok_or(TransactionError::UnknownProducer)?;
        let kept = entry.idle()?;
        kept.check(add.producer)?;
        let is_ongoing = kept.stage == Stage::Ongoing;
        match kept.stage {
            Stage::PrepareCommit | Stage::PrepareAbort => return Err(TransactionError::Concurrent),
            Stage::Ongoing if add.partitions.is_subset(&kept.partitions) => return Ok(None),
            _ if add.verify_only => return Err(TransactionError::InvalidState),
            Stage::Ongoing | Stage::Empty | Stage::CompleteCommit | Stage::CompleteAbort => {}
        }
        let mut next = kept.clone();
        if !is_ongoing {
            next.partitions.clear();
            next.started_ms = Some(now.unix_ms);
        }
        next.stage = Stage::Ongoing;
        next.partitions.extend(add.partitions.iter().cloned());
        next.updated_ms = now.unix_ms;
        Ok(Some(next))
    }

    /// What became of a write. Called in the order of the writes.
    pub(crate) fn written(&mut self, write: WriteId, result: Result<(), NotNow>, now: Now) {
        let Some(Undertaking { id, kept, asked }) = self.undertakings.remove(&write) else {
            return;
        };
        let Some(entry) = self.known.get_mut(&id) else {
            return;
        };
        entry.is_writing = false;
        match result {
            Ok(()) => {
                let stage = kept.as_ref().map(|kept| kept.stage);
                entry.kept = kept;
                match stage {
                    None => drop(self.known.remove(&id)),
                    Some(stage) if stage.is_preparing() => {
                        entry.is_marked = false;
                        let kept = entry.kept.as_ref().expect("it was just kept");
                        self.effects.push(Effect::Mark(decided(&id, kept)));
                    }
                    Some(_) => {}
                }
            }
            Err(NotNow) if entry.kept.is_none() => drop(self.known.remove(&id)),
            Err(NotNow) => {}
        }
        if let Some((call, producer)) = asked {
            let answer = match result {
                Ok(()) => Answer::Kept(producer),
                Err(NotNow) => Answer::Remembered(Err(TransactionError::NotAvailable)),
            };
            self.effects.push(Effect::Answer { call, answer });
        }
        match result {
            Ok(()) => self.expect(&id, now),
            Err(NotNow) => self.expect_again(&id, now),
        }
    }

    pub(crate) fn describe(&self, id: &str) -> Option<Description> {
        let (id, entry) = self.known.get_key_value(id)?;
        entry.kept.as_ref().map(|kept| description(id, kept))
    }

    pub(crate) fn list(&self) -> Vec<Description> {
        let kept = |(id, entry): (&TransactionalId, &Entry)| Some(description(id, entry.kept.as_ref()?));
        self.known.iter().filter_map(kept).collect()
    }

    fn answer(&mut self, call: CallId, answer: Result<Producer, TransactionError>) {
        let answer = Answer::Remembered(answer);
        self.effects.push(Effect::Answer { call, answer });
    }

    fn write(&mut self, id: &TransactionalId, kept: Option<Kept>, asked: Option<(CallId, Producer)>) {
        let write = WriteId(self.next_write);
        self.next_write += 1;
        let record = store::record(id, kept.as_ref());
        self.known.entry(id.clone()).or_default().is_writing = true;
        let id = id.clone();
        self.undertakings.insert(write, Undertaking { id, kept, asked });
        self.effects.push(Effect::Write { write, record });
    }
}

impl Entry {
    /// What is kept, if nothing is on its way.
    fn idle(&self) -> Result<&Kept, TransactionError> {
        match &self.kept {
            Some(kept) if !self.is_writing => Ok(kept),
            Some(_) | None => Err(TransactionError::Concurrent),
        }
    }
}

impl Kept {
    /// Whether it is this producer that has the transactional id.
    fn check(&self, producer: Producer) -> Result<(), TransactionError> {
        if self.next == Some(producer.id) {
            // It will have it, as soon as the transaction of before is done with.
            return Err(TransactionError::Concurrent);
        }
        if self.producer.id != producer.id {
            return Err(TransactionError::UnknownProducer);
        }
        if self.producer.epoch != producer.epoch {
            return Err(TransactionError::Fenced);
        }
        Ok(())
    }

    /// Whether a producer that was `before` may go on: nobody else has come since.
    fn goes_on_as(&self, before: Producer) -> bool {
        self.producer == before || self.before == Some(before)
    }
}

fn new_producer(id: ProducerId) -> Producer {
    Producer {
        id,
        epoch: ProducerEpoch(0),
    }
}

fn next_epoch(producer: Producer) -> Producer {
    Producer {
        epoch: ProducerEpoch(producer.epoch.value().saturating_add(1)),
        ..producer
    }
}

fn decided(id: &TransactionalId, kept: &Kept) -> Decided {
    Decided {
        id: id.clone(),
        producer: kept.producer,
        commit: kept.stage == Stage::PrepareCommit,
        partitions: kept.partitions.clone(),
    }
}

fn description(id: &TransactionalId, kept: &Kept) -> Description {
    Description {
        id: id.clone(),
        producer: kept.producer,
        stage: kept.stage,
        timeout_ms: kept.timeout_ms,
        started_ms: kept.started_ms,
        partitions: kept.partitions.clone(),
    }
}
