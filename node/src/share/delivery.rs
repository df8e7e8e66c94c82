//! What has become of the records of one partition for one share group: the offsets from its start on, in runs of equal fate.
//! Pure: time is an argument.
//!
//! A record is available, acquired by a member until its lock runs out, or done with. What members say takes two steps: it
//! settles, and holds once it is written down (`begin_write`, `written`).
//!
//! What it must never do: give a record to two members at a time, or one again that was written down as done with.

mod acquire;
mod restore;

#[cfg(test)]
mod tests;

use super::request::{Ack, Acknowledge, KeptBatch, KeptState, Name};
use headwater_protocol::ids::Offset;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Runs that a delivery may be made of, and offsets that it may be long. Where a record keeps the start while what is behind it
/// is done with, nothing more is given then until that record is, too: else what is written down would grow without end.
const RUNS_MAX: usize = 5_000;
const LENGTH_MAX: i64 = 1_000_000;

/// How records are delivered, by the properties of the group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// How long a member may take for what it has acquired.
    pub(super) lock: Duration,
    /// So many times a record is delivered at most.
    pub(super) deliveries_max: i16,
    /// So many records may be neither untouched nor done with.
    pub(super) in_flight_max: usize,
}

/// One state of what is to be written down; later ones are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WriteNumber(u64);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Available,
    Acquired {
        by: Name,
        until: Instant,
    },
    /// It becomes what it is to be with this write.
    Settling {
        to: KeptState,
        with: WriteNumber,
    },
    Done(KeptState),
}

impl Phase {
    fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// Offsets of one fate, from the key they stand under to `last`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    last: Offset,
    /// How often they were delivered.
    count: i16,
    phase: Phase,
}

/// - `runs` cover every offset from `start` to before `end`, and no other; no two neighbours are alike.
/// - `in_flight` counts the offsets in them that are not done with.
/// - `Done` is never `Available`.
/// - `looked_at` is not behind the first lock that runs out.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    start: Offset,
    /// The first offset that nobody was given yet.
    end: Offset,
    runs: BTreeMap<Offset, Run>,
    in_flight: usize,
    looked_at: Option<Instant>,
    next_write: WriteNumber,
    /// Everything before it is written down as done with.
    kept_start: Offset,
    /// The write on its way, with the start that it writes down.
    pending: Option<(WriteNumber, Offset)>,
    /// Something has changed that is to be written down.
    is_dirty: bool,
}

/// A member speaks of what it has not acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the records are not acquired by this member")]
pub(super) struct InvalidState;

impl Delivery {
    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    pub(super) fn has_acquired(&self) -> bool {
        let mut runs = self.runs.values();
        runs.any(|run| matches!(run.phase, Phase::Acquired { .. }))
    }

