//! Where replicas and leaders go so that every node holds about as many. Pure.
//!
//! - What need not move does not: a replica moves only from a node that holds at least two more than where it goes.
//! - Replicas of a partition stand in as many racks as before, or more.
//! - The first replica is the one preferred as leader; they are exchanged so that every node is first about as often.

use std::collections::{BTreeMap, BTreeSet};

use headwater_sdk::protocol::ids::{NodeId, PartitionIndex};

use super::plan::Held;

/// A partition whose replicas, or their order, are to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) topic: String,
    pub(super) partition: PartitionIndex,
    pub(super) before: Vec<NodeId>,
    pub(super) after: Vec<NodeId>,
}

/// More replicas were asked for than there are nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooFew {
    pub(super) replicas: usize,
    pub(super) nodes: usize,
}

/// Spreads partitions over the nodes that are there, each with its rack. `factor`: how many replicas each is to have; as
/// many as now, if none is given.
pub(super) fn spread(
    held: &[Held],
    racks: &BTreeMap<NodeId, Option<String>>,
    factor: Option<usize>,
) -> Result<Vec<Change>, TooFew> {
    let mut places = Places {
        racks,
        replicas: held.iter().map(|held| held.replicas.clone()).collect(),
    };
    for (at, held) in held.iter().enumerate() {
        let replicas = factor.unwrap_or(held.replicas.len());
        let nodes = racks.len();
        if replicas > nodes {
            return Err(TooFew { replicas, nodes });
        }
        places.fill(at, replicas);
    }
    while places.level() {}
    while places.exchange_leader() {}
    let changes = held.iter().zip(places.replicas);
    let changes = changes.filter(|(held, after)| held.replicas != *after);
    Ok(changes
        .map(|(held, after)| Change {
            topic: held.topic.clone(),
            partition: held.partition,
            before: held.replicas.clone(),
            after,
        })
        .collect())
}

struct Places<'a> {
    racks: &'a BTreeMap<NodeId, Option<String>>,
    replicas: Vec<Vec<NodeId>>,
}

