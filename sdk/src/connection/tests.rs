//! A connection against a broker that is played by hand, over a pipe in memory.

use std::time::Duration;

use bytes::BytesMut;
use headwater_protocol::frame::{self, Next};
use headwater_protocol::kafka::api_versions::{ApiVersion, ApiVersionsResponse};
use headwater_protocol::kafka::metadata::{MetadataRequest, MetadataResponse};
use headwater_protocol::kafka::{ApiKey, ErrorCode, Message, RequestPeek, encode_response};
use headwater_protocol::primitives::{Reader, Str};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{CallError, CloseReason, Connection, ConnectionOptions};

const SOON: Duration = Duration::from_secs(5);

/// The other end of the pipe.
struct Peer {
    stream: DuplexStream,
    buffer: BytesMut,
}

impl Peer {
    async fn request(&mut self) -> RequestPeek {
        loop {
            match frame::next(&mut self.buffer, 1 << 20).unwrap() {
                Next::Frame(frame) => return RequestPeek::new(&Reader::new(frame)).unwrap(),
                Next::Need(_) => assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0),
            }
        }
    }

    async fn answer<M: Message>(&mut self, body: &M, to: RequestPeek) {
        let key = ApiKey::try_from(to.key).unwrap();
        for piece in encode_response(body, key, to.version, to.correlation_id).unwrap() {
            self.stream.write_all(&piece).await.unwrap();
        }
    }

    async fn greet(&mut self, metadata_max: i16) {
        let asked = self.request().await;
        assert_eq!(asked.key, ApiKey::ApiVersions as i16);
        self.answer(&versions(metadata_max), asked).await;
    }
}

fn versions(metadata_max: i16) -> ApiVersionsResponse {
    let api = |api_key: ApiKey, max_version| ApiVersion {
        api_key: api_key as i16,
        max_version,
        ..Default::default()
    };
    ApiVersionsResponse {
        api_keys: vec![api(ApiKey::ApiVersions, 3), api(ApiKey::Metadata, metadata_max)],
        ..Default::default()
    }
}

async fn connected(options: ConnectionOptions) -> (Connection, Peer) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (reader, writer) = tokio::io::split(ours);
    let mut peer = Peer {
        stream: theirs,
        buffer: BytesMut::new(),
    };
    let (connection, ()) = tokio::join!(Connection::over(reader, writer, options), peer.greet(12));
    (connection.unwrap(), peer)
}

fn named(cluster: &str) -> MetadataResponse {
    MetadataResponse {
        cluster_id: Some(Str::from(cluster)),
        ..Default::default()
    }
}

#[tokio::test]
async fn answers_find_their_requests_in_order() {
    let (connection, mut peer) = connected(ConnectionOptions::default()).await;
    let request = MetadataRequest::default();
    let first = connection.submit(&request, SOON).await.unwrap();
    let second = connection.submit(&request, SOON).await.unwrap();
    let third = connection.submit(&request, SOON).await.unwrap();
    let asked = [peer.request().await, peer.request().await, peer.request().await];
    assert_eq!(asked[0].version, 12, "the newest version both speak");
    for (name, to) in ["a", "b", "c"].into_iter().zip(asked) {
        peer.answer(&named(name), to).await;
    }
    // Nobody waits for the second: its answer is dropped, not given to the third.
    drop(second);
    assert_eq!(first.wait().await.unwrap().cluster_id.as_deref(), Some("a"));
    assert_eq!(third.wait().await.unwrap().cluster_id.as_deref(), Some("c"));
    connection.shutdown().await;
}

#[tokio::test]
async fn an_old_broker_is_asked_again_in_its_own_version() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (reader, writer) = tokio::io::split(ours);
    let mut peer = Peer {
        stream: theirs,
        buffer: BytesMut::new(),
    };
    let old = async {
        let asked = peer.request().await;
        assert_eq!(asked.version, 4);
        let mut refusal = versions(1);
        refusal.error_code = ErrorCode::UNSUPPORTED_VERSION.0;
        peer.answer(&refusal, RequestPeek { version: 0, ..asked }).await;
        let asked = peer.request().await;
        assert_eq!(asked.version, 3);
        peer.answer(&versions(1), asked).await;
    };
    let (connection, ()) = tokio::join!(
        Connection::over(reader, writer, ConnectionOptions::default()),
        old
    );
    assert_eq!(connection.unwrap().version::<MetadataRequest>().unwrap(), 1);
}

