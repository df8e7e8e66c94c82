//! The quorum's log and vote on our disk: an ordinary log whose batches hold one entry each, at the offset that is the
//! entry's index and in the epoch that is its term.
//!
//! Owns `metadata/log`, `metadata/vote` and `metadata/purged`; `newcomer` knows whether it begins with nothing. An entry counts when it is synced, a vote when its file
//! has replaced the old one. After a failed write or sync nothing is taken any more; a full disk is waited for.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset};
use headwater_protocol::record::{BatchBuilder, BatchOptions, BatchView, Batches, HEADER_BYTES, NewRecord};
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{ErrorSubject, ErrorVerb, OptionalSend, RaftLogReader, StorageIOError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::alone::Alone;
use super::newcomer::Newcomer;
use super::room::Room;
use super::{Entry, LogId, OpenError, StorageError, Types, Vote, index, offset};
use crate::log::{self, CopyEpochs, Limits, Log, LogReader, Logs, Oversize, Synced};
use crate::metadata::record::newer_in;
use crate::sys::Sys;
use crate::sys::clock::Clock;
use crate::sys::disk::{self, Disk};
use crate::sys::task::{Kind, Tasks};

const FOLDER: &str = "metadata/log";
const VOTE: &str = "metadata/vote";
const PURGED: &str = "metadata/purged";
const SMALL_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 4 << 20;
/// What one entry may take in memory.
const ENTRY_BYTES_MAX: usize = 64 << 20;
const SEGMENT_BYTES: u64 = 16 << 20;

/// The log and the vote. Cheap to clone; openraft sees to it that one writes at a time.
#[derive(Clone)]
pub(super) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    log: Mutex<Log>,
    reader: LogReader,
    disk: Arc<dyn Disk>,
    clock: Clock,
    tasks: Tasks,
    room: Room,
    newcomer: Newcomer,
    alone: Alone,
    /// The last entry that was let go of.
    purged: Mutex<Option<LogId>>,
    vote: Mutex<Option<Vote>>,
}

impl Store {
    /// Opens the log, made if need be. Waits for the disk.
    pub(super) fn open(sys: &Sys, tasks: Tasks) -> Result<Self, OpenError> {
        let config = log::Config {
            segment_bytes: SEGMENT_BYTES,
            segment_ms: i64::MAX,
            retention_ms: None,
            retention_bytes: None,
            tail_bytes_max: 0,
            ..log::Config::default()
        };
        let opened = Logs::new(sys, 1).open(Path::new(FOLDER), config)?;
        if let Some(cut) = &opened.recovery.cut {
            tracing::warn!(
                at = cut.at.value(),
                bytes = cut.bytes,
                reason = cut.reason,
                "torn metadata tail cut off"
            );
        }
        let disk = Arc::clone(&sys.disk);
        let vote: Option<Vote> = read_small(disk.as_ref(), VOTE)?;
        let mut purged: Option<LogId> = read_small(disk.as_ref(), PURGED)?;
        let mut log = opened.log;
        let start = log.start();
        // The note is written before entries go: a crash in between leaves more than it says.
        if let Some(last) = purged
            && start <= offset(last.index)
            && log.end() > offset(last.index)
        {
            let trimmed = log.trim_to(offset(last.index).plus(1));
            trimmed.map_err(|error| corrupt("metadata log", error))?;
        }
        if purged.is_none() && start > Offset::ZERO {
            return Err(corrupt(
                "metadata/purged",
                "the log does not begin at its beginning",
            ));
        }
        purged = purged.filter(|_| log.end() > Offset::ZERO);
        let has_nothing = log.end() == Offset::ZERO && vote.is_none();
        let newcomer = Newcomer::open(&disk, &tasks, has_nothing)?;
        let alone = Alone::open(&disk, &tasks, has_nothing)?;
        let reader = log.reader();
        Ok(Self {
            inner: Arc::new(Inner {
                log: Mutex::new(log),
                reader,
                disk,
                clock: sys.clock.clone(),
                room: Room::new(sys.clock.clone(), &tasks),
                newcomer,
                alone,
                tasks,
                purged: Mutex::new(purged),
                vote: Mutex::new(vote),
            }),
        })
    }

    /// The first entry that is still there, or would be.
    pub(super) fn start(&self) -> Offset {
        self.inner.reader.start()
    }

    pub(super) fn newcomer(&self) -> Newcomer {
        self.inner.newcomer.clone()
    }

    pub(super) fn alone(&self) -> Alone {
        self.inner.alone.clone()
    }

    /// Whether this node may be elected.
    pub(super) fn may_stand(&self) -> bool {
        self.inner.newcomer.may_stand(self.inner.reader.end())
    }

    /// Whether it may give its vote to one whose last entry this is.
    pub(super) fn may_vote_for(&self, last: Option<LogId>) -> bool {
        self.inner.newcomer.may_vote_for(self.inner.reader.end(), last)
    }

