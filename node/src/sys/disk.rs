//! Files, as a log needs them: written in place, read in place, synced, listed, locked.
//!
//! It owns the two traits behind which a disk is either the machine's or one in memory that loses unsynced
//! bytes at a crash; one conformance suite holds both. All calls run where they are made: a write goes to the
//! page cache, a sync waits for the device and belongs on a blocking thread. It must never hide a failed sync.

pub mod memory;
pub mod os;

#[cfg(test)]
mod conformance;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// To read and write; made if it is not there.
    Create,
    /// To read and write; refused if it is there already.
    CreateNew,
}

/// What lies in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Folder,
}

/// A lock on a file, held until dropped or until the process ends.
pub trait Lock: Send + Sync + Debug {}

/// A tree of folders and files. Relative paths begin at its root.
///
/// - A name made, moved or removed is durable only after [`Disk::sync_folder`] on its folder.
/// - A rename is atomic: after a crash the name leads to the old file or the new, never to a mixture.
pub trait Disk: Send + Sync + Debug {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// Names in byte order. What is neither file nor folder is left out.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;
    /// The length of a file that need not be opened.
    fn file_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Makes the folder and those above it; it may be there already.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Replaces what bears the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// With everything in it.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Locks a file, made if need be. `WouldBlock` when another process, or this one, holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// Bytes that may still be written to the disk `path` lies on.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An open file. Calls may come from many threads; writes to one place need one writer. One that has lost its name is
/// `NotFound` if it rested while many others were in use: never another file of the same name.
pub trait File: Send + Sync + Debug {
    fn bytes(&self) -> io::Result<u64>;
    /// Appends to `buffer` what lies at `at`: `bytes_max` bytes, or fewer when the file ends before.
    fn read_at(&self, at: u64, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<usize>;
    /// The same, but only if it need not wait for the device; else `None` and nothing is appended.
    fn read_cached_at(&self, at: u64, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<Option<usize>>;
    /// Like [`File::read_at`], but from the device, as far as it can be had: what of it lies in the page cache is dropped
    /// first, unless it waits to be written. What was not cached before is not afterwards, so that nobody's pages give way.
    fn read_afresh(&self, at: u64, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<usize> {
        self.read_at(at, buffer, bytes_max)
    }
    /// Writes all parts one after another. After an error any part of them may be there.
    fn write_at(&self, at: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Returns once the device holds every byte written before. After an error, what was written since the
    /// last success may be lost, whatever a later sync says.
    fn sync(&self) -> io::Result<()>;
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Asks for room behind the end, without changing the length: writes into it change less on disk, and
    /// syncs cost less. The disk may decline.
    fn reserve(&self, at: u64, bytes: u64) -> io::Result<()>;
    /// Says that these bytes will be read soon.
    fn will_read(&self, at: u64, bytes: u64);
}

/// Reads a small file whole. `InvalidData` when it is larger than `bytes_max`.
pub fn read(disk: &dyn Disk, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let bytes = file.bytes()?;
    if bytes > bytes_max as u64 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the file has {bytes} bytes"),
        ));
    }
    let mut buffer = Vec::with_capacity(bytes as usize);
    file.read_at(0, &mut buffer, bytes as usize)?;
    Ok(buffer)
}

/// Reads a small file whole if it is there.
pub fn read_if_there(disk: &dyn Disk, path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    match read(disk, path, bytes_max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file if it is there.
pub fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Replaces a small file, durably: after a crash it has the old content or the new.
pub fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new: PathBuf = folder.join(name);
    let file = disk.open(&new, Open::Create)?;
    file.truncate(0)?;
    file.write_at(0, &mut [IoSlice::new(content)])?;
    file.sync()?;
    disk.rename(&new, path)?;
    disk.sync_folder(folder)
}

/// Whether a write failed because the disk, or the share of it we may use, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether a call failed for want of handles or memory: that says nothing about the disk.
pub fn is_short_of_means(error: &io::Error) -> bool {
    /// ENOMEM, ENFILE, EMFILE.
    const CODES: [i32; 3] = [12, 23, 24];
    error.raw_os_error().is_some_and(|code| CODES.contains(&code))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}
