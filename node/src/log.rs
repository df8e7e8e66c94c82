//! One partition's log: batches in segments, appended by one owner, read by many.
//!
//! It is given a folder and a configuration and never hears of topics. It owns what lies in the folder: the
//! segments with their indexes, the leader-epoch history, the checkpoint, the producer snapshots, the watermark.
//! Batches are stored as they came; only base offset and leader epoch, which lie outside their checksum, are
//! stamped. What was appended is readable at once and durable after the next sync, which many appends share. It must never
//! change a stored batch or leave a gap that was not in its input, unless it is asked to be compacted; nor call a byte
//! durable that is not.
//!
//! ```text
//! append -> segment file (page cache) + index + tail -> `end` rises -> readers
//! flush  -> syncer, one sync for all that waits       -> `synced` rises -> acknowledgements
//! ```
//!
//! Calls on [`Log`] run on the caller's thread. `append` and `flush` only reach the page cache; every other
//! change waits for the device and belongs on a blocking thread.

mod checkpoint;
mod compaction;
mod config;
mod cut;
mod damage;
mod epochs;
mod error;
mod flush;
mod folder;
mod index;
mod lookup;
mod note;
mod read;
mod reader;
mod recovery;
mod repair;
mod retention;
mod scan;
mod scrub;
mod segment;
mod snapshot;
mod tail;
mod watermark;

#[cfg(test)]
mod tests;

pub use compaction::{
    Aborted, CleanError, CleanOptions, Cleaning, Dirt, DirtRules, Progress, Replacement, Summary,
};
pub use config::Config;
pub use epochs::{EpochHistory, EpochStart};
pub use error::{AppendError, Broken, ChangeError, Damaged, OpenError, ReadError};
pub use flush::Synced;
pub use lookup::Found;
pub use read::{Limits, Oversize, Slice};
pub use reader::LogReader;
pub use recovery::{Cut, Opened, Recovery};
pub use repair::{Other, Repair, RepairError, Repaired};
pub use retention::Maintained;
pub use scrub::{Scrub, Scrubbed};

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use arc_swap::ArcSwap;
use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{BatchHeader, BatchView, HEADER_BYTES};
use tokio::sync::watch;

use crate::sys::Sys;
use crate::sys::buffers::Buffers;
use crate::sys::clock::Clock;
use crate::sys::disk::{self, Disk};
use crate::sys::task::Tasks;
use compaction::Clean;
use epochs::EpochFile;
use flush::{Flush, Syncer};
use reader::Hints;
use segment::Segment;
use snapshot::Snapshots;
use tail::{Tail, TailBudget};

/// Memory for reads that is kept when nobody reads.
const UNUSED_BYTES_MAX: usize = 4 << 20;

/// What all logs of a node share: the disk, the workers that sync, the memory for tails. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs {
    disk: Arc<dyn Disk>,
    clock: Clock,
    tasks: Tasks,
    syncer: Arc<Syncer>,
    tails: Arc<TailBudget>,
    /// What files are read into.
    buffers: Buffers,
    /// Room on the disk that records leave free.
    spare_bytes: u64,
}

impl Logs {
    /// `tail_bytes` of memory keep the newest batches of all logs together for their readers.
    pub fn new(sys: &Sys, tail_bytes: usize) -> Self {
        let tasks = sys.tasks.child("log");
        Self {
            disk: Arc::clone(&sys.disk),
            clock: sys.clock.clone(),
            syncer: Syncer::new(tasks.clone()),
            tasks,
            tails: TailBudget::new(tail_bytes),
            buffers: Buffers::new(UNUSED_BYTES_MAX),
            spare_bytes: 0,
        }
    }

    /// The same, but appends are refused as on a full disk while they would leave less than `bytes` of it free: for what
    /// must be written even then. Looked at every quarter of a megabyte, so that a log may go so far beyond.
    pub fn sparing(self, bytes: u64) -> Self {
        Self {
            spare_bytes: bytes,
            ..self
        }
    }

    /// Opens the log in `folder`, made if need be, checking what a crash may have left. Waits for the disk:
    /// call it on a blocking thread, several at once for many logs.
    pub fn open(&self, folder: &Path, config: Config) -> Result<Opened, OpenError> {
        recovery::open(self, folder, config)
    }

    /// Bytes of memory all tails use.
    pub fn tail_bytes(&self) -> usize {
        self.tails.used()
    }
}

