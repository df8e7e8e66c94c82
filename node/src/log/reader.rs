//! Reading a log while it is appended to: many readers, no queue.
//!
//! A reader is a cheap handle. It owns nothing of the log but where sequential reads go on. What it reads from a
//! file it checks before it hands it out; it must never return a batch beyond what it was allowed to see, half a
//! batch, or the second of two batches without the first.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{BatchHeader, BatchView, CRC_COVERS_FROM, HEADER_BYTES, crc32c};
use tokio::sync::watch;

use super::Shared;
use super::damage::{self, corrupt, failed, loss};
use super::epochs::EpochHistory;
use super::error::{Damaged, ReadError};
use super::flush::Synced;
use super::read::{Gathered, Limits, Slice};
use super::scan::{Scan, Trust};
use super::segment::Segment;
use crate::sys::buffers::Buffer;

/// One system call brings this much at most.
const CHUNK_BYTES: usize = 1 << 20;
/// And this much at least: a small read mostly goes on soon.
const CHUNK_BYTES_MIN: usize = 16 << 10;

/// A handle for reading one log. Cheap to clone, usable from any task, valid while the log is open.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

/// Whether a read may wait for the device on the calling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Never,
    Allowed,
}

/// How far a file took a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    NeedsDevice,
}

impl LogReader {
    /// The first offset that may be read.
    pub fn start(&self) -> Offset {
        self.shared.start()
    }

    /// The offset the next append gets.
    pub fn end(&self) -> Offset {
        self.shared.end()
    }

    /// How far the log is durable, and every change of it.
    pub fn synced(&self) -> watch::Receiver<Synced> {
        self.shared.flush.synced()
    }

    /// Where the segment begins in which checking begins when the log is opened after a crash. What lies before it is
    /// durable, and damage there is told from a torn tail.
    pub fn recovery_point(&self) -> Offset {
        self.shared.flush.checkpoint().content().recovered.segment
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.shared
            .segments
            .load()
            .iter()
            .map(|segment| segment.bytes())
            .sum()
    }

    /// Bytes of all batches from the one that holds `from` on. Waits on a blocking thread where there are some.
    pub async fn bytes_from(&self, from: Offset) -> Result<u64, ReadError> {
        if from >= self.end() {
            return Ok(0);
        }
        let reader = self.clone();
        let counting = self
            .shared
            .logs
            .tasks
            .blocking("count", move || reader.bytes_from_waiting(from));
        counting.await.map_err(|_| ReadError::Stopped)?
    }

    /// [`Self::bytes_from`] on the calling thread.
    pub(super) fn bytes_from_waiting(&self, from: Offset) -> Result<u64, ReadError> {
        let _uncut = self.shared.uncut();
        let mut bytes = 0;
        for segment in self.shared.segments.load().iter() {
            // The size first: what is appended meanwhile is then neither counted nor taken off.
            let size = segment.bytes();
            if segment.next() <= from {
                continue;
            }
            let before = if segment.base() >= from {
                0
            } else {
                let found = segment.find(from).map_err(|cause| failed(segment, cause))?;
                found.map_or(size, |placed| placed.position)
            };
            bytes += size.saturating_sub(before);
        }
        Ok(bytes)
    }

    pub fn epochs(&self) -> Arc<EpochHistory> {
        self.shared.epochs.load_full()
    }

