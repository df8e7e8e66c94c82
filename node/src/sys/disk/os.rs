//! The machine's own disk.
//! Owns the system calls; which files are open is `handles`' to say. Must never retry a failed sync, nor report a short write as done.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the door itself"
)]

mod handles;

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};

use self::handles::{Handle, Handles};
use super::{Disk, Entry, EntryKind, File, Lock, Open};

/// What one call hands to the kernel at most.
const PARTS_MAX: usize = 1024;

/// Files below a root folder.
#[derive(Debug)]
pub struct OsDisk {
    root: PathBuf,
    handles: Arc<Handles>,
}

impl OsDisk {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            handles: Handles::within_limit(),
        }
    }

    /// The same, with so many of its files open at once.
    #[cfg(test)]
    pub(super) fn with_open_files(root: &Path, open_max: usize) -> Self {
        Self {
            root: root.to_owned(),
            handles: Handles::new(open_max),
        }
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        // Keys and records alike are nobody else's on this machine.
        options.read(true).mode(0o600);
        match how {
            Open::Read => {}
            Open::Write => drop(options.write(true)),
            Open::Create => drop(options.write(true).create(true).truncate(false)),
            Open::CreateNew => drop(options.write(true).create_new(true)),
        }
        let path = self.at(path);
        let file = options.open(&path)?;
        let handle = self.handles.keep(file, path, how != Open::Read)?;
        Ok(Arc::new(OsFile { handle }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.at(folder))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let kind = match (kind.is_file(), kind.is_dir()) {
                (true, _) => EntryKind::File,
                (_, true) => EntryKind::Folder,
                (false, false) => continue,
            };
            // Nothing of ours has a name that is not UTF-8.
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(Entry { name, kind });
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(self.at(path))?.len())
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.at(folder))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir_all(self.at(folder))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(self.at(folder))?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.at(path))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(OsLock { _file: file }))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let facts = rustix::fs::statvfs(self.at(path))?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }
}

/// The kernel lets go of the lock as the file is closed.
#[derive(Debug)]
struct OsLock {
    _file: fs::File,
}

impl Lock for OsLock {}

#[derive(Debug)]
struct OsFile {
    handle: Arc<Handle>,
}

impl OsFile {
    /// Whether the byte at `at` is in the page cache.
    fn is_cached(file: &fs::File, at: u64) -> io::Result<bool> {
        let mut byte = [0];
        loop {
            let parts = &mut [IoSliceMut::new(&mut byte)];
            return match rustix::io::preadv2(file, parts, at, ReadWriteFlags::NOWAIT) {
                Ok(_) => Ok(true),
                Err(Errno::AGAIN | Errno::OPNOTSUPP) => Ok(false),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

/// The kernel drops whole pages only: those that a range begins or ends in go with it.
const PAGE_BYTES: u64 = 4096;

impl OsFile {
    fn drop_cached(file: &fs::File, at: u64, bytes: usize) {
        let from = at / PAGE_BYTES * PAGE_BYTES;
        let until = (at + bytes as u64).next_multiple_of(PAGE_BYTES);
        // Advice: if it is not taken, the read sees what the page cache has.
        let _ = rustix::fs::fadvise(file, from, NonZeroU64::new(until - from), Advice::DontNeed);
    }
}

/// A longer range is probed in steps: the kernel reads ahead, and drops, about this much at a time.
const PROBE_BYTES: usize = 128 << 10;

impl File for OsFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.handle.file()?.metadata()?.len())
    }

    fn read_at(&self, at: u64, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<usize> {
        let file = self.handle.file()?;
        let start = buffer.len();
        buffer.reserve(bytes_max);
        while buffer.len() - start < bytes_max {
            let done = buffer.len() - start;
            let spare = rustix::buffer::spare_capacity(buffer);
            match rustix::io::pread(&file, spare, at + done as u64) {
                Ok(0) => break,
                Ok(_) => {}
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The allocator may have given more room than asked for, and the kernel filled it.
        buffer.truncate(start + bytes_max);
        Ok(buffer.len() - start)
    }

    fn read_cached_at(&self, at: u64, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<Option<usize>> {
        if bytes_max == 0 {
            return Ok(Some(0));
        }
        let file = self.handle.file()?;
        let last = bytes_max - 1;
        for step in (0..last).step_by(PROBE_BYTES).chain([last]) {
            if !Self::is_cached(&file, at + step as u64)? {
                return Ok(None);
            }
        }
        self.read_at(at, buffer, bytes_max).map(Some)
    }

    fn read_afresh(&self, at: u64, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<usize> {
        let file = self.handle.file()?;
        let was_cached = Self::is_cached(&file, at)?;
        Self::drop_cached(&file, at, bytes_max);
        let read = self.read_at(at, buffer, bytes_max)?;
        if !was_cached {
            Self::drop_cached(&file, at, bytes_max);
        }
        Ok(read)
    }

    fn write_at(&self, mut at: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let file = self.handle.file_to_write()?;
        let mut rest = parts;
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let part = &rest[..rest.len().min(PARTS_MAX)];
            match rustix::io::pwritev(&file, part, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.handle.file_to_write()?.set_len(bytes)
    }

    fn reserve(&self, at: u64, bytes: u64) -> io::Result<()> {
        let file = self.handle.file_to_write()?;
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, at, bytes).map_err(io::Error::from)
    }

    fn will_read(&self, at: u64, bytes: u64) {
        // Advice: if it is not taken, the read waits.
        let advised = self.handle.file();
        let _ = advised.map(|file| rustix::fs::fadvise(&file, at, NonZeroU64::new(bytes), Advice::WillNeed));
    }
}
