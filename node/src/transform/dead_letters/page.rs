//! A page of letters out of several partitions, and where the next one begins.
//! Pure. Going through the pages shows each letter that was there at the first one once, whatever a page had to leave out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use headwater_protocol::ids::{Offset, PartitionIndex};

use super::letter::DeadLetter;
use super::summary::Stretch;

/// Which way letters are gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From the ends of the partitions.
    Newest,
    /// From this offset of each partition on.
    From(Offset),
}

/// How far each partition was gone through: up to that offset, or, the newest first, down to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor(pub(crate) BTreeMap<PartitionIndex, Offset>);

/// A cursor as it is written: `0:15,1:22`.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (partition, offset)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}", partition.value(), offset.value())?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no cursor: it is PARTITION:OFFSET for each partition, with commas")]
pub struct CursorError(String);

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let one = |part: &str| {
            let (partition, offset) = part.split_once(':')?;
            let (partition, offset) = (partition.parse::<i32>().ok()?, offset.parse::<i64>().ok()?);
            (partition >= 0 && offset >= 0).then_some((PartitionIndex(partition), Offset(offset)))
        };
        let all: Option<_> = text.split(',').map(one).collect();
        all.map(Self).ok_or_else(|| CursorError(text.to_owned()))
    }
}

/// Letters of one partition, in the order of the page.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) letters: Vec<DeadLetter>,
    /// Where the search began, and where it ended.
    pub(crate) began: Offset,
    pub(crate) reached: Offset,
    pub(crate) log_start: Offset,
    pub(crate) end: Offset,
    pub(crate) partition: PartitionIndex,
}

impl Run {
    fn stretch(&self, reached: Offset) -> Stretch {
        Stretch {
            partition: self.partition,
            from: self.began.min(reached),
            until: self.began.max(reached),
            log_start: self.log_start,
            end: self.end,
        }
    }
}

/// Letters of one page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) letters: Vec<DeadLetter>,
    /// What the page speaks of.
    pub(crate) scanned: Vec<Stretch>,
    /// None: there is nothing beyond it.
    pub(crate) next: Option<Cursor>,
}

/// Takes `limit` letters out of `runs`, by the time they failed at, each partition in its own order.
pub(crate) fn merge(order: Order, runs: Vec<Run>, limit: usize) -> Merged {
    let mut taken: Vec<usize> = vec![0; runs.len()];
    let mut letters = Vec::new();
    while letters.len() < limit {
        let heads = runs.iter().zip(&taken).enumerate();
        let heads = heads.filter_map(|(at, (run, taken))| Some((at, run.letters.get(*taken)?)));
        let next = match order {
            Order::Newest => heads.max_by_key(|(at, letter)| (letter.failed_at_ms, std::cmp::Reverse(*at))),
            Order::From(_) => heads.min_by_key(|(at, letter)| (letter.failed_at_ms, *at)),
        };
        let Some((at, letter)) = next else { break };
        letters.push(letter.clone());
        taken[at] += 1;
    }
    let (mut cursor, mut scanned, mut is_done) = (Cursor::default(), Vec::new(), true);
    for (run, taken) in runs.iter().zip(taken) {
        let reached = reached(order, run, taken);
        is_done &= match order {
            Order::Newest => reached <= run.log_start,
            Order::From(_) => reached >= run.end,
        };
        scanned.push(run.stretch(reached));
        cursor.0.insert(run.partition, reached);
    }
    Merged {
        letters,
        scanned,
        next: (!is_done).then_some(cursor),
    }
}

/// How far a page goes that takes so many letters of a run.
fn reached(order: Order, run: &Run, taken: usize) -> Offset {
    if taken == run.letters.len() {
        return run.reached;
    }
    let last = taken.checked_sub(1).and_then(|last| run.letters.get(last));
    match (last, order) {
        (None, _) => run.began,
        (Some(last), Order::Newest) => last.place.offset,
        (Some(last), Order::From(_)) => last.place.offset.plus(1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::Place;
    use super::super::testing::letter;
    use super::*;

    fn run(partition: i32, letters: &[(i64, i64)], began: i64, reached: i64) -> Run {
        let partition = PartitionIndex(partition);
        let letters = letters.iter().map(|(offset, failed_at_ms)| DeadLetter {
            place: Place {
                partition,
                offset: Offset(*offset),
            },
            failed_at_ms: *failed_at_ms,
            ..letter("trap")
        });
        Run {
            letters: letters.collect(),
            began: Offset(began),
            reached: Offset(reached),
            log_start: Offset(0),
            end: Offset(100),
            partition,
        }
    }

    fn places(merged: &Merged) -> Vec<(i32, i64)> {
        let places = merged.letters.iter().map(|letter| letter.place);
        places
            .map(|it| (it.partition.value(), it.offset.value()))
            .collect()
    }

    #[test]
    fn the_newest_of_all_partitions_come_first() {
        let runs = vec![
            run(0, &[(99, 50), (98, 30), (97, 10)], 100, 90),
            run(1, &[(40, 40), (39, 35)], 100, 0),
        ];
        let merged = merge(Order::Newest, runs, 4);
        assert_eq!(places(&merged), [(0, 99), (1, 40), (1, 39), (0, 98)]);
        // One of partition 0 was left out, so the next page begins behind the last that was not.
        assert_eq!(
            merged.next.map(|cursor| cursor.to_string()).as_deref(),
            Some("0:98,1:0")
        );
        let told: Vec<_> = merged
            .scanned
            .iter()
            .map(|it| (it.from.0, it.until.0, it.is_whole()))
            .collect();
        assert_eq!(told, [(98, 100, false), (0, 100, true)]);
    }

    #[test]
    fn pages_from_an_offset_go_up() {
        let merged = merge(
            Order::From(Offset(5)),
            vec![run(0, &[(5, 1), (9, 2)], 5, 100), run(1, &[(7, 3)], 5, 60)],
            1,
        );
        assert_eq!(places(&merged), [(0, 5)]);
        assert_eq!(
            merged.next.map(|cursor| cursor.to_string()).as_deref(),
            Some("0:6,1:5")
        );
    }

    #[test]
    fn the_last_page_says_so() {
        let done = merge(Order::Newest, vec![run(0, &[(1, 1)], 100, 0)], 10);
        assert_eq!((done.letters.len(), done.next), (1, None));
        let up = merge(Order::From(Offset(0)), vec![run(0, &[(1, 1)], 0, 100)], 10);
        assert_eq!(up.next, None);
        // Nothing was found, and there is more to search.
        let more = merge(Order::Newest, vec![run(0, &[], 100, 50)], 10);
        assert_eq!(
            more.next.map(|cursor| cursor.to_string()).as_deref(),
            Some("0:50")
        );
    }

    #[test]
    fn a_partition_keeps_its_own_order_whatever_the_clocks_said() {
        let merged = merge(
            Order::Newest,
            vec![run(0, &[(9, 10), (8, 90)], 100, 0), run(1, &[(3, 50)], 100, 0)],
            3,
        );
        assert_eq!(places(&merged), [(1, 3), (0, 9), (0, 8)]);
    }

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let cursor: Cursor = "0:15,12:22".parse().unwrap();
        assert_eq!(cursor.to_string(), "0:15,12:22");
        for odd in ["", "0", "0:x", "-1:3", "0:-3", "0:1,", "99999999999:1"] {
            assert!(odd.parse::<Cursor>().is_err(), "{odd:?}");
        }
    }
}
