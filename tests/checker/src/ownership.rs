//! Judges a consumer group by what its members did: who read what, as whose owner, and what became of their commits.
//!
//! Owns the group's book. Times are in microseconds of one clock that all members share.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};

use serde::Deserialize;

use crate::each_line;
use crate::verdict::Findings;

/// A line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Turn {
    /// A process with members of this prefix begins: whatever members of that name owned, they own no more.
    Begun { client: String, at: u64 },
    /// A member was given partitions.
    Assigned {
        client: String,
        partitions: Vec<u32>,
        at: u64,
    },
    /// A member has let go of partitions, or has learned that it lost them.
    Revoked {
        partitions: Vec<u32>,
        client: String,
        at: u64,
    },
    /// A member of this generation (classic), or at this epoch, has read offsets from `begin` to before `end`.
    Read {
        client: String,
        generation: i32,
        partition: u32,
        begin: u64,
        end: u64,
    },
    /// A commit was acknowledged that was asked for at `asked_at`.
    Committed {
        client: String,
        partition: u32,
        offset: u64,
        asked_at: u64,
        at: u64,
    },
    /// In the end: where a partition ends, and what the group has committed.
    Last {
        partition: u32,
        end: u64,
        committed: u64,
    },
}

/// What a group promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every record is read by somebody.
    AtLeastOnce,
    /// In one generation a partition has one owner.
    OneOwner,
    /// A commit never takes back one that was acknowledged before it was asked for.
    Forward,
    /// What was acknowledged is there in the end.
    Kept,
    /// The history says enough.
    Told,
}

impl Rule {
    pub const ALL: [Self; 5] = [
        Self::AtLeastOnce,
        Self::OneOwner,
        Self::Forward,
        Self::Kept,
        Self::Told,
    ];

    /// Its violation in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "partitions with records that nobody read",
            Self::OneOwner => "partitions with two owners in one generation",
            Self::Forward => "commits that moved back",
            Self::Kept => "partitions whose commits were lost",
            Self::Told => "faults of the history itself",
        }
    }
}

#[derive(Debug, Default)]
struct Partition {
    /// Offsets that were read: from, to before.
    read: Vec<(u64, u64)>,
    /// Who read in which generation.
    readers: BTreeMap<i32, String>,
    /// When asked, when acknowledged, offset.
    commits: Vec<(u64, u64, u64)>,
    last: Option<(u64, u64)>,
    /// When somebody became its owner, or stopped being it; who.
    changes: Vec<(u64, Change)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Given(String),
    LetGo(String),
}

/// Takes histories, gives a verdict.
#[derive(Debug, Default)]
pub struct Ownership {
    partitions: BTreeMap<u32, Partition>,
    begun: Vec<(u64, String)>,
    found: Findings<Rule>,
    records: u64,
}

impl Ownership {
    /// Takes all lines of one file.
    pub fn read(&mut self, lines: impl BufRead) -> io::Result<()> {
        each_line(lines, |line| {
            match serde_json::from_slice(line) {
                Ok(turn) => self.take(turn),
                Err(why) => self.found.add(Rule::Told, || {
                    format!("{why}: {}", String::from_utf8_lossy(line).trim_end())
                }),
            }
            Ok(())
        })
    }

    pub fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Begun { client, at } => self.begun.push((at, client)),
            Turn::Assigned {
                client,
                partitions,
                at,
            } => {
                for partition in partitions {
                    let change = (at, Change::Given(client.clone()));
                    self.of(partition).changes.push(change);
                }
            }
            Turn::Revoked {
                client,
                partitions,
                at,
            } => {
                for partition in partitions {
                    let change = (at, Change::LetGo(client.clone()));
                    self.of(partition).changes.push(change);
                }
            }
            Turn::Read {
                client,
                generation,
                partition,
                begin,
                end,
            } => {
                self.records += end.saturating_sub(begin);
                let known = self.of(partition);
                known.read.push((begin, end));
                let owner = known.readers.entry(generation).or_insert_with(|| client.clone());
                if *owner != client {
                    let case =
                        format!("partition {partition}, generation {generation}: {owner} and {client}");
                    self.found.add(Rule::OneOwner, || case);
                }
            }
            Turn::Committed {
                partition,
                offset,
                asked_at,
                at,
                ..
            } => self.of(partition).commits.push((asked_at, at, offset)),
            Turn::Last {
                partition,
                end,
                committed,
            } => self.of(partition).last = Some((end, committed)),
        }
    }

    fn of(&mut self, partition: u32) -> &mut Partition {
        self.partitions.entry(partition).or_default()
    }

    /// Judges everything that was taken.
    pub fn verdict(mut self) -> OwnershipVerdict {
        let partitions = std::mem::take(&mut self.partitions);
        self.begun.sort();
        let (mut commits, mut idle_us) = (0, Vec::new());
        for (number, mut partition) in partitions {
            commits += partition.commits.len() as u64;
            let Some((end, committed)) = partition.last else {
                self.found.add(Rule::Told, || {
                    format!("partition {number} was not looked at in the end")
                });
                continue;
            };
            if let Some(gap) = first_gap(&mut partition.read, end) {
                self.found.add(Rule::AtLeastOnce, || {
                    format!("partition {number}: nobody read offset {gap}")
                });
            }
            let most = partition.commits.iter().map(|(.., offset)| *offset).max();
            if most.is_some_and(|most| most > committed) {
                self.found.add(Rule::Kept, || {
                    format!("partition {number}: {most:?} was acknowledged, {committed} is there")
                });
            }
            for case in steps_back(&mut partition.commits) {
                self.found
                    .add(Rule::Forward, || format!("partition {number}: {case}"));
            }
            idle_us.extend(ownerless(partition.changes, &self.begun));
        }
        if self.records == 0 || commits == 0 {
            self.found.add(Rule::Told, || {
                "nothing was read or committed: there is nothing to judge".to_owned()
            });
        }
        idle_us.sort_unstable();
        OwnershipVerdict {
            records: self.records,
            commits,
            processes: self.begun.len(),
            idle_us,
            found: self.found,
        }
    }
}

