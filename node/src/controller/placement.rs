//! Where the replicas of new partitions go: spread over the nodes, so that none has many more than another, and over
//! their racks, so that one rack holds no two while another holds none. Leaders are spread for themselves: where every node
//! has a replica of everything, nothing else tells them apart. Pure.

use super::error::ProposeError;
use crate::metadata::{Image, Node};
use headwater_protocol::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};

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
    let nodes: Vec<&Node> = image.nodes.values().filter(|node| node.is_active()).collect();
    if replicas > nodes.len() {
        return Err(refuse(format!("the cluster has {} nodes", nodes.len())));
    }
    let mut load = load(image);
    let mut leads = leads(image);
    let mut placed = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    for index in present..present.saturating_add(count) {
        let mut chosen = choose(replicas, usize::try_from(index).unwrap_or(0), &nodes, &load);
        for node in &chosen {
            *load.entry(*node).or_insert(0) += 1;
        }
        if let Some(leader) = lead(&mut chosen, &leads) {
            *leads.entry(leader).or_insert(0) += 1;
        }
        placed.push(chosen);
    }
    Ok(placed)
}

/// The nodes of one partition: each the least loaded one, in a rack that has no replica yet while there is such a rack.
/// Among equals the order turns with the partition's index, so that leaders spread.
fn choose(replicas: usize, turn: usize, nodes: &[&Node], load: &BTreeMap<NodeId, usize>) -> Vec<NodeId> {
    let mut chosen: Vec<NodeId> = Vec::with_capacity(replicas);
    let mut racks: BTreeSet<&str> = BTreeSet::new();
    while chosen.len() < replicas {
        let free = nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| !chosen.contains(&node.id));
        let best = free.min_by_key(|(position, node)| {
            let is_rack_taken = node.rack.as_deref().is_some_and(|rack| racks.contains(rack));
            let held = load.get(&node.id).copied().unwrap_or(0);
            let after_turn = (position + nodes.len() - turn % nodes.len()) % nodes.len();
            (is_rack_taken, held, after_turn)
        });
        let Some((_, node)) = best else { break };
        chosen.push(node.id);
        racks.extend(node.rack.as_deref());
    }
    chosen
}

/// Puts the one in front that leads least so far, and names it.
fn lead(chosen: &mut [NodeId], leads: &BTreeMap<NodeId, usize>) -> Option<NodeId> {
    let fewest = |(place, node): &(usize, &NodeId)| (leads.get(node).copied().unwrap_or(0), *place);
    let (place, leader) = chosen.iter().enumerate().min_by_key(fewest)?;
    let leader = *leader;
    chosen[..=place].rotate_right(1);
    Some(leader)
}

/// Of how many partitions each node is the first choice to lead.
fn leads(image: &Image) -> BTreeMap<NodeId, usize> {
    let mut leads = BTreeMap::new();
    if image.nodes.len() == 1 {
        // Nothing to choose from, and nothing to count.
        return leads;
    }
    for topic in image.topics.values() {
        for leader in topic
            .partitions
            .iter()
            .filter_map(|partition| partition.replicas.first())
        {
            *leads.entry(*leader).or_insert(0) += 1;
        }
    }
    leads
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
