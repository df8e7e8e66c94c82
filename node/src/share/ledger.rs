//! What a share coordinator keeps: of each group, the state of each partition that it was ever delivered from. Pure.
//!
//! What is asked for is drawn up in a `Draft`, and holds when the log has it. What it must never do: let anybody write who is
//! not the last one to have read.

use super::error::Unkept;
use super::request::{Kept, KeptState, Key, Name, Place, Seen};
use super::store::{self, Record};
use headwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// States of one coordinator; partitions that have none yet are refused then.
const STATES_MAX: usize = 500_000;

/// A state as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kept: Kept,
    /// How often it was written.
    pub(super) snapshot_epoch: i32,
    pub(super) created_ms: i64,
    pub(super) written_ms: i64,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<Key, Entry>,
}

impl Ledger {
    pub(super) fn restored(entries: BTreeMap<Key, Entry>) -> Self {
        Self { entries }
    }

    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Takes over what the log has.
    pub(super) fn apply(&mut self, changes: Changes) {
        for (key, change) in changes {
            match change {
                Some(entry) => drop(self.entries.insert(key, entry)),
                None => drop(self.entries.remove(&key)),
            }
        }
    }

    /// What a group has of some partitions, or of all.
    fn of_group(&self, group: &Name) -> impl Iterator<Item = (&Key, &Entry)> {
        let first = Key {
            group: Name::clone(group),
            place: (TopicId([0; 16]), PartitionIndex(i32::MIN)),
        };
        let entries = self.entries.range(first..);
        entries.take_while(move |(key, _)| key.group == *group)
    }
}

/// None: it is gone.
pub(super) type Changes = BTreeMap<Key, Option<Entry>>;

/// What is to become of a ledger, asked for by several, one after the other.
pub(super) struct Draft<'a> {
    ledger: &'a Ledger,
    changes: Changes,
    now_ms: i64,
}

impl<'a> Draft<'a> {
    pub(super) fn new(ledger: &'a Ledger, now_ms: i64) -> Self {
        Self {
            ledger,
            changes: Changes::new(),
            now_ms,
        }
    }

    pub(super) fn finish(self) -> Changes {
        self.changes
    }

    /// Whoever leads the partition is to deliver by its state; nobody else writes it from now on. A partition without a state
    /// is given one, by an epoch that it never had.
    pub(super) fn read(&mut self, key: &Key, leader_epoch: LeaderEpoch, fresh: i32) -> Result<Kept, Unkept> {
        let kept = match self.entry(key) {
            Some(entry) if leader_epoch < entry.kept.leader_epoch => return Err(Unkept::FencedLeader),
            Some(entry) => Kept {
                state_epoch: following(entry.kept.state_epoch),
                leader_epoch,
                ..entry.kept.clone()
            },
            None if !self.has_room() => return Err(Unkept::NoRoom),
            None => Kept {
                state_epoch: fresh & i32::MAX,
                leader_epoch,
                start: None,
                batches: Vec::new(),
            },
        };
        self.put(key, kept.clone());
        Ok(kept)
    }

    /// Whoever has read the state says what it is now.
    pub(super) fn write(&mut self, key: &Key, kept: Kept) -> Result<(), Unkept> {
        let entry = self.entry(key).ok_or(Unkept::FencedState)?;
        if kept.leader_epoch < entry.kept.leader_epoch {
            return Err(Unkept::FencedLeader);
        }
        if kept.state_epoch != entry.kept.state_epoch {
            return Err(Unkept::FencedState);
        }
        self.put(key, kept);
        Ok(())
    }

    /// The group begins anew at an offset. Who delivers by its former state is fenced.
    pub(super) fn initialize(&mut self, key: &Key, start: Option<Offset>, fresh: i32) -> Result<(), Unkept> {
        let before = self.entry(key).map(|entry| &entry.kept);
        if before.is_none() && !self.has_room() {
            return Err(Unkept::NoRoom);
        }
        let kept = Kept {
            state_epoch: before.map_or(fresh & i32::MAX, |kept| following(kept.state_epoch)),
            leader_epoch: before.map_or(LeaderEpoch(0), |kept| kept.leader_epoch),
            start,
            batches: Vec::new(),
        };
        self.put(key, kept);
        Ok(())
    }

