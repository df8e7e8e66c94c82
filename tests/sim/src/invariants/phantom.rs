//! Nobody reads what nobody wrote: each record a consumer sees was tried by its producer, in that partition.
//!
//! Attempts are noted before they are sent, so an unanswered one is no phantom.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::client::Partition;
use crate::oracle::Mark;

#[derive(Debug, Default)]
pub(crate) struct Phantom {
    tried: BTreeMap<Partition, BTreeSet<Mark>>,
}

impl Phantom {
    pub(crate) fn attempted(&mut self, partition: &Partition, mark: Mark) {
        self.tried.entry(partition.clone()).or_default().insert(mark);
    }

    pub(crate) fn seen(&self, partition: &Partition, offset: i64, mark: Mark) -> Result<(), Violation> {
        if self
            .tried
            .get(partition)
            .is_some_and(|tried| tried.contains(&mark))
        {
            return Ok(());
        }
        let what = format!("{partition} has {mark} at {offset}, which was never sent there");
        Err(Violation::new("no phantom", what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::{mark, partition};

    #[test]
    fn a_record_from_nowhere_is_found() {
        let mut phantom = Phantom::default();
        phantom.attempted(&partition(0), mark(1, 1));
        assert_eq!(phantom.seen(&partition(0), 0, mark(1, 1)), Ok(()));
        assert!(phantom.seen(&partition(0), 0, mark(1, 2)).is_err());
        assert!(phantom.seen(&partition(1), 0, mark(1, 1)).is_err());
    }
}
