//! Why a change was refused or could not be made durable.

use crate::config::properties::PropertyError;
use crate::metadata::features::Level;
use headwater_protocol::ids::{BrokerEpoch, LeaderEpoch, NodeId, TopicId};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Why a change did not happen. Nothing of it did, unless `Storage`, `Stopped` or `TimedOut` says otherwise.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
pub enum ProposeError {
    #[error("topic {0:?} exists already")]
    TopicExists(String),
    #[error("topic name {name:?} is not valid: {reason}")]
    InvalidTopicName { name: String, reason: Cow<'static, str> },
    #[error("partition count is not valid: {0}")]
    InvalidPartitions(String),
    #[error("replication factor {factor} is not possible: {reason}")]
    InvalidReplicationFactor { factor: i16, reason: String },
    #[error("replica assignment is not valid: {0}")]
    InvalidAssignment(String),
    #[error("no reassignment of partition {0} is under way")]
    NoReassignment(String),
    #[error("topic {0:?} is not known")]
    UnknownTopic(String),
    #[error("no topic has the id {0}")]
    UnknownTopicId(TopicId),
    #[error(transparent)]
    InvalidConfig(#[from] PropertyError),
    #[error("{kind} {name:?} is not known")]
    Unknown { kind: Cow<'static, str>, name: String },
    #[error("{kind} {name:?} exists already")]
    Exists { kind: Cow<'static, str>, name: String },
    #[error("{kind} {name:?} is used by {by}")]
    InUse {
        kind: Cow<'static, str>,
        name: String,
        by: String,
    },
    #[error("feature {feature:?} cannot be set to level {level}: {reason}")]
    InvalidLevel {
        feature: String,
        level: Level,
        reason: String,
    },
    /// Nodes of different levels cannot understand each other here; the text says which and what to do.
    #[error("{0}")]
    UnsupportedVersion(String),
    /// A rule forbids it; the text says which and what to do.
    #[error("{0}")]
    Refused(String),
    /// Another process speaks for the node by now.
    #[error("node {node} is registered in epoch {current} by now")]
    StaleNode { node: NodeId, current: BrokerEpoch },
    #[error("the partition is led by node {leader} in epoch {epoch} by now")]
    StaleLeader { leader: NodeId, epoch: LeaderEpoch },
    #[error("the partition has epoch {current} by now")]
    StalePartition { current: i32 },
    #[error("node {0} may not be in the in-sync set: it holds no replica, or takes no part")]
    IneligibleReplica(NodeId),
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
    /// No controller answered in time. The change may have happened.
    #[error("no controller answered in time: {0}")]
    TimedOut(String),
}
