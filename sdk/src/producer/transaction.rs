//! Transactions of a producer: records in several partitions, and the offsets they were made of, that are seen together or
//! not at all (KIP-98, 447, 890).
//!
//! Owns what the application may call when. What stands between the application, the sender and the transactor is here, the
//! rules are in `state`, the talk with coordinators is in `transactor`. It must never let a record into a transaction that
//! is being ended.

mod coordinator;
mod state;
mod transactor;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_protocol::ids::Offset;
use headwater_protocol::kafka::ErrorCode;
use thiserror::Error;
use tokio::sync::oneshot;

pub(super) use self::coordinator::{Ask, Coordinator};
pub(super) use self::state::{End, Flow};
use self::state::{Phase, State};
pub(super) use self::transactor::{Command, Transactor};
use super::Producer;
use super::batcher::PartitionKey;
use super::delivery::SendError;
use super::sequencer::Identity;
use crate::consumer::TopicPartition;
use crate::error::Error;
use crate::group::GroupMetadata;

/// A call about a transaction failed, or its transaction cannot go on.
#[derive(Debug, Clone, Error)]
pub enum TransactionError {
    /// The caller's fault; nothing has changed.
    #[error("{0}")]
    Misuse(&'static str),
    /// Another producer has begun under the transactional id, or the transaction was open for too long: this producer is of
    /// no use any more, and what it had open is aborted.
    #[error("the producer of transactional id {transactional_id:?} was fenced: {code}")]
    Fenced {
        transactional_id: String,
        code: ErrorCode,
    },
    /// The transaction can only be aborted; then the producer goes on with the next one.
    #[error("the transaction must be aborted: {cause}")]
    MustAbort { cause: String },
    /// The producer is of no use any more, for another reason than that it was fenced.
    #[error("the producer cannot go on: {0}")]
    Failed(Box<Error>),
    /// Call it again: how the transaction ends is decided by that call, but not known yet.
    #[error("{what} did not succeed within {} ms; last: {last}", timeout.as_millis())]
    TimedOut {
        what: String,
        timeout: Duration,
        last: String,
    },
    #[error("the producer is closed")]
    Closed,
}

impl TransactionError {
    /// Whether [`Producer::abort`] helps.
    pub fn must_abort(&self) -> bool {
        matches!(self, Self::MustAbort { .. })
    }

    /// Whether another producer has taken over.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }

    /// The same for a transaction of which a part is not known to have succeeded.
    pub(super) fn or_must_abort(self) -> Self {
        match self {
            Self::TimedOut { .. } => Self::MustAbort {
                cause: self.to_string(),
            },
            other => other,
        }
    }

    /// Whether this producer is of no use any more.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Fenced { .. } | Self::Failed(_) | Self::Closed => true,
            Self::Misuse(_) | Self::MustAbort { .. } | Self::TimedOut { .. } => false,
        }
    }
}

/// Of a record that was not taken: the transaction is to have it, or not to be committed.
impl From<SendError> for TransactionError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Transaction(error) => error,
            SendError::Closed => Self::Closed,
            other => Self::MustAbort {
                cause: other.to_string(),
            },
        }
    }
}

impl Producer {
    /// Begins a transaction: what is sent from now on is part of it, until it is committed or aborted.
    ///
    /// The first one waits until the producer has its transactional id: whoever produced under it before is fenced then, and
    /// what he had open is aborted. A dropped future may have begun one.
    pub async fn begin(&self) -> Result<(), TransactionError> {
        self.command(|reply| Command::Begin { reply }).await
    }

    /// Makes commits of a group's offsets part of the transaction: of each partition the offset that is to be read next.
    ///
    /// `group` is what [`crate::GroupConsumer::group_metadata`] gave when the records were read: where the group has divided
    /// its partitions anew since, the transaction must be aborted. A dropped future may have added them.
    pub async fn send_offsets(
        &self,
        group: &GroupMetadata,
        offsets: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), TransactionError> {
        let (group, offsets) = (group.clone(), offsets.clone());
        self.command(|reply| Command::SendOffsets {
            group,
            offsets,
            reply,
        })
        .await
    }

    /// Waits until everything that was sent is written, and commits it.
    ///
    /// When it returns that is decided, and what was written is seen soon. Where something could not be written the
    /// transaction must be aborted. A dropped future has the commit go on.
    pub async fn commit(&self) -> Result<(), TransactionError> {
        self.end(End::Commit).await
    }

    /// Gives up what was sent and is not on its way, waits for the rest, and aborts the transaction: readers of what is
    /// committed see nothing of it.
    ///
    /// A dropped future has it go on.
    pub async fn abort(&self) -> Result<(), TransactionError> {
        self.end(End::Abort).await
    }

