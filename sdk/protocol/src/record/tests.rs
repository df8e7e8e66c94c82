//! Batches against another implementation's bytes, against themselves, and against damage.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

const LIMIT: usize = 16 << 20;

fn golden(codec: Compression) -> Bytes {
    Bytes::from_static(match codec {
        Compression::None => include_bytes!("../../golden/record/none.batch"),
        Compression::Gzip => include_bytes!("../../golden/record/gzip.batch"),
        Compression::Snappy => include_bytes!("../../golden/record/snappy.batch"),
        Compression::Lz4 => include_bytes!("../../golden/record/lz4.batch"),
        Compression::Zstd => include_bytes!("../../golden/record/zstd.batch"),
    })
}

/// The records golden/record/README.md describes.
fn golden_records() -> Vec<Plain> {
    (0..12usize)
        .map(|i| Plain {
            timestamp_ms: 1000 + 7 * i as i64,
            key: (i % 3 != 0).then(|| format!("key-{i}").into_bytes()),
            value: (i % 4 != 0).then(|| format!("the value of record {i}, ").repeat(3).into_bytes()),
            headers: if i % 5 == 0 {
                vec![(format!("h{i}"), Some(vec![b'x'; i])), ("n".into(), None)]
            } else {
                vec![]
            },
        })
        .collect()
}

#[derive(Debug, Clone, PartialEq)]
struct Plain {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn encode(options: BatchOptions, records: &[Plain]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| HeaderRef {
                key,
                value: value.as_deref(),
            })
            .collect();
        let new = NewRecord {
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        let before = builder.plain_bytes();
        let foretold = builder.record_bytes(&new);
        builder.append(&new).unwrap();
        assert_eq!(builder.plain_bytes() - before, foretold);
    }
    builder.build().unwrap().expect("there are records")
}

fn decode(bytes: Bytes) -> Result<Vec<Plain>, Error> {
    let batch = BatchView::parse(bytes)?;
    batch.check_crc()?;
    let records = batch.records(LIMIT)?;
    records.check()?;
    let mut out = Vec::new();
    for (record, owned) in records.iter().zip(records.clone()) {
        let (record, owned) = (record?, owned?);
        assert_eq!(record.key, owned.key.as_deref());
        assert_eq!(record.value, owned.value.as_deref());
        assert_eq!(record.headers.encoded(), owned.headers().encoded());
        let headers = record.headers.map(|header| {
            let header = header.unwrap();
            (
                String::from_utf8(header.key.to_vec()).unwrap(),
                header.value.map(<[u8]>::to_vec),
            )
        });
        out.push(Plain {
            timestamp_ms: batch.header().timestamp_of(record.timestamp_delta),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
        });
    }
    Ok(out)
}

fn golden_options(compression: Compression) -> BatchOptions {
    let producer = ProducerStamp {
        id: ProducerId(77),
        epoch: ProducerEpoch(3),
        base_sequence: 9,
    };
    BatchOptions {
        producer,
        ..BatchOptions::compressed(compression)
    }
}

#[test]
fn reads_what_another_client_wrote_with_every_codec() {
    for codec in Compression::ALL {
        let batch = BatchView::parse(golden(codec)).unwrap();
        batch.check_produced().unwrap();
        let header = batch.header();
        assert_eq!(header.compression(), codec);
        assert_eq!(header.producer_id, ProducerId(77));
        assert_eq!((header.base_sequence, header.last_sequence()), (9, 20));
        assert_eq!((header.base_timestamp, header.max_timestamp), (1000, 1077));
        assert_eq!(
            decode(golden(codec)).unwrap(),
            golden_records(),
            "{}",
            codec.name()
        );
    }
}

#[test]
fn writes_the_very_bytes_another_client_writes() {
    let ours = encode(golden_options(Compression::None), &golden_records());
    let mut theirs = BytesMut::from(golden(Compression::None).as_ref());
    // The leader epoch is the broker's business: that client says 0, we say unknown.
    BatchHeader::stamp(&mut theirs, Offset::ZERO, LeaderEpoch::NONE);
    assert_eq!(ours, theirs);
}

#[test]
fn a_raw_snappy_block_without_framing_is_read() {
    let plain = encode(golden_options(Compression::None), &golden_records());
    let raw = snap::raw::Encoder::new()
        .compress_vec(&plain[HEADER_BYTES..])
        .unwrap();
    let mut batch = BytesMut::from(&plain[..HEADER_BYTES]);
    batch.extend_from_slice(&raw);
    reseal(&mut batch, Compression::Snappy);
    assert_eq!(decode(batch.freeze()).unwrap(), golden_records());
}

/// Makes length, codec and checksum of a hand-made batch agree with its bytes.
fn reseal(batch: &mut [u8], codec: Compression) {
    let length = (batch.len() - LENGTH_PREFIX_BYTES) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] = (batch[22] & !7) | codec.code();
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

