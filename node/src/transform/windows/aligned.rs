//! Windows whose bounds the clock sets, tumbling and hopping: window n begins at n times the advance, for all keys.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::answer::Keyed;
use super::assignment::{Assignment, Drafts, Group, Place};
use super::slots::Slot;
use super::{Applied, Records, Windows, in_range};

impl Windows {
    pub(super) fn assign_tumbling<'a>(&self, size_ms: i64, records: Records<'_, 'a>) -> Assignment<'a> {
        let mut assignment = Assignment {
            watermark_ms: self.watermark_ms,
            places: Vec::with_capacity(records.len()),
            ..Assignment::default()
        };
        let mut known: HashMap<(i64, &[u8]), u32> = HashMap::default();
        for (index, keyed) in records.iter().enumerate() {
            let Some(Keyed { event_time_ms, key }) = *keyed else {
                assignment.places.push(Place::default());
                continue;
            };
            let start_ms = event_time_ms.saturating_sub(event_time_ms.rem_euclid(size_ms));
            if Self::is_closed(assignment.watermark_ms, start_ms.saturating_add(size_ms)) {
                assignment.late.push(index as u32);
                assignment.places.push(Place::default());
                continue;
            }
            assignment.watermark_ms = self.seen(assignment.watermark_ms, event_time_ms);
            let first = *known.entry((start_ms, key)).or_insert_with(|| {
                assignment.groups.push(self.group(start_ms, key));
                assignment.groups.len() as u32 - 1
            });
            assignment.places.push(Place { first, count: 1 });
        }
        assignment
    }

    pub(super) fn assign_hopping<'a>(
        &self,
        size_ms: i64,
        advance_ms: i64,
        records: Records<'_, 'a>,
    ) -> Assignment<'a> {
        let mut assignment = Assignment {
            watermark_ms: self.watermark_ms,
            ..Assignment::default()
        };
        let mut drafts: Drafts<'a, u32> = Drafts::default();
        // Per record its key, the start of its first window that is open, and how many there are.
        let mut wanted = Vec::with_capacity(records.len());
        for (index, keyed) in records.iter().enumerate() {
            let Some(Keyed { event_time_ms, key }) = *keyed else {
                wanted.push(None);
                continue;
            };
            let time_ms = in_range(event_time_ms);
            let last_ms = time_ms - time_ms.rem_euclid(advance_ms);
            let earlier = (size_ms - 1 - (time_ms - last_ms)) / advance_ms;
            let starts = (0..=earlier).rev().map(|back| last_ms - back * advance_ms);
            let is_open = |start: &i64| {
                let end_ms = start.saturating_add(size_ms);
                !Self::is_closed(assignment.watermark_ms, end_ms)
            };
            let open: Vec<i64> = starts.filter(is_open).collect();
            let Some(first_ms) = open.first() else {
                assignment.late.push(index as u32);
                wanted.push(None);
                continue;
            };
            wanted.push(Some((key, *first_ms, open.len() as u32)));
            assignment.watermark_ms = self.seen(assignment.watermark_ms, time_ms);
            let draft = drafts.entry(key).or_default();
            draft.extend(open.into_iter().map(|start_ms| (start_ms, 0)));
        }
        for (key, starts) in &mut drafts {
            for (start_ms, number) in starts {
                *number = assignment.groups.len() as u32;
                assignment.groups.push(self.group(*start_ms, key));
            }
        }
        let place = |wanted: Option<(&[u8], i64, u32)>| {
            wanted.map_or_else(Place::default, |(key, first_ms, count)| Place {
                first: drafts[key][&first_ms],
                count,
            })
        };
        assignment.places = wanted.into_iter().map(place).collect();
        assignment.take_turns();
        assignment
    }

    fn group<'a>(&self, start_ms: i64, key: &'a [u8]) -> Group<'a> {
        let known = self.open.get(start_ms, key);
        Group {
            state: known.and_then(|slot| slot.state.clone()),
            is_known: known.is_some(),
            ..Group::new(start_ms, key)
        }
    }

    pub(super) fn apply_aligned(&mut self, assignment: &Assignment<'_>, states: &[Option<&[u8]>]) -> Applied {
        let mut applied = Applied::default();
        for (group, state) in assignment.groups.iter().zip(states) {
            let Some(state) = *state else { continue };
            if group.state.as_deref() == Some(state) {
                continue;
            }
            let (key, state): (Arc<[u8]>, Arc<[u8]>) = (group.key.into(), state.into());
            let slot = Slot {
                state: Some(Arc::clone(&state)),
                start_ms: group.start_ms,
                is_due: true,
            };
            applied.changed.extend(self.shown(group.at, &key, &slot));
            self.open.put(group.at, &key, slot);
            applied.kept.push(((group.at, key), Some(state)));
        }
        applied
    }
}