/// What the owner and its readers share.
#[derive(Debug)]
struct Shared {
    logs: Logs,
    folder: PathBuf,
    /// In rising order, never empty; the last is appended to.
    segments: ArcSwap<Vec<Arc<Segment>>>,
    start: AtomicI64,
    end: AtomicI64,
    tail: Arc<Tail>,
    hints: Hints,
    epochs: ArcSwap<EpochHistory>,
    /// Whether the history lacks nothing.
    are_epochs_whole: bool,
    flush: Arc<Flush>,
    clean: Clean,
    /// Held for writing while batches are taken away, or segments give way to others.
    cutting: RwLock<()>,
}

impl Shared {
    fn start(&self) -> Offset {
        Offset(self.start.load(Ordering::Acquire))
    }

    fn end(&self) -> Offset {
        Offset(self.end.load(Ordering::Acquire))
    }

    /// While this is held, nothing below the end goes away by truncation, and no segment gives way to another.
    fn uncut(&self) -> RwLockReadGuard<'_, ()> {
        self.cutting.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One log, in the hands of its owner.
///
/// - `start <= synced <= end` (after a cut, `synced` is `end`).
/// - Base offsets and last offsets of stored batches rise; each batch lies in one segment.
/// - Epochs never fall along the log.
/// - After an error of kind `Broken` nothing is appended until the log is opened anew; reads go on.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    config: Config,
    epochs: EpochFile,
    snapshots: Snapshots,
    active: Active,
    /// Bytes that may be appended before room on the disk is looked at.
    unlooked_bytes: u64,
    /// As it was opened: what of it is on the device is not known.
    is_untouched: bool,
}

/// What only the owner knows of the segment it appends to.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    /// Room was asked of the disk up to here.
    reserved: u64,
    /// When the segment was begun, or first seen by this process.
    since_ms: i64,
    /// Timestamp of its first batch, by which `segment.ms` is judged while appending.
    first_timestamp: Option<i64>,
}

impl Active {
    fn begin(segment: Arc<Segment>, since_ms: i64) -> Self {
        Self {
            segment,
            reserved: 0,
            since_ms,
            first_timestamp: None,
        }
    }
}

/// Where an append went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Base offset of the first batch. Those that follow go on without a gap, in the order given.
    pub base: Offset,
    /// The log's end after the last batch.
    pub next: Offset,
    /// The offset a new segment began with, if one did: a good point for a producer snapshot.
    pub rolled_at: Option<Offset>,
}

/// Whose leader epochs a copy carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyEpochs {
    /// The source's: a replica is the same to the byte.
    Keep,
    /// This log's own: a mirror.
    Stamp(LeaderEpoch),
}

/// Bytes that are appended between two looks at the room on the disk.
const LOOK_EVERY_BYTES: u64 = 256 << 10;
/// Room asked for behind the end of a segment: at least, and at most.
const RESERVE_BYTES_MIN: u64 = 64 << 10;
const RESERVE_BYTES_MAX: u64 = 32 << 20;

/// A batch as it goes to disk: stamped in place, or its stamped header beside the shared rest.
struct Stamped {
    header: BatchHeader,
    head: Bytes,
    body: Bytes,
}

impl Stamped {
    fn new(batch: BatchView, offset: Offset, epoch: LeaderEpoch) -> Self {
        match batch.stamp(offset, epoch) {
            Ok(batch) => Self {
                header: *batch.header(),
                head: Bytes::new(),
                body: batch.into_bytes(),
            },
            Err(shared) => {
                let head = shared.stamped_header(offset, epoch);
                let header = BatchHeader::parse(&head).expect("stamping keeps a header valid");
                let body = shared.bytes().slice(HEADER_BYTES..);
                Self {
                    header,
                    head: Bytes::copy_from_slice(&head),
                    body,
                }
            }
        }
    }

    fn unchanged(batch: BatchView) -> Self {
        Self {
            header: *batch.header(),
            head: Bytes::new(),
            body: batch.into_bytes(),
        }
    }
}

impl Log {
    /// A handle for reading, for any number of tasks.
    pub fn reader(&self) -> LogReader {
        LogReader {
            shared: Arc::clone(&self.shared),
        }
    }

    pub fn start(&self) -> Offset {
        self.shared.start()
    }

