//! What many seeds reached together: each counter's sum, in how many seeds it was reached, and those that nobody reached.
//! A fault that never happens is seen here. Pure; it reads the lines that runs end with.

use std::collections::BTreeMap;
use std::fmt;

/// Every counter there is, so that one that stayed at zero everywhere is missed.
const COUNTERS: &[&str] = &[
    "aborts",
    "acks",
    "assignments",
    "begun_anew",
    "blackouts",
    "boots",
    "clients_killed",
    "commits",
    "compacted",
    "cut_short",
    "cuts",
    "damaged",
    "disk_errors",
    "disk_full",
    "downgrades",
    "elected",
    "elections",
    "eligible",
    "ended",
    "epochs_raised",
    "expands",
    "fenced",
    "finalized",
    "finalized_early",
    "full_starts",
    "joined",
    "killed",
    "leaderless",
    "leaders",
    "left",
    "lost_files",
    "members_killed",
    "mended",
    "moved",
    "moves",
    "offline",
    "offset_commits",
    "passes",
    "pauses",
    "power",
    "reads",
    "reconciled",
    "records",
    "refused_full",
    "repaired",
    "replaced",
    "resets",
    "retired",
    "retries",
    "rot",
    "rotten_starts",
    "sets_refused",
    "shrinks",
    "slow",
    "stopped",
    "taken_back",
    "takeovers",
    "timed_out",
    "torn",
    "truncations",
    "unopened",
    "unverified",
    "upgrades",
    "votes_given",
    "votes_taken",
];

/// Sums over seeds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    seeds: u64,
    /// By counter: its sum, and the seeds in which it was reached.
    counts: BTreeMap<String, (u64, u64)>,
}

impl Totals {
    /// Takes what a run said; lines that are no summary are passed over.
    pub(crate) fn add(&mut self, said: &str) {
        for line in said.lines().filter(|line| line.starts_with("seed ")) {
            let Some((_, counters)) = line.split_once(" s: ") else {
                continue;
            };
            self.seeds += 1;
            for counter in counters.split(' ') {
                if let Some((name, count)) = counter.split_once('=')
                    && let Ok(count) = count.parse::<u64>()
                    && count > 0
                {
                    let (sum, seeds) = self.counts.entry(name.to_owned()).or_default();
                    *sum += count;
                    *seeds += 1;
                }
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "reached in {} seeds, and in how many of them:", self.seeds)?;
        for (name, (sum, seeds)) in &self.counts {
            writeln!(f, "  {name:<16}{sum:>12}  {seeds:>6}")?;
        }
        let is_missed = |name: &&&str| !self.counts.contains_key(**name);
        let missed: Vec<&str> = COUNTERS.iter().filter(is_missed).copied().collect();
        if missed.is_empty() {
            return Ok(());
        }
        writeln!(f, "  never reached: {}", missed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_and_those_never_reached_are_named() {
        let mut totals = Totals::default();
        totals.add("seed 1 ok, 3 nodes, 5 s: acks=10 moves=0 torn=1\n");
        totals.add("a story\nseed 2 FAILED, 1 nodes, 5 s: acks=5\n  replay: cargo\n");
        totals.add("seed 3 could not be started: no\n");
        let shown = totals.to_string();
        let lines: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0][..4], ["reached", "in", "2", "seeds,"]);
        assert_eq!(lines[1..3], [vec!["acks", "15", "2"], vec!["torn", "1", "1"]]);
        assert!(
            lines[3].contains(&"moves,") && !lines[3].contains(&"torn,"),
            "{shown}"
        );
    }
}
