//! What a coordinator of transactions is asked for, and what it answers: values without wire formats.

use headwater_protocol::ids::{PartitionIndex, ProducerEpoch, ProducerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A transactional id, as clients write it.
pub type TransactionalId = Arc<str>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub index: PartitionIndex,
}

/// Indexes by topic, as requests, answers and records have them.
pub fn by_topic<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> BTreeMap<&'a str, Vec<i32>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        let indexes = topics.entry(&partition.topic).or_default();
        indexes.push(partition.index.value());
    }
    topics
}

/// A producer as it knows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// A producer begins, or begins anew. `InitProducerId` in Kafka.
#[derive(Debug, Clone)]
pub struct Begin {
    pub id: TransactionalId,
    pub timeout: Duration,
    /// What it was before, where it wants to go on as that (KIP-360).
    pub before: Option<Producer>,
    /// An id that nobody else has, where one was asked for.
    pub fresh: Option<ProducerId>,
}

/// Partitions become part of the transaction. `AddPartitionsToTxn` in Kafka.
#[derive(Debug, Clone)]
pub struct Add {
    pub id: TransactionalId,
    pub producer: Producer,
    pub partitions: BTreeSet<TopicPartition>,
    /// Nothing is added: they must be part of it already.
    pub verify_only: bool,
}

/// A producer ends its transaction. `EndTxn` in Kafka.
#[derive(Debug, Clone)]
pub struct End {
    pub id: TransactionalId,
    pub producer: Producer,
    pub commit: bool,
    /// Each transaction has an epoch of its own (KIP-890).
    pub bumps_epoch: bool,
    pub fresh: Option<ProducerId>,
}

/// Where a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl Stage {
    pub const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// As Kafka calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    pub fn is_preparing(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// One transactional id, for whoever wants to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub id: TransactionalId,
    pub producer: Producer,
    pub stage: Stage,
    pub timeout_ms: i32,
    /// When the transaction began; None while there is none.
    pub started_ms: Option<i64>,
    pub partitions: BTreeSet<TopicPartition>,
}
