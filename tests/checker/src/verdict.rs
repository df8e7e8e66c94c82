//! What the judge found: each property with how often it was violated, and a few of the cases.
//!
//! Owns the words. It must never call a run good that showed nothing.

use std::collections::BTreeMap;
use std::fmt;

/// Cases of one property that are shown in full.
const SHOWN: usize = 10;

/// What a log promises, and what a history must be to say anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// An acknowledged record is not in the log.
    Lost,
    /// A record is in the log twice.
    Duplicate,
    /// Records of one producer stand in another order than they were sent.
    Reordered,
    /// Something is in the log that nobody sent.
    Phantom,
    /// A record is in the log whose producer was told that it was not written.
    FailedYetWritten,
    /// An offset holds different records for different witnesses.
    TwoContents,
    /// A consumer was given a record that is not in the log in the end.
    Vanished,
    /// A consumer was given an offset that it was past.
    ReadAgain,
    /// A consumer was led past an offset.
    ReadGap,
    /// A record was acknowledged before another was sent, and stands behind it.
    RealTime,
    /// Replicas hold different batches below the lowest of their ends.
    Diverged,
    /// A replica's own log has a gap, an overlap or an epoch that falls.
    BrokenReplica,
    /// The history contradicts itself, or ends before the log was read to its end.
    History,
}

impl Property {
    pub const ALL: [Self; 13] = [
        Self::Lost,
        Self::Duplicate,
        Self::Reordered,
        Self::Phantom,
        Self::FailedYetWritten,
        Self::TwoContents,
        Self::Vanished,
        Self::ReadAgain,
        Self::ReadGap,
        Self::RealTime,
        Self::Diverged,
        Self::BrokenReplica,
        Self::History,
    ];

    /// The violation in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Lost => "acknowledged records lost",
            Self::Duplicate => "duplicates",
            Self::Reordered => "reorderings",
            Self::Phantom => "records nobody sent",
            Self::FailedYetWritten => "records refused and yet written",
            Self::TwoContents => "offsets with two contents",
            Self::Vanished => "records read and gone later",
            Self::ReadAgain => "reads that went back",
            Self::ReadGap => "gaps read",
            Self::RealTime => "records ahead of older ones",
            Self::Diverged => "divergences between replicas",
            Self::BrokenReplica => "broken replicas",
            Self::History => "faults of the history itself",
        }
    }
}

/// Violations of properties as they are found. Counts all, keeps the first few of each.
#[derive(Debug, Clone)]
pub(crate) struct Findings<P = Property>(BTreeMap<P, (u64, Vec<String>)>);

impl<P> Default for Findings<P> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<P: Ord + Copy> Findings<P> {
    pub(crate) fn add(&mut self, property: P, case: impl FnOnce() -> String) {
        let (count, cases) = self.0.entry(property).or_default();
        *count += 1;
        if cases.len() < SHOWN {
            cases.push(case());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many properties were violated.
    #[cfg(test)]
    pub(crate) fn kinds(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn count(&self, property: P) -> u64 {
        self.0.get(&property).map_or(0, |(count, _)| *count)
    }

    pub(crate) fn cases(&self, property: P) -> &[String] {
        self.0.get(&property).map_or(&[], |(_, cases)| cases)
    }

    /// Each property with how often it was violated, in words, and the first few cases.
    pub(crate) fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        all: &[P],
        words: fn(P) -> &'static str,
    ) -> fmt::Result {
        for &property in all {
            writeln!(f, "{:>10}  {}", self.count(property), words(property))?;
            for case in self.cases(property) {
                writeln!(f, "            {case}")?;
            }
        }
        Ok(())
    }
}

/// How much there was to judge.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    pub invoked: u64,
    pub acknowledged: u64,
    pub unknown: u64,
    pub failed: u64,
    /// Sent, and never heard of again: judged as unknown.
    pub unfinished: u64,
    /// Records given to consumers, the closing ones left out.
    pub read: u64,
    /// Records in the log when everything was over.
    pub in_log: u64,
    pub partitions: u64,
    pub replicas: u64,
    /// Stored batches that were compared with those of another replica.
    pub batches_compared: u64,
}

/// The judgement.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub volume: Volume,
    findings: Findings,
}

impl Verdict {
    pub(crate) fn new(volume: Volume, findings: Findings) -> Self {
        Self { volume, findings }
    }

    /// Whether every property holds.
    pub fn holds(&self) -> bool {
        self.findings.is_empty()
    }

    pub fn count(&self, property: Property) -> u64 {
        self.findings.count(property)
    }

    /// The first few cases of a property.
    pub fn cases(&self, property: Property) -> &[String] {
        self.findings.cases(property)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = &self.volume;
        writeln!(
            f,
            "judged: {} records sent, {} acknowledged, {} unknown, {} refused, {} unfinished",
            v.invoked, v.acknowledged, v.unknown, v.failed, v.unfinished
        )?;
        writeln!(
            f,
            "        {} in the log of {} partitions, {} reads while it ran, {} batches compared between {} replicas",
            v.in_log, v.partitions, v.read, v.batches_compared, v.replicas
        )?;
        self.findings.write(f, &Property::ALL, Property::words)?;
        write!(f, "verdict: {}", if self.holds() { "holds" } else { "VIOLATED" })
    }
}
