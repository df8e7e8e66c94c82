//! The quorum's log, for a quorum of one: metadata records in an ordinary log, synced before anybody hears of them,
//! and snapshots that bound what a start has to read.
//!
//! Owns `metadata/`. One batch holds the records of one change, so that a change is there whole or not at all. It
//! never judges a record.

use super::snapshot::{self, SnapshotError};
use crate::log::{self, Limits, Log, Logs, Oversize};
use crate::metadata::record::RecordError;
use crate::metadata::{Image, Record};
use crate::sys::Sys;
use crate::sys::task::Tasks;
use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{BatchBuilder, BatchOptions, BatchView, Batches, NewRecord};
use std::io;
use std::path::Path;

const FOLDER: &str = "metadata/log";
const READ_BYTES: usize = 4 << 20;
/// What one batch of records may take in memory.
const BATCH_BYTES_MAX: usize = 64 << 20;
const SEGMENT_BYTES: u64 = 16 << 20;
/// A start reads about this much at most, or twice the snapshot if that is more.
const SNAPSHOT_EVERY_BYTES: u64 = 1 << 20;
/// A voter alone rules from the first record on.
const EPOCH: LeaderEpoch = LeaderEpoch(0);

/// The metadata log in the hands of its one voter.
pub(super) struct Quorum {
    /// Absent only while it is with a blocking thread, or lost to one that died.
    log: Option<Log>,
    sys: Sys,
    tasks: Tasks,
    bytes_since_snapshot: u64,
    snapshot_bytes: u64,
}

/// Why the metadata cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Log(#[from] log::OpenError),
    #[error(transparent)]
    Read(#[from] log::ReadError),
    #[error("batch at {at}: {reason}")]
    Corrupt { at: Offset, reason: String },
    #[error("record at {at}: {cause}")]
    Record { at: Offset, cause: RecordError },
    #[error(
        "the log starts at {start}, the newest snapshot ends at {snapshot}: records between them are lost"
    )]
    Gap { start: Offset, snapshot: Offset },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("metadata belongs to cluster {found:?}, the data directory to {expected:?}")]
    OtherCluster { found: String, expected: String },
    #[error("first record: {0}")]
    First(CommitError),
    #[error("the thread that read the metadata died")]
    Died,
}

/// Why records did not become durable.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing was written; later there may be room.
    #[error("disk full")]
    Full,
    /// They may be there after a restart, or not.
    #[error("{0}")]
    Broken(String),
}

impl Quorum {
    /// Opens the log and folds what it holds.
    pub(super) async fn open(sys: &Sys, tasks: &Tasks) -> Result<(Self, Image), OpenError> {
        let (sys, tasks) = (sys.clone(), tasks.clone());
        let scope = tasks.clone();
        let opened = scope
            .blocking("open metadata", move || Self::open_waiting(sys, tasks))
            .await;
        opened.map_err(|_| OpenError::Died)?
    }

    fn open_waiting(sys: Sys, tasks: Tasks) -> Result<(Self, Image), OpenError> {
        let config = log::Config {
            segment_bytes: SEGMENT_BYTES,
            segment_ms: i64::MAX,
            retention_ms: None,
            retention_bytes: None,
            tail_bytes_max: 0,
            ..log::Config::default()
        };
        let opened = Logs::new(&sys, 1).open(Path::new(FOLDER), config)?;
        if let Some(cut) = &opened.recovery.cut {
            tracing::warn!(
                at = cut.at.value(),
                bytes = cut.bytes,
                reason = cut.reason,
                "torn metadata tail cut off"
            );
        }
        let log = opened.log;
        let found = snapshot::load_newest(sys.disk.as_ref())?;
        let snapshot_bytes = found.as_ref().map_or(0, |(_, bytes)| *bytes);
        let mut image = found.map_or_else(Image::default, |(image, _)| image);
        let from = image.offset.plus(1);
        if log.start() > from || from > log.end() {
            return Err(OpenError::Gap {
                start: log.start(),
                snapshot: image.offset,
            });
        }
        let bytes_since_snapshot = replay(&log, from, &mut image)?;
        Ok((
            Self {
                log: Some(log),
                sys,
                tasks,
                bytes_since_snapshot,
                snapshot_bytes,
            },
            image,
        ))
    }

