//! Sliding windows as Kafka Streams' `SlidingWindows` has them: of each key, a window of the size for every set of
//! records that such a span of time can hold. Each record ends one window and begins another behind itself, so
//! windows begin where a record comes in (its time - size + 1) and where one goes out (its time + 1). Between two of
//! these starts nothing changes: a new window begins with the accumulator of the nearest one before it.
//!
//! A window that closed stays, told about and no more due, as long as a new one can still begin from it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::super::answer::Keyed;
use super::assignment::{Assignment, Drafts, Group, Place};
use super::slots::Slot;
use super::{Applied, Closed, GroupChange, Records, Windows, in_range};

/// What a batch makes of one start.
#[derive(Debug, Clone, Copy, Default)]
struct Draft {
    /// A record begins or ends a window there.
    makes_due: bool,
    number: u32,
}

impl Windows {
    pub(super) fn assign_sliding<'a>(&self, size_ms: i64, records: Records<'_, 'a>) -> Assignment<'a> {
        let mut assignment = Assignment {
            watermark_ms: self.watermark_ms,
            ..Assignment::default()
        };
        let mut drafts: Drafts<'a, Draft> = Drafts::default();
        // Per record its key and where windows begin that it goes into.
        let mut wanted: Vec<Option<(&'a [u8], RangeInclusive<i64>)>> = Vec::with_capacity(records.len());
        for (index, keyed) in records.iter().enumerate() {
            let Some(Keyed { event_time_ms, key }) = *keyed else {
                wanted.push(None);
                continue;
            };
            let time_ms = in_range(event_time_ms);
            let open_from = open_from(assignment.watermark_ms, size_ms);
            if time_ms < open_from {
                assignment.late.push(index as u32);
                wanted.push(None);
                continue;
            }
            let first_ms = time_ms - size_ms + 1;
            let starts = first_ms.max(open_from)..=time_ms;
            let draft = drafts.entry(key).or_default();
            // Where its own window is closed, windows that begin later must find it all the same.
            draft.entry(*starts.start()).or_default().makes_due |= first_ms >= open_from;
            draft.entry(time_ms + 1).or_default().makes_due = true;
            if let Some(known) = self.open.of_key(key) {
                for start in known.range(starts.clone()) {
                    draft.entry(*start).or_default();
                }
            }
            wanted.push(Some((key, starts)));
            assignment.watermark_ms = self.seen(assignment.watermark_ms, time_ms);
        }
        for (key, starts) in &mut drafts {
            for (start_ms, draft) in starts {
                draft.number = assignment.groups.len() as u32;
                assignment.groups.push(self.sliding_group(*start_ms, key, *draft));
            }
        }
        assignment.places = wanted
            .into_iter()
            .map(|wanted| wanted.map_or_else(Place::default, |(key, starts)| place(&drafts[key], starts)))
            .collect();
        assignment.take_turns();
        assignment
    }

    fn sliding_group<'a>(&self, start_ms: i64, key: &'a [u8], draft: Draft) -> Group<'a> {
        let known = self.open.get(start_ms, key);
        let before = || {
            let nearest = self.open.of_key(key)?.range(..=start_ms).next_back()?;
            self.open.get(*nearest, key)?.state.clone()
        };
        Group {
            state: known.map_or_else(before, |slot| slot.state.clone()),
            is_known: known.is_some(),
            is_due: draft.makes_due || known.is_some_and(|slot| slot.is_due),
            ..Group::new(start_ms, key)
        }
    }

    pub(super) fn apply_sliding(&mut self, assignment: &Assignment<'_>, states: &[Option<&[u8]>]) -> Applied {
        let mut applied = Applied::default();
        for (group, state) in assignment.groups.iter().zip(states) {
            let key: Arc<[u8]> = group.key.into();
            let slot = Slot {
                state: match (&group.state, *state) {
                    (Some(old), Some(new)) if **old == *new => Some(Arc::clone(old)),
                    (_, Some(new)) => Some(new.into()),
                    (old, None) => old.clone(),
                },
                start_ms: group.start_ms,
                is_due: group.is_due,
            };
            if self.open.get(group.at, &key) == Some(&slot) {
                continue;
            }
            applied.changed.extend(self.shown(group.at, &key, &slot));
            let kept = self.open.kept(&slot);
            self.open.put(group.at, &key, slot);
            applied.kept.push(((group.at, key), Some(kept)));
        }
        applied
    }

    pub(super) fn remove_sliding(&mut self, size_ms: i64, told: &[Closed]) -> Vec<GroupChange> {
        let mut kept = BTreeMap::new();
        for window in told {
            let (at, key) = (window.start_ms, &window.key);
            let Some(slot) = self.open.get(at, key).cloned() else {
                continue;
            };
            let slot = Slot {
                is_due: false,
                ..slot
            };
            kept.insert((at, Arc::clone(key)), Some(self.open.kept(&slot)));
            self.open.put(at, key, slot);
            self.prune(size_ms, key, &mut kept);
        }
        kept.into_iter().collect()
    }

    pub(super) fn sweep_sliding(&mut self, size_ms: i64, watermark_ms: i64) -> Vec<GroupChange> {
        let closed = self.open.iter();
        let closed = closed.take_while(|(at, ..)| self.open.deadline(*at) <= watermark_ms);
        let unsaid = closed.filter(|(.., slot)| !slot.is_due || slot.state.is_none());
        let keys: Vec<Arc<[u8]>> = unsaid.map(|(_, key, _)| Arc::clone(key)).collect();
        let mut kept = BTreeMap::new();
        keys.iter().for_each(|key| self.prune(size_ms, key, &mut kept));
        kept.into_iter().collect()
    }

    /// Forgets the first windows of a key as far as they are told about and nothing can begin from them any more.
    fn prune(
        &mut self,
        size_ms: i64,
        key: &Arc<[u8]>,
        kept: &mut BTreeMap<(i64, Arc<[u8]>), Option<Arc<[u8]>>>,
    ) {
        let open_from = open_from(self.watermark_ms, size_ms);
        loop {
            let Some(starts) = self.open.of_key(key) else {
                return;
            };
            let mut starts = starts.iter().copied();
            let (first, second) = (starts.next(), starts.next());
            let Some((at, slot)) = first.and_then(|at| Some((at, self.open.get(at, key)?))) else {
                return;
            };
            let is_closed = at < open_from;
            let is_of_use = match &slot.state {
                // Where nothing stands, nothing begins from.
                None => false,
                Some(_) => slot.is_due || second.is_none_or(|next| next > open_from),
            };
            if !is_closed || is_of_use {
                return;
            }
            self.open.remove(at, key);
            kept.insert((at, Arc::clone(key)), None);
        }
    }
}

/// The start of the first window that is still open.
fn open_from(watermark_ms: Option<i64>, size_ms: i64) -> i64 {
    watermark_ms.map_or(i64::MIN, |watermark| {
        watermark.saturating_sub(size_ms).saturating_add(1)
    })
}

fn place(drafts: &BTreeMap<i64, Draft>, starts: RangeInclusive<i64>) -> Place {
    let mut within = drafts.range(starts);
    let first = within.next().map_or(0, |(_, draft)| draft.number);
    let last = within.next_back().map_or(first, |(_, draft)| draft.number);
    Place {
        first,
        count: last - first + 1,
    }
}
