//! Idempotent producers of one partition: which batch of whom comes next, and which was here already. Pure.
//!
//! Owns the sequence rules. It never looks at records, and knows nothing of files: `encode` and `decode` are bytes.
//!
//! The rules, as Kafka has them:
//! - A producer's batches carry rising sequence numbers, the next one following on the last record of the one
//!   before; after 2^31-1 comes 0.
//! - A batch that is one of the producer's last five is a duplicate: it is answered with the offsets it got then.
//! - A higher producer epoch begins at sequence 0 and fences the lower one.
//! - A producer that is not known (it never was here, or was silent for so long that it was forgotten) may begin
//!   with any sequence. But where its first batch was refused for want of space, that one has to come first: a client
//!   sends ahead, and what follows must not overtake it.

use bytes::{Buf, BufMut};
use headwater_protocol::ids::{Offset, ProducerEpoch, ProducerId};
use headwater_protocol::record::{BatchHeader, crc32c};
use std::collections::BTreeMap;

/// How many batches of a producer are remembered: as many as a client may have in flight.
const BATCHES_MAX: usize = 5;

/// Bounds what a partition remembers: about 40 MB. Beyond it the longest silent are forgotten first.
const PRODUCERS_MAX: usize = 200_000;

/// One batch as its producer numbered it, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Batch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: Offset,
    last_offset: Offset,
    /// The time its records got, where the broker stamped it; for answering a duplicate.
    append_time_ms: i64,
}

/// What is remembered of one producer.
///
/// - `batches` are in the order of their offsets; the first `count` are used.
/// - Without any, `batches[0]` is the batch that was refused and has to come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    epoch: ProducerEpoch,
    batches: [Batch; BATCHES_MAX],
    count: usize,
    /// When it was last heard of, by the clock of whoever led then.
    seen_ms: i64,
}

/// Everything the partition remembers of idempotent producers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Producers {
    entries: BTreeMap<ProducerId, Producer>,
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Append,
    /// It was appended before.
    Duplicate {
        base_offset: Offset,
        last_offset: Offset,
        append_time_ms: i64,
    },
}

/// Why a batch may not be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    #[error("producer {producer} has epoch {current}, the batch has {found}")]
    Fenced {
        producer: ProducerId,
        found: ProducerEpoch,
        current: ProducerEpoch,
    },
    #[error("producer {producer} sent sequence {found}, expected {expected}")]
    OutOfOrder {
        producer: ProducerId,
        found: i32,
        expected: i32,
    },
}

