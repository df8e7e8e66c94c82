//! Records there and back, in every version; sessions, waits, sequences.

use headwater_protocol::kafka::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use headwater_protocol::kafka::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use headwater_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic};
use headwater_protocol::kafka::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use headwater_protocol::kafka::{ApiKey, ErrorCode, Message};
use headwater_protocol::primitives::{Reader, Str, Uuid};

use super::*;

#[tokio::test]
async fn records_come_back_in_every_version() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    let mut expected = Vec::new();
    for version in 3..=13 {
        let value = format!("v{version}");
        let mut request = produce(&topic, 0, batch(&[&value, "x"]), -1);
        if version >= 13 {
            request.topic_data[0].name = Str::default();
            request.topic_data[0].topic_id = topic.id.into();
        }
        let answer = one(client.call(&request, version).await);
        assert_eq!(
            (answer.error_code, answer.base_offset),
            (0, expected.len() as i64),
            "version {version}"
        );
        assert_eq!(answer.log_start_offset, if version >= 5 { 0 } else { -1 });
        expected.push((expected.len() as i64, value));
        expected.push((expected.len() as i64, "x".to_owned()));
    }
    for version in 4..=18 {
        for session_epoch in [-1, 0] {
            let mut fetch = fetch_topic(&topic, &[0], 0);
            if version >= 13 {
                fetch.topic = Str::default();
                fetch.topic_id = topic.id.into();
            }
            let session_epoch = if version >= 7 { session_epoch } else { -1 };
            let request = FetchRequest {
                topics: vec![fetch],
                session_epoch,
                ..fetch_now()
            };
            let response = client.call(&request, version).await;
            assert_eq!(response.session_id != 0, session_epoch == 0, "version {version}");
            let data = only(response);
            assert_eq!((data.error_code, data.high_watermark), (0, expected.len() as i64));
            assert_eq!(values(&data), expected, "version {version}");
        }
    }
}

#[tokio::test]
async fn what_is_served_is_told_to_clients_of_any_age() {
    let edge = Edge::new().await;
    let mut client = edge.client().await;
    let software = ApiVersionsRequest {
        client_software_name: Str::from_static("test"),
        client_software_version: Str::from_static("1.0"),
        ..ApiVersionsRequest::default()
    };
    for version in 0..=4 {
        let request = if version >= 3 {
            software.clone()
        } else {
            ApiVersionsRequest::default()
        };
        let response = client.call(&request, version).await;
        assert_eq!(response.error_code, 0);
        let keys: Vec<i16> = response.api_keys.iter().map(|range| range.api_key).collect();
        assert_eq!(
            keys,
            [
                0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 32,
                33, 35, 37, 42, 43, 44, 45, 46, 47, 55, 57, 60, 61, 64, 65, 66, 68, 69, 74, 75, 76, 77, 78,
                79, 80, 81, 83, 84, 85, 86, 87, 90, 91, 92
            ]
        );
    }
    // A version of the future: the answer is one that everybody reads, and the connection goes on.
    let mut front = Vec::new();
    front.extend_from_slice(&(ApiKey::ApiVersions as i16).to_be_bytes());
    front.extend_from_slice(&99i16.to_be_bytes());
    front.extend_from_slice(&77i32.to_be_bytes());
    front.extend_from_slice(b"whatever comes then");
    client.send_bytes(&framed(&front)).await;
    let mut reader = Reader::new(client.frame().await.unwrap());
    assert_eq!(reader.i32("correlation_id").unwrap(), 77);
    let response = ApiVersionsResponse::decode(&mut reader, 0).unwrap();
    assert_eq!(response.error_code, ErrorCode::UNSUPPORTED_VERSION.0);
    assert!(response.api_keys.len() > 10);
    assert_eq!(client.call(&software, 3).await.error_code, 0);
}

