//! Windows of event time: which groups a record belongs to, which record is late, which window has closed.
//! It owns the open windows and their accumulators, and the watermark. It is pure: no clock, no guest, no I/O, and
//! nothing changes before a whole batch went well, so that a batch whose guest trapped can be cut and tried again.

mod aligned;
mod assignment;
mod session;
mod sliding;
mod slots;

use std::sync::Arc;

use super::answer::Keyed;
use super::bytes::put_bytes;
use crate::metadata::WindowShape;

#[cfg(test)]
pub(crate) use assignment::Merge;
pub(crate) use assignment::{Assignment, Group};
use slots::{Slot, Slots};

/// How windows are cut and when they close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) shape: WindowShape,
    /// How far behind the latest event time a record may be; not negative.
    pub(crate) lateness_ms: i64,
}

/// What a group is kept under: the start of its window, or of a session the time of its last record; and its key.
pub(crate) type GroupKey = (i64, Arc<[u8]>);

/// A group as it is to be kept from now on; none: it is gone.
pub(crate) type GroupChange = (GroupKey, Option<Arc<[u8]>>);

/// The windows of one partition.
///
/// - The watermark never falls. A window whose end is at or below it is closed: no record enters it any more. The end
///   of a session, for this, is where a record would no longer belong to it.
/// - The outcome does not depend on how records are cut into batches.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    settings: Settings,
    watermark_ms: Option<i64>,
    open: Slots,
    /// The watermark before a batch that can still be undone.
    before_ms: Option<Option<i64>>,
}

/// A window that has closed, or that was changed and is to be told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) key: Arc<[u8]>,
    pub(crate) state: Arc<[u8]>,
}

/// What came of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Windows with a new accumulator, ordered by start, then key.
    pub(crate) changed: Vec<Closed>,
    /// What is to be kept of it, in order.
    pub(crate) kept: Vec<GroupChange>,
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

/// Records of which a batch consists, as windows see them: none for one that belongs to no group.
type Records<'r, 'a> = &'r [Option<Keyed<'a>>];

