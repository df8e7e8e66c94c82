//! One segment: a run of batches in one file, and its indexes.
//!
//! It owns its files. Many read it at once; one owner appends to the last one. A reader never looks beyond
//! `bytes`, which the owner raises only after the write behind it is done. It must never say where the log
//! ends: that is the log's word.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use headwater_protocol::ids::Offset;
use headwater_protocol::record::BatchHeader;

use super::folder::{self, Part};
use super::index::{Entry, Index};
use super::scan::{Placed, Scan, Trust};
use crate::sys::disk::{self, Disk, File, Open};

/// No record has a timestamp.
const NO_TIMESTAMP: i64 = -1;
/// The largest timestamp was not looked up yet.
const UNKNOWN: i64 = i64::MIN;

#[derive(Debug)]
pub(super) struct Segment {
    base: Offset,
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    file: OnceLock<Arc<dyn File>>,
    index: Index,
    /// Whether the index can be asked. The lock is held while it is loaded or rebuilt.
    index_loaded: Mutex<bool>,
    bytes: AtomicU64,
    next: AtomicI64,
    max_timestamp: AtomicI64,
    index_interval: AtomicU64,
}

impl Segment {
    /// Makes an empty segment. Its name is durable after a sync of the folder.
    pub(super) fn create(disk: &Arc<dyn Disk>, folder: &Path, base: Offset) -> io::Result<Arc<Self>> {
        let file = disk.open(&folder::path(folder, base, Part::Log), Open::Create)?;
        file.truncate(0)?;
        let segment = Self::existing(disk, folder, base, base, 0);
        segment
            .file
            .set(file)
            .expect("nobody else has seen the segment yet");
        segment.set_indexed(NO_TIMESTAMP);
        Ok(Arc::new(segment))
    }

    /// A segment whose file is there, of so many bytes, with offsets below `next`. Nothing is opened yet.
    pub(super) fn existing(
        disk: &Arc<dyn Disk>,
        folder: &Path,
        base: Offset,
        next: Offset,
        bytes: u64,
    ) -> Self {
        let offsets = folder::path(folder, base, Part::Index);
        let times = folder::path(folder, base, Part::TimeIndex);
        Self {
            base,
            disk: Arc::clone(disk),
            folder: folder.to_owned(),
            file: OnceLock::new(),
            index: Index::empty(Arc::clone(disk), offsets, times, base),
            index_loaded: Mutex::new(false),
            bytes: AtomicU64::new(bytes),
            next: AtomicI64::new(next.value()),
            max_timestamp: AtomicI64::new(UNKNOWN),
            index_interval: AtomicU64::new(4096),
        }
    }

    pub(super) fn base(&self) -> Offset {
        self.base
    }

    /// Bytes of whole batches.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// The offset after its last batch; a later segment may begin further on.
    pub(super) fn next(&self) -> Offset {
        Offset(self.next.load(Ordering::Acquire))
    }

