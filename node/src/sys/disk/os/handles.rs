//! More files than a process may hold open: those that rest are closed, and opened again when they are needed.
//!
//! Owns which files are open. A file that was written and not synced is synced before it is closed, and what that sync says
//! is told by the next one. It must never open another file for one that has been replaced under its name.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the door itself"
)]

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::process::{Resource, getrlimit};

/// Files that stay open at least.
const OPEN_MIN: usize = 64;
/// Where the system sets no limit.
const OPEN_MAX: usize = 1 << 20;

/// The files of one disk.
#[derive(Debug)]
pub(super) struct Handles {
    open_max: usize,
    open: AtomicUsize,
    /// Files that are open, and some that are not any more; the next to be closed in front.
    resting: Mutex<VecDeque<Weak<Handle>>>,
}

/// A file that is there, open or not.
#[derive(Debug)]
pub(super) struct Handle {
    handles: Arc<Handles>,
    path: PathBuf,
    is_writable: bool,
    /// Which file it was when it was opened first: device and number.
    identity: (u64, u64),
    state: Mutex<State>,
    /// Since somebody looked whether it could be closed.
    was_used: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<fs::File>>,
    /// Written since the last sync.
    is_dirty: bool,
    /// A sync before closing failed.
    failed: Option<io::Error>,
}

impl Handles {
    /// Holds half as many files open as this process may: sockets need the others.
    pub(super) fn within_limit() -> Arc<Self> {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(OPEN_MAX, |limit| usize::try_from(limit).unwrap_or(OPEN_MAX));
        Self::new((limit / 2).clamp(OPEN_MIN, OPEN_MAX))
    }

    pub(super) fn new(open_max: usize) -> Arc<Self> {
        Arc::new(Self {
            open_max,
            open: AtomicUsize::new(0),
            resting: Mutex::default(),
        })
    }

    /// Takes a file that was just opened at `path`.
    pub(super) fn keep(
        self: &Arc<Self>,
        file: fs::File,
        path: PathBuf,
        is_writable: bool,
    ) -> io::Result<Arc<Handle>> {
        let handle = Arc::new(Handle {
            handles: Arc::clone(self),
            path,
            is_writable,
            identity: identity(&file)?,
            state: Mutex::new(State {
                file: Some(Arc::new(file)),
                ..State::default()
            }),
            was_used: AtomicBool::new(true),
        });
        self.opened(&handle);
        Ok(handle)
    }

    fn opened(&self, handle: &Arc<Handle>) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let mut resting = lock(&self.resting);
        if resting.len() > 2 * open + OPEN_MIN {
            resting.retain(|handle| handle.strong_count() > 0);
        }
        resting.push_back(Arc::downgrade(handle));
        drop(resting);
        if open > self.open_max {
            self.close_some();
        }
    }

    /// Closes files until an eighth of them may be opened again. Those that were used or written lately come last.
    fn close_some(&self) {
        let enough = self.open_max - self.open_max / 8;
        for spare in [Spare::UsedAndDirty, Spare::Dirty, Spare::None] {
            let mut looks = lock(&self.resting).len();
            while looks > 0 && self.open.load(Ordering::Relaxed) > enough {
                looks -= 1;
                let Some(next) = lock(&self.resting).pop_front() else {
                    return;
                };
                let Some(handle) = next.upgrade() else { continue };
                if !handle.close(spare) {
                    lock(&self.resting).push_back(next);
                }
            }
        }
    }
}

/// What is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spare {
    UsedAndDirty,
    Dirty,
    None,
}

impl Handle {
    /// The open file. It stays open as long as somebody has it.
    pub(super) fn file(self: &Arc<Self>) -> io::Result<Arc<fs::File>> {
        self.was_used.store(true, Ordering::Relaxed);
        if let Some(file) = &lock(&self.state).file {
            return Ok(Arc::clone(file));
        }
        self.reopen()
    }

    /// The same, to be written to.
    pub(super) fn file_to_write(self: &Arc<Self>) -> io::Result<Arc<fs::File>> {
        let file = self.file()?;
        lock(&self.state).is_dirty = true;
        Ok(file)
    }

