//! Which replicas of a topic are copied at a throttled rate: `*`, or pairs of partition and node as `0:1,3:2`. Pure.

use super::properties::list_items;
use headwater_protocol::ids::{NodeId, PartitionIndex};
use std::collections::BTreeSet;

/// The replicas of one topic that a rate applies to while they are not in sync.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Throttled {
    #[default]
    None,
    All,
    Some(BTreeSet<(PartitionIndex, NodeId)>),
}

impl Throttled {
    /// None: the text is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::All);
        }
        let pair = |item: &str| {
            let (partition, node) = item.split_once(':')?;
            let number = |text: &str| text.trim().parse::<i32>().ok().filter(|number| *number >= 0);
            Some((PartitionIndex(number(partition)?), NodeId(number(node)?)))
        };
        let pairs: BTreeSet<_> = list_items(text).map(pair).collect::<Option<_>>()?;
        Some(if pairs.is_empty() {
            Self::None
        } else {
            Self::Some(pairs)
        })
    }

    pub fn names(&self, partition: PartitionIndex, node: NodeId) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(pairs) => pairs.contains(&(partition, node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_named_by_partition_and_node() {
        let names = |text: &str| {
            let throttled = Throttled::parse(text)?;
            let at = |partition, node| throttled.names(PartitionIndex(partition), NodeId(node));
            Some([at(0, 1), at(0, 2), at(3, 2)])
        };
        for (text, expected) in [
            ("", Some([false; 3])),
            ("*", Some([true; 3])),
            ("0:1, 3:2", Some([true, false, true])),
            ("0", None),
            ("0:x", None),
            ("-1:2", None),
            ("0:1:2", None),
            ("*,0:1", None),
        ] {
            assert_eq!(names(text), expected, "{text:?}");
        }
    }
}
