//! Where the replicas of new partitions go: spread over the nodes, so that none has many more than another. Pure.

use super::error::ProposeError;
use crate::metadata::Image;
use headwater_protocol::ids::NodeId;
use std::collections::BTreeMap;

/// The replicas of `count` new partitions with `factor` replicas each, the first one of each its leader. `present`
/// partitions of the topic exist already.
pub(super) fn place(
    count: i32,
    factor: i16,
    present: i32,
    image: &Image,
) -> Result<Vec<Vec<NodeId>>, ProposeError> {
    let refuse = |reason: String| ProposeError::InvalidReplicationFactor { factor, reason };
    let replicas = usize::try_from(factor).ok().filter(|replicas| *replicas > 0);
    let replicas = replicas.ok_or_else(|| refuse("at least 1 is needed".to_owned()))?;
    let nodes: Vec<NodeId> = image.nodes.keys().copied().collect();
    if replicas > nodes.len() {
        return Err(refuse(format!("the cluster has {} nodes", nodes.len())));
    }
    let mut load = load(image);
    let mut placed = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    for index in present..present.saturating_add(count) {
        // The least loaded first; among equals the order turns with the index, so that leaders spread.
        let turn = usize::try_from(index).unwrap_or(0);
        let mut order: Vec<(usize, usize, NodeId)> = nodes
            .iter()
            .enumerate()
            .map(|(position, node)| {
                let held = load.get(node).copied().unwrap_or(0);
                (
                    held,
                    (position + nodes.len() - turn % nodes.len()) % nodes.len(),
                    *node,
                )
            })
            .collect();
        order.sort_unstable();
        let chosen: Vec<NodeId> = order
            .into_iter()
            .take(replicas)
            .map(|(_, _, node)| node)
            .collect();
        for node in &chosen {
            *load.entry(*node).or_insert(0) += 1;
        }
        placed.push(chosen);
    }
    Ok(placed)
}

/// How many replicas each node holds.
fn load(image: &Image) -> BTreeMap<NodeId, usize> {
    let mut load = BTreeMap::new();
    if image.nodes.len() == 1 {
        // Nothing to choose from, and nothing to count.
        return load;
    }
    for topic in image.topics.values() {
        for replica in topic.partitions.iter().flat_map(|partition| &partition.replicas) {
            *load.entry(*replica).or_insert(0) += 1;
        }
    }
    load
}
