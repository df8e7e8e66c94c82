//! Taking batches away: from the end when another history won, from the front when asked to.
//! Owns the order of the steps, each of which leaves a log that can be opened. All of them wait for the device.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use headwater_protocol::ids::Offset;

use super::checkpoint::{Checkpoint, RecoveryPoint, SegmentsOnDisk};
use super::error::{Broken, ChangeError};
use super::flush::Flush;
use super::segment::Segment;
use super::{Active, Log, watermark};

impl Log {
    /// Removes every batch that ends behind `offset`. Returns the log's end, where the last batch that is left
    /// ends: lower than `offset` when a batch lay across it, or none before it. An epoch that began at the end and
    /// wrote nothing goes, too. Durable on return.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<Offset, ChangeError> {
        let shared = Arc::clone(&self.shared);
        shared.flush.check()?;
        let (start, end) = (self.start(), self.end());
        if offset >= end {
            // Another history won: an epoch of ours without a record must not be taken for a part of it.
            let cut = self.epochs.cut(start, end);
            self.shared.epochs.store(self.epochs.history());
            cut.map_err(|cause| ChangeError::of(self.refuse("cut of epochs", 0, cause)))?;
            return Ok(end);
        }
        if offset < start {
            return Err(ChangeError::OutOfRange {
                asked: offset,
                start,
                end,
            });
        }
        self.touch()
            .map_err(|cause| ChangeError::of(self.refuse("truncation", 0, cause)))?;
        // What stays is durable first: the books of the sync are closed with the cut.
        shared.flush.now()?;
        let _cutting = shared.cutting.write().unwrap_or_else(PoisonError::into_inner);
        let _pause = shared.flush.pause();
        let segments = shared.segments.load_full();
        let begun = self.begin_cut(&segments, offset);
        let (last, position) = begun.map_err(|cause| ChangeError::of(self.refuse("truncation", 0, cause)))?;
        let done = self.cut_end(&segments, last, position);
        done.map_err(|cause| shared.flush.break_by("truncation", cause).into())
    }

    /// Writes down that nothing behind `offset` counts as checked. Takes nothing away yet: where there is no room, the log stays as
    /// it is. Answers with the segment that will be the last, and where it will end.
    fn begin_cut(&mut self, segments: &[Arc<Segment>], offset: Offset) -> io::Result<(usize, u64)> {
        let last = segments
            .partition_point(|segment| segment.base() <= offset)
            .saturating_sub(1);
        let segment = &segments[last];
        let first_gone = segment.find(offset)?;
        let position = match first_gone {
            Some(placed) => placed.position,
            None => segment.bytes(),
        };
        lower_checkpoint(&self.shared.flush, segment, position)?;
        self.lower_clean(segment.base())?;
        Ok((last, position))
    }

    fn cut_end(&mut self, segments: &[Arc<Segment>], last: usize, position: u64) -> io::Result<Offset> {
        let shared = &self.shared;
        let segment = &segments[last];
        for later in segments[last + 1..].iter().rev() {
            later.remove()?;
        }
        shared.logs.disk.sync_folder(&shared.folder)?;
        let end = segment.cut(position)?.max(shared.start());
        shared.end.store(end.value(), Ordering::Release);
        shared.segments.store(Arc::new(segments[..=last].to_vec()));
        shared.tail.reset(end);
        shared.hints.clear();
        self.epochs.cut(self.shared.start(), end)?;
        self.shared.epochs.store(self.epochs.history());
        self.snapshots.cut(self.shared.start(), end)?;
        let segment = Arc::clone(segment);
        self.shared.flush.cut(&segment, segment.max_timestamp()?, end);
        self.adopt_active(segment);
        Ok(end)
    }

    /// Empties the log and begins it anew at `offset`. Durable on return.
    pub fn restart_at(&mut self, offset: Offset) -> Result<(), ChangeError> {
        let shared = Arc::clone(&self.shared);
        shared.flush.check()?;
        self.touch()
            .map_err(|cause| ChangeError::of(self.refuse("restart", 0, cause)))?;
        let _cutting = shared.cutting.write().unwrap_or_else(PoisonError::into_inner);
        let _pause = shared.flush.pause();
        let done = self.empty(offset);
        done.map_err(|cause| shared.flush.break_by("restart", cause).into())
    }

    fn empty(&mut self, offset: Offset) -> io::Result<()> {
        let shared = &self.shared;
        let mut content = Checkpoint {
            log_start: offset,
            recovered: RecoveryPoint::front_of(offset),
            segments: SegmentsOnDisk::None,
        };
        save(&shared.flush, content)?;
        for segment in shared.segments.load().iter().rev() {
            segment.remove()?;
        }
        watermark::forget(&shared.logs.disk, &shared.folder)?;
        self.forget_clean()?;
        let shared = &self.shared;
        shared.logs.disk.sync_folder(&shared.folder)?;
        let segment = Segment::create(&shared.logs.disk, &shared.folder, offset)?;
        segment.set_index_interval(self.config.index_interval_bytes);
        shared.logs.disk.sync_folder(&shared.folder)?;
        content.segments = SegmentsOnDisk::All;
        save(&shared.flush, content)?;
        shared.start.store(offset.value(), Ordering::Release);
        shared.end.store(offset.value(), Ordering::Release);
        shared.segments.store(Arc::new(vec![Arc::clone(&segment)]));
        shared.tail.reset(offset);
        shared.hints.clear();
        // Nothing is both at the start or behind it, and before it.
        self.epochs.cut(Offset::ZERO, Offset::ZERO)?;
        self.shared.epochs.store(self.epochs.history());
        self.snapshots.cut(Offset(i64::MAX), Offset::ZERO)?;
        self.shared.flush.cut(&segment, -1, offset);
        self.adopt_active(segment);
        Ok(())
    }

    /// Makes everything below `offset` unreadable, and removes the segments that lie wholly below it.
    /// Durable on return.
    pub fn trim_to(&mut self, offset: Offset) -> Result<(), ChangeError> {
        self.shared.flush.check()?;
        let (start, end) = (self.start(), self.end());
        if offset > end {
            return Err(ChangeError::OutOfRange {
                asked: offset,
                start,
                end,
            });
        }
        if offset <= start {
            return Ok(());
        }
        let broken = |cause| self.shared.flush.break_by("trim", cause);
        self.save_start(offset).map_err(broken)?;
        self.shared.start.store(offset.value(), Ordering::Release);
        let segments = self.shared.segments.load_full();
        let below = segments
            .iter()
            .skip(1)
            .take_while(|segment| segment.base() <= offset)
            .count();
        if below > 0 {
            self.drop_front(below);
        } else {
            let cut = self.epochs.cut(offset, end);
            self.shared.epochs.store(self.epochs.history());
            cut.map_err(|cause| self.shared.flush.break_by("trim of epochs", cause))?;
        }
        Ok(())
    }

    fn save_start(&self, offset: Offset) -> io::Result<()> {
        let mut checkpoint = self.shared.flush.checkpoint();
        let content = Checkpoint {
            log_start: offset,
            ..checkpoint.content()
        };
        checkpoint.write(content)?;
        checkpoint.sync()
    }

    fn adopt_active(&mut self, segment: Arc<Segment>) {
        self.active = Active::begin(segment, self.shared.logs.clock.unix_ms());
    }

    /// Whether the log is broken, and why.
    pub fn broken(&self) -> Option<Arc<Broken>> {
        self.shared.flush.check().err()
    }
}

/// Takes the recovery point back before the end goes below it: bytes written there later are then checked.
fn lower_checkpoint(flush: &Flush, segment: &Segment, position: u64) -> io::Result<()> {
    let content = flush.checkpoint().content();
    let point = content.recovered;
    if (point.segment, point.position) <= (segment.base(), position) {
        return Ok(());
    }
    save(
        flush,
        Checkpoint {
            recovered: RecoveryPoint::front_of(segment.base()),
            ..content
        },
    )
}

fn save(flush: &Flush, content: Checkpoint) -> io::Result<()> {
    let mut checkpoint = flush.checkpoint();
    checkpoint.write(content)?;
    checkpoint.sync()
}
