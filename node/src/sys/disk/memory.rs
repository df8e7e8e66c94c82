//! A disk in memory that behaves like the worst the machine's may do at a crash.
//!
//! It owns what is durable and what is not: a crash keeps an arbitrary part of the unsynced writes of each
//! file, torn at sector boundaries, and a prefix of the unsynced name changes of each folder. It can be full,
//! and it can fail. One seed gives one history. It must never keep what was not synced out of kindness.
//!
//! Folders themselves are durable at once: no log of ours depends on their order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, Entry, EntryKind, File, Lock, Open, folder_of};
use crate::sys::random::Random;

/// What a device writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// A kind of call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Sync,
    Rename,
    Open,
}

#[derive(Debug)]
struct State {
    random: Random,
    folders: BTreeSet<PathBuf>,
    /// The names as a running process sees them.
    names: BTreeMap<PathBuf, Arc<Inode>>,
    /// The names a crash leaves.
    durable_names: BTreeMap<PathBuf, Arc<Inode>>,
    changes: Vec<Change>,
    locks: BTreeSet<PathBuf>,
    /// Handles of an earlier boot are dead.
    boot: u64,
    capacity: u64,
    /// The call of this kind that many calls from now fails, once.
    faults: Vec<(Operation, u64, io::ErrorKind)>,
    /// How many calls of each kind were made.
    calls: [u64; 5],
}

