//! [`Sequencer`]: one partition's batches on their way, in order and once.
//!
//! Pure: time and chance are arguments. Owns sequence numbers, what is in flight, and what an answer means
//! for the batches behind it. The rules it must never break:
//!
//! - Batches of a partition reach the broker in the order in which they were taken, on every attempt: after
//!   a failure nothing new is sent until all that is in flight has its outcome.
//! - A batch whose outcome is not known is sent again with the numbers it had, so that the broker can tell
//!   whether it has it. Only when the broker says that it does not have it (the numbers do not follow) do
//!   the batches get numbers of a new epoch.

use std::collections::VecDeque;

use bytes::Bytes;
use headwater_protocol::ids::{Offset, ProducerEpoch, ProducerId};
use headwater_protocol::kafka::ErrorCode;
use tokio::sync::OwnedSemaphorePermit;

use super::batcher::Finished;
use super::delivery::{Duty, SendError, Written};
use super::stamp::{Stamp, restamped, split};
use crate::door::Instant;
use crate::retry::Backoff;

/// A finished batch.
pub(super) struct Batch {
    /// As it goes on the wire.
    pub(super) bytes: Finished,
    pub(super) stamp: Stamp,
    pub(super) count: u32,
    pub(super) duty: Duty,
    /// Until when it must be delivered.
    pub(super) deadline: Instant,
    /// An attempt ended without a clear word: it may be in the log.
    pub(super) maybe_written: bool,
    pub(super) _memory: std::sync::Arc<OwnedSemaphorePermit>,
}

/// Who sends, as the broker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
}

/// By which numbers a broker knows the batches, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbering {
    None,
    /// The producer's own; where they went wrong, they begin anew.
    Idempotent,
    /// Those of its transaction, which cannot begin anew: it has failed instead.
    Transactional,
}

/// What became of a batch that was sent.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Written(Written),
    /// The broker refused.
    Refused {
        code: ErrorCode,
        message: Option<String>,
    },
    /// No answer: it may have been written.
    Lost(String),
}

/// What the sender must do after an outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) metadata: bool,
    /// A new producer id.
    pub(super) identity: bool,
    /// The transaction is to know of this code, by which a batch was refused.
    pub(super) refused: Option<ErrorCode>,
}

struct Flight {
    number: u64,
    batch: Batch,
    /// `None` while the answer is awaited.
    failure: Option<Outcome>,
}

/// The batches of one partition between the batcher and the log.
pub(super) struct Sequencer {
    numbering: Numbering,
    /// `None` until one is given.
    identity: Option<Identity>,
    next_sequence: i32,
    /// Numbered and waiting to be sent (again).
    queue: VecDeque<Batch>,
    in_flight: VecDeque<Flight>,
    next_number: u64,
    in_flight_max: usize,
    failures: u32,
    not_before: Option<Instant>,
    /// The numbers were begun anew and no batch has been written since.
    renumbered: bool,
    last_failure: String,
}

impl Sequencer {
    pub(super) fn new(numbering: Numbering, in_flight_max: usize) -> Self {
        Self {
            numbering,
            identity: None,
            next_sequence: 0,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            next_number: 0,
            in_flight_max,
            failures: 0,
            not_before: None,
            renumbered: false,
            last_failure: "it was never sent".to_owned(),
        }
    }

    /// Whether a batch may be sent now.
    pub(super) fn may_send(&self, now: Instant) -> bool {
        let failing = self.in_flight.iter().any(|flight| flight.failure.is_some());
        // After a failure one batch shows whether it has passed.
        let most = if self.failures > 0 { 1 } else { self.in_flight_max };
        !failing && self.in_flight.len() < most && self.not_before.is_none_or(|at| at <= now)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.queue.is_empty()
    }

    pub(super) fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    pub(super) fn last_failure(&self) -> &str {
        &self.last_failure
    }

    /// Remembers why nothing could be sent, for those who will be told that their time was up.
    pub(super) fn note_failure(&mut self, reason: String) {
        self.last_failure = reason;
    }