fn ask(name: &str) -> MetadataRequest {
    let topic = MetadataRequestTopic {
        name: Some(Str::from(name)),
        ..MetadataRequestTopic::default()
    };
    MetadataRequest {
        topics: Some(vec![topic]),
        ..MetadataRequest::default()
    }
}

#[tokio::test]
async fn metadata_creates_what_is_asked_for_and_names_the_right_address() {
    let edge = Edge::new().await;
    let mut client = edge.client().await;
    let created = client.call(&ask("new"), 12).await;
    assert_eq!(
        (created.topics[0].error_code, created.topics[0].partitions.len()),
        (0, 1)
    );
    assert_eq!(
        (created.brokers[0].host.as_str(), created.brokers[0].port),
        ("tcp.example", 9092)
    );
    assert_eq!(created.brokers[0].rack.as_deref(), Some("shelf"));
    let topic = edge.services.view.topic("new").unwrap();
    assert_eq!(client.produce(&topic, batch(&["at once"])).await.error_code, 0);

    let mut over_tls = Client::over(edge.tls.stream().await.unwrap());
    let told = over_tls.call(&ask("new"), 12).await;
    assert_eq!(
        (told.brokers[0].host.as_str(), told.brokers[0].port),
        ("tls.example", 9093)
    );

    let session = edge.quic.session(None).await.unwrap();
    let mut over_quic = Client::over(session.open_stream().await.unwrap());
    for version in 0..=13 {
        let response = over_quic.call(&ask("new"), version).await;
        assert_eq!(
            (response.brokers[0].host.as_str(), response.brokers[0].port),
            ("quic.example", 9094)
        );
        assert_eq!(response.topics[0].partitions[0].leader_id, 1);
    }
    // Java's client asks by id with an empty name, others with none.
    for name in [None, Some(Str::default())] {
        let by_id = MetadataRequestTopic {
            name,
            topic_id: topic.id.into(),
            ..Default::default()
        };
        let mut by_id = MetadataRequest {
            topics: Some(vec![by_id]),
            ..MetadataRequest::default()
        };
        let found = client.call(&by_id, 12).await.topics.remove(0);
        assert_eq!((found.error_code, found.name.as_deref()), (0, Some("new")));
        by_id.topics.as_mut().unwrap()[0].topic_id = Uuid([9; 16]);
        for (version, name) in [(10, Some("")), (12, None)] {
            let missed = client.call(&by_id, version).await.topics.remove(0);
            assert_eq!(
                (missed.error_code, missed.name.as_deref()),
                (ErrorCode::UNKNOWN_TOPIC_ID.0, name)
            );
        }
    }

    let no = MetadataRequest {
        allow_auto_topic_creation: false,
        ..ask("other")
    };
    let refused = client.call(&no, 12).await;
    assert_eq!(
        refused.topics[0].error_code,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0
    );
    let bad = client.call(&ask("no/slash"), 12).await;
    assert_eq!(bad.topics[0].error_code, ErrorCode::INVALID_TOPIC_EXCEPTION.0);
    let all = client
        .call(
            &MetadataRequest {
                topics: None,
                ..ask("")
            },
            12,
        )
        .await;
    assert_eq!(all.topics.len(), 1);
}

#[tokio::test]
async fn nothing_is_created_where_the_node_says_so() {
    let edge = Edge::with(&[("auto.create.topics.enable", "false")]).await;
    let mut client = edge.client().await;
    let refused = client.call(&ask("new"), 9).await;
    assert_eq!(
        refused.topics[0].error_code,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0
    );
    assert!(edge.services.view.topic("new").is_none());
}

/// A fetch that may wait.
fn waiting(topic: &Topic, partitions: &[i32], offset: i64, min_bytes: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 500,
        min_bytes,
        topics: vec![fetch_topic(topic, partitions, offset)],
        ..fetch_now()
    }
}