    /// When locks are to be looked at next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.looked_at
    }

    /// Where somebody who wants records should read; None: there is nothing to be given, or too much is given already.
    /// What lies before `log_start` is gone.
    pub(super) fn next(&mut self, log_start: Offset, rules: &Rules) -> Option<Offset> {
        self.begin_at(log_start);
        let is_available = |(_, run): &(&Offset, &Run)| run.phase == Phase::Available;
        if let Some((first, _)) = self.runs.iter().find(is_available) {
            return Some(*first);
        }
        (self.in_flight < rules.in_flight_max && !self.is_full()).then_some(self.end)
    }

    /// Whether nothing behind the end may be given.
    fn is_full(&self) -> bool {
        self.runs.len() >= RUNS_MAX || self.end.since(self.start) >= LENGTH_MAX
    }

    /// A member says what became of what it has acquired. All of it holds, or nothing. What it says of records that are done
    /// with for good, since they lie before the start, is passed over, and holds when that start is written down. None: all
    /// of it is.
    pub(super) fn acknowledge(
        &mut self,
        now: Instant,
        by: &str,
        batches: &[Acknowledge],
        rules: &Rules,
    ) -> Result<Option<WriteNumber>, InvalidState> {
        for batch in batches {
            let first = batch.first.max(self.start);
            if first <= batch.last && !self.is_acquired(by, first, batch.last) {
                return Err(InvalidState);
            }
        }
        let with = self.next_write;
        let passed = self.passed_with(batches);
        let mut is_written = passed == Some(with);
        for batch in batches {
            let first = batch.first.max(self.start);
            if first > batch.last {
                continue;
            }
            is_written |= batch.ack != Ack::Renew;
            self.change(first, batch.last, |run| match batch.ack {
                Ack::Renew => {
                    if let Phase::Acquired { until, .. } = &mut run.phase {
                        *until = now + rules.lock;
                    }
                }
                Ack::Accept => run.settle(KeptState::Acknowledged, with),
                Ack::Gap | Ack::Reject => run.settle(KeptState::Archived, with),
                Ack::Release => run.settle(run.released(rules), with),
            });
        }
        self.is_dirty |= is_written;
        Ok(if is_written { Some(with) } else { passed })
    }

    /// With which write the start is written down behind what a member says of offsets before it.
    fn passed_with(&self, batches: &[Acknowledge]) -> Option<WriteNumber> {
        let passed = batches
            .iter()
            .filter(|batch| batch.ack != Ack::Renew && batch.first < self.start)
            .map(|batch| batch.last.min(self.start.plus(-1)));
        let last = passed.max().filter(|last| *last >= self.kept_start)?;
        match self.pending {
            Some((number, start)) if last < start => Some(number),
            Some(_) | None => Some(self.next_write),
        }
    }

    /// A member has gone: what it had acquired is for others. Whether anything is.
    pub(super) fn release(&mut self, by: &str, rules: &Rules) -> bool {
        self.give_up(
            rules,
            |phase| matches!(phase, Phase::Acquired { by: it, .. } if &**it == by),
        )
    }

    /// Locks that have run out give their records up. Whether any has.
    pub(super) fn expire(&mut self, now: Instant, rules: &Rules) -> bool {
        if self.looked_at.is_none_or(|at| at > now) {
            return false;
        }
        let any = self.give_up(
            rules,
            |phase| matches!(phase, Phase::Acquired { until, .. } if *until <= now),
        );
        let locks = self.runs.values().filter_map(|run| match &run.phase {
            Phase::Acquired { until, .. } => Some(*until),
            Phase::Available | Phase::Settling { .. } | Phase::Done(_) => None,
        });
        self.looked_at = locks.min();
        any
    }

    /// What is to be written down, as it is when this write is done; it takes with it all that settles.
    pub(super) fn begin_write(&mut self) -> (WriteNumber, Offset, Vec<KeptBatch>) {
        let number = self.next_write;
        self.next_write = WriteNumber(number.0 + 1);
        self.is_dirty = false;
        let mut start = self.start;
        let mut batches: Vec<KeptBatch> = Vec::new();
        for (first, run) in &self.runs {
            let (state, count) = run.kept();
            if state != KeptState::Available && *first == start {
                start = run.last.plus(1);
                continue;
            }
            if state == KeptState::Available && count == 0 {
                continue;
            }
            match batches.last_mut() {
                Some(last) if last.last.plus(1) == *first && (last.state, last.count) == (state, count) => {
                    last.last = run.last;
                }
                _ => batches.push(KeptBatch {
                    first: *first,
                    last: run.last,
                    state,
                    count,
                }),
            }
        }
        self.pending = Some((number, start));
        (number, start, batches)
    }

    /// A write is done, and all before it. Whether there is something new to be given.
    pub(super) fn written(&mut self, number: WriteNumber) -> bool {
        let is_settled = |run: &Run| matches!(run.phase, Phase::Settling { with, .. } if with <= number);
        let settled: Vec<(Offset, Offset)> = self
            .runs
            .iter()
            .filter(|(_, run)| is_settled(run))
            .map(|(first, run)| (*first, run.last))
            .collect();
        let mut is_any_available = false;
        for (first, last) in &settled {
            self.change(*first, *last, |run| {
                let Phase::Settling { to, .. } = run.phase else {
                    return;
                };
                is_any_available |= to == KeptState::Available;
                run.phase = match to {
                    KeptState::Available => Phase::Available,
                    KeptState::Acknowledged | KeptState::Archived => Phase::Done(to),
                };
            });
        }
        self.move_start();
        if let Some((_, start)) = self.pending.take_if(|(with, _)| *with <= number) {
            self.kept_start = self.kept_start.max(start);
        }
        is_any_available || !settled.is_empty()
    }

    /// Whether every offset between two is acquired by a member.
    fn is_acquired(&self, by: &str, first: Offset, last: Offset) -> bool {
        let mut at = first;
        for (_, run) in self.runs_from(first) {
            if !matches!(&run.phase, Phase::Acquired { by: it, .. } if &**it == by) {
                return false;
            }
            at = run.last.plus(1);
            if at > last {
                return true;
            }
        }
        // What lies behind the end was never given.
        at > last
    }

    /// The runs from the one that holds an offset on.
    fn runs_from(&self, offset: Offset) -> impl Iterator<Item = (&Offset, &Run)> {
        let holder = self.runs.range(..=offset).next_back();
        let from = holder.map_or(
            offset,
            |(first, run)| if run.last >= offset { *first } else { offset },
        );
        self.runs.range(from..)
    }

    fn give_up(&mut self, rules: &Rules, is_concerned: impl Fn(&Phase) -> bool) -> bool {
        let concerned: Vec<(Offset, Offset)> = self
            .runs
            .iter()
            .filter(|(_, run)| is_concerned(&run.phase))
            .map(|(first, run)| (*first, run.last))
            .collect();
        for (first, last) in &concerned {
            self.change(*first, *last, |run| {
                run.phase = match run.released(rules) {
                    KeptState::Available => Phase::Available,
                    done @ (KeptState::Acknowledged | KeptState::Archived) => Phase::Done(done),
                };
            });
        }
        self.is_dirty |= !concerned.is_empty();
        self.move_start();
        !concerned.is_empty()
    }

    /// Changes the offsets between two, which all are in runs.
    fn change(&mut self, first: Offset, last: Offset, mut change: impl FnMut(&mut Run)) {
        self.split_at(first);
        self.split_at(last.plus(1));
        let mut in_flight = self.in_flight;
        for (at, run) in self.runs.range_mut(first..=last) {
            let length = length(*at, run.last);
            in_flight -= if run.phase.is_done() { 0 } else { length };
            change(run);
            in_flight += if run.phase.is_done() { 0 } else { length };
        }
        self.in_flight = in_flight;
        self.join_between(first, last);
    }

    /// Makes a run begin at an offset, if it is in one.
    fn split_at(&mut self, at: Offset) {
        let Some((first, run)) = self.runs.range_mut(..at).next_back() else {
            return;
        };
        if run.last < at || *first == at {
            return;
        }
        let tail = run.clone();
        run.last = at.plus(-1);
        self.runs.insert(at, tail);
    }

    /// Makes one of neighbours that are alike, as far as they touch the offsets between two.
    fn join_between(&mut self, first: Offset, last: Offset) {
        let before = self.runs.range(..first).next_back().map(|(at, _)| *at);
        let mut at = before.unwrap_or(first);
        while let Some(run) = self.runs.get(&at) {
            let next = run.last.plus(1);
            if next > last.plus(1) {
                return;
            }
            let Some(other) = self.runs.get(&next) else {
                return;
            };
            if other.count == run.count && other.phase == run.phase {
                let end = other.last;
                self.runs.remove(&next);
                self.runs.get_mut(&at).expect("it was found above").last = end;
            } else {
                at = next;
            }
        }
    }

    /// What is done with at the beginning is left behind.
    fn move_start(&mut self) {
        while let Some(first) = self.runs.first_entry().filter(|run| run.get().phase.is_done()) {
            self.start = first.remove().last.plus(1);
        }
    }

    /// Leaves everything before an offset behind.
    fn begin_at(&mut self, offset: Offset) {
        if offset <= self.start {
            return;
        }
        self.split_at(offset);
        let kept = self.runs.split_off(&offset);
        for (first, run) in std::mem::replace(&mut self.runs, kept) {
            self.in_flight -= if run.phase.is_done() {
                0
            } else {
                length(first, run.last)
            };
        }
        self.start = offset;
        self.end = self.end.max(offset);
        self.is_dirty = true;
        self.move_start();
    }
}

impl Run {
    fn settle(&mut self, to: KeptState, with: WriteNumber) {
        self.phase = Phase::Settling { to, with };
    }

    /// What becomes of it when nobody has done with it.
    fn released(&self, rules: &Rules) -> KeptState {
        if self.count >= rules.deliveries_max {
            KeptState::Archived
        } else {
            KeptState::Available
        }
    }

    /// As it is written down. A delivery that nobody has said anything of has not happened by then.
    fn kept(&self) -> (KeptState, i16) {
        match &self.phase {
            Phase::Available => (KeptState::Available, self.count),
            Phase::Acquired { .. } => (KeptState::Available, self.count - 1),
            Phase::Settling { to, .. } => (*to, self.count),
            Phase::Done(state) => (*state, self.count),
        }
    }
}

/// How many offsets there are from one to another, both among them.
fn length(first: Offset, last: Offset) -> usize {
    usize::try_from(last.since(first) + 1).unwrap_or(0)
}
