//! The consumer against the scripted broker: no gap and no repetition, whatever the limits and faults.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::kafka::{ApiKey, ErrorCode};
use headwater_protocol::record::{BatchBuilder, BatchOptions, Compression, NewRecord};
use proptest::prelude::*;

use super::*;
use crate::testing::{Action, Broker, PartitionLog};

const TOPIC: &str = "t";
const ZERO: PartitionIndex = PartitionIndex(0);

fn batch(first: usize, count: usize, size: usize, compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::compressed(compression));
    for number in first..first + count {
        let value = format!("{number:0size$}");
        let record = NewRecord {
            timestamp_ms: number as i64,
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
        };
        builder.append(&record).unwrap();
    }
    builder.build().unwrap().unwrap()
}

/// Appends batches of these record counts, numbered on, and returns how many records that makes.
fn fill(log: &mut PartitionLog, counts: &[usize], size: usize) -> usize {
    let mut first = log.end as usize;
    for (index, count) in counts.iter().enumerate() {
        let compression = if index % 3 == 2 {
            Compression::Lz4
        } else {
            Compression::None
        };
        log.append(batch(first, *count, size, compression)).unwrap();
        first += count;
    }
    first
}

async fn broker_with(counts: &[usize], size: usize) -> (Broker, usize) {
    let broker = Broker::tcp().await;
    broker.topic(TOPIC, 1);
    let total = fill(&mut broker.lock().topics.get_mut(TOPIC).unwrap()[0], counts, size);
    (broker, total)
}

async fn consumer(broker: &Broker, config: ConsumerConfig, start: Start) -> Consumer {
    let client = Client::connect(broker.config()).await.unwrap();
    let mut consumer = client.consumer(config).unwrap();
    consumer.assign_all(TOPIC, start).await.unwrap();
    consumer
}

/// Reads `count` records and checks that each partition's follow each other without gap or repetition.
async fn read(consumer: &mut Consumer, count: usize, next: &mut BTreeMap<PartitionIndex, i64>) {
    for _ in 0..count {
        let record = tokio::time::timeout(Duration::from_secs(10), consumer.next())
            .await
            .unwrap()
            .unwrap();
        let expected = next.entry(record.partition).or_insert(record.offset.0);
        assert_eq!(record.offset.0, *expected, "in partition {}", record.partition);
        let value = String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
        assert_eq!(
            value.parse::<i64>().unwrap(),
            record.offset.0,
            "the value that was written there"
        );
        *expected += 1;
        assert_eq!(
            consumer.position(TOPIC, record.partition),
            Some(Offset(*expected))
        );
    }
}

