//! A node's disk in memory, with every call written to the trace.
//! Owns nothing but the names; what the disk does is `MemoryDisk`'s.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater::sys::disk::memory::MemoryDisk;
use headwater::sys::disk::{Disk, Entry, File, Lock, Open};

use crate::trace::Trace;

#[derive(Debug)]
pub(crate) struct TracedDisk {
    disk: MemoryDisk,
    trace: Trace,
}

impl TracedDisk {
    pub(crate) fn new(disk: MemoryDisk, trace: Trace) -> Self {
        Self { disk, trace }
    }

    fn note<T>(&self, what: &str, path: &Path, outcome: io::Result<T>) -> io::Result<T> {
        let failed = outcome.as_ref().err().map(io::Error::kind);
        self.trace
            .detail_line(format_args!("disk {what} {} {}", path.display(), Failed(failed)));
        outcome
    }
}

struct Failed(Option<io::ErrorKind>);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("ok"),
            Some(kind) => write!(f, "failed: {kind:?}"),
        }
    }
}

impl Disk for TracedDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let file = self.note("open", path, self.disk.open(path, how))?;
        Ok(Arc::new(TracedFile {
            file,
            path: path.to_owned(),
            trace: self.trace.clone(),
        }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(folder)
    }

    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.file_bytes(path)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.note("folder", folder, self.disk.create_folder(folder))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let what = format!("rename {} to", from.display());
        self.note(&what, to, self.disk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.note("remove", path, self.disk.remove_file(path))
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        self.note("remove folder", folder, self.disk.remove_folder(folder))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.note("sync folder", folder, self.disk.sync_folder(folder))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.note("lock", path, self.disk.lock(path))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

#[derive(Debug)]
struct TracedFile {
    file: Arc<dyn File>,
    path: PathBuf,
    trace: Trace,
}

impl TracedFile {
    fn note<T>(&self, what: impl std::fmt::Display, outcome: io::Result<T>) -> io::Result<T> {
        let failed = Failed(outcome.as_ref().err().map(io::Error::kind));
        self.trace
            .detail_line(format_args!("disk {what} {} {failed}", self.path.display()));
        outcome
    }
}

impl File for TracedFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn read_at(&self, at: u64, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<usize> {
        let read = self.file.read_at(at, buffer, bytes_max);
        let count = *read.as_ref().unwrap_or(&0);
        self.note(format_args!("read {count} at {at}"), read)
    }

    fn read_cached_at(&self, at: u64, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<Option<usize>> {
        self.file.read_cached_at(at, buffer, bytes_max)
    }

    fn write_at(&self, at: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut digest = crate::digest::Digest::default();
        parts.iter().for_each(|part| digest.add(part));
        let written = self.file.write_at(at, parts);
        self.note(format_args!("write {digest} at {at}"), written)
    }

    fn sync(&self) -> io::Result<()> {
        self.note("sync", self.file.sync())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.note(format_args!("truncate to {bytes}"), self.file.truncate(bytes))
    }

    fn reserve(&self, at: u64, bytes: u64) -> io::Result<()> {
        self.file.reserve(at, bytes)
    }

    fn will_read(&self, at: u64, bytes: u64) {
        self.file.will_read(at, bytes);
    }
}