    pub(super) async fn end(&self, end: End) -> Result<(), TransactionError> {
        self.command(|reply| Command::End { end, reply }).await
    }

    async fn command(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), TransactionError>>) -> Command,
    ) -> Result<(), TransactionError> {
        let Some(commands) = &self.transactions else {
            return Err(TransactionError::Misuse(
                "the producer has no transactions; set ProducerConfig::transactional_id",
            ));
        };
        let (reply, answer) = oneshot::channel();
        let sent = commands.send(command(reply)).await;
        sent.map_err(|_| TransactionError::Closed)?;
        answer.await.unwrap_or(Err(TransactionError::Closed))
    }
}

/// The transaction of a producer, as its application's side, its sender and its transactor share it.
///
/// - The gate is open only while records may be sent; it is closed before anything is ended.
pub(super) struct Transaction {
    pub(super) id: Arc<str>,
    gate: AtomicBool,
    state: Mutex<State>,
}

impl Transaction {
    pub(super) fn new(id: &str) -> Arc<Self> {
        Arc::new(Self {
            id: Arc::from(id),
            gate: AtomicBool::new(false),
            state: Mutex::new(State::new()),
        })
    }

    /// Whether records may be sent. What a change of it means for appends under way is theirs to see to.
    #[inline]
    pub(super) fn takes_records(&self) -> bool {
        self.gate.load(Ordering::Relaxed)
    }

    /// Why no record is taken.
    pub(super) fn refusal(&self) -> SendError {
        match self.read(State::may_send) {
            Err(error) => SendError::Transaction(error),
            // It was begun a moment ago.
            Ok(()) => SendError::Transaction(TransactionError::Misuse(
                "the transaction was begun while the record was sent; send it again",
            )),
        }
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.lock().identity()
    }

    pub(super) fn flow(&self) -> Flow {
        self.lock().flow()
    }

    /// What every record that is not on its way fails with; `None`: they may go.
    pub(super) fn doom(&self) -> Option<SendError> {
        match self.lock().phase() {
            Phase::Broken(error) | Phase::Over(error) => Some(SendError::Transaction(error.clone())),
            Phase::Ending(End::Abort) => Some(SendError::Aborted),
            Phase::Beginning | Phase::Ready | Phase::Open | Phase::Ending(End::Commit) => None,
        }
    }

    /// Whether a batch of this partition may be sent: the coordinator knows of the partition, or is told by its leader.
    pub(super) fn admits(&self, partition: PartitionKey) -> bool {
        self.lock().admits(partition)
    }

    /// The coordinator is about to be told of something. Gives the number of the transaction.
    pub(super) fn announce(&self) -> u64 {
        self.lock().announce()
    }

    /// The coordinator has been told of these, for the transaction of this number.
    pub(super) fn added(&self, number: u64, partitions: &[PartitionKey]) {
        self.lock().added(number, partitions);
    }

    /// How the transaction ends, if its producer is closed now; `None`: there is none, or it cannot be ended.
    pub(super) fn unfinished(&self) -> Option<End> {
        match self.lock().phase() {
            Phase::Open | Phase::Broken(_) => Some(End::Abort),
            Phase::Ending(end) => Some(*end),
            Phase::Beginning | Phase::Ready | Phase::Over(_) => None,
        }
    }

    /// A batch was refused by this code, or a coordinator says it.
    pub(super) fn refused(&self, code: ErrorCode, what: &str) -> TransactionError {
        let error = match code {
            ErrorCode::PRODUCER_FENCED | ErrorCode::INVALID_PRODUCER_EPOCH => TransactionError::Fenced {
                transactional_id: self.id.to_string(),
                code,
            },
            ErrorCode::INVALID_PRODUCER_ID_MAPPING
            | ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            | ErrorCode::CLUSTER_AUTHORIZATION_FAILED => {
                TransactionError::Failed(Box::new(Error::refused(what, code.0, None)))
            }
            code => TransactionError::MustAbort {
                cause: format!("{what}: {code}"),
            },
        };
        self.fail(&error);
        error
    }

    /// As `refused`, where aborting does not help.
    fn refused_for_good(&self, code: ErrorCode, what: &str) -> TransactionError {
        match self.refused(code, what) {
            fenced @ TransactionError::Fenced { .. } => fenced,
            _ => {
                let error = TransactionError::Failed(Box::new(Error::refused(what, code.0, None)));
                self.fail(&error);
                error
            }
        }
    }

    /// The transaction, or the producer, cannot go on.
    pub(super) fn fail(&self, error: &TransactionError) {
        self.change(|state| state.fail(error.clone()));
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.lock())
    }

    /// Every change of the phase goes this way: the gate follows it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state);
        self.gate
            .store(matches!(state.phase(), Phase::Open), Ordering::Relaxed);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
