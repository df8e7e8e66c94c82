//! Every change that somebody can ask the controller for.

use crate::metadata::features::{Level, Way};
use crate::metadata::{Link, MirrorSource, Module, Node, Site, Transform, Upstream};
use headwater_protocol::ids::{BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A change that somebody asks for. It happens as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    CreateTopic(NewTopic),
    DeleteTopic {
        topic: TopicRef,
    },
    CreatePartitions {
        topic: String,
        /// How many there are to be in the end.
        count: i32,
        /// Replicas of each new partition; empty leaves it to the controller.
        assignments: Vec<Vec<NodeId>>,
        validate_only: bool,
    },
    AlterTopicConfig {
        topic: String,
        changes: Vec<ConfigChange>,
        validate_only: bool,
    },
    /// Properties of nodes, by keys as `config::Dynamic` reads them.
    AlterBrokerConfig {
        changes: Vec<ConfigChange>,
        validate_only: bool,
    },
    /// Levels of features (KIP-584).
    UpdateFeatures {
        updates: Vec<FeatureUpdate>,
        validate_only: bool,
    },
    AllocateProducerIds,
    PutModule(Module),
    RemoveModule {
        name: String,
        version: String,
    },
    /// Creates or replaces; the controller sets `revision`.
    PutTransform(Transform),
    SetTransformPaused {
        name: String,
        paused: bool,
    },
    RemoveTransform {
        name: String,
    },
    PutSite(Site),
    /// Creates or replaces; the controller sets `revision`.
    PutLink(Link),
    SetLinkPaused {
        name: String,
        paused: bool,
    },
    RemoveLink {
        name: String,
    },
    PutUpstream(Upstream),
    RemoveUpstream {
        link: String,
    },
    /// A process tells that it is this node from now on; the controller sets `epoch` and `state`.
    RegisterNode(Node),
    /// A node is not heard of any more: others take over.
    FenceNode {
        node: NodeId,
        epoch: BrokerEpoch,
    },
    /// A node has caught up with the metadata since its registration: it may lead and be in sync.
    UnfenceNode {
        node: NodeId,
        epoch: BrokerEpoch,
    },
    /// A node asks to stop: what others can lead is handed over.
    ShutDownNode {
        node: NodeId,
        epoch: BrokerEpoch,
    },
    /// Replicas on a node cannot be trusted any more, although the node goes on: its disk failed.
    ReplicasFailed {
        node: NodeId,
        epoch: BrokerEpoch,
        partitions: Vec<PartitionRef>,
    },
    /// A node that holds nothing and has no vote leaves the cluster. `as_of` is the metadata by which that was asked: one that
    /// came later, under the same number, stays.
    UnregisterNode {
        node: NodeId,
        #[serde(default)]
        as_of: Option<Offset>,
    },
    AlterInSync(InSyncChange),
    /// Moves the replicas of one partition (KIP-455).
    Reassign(Reassignment),
    /// None: all partitions.
    ElectLeaders {
        leaders: Leaders,
        partitions: Option<Vec<PartitionRef>>,
    },
    /// Turns a mirror into an ordinary topic, or binds a copy to another log at its source.
    SetMirror {
        topic: String,
        mirror: Option<MirrorSource>,
    },
}

/// Another level of a feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureUpdate {
    pub feature: String,
    pub level: Level,
    pub way: Way,
}

impl Change {
    /// The level that a node needs to read it. Kept whatever is in force: an upgrade is asked for below its level.
    pub fn level(&self) -> Level {
        match self {
            Self::UpdateFeatures { .. } => Level::FEATURES,
            // A node below it would pass over what it does not know, and propose something else.
            Self::PutTransform(transform) => transform.level(),
            Self::CreateTopic(_)
            | Self::DeleteTopic { .. }
            | Self::CreatePartitions { .. }
            | Self::AlterTopicConfig { .. }
            | Self::AlterBrokerConfig { .. }
            | Self::AllocateProducerIds
            | Self::PutModule(_)
            | Self::RemoveModule { .. }
            | Self::SetTransformPaused { .. }
            | Self::RemoveTransform { .. }
            | Self::PutSite(_)
            | Self::PutLink(_)
            | Self::SetLinkPaused { .. }
            | Self::RemoveLink { .. }
            | Self::PutUpstream(_)
            | Self::RemoveUpstream { .. }
            | Self::RegisterNode(_)
            | Self::FenceNode { .. }
            | Self::UnfenceNode { .. }
            | Self::ShutDownNode { .. }
            | Self::ReplicasFailed { .. }
            | Self::UnregisterNode { .. }
            | Self::AlterInSync(_)
            | Self::Reassign(_)
            | Self::ElectLeaders { .. }
            | Self::SetMirror { .. } => Level::FIRST,
        }
    }
}

/// One partition, by its topic's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRef {
    pub topic: TopicId,
    pub index: PartitionIndex,
}

/// Another in-sync set, asked for by a partition's leader (KIP-497). Compared and set against both epochs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSyncChange {
    pub topic: TopicId,
    pub index: PartitionIndex,
    /// Who asks, and as which process.
    pub node: NodeId,
    pub node_epoch: BrokerEpoch,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    pub in_sync: Vec<NodeId>,
    /// The processes that the leader knows to be in sync, as far as it has heard of them in its reign (KIP-903).
    pub epochs: Vec<(NodeId, BrokerEpoch)>,
}

/// Where the replicas of a partition are to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reassignment {
    pub topic: String,
    pub index: PartitionIndex,
    /// The first one preferred as leader. None: those that were there before the reassignment that is under way.
    pub replicas: Option<Vec<NodeId>>,
    pub factor: Factor,
}

/// Whether a reassignment may change how many replicas there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Factor {
    Free,
    Fixed,
}

/// Which leaders are to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leaders {
    /// The first of the replicas, where it is in sync.
    Preferred,
    /// Anybody who is there, where nobody leads: records may be lost.
    Unclean,
}

/// A topic, by what the caller knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopicRef {
    Name(String),
    Id(TopicId),
}

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTopic {
    pub name: String,
    /// -1: as many as `num.partitions` says.
    pub partitions: i32,
    /// -1: as `default.replication.factor` says.
    pub replication_factor: i16,
    /// Replicas by partition index, the first one preferred as leader; empty leaves it to the controller.
    pub assignments: BTreeMap<i32, Vec<NodeId>>,
    pub configs: BTreeMap<String, String>,
    /// None: a new one is drawn.
    pub id: Option<TopicId>,
    pub mirror: Option<MirrorSource>,
    pub internal: bool,
    pub validate_only: bool,
}

impl NewTopic {
    /// An ordinary topic with the cluster's defaults.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: -1,
            replication_factor: -1,
            assignments: BTreeMap::new(),
            configs: BTreeMap::new(),
            id: None,
            mirror: None,
            internal: false,
            validate_only: false,
        }
    }
}

/// One change of one property.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    pub key: String,
    pub operation: ConfigOperation,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigOperation {
    Set(String),
    /// Back to the default.
    Remove,
    /// Adds to a list, where it is not there yet.
    Append(String),
    /// Takes out of a list.
    Subtract(String),
}
