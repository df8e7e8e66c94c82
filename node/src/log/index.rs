//! The sparse indexes of one segment: where an offset lies, and from where a time must be looked for.
//!
//! Two files of entries of eight bytes, parallel to each other. Entry `i` of `.index` is a batch's base offset,
//! relative to the segment's, and its position, 32 bits each; entry `i` of `.timeindex` is the largest timestamp
//! of all batches before that one. A sealed segment's `.timeindex` has one entry more: the largest of all.
//! It owns both files. An index is a hint: whoever follows it checks the batch it leads to, and has it rebuilt
//! when it lied. It must never be needed to find out what the log holds.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_protocol::ids::Offset;

use crate::sys::disk::{Disk, File, Open};

const ENTRY_BYTES: u64 = 8;
/// Entries kept in memory only; beyond this they are written at once.
const PENDING_MAX: usize = 4096;

/// Where a batch lies, and what came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub offset: Offset,
    pub position: u64,
    /// Largest timestamp in the segment before the batch, -1 for none.
    pub max_before: i64,
}

/// What the files of a sealed segment say.
pub(super) struct Saved {
    pub entries: Vec<Entry>,
    /// How many there are in all.
    pub count: u64,
    pub max_timestamp: i64,
}

/// The indexes of one segment.
///
/// - Entries rise in offset and position; timestamps never fall.
/// - Entries below `saved` are in the files, those from there on in `pending`.
#[derive(Debug)]
pub(super) struct Index {
    disk: Arc<dyn Disk>,
    offsets_path: PathBuf,
    times_path: PathBuf,
    base: Offset,
    state: Mutex<State>,
    /// Held by whoever moves entries from memory into the files.
    saving: Mutex<()>,
}

#[derive(Debug, Clone)]
struct State {
    saved: u64,
    pending: Vec<Entry>,
    last_position: Option<u64>,
    files: Option<Files>,
}

#[derive(Debug, Clone)]
struct Files {
    offsets: Arc<dyn File>,
    times: Arc<dyn File>,
}

impl Index {
    /// An index without entries. Files left from before are emptied by the first save.
    pub(super) fn empty(
        disk: Arc<dyn Disk>,
        offsets_path: PathBuf,
        times_path: PathBuf,
        base: Offset,
    ) -> Self {
        let state = State {
            saved: 0,
            pending: Vec::new(),
            last_position: None,
            files: None,
        };
        Self {
            disk,
            offsets_path,
            times_path,
            base,
            state: Mutex::new(state),
            saving: Mutex::new(()),
        }
    }

    /// Takes over the first `entries` of the files. `false` when the files do not hold them; the index is
    /// then empty as before.
    pub(super) fn adopt(&self, entries: u64, last_position: u64) -> io::Result<bool> {
        let Some(files) = self.open_existing(Open::Write)? else {
            return Ok(entries == 0);
        };
        let bytes = entries * ENTRY_BYTES;
        if files.offsets.bytes()? < bytes || files.times.bytes()? < bytes || !files.are_sane(entries)? {
            return Ok(false);
        }
        let mut state = self.lock();
        state.saved = entries;
        state.last_position = (entries > 0).then_some(last_position);
        state.files = Some(files);
        Ok(true)
    }

    /// Takes over the files of a sealed segment. Returns the largest timestamp of the segment, or `None`
    /// when the files are not those of a sealed segment.
    pub(super) fn adopt_sealed(&self) -> io::Result<Option<i64>> {
        let Some(files) = self.open_existing(Open::Write)? else {
            return Ok(None);
        };
        let Some(entries) = files.sealed_entries()? else {
            return Ok(None);
        };
        let max = files.time(entries)?;
        let mut state = self.lock();
        state.saved = entries;
        state.files = Some(files);
        Ok(Some(max))
    }

    fn open_existing(&self, how: Open) -> io::Result<Option<Files>> {
        let open = |path| match self.disk.open(path, how) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let offsets = open(&self.offsets_path)?;
        let times = open(&self.times_path)?;
        Ok(offsets
            .zip(times)
            .map(|(offsets, times)| Files { offsets, times }))
    }

