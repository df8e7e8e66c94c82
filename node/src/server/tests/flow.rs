//! The order of answers, what happens without answers, drains, and peers that are slow.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::metadata::MetadataRequest;

use super::*;
use crate::telemetry::names;

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 2).await;
    let mut client = edge.client().await;
    let mut sent = Vec::new();
    for i in 0..300 {
        if i % 10 == 9 {
            sent.push((client.send(&MetadataRequest::default(), 9).await, None));
        } else {
            let value = format!("{i}");
            sent.push((
                client
                    .send(&produce(&topic, i % 2, batch(&[&value]), -1), 9)
                    .await,
                Some(i % 2),
            ));
        }
    }
    let mut next = [0, 0];
    for (id, partition) in sent {
        match partition {
            None => assert_eq!(client.receive::<MetadataRequest>(9).await.0, id),
            Some(partition) => {
                let (answered, response) = client.receive::<ProduceRequest>(9).await;
                let answer = one(response);
                let expected = &mut next[partition as usize];
                assert_eq!(
                    (answered, answer.error_code, answer.base_offset),
                    (id, 0, *expected)
                );
                *expected += 1;
            }
        }
    }
}

#[tokio::test]
async fn a_fetch_behind_a_produce_sees_it() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    client.send(&produce(&topic, 0, batch(&["mine"]), -1), 9).await;
    client
        .send(
            &FetchRequest {
                topics: vec![fetch_topic(&topic, &[0], 0)],
                ..fetch_now()
            },
            12,
        )
        .await;
    client.receive::<ProduceRequest>(9).await;
    let (_, response) = client.receive::<FetchRequest>(12).await;
    assert_eq!(values(&only(response)), [(0, "mine".to_owned())]);
}

#[tokio::test]
async fn without_acks_there_is_no_answer_and_a_failure_closes() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    for value in ["a", "b"] {
        client.send(&produce(&topic, 0, batch(&[value]), 0), 9).await;
    }
    // The next answer is that of the next request.
    assert_eq!(client.produce(&topic, batch(&["c"])).await.base_offset, 2);
    let nowhere = Topic {
        name: "nowhere".into(),
        ..(*topic).clone()
    };
    client.send(&produce(&nowhere, 0, batch(&["d"]), 0), 9).await;
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn half_a_stream_is_answered_to_its_end() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    client
        .send(&produce(&topic, 0, batch(&["last words"]), -1), 9)
        .await;
    let wait = FetchRequest {
        max_wait_ms: i32::MAX,
        topics: vec![fetch_topic(&topic, &[0], 1)],
        ..fetch_now()
    };
    client.send(&wait, 12).await;
    client.stream.writer.finish().await.unwrap();
    assert_eq!(one(client.receive::<ProduceRequest>(9).await.1).error_code, 0);
    // Nobody waits two weeks for a client that has hung up.
    assert!(values(&only(client.receive::<FetchRequest>(12).await.1)).is_empty());
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn a_drain_answers_what_was_asked_and_closes() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut idle = edge.client().await;
    let session = edge.quic.session(None).await.unwrap();
    let mut waiting = Client::over(session.open_stream().await.unwrap());
    idle.call(&MetadataRequest::default(), 9).await;
    let wait = FetchRequest {
        max_wait_ms: i32::MAX,
        topics: vec![fetch_topic(&topic, &[0], 0)],
        ..fetch_now()
    };
    waiting.send(&wait, 12).await;
    settle().await;
    assert_eq!(edge.server.connections(), 2);
    edge.server.drain(Duration::from_secs(30)).await;
    assert_eq!(edge.server.connections(), 0);
    assert!(values(&only(waiting.receive::<FetchRequest>(12).await.1)).is_empty());
    assert_eq!(waiting.frame().await, None);
    assert_eq!(idle.frame().await, None);
    assert!(edge.tcp.stream().await.is_err(), "nothing is accepted any more");
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_a_waiting_one_is_not() {
    let edge = Edge::with(&[("connections.max.idle.ms", "60000")]).await;
    let topic = edge.topic("t", 1).await;
    let (mut silent, mut waiting) = (edge.client().await, edge.client().await);
    silent.call(&MetadataRequest::default(), 9).await;
    let wait = FetchRequest {
        max_wait_ms: 90_000,
        topics: vec![fetch_topic(&topic, &[0], 0)],
        ..fetch_now()
    };
    waiting.send(&wait, 12).await;
    settle().await;
    edge.pass(Duration::from_secs(61)).await;
    assert_eq!(silent.frame().await, None);
    edge.pass(Duration::from_secs(30)).await;
    assert!(values(&only(waiting.receive::<FetchRequest>(12).await.1)).is_empty());
    assert_eq!(edge.services.metrics.total(&names::CONNECTIONS_IDLE_CLOSED), 1);
}

