//! Opening a log: what is there, what of it is whole, and what a crash has left half done.
//!
//! Owns the judgement of the tail. Everything before the recovery point is believed, everything behind it is
//! checked batch by batch, and what does not hold is cut off and reported. What is missing before that point was durable
//! once: its place is kept, and reported as damaged. It must never cut before the recovery point, nor call what it
//! found durable before it was synced.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, RwLock};

use arc_swap::ArcSwap;
use headwater_protocol::ids::{LeaderEpoch, Offset};

use super::checkpoint::{Checkpoint, CheckpointFile, RecoveryPoint, SegmentsOnDisk};
use super::compaction::Clean;
use super::damage::loss;
use super::epochs::EpochFile;
use super::error::Damaged;
use super::flush::Flush;
use super::folder::{self, Part};
use super::reader::Hints;
use super::scan::{Damage, Scan, Trust};
use super::segment::Segment;
use super::snapshot::Snapshots;
use super::tail::Tail;
use super::{Active, Config, Log, Logs, OpenError, Shared, compaction, repair};
use crate::sys::disk::{EntryKind, File};

/// A log that was opened, and what had to be done for it.
#[derive(Debug)]
pub struct Opened {
    pub log: Log,
    pub recovery: Recovery,
}

/// What opening a log found. After a clean shutdown nothing is checked and nothing cut.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Bytes that were read and checked.
    pub checked_bytes: u64,
    /// Set when the tail did not hold.
    pub cut: Option<Cut>,
    /// What was durable and is not there any more.
    pub lost: Vec<Damaged>,
}

/// A tail that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The log's end after the cut.
    pub at: Offset,
    pub bytes: u64,
    /// Segments that were removed whole.
    pub segments: usize,
    pub reason: String,
}

pub(super) fn open(logs: &Logs, folder: &Path, config: Config) -> Result<Opened, OpenError> {
    Opening { logs, folder, config }.run()
}

struct Opening<'a> {
    logs: &'a Logs,
    folder: &'a Path,
    config: Config,
}

/// The files of a folder that belong to a log.
#[derive(Default)]
struct Found {
    segments: Vec<Offset>,
    snapshots: Vec<Offset>,
    orphans: Vec<(Offset, Part)>,
    /// Segments that were repaired and did not take their place yet.
    repaired: Vec<Offset>,
    /// What compaction has made, the same.
    swaps: Vec<Offset>,
}

/// What to think of offsets missing between two segments behind the recovery point. Appends leave none there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gaps {
    /// A crash lost what was between them.
    AreLosses,
    /// Where the recovery point was is not known: they may be from long ago.
    AreBelieved,
}

/// The segments as they were found whole.
struct Recovered {
    segments: Vec<Arc<Segment>>,
    /// Those of them that were checked, and must be synced.
    checked: Vec<Arc<Segment>>,
    /// Epochs met while checking.
    epochs: Vec<(LeaderEpoch, Offset)>,
    recovery: Recovery,
}