    pub fn end(&self) -> Offset {
        self.shared.end()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes new properties; those of segments count from the next roll on.
    pub fn configure(&mut self, config: Config) {
        self.active
            .segment
            .set_index_interval(config.index_interval_bytes);
        self.config = config;
    }

    /// Appends batches whose checksums were verified, giving them the next offsets and `epoch`. All of them
    /// or none. They are readable on return, and durable after the next [`Log::flush`].
    pub fn append(&mut self, batches: Vec<BatchView>, epoch: LeaderEpoch) -> Result<Appended, AppendError> {
        self.shared.flush.check()?;
        self.look_for_room(&batches)?;
        self.begin_epoch(epoch)?;
        let mut next = self.end();
        let stamped = batches.into_iter().map(|batch| {
            let at = next;
            next = at.plus(i64::from(batch.header().last_offset_delta) + 1);
            Stamped::new(batch, at, epoch)
        });
        let stamped: Vec<Stamped> = stamped.collect();
        self.write(&stamped)
    }

    /// Appends batches of another log, whose checksums were verified, at the offsets they have. They must
    /// rise from the log's end; gaps are the source's.
    pub fn append_copy(
        &mut self,
        batches: Vec<BatchView>,
        epochs: CopyEpochs,
    ) -> Result<Appended, AppendError> {
        self.shared.flush.check()?;
        self.look_for_room(&batches)?;
        let (mut expected, mut current) = (self.end(), self.epochs.history().latest());
        for batch in &batches {
            let header = batch.header();
            if header.base_offset < expected {
                return Err(AppendError::NotContiguous {
                    expected,
                    found: header.base_offset,
                });
            }
            expected = header.next_offset();
            let epoch = match epochs {
                CopyEpochs::Keep => header.partition_leader_epoch,
                CopyEpochs::Stamp(epoch) => epoch,
            };
            if epoch < current {
                return Err(AppendError::StaleEpoch {
                    asked: epoch,
                    current,
                });
            }
            current = epoch;
        }
        let stamped: Vec<Stamped> = match epochs {
            CopyEpochs::Keep => batches.into_iter().map(Stamped::unchanged).collect(),
            CopyEpochs::Stamp(epoch) => {
                let stamp = |batch: BatchView| {
                    let base = batch.base_offset();
                    Stamped::new(batch, base, epoch)
                };
                batches.into_iter().map(stamp).collect()
            }
        };
        self.write(&stamped)
    }

    /// Whether nothing was ever written to it. Its first record waits for the device.
    pub fn is_new(&self) -> bool {
        self.shared.flush.is_new()
    }

    /// Before the first change: an earlier process may have ended without syncing a name or an epoch, and neither is news
    /// to this one.
    fn touch(&mut self) -> std::io::Result<()> {
        if self.is_untouched {
            self.shared.flush.anchor()?;
            if let Some(file) = self.epochs.renew()? {
                self.shared.flush.epoch_begun(file);
            }
            self.is_untouched = false;
        }
        Ok(())
    }

    fn look_for_room(&mut self, batches: &[BatchView]) -> Result<(), AppendError> {
        let logs = &self.shared.logs;
        let bytes = batches.iter().map(|batch| batch.bytes().len() as u64).sum();
        if logs.spare_bytes == 0 || bytes <= self.unlooked_bytes {
            self.unlooked_bytes = self.unlooked_bytes.saturating_sub(bytes);
            return Ok(());
        }
        match logs.disk.free_bytes(&self.shared.folder) {
            Ok(free) if free < logs.spare_bytes.saturating_add(bytes) => Err(AppendError::Full { bytes }),
            // A disk that cannot tell says so when it is written to.
            Ok(_) | Err(_) => {
                self.unlooked_bytes = LOOK_EVERY_BYTES;
                Ok(())
            }
        }
    }

    /// Notes that a leader of `epoch` begins at the log's end. It counts as synced before any record of it
    /// does. An epoch already begun is not news; an older one is refused.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), AppendError> {
        let current = self.epochs.history().latest();
        if epoch < current {
            return Err(AppendError::StaleEpoch {
                asked: epoch,
                current,
            });
        }
        let begun = self.begin_epoch_at(epoch, self.end());
        begun.map_err(|cause| self.refuse("write of an epoch", 0, cause))
    }

    fn begin_epoch_at(&mut self, epoch: LeaderEpoch, start: Offset) -> std::io::Result<()> {
        if epoch <= self.epochs.history().latest() {
            return Ok(());
        }
        let begun = self.epochs.begin(epoch, start)?;
        self.shared.epochs.store(self.epochs.history());
        if let Some(file) = begun {
            self.shared.flush.epoch_begun(file);
        }
        Ok(())
    }

    /// What a write that left nothing behind is answered with: a full disk does no harm that way, anything else does.
    fn refuse(&self, action: &'static str, bytes: u64, cause: std::io::Error) -> AppendError {
        match disk::is_full(&cause) {
            true => AppendError::Full { bytes },
            false => self.shared.flush.break_by(action, cause).into(),
        }
    }