#[tokio::test]
async fn an_api_the_broker_does_not_offer_fails_before_anything_is_sent() {
    let (connection, _peer) = connected(ConnectionOptions::default()).await;
    let request = headwater_protocol::kafka::fetch::FetchRequest::default();
    let failure = connection.call(&request, SOON).await.unwrap_err();
    assert!(
        matches!(
            failure,
            CallError::Unsupported {
                api: ApiKey::Fetch,
                ..
            }
        ),
        "{failure}"
    );
    assert!(connection.is_open());
}

#[tokio::test]
async fn a_late_answer_ends_the_connection_and_all_that_waits_on_it() {
    let (connection, _peer) = connected(ConnectionOptions::default()).await;
    let request = MetadataRequest::default();
    let patient = connection
        .submit(&request, Duration::from_secs(60))
        .await
        .unwrap();
    let hasty = connection
        .call(&request, Duration::from_millis(20))
        .await
        .unwrap_err();
    assert!(matches!(hasty, CallError::Timeout { .. }), "{hasty}");
    let failure = patient.wait().await.map(drop).unwrap_err();
    assert!(
        matches!(failure, CallError::Closed(CloseReason::Late { .. })),
        "{failure}"
    );
}

#[tokio::test]
async fn the_end_of_the_stream_fails_what_is_in_flight() {
    let (connection, peer) = connected(ConnectionOptions::default()).await;
    let waiting = connection
        .submit(&MetadataRequest::default(), SOON)
        .await
        .unwrap();
    drop(peer);
    let failure = waiting.wait().await.map(drop).unwrap_err();
    assert!(failure.is_retriable(), "{failure}");
    connection.closed().await;
    assert!(connection.call(&MetadataRequest::default(), SOON).await.is_err());
}

#[tokio::test]
async fn nonsense_ends_the_connection() {
    let check = async |bytes: &[u8], what: &str| {
        let (connection, mut peer) = connected(ConnectionOptions::default()).await;
        let waiting = connection
            .submit(&MetadataRequest::default(), SOON)
            .await
            .unwrap();
        peer.request().await;
        peer.stream.write_all(bytes).await.unwrap();
        assert!(waiting.wait().await.is_err(), "{what}");
        connection.closed().await;
    };
    check(&[0xff; 8], "a negative length").await;
    check(&[0x7f, 0xff, 0xff, 0xff], "a length beyond the limit").await;
    check(&[0, 0, 0, 2, 1, 2], "no room for a correlation id").await;
    check(&[0, 0, 0, 4, 0, 0, 0, 99], "an answer to another request").await;
    check(&[0, 0, 0, 5, 0, 0, 0, 1, 0], "a body that is cut short").await;
}

#[tokio::test]
async fn requests_wait_for_room() {
    let mut options = ConnectionOptions::default();
    options.limits.in_flight_bytes = 100;
    let (connection, mut peer) = connected(options).await;
    let request = MetadataRequest::default();
    let mut waiting = Vec::new();
    // Each takes some 25 bytes; the fifth or sixth finds no room.
    let full = loop {
        let submit = connection.submit(&request, SOON);
        match tokio::time::timeout(Duration::from_millis(50), submit).await {
            Ok(answer) => waiting.push(answer.unwrap()),
            Err(_) => break waiting.len(),
        }
    };
    assert!((2..=5).contains(&full), "{full} were in flight");
    let (answer, ()) = tokio::join!(connection.submit(&request, SOON), async {
        let asked = peer.request().await;
        peer.answer(&named("x"), asked).await;
    });
    assert!(answer.is_ok(), "an answer makes room");
}

#[tokio::test]
async fn large_answers_arrive_whole_whatever_the_pieces() {
    let (connection, mut peer) = connected(ConnectionOptions::default()).await;
    let long = "x".repeat(30_000);
    for piece in [1, 7, 4096] {
        let waiting = connection
            .submit(&MetadataRequest::default(), SOON)
            .await
            .unwrap();
        let asked = peer.request().await;
        let frame = encode_response(
            &named(&long),
            ApiKey::Metadata,
            asked.version,
            asked.correlation_id,
        )
        .unwrap();
        let frame: Vec<u8> = frame.iter().flat_map(|piece| piece.to_vec()).collect();
        for bytes in frame.chunks(piece) {
            peer.stream.write_all(bytes).await.unwrap();
        }
        assert_eq!(
            waiting.wait().await.unwrap().cluster_id.as_deref(),
            Some(long.as_str())
        );
    }
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_stream() {
    let (connection, mut peer) = connected(ConnectionOptions::default()).await;
    let other = connection.clone();
    drop(connection);
    assert!(other.is_open());
    drop(other);
    assert_eq!(peer.stream.read_buf(&mut peer.buffer).await.unwrap(), 0);
}