    /// The earliest deadline of the batches held here and not in flight.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queue.front().map(|batch| batch.deadline)
    }

    /// Whether batches can be numbered.
    pub(super) fn has_identity(&self) -> bool {
        self.numbering == Numbering::None || self.identity.is_some()
    }

    /// Takes on the producer's identity. One that has nothing unresolved follows; others keep theirs, unless
    /// they have none.
    pub(super) fn identify(&mut self, identity: Identity) {
        let newer = self.identity.is_none_or(|mine| match self.numbering {
            Numbering::None => false,
            // Its epoch it raises itself.
            Numbering::Idempotent => mine.id != identity.id,
            Numbering::Transactional => mine != identity,
        });
        if self.numbering != Numbering::None
            && newer
            && self.in_flight.is_empty()
            && (self.identity.is_none() || self.is_idle())
        {
            self.adopt(identity);
        }
    }

    /// The numbers for a batch of `count` records that is taken from the batcher now.
    pub(super) fn number(&mut self, count: u32) -> Stamp {
        let Some(identity) = self.identity.filter(|_| self.numbering != Numbering::None) else {
            return Stamp::NONE;
        };
        let stamp = Stamp {
            id: identity.id,
            epoch: identity.epoch,
            sequence: self.next_sequence,
        };
        self.next_sequence = stamp.next(count);
        stamp
    }

    /// Adds a batch that was numbered here, behind all others.
    pub(super) fn push(&mut self, batch: Batch) {
        self.queue.push_back(batch);
    }

    /// The size of the batch that would be sent next.
    pub(super) fn next_bytes(&self) -> Option<usize> {
        self.queue.front().map(|batch| batch.bytes.len())
    }

    /// The next batch to be sent, in flight from now on: a number to report its outcome by, and its bytes.
    pub(super) fn send(&mut self) -> Option<(u64, Bytes)> {
        let batch = self.queue.pop_front()?;
        let number = self.next_number;
        self.next_number += 1;
        let bytes = Bytes::clone(&batch.bytes);
        self.in_flight.push_back(Flight {
            number,
            batch,
            failure: None,
        });
        Some((number, bytes))
    }

    /// Takes back a batch that did not leave after all. The last sent is taken back first.
    pub(super) fn unsend(&mut self, number: u64) {
        if self
            .in_flight
            .back()
            .is_some_and(|flight| flight.number == number)
            && let Some(flight) = self.in_flight.pop_back()
        {
            self.queue.push_front(flight.batch);
        }
    }

    /// The outcome of a batch that was sent.
    pub(super) fn settle(
        &mut self,
        number: u64,
        outcome: Outcome,
        now: Instant,
        backoff: &Backoff,
        chance: u64,
    ) -> Needs {
        let Some(place) = self.in_flight.iter().position(|flight| flight.number == number) else {
            return Needs::default();
        };
        let mut needs = Needs::default();
        match outcome {
            Outcome::Written(written) => {
                if let Some(flight) = self.in_flight.remove(place) {
                    flight.batch.duty.resolve(Ok(written));
                }
                if !self.in_flight.iter().any(|flight| flight.failure.is_some()) {
                    self.failures = 0;
                    self.not_before = None;
                    self.renumbered = false;
                }
            }
            failure => self.in_flight[place].failure = Some(failure),
        }
        if !self.in_flight.is_empty() && self.in_flight.iter().all(|flight| flight.failure.is_some()) {
            needs = self.rewind(now, backoff, chance);
        }
        needs
    }

    /// Everything that was in flight has failed in some way: decides what becomes of each, and puts what is
    /// to be sent again in front, in order.
    fn rewind(&mut self, now: Instant, backoff: &Backoff, chance: u64) -> Needs {
        let mut needs = Needs::default();
        let mut again = VecDeque::new();
        let mut renumber = false;
        let mut wait = false;
        let mut fenced = None;
        for (place, flight) in std::mem::take(&mut self.in_flight).into_iter().enumerate() {
            let Flight {
                mut batch, failure, ..
            } = flight;
            let failure = failure.unwrap_or_else(|| Outcome::Lost("no outcome".to_owned()));
            batch.maybe_written |= leaves_doubt(&failure);
            self.last_failure = describe(&failure);
            // Only of the first is a complaint about numbers its own; behind it they are consequences.
            let first = place == 0 && again.is_empty();
            let verdict = judge(&failure, first);
            if self.numbering == Numbering::Transactional && verdict.ends_transaction() {
                needs.refused = needs.refused.or_else(|| code_of(&failure));
                refuse(batch, failure);
                continue;
            }
            match verdict {
                Verdict::Again { stale } => {
                    wait = true;
                    needs.metadata |= stale;
                    again.push_back(batch);
                }
                Verdict::Consequence => again.push_back(batch),
                Verdict::Renumber => {
                    // Once at once; a broker that never agrees is given pauses.
                    wait |= self.renumbered;
                    self.renumbered = true;
                    renumber = true;
                    again.push_back(batch);
                }
                Verdict::NewIdentity => {
                    wait = true;
                    needs.identity = true;
                    fenced = Some(failure);
                    again.push_back(batch);
                }
                // The halves of a batch that is in the log already would be written again.
                Verdict::Split if batch.maybe_written => refuse(batch, failure),
                Verdict::Split => match split(&batch.bytes) {
                    Some((front, back)) => again.extend(halves(batch, front, back)),
                    None => refuse(batch, failure),
                },
                Verdict::Final => refuse(batch, failure),
            }
        }
        again.append(&mut self.queue);
        if let Some(failure) = fenced {
            again = without_doubtful(again, &failure);
        }
        self.queue = again;
        if wait {
            self.failures = self.failures.saturating_add(1);
            self.not_before = Some(now + backoff.pause(self.failures, chance));
        }
        if renumber && !needs.identity {
            needs.identity = !self.next_epoch();
        }
        if needs.identity {
            self.identity = None;
        }
        needs
    }

    /// Gives up what has waited too long.
    pub(super) fn expire(&mut self, now: Instant, timeout: std::time::Duration) {
        while let Some(batch) = self.queue.pop_front_if(|batch| batch.deadline <= now) {
            // If it was never written, the numbers behind it do not follow; the broker will say so, and only
            // then is it known.
            let (maybe_written, last) = (batch.maybe_written, self.last_failure.clone());
            batch.duty.resolve(Err(SendError::TimedOut {
                timeout,
                maybe_written,
                last,
            }));
        }
    }

    /// Fails everything that waits here.
    pub(super) fn fail_all(&mut self, error: &SendError) {
        for batch in self.queue.drain(..) {
            batch.duty.resolve(Err(error.clone()));
        }
    }

    /// A higher epoch of the same id, with numbers from 0. `false` when there is none left.
    fn next_epoch(&mut self) -> bool {
        let Some(Identity { id, epoch }) = self.identity else {
            return false;
        };
        let Some(epoch) = epoch.0.checked_add(1) else {
            return false;
        };
        self.adopt(Identity {
            id,
            epoch: ProducerEpoch(epoch),
        });
        true
    }

    fn adopt(&mut self, identity: Identity) {
        self.identity = Some(identity);
        self.next_sequence = 0;
        for batch in &mut self.queue {
            let stamp = Stamp {
                id: identity.id,
                epoch: identity.epoch,
                sequence: self.next_sequence,
            };
            self.next_sequence = stamp.next(batch.count);
            batch.bytes = restamped(&batch.bytes, stamp).into();
            batch.stamp = stamp;
        }
    }
}

