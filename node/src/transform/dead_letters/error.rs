//! Why dead letters were not shown or written back. Only the edge turns it into codes of its own.

use headwater_protocol::ids::{NodeId, PartitionIndex};

use super::letter::Place;
use super::rebuild::Refusal;
use crate::partition::{AppendError, Fault};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    #[error("transform {0:?} is not known")]
    UnknownTransform(String),
    #[error("topic {topic:?} has no partition {partition}")]
    UnknownPartition {
        topic: String,
        partition: PartitionIndex,
    },
    #[error("topic {0:?} does not exist")]
    UnknownTopic(String),
    /// Another node holds it.
    #[error("partition {partition} of {topic:?} is not on this node; node {leader} leads it")]
    NotHere {
        topic: String,
        partition: PartitionIndex,
        leader: NodeId,
    },
    /// Another node writes it.
    #[error("this node does not lead partition {partition} of {topic:?}; node {leader} does")]
    NotLed {
        topic: String,
        partition: PartitionIndex,
        leader: NodeId,
    },
    #[error("the source {topic:?} is a mirror: only its link writes to it")]
    Mirror { topic: String },
    #[error("there is no dead letter of the transform at offset {} of partition {}", .0.offset, .0.partition)]
    NoLetter(Place),
    #[error("the letter cannot be redriven: {0}")]
    Refused(#[from] Refusal),
    #[error("redrive {0} of this transform is under way")]
    Running(String),
    #[error("{0} redrives are under way on this node, which is as many as it takes")]
    TooMany(usize),
    #[error(
        "redrive {0:?} is not known; finished ones are remembered for a while, and none across a restart"
    )]
    UnknownRedrive(String),
    #[error("the transform was removed, or reads other topics now")]
    Changed,
    #[error("the letters cannot be read: {0}")]
    Read(String),
    /// Nothing was written.
    #[error("the letter at {} of partition {} was not written: {error}", .letter.offset, .letter.partition)]
    NotWritten { letter: Place, error: AppendError },
    /// It may have been written or not.
    #[error(
        "the letter at {} of partition {} may have been written or not: {error}; \
         the source's end shows", .letter.offset, .letter.partition
    )]
    Unknown { letter: Place, error: AppendError },
    #[error("the node is stopping")]
    Stopping,
}

impl LetterError {
    /// The same failure, where the letter at `offset` was being dealt with.
    pub(crate) fn of_write(letter: Place, error: AppendError) -> Self {
        match error.fault() {
            Fault::Records => Self::Refused(Refusal::BySource(error.to_string())),
            Fault::Partition => Self::NotWritten { letter, error },
            Fault::InDoubt => Self::Unknown { letter, error },
        }
    }
}
