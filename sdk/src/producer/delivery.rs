//! [`Delivery`]: what became of a record. One shared completion per batch, nothing per record.
//!
//! Owns the outcome of batches, also of those that were split. It must never leave one without an outcome:
//! a batch that is dropped on any path has failed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use thiserror::Error;
use tokio::sync::{Notify, watch};

/// Why a record was not delivered, or is not known to be.
#[derive(Debug, Clone, Error)]
pub enum SendError {
    /// The caller's fault; it was not sent.
    #[error(
        "the record takes {bytes} bytes, the limit is {limit}; raise ProducerConfig::record_bytes_max and the topic's max.message.bytes"
    )]
    TooLarge { bytes: usize, limit: usize },
    /// `try_send` only; it was not sent.
    #[error("the producer's buffer is full; await send, or try again when deliveries have come")]
    Full,
    /// It was not sent.
    #[error("topic {topic:?} has {count} partitions, there is no partition {partition}")]
    UnknownPartition {
        topic: String,
        partition: PartitionIndex,
        count: usize,
    },
    /// It was not written.
    #[error("topic {0:?} does not exist any more")]
    UnknownTopic(String),
    /// The broker refused it for good. It was not written, unless an earlier attempt ended in doubt.
    #[error("the broker refused the record: {code}{}", explained(.message))]
    Refused {
        code: ErrorCode,
        message: Option<String>,
        maybe_written: bool,
    },
    #[error(
        "not delivered within {} ms ({}); last: {last}",
        timeout.as_millis(),
        if *maybe_written { "it may have been written" } else { "it was not written" }
    )]
    TimedOut {
        timeout: Duration,
        maybe_written: bool,
        last: String,
    },
    /// The producer ended first; call close, or flush, before dropping it. It may have been written.
    #[error("the producer was closed before the record was acknowledged")]
    Closed,
    /// The transaction does not take it, or cannot be committed any more. If it was written, that is never seen by readers of
    /// what is committed.
    #[error(transparent)]
    Transaction(super::TransactionError),
    /// It was not written.
    #[error("the transaction was aborted before the record was sent")]
    Aborted,
    #[error("the record cannot be encoded: {0}")]
    Encode(headwater_protocol::record::Error),
    /// The topic could not be found out about; the record was not sent.
    #[error(transparent)]
    Client(Box<crate::error::Error>),
}

impl SendError {
    /// Whether the record may be in the log all the same. If not, sending it again cannot duplicate it.
    pub fn maybe_written(&self) -> bool {
        match self {
            Self::TimedOut { maybe_written, .. } | Self::Refused { maybe_written, .. } => *maybe_written,
            Self::Closed => true,
            Self::TooLarge { .. }
            | Self::Full
            | Self::UnknownPartition { .. }
            | Self::UnknownTopic(_)
            | Self::Transaction(_)
            | Self::Aborted
            | Self::Encode(_)
            | Self::Client(_) => false,
        }
    }
}

fn explained(message: &Option<String>) -> String {
    message
        .as_ref()
        .map_or_else(String::new, |message| format!(": {message}"))
}

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub partition: PartitionIndex,
    /// `None` when the broker does not say: with `Acks::None`, or for a repetition it remembers dimly.
    pub offset: Option<Offset>,
    /// The time the broker gave the record, when the topic is configured so.
    pub append_time_ms: Option<i64>,
}

/// A batch's place in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) base_offset: Option<Offset>,
    pub(super) append_time_ms: Option<i64>,
}

/// The promise of a record's delivery. Dropping it changes nothing about the record.
#[derive(Clone, Debug)]
pub struct Delivery {
    completion: Arc<Completion>,
    index: u32,
}

impl Delivery {
    /// Waits until the record is acknowledged as the producer's acks demand, or has failed. Cancel safe.
    pub async fn receipt(&self) -> Result<Receipt, SendError> {
        self.completion.wait(self.index).await
    }

