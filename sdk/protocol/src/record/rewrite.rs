//! Makes a batch anew with fewer records, as compaction does.
//! Owns what such a batch keeps: its offsets, sequence, producer, epoch, codec and the bytes of every record that stays.
//! Must never change what a record says.
//!
//! Once a batch holds tombstones that others have outlived, it bears a delete horizon (KIP-534): bit 6 of its attributes,
//! and in place of the base timestamp, in ms since 1970, the time after which those tombstones may go. The deltas of
//! its records count from there.

use bytes::Bytes;

use super::compression::Compressor;
use super::header::{
    ATTRIBUTES_AT, BASE_SEQUENCE_AT, BASE_TIMESTAMP_AT, COMPRESSION_MASK, CRC_AT, DELETE_HORIZON,
    LAST_OFFSET_DELTA_AT, LENGTH_AT, MAGIC, MAGIC_AT, MAX_TIMESTAMP_AT, PRODUCER_EPOCH_AT, PRODUCER_ID_AT,
    RECORD_COUNT_AT,
};
use super::varint::{Gather, len_i64, read_i32, read_i64};
use super::{
    BatchHeader, Error, HEADER_BYTES, LENGTH_PREFIX_BYTES, RecordRef, Records, TimestampType, crc32c,
};
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Rewrites one batch after another, with memory that is used again.
pub struct Rewriter {
    compressor: Compressor,
    plain: Vec<u8>,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self::new()
    }
}

impl Rewriter {
    pub const fn new() -> Self {
        Self {
            compressor: Compressor::new(),
            plain: Vec::new(),
        }
    }

    /// The batch with those of its `records` that `kept` says, in their order; one that is not named goes. With a
    /// `delete_horizon_ms` it gets that horizon, else it keeps the one it has. The codec's default level is used.
    ///
    /// Fails on records that are malformed. Where none is kept, it is [`emptied`] that gives the batch.
    pub fn retain(
        &mut self,
        records: &Records,
        kept: &[bool],
        delete_horizon_ms: Option<i64>,
    ) -> Result<Bytes, Error> {
        let mut header = *records.header();
        self.plain.clear();
        let (mut count, mut newest) = (0, i64::MIN);
        let mut rest: &[u8] = records.payload();
        for is_kept in kept.iter().take(header.record_count as usize) {
            let before = rest;
            let record = RecordRef::read(&mut rest)?;
            if !is_kept {
                continue;
            }
            let raw = &before[..before.len() - rest.len()];
            let timestamp_ms = header.timestamp_of(record.timestamp_delta);
            match delete_horizon_ms {
                Some(horizon_ms) => self.put_shifted(raw, timestamp_ms.saturating_sub(horizon_ms))?,
                None => self.plain.extend_from_slice(raw),
            }
            count += 1;
            newest = newest.max(timestamp_ms);
        }
        header.record_count = count;
        if header.timestamp_type() == TimestampType::CreateTime && count > 0 {
            header.max_timestamp = newest;
        }
        if let Some(horizon_ms) = delete_horizon_ms {
            header.attributes |= DELETE_HORIZON;
            header.base_timestamp = horizon_ms;
        }
        let mut batch = Vec::with_capacity(HEADER_BYTES + self.plain.len());
        batch.resize(HEADER_BYTES, 0);
        self.compressor
            .compress(header.compression(), None, &self.plain, &mut batch)?;
        Ok(seal(&header, batch))
    }

    /// Adds a record as it lies, but with another timestamp delta.
    fn put_shifted(&mut self, mut raw: &[u8], delta: i64) -> Result<(), Error> {
        let rest = &mut raw;
        read_i32(rest).map_err(Error::malformed)?;
        let (attributes, after) = rest.split_first().ok_or(Error::malformed("a record is empty"))?;
        *rest = after;
        read_i64(rest).map_err(Error::malformed)?;
        let length = 1 + len_i64(delta) + rest.len();
        let length = i32::try_from(length).map_err(|_| Error::malformed("a record is too large"))?;
        let mut gather = Gather::new();
        gather.i32(length);
        gather.byte(*attributes);
        gather.i64(delta);
        self.plain.extend_from_slice(gather.as_slice());
        self.plain.extend_from_slice(rest);
        Ok(())
    }
}

/// The batch without any record: it says that its offsets were there, and whose. Its largest timestamp stays.
pub fn emptied(header: &BatchHeader) -> Bytes {
    let header = BatchHeader {
        attributes: header.attributes & !(COMPRESSION_MASK | DELETE_HORIZON),
        base_timestamp: header.max_timestamp,
        record_count: 0,
        ..*header
    };
    seal(&header, vec![0; HEADER_BYTES])
}

/// A batch of nobody without any record: it says that `offset` was there, and in which epoch.
pub fn filler(offset: Offset, epoch: LeaderEpoch) -> Bytes {
    let header = BatchHeader {
        base_offset: offset,
        batch_length: 0,
        partition_leader_epoch: epoch,
        crc: 0,
        attributes: 0,
        last_offset_delta: 0,
        base_timestamp: -1,
        max_timestamp: -1,
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch::NONE,
        base_sequence: -1,
        record_count: 0,
    };
    seal(&header, vec![0; HEADER_BYTES])
}