#[tokio::test]
async fn a_fetch_waits_until_there_is_something() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 3).await;
    let (mut consumer, mut producer) = (edge.client().await, edge.client().await);
    consumer.send(&waiting(&topic, &[0, 1, 2], 0, 1), 12).await;
    settle().await;
    one(producer.call(&produce(&topic, 2, batch(&["news"]), -1), 9).await);
    let (_, response) = consumer.receive::<FetchRequest>(12).await;
    let data = &response.responses[0].partitions[2];
    assert_eq!(values(data), [(0, "news".to_owned())]);
    assert_eq!(response.responses[0].partitions.len(), 3);
}

/// Found by the simulator, seed 123: it went round and round, and gave no other connection a turn.
#[tokio::test]
async fn a_fetch_does_not_wait_for_a_partition_that_is_gone() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    edge.services.registry.stop(Duration::from_secs(1)).await;
    settle().await;
    let wait = FetchRequest {
        max_wait_ms: i32::MAX,
        topics: vec![fetch_topic(&topic, &[0], 0)],
        ..fetch_now()
    };
    let data = only(client.call(&wait, 12).await);
    assert_eq!(data.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
}

#[tokio::test]
async fn a_fetch_waits_for_enough_or_for_its_time() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 2).await;
    let (mut consumer, mut producer) = (edge.client().await, edge.client().await);
    let one_batch = batch(&["0123456789"]).len() as i32;
    consumer
        .send(&waiting(&topic, &[0, 1], 0, one_batch * 3), 12)
        .await;
    settle().await;
    for index in [0, 1, 0] {
        one(producer
            .call(&produce(&topic, index, batch(&["0123456789"]), -1), 9)
            .await);
        settle().await;
    }
    let (_, response) = consumer.receive::<FetchRequest>(12).await;
    let counts: Vec<usize> = response.responses[0]
        .partitions
        .iter()
        .map(|data| values(data).len())
        .collect();
    assert_eq!(counts, [2, 1]);

    consumer
        .send(&waiting(&topic, &[0, 1], 1, one_batch * 3), 12)
        .await;
    settle().await;
    edge.pass(Duration::from_millis(499)).await;
    assert!(futures_util::poll!(std::pin::pin!(consumer.frame())).is_pending());
    edge.pass(Duration::from_millis(1)).await;
    let (_, response) = consumer.receive::<FetchRequest>(12).await;
    let counts: Vec<usize> = response.responses[0]
        .partitions
        .iter()
        .map(|data| values(data).len())
        .collect();
    assert_eq!(counts, [1, 0]);
}

#[tokio::test]
async fn a_session_tells_only_what_is_new() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 4).await;
    let (mut consumer, mut producer) = (edge.client().await, edge.client().await);
    let begin = FetchRequest {
        topics: vec![fetch_topic(&topic, &[0, 1, 2, 3], 0)],
        session_epoch: 0,
        ..fetch_now()
    };
    let full = consumer.call(&begin, 12).await;
    assert_eq!(full.responses[0].partitions.len(), 4);
    let next = |session_epoch| FetchRequest {
        session_id: full.session_id,
        session_epoch,
        ..fetch_now()
    };
    let quiet = consumer.call(&next(1), 12).await;
    assert_eq!(
        (quiet.error_code, quiet.responses.len(), quiet.session_id),
        (0, 0, full.session_id)
    );

    one(producer.call(&produce(&topic, 2, batch(&["a"]), -1), 9).await);
    let news = consumer.call(&next(2), 12).await;
    assert_eq!(news.responses[0].partitions.len(), 1);
    assert_eq!(news.responses[0].partitions[0].partition_index, 2);
    // The client moves on in one partition and says nothing of the others.
    let moved = FetchRequest {
        topics: vec![fetch_topic(&topic, &[2], 1)],
        ..next(3)
    };
    assert_eq!(consumer.call(&moved, 12).await.responses.len(), 0);
    let stale = consumer.call(&next(3), 12).await;
    assert_eq!(stale.error_code, ErrorCode::INVALID_FETCH_SESSION_EPOCH.0);
    let unknown = FetchRequest {
        session_id: full.session_id ^ 1,
        ..next(4)
    };
    assert_eq!(
        consumer.call(&unknown, 12).await.error_code,
        ErrorCode::FETCH_SESSION_ID_NOT_FOUND.0
    );
}

