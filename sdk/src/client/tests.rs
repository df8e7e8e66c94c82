//! The client against the scripted broker: finding it, losing it, and over which transport.

use std::time::Duration;

use headwater_protocol::kafka::ApiKey;

use super::*;
use crate::admin::NewTopic;
use crate::config::{Config, Trust};
use crate::testing::{Action, Broker};

#[tokio::test]
async fn finds_the_cluster_over_either_transport() {
    for broker in [Broker::tcp().await, Broker::quic().await] {
        broker.topic("t", 3);
        let client = Client::connect(broker.config()).await.unwrap();
        assert_eq!(client.topic("t").await.unwrap().partitions.len(), 3);
        assert_eq!(client.cluster().cluster_id.as_deref(), Some("test"));
        client.close().await;
    }
}

#[tokio::test]
async fn an_unknown_topic_is_said_to_be_unknown() {
    let broker = Broker::tcp().await;
    let client = Client::connect(broker.config()).await.unwrap();
    assert!(matches!(
        client.topic("nowhere").await,
        Err(Error::UnknownTopic(_))
    ));
    client
        .admin()
        .create_topic(&NewTopic::new("nowhere", 2))
        .await
        .unwrap();
    assert_eq!(client.topic("nowhere").await.unwrap().partitions.len(), 2);
    let again = client
        .admin()
        .create_topic(&NewTopic::new("nowhere", 2))
        .await
        .unwrap_err();
    assert_eq!(
        again.code(),
        Some(headwater_protocol::kafka::ErrorCode::TOPIC_ALREADY_EXISTS)
    );
}

#[tokio::test]
async fn tcp_takes_over_when_nothing_answers_on_quic() {
    // A UDP port where packets vanish: bound, never read.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let broker = Broker::tcp().await;
    let list = format!("quic://{},{}", silent.local_addr().unwrap(), broker.address());
    let config = Config::new(&list).unwrap().with_trust(Trust::SkipVerification);
    let head_start = config.quic_head_start;
    let before = tokio::time::Instant::now();
    let client = Client::connect(config).await.unwrap();
    let took = before.elapsed();
    assert_eq!(client.transport(), Transport::Tcp);
    assert!(took >= head_start && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn tcp_takes_over_when_quic_is_lost_and_is_remembered() {
    let (quic, tcp) = (Broker::quic().await, Broker::tcp().await);
    tcp.topic("t", 2);
    let list = format!("{},{}", quic.address(), tcp.address());
    let config = Config::new(&list).unwrap().with_trust(Trust::SkipVerification);
    let client = Client::connect(config).await.unwrap();
    assert_eq!(client.transport(), Transport::Quic);
    drop(quic);
    // Found anew by whoever needs it; nothing tells the application.
    while client.topic("t").await.is_err() {}
    assert_eq!(client.transport(), Transport::Tcp);
    let connections = tcp.lock().connections;
    client.refresh().await.unwrap();
    assert_eq!(tcp.lock().connections, connections);
}

#[tokio::test]
async fn quic_wins_when_both_answer() {
    let (quic, tcp) = (Broker::quic().await, Broker::tcp().await);
    let list = format!("{},{}", tcp.address(), quic.address());
    let config = Config::new(&list).unwrap().with_trust(Trust::SkipVerification);
    let client = Client::connect(config).await.unwrap();
    assert_eq!(client.transport(), Transport::Quic);
    assert_eq!(tcp.lock().connections, 0, "TCP was not even tried");
}

#[tokio::test]
async fn a_lost_connection_is_replaced() {
    let broker = Broker::tcp().await;
    broker.topic("t", 1);
    let client = Client::connect(broker.config()).await.unwrap();
    broker.script(|key| {
        if key == ApiKey::Metadata {
            Action::DropBefore
        } else {
            Action::Serve
        }
    });
    assert!(matches!(client.refresh().await, Err(Error::Unreachable(_))));
    broker.script(|_| Action::Serve);
    client.refresh().await.unwrap();
    client.topic("t").await.unwrap();
}

#[tokio::test]
async fn one_request_serves_all_who_ask_at_once() {
    let broker = Broker::tcp().await;
    let client = Client::connect(broker.config()).await.unwrap();
    let before = broker.requests(ApiKey::Metadata);
    let all = (0..50).map(|_| client.refresh());
    for result in futures_util::future::join_all(all).await {
        result.unwrap();
    }
    assert!(broker.requests(ApiKey::Metadata) - before <= 2);
}

#[tokio::test]
async fn requests_go_on_after_the_local_address_has_changed() {
    let broker = Broker::quic().await;
    broker.topic("t", 1);
    let client = Client::connect(broker.config()).await.unwrap();
    let before = client.local_quic_address().unwrap();
    for _ in 0..3 {
        client.rebind().unwrap();
        client.refresh().await.unwrap();
    }
    assert_ne!(client.local_quic_address().unwrap(), before);
    assert_eq!(
        broker.lock().connections,
        1,
        "the connection moved, none was added"
    );
}

#[tokio::test]
async fn a_resumed_connection_sends_harmless_requests_early() {
    let broker = Broker::quic().await;
    broker.topic("t", 1);
    let mut config = broker.config();
    config.quic.early_data = true;
    let client = Client::connect(config).await.unwrap();
    // The ticket arrives after the handshake; a request makes sure it has.
    client.refresh().await.unwrap();
    let cut = client.inner.core.pool.live_control().unwrap();
    client.inner.core.pool.cut_sessions();
    cut.closed().await;
    client.refresh().await.unwrap();
    assert_eq!(broker.lock().connections, 2);
    assert!(
        client.inner.core.pool.resumed_early(),
        "the second connection did not wait for its handshake"
    );
    // A change waits for the handshake, and then passes.
    client
        .admin()
        .create_topic(&NewTopic::new("late", 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn closing_ends_every_task_and_every_later_call() {
    let broker = Broker::tcp().await;
    let client = Client::connect(broker.config()).await.unwrap();
    let other = client.clone();
    client.close().await;
    assert!(matches!(other.refresh().await, Err(Error::Closed)));
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_named() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let Err(failure) = Client::connect(Config::new(&gone.to_string()).unwrap()).await else {
        panic!("nobody listens there");
    };
    assert!(failure.to_string().contains(&gone.to_string()), "{failure}");
}
