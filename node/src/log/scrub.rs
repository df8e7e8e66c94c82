//! Reading a log from front to end, from the device where that can be, to find what is not there any more before somebody
//! needs it.
//!
//! Owns the walk, in steps that whoever calls spaces out, and when it was done last. It changes nothing of the records: a
//! lying index is made anew, and what was kept of a repair is let go of once the new segment was read. It must never take
//! what is being appended for damage.

use std::io;
use std::sync::Arc;

use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{BatchHeader, HEADER_BYTES};

use super::damage::{damaged, failed, loss};
use super::epochs::EpochHistory;
use super::error::{Damaged, ReadError};
use super::folder::Part;
use super::index::Entry;
use super::note;
use super::reader::LogReader;
use super::scan::{Damage, Placed, Scan, Trust};
use super::segment::Segment;

/// One step reads about as much.
const STEP_BYTES: u64 = 1 << 20;
const NO_TIMESTAMP: i64 = -1;

/// Where a scrub goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrub {
    /// The segment, and the place in it.
    segment: Offset,
    position: u64,
    /// The lowest offset that may follow, and the largest timestamp of the segment so far.
    next: Offset,
    max_timestamp: i64,
    /// Entries of the segment's index before the place.
    entries: u64,
    /// Of the batch before the place.
    epoch: LeaderEpoch,
    is_begun: bool,
    /// How often segments had given way to others.
    swaps: u64,
    /// The log's end when it began: what is appended later may come faster than it is read.
    until: Offset,
}

/// What one step found.
#[derive(Debug, Default)]
pub struct Scrubbed {
    pub bytes: u64,
    pub damaged: Option<Damaged>,
    /// An index lied and was made anew.
    pub indexes_rebuilt: u64,
    /// None: that was all.
    pub next: Option<Scrub>,
}

impl Scrub {
    /// The same one, at the front of a segment.
    fn at(self, segment: Offset) -> Self {
        Self {
            segment,
            next: segment,
            is_begun: true,
            swaps: self.swaps,
            ..Self::until(self.until)
        }
    }

    fn until(until: Offset) -> Self {
        Self {
            segment: Offset::ZERO,
            position: 0,
            next: Offset::ZERO,
            max_timestamp: NO_TIMESTAMP,
            entries: 0,
            epoch: LeaderEpoch::NONE,
            is_begun: false,
            swaps: 0,
            until,
        }
    }
}

impl LogReader {
    /// Begins at the log's front, to read what is there now.
    pub fn begin_scrub(&self) -> Scrub {
        Scrub::until(self.end())
    }

    /// Begins with the segment that holds `from`.
    pub fn begin_scrub_at(&self, from: Offset) -> Scrub {
        let segments = self.shared.segments.load();
        let behind = segments.partition_point(|segment| segment.base() <= from);
        let all = self.begin_scrub();
        match behind.checked_sub(1).and_then(|at| segments.get(at)) {
            Some(segment) => all.at(segment.base()),
            None => all,
        }
    }

    /// Reads about a MiB on. Waits for the device. What cannot be read for want of a file or of good bytes is damage;
    /// an error is a device that fails.
    pub fn scrub(&self, mut at: Scrub) -> Result<Scrubbed, ReadError> {
        let _uncut = self.shared.uncut();
        let segments = self.shared.segments.load_full();
        let index = segments.partition_point(|segment| segment.base() < at.segment);
        let Some(segment) = segments.get(index) else {
            return Ok(Scrubbed::default());
        };
        if !at.is_begun
            && let Some(lost) = loss(self.start(), segment.base())
        {
            return Ok(Scrubbed {
                damaged: Some(lost),
                next: Some(at.at(segment.base())),
                ..Scrubbed::default()
            });
        }
        let swaps = self.shared.clean.swaps();
        if at.segment != segment.base() || at.position > segment.bytes() || at.swaps != swaps {
            // It was let go of, or cut, or is another one.
            at = at.at(segment.base());
        }
        at.swaps = swaps;
        at.is_begun = true;
        let following = segments.get(index + 1);
        let walk = Walk {
            segment,
            following,
            start: self.start(),
            epochs: &self.epochs(),
            are_epochs_whole: self.shared.are_epochs_whole,
        };
        let mut scrubbed = walk.step(at).map_err(|cause| failed(segment, cause))?;
        // Retention lets go of segments at any time.
        let is_there = |it: &Arc<Segment>| Arc::ptr_eq(it, segment);
        if scrubbed.damaged.is_some() && !self.shared.segments.load().iter().any(is_there) {
            scrubbed.damaged = None;
        }
        scrubbed.next = scrubbed.next.filter(|next| next.next < next.until);
        Ok(scrubbed)
    }

    /// When a scrub of the whole log ended last, if that is known.
    pub fn scrubbed_at_ms(&self) -> Option<i64> {
        let shared = &self.shared;
        note::read(&*shared.logs.disk, &shared.folder.join(NOTE)).ok()?
    }

    /// Notes that one has ended. Without the note the next one comes sooner.
    pub fn note_scrubbed(&self, unix_ms: i64) -> io::Result<()> {
        let shared = &self.shared;
        note::write(&*shared.logs.disk, &shared.folder.join(NOTE), unix_ms)
    }
}

const NOTE: &str = "scrubbed";

/// One step through one segment.
struct Walk<'a> {
    segment: &'a Arc<Segment>,
    /// The next segment; None: this one is appended to.
    following: Option<&'a Arc<Segment>>,
    start: Offset,
    epochs: &'a EpochHistory,
    are_epochs_whole: bool,
}