/// A change of a name that a crash may undo.
#[derive(Debug, Clone)]
enum Change {
    Link(PathBuf, Arc<Inode>),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn folder(&self) -> &Path {
        let (Self::Link(path, _) | Self::Unlink(path) | Self::Rename(path, _)) = self;
        folder_of(path)
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, Arc<Inode>>) {
        match self {
            Self::Link(path, inode) => drop(names.insert(path, inode)),
            Self::Unlink(path) => drop(names.remove(&path)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Inode {
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    /// What reads see.
    live: Vec<u8>,
    /// What the device holds.
    durable: Vec<u8>,
    unsynced: Vec<Edit>,
}

#[derive(Debug)]
enum Edit {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => put(content, *at, bytes),
            Self::Truncate(bytes) => content.resize(*bytes, 0),
        }
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked under the lock has failed already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryDisk {
    pub fn new(random: Random) -> Self {
        let state = State {
            random,
            folders: BTreeSet::from([PathBuf::new()]),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            locks: BTreeSet::new(),
            boot: 0,
            capacity: u64::MAX,
            faults: Vec::new(),
            calls: [0; 5],
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The power goes and comes back: unsynced bytes and names are kept or lost at random, every open file
    /// and lock is dead, faults are forgotten.
    pub fn crash(&self) {
        let mut state = locked(&self.state);
        let random = state.random.clone();
        let changes = std::mem::take(&mut state.changes);
        let folders: BTreeSet<PathBuf> = changes.iter().map(|change| change.folder().to_owned()).collect();
        for folder in folders {
            let of_folder = || changes.iter().filter(|change| change.folder() == folder);
            let kept = random.below(of_folder().count() as u64 + 1) as usize;
            for change in of_folder().take(kept) {
                change.clone().apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        for inode in state.names.values() {
            locked(&inode.content).crash(&random);
        }
        state.restart();
    }

    /// The process dies and the machine does not: nothing written is lost, every open file and lock is dead.
    pub fn kill(&self) {
        locked(&self.state).restart();
    }

    /// From now on the disk holds so many bytes of file content.
    pub fn set_capacity(&self, bytes: u64) {
        locked(&self.state).capacity = bytes;
    }

    /// From now on the disk holds so many bytes more than it does.
    pub fn leave_room(&self, bytes: u64) {
        let mut state = locked(&self.state);
        state.capacity = state.used() + bytes;
    }

    /// Makes the call of this kind fail, once, after `skip` more have gone well. A failed sync loses the
    /// bytes it should have kept.
    pub fn fail(&self, operation: Operation, skip: u64, kind: io::ErrorKind) {
        locked(&self.state).faults.push((operation, skip, kind));
    }

    /// What was told to fail and has not yet does not.
    pub fn forget_faults(&self) {
        locked(&self.state).faults.clear();
    }

    /// How many calls of this kind were made since the disk was.
    pub fn calls(&self, operation: Operation) -> u64 {
        locked(&self.state).calls[operation as usize]
    }

    /// What a file holds, as a reader would see it: for whoever judges, not for the process; it never fails and is
    /// no call.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let inode = locked(&self.state).names.get(path).cloned()?;
        let content = locked(&inode.content);
        Some(content.live.clone())
    }

    /// Changes bytes of a file behind everybody's back, durably: bit rot.
    ///
    /// # Panics
    /// When there is no such file or it is shorter.
    pub fn corrupt(&self, path: &Path, at: usize, bytes: &[u8]) {
        let inode = Arc::clone(&locked(&self.state).names[path]);
        let mut content = locked(&inode.content);
        content.live[at..at + bytes.len()].copy_from_slice(bytes);
        if content.durable.len() >= at + bytes.len() {
            content.durable[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

impl State {
    fn restart(&mut self) {
        self.boot += 1;
        self.locks.clear();
        self.faults.clear();
    }

    fn call(&mut self, operation: Operation) -> io::Result<()> {
        self.calls[operation as usize] += 1;
        let mut failed = None;
        self.faults.retain_mut(|(kind, skip, error)| {
            if *kind != operation || failed.is_some() {
                return true;
            }
            if *skip == 0 {
                failed = Some(*error);
                return false;
            }
            *skip -= 1;
            true
        });
        failed.map_or(Ok(()), |kind| Err(io::Error::new(kind, "injected by the test")))
    }

    fn alive(&self, boot: u64) -> io::Result<()> {
        if boot == self.boot {
            return Ok(());
        }
        Err(io::Error::other("the file was opened before the crash"))
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.names);
        self.changes.push(change);
    }

    fn free(&self) -> u64 {
        if self.capacity == u64::MAX {
            // Without a limit nothing is counted: whoever writes asks.
            return u64::MAX;
        }
        self.capacity.saturating_sub(self.used())
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|inode| locked(&inode.content).live.len() as u64)
            .sum()
    }

    fn require(&self, path: &Path) -> io::Result<()> {
        match self.names.contains_key(path) || self.folders.contains(path) {
            true => Ok(()),
            false => Err(not_found(path)),
        }
    }
}

impl Content {
    fn crash(&mut self, random: &Random) {
        let edits = std::mem::take(&mut self.unsynced);
        // Half of the time the device kept a clean prefix, else it wrote sectors in any order.
        let in_order = random.one_in(2);
        let kept = random.below(edits.len() as u64 + 1) as usize;
        for (index, edit) in edits.iter().enumerate() {
            match (in_order, index < kept) {
                (true, true) => edit.apply(&mut self.durable),
                (true, false) if index > kept => {}
                _ => tear(edit, &mut self.durable, random),
            }
        }
        self.live = self.durable.clone();
    }
}

/// Applies some sectors of an edit and not others.
fn tear(edit: &Edit, content: &mut Vec<u8>, random: &Random) {
    let Edit::Write { at, bytes } = edit else {
        if random.one_in(2) {
            edit.apply(content);
        }
        return;
    };
    let mut start = 0;
    while start < bytes.len() {
        let end = bytes
            .len()
            .min((((at + start) / SECTOR_BYTES) + 1) * SECTOR_BYTES - at);
        if random.one_in(2) {
            put(content, at + start, &bytes[start..end]);
        }
        start = end;
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} is not there", path.display()),
    )
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut state = locked(&self.state);
        state.call(Operation::Open)?;
        let found = state.names.get(path).cloned();
        let inode = match (found, how) {
            (Some(_), Open::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, Open::Read | Open::Write) => return Err(not_found(path)),
            (None, Open::Create | Open::CreateNew) => {
                state.require(folder_of(path))?;
                let inode = Arc::new(Inode::default());
                state.change(Change::Link(path.to_owned(), Arc::clone(&inode)));
                inode
            }
        };
        let boot = state.boot;
        Ok(Arc::new(MemoryFile {
            disk: self.clone(),
            inode,
            boot,
            writable: how != Open::Read,
        }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let state = locked(&self.state);
        state.require(folder)?;
        let entry = |kind| {
            move |path: &PathBuf| {
                let name = path.file_name()?.to_str()?.to_owned();
                (path.parent() == Some(folder)).then_some(Entry { name, kind })
            }
        };
        let files = state.names.keys().filter_map(entry(EntryKind::File));
        let folders = state.folders.iter().filter_map(entry(EntryKind::Folder));
        let mut entries: Vec<_> = files.chain(folders).collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = locked(&self.state);
        let inode = state.names.get(path).ok_or_else(|| not_found(path))?;
        Ok(locked(&inode.content).live.len() as u64)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.folders.extend(folder.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.call(Operation::Rename)?;
        state.require(from)?;
        if !state.folders.contains(from) {
            state.change(Change::Rename(from.to_owned(), to.to_owned()));
            return Ok(());
        }
        let moved = |path: &Path| path.strip_prefix(from).map(|rest| to.join(rest));
        let state = &mut *state;
        state.folders = state
            .folders
            .iter()
            .map(|f| moved(f).unwrap_or_else(|_| f.clone()))
            .collect();
        for names in [&mut state.names, &mut state.durable_names] {
            let old = std::mem::take(names);
            names.extend(
                old.into_iter()
                    .map(|(path, inode)| (moved(&path).unwrap_or(path), inode)),
            );
        }
        for change in &mut state.changes {
            let (Change::Link(path, _) | Change::Unlink(path) | Change::Rename(path, _)) = change;
            if let Ok(new) = moved(path) {
                *path = new;
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = locked(&self.state);
        if !state.names.contains_key(path) {
            return Err(not_found(path));
        }
        state.change(Change::Unlink(path.to_owned()));
        Ok(())
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.require(folder)?;
        state.names.retain(|path, _| !path.starts_with(folder));
        state.durable_names.retain(|path, _| !path.starts_with(folder));
        state
            .changes
            .retain(|change| !change.folder().starts_with(folder));
        state.folders.retain(|path| !path.starts_with(folder));
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.call(Operation::Sync)?;
        state.require(folder)?;
        let changes = std::mem::take(&mut state.changes);
        for change in changes {
            match change.folder() == folder {
                true => change.apply(&mut state.durable_names),
                false => state.changes.push(change),
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = locked(&self.state);
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock {
            disk: self.clone(),
            path: path.to_owned(),
            boot: state.boot,
        }))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = locked(&self.state);
        Ok(state.free())
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: MemoryDisk,
    path: PathBuf,
    boot: u64,
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = locked(&self.disk.state);
        if state.boot == self.boot {
            state.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    inode: Arc<Inode>,
    boot: u64,
    writable: bool,
}

impl MemoryFile {
    fn begin(&self, operation: Operation) -> io::Result<MutexGuard<'_, State>> {
        let mut state = locked(&self.disk.state);
        state.alive(self.boot)?;
        if !self.writable && operation == Operation::Write {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        state.call(operation)?;
        Ok(state)
    }

    fn edit(&self, edit: Edit) {
        let mut content = locked(&self.inode.content);
        edit.apply(&mut content.live);
        content.unsynced.push(edit);
    }
}

impl File for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        locked(&self.disk.state).alive(self.boot)?;
        Ok(locked(&self.inode.content).live.len() as u64)
    }

    fn read_at(&self, at: u64, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<usize> {
        drop(self.begin(Operation::Read)?);
        let content = locked(&self.inode.content);
        let rest = content.live.get(at as usize..).unwrap_or_default();
        let part = &rest[..rest.len().min(bytes_max)];
        buffer.extend_from_slice(part);
        Ok(part.len())
    }

    fn read_cached_at(&self, at: u64, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<Option<usize>> {
        self.read_at(at, buffer, bytes_max).map(Some)
    }

    fn write_at(&self, at: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let state = self.begin(Operation::Write)?;
        let mut bytes: Vec<u8> = Vec::new();
        for part in parts.iter() {
            bytes.extend_from_slice(part);
        }
        let at = at as usize;
        let grows = (at + bytes.len()).saturating_sub(locked(&self.inode.content).live.len());
        let free = state.free();
        let fits = bytes.len().saturating_sub(grows.saturating_sub(free as usize));
        let is_full = fits < bytes.len();
        bytes.truncate(fits);
        self.edit(Edit::Write { at, bytes });
        match is_full {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let called = self.begin(Operation::Sync).map(drop);
        let mut content = locked(&self.inode.content);
        let edits = std::mem::take(&mut content.unsynced);
        called?;
        for edit in edits {
            edit.apply(&mut content.durable);
        }
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        drop(self.begin(Operation::Write)?);
        self.edit(Edit::Truncate(bytes as usize));
        Ok(())
    }

    fn reserve(&self, _at: u64, _bytes: u64) -> io::Result<()> {
        locked(&self.disk.state).alive(self.boot)
    }

    fn will_read(&self, _at: u64, _bytes: u64) {}
}
