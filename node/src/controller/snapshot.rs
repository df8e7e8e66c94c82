//! Snapshots of the image, as files: one line that says what follows and its checksum, then a record per line.
//!
//! Owns `metadata/snapshots/`. The newest whole one counts; one that is damaged is passed over, as long as the log
//! still holds what came after an older one.

use crate::metadata::record::RecordError;
use crate::metadata::{Image, Record};
use crate::sys::disk::{self, Disk};
use headwater_protocol::ids::Offset;
use headwater_protocol::record::crc32c;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const FOLDER: &str = "metadata/snapshots";
const SUFFIX: &str = ".snapshot";
const VERSION: u32 = 1;
const BYTES_MAX: usize = 1 << 30;
/// The newest, and one to fall back on.
const KEPT: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("metadata snapshot: {0}")]
    Io(#[from] io::Error),
    #[error("metadata snapshot {offset}: {reason}")]
    Damaged { offset: Offset, reason: String },
    #[error("metadata snapshot of version {found}, this build knows up to {VERSION}: a newer one wrote it")]
    Newer { found: u32 },
    #[error("metadata log could not be trimmed: {0}")]
    Trim(String),
    #[error("the thread that wrote the metadata snapshot died")]
    Died,
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    offset: Offset,
    records: usize,
    crc32c: u32,
}

/// Writes a snapshot, durably, and removes those that are not needed any more. Returns its size.
pub(super) fn write(disk: &dyn Disk, image: &Image) -> Result<u64, SnapshotError> {
    let records = image.to_records();
    let mut body = Vec::new();
    for record in &records {
        body.extend_from_slice(&record.encode());
        body.push(b'\n');
    }
    let head = Head {
        version: VERSION,
        offset: image.offset,
        records: records.len(),
        crc32c: crc32c(&body),
    };
    let mut content = serde_json::to_vec(&head).expect("four numbers can be written");
    content.push(b'\n');
    content.extend_from_slice(&body);
    if matches!(disk.list(Path::new(FOLDER)), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        disk.create_folder(Path::new(FOLDER))?;
        disk.sync_folder(Path::new(FOLDER).parent().unwrap_or_else(|| Path::new("")))?;
    }
    disk::replace(disk, &path(image.offset), &content)?;
    let offsets = offsets(disk)?;
    for old in offsets.iter().rev().skip(KEPT) {
        disk.remove_file(&path(*old))?;
    }
    Ok(content.len() as u64)
}

/// The image of the newest whole snapshot, and the snapshot's size.
pub(super) fn load_newest(disk: &dyn Disk) -> Result<Option<(Image, u64)>, SnapshotError> {
    for offset in offsets(disk)?.into_iter().rev() {
        let bytes = disk::read(disk, &path(offset), BYTES_MAX)?;
        match decode(offset, &bytes) {
            Ok(image) => return Ok(Some((image, bytes.len() as u64))),
            Err(error @ SnapshotError::Newer { .. }) => return Err(error),
            Err(error) => tracing::warn!(%error, "metadata snapshot passed over"),
        }
    }
    Ok(None)
}

fn decode(offset: Offset, bytes: &[u8]) -> Result<Image, SnapshotError> {
    let damaged = |reason: String| SnapshotError::Damaged { offset, reason };
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (head, rest) = bytes.split_at(end.ok_or_else(|| damaged("it has no first line".to_owned()))?);
    let head: Head = serde_json::from_slice(head).map_err(|error| damaged(error.to_string()))?;
    if head.version > VERSION {
        return Err(SnapshotError::Newer { found: head.version });
    }
    let body = &rest[1..];
    if head.offset != offset || crc32c(body) != head.crc32c {
        return Err(damaged("its checksum or offset differs".to_owned()));
    }
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records: Result<Vec<Record>, RecordError> = lines.map(Record::decode).collect();
    match records {
        Ok(records) if records.len() == head.records => Ok(Image::from_snapshot(offset, &records)),
        Ok(_) => Err(damaged("it has another number of records".to_owned())),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// The offsets of all snapshots, rising.
fn offsets(disk: &dyn Disk) -> io::Result<Vec<Offset>> {
    let entries = match disk.list(Path::new(FOLDER)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let digits = entries.iter().filter_map(|entry| entry.name.strip_suffix(SUFFIX));
    let mut offsets: Vec<Offset> = digits
        .filter_map(|digits| digits.parse().ok().map(Offset))
        .collect();
    offsets.sort_unstable();
    Ok(offsets)
}

fn path(offset: Offset) -> PathBuf {
    Path::new(FOLDER).join(format!("{:020}{SUFFIX}", offset.value()))
}
