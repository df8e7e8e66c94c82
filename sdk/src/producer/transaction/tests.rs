//! Transactions against the scripted broker: in both flows all of one is seen or nothing, whatever fails in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::kafka::ApiKey;
use proptest::prelude::*;

use super::*;
use crate::client::Client;
use crate::producer::{ProducerConfig, Record};
use crate::testing::{Action, Broker, Stage};

const TOPIC: &str = "t";
const ID: &str = "id";
const FLOWS: [Flow; 2] = [Flow::Named, Flow::Implied];

async fn over(broker: Broker, flow: Flow) -> Broker {
    broker.topic(TOPIC, 2);
    broker.lock().transaction_version = match flow {
        Flow::Named => 0,
        Flow::Implied => 2,
    };
    broker
}

async fn broker(flow: Flow) -> Broker {
    over(Broker::tcp().await, flow).await
}

async fn producer(broker: &Broker) -> (Client, Producer) {
    let client = Client::connect(broker.config()).await.unwrap();
    let config = ProducerConfig {
        transactional_id: Some(ID.to_owned()),
        ..ProducerConfig::default()
    };
    let producer = client.producer(config).unwrap();
    (client, producer)
}

async fn send(producer: &Producer, partition: i32, value: &str) -> Result<(), SendError> {
    let record = Record::value(value).partition(PartitionIndex(partition));
    producer.send(TOPIC, record).await.map(drop)
}

fn committed(broker: &Broker, partition: usize) -> Vec<String> {
    broker.lock().topics[TOPIC][partition].committed_values()
}

fn offsets(offset: i64) -> BTreeMap<TopicPartition, Offset> {
    let partition = TopicPartition {
        topic: Arc::from("from"),
        partition: PartitionIndex(0),
    };
    BTreeMap::from([(partition, Offset(offset))])
}

fn committed_offset(broker: &Broker) -> Option<i64> {
    let place = ("g".to_owned(), "from".to_owned(), 0);
    broker.lock().offsets.get(&place).copied()
}

fn stage(broker: &Broker) -> Stage {
    broker.lock().transactions[ID].stage
}

#[tokio::test]
async fn what_is_committed_is_seen_and_what_is_aborted_is_not() {
    for flow in FLOWS {
        for broker in [Broker::tcp().await, Broker::quic().await] {
            let broker = over(broker, flow).await;
            let (client, producer) = producer(&broker).await;
            for round in 0..4 {
                producer.begin().await.unwrap();
                for partition in 0..2 {
                    send(&producer, partition, &round.to_string()).await.unwrap();
                }
                producer
                    .send_offsets(&GroupMetadata::of_group("g"), &offsets(round))
                    .await
                    .unwrap();
                match round % 2 {
                    0 => producer.commit().await.unwrap(),
                    _ => producer.abort().await.unwrap(),
                }
                assert_eq!(committed_offset(&broker), Some(round / 2 * 2));
            }
            for partition in 0..2 {
                assert_eq!(committed(&broker, partition), ["0", "2"]);
            }
            let is_named = flow == Flow::Named;
            assert_eq!(broker.requests(ApiKey::AddPartitionsToTxn) > 0, is_named);
            assert_eq!(broker.requests(ApiKey::AddOffsetsToTxn) > 0, is_named);
            let newest = |key: ApiKey| broker.lock().newest[&(key as i16)];
            assert_eq!(newest(ApiKey::Produce) < 12, is_named);
            assert_eq!(newest(ApiKey::EndTxn) < 5, is_named);
            assert_eq!(newest(ApiKey::TxnOffsetCommit) < 5, is_named);
            producer.close().await;
            client.close().await;
        }
    }
}

#[tokio::test]
async fn a_transaction_into_which_nothing_came_costs_no_request() {
    for flow in FLOWS {
        let broker = broker(flow).await;
        let (_client, producer) = producer(&broker).await;
        for _ in 0..2 {
            producer.begin().await.unwrap();
            producer.commit().await.unwrap();
            producer.begin().await.unwrap();
            producer.abort().await.unwrap();
        }
        assert_eq!(broker.requests(ApiKey::EndTxn), 0);
    }
}