impl Places<'_> {
    /// How many replicas each node holds.
    fn load(&self) -> BTreeMap<NodeId, usize> {
        self.count(self.replicas.iter().flatten())
    }

    /// How many partitions each node is preferred for.
    fn firsts(&self) -> BTreeMap<NodeId, usize> {
        self.count(self.replicas.iter().filter_map(|replicas| replicas.first()))
    }

    fn count<'n>(&self, nodes: impl Iterator<Item = &'n NodeId>) -> BTreeMap<NodeId, usize> {
        let mut counts: BTreeMap<NodeId, usize> = self.racks.keys().map(|node| (*node, 0)).collect();
        for node in nodes {
            *counts.entry(*node).or_insert(0) += 1;
        }
        counts
    }

    fn racks_of<'n>(&self, nodes: impl Iterator<Item = &'n NodeId>) -> usize {
        let racks: BTreeSet<&str> = nodes
            .filter_map(|node| self.racks.get(node)?.as_deref())
            .collect();
        racks.len()
    }

    /// Gives a partition so many replicas, on nodes that are there. Who is first stays first while it is there.
    fn fill(&mut self, at: usize, count: usize) {
        let load = self.load();
        let mut replicas = std::mem::take(&mut self.replicas[at]);
        replicas.retain(|node| self.racks.contains_key(node));
        replicas.truncate(count);
        while replicas.len() < count {
            let free = load
                .iter()
                .filter(|(node, _)| !replicas.contains(node) && self.racks.contains_key(node));
            let best = free.min_by_key(|(node, load)| {
                let racks = self.racks_of(replicas.iter().chain([*node]));
                (std::cmp::Reverse(racks), **load, **node)
            });
            let Some((best, _)) = best else { break };
            replicas.push(*best);
        }
        self.replicas[at] = replicas;
    }

    /// Moves one replica from a fuller to an emptier node; false: there is none to move.
    fn level(&mut self) -> bool {
        let load = self.load();
        let mut pairs: Vec<(usize, NodeId, NodeId)> = Vec::new();
        for (full, many) in &load {
            for (empty, few) in load.iter().filter(|(_, few)| *few + 2 <= *many) {
                pairs.push((many - few, *full, *empty));
            }
        }
        pairs.sort_by_key(|(gap, full, empty)| (std::cmp::Reverse(*gap), *full, *empty));
        for (_, full, empty) in pairs {
            for at in 0..self.replicas.len() {
                let before = &self.replicas[at];
                if !before.contains(&full) || before.contains(&empty) {
                    continue;
                }
                let moved = before
                    .iter()
                    .map(|node| if *node == full { empty } else { *node });
                let after: Vec<NodeId> = moved.collect();
                if self.racks_of(after.iter()) >= self.racks_of(before.iter()) {
                    self.replicas[at] = after;
                    return true;
                }
            }
        }
        false
    }

    /// Lets another replica be first where that evens out; false: nowhere.
    fn exchange_leader(&mut self) -> bool {
        let firsts = self.firsts();
        for replicas in &mut self.replicas {
            let Some(first) = replicas
                .first()
                .map(|node| firsts.get(node).copied().unwrap_or(0))
            else {
                continue;
            };
            let rarest = (1..replicas.len()).min_by_key(|at| firsts.get(&replicas[*at]).copied());
            if let Some(rarest) = rarest
                && firsts.get(&replicas[rarest]).copied().unwrap_or(0) + 2 <= first
            {
                replicas.swap(0, rarest);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn racks(racks: &[&str]) -> BTreeMap<NodeId, Option<String>> {
        let rack = |rack: &str| (!rack.is_empty()).then(|| rack.to_owned());
        (1..)
            .zip(racks)
            .map(|(id, name)| (NodeId(id), rack(name)))
            .collect()
    }

    fn held(all: &[&[i32]]) -> Vec<Held> {
        let held = |(index, replicas): (i32, &&[i32])| Held {
            topic: "t".to_owned(),
            partition: PartitionIndex(index),
            replicas: replicas.iter().copied().map(NodeId).collect(),
        };
        (0..).zip(all).map(held).collect()
    }

    /// What is held in the end, and how many replicas were copied for it.
    fn after(
        all: &[&[i32]],
        nodes: &[&str],
        factor: Option<usize>,
    ) -> Result<(Vec<Vec<i32>>, usize), TooFew> {
        let mut held = held(all);
        let mut copied = 0;
        for change in spread(&held, &racks(nodes), factor)? {
            let place = &mut held[change.partition.value() as usize];
            assert_eq!(place.replicas, change.before);
            let is_new = |node: &&NodeId| !change.before.contains(node);
            copied += change.after.iter().filter(is_new).count();
            place.replicas = change.after;
        }
        let ids = |held: &Held| held.replicas.iter().map(|node| node.0).collect();
        Ok((held.iter().map(ids).collect(), copied))
    }

    fn most_and_least(counts: impl Iterator<Item = i32> + Clone, nodes: i32) -> (usize, usize) {
        let of = |node| counts.clone().filter(|found| *found == node).count();
        let counts: Vec<usize> = (1..=nodes).map(of).collect();
        (
            counts.iter().copied().max().unwrap_or(0),
            counts.iter().copied().min().unwrap_or(0),
        )
    }

    #[test]
    fn a_node_alone_shares_with_those_that_joined() {
        let alone: &[&[i32]] = &[&[1], &[1], &[1], &[1], &[1]];
        let (three, copied) = after(alone, &[""; 3], Some(3)).expect("there are three");
        assert_eq!(copied, 10);
        let firsts = three.iter().map(|replicas| replicas[0]);
        assert_eq!(most_and_least(firsts, 3), (2, 1), "{three:?}");
        let borrowed: Vec<&[i32]> = three.iter().map(Vec::as_slice).collect();
        let (five, copied) = after(&borrowed, &[""; 5], None).expect("there are five");
        assert_eq!(
            most_and_least(five.iter().flatten().copied(), 5),
            (3, 3),
            "{five:?}"
        );
        assert_eq!(most_and_least(five.iter().map(|it| it[0]), 5), (1, 1), "{five:?}");
        assert_eq!(copied, 6, "no more than the two new ones hold");
        // It is as it should be: nothing moves.
        let borrowed: Vec<&[i32]> = five.iter().map(Vec::as_slice).collect();
        assert_eq!(after(&borrowed, &[""; 5], None).expect("as before").1, 0);
    }

    #[test]
    fn racks_count_more_than_an_even_spread() {
        // 1 and 2 stand together: each partition keeps a replica on 3, however full that is.
        let all: &[&[i32]] = &[&[1, 3], &[1, 3], &[1, 3], &[1, 3]];
        let (then, _) = after(all, &["a", "a", "b"], None).expect("there are enough");
        assert!(then.iter().all(|replicas| replicas.contains(&3)), "{then:?}");
        assert_eq!(then.iter().filter(|replicas| replicas.contains(&2)).count(), 2);
        let (then, _) = after(&[&[1]], &["a", "a", "b"], Some(2)).expect("there are enough");
        assert_eq!(then, [[1, 3]]);
    }

    #[test]
    fn fewer_replicas_and_too_many() {
        let (then, copied) = after(&[&[1, 2, 3], &[2, 3, 1]], &[""; 3], Some(1)).expect("fewer");
        assert_eq!((then, copied), (vec![vec![1], vec![2]], 0));
        // A node that is gone is replaced.
        assert_eq!(after(&[&[1, 9]], &[""; 2], None).expect("two").0, [[1, 2]]);
        let (replicas, nodes) = (4, 3);
        assert_eq!(after(&[&[1]], &[""; 3], Some(4)), Err(TooFew { replicas, nodes }));
    }
}
