//! Where the replicas of a node go that is to hold none any more. Pure.
//!
//! - Each goes where no replica of its partition is: into a rack that has none while there is such a rack, then to the
//!   node that holds the fewest.
//! - It takes the place in the order of preference that the old one had, so that leaders stay spread.

use std::collections::{BTreeMap, BTreeSet};

use headwater_sdk::protocol::ids::{NodeId, PartitionIndex};

/// One partition and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) topic: String,
    pub(super) partition: PartitionIndex,
    pub(super) replicas: Vec<NodeId>,
}

/// One replica's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) topic: String,
    pub(super) partition: PartitionIndex,
    pub(super) to: NodeId,
    pub(super) before: Vec<NodeId>,
    pub(super) after: Vec<NodeId>,
}

/// A partition whose replica has nowhere to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stuck {
    pub(super) topic: String,
    pub(super) partition: PartitionIndex,
    pub(super) replicas: usize,
    pub(super) nodes_left: usize,
}

/// Plans the way of every replica on `leaving`. `racks`: the nodes that are there, and where each stands.
pub(super) fn plan(
    leaving: NodeId,
    held: &[Held],
    racks: &BTreeMap<NodeId, Option<String>>,
) -> Result<Vec<Move>, Stuck> {
    let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
    for replica in held.iter().flat_map(|held| &held.replicas) {
        *load.entry(*replica).or_insert(0) += 1;
    }
    let left: Vec<NodeId> = racks.keys().copied().filter(|node| *node != leaving).collect();
    let mut moves = Vec::new();
    for held in held.iter().filter(|held| held.replicas.contains(&leaving)) {
        let stay = || held.replicas.iter().filter(|node| **node != leaving);
        let taken: BTreeSet<&str> = stay().filter_map(|node| racks.get(node)?.as_deref()).collect();
        let free = left.iter().filter(|node| !held.replicas.contains(node));
        let best = free.min_by_key(|node| {
            let rack = racks.get(node).and_then(Option::as_deref);
            let is_rack_taken = rack.is_some_and(|rack| taken.contains(rack));
            (is_rack_taken, load.get(node).copied().unwrap_or(0), **node)
        });
        let Some(&to) = best else {
            return Err(Stuck {
                topic: held.topic.clone(),
                partition: held.partition,
                replicas: held.replicas.len(),
                nodes_left: left.len(),
            });
        };
        *load.entry(to).or_insert(0) += 1;
        let after = held
            .replicas
            .iter()
            .map(|node| if *node == leaving { to } else { *node });
        moves.push(Move {
            topic: held.topic.clone(),
            partition: held.partition,
            to,
            before: held.replicas.clone(),
            after: after.collect(),
        });
    }
    Ok(moves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[i32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn held(partition: i32, replicas: &[i32]) -> Held {
        Held {
            topic: "t".to_owned(),
            partition: PartitionIndex(partition),
            replicas: nodes(replicas),
        }
    }

    fn racks(racks: &[(i32, &str)]) -> BTreeMap<NodeId, Option<String>> {
        let rack = |rack: &str| (!rack.is_empty()).then(|| rack.to_owned());
        racks.iter().map(|(id, name)| (NodeId(*id), rack(name))).collect()
    }

    fn after(held: &[Held], places: &[(i32, &str)]) -> Vec<(i32, Vec<NodeId>)> {
        let moves = plan(NodeId(1), held, &racks(places)).expect("there is room");
        moves
            .into_iter()
            .map(|it| (it.partition.value(), it.after))
            .collect()
    }

    #[test]
    fn replicas_go_to_the_emptiest_nodes_and_keep_their_place() {
        let held = [
            held(0, &[1, 2]),
            held(1, &[2, 1]),
            held(2, &[2, 3]),
            held(3, &[1]),
        ];
        let places = [(1, ""), (2, ""), (3, ""), (4, "")];
        assert_eq!(
            after(&held, &places),
            [(0, nodes(&[4, 2])), (1, nodes(&[2, 3])), (3, nodes(&[4]))]
        );
    }

    #[test]
    fn a_rack_without_a_replica_comes_first() {
        let held = [held(0, &[1, 2]), held(1, &[4, 2])];
        // 3 is empty, and stands where 2 does.
        let places = [(1, "a"), (2, "b"), (3, "b"), (4, "c")];
        assert_eq!(after(&held, &places), [(0, nodes(&[4, 2]))]);
        // Without a node in another rack, the same rack is better than none.
        assert_eq!(after(&held[..1], &places[..3]), [(0, nodes(&[3, 2]))]);
    }

    #[test]
    fn without_room_nothing_is_planned() {
        let stuck = plan(NodeId(1), &[held(7, &[1, 2])], &racks(&[(1, ""), (2, "")]));
        let expected = Stuck {
            topic: "t".to_owned(),
            partition: PartitionIndex(7),
            replicas: 2,
            nodes_left: 1,
        };
        assert_eq!(stuck, Err(expected));
    }
}
