//! Snapshots of what a partition knows about its producers, each true up to one offset.
//!
//! Owns the files: which are kept, and that a damaged one is never handed out. Their content is opaque. A
//! snapshot only saves work: without any, the log is replayed from its start; it is never synced.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::ids::Offset;
use headwater_protocol::record::crc32c;

use super::folder::{self, Part};
use crate::sys::disk::{self, Disk, Open};

/// Beside those at the front of a segment, this many are kept.
const KEPT: usize = 2;
const CRC_BYTES: usize = 4;
const SNAPSHOT_BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Snapshots {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// In rising order.
    offsets: Vec<Offset>,
}

impl Snapshots {
    pub(super) fn new(disk: Arc<dyn Disk>, folder: &Path, mut offsets: Vec<Offset>) -> Self {
        offsets.sort_unstable();
        Self {
            disk,
            folder: folder.to_owned(),
            offsets,
        }
    }

    /// Keeps a snapshot, and drops older ones that none of `segments`, in rising order, begins with.
    pub(super) fn store(&mut self, offset: Offset, content: &[u8], segments: &[Offset]) -> io::Result<()> {
        let path = folder::path(&self.folder, offset, Part::Snapshot);
        let new = path.with_extension("snapshot.new");
        let file = self.disk.open(&new, Open::Create)?;
        file.truncate(0)?;
        let crc = crc32c(content).to_be_bytes();
        file.write_at(0, &mut [IoSlice::new(&crc), IoSlice::new(content)])?;
        self.disk.rename(&new, &path)?;
        if let Err(at) = self.offsets.binary_search(&offset) {
            self.offsets.insert(at, offset);
        }
        let newest = self.offsets.len().saturating_sub(KEPT);
        let is_kept = |at: usize, offset: Offset| at >= newest || segments.binary_search(&offset).is_ok();
        let old = self
            .offsets
            .iter()
            .enumerate()
            .filter(|(at, offset)| !is_kept(*at, **offset));
        let old: Vec<Offset> = old.map(|(_, offset)| *offset).collect();
        old.into_iter().try_for_each(|offset| self.remove(offset))
    }

    /// The newest whole snapshot at `end` or before it.
    pub(super) fn latest(&mut self, end: Offset) -> io::Result<Option<(Offset, Bytes)>> {
        while let Some(&offset) = self.offsets.iter().rfind(|offset| **offset <= end) {
            let path = folder::path(&self.folder, offset, Part::Snapshot);
            let bytes = disk::read_if_there(&*self.disk, &path, SNAPSHOT_BYTES_MAX)?.map(Bytes::from);
            let content = bytes.and_then(|mut bytes| {
                let crc = bytes.first_chunk().copied().map(u32::from_be_bytes)?;
                let content = bytes.split_off(CRC_BYTES);
                (crc32c(&content) == crc).then_some(content)
            });
            if let Some(content) = content {
                return Ok(Some((offset, content)));
            }
            self.remove(offset)?;
        }
        Ok(None)
    }

    /// Removes those outside of the log.
    pub(super) fn cut(&mut self, start: Offset, end: Offset) -> io::Result<()> {
        let outside: Vec<Offset> = self
            .offsets
            .iter()
            .copied()
            .filter(|offset| *offset < start || *offset > end)
            .collect();
        outside.into_iter().try_for_each(|offset| self.remove(offset))
    }

    fn remove(&mut self, offset: Offset) -> io::Result<()> {
        self.offsets.retain(|kept| *kept != offset);
        disk::remove_if_there(&*self.disk, &folder::path(&self.folder, offset, Part::Snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::disk::memory::MemoryDisk;
    use crate::sys::random::Random;

    #[test]
    fn the_newest_whole_snapshot_is_found_and_old_ones_go() {
        let disk = MemoryDisk::new(Random::seeded(1));
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut snapshots = Snapshots::new(Arc::clone(&shared), Path::new(""), vec![]);
        assert_eq!(snapshots.latest(Offset(99)).unwrap(), None);
        for offset in [10, 20, 30, 40] {
            let content = format!("state {offset}");
            snapshots
                .store(Offset(offset), content.as_bytes(), &[Offset(0), Offset(10)])
                .unwrap();
        }
        assert_eq!(snapshots.offsets, [Offset(10), Offset(30), Offset(40)]);
        let mut reopened = Snapshots::new(shared, Path::new(""), snapshots.offsets.clone());
        let found = |snapshots: &mut Snapshots, end| snapshots.latest(Offset(end)).unwrap();
        assert_eq!(
            found(&mut reopened, 40),
            Some((Offset(40), Bytes::from("state 40")))
        );
        assert_eq!(
            found(&mut reopened, 39),
            Some((Offset(30), Bytes::from("state 30")))
        );
        disk.corrupt(&folder::path(Path::new(""), Offset(40), Part::Snapshot), 5, b"?");
        assert_eq!(
            found(&mut reopened, 99),
            Some((Offset(30), Bytes::from("state 30")))
        );
        reopened.cut(Offset(11), Offset(30)).unwrap();
        assert_eq!(reopened.offsets, [Offset(30)]);
    }
}
