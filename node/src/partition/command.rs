//! What travels through a partition's mailbox, and who waits for it.

use super::admission::Admitted;
use super::error::{AppendError, LookupError, ReplicaError, TicketError};
use super::producers::ProducerDescription;
use super::request::{Acks, Appended, LeaderMarks, Position, Ticket, Verified};
use crate::config::TopicConfig;
use crate::log::{Repaired, Replacement};
use crate::metadata::PartitionState;
use crate::sys::budget::Permit;
use headwater_protocol::ids::{LeaderEpoch, Offset, ProducerId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// What a partition's task is asked for. A mailbox keeps room for many even while it is empty: what is large is boxed.
pub(super) enum Command {
    Append(Box<Append>),
    Configure(Box<Configure>),
    DeleteRecords {
        before: Option<Offset>,
        reply: oneshot::Sender<Result<Offset, LookupError>>,
    },
    Forget {
        before: Offset,
        reply: oneshot::Sender<Result<Offset, LookupError>>,
    },
    RestartAt {
        offset: Offset,
        reply: oneshot::Sender<Result<(), LookupError>>,
    },
    /// Asks where this replica goes on, once what it has is safe.
    Follow {
        epoch: LeaderEpoch,
        reply: FollowReply,
    },
    Replicate(Box<Replicate>),
    /// Takes away what the leader's history does not have.
    Truncate {
        epoch: LeaderEpoch,
        to: Offset,
        reply: FollowReply,
    },
    /// Empties this replica: the leader has nothing before `at` any more.
    RestartReplica {
        epoch: LeaderEpoch,
        at: Offset,
        reply: FollowReply,
    },
    /// The device failed under a reader.
    DiskFailed {
        reason: String,
    },
    /// Begins a new segment where the one at `from` is appended to; answers where that one ends, or can end if it is missing.
    CloseSegment {
        from: Offset,
        until: Offset,
        reply: oneshot::Sender<Result<Offset, LookupError>>,
    },
    /// Puts a repaired segment where it belongs.
    Adopt(Box<Adopt>),
    /// Asks for the last record below `before` of each producer that is remembered.
    LastOfProducers {
        before: Offset,
        reply: oneshot::Sender<BTreeMap<ProducerId, Offset>>,
    },
    /// Puts what compaction has made where it belongs.
    Replace(Box<Replace>),
    /// The log is compacted up to here.
    NoteClean {
        until: Offset,
    },
    /// Looks whether the in-sync set should change.
    Review,
    Maintain,
    /// Asks which producers are remembered.
    DescribeProducers {
        reply: oneshot::Sender<Vec<ProducerDescription>>,
    },
    /// Answered when everything before it has been dealt with.
    Settle {
        reply: oneshot::Sender<()>,
    },
    /// Syncs and closes; answers whether everything is on disk.
    Close {
        reply: oneshot::Sender<bool>,
    },
}

/// What the metadata says now.
pub(super) struct Configure {
    pub(super) config: Arc<TopicConfig>,
    pub(super) leadership: PartitionState,
    pub(super) mirror: Option<String>,
}

/// Whoever copies for this replica hears where it goes on.
pub(super) type FollowReply = oneshot::Sender<Result<Position, ReplicaError>>;

/// What a fetch from the leader brought.
pub(super) struct Replicate {
    pub(super) leader: LeaderMarks,
    /// None: no records.
    pub(super) admitted: Option<(Admitted, Permit)>,
    pub(super) reply: FollowReply,
}

/// A repaired segment.
pub(super) struct Adopt {
    pub(super) repaired: Repaired,
    pub(super) reply: oneshot::Sender<Result<(), LookupError>>,
}

/// What compaction has made.
pub(super) struct Replace {
    pub(super) replacement: Replacement,
    pub(super) reply: oneshot::Sender<Result<bool, LookupError>>,
}

/// Batches that were let in.
pub(super) struct Append {
    pub(super) admitted: Admitted,
    pub(super) kind: Kind,
    pub(super) acks: Acks,
    pub(super) current_epoch: Option<LeaderEpoch>,
    pub(super) verified: Option<Verified>,
    pub(super) reply: Reply,
    /// The memory the bytes take while they wait.
    pub(super) permit: Permit,
    pub(super) admitted_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Gets the next offsets.
    Produce,
    /// Keeps its offsets.
    Copy,
    /// Ends a transaction.
    Marker,
}

/// Whom to answer, and when.
pub(super) enum Reply {
    /// Once, when the acknowledgement is reached.
    Pending(oneshot::Sender<Result<Appended, AppendError>>),
    /// When it is in the log; the ticket tells the rest.
    Ticket(oneshot::Sender<Result<Ticket, AppendError>>),
}

impl Reply {
    pub(super) fn refuse(self, error: AppendError) {
        // That nobody waits any more is normal.
        match self {
            Self::Pending(reply) => drop(reply.send(Err(error))),
            Self::Ticket(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// Somebody who waits for the high watermark.
pub(super) enum Waiter {
    Pending {
        reply: oneshot::Sender<Result<Appended, AppendError>>,
        appended: Appended,
        admitted_at: Instant,
    },
    Ticket(oneshot::Sender<Result<(), TicketError>>),
}

/// Some ten thousand mailboxes have room for 32 of them each.
const _: () = assert!(size_of::<Command>() <= 32);
