//! One record, one offset: an offset never shows two records, and a record never stands at two offsets.
//!
//! Acknowledgements and reads count alike. Producers here never send a record under a second sequence number, so a
//! record that stands twice is a duplicate that idempotence should have refused.

use std::collections::BTreeMap;

use super::Violation;
use crate::client::Partition;
use crate::oracle::Mark;

#[derive(Debug, Default)]
pub(crate) struct Place {
    by_offset: BTreeMap<(Partition, i64), Mark>,
    by_mark: BTreeMap<(Partition, Mark), i64>,
}

impl Place {
    pub(crate) fn stands(&mut self, partition: &Partition, offset: i64, mark: Mark) -> Result<(), Violation> {
        let known = *self.by_offset.entry((partition.clone(), offset)).or_insert(mark);
        if known != mark {
            let what = format!("{partition} showed {known} at {offset}, and now {mark}");
            return Err(Violation::new("one record, one offset", what));
        }
        let known = *self.by_mark.entry((partition.clone(), mark)).or_insert(offset);
        if known != offset {
            let what = format!("{partition} has {mark} at {known} and at {offset}");
            return Err(Violation::new("no duplicate", what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::{mark, partition};

    #[test]
    fn two_records_at_one_offset_and_one_at_two_are_found() {
        let mut place = Place::default();
        assert_eq!(place.stands(&partition(0), 5, mark(1, 1)), Ok(()));
        assert_eq!(place.stands(&partition(0), 5, mark(1, 1)), Ok(()));
        assert_eq!(place.stands(&partition(1), 5, mark(1, 2)), Ok(()));
        let changed = place
            .stands(&partition(0), 5, mark(1, 2))
            .expect_err("two records");
        assert_eq!(changed.invariant, "one record, one offset");
        let twice = place
            .stands(&partition(0), 6, mark(1, 1))
            .expect_err("two offsets");
        assert_eq!(twice.invariant, "no duplicate");
    }
}
