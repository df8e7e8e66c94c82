//! What the metadata says about a topic and its partitions. Values only; no decision is taken here.

use super::Record;
use headwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, TopicId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest name a topic may have, as in Kafka: it becomes a folder's name.
pub const NAME_BYTES_MAX: usize = 249;

/// Where consumer groups keep what they commit.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Where coordinators of transactions keep what they decide.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// Where share coordinators keep what was delivered.
pub const SHARE_STATE_TOPIC: &str = "__share_group_state";

/// Whether only the nodes themselves make a topic of this name.
pub fn is_reserved(name: &str) -> bool {
    [OFFSETS_TOPIC, TRANSACTIONS_TOPIC, SHARE_STATE_TOPIC].contains(&name)
}

/// A topic as the image holds it.
///
/// - `partitions` has one entry per partition, in the order of their indexes, without gaps.
/// - `configs` holds only what was set on this topic; defaults are resolved by `config::topic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    pub id: TopicId,
    pub name: Arc<str>,
    pub partitions: Vec<PartitionState>,
    pub configs: BTreeMap<String, String>,
    /// The topic is a copy kept by a link: only the link may append to it.
    pub mirror: Option<MirrorSource>,
    /// Made by the node for itself.
    pub internal: bool,
}

impl Topic {
    pub fn partition(&self, index: PartitionIndex) -> Option<&PartitionState> {
        self.partitions.get(usize::try_from(index.value()).ok()?)
    }

    /// The record that says it is there, without its partitions and properties.
    pub fn header(&self) -> Record {
        Record::Topic {
            id: self.id,
            name: self.name.to_string(),
            internal: self.internal,
            mirror: self.mirror.clone(),
        }
    }

    /// The records that say all of it.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let partition = |(index, state): (PartitionIndex, &PartitionState)| Record::Partition {
            topic: self.id,
            index,
            state: state.clone(),
        };
        let config = |(key, value): (&String, &String)| Record::TopicConfig {
            topic: self.id,
            key: key.clone(),
            value: Some(value.clone()),
        };
        std::iter::once(self.header())
            .chain(self.indexes().zip(&self.partitions).map(partition))
            .chain(self.configs.iter().map(config))
    }

    /// The indexes of its partitions, in order.
    pub fn indexes(&self) -> impl Iterator<Item = PartitionIndex> + use<> {
        // A topic has at most as many partitions as an i32 counts: the controller bounds them.
        (0..self.partitions.len() as i32).map(PartitionIndex)
    }
}

/// Who holds one partition, and in which state.
///
/// - `leader` is `NodeId::NONE` while nobody may lead; otherwise it is in `isr`.
/// - `isr` and `eligible` are within `replicas` and have no member in common.
/// - `leader_epoch` and `partition_epoch` only rise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartitionState {
    pub leader: NodeId,
    pub leader_epoch: LeaderEpoch,
    /// In the order of preference: the first should lead.
    pub replicas: Vec<NodeId>,
    /// The in-sync set: every record below the high watermark is on all of them.
    pub isr: Vec<NodeId>,
    /// Not in sync, yet known to hold every record below the high watermark: they may lead when nobody in sync is left
    /// (KIP-966).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub eligible: Vec<NodeId>,
    /// Replicas that a reassignment adds and has not finished adding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adding: Vec<NodeId>,
    /// Replicas that go once those added are in sync.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removing: Vec<NodeId>,
    /// Counts every change of this entry; changes are compared and set against it.
    pub partition_epoch: i32,
}

impl PartitionState {
    /// A partition nobody has written to: the first replica leads, all are in sync.
    pub fn fresh(replicas: Vec<NodeId>) -> Self {
        Self {
            leader: replicas.first().copied().unwrap_or(NodeId::NONE),
            leader_epoch: LeaderEpoch(0),
            isr: replicas.clone(),
            replicas,
            ..Self::default()
        }
    }

    /// Whether a replica is out of sync. One that is still being added is none yet.
    pub fn is_under_replicated(&self) -> bool {
        let mut settled = self
            .replicas
            .iter()
            .filter(|replica| !self.adding.contains(replica));
        settled.any(|replica| !self.isr.contains(replica))
    }

    /// Whether fewer replicas are in sync than `min_in_sync`, so that nothing more is committed.
    pub fn is_under_min_in_sync(&self, min_in_sync: usize) -> bool {
        self.isr.len() < min_in_sync
    }

    /// Whether one replica less in sync would be too few: always so, and no news, where there is but one.
    pub fn is_at_min_in_sync(&self, min_in_sync: usize) -> bool {
        self.isr.len() == min_in_sync && self.replicas.len() > 1
    }

    /// Whether its replicas are being moved.
    pub fn is_moving(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }
}

/// Where a mirror topic is copied from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorSource {
    pub link: String,
    pub site: String,
    /// The topic's name at the source.
    pub topic: String,
    /// The topic's id at the source: another id behind the same name is another log.
    pub topic_id: TopicId,
}
