//! The producer against the scripted broker: order, once, memory, and what is told.

use std::sync::atomic::{AtomicUsize, Ordering};

use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::kafka::{ApiKey, ErrorCode};

use super::*;
use crate::testing::{Action, Broker};

const TOPIC: &str = "t";

async fn client(broker: &Broker) -> Client {
    Client::connect(broker.config()).await.unwrap()
}

fn values(broker: &Broker, partition: usize) -> Vec<String> {
    broker.lock().topics[TOPIC][partition].values()
}

async fn broker_with(partitions: usize) -> Broker {
    let broker = Broker::tcp().await;
    broker.topic(TOPIC, partitions);
    broker
}

#[tokio::test]
async fn a_record_is_written_and_its_place_told() {
    for broker in [Broker::tcp().await, Broker::quic().await] {
        broker.topic(TOPIC, 1);
        let client = client(&broker).await;
        let producer = client.producer(ProducerConfig::default()).unwrap();
        for number in 0..3i64 {
            let delivery = producer
                .send(TOPIC, Record::value(&format!("v{number}")).key("k"))
                .await
                .unwrap();
            let receipt = delivery.receipt().await.unwrap();
            assert_eq!(
                (receipt.partition, receipt.offset),
                (PartitionIndex(0), Some(Offset(number)))
            );
        }
        assert_eq!(values(&broker, 0), ["v0", "v1", "v2"]);
        producer.close().await;
        client.close().await;
    }
}

#[tokio::test]
async fn keys_go_where_kafka_puts_them() {
    let broker = broker_with(7).await;
    let producer = client(&broker).await.producer(ProducerConfig::default()).unwrap();
    let topic = producer.topic(TOPIC).await.unwrap();
    for key in ["a", "foobar", "21", "xyz"] {
        let receipt = topic
            .send(Record::value("v").key(key))
            .await
            .unwrap()
            .receipt()
            .await
            .unwrap();
        let expected = headwater_protocol::partitioner::partition_for_key(key.as_bytes(), 7);
        assert_eq!(receipt.partition.0 as u32, expected, "{key}");
    }
    let chosen = topic
        .send(Record::value("v").key("a").partition(PartitionIndex(5)))
        .await
        .unwrap();
    assert_eq!(chosen.receipt().await.unwrap().partition, PartitionIndex(5));
    let nowhere = topic
        .send(Record::value("v").partition(PartitionIndex(7)))
        .await
        .unwrap_err();
    assert!(matches!(nowhere, SendError::UnknownPartition { count: 7, .. }));
}

/// Many records over many partitions with every fault a broker has, each record once and in order.
async fn storm(broker: Broker, compression: Compression) {
    const RECORDS: usize = 4000;
    const PARTITIONS: usize = 5;
    broker.topic(TOPIC, PARTITIONS);
    let turn = AtomicUsize::new(0);
    broker.script(move |key| {
        if key != ApiKey::Produce {
            return Action::Serve;
        }
        match turn.fetch_add(1, Ordering::Relaxed) % 11 {
            3 => Action::DropAfter,
            5 => Action::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER.0),
            7 => Action::DropBefore,
            9 => Action::Refuse(ErrorCode::KAFKA_STORAGE_ERROR.0),
            _ => Action::Serve,
        }
    });
    let config = ProducerConfig {
        batch_bytes: 300,
        compression,
        ..ProducerConfig::default()
    };
    let producer = client(&broker).await.producer(config).unwrap();
    let topic = producer.topic(TOPIC).await.unwrap();
    let mut deliveries = Vec::new();
    for number in 0..RECORDS {
        let partition = PartitionIndex((number % PARTITIONS) as i32);
        let record = format!("{number}");
        deliveries.push(
            topic
                .send(Record::value(&record).partition(partition))
                .await
                .unwrap(),
        );
        if number % 97 == 0 {
            tokio::task::yield_now().await;
        }
    }
    producer.flush().await;
    for (number, delivery) in deliveries.iter().enumerate() {
        let receipt = delivery.try_receipt().expect("flushed").unwrap();
        if let Some(offset) = receipt.offset {
            assert_eq!(offset.0 as usize, number / PARTITIONS);
        }
    }
    for partition in 0..PARTITIONS {
        let expected: Vec<_> = (partition..RECORDS)
            .step_by(PARTITIONS)
            .map(|number| number.to_string())
            .collect();
        assert_eq!(values(&broker, partition), expected, "partition {partition}");
    }
    producer.close().await;
}

#[tokio::test]
async fn faults_lose_repeat_and_reorder_nothing_over_tcp() {
    storm(Broker::tcp().await, Compression::None).await;
}

