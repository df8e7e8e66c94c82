//! Judges transactions by their effects: what clients were told of each, and what a reader of committed records finds in
//! the end.
//!
//! Owns two workloads' books. A transfer writes two legs, which sum to zero, in one transaction; a copy takes records of
//! one topic to another and commits how far it came in the same transaction. It must never believe a client about
//! anything but what that client was told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, BufRead};

use serde::Deserialize;

use crate::each_line;
use crate::verdict::Findings;

/// The reader whose word counts in the end.
const FINAL: &str = "final";

/// A line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Effect {
    /// A client begins a transfer.
    Begun { client: String, transfer: String },
    /// It was told how it ended.
    Ended { transfer: String, outcome: Told },
    /// A reader of committed records was given one leg of a transfer.
    Leg {
        client: String,
        partition: u32,
        offset: u64,
        transfer: String,
        amount: i64,
    },
    /// A record that is to be copied, as it stands in the end.
    Source { partition: u32, offset: u64 },
    /// A copy as it stands in the end, of the record at `of` in the partition of the same number.
    Copy { partition: u32, offset: u64, of: u64 },
    /// Up to where a partition can be read by readers of committed records in the end, and where it ends.
    Rest {
        topic: String,
        partition: u32,
        stable: u64,
        end: u64,
    },
}

/// How a transaction ended, as its client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Committed,
    Aborted,
    Unknown,
}

/// What transactions promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// A part of a transaction is there and another is not.
    Whole,
    /// What was committed is there.
    Kept,
    /// What was aborted is nowhere.
    NothingAborted,
    /// What a reader of committed records was given is there in the end.
    Stable,
    /// Every effect is there once.
    Once,
    /// Copies stand in the order of their records.
    InOrder,
    /// Nothing is there that nobody began.
    Begun,
    /// No transaction stays open.
    NoneHangs,
    /// The history says enough.
    Told,
}

impl Promise {
    pub const ALL: [Self; 9] = [
        Self::Whole,
        Self::Kept,
        Self::NothingAborted,
        Self::Stable,
        Self::Once,
        Self::InOrder,
        Self::Begun,
        Self::NoneHangs,
        Self::Told,
    ];

    /// Its violation in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Whole => "torn transactions",
            Self::Kept => "committed effects lost",
            Self::NothingAborted => "aborted effects read",
            Self::Stable => "committed effects read and gone later, or read again",
            Self::Once => "effects doubled",
            Self::InOrder => "copies out of order",
            Self::Begun => "effects of nothing that was begun",
            Self::NoneHangs => "partitions with a hanging transaction",
            Self::Told => "faults of the history itself",
        }
    }
}

#[derive(Debug, Default)]
struct Transfer {
    is_begun: bool,
    told: Option<Told>,
    /// Amounts found in the end.
    legs: Vec<i64>,
}

/// Takes histories, gives a verdict.
#[derive(Debug, Default)]
pub struct Effects {
    transfers: BTreeMap<String, Transfer>,
    /// Legs of transfers that readers were given while it ran.
    seen: BTreeSet<(u32, u64, String)>,
    in_the_end: BTreeSet<(u32, u64, String)>,
    /// Where each reader is in each partition.
    readers: BTreeMap<(String, u32), u64>,
    sources: BTreeSet<(u32, u64)>,
    copies: Vec<(u32, u64, u64)>,
    rests: u64,
    found: Findings<Promise>,
}

impl Effects {
    /// Takes all lines of one file.
    pub fn read(&mut self, lines: impl BufRead) -> io::Result<()> {
        each_line(lines, |line| {
            match serde_json::from_slice(line) {
                Ok(effect) => self.take(effect),
                Err(why) => self.found.add(Promise::Told, || {
                    format!("{why}: {}", String::from_utf8_lossy(line).trim_end())
                }),
            }
            Ok(())
        })
    }

