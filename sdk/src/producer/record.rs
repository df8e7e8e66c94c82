//! [`Record`]: what an application sends, borrowed until it is encoded.
//!
//! Owns nothing. It must never be kept: sending copies it into a batch.

use headwater_protocol::ids::PartitionIndex;
use headwater_protocol::record::HeaderRef;

/// A record to be sent. Everything in it is borrowed; sending copies it once, into its batch.
///
/// ```
/// use headwater_sdk::{HeaderRef, Record};
///
/// let headers = [HeaderRef { key: "origin", value: Some(b"gate 4") }];
/// let record = Record::value("delayed").key("AA1").headers(&headers).timestamp_ms(981_000_000_000);
/// # let _ = record;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [HeaderRef<'a>],
    pub(super) timestamp_ms: Option<i64>,
    pub(super) partition: Option<PartitionIndex>,
}

impl<'a> Record<'a> {
    /// A record with a value.
    pub fn value(value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self {
            value: Some(value.as_ref()),
            ..Self::default()
        }
    }

    /// A record without a value, which deletes its key from a compacted topic.
    pub fn tombstone(key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self {
            key: Some(key.as_ref()),
            ..Self::default()
        }
    }

    /// The same record with a key. Records of one key go to one partition, the one Kafka's own producer
    /// would choose.
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    pub fn headers(mut self, headers: &'a [HeaderRef<'a>]) -> Self {
        self.headers = headers;
        self
    }

    /// When it happened, in milliseconds since 1970; without it, when it was sent.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// The same record for one partition, whatever its key.
    pub fn partition(mut self, partition: PartitionIndex) -> Self {
        self.partition = Some(partition);
        self
    }

    /// No less than what the record takes in a batch.
    pub(super) fn bytes_bound(&self) -> usize {
        const FIELDS: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
        const HEADER_LENGTHS: usize = 5 + 5;
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let header = |header: &HeaderRef<'_>| header.key.len() + length(header.value) + HEADER_LENGTHS;
        FIELDS + length(self.key) + length(self.value) + self.headers.iter().map(header).sum::<usize>()
    }
}
