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
//!   sends ahead, and what follows must not overtake it. And where there never was a record it begins with 0: nothing
//!   was forgotten, and a batch before it was refused (KAFKA-14359).
//! - A marker that ends a transaction fences lower epochs, too; the sequence begins anew if its epoch is higher
//!   (KIP-890). One of a coordinator that was replaced is refused.
//! - A batch of a transaction is taken where the transaction is open already, or where its coordinator was asked and
//!   no marker came since (KIP-890).

use super::transactions::{self, Aborted, AbortedIndex, Ended, Open, Transactions};
use bytes::{Buf, BufMut};
use headwater_protocol::ids::{Offset, ProducerEpoch, ProducerId};
use headwater_protocol::record::{BatchHeader, BatchView, EndTransaction, crc32c};
use std::collections::{BTreeMap, VecDeque};

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
/// - Without any, `batches[0]` is the batch that was refused and has to come first; behind a marker, one of sequence 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    epoch: ProducerEpoch,
    batches: [Batch; BATCHES_MAX],
    count: usize,
    /// When it was last heard of, by the clock of whoever led then.
    seen_ms: i64,
    /// Its last marker; -1 without any.
    marker: Offset,
    /// The epoch of the coordinator that wrote it.
    coordinator_epoch: i32,
}

/// Everything the partition remembers of idempotent producers, and of their transactions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Producers {
    entries: BTreeMap<ProducerId, Producer>,
    transactions: Transactions,
}

/// What is told of one producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerDescription {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// -1 where nothing but a marker is remembered.
    pub last_sequence: i32,
    /// When it was last heard of.
    pub seen_ms: i64,
    /// Of the coordinator that ended its last transaction here; -1 without any.
    pub coordinator_epoch: i32,
    /// The first record of its open transaction.
    pub open_from: Option<Offset>,
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
    #[error("producer {producer} has a transaction open, and the batch is none of it")]
    NotTransactional { producer: ProducerId },
    #[error("the transaction of producer {producer} is not known to be open")]
    Unverified { producer: ProducerId },
    #[error("the marker is of coordinator epoch {found}, the last one was of {current}")]
    CoordinatorFenced { found: i32, current: i32 },
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
    transaction: transactions::Undo,
    was_marker: bool,
}