enum Verdict {
    Again {
        stale: bool,
    },
    /// The batch in front failed, and this one only because of it.
    Consequence,
    Renumber,
    NewIdentity,
    Split,
    Final,
}

impl Verdict {
    /// Whether a batch is lost, or its numbers are.
    fn ends_transaction(&self) -> bool {
        match self {
            Self::Renumber | Self::NewIdentity | Self::Final => true,
            Self::Again { .. } | Self::Consequence | Self::Split => false,
        }
    }
}

fn judge(failure: &Outcome, first: bool) -> Verdict {
    let code = match failure {
        Outcome::Refused { code, .. } => *code,
        Outcome::Lost(_) | Outcome::Written(_) => return Verdict::Again { stale: true },
    };
    match code {
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER if first => Verdict::Renumber,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER => Verdict::Consequence,
        ErrorCode::UNKNOWN_PRODUCER_ID
        | ErrorCode::INVALID_PRODUCER_EPOCH
        | ErrorCode::INVALID_PRODUCER_ID_MAPPING => Verdict::NewIdentity,
        ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => Verdict::Split,
        ErrorCode::NOT_ENOUGH_REPLICAS
        | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
        | ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::THROTTLING_QUOTA_EXCEEDED => Verdict::Again { stale: false },
        // A broker may not have heard of the topic yet; if it is gone, the fresh metadata says so.
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID => Verdict::Again { stale: true },
        code if code.is_retriable() => Verdict::Again { stale: true },
        _ => Verdict::Final,
    }
}