#[tokio::test]
async fn calls_in_a_wrong_order_are_refused_and_change_nothing() {
    let broker = broker(Flow::Implied).await;
    let (client, producer) = producer(&broker).await;
    let misused = |result: Result<(), TransactionError>| {
        assert!(matches!(result, Err(TransactionError::Misuse(_))), "{result:?}");
    };
    misused(producer.commit().await);
    misused(producer.abort().await);
    let outside = send(&producer, 0, "outside").await;
    let is_misuse = |error: &SendError| {
        matches!(error, SendError::Transaction(TransactionError::Misuse(_))) && !error.maybe_written()
    };
    assert!(outside.as_ref().is_err_and(is_misuse), "{outside:?}");
    producer.begin().await.unwrap();
    misused(producer.begin().await);
    send(&producer, 0, "inside").await.unwrap();
    producer.commit().await.unwrap();
    let outside = send(&producer, 0, "outside").await;
    assert!(outside.as_ref().is_err_and(is_misuse), "{outside:?}");
    assert_eq!(committed(&broker, 0), ["inside"]);

    let plain = client.producer(ProducerConfig::default()).unwrap();
    misused(plain.begin().await);
    let refused = client.producer(ProducerConfig {
        transactional_id: Some(ID.to_owned()),
        idempotent: false,
        ..ProducerConfig::default()
    });
    assert!(refused.is_err());
}

#[tokio::test]
async fn who_is_fenced_is_told_for_good() {
    for flow in FLOWS {
        let broker = broker(flow).await;
        let (_client, first) = producer(&broker).await;
        first.begin().await.unwrap();
        send(&first, 0, "first").await.unwrap();
        first.flush().await;
        let (_other, second) = producer(&broker).await;
        second.begin().await.unwrap();
        send(&second, 0, "second").await.unwrap();
        second.commit().await.unwrap();

        let _ = send(&first, 1, "late").await;
        let fenced = first.commit().await.unwrap_err();
        assert!(fenced.is_fenced() && fenced.is_fatal(), "{flow:?}: {fenced}");
        for again in [first.begin().await, first.abort().await, first.commit().await] {
            assert!(
                again.as_ref().is_err_and(TransactionError::is_fenced),
                "{again:?}"
            );
        }
        let sent = send(&first, 0, "never").await;
        assert!(
            matches!(&sent, Err(SendError::Transaction(error)) if error.is_fenced()),
            "{sent:?}"
        );
        assert_eq!(committed(&broker, 0), ["second"]);
        assert!(committed(&broker, 1).is_empty());
        first.close().await;
    }
}

#[tokio::test]
async fn after_an_error_that_asks_for_it_an_abort_helps() {
    for flow in FLOWS {
        for code in [
            ErrorCode::TRANSACTION_ABORTABLE,
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
            ErrorCode::UNKNOWN_PRODUCER_ID,
            ErrorCode::INVALID_TXN_STATE,
            ErrorCode::POLICY_VIOLATION,
        ] {
            let broker = broker(flow).await;
            let (_client, producer) = producer(&broker).await;
            producer.begin().await.unwrap();
            send(&producer, 0, "before").await.unwrap();
            producer.flush().await;
            broker.script(move |key| match key {
                ApiKey::Produce => Action::Refuse(code.0),
                _ => Action::Serve,
            });
            send(&producer, 0, "refused").await.unwrap();
            let failed = producer.commit().await.unwrap_err();
            assert!(
                failed.must_abort() && !failed.is_fatal(),
                "{flow:?} {code}: {failed}"
            );
            assert!(failed.to_string().contains(&code.to_string()), "{failed}");
            let sent = send(&producer, 0, "too late").await.unwrap_err();
            assert!(matches!(sent, SendError::Transaction(error) if error.must_abort()));
            broker.script(|_| Action::Serve);
            producer.abort().await.unwrap();
            producer.begin().await.unwrap();
            send(&producer, 0, "after").await.unwrap();
            producer.commit().await.unwrap();
            assert_eq!(committed(&broker, 0), ["after"], "{flow:?} {code}");
        }
    }
}

