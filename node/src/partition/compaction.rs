//! The compaction of a partition's log, as the cleaner calls it: how dirty it is, what a pass works with, and what it has
//! made.
//!
//! Owns the bound: nothing that is not committed, nor behind an open transaction, is compacted. Leader and followers
//! compact alike, each on its own.

use super::Partition;
use super::command::{Command, Replace};
use super::error::{LookupError, Unavailable};
use crate::log::{Aborted, CleanOptions, DirtRules, LogReader, Replacement};
use headwater_protocol::ids::Offset;

impl Partition {
    /// The log, and what of it may be compacted; nothing where the topic is not compacted, or the log cannot be trusted.
    pub(super) fn to_compact(&self) -> Option<(LogReader, DirtRules)> {
        let live = self.shared.live.load();
        if !live.config.compacted || live.offline.is_some() {
            return None;
        }
        let marks = *self.shared.watermarks.borrow();
        let rules = DirtRules {
            until: marks.high_watermark.min(marks.last_stable),
            lag_min_ms: live.config.compaction_lag_min_ms,
            lag_max_ms: live.config.compaction_lag_max_ms,
        };
        Some((self.shared.reader.clone()?, rules))
    }

    /// What a pass works with.
    pub(super) async fn clean_options(&self, map_bytes: usize) -> Result<CleanOptions, Unavailable> {
        // What is not committed may go again: then the one before it is the producer's last.
        let before = self.shared.watermarks.borrow().high_watermark;
        let asked = self.ask_task(|reply| Command::LastOfProducers { before, reply });
        let producers = asked.await?;
        let config = self.config();
        Ok(CleanOptions {
            map_bytes,
            segment_bytes: config.segment_bytes,
            delete_retention_ms: config.delete_retention_ms,
            producers,
            aborted: self.aborted_before(before),
        })
    }

    fn aborted_before(&self, end: Offset) -> Vec<Aborted> {
        let found = self.shared.aborted_between(Offset::ZERO, end);
        let aborted = found.into_iter().map(|it| Aborted {
            producer: it.producer,
            first: it.first,
            last: it.marker,
        });
        aborted.collect()
    }

    /// Puts what compaction has made where it belongs. False: the log has changed meanwhile. If the future is dropped, it
    /// may have happened.
    pub(super) async fn replace(&self, replacement: Replacement) -> Result<bool, LookupError> {
        let replace = |reply| Command::Replace(Box::new(Replace { replacement, reply }));
        self.ask_task(replace).await?
    }

    /// Notes up to where the log is compacted.
    pub(super) async fn note_clean(&self, until: Offset) {
        // A partition that has stopped does not need it: the next pass begins where this one did.
        let _ = self.shared.mailbox.send(Command::NoteClean { until }).await;
    }

    /// Whether a batch at `offset` may not be what was appended there, since the log was compacted. What is appended to is.
    pub fn may_be_compacted(&self, offset: Offset) -> bool {
        let reader = self.shared.reader.as_ref();
        reader.is_some_and(|reader| reader.may_be_compacted(offset))
    }
}
