//! What goes in must come out at the guest's side: encoded buffers are read back by hand.

use headwater_protocol::record::{BatchBuilder, BatchOptions, Compression, HeaderRef, NewRecord};
use proptest::prelude::*;

use super::super::bytes::Reader;
use super::*;

/// A batch of records with these values, at this base offset.
fn batch(base_offset: i64, values: &[&[u8]], compression: Compression) -> BatchView {
    let options = BatchOptions {
        base_offset: Offset(base_offset),
        ..BatchOptions::compressed(compression)
    };
    let mut builder = BatchBuilder::new(options);
    for (index, value) in values.iter().enumerate() {
        let headers = [HeaderRef {
            key: "h",
            value: None,
        }];
        let headers = if index % 2 == 0 { &headers[..] } else { &[] };
        let record = NewRecord {
            timestamp_ms: 1_000 + index as i64,
            key: None,
            value: Some(value),
            headers,
        };
        builder.append(&record).unwrap();
    }
    BatchView::parse(builder.build().unwrap().unwrap()).unwrap()
}

/// Reads an encoded buffer as a guest would: offset, timestamp and value of every record.
fn decode(buffer: &[u8]) -> Vec<(i64, i64, Vec<u8>)> {
    let mut reader = Reader::new(buffer);
    let mut left = reader.u32().unwrap();
    let mut found = Vec::new();
    while left > 0 {
        let (count, bytes) = (reader.u32().unwrap(), reader.u32().unwrap());
        assert!(count >= 1, "a section has a record");
        let flags = reader.u32().unwrap();
        let (base_offset, base_timestamp) = (reader.i64().unwrap(), reader.i64().unwrap());
        let mut records = reader.take(bytes as usize).unwrap();
        for _ in 0..count {
            let record = RecordRef::read(&mut records).unwrap();
            let delta = if flags & LOG_APPEND_TIME == 0 {
                record.timestamp_delta
            } else {
                0
            };
            let offset = base_offset + i64::from(record.offset_delta);
            found.push((offset, base_timestamp + delta, record.value.unwrap().to_vec()));
        }
        assert!(records.is_empty());
        left -= count;
    }
    assert_eq!(reader.left(), 0);
    found
}

fn encoded(input: &Input, range: Range<usize>) -> Vec<u8> {
    let mut out = vec![9; 5];
    input.encode(range.clone(), &mut out);
    assert_eq!(out.len(), input.encoded_bytes(range));
    out
}

#[test]
fn a_range_of_several_batches_is_one_buffer() {
    for compression in Compression::ALL {
        let mut input = Input::default();
        input
            .push(batch(10, &[b"a", b"b", b"c"], compression), Offset(0), 1 << 20)
            .unwrap();
        input
            .push(batch(20, &[b"d"], compression), Offset(0), 1 << 20)
            .unwrap();
        let expected = [
            (11, 1_001, b"b".to_vec()),
            (12, 1_002, b"c".to_vec()),
            (20, 1_000, b"d".to_vec()),
        ];
        assert_eq!(decode(&encoded(&input, 1..4)), expected);
        assert_eq!(input.record(3).offset, Offset(20));
        assert_eq!(input.record(0).record.headers.header_count(), 1);
    }
}

#[test]
fn records_before_the_position_are_left_out() {
    let mut input = Input::default();
    input
        .push(
            batch(10, &[b"a", b"b", b"c"], Compression::Lz4),
            Offset(12),
            1 << 20,
        )
        .unwrap();
    input
        .push(batch(13, &[b"d"], Compression::None), Offset(12), 1 << 20)
        .unwrap();
    assert_eq!(
        decode(&encoded(&input, 0..2)),
        [(12, 1_002, b"c".to_vec()), (13, 1_000, b"d".to_vec())]
    );
    let whole: Vec<_> = input
        .sections()
        .iter()
        .map(|section| section.is_whole(&section.records))
        .collect();
    assert_eq!(whole, [false, true]);
}

#[test]
fn time_of_append_goes_in_the_section() {
    let mut input = Input::default();
    let stamped = batch(0, &[b"a", b"b"], Compression::None).with_log_append_time(77);
    input.push(stamped, Offset(0), 1 << 20).unwrap();
    assert_eq!(
        decode(&encoded(&input, 0..2)),
        [(0, 77, b"a".to_vec()), (1, 77, b"b".to_vec())]
    );
    assert_eq!(input.record(1).timestamp_ms, 77);
}

#[test]
fn a_malformed_batch_adds_nothing_and_says_where_to_go_on() {
    let good = batch(10, &[b"a", b"b"], Compression::None);
    let mut bytes = good.bytes().to_vec();
    let last = bytes.len() - 1;
    // One header is claimed where there is none.
    bytes[last] = 2;
    let bad = BatchView::parse(bytes.into()).unwrap();
    let mut input = Input::default();
    let error = input.push(bad, Offset(0), 1 << 20).unwrap_err();
    assert_eq!((error.base_offset, error.next_offset), (Offset(10), Offset(12)));
    assert_eq!(input.len(), 0);
    let large = input
        .push(batch(0, &[&[0; 5_000]], Compression::Zstd), Offset(0), 1_000)
        .unwrap_err();
    assert_eq!(large.error, record::Error::TooLarge { limit: 1_000 });
}

proptest! {
    #[test]
    fn ranges_cover_everything_within_the_bounds(
        sizes in prop::collection::vec(prop::collection::vec(0usize..200, 1..20), 1..6),
        bytes_max in 1usize..2_000,
        records_max in 1usize..30,
    ) {
        let mut input = Input::default();
        let mut offset = 0;
        for sizes in &sizes {
            let values: Vec<_> = sizes.iter().map(|size| vec![7; *size]).collect();
            let values: Vec<_> = values.iter().map(Vec::as_slice).collect();
            input.push(batch(offset, &values, Compression::None), Offset(0), 1 << 20).unwrap();
            offset += values.len() as i64;
        }
        let ranges = input.ranges(bytes_max, records_max);
        let all: Vec<_> = ranges.iter().cloned().flatten().collect();
        prop_assert_eq!(all, (0..input.len()).collect::<Vec<_>>());
        for range in ranges {
            prop_assert!(range.len() <= records_max);
            prop_assert!(range.len() == 1 || input.encoded_bytes(range.clone()) <= bytes_max + 4);
            let offsets: Vec<_> = decode(&encoded(&input, range.clone())).iter().map(|it| it.0).collect();
            prop_assert_eq!(offsets, range.map(|index| index as i64).collect::<Vec<_>>());
        }
    }
}