impl Producers {
    /// Judges a batch from a client. Changes nothing.
    pub fn check(&self, batch: &BatchHeader, log_end: Offset) -> Result<Verdict, SequenceError> {
        let producer = batch.producer_id;
        let out_of_order = |expected| SequenceError::OutOfOrder {
            producer,
            found: batch.base_sequence,
            expected,
        };
        let Some(known) = self.entries.get(&producer) else {
            return match log_end == Offset::ZERO && batch.base_sequence > 0 {
                true => Err(out_of_order(0)),
                false => Ok(Verdict::Append),
            };
        };
        if batch.producer_epoch < known.epoch {
            return Err(SequenceError::Fenced {
                producer,
                found: batch.producer_epoch,
                current: known.epoch,
            });
        }
        if batch.base_sequence < 0 {
            // A coordinator's own, which repeats nothing by itself.
            return Ok(Verdict::Append);
        }
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

    /// Whether the transaction that a batch belongs to is known to be open. `verified_at`: where the log ended when its
    /// coordinator was asked and said so.
    pub fn check_transaction(
        &self,
        batch: &BatchHeader,
        verified_at: Option<Offset>,
    ) -> Result<(), SequenceError> {
        let producer = batch.producer_id;
        let open = self.transactions.open_of(producer);
        if !batch.is_transactional() {
            return match open {
                Some(_) => Err(SequenceError::NotTransactional { producer }),
                None => Ok(()),
            };
        }
        let is_open = open.is_some_and(|open| open.epoch == batch.producer_epoch);
        let ended_at = self.entries.get(&producer).map(|known| known.marker);
        let is_verified = verified_at.is_some_and(|at| ended_at.is_none_or(|marker| marker < at));
        match is_open || is_verified {
            true => Ok(()),
            false => Err(SequenceError::Unverified { producer }),
        }
    }

    /// Judges a marker. Changes nothing.
    pub fn check_marker(&self, marker: &BatchHeader, end: EndTransaction) -> Result<(), SequenceError> {
        let producer = marker.producer_id;
        let Some(known) = self.entries.get(&producer) else {
            return Ok(());
        };
        if marker.producer_epoch < known.epoch {
            return Err(SequenceError::Fenced {
                producer,
                found: marker.producer_epoch,
                current: known.epoch,
            });
        }
        if end.coordinator_epoch < known.coordinator_epoch {
            return Err(SequenceError::CoordinatorFenced {
                found: end.coordinator_epoch,
                current: known.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// Notes whatever lies in the log: a batch of an idempotent producer, or a marker with what it says. Others are none of ours.
    pub fn note(
        &mut self,
        batch: &BatchHeader,
        end: Option<EndTransaction>,
        append_time_ms: i64,
        now_ms: i64,
    ) -> Option<Undo> {
        match (batch.is_idempotent(), batch.is_control(), end) {
            (true, false, _) => Some(self.record(batch, append_time_ms, now_ms)),
            (true, true, Some(end)) => Some(self.record_marker(batch, end, now_ms)),
            (_, true, None) | (false, ..) => None,
        }
    }

    /// Notes a batch that goes into the log with its `base_offset` set. What it says is true, whatever `check` would
    /// say: this is also how the state follows a leader or is rebuilt.
    pub fn record(&mut self, batch: &BatchHeader, append_time_ms: i64, now_ms: i64) -> Undo {
        debug_assert!(!batch.is_control(), "markers are noted by record_marker");
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
                marker: before.map_or(NO_MARKER, |known| known.marker),
                coordinator_epoch: before.map_or(-1, |known| known.coordinator_epoch),
            },
        };
        producer.push(entry);
        // What compaction has emptied is part of no open transaction: its marker may be gone.
        let transaction = match batch.is_transactional() && batch.record_count > 0 {
            true => self
                .transactions
                .record(batch.producer_id, batch.producer_epoch, batch.base_offset),
            false => transactions::Undo::Nothing,
        };
        self.keep(batch.producer_id, producer, now_ms);
        Undo {
            producer: batch.producer_id,
            before,
            transaction,
            was_marker: false,
        }
    }

    /// Notes a marker that goes into the log with its `base_offset` set; true like any other batch there.
    pub fn record_marker(&mut self, marker: &BatchHeader, end: EndTransaction, now_ms: i64) -> Undo {
        let (id, at) = (marker.producer_id, marker.base_offset);
        let before = self.entries.get(&id).copied();
        let mut producer = match before {
            Some(known) if known.epoch >= marker.producer_epoch => known,
            Some(_) | None => Producer {
                epoch: marker.producer_epoch,
                batches: [Batch::FIRST; BATCHES_MAX],
                count: 0,
                seen_ms: now_ms,
                marker: at,
                coordinator_epoch: end.coordinator_epoch,
            },
        };
        producer.marker = at;
        producer.coordinator_epoch = producer.coordinator_epoch.max(end.coordinator_epoch);
        let transaction = self.transactions.end(id, at, end.kind);
        self.keep(id, producer, now_ms);
        Undo {
            producer: id,
            before,
            transaction,
            was_marker: true,
        }
    }

    fn keep(&mut self, id: ProducerId, mut producer: Producer, now_ms: i64) {
        producer.seen_ms = producer.seen_ms.max(now_ms);
        self.entries.insert(id, producer);
        if self.entries.len() > PRODUCERS_MAX {
            self.forget_longest_silent();
        }
    }

    /// Takes back a `record`, whose batch was refused. Several are taken back in reverse.
    pub fn undo(&mut self, undo: Undo) {
        self.transactions.undo(undo.transaction);
        match (undo.before, self.entries.get_mut(&undo.producer)) {
            (Some(before), _) => {
                self.entries.insert(undo.producer, before);
            }
            (None, Some(_)) if undo.was_marker => {
                self.entries.remove(&undo.producer);
            }
            // Its first batch: it is waited for.
            (None, Some(producer)) => producer.count = 0,
            // Forgotten meanwhile, there were too many.
            (None, None) => {}
        }
    }

    /// Forgets producers that were silent for longer than `expiration_ms`.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        let open = &self.transactions;
        self.entries.retain(|id, producer| {
            now_ms.saturating_sub(producer.seen_ms) <= expiration_ms || open.is_open(*id)
        });
    }

    pub fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    pub fn transactions_mut(&mut self) -> &mut Transactions {
        &mut self.transactions
    }

    /// Takes over what `known` has learnt from `since` on of those who wrote there. It is right even where the log is damaged.
    pub fn keep_learnt(&mut self, known: &Self, since: Offset) {
        for (id, producer) in &known.entries {
            let last = producer.batches().last();
            let is_learnt = last.is_some_and(|last| last.last_offset >= since);
            if is_learnt && self.entries.get(id).and_then(|found| found.batches().last()) != last {
                self.entries.insert(*id, *producer);
            }
        }
    }

    /// The offset of the last record of a producer.
    pub fn last_offset(&self, producer: ProducerId) -> Option<Offset> {
        let known = self.entries.get(&producer)?;
        known.batches().last().map(|batch| batch.last_offset)
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

    /// Those who have written, for whoever asks; in the order of their ids.
    pub fn describe(&self) -> Vec<ProducerDescription> {
        let known = self.entries.iter().filter_map(|(id, producer)| {
            // One that was refused so far is not known.
            let last = producer.batches().last();
            let is_known = last.is_some() || producer.marker != NO_MARKER;
            is_known.then(|| ProducerDescription {
                id: *id,
                epoch: producer.epoch,
                last_sequence: last.map_or(-1, |last| last.last_sequence),
                seen_ms: producer.seen_ms,
                coordinator_epoch: producer.coordinator_epoch,
                open_from: self.transactions.open_of(*id).map(|open| open.first),
            })
        });
        known.collect()
    }

    pub fn producer_count(&self) -> usize {
        self.entries.len()
    }

    fn forget_longest_silent(&mut self) {
        let mut seen: Vec<_> = self.entries.values().map(|producer| producer.seen_ms).collect();
        let (_, limit, _) = seen.select_nth_unstable(PRODUCERS_MAX / 10);
        let limit = *limit;
        let open = &self.transactions;
        self.entries
            .retain(|id, producer| producer.seen_ms > limit || open.is_open(*id));
    }

    /// The state as bytes, behind their checksum; with all that was aborted and is in the log.
    pub fn encode(&self, aborted: &AbortedIndex) -> Vec<u8> {
        let mut body = Vec::with_capacity(32 + self.entries.len() * 80 + aborted.iter().len() * 32);
        // A batch that was refused is not waited for after a start.
        let is_known = |producer: &Producer| producer.count > 0 || producer.marker != NO_MARKER;
        let known = || self.entries.iter().filter(|(_, producer)| is_known(producer));
        body.put_u16(SNAPSHOT_VERSION);
        body.put_u32(u32::try_from(known().count()).expect("bounded by PRODUCERS_MAX"));
        for (id, producer) in known() {
            body.put_i64(id.value());
            body.put_i16(producer.epoch.value());
            body.put_i64(producer.seen_ms);
            body.put_i64(producer.marker.value());
            body.put_i32(producer.coordinator_epoch);
            body.put_u8(producer.count as u8);
            for batch in producer.batches() {
                body.put_i32(batch.first_sequence);
                body.put_i32(batch.last_sequence);
                body.put_i64(batch.base_offset.value());
                body.put_i64(batch.last_offset.value());
                body.put_i64(batch.append_time_ms);
            }
        }
        put_transactions(&mut body, &self.transactions, aborted);
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
        let version = bytes.try_get_u16().ok()?;
        if version != SNAPSHOT_VERSION && version != WITHOUT_TRANSACTIONS {
            return None;
        }
        let mut producers = Self::default();
        for _ in 0..bytes.try_get_u32().ok()? {
            let id = ProducerId(bytes.try_get_i64().ok()?);
            let mut producer = Producer {
                epoch: ProducerEpoch(bytes.try_get_i16().ok()?),
                seen_ms: bytes.try_get_i64().ok()?,
                batches: [Batch::FIRST; BATCHES_MAX],
                count: 0,
                marker: NO_MARKER,
                coordinator_epoch: -1,
            };
            if version != WITHOUT_TRANSACTIONS {
                producer.marker = Offset(bytes.try_get_i64().ok()?);
                producer.coordinator_epoch = bytes.try_get_i32().ok()?;
            }
            for _ in 0..bytes.try_get_u8().ok()? {
                producer.push(Batch {
                    first_sequence: bytes.try_get_i32().ok()?,
                    last_sequence: bytes.try_get_i32().ok()?,
                    base_offset: Offset(bytes.try_get_i64().ok()?),
                    last_offset: Offset(bytes.try_get_i64().ok()?),
                    append_time_ms: bytes.try_get_i64().ok()?,
                });
            }
            producers.entries.insert(id, producer);
        }
        if version != WITHOUT_TRANSACTIONS {
            producers.transactions = read_transactions(&mut bytes)?;
        }
        bytes.is_empty().then_some(producers)
    }
}

fn put_transactions(body: &mut Vec<u8>, transactions: &Transactions, aborted: &AbortedIndex) {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    body.put_u32(count(transactions.open_count()));
    for (producer, open) in transactions.open() {
        body.put_i64(producer.value());
        body.put_i16(open.epoch.value());
        body.put_i64(open.first.value());
    }
    body.put_u32(count(transactions.ended().len()));
    for ended in transactions.ended() {
        body.put_i64(ended.producer.value());
        body.put_i64(ended.first.value());
        body.put_i64(ended.marker.value());
    }
    body.put_u32(count(aborted.iter().len()));
    for aborted in aborted.iter() {
        body.put_i64(aborted.producer.value());
        body.put_i64(aborted.first.value());
        body.put_i64(aborted.marker.value());
        body.put_i64(aborted.stable.value());
    }
}

fn read_transactions(bytes: &mut &[u8]) -> Option<Transactions> {
    let (mut open, mut ended, mut aborted) = (Vec::new(), VecDeque::new(), Vec::new());
    for _ in 0..bytes.try_get_u32().ok()? {
        let producer = ProducerId(bytes.try_get_i64().ok()?);
        let epoch = ProducerEpoch(bytes.try_get_i16().ok()?);
        let first = Offset(bytes.try_get_i64().ok()?);
        open.push((producer, Open { epoch, first }));
    }
    for _ in 0..bytes.try_get_u32().ok()? {
        ended.push_back(Ended {
            producer: ProducerId(bytes.try_get_i64().ok()?),
            first: Offset(bytes.try_get_i64().ok()?),
            marker: Offset(bytes.try_get_i64().ok()?),
        });
    }
    for _ in 0..bytes.try_get_u32().ok()? {
        aborted.push(Aborted {
            producer: ProducerId(bytes.try_get_i64().ok()?),
            first: Offset(bytes.try_get_i64().ok()?),
            marker: Offset(bytes.try_get_i64().ok()?),
            stable: Offset(bytes.try_get_i64().ok()?),
        });
    }
    Some(Transactions::restore(open, ended, aborted))
}

const SNAPSHOT_VERSION: u16 = 2;
/// As it was before there were transactions.
const WITHOUT_TRANSACTIONS: u16 = 1;
const NO_MARKER: Offset = Offset(-1);

impl Batch {
    /// What has to come first where nothing was before.
    const FIRST: Self = Self {
        first_sequence: 0,
        last_sequence: 0,
        base_offset: Offset::ZERO,
        last_offset: Offset::ZERO,
        append_time_ms: -1,
    };
}

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
        if self.count == 0 {
            // What is unused is the same for all, so that equal producers compare so.
            self.batches = [batch; BATCHES_MAX];
        } else if self.count == BATCHES_MAX {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        self.batches[self.count] = batch;
        self.count += 1;
    }
}

/// How a transaction ends by this batch. None: it is no marker, or none that can be understood.
pub fn end_of(batch: &BatchView) -> Option<EndTransaction> {
    if !batch.header().is_control() {
        return None;
    }
    let records = batch.records(MARKER_BYTES_MAX).ok()?;
    let record = records.iter().next()?.ok()?;
    EndTransaction::parse(&record).ok()?
}

/// What the record of a marker may take, and more.
const MARKER_BYTES_MAX: usize = 4096;

/// The sequence that follows: after the highest comes 0.
fn next_sequence(last: i32) -> i32 {
    last.checked_add(1).unwrap_or(0)
}

#[cfg(test)]
mod tests;
