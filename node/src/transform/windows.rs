//! Tumbling windows of event time: which group a record belongs to, which record is late, which window has closed.
//! It owns the open windows and their accumulators, and the watermark. It is pure: no clock, no guest, no I/O, and
//! nothing changes before a whole batch went well, so that a batch whose guest trapped can be cut and tried again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::answer::{Keyed, NO_GROUP};
use super::bytes::put_bytes;

/// What one open group costs in memory beside its key and accumulator.
const GROUP_OVERHEAD_BYTES: usize = 96;

/// How windows are cut and when they close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Positive.
    pub(crate) size_ms: i64,
    /// How far behind the latest event time a record may be; not negative.
    pub(crate) lateness_ms: i64,
}

/// A window's start and the key within it.
pub(crate) type GroupKey = (i64, Arc<[u8]>);

/// The windows of one partition.
///
/// - The watermark never falls. A window whose end is at or below it is closed: no record enters it any more.
/// - The outcome does not depend on how records are cut into batches.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    settings: Settings,
    watermark_ms: Option<i64>,
    open: BTreeMap<i64, BTreeMap<Arc<[u8]>, Arc<[u8]>>>,
    bytes: usize,
}

/// One group of a batch: a key within a window, and the accumulator it had.
#[derive(Debug, Clone)]
pub(crate) struct Group<'a> {
    pub(crate) start_ms: i64,
    pub(crate) key: &'a [u8],
    pub(crate) state: Option<Arc<[u8]>>,
}

/// Where the records of one batch belong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Assignment<'a> {
    /// One number per record: an index into `groups`, or `NO_GROUP`.
    pub(crate) numbers: Vec<u32>,
    pub(crate) groups: Vec<Group<'a>>,
    /// Indexes of the records that came too late for their window.
    pub(crate) late: Vec<u32>,
    watermark_ms: Option<i64>,
}

impl Assignment<'_> {
    /// The accumulators that the groups have, as a guest's `fold` reads them.
    pub(crate) fn states(&self) -> Vec<u8> {
        let mut states = (self.groups.len() as u32).to_le_bytes().to_vec();
        for group in &self.groups {
            put_bytes(&mut states, group.state.as_deref());
        }
        states
    }
}

/// A window that has closed, or that was changed and is to be told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) key: Arc<[u8]>,
    pub(crate) state: Arc<[u8]>,
}

/// Lays windows out as a guest's `emit` reads them.
pub(crate) fn encode(closed: &[Closed], buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend((closed.len() as u32).to_le_bytes());
    for window in closed {
        buffer.extend(window.start_ms.to_le_bytes());
        buffer.extend(window.end_ms.to_le_bytes());
        put_bytes(buffer, Some(&window.key));
        put_bytes(buffer, Some(&window.state));
    }
}

impl Windows {
    /// Every open window, to be told about as if it had changed.
    pub(crate) fn all(&self) -> Vec<Closed> {
        let window = |((start_ms, key), state): (GroupKey, &Arc<[u8]>)| Closed {
            start_ms,
            end_ms: start_ms.saturating_add(self.settings.size_ms),
            key,
            state: Arc::clone(state),
        };
        self.groups().map(window).collect()
    }

