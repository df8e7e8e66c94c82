//! Routing, limits and verbatim batches.

use headwater_protocol::ids::{ProducerEpoch, ProducerId};
use headwater_protocol::record::{Batches, NewRecord, ProducerStamp};

use super::*;

fn sink(name: &str, partitions: u32, message_bytes_max: usize) -> Sink {
    Sink {
        name: name.into(),
        partitions,
        message_bytes_max,
    }
}

fn outbox(sinks: &[Sink]) -> Outbox {
    Outbox::new(sinks.into(), PartitionIndex(5))
}

fn record<'a>(key: Option<&'a [u8]>, value: &'a [u8]) -> Outgoing<'a> {
    Outgoing {
        timestamp_ms: 9,
        key,
        value: Some(value),
        headers: Headers::NONE,
    }
}

/// The sizes in records of the batches of an append.
fn batches(append: &Append) -> Vec<i32> {
    Batches::new(append.batches.clone())
        .map(|batch| {
            let batch = batch.unwrap();
            batch.check_produced().unwrap();
            batch.check_records(1 << 20).unwrap();
            batch.header().record_count
        })
        .collect()
}

#[test]
fn a_key_goes_where_kafka_puts_it_and_no_key_keeps_the_number() {
    let outbox = outbox(&[
        sink("one", 1, 1_000),
        sink("three", 3, 1_000),
        sink("nine", 9, 1_000),
    ]);
    assert_eq!(outbox.route(0, Some(b"foobar")), 0);
    assert_eq!(outbox.route(1, None), 2);
    assert_eq!(outbox.route(2, None), 5);
    assert_eq!(
        outbox.route(2, Some(b"foobar")),
        (-790332482i32 as u32 & 0x7fff_ffff) % 9
    );
}

#[test]
fn output_is_cut_into_batches_the_sink_takes() {
    let mut outbox = outbox(&[sink("small", 1, 300), sink("large", 2, 1 << 20)]);
    for _ in 0..10 {
        outbox
            .push(0, &record(None, &[7; 60]), Compression::None)
            .unwrap();
        outbox
            .push(1, &record(Some(b"k"), &[7; 60]), Compression::Lz4)
            .unwrap();
    }
    let appends = outbox.finish().unwrap();
    assert_eq!(
        appends
            .iter()
            .map(|append| (append.sink, batches(append).iter().sum::<i32>()))
            .collect::<Vec<_>>(),
        [(0, 10), (1, 10)]
    );
    assert!(batches(&appends[0]).len() >= 4);
    assert!(Batches::new(appends[0].batches.clone()).all(|batch| batch.unwrap().bytes().len() <= 300));
    assert_eq!(batches(&appends[1]), [10]);
    assert!(outbox.finish().unwrap().is_empty());
}

#[test]
fn a_record_that_no_batch_holds_is_refused_alone() {
    let mut outbox = outbox(&[sink("small", 1, 300)]);
    outbox
        .push(0, &record(None, b"before"), Compression::None)
        .unwrap();
    let error = outbox
        .push(0, &record(None, &[7; 400]), Compression::None)
        .unwrap_err();
    assert!(
        matches!(error, UnsendableRecord::TooLarge { limit: 300, .. }),
        "{error}"
    );
    outbox
        .push(0, &record(None, &[7; 400]), Compression::Zstd)
        .expect("compressed it fits");
    outbox
        .push(0, &record(None, b"after"), Compression::None)
        .unwrap();
    let appends = outbox.finish().unwrap();
    assert_eq!(batches(&appends[0]), [1, 1, 1]);
}

fn batch(producer: ProducerStamp) -> BatchView {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer,
        transactional: false,
        ..BatchOptions::PLAIN
    });
    builder
        .append(&NewRecord {
            value: Some(b"v"),
            ..NewRecord::default()
        })
        .unwrap();
    BatchView::parse(builder.build().unwrap().unwrap()).unwrap()
}

#[test]
fn a_whole_batch_is_shared_unless_a_producer_stamped_it() {
    let mut outbox = outbox(&[sink("one", 1, 1_000)]);
    let plain = batch(ProducerStamp::NONE);
    outbox.push_batch(0, 0, &plain).unwrap();
    let shared = outbox.finish().unwrap().remove(0).batches;
    assert_eq!(shared.as_ptr(), plain.bytes().as_ptr());

    let stamped = batch(ProducerStamp {
        id: ProducerId(7),
        epoch: ProducerEpoch(1),
        base_sequence: 3,
    });
    outbox
        .push(0, &record(None, b"first"), Compression::None)
        .unwrap();
    outbox.push_batch(0, 0, &stamped).unwrap();
    outbox.push(0, &record(None, b"last"), Compression::None).unwrap();
    let append = outbox.finish().unwrap().remove(0);
    assert_eq!(batches(&append), [1, 1, 1]);
    let middle = Batches::new(append.batches).nth(1).unwrap().unwrap();
    assert!(!middle.header().is_idempotent());
    assert_eq!(middle.bytes()[HEADER_BYTES..], stamped.bytes()[HEADER_BYTES..]);
}

#[test]
fn what_was_discarded_is_gone() {
    let mut outbox = outbox(&[sink("one", 1, 1_000)]);
    outbox.push(0, &record(None, b"x"), Compression::None).unwrap();
    outbox.push_batch(0, 0, &batch(ProducerStamp::NONE)).unwrap();
    outbox.push(0, &record(None, b"x"), Compression::None).unwrap();
    outbox.discard();
    assert!(outbox.finish().unwrap().is_empty());
}
