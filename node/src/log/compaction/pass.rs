//! One pass over a log, step by step.
//!
//! Owns what the pass has read and where it is. It holds the log uncut only while it reads from it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{self, BatchHeader, BatchView, Rewriter};

use super::super::Shared;
use super::super::damage::{corrupt, failed, loss};
use super::super::error::ReadError;
use super::super::reader::LogReader;
use super::super::scan::{Scan, Trust};
use super::super::segment::Segment;
use super::judge::{Fate, Judge, Place, unfolded_max};
use super::map::{OffsetMap, Put};
use super::swap::Replacement;
use super::transactions::Transactions;
use super::writer::{Writer, Written};
use super::{CleanError, CleanOptions, Dirt, Progress, STEP_BYTES, Summary};
use crate::sys::disk;

/// A segment as it was when the pass began.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) segment: Arc<Segment>,
    bytes: u64,
    pub(super) next: Offset,
}

/// A place in the sources.
#[derive(Debug, Clone, Copy)]
struct At {
    source: usize,
    position: u64,
    /// The lowest offset that may follow.
    next: Offset,
}

#[derive(Debug)]
enum Stage {
    Mapping(At),
    /// A file is to be begun with the first source.
    Between,
    Writing {
        group: Range<usize>,
        at: At,
        writer: Writer,
        has_changed: bool,
    },
    Checking {
        group: Range<usize>,
        end: Offset,
        written: Written,
    },
    Over,
}

/// One pass over a log. Dropped, it leaves at most a file that the next pass or start removes.
pub struct Cleaning {
    shared: Arc<Shared>,
    /// Those that were not written anew yet.
    sources: Vec<Source>,
    from: Offset,
    segment_bytes: u64,
    /// As the map's half of the pass sees them.
    transactions: Transactions,
    map: OffsetMap,
    judge: Judge,
    rewriter: Rewriter,
    stage: Stage,
    summary: Summary,
}

impl LogReader {
    /// Begins a pass over what was found dirty.
    pub fn begin_cleaning(&self, dirt: &Dirt, options: CleanOptions) -> Result<Cleaning, ReadError> {
        let shared = &self.shared;
        let _uncut = shared.uncut();
        let segments = shared.segments.load();
        // One that is empty and appended to begins there.
        let is_whole = |segment: &&Arc<Segment>| segment.next() <= dirt.until && segment.base() < dirt.until;
        let whole = segments.iter().take_while(is_whole);
        let sources: Vec<Source> = whole
            .map(|segment| Source {
                bytes: segment.bytes(),
                next: segment.next(),
                segment: Arc::clone(segment),
            })
            .collect();
        let first = sources.partition_point(|source| source.next <= dirt.from);
        let at = At {
            source: first,
            position: 0,
            next: sources.get(first).map_or(dirt.from, |it| it.segment.base()),
        };
        let keys = u64::try_from(dirt.until.since(dirt.from)).unwrap_or(0);
        Ok(Cleaning {
            shared: Arc::clone(shared),
            sources,
            from: dirt.from,
            segment_bytes: options.segment_bytes,
            transactions: Transactions::new(&options.aborted),
            map: OffsetMap::new(options.map_bytes, keys),
            judge: Judge {
                now_ms: shared.logs.clock.unix_ms(),
                delete_retention_ms: options.delete_retention_ms,
                producers: options.producers,
                transactions: Transactions::new(&options.aborted),
                end: dirt.until,
                epoch: LeaderEpoch::NONE,
                kept: Vec::new(),
                forgotten: Vec::new(),
            },
            rewriter: Rewriter::new(),
            stage: Stage::Mapping(at),
            summary: Summary::default(),
        })
    }
}

