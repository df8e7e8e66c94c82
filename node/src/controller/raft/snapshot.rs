//! Snapshots of the image, as files: one line that says what follows and its checksum, then a record per line.
//!
//! Owns `metadata/snapshots/`. The newest whole one counts; one that is damaged is passed over, as long as the log
//! still holds what came after an older one.

use super::{LogId, Membership, Types, offset};
use crate::metadata::features::{Supported, Unsupported};
use crate::metadata::record::RecordError;
use crate::metadata::{Image, Record};
use crate::sys::disk::{self, Disk};
use headwater_protocol::ids::{NodeId, Offset};
use headwater_protocol::record::crc32c;
use openraft::{BasicNode, SnapshotMeta};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const FOLDER: &str = "metadata/snapshots";
const SUFFIX: &str = ".snapshot";
const VERSION: u32 = 2;
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
    #[error("metadata snapshot {offset}: {error}")]
    NewerRecord { offset: Offset, error: RecordError },
    #[error("metadata snapshot {offset}: {error}")]
    Level { offset: Offset, error: Unsupported },
}

impl SnapshotError {
    /// Whether a newer node wrote it: it is whole, and must not be passed over.
    pub(super) fn is_newer(&self) -> bool {
        match self {
            Self::Newer { .. } | Self::NewerRecord { .. } | Self::Level { .. } => true,
            Self::Io(_) | Self::Damaged { .. } => false,
        }
    }
}

/// A snapshot that was read or is to be written.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) image: Image,
    pub(super) last: Option<LogId>,
    pub(super) membership: Membership,
    pub(super) bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    /// The last entry that is in it.
    last: Option<LogId>,
    membership: Membership,
    /// The last entry in it that changed something.
    changed: Offset,
    records: usize,
    crc32c: u32,
}

impl Found {
    pub(super) fn new(image: Image, last: Option<LogId>, membership: Membership) -> Self {
        let records = image.to_records();
        let mut body = Vec::new();
        for record in &records {
            body.extend_from_slice(&record.encode());
            body.push(b'\n');
        }
        let head = Head {
            version: VERSION,
            last,
            membership: membership.clone(),
            changed: image.changed,
            records: records.len(),
            crc32c: crc32c(&body),
        };
        let mut bytes = serde_json::to_vec(&head).expect("numbers and names can be written");
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        Self {
            image,
            last,
            membership,
            bytes,
        }
    }

    /// What openraft calls it.
    pub(super) fn meta(&self) -> SnapshotMeta<NodeId, BasicNode> {
        SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
            snapshot_id: self
                .last
                .map_or_else(|| "empty".to_owned(), |last| last.to_string()),
        }
    }

    pub(super) fn to_raft(&self) -> openraft::Snapshot<Types> {
        openraft::Snapshot {
            meta: self.meta(),
            snapshot: Box::new(self.bytes.clone()),
        }
    }

    /// Reads a snapshot as it was written.
    pub(super) fn decode(bytes: Vec<u8>, supported: &Supported) -> Result<Self, SnapshotError> {
        let mut at = Offset(-1);
        let damaged = |offset: Offset, reason: String| SnapshotError::Damaged { offset, reason };
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| damaged(at, "it has no first line".to_owned()))?;
        let (head, rest) = bytes.split_at(end);
        let head: Head = serde_json::from_slice(head).map_err(|error| damaged(at, error.to_string()))?;
        if head.version > VERSION {
            return Err(SnapshotError::Newer { found: head.version });
        }
        at = head.last.map_or(at, |last| offset(last.index));
        let body = &rest[1..];
        if crc32c(body) != head.crc32c {
            return Err(damaged(at, "its checksum differs".to_owned()));
        }
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let records: Result<Vec<Record>, RecordError> = lines.map(Record::decode).collect();
        let records = records.map_err(|error| match error {
            RecordError::Newer { .. } | RecordError::Unknown { .. } => {
                SnapshotError::NewerRecord { offset: at, error }
            }
            RecordError::Malformed(_) => damaged(at, error.to_string()),
        })?;
        if records.len() != head.records {
            return Err(damaged(at, "it has another number of records".to_owned()));
        }
        let read = supported.reads(&records);
        let records = read.map_err(|error| SnapshotError::Level { offset: at, error })?;
        let mut image = Image::from_snapshot(at, &records);
        image.changed = head.changed;
        Ok(Self {
            image,
            last: head.last,
            membership: head.membership,
            bytes,
        })
    }

    /// Writes it, durably, and removes those that are not needed any more.
    pub(super) fn write(&self, disk: &dyn Disk) -> Result<(), SnapshotError> {
        if matches!(disk.list(Path::new(FOLDER)), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            disk.create_folder(Path::new(FOLDER))?;
            disk.sync_folder(Path::new(FOLDER).parent().unwrap_or_else(|| Path::new("")))?;
        }
        disk::replace(disk, &path(self.image.offset), &self.bytes)?;
        let offsets = offsets(disk)?;
        for old in offsets.iter().rev().skip(KEPT) {
            disk.remove_file(&path(*old))?;
        }
        Ok(())
    }
}

