//! One partition of the test broker: batches, offsets, and the rules for producers.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::record::{BatchHeader, BatchView};

#[derive(Default)]
pub(crate) struct PartitionLog {
    pub(crate) batches: Vec<BatchView>,
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) leader_epoch: i32,
    producers: BTreeMap<i64, ProducerState>,
    /// Where transactions of producers ended, and whether they were committed.
    ends: Vec<(i64, i64, bool)>,
}

struct ProducerState {
    epoch: i16,
    last_sequence: i32,
    /// First sequence, last sequence and base offset of the last five batches.
    recent: VecDeque<(i32, i32, i64)>,
}

impl PartitionLog {
    /// Appends as a broker does: checks, sequence, offsets.
    pub(crate) fn append(&mut self, bytes: Bytes) -> Result<i64, ErrorCode> {
        let batch = BatchView::parse(bytes).map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
        batch.check_produced().map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
        batch
            .check_records(1 << 30)
            .map_err(|_| ErrorCode::INVALID_RECORD)?;
        let header = *batch.header();
        if header.is_idempotent()
            && let Some(original) = self.check_sequence(&header)?
        {
            return Ok(original);
        }
        let base = self.end;
        let mut owned = BytesMut::from(&batch.bytes()[..]);
        BatchHeader::stamp(&mut owned, Offset(base), LeaderEpoch(self.leader_epoch));
        let stamped = BatchView::parse(owned.freeze()).unwrap();
        self.end = stamped.next_offset().0;
        if let Some(producer) = self
            .producers
            .get_mut(&header.producer_id.0)
            .filter(|_| header.is_idempotent())
        {
            producer.last_sequence = header.last_sequence();
            producer
                .recent
                .push_back((header.base_sequence, header.last_sequence(), base));
            if producer.recent.len() > 5 {
                producer.recent.pop_front();
            }
        }
        self.batches.push(stamped);
        Ok(base)
    }

    /// The original offset of a duplicate, or `None` for the next in sequence.
    fn check_sequence(&mut self, header: &BatchHeader) -> Result<Option<i64>, ErrorCode> {
        let (id, epoch) = (header.producer_id.0, header.producer_epoch.0);
        let fresh = ProducerState {
            epoch,
            last_sequence: -1,
            recent: VecDeque::new(),
        };
        let producer = self.producers.entry(id).or_insert(fresh);
        if epoch < producer.epoch {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        if epoch > producer.epoch {
            *producer = ProducerState {
                epoch,
                last_sequence: -1,
                recent: VecDeque::new(),
            };
        }
        let same = |(first, last, _): &&(i32, i32, i64)| {
            *first == header.base_sequence && *last == header.last_sequence()
        };
        if let Some((_, _, offset)) = producer.recent.iter().find(same) {
            return Ok(Some(*offset));
        }
        let expected = if producer.last_sequence == i32::MAX {
            0
        } else {
            producer.last_sequence + 1
        };
        if header.base_sequence != expected {
            return Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        }
        Ok(None)
    }

    /// Forgets all producers, as a broker that lost its state.
    pub(crate) fn forget_producers(&mut self) {
        self.producers.clear();
    }

    /// Whole batches from the one that holds `from`, at least one, then while they fit.
    pub(crate) fn read(&self, from: i64, bytes_max: usize, cut: bool) -> Vec<Bytes> {
        let mut out = Vec::new();
        let mut used = 0;
        for batch in self.batches.iter().filter(|batch| batch.next_offset().0 > from) {
            let size = batch.bytes().len();
            if used > 0 && used + size > bytes_max {
                if cut && bytes_max > used {
                    out.push(batch.bytes().slice(..bytes_max - used));
                }
                break;
            }
            out.push(batch.bytes().clone());
            used += size;
        }
        out
    }

    /// Ends the transaction that a producer has open here.
    pub(crate) fn end_transaction(&mut self, producer: i64, commit: bool) {
        self.ends.push((producer, self.end, commit));
    }

    /// All values in order, as text.
    pub(crate) fn values(&self) -> Vec<String> {
        self.values_of(|_| true)
    }

    /// Those that are in no transaction, or in one that was committed.
    pub(crate) fn committed_values(&self) -> Vec<String> {
        self.values_of(|batch| {
            let header = batch.header();
            let ended = |(producer, end, _): &&(i64, i64, bool)| {
                *producer == header.producer_id.0 && *end > header.base_offset.0
            };
            !header.is_transactional() || self.ends.iter().find(ended).is_some_and(|(_, _, commit)| *commit)
        })
    }

    fn values_of(&self, is_wanted: impl Fn(&BatchView) -> bool) -> Vec<String> {
        let mut values = Vec::new();
        for batch in self.batches.iter().filter(|batch| is_wanted(batch)) {
            for record in &batch.records(1 << 30).unwrap() {
                let value = record.unwrap().value.unwrap_or_default();
                values.push(String::from_utf8_lossy(value).into_owned());
            }
        }
        values
    }
}