    pub fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Begun { client, transfer } => {
                let known = self.transfers.entry(transfer.clone()).or_default();
                if std::mem::replace(&mut known.is_begun, true) {
                    self.found
                        .add(Promise::Told, || format!("{client} begins {transfer} again"));
                }
            }
            Effect::Ended { transfer, outcome } => {
                let known = self.transfers.entry(transfer.clone()).or_default();
                if known.told.replace(outcome).is_some() {
                    self.found.add(Promise::Told, || format!("{transfer} ends again"));
                }
            }
            Effect::Leg {
                client,
                partition,
                offset,
                transfer,
                amount,
            } => self.leg(client, (partition, offset, transfer), amount),
            Effect::Source { partition, offset } => {
                self.sources.insert((partition, offset));
            }
            Effect::Copy {
                partition,
                offset,
                of,
            } => self.copies.push((partition, offset, of)),
            Effect::Rest {
                topic,
                partition,
                stable,
                end,
            } => {
                self.rests += 1;
                if stable < end {
                    self.found.add(Promise::NoneHangs, || {
                        format!("{topic} {partition}: committed up to {stable}, ends at {end}")
                    });
                }
            }
        }
    }

    fn leg(&mut self, client: String, place: (u32, u64, String), amount: i64) {
        let (partition, offset, transfer) = &place;
        let before = self.readers.insert((client.clone(), *partition), *offset);
        if before.is_some_and(|before| before >= *offset) {
            let what = format!("{client}: offset {offset} of partition {partition} after {before:?}");
            self.found.add(Promise::Stable, || what);
        }
        if client != FINAL {
            self.seen.insert(place);
            return;
        }
        // The history of whoever began it may be read later.
        self.transfers
            .entry(transfer.clone())
            .or_default()
            .legs
            .push(amount);
        self.in_the_end.insert(place);
    }

    /// Judges everything that was taken.
    pub fn verdict(mut self) -> EffectsVerdict {
        let transfers = std::mem::take(&mut self.transfers);
        let mut told: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (name, transfer) in &transfers {
            let outcome = match transfer.told {
                Some(Told::Committed) => "committed",
                Some(Told::Aborted) => "aborted",
                Some(Told::Unknown) | None => "unknown",
            };
            *told.entry(outcome).or_default() += 1;
            self.judge(name, transfer);
        }
        let gone: Vec<_> = self.seen.difference(&self.in_the_end).cloned().collect();
        for (partition, offset, transfer) in gone {
            self.found.add(Promise::Stable, || {
                format!("{transfer} was read at {offset} of partition {partition} and is not there")
            });
        }
        self.judge_copies();
        if self.rests == 0 || self.sources.is_empty() || !told.contains_key("committed") {
            self.found.add(Promise::Told, || {
                "nothing was committed, or nothing read in the end: there is nothing to judge".to_owned()
            });
        }
        EffectsVerdict {
            told,
            copies: self.copies.len() as u64,
            seen: self.seen.len() as u64,
            found: self.found,
        }
    }

    fn judge(&mut self, name: &str, transfer: &Transfer) {
        let Transfer { is_begun, told, legs } = transfer;
        if !is_begun {
            self.found
                .add(Promise::Begun, || format!("{name} has legs {legs:?}"));
        }
        let is_whole = legs.len() == 2 && legs.iter().sum::<i64>() == 0;
        match (told, legs.len()) {
            (Some(Told::Aborted), 1..) => {
                self.found
                    .add(Promise::NothingAborted, || format!("{name} has legs {legs:?}"));
            }
            (Some(Told::Committed), 0) => self.found.add(Promise::Kept, || format!("{name} has no legs")),
            (_, 3..) => self
                .found
                .add(Promise::Once, || format!("{name} has legs {legs:?}")),
            (_, 1..) if !is_whole => self
                .found
                .add(Promise::Whole, || format!("{name} has legs {legs:?}")),
            _ => {}
        }
    }

    fn judge_copies(&mut self) {
        let mut copied: BTreeSet<(u32, u64)> = BTreeSet::new();
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        let mut copies = std::mem::take(&mut self.copies);
        copies.sort_unstable();
        for &(partition, offset, of) in &copies {
            if !self.sources.contains(&(partition, of)) {
                self.found.add(Promise::Begun, || {
                    format!("copy {offset} of partition {partition} is of {of}, which is no record")
                });
            }
            if !copied.insert((partition, of)) {
                self.found.add(Promise::Once, || {
                    format!("partition {partition}: a second copy of {of} at {offset}")
                });
            } else if last.insert(partition, of).is_some_and(|before| before > of) {
                self.found.add(Promise::InOrder, || {
                    format!("partition {partition}: the copy of {of} stands late, at {offset}")
                });
            }
        }
        self.copies = copies;
        let missing: Vec<_> = self.sources.difference(&copied).copied().collect();
        for (partition, offset) in missing {
            self.found.add(Promise::Kept, || {
                format!("record {offset} of partition {partition} has no copy")
            });
        }
    }
}

/// The judgement.
#[derive(Debug, Clone)]
pub struct EffectsVerdict {
    told: BTreeMap<&'static str, u64>,
    copies: u64,
    seen: u64,
    found: Findings<Promise>,
}

impl EffectsVerdict {
    pub fn holds(&self) -> bool {
        self.found.is_empty()
    }

    pub fn count(&self, promise: Promise) -> u64 {
        self.found.count(promise)
    }
}

impl fmt::Display for EffectsVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |outcome| self.told.get(outcome).copied().unwrap_or(0);
        writeln!(
            f,
            "judged: {} transfers committed, {} aborted, {} of unknown outcome; {} legs read while it ran; {} copies",
            told("committed"),
            told("aborted"),
            told("unknown"),
            self.seen,
            self.copies
        )?;
        self.found.write(f, &Promise::ALL, Promise::words)?;
        write!(
            f,
            "transactions: {}",
            if self.holds() { "hold" } else { "VIOLATED" }
        )
    }
}

#[cfg(test)]
mod tests;