#[test]
fn a_small_batch_cannot_unfold_into_much_memory() {
    let zeros = vec![0u8; 4 << 20];
    let record = Plain {
        timestamp_ms: 0,
        key: None,
        value: Some(zeros),
        headers: vec![],
    };
    for codec in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let bomb = encode(BatchOptions::compressed(codec), std::slice::from_ref(&record));
        let batch = BatchView::parse(bomb).unwrap();
        assert_eq!(
            batch.records(1 << 20).unwrap_err(),
            Error::TooLarge { limit: 1 << 20 }
        );
        assert!(batch.records(5 << 20).is_ok());
    }
    // A block that claims 4 GB in five bytes.
    let mut claim = BytesMut::from(&golden(Compression::Snappy)[..HEADER_BYTES]);
    claim.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
    reseal(&mut claim, Compression::Snappy);
    let batch = BatchView::parse(claim.freeze()).unwrap();
    assert_eq!(
        batch.records(LIMIT).unwrap_err(),
        Error::TooLarge { limit: LIMIT }
    );
    assert!(matches!(
        batch.records(usize::MAX).unwrap_err(),
        Error::Corrupt { .. }
    ));
}

#[test]
fn legacy_message_sets_are_refused_by_name() {
    for magic in [0i8, 1] {
        let mut message = vec![0u8; 40];
        message[11] = 28;
        message[16] = magic as u8;
        let error = BatchHeader::parse(&message).unwrap_err();
        assert_eq!(error, Error::UnsupportedMagic { magic });
        assert!(error.to_string().contains("only record batches v2"));
    }
}

#[test]
fn stamping_leaves_the_checksum_right_and_copies_nothing_it_owns() {
    let bytes = encode(BatchOptions::PLAIN, &golden_records());
    let at = bytes.as_ptr();
    let batch = BatchView::parse(bytes).unwrap();
    let shared = batch.clone();
    let batch = batch
        .stamp(Offset(500), LeaderEpoch(7))
        .expect_err("somebody else holds the bytes");
    let head = batch.stamped_header(Offset(500), LeaderEpoch(7));
    drop(shared);
    let batch = batch
        .stamp(Offset(500), LeaderEpoch(7))
        .expect("nobody else holds the bytes");
    assert_eq!(batch.bytes().as_ptr(), at);
    assert_eq!(batch.bytes()[..HEADER_BYTES], head);
    assert_eq!(
        (batch.base_offset(), batch.next_offset()),
        (Offset(500), Offset(512))
    );
    assert_eq!(BatchHeader::parse(batch.bytes()).unwrap(), *batch.header());
    batch.check_produced().unwrap();
}

#[test]
fn log_append_time_replaces_every_timestamp() {
    let batch = BatchView::parse(encode(BatchOptions::PLAIN, &golden_records())).unwrap();
    let batch = batch.with_log_append_time(5_000_000);
    batch.check_crc().unwrap();
    assert_eq!(BatchHeader::parse(batch.bytes()).unwrap(), *batch.header());
    let times: Vec<_> = batch
        .records(LIMIT)
        .unwrap()
        .into_iter()
        .map(|r| r.unwrap().timestamp_ms)
        .collect();
    assert_eq!(times, vec![5_000_000; 12]);
}

#[test]
fn a_builder_goes_on_with_the_next_sequence() {
    let mut options = golden_options(Compression::None);
    options.producer.base_sequence = i32::MAX - 1;
    let mut builder = BatchBuilder::with_capacity(options, 4096);
    let mut sequences = Vec::new();
    for _ in 0..3 {
        assert!(builder.build().unwrap().is_none());
        for _ in 0..2 {
            builder
                .append(&NewRecord {
                    value: Some(b"v"),
                    ..NewRecord::default()
                })
                .unwrap();
        }
        let batch = builder.build().unwrap().unwrap();
        sequences.push(BatchView::parse(batch).unwrap().header().base_sequence);
    }
    assert_eq!(sequences, [i32::MAX - 1, 0, 2]);
}

#[test]
fn an_end_of_transaction_mark_comes_back() {
    for kind in [ControlKind::Abort, ControlKind::Commit] {
        let mark = EndTransaction {
            kind,
            coordinator_epoch: 12,
        };
        let mut builder = BatchBuilder::new(BatchOptions {
            control: true,
            ..BatchOptions::PLAIN
        });
        let (key, value) = (mark.key(), mark.value());
        builder
            .append(&NewRecord {
                key: Some(&key),
                value: Some(&value),
                ..NewRecord::default()
            })
            .unwrap();
        let batch = BatchView::parse(builder.build().unwrap().unwrap()).unwrap();
        assert!(batch.header().is_control());
        assert!(batch.check_produced().is_err());
        let records = batch.records(LIMIT).unwrap();
        let record = records.iter().next().unwrap().unwrap();
        assert_eq!(EndTransaction::parse(&record), Ok(Some(mark)));
    }
}