    /// What is known now.
    pub fn try_receipt(&self) -> Option<Result<Receipt, SendError>> {
        self.completion.outcome(self.index)
    }
}

/// The promise of the delivery of many records that were sent together.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    /// The last record of each run of records that share a batch: it is acknowledged with or after the
    /// others of the run.
    runs: Vec<(Delivery, u32)>,
    count: usize,
}

impl Deliveries {
    /// How many records there are.
    pub fn record_count(&self) -> usize {
        self.count
    }

    /// Waits until all are acknowledged, or gives the first failure. Cancel safe.
    pub async fn all(&self) -> Result<(), SendError> {
        for (last, first) in &self.runs {
            last.completion.wait_range(*first, last.index).await?;
        }
        Ok(())
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        self.count += 1;
        match self.runs.last_mut() {
            Some((last, _)) if Arc::ptr_eq(&last.completion, &delivery.completion) => {
                last.index = delivery.index
            }
            Some(_) | None => {
                let first = delivery.index;
                self.runs.push((delivery, first));
            }
        }
    }
}

/// The outcome of one batch, in parts if it was split.
#[derive(Debug)]
pub(super) struct Completion {
    partition: PartitionIndex,
    parts: Mutex<Vec<Part>>,
    changed: Notify,
}

#[derive(Debug)]
struct Part {
    first: u32,
    count: u32,
    result: Result<Written, SendError>,
}

impl Completion {
    pub(super) fn new(partition: PartitionIndex) -> Arc<Self> {
        Arc::new(Self {
            partition,
            parts: Mutex::default(),
            changed: Notify::new(),
        })
    }

    pub(super) fn delivery(self: &Arc<Self>, index: u32) -> Delivery {
        Delivery {
            completion: Arc::clone(self),
            index,
        }
    }

    async fn wait(&self, index: u32) -> Result<Receipt, SendError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change in between is missed.
            changed.as_mut().enable();
            if let Some(outcome) = self.outcome(index) {
                return outcome;
            }
            changed.await;
        }
    }

    async fn wait_range(&self, first: u32, last: u32) -> Result<(), SendError> {
        let mut index = first;
        loop {
            self.wait(index).await?;
            // Everything up to the end of the part that holds this record has the same outcome.
            index = match self.lock().iter().find(|part| part.holds(index)) {
                Some(part) => part.first + part.count,
                None => index + 1,
            };
            if index > last {
                return Ok(());
            }
        }
    }

    fn outcome(&self, index: u32) -> Option<Result<Receipt, SendError>> {
        let parts = self.lock();
        let part = parts.iter().find(|part| part.holds(index))?;
        Some(part.result.clone().map(|written| {
            Receipt {
                partition: self.partition,
                offset: written
                    .base_offset
                    .map(|base| base.plus(i64::from(index - part.first))),
                append_time_ms: written.append_time_ms,
            }
        }))
    }

    fn resolve(&self, first: u32, count: u32, result: Result<Written, SendError>) {
        self.lock().push(Part { first, count, result });
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Part>> {
        // Nothing panics while it holds the lock.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn holds(&self, index: u32) -> bool {
        index >= self.first && index - self.first < self.count
    }
}

/// The duty to give some records of a completion their outcome, once. Dropping it says that the producer
/// was closed.
#[derive(Debug)]
pub(super) struct Duty {
    completion: Arc<Completion>,
    first: u32,
    count: u32,
    done: bool,
    ticket: Arc<Ticket>,
}

impl Duty {
    /// The duty for all records that may come.
    pub(super) fn new(completion: Arc<Completion>, ticket: Arc<Ticket>) -> Self {
        Self {
            completion,
            first: 0,
            count: u32::MAX,
            done: false,
            ticket,
        }
    }

    /// The batch is finished and has `count` records.
    pub(super) fn covers(&mut self, count: u32) {
        self.count = count;
    }

    pub(super) fn resolve(mut self, result: Result<Written, SendError>) {
        self.done = true;
        if let Err(error) = &result {
            self.ticket.ledger.note(error);
        }
        self.completion.resolve(self.first, self.count, result);
    }

