//! Reads go forward: a consumer sees each offset after the one before it, until it begins anew.

use std::collections::BTreeMap;

use super::Violation;
use crate::client::Partition;

#[derive(Debug, Default)]
pub(crate) struct Monotone {
    next: BTreeMap<(u32, Partition), i64>,
}

impl Monotone {
    pub(crate) fn begins(&mut self, consumer: u32, partition: &Partition, offset: i64) {
        self.next.insert((consumer, partition.clone()), offset);
    }

    pub(crate) fn seen(
        &mut self,
        consumer: u32,
        partition: &Partition,
        offset: i64,
    ) -> Result<(), Violation> {
        let next = self.next.entry((consumer, partition.clone())).or_insert(offset);
        if *next != offset {
            let what = format!("consumer {consumer} of {partition} expected offset {next} and got {offset}");
            return Err(Violation::new("monotone reads", what));
        }
        *next = offset + 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::partition;

    #[test]
    fn a_step_back_and_a_gap_are_found() {
        let mut monotone = Monotone::default();
        monotone.begins(1, &partition(0), 0);
        for offset in 0..3 {
            assert_eq!(monotone.seen(1, &partition(0), offset), Ok(()));
        }
        assert!(monotone.seen(1, &partition(0), 2).is_err());
        assert!(monotone.seen(1, &partition(0), 4).is_err());
        monotone.begins(1, &partition(0), 1);
        assert_eq!(monotone.seen(1, &partition(0), 1), Ok(()));
    }
}
