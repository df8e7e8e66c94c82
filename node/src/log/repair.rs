//! A segment that is damaged or missing, fetched anew from another replica, and put where it belongs.
//!
//! Owns the file it is written to and the order in which the files change their names. Nothing of the log is touched
//! before the new segment is whole, durable and read again; what was found is kept beside it.
//!
//! ```text
//! <from>.repairing    written, synced, read again                a crash: removed at the next start
//! <from>.repaired     the same, once it is good                  a crash: put in place at the next start
//! <from>.log          -> <from>.damaged                              the same
//! <from>.repaired     -> <from>.log                                  done, with a sync of the folder
//! ```

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{self, BatchView};

use super::epochs::EpochHistory;
use super::error::{ChangeError, Damaged};
use super::folder::{self, Part};
use super::reader::LogReader;
use super::scan::{Scan, Trust};
use super::segment::Segment;
use super::{Log, config};
use crate::sys::disk::{Disk, File, Open};

/// Why a segment was not repaired. The log is as it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RepairError {
    /// What the other replica sent is not what was here: another one may be better.
    #[error("offset {at} does not fit: {reason}")]
    Unfit { at: Offset, reason: String },
    #[error("cannot write the repaired segment {from}: {cause}")]
    Io { from: Offset, cause: Arc<io::Error> },
}

/// A segment that is being fetched. Dropped, it leaves a file that the next repair or start removes.
#[derive(Debug)]
pub struct Repair {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    file: Arc<dyn File>,
    epochs: Arc<EpochHistory>,
    are_epochs_whole: bool,
    from: Offset,
    until: Offset,
    next: Offset,
    bytes: u64,
    bytes_max: u64,
    other: Other,
}

/// What another replica may have of the offsets that are damaged here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    /// Everything that was here.
    Same,
    /// More or less of it: it is compacted on its own, and may lack the end.
    Compacted,
}

/// A segment that is whole and durable, and has not taken its place yet.
#[derive(Debug)]
pub struct Repaired {
    from: Offset,
    /// Where its last batch ends.
    pub until: Offset,
    pub bytes: u64,
}

impl Repaired {
    /// Where its first batch may begin.
    pub fn from(&self) -> Offset {
        self.from
    }
}

impl LogReader {
    /// Begins the repair of what is damaged. Several segments that are missing side by side are repaired one after the
    /// other. Waits for the disk.
    pub fn begin_repair(
        &self,
        damaged: &Damaged,
        segment_bytes: u64,
        other: Other,
    ) -> Result<Repair, RepairError> {
        let shared = &self.shared;
        let (disk, folder) = (&shared.logs.disk, &shared.folder);
        let path = folder::path(folder, damaged.from, Part::Repairing);
        let segments = shared.segments.load();
        let found = segments.iter().find(|segment| segment.base() == damaged.from);
        // As large as it was.
        let bytes_max = found.map_or(0, |segment| segment.bytes()).max(segment_bytes);
        let room = shared
            .logs
            .spare_bytes
            .saturating_add(bytes_max.min(config::SEGMENT_BYTES_MAX));
        if shared.logs.spare_bytes > 0 && disk.free_bytes(folder).is_ok_and(|free| free < room) {
            return Err(failed(damaged.from, io::ErrorKind::StorageFull.into()));
        }
        let opened = disk.open(&path, Open::Create);
        let opened = opened.and_then(|file| file.truncate(0).map(|()| file));
        let file = opened.map_err(|cause| failed(damaged.from, cause))?;
        Ok(Repair {
            disk: Arc::clone(disk),
            folder: folder.clone(),
            file,
            epochs: self.epochs(),
            are_epochs_whole: shared.are_epochs_whole,
            from: damaged.from,
            until: damaged.until,
            next: damaged.from,
            bytes: 0,
            bytes_max: bytes_max.min(config::SEGMENT_BYTES_MAX),
            other,
        })
    }
}

impl Repair {
    /// Where fetching goes on.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Notes that no replica has anything before `offset` any more.
    pub fn skip_to(&mut self, offset: Offset) {
        if self.bytes == 0 {
            self.next = self.next.max(offset);
        }
    }

    /// Whether everything is there, or as much as one segment holds.
    pub fn is_full(&self) -> bool {
        self.next >= self.until || self.bytes >= self.bytes_max
    }

    /// Takes batches over, as far as they belong to what is damaged. Waits for the disk.
    pub fn append(&mut self, batches: Vec<BatchView>) -> Result<(), RepairError> {
        for batch in batches {
            let header = *batch.header();
            if self.is_full() {
                return Ok(());
            }
            if header.next_offset() <= self.next {
                continue;
            }
            if header.base_offset >= self.until && self.other == Other::Compacted {
                return self.fill();
            }
            batch
                .check_crc()
                .map_err(|error| unfit(header.base_offset, error.to_string()))?;
            self.check(
                header.base_offset,
                header.next_offset(),
                header.partition_leader_epoch,
            )?;
            let written = self.file.write_at(self.bytes, &mut [IoSlice::new(batch.bytes())]);
            written.map_err(|cause| failed(self.from, cause))?;
            self.bytes += batch.bytes().len() as u64;
            self.next = header.next_offset();
        }
        Ok(())
    }

    /// Nothing follows before the end: a batch without records says so, since a segment reaches to where the next begins.
    fn fill(&mut self) -> Result<(), RepairError> {
        let last = self.until.plus(-1);
        let batch = record::filler(last, self.epochs.epoch_at(last));
        let written = self.file.write_at(self.bytes, &mut [IoSlice::new(&batch)]);
        written.map_err(|cause| failed(self.from, cause))?;
        self.bytes += batch.len() as u64;
        self.next = self.until;
        Ok(())
    }

