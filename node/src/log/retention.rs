//! What a log lets go of as it ages, and what it begins anew.
//! Owns Kafka's rules of retention: whole segments, oldest first. Must never remove the segment that is appended
//! to, nor anything somebody still has to read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use headwater_protocol::ids::Offset;

use super::segment::Segment;
use super::{AppendError, Log};

/// What a round of maintenance did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maintained {
    /// Bytes of removed segments.
    pub removed_bytes: u64,
    /// The log's start now.
    pub start: Offset,
    /// The offset a new segment began with, if one did.
    pub rolled_at: Option<Offset>,
}

impl Log {
    /// Rolls a segment that has been appended to for `segment.ms`, and removes segments that `retention.ms`
    /// or `retention.bytes` no longer hold, as long as all their records lie below `keep_from`. Call it every
    /// now and then; may read an index.
    pub fn maintain(&mut self, keep_from: Offset) -> Result<Maintained, AppendError> {
        self.shared.flush.check()?;
        let now_ms = self.shared.logs.clock.unix_ms();
        let mut rolled_at = None;
        let age = now_ms.saturating_sub(self.active.since_ms);
        let is_expired = self.is_expired(&self.active.segment, now_ms);
        if self.active.segment.bytes() > 0 && (age >= self.config.segment_ms || is_expired) {
            rolled_at = Some(self.roll(self.end(), 0)?);
        }
        let segments = self.shared.segments.load_full();
        let mut size: u64 = segments.iter().map(|segment| segment.bytes()).sum();
        let mut removed = 0;
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            let is_too_much = self
                .config
                .retention_bytes
                .is_some_and(|limit| size.saturating_sub(segment.bytes()) >= limit);
            let is_gone = next.base() <= self.start();
            let may_go = next.base() <= keep_from;
            if !may_go || !(is_gone || is_too_much || self.is_expired(segment, now_ms)) {
                break;
            }
            size -= segment.bytes();
            removed += 1;
        }
        let removed_bytes = self.drop_front(removed);
        Ok(Maintained {
            removed_bytes,
            start: self.start(),
            rolled_at,
        })
    }

    fn is_expired(&self, segment: &Segment, now_ms: i64) -> bool {
        let Some(retention_ms) = self.config.retention_ms else {
            return false;
        };
        match segment.max_timestamp() {
            Ok(newest) => newest >= 0 && now_ms.saturating_sub(newest) > retention_ms,
            // What cannot be judged stays.
            Err(_) => false,
        }
    }

    /// Removes the first `count` segments, and moves the start behind them. Returns how many bytes they had.
    pub(super) fn drop_front(&mut self, count: usize) -> u64 {
        if count == 0 {
            return 0;
        }
        let shared = &self.shared;
        let segments = shared.segments.load_full();
        let (gone, kept) = segments.split_at(count);
        let start = kept[0].base().max(self.start());
        // Readers learn the start first, so that what they miss is out of range.
        shared.start.store(start.value(), Ordering::Release);
        shared.segments.store(Arc::new(kept.to_vec()));
        {
            let mut checkpoint = shared.flush.checkpoint();
            let mut content = checkpoint.content();
            content.log_start = start;
            // Before they go: what is missing behind the start that is written down counts as lost.
            if let Err(error) = checkpoint.write(content).and_then(|()| checkpoint.sync()) {
                tracing::warn!(folder = %shared.folder.display(), %error, "log start not written");
            }
        }
        if let Err(error) = self.epochs.cut(start, self.shared.end()) {
            tracing::warn!(folder = %self.shared.folder.display(), %error, "epochs not written");
        }
        self.shared.epochs.store(self.epochs.history());
        if let Err(error) = self.snapshots.cut(start, self.shared.end()) {
            tracing::warn!(folder = %self.shared.folder.display(), %error, "old snapshots not removed");
        }
        let gone = gone.to_vec();
        let bytes = gone.iter().map(|segment| segment.bytes()).sum();
        // Freeing a large file takes long, and nobody waits for it. What is left of it is dropped at the
        // next start.
        let folder = self.shared.folder.clone();
        drop(self.shared.logs.tasks.blocking("remove segments", move || {
            for segment in gone {
                if let Err(error) = segment.remove() {
                    tracing::warn!(folder = %folder.display(), %error, "old segment not removed");
                }
            }
        }));
        bytes
    }
}
