//! Which branches of the product a run reached, told from outside: by the metadata as it changes, and by what nodes log.
//! A green run that reached none of them proves little.
//!
//! It must never decide anything: it counts.

use std::collections::BTreeMap;

use headwater::metadata::{Image, PartitionState};

use crate::invariants::Violation;
use crate::trace::Trace;

/// Calls that a node could not read: nobody may send one.
const NEWER_CALLS: &str = "newer_calls";

/// What a line of a node's log means, and the counter it has.
const LINES: &[(&str, &str)] = &[
    ("this node is the controller", "elections"),
    ("node is not heard of any more, others take over", "fenced"),
    ("truncated to the leader's history", "truncations"),
    ("torn tail cut off", "torn"),
    ("log is damaged", "damaged"),
    ("log is compacted", "compacted"),
    ("log is repaired from another replica", "repaired"),
    ("partition is offline", "offline"),
    ("partition cannot be opened", "unopened"),
    ("disk full, appends are refused", "refused_full"),
    ("the in-sync set stays", "sets_refused"),
    ("a transaction is aborted: it takes too long", "timed_out"),
    ("a call of a newer version is refused", NEWER_CALLS),
    (
        "the leader has nothing that follows here any more, this replica begins anew",
        "begun_anew",
    ),
];

/// A call that its receiver could not read, if there was one. A node that went back to an older binary is taken for what it
/// was until all have heard of it: it refuses such a call, and nothing happens.
pub(crate) fn newer_calls(trace: &Trace, has_gone_back: bool) -> Option<Violation> {
    let what = "a node was sent a call above the level of its binary";
    (!has_gone_back && trace.has_mark(NEWER_CALLS))
        .then(|| Violation::new("nobody is told what he cannot read", what))
}

/// The counter of a log line, if it has one.
pub(crate) fn mark_of(message: &str) -> Option<&'static str> {
    let found = LINES.iter().find(|(line, _)| *line == message);
    found.map(|(_, mark)| *mark)
}

/// What changed from one image to the next one seen. Changes between two looks that undo each other are missed.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    offset: i64,
    partitions: BTreeMap<(String, usize), PartitionState>,
    counts: BTreeMap<&'static str, u64>,
}

impl Reached {
    /// Takes an image over, if it is newer than all before.
    pub(crate) fn see(&mut self, image: &Image) {
        if image.offset.value() <= self.offset {
            return;
        }
        self.offset = image.offset.value();
        for topic in image.topics.values() {
            for (index, state) in topic.partitions.iter().enumerate() {
                let key = (topic.name.to_string(), index);
                if let Some(before) = self.partitions.insert(key, state.clone()) {
                    self.compare(&before, state);
                }
            }
        }
    }

    fn compare(&mut self, before: &PartitionState, now: &PartitionState) {
        let reigns = i64::from(now.leader_epoch.value()) - i64::from(before.leader_epoch.value());
        let has_leader = now.replicas.contains(&now.leader);
        let facts = [
            ("leaders", reigns > 0 && has_leader),
            ("leaderless", reigns > 0 && !has_leader),
            ("shrinks", now.isr.len() < before.isr.len()),
            ("expands", now.isr.len() > before.isr.len()),
            ("moved", before.is_moving() && !now.is_moving()),
            // A leader that was not in sync before: one of the eligible replicas.
            (
                "eligible",
                reigns > 0 && has_leader && !before.isr.contains(&now.leader),
            ),
        ];
        for (what, _) in facts.iter().filter(|(_, is_so)| *is_so) {
            *self.counts.entry(what).or_default() += 1;
        }
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().map(|(what, count)| (*what, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_have_counters() {
        assert_eq!(mark_of("truncated to the leader's history"), Some("truncations"));
        assert_eq!(mark_of("node started"), None);
    }
}