    /// Forgets some partitions of a group, or all of them.
    pub(super) fn delete(&mut self, group: &Name, places: Option<&[Place]>) {
        for key in self.keys(group, places) {
            if self.entry(&key).is_some() {
                self.changes.insert(key, None);
            }
        }
    }

    /// Forgets all groups' states of topics that are gone.
    pub(super) fn forget_topics(&mut self, gone: &BTreeSet<TopicId>) {
        let keys = self.ledger.entries.keys();
        let keys: Vec<Key> = keys.filter(|key| gone.contains(&key.place.0)).cloned().collect();
        for key in keys {
            self.changes.insert(key, None);
        }
    }

    /// What a group has of some partitions, or of all; none of those without a state.
    pub(super) fn seen(&self, group: &Name, places: Option<&[Place]>) -> Vec<(Place, Seen)> {
        let keys = self.keys(group, places).into_iter();
        let seen = keys.filter_map(|key| {
            let kept = &self.entry(&key)?.kept;
            let done = kept
                .batches
                .iter()
                .filter(|batch| batch.state != KeptState::Available);
            let complete = done.fold(0i64, |sum, batch| sum.saturating_add(batch.length()));
            let seen = Seen {
                state_epoch: kept.state_epoch,
                leader_epoch: kept.leader_epoch,
                start: kept.start,
                complete,
            };
            Some((key.place, seen))
        });
        seen.collect()
    }

    fn keys(&self, group: &Name, places: Option<&[Place]>) -> BTreeSet<Key> {
        let key = |place: &Place| Key {
            group: Name::clone(group),
            place: *place,
        };
        match places {
            Some(places) => places.iter().map(key).collect(),
            None => {
                let changed = self.changes.keys().filter(|key| key.group == *group);
                let known = self.ledger.of_group(group).map(|(key, _)| key);
                known.chain(changed).cloned().collect()
            }
        }
    }

    fn entry(&self, key: &Key) -> Option<&Entry> {
        match self.changes.get(key) {
            Some(change) => change.as_ref(),
            None => self.ledger.entries.get(key),
        }
    }

    /// Whether there may be one state more. Those that go meanwhile are counted.
    fn has_room(&self) -> bool {
        self.ledger.count() + self.changes.len() < STATES_MAX
    }

    fn put(&mut self, key: &Key, kept: Kept) {
        let before = self.entry(key);
        let entry = Entry {
            kept,
            snapshot_epoch: before.map_or(0, |entry| following(entry.snapshot_epoch)),
            created_ms: before.map_or(self.now_ms, |entry| entry.created_ms),
            written_ms: self.now_ms,
        };
        self.changes.insert(key.clone(), Some(entry));
    }
}

/// The records that bring changes about.
pub(super) fn records(changes: &Changes) -> Vec<Record> {
    let changes = changes.iter();
    changes
        .map(|(key, change)| store::record(key, change.as_ref()))
        .collect()
}