    /// If this node led when it ended, it stands for election again. That it voted for itself stays.
    pub(super) fn forget_that_it_led(&self, me: NodeId) {
        let mut vote = lock(&self.inner.vote);
        if let Some(vote) = vote.as_mut()
            && vote.leader_id().node_id == me
        {
            vote.committed = false;
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        verb: ErrorVerb,
        work: impl Fn(&Inner) -> io::Result<T> + Clone + Send + 'static,
    ) -> Result<T, StorageError> {
        let attempt = || {
            let (inner, work) = (Arc::clone(&self.inner), work.clone());
            let done = self.inner.tasks.blocking(name, move || work(&inner));
            async {
                done.await
                    .unwrap_or_else(|_| Err(io::Error::other("the thread died")))
            }
        };
        let done = self.inner.room.find(disk::is_full, attempt).await;
        done.map_err(|error| failed(verb, &error))
    }

    /// Returns once the entries are in the log: where they end, and how far it is synced.
    async fn write(
        &self,
        batches: Vec<BatchView>,
    ) -> Result<(Offset, watch::Receiver<Synced>), log::AppendError> {
        let is_full = |error: &log::AppendError| matches!(error, log::AppendError::Full { .. });
        let attempt = || std::future::ready(self.inner.try_write(batches.clone()));
        self.inner.room.find(is_full, attempt).await
    }
}

impl Inner {
    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        // A log that a panic left is asked whether it is broken before it is written to.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_write(
        &self,
        batches: Vec<BatchView>,
    ) -> Result<(Offset, watch::Receiver<Synced>), log::AppendError> {
        let mut log = self.log();
        let appended = log.append_copy(batches, CopyEpochs::Keep)?;
        log.flush();
        Ok((appended.next, log.synced()))
    }

    fn last(&self) -> io::Result<Option<LogId>> {
        let end = self.reader.end();
        if end == self.reader.start() {
            return Ok(*lock(&self.purged));
        }
        let last = Offset(end.value() - 1);
        let entries = self.read(last, end)?;
        Ok(entries.last().map(|entry| entry.log_id))
    }

    /// The entries of `from..until`; those that are not there are left out.
    fn read(&self, from: Offset, until: Offset) -> io::Result<Vec<Entry>> {
        let mut next = from.max(self.reader.start());
        let until = until.min(self.reader.end());
        let mut entries = Vec::new();
        while next < until {
            let limits = Limits {
                bytes_max: READ_BYTES,
                oversize: Oversize::Give,
                until,
            };
            let slice = self.reader.read_waiting(next, limits).map_err(io::Error::other)?;
            for batch in Batches::new(joined(slice.parts)) {
                let batch = batch.map_err(io::Error::other)?;
                batch.check_crc().map_err(io::Error::other)?;
                if batch.base_offset() >= from && batch.base_offset() < until {
                    entries.push(decode(&batch)?);
                }
            }
            next = slice.next;
        }
        Ok(entries)
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(first) => offset(*first),
            Bound::Excluded(before) => offset(*before).plus(1),
            Bound::Unbounded => Offset::ZERO,
        };
        let until = match range.end_bound() {
            Bound::Included(last) => offset(*last).plus(1),
            Bound::Excluded(end) => offset(*end),
            Bound::Unbounded => Offset(i64::MAX),
        };
        self.blocking("read entries", ErrorVerb::Read, move |inner| {
            inner.read(from, until)
        })
        .await
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        self.blocking("read log state", ErrorVerb::Read, |inner| {
            let last_log_id = inner.last()?;
            let last_purged_log_id = *lock(&inner.purged);
            Ok(LogState {
                last_purged_log_id,
                last_log_id,
            })
        })
        .await
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.blocking("save vote", ErrorVerb::Write, move |inner| {
            write_small(inner.disk.as_ref(), VOTE, &vote)?;
            *lock(&inner.vote) = Some(vote);
            Ok(())
        })
        .await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(*lock(&self.inner.vote))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let shared = self.inner.alone.write(&entries).await;
        shared.map_err(|error| failed(ErrorVerb::Write, &error))?;
        let now_ms = self.inner.clock.unix_ms();
        let batches: Vec<BatchView> = entries.iter().map(|entry| encode(entry, now_ms)).collect();
        let written = self.write(batches).await;
        let (end, mut synced) = written.map_err(|error| failed(ErrorVerb::Write, &error))?;
        let tasks = self.inner.tasks.clone();
        tasks.spawn("synced entries", Kind::BestEffort, async move {
            let reached = synced
                .wait_for(|synced| synced.broken.is_some() || synced.offset >= end)
                .await;
            let done = match reached {
                Ok(synced) => match &synced.broken {
                    Some(broken) => Err(io::Error::other(broken.to_string())),
                    None => Ok(()),
                },
                Err(_) => Err(io::Error::other("the log was lost")),
            };
            callback.log_io_completed(done);
        });
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.blocking("truncate entries", ErrorVerb::Delete, move |inner| {
            let done = inner.log().truncate_to(offset(log_id.index));
            done.map(drop).map_err(|error| match error {
                log::ChangeError::Full => io::ErrorKind::StorageFull.into(),
                error => io::Error::other(error),
            })
        })
        .await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.blocking("purge entries", ErrorVerb::Delete, move |inner| {
            write_small(inner.disk.as_ref(), PURGED, &Some(log_id))?;
            *lock(&inner.purged) = Some(log_id);
            let mut log = inner.log();
            let start = offset(log_id.index).plus(1);
            // A snapshot of a leader may reach beyond everything that is here.
            let done = if start > log.end() {
                log.restart_at(start)
            } else {
                log.trim_to(start)
            };
            done.map_err(io::Error::other)
        })
        .await
    }
}

