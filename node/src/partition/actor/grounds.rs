//! What the partition's knowledge of its producers rests on. A start believes headers that it does not check, and passes over what is
//! damaged; what a repair brings back is read again. What is known of transactions nobody acts on before it was checked.

use super::super::error::AppendError;
use super::super::open::{self, Rebuilt};
use super::super::producers::{Producers, SequenceError, Verdict};
use super::super::transactions::AbortedIndex;
use super::Actor;
use crate::log::Damaged;
use headwater_protocol::ids::Offset;
use headwater_protocol::record::BatchHeader;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long a producer waits for the repair of what it wrote before. Others that hold it are there in a moment.
const REPAIR: Duration = Duration::from_secs(30);

/// What is known of the producers is of this.
#[derive(Debug, Clone)]
pub(in crate::partition) struct Grounds {
    /// What was damaged, and lacks therefore: all of it lies before this.
    unread_until: Option<Offset>,
    /// When somebody was refused for its sake first.
    refused_at: Option<Instant>,
    /// What was read by its headers alone, which may have been spoilt.
    believed: Range<Offset>,
    /// What is known of those who wrote last before this rests on such headers.
    unchecked: Option<Offset>,
    /// Some of that was repaired since, and has not been read again.
    in_doubt: bool,
    /// Somebody was refused by what nobody has checked.
    check_due: bool,
    /// Readers of what is committed come no further, until what lies behind was read with its checksums: a marker may have
    /// rotten, or lie in what is damaged.
    stable_until: Option<Offset>,
}

impl Grounds {
    pub(in crate::partition) fn of(rebuilt: &Rebuilt, end: Offset) -> Self {
        Self {
            unread_until: until(&rebuilt.unread),
            refused_at: None,
            believed: rebuilt.snapshot_at..end,
            unchecked: (rebuilt.snapshot_at < end).then_some(end),
            in_doubt: false,
            check_due: false,
            stable_until: (rebuilt.has_transactions || !rebuilt.unread.is_empty())
                .then_some(rebuilt.stable)
                .filter(|_| rebuilt.snapshot_at < end),
        }
    }

    /// Nothing is known, and nothing is there.
    fn none(at: Offset) -> Self {
        Self {
            unread_until: None,
            refused_at: None,
            believed: at..at,
            unchecked: None,
            in_doubt: false,
            check_due: false,
            stable_until: None,
        }
    }

    /// Whether something repaired there may have been believed wrongly.
    pub(super) fn rest_on(&self, from: Offset, until: Offset) -> bool {
        from < self.believed.end && self.believed.start < until
    }

    pub(super) fn doubt(&mut self) {
        self.in_doubt = true;
    }

    pub(super) fn is_check_due(&self) -> bool {
        self.check_due
    }

    pub(super) fn stable_until(&self) -> Option<Offset> {
        self.stable_until
    }

    /// Where that begins which was read by its headers alone.
    pub(super) fn believed_from(&self) -> Offset {
        self.believed.start
    }

    /// Whether a repair has still to tell what is known wrongly, or not at all.
    pub(super) fn lack(&self) -> bool {
        self.unread_until.is_some() || self.in_doubt
    }

    /// Nobody can do better than to believe the headers.
    pub(super) fn make_do(&mut self) {
        self.stable_until = None;
    }

    /// The headers were right.
    pub(super) fn confirm(&mut self) {
        let end = self.believed.end;
        self.believed = end..end;
        (self.unchecked, self.check_due, self.stable_until) = (None, false, None);
    }
}

fn until(damaged: &[Damaged]) -> Option<Offset> {
    damaged.iter().map(|damaged| damaged.until).max()
}

impl Actor {
    /// What is known of the producers was read from the log.
    pub(super) fn read_producers(&mut self, rebuilt: Rebuilt, end: Offset) {
        self.grounds = Grounds::of(&rebuilt, end);
        self.snapshot_at = rebuilt.snapshot_at;
        self.know_producers(rebuilt.producers);
        self.begin_check();
    }

    /// Nothing is known of any producer: the log was emptied, and begins at `at`.
    pub(super) fn forget_producers(&mut self, at: Offset) {
        self.grounds = Grounds::none(at);
        self.check = None;
        self.snapshot_at = at;
        self.know_producers(Producers::default());
    }

