//! A compacted topic has for each key what was written last, and never goes back on it.
//!
//! - Whoever reads it from front to end finds of each key what was acknowledged last, if that lies before the end he came to; where
//!   it is a tombstone, that or nothing.
//! - Of a key, versions rise along the log, and an offset shows the same record as long as it shows one.
//! - When nobody writes any more, the end lies behind all that was acknowledged.
//!
//! A leader of the past may be read, and one that has just started knows little to be committed: so the end counts, not the time.
//! A key of which something newer is under way is not judged, nor is one whose tombstone may have gone while the reader was on
//! his way.

use std::collections::BTreeMap;
use std::fmt;

use super::Violation;
use crate::client::Partition;

/// A key, and who alone writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) writer: u32,
    pub(crate) number: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}/{}", self.writer, self.number)
    }
}

impl Key {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (writer, number) = text.strip_prefix('k')?.split_once('/')?;
        Some(Self {
            writer: writer.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

/// What was written, the how-manieth of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) number: u32,
    pub(crate) is_tombstone: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Written {
    tried: u32,
    /// The newest one that was acknowledged, and where it stands.
    acked: Option<(i64, Version)>,
}

#[derive(Debug, Default)]
pub(crate) struct Keys {
    written: BTreeMap<(Partition, Key), Written>,
    places: BTreeMap<(Partition, i64), (Key, Version)>,
}

/// One way through a partition, from front to end.
#[derive(Debug)]
pub(crate) struct Pass {
    partition: Partition,
    found: BTreeMap<Key, Version>,
    next: i64,
}

const LAST: &str = "a key has what was written last";

impl Keys {
    /// Before it is sent. Numbers of versions begin with 1.
    pub(crate) fn tried(&mut self, partition: &Partition, key: Key, version: Version) {
        let written = self.written.entry((partition.clone(), key)).or_default();
        written.tried = version.number;
    }

    pub(crate) fn acked(&mut self, partition: &Partition, offset: i64, key: Key, version: Version) {
        let written = self.written.entry((partition.clone(), key)).or_default();
        written.acked = Some((offset, version));
    }

    pub(crate) fn sees(
        &mut self,
        pass: &mut Pass,
        offset: i64,
        key: Key,
        version: Version,
    ) -> Result<(), Violation> {
        let partition = &pass.partition;
        let here = format!("{partition} has {key} version {} at {offset}", version.number);
        let tried = self.written.get(&(partition.clone(), key));
        if tried.is_none_or(|written| written.tried < version.number) {
            return Err(Violation::new("no phantom", here));
        }
        if offset < pass.next {
            let what = format!("{here}, and {} was reached", pass.next);
            return Err(Violation::new("monotone reads", what));
        }
        pass.next = offset + 1;
        let place = self.places.entry((partition.clone(), offset));
        let known = place.or_insert((key, version));
        if *known != (key, version) {
            let what = format!("{here}, and had {} version {}", known.0, known.1.number);
            return Err(Violation::new("one record, one offset", what));
        }
        match pass.found.insert(key, version) {
            Some(before) if before.number >= version.number => {
                let what = format!("{here}, behind version {}", before.number);
                Err(Violation::new("versions rise along the log", what))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The pass has come to this end. `may_miss`: it took so long that tombstones may have gone under way.
    pub(crate) fn ends(&self, pass: &Pass, end: i64, may_miss: bool) -> Result<(), Violation> {
        let here = self.written.iter().filter(|((of, _), _)| *of == pass.partition);
        for ((_, key), written) in here {
            let Some((offset, acked)) = written.acked else {
                continue;
            };
            let is_open = written.tried > acked.number || (acked.is_tombstone && may_miss);
            if offset >= end || is_open {
                continue;
            }
            let found = pass.found.get(key);
            if found != Some(&acked) && !(found.is_none() && acked.is_tombstone) {
                let partition = &pass.partition;
                let what = format!(
                    "{partition} up to {end}: {key} has {found:?}, and {acked:?} was acknowledged at {offset}"
                );
                return Err(Violation::new(LAST, what));
            }
        }
        Ok(())
    }

    /// When nobody writes any more: whether a partition's end lies behind all that was acknowledged.
    pub(crate) fn judge(&self, partition: &Partition, end: i64) -> Result<(), Violation> {
        let here = self.written.iter().filter(|((of, _), _)| of == partition);
        for ((_, key), written) in here {
            if let Some((offset, acked)) = written.acked.filter(|(offset, _)| *offset >= end) {
                let what =
                    format!("{partition} ends at {end}, and {acked:?} of {key} was acknowledged at {offset}");
                return Err(Violation::new(LAST, what));
            }
        }
        Ok(())
    }
}

impl Pass {
    pub(crate) fn new(partition: &Partition) -> Self {
        Self {
            partition: partition.clone(),
            found: BTreeMap::new(),
            next: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::partition;

    const KEY: Key = Key { writer: 1, number: 2 };

    fn version(number: u32) -> Version {
        Version {
            number,
            is_tombstone: number.is_multiple_of(2),
        }
    }

    /// One key of which so many versions were acknowledged, each at ten times its number, and a pass to an end in which these
    /// were found.
    fn passed(acked: u32, found: &[(i64, u32)], end: i64) -> Result<(), Violation> {
        let mut keys = Keys::default();
        for number in 1..=acked {
            keys.tried(&partition(0), KEY, version(number));
            keys.acked(&partition(0), i64::from(10 * number), KEY, version(number));
        }
        let mut pass = Pass::new(&partition(0));
        for (offset, number) in found {
            keys.sees(&mut pass, *offset, KEY, version(*number))?;
        }
        keys.ends(&pass, end, false)
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        assert_eq!(Key::read(KEY.to_string().as_bytes()), Some(KEY));
        assert_eq!(Key::read(b"p1/2"), None);
    }

    #[test]
    fn what_is_there_as_it_should_be_is_no_breach() {
        assert_eq!(passed(3, &[(10, 1), (30, 3)], 31), Ok(()));
        assert_eq!(passed(3, &[(30, 3)], 31), Ok(()));
        assert_eq!(passed(3, &[(10, 1)], 30), Ok(()), "a leader of the past");
        assert_eq!(passed(2, &[(20, 2)], 21), Ok(()), "the tombstone is still there");
        assert_eq!(passed(2, &[], 21), Ok(()), "it has gone");
    }

    #[test]
    fn old_lost_and_made_up_values_are_found() {
        assert!(passed(3, &[(10, 1)], 31).is_err(), "an old one");
        assert!(passed(3, &[], 31).is_err(), "none");
        assert!(passed(2, &[(10, 1)], 21).is_err(), "what was deleted");
        assert!(passed(1, &[(10, 1), (20, 2)], 21).is_err(), "what nobody wrote");
        assert!(passed(3, &[(10, 3), (30, 1)], 31).is_err(), "in the wrong order");
        assert!(
            passed(3, &[(30, 1), (10, 3)], 31).is_err(),
            "offsets that go back"
        );
    }

    #[test]
    fn an_end_that_lies_too_early_is_found() {
        let mut keys = Keys::default();
        keys.tried(&partition(0), KEY, version(1));
        keys.acked(&partition(0), 10, KEY, version(1));
        assert_eq!(keys.judge(&partition(0), 11), Ok(()));
        assert!(keys.judge(&partition(0), 10).is_err());
    }
}