/// One batch with one record, the entry as JSON.
fn encode(entry: &Entry, now_ms: i64) -> BatchView {
    let value =
        serde_json::to_vec(entry).expect("entries have string keys and no value that JSON cannot write");
    let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
    let record = NewRecord {
        timestamp_ms: now_ms,
        key: None,
        value: Some(&value),
        headers: &[],
    };
    builder
        .append(&record)
        .expect("the changes of one entry are far below the limits of a batch");
    let built = builder
        .build()
        .expect("an uncompressed batch is only put together");
    let batch = BatchView::parse(built.expect("it has a record")).expect("it was just built");
    let term = i32::try_from(entry.log_id.leader_id.term).expect("2^31 elections never happen");
    let (at, epoch) = (offset(entry.log_id.index), LeaderEpoch(term));
    batch.stamp(at, epoch).unwrap_or_else(|shared| {
        let mut whole = BytesMut::from(&shared.stamped_header(at, epoch)[..]);
        whole.extend_from_slice(&shared.bytes()[HEADER_BYTES..]);
        BatchView::parse(whole.freeze()).expect("stamping keeps a batch valid")
    })
}

fn decode(batch: &BatchView) -> io::Result<Entry> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let records = batch
        .records(ENTRY_BYTES_MAX)
        .map_err(|error| invalid(error.to_string()))?;
    let first = (&records).into_iter().next();
    let first = first.ok_or_else(|| invalid("a batch without an entry".to_owned()))?;
    let first = first.map_err(|error| invalid(error.to_string()))?;
    let value = first.value.unwrap_or_default();
    let entry: Entry = serde_json::from_slice(value).map_err(|error| {
        let reason = newer_in(value).unwrap_or_else(|| error.into());
        invalid(format!("entry at {}: {reason}", batch.base_offset()))
    })?;
    if entry.log_id.index != index(batch.base_offset()) {
        return Err(invalid(format!(
            "entry at {} bears another index",
            batch.base_offset()
        )));
    }
    Ok(entry)
}

fn joined(parts: Vec<Bytes>) -> Bytes {
    match &parts[..] {
        [one] => one.clone(),
        parts => {
            let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
            parts.iter().for_each(|part| joined.extend_from_slice(part));
            joined.freeze()
        }
    }
}

fn read_small<T: DeserializeOwned>(disk: &dyn Disk, path: &'static str) -> Result<Option<T>, OpenError> {
    let Some(bytes) = disk::read_if_there(disk, Path::new(path), SMALL_BYTES_MAX)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes).map_err(|error| corrupt(path, error))
}

fn write_small<T: Serialize>(disk: &dyn Disk, path: &'static str, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).expect("numbers can be written");
    disk::replace(disk, Path::new(path), &bytes)
}

fn corrupt(what: &'static str, reason: impl ToString) -> OpenError {
    OpenError::Corrupt {
        what,
        reason: reason.to_string(),
    }
}

fn failed(verb: ErrorVerb, error: &(impl std::error::Error + 'static)) -> StorageError {
    StorageIOError::<NodeId>::new(ErrorSubject::Logs, verb, openraft::AnyError::new(error)).into()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Single values, replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::disk::memory::MemoryDisk;
    use futures_util::FutureExt as _;
    use std::time::Duration;

    /// A store whose disk is full by now.
    fn without_room() -> (Sys, MemoryDisk, Store) {
        let mut sys = Sys::simulated(1);
        let disk = MemoryDisk::new(sys.random.fork());
        sys.disk = Arc::new(disk.clone());
        disk.create_folder(Path::new("metadata")).unwrap();
        let store = Store::open(&sys, sys.tasks.child("quorum")).unwrap();
        disk.set_capacity(0);
        (sys, disk, store)
    }

    #[tokio::test]
    async fn a_full_disk_is_waited_for() {
        let (sys, disk, mut store) = without_room();
        let vote = Vote::new(3, NodeId(1));
        let mut saving = Box::pin(store.save_vote(&vote));
        for _ in 0..50 {
            let early = saving.as_mut().now_or_never();
            assert!(early.is_none(), "there is no room: {early:?}");
            sys.clock.advance(Duration::from_millis(100));
        }
        disk.set_capacity(u64::MAX);
        saving.await.unwrap();
        assert_eq!(store.read_vote().await.unwrap(), Some(vote));
    }

    #[tokio::test]
    async fn nobody_waits_for_room_when_the_node_stops() {
        let (sys, _disk, mut store) = without_room();
        sys.tasks.cancel();
        let refused = store.save_vote(&Vote::new(3, NodeId(1))).await;
        assert!(refused.is_err());
    }
}