#[tokio::test]
async fn connections_have_a_limit() {
    let edge = Edge::with(&[("max.connections", "2")]).await;
    let (mut a, mut b) = (edge.client().await, edge.client().await);
    a.call(&MetadataRequest::default(), 9).await;
    b.call(&MetadataRequest::default(), 9).await;
    let mut c = edge.client().await;
    assert_eq!(c.frame().await, None);
    drop(a);
    settle().await;
    let mut d = edge.client().await;
    d.call(&MetadataRequest::default(), 9).await;
    assert_eq!(edge.services.metrics.total(&names::CONNECTIONS_REFUSED), 1);
}

/// A client that asks and does not read is not worked for beyond a bound, and disturbs nobody.
#[tokio::test]
async fn a_slow_reader_is_not_read_from() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut producer = edge.client().await;
    let big = "x".repeat(200_000);
    for _ in 0..5 {
        assert_eq!(producer.produce(&topic, batch(&[&big])).await.error_code, 0);
    }
    let slow = edge.client().await;
    let Client {
        stream: Stream { reader, mut writer },
        ..
    } = slow;
    let request = FetchRequest {
        topics: vec![fetch_topic(&topic, &[0], 0)],
        ..fetch_now()
    };
    let frame: Vec<u8> = encode_request(&request, 12, 1, None).unwrap().concat();
    let flood = async move {
        loop {
            writer.write_all(&frame).await.unwrap();
        }
    };
    let mut flood = std::pin::pin!(flood);
    for _ in 0..2_000 {
        assert!(futures_util::poll!(flood.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    let answered = edge
        .services
        .metrics
        .counter(&names::REQUESTS, &["Fetch"])
        .value();
    assert!(answered < 20, "{answered} fetches of a megabyte were worked on");
    assert_eq!(producer.produce(&topic, batch(&["fine"])).await.error_code, 0);
    drop(reader);
}

#[tokio::test]
async fn a_produce_waits_no_longer_than_its_client() {
    let edge = Edge::new().await;
    let topic = edge
        .topic_with(NewTopic {
            configs: BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]),
            ..NewTopic::named("t")
        })
        .await;
    let mut client = edge.client().await;
    let answer = client.produce(&topic, batch(&["a"])).await;
    assert_eq!(answer.error_code, ErrorCode::NOT_ENOUGH_REPLICAS.0);
    assert_eq!(
        one(client.call(&produce(&topic, 0, batch(&["a"]), 1), 9).await).error_code,
        0
    );
}

/// Real QUIC: many streams of one connection, each in its own order, and a drain that loses no answer.
#[tokio::test]
async fn quic_streams_are_served_side_by_side() {
    use crate::security::tls::{ALPN_KAFKA, Clients, NothingRevoked, ServerTls, Trust};
    use crate::security::{Authority, Identity};
    use crate::transport::dialer::Credentials;
    use crate::transport::{Dialer, quic};

    let edge = Edge::new().await;
    let topic = edge.topic("t", 8).await;
    let authority = Authority::create("lab", 1_790_000_000_000).unwrap();
    let hosts = ["127.0.0.1".to_owned()];
    let identity: Identity = authority
        .issue_node(1, &hosts, 1_790_000_000_000)
        .unwrap()
        .identity;
    let tls = ServerTls {
        identity,
        clients: Clients::ANYBODY,
        revocations: std::sync::Arc::new(NothingRevoked),
    };
    let net = &edge.services.sys.net;
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = quic::Listener::bind(net, address, &tls, &quic::Settings::default()).unwrap();
    let listener = Listener::Quic(listener);
    let target = listener.local_address().unwrap().to_string();
    edge.server.listen(listener);
    let dialer = Dialer::new(net.clone(), quic::Settings::default());
    let trust = Trust::Authorities(vec![authority.certificate().clone()]);
    let session = dialer
        .dial(
            &target,
            &Credentials {
                trust,
                identity: None,
                alpn: ALPN_KAFKA,
            },
        )
        .await
        .unwrap();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::over(session.open_stream().await.unwrap()));
    }
    let big = "x".repeat(100_000);
    for _ in 0..10 {
        for (index, client) in (0..).zip(&mut clients) {
            client.send(&produce(&topic, index, batch(&[&big]), -1), 9).await;
        }
    }
    // What was read is answered, though the node stops.
    let answers = async {
        for client in &mut clients {
            for offset in 0..10 {
                assert_eq!(
                    one(client.receive::<ProduceRequest>(9).await.1).base_offset,
                    offset
                );
            }
        }
        edge.server.drain(Duration::from_secs(30)).await;
    };
    let closed = session.closed();
    let (_, reason) = tokio::join!(answers, closed);
    assert!(reason.to_string().contains("code 1"), "{reason}");
}
