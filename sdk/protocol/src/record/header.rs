//! The 61 bytes in front of every batch: parse, check, stamp.
//! Owns the offsets of the fields. Must never look behind the header.

use super::{Compression, Error};
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Size of a batch header. No batch is smaller.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length: what comes before the bytes the length counts.
pub const LENGTH_PREFIX_BYTES: usize = 12;

/// First byte of a batch that its checksum covers: all before it may be stamped.
pub const CRC_COVERS_FROM: usize = 21;

pub(super) const LENGTH_AT: usize = 8;
pub(super) const EPOCH_AT: usize = 12;
pub(super) const MAGIC_AT: usize = 16;
pub(super) const CRC_AT: usize = 17;
pub(super) const ATTRIBUTES_AT: usize = CRC_COVERS_FROM;
pub(super) const LAST_OFFSET_DELTA_AT: usize = 23;
pub(super) const BASE_TIMESTAMP_AT: usize = 27;
pub(super) const MAX_TIMESTAMP_AT: usize = 35;
pub(super) const PRODUCER_ID_AT: usize = 43;
pub(super) const PRODUCER_EPOCH_AT: usize = 51;
pub(super) const BASE_SEQUENCE_AT: usize = 53;
pub(super) const RECORD_COUNT_AT: usize = 57;

pub(super) const MAGIC: i8 = 2;
pub(super) const COMPRESSION_MASK: i16 = 0b111;
pub(super) const LOG_APPEND_TIME: i16 = 1 << 3;
pub(super) const TRANSACTIONAL: i16 = 1 << 4;
pub(super) const CONTROL: i16 = 1 << 5;
pub(super) const DELETE_HORIZON: i16 = 1 << 6;

/// What the timestamps of a batch mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer set each record's timestamp.
    #[default]
    CreateTime,
    /// The broker set one timestamp for the batch as it appended it.
    LogAppendTime,
}

/// A parsed batch header. It is a plain value: changing it changes no bytes.
///
/// - `batch_length` is at least what the rest of the header needs.
/// - `record_count`, `last_offset_delta` are not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Bytes after the length field, as sent. See [`BatchHeader::total_bytes`].
    pub batch_length: i32,
    pub partition_leader_epoch: LeaderEpoch,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    /// Sequence number of the first record, or -1.
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads a header from the front of `bytes`, which may hold more or less than the batch it begins.
    ///
    /// Checks what can be seen without the body: magic, length, compression code, counts.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(short_header(bytes));
        };
        let magic = head[MAGIC_AT] as i8;
        if magic != MAGIC {
            return Err(Error::UnsupportedMagic { magic });
        }
        let header = Self {
            base_offset: Offset(i64::from_be_bytes(field(head, 0))),
            batch_length: i32::from_be_bytes(field(head, LENGTH_AT)),
            partition_leader_epoch: LeaderEpoch(i32::from_be_bytes(field(head, EPOCH_AT))),
            crc: u32::from_be_bytes(field(head, CRC_AT)),
            attributes: i16::from_be_bytes(field(head, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(field(head, LAST_OFFSET_DELTA_AT)),
            base_timestamp: i64::from_be_bytes(field(head, BASE_TIMESTAMP_AT)),
            max_timestamp: i64::from_be_bytes(field(head, MAX_TIMESTAMP_AT)),
            producer_id: ProducerId(i64::from_be_bytes(field(head, PRODUCER_ID_AT))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(head, PRODUCER_EPOCH_AT))),
            base_sequence: i32::from_be_bytes(field(head, BASE_SEQUENCE_AT)),
            record_count: i32::from_be_bytes(field(head, RECORD_COUNT_AT)),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), Error> {
        if self.batch_length < (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32 {
            return Err(Error::InvalidLength {
                length: self.batch_length,
            });
        }
        if self.record_count < 0 {
            return Err(Error::malformed("the record count is negative"));
        }
        if self.last_offset_delta < 0 {
            return Err(Error::malformed("the last offset delta is negative"));
        }
        if i64::from(self.record_count) > i64::from(self.last_offset_delta) + 1 {
            return Err(Error::malformed("there are more records than offsets"));
        }
        Compression::from_code((self.attributes & COMPRESSION_MASK) as u8)?;
        Ok(())
    }

    /// Size of the whole batch, header included.
    pub const fn total_bytes(&self) -> usize {
        LENGTH_PREFIX_BYTES + self.batch_length as usize
    }

    pub const fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as i64)
    }

    /// The offset after the batch.
    pub const fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as i64 + 1)
    }

    pub fn compression(&self) -> Compression {
        Compression::from_code((self.attributes & COMPRESSION_MASK) as u8)
            .expect("the code was checked when the header was parsed")
    }

    pub const fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    pub const fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch carries a broker's marker instead of records.
    pub const fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether the base timestamp is the time after which tombstones in the batch may go.
    pub const fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    /// The time after which tombstones in the batch may go, in ms since 1970, once it is known (KIP-534).
    pub const fn delete_horizon_ms(&self) -> Option<i64> {
        if self.has_delete_horizon() {
            Some(self.base_timestamp)
        } else {
            None
        }
    }

    /// Whether a producer id marks the batch, so that its sequence numbers count.
    pub const fn is_idempotent(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// Sequence number of the last record: sequences wrap to 0 after `i32::MAX`.
    pub const fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        (self.base_sequence as u32).wrapping_add(self.last_offset_delta as u32) as i32 & i32::MAX
    }

    /// The absolute timestamp of a record with this delta.
    pub const fn timestamp_of(&self, timestamp_delta: i64) -> i64 {
        match self.timestamp_type() {
            TimestampType::CreateTime => self.base_timestamp.saturating_add(timestamp_delta),
            TimestampType::LogAppendTime => self.max_timestamp,
        }
    }

    /// Writes base offset and leader epoch into the header at the front of `batch`: both lie outside the
    /// checksum, so this is all an append needs.
    ///
    /// # Panics
    /// When `batch` is shorter than a header.
    pub fn stamp(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) {
        batch[..LENGTH_AT].copy_from_slice(&base_offset.0.to_be_bytes());
        batch[EPOCH_AT..MAGIC_AT].copy_from_slice(&epoch.0.to_be_bytes());
    }
}

/// Legacy message sets can be shorter than our header; name them rather than calling them cut.
fn short_header(bytes: &[u8]) -> Error {
    match bytes.get(MAGIC_AT) {
        Some(&magic) if magic as i8 != MAGIC => Error::UnsupportedMagic { magic: magic as i8 },
        _ => Error::Incomplete {
            needed: HEADER_BYTES,
            available: bytes.len(),
        },
    }
}

#[inline]
fn field<const N: usize>(head: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[at..at + N]);
    out
}