/// The bytes of a snapshot cannot be used: the state is rebuilt from the log instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("producer snapshot is not valid: {0}")]
pub struct SnapshotError(&'static str);

/// What `record` replaced, to be put back if the append does not happen after all.
#[derive(Debug, Clone, Copy)]
pub struct Undo {
    producer: ProducerId,
    before: Option<Producer>,
}

impl Producers {
    /// Judges a batch from a client. Changes nothing.
    pub fn check(&self, batch: &BatchHeader) -> Result<Verdict, SequenceError> {
        let producer = batch.producer_id;
        let Some(known) = self.entries.get(&producer) else {
            return Ok(Verdict::Append);
        };
        if batch.producer_epoch < known.epoch {
            return Err(SequenceError::Fenced {
                producer,
                found: batch.producer_epoch,
                current: known.epoch,
            });
        }
        let out_of_order = |expected| SequenceError::OutOfOrder {
            producer,
            found: batch.base_sequence,
            expected,
        };
        if batch.producer_epoch > known.epoch {
            return if batch.base_sequence == 0 {
                Ok(Verdict::Append)
            } else {
                Err(out_of_order(0))
            };
        }
        let (first, last) = (batch.base_sequence, batch.last_sequence());
        let same = |known: &&Batch| known.first_sequence == first && known.last_sequence == last;
        if let Some(known) = known.batches().iter().find(same) {
            return Ok(Verdict::Duplicate {
                base_offset: known.base_offset,
                last_offset: known.last_offset,
                append_time_ms: known.append_time_ms,
            });
        }
        let expected = known.expected();
        if first == expected {
            Ok(Verdict::Append)
        } else {
            Err(out_of_order(expected))
        }
    }

    /// Notes a batch that goes into the log with its `base_offset` set. What it says is true, whatever `check` would
    /// say: this is also how the state follows a leader or is rebuilt.
    pub fn record(&mut self, batch: &BatchHeader, append_time_ms: i64, now_ms: i64) -> Undo {
        let entry = Batch {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset,
            last_offset: batch.last_offset(),
            append_time_ms,
        };
        let before = self.entries.get(&batch.producer_id).copied();
        let mut producer = match before {
            Some(known) if known.epoch == batch.producer_epoch => known,
            Some(_) | None => Producer {
                epoch: batch.producer_epoch,
                batches: [entry; BATCHES_MAX],
                count: 0,
                seen_ms: now_ms,
            },
        };
        producer.push(entry);
        producer.seen_ms = producer.seen_ms.max(now_ms);
        self.entries.insert(batch.producer_id, producer);
        if self.entries.len() > PRODUCERS_MAX {
            self.forget_longest_silent();
        }
        Undo {
            producer: batch.producer_id,
            before,
        }
    }

    /// Takes back a `record`, whose batch was refused. Several are taken back in reverse.
    pub fn undo(&mut self, undo: Undo) {
        match (undo.before, self.entries.get_mut(&undo.producer)) {
            (Some(before), _) => {
                self.entries.insert(undo.producer, before);
            }
            // Its first batch: it is waited for.
            (None, Some(producer)) => producer.count = 0,
            // Forgotten meanwhile, there were too many.
            (None, None) => {}
        }
    }

    /// Forgets producers that were silent for longer than `expiration_ms`.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.entries
            .retain(|_, producer| now_ms.saturating_sub(producer.seen_ms) <= expiration_ms);
    }

    /// The offset of the last record below `before` of each producer, as far as it is one of those that are remembered.
    pub fn last_offsets(&self, before: Offset) -> BTreeMap<ProducerId, Offset> {
        let last = |(id, producer): (&ProducerId, &Producer)| {
            let mut below = producer.batches().iter().rev();
            let last = below.find(|batch| batch.last_offset < before);
            last.map(|last| (*id, last.last_offset))
        };
        self.entries.iter().filter_map(last).collect()
    }

    pub fn producer_count(&self) -> usize {
        self.entries.len()
    }

    fn forget_longest_silent(&mut self) {
        let mut seen: Vec<_> = self.entries.values().map(|producer| producer.seen_ms).collect();
        let (_, limit, _) = seen.select_nth_unstable(PRODUCERS_MAX / 10);
        let limit = *limit;
        self.entries.retain(|_, producer| producer.seen_ms > limit);
    }

    /// The state as bytes, behind their checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(8 + self.entries.len() * 64);
        let known = || self.entries.iter().filter(|(_, producer)| producer.count > 0);
        body.put_u16(SNAPSHOT_VERSION);
        body.put_u32(u32::try_from(known().count()).expect("bounded by PRODUCERS_MAX"));
        for (id, producer) in known() {
            body.put_i64(id.value());
            body.put_i16(producer.epoch.value());
            body.put_i64(producer.seen_ms);
            body.put_u8(producer.count as u8);
            for batch in producer.batches() {
                body.put_i32(batch.first_sequence);
                body.put_i32(batch.last_sequence);
                body.put_i64(batch.base_offset.value());
                body.put_i64(batch.last_offset.value());
                body.put_i64(batch.append_time_ms);
            }
        }
        let mut bytes = Vec::with_capacity(body.len() + 4);
        bytes.put_u32(crc32c(&body));
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads what `encode` wrote.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, SnapshotError> {
        let crc = bytes.try_get_u32().map_err(|_| SnapshotError("too short"))?;
        if crc != crc32c(bytes) {
            return Err(SnapshotError("checksum differs"));
        }
        Self::decode_body(bytes).ok_or(SnapshotError("cut short, or of another version"))
    }

    fn decode_body(mut bytes: &[u8]) -> Option<Self> {
        if bytes.try_get_u16().ok()? != SNAPSHOT_VERSION {
            return None;
        }
        let mut producers = Self::default();
        for _ in 0..bytes.try_get_u32().ok()? {
            let id = ProducerId(bytes.try_get_i64().ok()?);
            let epoch = ProducerEpoch(bytes.try_get_i16().ok()?);
            let seen_ms = bytes.try_get_i64().ok()?;
            let count = usize::from(bytes.try_get_u8().ok()?);
            let mut producer: Option<Producer> = None;
            for _ in 0..count {
                let batch = Batch {
                    first_sequence: bytes.try_get_i32().ok()?,
                    last_sequence: bytes.try_get_i32().ok()?,
                    base_offset: Offset(bytes.try_get_i64().ok()?),
                    last_offset: Offset(bytes.try_get_i64().ok()?),
                    append_time_ms: bytes.try_get_i64().ok()?,
                };
                let empty = Producer {
                    epoch,
                    batches: [batch; BATCHES_MAX],
                    count: 0,
                    seen_ms,
                };
                producer.get_or_insert(empty).push(batch);
            }
            producers.entries.insert(id, producer?);
        }
        bytes.is_empty().then_some(producers)
    }
}

const SNAPSHOT_VERSION: u16 = 1;

impl Producer {
    fn batches(&self) -> &[Batch] {
        &self.batches[..self.count]
    }

    /// The sequence that has to come next.
    fn expected(&self) -> i32 {
        match self.batches().last() {
            Some(last) => next_sequence(last.last_sequence),
            None => self.batches[0].first_sequence,
        }
    }

    fn push(&mut self, batch: Batch) {
        if self.count == BATCHES_MAX {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        self.batches[self.count] = batch;
        self.count += 1;
    }
}

/// The sequence that follows: after the highest comes 0.
fn next_sequence(last: i32) -> i32 {
    last.checked_add(1).unwrap_or(0)
}

#[cfg(test)]
mod tests;
