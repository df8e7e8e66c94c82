//! Dead letters counted by why and by which module: one look at what is wrong.
//! Pure. It must never grow by what letters say: there is a limit to how many groups are told apart.

use std::collections::BTreeMap;

use headwater_protocol::ids::{Offset, PartitionIndex};

use super::letter::{DeadLetter, Place};

/// Reasons are a few words, versions a few more; a topic that somebody else writes to may hold anything.
const GROUPS_MAX: usize = 256;

/// Part of a partition of the dead-letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub partition: PartitionIndex,
    /// What was looked at.
    pub from: Offset,
    pub until: Offset,
    /// What there is.
    pub log_start: Offset,
    pub end: Offset,
}

impl Stretch {
    pub fn is_whole(&self) -> bool {
        self.from <= self.log_start && self.until >= self.end
    }
}

/// Letters of one reason, module and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub reason: String,
    pub module: String,
    pub version: String,
    pub count: u64,
    /// How many of them this node remembers to have written back.
    pub redriven: u64,
    pub first_failed_ms: i64,
    pub last_failed_ms: i64,
    /// What the last of them says.
    pub message: String,
    pub last: Place,
}

/// What a look at a dead-letter topic found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The most frequent one first.
    pub groups: Vec<Group>,
    /// Letters of groups beyond the limit.
    pub ungrouped: u64,
    /// Records that are no letters, or letters of other transforms.
    pub others: u64,
    pub scanned: Vec<Stretch>,
}

/// Counts letters one after another.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    groups: BTreeMap<(String, String, String), Group>,
    ungrouped: u64,
}

impl Counting {
    pub(crate) fn add(&mut self, letter: &DeadLetter, is_redriven: bool) {
        let key = (
            letter.reason.clone(),
            letter.module.clone(),
            letter.version.clone(),
        );
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
            self.ungrouped += 1;
            return;
        }
        let group = self.groups.entry(key).or_insert_with(|| Group {
            reason: letter.reason.clone(),
            module: letter.module.clone(),
            version: letter.version.clone(),
            count: 0,
            redriven: 0,
            first_failed_ms: letter.failed_at_ms,
            last_failed_ms: i64::MIN,
            message: String::new(),
            last: letter.place,
        });
        group.count += 1;
        group.redriven += u64::from(is_redriven);
        group.first_failed_ms = group.first_failed_ms.min(letter.failed_at_ms);
        if letter.failed_at_ms >= group.last_failed_ms {
            group.last_failed_ms = letter.failed_at_ms;
            group.message.clone_from(&letter.message);
            group.last = letter.place;
        }
    }

    pub(crate) fn finish(self, others: u64, scanned: Vec<Stretch>) -> Summary {
        let mut groups: Vec<Group> = self.groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        Summary {
            groups,
            ungrouped: self.ungrouped,
            others,
            scanned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::letter;
    use super::*;

    fn at(reason: &str, version: &str, failed_at_ms: i64) -> DeadLetter {
        DeadLetter {
            version: version.to_owned(),
            failed_at_ms,
            message: format!("at {failed_at_ms}"),
            ..letter(reason)
        }
    }

    #[test]
    fn letters_are_counted_by_reason_and_version() {
        let mut counting = Counting::default();
        counting.add(&at("late", "1", 10), false);
        counting.add(&at("trap", "1", 30), true);
        counting.add(&at("trap", "1", 20), false);
        counting.add(&at("trap", "2", 40), false);
        let summary = counting.finish(5, Vec::new());
        let told: Vec<_> = summary
            .groups
            .iter()
            .map(|it| {
                (
                    &*it.reason,
                    &*it.version,
                    it.count,
                    it.redriven,
                    it.first_failed_ms,
                    &*it.message,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("trap", "1", 2, 1, 20, "at 30"),
                ("late", "1", 1, 0, 10, "at 10"),
                ("trap", "2", 1, 0, 40, "at 40"),
            ]
        );
        assert_eq!((summary.others, summary.ungrouped), (5, 0));
    }

    #[test]
    fn groups_have_a_limit() {
        let mut counting = Counting::default();
        for number in 0..GROUPS_MAX + 10 {
            counting.add(&at(&format!("r{number}"), "1", 0), false);
        }
        counting.add(&at("r0", "1", 0), false);
        let summary = counting.finish(0, Vec::new());
        assert_eq!((summary.groups.len(), summary.ungrouped), (GROUPS_MAX, 10));
        assert_eq!(summary.groups[0].count, 2);
    }
}