#[tokio::test]
async fn faults_lose_repeat_and_reorder_nothing_over_quic() {
    storm(Broker::quic().await, Compression::None).await;
}

#[tokio::test]
async fn faults_lose_repeat_and_reorder_nothing_when_compressed() {
    storm(Broker::tcp().await, Compression::Lz4).await;
}

#[tokio::test]
async fn every_codec_is_written() {
    let broker = broker_with(1).await;
    let client = client(&broker).await;
    let long = "abcdefgh".repeat(5000);
    for compression in Compression::ALL {
        let producer = client
            .producer(ProducerConfig {
                compression,
                ..ProducerConfig::default()
            })
            .unwrap();
        producer
            .send(TOPIC, Record::value(&long))
            .await
            .unwrap()
            .receipt()
            .await
            .unwrap();
        let last = broker.lock().topics[TOPIC][0]
            .batches
            .last()
            .unwrap()
            .header()
            .compression();
        assert_eq!(last, compression);
    }
    assert!(values(&broker, 0).iter().all(|value| *value == long));
}

#[tokio::test]
async fn a_full_buffer_makes_senders_wait_and_refuses_those_who_will_not() {
    let broker = broker_with(1).await;
    broker.script(|key| {
        if key == ApiKey::Produce {
            Action::Hold
        } else {
            Action::Serve
        }
    });
    let config = ProducerConfig {
        buffer_memory: 64 << 10,
        batch_bytes: 8 << 10,
        ..ProducerConfig::default()
    };
    let producer = client(&broker).await.producer(config).unwrap();
    let topic = producer.topic(TOPIC).await.unwrap();
    let value = "x".repeat(1000);
    let mut taken = 0;
    let full = loop {
        match topic.try_send(Record::value(&value)) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, SendError::Full), "{full}");
    assert!((32..=64).contains(&taken), "{taken} records of 1 KB in 64 KiB");
    let waiting = topic.send(Record::value("last"));
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    broker.script(|_| Action::Serve);
    let delivery = tokio::select! {
        delivery = waiting => delivery.unwrap(),
        () = async { loop { broker.release(); tokio::task::yield_now().await; } } => unreachable!(),
    };
    delivery.receipt().await.unwrap();
    assert_eq!(values(&broker, 0).len(), taken + 1);
}

#[tokio::test]
async fn a_batch_too_large_for_the_broker_is_split() {
    let broker = broker_with(1).await;
    let mut refusals = 3;
    broker.script(move |key| match key {
        ApiKey::Produce if refusals > 0 => {
            refusals -= 1;
            Action::Refuse(ErrorCode::MESSAGE_TOO_LARGE.0)
        }
        _ => Action::Serve,
    });
    let producer = client(&broker).await.producer(ProducerConfig::default()).unwrap();
    let topic = producer.topic(TOPIC).await.unwrap();
    let texts: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    let records: Vec<_> = texts.iter().map(Record::value).collect();
    let deliveries = topic.send_all(&records).await.unwrap();
    deliveries.all().await.unwrap();
    assert_eq!(deliveries.record_count(), 20);
    assert_eq!(values(&broker, 0), texts);
    assert!(broker.lock().topics[TOPIC][0].batches.len() > 1);
}

#[tokio::test]
async fn a_broker_that_forgot_the_producer_is_told_anew() {
    let broker = broker_with(1).await;
    let producer = client(&broker).await.producer(ProducerConfig::default()).unwrap();
    for number in 0..6 {
        producer
            .send(TOPIC, Record::value(&number.to_string()))
            .await
            .unwrap()
            .receipt()
            .await
            .unwrap();
        broker.lock().topics.get_mut(TOPIC).unwrap()[0].forget_producers();
    }
    assert_eq!(values(&broker, 0), ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_refusal_for_good_is_told_and_the_next_record_passes() {
    let broker = broker_with(1).await;
    let producer = client(&broker).await.producer(ProducerConfig::default()).unwrap();
    broker.script(|key| match key {
        ApiKey::Produce => Action::Refuse(ErrorCode::POLICY_VIOLATION.0),
        _ => Action::Serve,
    });
    let refused = producer
        .send(TOPIC, Record::value("a"))
        .await
        .unwrap()
        .receipt()
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            SendError::Refused {
                code: ErrorCode::POLICY_VIOLATION,
                ..
            }
        ),
        "{refused}"
    );
    assert!(!refused.maybe_written());
    broker.script(|_| Action::Serve);
    producer
        .send(TOPIC, Record::value("b"))
        .await
        .unwrap()
        .receipt()
        .await
        .unwrap();
    assert_eq!(values(&broker, 0), ["b"]);
}

