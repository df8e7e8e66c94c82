//! What this end must not delete yet, because a copy does not have it: who still needs each partition, and from where.
//!
//! Pure bookkeeping; the partition is told the sum of it. Until the holder of a copy has said how far it is, everything
//! is needed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use headwater_protocol::ids::{Offset, PartitionIndex, TopicId};

/// A partition of this node.
pub(super) type Key = (TopicId, PartitionIndex);

/// What one link needs of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Need {
    from: Offset,
    bytes_max: u64,
}

/// What all links together need of a partition: everything at `from` and behind it, within `bytes_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) from: Option<Offset>,
    pub(super) bytes_max: u64,
}

/// The needs of all links.
#[derive(Default)]
pub(super) struct Holds {
    needs: Mutex<BTreeMap<Key, BTreeMap<String, Need>>>,
}

impl Holds {
    /// Which links need the partition at all, each with its budget. Those that are new need everything.
    pub(super) fn set(&self, key: Key, links: &BTreeMap<&str, u64>) -> Hold {
        let mut needs = self.needs.lock().unwrap_or_else(PoisonError::into_inner);
        if links.is_empty() {
            needs.remove(&key);
            return sum(None);
        }
        let known = needs.entry(key).or_default();
        known.retain(|link, _| links.contains_key(link.as_str()));
        for (link, bytes_max) in links {
            let new = Need {
                from: Offset(0),
                bytes_max: *bytes_max,
            };
            known.entry((*link).to_owned()).or_insert(new).bytes_max = *bytes_max;
        }
        sum(Some(known))
    }

    /// The copy kept by `link` has everything below `copied`.
    pub(super) fn copied(&self, key: Key, link: &str, copied: Offset) -> Hold {
        let mut needs = self.needs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = needs.get_mut(&key) else {
            return sum(None);
        };
        if let Some(need) = known.get_mut(link) {
            need.from = copied;
        }
        sum(Some(known))
    }
}

fn sum(needs: Option<&BTreeMap<String, Need>>) -> Hold {
    let needs = || needs.into_iter().flat_map(BTreeMap::values);
    Hold {
        from: needs().map(|need| need.from).min(),
        bytes_max: needs().map(|need| need.bytes_max).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_copy_decides() {
        let holds = Holds::default();
        let key = (TopicId([1; 16]), PartitionIndex(0));
        let two = BTreeMap::from([("a", 10), ("b", 30)]);
        let hold = |from: Option<i64>, bytes_max| Hold {
            from: from.map(Offset),
            bytes_max,
        };
        assert_eq!(
            holds.set(key, &two),
            hold(Some(0), 30),
            "nobody has said how far it is"
        );
        assert_eq!(holds.copied(key, "a", Offset(7)), hold(Some(0), 30));
        assert_eq!(holds.copied(key, "b", Offset(5)), hold(Some(5), 30));
        assert_eq!(holds.copied(key, "stranger", Offset(9)), hold(Some(5), 30));
        assert_eq!(holds.set(key, &BTreeMap::from([("a", 10)])), hold(Some(7), 10));
        assert_eq!(holds.set(key, &BTreeMap::new()), hold(None, 0));
        assert_eq!(
            holds.copied(key, "a", Offset(8)),
            hold(None, 0),
            "who does not hold is not heard"
        );
    }
}