    /// Takes the duty for the first `count` records off this one.
    pub(super) fn split(&mut self, count: u32) -> Self {
        let front = Self {
            completion: Arc::clone(&self.completion),
            first: self.first,
            count,
            done: false,
            ticket: Arc::clone(&self.ticket),
        };
        self.first += count;
        self.count -= count;
        front
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if !self.done {
            self.ticket.ledger.note(&SendError::Closed);
            self.completion
                .resolve(self.first, self.count, Err(SendError::Closed));
        }
    }
}

/// Which batches have no outcome yet, so that a flush knows when it is done.
#[derive(Debug)]
pub(super) struct Ledger {
    open: Mutex<OpenBatches>,
    /// The number of the oldest batch without an outcome; the next number when there is none.
    oldest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct OpenBatches {
    next: u64,
    numbers: BTreeSet<u64>,
    /// The first since it was forgotten last.
    failure: Option<SendError>,
}

impl Ledger {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            oldest: watch::Sender::new(0),
        })
    }

    pub(super) fn ticket(self: &Arc<Self>) -> Arc<Ticket> {
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        open.numbers.insert(number);
        Arc::new(Ticket {
            number,
            ledger: Arc::clone(self),
        })
    }

    /// Waits until every batch that has a ticket now has its outcome. Cancel safe.
    pub(super) async fn settled(&self) {
        let next = self.lock().next;
        // The sender lives as long as this ledger does.
        let _ = self.oldest.subscribe().wait_for(|oldest| *oldest >= next).await;
    }

    /// The first failure since it was forgotten last.
    pub(super) fn failure(&self) -> Option<SendError> {
        self.lock().failure.clone()
    }

    pub(super) fn forget_failure(&self) {
        self.lock().failure = None;
    }

    fn note(&self, error: &SendError) {
        self.lock().failure.get_or_insert_with(|| error.clone());
    }

    fn lock(&self) -> MutexGuard<'_, OpenBatches> {
        // Nothing panics while it holds the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One batch without an outcome.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    ledger: Arc<Ledger>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.ledger.lock();
        open.numbers.remove(&self.number);
        let oldest = open.numbers.first().copied().unwrap_or(open.next);
        self.ledger.oldest.send_replace(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(offset: i64) -> Result<Written, SendError> {
        Ok(Written {
            base_offset: Some(Offset(offset)),
            append_time_ms: None,
        })
    }

    #[tokio::test]
    async fn each_part_of_a_split_batch_has_its_own_outcome() {
        let ledger = Ledger::new();
        let completion = Completion::new(PartitionIndex(4));
        let mut back = Duty::new(Arc::clone(&completion), ledger.ticket());
        back.covers(10);
        let front = back.split(6);
        let deliveries: Vec<_> = (0..10).map(|index| completion.delivery(index)).collect();
        let mut all = Deliveries::default();
        deliveries.iter().cloned().for_each(|delivery| all.push(delivery));
        assert!(deliveries[0].try_receipt().is_none());
        front.resolve(written(100));
        assert_eq!(deliveries[5].receipt().await.unwrap().offset, Some(Offset(105)));
        assert!(deliveries[6].try_receipt().is_none());
        drop(back);
        assert!(matches!(deliveries[9].receipt().await, Err(SendError::Closed)));
        assert!(matches!(all.all().await, Err(SendError::Closed)));
        ledger.settled().await;
    }

    #[tokio::test]
    async fn a_flush_waits_for_the_batches_before_it_and_no_others() {
        let ledger = Ledger::new();
        ledger.settled().await;
        let (first, second) = (ledger.ticket(), ledger.ticket());
        let settled = ledger.settled();
        tokio::pin!(settled);
        assert!(futures_util::poll!(settled.as_mut()).is_pending());
        let _later = ledger.ticket();
        drop(second);
        assert!(futures_util::poll!(settled.as_mut()).is_pending());
        drop(first);
        settled.await;
    }
}