impl Cleaning {
    /// Goes about a MiB on. Waits for the device. After an error the pass is over.
    pub fn step(&mut self) -> Result<Progress, CleanError> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Mapping(at) => self.note_keys(at),
            Stage::Between => self.begin_group(),
            Stage::Writing {
                group,
                at,
                mut writer,
                has_changed,
            } => match self.write(&group, at, &mut writer) {
                Ok((at, bytes, changed)) => self.go_on(group, at, writer, has_changed || changed, bytes),
                Err(error) => {
                    writer.discard();
                    Err(error)
                }
            },
            Stage::Checking {
                group,
                end,
                mut written,
            } => match self.check_written(&group, end, &mut written) {
                Ok(0) => {
                    self.stage = Stage::Between;
                    self.summary.bytes_after += written.bytes;
                    let sources = self.sources.drain(group).collect();
                    let forgotten = std::mem::take(&mut self.judge.forgotten);
                    let replacement = Replacement::new(written, sources, forgotten);
                    Ok(Progress::Ready(Box::new(replacement)))
                }
                Ok(bytes) => {
                    self.stage = Stage::Checking { group, end, written };
                    Ok(Progress::Working(bytes))
                }
                Err(error) => {
                    written.discard();
                    Err(error)
                }
            },
            Stage::Over => Ok(Progress::Over(self.summary)),
        }
    }

    /// Notes the keys of what is dirty.
    fn note_keys(&mut self, mut at: At) -> Result<Progress, CleanError> {
        let Some(source) = self.sources.get(at.source).cloned() else {
            self.stage = Stage::Between;
            return Ok(Progress::Working(0));
        };
        let shared = Arc::clone(&self.shared);
        let _uncut = shared.uncut();
        self.check_sources(at.source..at.source + 1)?;
        let mut full_at = None;
        let bytes = walk(&source, &mut at, shared.start(), |batch, _| {
            full_at = self.note_batch(&batch)?;
            Ok(full_at.is_none())
        })?;
        if let Some(end) = full_at {
            self.judge.end = end;
            self.stage = Stage::Between;
            return Ok(Progress::Working(bytes));
        }
        if at.position >= source.bytes {
            let next = self.sources.get(at.source + 1);
            at = At {
                source: at.source + 1,
                position: 0,
                next: next.map_or(source.next, |next| next.segment.base()),
            };
        }
        self.stage = Stage::Mapping(at);
        Ok(Progress::Working(bytes))
    }

    /// Notes the keys of a batch. Where there is no room for all of them, the offset up to which all are noted.
    fn note_batch(&mut self, batch: &BatchView) -> Result<Option<Offset>, CleanError> {
        let header = batch.header();
        let is_plain = header.record_count > 0 && !header.is_control() && header.next_offset() > self.from;
        if !is_plain || self.transactions.is_aborted(header) {
            return Ok(None);
        }
        let unreadable = |error: record::Error| unreadable(header, &error);
        let records = batch.records(unfolded_max(batch)).map_err(unreadable)?;
        for record in &records {
            let record = record.map_err(unreadable)?;
            let offset = header.base_offset.plus(i64::from(record.offset_delta));
            if offset < self.from {
                continue;
            }
            let put = record.key.map_or(Put::Done, |key| self.map.put(key, offset));
            if put == Put::Full {
                // Whole batches, so that tombstones in one batch have one horizon; but always some.
                let is_some = header.base_offset > self.from;
                return Ok(Some(if is_some { header.base_offset } else { offset }));
            }
        }
        Ok(None)
    }

    /// Begins the file for the next segments, as many as fit one.
    fn begin_group(&mut self) -> Result<Progress, CleanError> {
        let end = self.judge.end;
        let reached = |source: &&Source| source.segment.base() < end;
        let Some(source) = self.sources.first().filter(reached) else {
            self.summary.until = end;
            return Ok(Progress::Over(self.summary));
        };
        if source.bytes == 0 {
            self.sources.remove(0);
            self.stage = Stage::Between;
            return Ok(Progress::Working(0));
        }
        let base = source.segment.base();
        let (group, bytes) = self.group();
        self.check_sources(group.clone())?;
        let shared = &self.shared;
        let (disk, folder) = (&shared.logs.disk, &shared.folder);
        let room = shared.logs.spare_bytes.saturating_add(bytes);
        if shared.logs.spare_bytes > 0 && disk.free_bytes(folder).is_ok_and(|free| free < room) {
            return Err(CleanError::Full { bytes });
        }
        let writer = Writer::begin(disk, folder, base).map_err(|cause| not_written(base, cause))?;
        let at = At {
            source: 0,
            position: 0,
            next: base,
        };
        self.stage = Stage::Writing {
            group,
            at,
            writer,
            has_changed: false,
        };
        Ok(Progress::Working(0))
    }

    /// The segments that become one file, the first of those that are left and those behind it that fit; and their bytes.
    fn group(&self) -> (Range<usize>, u64) {
        let base = self.sources[0].segment.base();
        let (mut bytes, mut end) = (self.sources[0].bytes, 1);
        while let Some(source) = self.sources.get(end) {
            let follows = self.sources[end - 1].next == source.segment.base();
            let is_near = source.next.since(base) <= i64::from(i32::MAX);
            let is_reached = source.segment.base() < self.judge.end;
            let fits = bytes + source.bytes <= self.segment_bytes;
            if !(follows && is_near && is_reached && fits && source.bytes > 0) {
                break;
            }
            bytes += source.bytes;
            end += 1;
        }
        (0..end, bytes)
    }

    /// Writes what stays of the next batches. Returns where it is, the bytes it read, and whether anything has changed.
    fn write(
        &mut self,
        group: &Range<usize>,
        mut at: At,
        writer: &mut Writer,
    ) -> Result<(At, u64, bool), CleanError> {
        let shared = Arc::clone(&self.shared);
        let _uncut = shared.uncut();
        self.check_sources(at.source..group.end)?;
        let source = self.sources[at.source].clone();
        let is_last = at.source + 1 == group.end;
        let base = self.sources[group.start].segment.base();
        let mut has_changed = false;
        let bytes = walk(&source, &mut at, shared.start(), |batch, end| {
            let place = if is_last && end == source.bytes {
                Place::Last
            } else {
                Place::Before
            };
            let left = self.left_of(batch, place, &mut has_changed)?;
            if let Some(left) = left {
                writer.push(&left).map_err(|cause| not_written(base, cause))?;
            }
            Ok(true)
        })?;
        Ok((at, bytes, has_changed))
    }

    /// What stays of a batch.
    fn left_of(
        &mut self,
        batch: BatchView,
        place: Place,
        has_changed: &mut bool,
    ) -> Result<Option<Bytes>, CleanError> {
        let header = *batch.header();
        let unreadable = |error: record::Error| unreadable(&header, &error);
        let count = u64::from(header.record_count.unsigned_abs());
        let fate = self.judge.judge(&batch, &self.map, place).map_err(unreadable)?;
        *has_changed |= !matches!(fate, Fate::Keep);
        self.summary.records_before += count;
        Ok(match fate {
            Fate::Keep => {
                self.summary.records_after += count;
                Some(batch.into_bytes())
            }
            Fate::Drop => None,
            Fate::Empty => Some(record::emptied(&header)),
            Fate::Rewrite { records, horizon_ms } => {
                let kept = &self.judge.kept;
                self.summary.records_after += kept.iter().filter(|is_kept| **is_kept).count() as u64;
                let left = self.rewriter.retain(&records, kept, horizon_ms);
                Some(left.map_err(unreadable)?)
            }
        })
    }

    /// After a step of writing: more of it, or the next segment, or the end of the file.
    fn go_on(
        &mut self,
        group: Range<usize>,
        mut at: At,
        writer: Writer,
        has_changed: bool,
        bytes: u64,
    ) -> Result<Progress, CleanError> {
        let source = &self.sources[at.source];
        let base = self.sources[group.start].segment.base();
        if at.position >= source.bytes {
            self.summary.bytes_before += source.bytes;
            if at.source + 1 == group.end {
                if !has_changed && group.len() == 1 {
                    self.summary.bytes_after += source.bytes;
                    writer.discard();
                    self.sources.drain(group);
                    self.stage = Stage::Between;
                    return Ok(Progress::Working(bytes));
                }
                let interval = source.segment.index_interval();
                let written = writer.finish(interval);
                let written = written.map_err(|cause| not_written(base, cause))?;
                let end = at.next;
                self.stage = Stage::Checking { group, end, written };
                return Ok(Progress::Working(bytes));
            }
            at = At {
                source: at.source + 1,
                position: 0,
                next: source.next,
            };
        }
        self.stage = Stage::Writing {
            group,
            at,
            writer,
            has_changed,
        };
        Ok(Progress::Working(bytes))
    }

    /// Reads on in what was written. Zero: all of it was read, and its index is written.
    fn check_written(
        &self,
        group: &Range<usize>,
        end: Offset,
        written: &mut Written,
    ) -> Result<u64, CleanError> {
        self.check_sources(group.clone())?;
        let base = written.base;
        let failed = |cause| not_written(base, cause);
        let bytes = written.check().map_err(failed)?;
        if bytes == 0 {
            if written.end != end {
                let reason = format!("it ends at {} and should at {end}", written.end);
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, reason)));
            }
            written.index().map_err(failed)?;
        }
        Ok(bytes)
    }

    /// Whether segments are still what they were.
    fn check_sources(&self, range: Range<usize>) -> Result<(), CleanError> {
        let segments = self.shared.segments.load();
        match self.sources[range].iter().all(|source| source.is_in(&segments)) {
            true => Ok(()),
            false => Err(CleanError::Changed),
        }
    }
}