/// The newest whole snapshot.
pub(super) fn load_newest(disk: &dyn Disk, supported: &Supported) -> Result<Option<Found>, SnapshotError> {
    for offset in offsets(disk)?.into_iter().rev() {
        let bytes = disk::read(disk, &path(offset), BYTES_MAX)?;
        match Found::decode(bytes, supported) {
            Ok(found) => return Ok(Some(found)),
            Err(error) if error.is_newer() => return Err(error),
            Err(error) => tracing::warn!(%error, "metadata snapshot passed over"),
        }
    }
    Ok(None)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::features::{Level, VERSION};
    use crate::sys::disk::memory::MemoryDisk;
    use crate::sys::random::Random;
    use std::collections::BTreeMap;

    /// A whole snapshot with these lines for records.
    fn snapshot(last: u64, lines: &[&str]) -> Vec<u8> {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let head = Head {
            version: super::VERSION,
            last: Some(LogId::new(openraft::CommittedLeaderId::new(1, NodeId(1)), last)),
            membership: Membership::default(),
            changed: Offset(0),
            records: lines.len(),
            crc32c: crc32c(body.as_bytes()),
        };
        let head = serde_json::to_string(&head).unwrap();
        format!("{head}\n{body}").into_bytes()
    }

    #[test]
    fn a_snapshot_of_a_newer_node_is_not_passed_over_as_a_damaged_one_is() {
        const VERSION_RECORD: &str =
            r#"{"format":1,"type":"feature-level","feature":"headwater.version","level":2}"#;
        const CLUSTER: &str = r#"{"format":1,"type":"cluster","cluster_id":"c"}"#;
        let this = Supported::default();
        let old = Supported::up_to(&BTreeMap::from([(VERSION.to_owned(), 1)]));
        for (lines, supported, said) in [
            (
                &[CLUSTER, r#"{"format":1,"type":"of-tomorrow"}"#][..],
                &this,
                "metadata snapshot 7: metadata record \"of-tomorrow\" is not known to this build: it was written by a newer \
                 one",
            ),
            (
                &[CLUSTER, VERSION_RECORD],
                &old,
                "metadata snapshot 7: headwater.version is at level 2 in this cluster, this node supports levels 1 to 1",
            ),
        ] {
            let disk = MemoryDisk::new(Random::seeded(1));
            let older = Found::decode(snapshot(3, &[CLUSTER]), supported).unwrap();
            older.write(&disk).unwrap();
            disk::replace(&disk, &path(Offset(7)), &snapshot(7, lines)).unwrap();
            let error = load_newest(&disk, supported).unwrap_err();
            assert_eq!(error.to_string(), said);
            // What is only damaged is.
            disk::replace(&disk, &path(Offset(7)), &snapshot(7, lines)[..40]).unwrap();
            let found = load_newest(&disk, supported).unwrap().unwrap();
            assert_eq!(found.image.offset, Offset(3));
        }
        let whole = Found::decode(snapshot(7, &[CLUSTER, VERSION_RECORD]), &this).unwrap();
        assert_eq!(whole.image.level(), Level(2));
    }
}