#[test]
fn compacted_batches_keep_their_offsets() {
    let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
    builder.skip_offsets(3);
    builder
        .append(&NewRecord {
            value: Some(b"kept"),
            ..NewRecord::default()
        })
        .unwrap();
    builder.skip_offsets(2);
    let batch = BatchView::parse(builder.build().unwrap().unwrap()).unwrap();
    assert_eq!(batch.next_offset(), Offset(6));
    batch.check_records(LIMIT).unwrap();
    assert!(batch.check_produced().is_err(), "a producer may not leave holes");
    let only = batch.records(LIMIT).unwrap().into_iter().next().unwrap().unwrap();
    assert_eq!(only.offset, Offset(3));
}

fn any_record() -> impl Strategy<Value = Plain> {
    let bytes = || option::of(vec(any::<u8>(), 0..200));
    (any::<i32>(), bytes(), bytes(), vec(("[a-z]{0,9}", bytes()), 0..4)).prop_map(
        |(time, key, value, headers)| Plain {
            timestamp_ms: i64::from(time),
            key,
            value,
            headers,
        },
    )
}

fn any_codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL.to_vec())
}

/// Everything a reader may ask of bytes; none of it may panic.
fn read_everything(bytes: Bytes) {
    for batch in Batches::new(bytes) {
        let Ok(batch) = batch else { continue };
        let _ = batch.check_produced();
        if let Ok(records) = batch.records(LIMIT) {
            for record in &records {
                let Ok(record) = record else { continue };
                record.headers.for_each(drop);
                let _ = EndTransaction::parse(&record);
            }
            records.into_iter().for_each(drop);
        }
    }
}

proptest! {
    #[test]
    fn records_come_back(records in vec(any_record(), 1..40), codec in any_codec()) {
        let bytes = encode(BatchOptions::compressed(codec), &records);
        prop_assert_eq!(decode(bytes).unwrap(), records);
    }

    #[test]
    fn headers_are_forwarded_unread(records in vec(any_record(), 1..10)) {
        let bytes = encode(BatchOptions::PLAIN, &records);
        let batch = BatchView::parse(bytes.clone()).unwrap();
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        for record in &batch.records(LIMIT).unwrap() {
            let record = record.unwrap();
            let time = batch.header().timestamp_of(record.timestamp_delta);
            builder.append_forwarded(time, record.key, record.value, record.headers).unwrap();
        }
        prop_assert_eq!(builder.build().unwrap().unwrap(), bytes);
    }

    #[test]
    fn many_batches_are_walked_and_a_cut_ends_the_walk(
        groups in vec(vec(any_record(), 1..5), 1..5),
        cut in 1usize..60,
    ) {
        let mut all = BytesMut::new();
        for group in &groups {
            all.extend_from_slice(&encode(BatchOptions::PLAIN, group));
        }
        let all = all.freeze();
        let whole: Result<Vec<_>, _> = Batches::new(all.clone()).collect();
        prop_assert_eq!(whole.unwrap().len(), groups.len());
        let mut walk = Batches::new(all.slice(..all.len() - cut)).skip(groups.len() - 1);
        let ended_with_cut = matches!(walk.next(), Some(Err(Error::Incomplete { .. })));
        prop_assert!(ended_with_cut);
        prop_assert!(walk.next().is_none());
    }

    #[test]
    fn damage_never_panics_and_never_passes_the_checksum(
        records in vec(any_record(), 1..8),
        codec in any_codec(),
        at in any::<proptest::sample::Index>(),
        flip in 1u8..,
    ) {
        let mut bytes = BytesMut::from(encode(BatchOptions::compressed(codec), &records).as_ref());
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let bytes = bytes.freeze();
        read_everything(bytes.clone());
        if at >= 17 {
            prop_assert!(BatchView::parse(bytes).and_then(|batch| batch.check_crc()).is_err());
        }
    }

    #[test]
    fn damage_behind_a_right_checksum_never_panics(
        records in vec(any_record(), 1..8),
        codec in any_codec(),
        claimed in any_codec(),
        spots in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = BytesMut::from(encode(BatchOptions::compressed(codec), &records).as_ref());
        let len = bytes.len();
        for (at, value) in spots {
            bytes[21 + at.index(len - 21)] = value;
        }
        let keep = if codec == Compression::None { claimed } else { codec };
        reseal(&mut bytes, keep);
        read_everything(bytes.freeze());
    }

    #[test]
    fn any_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        if magic && bytes.len() > 16 {
            bytes[16] = 2;
            bytes[8..11].fill(0);
        }
        read_everything(Bytes::from(bytes));
    }
}
