//! Looking into the keyed state of a transform from outside.
//!
//! It owns what can be asked, and the way of a question to the pipeline of its partition. What is shown is of one moment and committed:
//! a pipeline answers between two steps and says where it is; whoever asked is told when that position is committed. It must never
//! change a state.

use bytes::Bytes;
use headwater_protocol::ids::{NodeId, Offset, PartitionIndex};
use tokio::sync::oneshot;

/// Entries of one answer, at most.
pub const ENTRIES_MAX: usize = 500;

/// Which entries are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    One(Bytes),
    /// Those that begin so, in the order of their bytes.
    Prefix(Bytes),
}

/// A question about the state of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateQuery {
    pub partition: PartitionIndex,
    pub keys: Keys,
    /// Only what comes behind this key: the last one of the page before.
    pub after: Option<Bytes>,
    /// No more than [`ENTRIES_MAX`] count.
    pub limit: usize,
}

/// A part of a state, as it was when everything before the position was dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateView {
    pub position: Offset,
    /// In the second source of a join.
    pub right: Option<Offset>,
    pub entries: Vec<(Bytes, Bytes)>,
    /// There are more behind the last one.
    pub has_more: bool,
}

/// Why nothing is shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("transform {0:?} is not known")]
    UnknownTransform(String),
    #[error("the source has no partition {0}")]
    UnknownPartition(PartitionIndex),
    #[error("partition {partition} is led by node {leader}, which has its state")]
    NotHere {
        partition: PartitionIndex,
        leader: NodeId,
    },
    #[error("the transform does not answer for partition {0} at the moment")]
    NotRunning(PartitionIndex),
}

/// A question on its way to a pipeline.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) query: StateQuery,
    pub(crate) answer: oneshot::Sender<StateView>,
}
