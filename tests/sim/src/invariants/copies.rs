//! What is copied with its offset in one transaction is there once: each input up to the committed offset has its copy among
//! what is committed, none has two, and none behind it has any.
//!
//! The committed offset is asked for when nobody copies any more, and no transaction is open.

use std::collections::BTreeMap;

use super::Violation;
use crate::client::Partition;

/// Which record was copied, by which of those who copy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Input {
    pub(crate) copier: u32,
    pub(crate) index: i32,
    pub(crate) offset: i64,
}

impl std::fmt::Display for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.index, self.offset)
    }
}

impl Input {
    /// What stands in a copy.
    pub(crate) fn read(copier: u32, text: &str) -> Option<Self> {
        let (index, offset) = text.split('/').next()?.split_once(':')?;
        Some(Self {
            copier,
            index: index.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Copies {
    places: BTreeMap<Input, (Partition, i64)>,
}

const ONCE: &str = "each input has its effect once";

impl Copies {
    /// A reader of what is committed saw a copy.
    pub(crate) fn seen(&mut self, input: Input, partition: &Partition, offset: i64) -> Result<(), Violation> {
        let place = (partition.clone(), offset);
        match self.places.get(&input) {
            Some(known) if *known != place => {
                let ((other, at), copier) = (known, input.copier);
                let what =
                    format!("x{copier} copied {input} to {other} at {at} and to {partition} at {offset}");
                Err(Violation::new(ONCE, what))
            }
            Some(_) => Ok(()),
            None => {
                self.places.insert(input, place);
                Ok(())
            }
        }
    }

    /// When all is read: what one copied of a partition whose offset it has committed.
    pub(crate) fn judge(&self, copier: u32, index: i32, committed: i64) -> Result<(), Violation> {
        let input = |offset| Input {
            copier,
            index,
            offset,
        };
        let copied = self.places.range(input(0)..input(i64::MAX));
        let mut next = 0;
        for (input, _) in copied {
            if input.offset != next {
                let what = format!("x{copier} committed {index}:{committed}, and {index}:{next} has no copy");
                return Err(Violation::new(ONCE, what));
            }
            next += 1;
        }
        match next == committed.max(0) {
            true => Ok(()),
            false => {
                let what = format!("x{copier} committed {index}:{committed}, and copies end at {next}");
                Err(Violation::new(ONCE, what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::partition;

    fn input(offset: i64) -> Input {
        Input {
            copier: 1,
            index: 0,
            offset,
        }
    }

    #[test]
    fn an_input_is_read_from_its_copy() {
        assert_eq!(Input::read(1, "0:17/xxx"), Some(input(17)));
        assert_eq!(Input::read(1, "-/xxx"), None);
    }

    #[test]
    fn two_copies_a_gap_and_too_many_are_found() {
        let mut copies = Copies::default();
        for offset in 0..3 {
            assert_eq!(copies.seen(input(offset), &partition(0), 2 * offset), Ok(()));
        }
        assert_eq!(copies.seen(input(1), &partition(0), 2), Ok(()), "read anew");
        assert!(copies.seen(input(1), &partition(0), 9).is_err());
        assert_eq!(copies.judge(1, 0, 3), Ok(()));
        assert_eq!(copies.judge(2, 0, -1), Ok(()), "nothing was ever committed");
        assert!(copies.judge(1, 0, 4).is_err(), "one is missing");
        assert!(copies.judge(1, 0, 2).is_err(), "one is too many");
        copies.seen(input(4), &partition(0), 20).expect("new");
        assert!(copies.judge(1, 0, 5).is_err(), "a gap");
    }
}