    fn know_producers(&mut self, producers: Producers) {
        self.producers = producers;
        // At once: a reader between the two would take what was aborted for committed.
        let mut aborted = AbortedIndex::default();
        aborted.extend(self.producers.transactions_mut().take_aborted());
        self.shared.transactions().aborted = aborted;
    }

    /// Whether what is known lacks something, or may be wrong, and will be made good: until then it is not written down.
    pub(super) fn awaits_repair(&self) -> bool {
        let is_unsure = self.grounds.lack() || self.grounds.stable_until.is_some();
        (is_unsure || self.shared.has_damage()) && self.shared.has_others()
    }

    /// After a repair, or before it is said what may be wrong: reads the log again for what could not be read of the producers
    /// before, or was read unchecked.
    pub(super) async fn read_again(&mut self) {
        let lacks = self.grounds.unread_until.is_some();
        let is_check = std::mem::take(&mut self.grounds.check_due);
        if !lacks && !self.grounds.in_doubt && !is_check {
            return;
        }
        let now_ms = self.shared.means.clock.unix_ms();
        let learnt_from = self.grounds.believed.end;
        let read = self.with_log("rebuild", move |log| open::rebuild(log, learnt_from, now_ms));
        let Some(Ok(mut rebuilt)) = read.await else { return };
        // What was written later is known, whatever has become of it since.
        rebuilt.unread.retain(|damaged| damaged.from < learnt_from);
        let is_whole = rebuilt.unread.is_empty();
        for damaged in &rebuilt.unread {
            self.shared.note_damaged(damaged.clone());
        }
        if !is_whole && !lacks {
            // More is known than can be read at the moment, but not for certain. There will be another repair.
            self.grounds.unread_until = Some(learnt_from);
            return;
        }
        rebuilt.producers.keep_learnt(&self.producers, learnt_from);
        let end = self.state.watermarks().log_end;
        self.grounds = Grounds {
            unread_until: until(&rebuilt.unread),
            refused_at: self.grounds.refused_at.filter(|_| !is_whole),
            believed: match is_whole {
                true => learnt_from..end,
                false => self.grounds.believed.clone(),
            },
            unchecked: None,
            in_doubt: self.grounds.in_doubt && !is_whole,
            check_due: false,
            stable_until: self.grounds.stable_until.filter(|_| !is_whole),
        };
        if is_whole {
            // What it reads was read just now.
            self.check = None;
        }
        self.snapshot_at = rebuilt.snapshot_at;
        self.know_producers(rebuilt.producers);
        self.publish();
    }

    /// Whether all that the producer of a batch wrote before is known. Where damage hides it, a batch could be taken for one
    /// that is missing before it, or one that repeats another for a new one.
    pub(super) fn check_readable(&mut self, batch: &BatchHeader) -> Result<(), AppendError> {
        let Some(until) = self.grounds.unread_until else {
            return Ok(());
        };
        let producer = batch.producer_id;
        let counts = batch.is_idempotent() && batch.base_sequence >= 0;
        let is_known = self.producers.last_offset(producer) >= Some(until);
        match counts && !is_known && self.may_wait() {
            true => Err(AppendError::Unread { producer }),
            false => Ok(()),
        }
    }

    /// Judges a batch by what its producer wrote before. Headers that nobody has checked refuse nothing: they are checked first.
    pub(super) fn check_sequence(
        &mut self,
        batch: &BatchHeader,
        log_end: Offset,
    ) -> Result<Verdict, AppendError> {
        let judged = self.producers.check(batch, log_end);
        let Err(SequenceError::OutOfOrder { producer, .. }) = judged else {
            return Ok(judged?);
        };
        let last = self.producers.last_offset(producer);
        let is_unchecked = self.grounds.unchecked.is_some_and(|until| last < Some(until));
        if is_unchecked && self.may_wait() {
            self.grounds.check_due = true;
            return Err(AppendError::Unread { producer });
        }
        Ok(judged?)
    }

    /// Whether a producer may be asked to wait for a repair. No, where nobody else has what is damaged, or seems to.
    fn may_wait(&mut self) -> bool {
        if !self.shared.has_others() {
            return false;
        }
        let now = self.shared.means.clock.now();
        let since = *self.grounds.refused_at.get_or_insert(now);
        now.saturating_duration_since(since) < REPAIR
    }
}