    pub(crate) fn new(settings: Settings) -> Self {
        assert!(
            settings.size_ms > 0 && settings.lateness_ms >= 0,
            "the settings were checked at deployment"
        );
        Self {
            settings,
            watermark_ms: None,
            open: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes up where a committed state left off.
    pub(crate) fn restore(
        settings: Settings,
        watermark_ms: Option<i64>,
        groups: impl IntoIterator<Item = (GroupKey, Arc<[u8]>)>,
    ) -> Self {
        let mut windows = Self {
            watermark_ms,
            ..Self::new(settings)
        };
        for ((start_ms, key), state) in groups {
            windows.put(start_ms, key, state);
        }
        windows
    }

    /// Below it no record is accepted any more. None before the first record.
    pub(crate) fn watermark_ms(&self) -> Option<i64> {
        self.watermark_ms
    }

    /// What keys and accumulators take, roughly as memory holds them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Puts every record into its group. Changes nothing.
    pub(crate) fn assign<'a>(&self, records: &[Option<Keyed<'a>>]) -> Assignment<'a> {
        let mut assignment = Assignment {
            watermark_ms: self.watermark_ms,
            ..Assignment::default()
        };
        let mut known: HashMap<(i64, &[u8]), u32> = HashMap::default();
        for (index, keyed) in records.iter().enumerate() {
            let Some(Keyed { event_time_ms, key }) = *keyed else {
                assignment.numbers.push(NO_GROUP);
                continue;
            };
            let start_ms = self.start_of(event_time_ms);
            if assignment
                .watermark_ms
                .is_some_and(|watermark| self.end_of(start_ms) <= watermark)
            {
                assignment.late.push(index as u32);
                assignment.numbers.push(NO_GROUP);
                continue;
            }
            let watermark = event_time_ms.saturating_sub(self.settings.lateness_ms);
            assignment.watermark_ms = assignment.watermark_ms.max(Some(watermark));
            let number = *known.entry((start_ms, key)).or_insert_with(|| {
                let state = self.open.get(&start_ms).and_then(|keys| keys.get(key)).cloned();
                assignment.groups.push(Group { start_ms, key, state });
                assignment.groups.len() as u32 - 1
            });
            assignment.numbers.push(number);
        }
        assignment
    }

    /// By how much `apply` would grow what is kept.
    pub(crate) fn growth(assignment: &Assignment<'_>, states: &[Option<&[u8]>]) -> usize {
        let each = |(group, state): (&Group<'_>, &Option<&[u8]>)| match (&group.state, state) {
            (Some(old), Some(new)) => new.len().saturating_sub(old.len()),
            (None, Some(new)) => group.key.len() + new.len() + GROUP_OVERHEAD_BYTES,
            (_, None) => 0,
        };
        assignment.groups.iter().zip(states).map(each).sum()
    }

    /// Takes over the accumulators that the guest answered, and the watermark; gives what changed, ordered by window
    /// start, then key. A group without an accumulator stays as it was.
    pub(crate) fn apply(&mut self, assignment: &Assignment<'_>, states: &[Option<&[u8]>]) -> Vec<Closed> {
        assert_eq!(
            assignment.groups.len(),
            states.len(),
            "`fold` answers with one accumulator per group"
        );
        self.watermark_ms = self.watermark_ms.max(assignment.watermark_ms);
        let mut changed = Vec::with_capacity(states.len());
        for (group, state) in assignment.groups.iter().zip(states) {
            let Some(state) = *state else { continue };
            if group.state.as_deref() == Some(state) {
                continue;
            }
            let key: Arc<[u8]> = group.key.into();
            let state: Arc<[u8]> = state.into();
            self.put(group.start_ms, Arc::clone(&key), Arc::clone(&state));
            changed.push(Closed {
                start_ms: group.start_ms,
                end_ms: self.end_of(group.start_ms),
                key,
                state,
            });
        }
        changed.sort_by(|one, other| (one.start_ms, &one.key).cmp(&(other.start_ms, &other.key)));
        changed
    }

    /// The windows that have closed and were not removed yet, ordered by start, then key: as many as fit
    /// `bytes_max`, at least one if there is one.
    pub(crate) fn closed(&self, bytes_max: usize) -> Vec<Closed> {
        let Some(watermark) = self.watermark_ms else {
            return Vec::new();
        };
        let mut bytes = 0;
        let due = self
            .open
            .iter()
            .take_while(|(start, _)| self.end_of(**start) <= watermark);
        due.flat_map(|(start, keys)| keys.iter().map(move |(key, state)| (*start, key, state)))
            .take_while(|(_, key, state)| {
                let is_first = bytes == 0;
                bytes += key.len() + state.len() + GROUP_OVERHEAD_BYTES;
                is_first || bytes <= bytes_max
            })
            .map(|(start_ms, key, state)| Closed {
                start_ms,
                end_ms: self.end_of(start_ms),
                key: Arc::clone(key),
                state: Arc::clone(state),
            })
            .collect()
    }

    /// Forgets windows whose results have been sent.
    pub(crate) fn remove(&mut self, closed: &[Closed]) {
        for window in closed {
            let Some(keys) = self.open.get_mut(&window.start_ms) else {
                continue;
            };
            if let Some(state) = keys.remove(&window.key) {
                self.bytes -= window.key.len() + state.len() + GROUP_OVERHEAD_BYTES;
            }
            if keys.is_empty() {
                self.open.remove(&window.start_ms);
            }
        }
    }

    /// Moves the watermark behind the last open window: no more input is expected for them.
    pub(crate) fn close_all(&mut self) {
        if let Some((start_ms, _)) = self.open.last_key_value() {
            self.watermark_ms = self.watermark_ms.max(Some(self.end_of(*start_ms)));
        }
    }

    /// All open groups, in order.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupKey, &Arc<[u8]>)> {
        let each = |(start, keys): (&i64, _)| (*start, keys);
        self.open
            .iter()
            .map(each)
            .flat_map(|(start, keys): (i64, &BTreeMap<Arc<[u8]>, Arc<[u8]>>)| {
                keys.iter()
                    .map(move |(key, state)| ((start, Arc::clone(key)), state))
            })
    }

    fn put(&mut self, start_ms: i64, key: Arc<[u8]>, state: Arc<[u8]>) {
        self.bytes += state.len();
        let key_bytes = key.len();
        match self.open.entry(start_ms).or_default().insert(key, state) {
            Some(old) => self.bytes -= old.len(),
            None => self.bytes += key_bytes + GROUP_OVERHEAD_BYTES,
        }
    }

    fn start_of(&self, event_time_ms: i64) -> i64 {
        event_time_ms.saturating_sub(event_time_ms.rem_euclid(self.settings.size_ms))
    }

    fn end_of(&self, start_ms: i64) -> i64 {
        start_ms.saturating_add(self.settings.size_ms)
    }
}

#[cfg(test)]
mod tests;
