//! What compaction has made takes its place in the log; and up to where a log is compacted, for the next start.
//!
//! Owns the order in which files change their names, and the note. It must never let go of a segment before what replaces
//! it is durable under a name that the next start knows, nor replace one that is not what it was.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use headwater_protocol::ids::Offset;

use super::super::error::ChangeError;
use super::super::folder::{self, Part};
use super::super::scan::{Scan, Trust};
use super::super::segment::Segment;
use super::super::{Log, note};
use super::pass::Source;
use super::writer::Written;
use crate::sys::disk::{self, Disk, Open};

/// A file that holds what is left of some segments: whole, durable, and not yet in their place.
#[derive(Debug)]
pub struct Replacement {
    written: Written,
    sources: Vec<Source>,
    /// Markers of aborted transactions that are not in the file.
    forgotten: Vec<Offset>,
}

impl Replacement {
    pub(super) fn new(written: Written, sources: Vec<Source>, forgotten: Vec<Offset>) -> Self {
        Self {
            written,
            sources,
            forgotten,
        }
    }

    /// Where the markers of aborted transactions lay that it does without: nothing is left of what they end.
    pub fn forgotten(&self) -> &[Offset] {
        &self.forgotten
    }

    /// Where the first of the segments begins.
    pub fn base(&self) -> Offset {
        self.written.base
    }
}

/// Up to where a log is compacted, and how often segments took the place of others.
#[derive(Debug)]
pub(in super::super) struct Clean {
    /// -1: it never was.
    until: AtomicI64,
    /// Up to here segments gave way to others since the log was opened.
    reached: AtomicI64,
    swaps: AtomicU64,
}

impl Clean {
    /// What was noted; nothing where it cannot be true of a log that ends at `end`.
    pub(in super::super) fn load(disk: &dyn Disk, folder: &Path, end: Offset) -> io::Result<Self> {
        let path = folder.join(folder::CLEAN);
        let until = match note::read(disk, &path)? {
            Some(until) if (0..=end.value()).contains(&until) => until,
            None if disk.file_bytes(&path).is_err() => -1,
            // It was compacted once, up to where is not known.
            Some(_) | None => 0,
        };
        Ok(Self {
            until: AtomicI64::new(until),
            reached: AtomicI64::new(0),
            swaps: AtomicU64::new(0),
        })
    }

    pub(super) fn is_noted(&self) -> bool {
        self.until.load(Ordering::Acquire) >= 0
    }

    /// The first offset that is not known to be compacted.
    pub(super) fn until(&self) -> Offset {
        Offset(self.until.load(Ordering::Acquire).max(0))
    }

    /// Behind it every batch is what was appended.
    pub(super) fn reached(&self) -> Offset {
        self.until().max(Offset(self.reached.load(Ordering::Acquire)))
    }

    /// Changes whenever a segment may not be what it was.
    pub(in super::super) fn swaps(&self) -> u64 {
        self.swaps.load(Ordering::Acquire)
    }
}

impl Log {
    /// Puts what compaction has made in place of the segments it was made of, durably. False: they are not there any
    /// more as they were, and nothing has changed. After `Broken` the next start does it.
    pub fn replace(&mut self, replacement: Replacement) -> Result<bool, ChangeError> {
        let shared = Arc::clone(&self.shared);
        shared.flush.check()?;
        let Replacement { written, sources, .. } = replacement;
        let (base, until) = (written.base, written.end);
        let broken = |cause| shared.flush.break_by("compaction", cause);
        // The recovery point names a segment and a position in it: it must lie behind, on the device too.
        let recovered = {
            let mut checkpoint = shared.flush.checkpoint();
            let content = checkpoint.content();
            // Written anew, since an earlier process may not have synced it.
            let written = checkpoint.write(content).and_then(|()| checkpoint.sync());
            written.map_err(broken)?;
            content.recovered.segment
        };
        let is_behind = recovered >= until;
        let segments = shared.segments.load_full();
        if !is_behind || !sources.iter().all(|source| source.is_in(&segments)) {
            written.discard();
            return Ok(false);
        }
        let (disk, folder) = (&shared.logs.disk, &shared.folder);
        let noted = self.note_dirty_from(base);
        noted.map_err(broken)?;
        let name = |part| folder::path(folder, base, part);
        let named = disk.rename(&name(Part::Cleaned), &name(Part::Swap));
        named.and_then(|()| disk.sync_folder(folder)).map_err(broken)?;
        let gone = sources.iter().map(|source| source.segment.base());
        let gone: Vec<Offset> = gone.collect();
        let next = sources.last().map_or(until, |source| source.next);
        let new = Segment::existing(disk, folder, base, next, written.bytes);
        new.set_index_interval(self.config.index_interval_bytes);
        {
            let _cutting = shared.cutting.write().unwrap_or_else(PoisonError::into_inner);
            take_place(&**disk, folder, base, &gone).map_err(broken)?;
            let at = segments.partition_point(|segment| segment.base() < base);
            let mut all = segments[..at].to_vec();
            all.push(Arc::new(new));
            all.extend_from_slice(&segments[at + gone.len()..]);
            shared.segments.store(Arc::new(all));
            shared.hints.clear();
            shared.tail.drop_below(until);
            shared.clean.reached.fetch_max(until.value(), Ordering::AcqRel);
            shared.clean.swaps.fetch_add(1, Ordering::AcqRel);
        }
        disk.sync_folder(folder).map_err(broken)?;
        self.forget_files(gone, sources);
        Ok(true)
    }