impl Opening<'_> {
    fn run(self) -> Result<Opened, OpenError> {
        let disk = &self.logs.disk;
        let mut found = self.look()?;
        if !found.repaired.is_empty() {
            for base in &found.repaired {
                let placed = repair::put_in_place(disk, self.folder, *base);
                placed.map_err(|cause| self.failed("put a repaired segment into", cause))?;
            }
            found = self.look()?;
        }
        if !found.swaps.is_empty() {
            for base in &found.swaps {
                let done = compaction::finish(&**disk, self.folder, *base, &found.segments);
                done.map_err(|cause| self.failed("put a compacted segment into", cause))?;
            }
            found = self.look()?;
        }
        let loaded = CheckpointFile::load(Arc::clone(disk), self.folder);
        let loaded = loaded.map_err(|cause| self.failed("read the checkpoint of", cause))?;
        let is_new = loaded.is_none() && self.has_no_records(&found.segments);
        let (checkpoint, segments, gaps) = match loaded {
            Some(file) => {
                let (file, segments) = self.existing(file, found.segments)?;
                (file, segments, Gaps::AreLosses)
            }
            None => {
                let file = self.unknown(&found, is_new)?;
                (file, found.segments, Gaps::AreBelieved)
            }
        };
        let content = checkpoint.content();
        let recovered = self
            .recover(&content, segments, gaps)
            .map_err(|cause| self.failed("recover", cause))?;
        for (offset, part) in found.orphans {
            let _ = disk.remove_file(&folder::path(self.folder, offset, part));
        }
        let snapshots = Snapshots::new(Arc::clone(disk), self.folder, found.snapshots);
        let opened = self
            .assemble(checkpoint, recovered, snapshots)
            .map_err(|cause| self.failed("open", cause))?;
        if is_new {
            opened.log.shared.flush.note_new();
        }
        Ok(opened)
    }

    fn failed(&self, action: &'static str, cause: io::Error) -> OpenError {
        OpenError::Io {
            action,
            path: self.folder.to_owned(),
            cause,
        }
    }

    fn look(&self) -> Result<Found, OpenError> {
        let disk = &self.logs.disk;
        let entries = match disk.list(self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = disk.create_folder(self.folder);
                made.map_err(|cause| self.failed("make", cause))?;
                Vec::new()
            }
            listed => listed.map_err(|cause| self.failed("list", cause))?,
        };
        let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let parsed: Vec<_> = files.filter_map(|entry| folder::parse(&entry.name)).collect();
        let of = |wanted: Part| {
            parsed
                .iter()
                .filter(move |(_, part)| *part == wanted)
                .map(|(offset, _)| *offset)
        };
        let mut found = Found {
            segments: of(Part::Log).collect(),
            ..Found::default()
        };
        found.segments.sort_unstable();
        found.snapshots = of(Part::Snapshot).collect();
        found.repaired = of(Part::Repaired).collect();
        found.swaps = of(Part::Swap).collect();
        let is_orphan = |(offset, part): &&(Offset, Part)| match part {
            Part::Index | Part::TimeIndex => found.segments.binary_search(offset).is_err(),
            Part::Repairing | Part::Cleaned | Part::CleanedIndex | Part::CleanedTimeIndex | Part::Deleted => {
                true
            }
            Part::Log | Part::Snapshot | Part::Repaired | Part::Damaged | Part::Swap => false,
        };
        found.orphans = parsed.iter().filter(is_orphan).copied().collect();
        Ok(found)
    }

    /// Without a checkpoint: whether nothing was ever written.
    fn has_no_records(&self, segments: &[Offset]) -> bool {
        match segments {
            [] => true,
            [Offset::ZERO] => {
                let path = folder::path(self.folder, Offset::ZERO, Part::Log);
                self.logs.disk.file_bytes(&path).is_ok_and(|bytes| bytes == 0)
            }
            _ => false,
        }
    }

    /// A log with a checkpoint: drops segments that a crash kept from being removed.
    fn existing(
        &self,
        mut file: CheckpointFile,
        mut segments: Vec<Offset>,
    ) -> Result<(CheckpointFile, Vec<Offset>), OpenError> {
        let content = file.content();
        let count = match content.segments {
            SegmentsOnDisk::None => segments.len(),
            // Those that lie wholly below the start.
            SegmentsOnDisk::All => segments
                .iter()
                .skip(1)
                .take_while(|base| **base <= content.log_start)
                .count(),
        };
        for base in segments.drain(..count) {
            let gone = Segment::existing(&self.logs.disk, self.folder, base, base, 0);
            gone.remove()
                .map_err(|cause| self.failed("remove an old segment of", cause))?;
        }
        if content.segments == SegmentsOnDisk::None {
            let content = Checkpoint {
                segments: SegmentsOnDisk::All,
                ..content
            };
            let synced = self.logs.disk.sync_folder(self.folder);
            let saved = synced
                .and_then(|()| file.write(content))
                .and_then(|()| file.sync());
            saved.map_err(|cause| self.failed("write the checkpoint of", cause))?;
        }
        Ok((file, segments))
    }

    /// A new log, of which nothing need be durable before its first record is; or one whose checkpoint is lost: then
    /// everything is checked.
    fn unknown(&self, found: &Found, is_new: bool) -> Result<CheckpointFile, OpenError> {
        let disk = &self.logs.disk;
        let start = found.segments.first().copied().unwrap_or(Offset::ZERO);
        let content = Checkpoint {
            log_start: start,
            recovered: RecoveryPoint::front_of(start),
            segments: SegmentsOnDisk::All,
        };
        if is_new {
            return Ok(CheckpointFile::unwritten(Arc::clone(disk), self.folder, content));
        }
        let file = CheckpointFile::create(Arc::clone(disk), self.folder, content);
        let durable = file.and_then(|file| {
            file.sync()?;
            disk.sync_folder(self.folder)?;
            Ok(file)
        });
        durable.map_err(|cause| self.failed("write the checkpoint of", cause))
    }

    fn recover(&self, content: &Checkpoint, bases: Vec<Offset>, gaps: Gaps) -> io::Result<Recovered> {
        let disk = &self.logs.disk;
        let mut out = Recovered {
            segments: Vec::with_capacity(bases.len() + 1),
            checked: Vec::new(),
            epochs: Vec::new(),
            recovery: Recovery::default(),
        };
        let point = self.point(content, &bases, &mut out.recovery)?;
        for (index, base) in bases.iter().enumerate() {
            let before = out
                .segments
                .last()
                .filter(|_| *base > point.segment && gaps == Gaps::AreLosses);
            if let Some(before) = before.filter(|before| before.next() != *base).cloned() {
                let reason = format!("segment {base} does not follow offset {}", before.next());
                let damage = Damage {
                    position: before.bytes(),
                    reason,
                };
                self.cut(&before, damage, before.bytes(), &bases[index..], &mut out)?;
                break;
            }
            let bytes = disk.file_bytes(&folder::path(self.folder, *base, Part::Log))?;
            // What is lost of the segment of the recovery point ends there, too.
            let following = bases.get(index + 1).copied();
            let next = following.unwrap_or_else(|| point.segment.max(*base));
            let segment = self.segment(*base, next, bytes);
            out.segments.push(Arc::clone(&segment));
            if *base < point.segment {
                continue;
            }
            let from = if *base == point.segment {
                point
            } else {
                RecoveryPoint::front_of(*base)
            };
            let damage = self.check(&segment, from, bytes, &mut out)?;
            let is_last = index + 1 == bases.len();
            if damage.is_some() && !is_last && gaps == Gaps::AreBelieved {
                // Only the last segment can have been torn. This one is damaged, and those behind it are not.
                out.segments.pop();
                out.segments.push(self.segment(*base, next, bytes));
                continue;
            }
            if let Some(damage) = damage {
                self.cut(&segment, damage, bytes, &bases[index + 1..], &mut out)?;
                break;
            }
            out.checked.push(segment);
        }
        // The last one is appended to. Those before it were sealed, or about to be.
        out.checked.retain(|segment| {
            out.segments
                .last()
                .is_some_and(|last| !Arc::ptr_eq(last, segment))
        });
        out.checked.iter().try_for_each(|segment| segment.seal())?;
        if out.segments.last().is_none_or(|last| last.base() < point.segment) {
            let segment = Segment::create(disk, self.folder, point.segment)?;
            segment.set_index_interval(self.config.index_interval_bytes);
            out.segments.push(segment);
        }
        out.recovery
            .lost
            .extend(loss(content.log_start, out.segments[0].base()));
        Ok(out)
    }

    fn segment(&self, base: Offset, next: Offset, bytes: u64) -> Arc<Segment> {
        let segment = Segment::existing(&self.logs.disk, self.folder, base, next, bytes);
        segment.set_index_interval(self.config.index_interval_bytes);
        Arc::new(segment)
    }

    /// From where on everything is checked.
    fn point(
        &self,
        content: &Checkpoint,
        bases: &[Offset],
        recovery: &mut Recovery,
    ) -> io::Result<RecoveryPoint> {
        let point = content.recovered;
        if let Some(lost) = self.lost(content, bases)? {
            // What follows what is lost is all that can be checked.
            recovery.lost.push(lost);
            return Ok(RecoveryPoint::front_of(point.next));
        }
        if bases.binary_search(&point.segment).is_err() {
            // Its segment was let go of, or was never made durable: check everything there is.
            let first = bases.first().copied();
            return Ok(RecoveryPoint::front_of(first.unwrap_or(content.log_start)));
        }
        Ok(point)
    }

    /// What the device held before the recovery point, in its segment, and is not there.
    fn lost(&self, content: &Checkpoint, bases: &[Offset]) -> io::Result<Option<Damaged>> {
        let point = content.recovered;
        if point.next <= content.log_start || point.position == 0 {
            return Ok(None);
        }
        let reason = if bases.binary_search(&point.segment).is_err() {
            "the file is missing"
        } else {
            let path = folder::path(self.folder, point.segment, Part::Log);
            if self.logs.disk.file_bytes(&path)? >= point.position {
                return Ok(None);
            }
            "the file is shorter than what was synced"
        };
        Ok(Some(Damaged {
            from: point.segment,
            until: point.next,
            position: 0,
            reason: reason.to_owned(),
        }))
    }

    /// Walks a segment from a point that is believed, if the indexes up to there are, else from its front.
    fn check(
        &self,
        segment: &Segment,
        from: RecoveryPoint,
        bytes: u64,
        out: &mut Recovered,
    ) -> io::Result<Option<Damage>> {
        let believed = from.position <= bytes
            && segment
                .index()
                .adopt(u64::from(from.entries), from.last_entry_position)?;
        let point = if believed {
            from
        } else {
            RecoveryPoint::front_of(segment.base())
        };
        segment.begin_at(point.position, point.next, point.max_timestamp);
        out.recovery.checked_bytes += bytes - point.position;
        if point.position == bytes {
            return Ok(None);
        }
        let mut scan = Scan::new(
            &**segment.file()?,
            Trust::Checksum,
            point.position,
            bytes,
            point.next,
        );
        let mut damage = None;
        while let Some(found) = scan.next()? {
            let placed = match found {
                Ok(placed) => placed,
                Err(found) => {
                    damage = Some(found);
                    break;
                }
            };
            if placed.header.last_offset().since(segment.base()) > i64::from(i32::MAX) {
                let (position, base) = (placed.position, placed.header.base_offset);
                let reason = format!("offset {base} is beyond what a segment spans");
                damage = Some(Damage { position, reason });
                break;
            }
            segment.note(&placed.header, placed.position)?;
            let epoch = placed.header.partition_leader_epoch;
            if out.epochs.last().is_none_or(|(last, _)| epoch > *last) {
                out.epochs.push((epoch, placed.header.base_offset));
            }
        }
        renew(&**segment.file()?, point.position, segment.bytes())?;
        Ok(damage)
    }

    /// Cuts a segment where it stops making sense, and everything behind it.
    fn cut(
        &self,
        segment: &Segment,
        damage: Damage,
        bytes: u64,
        later: &[Offset],
        out: &mut Recovered,
    ) -> io::Result<()> {
        let disk = &self.logs.disk;
        let mut cut_bytes = bytes - damage.position;
        for base in later.iter().rev() {
            cut_bytes += disk.file_bytes(&folder::path(self.folder, *base, Part::Log))?;
            Segment::existing(disk, self.folder, *base, *base, 0).remove()?;
        }
        if !later.is_empty() {
            disk.sync_folder(self.folder)?;
        }
        segment.file()?.truncate(damage.position)?;
        let at = segment.next();
        let cut = Cut {
            at,
            bytes: cut_bytes,
            segments: later.len(),
            reason: damage.reason,
        };
        tracing::warn!(folder = %self.folder.display(), ?cut, "the log's tail did not hold and was cut");
        out.recovery.cut = Some(cut);
        Ok(())
    }

    fn assemble(
        &self,
        checkpoint: CheckpointFile,
        recovered: Recovered,
        mut snapshots: Snapshots,
    ) -> io::Result<Opened> {
        let logs = self.logs.clone();
        let content = checkpoint.content();
        let Recovered {
            segments,
            checked,
            epochs: met,
            recovery,
        } = recovered;
        let active = Arc::clone(segments.last().expect("a log has a segment"));
        let start = start(&content, &segments);
        // Records may have been deleted up to an end that then was lost.
        let end = active.next().max(start);
        active.begin_at(active.bytes(), end, active.max_timestamp()?);
        let is_checked = recovery.checked_bytes > 0 || recovery.cut.is_some() || !recovery.lost.is_empty();
        let (epochs, grown) = self.epochs(start, end, met, is_checked)?;
        snapshots.cut(start, end)?;
        let synced = if is_checked {
            content.recovered.next.clamp(start, end)
        } else {
            end
        };
        let are_epochs_whole = epochs.is_whole();
        let clean = Clean::load(&*logs.disk, self.folder, end)?;
        let flush = self.flush(&active, synced, checkpoint)?;
        flush.sealed(checked);
        if let Some(file) = grown {
            flush.epoch_begun(file);
        }
        let shared = Arc::new(Shared {
            tail: Tail::new(Arc::clone(&logs.tails), end),
            folder: self.folder.to_owned(),
            segments: ArcSwap::from_pointee(segments),
            start: AtomicI64::new(start.value()),
            end: AtomicI64::new(end.value()),
            hints: Hints::default(),
            epochs: ArcSwap::new(epochs.history()),
            are_epochs_whole,
            flush,
            clean,
            cutting: RwLock::new(()),
            logs,
        });
        let active = Active::begin(active, shared.logs.clock.unix_ms());
        let log = Log {
            shared,
            config: self.config.clone(),
            epochs,
            snapshots,
            active,
            unlooked_bytes: 0,
            is_untouched: !is_checked,
        };
        if is_checked {
            // What was found behind the recovery point is in the page cache, maybe not on the device.
            log.flush();
        }
        Ok(Opened { log, recovery })
    }

    /// The history as far as the log reaches, with what was met while checking; and its file, if that has to be synced.
    fn epochs(
        &self,
        start: Offset,
        end: Offset,
        met: Vec<(LeaderEpoch, Offset)>,
        is_checked: bool,
    ) -> io::Result<(EpochFile, Option<Arc<dyn File>>)> {
        let mut epochs = EpochFile::load(Arc::clone(&self.logs.disk), self.folder)?;
        // An epoch that began at the end and wrote nothing stays: it was promised.
        epochs.cut(start, end.plus(1))?;
        let mut grown = None;
        for (epoch, begins) in met {
            grown = epochs.begin(epoch, begins)?.or(grown);
        }
        if is_checked {
            grown = epochs.renew()?.or(grown);
        }
        Ok((epochs, grown))
    }

    fn flush(
        &self,
        active: &Arc<Segment>,
        synced: Offset,
        checkpoint: CheckpointFile,
    ) -> io::Result<Arc<Flush>> {
        Ok(Flush::new(
            Arc::clone(&self.logs.disk),
            self.folder.to_owned(),
            Arc::clone(active),
            active.max_timestamp()?,
            synced,
            checkpoint,
        ))
    }
}

/// Where the log begins. Before its first segment there is nothing, or something that was lost.
fn start(content: &Checkpoint, segments: &[Arc<Segment>]) -> Offset {
    let first = segments[0].base();
    match loss(content.log_start, first) {
        Some(_) => content.log_start,
        None => content.log_start.max(first),
    }
}

/// Writes what was found in the page cache back to where it lies. After a sync that failed, an earlier process
/// left pages there that look clean and never reached the device: no later sync would bring them there.
fn renew(file: &dyn File, mut at: u64, end: u64) -> io::Result<()> {
    const CHUNK_BYTES: u64 = 1 << 20;
    let mut buffer = Vec::new();
    while at < end {
        buffer.clear();
        let read = file.read_at(at, &mut buffer, (end - at).min(CHUNK_BYTES) as usize)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_at(at, &mut [IoSlice::new(&buffer)])?;
        at += read as u64;
    }
    Ok(())
}