#[tokio::test]
async fn a_session_comes_back_to_what_had_no_room() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 2).await;
    let mut client = edge.client().await;
    let value = "x".repeat(300);
    for index in [0, 1] {
        one(client
            .call(&produce(&topic, index, batch(&[&value]), -1), 9)
            .await);
    }
    // Room for one of the two, and a little more.
    let begin = FetchRequest {
        topics: vec![fetch_topic(&topic, &[0, 1], 0)],
        session_epoch: 0,
        max_bytes: 500,
        ..fetch_now()
    };
    let full = client.call(&begin, 12).await;
    let counts = full.responses[0].partitions.iter().map(|data| values(data).len());
    assert_eq!(counts.collect::<Vec<_>>(), [1, 0]);
    // Nothing moves any more, and the client names only what it has read.
    let next = FetchRequest {
        session_id: full.session_id,
        session_epoch: 1,
        topics: vec![fetch_topic(&topic, &[0], 1)],
        ..begin
    };
    let news = client.call(&next, 12).await;
    assert_eq!(news.responses.len(), 1, "the other one is not forgotten");
    assert_eq!(values(&news.responses[0].partitions[0]), [(0, value)]);
}

#[tokio::test]
async fn every_fetch_size_gets_on_and_no_record_is_lost() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    let mut expected = Vec::new();
    for i in 0..20i64 {
        let value = "x".repeat(usize::try_from(i * 37 % 300).unwrap());
        client.produce(&topic, batch(&[&value, "y"])).await;
        expected.extend([(2 * i, value), (2 * i + 1, "y".to_owned())]);
    }
    for max_bytes in [1, 60, 61, 100, 333, 1000, 100_000] {
        let (mut offset, mut found) = (0, Vec::new());
        while found.len() < expected.len() {
            let mut fetch = fetch_topic(&topic, &[0], offset);
            fetch.partitions[0].partition_max_bytes = max_bytes;
            let data = only(
                client
                    .call(
                        &FetchRequest {
                            topics: vec![fetch],
                            ..fetch_now()
                        },
                        12,
                    )
                    .await,
            );
            let new = values(&data);
            assert!(!new.is_empty(), "stuck at {offset} with {max_bytes} bytes");
            found.extend(new.into_iter().filter(|(at, _)| *at >= offset));
            offset = found.last().unwrap().0 + 1;
        }
        assert_eq!(found, expected, "with {max_bytes} bytes");
    }
}

#[tokio::test]
async fn a_repeated_batch_is_answered_as_the_first_time() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    let request = headwater_protocol::kafka::init_producer_id::InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    let mut ids = Vec::new();
    for version in 0..=5 {
        let given = client.call(&request, version).await;
        assert_eq!((given.error_code, given.producer_epoch), (0, 0));
        ids.push(given.producer_id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6);
    let id = ids[0];
    let first = client.produce(&topic, batch_of(&["a", "b"], stamp(id, 0))).await;
    let second = client.produce(&topic, batch_of(&["c"], stamp(id, 2))).await;
    assert_eq!((first.base_offset, second.base_offset), (0, 2));
    let again = client.produce(&topic, batch_of(&["a", "b"], stamp(id, 0))).await;
    assert_eq!((again.error_code, again.base_offset), (0, 0));
    let gap = client.produce(&topic, batch_of(&["d"], stamp(id, 9))).await;
    assert_eq!(gap.error_code, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER.0);
    assert_eq!(values(&client.fetch(&topic, 0).await).len(), 3);
}

