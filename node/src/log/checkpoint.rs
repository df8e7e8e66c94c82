//! What a log remembers of itself beside its segments: where it starts, and up to where it need not be checked
//! when it is opened.
//!
//! It owns one small file with two slots, written in turn, so that a torn write leaves the older one. It is a
//! hint that saves work, except for the log's start, which is synced. It must never name a point that is not
//! durable, and is lowered before the log is cut below it.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_protocol::ids::Offset;
use headwater_protocol::record::crc32c;

use crate::sys::disk::{self, Disk, File, Open};

/// The content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The first offset that may be read.
    pub log_start: Offset,
    pub recovered: RecoveryPoint,
    pub segments: SegmentsOnDisk,
}

/// Everything before it is whole and durable, indexes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecoveryPoint {
    /// The segment it lies in.
    pub segment: Offset,
    pub position: u64,
    /// The offset that follows.
    pub next: Offset,
    /// Largest timestamp in the segment before it, -1 for none.
    pub max_timestamp: i64,
    /// How many entries the segment's indexes hold up to it.
    pub entries: u32,
    /// Where the batch of the last of them lies.
    pub last_entry_position: u64,
}

impl RecoveryPoint {
    /// The front of an empty segment.
    pub(super) const fn front_of(segment: Offset) -> Self {
        Self {
            segment,
            position: 0,
            next: segment,
            max_timestamp: -1,
            entries: 0,
            last_entry_position: 0,
        }
    }
}

/// Which segments in the folder belong to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentsOnDisk {
    All,
    /// None: the log is being emptied to begin anew at its start.
    None,
}

const MAGIC: u32 = 0x4857_4350;
const VERSION: u16 = 1;
const SLOT_BYTES: usize = 80;
/// Each slot has a sector of its own.
const SLOT_STRIDE: u64 = 4096;

#[derive(Debug)]
pub(super) struct CheckpointFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Option<Arc<dyn File>>,
    sequence: u64,
    content: Checkpoint,
}

impl CheckpointFile {
    /// What the file says, or `None` when it is not there or says nothing sensible.
    pub(super) fn load(disk: Arc<dyn Disk>, folder: &Path) -> io::Result<Option<Self>> {
        let path = folder.join(super::folder::CHECKPOINT);
        let bytes = disk::read_if_there(&*disk, &path, 2 * SLOT_STRIDE as usize)?.unwrap_or_default();
        let slots = [bytes.get(..SLOT_BYTES), bytes.get(SLOT_STRIDE as usize..)];
        let newest = slots
            .into_iter()
            .flatten()
            .filter_map(decode)
            .max_by_key(|(sequence, _)| *sequence);
        Ok(newest.map(|(sequence, content)| Self {
            disk,
            path,
            file: None,
            sequence,
            content,
        }))
    }

    /// Of a new log: there is no file before the first [`CheckpointFile::write`].
    pub(super) fn unwritten(disk: Arc<dyn Disk>, folder: &Path, content: Checkpoint) -> Self {
        Self {
            disk,
            path: folder.join(super::folder::CHECKPOINT),
            file: None,
            sequence: 0,
            content,
        }
    }

    /// Makes the file of a log. It is durable after [`CheckpointFile::sync`] and a sync of the folder.
    pub(super) fn create(disk: Arc<dyn Disk>, folder: &Path, content: Checkpoint) -> io::Result<Self> {
        let mut file = Self::unwritten(disk, folder, content);
        file.write(content)?;
        Ok(file)
    }

    pub(super) fn content(&self) -> Checkpoint {
        self.content
    }

    /// Writes to the slot that is not the newest. Survives the process, not yet the machine.
    pub(super) fn write(&mut self, content: Checkpoint) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => self.disk.open(&self.path, Open::Create)?,
        };
        let sequence = self.sequence + 1;
        let at = (sequence % 2) * SLOT_STRIDE;
        file.write_at(at, &mut [IoSlice::new(&encode(sequence, &content))])?;
        self.file = Some(file);
        self.sequence = sequence;
        self.content = content;
        Ok(())
    }

    /// Returns once what was written last is durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync())
    }
}