    /// Adds a batch if the last entry lies `interval` bytes or more before it.
    pub(super) fn offer(&self, entry: Entry, interval: u64) -> io::Result<()> {
        let mut state = self.lock();
        if state
            .last_position
            .is_some_and(|last| entry.position - last < interval.max(1))
        {
            return Ok(());
        }
        state.last_position = Some(entry.position);
        state.pending.push(entry);
        let many = state.pending.len() >= PENDING_MAX;
        drop(state);
        if many {
            self.save(u64::MAX).map(drop)
        } else {
            Ok(())
        }
    }

    /// Writes pending entries of batches before `position`. Returns how many the files hold then, and where
    /// the batch of the last one lies.
    pub(super) fn save(&self, position: u64) -> io::Result<(u64, u64)> {
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let (saved, entries, files, last) = {
            let state = self.lock();
            let count = state.pending.partition_point(|entry| entry.position < position);
            let last = state.pending[..count].last().map(|entry| entry.position);
            (
                state.saved,
                state.pending[..count].to_vec(),
                state.files.clone(),
                last,
            )
        };
        let Some(last) = last else {
            return Ok((saved, self.saved_position(saved)?));
        };
        let files = match files {
            Some(files) => files,
            None => self.create_files()?,
        };
        let offsets: Vec<u8> = entries.iter().flat_map(|entry| self.encode(entry)).collect();
        let times: Vec<u8> = entries
            .iter()
            .flat_map(|entry| entry.max_before.to_be_bytes())
            .collect();
        files
            .offsets
            .write_at(saved * ENTRY_BYTES, &mut [IoSlice::new(&offsets)])?;
        files
            .times
            .write_at(saved * ENTRY_BYTES, &mut [IoSlice::new(&times)])?;
        let mut state = self.lock();
        state.pending.drain(..entries.len());
        state.saved += entries.len() as u64;
        state.files = Some(files);
        Ok((state.saved, last))
    }

    fn saved_position(&self, saved: u64) -> io::Result<u64> {
        match (saved.checked_sub(1), self.lock().files.clone()) {
            (Some(last), Some(files)) => Ok(files.offset(last)?.1),
            _ => Ok(0),
        }
    }

    fn create_files(&self) -> io::Result<Files> {
        let offsets = self.disk.open(&self.offsets_path, Open::Create)?;
        let times = self.disk.open(&self.times_path, Open::Create)?;
        offsets.truncate(0)?;
        times.truncate(0)?;
        Ok(Files { offsets, times })
    }

    /// Writes what is pending and the segment's largest timestamp: nothing will be added.
    pub(super) fn seal(&self, max_timestamp: i64) -> io::Result<()> {
        let (saved, _) = self.save(u64::MAX)?;
        let Some(files) = self.lock().files.clone() else {
            return Ok(());
        };
        files.times.write_at(
            saved * ENTRY_BYTES,
            &mut [IoSlice::new(&max_timestamp.to_be_bytes())],
        )
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let Some(files) = self.lock().files.clone() else {
            return Ok(());
        };
        files.offsets.sync()?;
        files.times.sync()
    }

    /// Forgets entries of batches at `position` or behind it.
    pub(super) fn cut(&self, position: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.pending.retain(|entry| entry.position < position);
        if let Some(files) = state.files.clone() {
            let keep = search(state.saved, |at| Ok(files.offset(at)?.1 < position))?;
            files.offsets.truncate(keep * ENTRY_BYTES)?;
            files.times.truncate(keep * ENTRY_BYTES)?;
            state.saved = keep;
        }
        let last = state.pending.last().map(|entry| entry.position);
        let (saved, files) = (state.saved, state.files.clone());
        state.last_position = match (last, files) {
            (None, Some(files)) if saved > 0 => Some(files.offset(saved - 1)?.1),
            (last, _) => last,
        };
        Ok(())
    }

    /// Forgets everything and takes these entries instead, in files written anew.
    pub(super) fn replace(&self, entries: Vec<Entry>, max_timestamp: i64) -> io::Result<()> {
        let mut state = self.lock();
        state.saved = 0;
        state.files = None;
        state.last_position = entries.last().map(|entry| entry.position);
        state.pending = entries;
        drop(state);
        self.seal(max_timestamp)
    }

