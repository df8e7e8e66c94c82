//! What a group is asked for, and what it answers: values without wire formats.

mod consumer;
mod share;

pub use consumer::{
    Assignment, Assignor, ConsumerDescription, ConsumerHeartbeat, DescribedConsumer, Epoch, Reconciled,
};
pub use share::{DescribedSharer, SHARE_ASSIGNOR, ShareDescription, ShareHeartbeat};

use super::error::GroupError;
use crate::partition::Verified;
use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A group's or a member's name, as clients write it.
pub type Name = Arc<str>;

/// The longest name: with the tail of a member's id behind it, it still is a string of the protocol.
pub const NAME_BYTES_MAX: usize = 32_000;

/// A name as it came in, if it can be kept.
pub fn name(text: &str) -> Result<Name, GroupError> {
    if text.len() > NAME_BYTES_MAX {
        return Err(GroupError::NameTooLong {
            bytes: text.len(),
            max: NAME_BYTES_MAX,
        });
    }
    Ok(Arc::from(text))
}

/// How many times a group has been divided among its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub i32);

impl Generation {
    /// The requester takes part in no generation.
    pub const NONE: Self = Self(-1);
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who asks, as far as it says so: an empty member id is none yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub group: Name,
    pub member: Name,
    /// Set for static members (KIP-345).
    pub instance: Option<Name>,
}

/// One way of dividing partitions that a member supports, and what it has to say for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    pub name: Name,
    pub metadata: Bytes,
}

#[derive(Debug, Clone)]
pub struct Join {
    pub who: Identity,
    pub client_id: Name,
    pub client_host: Name,
    pub protocol_type: Name,
    /// The one it likes best first.
    pub protocols: Vec<Protocol>,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    /// It takes an id before it is let in (KIP-394).
    pub takes_id_first: bool,
    /// It understands that a leader need not assign anything (KIP-814).
    pub may_skip_assignment: bool,
}

/// What a member is told when its generation begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub generation: Generation,
    pub protocol_type: Option<Name>,
    pub protocol: Option<Name>,
    pub leader: Name,
    pub member: Name,
    pub skip_assignment: bool,
    /// For the leader, which assigns; empty for all others.
    pub members: Vec<JoinedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub member: Name,
    pub instance: Option<Name>,
    pub metadata: Bytes,
}

#[derive(Debug, Clone)]
pub struct SyncGroup {
    pub who: Identity,
    pub generation: Generation,
    /// Compared where the client names them (KIP-559).
    pub protocol_type: Option<Name>,
    pub protocol: Option<Name>,
    /// From the leader: what each member gets.
    pub assignments: Vec<(Name, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Option<Name>,
    pub protocol: Option<Name>,
    pub assignment: Bytes,
}

#[derive(Debug, Clone)]
pub struct Heartbeat {
    pub who: Identity,
    pub generation: Generation,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Name,
    pub index: PartitionIndex,
}

#[derive(Debug, Clone)]
pub struct Commit {
    pub who: Identity,
    pub generation: Generation,
    pub offsets: Vec<(TopicPartition, NewOffset)>,
    /// The client understands that its epoch is stale (KIP-848).
    pub knows_epochs: bool,
    /// They are seen once it is committed.
    pub transaction: Option<InTransaction>,
}

/// The transaction that a commit is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InTransaction {
    pub producer: ProducerId,
    pub epoch: ProducerEpoch,
    /// Set where the transaction is not open in the offsets' partition yet.
    pub verified: Option<Verified>,
}

/// What is to be committed of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOffset {
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub metadata: Name,
    /// How long it is kept, as clients once said; None: as long as all others.
    pub kept_for: Option<Duration>,
}

/// What was committed of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub metadata: Name,
    pub committed_ms: i64,
    /// Set where the client said how long it is kept; else the retention of all offsets holds.
    pub expires_ms: Option<i64>,
}

/// What became of each partition, in the order of the request.
pub type PerPartition = Vec<(TopicPartition, Result<(), GroupError>)>;

/// Partitions with what was committed of them; None: nothing.
pub type Offsets = Vec<(TopicPartition, Option<Committed>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    /// The consumer protocol: there is something new to be dealt out.
    Assigning,
    /// The consumer protocol: some members have not come to what was dealt out.
    Reconciling,
    Stable,
    Dead,
}

impl Stage {
    /// As Kafka calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// By which protocol a group's members are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    Classic,
    Consumer,
    Share,
}

impl GroupKind {
    /// As Kafka calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
            Self::Share => "share",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub group: Name,
    pub kind: GroupKind,
    pub stage: Stage,
    /// Empty where only offsets were ever committed.
    pub protocol_type: Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub group: Name,
    pub stage: Stage,
    pub protocol_type: Name,
    /// Set while the group is stable.
    pub protocol: Name,
    pub members: Vec<DescribedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    pub member: Name,
    pub instance: Option<Name>,
    pub client_id: Name,
    pub client_host: Name,
    /// Both empty unless the group is stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}
