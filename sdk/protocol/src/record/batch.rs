//! One whole batch over shared bytes, and the walk over many of them.
//! Owns the checks a batch passes before it is believed. Must never copy a payload.

use bytes::{Bytes, BytesMut};

use super::header::{ATTRIBUTES_AT, CRC_AT, LOG_APPEND_TIME, MAX_TIMESTAMP_AT};
use super::{BatchHeader, Error, HEADER_BYTES, Records, compression, crc32c};
use crate::ids::{LeaderEpoch, Offset};

/// A sensible bound on the uncompressed records of one batch.
pub const RECORDS_BYTES_MAX: usize = 128 << 20;

/// One batch: its parsed header and exactly its bytes.
///
/// - `bytes.len() == header.total_bytes()`.
/// - The header equals what `bytes` hold; [`BatchView::stamp`] keeps it so.
/// - The checksum is not known to be right until [`BatchView::check_crc`] said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchView {
    header: BatchHeader,
    bytes: Bytes,
}

impl BatchView {
    /// Takes exactly one batch. Trailing bytes are an error.
    pub fn parse(bytes: Bytes) -> Result<Self, Error> {
        let header = BatchHeader::parse(&bytes)?;
        if bytes.len() < header.total_bytes() {
            return Err(Error::Incomplete {
                needed: header.total_bytes(),
                available: bytes.len(),
            });
        }
        if bytes.len() > header.total_bytes() {
            return Err(Error::malformed("bytes follow the batch"));
        }
        Ok(Self { header, bytes })
    }

    /// Takes the batch at the front of `bytes` off it.
    pub fn split_from(bytes: &mut Bytes) -> Result<Self, Error> {
        let header = BatchHeader::parse(bytes)?;
        let needed = header.total_bytes();
        if bytes.len() < needed {
            return Err(Error::Incomplete {
                needed,
                available: bytes.len(),
            });
        }
        Ok(Self {
            header,
            bytes: bytes.split_to(needed),
        })
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch, header included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    pub fn base_offset(&self) -> Offset {
        self.header.base_offset
    }

    pub fn next_offset(&self) -> Offset {
        self.header.next_offset()
    }

    /// Compares the stored checksum with that of the bytes: 11 us per MB.
    pub fn check_crc(&self) -> Result<(), Error> {
        let expected = crc32c(&self.bytes[ATTRIBUTES_AT..]);
        if expected != self.header.crc {
            return Err(Error::Checksum {
                expected,
                actual: self.header.crc,
            });
        }
        Ok(())
    }

    /// What a broker asks of a batch fresh from a producer: a right checksum, at least one record,
    /// offsets without holes, no control bit nor delete horizon, and a complete producer stamp or none.
    pub fn check_produced(&self) -> Result<(), Error> {
        let header = &self.header;
        if header.is_control() {
            return Err(Error::malformed("a producer sent a control batch"));
        }
        if header.has_delete_horizon() {
            return Err(Error::malformed("a producer sent a delete horizon"));
        }
        if header.record_count == 0 {
            return Err(Error::malformed("the batch has no records"));
        }
        if header.last_offset_delta != header.record_count - 1 {
            return Err(Error::malformed("the offsets of a produced batch have holes"));
        }
        if header.is_idempotent() && (header.base_sequence < 0 || header.producer_epoch.0 < 0) {
            return Err(Error::malformed(
                "an idempotent batch lacks its sequence or epoch",
            ));
        }
        if header.is_transactional() && !header.is_idempotent() {
            return Err(Error::malformed("a transactional batch lacks its producer id"));
        }
        self.check_crc()
    }

    /// Walks every record, checking counts, offsets and sizes down to the last header.
    ///
    /// `bytes_max` bounds what a compressed batch may unfold to.
    pub fn check_records(&self, bytes_max: usize) -> Result<(), Error> {
        self.records(bytes_max)?.check()
    }

    /// The records, decompressed once if they are compressed, else shared with the batch.
    pub fn records(&self, bytes_max: usize) -> Result<Records, Error> {
        let body = self.bytes.slice(HEADER_BYTES..);
        let payload = compression::decompress(self.header.compression(), body, bytes_max)?;
        Ok(Records::new(self.header, payload))
    }

    /// A copy of the header with base offset and leader epoch set: with the rest of [`BatchView::bytes`]
    /// behind it, the batch as it is appended.
    pub fn stamped_header(&self, base_offset: Offset, epoch: LeaderEpoch) -> [u8; HEADER_BYTES] {
        let mut head = *self
            .bytes
            .first_chunk::<HEADER_BYTES>()
            .expect("a batch holds its header");
        BatchHeader::stamp(&mut head, base_offset, epoch);
        head
    }

    /// Sets base offset and leader epoch in place when nobody else holds the bytes, else gives itself
    /// back, for the caller to write [`BatchView::stamped_header`] in front of the body.
    pub fn stamp(self, base_offset: Offset, epoch: LeaderEpoch) -> Result<Self, Self> {
        let Self { mut header, bytes } = self;
        match bytes.try_into_mut() {
            Ok(mut bytes) => {
                BatchHeader::stamp(&mut bytes, base_offset, epoch);
                header.base_offset = base_offset;
                header.partition_leader_epoch = epoch;
                Ok(Self {
                    header,
                    bytes: bytes.freeze(),
                })
            }
            Err(bytes) => Err(Self { header, bytes }),
        }
    }

    /// The batch with one timestamp for all its records, set by the broker, and the checksum that goes
    /// with it. Copies the batch only when somebody else holds its bytes too.
    pub fn with_log_append_time(self, now_ms: i64) -> Self {
        let mut bytes = self
            .bytes
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        let mut header = self.header;
        header.attributes |= LOG_APPEND_TIME;
        header.max_timestamp = now_ms;
        bytes[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&header.attributes.to_be_bytes());
        bytes[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&now_ms.to_be_bytes());
        header.crc = crc32c(&bytes[ATTRIBUTES_AT..]);
        bytes[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&header.crc.to_be_bytes());
        Self {
            header,
            bytes: bytes.freeze(),
        }
    }
}

/// Walks the batches that lie one after another in a range of bytes.
///
/// Ends after the first error. A range cut in the middle of its last batch ends with
/// [`Error::Incomplete`], which a consumer takes for the end.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }
}

impl Iterator for Batches {
    type Item = Result<BatchView, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let next = BatchView::split_from(&mut self.rest);
        if next.is_err() {
            self.rest = Bytes::new();
        }
        Some(next)
    }
}