    /// Whether a batch may lie where it says. The first one may begin before the log's start.
    fn check(&self, base: Offset, next: Offset, epoch: LeaderEpoch) -> Result<(), RepairError> {
        let lowest = if self.bytes == 0 { self.from } else { self.next };
        if base < lowest || next > self.until {
            return Err(unfit(base, format!("it lies across {lowest} or {}", self.until)));
        }
        if !self.epochs.may_hold(base, epoch, self.are_epochs_whole) {
            return Err(unfit(base, format!("epoch {epoch} did not write it here")));
        }
        Ok(())
    }

    /// Makes the segment durable and reads it again from the device. It takes its place by [`Log::adopt`], or at the next
    /// start.
    pub fn finish(self) -> Result<Repaired, RepairError> {
        let from = self.from;
        self.file.sync().map_err(|cause| failed(from, cause))?;
        let mut scan = Scan::new(&*self.file, Trust::Device, 0, self.bytes, from);
        let mut end = from;
        while let Some(found) = scan.next().map_err(|cause| failed(from, cause))? {
            let placed = found.map_err(|damage| unfit(end, damage.reason))?;
            end = placed.header.next_offset();
        }
        if self.bytes == 0 || end != self.next {
            return Err(unfit(end, format!("the segment should end at {}", self.next)));
        }
        let name = |part| folder::path(&self.folder, from, part);
        let named = self.disk.rename(&name(Part::Repairing), &name(Part::Repaired));
        let durable = named.and_then(|()| self.disk.sync_folder(&self.folder));
        durable.map_err(|cause| failed(from, cause))?;
        Ok(Repaired {
            from,
            until: end,
            bytes: self.bytes,
        })
    }
}

impl Log {
    /// Begins a new segment if the one that is appended to begins at `from`: what is repaired is not appended to. Returns
    /// where the segment at `from` ends or, if it is missing, how far it can reach: to what follows, to `until` at most.
    pub fn close_segment(&mut self, from: Offset, until: Offset) -> Result<Offset, ChangeError> {
        if self.active.segment.base() == from && self.active.segment.bytes() > 0 {
            let end = self.end();
            self.roll(end, 0).map_err(ChangeError::of)?;
        }
        let segments = self.shared.segments.load();
        let at = segments.partition_point(|segment| segment.base() < from);
        Ok(match segments.get(at) {
            Some(segment) if segment.base() == from => segment.next(),
            Some(following) => until.min(following.base()),
            None => until,
        })
    }

    /// Puts a repaired segment where it belongs, durably. False: the log does not reach there any more, or something is
    /// appended there; the repaired segment is gone then. After `Broken` the next start does it.
    pub fn adopt(&mut self, repaired: Repaired) -> Result<bool, ChangeError> {
        let shared = Arc::clone(&self.shared);
        let from = repaired.from;
        // The recovery point names positions: it must lie behind.
        shared.flush.now()?;
        let broken = |cause| shared.flush.break_by("repair", cause);
        shared.flush.checkpoint().sync().map_err(broken)?;
        let _cutting = shared.cutting.write().unwrap_or_else(PoisonError::into_inner);
        let segments = shared.segments.load_full();
        let at = segments.partition_point(|segment| segment.base() < from);
        let is_there = segments.get(at).is_some_and(|segment| segment.base() == from);
        let following = segments.get(at + usize::from(is_there));
        // One before it may hold its offsets by now: compaction puts segments together.
        let before = at.checked_sub(1).filter(|_| !is_there);
        let end = before.and_then(|before| segments[before].stored_end().ok());
        let is_free = end.is_none_or(|end| end <= from);
        let following = following.filter(|next| is_free && next.base() >= repaired.until);
        let Some(following) = following else {
            let (disk, folder) = (&shared.logs.disk, &shared.folder);
            let path = folder::path(folder, from, Part::Repaired);
            let removed = disk.remove_file(&path);
            removed.and_then(|()| disk.sync_folder(folder)).map_err(broken)?;
            return Ok(false);
        };
        self.lower_clean(from).map_err(broken)?;
        let disk = &shared.logs.disk;
        put_in_place(disk, &shared.folder, from).map_err(broken)?;
        let segment = Segment::existing(disk, &shared.folder, from, following.base(), repaired.bytes);
        segment.set_index_interval(self.config.index_interval_bytes);
        let mut all = Vec::clone(&segments);
        if is_there {
            all[at] = Arc::new(segment);
        } else {
            if let Some(before) = at.checked_sub(1) {
                all[before].set_next(from);
            }
            all.insert(at, Arc::new(segment));
        }
        shared.segments.store(Arc::new(all));
        shared.hints.clear();
        Ok(true)
    }
}

/// Gives a repaired segment its name. Whatever of this a crash leaves undone is done by the next start.
pub(super) fn put_in_place(disk: &Arc<dyn Disk>, folder: &Path, from: Offset) -> io::Result<()> {
    let gone = Segment::existing(disk, folder, from, from, 0);
    // An index is made anew from the batches.
    gone.remove_part(Part::Index)?;
    gone.remove_part(Part::TimeIndex)?;
    let name = |part| folder::path(folder, from, part);
    match disk.rename(&name(Part::Log), &name(Part::Damaged)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        renamed => renamed?,
    }
    disk.rename(&name(Part::Repaired), &name(Part::Log))?;
    disk.sync_folder(folder)
}

fn unfit(at: Offset, reason: String) -> RepairError {
    RepairError::Unfit { at, reason }
}

fn failed(from: Offset, cause: io::Error) -> RepairError {
    let cause = Arc::new(cause);
    RepairError::Io { from, cause }
}
