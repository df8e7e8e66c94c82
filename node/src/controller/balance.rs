//! Which partitions are led by another node than they should be, where one node lacks too many of its own. Pure.

use super::change::PartitionRef;
use crate::metadata::{Image, Node};
use headwater_protocol::ids::NodeId;
use std::collections::BTreeMap;

/// The partitions whose preferred replica could lead and does not, of the nodes that lead less than all of theirs by more
/// than `percentage`. Those that are being moved are left alone.
pub(super) fn unbalanced(image: &Image, percentage: i64) -> Vec<PartitionRef> {
    let mut own: BTreeMap<NodeId, (i64, Vec<PartitionRef>)> = BTreeMap::new();
    for topic in image.topics.values() {
        for (index, state) in topic.indexes().zip(&topic.partitions) {
            let Some(&preferred) = state.replicas.first() else {
                continue;
            };
            let (count, lacking) = own.entry(preferred).or_default();
            *count += 1;
            let may_lead = image.nodes.get(&preferred).is_some_and(Node::is_active);
            if state.leader != preferred && may_lead && state.isr.contains(&preferred) && !state.is_moving() {
                lacking.push(PartitionRef {
                    topic: topic.id,
                    index,
                });
            }
        }
    }
    let too_many = |(count, lacking): &(i64, Vec<PartitionRef>)| {
        100 * i64::try_from(lacking.len()).unwrap_or(i64::MAX / 100) > percentage * count
    };
    own.into_values()
        .filter(too_many)
        .flat_map(|(_, lacking)| lacking)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::image::Addresses;
    use crate::metadata::{NodeState, PartitionState, Record};
    use headwater_protocol::ids::{Offset, PartitionIndex, TopicId};

    /// Partitions as leader, replicas, in-sync set; nodes 1 and 2 are active, 3 is not.
    fn check(partitions: &[(i32, &[i32], &[i32])], percentage: i64, expected: &[i32]) {
        let mut image = Image::default();
        let id = TopicId([1; 16]);
        let mut records = vec![Record::Topic {
            id,
            name: "t".to_owned(),
            internal: false,
            mirror: None,
        }];
        for number in 1..=3 {
            let addresses = Addresses::default();
            let mut node = Node::new(NodeId(number), addresses, None);
            if number == 3 {
                node.state = NodeState::Fenced;
            }
            records.push(Record::Node(node));
        }
        for (index, (leader, replicas, isr)) in (0..).zip(partitions) {
            let nodes = |ids: &[i32]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
            let state = PartitionState {
                leader: NodeId(*leader),
                isr: nodes(isr),
                ..PartitionState::fresh(nodes(replicas))
            };
            records.push(Record::Partition {
                topic: id,
                index: PartitionIndex(index),
                state,
            });
        }
        image.apply_all(Offset(0), &records);
        let found: Vec<i32> = unbalanced(&image, percentage)
            .iter()
            .map(|it| it.index.value())
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_node_that_lacks_more_than_its_share_is_given_its_partitions() {
        let half: [(i32, &[i32], &[i32]); 4] = [
            (1, &[1, 2], &[1, 2]),
            (2, &[1, 2], &[1, 2]),
            (2, &[2, 1], &[1, 2]),
            (2, &[2, 1], &[1, 2]),
        ];
        check(&half, 49, &[1]);
        check(&half, 50, &[]);
        check(&half, 0, &[1]);
    }

    #[test]
    fn who_cannot_lead_is_not_waited_for() {
        check(&[(2, &[3, 2], &[2, 3]), (2, &[1, 2], &[2])], 0, &[]);
        check(&[(1, &[1, 2], &[1, 2])], 0, &[]);
    }
}