#[tokio::test]
async fn what_takes_too_long_says_so() {
    let broker = broker_with(1).await;
    broker.script(|key| match key {
        ApiKey::Produce => Action::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS.0),
        _ => Action::Serve,
    });
    let config = ProducerConfig {
        delivery_timeout: Duration::from_millis(100),
        ..ProducerConfig::default()
    };
    let producer = client(&broker).await.producer(config).unwrap();
    let error = producer
        .send(TOPIC, Record::value("a"))
        .await
        .unwrap()
        .receipt()
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("NOT_ENOUGH_REPLICAS"), "{error}");
}

#[tokio::test]
async fn a_broker_that_is_gone_makes_records_wait_then_fail() {
    let broker = broker_with(1).await;
    let client = client(&broker).await;
    let config = ProducerConfig {
        delivery_timeout: Duration::from_millis(150),
        ..ProducerConfig::default()
    };
    let producer = client.producer(config).unwrap();
    let topic = producer.topic(TOPIC).await.unwrap();
    topic
        .send(Record::value("a"))
        .await
        .unwrap()
        .receipt()
        .await
        .unwrap();
    drop(broker);
    let error = topic
        .send(Record::value("b"))
        .await
        .unwrap()
        .receipt()
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn dropping_a_producer_tells_every_delivery() {
    let broker = broker_with(1).await;
    broker.script(|key| {
        if key == ApiKey::Produce {
            Action::Hold
        } else {
            Action::Serve
        }
    });
    let producer = client(&broker).await.producer(ProducerConfig::default()).unwrap();
    let topic = producer.topic(TOPIC).await.unwrap();
    let deliveries = [
        topic.send(Record::value("a")).await.unwrap(),
        topic.send(Record::value("b")).await.unwrap(),
    ];
    drop(producer);
    for delivery in deliveries {
        assert!(matches!(delivery.receipt().await, Err(SendError::Closed)));
    }
    assert!(matches!(
        topic.send(Record::value("c")).await,
        Err(SendError::Closed)
    ));
}

#[tokio::test]
async fn a_record_beyond_the_limit_is_refused_at_once() {
    let broker = broker_with(1).await;
    let producer = client(&broker).await.producer(ProducerConfig::default()).unwrap();
    let huge = vec![0u8; 2 << 20];
    let error = producer.send(TOPIC, Record::value(&huge)).await.unwrap_err();
    assert!(matches!(error, SendError::TooLarge { .. }), "{error}");
    let large = vec![0u8; 900 << 10];
    producer
        .send(TOPIC, Record::value(&large))
        .await
        .unwrap()
        .receipt()
        .await
        .unwrap();
}

#[tokio::test]
async fn weaker_acks_are_honoured() {
    let broker = broker_with(1).await;
    let client = client(&broker).await;
    for acks in [Acks::Leader, Acks::None] {
        let producer = client
            .producer(ProducerConfig {
                acks,
                ..ProducerConfig::default()
            })
            .unwrap();
        let receipt = producer
            .send(TOPIC, Record::value("x"))
            .await
            .unwrap()
            .receipt()
            .await
            .unwrap();
        assert_eq!(receipt.offset.is_some(), acks == Acks::Leader);
        producer.close().await;
    }
    while values(&broker, 0).len() < 2 {
        broker.changed.notified().await;
    }
    assert_eq!(
        broker.lock().topics[TOPIC][0].batches[0].header().producer_id.0,
        -1,
        "no idempotence"
    );
}

#[tokio::test]
async fn a_deleted_topic_fails_its_records() {
    let broker = broker_with(1).await;
    let producer = client(&broker).await.producer(ProducerConfig::default()).unwrap();
    let topic = producer.topic(TOPIC).await.unwrap();
    topic
        .send(Record::value("a"))
        .await
        .unwrap()
        .receipt()
        .await
        .unwrap();
    broker.lock().topics.clear();
    let error = topic
        .send(Record::value("b"))
        .await
        .unwrap()
        .receipt()
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::UnknownTopic(_)), "{error}");
}

#[tokio::test]
async fn small_records_share_batches_while_one_is_under_way() {
    let broker = broker_with(1).await;
    let config = ProducerConfig {
        linger: Duration::from_secs(10),
        ..ProducerConfig::default()
    };
    let producer = client(&broker).await.producer(config).unwrap();
    let topic = producer.topic(TOPIC).await.unwrap();
    for number in 0..500 {
        topic.send(Record::value(&number.to_string())).await.unwrap();
        tokio::task::yield_now().await;
    }
    let before = door::now();
    producer.flush().await;
    assert!(
        door::now() - before < Duration::from_secs(5),
        "a flush does not linger"
    );
    assert_eq!(values(&broker, 0).len(), 500);
    let batches = broker.lock().topics[TOPIC][0].batches.len();
    assert!(batches < 250, "{batches} batches");
}
