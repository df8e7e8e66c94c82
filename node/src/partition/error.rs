//! Why a partition refuses. Each says whose fault it is; only the edge turns it into a wire code.

use super::producers::SequenceError;
use headwater_protocol::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// The caller's idea of who leads does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    #[error("leader epoch {asked} is over, the current one is {current}")]
    Fenced {
        asked: LeaderEpoch,
        current: LeaderEpoch,
    },
    #[error("leader epoch {asked} is not known here, the current one is {current}")]
    Unknown {
        asked: LeaderEpoch,
        current: LeaderEpoch,
    },
}

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("this node does not lead the partition")]
    NotLeader,
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// The bytes are not a batch, or not the one that was sent.
    #[error("corrupt batch: {reason}")]
    Corrupt { reason: String },
    #[error("batch of {bytes} bytes is larger than max.message.bytes={limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("message format {magic} is not supported, only 2 is")]
    UnsupportedFormat { magic: i8 },
    #[error("producer {producer} sent sequence {found}, expected {expected}")]
    OutOfOrderSequence {
        producer: ProducerId,
        found: i32,
        expected: i32,
    },
    #[error("producer {producer} has epoch {current}, the batch has {found}")]
    InvalidProducerEpoch {
        producer: ProducerId,
        found: ProducerEpoch,
        current: ProducerEpoch,
    },
    #[error("timestamp {timestamp_ms} is outside of what the topic allows around {now_ms}")]
    InvalidTimestamp { timestamp_ms: i64, now_ms: i64 },
    /// One record breaks a rule of the topic; nothing of the batch was appended.
    #[error("record {index} of the batch: {reason}")]
    InvalidRecord { index: usize, reason: &'static str },
    #[error("compression {codec} is not supported")]
    UnsupportedCompression { codec: i16 },
    /// The batch fits no transaction of its producer that is known to be open.
    #[error("{0}")]
    InvalidTransaction(SequenceError),
    #[error("the coordinator that decided it was replaced: its epoch is {found}, {current} is known")]
    CoordinatorFenced { found: i32, current: i32 },
    /// `acks=all`, and fewer replicas in sync than the topic asks for.
    #[error("{in_sync} replicas in sync, min.insync.replicas={required}")]
    NotEnoughReplicas { in_sync: usize, required: usize },
    #[error("topic is a mirror kept by link {link:?}: only the link writes to it")]
    ReadOnlyMirror { link: String },
    #[error("topic is internal")]
    Internal,
    #[error("a copy must go on at {expected}, the batch starts at {found}")]
    NotContiguous { expected: Offset, found: Offset },
    /// The disk is full. Reads go on; appends do again when space returns.
    #[error("disk full")]
    DiskFull,
    /// Whether it is the next batch of its producer is not known: it will be, when damage is repaired.
    #[error("what producer {producer} wrote last is damaged here, and is being repaired")]
    Unread { producer: ProducerId },
    /// The log could not be written: the partition is offline until the node is restarted.
    #[error("partition is offline: {reason}")]
    Offline { reason: String },
    #[error("the partition is stopping")]
    Stopped,
    /// It is in the log, but the acknowledgement asked for was not reached. It may still be committed.
    #[error("appended, but not acknowledged: {0}")]
    Unacknowledged(TicketError),
}

/// What a failed append says of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They will never be taken; others can be.
    Records,
    /// The partition's, and nothing was appended.
    Partition,
    /// The partition's, and they may have been appended.
    InDoubt,
}

