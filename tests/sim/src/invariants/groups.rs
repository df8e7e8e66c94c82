//! Members of a group share its partitions, and what they have committed is where the next one goes on.
//!
//! - In one generation a partition belongs to one member.
//! - A committed offset that was acknowledged is never lost, and never moved back.
//! - A member begins where everything before it was consumed by somebody: each record is consumed at least once.
//!
//! A member that belongs to an older generation than others do may be told what was committed then: it is a coordinator of the
//! past that tells it, whose word nobody can act upon.

use std::collections::BTreeMap;

use super::Violation;
use crate::client::Partition;

type Share = (String, Partition);

#[derive(Debug, Default)]
pub(crate) struct Groups {
    owners: BTreeMap<(String, i32), BTreeMap<Partition, String>>,
    /// The newest generation that anybody was told of.
    newest: BTreeMap<String, i32>,
    /// The highest offset whose commit was acknowledged.
    committed: BTreeMap<Share, i64>,
    /// The highest one that somebody tried to commit.
    tried: BTreeMap<Share, i64>,
    /// Everything before it was consumed.
    consumed: BTreeMap<Share, i64>,
}

const ONE_OWNER: &str = "a partition has one owner in a generation";
const KEPT: &str = "no lost committed offset";
const CONSUMED: &str = "each record is consumed at least once";

impl Groups {
    /// A member was told which partitions it has.
    pub(crate) fn assigned(
        &mut self,
        group: &str,
        generation: i32,
        member: &str,
        partitions: &[Partition],
    ) -> Result<(), Violation> {
        let newest = self.newest.entry(group.to_owned()).or_insert(generation);
        *newest = generation.max(*newest);
        let owners = self.owners.entry((group.to_owned(), generation)).or_default();
        for partition in partitions {
            let owner = owners
                .entry(partition.clone())
                .or_insert_with(|| member.to_owned());
            if owner != member {
                let what = format!(
                    "{partition} belongs to {owner} and to {member} in generation {generation} of {group}"
                );
                return Err(Violation::new(ONE_OWNER, what));
            }
        }
        Ok(())
    }

    /// Before it is sent.
    pub(crate) fn commits(&mut self, group: &str, partition: &Partition, offset: i64) {
        let tried = self.tried.entry((group.to_owned(), partition.clone()));
        let tried = tried.or_insert(offset);
        *tried = offset.max(*tried);
    }

    pub(crate) fn committed(&mut self, group: &str, partition: &Partition, offset: i64) {
        let committed = self.committed.entry((group.to_owned(), partition.clone()));
        let committed = committed.or_insert(offset);
        *committed = offset.max(*committed);
    }

    /// A member of a generation was told what is committed; -1: nothing. None: nobody's, when all have come to rest.
    pub(crate) fn told(
        &self,
        group: &str,
        generation: Option<i32>,
        partition: &Partition,
        offset: i64,
    ) -> Result<(), Violation> {
        let share = (group.to_owned(), partition.clone());
        let (least, most) = (self.committed.get(&share), self.tried.get(&share));
        let is_newest = generation.is_none() || generation == self.newest.get(group).copied();
        if let Some(least) = least.filter(|least| **least > offset && is_newest) {
            let what = format!("{group} has committed {partition} up to {least}, and is told {offset} now");
            return Err(Violation::new(KEPT, what));
        }
        if offset > most.copied().unwrap_or(-1) {
            let what = format!("{group} is told {offset} of {partition}, which nobody ever committed");
            return Err(Violation::new(KEPT, what));
        }
        Ok(())
    }

    /// A member has dealt with everything from one offset to another.
    pub(crate) fn consumed(
        &mut self,
        group: &str,
        partition: &Partition,
        from: i64,
        until: i64,
    ) -> Result<(), Violation> {
        let consumed = self.consumed.entry((group.to_owned(), partition.clone()));
        let consumed = consumed.or_default();
        if from > *consumed {
            let what = format!("{group} goes on in {partition} at {from}, and has come up to {consumed}");
            return Err(Violation::new(CONSUMED, what));
        }
        *consumed = until.max(*consumed);
        Ok(())
    }

    /// Up to where a group has consumed a partition.
    pub(crate) fn reach(&self, group: &str, partition: &Partition) -> i64 {
        let share = (group.to_owned(), partition.clone());
        self.consumed.get(&share).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::partition;

    #[test]
    fn two_owners_in_one_generation_are_found() {
        let mut groups = Groups::default();
        let both = [partition(0), partition(1)];
        assert_eq!(groups.assigned("g", 1, "a", &both), Ok(()));
        assert_eq!(groups.assigned("g", 1, "a", &both), Ok(()), "told again");
        assert_eq!(groups.assigned("g", 2, "b", &both), Ok(()), "the next one");
        assert_eq!(groups.assigned("h", 1, "b", &both), Ok(()), "another group");
        assert!(groups.assigned("g", 1, "b", &both[1..]).is_err());
    }

    #[test]
    fn an_offset_that_is_lost_or_made_up_is_found() {
        let mut groups = Groups::default();
        groups.assigned("g", 3, "a", &[]).expect("nothing is shared");
        assert_eq!(groups.told("g", Some(3), &partition(0), -1), Ok(()));
        groups.commits("g", &partition(0), 7);
        assert_eq!(
            groups.told("g", Some(3), &partition(0), -1),
            Ok(()),
            "not acknowledged"
        );
        assert_eq!(
            groups.told("g", Some(3), &partition(0), 7),
            Ok(()),
            "it may have happened"
        );
        groups.committed("g", &partition(0), 7);
        assert!(groups.told("g", Some(3), &partition(0), 6).is_err(), "moved back");
        assert!(groups.told("g", None, &partition(0), -1).is_err(), "lost");
        assert!(groups.told("g", Some(3), &partition(0), 8).is_err(), "made up");
        assert_eq!(groups.told("g", Some(2), &partition(0), 6), Ok(()), "of the past");
    }

    #[test]
    fn records_that_were_passed_over_are_found() {
        let mut groups = Groups::default();
        assert_eq!(groups.consumed("g", &partition(0), 0, 5), Ok(()));
        assert_eq!(
            groups.consumed("g", &partition(0), 3, 9),
            Ok(()),
            "some of them twice"
        );
        assert!(groups.consumed("g", &partition(0), 10, 11).is_err());
        assert_eq!(groups.reach("g", &partition(0)), 9);
    }
}
