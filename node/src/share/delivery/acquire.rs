//! Giving records to a member: of what was read, that which is available and no more than the limits allow.

use super::super::request::{Acquire, Acquired, KeptState, Name};
use super::{Delivery, Phase, Rules, Run, length};
use headwater_protocol::ids::Offset;
use std::time::Instant;

impl Delivery {
    /// Gives what is available to a member, for as long as a lock holds.
    pub(in crate::share) fn acquire(
        &mut self,
        now: Instant,
        wanted: &Acquire,
        rules: &Rules,
    ) -> Vec<Acquired> {
        let mut given: Vec<Acquired> = Vec::new();
        let grip = Grip {
            by: &wanted.by,
            until: now + rules.lock,
            rules,
        };
        let mut left = wanted.records_max;
        let mut at = wanted.from.max(self.start);
        // Where the log was read from is where it ends for us, at the latest: nothing is passed over.
        if at > self.end {
            return given;
        }
        for span in &wanted.spans {
            if span.last < at {
                continue;
            }
            if span.first > at {
                self.archive(at, span.first.plus(-1));
                at = span.first;
                if self.end < at {
                    break;
                }
            }
            if left == 0 {
                break;
            }
            if span.is_hidden {
                self.archive(at, span.last);
            } else {
                let most = if wanted.is_strict { left } else { usize::MAX };
                let taken = self.take(&grip, at, span.last, most, &mut given);
                left = left.saturating_sub(taken);
            }
            if self.end <= span.last {
                // There was no room for all of it.
                break;
            }
            at = span.last.plus(1);
        }
        self.move_start();
        if !given.is_empty() {
            self.looked_at = Some(self.looked_at.map_or(grip.until, |at| at.min(grip.until)));
        }
        in_batches(given, wanted.batch_size)
    }

    /// Acquires what is available between two offsets, `most` at most. How many there were.
    fn take(
        &mut self,
        grip: &Grip<'_>,
        first: Offset,
        last: Offset,
        most: usize,
        given: &mut Vec<Acquired>,
    ) -> usize {
        let mut taken = 0;
        for (first, last) in self.available_between(first, last) {
            if taken == most {
                return taken;
            }
            let last = last.min(nth(first, most - taken));
            taken += length(first, last);
            self.change(first, last, |run| {
                run.count = run.count.saturating_add(1);
                run.phase = grip.phase();
                let count = run.count;
                given.push(Acquired { first, last, count });
            });
        }
        let room = match self.is_full() {
            true => 0,
            false => grip.rules.in_flight_max.saturating_sub(self.in_flight),
        };
        let first = self.end.max(first);
        let more = room.min(most - taken).min(length(first, last));
        if more == 0 {
            return taken;
        }
        let last = nth(first, more);
        self.append(first, last, 1, grip.phase());
        given.push(Acquired {
            first,
            last,
            count: 1,
        });
        taken + more
    }

    /// Runs that may be given, as far as they lie between two offsets.
    fn available_between(&self, first: Offset, last: Offset) -> Vec<(Offset, Offset)> {
        self.runs_from(first)
            .take_while(|(at, _)| **at <= last)
            .filter(|(_, run)| run.phase == Phase::Available)
            .map(|(at, run)| ((*at).max(first), run.last.min(last)))
            .collect()
    }

    /// What is available between two offsets, or was never given, is done with; the latter only as long as there is room.
    fn archive(&mut self, first: Offset, last: Offset) {
        for (first, last) in self.available_between(first, last) {
            self.change(first, last, |run| run.phase = Phase::Done(KeptState::Archived));
        }
        let first = self.end.max(first);
        if first <= last && !self.is_full() {
            self.append(first, last, 0, Phase::Done(KeptState::Archived));
        }
    }

    /// Offsets that follow the end.
    fn append(&mut self, first: Offset, last: Offset, count: i16, phase: Phase) {
        assert_eq!(first, self.end, "no offset is passed over");
        self.in_flight += if phase.is_done() { 0 } else { length(first, last) };
        self.runs.insert(first, Run { last, count, phase });
        self.end = last.plus(1);
        self.join_between(first, last);
    }
}

/// Who acquires.
struct Grip<'a> {
    by: &'a Name,
    until: Instant,
    rules: &'a Rules,
}

impl Grip<'_> {
    fn phase(&self) -> Phase {
        Phase::Acquired {
            by: Name::clone(self.by),
            until: self.until,
        }
    }
}

/// The last of so many offsets, one at least.
fn nth(first: Offset, count: usize) -> Offset {
    // No log is that long.
    const LONGEST: i64 = i64::MAX / 4;
    first.plus(i64::try_from(count).unwrap_or(LONGEST).min(LONGEST) - 1)
}

/// Neighbours of one count are told as one, as long as that is not larger than the member likes.
fn in_batches(given: Vec<Acquired>, batch_size: usize) -> Vec<Acquired> {
    let mut batches: Vec<Acquired> = Vec::new();
    for next in given {
        match batches.last_mut() {
            Some(last)
                if last.count == next.count
                    && last.last.plus(1) == next.first
                    && length(last.first, next.last) <= batch_size =>
            {
                last.last = next.last;
            }
            _ => batches.push(next),
        }
    }
    batches
}