impl Walk<'_> {
    fn step(&self, at: Scrub) -> io::Result<Scrubbed> {
        let end = self.segment.bytes();
        let file = match self.segment.open_again() {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(self.found(at, 0, damaged(self.segment, (0, "the file is missing"))));
            }
            Err(error) => return Err(error),
        };
        if file.bytes()? < end {
            let reason = "the file is shorter than what was written";
            return Ok(self.found(at, 0, damaged(self.segment, (file.bytes()?, reason))));
        }
        // What is appended to is in the page cache for those who read it there.
        let trust = match self.following {
            Some(_) => Trust::Device,
            None => Trust::Checksum,
        };
        let (mut now, mut placed) = (at, Vec::new());
        let mut scan = Scan::new(&*file, trust, at.position, end, at.next);
        while now.position - at.position < STEP_BYTES {
            let Some(found) = scan.next()? else { break };
            let batch = match found.and_then(|batch| self.check(batch, now.epoch)) {
                Ok(batch) => batch,
                Err(damage) => {
                    return Ok(self.found(at, now.position - at.position, damaged(self.segment, damage)));
                }
            };
            placed.push((batch, now.max_timestamp));
            now.position = batch.end();
            now.next = batch.header.next_offset();
            now.epoch = batch.header.partition_leader_epoch;
            now.max_timestamp = now.max_timestamp.max(batch.header.max_timestamp);
        }
        let rebuilt = self.check_index(&mut now, &placed)?;
        let mut scrubbed = Scrubbed {
            bytes: now.position - at.position,
            damaged: None,
            indexes_rebuilt: u64::from(rebuilt),
            next: Some(now),
        };
        if now.position >= end {
            scrubbed.damaged = self.end(&now);
            scrubbed.next = self.next_segment(now);
            if scrubbed.damaged.is_none() && self.following.is_some() {
                self.segment.remove_part(Part::Damaged)?;
            }
        }
        Ok(scrubbed)
    }

    /// Damage ends the walk through a segment: all of it is repaired.
    fn found(&self, at: Scrub, bytes: u64, damaged: Damaged) -> Scrubbed {
        Scrubbed {
            bytes,
            damaged: Some(damaged),
            indexes_rebuilt: 0,
            next: self.next_segment(at),
        }
    }

    fn next_segment(&self, now: Scrub) -> Option<Scrub> {
        self.following.map(|next| now.at(next.base()))
    }

    /// What the checksum does not cover.
    fn check(&self, batch: Placed, before: LeaderEpoch) -> Result<Placed, Damage> {
        let header = &batch.header;
        let reason = if header.partition_leader_epoch < before {
            format!("epoch {} follows epoch {before}", header.partition_leader_epoch)
        } else if header.next_offset() > self.segment.next() {
            format!(
                "batch at offset {} passes the end of its segment",
                header.base_offset
            )
        } else if !self.epochs.may_hold(
            header.base_offset,
            header.partition_leader_epoch,
            self.are_epochs_whole,
        ) {
            let epoch = header.partition_leader_epoch;
            format!("epoch {epoch} did not write offset {}", header.base_offset)
        } else {
            return Ok(batch);
        };
        Err(Damage {
            position: batch.position,
            reason,
        })
    }

    /// What is wrong between the last batch and the next segment. Below the log's start nothing is missed.
    fn end(&self, last: &Scrub) -> Option<Damaged> {
        let following = self.following?;
        let lost = loss(last.next, following.base()).filter(|lost| lost.until > self.start);
        lost.or_else(|| {
            // Epochs never fall: where they seem to, the last one is none.
            let first = first_header(following).ok()?;
            let epoch = first.partition_leader_epoch;
            let reason = format!("epoch {} comes before epoch {epoch}", last.epoch);
            (epoch < last.epoch
                && self
                    .epochs
                    .may_hold(first.base_offset, epoch, self.are_epochs_whole))
            .then(|| damaged(self.segment, (last.position, reason)))
        })
    }

    /// Whether the index of a sealed segment lied about the batches of a step, and was made anew.
    fn check_index(&self, now: &mut Scrub, placed: &[(Placed, i64)]) -> io::Result<bool> {
        if self.following.is_none() || placed.is_empty() {
            return Ok(false);
        }
        let holds = self.holds(now, placed)?;
        if !holds {
            self.segment.rebuild_index()?;
            let saved = self.segment.index().saved(0, now.position)?;
            now.entries = saved.map_or(0, |saved| saved.entries.len() as u64);
        }
        Ok(!holds)
    }

    /// Whether each entry says where a batch lies, and none is missing or left over at the end.
    fn holds(&self, now: &mut Scrub, placed: &[(Placed, i64)]) -> io::Result<bool> {
        let saved = match self.segment.index().saved(now.entries, now.position) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            saved => saved?,
        };
        let Some(saved) = saved else { return Ok(false) };
        let is_true = |entry: &Entry| {
            let found = placed.binary_search_by_key(&entry.position, |(batch, _)| batch.position);
            found.is_ok_and(|at| {
                let (batch, max_before) = &placed[at];
                batch.header.base_offset == entry.offset && *max_before == entry.max_before
            })
        };
        let entries = now.entries + saved.entries.len() as u64;
        let is_end = now.position >= self.segment.bytes();
        let ends_well = entries == saved.count && saved.max_timestamp == now.max_timestamp;
        if !saved.entries.iter().all(is_true) || (is_end && !ends_well) {
            return Ok(false);
        }
        now.entries = entries;
        Ok(true)
    }
}

fn first_header(segment: &Segment) -> io::Result<BatchHeader> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    segment.open_again()?.read_at(0, &mut bytes, HEADER_BYTES)?;
    BatchHeader::parse(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}