/// Under another id the broker cannot tell whether it has a batch: one in doubt is not repeated.
fn without_doubtful(batches: VecDeque<Batch>, failure: &Outcome) -> VecDeque<Batch> {
    let is_doubtful = |batch: &Batch| batch.maybe_written;
    let (doubtful, clear): (VecDeque<_>, VecDeque<_>) = batches.into_iter().partition(is_doubtful);
    let refused = doubtful.into_iter();
    refused.for_each(|batch| refuse(batch, failure.clone()));
    clear
}

fn code_of(failure: &Outcome) -> Option<ErrorCode> {
    match failure {
        Outcome::Refused { code, .. } => Some(*code),
        Outcome::Lost(_) | Outcome::Written(_) => None,
    }
}

fn describe(failure: &Outcome) -> String {
    match failure {
        Outcome::Written(_) => String::new(),
        Outcome::Lost(reason) => reason.clone(),
        Outcome::Refused { code, message: None } => code.to_string(),
        Outcome::Refused {
            code,
            message: Some(message),
        } => format!("{code}: {message}"),
    }
}

fn refuse(batch: Batch, failure: Outcome) {
    let error = match failure {
        Outcome::Refused { code, message } => SendError::Refused {
            code,
            message,
            maybe_written: batch.maybe_written,
        },
        Outcome::Lost(_) | Outcome::Written(_) => SendError::Closed,
    };
    batch.duty.resolve(Err(error));
}

/// Whether a batch may be in the log after this outcome.
fn leaves_doubt(failure: &Outcome) -> bool {
    match failure {
        Outcome::Written(_) | Outcome::Lost(_) => true,
        Outcome::Refused { code, .. } => matches!(
            *code,
            ErrorCode::UNKNOWN_SERVER_ERROR
                | ErrorCode::REQUEST_TIMED_OUT
                | ErrorCode::NETWORK_EXCEPTION
                | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
                | ErrorCode::KAFKA_STORAGE_ERROR
        ),
    }
}

/// Both halves of a batch that was too large. Together they have its numbers, so none is missing.
fn halves(batch: Batch, front: (Bytes, u32), back: (Bytes, u32)) -> [Batch; 2] {
    let Batch {
        stamp,
        mut duty,
        deadline,
        maybe_written,
        _memory,
        ..
    } = batch;
    let (front_duty, back_stamp) = (duty.split(front.1), stamp.after(front.1));
    let half = |(bytes, count): (Bytes, u32), stamp: Stamp, duty| Batch {
        bytes: restamped(&bytes, stamp).into(),
        stamp,
        count,
        duty,
        deadline,
        maybe_written,
        _memory: std::sync::Arc::clone(&_memory),
    };
    [half(front, stamp, front_duty), half(back, back_stamp, duty)]
}

impl Outcome {
    /// A broker's answer for one partition.
    pub(super) fn of(code: i16, base_offset: i64, append_time_ms: i64, message: Option<&str>) -> Self {
        match ErrorCode(code) {
            ErrorCode::NONE => Self::Written(Written {
                base_offset: (base_offset >= 0).then_some(Offset(base_offset)),
                append_time_ms: (append_time_ms >= 0).then_some(append_time_ms),
            }),
            // It is in the log from an earlier attempt.
            ErrorCode::DUPLICATE_SEQUENCE_NUMBER => Self::Written(Written {
                base_offset: (base_offset >= 0).then_some(Offset(base_offset)),
                append_time_ms: None,
            }),
            code => Self::Refused {
                code,
                message: message.filter(|message| !message.is_empty()).map(str::to_owned),
            },
        }
    }
}

#[cfg(test)]
mod tests;