/// Counts on, and begins anew before it would become negative.
fn following(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::request::KeptBatch;
    use crate::share::store::Replay;

    fn key(group: &str, index: i32) -> Key {
        Key {
            group: Name::from(group),
            place: (TopicId([7; 16]), PartitionIndex(index)),
        }
    }

    /// A ledger, with the log that it is written to.
    #[derive(Default)]
    struct Lab {
        ledger: Ledger,
        log: Vec<Record>,
    }

    impl Lab {
        fn with<T>(&mut self, ask: impl FnOnce(&mut Draft<'_>) -> T) -> T {
            let mut draft = Draft::new(&self.ledger, 5);
            let told = ask(&mut draft);
            let changes = draft.finish();
            self.log.extend(records(&changes));
            self.ledger.apply(changes);
            told
        }

        fn read(&mut self, key: &Key, epoch: i32) -> Result<Kept, Unkept> {
            self.with(|draft| draft.read(key, LeaderEpoch(epoch), 40))
        }

        fn write(&mut self, key: &Key, epoch: i32, state_epoch: i32, start: i64) -> Result<(), Unkept> {
            let batch = KeptBatch {
                first: Offset(start + 1),
                last: Offset(start + 3),
                state: KeptState::Archived,
                count: 5,
            };
            let kept = Kept {
                state_epoch,
                leader_epoch: LeaderEpoch(epoch),
                start: Some(Offset(start)),
                batches: vec![batch],
            };
            self.with(|draft| draft.write(key, kept))
        }

        fn restart(&mut self) {
            let mut replay = Replay::default();
            for record in &self.log {
                replay.record(Some(&record.key), record.value.as_deref());
            }
            let (entries, unknown) = replay.finish();
            assert_eq!(unknown, 0);
            assert_eq!(entries, self.ledger.entries);
            self.ledger = Ledger::restored(entries);
        }
    }

    #[test]
    fn only_the_last_one_to_read_writes() {
        let mut lab = Lab::default();
        let key = key("g", 0);
        assert_eq!(lab.write(&key, 1, 40, 0), Err(Unkept::FencedState));
        let first = lab.read(&key, 1).unwrap();
        assert_eq!((first.state_epoch, first.start), (40, None));
        assert_eq!(lab.write(&key, 1, 40, 10), Ok(()));
        lab.restart();
        let second = lab.read(&key, 1).unwrap();
        assert_eq!((second.state_epoch, second.start), (41, Some(Offset(10))));
        assert_eq!(second.batches.len(), 1);
        assert_eq!(lab.write(&key, 1, 40, 20), Err(Unkept::FencedState));
        assert_eq!(lab.read(&key, 3).unwrap().state_epoch, 42);
        assert_eq!(lab.write(&key, 1, 41, 20), Err(Unkept::FencedLeader));
        assert_eq!(lab.read(&key, 2), Err(Unkept::FencedLeader));
        assert_eq!(lab.write(&key, 3, 42, 20), Ok(()));
        lab.restart();
    }

    #[test]
    fn what_is_altered_or_deleted_fences_who_delivers() {
        let mut lab = Lab::default();
        let (one, two, other) = (key("g", 0), key("g", 1), key("h", 0));
        for key in [&one, &two, &other] {
            lab.read(key, 1).unwrap();
            lab.write(key, 1, 40, 3).unwrap();
        }
        let group = Name::from("g");
        lab.with(|draft| draft.initialize(&one, Some(Offset(100)), 9))
            .unwrap();
        assert_eq!(lab.write(&one, 1, 40, 20), Err(Unkept::FencedState));
        let seen = lab.with(|draft| draft.seen(&group, None));
        let starts: Vec<_> = seen.iter().map(|(_, seen)| (seen.start, seen.complete)).collect();
        assert_eq!(starts, [(Some(Offset(100)), 0), (Some(Offset(3)), 3)]);
        lab.with(|draft| draft.delete(&group, Some(&[two.place])));
        assert_eq!(
            lab.with(|draft| draft.seen(&group, Some(&[one.place, two.place])))
                .len(),
            1
        );
        lab.with(|draft| draft.delete(&group, None));
        assert_eq!(lab.ledger.count(), 1);
        lab.restart();
        lab.with(|draft| draft.forget_topics(&BTreeSet::from([other.place.0])));
        assert_eq!(lab.ledger.count(), 0);
        lab.restart();
    }

    #[test]
    fn those_who_ask_together_see_each_other() {
        let mut lab = Lab::default();
        let key = key("g", 0);
        lab.with(|draft| {
            assert_eq!(draft.read(&key, LeaderEpoch(1), 5).unwrap().state_epoch, 5);
            assert_eq!(draft.read(&key, LeaderEpoch(2), 9).unwrap().state_epoch, 6);
            assert_eq!(draft.read(&key, LeaderEpoch(1), 9), Err(Unkept::FencedLeader));
            draft.delete(&key.group, None);
            assert_eq!(draft.seen(&key.group, None), []);
        });
        lab.restart();
    }
}
