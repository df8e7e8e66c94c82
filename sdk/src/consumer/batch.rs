//! What a consumer is given: batches over the bytes that came, and the records in them.
//!
//! Owns the cut at the position: a broker sends whole batches, also from the middle of one. It must never
//! copy a key or a value.

use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::record::{self, BatchHeader, BatchView, Headers, RECORDS_BYTES_MAX};

use super::TopicPartition;

/// Records of one partition that were written together, as they lie in the log.
#[derive(Clone, Debug)]
pub struct Batch {
    key: TopicPartition,
    /// Records before it were consumed already.
    from: Offset,
    view: BatchView,
}

impl Batch {
    pub(super) fn new(key: TopicPartition, from: Offset, view: BatchView) -> Self {
        let from = from.max(view.base_offset());
        Self { key, from, view }
    }

    pub fn topic(&self) -> &Arc<str> {
        &self.key.topic
    }

    pub fn topic_partition(&self) -> &TopicPartition {
        &self.key
    }

    pub fn partition(&self) -> PartitionIndex {
        self.key.partition
    }

    /// The offset of the first record that is the consumer's.
    pub fn first_offset(&self) -> Offset {
        self.from
    }

    /// The offset behind the last record.
    pub fn next_offset(&self) -> Offset {
        self.view.next_offset()
    }

    pub fn header(&self) -> &BatchHeader {
        self.view.header()
    }

    /// The batch as it came, header included; it may begin before [`Batch::first_offset`].
    pub fn bytes(&self) -> &Bytes {
        self.view.bytes()
    }

    /// The records, decompressed once if need be, else shared with the batch.
    pub fn records(&self) -> Result<Records, record::Error> {
        let records = self.view.records(RECORDS_BYTES_MAX)?;
        Ok(Records {
            from: self.from,
            records,
        })
    }
}

/// The records of a batch.
#[derive(Clone, Debug)]
pub struct Records {
    from: Offset,
    records: record::Records,
}

impl Records {
    /// Borrows one record after the other: the fastest walk.
    pub fn iter(&self) -> impl Iterator<Item = Result<RecordView<'_>, record::Error>> {
        let header = self.records.header();
        let from = self.from;
        self.records.iter().filter_map(move |record| match record {
            Err(cause) => Some(Err(cause)),
            Ok(record) => {
                let offset = header.base_offset.plus(i64::from(record.offset_delta));
                (offset >= from).then(|| {
                    Ok(RecordView {
                        offset,
                        timestamp_ms: header.timestamp_of(record.timestamp_delta),
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    })
                })
            }
        })
    }

    /// Shares a part that the walk borrowed, without copying it.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.records.share(part)
    }

    pub(super) fn into_owned(self) -> record::OwnedRecords {
        self.records.into_iter()
    }
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    pub offset: Offset,
    pub timestamp_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// One record with its place. Key, value and headers share the memory of the answer they came in.
#[derive(Clone, Debug)]
pub struct ConsumerRecord {
    pub topic: Arc<str>,
    pub partition: PartitionIndex,
    pub record: record::Record,
}

impl std::ops::Deref for ConsumerRecord {
    type Target = record::Record;

    fn deref(&self) -> &record::Record {
        &self.record
    }
}