    /// What the files of a sealed segment say from entry `first` on of batches before `until`, how many entries there are,
    /// and the largest timestamp of all; None: they are not whole. The files are opened for this alone.
    pub(super) fn saved(&self, first: u64, until: u64) -> io::Result<Option<Saved>> {
        let Some(files) = self.open_existing(Open::Read)? else {
            return Ok(None);
        };
        let Some(count) = files.sealed_entries()? else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        for at in first..count {
            let (relative, position) = files.offset(at)?;
            if position >= until {
                break;
            }
            entries.push(Entry {
                offset: self.base_plus(relative),
                position,
                max_before: files.time(at)?,
            });
        }
        Ok(Some(Saved {
            entries,
            count,
            max_timestamp: files.time(count)?,
        }))
    }

    /// The last entry at `offset` or before it.
    pub(super) fn at_offset(&self, offset: Offset) -> io::Result<Option<Entry>> {
        self.floor(
            |entry| entry.offset <= offset,
            |files, at| Ok(self.base_plus(files.offset(at)?.0) <= offset),
        )
    }

    /// The last entry before which every timestamp is lower than `timestamp_ms`.
    pub(super) fn before_time(&self, timestamp_ms: i64) -> io::Result<Option<Entry>> {
        self.floor(
            |entry| entry.max_before < timestamp_ms,
            |files, at| Ok(files.time(at)? < timestamp_ms),
        )
    }

    fn floor(
        &self,
        in_memory: impl Fn(&Entry) -> bool,
        in_file: impl Fn(&Files, u64) -> io::Result<bool>,
    ) -> io::Result<Option<Entry>> {
        let (saved, files) = {
            let state = self.lock();
            let count = state.pending.partition_point(&in_memory);
            if let Some(at) = count.checked_sub(1) {
                return Ok(Some(state.pending[at]));
            }
            (state.saved, state.files.clone())
        };
        let Some(files) = files else { return Ok(None) };
        let count = search(saved, |at| in_file(&files, at))?;
        let Some(at) = count.checked_sub(1) else {
            return Ok(None);
        };
        let (relative, position) = files.offset(at)?;
        Ok(Some(Entry {
            offset: self.base_plus(relative),
            position,
            max_before: files.time(at)?,
        }))
    }

    fn encode(&self, entry: &Entry) -> [u8; 8] {
        let relative =
            u32::try_from(entry.offset.since(self.base)).expect("a segment spans 31 bits of offsets");
        let position = u32::try_from(entry.position).expect("a segment spans 31 bits of positions");
        ((u64::from(relative) << 32) | u64::from(position)).to_be_bytes()
    }

    fn base_plus(&self, relative: u32) -> Offset {
        self.base.plus(i64::from(relative))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every update of the state is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    /// How many entries a sealed segment has; None: the files are not whole.
    fn sealed_entries(&self) -> io::Result<Option<u64>> {
        let entries = self.offsets.bytes()? / ENTRY_BYTES;
        let is_whole = entries > 0 && self.times.bytes()? == (entries + 1) * ENTRY_BYTES;
        Ok(is_whole.then_some(entries))
    }

    fn offset(&self, at: u64) -> io::Result<(u32, u64)> {
        let entry = u64::from_be_bytes(read_entry(&*self.offsets, at)?);
        Ok(((entry >> 32) as u32, entry & u64::from(u32::MAX)))
    }

    fn time(&self, at: u64) -> io::Result<i64> {
        read_entry(&*self.times, at).map(i64::from_be_bytes)
    }

    /// Whether the first entries rise as they must. A file torn by a crash has holes of zeros.
    fn are_sane(&self, entries: u64) -> io::Result<bool> {
        let bytes = (entries * ENTRY_BYTES) as usize;
        let (mut offsets, mut times) = (Vec::with_capacity(bytes), Vec::with_capacity(bytes));
        self.offsets.read_at(0, &mut offsets, bytes)?;
        self.times.read_at(0, &mut times, bytes)?;
        let words = |bytes: &[u8]| -> Vec<u64> {
            bytes
                .chunks_exact(8)
                .filter_map(|word| word.try_into().ok())
                .map(u64::from_be_bytes)
                .collect()
        };
        // Offset above position in one number: both rise, so their pair does.
        let rising = |pair: &[u64]| pair[0] < pair[1] && (pair[0] as u32) < (pair[1] as u32);
        let not_falling = |pair: &[u64]| pair[0] as i64 <= pair[1] as i64;
        let complete = offsets.len() == bytes && times.len() == bytes;
        Ok(complete && words(&offsets).windows(2).all(rising) && words(&times).windows(2).all(not_falling))
    }
}

fn read_entry(file: &dyn File, at: u64) -> io::Result<[u8; 8]> {
    let mut bytes = Vec::with_capacity(8);
    file.read_at(at * ENTRY_BYTES, &mut bytes, 8)?;
    bytes
        .try_into()
        .map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, "an index is cut short"))
}