impl Source {
    /// Whether it is one of these, as it was.
    pub(super) fn is_in(&self, segments: &[Arc<Segment>]) -> bool {
        let base = self.segment.base();
        let at = segments.partition_point(|segment| segment.base() < base);
        let is_there = segments
            .get(at)
            .is_some_and(|segment| Arc::ptr_eq(segment, &self.segment));
        is_there && self.segment.bytes() == self.bytes
    }
}

/// Shows the batches from `at` on, about a MiB of them, each with its end in the file, as long as `visit` wants more.
/// Returns how many bytes they have. Below the log's start nothing is missed.
fn walk(
    source: &Source,
    at: &mut At,
    start: Offset,
    mut visit: impl FnMut(BatchView, u64) -> Result<bool, CleanError>,
) -> Result<u64, CleanError> {
    let segment = &source.segment;
    let failed = |cause| failed(segment, cause);
    let (file, from) = (segment.file().map_err(failed)?, at.position);
    let mut scan = Scan::new(&**file, Trust::Checksum, from, source.bytes, at.next);
    while at.position - from < STEP_BYTES {
        let Some(found) = scan.next().map_err(failed)? else {
            break;
        };
        let placed = found.map_err(|damage| corrupt(segment, damage))?;
        (at.position, at.next) = (placed.end(), placed.header.next_offset());
        let batch = BatchView::parse(Bytes::copy_from_slice(scan.batch(&placed)));
        let batch = batch.map_err(|error| corrupt(segment, (placed.position, error)))?;
        if !visit(batch, placed.end())? {
            return Ok(at.position - from);
        }
    }
    if at.position >= source.bytes
        && let Some(lost) = loss(at.next, source.next).filter(|lost| lost.until > start)
    {
        return Err(ReadError::Corrupt(lost).into());
    }
    Ok(at.position - from)
}

fn unreadable(header: &BatchHeader, error: &record::Error) -> CleanError {
    CleanError::Batch {
        at: header.base_offset,
        reason: error.to_string(),
    }
}

fn not_written(base: Offset, cause: io::Error) -> CleanError {
    if disk::is_full(&cause) {
        return CleanError::Full { bytes: 0 };
    }
    CleanError::Write {
        base,
        cause: Arc::new(cause),
    }
}