fn encode(sequence: u64, content: &Checkpoint) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    let point = &content.recovered;
    let segments: u16 = match content.segments {
        SegmentsOnDisk::All => 0,
        SegmentsOnDisk::None => 1,
    };
    let mut at = 0;
    let mut put = |field: &[u8]| {
        bytes[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(&MAGIC.to_be_bytes());
    put(&VERSION.to_be_bytes());
    put(&segments.to_be_bytes());
    put(&sequence.to_be_bytes());
    put(&content.log_start.value().to_be_bytes());
    put(&point.segment.value().to_be_bytes());
    put(&point.position.to_be_bytes());
    put(&point.next.value().to_be_bytes());
    put(&point.max_timestamp.to_be_bytes());
    put(&u64::from(point.entries).to_be_bytes());
    put(&point.last_entry_position.to_be_bytes());
    let crc = crc32c(&bytes[..SLOT_BYTES - 4]);
    bytes[SLOT_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, Checkpoint)> {
    let bytes: &[u8; SLOT_BYTES] = bytes.get(..SLOT_BYTES)?.try_into().ok()?;
    let number = |at: usize| -> Option<u64> { Some(u64::from_be_bytes(*bytes[at..].first_chunk()?)) };
    let offset = |at: usize| {
        number(at)
            .map(|value| Offset(value as i64))
            .filter(|offset| *offset >= Offset::ZERO)
    };
    let crc = u32::from_be_bytes(*bytes.last_chunk()?);
    let head = number(0)?;
    let segments = match head & 0xffff {
        0 => SegmentsOnDisk::All,
        1 => SegmentsOnDisk::None,
        _ => return None,
    };
    if crc != crc32c(&bytes[..SLOT_BYTES - 4]) || head >> 16 != (u64::from(MAGIC) << 16) | u64::from(VERSION)
    {
        return None;
    }
    let recovered = RecoveryPoint {
        segment: offset(24)?,
        position: number(32)?,
        next: offset(40)?,
        max_timestamp: number(48)? as i64,
        entries: u32::try_from(number(56)?).ok()?,
        last_entry_position: number(64)?,
    };
    Some((
        number(8)?,
        Checkpoint {
            log_start: offset(16)?,
            recovered,
            segments,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::disk::memory::MemoryDisk;
    use crate::sys::random::Random;

    fn content(next: i64) -> Checkpoint {
        let recovered = RecoveryPoint {
            segment: Offset(3),
            position: 4096,
            next: Offset(next),
            max_timestamp: 1_700_000_000_000,
            entries: 2,
            last_entry_position: 4000,
        };
        Checkpoint {
            log_start: Offset(5),
            recovered,
            segments: SegmentsOnDisk::All,
        }
    }

    #[test]
    fn the_slot_on_disk_is_this() {
        let golden = "48574350000100000000000000000009000000000000000500000000000000030000000000001000\
                      00000000000004d20000018bcfe568000000000000000002\
                      0000000000000fa000000000";
        let bytes = encode(9, &content(1234));
        assert_eq!(hex::encode(&bytes[..76]), golden);
        assert_eq!(decode(&bytes), Some((9, content(1234))));
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let disk = MemoryDisk::new(Random::seeded(1));
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let load = || CheckpointFile::load(Arc::clone(&shared), Path::new("")).unwrap();
        assert!(load().is_none());
        let mut file = CheckpointFile::create(Arc::clone(&shared), Path::new(""), content(1)).unwrap();
        file.write(content(2)).unwrap();
        assert_eq!(load().unwrap().content(), content(2));
        let empty = Checkpoint {
            segments: SegmentsOnDisk::None,
            ..content(3)
        };
        load().unwrap().write(empty).unwrap();
        assert_eq!(load().unwrap().content(), empty);
        disk.corrupt(&file.path, SLOT_STRIDE as usize + 30, &[0xff]);
        assert_eq!(load().unwrap().content(), content(2));
        disk.corrupt(&file.path, 30, &[0xff]);
        assert!(load().is_none());
    }
}
