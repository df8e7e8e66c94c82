//! Which leader wrote which part of the log.
//!
//! Owns the history of (leader epoch, first offset) and its file. The file grows by one checked entry for each
//! epoch and is rewritten only when history is cut. An epoch is on disk before any record of it counts as
//! synced; it must never be guessed from where the log happens to end.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::crc32c;

use crate::sys::disk::{self, Disk, File, Open};

/// The first offset a leader of this epoch wrote, or would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    pub epoch: LeaderEpoch,
    pub start: Offset,
}

/// The history: epochs and offsets rise together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EpochHistory {
    entries: Vec<EpochStart>,
}

impl EpochHistory {
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    pub fn latest(&self) -> LeaderEpoch {
        self.entries.last().map_or(LeaderEpoch::NONE, |entry| entry.epoch)
    }

    /// Where the history up to `epoch` ends in a log that ends at `log_end`: the highest epoch known that is
    /// not above it, and the first offset that does not belong to it (KIP-101). `None` when `epoch` is above
    /// all that is known: whoever asks knows more than this log.
    pub fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let above = self.entries.partition_point(|entry| entry.epoch <= epoch);
        if above == self.entries.len() {
            return (epoch == self.latest() && !self.entries.is_empty()).then_some((epoch, log_end));
        }
        let end = self.entries[above].start;
        match above.checked_sub(1) {
            Some(floor) => Some((self.entries[floor].epoch, end)),
            // Everything of that epoch is gone from the front of this log.
            None => Some((epoch, end)),
        }
    }

    /// Whether a batch of `epoch` may begin at `base`. Of offsets before its first entry the history knows nothing, and
    /// one that is not whole may lack epochs behind any other.
    pub(super) fn may_hold(&self, base: Offset, epoch: LeaderEpoch, is_whole: bool) -> bool {
        let above = self.entries.partition_point(|entry| entry.start <= base);
        let Some(at) = above.checked_sub(1) else {
            return true;
        };
        let known = self.entries[at].epoch;
        let is_between = match self.entries.get(above) {
            Some(next) => epoch > known && epoch < next.epoch,
            None => epoch > known,
        };
        epoch == known || (is_between && !is_whole)
    }

    /// The epoch that wrote `offset`.
    pub fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        let above = self.entries.partition_point(|entry| entry.start <= offset);
        above
            .checked_sub(1)
            .map_or(LeaderEpoch::NONE, |at| self.entries[at].epoch)
    }

    /// Notes that `epoch` begins at `start`. Returns whether that was news.
    fn begin(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if epoch <= self.latest() {
            return false;
        }
        // An epoch in which nothing was written yields its place.
        while self.entries.last().is_some_and(|last| last.start >= start) {
            self.entries.pop();
        }
        self.entries.push(EpochStart { epoch, start });
        true
    }

    /// Forgets what began at `end` or later. Returns whether there was anything.
    fn cut_end(&mut self, end: Offset) -> bool {
        let keep = self.entries.partition_point(|entry| entry.start < end);
        let cut = keep < self.entries.len();
        self.entries.truncate(keep);
        cut
    }

    /// Forgets what ended before `start`; the epoch that reigns there now begins there.
    fn cut_front(&mut self, start: Offset) -> bool {
        let reigning = self.entries.partition_point(|entry| entry.start <= start);
        if reigning == 0 || (reigning == 1 && self.entries[0].start == start) {
            return false;
        }
        self.entries.drain(..reigning - 1);
        self.entries[0].start = start;
        true
    }
}

const ENTRY_BYTES: usize = 16;
/// A million elections; more is not a history but damage.
const FILE_BYTES_MAX: usize = 16 << 20;

/// The history and the file that keeps it.
#[derive(Debug)]
pub(super) struct EpochFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    history: Arc<EpochHistory>,
    file: Option<Arc<dyn File>>,
    /// Whether nothing of the history was ever damaged when it was read.
    is_whole: bool,
}

