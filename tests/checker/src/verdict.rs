//! What the judge found: each property with how often it was violated, and a few of the cases.
//!
//! Owns the words. It must never call a run good that showed nothing.

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

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// Violations as they are found. Counts all, keeps the first few of each kind.
#[derive(Debug, Default, Clone)]
pub(crate) struct Findings {
    counts: [u64; Property::ALL.len()],
    cases: [Vec<String>; Property::ALL.len()],
}

impl Findings {
    pub(crate) fn add(&mut self, property: Property, case: impl FnOnce() -> String) {
        self.counts[property.index()] += 1;
        let cases = &mut self.cases[property.index()];
        if cases.len() < SHOWN {
            cases.push(case());
        }
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
        self.findings.counts.iter().all(|count| *count == 0)
    }

    pub fn count(&self, property: Property) -> u64 {
        self.findings.counts[property.index()]
    }

    /// The first few cases of a property.
    pub fn cases(&self, property: Property) -> &[String] {
        &self.findings.cases[property.index()]
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
        for property in Property::ALL {
            writeln!(f, "{:>10}  {}", self.count(property), property.words())?;
            for case in self.cases(property) {
                writeln!(f, "            {case}")?;
            }
        }
        write!(f, "verdict: {}", if self.holds() { "holds" } else { "VIOLATED" })
    }
}