    /// Frees what was replaced. That takes long for large files, and nobody waits for it.
    fn forget_files(&self, gone: Vec<Offset>, sources: Vec<Source>) {
        let logs = &self.shared.logs;
        let (disk, folder) = (Arc::clone(&logs.disk), self.shared.folder.clone());
        drop(logs.tasks.blocking("remove segments", move || {
            for base in gone {
                // What is left of it is dropped at the next start.
                for part in [Part::Deleted, Part::Damaged] {
                    if let Err(error) = disk::remove_if_there(&*disk, &folder::path(&folder, base, part)) {
                        tracing::warn!(folder = %folder.display(), %error, "old segment not removed");
                    }
                }
            }
            // Their handles last: closing them may free what bears no name any more.
            drop(sources);
        }));
    }

    /// Notes that everything below `until` is compacted. Not synced: a lower one only makes work.
    pub fn note_clean(&mut self, until: Offset) {
        let shared = &self.shared;
        let until = until.min(self.end());
        shared.clean.until.store(until.value(), Ordering::Release);
        if let Err(error) = note::write(&*shared.logs.disk, &clean_path(self), until.value()) {
            tracing::warn!(folder = %shared.folder.display(), %error, "end of a compaction not noted");
        }
    }

    /// Notes, durably, that what lies at `from` or behind it is not compacted, if that is news: it is about to become
    /// something else.
    pub(in super::super) fn lower_clean(&mut self, from: Offset) -> io::Result<()> {
        let shared = &self.shared;
        if !shared.clean.is_noted() || shared.clean.until() <= from {
            return Ok(());
        }
        shared.clean.until.store(from.value(), Ordering::Release);
        note::write_durably(&*shared.logs.disk, &clean_path(self), from.value())
    }

    /// Before the first change: that there is a note says that batches may not be what they were.
    fn note_dirty_from(&mut self, base: Offset) -> io::Result<()> {
        let shared = &self.shared;
        if shared.clean.is_noted() {
            return Ok(());
        }
        let path = clean_path(self);
        shared.clean.until.store(base.value(), Ordering::Release);
        // Its name is durable with the next sync of the folder, which is that of the first change.
        note::write_durably(&*shared.logs.disk, &path, base.value())
    }

    /// Forgets it: the log begins anew. Durable with the folder.
    pub(in super::super) fn forget_clean(&mut self) -> io::Result<()> {
        let shared = &self.shared;
        shared.clean.until.store(-1, Ordering::Release);
        shared.clean.reached.store(0, Ordering::Release);
        disk::remove_if_there(&*shared.logs.disk, &clean_path(self))
    }
}

fn clean_path(log: &Log) -> std::path::PathBuf {
    log.shared.folder.join(folder::CLEAN)
}

/// Gives a file its place. Whatever of this a crash leaves undone is done by the next start.
fn take_place(disk: &dyn Disk, folder: &Path, base: Offset, gone: &[Offset]) -> io::Result<()> {
    for gone in gone {
        let name = |part| folder::path(folder, *gone, part);
        disk::remove_if_there(disk, &name(Part::Index))?;
        disk::remove_if_there(disk, &name(Part::TimeIndex))?;
        rename_if_there(disk, &name(Part::Log), &name(Part::Deleted))?;
    }
    let name = |part| folder::path(folder, base, part);
    disk.rename(&name(Part::Swap), &name(Part::Log))?;
    rename_if_there(disk, &name(Part::CleanedIndex), &name(Part::Index))?;
    rename_if_there(disk, &name(Part::CleanedTimeIndex), &name(Part::TimeIndex))
}

/// At the start: puts a file in place that a crash kept from it. `logs` are the segments that are there.
pub(in super::super) fn finish(
    disk: &dyn Disk,
    folder: &Path,
    base: Offset,
    logs: &[Offset],
) -> io::Result<()> {
    let path = folder::path(folder, base, Part::Swap);
    let bytes = disk.file_bytes(&path)?;
    let file = disk.open(&path, Open::Read)?;
    let (mut scan, mut until) = (Scan::new(&*file, Trust::Header, 0, bytes, base), base);
    // It was read through before it got the name. What is damaged since is found like any other damage.
    while let Some(Ok(placed)) = scan.next()? {
        until = placed.header.next_offset();
    }
    let gone: Vec<Offset> = logs
        .iter()
        .copied()
        .filter(|log| *log == base || (base < *log && *log < until))
        .collect();
    let name = |part| folder::path(folder, base, part);
    // Where it lay beside the last one, its index may be another one's.
    disk::remove_if_there(disk, &name(Part::CleanedIndex))?;
    disk::remove_if_there(disk, &name(Part::CleanedTimeIndex))?;
    disk::remove_if_there(disk, &name(Part::Index))?;
    disk::remove_if_there(disk, &name(Part::TimeIndex))?;
    take_place(disk, folder, base, &gone)?;
    disk.sync_folder(folder)?;
    tracing::info!(folder = %folder.display(), %base, %until, "a compaction that was cut short is done");
    Ok(())
}

fn rename_if_there(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    match disk.rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}
