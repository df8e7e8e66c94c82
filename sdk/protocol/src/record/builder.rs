//! Makes batches: records in, one finished batch out, the buffer kept for the next.
//! Owns the encoding of records. Must never allocate per record.

use bytes::{BufMut, Bytes, BytesMut};

use super::compression::Compressor;
use super::header::{
    ATTRIBUTES_AT, BASE_SEQUENCE_AT, BASE_TIMESTAMP_AT, CONTROL, CRC_AT, LAST_OFFSET_DELTA_AT, LENGTH_AT,
    LOG_APPEND_TIME, MAGIC, MAGIC_AT, MAX_TIMESTAMP_AT, PRODUCER_EPOCH_AT, PRODUCER_ID_AT, RECORD_COUNT_AT,
    TRANSACTIONAL,
};
use super::varint::{Gather, len_i32, len_i64};
use super::{
    BatchHeader, Compression, Error, HEADER_BYTES, Headers, LENGTH_PREFIX_BYTES, TimestampType, crc32c,
};
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// A batch's length field is an `i32`; stay clear of it.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// The identity that makes a producer's batches idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// Sequence number of the batch's first record.
    pub base_sequence: i32,
}

impl ProducerStamp {
    /// No idempotence.
    pub const NONE: Self = Self {
        id: ProducerId::NONE,
        epoch: ProducerEpoch::NONE,
        base_sequence: -1,
    };

    /// Writes it into the header of a finished batch, one whole batch, and the checksum that goes with it.
    ///
    /// # Panics
    /// When `batch` is shorter than a header.
    pub fn put(self, batch: &mut [u8]) {
        batch[PRODUCER_ID_AT..PRODUCER_EPOCH_AT].copy_from_slice(&self.id.0.to_be_bytes());
        batch[PRODUCER_EPOCH_AT..BASE_SEQUENCE_AT].copy_from_slice(&self.epoch.0.to_be_bytes());
        batch[BASE_SEQUENCE_AT..RECORD_COUNT_AT].copy_from_slice(&self.base_sequence.to_be_bytes());
        let crc = crc32c(&batch[ATTRIBUTES_AT..]);
        batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
    }
}

/// What a batch says about itself beside its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    pub compression: Compression,
    /// The codec's level; `None` is its default.
    pub level: Option<i32>,
    pub timestamps: TimestampType,
    pub producer: ProducerStamp,
    pub transactional: bool,
    pub control: bool,
    pub base_offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

impl BatchOptions {
    /// An ordinary, uncompressed batch that nobody stamped.
    pub const PLAIN: Self = Self {
        compression: Compression::None,
        level: None,
        timestamps: TimestampType::CreateTime,
        producer: ProducerStamp::NONE,
        transactional: false,
        control: false,
        base_offset: Offset::ZERO,
        leader_epoch: LeaderEpoch::NONE,
    };

    pub const fn compressed(compression: Compression) -> Self {
        Self {
            compression,
            ..Self::PLAIN
        }
    }

    const fn attributes(&self) -> i16 {
        let mut attributes = self.compression.code() as i16;
        if matches!(self.timestamps, TimestampType::LogAppendTime) {
            attributes |= LOG_APPEND_TIME;
        }
        if self.transactional {
            attributes |= TRANSACTIONAL;
        }
        if self.control {
            attributes |= CONTROL;
        }
        attributes
    }
}

/// One header to be written.
#[derive(Debug, Clone, Copy)]
pub struct HeaderRef<'a> {
    pub key: &'a str,
    pub value: Option<&'a [u8]>,
}

/// One record to be written.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewRecord<'a> {
    pub timestamp_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [HeaderRef<'a>],
}

/// Gathers records into one batch after another.
///
/// - `buffer` begins with room for the header whenever records are in it.
/// - The memory of a finished batch returns to the builder once all its `Bytes` are dropped.
pub struct BatchBuilder {
    options: BatchOptions,
    buffer: BytesMut,
    count: i32,
    next_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    compressor: Compressor,
    /// Compressed size over plain size of the batches so far, in 1/1024.
    ratio: usize,
}