#[tokio::test]
async fn every_limit_from_one_byte_up_gives_every_record_once() {
    let counts = [1, 3, 1, 7, 2, 30, 1, 1, 4];
    let (broker, total) = broker_with(&counts, 9).await;
    for cut in [false, true] {
        broker.lock().cut_last_batch = cut;
        for bytes in (1..600).step_by(13).chain([61, 62, 100, 1000, 10_000]) {
            let config = ConsumerConfig {
                fetch_bytes_max: bytes,
                partition_fetch_bytes: bytes,
                prefetch_bytes: 4 * bytes,
                prefetch_partition_bytes: bytes,
                ..ConsumerConfig::default()
            };
            let mut consumer = consumer(&broker, config, Start::Earliest).await;
            let mut next = [(ZERO, 0)].into();
            read(&mut consumer, total, &mut next).await;
            assert!(
                consumer.try_next_batch().unwrap().is_none(),
                "nothing comes twice ({bytes} bytes)"
            );
            assert_eq!(consumer.lag(TOPIC, ZERO), Some(0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any layout, any limits, any starting offset, several partitions, with and without sessions, with
    /// lost connections in between.
    #[test]
    fn nothing_is_lost_or_repeated(
        layouts in prop::collection::vec(prop::collection::vec(1usize..20, 1..12), 1..4),
        (fetch, part, prefetch) in (1usize..5000, 1usize..3000, 1usize..20_000),
        sessions: bool,
        cut: bool,
        start in 0i64..5,
        fault_every in 2usize..40,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let broker = Broker::tcp().await;
            broker.topic(TOPIC, layouts.len());
            let mut total = 0;
            for (index, counts) in layouts.iter().enumerate() {
                let end = fill(&mut broker.lock().topics.get_mut(TOPIC).unwrap()[index], counts, 12);
                total += end.saturating_sub(start as usize);
            }
            broker.lock().fetch_sessions = sessions;
            broker.lock().cut_last_batch = cut;
            let mut requests = 0;
            broker.script(move |key| {
                requests += usize::from(key == ApiKey::Fetch);
                if key == ApiKey::Fetch && requests % fault_every == 0 { Action::DropBefore } else { Action::Serve }
            });
            let config = ConsumerConfig {
                fetch_bytes_max: fetch,
                partition_fetch_bytes: part,
                prefetch_bytes: prefetch,
                prefetch_partition_bytes: part,
                fetch_wait: Duration::from_millis(20),
                out_of_range: OutOfRange::Fail,
                ..ConsumerConfig::default()
            };
            let client = Client::connect(broker.config()).await.unwrap();
            let mut consumer = client.consumer(config).unwrap();
            let short = layouts.iter().enumerate().filter(|(_, counts)| counts.iter().sum::<usize>() > start as usize);
            let partitions: Vec<_> = short.map(|(index, _)| PartitionIndex(index as i32)).collect();
            consumer.assign(TOPIC, &partitions, Start::Offset(Offset(start))).await.unwrap();
            let mut next = partitions.iter().map(|partition| (*partition, start)).collect();
            read(&mut consumer, total, &mut next).await;
            assert!(consumer.try_next_batch().unwrap().is_none());
        });
    }
}

#[tokio::test]
async fn batches_and_records_can_be_taken_in_turn() {
    let (broker, total) = broker_with(&[5, 5, 5, 5], 3).await;
    let mut consumer = consumer(&broker, ConsumerConfig::default(), Start::Offset(Offset(2))).await;
    let mut next = [(ZERO, 2)].into();
    read(&mut consumer, 1, &mut next).await;
    let batch = consumer.next_batch().await.unwrap();
    assert_eq!(
        (batch.first_offset(), batch.next_offset()),
        (Offset(3), Offset(5))
    );
    let offsets: Vec<_> = batch
        .records()
        .unwrap()
        .iter()
        .map(|record| record.unwrap().offset.0)
        .collect();
    assert_eq!(offsets, [3, 4]);
    next.insert(ZERO, 5);
    read(&mut consumer, 7, &mut next).await;
    let rest = consumer.next_batch().await.unwrap();
    assert_eq!(
        (rest.first_offset(), rest.next_offset()),
        (Offset(12), Offset(15))
    );
    next.insert(ZERO, 15);
    read(&mut consumer, total - 15, &mut next).await;
}

#[tokio::test]
async fn seeks_by_offset_end_and_time() {
    let (broker, total) = broker_with(&[10, 10, 10], 4).await;
    let mut consumer = consumer(&broker, ConsumerConfig::default(), Start::Earliest).await;
    for (to, first) in [
        (Start::Offset(Offset(17)), 17),
        (Start::Earliest, 0),
        // The scripted broker finds the batch, not the record.
        (Start::Timestamp(15), 10),
        (Start::Offset(Offset(3)), 3),
    ] {
        consumer.seek(TOPIC, ZERO, to).await.unwrap();
        read(&mut consumer, 5, &mut [(ZERO, first)].into()).await;
    }
    consumer.seek(TOPIC, ZERO, Start::Latest).await.unwrap();
    let (record, ()) = tokio::join!(consumer.next(), async {
        // Only once the end was looked up may more be appended.
        while broker.requests(ApiKey::ListOffsets) < 4 {
            tokio::task::yield_now().await;
        }
        fill(&mut broker.lock().topics.get_mut(TOPIC).unwrap()[0], &[1], 4);
        broker.changed.notify_waiters();
    });
    assert_eq!(record.unwrap().offset, Offset(total as i64));
}

#[tokio::test]
async fn a_position_out_of_range_follows_the_policy() {
    let (broker, _) = broker_with(&[10, 10], 4).await;
    broker.lock().topics.get_mut(TOPIC).unwrap()[0].start = 10;
    let config = |out_of_range| ConsumerConfig {
        out_of_range,
        ..ConsumerConfig::default()
    };
    let mut earliest = consumer(&broker, config(OutOfRange::Earliest), Start::Offset(Offset(3))).await;
    assert_eq!(earliest.next().await.unwrap().offset, Offset(10));
    let mut failing = consumer(&broker, config(OutOfRange::Fail), Start::Offset(Offset(3))).await;
    let failure = failing.next().await.unwrap_err();
    assert!(
        matches!(
            failure,
            Error::OffsetOutOfRange {
                offset: Offset(3),
                ..
            }
        ),
        "{failure}"
    );
    failing
        .seek(TOPIC, ZERO, Start::Offset(Offset(15)))
        .await
        .unwrap();
    assert_eq!(failing.next().await.unwrap().offset, Offset(15));
}

#[tokio::test]
async fn a_paused_partition_keeps_its_place() {
    let broker = Broker::tcp().await;
    broker.topic(TOPIC, 2);
    for log in broker.lock().topics.get_mut(TOPIC).unwrap() {
        fill(log, &[3; 20], 4);
    }
    let mut consumer = consumer(&broker, ConsumerConfig::default(), Start::Earliest).await;
    let mut next = [(ZERO, 0), (PartitionIndex(1), 0)].into();
    read(&mut consumer, 10, &mut next).await;
    consumer.pause(TOPIC, ZERO).await.unwrap();
    let paused_at = consumer.position(TOPIC, ZERO);
    let left = 60 - next[&PartitionIndex(1)] as usize;
    read(&mut consumer, left, &mut next).await;
    assert_eq!(consumer.position(TOPIC, ZERO), paused_at);
    consumer.resume(TOPIC, ZERO).await.unwrap();
    let left = 60 - next[&ZERO] as usize;
    read(&mut consumer, left, &mut next).await;
}

#[tokio::test]
async fn what_nobody_consumes_is_not_fetched_without_end() {
    let (broker, _) = broker_with(&[10; 400], 1000).await;
    let config = ConsumerConfig {
        prefetch_bytes: 200_000,
        ..ConsumerConfig::default()
    };
    let mut consumer = consumer(&broker, config, Start::Earliest).await;
    let first = consumer.next_batch().await.unwrap();
    // The fetcher stops by itself: once no fetch is under way, the requests stay as they are.
    let mut before = 0;
    while before != broker.requests(ApiKey::Fetch) {
        before = broker.requests(ApiKey::Fetch);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let held: usize = 200_000 / first.bytes().len();
    assert!(
        before <= held + 2,
        "{before} fetches of at least one batch each for room of {held}"
    );
    read(&mut consumer, 3990, &mut [(ZERO, 10)].into()).await;
}

#[tokio::test]
async fn a_corrupt_batch_is_told_after_all_before_it() {
    let (broker, _) = broker_with(&[4, 4, 4], 4).await;
    {
        let mut state = broker.lock();
        let log = &mut state.topics.get_mut(TOPIC).unwrap()[0];
        let mut bytes = log.batches[1].bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        log.batches[1] = headwater_protocol::record::BatchView::parse(bytes.into()).unwrap();
    }
    let mut consumer = consumer(&broker, ConsumerConfig::default(), Start::Earliest).await;
    read(&mut consumer, 4, &mut [(ZERO, 0)].into()).await;
    let failure = consumer.next().await.unwrap_err();
    assert!(
        matches!(
            failure,
            Error::Corrupt {
                offset: Offset(4),
                ..
            }
        ),
        "{failure}"
    );
    consumer
        .seek(TOPIC, ZERO, Start::Offset(Offset(8)))
        .await
        .unwrap();
    read(&mut consumer, 4, &mut [(ZERO, 8)].into()).await;
}

#[tokio::test]
async fn errors_that_pass_are_waited_out() {
    let (broker, total) = broker_with(&[4, 4, 4], 4).await;
    let mut script = [
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::UNKNOWN_LEADER_EPOCH,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::KAFKA_STORAGE_ERROR,
    ]
    .into_iter();
    broker.script(move |key| match key {
        ApiKey::Fetch => script.next().map_or(Action::Serve, |code| Action::Refuse(code.0)),
        _ => Action::Serve,
    });
    let mut consumer = consumer(&broker, ConsumerConfig::default(), Start::Earliest).await;
    read(&mut consumer, total, &mut [(ZERO, 0)].into()).await;
}

#[tokio::test]
async fn a_refusal_for_good_is_told_once() {
    let (broker, total) = broker_with(&[4], 4).await;
    broker.script(|key| match key {
        ApiKey::Fetch => Action::Refuse(ErrorCode::TOPIC_AUTHORIZATION_FAILED.0),
        _ => Action::Serve,
    });
    let mut consumer = consumer(&broker, ConsumerConfig::default(), Start::Earliest).await;
    let failure = consumer.next().await.unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    broker.script(|_| Action::Serve);
    consumer.seek(TOPIC, ZERO, Start::Earliest).await.unwrap();
    read(&mut consumer, total, &mut [(ZERO, 0)].into()).await;
}

#[tokio::test]
async fn records_arrive_as_they_are_appended() {
    let broker = Broker::quic().await;
    broker.topic(TOPIC, 1);
    let mut consumer = consumer(&broker, ConsumerConfig::default(), Start::Earliest).await;
    let mut next = [(ZERO, 0)].into();
    for _ in 0..50 {
        fill(&mut broker.lock().topics.get_mut(TOPIC).unwrap()[0], &[2], 3);
        broker.changed.notify_waiters();
        read(&mut consumer, 2, &mut next).await;
    }
    consumer.close().await;
}

#[tokio::test]
async fn an_old_broker_without_sessions_and_ids_is_read_too() {
    let (broker, total) = broker_with(&[4, 5], 4).await;
    broker.lock().version_caps = [(ApiKey::Fetch as i16, 4), (ApiKey::Metadata as i16, 4)].into();
    let mut consumer = consumer(&broker, ConsumerConfig::default(), Start::Earliest).await;
    read(&mut consumer, total, &mut [(ZERO, 0)].into()).await;
}
