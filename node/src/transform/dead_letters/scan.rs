//! Reads dead letters out of one partition: forth, or back from its end.
//! It must never hold more than a step's records beside the letters it was asked for, nor unpack batches on the runtime's
//! own threads.

use std::sync::Arc;

use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::record::{Batches, RECORDS_BYTES_MAX};

use super::error::LetterError;
use super::letter::{DeadLetter, Filter};
use crate::partition::{Isolation, Partition, ReadOutcome, ReadRequest};
use crate::sys::task::Tasks;

/// Batches of one read, before they are unpacked.
const READ_BYTES: usize = 1 << 20;
/// Offsets that are gone back at once, if their batches are not larger than `BACK_BYTES`.
const BACK_OFFSETS: i64 = 1_000;
const BACK_BYTES: u64 = 2 << 20;
/// What the letters of one run may hold; the first one comes whatever its size.
const RUN_BYTES_MAX: usize = 8 << 20;

/// Whose letters, and which.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) transform: String,
    pub(crate) filter: Filter,
}

/// What one read gave.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) letters: Vec<DeadLetter>,
    /// Letters of the transform that the filter left out.
    pub(crate) filtered: u64,
    /// What is no letter of the transform.
    pub(crate) others: u64,
    /// Where to read on.
    pub(crate) next: Offset,
}

/// A partition of a dead-letter topic, and what is looked for in it.
#[derive(Clone)]
pub(crate) struct Scan {
    pub(crate) tasks: Tasks,
    pub(crate) partition: Partition,
    pub(crate) wanted: Arc<Wanted>,
}

/// Letters that were found, and where the search for more goes on.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) letters: Vec<DeadLetter>,
    pub(crate) reached: Offset,
}

impl Scan {
    /// One read of `from..until`.
    pub(crate) async fn step(&self, from: Offset, until: Offset) -> Result<Step, LetterError> {
        // Retention may have come by.
        let log_start = self.partition.watermarks().borrow().log_start;
        let from = from.max(log_start);
        let nothing = Step {
            next: until,
            ..Step::default()
        };
        if from >= until {
            return Ok(nothing);
        }
        let request = ReadRequest {
            from,
            max_bytes: READ_BYTES,
            isolation: Isolation::Committed,
            min_one: true,
            current_epoch: None,
            up_to_log_end: false,
        };
        let read = self.partition.read(request).await;
        let outcome = read.map_err(|error| LetterError::Read(error.to_string()))?;
        if outcome.bytes == 0 {
            return Ok(nothing);
        }
        let (index, wanted) = (self.partition.name().index, Arc::clone(&self.wanted));
        let decode = move || sorted(&outcome, index, from, until, &wanted);
        let decoded = self.tasks.blocking("dead-letters", decode).await;
        decoded.map_err(|_| LetterError::Stopping)?
    }

    /// Up to `limit` letters from `from` on, looking no further than `until`.
    pub(crate) async fn forth(
        &self,
        from: Offset,
        until: Offset,
        limit: usize,
    ) -> Result<Found, LetterError> {
        let (mut letters, mut bytes, mut at) = (Vec::new(), 0, from);
        while at < until {
            let step = self.step(at, until).await?;
            for letter in step.letters {
                bytes += letter.bytes();
                if letters.len() >= limit || (bytes > RUN_BYTES_MAX && !letters.is_empty()) {
                    let reached = letter.place.offset;
                    return Ok(Found { letters, reached });
                }
                letters.push(letter);
            }
            at = step.next;
        }
        let reached = at.max(from);
        Ok(Found { letters, reached })
    }

    /// Up to `limit` letters before `until`, the newest first, looking no further than `floor`.
    pub(crate) async fn back(
        &self,
        until: Offset,
        floor: Offset,
        limit: usize,
    ) -> Result<Found, LetterError> {
        let (mut letters, mut bytes, mut at) = (Vec::<DeadLetter>::new(), 0, until);
        while at > floor && letters.len() < limit {
            let from = self.window(at, floor).await?;
            let mut found = Vec::new();
            let mut next = from;
            while next < at {
                let step = self.step(next, at).await?;
                found.extend(step.letters);
                next = step.next;
            }
            for letter in found.into_iter().rev() {
                bytes += letter.bytes();
                let is_full = letters.len() >= limit || (bytes > RUN_BYTES_MAX && !letters.is_empty());
                if let Some(last) = letters.last().filter(|_| is_full) {
                    let reached = last.place.offset;
                    return Ok(Found { letters, reached });
                }
                letters.push(letter);
            }
            at = from;
        }
        Ok(Found { letters, reached: at })
    }

    /// Where to begin so that what lies before `until` is read in a few steps.
    async fn window(&self, until: Offset, floor: Offset) -> Result<Offset, LetterError> {
        let bytes_from = async |from| {
            let counted = self.partition.bytes_from(from).await;
            counted.map_err(|error| LetterError::Read(error.to_string()))
        };
        let behind = bytes_from(until).await?;
        let mut offsets = BACK_OFFSETS;
        loop {
            let from = until.plus(-offsets).max(floor);
            if offsets == 1 || bytes_from(from).await?.saturating_sub(behind) <= BACK_BYTES {
                return Ok(from);
            }
            offsets /= 2;
        }
    }
}

/// The letters among the records in `from..until`.
fn sorted(
    outcome: &ReadOutcome,
    partition: PartitionIndex,
    from: Offset,
    until: Offset,
    wanted: &Wanted,
) -> Result<Step, LetterError> {
    let unreadable = |error: headwater_protocol::record::Error| LetterError::Read(error.to_string());
    let mut step = Step {
        next: outcome.next.min(until),
        ..Step::default()
    };
    for batch in Batches::new(outcome.visible()) {
        let batch = batch.map_err(unreadable)?;
        if batch.header().is_control() {
            continue;
        }
        for record in batch.records(RECORDS_BYTES_MAX).map_err(unreadable)? {
            let record = record.map_err(unreadable)?;
            if !(from..until).contains(&record.offset) {
                continue;
            }
            match DeadLetter::parse(partition, &record) {
                Some(letter) if letter.transform != wanted.transform => step.others += 1,
                Some(letter) if wanted.filter.takes(&letter) => step.letters.push(letter),
                Some(_) => step.filtered += 1,
                None => step.others += 1,
            }
        }
    }
    Ok(step)
}
