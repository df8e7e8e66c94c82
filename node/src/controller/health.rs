//! How the cluster is, as an image has it: which partitions nobody leads, which ones lack replicas, who holds how many.
//! Pure.
//!
//! Owns what the words mean, so that metrics, the API and the command line count alike. It never decides anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_protocol::ids::{NodeId, PartitionIndex};

use crate::config::{BrokerConfig, topic};
use crate::metadata::{Image, NodeState, PartitionState, Topic};

/// What is the matter with one partition. Several may hold at once; the default is a healthy one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ailments {
    /// Nobody leads it, or a node that is fenced: it can neither be written nor read.
    pub is_leaderless: bool,
    /// Fewer replicas are in sync than `min.insync.replicas`: nothing more is committed.
    pub is_under_min_in_sync: bool,
    /// One replica less in sync would be too few.
    pub is_at_min_in_sync: bool,
    /// A replica is out of sync.
    pub is_under_replicated: bool,
    /// Its replicas are being moved. No ailment, but often its cause.
    pub is_moving: bool,
}

/// How a partition is, by the worst that holds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Healthy,
    UnderReplicated,
    UnderMinInSync,
    Leaderless,
}

impl Ailments {
    /// The worst of them.
    pub fn worst(self) -> Condition {
        if self.is_leaderless {
            Condition::Leaderless
        } else if self.is_under_min_in_sync {
            Condition::UnderMinInSync
        } else if self.is_under_replicated {
            Condition::UnderReplicated
        } else {
            Condition::Healthy
        }
    }
}

/// One partition, looked at.
#[derive(Debug, Clone, Copy)]
pub struct Examined<'a> {
    pub topic: &'a Arc<Topic>,
    pub index: PartitionIndex,
    pub state: &'a PartitionState,
    pub min_in_sync: usize,
    pub ailments: Ailments,
}

/// All partitions of the cluster, by topic name and index. `broker` are the properties in force on this node.
pub fn examine<'a>(image: &'a Image, broker: &BrokerConfig) -> impl Iterator<Item = Examined<'a>> {
    image
        .topics
        .values()
        .flat_map(move |topic| examine_topic(image, topic, broker))
}

/// The partitions of one topic, by index.
pub fn examine_topic<'a>(
    image: &'a Image,
    topic: &'a Arc<Topic>,
    broker: &BrokerConfig,
) -> impl Iterator<Item = Examined<'a>> + use<'a> {
    let min_in_sync = topic::min_insync_replicas(&topic.configs, broker);
    let partitions = topic.indexes().zip(&topic.partitions);
    partitions.map(move |(index, state)| Examined {
        topic,
        index,
        state,
        min_in_sync,
        ailments: ailments(image, state, min_in_sync),
    })
}

fn ailments(image: &Image, state: &PartitionState, min_in_sync: usize) -> Ailments {
    Ailments {
        is_leaderless: !takes_part(image, state.leader),
        is_under_min_in_sync: state.is_under_min_in_sync(min_in_sync),
        is_at_min_in_sync: state.is_at_min_in_sync(min_in_sync),
        is_under_replicated: state.is_under_replicated(),
        is_moving: state.is_moving(),
    }
}

/// A node that asked to stop leads on until it is gone. One that is fenced may still stand in the metadata as the leader of
/// what only it holds.
fn takes_part(image: &Image, node: NodeId) -> bool {
    let state = image.nodes.get(&node).map(|node| node.state);
    state.is_some_and(|state| state != NodeState::Fenced)
}

/// Who has to come back before somebody leads a partition again: any one of them will do. Empty while it is led.
pub fn waits_for(image: &Image, state: &PartitionState) -> Vec<NodeId> {
    if takes_part(image, state.leader) {
        return Vec::new();
    }
    state.isr.iter().chain(&state.eligible).copied().collect()
}

/// How many partitions are how. One may count in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub partitions: usize,
    pub leaderless: usize,
    pub under_min_in_sync: usize,
    pub at_min_in_sync: usize,
    pub under_replicated: usize,
    pub moving: usize,
}

impl Counts {
    pub fn add(&mut self, ailments: Ailments) {
        self.partitions += 1;
        self.leaderless += usize::from(ailments.is_leaderless);
        self.under_min_in_sync += usize::from(ailments.is_under_min_in_sync);
        self.at_min_in_sync += usize::from(ailments.is_at_min_in_sync);
        self.under_replicated += usize::from(ailments.is_under_replicated);
        self.moving += usize::from(ailments.is_moving);
    }
}

/// How many partitions a node leads, and how many it holds that it does not lead. A fenced node leads none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    pub leads: usize,
    pub follows: usize,
}

/// What each node holds; a node that holds nothing is not named.
pub fn loads(image: &Image) -> BTreeMap<NodeId, Load> {
    let mut loads: BTreeMap<NodeId, Load> = BTreeMap::new();
    for state in image.topics.values().flat_map(|topic| &topic.partitions) {
        for replica in &state.replicas {
            let load = loads.entry(*replica).or_default();
            if *replica == state.leader && takes_part(image, *replica) {
                load.leads += 1;
            } else {
                load.follows += 1;
            }
        }
    }
    loads
}

#[cfg(test)]
mod tests;