/// The first offset before `end` that no span has.
fn first_gap(spans: &mut [(u64, u64)], end: u64) -> Option<u64> {
    spans.sort_unstable();
    let mut next = 0;
    for &(from, to) in spans.iter() {
        if from > next {
            break;
        }
        next = next.max(to);
    }
    (next < end).then_some(next)
}

/// Commits that were asked for after a higher one had been acknowledged.
fn steps_back(commits: &mut [(u64, u64, u64)]) -> Vec<String> {
    let mut acknowledged: Vec<(u64, u64)> = commits.iter().map(|&(_, at, offset)| (at, offset)).collect();
    acknowledged.sort_unstable();
    commits.sort_unstable();
    let (mut known, mut highest) = (acknowledged.into_iter().peekable(), 0);
    let mut found = Vec::new();
    for &mut (asked_at, _, offset) in commits {
        while let Some((_, earlier)) = known.next_if(|(at, _)| *at < asked_at) {
            highest = highest.max(earlier);
        }
        if offset < highest {
            found.push(format!("{offset} after {highest}"));
        }
    }
    found
}

/// How long the partition had no owner, each time between two.
fn ownerless(mut changes: Vec<(u64, Change)>, begun: &[(u64, String)]) -> Vec<u64> {
    // Whoever begins anew has lost what it had: its process was killed.
    for (at, process) in begun {
        changes.push((*at, Change::LetGo(format!("{process}/"))));
    }
    changes.sort_by_key(|(at, _)| *at);
    let (mut owner, mut since) = (None::<String>, None::<u64>);
    let mut idle = Vec::new();
    for (at, change) in changes {
        match change {
            Change::Given(who) => {
                if let Some(since) = since.take() {
                    idle.push(at - since);
                }
                owner = Some(who);
            }
            Change::LetGo(who) => {
                let is_its =
                    |owner: &String| *owner == who || (who.ends_with('/') && owner.starts_with(&who));
                if owner.as_ref().is_some_and(is_its) {
                    (owner, since) = (None, Some(at));
                }
            }
        }
    }
    idle
}

/// The judgement.
#[derive(Debug, Clone)]
pub struct OwnershipVerdict {
    records: u64,
    commits: u64,
    processes: usize,
    /// Sorted.
    idle_us: Vec<u64>,
    found: Findings<Rule>,
}

impl OwnershipVerdict {
    pub fn holds(&self) -> bool {
        self.found.is_empty()
    }

    pub fn count(&self, rule: Rule) -> u64 {
        self.found.count(rule)
    }

    /// How long partitions were without an owner between two, in milliseconds.
    pub fn idle_ms(&self, percent: usize) -> f64 {
        match self.idle_us.len() {
            0 => 0.0,
            count => self.idle_us[(count * percent).div_ceil(100).clamp(1, count) - 1] as f64 / 1e3,
        }
    }
}

impl fmt::Display for OwnershipVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "judged: {} reads, {} commits, {} processes with members; partitions changed hands {} times and had no owner \
             for {:.0} / {:.0} / {:.0} ms (p50, p99, max)",
            self.records,
            self.commits,
            self.processes,
            self.idle_us.len(),
            self.idle_ms(50),
            self.idle_ms(99),
            self.idle_ms(100)
        )?;
        self.found.write(f, &Rule::ALL, Rule::words)?;
        write!(f, "group: {}", if self.holds() { "holds" } else { "VIOLATED" })
    }
}

#[cfg(test)]
mod tests;
