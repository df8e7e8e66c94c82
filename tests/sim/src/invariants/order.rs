//! A producer's records stand in the order in which it sent them.
//!
//! Consumers may read them in any order, and anew: only their places count.

use std::collections::BTreeMap;

use super::Violation;
use crate::client::Partition;
use crate::oracle::Mark;

#[derive(Debug, Default)]
pub(crate) struct Order {
    /// By partition and producer: where each number stands.
    offsets: BTreeMap<(Partition, u32), BTreeMap<u32, i64>>,
}

impl Order {
    pub(crate) fn seen(&mut self, partition: &Partition, offset: i64, mark: Mark) -> Result<(), Violation> {
        let numbers = self
            .offsets
            .entry((partition.clone(), mark.producer))
            .or_default();
        let before = numbers.range(..mark.number).next_back();
        let after = numbers.range(mark.number + 1..).next();
        let wrong = before
            .filter(|(_, at)| **at >= offset)
            .or(after.filter(|(_, at)| **at <= offset));
        if let Some((number, at)) = wrong {
            let what = format!(
                "{partition} has {mark} at {offset}, and number {number} of the same producer at {at}"
            );
            return Err(Violation::new("order per producer", what));
        }
        numbers.insert(mark.number, offset);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::{mark, partition};

    #[test]
    fn records_that_overtake_are_found() {
        let mut order = Order::default();
        for (offset, number) in [(10, 1), (14, 3), (12, 2), (14, 3)] {
            assert_eq!(order.seen(&partition(0), offset, mark(1, number)), Ok(()));
        }
        assert!(order.seen(&partition(0), 13, mark(1, 4)).is_err());
        assert!(order.seen(&partition(0), 15, mark(1, 0)).is_err());
        assert_eq!(order.seen(&partition(0), 13, mark(2, 4)), Ok(()));
    }
}
