//! Finds the records that make a guest trap: a range whose call failed is cut in two until one record is left.
//! It is pure: the caller makes the calls and says how they went. Ranges come in order, so that outputs stay in order.

use std::ops::Range;

/// The ranges of one input that are still to be called with.
///
/// - They are disjoint and ascending; together with what is done they cover the input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bisect {
    /// The next one is last.
    left: Vec<Range<usize>>,
}

/// What to do about a range whose call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It was cut in two: go on with the next range.
    Halved,
    /// It is this one record.
    Found(usize),
}

impl Bisect {
    /// Begins with these ranges, in order.
    pub(crate) fn new(ranges: impl DoubleEndedIterator<Item = Range<usize>>) -> Self {
        Self {
            left: ranges.filter(|range| !range.is_empty()).rev().collect(),
        }
    }

    /// The next range to call with.
    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        self.left.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Gives back a range that comes before all that is left.
    pub(crate) fn put(&mut self, range: Range<usize>) {
        self.left.push(range);
    }

    /// The call with `range`, which `next` gave last, failed.
    pub(crate) fn failed(&mut self, range: Range<usize>) -> Cut {
        if range.len() == 1 {
            return Cut::Found(range.start);
        }
        let middle = range.start + range.len() / 2;
        self.left.push(middle..range.end);
        self.left.push(range.start..middle);
        Cut::Halved
    }

    /// Gives `range`, which `next` gave last, back in two parts, the second beginning at `at`.
    pub(crate) fn split(&mut self, range: Range<usize>, at: usize) {
        assert!(range.contains(&at), "a range is cut inside of it");
        self.left.push(at..range.end);
        if at > range.start {
            self.left.push(range.start..at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a guest that fails whenever a bad record is in its range; gives the order of what happened.
    fn run(ranges: Vec<Range<usize>>, bad: &[usize]) -> (Vec<usize>, Vec<usize>, usize) {
        let mut bisect = Bisect::new(ranges.into_iter());
        let (mut done, mut found, mut calls) = (Vec::new(), Vec::new(), 0);
        while let Some(range) = bisect.next() {
            calls += 1;
            if bad.iter().any(|index| range.contains(index)) {
                if let Cut::Found(index) = bisect.failed(range) {
                    found.push(index);
                    done.push(index);
                }
            } else {
                done.extend(range);
            }
        }
        (done, found, calls)
    }

    #[test]
    fn one_offender_costs_two_calls_a_halving() {
        let (done, found, calls) = run(std::iter::once(0..1024).collect(), &[777]);
        assert_eq!(done, (0..1024).collect::<Vec<_>>());
        assert_eq!(found, [777]);
        assert_eq!(calls, 21);
    }

    #[test]
    fn a_range_can_be_cut_where_the_caller_says() {
        let mut bisect = Bisect::new([0..5, 5..5, 5..9].into_iter());
        let first = bisect.next().unwrap();
        bisect.split(first, 2);
        let rest: Vec<_> = std::iter::from_fn(|| bisect.next()).collect();
        assert_eq!(rest, [0..2, 2..5, 5..9]);
    }

    proptest! {
        #[test]
        fn exactly_the_offenders_are_found_in_order(
            len in 1usize..300,
            cut in 0usize..300,
            bad in prop::collection::btree_set(0usize..300, 0..6),
        ) {
            let cut = cut.min(len);
            let bad: Vec<_> = bad.into_iter().filter(|index| *index < len).collect();
            let (done, found, _) = run(vec![0..cut, cut..len], &bad);
            prop_assert_eq!(done, (0..len).collect::<Vec<_>>());
            prop_assert_eq!(found, bad);
        }
    }
}