    /// Makes the records of each group durable, one group after another. Returns when all are synced.
    pub(super) async fn commit(&mut self, groups: &[Vec<Record>]) -> Result<(), CommitError> {
        let now_ms = self.sys.clock.unix_ms();
        let batches: Vec<BatchView> = groups.iter().map(|records| batch(records, now_ms)).collect();
        let bytes: usize = batches.iter().map(|batch| batch.bytes().len()).sum();
        let lost = || CommitError::Broken("the log was lost".to_owned());
        let log = self.log.as_mut().ok_or_else(lost)?;
        let appended = log.append(batches, EPOCH).map_err(|error| match error {
            log::AppendError::Full { .. } => CommitError::Full,
            other => CommitError::Broken(other.to_string()),
        })?;
        let mut synced = log.synced();
        log.flush();
        let reached = synced
            .wait_for(|synced| synced.broken.is_some() || synced.offset >= appended.next)
            .await;
        let reached = reached.map_err(|_| lost())?;
        if let Some(broken) = &reached.broken {
            return Err(CommitError::Broken(broken.to_string()));
        }
        self.bytes_since_snapshot += bytes as u64;
        Ok(())
    }

    /// Writes a snapshot of `image`, which must be that of the log's end, if the log has grown enough since the last,
    /// and lets go of the records before it.
    pub(super) async fn snapshot_if_due(&mut self, image: &Image) -> Result<(), SnapshotError> {
        if self.bytes_since_snapshot < SNAPSHOT_EVERY_BYTES.max(2 * self.snapshot_bytes) {
            return Ok(());
        }
        let Some(mut log) = self.log.take() else {
            return Ok(());
        };
        let (disk, image) = (self.sys.disk.clone(), image.clone());
        let work = self.tasks.blocking("snapshot metadata", move || {
            let written = snapshot::write(disk.as_ref(), &image).and_then(|bytes| {
                log.trim_to(image.offset.plus(1))
                    .map_err(|error| SnapshotError::Trim(error.to_string()))?;
                Ok(bytes)
            });
            (log, written)
        });
        let Ok((log, written)) = work.await else {
            return Err(SnapshotError::Died);
        };
        self.log = Some(log);
        // Should it fail, the next try is as far away again.
        self.bytes_since_snapshot = 0;
        self.snapshot_bytes = written?;
        Ok(())
    }

    /// Closes the log: everything committed is on disk already.
    pub(super) async fn close(mut self) {
        if let Some(log) = self.log.take() {
            let closed = self.tasks.blocking("close metadata", move || log.close()).await;
            if let Ok(Err(error)) = closed {
                tracing::warn!(%error, "metadata log was not closed in order");
            }
        }
    }
}

/// One batch that holds the records of one change.
fn batch(records: &[Record], now_ms: i64) -> BatchView {
    let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
    for record in records {
        let value = record.encode();
        let record = NewRecord {
            timestamp_ms: now_ms,
            key: None,
            value: Some(&value),
            headers: &[],
        };
        builder
            .append(&record)
            .expect("the records of one change are far below the limits of a batch");
    }
    let built = builder
        .build()
        .expect("an uncompressed batch is only put together");
    BatchView::parse(built.expect("a change that is written has records")).expect("it was just built")
}

/// Folds everything from `from` on. Returns how many bytes that was.
fn replay(log: &Log, from: Offset, image: &mut Image) -> Result<u64, OpenError> {
    let reader = log.reader();
    let (mut next, mut total) = (from, 0);
    while next < log.end() {
        let limits = Limits {
            bytes_max: READ_BYTES,
            oversize: Oversize::Give,
            until: log.end(),
        };
        let slice = reader.read_waiting(next, limits)?;
        total += slice.bytes as u64;
        for batch in Batches::new(joined(slice.parts)) {
            let corrupt = |reason: String| OpenError::Corrupt { at: next, reason };
            let batch = batch.map_err(|error| corrupt(error.to_string()))?;
            batch.check_crc().map_err(|error| corrupt(error.to_string()))?;
            fold(&batch, from, image)?;
        }
        next = slice.next;
    }
    Ok(total)
}

fn joined(parts: Vec<Bytes>) -> Bytes {
    let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| joined.extend_from_slice(part));
    joined.freeze()
}

fn fold(batch: &BatchView, from: Offset, image: &mut Image) -> Result<(), OpenError> {
    let base = batch.base_offset();
    let corrupt = |reason: String| OpenError::Corrupt { at: base, reason };
    let records = batch
        .records(BATCH_BYTES_MAX)
        .map_err(|error| corrupt(error.to_string()))?;
    for record in &records {
        let record = record.map_err(|error| corrupt(error.to_string()))?;
        let at = base.plus(i64::from(record.offset_delta));
        if at < from {
            continue;
        }
        let value = record.value.unwrap_or_default();
        let record = Record::decode(value).map_err(|cause| OpenError::Record { at, cause })?;
        image.apply(at, &record);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