    /// Asks for all that was appended to become durable, and returns at once: [`Log::synced`] tells when it
    /// is. Asking often costs nothing: one sync answers everybody who asked before it began.
    pub fn flush(&self) {
        self.shared.flush.ask(&self.shared.logs.syncer);
    }

    /// How far the log is durable, and whether it is broken.
    pub fn synced(&self) -> watch::Receiver<Synced> {
        self.shared.flush.synced()
    }

    /// Returns once all that was appended is durable, and whatever epoch was begun. Waits for the device.
    pub fn flush_now(&mut self) -> Result<(), AppendError> {
        self.shared.flush.check()?;
        let anchored = self.shared.flush.anchor();
        anchored.map_err(|cause| self.refuse("first write", 0, cause))?;
        Ok(self.shared.flush.now()?)
    }

    /// Keeps a snapshot of what the partition knows of its producers up to `offset`. Not synced.
    pub fn store_snapshot(&mut self, offset: Offset, content: &[u8]) -> std::io::Result<()> {
        let segments: Vec<Offset> = self.shared.segments.load().iter().map(|s| s.base()).collect();
        self.snapshots.store(offset, content, &segments)
    }

    /// The newest snapshot that is not beyond the log's end: replay the log from its offset on.
    pub fn latest_snapshot(&mut self) -> std::io::Result<Option<(Offset, Bytes)>> {
        self.snapshots.latest(self.end())
    }

    /// Forgets the snapshots behind `offset`: they may tell of what was wrong there.
    pub fn forget_snapshots(&mut self, offset: Offset) -> Result<(), ChangeError> {
        let forgotten = self.snapshots.cut(self.start(), offset);
        Ok(forgotten.map_err(|cause| self.shared.flush.break_by("forget snapshots", cause))?)
    }

    /// Makes everything durable and the next start instant. Waits for the device.
    pub fn close(self) -> Result<(), Arc<Broken>> {
        if self.is_untouched {
            return Ok(());
        }
        let shared = &self.shared;
        shared.flush.now()?;
        // Room that was reserved and not used goes back to the disk. Failing that, it is used next time.
        let segment = &self.active.segment;
        if self.active.reserved > segment.bytes() {
            let _ = segment.file().and_then(|file| file.truncate(segment.bytes()));
        }
        let indexed = segment.index().sync();
        let noted = indexed.and_then(|()| shared.flush.checkpoint().sync());
        let done = noted.and_then(|()| shared.logs.disk.sync_folder(&shared.folder));
        done.map_err(|cause| shared.flush.break_by("sync at the end", cause))
    }

    /// Removes the log and its folder. Readers see the end of what they hold.
    pub fn remove(self) -> std::io::Result<()> {
        let _pause = self.shared.flush.pause();
        self.shared.logs.disk.remove_folder(&self.shared.folder)
    }

