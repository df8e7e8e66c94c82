//! Sessions: of each key, the records that follow one another with no longer gap between them. A session is kept
//! under the time of its last record. A record that joins two sessions has their accumulators merged before it.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::answer::Keyed;
use super::assignment::{Assignment, Group, Merge, Place};
use super::slots::Slot;
use super::{Applied, Records, Windows, in_range};

/// A session that a record of the batch can still belong to.
#[derive(Debug, Clone, Copy)]
struct Live {
    first_ms: i64,
    last_ms: i64,
    /// None: no record of the batch belongs to it so far.
    group: Option<usize>,
}

impl Windows {
    pub(super) fn assign_sessions<'a>(&self, gap_ms: i64, records: Records<'_, 'a>) -> Assignment<'a> {
        let mut assignment = Assignment {
            watermark_ms: self.watermark_ms,
            ..Assignment::default()
        };
        let mut live: HashMap<&[u8], Vec<Live>> = HashMap::default();
        for (index, keyed) in records.iter().enumerate() {
            let Some(Keyed { event_time_ms, key }) = *keyed else {
                assignment.places.push(Place::default());
                continue;
            };
            let time_ms = in_range(event_time_ms);
            let sessions = live.entry(key).or_insert_with(|| self.sessions(key));
            let watermark = assignment.watermark_ms;
            sessions.retain(|session| !Self::is_closed(watermark, session.last_ms + gap_ms + 1));
            let touches =
                |session: &Live| (session.first_ms - gap_ms..=session.last_ms + gap_ms).contains(&time_ms);
            let mut touched = (0..sessions.len()).filter(|at| touches(&sessions[*at]));
            let group = match (touched.next(), touched.next()) {
                (None, _) if Self::is_closed(watermark, time_ms + gap_ms + 1) => {
                    assignment.late.push(index as u32);
                    assignment.places.push(Place::default());
                    continue;
                }
                (None, _) => {
                    let group = assignment.groups.len();
                    assignment.groups.push(Group::new(time_ms, key));
                    sessions.push(Live {
                        first_ms: time_ms,
                        last_ms: time_ms,
                        group: Some(group),
                    });
                    group
                }
                (Some(at), None) => {
                    let session = &mut sessions[at];
                    let group = self.touched(session, key, &mut assignment);
                    session.first_ms = session.first_ms.min(time_ms);
                    session.last_ms = session.last_ms.max(time_ms);
                    assignment.groups[group].start_ms = session.first_ms;
                    assignment.groups[group].at = session.last_ms;
                    group
                }
                // Sessions are further apart than the gap, so a record cannot reach a third.
                (Some(one), Some(other)) => {
                    let other = sessions.swap_remove(other);
                    let one = &mut sessions[one];
                    self.join(one, other, key, index as u32, &mut assignment)
                }
            };
            assignment.watermark_ms = self.seen(watermark, time_ms);
            assignment.places.push(Place {
                first: group as u32,
                count: 1,
            });
        }
        assignment
    }

    /// The sessions of a key as they are kept.
    fn sessions(&self, key: &[u8]) -> Vec<Live> {
        let kept = self.open.of_key(key).into_iter().flatten();
        let live = |last: &i64| Live {
            first_ms: self.open.get(*last, key).map_or(*last, |slot| slot.start_ms),
            last_ms: *last,
            group: None,
        };
        kept.map(live).collect()
    }

    /// The group of a session, made if need be.
    fn touched<'a>(&self, session: &mut Live, key: &'a [u8], assignment: &mut Assignment<'a>) -> usize {
        *session.group.get_or_insert_with(|| {
            let at = session.last_ms;
            assignment.groups.push(Group {
                start_ms: session.first_ms,
                state: self.open.get(at, key).and_then(|slot| slot.state.clone()),
                is_known: true,
                was_at: Some(at),
                ..Group::new(at, key)
            });
            assignment.groups.len() - 1
        })
    }

    /// Makes one session of two and the record between them.
    fn join<'a>(
        &self,
        one: &mut Live,
        mut other: Live,
        key: &'a [u8],
        record: u32,
        assignment: &mut Assignment<'a>,
    ) -> usize {
        let mut from = [
            self.touched(one, key, assignment),
            self.touched(&mut other, key, assignment),
        ];
        if other.first_ms < one.first_ms {
            from.reverse();
        }
        let into = assignment.groups.len();
        *one = Live {
            first_ms: one.first_ms.min(other.first_ms),
            last_ms: one.last_ms.max(other.last_ms),
            group: Some(into),
        };
        let turn = from.map(|group| {
            assignment.groups[group].is_gone = true;
            assignment.groups[group].turn
        });
        assignment.groups.push(Group {
            start_ms: one.first_ms,
            turn: turn[0].max(turn[1]) + 1,
            ..Group::new(one.last_ms, key)
        });
        assignment.merges.push(Merge { record, from, into });
        into
    }

    pub(super) fn apply_sessions(
        &mut self,
        assignment: &Assignment<'_>,
        states: &[Option<&[u8]>],
    ) -> Applied {
        let mut applied = Applied::default();
        for group in &assignment.groups {
            let moved = group.was_at.filter(|was| group.is_gone || *was != group.at);
            let Some(was_at) = moved else { continue };
            if self.open.remove(was_at, group.key) {
                applied.kept.push(((was_at, group.key.into()), None));
            }
        }
        let left = assignment.groups.iter().zip(states);
        for (group, state) in left.filter(|(group, _)| !group.is_gone) {
            let Some(state) = *state else { continue };
            let key: Arc<[u8]> = group.key.into();
            let slot = Slot {
                state: Some(state.into()),
                start_ms: group.start_ms,
                is_due: true,
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
}