    /// Where the history up to `epoch` ends here; see [`EpochHistory::end_of`].
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs().end_of(epoch, self.end())
    }

    /// Reads whole batches, the one that holds `from` first. Answers from memory and page cache at once, else
    /// waits on a blocking thread. Cancel-safe.
    pub async fn read(&self, from: Offset, limits: Limits) -> Result<Slice, ReadError> {
        if let Some(slice) = self.read_now(from, limits)? {
            return Ok(slice);
        }
        let reader = self.clone();
        let read = self
            .shared
            .logs
            .tasks
            .blocking("read", move || reader.read_waiting(from, limits));
        read.await.map_err(|_| ReadError::Stopped)?
    }

    /// Reads what can be had without waiting for the device; `None` when that is nothing.
    pub fn read_now(&self, from: Offset, limits: Limits) -> Result<Option<Slice>, ReadError> {
        self.gather(from, limits, Wait::Never)
    }

    /// Reads on the calling thread, which may wait for the device.
    pub fn read_waiting(&self, from: Offset, limits: Limits) -> Result<Slice, ReadError> {
        self.gather(from, limits, Wait::Allowed)
            .map(|slice| slice.expect("a read that may wait has an answer"))
    }

    /// Shows every batch header from the batch that holds `from` on, and the whole batch where it is a control batch. Ends
    /// where something is damaged or missing, and says how far that reaches. In the segments that begin before
    /// `checked_until` no header is believed that its batch's checksum does not bear out. Waits for the device.
    pub fn replay(
        &self,
        from: Offset,
        checked_until: Offset,
        mut visit: impl FnMut(&BatchHeader, Option<BatchView>),
    ) -> Result<(), ReadError> {
        let _uncut = self.shared.uncut();
        let (mut reached, end) = (from, self.end());
        let whole = |reached, until| match loss(reached, until) {
            Some(lost) => Err(ReadError::Corrupt(lost)),
            None => Ok(()),
        };
        for segment in self.shared.segments.load().iter() {
            let (next, bytes) = (segment.next(), segment.bytes());
            if next <= from {
                continue;
            }
            whole(reached, segment.base())?;
            let failed = |cause: io::Error| failed(segment, cause);
            let Some(first) = segment.find(from).map_err(failed)? else {
                whole(reached, next)?;
                continue;
            };
            let file = segment.file().map_err(failed)?;
            let at = first.header.base_offset;
            let trust = match segment.base() < checked_until {
                true => Trust::Checksum,
                false => Trust::Header,
            };
            let mut scan = Scan::new(&**file, trust, first.position, bytes, at);
            while let Some(found) = scan.next().map_err(failed)? {
                let placed = found.map_err(|damage| corrupt(segment, damage))?;
                if placed.header.next_offset() > next.min(end) {
                    // Behind the end there may be what is appended at the moment.
                    let reason = (placed.position, "a batch passes the end of its segment");
                    return match reached >= end {
                        true => Ok(()),
                        false => Err(corrupt(segment, reason)),
                    };
                }
                let control = match placed.header.is_control() {
                    true => Some(placed.batch(&**file).map_err(failed)?),
                    false => None,
                };
                visit(&placed.header, control);
                reached = placed.header.next_offset();
            }
            whole(reached, next)?;
        }
        Ok(())
    }

    /// Whether a control batch with a record lies at `offset`. Waits for the device.
    pub fn has_marker_at(&self, offset: Offset) -> Result<bool, ReadError> {
        let _uncut = self.shared.uncut();
        let segments = self.shared.segments.load();
        let behind = segments.partition_point(|segment| segment.base() <= offset);
        let Some(segment) = segments[..behind].last() else {
            return Ok(false);
        };
        let found = segment.find(offset).map_err(|cause| failed(segment, cause))?;
        Ok(found.is_some_and(|placed| {
            let header = placed.header;
            header.base_offset == offset && header.is_control() && header.record_count > 0
        }))
    }

    fn gather(&self, from: Offset, limits: Limits, wait: Wait) -> Result<Option<Slice>, ReadError> {
        let shared = &*self.shared;
        let _uncut = shared.uncut();
        // The end first: what it promises is then in the segments seen after it.
        let end = shared.end();
        let start = shared.start();
        if from < start || from > end {
            return Err(ReadError::OutOfRange {
                asked: from,
                start,
                end,
            });
        }
        let until = limits.until.min(end);
        let mut gathered = Gathered::new(from, Limits { until, ..limits });
        while gathered.wants_more() {
            if shared.tail.read(gathered.next(), &mut gathered) {
                // The tail reaches to the end.
                break;
            }
            match self.read_file(&mut gathered, wait) {
                Ok(Step::Done) => {}
                Ok(Step::NeedsDevice) if gathered.is_empty() => return Ok(None),
                Ok(Step::NeedsDevice) => break,
                // What was read before is good, and the reader meets the fault when it gets there.
                Err(_) if !gathered.is_empty() => break,
                // Retention may have been faster.
                Err(ReadError::Io { .. } | ReadError::Corrupt(_)) if gathered.next() < shared.start() => {
                    return Err(ReadError::OutOfRange {
                        asked: from,
                        start: shared.start(),
                        end,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(gathered.finish()))
    }

    /// Reads one chunk of the file in which the read goes on.
    fn read_file(&self, gathered: &mut Gathered, wait: Wait) -> Result<Step, ReadError> {
        let at = gathered.next();
        let segments = self.shared.segments.load();
        let after = segments.partition_point(|segment| segment.base() <= at);
        let within = after
            .checked_sub(1)
            .map(|index| &segments[index])
            .filter(|segment| at < segment.next());
        let Some(segment) = within.or_else(|| segments.get(after)) else {
            gathered.skip_to(Offset(i64::MAX));
            return Ok(Step::Done);
        };
        if at < segment.base() {
            return pass(loss(at, segment.base()), segment.base(), gathered);
        }
        let failed = |cause| failed(segment, cause);
        let hint = self.shared.hints.find(segment.base(), at);
        let first = match hint {
            Some(position) => First {
                position,
                lowest: at,
                route: Route::ReadOn,
            },
            None if wait == Wait::Never => return Ok(Step::NeedsDevice),
            None => match segment.find(at).map_err(failed)? {
                Some(placed) => First {
                    position: placed.position,
                    lowest: placed.header.base_offset.min(at),
                    route: Route::Sought,
                },
                None => return pass(damage::behind(segment)?, segment.next(), gathered),
            },
        };
        if first.position >= segment.bytes() {
            return pass(damage::behind(segment)?, segment.next(), gathered);
        }
        self.read_chunk(segment, first, gathered, wait)
    }

    fn read_chunk(
        &self,
        segment: &Segment,
        first: First,
        gathered: &mut Gathered,
        wait: Wait,
    ) -> Result<Step, ReadError> {
        let position = first.position;
        let left = (segment.bytes() - position) as usize;
        let mut wanted = gathered.room().clamp(CHUNK_BYTES_MIN, CHUNK_BYTES).min(left);
        loop {
            let buffer = self.shared.logs.buffers.take(wanted);
            let Some(chunk) = load(segment, position, wanted, wait, buffer)? else {
                return Ok(Step::NeedsDevice);
            };
            let header = BatchHeader::parse(&chunk).map_err(|error| corrupt(segment, (position, error)))?;
            let total = header.total_bytes();
            if total <= chunk.len() {
                let judge = Judge {
                    segment,
                    position,
                    epochs: &self.shared.epochs.load(),
                    are_epochs_whole: self.shared.are_epochs_whole,
                };
                let end = judge.take(chunk, &first, gathered)?;
                self.shared
                    .hints
                    .note(segment.base(), gathered.next(), position + end as u64);
                return Ok(Step::Done);
            }
            if !gathered.may_take(&header, 0) {
                gathered.fill();
                return Ok(Step::Done);
            }
            if total > left {
                return Err(corrupt(
                    segment,
                    (position, "a batch passes the end of its segment"),
                ));
            }
            wanted = total;
        }
    }
}

/// Goes on at `next`: the source left out what lies between, unless that is a loss.
fn pass(loss: Option<Damaged>, next: Offset, gathered: &mut Gathered) -> Result<Step, ReadError> {
    match loss {
        Some(damaged) => Err(ReadError::Corrupt(damaged)),
        None => {
            gathered.skip_to(next);
            Ok(Step::Done)
        }
    }
}

/// Where a read of a file begins, and the lowest offset that the batch there may begin with.
struct First {
    position: u64,
    lowest: Offset,
    route: Route,
}

/// How the place of a batch is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// The batch before it ended there.
    ReadOn,
    /// By the offset that it says it has.
    Sought,
}

/// Why the bytes of a chunk are not the next batch.
enum Unfit {
    /// It goes on behind the chunk.
    Cut,
    Damaged(String),
}

/// Who says whether batches may be handed out. Offset and epoch lie outside of the checksum: those are held against what
/// comes before and after, and against the history.
struct Judge<'a> {
    segment: &'a Segment,
    position: u64,
    epochs: &'a EpochHistory,
    are_epochs_whole: bool,
}

impl Judge<'_> {
    /// Takes the batches of a chunk that belong to the read. Returns where they end in it. Damage behind a good batch is
    /// left for the read that begins there.
    fn take(&self, chunk: Bytes, first: &First, gathered: &mut Gathered) -> Result<usize, ReadError> {
        let (mut end, mut next, mut route) = (0, first.lowest, first.route);
        let damaged = |reason: &str| corrupt(self.segment, (self.position, reason));
        while end < chunk.len() {
            let header = match self.judge(&chunk, end, next, route) {
                Ok(header) => header,
                Err(Unfit::Cut) if end > 0 => break,
                Err(Unfit::Damaged(_)) if end > 0 => {
                    gathered.fill();
                    break;
                }
                Err(Unfit::Cut) => return Err(damaged("a batch is cut short")),
                Err(Unfit::Damaged(reason)) => return Err(damaged(&reason)),
            };
            if !gathered.may_take(&header, end) {
                gathered.fill();
                break;
            }
            end += header.total_bytes();
            next = header.next_offset();
            route = Route::ReadOn;
        }
        if end > 0 {
            gathered.take(chunk.slice(..end), next);
        }
        Ok(end)
    }

    /// The header of the batch at `at` in the chunk, if it is whole and right.
    fn judge(&self, chunk: &Bytes, at: usize, next: Offset, route: Route) -> Result<BatchHeader, Unfit> {
        let bytes = &chunk[at..];
        if bytes.len() < HEADER_BYTES {
            return Err(Unfit::Cut);
        }
        let header = BatchHeader::parse(bytes).map_err(|error| Unfit::Damaged(error.to_string()))?;
        let batch = bytes.get(..header.total_bytes()).ok_or(Unfit::Cut)?;
        let (base, epoch) = (header.base_offset, header.partition_leader_epoch);
        if base < next {
            return Err(Unfit::Damaged(format!("batch at offset {base} is out of order")));
        }
        if crc32c(&batch[CRC_COVERS_FROM..]) != header.crc {
            return Err(Unfit::Damaged("wrong checksum".to_owned()));
        }
        if !self.epochs.may_hold(base, epoch, self.are_epochs_whole) {
            return Err(Unfit::Damaged(format!(
                "epoch {epoch} did not write offset {base}"
            )));
        }
        if base > next || route == Route::Sought {
            self.check_following(&header, chunk, at + header.total_bytes())?;
        }
        Ok(header)
    }

    /// Whether what follows this batch, which ends at `end` in the chunk, agrees with its offset.
    fn check_following(&self, header: &BatchHeader, chunk: &Bytes, end: usize) -> Result<(), Unfit> {
        let place = self.position + end as u64;
        let bound = if place >= self.segment.bytes() {
            self.segment.next()
        } else {
            let following = match chunk.get(end..end + HEADER_BYTES) {
                Some(bytes) => BatchHeader::parse(bytes).map_err(|error| error.to_string()),
                None => self.header_at(place),
            };
            following.map_err(Unfit::Damaged)?.base_offset
        };
        if header.next_offset() > bound {
            return Err(Unfit::Damaged(format!(
                "batch at offset {} is followed by offset {bound}",
                header.base_offset
            )));
        }
        Ok(())
    }

    /// Waits for the device where it must.
    fn header_at(&self, place: u64) -> Result<BatchHeader, String> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        let file = self.segment.file().map_err(|error| error.to_string())?;
        file.read_at(place, &mut bytes, HEADER_BYTES)
            .map_err(|error| error.to_string())?;
        BatchHeader::parse(&bytes).map_err(|error| error.to_string())
    }
}