/// Writes the header in front of the records, with the length and the checksum that go with them.
fn seal(header: &BatchHeader, mut batch: Vec<u8>) -> Bytes {
    let length = (batch.len() - LENGTH_PREFIX_BYTES) as i32;
    BatchHeader::stamp(&mut batch, header.base_offset, header.partition_leader_epoch);
    let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
    put(LENGTH_AT, &length.to_be_bytes());
    put(MAGIC_AT, &[MAGIC as u8]);
    put(ATTRIBUTES_AT, &header.attributes.to_be_bytes());
    put(LAST_OFFSET_DELTA_AT, &header.last_offset_delta.to_be_bytes());
    put(BASE_TIMESTAMP_AT, &header.base_timestamp.to_be_bytes());
    put(MAX_TIMESTAMP_AT, &header.max_timestamp.to_be_bytes());
    put(PRODUCER_ID_AT, &header.producer_id.0.to_be_bytes());
    put(PRODUCER_EPOCH_AT, &header.producer_epoch.0.to_be_bytes());
    put(BASE_SEQUENCE_AT, &header.base_sequence.to_be_bytes());
    put(RECORD_COUNT_AT, &header.record_count.to_be_bytes());
    let crc = crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, BatchOptions, BatchView, Compression, NewRecord, ProducerStamp};

    const LIMIT: usize = 1 << 20;

    fn stamped(options: BatchOptions) -> BatchView {
        let producer = ProducerStamp {
            id: ProducerId(7),
            epoch: ProducerEpoch(1),
            base_sequence: 40,
        };
        let mut builder = BatchBuilder::new(BatchOptions {
            producer,
            base_offset: Offset(100),
            leader_epoch: LeaderEpoch(5),
            ..options
        });
        for (number, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let record = NewRecord {
                timestamp_ms: 1_000 - number as i64,
                key: Some(key.as_bytes()),
                value: (key != "c").then_some(b"value"),
                ..NewRecord::default()
            };
            builder.append(&record).unwrap();
        }
        BatchView::parse(builder.build().unwrap().unwrap()).unwrap()
    }

    fn listed(batch: &BatchView) -> Vec<(i64, i64, Option<Bytes>, bool)> {
        let records = batch.records(LIMIT).unwrap().into_iter().map(Result::unwrap);
        records
            .map(|it| (it.offset.value(), it.timestamp_ms, it.key, it.value.is_some()))
            .collect()
    }

    #[test]
    fn what_stays_is_what_it_was() {
        for codec in Compression::ALL {
            for horizon_ms in [None, Some(5_000_000_000)] {
                let batch = stamped(BatchOptions::compressed(codec));
                let records = batch.records(LIMIT).unwrap();
                let kept = [false, true, true, false];
                let bytes = Rewriter::new().retain(&records, &kept, horizon_ms).unwrap();
                let left = BatchView::parse(bytes).unwrap();
                left.check_crc().unwrap();
                left.check_records(LIMIT).unwrap();
                assert_eq!(listed(&left), listed(&batch)[1..3]);
                let (new, old) = (left.header(), batch.header());
                assert_eq!(new.compression(), codec);
                assert_eq!((new.base_offset, new.last_offset()), (Offset(100), Offset(103)));
                assert_eq!((new.base_sequence, new.last_sequence()), (40, 43));
                assert_eq!(
                    (new.producer_id, new.producer_epoch),
                    (old.producer_id, old.producer_epoch)
                );
                assert_eq!(new.partition_leader_epoch, LeaderEpoch(5));
                assert_eq!((new.max_timestamp, new.record_count), (999, 2));
                assert_eq!(new.delete_horizon_ms(), horizon_ms);
                let all = Rewriter::new().retain(&records, &[true; 4], horizon_ms);
                let all = BatchView::parse(all.unwrap()).unwrap();
                assert_eq!(all.check_produced().is_ok(), horizon_ms.is_none());
                // A second time the horizon stays, and so do the times.
                let again = Rewriter::new().retain(&left.records(LIMIT).unwrap(), &[true, false], None);
                let again = BatchView::parse(again.unwrap()).unwrap();
                assert_eq!(again.header().delete_horizon_ms(), horizon_ms);
                assert_eq!(listed(&again), listed(&batch)[1..2]);
            }
        }
    }

    #[test]
    fn the_time_of_an_append_stays_the_time_of_all() {
        let batch = stamped(BatchOptions::PLAIN).with_log_append_time(9_999);
        let records = batch.records(LIMIT).unwrap();
        let bytes = Rewriter::new().retain(&records, &[true, false, true], Some(77));
        let left = BatchView::parse(bytes.unwrap()).unwrap();
        assert_eq!(left.header().max_timestamp, 9_999);
        let times: Vec<i64> = listed(&left).into_iter().map(|it| it.1).collect();
        assert_eq!(times, [9_999, 9_999]);
    }

    #[test]
    fn an_empty_batch_is_this() {
        let batch = stamped(BatchOptions::compressed(Compression::Zstd));
        let bytes = emptied(batch.header());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0000000000000064000000310000000502ff4591c000000000\
             000300000000000003e800000000000003e800000000000000\
             0700010000002800000000"
        );
        let left = BatchView::parse(bytes).unwrap();
        left.check_crc().unwrap();
        assert_eq!(left.header().last_sequence(), batch.header().last_sequence());
        assert_eq!(listed(&left), []);
    }

    #[test]
    fn a_filler_holds_one_offset() {
        let batch = BatchView::parse(filler(Offset(41), LeaderEpoch(2))).unwrap();
        batch.check_crc().unwrap();
        assert_eq!(batch.next_offset(), Offset(42));
        assert!(!batch.header().is_idempotent());
    }
}
