//! The partitions of a session by what is to be done with them, so that a request costs as much as it names, however many
//! partitions there are. Pure.
//!
//! Owns the lists beside the slots. It must never decide in which phase a slot is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::super::Key;
use super::{Phase, Slot};

/// Slots by partition.
///
/// - `unasked` are those that are ready and not asked for, `resting` those that rest, `ready` counts all that are ready.
#[derive(Default)]
pub(super) struct Slots {
    known: BTreeMap<Key, Slot>,
    unasked: BTreeSet<Key>,
    resting: BTreeSet<(Instant, Key)>,
    ready: usize,
}

impl Slots {
    pub(super) fn get(&self, key: &Key) -> Option<&Slot> {
        self.known.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Slot)> {
        self.known.iter()
    }

    pub(super) fn insert(&mut self, key: Key, slot: Slot) {
        self.remove(&key);
        self.list(key, &slot);
        self.known.insert(key, slot);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Slot> {
        let slot = self.known.remove(key)?;
        self.unlist(*key, &slot);
        Some(slot)
    }

    /// Changes a slot, if it is there.
    pub(super) fn change(&mut self, key: &Key, change: impl FnOnce(&mut Slot)) {
        let Some(slot) = self.known.get_mut(key) else {
            return;
        };
        let mut changed = *slot;
        change(&mut changed);
        let before = std::mem::replace(slot, changed);
        self.unlist(*key, &before);
        self.list(*key, &changed);
    }

    /// Changes all of them.
    pub(super) fn change_all(&mut self, change: impl Fn(&mut Slot)) {
        let keys: Vec<Key> = self.known.keys().copied().collect();
        keys.iter().for_each(|key| self.change(key, &change));
    }

    pub(super) fn has_ready(&self) -> bool {
        self.ready > 0
    }

    pub(super) fn unasked(&self) -> impl Iterator<Item = (&Key, &Slot)> {
        self.unasked
            .iter()
            .filter_map(|key| self.known.get_key_value(key))
    }

    /// Those that have rested long enough.
    pub(super) fn rested(&self, now: Instant) -> Vec<Key> {
        let rested = self.resting.iter().take_while(|(until, _)| *until <= now);
        rested.map(|(_, key)| *key).collect()
    }

    /// When one has rested long enough next.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.resting.first().map(|(until, _)| *until)
    }

    fn list(&mut self, key: Key, slot: &Slot) {
        match slot.phase {
            Phase::Busy => {}
            Phase::Ready { asked_in, .. } => {
                self.ready += 1;
                if asked_in.is_none() {
                    self.unasked.insert(key);
                }
            }
            Phase::Resting { until, .. } => drop(self.resting.insert((until, key))),
        }
    }

    fn unlist(&mut self, key: Key, slot: &Slot) {
        match slot.phase {
            Phase::Busy => {}
            Phase::Ready { asked_in, .. } => {
                self.ready -= 1;
                if asked_in.is_none() {
                    self.unasked.remove(&key);
                }
            }
            Phase::Resting { until, .. } => drop(self.resting.remove(&(until, key))),
        }
    }
}