#[tokio::test]
async fn offsets_of_another_generation_are_not_committed() {
    for flow in FLOWS {
        let broker = broker(flow).await;
        let (_client, producer) = producer(&broker).await;
        let stale = GroupMetadata {
            generation: 7,
            member_id: "m".to_owned(),
            ..GroupMetadata::of_group("g")
        };
        producer.begin().await.unwrap();
        send(&producer, 0, "x").await.unwrap();
        let refused = producer.send_offsets(&stale, &offsets(5)).await.unwrap_err();
        assert!(refused.must_abort(), "{refused}");
        assert!(producer.commit().await.unwrap_err().must_abort());
        producer.abort().await.unwrap();
        assert_eq!(committed_offset(&broker), None);
        assert!(committed(&broker, 0).is_empty());
    }
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    for flow in FLOWS {
        for key in [
            ApiKey::InitProducerId,
            ApiKey::FindCoordinator,
            ApiKey::AddPartitionsToTxn,
            ApiKey::AddOffsetsToTxn,
            ApiKey::TxnOffsetCommit,
            ApiKey::EndTxn,
        ] {
            let broker = broker(flow).await;
            let mut turn = 0;
            broker.script(move |asked| {
                turn += usize::from(asked == key);
                match turn {
                    _ if asked != key => Action::Serve,
                    1 => Action::Refuse(ErrorCode::COORDINATOR_NOT_AVAILABLE.0),
                    2 => Action::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS.0),
                    // An answer that is lost: it is done, and asked for again.
                    3 => Action::DropAfter,
                    4 if key != ApiKey::FindCoordinator => {
                        Action::Refuse(ErrorCode::CONCURRENT_TRANSACTIONS.0)
                    }
                    _ => Action::Serve,
                }
            });
            let (_client, producer) = producer(&broker).await;
            for round in 0..2 {
                producer.begin().await.unwrap();
                send(&producer, 0, &round.to_string()).await.unwrap();
                producer
                    .send_offsets(&GroupMetadata::of_group("g"), &offsets(round))
                    .await
                    .unwrap();
                producer.commit().await.unwrap();
            }
            assert_eq!(committed(&broker, 0), ["0", "1"], "{flow:?} {key:?}");
            assert_eq!(committed_offset(&broker), Some(1));
        }
    }
}

#[tokio::test]
async fn what_is_open_at_the_end_is_aborted() {
    for flow in FLOWS {
        for is_closed in [true, false] {
            let broker = broker(flow).await;
            let (client, producer) = producer(&broker).await;
            producer.begin().await.unwrap();
            send(&producer, 0, "x").await.unwrap();
            producer.flush().await;
            assert_eq!(stage(&broker), Stage::Ongoing);
            match is_closed {
                true => producer.close().await,
                false => drop(producer),
            }
            while stage(&broker) != Stage::Aborted {
                let changed = broker.changed.notified();
                if stage(&broker) != Stage::Aborted {
                    changed.await;
                }
            }
            client.close().await;
        }
    }
}

/// Rounds of records that are committed or aborted while the broker drops, refuses and forgets: what was committed is there
/// once and in order, and nothing else is.
async fn storm(flow: Flow, seed: u64, rounds: &[(bool, usize)]) {
    let broker = broker(flow).await;
    let mut turn = seed;
    broker.script(move |key| {
        turn = turn
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let chance = (turn >> 33) % 24;
        match (key, chance) {
            (ApiKey::ApiVersions | ApiKey::Metadata, _) => Action::Serve,
            (_, 0) => Action::DropBefore,
            (_, 1) => Action::DropAfter,
            (ApiKey::Produce, 2) => Action::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER.0),
            (ApiKey::Produce, 3) => Action::Refuse(ErrorCode::TRANSACTION_ABORTABLE.0),
            (ApiKey::Produce, _) => Action::Serve,
            (_, 2) => Action::Refuse(ErrorCode::NOT_COORDINATOR.0),
            (_, 3) if key != ApiKey::FindCoordinator => Action::Refuse(ErrorCode::CONCURRENT_TRANSACTIONS.0),
            _ => Action::Serve,
        }
    });
    let (client, producer) = producer(&broker).await;
    let mut expected: [Vec<String>; 2] = Default::default();
    let mut number = 0;
    for (commits, count) in rounds {
        producer.begin().await.unwrap();
        let mut sent: [Vec<String>; 2] = Default::default();
        let mut failed = None;
        for index in 0..*count {
            number += 1;
            let value = number.to_string();
            match send(&producer, (index % 2) as i32, &value).await {
                Ok(()) => sent[index % 2].push(value),
                Err(SendError::Transaction(error)) => failed = Some(error),
                Err(other) => panic!("{other}"),
            }
        }
        let ended = match (commits, failed) {
            (true, None) => producer.commit().await,
            (true, Some(error)) => Err(error),
            (false, _) => producer.abort().await,
        };
        match ended {
            Ok(()) if *commits => {
                for (all, sent) in expected.iter_mut().zip(sent) {
                    all.extend(sent);
                }
            }
            Ok(()) => {}
            Err(error) => {
                assert!(error.must_abort(), "{error}");
                producer.abort().await.unwrap();
            }
        }
    }
    for (partition, expected) in expected.iter().enumerate() {
        assert_eq!(&committed(&broker, partition), expected, "{flow:?}, seed {seed}");
    }
    producer.close().await;
    client.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn faults_show_no_part_of_a_transaction(
        seed: u64,
        rounds in prop::collection::vec((any::<bool>(), 0usize..40), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for flow in FLOWS {
            runtime.block_on(storm(flow, seed, &rounds));
        }
    }
}