impl Windows {
    pub(crate) fn new(settings: Settings) -> Self {
        let is_sound = match settings.shape {
            WindowShape::Tumbling { size_ms } | WindowShape::Sliding { size_ms } => size_ms > 0,
            WindowShape::Hopping { size_ms, advance_ms } => (1..=size_ms).contains(&advance_ms),
            WindowShape::Session { gap_ms } => gap_ms > 0,
        };
        assert!(
            is_sound && settings.lateness_ms >= 0,
            "the settings were checked at deployment"
        );
        Self {
            settings,
            watermark_ms: None,
            open: Slots::new(settings.shape),
            before_ms: None,
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
        for (key, kept) in groups {
            windows.open.restore(key, &kept);
        }
        windows
    }

    pub(crate) fn shape(&self) -> WindowShape {
        self.settings.shape
    }

    /// Below it no record is accepted any more. None before the first record.
    pub(crate) fn watermark_ms(&self) -> Option<i64> {
        self.watermark_ms
    }

    /// What keys and accumulators take, roughly as memory holds them.
    pub(crate) fn bytes(&self) -> usize {
        self.open.bytes()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Puts every record into its groups. Changes nothing.
    pub(crate) fn assign<'a>(&self, records: Records<'_, 'a>) -> Assignment<'a> {
        match self.settings.shape {
            WindowShape::Tumbling { size_ms } => self.assign_tumbling(size_ms, records),
            WindowShape::Hopping { size_ms, advance_ms } => self.assign_hopping(size_ms, advance_ms, records),
            WindowShape::Sliding { size_ms } => self.assign_sliding(size_ms, records),
            WindowShape::Session { gap_ms } => self.assign_sessions(gap_ms, records),
        }
    }

    /// By how much `apply` would grow what is kept, at most.
    pub(crate) fn growth(&self, assignment: &Assignment<'_>, states: &[Option<&[u8]>]) -> usize {
        let keeps_empty = matches!(self.settings.shape, WindowShape::Sliding { .. });
        let each = |(group, state): (&Group<'_>, &Option<&[u8]>)| match state {
            None if !keeps_empty => 0,
            None if group.is_known => 0,
            Some(new) if group.is_known => {
                let old = group.state.as_ref().map_or(0, |old| old.len());
                new.len().saturating_sub(old)
            }
            state => group.key.len() + state.map_or(0, <[u8]>::len) + self.open.overhead(),
        };
        assignment.groups.iter().zip(states).map(each).sum()
    }

    /// Takes over the accumulators that the guest answered, and the watermark. A group without an accumulator stays
    /// as it was. Until `keep` it can be undone.
    pub(crate) fn apply(&mut self, assignment: &Assignment<'_>, states: &[Option<&[u8]>]) -> Applied {
        assert_eq!(
            assignment.groups.len(),
            states.len(),
            "`fold` answers with one accumulator per group"
        );
        self.before_ms = Some(self.watermark_ms);
        self.open.remember();
        self.watermark_ms = self.watermark_ms.max(assignment.watermark_ms);
        let mut applied = match self.settings.shape {
            WindowShape::Tumbling { .. } | WindowShape::Hopping { .. } => {
                self.apply_aligned(assignment, states)
            }
            WindowShape::Sliding { .. } => self.apply_sliding(assignment, states),
            WindowShape::Session { .. } => self.apply_sessions(assignment, states),
        };
        applied
            .changed
            .sort_by(|one, other| (one.start_ms, &one.key).cmp(&(other.start_ms, &other.key)));
        applied
    }

    /// The last batch counts.
    pub(crate) fn keep(&mut self) {
        self.before_ms = None;
        self.open.forget();
    }

    /// The last batch does not count, unless it was kept.
    pub(crate) fn undo(&mut self) {
        self.watermark_ms = self.before_ms.take().unwrap_or(self.watermark_ms);
        self.open.undo();
    }

    /// The windows that have closed and were not removed yet, ordered by start, then key (sessions by end, then key):
    /// as many as fit `bytes_max`, at least one if there is one.
    pub(crate) fn closed(&self, bytes_max: usize) -> Vec<Closed> {
        let Some(watermark) = self.watermark_ms else {
            return Vec::new();
        };
        let mut bytes = 0;
        let due = self
            .open
            .iter()
            .take_while(|(at, ..)| self.open.deadline(*at) <= watermark);
        due.filter_map(|(at, key, slot)| self.shown(at, key, slot))
            .take_while(|window| {
                let is_first = bytes == 0;
                bytes += window.key.len() + window.state.len() + self.open.overhead();
                is_first || bytes <= bytes_max
            })
            .collect()
    }

    /// Every open window, to be told about as if it had changed.
    pub(crate) fn all(&self) -> Vec<Closed> {
        let slots = self.open.iter();
        slots
            .filter_map(|(at, key, slot)| self.shown(at, key, slot))
            .collect()
    }

    /// Forgets windows whose results have been sent. Gives what is kept of it.
    pub(crate) fn remove(&mut self, closed: &[Closed]) -> Vec<GroupChange> {
        if let WindowShape::Sliding { size_ms } = self.settings.shape {
            return self.remove_sliding(size_ms, closed);
        }
        let mut kept = Vec::with_capacity(closed.len());
        for window in closed {
            let at = match self.settings.shape {
                WindowShape::Session { .. } => window.end_ms.saturating_sub(1),
                WindowShape::Tumbling { .. } | WindowShape::Hopping { .. } | WindowShape::Sliding { .. } => {
                    window.start_ms
                }
            };
            if self.open.remove(at, &window.key) {
                kept.push(((at, Arc::clone(&window.key)), None));
            }
        }
        kept
    }

    /// Forgets what closed without ever being told about. Gives what is kept of it.
    pub(crate) fn sweep(&mut self) -> Vec<GroupChange> {
        match (self.settings.shape, self.watermark_ms) {
            (WindowShape::Sliding { size_ms }, Some(watermark)) => self.sweep_sliding(size_ms, watermark),
            _ => Vec::new(),
        }
    }

    /// Moves the watermark behind the last open window: no more input is expected for them.
    pub(crate) fn close_all(&mut self) {
        if let Some(at) = self.open.last() {
            self.watermark_ms = self.watermark_ms.max(Some(self.open.deadline(at)));
        }
    }

    /// All open groups as they are to be kept, in order.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupKey, Arc<[u8]>)> {
        let slots = self.open.iter();
        slots.map(|(at, key, slot)| ((at, Arc::clone(key)), self.open.kept(slot)))
    }

    /// A window as it is told about, if there is anything to tell.
    fn shown(&self, at: i64, key: &Arc<[u8]>, slot: &Slot) -> Option<Closed> {
        let state = slot.state.as_ref().filter(|_| slot.is_due)?;
        Some(Closed {
            start_ms: slot.start_ms,
            end_ms: match self.settings.shape {
                // Up to its last record; that nothing came after it is known later.
                WindowShape::Session { .. } => at.saturating_add(1),
                WindowShape::Tumbling { .. } | WindowShape::Hopping { .. } | WindowShape::Sliding { .. } => {
                    self.open.deadline(at)
                }
            },
            key: Arc::clone(key),
            state: Arc::clone(state),
        })
    }

    /// Whether a window that ends there is closed.
    fn is_closed(watermark_ms: Option<i64>, end_ms: i64) -> bool {
        watermark_ms.is_some_and(|watermark| end_ms <= watermark)
    }

    /// The watermark once a record was seen.
    fn seen(&self, watermark_ms: Option<i64>, event_time_ms: i64) -> Option<i64> {
        watermark_ms.max(Some(event_time_ms.saturating_sub(self.settings.lateness_ms)))
    }
}

/// Event times beyond it count as it, so that no bound of a window overflows: some 36 million years.
const TIME_MAX_MS: i64 = 1 << 60;

fn in_range(event_time_ms: i64) -> i64 {
    event_time_ms.clamp(-TIME_MAX_MS, TIME_MAX_MS)
}

#[cfg(test)]
mod tests;