/// How many of `count` ordered entries satisfy `below`.
fn search(count: u64, below: impl Fn(u64) -> io::Result<bool>) -> io::Result<u64> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if below(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::disk::memory::MemoryDisk;
    use crate::sys::random::Random;

    const BASE: Offset = Offset(100);

    fn index(disk: &MemoryDisk) -> Index {
        Index::empty(Arc::new(disk.clone()), "i".into(), "t".into(), BASE)
    }

    fn entry(n: i64) -> Entry {
        Entry {
            offset: BASE.plus(n * 10),
            position: n as u64 * 1000,
            max_before: n * 5 - 1,
        }
    }

    fn check(index: &Index, entries: i64) {
        for n in 0..entries {
            assert_eq!(index.at_offset(BASE.plus(n * 10 + 9)).unwrap(), Some(entry(n)));
            assert_eq!(index.at_offset(BASE.plus(n * 10)).unwrap(), Some(entry(n)));
            assert_eq!(index.before_time(n * 5).unwrap(), Some(entry(n)));
        }
        assert_eq!(index.at_offset(Offset(99)).unwrap(), None);
        assert_eq!(index.before_time(-1).unwrap(), None);
        let last = (entries > 0).then(|| entry(entries - 1));
        assert_eq!(index.before_time(i64::MAX).unwrap(), last);
    }

    #[test]
    fn entries_are_found_in_memory_in_files_and_across() {
        let disk = MemoryDisk::new(Random::seeded(1));
        let index = index(&disk);
        check(&index, 0);
        for n in 0..20 {
            index.offer(entry(n), 1000).unwrap();
            index
                .offer(
                    Entry {
                        position: entry(n).position + 999,
                        ..entry(n)
                    },
                    1000,
                )
                .unwrap();
            if n == 12 {
                assert_eq!(index.save(7001).unwrap(), (8, 7000));
            }
        }
        check(&index, 20);
        index.cut(15_000).unwrap();
        check(&index, 15);
        index.cut(4_000).unwrap();
        check(&index, 4);
        index.offer(entry(4), 1000).unwrap();
        check(&index, 5);
    }

    #[test]
    fn a_sealed_index_is_adopted_and_a_damaged_one_is_not() {
        let disk = MemoryDisk::new(Random::seeded(1));
        let before = index(&disk);
        (0..6).for_each(|n| before.offer(entry(n), 1000).unwrap());
        before.save(3001).unwrap();
        assert_eq!(index(&disk).adopt_sealed().unwrap(), None);
        let open = index(&disk);
        assert!(open.adopt(4, 3000).unwrap());
        check(&open, 4);
        open.offer(
            Entry {
                position: 3999,
                ..entry(4)
            },
            1000,
        )
        .unwrap();
        check(&open, 4);
        before.seal(777).unwrap();
        let sealed = index(&disk);
        assert_eq!(sealed.adopt_sealed().unwrap(), Some(777));
        check(&sealed, 6);
        assert!(!index(&disk).adopt(8, 7000).unwrap(), "there are only six");
        disk.corrupt("i".as_ref(), 16, &[0; 8]);
        assert!(!index(&disk).adopt(6, 5000).unwrap(), "a hole of zeros");
        let rebuilt = index(&disk);
        rebuilt.replace((0..3).map(entry).collect(), 9).unwrap();
        assert_eq!(index(&disk).adopt_sealed().unwrap(), Some(9));
        check(&rebuilt, 3);
    }
}
