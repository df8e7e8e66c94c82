//! What is let in, what is not, and why.

use super::*;
use crate::config::BrokerConfig;
use crate::sys::Sys;
use headwater_protocol::ids::{Offset, ProducerEpoch, ProducerId};
use headwater_protocol::record::{BatchBuilder, BatchOptions, NewRecord, ProducerStamp};
use std::collections::BTreeMap;

const NOW: i64 = 1_700_000_000_000;

fn config(set: &[(&str, &str)]) -> TopicConfig {
    let set: BTreeMap<_, _> = set
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    TopicConfig::resolve(&set, &BrokerConfig::new(BTreeMap::new()))
}

fn batch(options: BatchOptions, records: &[(Option<&[u8]>, &[u8], i64)]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for (key, value, timestamp_ms) in records {
        let record = NewRecord {
            timestamp_ms: *timestamp_ms,
            key: *key,
            value: Some(value),
            headers: &[],
        };
        builder.append(&record).expect("it fits");
    }
    builder
        .build()
        .expect("it can be written")
        .expect("it has records")
}

fn plain() -> Bytes {
    batch(BatchOptions::PLAIN, &[(Some(b"k"), b"v", NOW), (None, b"w", NOW)])
}

async fn let_in(bytes: Bytes, set: &[(&str, &str)]) -> Result<Admitted, String> {
    let unfolding = Unfolding::new(Sys::simulated(1).tasks, 1);
    admit(bytes, Origin::Client, &config(set), NOW, &unfolding)
        .await
        .map_err(|error| error.to_string())
}

/// The batch with one byte changed and the checksum that goes with it.
fn forged(batch: &Bytes, at: usize, byte: u8) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[at] = byte;
    let crc = headwater_protocol::record::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

#[tokio::test]
async fn good_batches_pass_unchanged_with_any_codec() {
    let large = vec![b'x'; 100_000];
    for compression in Compression::ALL {
        for value in [&b"v"[..], &large] {
            let bytes = batch(BatchOptions::compressed(compression), &[(None, value, NOW)]);
            let admitted = let_in(bytes.clone(), &[]).await.expect("good");
            assert_eq!((admitted.bytes, admitted.append_time_ms), (bytes.len(), None));
            assert_eq!(admitted.batches[0].bytes(), &bytes, "{compression:?}");
        }
    }
}

#[tokio::test]
async fn bad_batches_are_refused_with_the_reason() {
    let bytes = plain();
    let mut flipped = bytes.to_vec();
    flipped[70] ^= 1;
    let transactional = BatchOptions {
        transactional: true,
        producer: ProducerStamp {
            id: ProducerId(1),
            epoch: ProducerEpoch(0),
            base_sequence: 0,
        },
        ..BatchOptions::PLAIN
    };
    // As a coordinator writes, and nobody else.
    let unnumbered = BatchOptions {
        producer: ProducerStamp {
            base_sequence: -1,
            ..transactional.producer
        },
        ..transactional
    };
    let idempotent = BatchOptions {
        transactional: false,
        ..transactional
    };
    let mut two = batch(idempotent, &[(None, b"v", NOW)]).to_vec();
    two.extend_from_slice(&plain());
    let zipped = batch(
        BatchOptions::compressed(Compression::Zstd),
        &[(None, &[b'x'; 5000], NOW)],
    );
    let middle = zipped.len() - 5;
    for (name, bytes, set, expected) in [
        ("empty", Bytes::new(), &[][..], "corrupt batch: there is no batch"),
        (
            "cut",
            bytes.slice(..bytes.len() - 1),
            &[],
            "corrupt batch: batch is cut short",
        ),
        (
            "flipped",
            Bytes::from(flipped),
            &[],
            "corrupt batch: batch checksum",
        ),
        (
            "old format",
            forged(&bytes, 16, 1),
            &[],
            "message format 1 is not supported",
        ),
        (
            "codec",
            forged(&bytes, 22, 7),
            &[],
            "compression 7 is not supported",
        ),
        (
            "count",
            forged(&bytes, 60, 1),
            &[],
            "corrupt batch: record batch is malformed",
        ),
        (
            "offset",
            forged(&bytes, bytes.len() - 5, 9),
            &[],
            "corrupt batch: ",
        ),
        (
            "large",
            bytes.clone(),
            &[("max.message.bytes", "70")],
            "batch of ",
        ),
        (
            "new",
            bytes.clone(),
            &[("message.timestamp.after.max.ms", "0")],
            "",
        ),
        (
            "keyless",
            bytes.clone(),
            &[("cleanup.policy", "compact")],
            "record 1 of the batch: a compacted topic needs keys",
        ),
        (
            "unnumbered",
            batch(unnumbered, &[(None, b"v", NOW)]),
            &[],
            "corrupt batch: record batch is malformed: an idempotent batch lacks its sequence or epoch",
        ),
        (
            "two batches",
            Bytes::from(two),
            &[],
            "record 0 of the batch: an idempotent producer sends one batch",
        ),
        (
            "damaged zstd",
            forged(&zipped, middle, 0xff),
            &[],
            "corrupt batch: ",
        ),
    ] {
        match let_in(bytes, set).await {
            Ok(_) => assert_eq!(expected, "", "{name} was let in"),
            Err(error) => assert!(
                error.starts_with(expected) && !expected.is_empty(),
                "{name}: {error}"
            ),
        }
    }
}

#[tokio::test]
async fn times_are_held_to_the_topics_limits_or_replaced() {
    let at = |ms| batch(BatchOptions::PLAIN, &[(None, b"a", ms), (None, b"b", NOW)]);
    let limits = [
        ("message.timestamp.before.max.ms", "1000"),
        ("message.timestamp.after.max.ms", "1000"),
    ];
    for (ms, good) in [
        (NOW, true),
        (NOW - 1000, true),
        (NOW - 1001, false),
        (NOW + 1000, true),
        (NOW + 1001, false),
    ] {
        assert_eq!(let_in(at(ms), &limits).await.is_ok(), good, "{}", ms - NOW);
    }
    let stamped = let_in(at(1), &[("message.timestamp.type", "LogAppendTime")])
        .await
        .expect("any time is good");
    assert_eq!(stamped.append_time_ms, Some(NOW));
    let header = stamped.batches[0].header();
    assert_eq!(header.max_timestamp, NOW);
    assert_eq!(header.timestamp_of(0), NOW);
    stamped.batches[0].check_crc().expect("the checksum is renewed");
}

#[test]
fn a_copy_keeps_offsets_that_rise() {
    let at = |offset| {
        batch(
            BatchOptions {
                base_offset: Offset(offset),
                // The source took each by itself; a copy takes what a read brings.
                producer: ProducerStamp {
                    id: ProducerId(1),
                    epoch: ProducerEpoch(0),
                    base_sequence: offset as i32,
                },
                ..BatchOptions::PLAIN
            },
            &[(None, b"v", NOW)],
        )
    };
    let join =
        |offsets: &[i64]| Bytes::from(offsets.iter().flat_map(|offset| at(*offset)).collect::<Vec<_>>());
    assert_eq!(admit_copy(join(&[5, 6, 9])).expect("rising").batches.len(), 3);
    assert_eq!(
        admit_copy(join(&[5, 5])).expect_err("touching"),
        AppendError::NotContiguous {
            expected: Offset(6),
            found: Offset(5)
        }
    );
}
