//! What callers ask a partition for, and what they get back.

use super::error::{AppendError, TicketError};
use super::transactions::Aborted;
use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId};
use headwater_protocol::record::{BatchHeader, Batches, EndTransaction};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// When an append is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// The caller wants no answer; the ticket is complete at once.
    None,
    /// In the leader's log.
    Leader,
    /// On all in-sync replicas, synced unless the topic says `write.caching=true`.
    All,
}

/// On whose behalf an append is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client: internal topics and mirrors are closed to it.
    Client,
    /// The node itself.
    Internal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendOptions {
    pub acks: Acks,
    /// The epoch the caller believes in; checked when given.
    pub current_epoch: Option<LeaderEpoch>,
    pub origin: Origin,
    /// For a batch of a transaction that is not open here yet.
    pub verified: Option<Verified>,
}

impl AppendOptions {
    /// The node's own records, which count when all in-sync replicas have them.
    pub const OWN: Self = Self {
        acks: Acks::All,
        current_epoch: None,
        origin: Origin::Internal,
        verified: None,
    };
}

/// When the coordinator of a transaction was asked whether it is open, by where the log ended then. A marker that came since
/// makes it worthless, and so does another leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    pub(super) epoch: LeaderEpoch,
    pub(super) at: Offset,
}

/// The end of a transaction, as its coordinator decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    pub producer: ProducerId,
    /// The producer's epoch, or the next one: lower ones are fenced by it.
    pub epoch: ProducerEpoch,
    pub end: EndTransaction,
}

/// Where an append went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// Set when the topic stamps records with the time of the append.
    pub log_append_time_ms: Option<i64>,
    pub log_start: Offset,
    pub leader_epoch: LeaderEpoch,
    /// The batch had been appended before; the offsets are those it got then.
    pub duplicate: bool,
}

/// The promise of an append: it is in the log, `done` says when the asked-for acknowledgement is reached.
#[derive(Debug)]
pub struct Ticket {
    pub appended: Appended,
    pub(crate) done: Done,
}

#[derive(Debug)]
pub(crate) enum Done {
    Already,
    Later(oneshot::Receiver<Result<(), TicketError>>),
}

impl Ticket {
    /// Returns when `acks` is satisfied, or with the reason why it cannot be. Dropping it undoes nothing.
    pub async fn done(self) -> Result<Appended, TicketError> {
        match self.done {
            Done::Already => Ok(self.appended),
            Done::Later(receiver) => match receiver.await {
                Ok(result) => result.map(|()| self.appended),
                Err(_) => Err(TicketError::Stopped),
            },
        }
    }
}

/// An append that has its place in the order and waits for its acknowledgement.
#[derive(Debug)]
pub struct Pending {
    pub(crate) answer: oneshot::Receiver<Result<Appended, AppendError>>,
}

impl Future for Pending {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(AppendError::Stopped)))
    }
}

/// How far a partition has come.
///
/// - `log_start <= last_stable <= high_watermark <= log_end`, and `synced <= log_end`.
/// - None of them falls while the leader epoch stays, except after `restart_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    pub log_start: Offset,
    /// Below it everything is committed: on all in-sync replicas, and synced there.
    pub high_watermark: Offset,
    /// Below it no transaction is open.
    pub last_stable: Offset,
    pub log_end: Offset,
    pub synced: Offset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the last stable offset (`read_committed`).
    Committed,
    /// Up to the high watermark (`read_uncommitted`).
    Uncommitted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    pub from: Offset,
    pub max_bytes: usize,
    pub isolation: Isolation,
    /// Give the first batch even if it is larger than `max_bytes`.
    pub min_one: bool,
    pub current_epoch: Option<LeaderEpoch>,
    /// Beyond the watermarks, up to the log's end: for replicas, which read from the leader only.
    pub up_to_log_end: bool,
}

/// What a read found: whole batches, the first of which holds `from`.
#[derive(Debug, Clone)]
pub struct ReadOutcome {
    /// Slices of the log in order, as they lie there: one batch may lie in two of them.
    pub records: Vec<Bytes>,
    /// How many bytes `records` are together.
    pub bytes: usize,
    pub watermarks: Watermarks,
    /// Where to read on.
    pub next: Offset,
    /// Which of the transactions that have records in it were aborted; for `Isolation::Committed` only.
    pub aborted: Vec<Aborted>,
}

impl ReadOutcome {
    /// Whether the records of a batch were given up with their transaction.
    pub fn hides(&self, batch: &BatchHeader) -> bool {
        let is_within = |aborted: &Aborted| (aborted.first..aborted.marker).contains(&batch.base_offset);
        batch.is_transactional()
            && self
                .aborted
                .iter()
                .any(|aborted| aborted.producer == batch.producer_id && is_within(aborted))
    }

    /// The batches end to end in one piece, for whoever looks into them, without those that were given up with their
    /// transaction. Copies them if they lie in several.
    pub fn visible(&self) -> Bytes {
        let all = self.contiguous();
        if self.aborted.is_empty() {
            return all;
        }
        let mut seen = BytesMut::with_capacity(all.len());
        for batch in Batches::new(all.clone()) {
            // What cannot be read is for the reader to find.
            let Ok(batch) = batch else { return all };
            if !self.hides(batch.header()) {
                seen.extend_from_slice(batch.bytes());
            }
        }
        seen.freeze()
    }

    /// The batches end to end in one piece. Copies them if they lie in several.
    pub fn contiguous(&self) -> Bytes {
        match &self.records[..] {
            [one] => one.clone(),
            parts => {
                let mut all = BytesMut::with_capacity(self.bytes);
                parts.iter().for_each(|part| all.extend_from_slice(part));
                all.freeze()
            }
        }
    }
}

/// What a replica's leader says with each answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderMarks {
    /// The epoch in which the replica takes it for its leader.
    pub epoch: LeaderEpoch,
    pub high_watermark: Offset,
    pub log_start: Offset,
}

/// Where a replica goes on: everything before `next` is safe on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub next: Offset,
    /// The last epoch in its history; `LeaderEpoch::NONE` while there is none.
    pub epoch: LeaderEpoch,
    pub log_start: Offset,
}

/// What to look an offset up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetQuery {
    Earliest,
    Latest,
    /// The record with the highest timestamp.
    MaxTimestamp,
    /// The first record with this timestamp or a later one.
    At(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetFound {
    pub offset: Offset,
    /// The record's own; -1 where the offset does not belong to a record.
    pub timestamp_ms: i64,
    pub leader_epoch: LeaderEpoch,
}

/// Where an epoch ends in this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The highest epoch known that is not above the one asked for; `LeaderEpoch::NONE` if there is none.
    pub epoch: LeaderEpoch,
    pub end: Offset,
}

/// Which partition a handle is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionName {
    pub topic_id: TopicId,
    pub topic: Arc<str>,
    pub index: PartitionIndex,
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}