#[tokio::test]
async fn out_of_sequence_is_said_by_who_is_sure_to_lead() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    client.produce(&topic, batch_of(&["a"], stamp(7, 0))).await;
    let gap = client.produce(&topic, batch_of(&["c"], stamp(7, 2))).await;
    assert_eq!(gap.error_code, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER.0);
    edge.controlling.cancel();
    edge.controlling.ended().await;
    let gap = client.produce(&topic, batch_of(&["c"], stamp(7, 2))).await;
    assert_eq!(gap.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
    let next = client.produce(&topic, batch_of(&["b"], stamp(7, 1))).await;
    assert_eq!((next.error_code, next.base_offset), (0, 1));
}

#[tokio::test]
async fn offsets_are_found_by_time_and_by_epoch() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    client.produce(&topic, batch(&["a", "b", "c"])).await;
    for (timestamp, offset) in [
        (-1, 3),
        (-2, 0),
        (-4, 0),
        (-5, -1),
        (-6, -1),
        (1_700_000_000_000, 0),
        (1_700_000_000_001, -1),
    ] {
        for version in [1, 4, 7, 11] {
            let partition = ListOffsetsPartition {
                partition_index: 0,
                current_leader_epoch: -1,
                timestamp,
                ..Default::default()
            };
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![ListOffsetsTopic {
                    name: Str::from_static("t"),
                    partitions: vec![partition],
                    ..Default::default()
                }],
                ..Default::default()
            };
            let response = client.call(&request, version).await;
            let found = &response.topics[0].partitions[0];
            assert_eq!(
                (found.error_code, found.offset),
                (0, offset),
                "{timestamp} in version {version}"
            );
        }
    }
    for (current, code, end) in [(-1, 0, 3), (99, ErrorCode::UNKNOWN_LEADER_EPOCH.0, -1)] {
        let partition = OffsetForLeaderPartition {
            partition: 0,
            current_leader_epoch: current,
            leader_epoch: topic.partitions[0].leader_epoch.value(),
            ..Default::default()
        };
        let request = OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: Str::from_static("t"),
                partitions: vec![partition],
                ..Default::default()
            }],
            ..Default::default()
        };
        for version in 2..=4 {
            let response = client.call(&request, version).await;
            let found = &response.topics[0].partitions[0];
            assert_eq!(
                (found.error_code, found.end_offset),
                (code, end),
                "version {version}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    let stranger = Topic {
        name: "nowhere".into(),
        ..(*topic).clone()
    };
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0;
    assert_eq!(client.produce(&stranger, batch(&["a"])).await.error_code, unknown);
    assert_eq!(
        one(client.call(&produce(&topic, 9, batch(&["a"]), -1), 9).await).error_code,
        unknown
    );
    assert_eq!(client.fetch(&stranger, 0).await.error_code, unknown);
    assert_eq!(
        client.fetch(&topic, 5).await.error_code,
        ErrorCode::OFFSET_OUT_OF_RANGE.0
    );
    let mut by_id = produce(&topic, 0, batch(&["a"]), -1);
    by_id.topic_data[0].name = Str::default();
    by_id.topic_data[0].topic_id = Uuid::from_u128(7);
    assert_eq!(
        one(client.call(&by_id, 13).await).error_code,
        ErrorCode::UNKNOWN_TOPIC_ID.0
    );
    let acks = one(client.call(&produce(&topic, 0, batch(&["a"]), 5), 9).await);
    assert_eq!(acks.error_code, ErrorCode::INVALID_REQUIRED_ACKS.0);
    let mut broken = batch(&["a"]).to_vec();
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(
        client.produce(&topic, broken.into()).await.error_code,
        ErrorCode::CORRUPT_MESSAGE.0
    );
    let mut epoch = fetch_topic(&topic, &[0], 0);
    epoch.partitions[0].current_leader_epoch = 99;
    let data = only(
        client
            .call(
                &FetchRequest {
                    topics: vec![epoch],
                    ..fetch_now()
                },
                12,
            )
            .await,
    );
    assert_eq!(data.error_code, ErrorCode::UNKNOWN_LEADER_EPOCH.0);
}