impl BatchBuilder {
    pub fn new(options: BatchOptions) -> Self {
        Self::with_capacity(options, 0)
    }

    /// Reserves `bytes` at once, for a caller who knows how large his batches grow.
    pub fn with_capacity(options: BatchOptions, bytes: usize) -> Self {
        Self::with_buffer(options, BytesMut::with_capacity(bytes))
    }

    /// Gathers into memory that the caller has, which becomes the finished batch; what is in it is lost.
    pub fn with_buffer(options: BatchOptions, buffer: BytesMut) -> Self {
        Self {
            options,
            buffer,
            count: 0,
            next_delta: 0,
            base_timestamp: 0,
            max_timestamp: i64::MIN,
            compressor: Compressor::new(),
            ratio: 1024,
        }
    }

    pub fn options(&self) -> &BatchOptions {
        &self.options
    }

    /// Changes what the batch under construction, and those after it, will say.
    pub fn options_mut(&mut self) -> &mut BatchOptions {
        &mut self.options
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn record_count(&self) -> i32 {
        self.count
    }

    /// Size of the batch so far, uncompressed.
    pub fn plain_bytes(&self) -> usize {
        self.buffer.len().max(HEADER_BYTES)
    }

    /// What the batch would take if built now, judged by how well earlier ones compressed.
    pub fn estimated_bytes(&self) -> usize {
        HEADER_BYTES + (self.plain_bytes() - HEADER_BYTES) * self.ratio / 1024
    }

    /// Size of `record` inside the batch, its length field included.
    pub fn record_bytes(&self, record: &NewRecord<'_>) -> usize {
        let body =
            self.body_bytes(record.timestamp_ms, record.key, record.value) + headers_len(record.headers);
        len_i32(body as i32) + body
    }

    /// Adds a record at the next offset.
    #[inline]
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<(), Error> {
        let headers_bytes = headers_len(record.headers);
        self.begin(record.timestamp_ms, record.key, record.value, headers_bytes)?;
        self.buffer_varint(record.headers.len() as i32);
        for header in record.headers {
            self.put_bytes(Some(header.key.as_bytes()));
            self.put_bytes(header.value);
        }
        Ok(())
    }

    /// Adds a record whose headers are copied on as they lay in another batch.
    pub fn append_forwarded(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) -> Result<(), Error> {
        let encoded = headers.encoded();
        self.begin(
            timestamp_ms,
            key,
            value,
            len_i32(headers.header_count()) + encoded.len(),
        )?;
        self.buffer_varint(headers.header_count());
        self.buffer.extend_from_slice(encoded);
        Ok(())
    }

    /// Leaves `count` offsets of the batch without a record, as compaction does.
    pub fn skip_offsets(&mut self, count: u32) {
        self.next_delta = self.next_delta.saturating_add_unsigned(count);
    }

    /// Finishes the batch and begins the next one with the same options, the sequence moved on.
    /// `None` when there is no record to send.
    pub fn build(&mut self) -> Result<Option<Bytes>, Error> {
        if self.count == 0 {
            return Ok(None);
        }
        let mut plain = self.buffer.split();
        let batch = if self.options.compression == Compression::None {
            self.write_header(&mut plain);
            plain.freeze()
        } else {
            let batch = self.compressed(&plain)?;
            // The plain bytes are ours again for the next batch.
            self.buffer = plain;
            batch
        };
        self.restart();
        Ok(Some(batch))
    }

    fn compressed(&mut self, plain: &[u8]) -> Result<Bytes, Error> {
        let BatchOptions {
            compression, level, ..
        } = self.options;
        let mut out = Vec::with_capacity(plain.len() / 2 + HEADER_BYTES);
        out.resize(HEADER_BYTES, 0);
        self.compressor
            .compress(compression, level, &plain[HEADER_BYTES..], &mut out)?;
        self.ratio = (out.len() * 1024 / plain.len()).clamp(1, 1024);
        self.write_header(&mut out);
        Ok(Bytes::from(out))
    }

    fn restart(&mut self) {
        let producer = &mut self.options.producer;
        if producer.base_sequence >= 0 {
            let next = (producer.base_sequence as u32).wrapping_add(self.next_delta as u32);
            producer.base_sequence = next as i32 & i32::MAX;
        }
        self.count = 0;
        self.next_delta = 0;
        self.max_timestamp = i64::MIN;
    }

    fn write_header(&self, batch: &mut [u8]) {
        let options = &self.options;
        let length = (batch.len() - LENGTH_PREFIX_BYTES) as i32;
        let attributes = options.attributes();
        BatchHeader::stamp(batch, options.base_offset, options.leader_epoch);
        let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
        put(LENGTH_AT, &length.to_be_bytes());
        put(MAGIC_AT, &[MAGIC as u8]);
        put(ATTRIBUTES_AT, &attributes.to_be_bytes());
        put(LAST_OFFSET_DELTA_AT, &(self.next_delta - 1).to_be_bytes());
        put(BASE_TIMESTAMP_AT, &self.base_timestamp.to_be_bytes());
        put(MAX_TIMESTAMP_AT, &self.max_timestamp.to_be_bytes());
        put(PRODUCER_ID_AT, &options.producer.id.0.to_be_bytes());
        put(PRODUCER_EPOCH_AT, &options.producer.epoch.0.to_be_bytes());
        put(BASE_SEQUENCE_AT, &options.producer.base_sequence.to_be_bytes());
        put(RECORD_COUNT_AT, &self.count.to_be_bytes());
        let crc = crc32c(&batch[ATTRIBUTES_AT..]);
        batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
    }

    /// Writes everything of a record up to its header count.
    #[inline]
    fn begin(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers_bytes: usize,
    ) -> Result<(), Error> {
        if self.count == 0 {
            self.base_timestamp = timestamp_ms;
        }
        let body = self.body_bytes(timestamp_ms, key, value) + headers_bytes;
        let needed = 5 + body;
        if self.buffer.len() + needed > BATCH_BYTES_MAX || self.next_delta == i32::MAX {
            return Err(Error::TooLarge {
                limit: BATCH_BYTES_MAX,
            });
        }
        if self.count == 0 {
            self.buffer.clear();
            self.buffer.put_bytes(0, HEADER_BYTES);
        }
        self.buffer.reserve(needed);
        let mut gather = Gather::new();
        gather.i32(body as i32);
        gather.byte(0);
        gather.i64(timestamp_ms.wrapping_sub(self.base_timestamp));
        gather.i32(self.next_delta);
        gather.i32(length_of(key));
        self.buffer.extend_from_slice(gather.as_slice());
        self.buffer.extend_from_slice(key.unwrap_or_default());
        self.put_bytes(value);
        self.count += 1;
        self.next_delta += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        Ok(())
    }

    #[inline]
    fn body_bytes(&self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
        let base = if self.count == 0 {
            timestamp_ms
        } else {
            self.base_timestamp
        };
        let delta = timestamp_ms.wrapping_sub(base);
        1 + len_i64(delta) + len_i32(self.next_delta) + nullable_len(key) + nullable_len(value)
    }

    #[inline]
    fn put_bytes(&mut self, bytes: Option<&[u8]>) {
        self.buffer_varint(length_of(bytes));
        self.buffer.extend_from_slice(bytes.unwrap_or_default());
    }

    #[inline]
    fn buffer_varint(&mut self, value: i32) {
        let mut gather = Gather::new();
        gather.i32(value);
        self.buffer.extend_from_slice(gather.as_slice());
    }
}

#[inline]
fn length_of(bytes: Option<&[u8]>) -> i32 {
    bytes.map_or(-1, |bytes| bytes.len() as i32)
}

#[inline]
fn nullable_len(bytes: Option<&[u8]>) -> usize {
    len_i32(length_of(bytes)) + bytes.map_or(0, <[u8]>::len)
}

#[inline]
fn headers_len(headers: &[HeaderRef<'_>]) -> usize {
    let each =
        |header: &HeaderRef<'_>| nullable_len(Some(header.key.as_bytes())) + nullable_len(header.value);
    len_i32(headers.len() as i32) + headers.iter().map(each).sum::<usize>()
}