    /// Syncs what was written, whoever holds it open.
    pub(super) fn sync(self: &Arc<Self>) -> io::Result<()> {
        let file = self.file()?;
        {
            let mut state = lock(&self.state);
            if let Some(failed) = state.failed.take() {
                return Err(failed);
            }
            state.is_dirty = false;
        }
        rustix::fs::fdatasync(&file).map_err(io::Error::from)
    }

    fn reopen(self: &Arc<Self>) -> io::Result<Arc<fs::File>> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(self.is_writable).open(&self.path)?;
        if identity(&file)? != self.identity {
            let reason = format!("{} was replaced by another file", self.path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
        let file = Arc::new(file);
        {
            let mut state = lock(&self.state);
            if let Some(file) = &state.file {
                // Somebody else was faster.
                return Ok(Arc::clone(file));
            }
            state.file = Some(Arc::clone(&file));
        }
        self.handles.opened(self);
        Ok(file)
    }

    /// Closes the file, if it is none of those to be spared. Whether it is closed now.
    fn close(&self, spare: Spare) -> bool {
        let was_used = self.was_used.swap(false, Ordering::Relaxed);
        let mut state = lock(&self.state);
        if (spare == Spare::UsedAndDirty && was_used) || (spare != Spare::None && state.is_dirty) {
            return false;
        }
        let Some(file) = state.file.take() else {
            return true;
        };
        if state.is_dirty {
            state.is_dirty = false;
            state.failed = rustix::fs::fdatasync(&file).err().map(io::Error::from);
        }
        self.handles.open.fetch_sub(1, Ordering::Relaxed);
        true
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if lock(&self.state).file.is_some() {
            self.handles.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn identity(file: &fs::File) -> io::Result<(u64, u64)> {
    let facts = file.metadata()?;
    Ok((facts.dev(), facts.ino()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves its state whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn make(handles: &Arc<Handles>, folder: &std::path::Path, name: &str) -> Arc<Handle> {
        let path = folder.join(name);
        let mut options = fs::OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        handles.keep(file.unwrap(), path, true).unwrap()
    }

    #[test]
    fn any_number_of_files_is_written_and_read_while_few_are_open() {
        let folder = tempfile::tempdir().unwrap();
        let handles = Handles::new(8);
        let files: Vec<_> = (0..50)
            .map(|number| make(&handles, folder.path(), &number.to_string()))
            .collect();
        for (number, file) in (0..).zip(&files) {
            file.file_to_write().unwrap().write_all_at(&[number], 0).unwrap();
            assert!(handles.open.load(Ordering::Relaxed) <= 8);
        }
        for (number, file) in (0..).zip(&files) {
            let mut byte = [99];
            file.file().unwrap().read_exact_at(&mut byte, 0).unwrap();
            assert_eq!(byte, [number]);
            file.sync().unwrap();
            assert!(handles.open.load(Ordering::Relaxed) <= 8);
        }
        drop(files);
        assert_eq!(handles.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_file_that_took_the_place_of_a_closed_one_is_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let handles = Handles::new(8);
        let file = make(&handles, folder.path(), "a");
        assert!(file.close(Spare::None));
        let kept = folder.path().join("kept");
        fs::rename(folder.path().join("a"), &kept).unwrap();
        fs::write(folder.path().join("a"), b"another").unwrap();
        assert_eq!(file.file().unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::rename(&kept, folder.path().join("a")).unwrap();
        file.file().unwrap();
    }

    #[test]
    fn what_was_written_is_spared_until_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let handles = Handles::new(8);
        let file = make(&handles, folder.path(), "a");
        file.file_to_write().unwrap().write_all_at(b"x", 0).unwrap();
        assert!(!file.close(Spare::UsedAndDirty));
        assert!(!file.close(Spare::Dirty));
        file.sync().unwrap();
        assert!(!file.close(Spare::UsedAndDirty), "it was used a moment ago");
        assert!(file.close(Spare::UsedAndDirty));
        file.file_to_write().unwrap().write_all_at(b"y", 0).unwrap();
        assert!(file.close(Spare::None));
        assert!(lock(&file.state).failed.is_none());
    }
}
