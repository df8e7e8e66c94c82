//! How transactions end: decided first, then marked in every partition, then done.

use super::super::error::TransactionError;
use super::super::request::{End, Producer, Stage, TransactionalId};
use super::super::store::Kept;
use super::{CallId, EPOCH_MAX, Now, State, new_producer, next_epoch};

/// What becomes of a request to end a transaction.
enum Verdict {
    /// It ends now, and its producer goes on as this.
    Ends(Kept, Producer),
    /// It has ended so before.
    Ended(Producer),
}

impl State {
    /// A producer ends its transaction.
    pub(crate) fn end(&mut self, now: Now, call: CallId, end: &End) {
        match self.ended(now, end) {
            Ok(Verdict::Ends(kept, producer)) => {
                self.write(&end.id, Some(kept), Some((call, producer)));
            }
            Ok(Verdict::Ended(producer)) => self.answer(call, Ok(producer)),
            Err(error) => self.answer(call, Err(error)),
        }
    }

    fn ended(&self, now: Now, end: &End) -> Result<Verdict, TransactionError> {
        let entry = self.known.get(&end.id).ok_or(TransactionError::UnknownProducer)?;
        let kept = entry.idle()?;
        // The answer was lost: it asks again by the epoch that the transaction had.
        let is_retry = end.bumps_epoch && kept.bumps_epoch && kept.before == Some(end.producer);
        if !is_retry {
            kept.check(end.producer)?;
        }
        let is_same = match kept.stage {
            Stage::PrepareCommit | Stage::CompleteCommit => end.commit,
            Stage::PrepareAbort | Stage::CompleteAbort => !end.commit,
            Stage::Empty | Stage::Ongoing => false,
        };
        match kept.stage {
            Stage::Ongoing if is_retry => Err(TransactionError::Fenced),
            Stage::Ongoing => self.prepared(now, end, kept),
            Stage::PrepareCommit | Stage::PrepareAbort if is_same => Err(TransactionError::Concurrent),
            // It speaks of the next transaction by an epoch that this one has given it, before this one is done with.
            Stage::PrepareCommit | Stage::PrepareAbort if kept.bumps_epoch && !is_retry => {
                Err(TransactionError::Concurrent)
            }
            Stage::CompleteCommit | Stage::CompleteAbort if is_same && (is_retry || !end.bumps_epoch) => {
                Ok(Verdict::Ended(kept.producer))
            }
            // With an epoch of its own, a transaction into which nothing came is aborted, too.
            Stage::Empty | Stage::CompleteCommit | Stage::CompleteAbort
                if end.bumps_epoch && !end.commit && !is_retry =>
            {
                self.prepared(now, end, kept)
            }
            Stage::Empty
            | Stage::PrepareCommit
            | Stage::PrepareAbort
            | Stage::CompleteCommit
            | Stage::CompleteAbort => Err(TransactionError::InvalidState),
        }
    }

    fn prepared(&self, now: Now, end: &End, kept: &Kept) -> Result<Verdict, TransactionError> {
        let mut next = Kept {
            stage: match end.commit {
                true => Stage::PrepareCommit,
                false => Stage::PrepareAbort,
            },
            updated_ms: now.unix_ms,
            bumps_epoch: end.bumps_epoch,
            next: None,
            ..kept.clone()
        };
        if kept.stage != Stage::Ongoing {
            next.partitions.clear();
        }
        if end.bumps_epoch {
            next.before = Some(kept.producer);
            next.producer = next_epoch(kept.producer);
            if next.producer.epoch > EPOCH_MAX {
                next.next = Some(end.fresh.ok_or(TransactionError::NeedsProducerId)?);
            }
        }
        let goes_on_as = next.next.map_or(next.producer, new_producer);
        Ok(Verdict::Ends(next, goes_on_as))
    }

    /// Ends a transaction whose producer is not to go on. It is ongoing, and nothing is on its way.
    pub(super) fn abort_and_fence(&mut self, id: &TransactionalId, now: Now) {
        let Some(kept) = self.known.get(id).and_then(|entry| entry.kept.clone()) else {
            return;
        };
        let next = Kept {
            producer: next_epoch(kept.producer),
            before: None,
            stage: Stage::PrepareAbort,
            updated_ms: now.unix_ms,
            bumps_epoch: false,
            ..kept
        };
        self.write(id, Some(next), None);
    }

    /// Every partition of the transaction has its marker.
    pub(crate) fn marked(&mut self, id: &TransactionalId, producer: Producer, now: Now) {
        let Some(entry) = self.known.get_mut(id) else {
            return;
        };
        let is_meant = entry
            .kept
            .as_ref()
            .is_some_and(|kept| kept.stage.is_preparing() && kept.producer == producer);
        if !is_meant {
            return;
        }
        entry.is_marked = true;
        if !entry.is_writing {
            self.complete(id, now);
        }
    }

    /// Notes that the transaction is done.
    pub(super) fn complete(&mut self, id: &TransactionalId, now: Now) {
        let Some(kept) = self.known.get(id).and_then(|entry| entry.kept.clone()) else {
            return;
        };
        let done = Kept {
            stage: match kept.stage {
                Stage::PrepareCommit => Stage::CompleteCommit,
                _ => Stage::CompleteAbort,
            },
            producer: kept.next.map_or(kept.producer, new_producer),
            next: None,
            partitions: Default::default(),
            updated_ms: now.unix_ms,
            ..kept
        };
        self.write(id, Some(done), None);
    }
}
