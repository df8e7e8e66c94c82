//! Why a change was refused or could not be made durable.

use crate::config::properties::PropertyError;
use headwater_protocol::ids::TopicId;

/// Why a change did not happen. Nothing of it did, unless `Storage` or `Stopped` says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    #[error("topic {0:?} exists already")]
    TopicExists(String),
    #[error("topic name {name:?} is not valid: {reason}")]
    InvalidTopicName { name: String, reason: &'static str },
    #[error("partition count is not valid: {0}")]
    InvalidPartitions(String),
    #[error("replication factor {factor} is not possible: {reason}")]
    InvalidReplicationFactor { factor: i16, reason: String },
    #[error("replica assignment is not valid: {0}")]
    InvalidAssignment(String),
    #[error("topic {0:?} is not known")]
    UnknownTopic(String),
    #[error("no topic has the id {0}")]
    UnknownTopicId(TopicId),
    #[error(transparent)]
    InvalidConfig(#[from] PropertyError),
    #[error("{kind} {name:?} is not known")]
    Unknown { kind: &'static str, name: String },
    #[error("{kind} {name:?} exists already")]
    Exists { kind: &'static str, name: String },
    #[error("{kind} {name:?} is used by {by}")]
    InUse {
        kind: &'static str,
        name: String,
        by: String,
    },
    /// A rule forbids it; the text says which and what to do.
    #[error("{0}")]
    Refused(String),
    /// This node does not lead the quorum.
    #[error("this node is not the controller")]
    NotController,
    /// The quorum's log could not be written: the change may or may not survive a restart, nothing more is
    /// accepted until then.
    #[error("metadata log: {0}")]
    Storage(String),
    /// The node is stopping. The change may have happened.
    #[error("the controller is stopping")]
    Stopped,
}
