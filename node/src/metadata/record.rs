//! Every change the cluster can agree on, as a value of the metadata log: JSON with a `type` and a `format`.
//!
//! A record states what is true from now on, never a difference to what was: folding a record twice changes nothing.
//! A record once written is read for ever: a change of meaning needs a new format here.

use super::features::Level;
use super::{Link, MirrorSource, Module, Node, PartitionState, Site, Transform, Upstream};
use headwater_protocol::ids::{NodeId, PartitionIndex, ProducerId, TopicId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format this build writes, and the highest it reads.
pub const FORMAT: u32 = 1;

/// One agreed fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Record {
    /// The first record of every metadata log.
    Cluster {
        cluster_id: String,
    },
    Node(Node),
    /// It is no member any more.
    RemoveNode {
        id: NodeId,
    },
    Topic {
        id: TopicId,
        name: String,
        internal: bool,
        mirror: Option<MirrorSource>,
    },
    Partition {
        topic: TopicId,
        index: PartitionIndex,
        #[serde(flatten)]
        state: PartitionState,
    },
    /// Takes its partitions and properties along.
    RemoveTopic {
        id: TopicId,
    },
    /// One property of one topic; without a value it falls back to its default.
    TopicConfig {
        topic: TopicId,
        key: String,
        value: Option<String>,
    },
    /// One property of all nodes, or of the one whose number stands before its name (`2/NAME`); without a value it falls
    /// back to the node's own configuration.
    BrokerConfig {
        key: String,
        value: Option<String>,
    },
    /// The level of a feature that is in force (KIP-584).
    FeatureLevel {
        feature: String,
        level: Level,
    },
    /// Every producer id below `next` has been handed out.
    ProducerIds {
        next: ProducerId,
    },
    Module(Module),
    RemoveModule {
        name: String,
        version: String,
    },
    Transform(Transform),
    RemoveTransform {
        name: String,
    },
    Site(Site),
    Link(Link),
    RemoveLink {
        name: String,
    },
    Upstream(Upstream),
    RemoveUpstream {
        link: String,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    // Not `version`, which a module's record has of its own.
    format: u32,
    #[serde(flatten)]
    record: &'a Record,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Why a value of the metadata log cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(
        "metadata record of format {found}, this build knows up to {FORMAT}: it was written by a newer one"
    )]
    Newer { found: u32 },
    #[error("metadata record {kind:?} is not known to this build: it was written by a newer one")]
    Unknown { kind: String },
    #[error("metadata record cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl Record {
    /// The record as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&Written {
            format: FORMAT,
            record: self,
        })
        .expect("a record has only string keys and no value that JSON cannot write")
    }

    /// Reads a stored record. Fields it does not know are passed over.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let Format { format } = serde_json::from_slice(value)?;
        if format > FORMAT {
            return Err(RecordError::Newer { found: format });
        }
        serde_json::from_slice(value).map_err(|error| newer_in(value).unwrap_or_else(|| error.into()))
    }

    /// The level that a node needs to read it.
    pub fn level(&self) -> Level {
        match self {
            Self::FeatureLevel { .. } => Level::FEATURES,
            Self::Transform(transform) => transform.level(),
            Self::Cluster { .. }
            | Self::Node(_)
            | Self::RemoveNode { .. }
            | Self::Topic { .. }
            | Self::Partition { .. }
            | Self::RemoveTopic { .. }
            | Self::TopicConfig { .. }
            | Self::BrokerConfig { .. }
            | Self::ProducerIds { .. }
            | Self::Module(_)
            | Self::RemoveModule { .. }
            | Self::RemoveTransform { .. }
            | Self::Site(_)
            | Self::Link(_)
            | Self::RemoveLink { .. }
            | Self::Upstream(_)
            | Self::RemoveUpstream { .. } => Level::FIRST,
        }
    }
}

/// The types of records that this build knows, as they are written.
pub(super) const TYPES: &[&str] = &[
    "cluster",
    "node",
    "remove-node",
    "topic",
    "partition",
    "remove-topic",
    "topic-config",
    "broker-config",
    "feature-level",
    "producer-ids",
    "module",
    "remove-module",
    "transform",
    "remove-transform",
    "site",
    "link",
    "remove-link",
    "upstream",
    "remove-upstream",
];

/// Why JSON that holds records could not be read, if a newer build wrote them: a format or a type that is not known here.
/// None: they are malformed in another way.
pub fn newer_in(value: &[u8]) -> Option<RecordError> {
    fn look(value: &Value) -> Option<RecordError> {
        match value {
            Value::Array(items) => items.iter().find_map(look),
            Value::Object(fields) => {
                let format = fields.get("format").and_then(Value::as_u64).unwrap_or(0);
                if format > u64::from(FORMAT) {
                    let found = u32::try_from(format).unwrap_or(u32::MAX);
                    return Some(RecordError::Newer { found });
                }
                let is_unknown = |kind: &&str| !TYPES.contains(kind);
                let typed = fields.get("type").and_then(Value::as_str).filter(is_unknown);
                if let Some(kind) = typed {
                    let kind = kind.to_owned();
                    return Some(RecordError::Unknown { kind });
                }
                fields.values().find_map(look)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }
    look(&serde_json::from_slice(value).ok()?)
}
