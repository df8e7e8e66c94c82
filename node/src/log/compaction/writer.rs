//! The file that takes the place of some segments: written, synced, and read again before anybody believes it.
//! Owns the bytes on their way. Nothing of the log is touched here.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_protocol::ids::Offset;
use headwater_protocol::record::HEADER_BYTES;

use super::super::folder::{self, Part};
use super::super::index::{Entry, Index};
use super::super::scan::{Scan, Trust};
use super::STEP_BYTES;
use crate::sys::disk::{self, Disk, File, Open};

/// Written in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;
/// Positions are 32 bits wide in an index. What is written may be larger than what was read, where a codec's default
/// level is worse than that of the producer.
const FILE_BYTES_MAX: u64 = u32::MAX as u64 - (1 << 30);
const NO_TIMESTAMP: i64 = -1;

#[derive(Debug)]
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    base: Offset,
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    /// Bytes in the file.
    written: u64,
}

/// A file that is whole and durable, and is being read again.
#[derive(Debug)]
pub(super) struct Written {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    pub(super) base: Offset,
    file: Arc<dyn File>,
    pub(super) bytes: u64,
    interval: u64,
    position: u64,
    /// Where its last batch so far ends.
    pub(super) end: Offset,
    entries: Vec<Entry>,
    max_timestamp: i64,
}

impl Writer {
    pub(super) fn begin(disk: &Arc<dyn Disk>, folder: &Path, base: Offset) -> io::Result<Self> {
        let file = disk.open(&folder::path(folder, base, Part::Cleaned), Open::Create)?;
        file.truncate(0)?;
        Ok(Self {
            disk: Arc::clone(disk),
            folder: folder.to_owned(),
            base,
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
        })
    }

    pub(super) fn push(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.bytes() + batch.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other("what is left is larger than a segment may be"));
        }
        self.buffer.extend_from_slice(batch);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write()?;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn write(&mut self) -> io::Result<()> {
        self.file
            .write_at(self.written, &mut [IoSlice::new(&self.buffer)])?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes it durable. Waits for the device.
    pub(super) fn finish(mut self, interval: u64) -> io::Result<Written> {
        self.write()?;
        self.file.sync()?;
        Ok(Written {
            disk: self.disk,
            folder: self.folder,
            base: self.base,
            file: self.file,
            bytes: self.written,
            interval: interval.max(1),
            position: 0,
            end: self.base,
            entries: Vec::new(),
            max_timestamp: NO_TIMESTAMP,
        })
    }

    /// Forgets it. What cannot be removed is removed at the next start.
    pub(super) fn discard(self) {
        let path = folder::path(&self.folder, self.base, Part::Cleaned);
        let _ = disk::remove_if_there(&*self.disk, &path);
    }
}

impl Written {
    /// Reads about a MiB of it again, and notes what an index has to say. Returns how many bytes; zero: all was read.
    pub(super) fn check(&mut self) -> io::Result<u64> {
        let (from, mut scan) = (
            self.position,
            Scan::new(&*self.file, Trust::Checksum, self.position, self.bytes, self.end),
        );
        while self.position - from < STEP_BYTES
            && let Some(found) = scan.next()?
        {
            let placed = found.map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage.reason))?;
            let is_far = self
                .entries
                .last()
                .is_none_or(|last| placed.position - last.position >= self.interval);
            if is_far {
                self.entries.push(Entry {
                    offset: placed.header.base_offset,
                    position: placed.position,
                    max_before: self.max_timestamp,
                });
            }
            self.max_timestamp = self.max_timestamp.max(placed.header.max_timestamp);
            self.position = placed.end();
            self.end = placed.header.next_offset();
        }
        Ok(self.position - from)
    }

    /// Writes the index of what was read again, durably.
    pub(super) fn index(&mut self) -> io::Result<()> {
        let path = |part| folder::path(&self.folder, self.base, part);
        let (offsets, times) = (path(Part::CleanedIndex), path(Part::CleanedTimeIndex));
        let index = Index::empty(Arc::clone(&self.disk), offsets, times, self.base);
        index.replace(std::mem::take(&mut self.entries), self.max_timestamp)?;
        index.sync()
    }

    /// Forgets it. What cannot be removed is removed at the next start.
    pub(super) fn discard(&self) {
        for part in [Part::Cleaned, Part::CleanedIndex, Part::CleanedTimeIndex] {
            let _ = disk::remove_if_there(&*self.disk, &folder::path(&self.folder, self.base, part));
        }
    }
}

const _: () = assert!(FILE_BYTES_MAX > i32::MAX as u64 && BUFFER_BYTES > HEADER_BYTES);
