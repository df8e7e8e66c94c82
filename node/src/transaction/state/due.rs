//! What happens by itself: a transaction that takes too long is aborted, a decision is carried through, an id that nobody uses is
//! forgotten.

use super::super::request::{Stage, TransactionalId};
use super::{Entry, Now, State};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// When what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Beyond this nothing is planned: it is looked at again then.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// When each transactional id is looked at.
#[derive(Debug, Default)]
pub(super) struct Due {
    by_time: BTreeSet<(Instant, TransactionalId)>,
    by_id: BTreeMap<TransactionalId, Instant>,
}

impl Due {
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    fn set(&mut self, id: &TransactionalId, at: Option<Instant>) {
        if let Some(before) = self.by_id.remove(id) {
            self.by_time.remove(&(before, id.clone()));
        }
        if let Some(at) = at {
            self.by_id.insert(id.clone(), at);
            self.by_time.insert((at, id.clone()));
        }
    }

    fn take(&mut self, now: Instant) -> Option<TransactionalId> {
        let id = self
            .by_time
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, id)| id.clone())?;
        self.set(&id, None);
        Some(id)
    }
}

impl State {
    /// Deals with everything that is due.
    pub(crate) fn tick(&mut self, now: Now) {
        while let Some(id) = self.due.take(now.at) {
            self.is_due(&id, now);
        }
    }

    fn is_due(&mut self, id: &TransactionalId, now: Now) {
        let Some(entry) = self.known.get(id) else { return };
        let (Some(kept), false) = (&entry.kept, entry.is_writing) else {
            // It is looked at again when the write has ended.
            return;
        };
        let is_over = self.time_of(entry).is_some_and(|unix_ms| unix_ms <= now.unix_ms);
        match kept.stage {
            Stage::Ongoing if is_over => {
                tracing::info!(transactional_id = %id, "a transaction is aborted: it takes too long");
                self.abort_and_fence(id, now);
            }
            Stage::PrepareCommit | Stage::PrepareAbort if entry.is_marked => self.complete(id, now),
            Stage::Empty | Stage::CompleteCommit | Stage::CompleteAbort if is_over => {
                self.write(id, None, None);
            }
            _ => self.expect(id, now),
        }
    }

    /// When something is to happen to it by itself, in milliseconds since 1970.
    fn time_of(&self, entry: &Entry) -> Option<i64> {
        let kept = entry.kept.as_ref()?;
        match kept.stage {
            Stage::Ongoing => Some(kept.started_ms?.saturating_add(i64::from(kept.timeout_ms))),
            Stage::PrepareCommit | Stage::PrepareAbort => None,
            Stage::Empty | Stage::CompleteCommit | Stage::CompleteAbort => {
                let expiration = i64::try_from(self.settings.expiration.as_millis()).unwrap_or(i64::MAX);
                Some(kept.updated_ms.saturating_add(expiration))
            }
        }
    }

    /// Plans when the id is looked at next.
    pub(super) fn expect(&mut self, id: &TransactionalId, now: Now) {
        let unix_ms = self.known.get(id).and_then(|entry| self.time_of(entry));
        let at = unix_ms.map(|unix_ms| {
            let left = u64::try_from(unix_ms.saturating_sub(now.unix_ms)).unwrap_or(0);
            now.at + Duration::from_millis(left).min(FAR)
        });
        self.due.set(id, at);
    }

    /// As `expect`, but soon: what should have happened did not.
    pub(super) fn expect_again(&mut self, id: &TransactionalId, now: Now) {
        let is_known = self.known.contains_key(id);
        self.due.set(id, is_known.then(|| now.at + AGAIN));
    }
}
