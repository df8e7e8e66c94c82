//! No acknowledged record is lost: at the end, each stands where its acknowledgement said.
//!
//! Judged when everything is healed and every partition was read from front to end. Records whose fate the producer never
//! learned may be there or not.

use std::collections::BTreeMap;

use super::Violation;
use crate::client::Partition;
use crate::oracle::Mark;

/// Compares what was acknowledged in one partition with what is there.
pub(crate) fn check(
    partition: &Partition,
    acked: &BTreeMap<i64, Mark>,
    found: &BTreeMap<i64, Mark>,
) -> Result<(), Violation> {
    let lost: Vec<_> = acked
        .iter()
        .filter(|(offset, mark)| found.get(offset) != Some(mark))
        .collect();
    let Some((offset, mark)) = lost.first() else {
        return Ok(());
    };
    let instead = match found.get(offset) {
        Some(other) => format!("{other} is there"),
        None => format!("the log has offsets up to {:?}", found.keys().next_back()),
    };
    let what = format!(
        "{partition}: {} of {} acknowledged records are lost, first {mark} at {offset}: {instead}",
        lost.len(),
        acked.len()
    );
    Err(Violation::new("no lost acknowledged record", what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::{mark, partition};

    #[test]
    fn a_missing_and_an_exchanged_record_are_found() {
        let acked = BTreeMap::from([(0, mark(1, 0)), (1, mark(1, 1))]);
        let mut found = acked.clone();
        found.insert(2, mark(1, 2));
        assert_eq!(check(&partition(0), &acked, &found), Ok(()));
        found.insert(1, mark(1, 7));
        assert!(check(&partition(0), &acked, &found).is_err());
        found.remove(&1);
        let lost = check(&partition(0), &acked, &found).expect_err("lost");
        assert!(lost.what.contains("1 of 2"), "{lost}");
    }
}