impl EpochFile {
    /// Reads the history as far as it is whole, and cuts off what is not.
    pub(super) fn load(disk: Arc<dyn Disk>, folder: &Path) -> io::Result<Self> {
        let path = folder.join(super::folder::EPOCHS);
        let bytes = disk::read_if_there(&*disk, &path, FILE_BYTES_MAX)?.unwrap_or_default();
        let mut history = EpochHistory::default();
        for entry in bytes.chunks_exact(ENTRY_BYTES).map_while(decode) {
            history.begin(entry.epoch, entry.start);
        }
        let whole = history.entries.len() * ENTRY_BYTES == bytes.len();
        let holes = folder.join(super::folder::EPOCH_HOLES);
        let had_holes = disk.file_bytes(&holes).is_ok();
        if !whole && !had_holes {
            // Noted before the file looks whole again. Durable with it.
            disk.open(&holes, Open::Create)?;
        }
        let mut file = Self {
            disk,
            path,
            history: Arc::default(),
            file: None,
            is_whole: whole && !had_holes,
        };
        if whole {
            file.history = Arc::new(history);
        } else {
            file.rewrite(history)?;
        }
        Ok(file)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(super) fn history(&self) -> Arc<EpochHistory> {
        Arc::clone(&self.history)
    }

    /// Notes an epoch. Returns the file to be synced before a record of it counts, if anything was written. On a full
    /// disk nothing has changed.
    pub(super) fn begin(&mut self, epoch: LeaderEpoch, start: Offset) -> io::Result<Option<Arc<dyn File>>> {
        let mut history = EpochHistory::clone(&self.history);
        let entries_before = history.entries.len();
        if !history.begin(epoch, start) {
            return Ok(None);
        }
        if history.entries.len() <= entries_before {
            // An empty epoch gave way: the file would contradict itself.
            self.rewrite(history)?;
            return Ok(None);
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => self.disk.open(&self.path, Open::Create)?,
        };
        let at = (entries_before * ENTRY_BYTES) as u64;
        let entry = encode(&EpochStart { epoch, start });
        if let Err(cause) = file.write_at(at, &mut [IoSlice::new(&entry)]) {
            // Half an entry would be taken for damage.
            file.truncate(at).map_err(io::Error::other)?;
            return Err(cause);
        }
        self.history = Arc::new(history);
        self.file = Some(Arc::clone(&file));
        Ok(Some(file))
    }

    /// Cuts the history where the log was cut, durably.
    pub(super) fn cut(&mut self, start: Offset, end: Offset) -> io::Result<()> {
        let mut history = EpochHistory::clone(&self.history);
        // Not `||`: both must happen.
        let changed = history.cut_end(end) | history.cut_front(start);
        if changed { self.rewrite(history) } else { Ok(()) }
    }

    /// Writes the history to where it lies already, to be synced: what an earlier process failed to sync may
    /// only look durable.
    pub(super) fn renew(&mut self) -> io::Result<Option<Arc<dyn File>>> {
        if self.history.entries.is_empty() {
            return Ok(None);
        }
        let bytes: Vec<u8> = self.history.entries.iter().flat_map(encode).collect();
        let file = self.disk.open(&self.path, Open::Create)?;
        file.write_at(0, &mut [IoSlice::new(&bytes)])?;
        self.file = Some(Arc::clone(&file));
        Ok(Some(file))
    }

    fn rewrite(&mut self, history: EpochHistory) -> io::Result<()> {
        let bytes: Vec<u8> = history.entries.iter().flat_map(encode).collect();
        self.file = None;
        disk::replace(&*self.disk, &self.path, &bytes)?;
        self.history = Arc::new(history);
        Ok(())
    }
}

fn encode(entry: &EpochStart) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..4].copy_from_slice(&entry.epoch.value().to_be_bytes());
    bytes[4..12].copy_from_slice(&entry.start.value().to_be_bytes());
    let crc = crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<EpochStart> {
    let bytes: &[u8; ENTRY_BYTES] = bytes.try_into().ok()?;
    let epoch = LeaderEpoch(i32::from_be_bytes(*bytes.first_chunk()?));
    let start = Offset(i64::from_be_bytes(bytes[4..12].try_into().ok()?));
    let crc = u32::from_be_bytes(*bytes.last_chunk()?);
    (crc == crc32c(&bytes[..12])).then_some(EpochStart { epoch, start })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::disk::memory::MemoryDisk;
    use crate::sys::random::Random;

    fn history(entries: &[(i32, i64)]) -> EpochHistory {
        let mut history = EpochHistory::default();
        for &(epoch, start) in entries {
            history.begin(LeaderEpoch(epoch), Offset(start));
        }
        history
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let known = history(&[(2, 10), (5, 20), (6, 30)]);
        let end = |epoch| {
            known
                .end_of(LeaderEpoch(epoch), Offset(35))
                .map(|(e, o)| (e.value(), o.value()))
        };
        assert_eq!(end(6), Some((6, 35)));
        assert_eq!(end(7), None, "the asker knows more");
        assert_eq!(end(5), Some((5, 30)));
        assert_eq!(end(4), Some((2, 20)), "never heard of here: the one before");
        assert_eq!(end(1), Some((1, 10)), "gone from the front");
        assert_eq!(history(&[]).end_of(LeaderEpoch(0), Offset(3)), None);
        assert_eq!(known.epoch_at(Offset(29)), LeaderEpoch(5));
        assert_eq!(known.epoch_at(Offset(9)), LeaderEpoch::NONE);
    }

    #[test]
    fn an_epoch_without_records_gives_way() {
        let known = history(&[(1, 0), (2, 10), (3, 10), (2, 12)]);
        assert_eq!(known, history(&[(1, 0), (3, 10)]));
    }

    #[test]
    fn history_is_cut_with_the_log() {
        let mut known = history(&[(1, 0), (2, 10), (3, 20)]);
        assert!(!known.cut_end(Offset(21)));
        assert!(known.cut_end(Offset(20)));
        assert!(known.cut_front(Offset(15)));
        assert!(!known.cut_front(Offset(15)));
        assert_eq!(known, history(&[(2, 15)]));
    }

    #[test]
    fn the_file_survives_damage_up_to_the_damaged_entry() {
        let disk = MemoryDisk::new(Random::seeded(3));
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let load = || EpochFile::load(Arc::clone(&shared), Path::new("")).unwrap();
        let mut file = load();
        for (epoch, start) in [(1, 0), (2, 10), (4, 30)] {
            assert!(file.begin(LeaderEpoch(epoch), Offset(start)).unwrap().is_some());
        }
        assert!(file.begin(LeaderEpoch(4), Offset(40)).unwrap().is_none());
        assert_eq!(*load().history(), history(&[(1, 0), (2, 10), (4, 30)]));
        disk.corrupt(&file.path, 20, &[0xff]);
        let mut file = load();
        assert_eq!(*file.history(), history(&[(1, 0)]));
        file.begin(LeaderEpoch(7), Offset(12)).unwrap();
        file.cut(Offset(5), Offset(100)).unwrap();
        assert_eq!(*load().history(), history(&[(1, 5), (7, 12)]));
    }
}
