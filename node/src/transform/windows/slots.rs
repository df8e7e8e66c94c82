//! The open groups of all windows, by what they are kept under.
//! It owns their count of bytes, and the form in which one is kept by the changelog.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::GroupKey;
use crate::metadata::WindowShape;

/// What one open group costs in memory beside its key and accumulator.
pub(super) const SLOT_BYTES: usize = 112;
/// What the place among its key's groups costs.
const PLACE_BYTES: usize = 64;

const HAS_STATE: u8 = 1;
const IS_DUE: u8 = 1 << 1;

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// None: no record is in the window yet, which only sliding ones keep.
    pub(super) state: Option<Arc<[u8]>>,
    pub(super) start_ms: i64,
    /// It is told about when it closes. Else it was already, or is there for others to begin from.
    pub(super) is_due: bool,
}

/// - Windows that are cut by their records are found by their key as well.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    shape: WindowShape,
    slots: BTreeMap<i64, BTreeMap<Arc<[u8]>, Slot>>,
    by_key: BTreeMap<Arc<[u8]>, BTreeSet<i64>>,
    bytes: usize,
    /// What was there before each change since `remember`. None: nobody will want it back.
    before: Option<Vec<(GroupKey, Option<Slot>)>>,
}

impl Slots {
    pub(super) fn new(shape: WindowShape) -> Self {
        Self {
            shape,
            slots: BTreeMap::new(),
            by_key: BTreeMap::new(),
            bytes: 0,
            before: None,
        }
    }

    /// From here on changes can be undone, until `forget`.
    pub(super) fn remember(&mut self) {
        self.before = Some(Vec::new());
    }

    pub(super) fn forget(&mut self) {
        self.before = None;
    }

    /// Makes everything as it was at `remember`.
    pub(super) fn undo(&mut self) {
        for ((at, key), slot) in self.before.take().into_iter().flatten().rev() {
            match slot {
                Some(slot) => self.put(at, &key, slot),
                None => drop(self.remove(at, &key)),
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn overhead(&self) -> usize {
        if self.is_by_key() {
            SLOT_BYTES + PLACE_BYTES
        } else {
            SLOT_BYTES
        }
    }

    fn is_by_key(&self) -> bool {
        match self.shape {
            WindowShape::Sliding { .. } | WindowShape::Session { .. } => true,
            WindowShape::Tumbling { .. } | WindowShape::Hopping { .. } => false,
        }
    }

    /// The watermark that closes what is kept under `at`.
    pub(super) fn deadline(&self, at: i64) -> i64 {
        match self.shape {
            WindowShape::Tumbling { size_ms }
            | WindowShape::Hopping { size_ms, .. }
            | WindowShape::Sliding { size_ms } => at.saturating_add(size_ms),
            WindowShape::Session { gap_ms } => at.saturating_add(gap_ms).saturating_add(1),
        }
    }

    pub(super) fn get(&self, at: i64, key: &[u8]) -> Option<&Slot> {
        self.slots.get(&at)?.get(key)
    }

    /// What is kept of a key, in order.
    pub(super) fn of_key(&self, key: &[u8]) -> Option<&BTreeSet<i64>> {
        self.by_key.get(key)
    }

    pub(super) fn last(&self) -> Option<i64> {
        self.slots.last_key_value().map(|(at, _)| *at)
    }

    /// All groups, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &Arc<[u8]>, &Slot)> {
        let each = |(at, keys): (&i64, _)| (*at, keys);
        let all = self.slots.iter().map(each);
        all.flat_map(|(at, keys): (i64, &BTreeMap<Arc<[u8]>, Slot>)| {
            keys.iter().map(move |(key, slot)| (at, key, slot))
        })
    }

    pub(super) fn put(&mut self, at: i64, key: &Arc<[u8]>, slot: Slot) {
        let state_bytes = |slot: &Slot| slot.state.as_ref().map_or(0, |state| state.len());
        self.bytes += state_bytes(&slot);
        let old = self.slots.entry(at).or_default().insert(Arc::clone(key), slot);
        match &old {
            Some(old) => self.bytes -= state_bytes(old),
            None => {
                self.bytes += key.len() + self.overhead();
                if self.is_by_key() {
                    self.by_key.entry(Arc::clone(key)).or_default().insert(at);
                }
            }
        }
        if let Some(before) = &mut self.before {
            before.push(((at, Arc::clone(key)), old));
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, at: i64, key: &[u8]) -> bool {
        let Some(keys) = self.slots.get_mut(&at) else {
            return false;
        };
        let Some(slot) = keys.remove(key) else {
            return false;
        };
        if keys.is_empty() {
            self.slots.remove(&at);
        }
        self.bytes -= key.len() + slot.state.as_ref().map_or(0, |state| state.len()) + self.overhead();
        if let Some(before) = &mut self.before {
            before.push(((at, key.into()), Some(slot)));
        }
        if let Some(places) = self.by_key.get_mut(key) {
            places.remove(&at);
            if places.is_empty() {
                self.by_key.remove(key);
            }
        }
        true
    }

    /// The form in which the changelog keeps a group: the accumulator, of sliding windows behind a byte of flags, of
    /// sessions behind their start (i64 LE).
    pub(super) fn kept(&self, slot: &Slot) -> Arc<[u8]> {
        let state = slot.state.as_deref().unwrap_or_default();
        match self.shape {
            WindowShape::Tumbling { .. } | WindowShape::Hopping { .. } => {
                slot.state.clone().unwrap_or_else(|| Arc::from([]))
            }
            WindowShape::Sliding { .. } => {
                let has_state = if slot.state.is_some() { HAS_STATE } else { 0 };
                let is_due = if slot.is_due { IS_DUE } else { 0 };
                [&[has_state | is_due], state].concat().into()
            }
            WindowShape::Session { .. } => [&slot.start_ms.to_le_bytes(), state].concat().into(),
        }
    }

    /// Puts a group back as it was kept. One that nobody can have kept like this is left out.
    pub(super) fn restore(&mut self, (at, key): GroupKey, kept: &Arc<[u8]>) {
        let slot = match self.shape {
            WindowShape::Tumbling { .. } | WindowShape::Hopping { .. } => Some(Slot {
                state: Some(Arc::clone(kept)),
                start_ms: at,
                is_due: true,
            }),
            WindowShape::Sliding { .. } => kept.split_first().map(|(flags, state)| Slot {
                state: (flags & HAS_STATE != 0).then(|| state.into()),
                start_ms: at,
                is_due: flags & IS_DUE != 0,
            }),
            WindowShape::Session { .. } => kept.split_first_chunk().map(|(start, state)| Slot {
                state: Some(state.into()),
                start_ms: i64::from_le_bytes(*start),
                is_due: true,
            }),
        };
        if let Some(slot) = slot {
            self.put(at, &key, slot);
        }
    }
}
