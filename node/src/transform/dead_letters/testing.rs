//! What the tests of dead letters share: records of a dead-letter topic.

use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::record::{BatchBuilder, BatchOptions, BatchView, HeaderRef, NewRecord, Record};

use super::letter::DeadLetter;
use super::names::{MESSAGE, MODULE, MODULE_VERSION, OFFSET, PARTITION, REASON, TIMESTAMP, TOPIC, TRANSFORM};

/// What a letter of `clean` says, of the record 7 in partition 3 of `raw`.
pub(crate) fn story(reason: &str) -> Vec<(&str, Option<&str>)> {
    vec![
        (REASON, Some(reason)),
        (MESSAGE, Some("it broke")),
        (TRANSFORM, Some("clean")),
        (MODULE, Some("filter")),
        (MODULE_VERSION, Some("1.0.0")),
        (TOPIC, Some("raw")),
        (PARTITION, Some("3")),
        (OFFSET, Some("7")),
        (TIMESTAMP, Some("99")),
    ]
}

/// A batch of one record, of the time 5.
pub(crate) fn batch(
    key: Option<&str>,
    value: Option<&str>,
    headers: &[(&str, Option<&str>)],
) -> bytes::Bytes {
    let headers: Vec<_> = headers
        .iter()
        .map(|(key, value)| HeaderRef {
            key,
            value: value.map(str::as_bytes),
        })
        .collect();
    let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
    let record = NewRecord {
        timestamp_ms: 5,
        key: key.map(str::as_bytes),
        value: value.map(str::as_bytes),
        headers: &headers,
    };
    builder.append(&record).expect("a small record");
    builder.build().expect("a small batch").expect("it has a record")
}

/// The same as a reader gets it, at offset 40.
pub(crate) fn record(key: Option<&str>, value: Option<&str>, headers: &[(&str, Option<&str>)]) -> Record {
    let batch = BatchView::parse(batch(key, value, headers)).expect("what was built");
    let mut records = batch.records(1 << 20).expect("what was built").into_iter();
    let mut record = records.next().expect("one record").expect("what was built");
    record.offset = Offset(40);
    record
}

/// A letter with key `k` and value `v`.
pub(crate) fn letter(reason: &str) -> DeadLetter {
    let record = record(Some("k"), Some("v"), &story(reason));
    DeadLetter::parse(PartitionIndex(2), &record).expect("a letter")
}