impl AppendError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::TooLarge { .. }
            | Self::Corrupt { .. }
            | Self::UnsupportedFormat { .. }
            | Self::UnsupportedCompression { .. }
            | Self::InvalidTimestamp { .. }
            | Self::InvalidRecord { .. } => Fault::Records,
            Self::NotLeader
            | Self::Epoch(_)
            | Self::OutOfOrderSequence { .. }
            | Self::InvalidProducerEpoch { .. }
            | Self::InvalidTransaction(_)
            | Self::CoordinatorFenced { .. }
            | Self::NotEnoughReplicas { .. }
            | Self::ReadOnlyMirror { .. }
            | Self::Internal
            | Self::NotContiguous { .. }
            | Self::DiskFull
            | Self::Unread { .. } => Fault::Partition,
            // A write that failed half way puts the partition offline, too.
            Self::Offline { .. } | Self::Stopped | Self::Unacknowledged(_) => Fault::InDoubt,
        }
    }
}

impl From<SequenceError> for AppendError {
    fn from(error: SequenceError) -> Self {
        match error {
            SequenceError::Fenced {
                producer,
                found,
                current,
            } => Self::InvalidProducerEpoch {
                producer,
                found,
                current,
            },
            SequenceError::OutOfOrder {
                producer,
                found,
                expected,
            } => Self::OutOfOrderSequence {
                producer,
                found,
                expected,
            },
            SequenceError::NotTransactional { .. } | SequenceError::Unverified { .. } => {
                Self::InvalidTransaction(error)
            }
            SequenceError::CoordinatorFenced { found, current } => Self::CoordinatorFenced { found, current },
        }
    }
}

/// Why an append that is in the log was not acknowledged. It may still be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    #[error("in-sync set fell below min.insync.replicas after the append")]
    NotEnoughReplicas,
    #[error("partition is offline: {reason}")]
    Offline { reason: String },
    #[error("leadership was lost before the append was committed")]
    NotLeader,
    #[error("the partition is stopping")]
    Stopped,
}

/// Why a partition answers nothing here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("this node does not lead the partition")]
    NotLeader,
    #[error(transparent)]
    Epoch(#[from] EpochError),
    #[error("partition is offline: {reason}")]
    Offline { reason: String },
    #[error("the partition is stopping")]
    Stopped,
}

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("offset {asked} is outside of {start}..={end}")]
    OutOfRange {
        asked: Offset,
        start: Offset,
        end: Offset,
    },
    /// This follower does not have it yet: the leader may.
    #[error("offset {asked} is behind {end}, the end of this follower")]
    NotYet { asked: Offset, end: Offset },
    /// A batch on disk fails its checksum.
    #[error("log is corrupt at {at}: {reason}")]
    Corrupt { at: Offset, reason: String },
}

/// Why a question about offsets was not answered, or a log was not cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("offset {asked} is outside of {start}..={end}")]
    OutOfRange {
        asked: Offset,
        start: Offset,
        end: Offset,
    },
    /// A new leader does not know yet up to where all is committed: ask again.
    #[error("the leader is new and does not know yet how far all is committed")]
    NotAvailable,
    /// The topic's properties forbid it.
    #[error("{0}")]
    Refused(&'static str),
}

/// Why a follower did not take over what its leader said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// The metadata here says something else: it, or the one who copies, is behind.
    #[error("this replica does not follow in leader epoch {asked}, the current one is {current}")]
    NotFollower {
        asked: LeaderEpoch,
        current: LeaderEpoch,
    },
    #[error("the answer does not go on at {expected}, it starts at {found}")]
    NotContiguous { expected: Offset, found: Offset },
    #[error("the answer is corrupt: {reason}")]
    Corrupt { reason: String },
    #[error("disk full")]
    DiskFull,
    #[error("partition is offline: {reason}")]
    Offline { reason: String },
    #[error("the partition is stopping")]
    Stopped,
}

impl From<AppendError> for ReplicaError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::DiskFull => Self::DiskFull,
            AppendError::Offline { reason } => Self::Offline { reason },
            AppendError::Stopped => Self::Stopped,
            AppendError::NotContiguous { expected, found } => Self::NotContiguous { expected, found },
            other => Self::Corrupt {
                reason: other.to_string(),
            },
        }
    }
}