/// Brings bytes in, or `None` when they are not in the page cache and the caller may not wait.
fn load(
    segment: &Segment,
    position: u64,
    wanted: usize,
    wait: Wait,
    mut buffer: Buffer,
) -> Result<Option<Bytes>, ReadError> {
    let failed = |cause| failed(segment, cause);
    let file = segment.file().map_err(failed)?;
    match wait {
        Wait::Never => {
            if file
                .read_cached_at(position, &mut buffer, wanted)
                .map_err(failed)?
                .is_none()
            {
                return Ok(None);
            }
        }
        Wait::Allowed => {
            file.read_at(position, &mut buffer, wanted).map_err(failed)?;
            // Whoever had to wait goes on reading, most likely: the next chunks come meanwhile.
            file.will_read(position + wanted as u64, 2 * CHUNK_BYTES as u64);
        }
    }
    if buffer.len() < wanted {
        return Err(corrupt(segment, (position, "the file is shorter than it was")));
    }
    Ok(Some(buffer.freeze()))
}

/// Where sequential readers go on, so that they need no index.
#[derive(Debug, Default)]
pub(super) struct Hints {
    ring: Mutex<Ring>,
}

const HINTS: usize = 32;

#[derive(Debug, Default)]
struct Ring {
    /// Segment, offset, position of the batch that begins there or after it.
    hints: [Option<(Offset, Offset, u64)>; HINTS],
    at: usize,
}

impl Hints {
    fn find(&self, segment: Offset, offset: Offset) -> Option<u64> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |hint: &&(Offset, Offset, u64)| (hint.0, hint.1) == (segment, offset);
        ring.hints.iter().flatten().find(same).map(|hint| hint.2)
    }

    fn note(&self, segment: Offset, offset: Offset, position: u64) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let at = ring.at;
        ring.hints[at] = Some((segment, offset, position));
        ring.at = (at + 1) % HINTS;
    }

    /// Forgets all: the log was cut.
    pub(super) fn clear(&self) {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).hints = [None; HINTS];
    }
}