    fn write(&mut self, batches: &[Stamped]) -> Result<Appended, AppendError> {
        let base = self.end();
        let Some((first, last)) = batches.first().zip(batches.last()) else {
            return Ok(Appended {
                base,
                next: base,
                rolled_at: None,
            });
        };
        let bytes: u64 = batches
            .iter()
            .map(|batch| batch.header.total_bytes() as u64)
            .sum();
        if bytes > config::SEGMENT_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes });
        }
        self.touch()
            .map_err(|cause| self.refuse("first write", bytes, cause))?;
        let rolled_at = match self.must_roll(&first.header, &last.header, bytes) {
            Some(base) => Some(self.roll(base, bytes)?),
            None => None,
        };
        let position = self.active.segment.bytes();
        self.reserve(position + bytes);
        let mut parts = Vec::with_capacity(2 * batches.len());
        for batch in batches {
            if !batch.head.is_empty() {
                parts.push(IoSlice::new(&batch.head));
            }
            parts.push(IoSlice::new(&batch.body));
        }
        let file = self
            .active
            .segment
            .file()
            .expect("the active segment is open")
            .clone();
        if let Err(cause) = file.write_at(position, &mut parts) {
            return Err(self.undo(&*file, position, bytes, cause));
        }
        // Not before: what does not fit begins no epoch. Nor later: an epoch is synced with its first record.
        for batch in batches {
            let begun = self.begin_epoch_at(batch.header.partition_leader_epoch, batch.header.base_offset);
            begun.map_err(|cause| self.undo(&*file, position, bytes, cause))?;
        }
        self.publish(batches, position)?;
        Ok(Appended {
            base: first.header.base_offset,
            next: self.end(),
            rolled_at,
        })
    }

    /// Shows readers what is in the file now.
    fn publish(&mut self, batches: &[Stamped], mut position: u64) -> Result<(), AppendError> {
        let segment = &self.active.segment;
        let shared = &self.shared;
        for batch in batches {
            self.active
                .first_timestamp
                .get_or_insert(batch.header.max_timestamp);
            // A lost index entry is made good when it is missed.
            if let Err(error) = segment.note(&batch.header, position) {
                tracing::warn!(folder = %shared.folder.display(), %error, "index not written");
            }
            position += batch.header.total_bytes() as u64;
            let (head, body) = (batch.head.clone(), batch.body.clone());
            shared
                .tail
                .push(&batch.header, head, body, self.config.tail_bytes_max);
        }
        let end = segment.next();
        let max_timestamp = segment
            .max_timestamp()
            .expect("it is in memory while the segment is appended to");
        shared.flush.appended(end, position, max_timestamp);
        shared.end.store(end.value(), Ordering::Release);
        Ok(())
    }

    /// Takes back a write that failed half-way.
    fn undo(&self, file: &dyn disk::File, position: u64, bytes: u64, cause: std::io::Error) -> AppendError {
        match file.truncate(position) {
            Ok(()) => self.refuse("write", bytes, cause),
            Err(cause) => self.shared.flush.break_by("undoing of a write", cause).into(),
        }
    }

    /// Where a new segment must begin before these batches, if one must: at the log's end, so that segments
    /// follow one another even where the batches leave offsets out.
    fn must_roll(&self, first: &BatchHeader, last: &BatchHeader, bytes: u64) -> Option<Offset> {
        let segment = &self.active.segment;
        let limit = i64::from(i32::MAX);
        if last.last_offset().since(self.end()) > limit {
            // Not even a new segment could name the offset.
            return Some(first.base_offset);
        }
        if last.last_offset().since(segment.base()) > limit {
            return Some(self.end());
        }
        let is_full = segment.bytes() + bytes > self.config.segment_bytes.min(config::SEGMENT_BYTES_MAX);
        let age = |begun: i64| first.max_timestamp.saturating_sub(begun);
        let is_old = self
            .active
            .first_timestamp
            .is_some_and(|begun| age(begun) >= self.config.segment_ms);
        (segment.bytes() > 0 && (is_full || is_old)).then(|| self.end())
    }

    /// Begins a new segment at `base`. On a full disk nothing has changed.
    fn roll(&mut self, base: Offset, bytes: u64) -> Result<Offset, AppendError> {
        let is_gap = base != self.end();
        let shared = &self.shared;
        let segment = Segment::create(&shared.logs.disk, &shared.folder, base)
            .map_err(|cause| self.refuse("making of a segment", bytes, cause))?;
        if let Err(cause) = self.active.segment.seal() {
            // What is smaller may still fit into the old one: then nothing may lie behind it. The next sync makes sure of that.
            let removed = segment.remove();
            removed.map_err(|cause| shared.flush.break_by("removal of an empty segment", cause))?;
            shared.flush.note_folder_changed();
            return Err(self.refuse("end of a segment", bytes, cause));
        }
        segment.set_index_interval(self.config.index_interval_bytes);
        let mut segments = Vec::clone(&shared.segments.load());
        segments.push(Arc::clone(&segment));
        shared.segments.store(Arc::new(segments));
        shared.flush.rolled(&segment);
        self.active = Active::begin(segment, shared.logs.clock.unix_ms());
        if is_gap {
            // Recovery takes a gap between segments for a loss, unless it begins behind it.
            self.shared.flush.now()?;
            let synced = self.shared.flush.checkpoint().sync();
            synced.map_err(|cause| self.shared.flush.break_by("sync of the checkpoint", cause))?;
        }
        Ok(base)
    }

    /// What may be reserved without taking from what is spared.
    fn room(&self) -> u64 {
        let logs = &self.shared.logs;
        match logs.spare_bytes {
            0 => u64::MAX,
            spare => logs
                .disk
                .free_bytes(&self.shared.folder)
                .map_or(0, |free| free.saturating_sub(spare)),
        }
    }

    /// Asks the disk for room ahead of the writes, in growing steps: syncs then change less on disk.
    fn reserve(&mut self, end: u64) {
        if end <= self.active.reserved {
            return;
        }
        let position = self.active.segment.bytes();
        let step = position
            .clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX)
            .min(self.room());
        let most = self.config.segment_bytes.max(end);
        let until = (end + step).min(most);
        // A disk that has no room, or no such thing, takes plain writes.
        let file = self.active.segment.file().expect("the active segment is open");
        let _ = file.reserve(position, until - position);
        self.active.reserved = until;
    }
}