    pub(super) fn file(&self) -> io::Result<&Arc<dyn File>> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = self
            .disk
            .open(&folder::path(&self.folder, self.base, Part::Log), Open::Write)?;
        // If two opened it at once, either handle will do.
        Ok(self.file.get_or_init(|| file))
    }

    /// The file by its name, opened for this alone: so that it is seen whether the name still leads there.
    pub(super) fn open_again(&self) -> io::Result<Arc<dyn File>> {
        self.disk
            .open(&folder::path(&self.folder, self.base, Part::Log), Open::Read)
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// Says that the index holds what it should, and what the largest timestamp is.
    pub(super) fn set_indexed(&self, max_timestamp: i64) {
        *self.index_loaded.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.max_timestamp.store(max_timestamp, Ordering::Release);
    }

    /// Sets the books while the segment is opened: what lies before `position` is believed, and indexed.
    pub(super) fn begin_at(&self, position: u64, next: Offset, max_timestamp: i64) {
        self.bytes.store(position, Ordering::Release);
        self.next.store(next.value(), Ordering::Release);
        self.set_indexed(max_timestamp);
    }

    pub(super) fn index_interval(&self) -> u64 {
        self.index_interval.load(Ordering::Relaxed)
    }

    pub(super) fn set_index_interval(&self, bytes: u64) {
        self.index_interval.store(bytes, Ordering::Relaxed);
    }

    /// Takes a batch that lies at `position`, the end so far, into the books. Readers see it from here on.
    pub(super) fn note(&self, header: &BatchHeader, position: u64) -> io::Result<()> {
        let max_before = self.max_timestamp.load(Ordering::Relaxed);
        let entry = Entry {
            offset: header.base_offset,
            position,
            max_before,
        };
        let noted = self
            .index
            .offer(entry, self.index_interval.load(Ordering::Relaxed));
        self.max_timestamp
            .store(max_before.max(header.max_timestamp), Ordering::Release);
        self.next.store(header.next_offset().value(), Ordering::Release);
        self.bytes
            .store(position + header.total_bytes() as u64, Ordering::Release);
        noted
    }

    /// Writes the rest of the indexes: nothing will be appended. They are durable after [`Segment::sync`].
    pub(super) fn seal(&self) -> io::Result<()> {
        self.index.seal(self.max_timestamp.load(Ordering::Acquire))?;
        // Gives back the room reserved behind the end.
        self.file()?.truncate(self.bytes())
    }

    /// Returns once batches and saved index entries are durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file()?.sync()?;
        self.index.sync()
    }

    /// The largest timestamp of its records, -1 for none. May read, or rebuild, an index.
    pub(super) fn max_timestamp(&self) -> io::Result<i64> {
        let known = self.max_timestamp.load(Ordering::Acquire);
        if known != UNKNOWN {
            return Ok(known);
        }
        self.load_index()?;
        Ok(self.max_timestamp.load(Ordering::Acquire))
    }

    /// The offset after the last batch in the file. Lower than [`Segment::next`] where something is missing, or left out.
    pub(super) fn stored_end(&self) -> io::Result<Offset> {
        self.load_index()?;
        let start = self.index.at_offset(Offset(i64::MAX))?;
        let (position, mut end) = start.map_or((0, self.base), |entry| (entry.position, entry.offset));
        let mut scan = Scan::new(&**self.file()?, Trust::Header, position, self.bytes(), end);
        while let Some(found) = scan.next()? {
            let placed = found.map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage.reason))?;
            end = placed.header.next_offset();
        }
        Ok(end)
    }

    /// Says where the next segment begins: one was put between.
    pub(super) fn set_next(&self, next: Offset) {
        self.next.store(next.value(), Ordering::Release);
    }

    /// The batch that holds `offset`, or the first one after it. `None` when there is none in the segment.
    pub(super) fn find(&self, offset: Offset) -> io::Result<Option<Placed>> {
        self.load_index()?;
        let start = whole(self.index.at_offset(offset))?;
        let found = match start {
            Some(start) => self.find_from(start, |placed| placed.header.next_offset() > offset)?,
            None => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        self.rebuild_index()?;
        let start = self.index.at_offset(offset)?;
        let found = self.find_from(start, |placed| placed.header.next_offset() > offset)?;
        found.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a rebuilt index does not fit"))
    }

    /// The first batch with a record of this time or later.
    pub(super) fn find_time(&self, timestamp_ms: i64) -> io::Result<Option<Placed>> {
        self.load_index()?;
        let start = whole(self.index.before_time(timestamp_ms))?;
        let found = match start {
            Some(start) => self.find_from(start, |placed| placed.header.max_timestamp >= timestamp_ms)?,
            None => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        self.rebuild_index()?;
        let start = self.index.before_time(timestamp_ms)?;
        let found = self.find_from(start, |placed| placed.header.max_timestamp >= timestamp_ms)?;
        found.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a rebuilt index does not fit"))
    }

    /// Scans headers from an index entry on. The outer `None` says that the entry lied.
    fn find_from(
        &self,
        start: Option<Entry>,
        wanted: impl Fn(&Placed) -> bool,
    ) -> io::Result<Option<Option<Placed>>> {
        let (position, next) = start.map_or((0, self.base), |entry| (entry.position, entry.offset));
        let end = self.bytes();
        if position > end {
            return Ok(None);
        }
        let mut scan = Scan::new(&**self.file()?, Trust::Header, position, end, next);
        let mut is_first = true;
        while let Some(found) = scan.next()? {
            let placed = match found {
                Ok(placed) => placed,
                Err(_) if is_first && start.is_some() => return Ok(None),
                Err(damage) => return Err(io::Error::new(io::ErrorKind::InvalidData, damage.reason)),
            };
            if is_first && start.is_some_and(|entry| entry.offset != placed.header.base_offset) {
                return Ok(None);
            }
            if wanted(&placed) {
                return Ok(Some(Some(placed)));
            }
            is_first = false;
        }
        Ok(Some(None))
    }

    fn load_index(&self) -> io::Result<()> {
        let mut loaded = self.index_loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if *loaded {
            return Ok(());
        }
        match self.index.adopt_sealed()? {
            Some(max) => self.max_timestamp.store(max, Ordering::Release),
            None => self.rebuild(&loaded)?,
        }
        *loaded = true;
        Ok(())
    }

    pub(super) fn rebuild_index(&self) -> io::Result<()> {
        let loaded = self.index_loaded.lock().unwrap_or_else(PoisonError::into_inner);
        self.rebuild(&loaded)
    }

    /// Makes the index anew from the batches. The guard says that nobody else does.
    fn rebuild(&self, _guard: &bool) -> io::Result<()> {
        tracing::warn!(folder = %self.folder.display(), segment = %self.base, "index is rebuilt");
        let interval = self.index_interval.load(Ordering::Relaxed).max(1);
        let mut scan = Scan::new(&**self.file()?, Trust::Header, 0, self.bytes(), self.base);
        let (mut entries, mut max_before): (Vec<Entry>, i64) = (Vec::new(), NO_TIMESTAMP);
        // What lies behind damage is found by nobody, what lies before it by everybody.
        while let Some(Ok(placed)) = scan.next()? {
            if placed.header.next_offset() > self.next() {
                break;
            }
            let is_far = entries
                .last()
                .is_none_or(|last| placed.position - last.position >= interval);
            if is_far {
                let offset = placed.header.base_offset;
                entries.push(Entry {
                    offset,
                    position: placed.position,
                    max_before,
                });
            }
            max_before = max_before.max(placed.header.max_timestamp);
        }
        self.index.replace(entries, max_before)?;
        self.max_timestamp.store(max_before, Ordering::Release);
        Ok(())
    }

    /// Cuts everything from the batch at `position` on off, and returns the offset after what is left. The
    /// owner alone calls this, while no reader trusts what lies there. Durable on return.
    pub(super) fn cut(&self, position: u64) -> io::Result<Offset> {
        self.load_index()?;
        self.index.cut(position)?;
        let file = self.file()?;
        file.truncate(position)?;
        file.sync()?;
        self.index.sync()?;
        // What was cut may have held the largest timestamp: look again behind the last entry.
        let start = self.index.at_offset(Offset(i64::MAX))?;
        let (from, mut next) = start.map_or((0, self.base), |entry| (entry.position, entry.offset));
        let mut max = start.map_or(NO_TIMESTAMP, |entry| entry.max_before);
        let mut scan = Scan::new(&**file, Trust::Header, from, position, next);
        while let Some(found) = scan.next()? {
            let placed = found.map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage.reason))?;
            max = max.max(placed.header.max_timestamp);
            next = placed.header.next_offset();
        }
        self.begin_at(position, next, max);
        Ok(next)
    }

    /// Removes its files, the log itself last: what a crash leaves is still a segment, or nothing.
    pub(super) fn remove(&self) -> io::Result<()> {
        [Part::Index, Part::TimeIndex, Part::Damaged, Part::Log]
            .into_iter()
            .try_for_each(|part| self.remove_part(part))
    }

    /// Removes one of its files, if it is there.
    pub(super) fn remove_part(&self, part: Part) -> io::Result<()> {
        disk::remove_if_there(&*self.disk, &folder::path(&self.folder, self.base, part))
    }
}

/// The answer of an index, or None where its files are cut short: it is made anew then.
fn whole(found: io::Result<Option<Entry>>) -> io::Result<Option<Option<Entry>>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        found => found.map(Some),
    }
}
