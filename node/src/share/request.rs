//! What share groups are asked for, and what they answer: values without wire formats.

use headwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use std::sync::Arc;
use tokio::sync::watch;

/// A group's or a member's name, as clients write it.
pub type Name = Arc<str>;

/// A partition of a topic, by the topic's id.
pub type Place = (TopicId, PartitionIndex);

/// What a member says of a record that it has acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// There is no record at the offset.
    Gap,
    Accept,
    /// It is for somebody else.
    Release,
    /// It is for nobody.
    Reject,
    /// The member goes on with it (KIP-1222).
    Renew,
}

impl Ack {
    /// As the protocol has it.
    pub fn of(code: i8) -> Option<Self> {
        Some(match code {
            0 => Self::Gap,
            1 => Self::Accept,
            2 => Self::Release,
            3 => Self::Reject,
            4 => Self::Renew,
            _ => return None,
        })
    }
}

/// One word for all records between two offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledge {
    pub first: Offset,
    pub last: Offset,
    pub ack: Ack,
}

/// Records that a member has acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acquired {
    pub first: Offset,
    pub last: Offset,
    /// How often they were delivered, this time among them.
    pub count: i16,
}

/// What is known of records for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptState {
    Available,
    Acknowledged,
    Archived,
}

impl KeptState {
    /// As Kafka writes it.
    pub(super) fn code(self) -> i8 {
        match self {
            Self::Available => 0,
            Self::Acknowledged => 2,
            Self::Archived => 4,
        }
    }

    pub(super) fn of(code: i8) -> Option<Self> {
        Some(match code {
            0 => Self::Available,
            2 => Self::Acknowledged,
            4 => Self::Archived,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeptBatch {
    pub first: Offset,
    pub last: Offset,
    pub state: KeptState,
    pub count: i16,
}

impl KeptBatch {
    /// Whether it is one: offsets of a log, the first one first, with room behind the last.
    pub(super) fn is_sound(&self) -> bool {
        let last = Offset(i64::MAX / 4);
        (Offset::ZERO..=self.last).contains(&self.first) && self.last < last && self.count >= 0
    }

    /// How many records it is of.
    pub(super) fn length(&self) -> i64 {
        self.last.since(self.first) + 1
    }
}

/// What is kept of one partition for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Another one with everybody who reads it to deliver by it: what others write by an older one is refused.
    pub state_epoch: i32,
    pub leader_epoch: LeaderEpoch,
    /// Everything before it is done with; None: nobody has decided yet where the group begins.
    pub start: Option<Offset>,
    pub batches: Vec<KeptBatch>,
}

/// A group's view of one partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub group: Name,
    pub place: Place,
}

/// A member fetches or acknowledges: its session goes on, begins or ends.
#[derive(Debug, Clone)]
pub struct Open {
    pub group: Name,
    pub member: Name,
    pub epoch: i32,
    /// Partitions that are fetched from now on.
    pub adds: Vec<Place>,
    pub forgets: Vec<Place>,
    /// A request that fetches may begin a session.
    pub may_begin: bool,
}

impl Open {
    pub const BEGINS: i32 = 0;
    pub const ENDS: i32 = -1;
}

/// One batch of the log, as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub first: Offset,
    pub last: Offset,
    /// Nobody is to see its records: they were given up with their transaction, or are none.
    pub is_hidden: bool,
}

/// What a member asks for.
#[derive(Debug, Clone)]
pub struct Acquire {
    pub by: Name,
    /// Where was read.
    pub from: Offset,
    /// In order. What is not in them, between two, is not in the log.
    pub spans: Vec<Span>,
    pub records_max: usize,
    /// No record more; else what is left of a batch of the log is given with it.
    pub is_strict: bool,
    /// About how many records the member likes to acknowledge at once.
    pub batch_size: usize,
}

/// What is kept of one partition, for whoever wants to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub state_epoch: i32,
    pub leader_epoch: LeaderEpoch,
    pub start: Option<Offset>,
    /// How many records behind the start are done with.
    pub complete: i64,
}

/// Where somebody who wants records should read.
#[derive(Debug)]
pub struct Next {
    /// None: there is nothing to be given.
    pub from: Option<Offset>,
    /// Changes, or closes, when it may be another place.
    pub news: watch::Receiver<()>,
}
