//! The TLS listener over real sockets: who fails his handshake, or takes his time for it, harms nobody else.

use headwater_protocol::kafka::metadata::MetadataRequest;
use tokio::net::TcpStream;

use super::*;
use crate::security::Authority;
use crate::security::tls::{ALPN_KAFKA, Clients, NothingRevoked, ServerTls, Trust};
use crate::telemetry::names;
use crate::transport::dialer::Credentials;
use crate::transport::{Dialer, quic};

const NOW_MS: i64 = 1_790_000_000_000;

/// A TLS listener of an edge, and a client's way to it.
struct Door {
    target: std::net::SocketAddr,
    dialer: Dialer,
    credentials: Credentials,
}

impl Door {
    fn of(edge: &Edge) -> Self {
        let authority = Authority::create("lab", NOW_MS).unwrap();
        let hosts = ["127.0.0.1".to_owned()];
        let tls = ServerTls {
            identity: authority.issue_node(1, &hosts, NOW_MS).unwrap().identity,
            clients: Clients::ANYBODY,
            revocations: std::sync::Arc::new(NothingRevoked),
        };
        let net = &edge.services.sys.net;
        let listener = Listener::tls(net, "127.0.0.1:0".parse().unwrap(), &tls).unwrap();
        let target = listener.local_address().unwrap();
        edge.server.listen(listener);
        Self {
            target,
            dialer: Dialer::new(net.clone(), quic::Settings::default()),
            credentials: Credentials {
                trust: Trust::Authorities(vec![authority.certificate().clone()]),
                identity: None,
                alpn: ALPN_KAFKA,
            },
        }
    }

    async fn client(&self) -> Client {
        let target = self.target.to_string();
        let stream = self.dialer.dial_stream(&target, Some(&self.credentials)).await;
        Client::over(stream.unwrap())
    }

    async fn socket(&self, edge: &Edge) -> TcpStream {
        edge.services.sys.net.connect_tcp(self.target).await.unwrap()
    }
}

/// Everything up to the end of the connection, however it ends.
async fn rest(mut socket: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes).await;
    bytes
}

#[tokio::test]
async fn bad_handshakes_end_alone_and_slow_ones_in_time() {
    let edge = Edge::new().await;
    let door = Door::of(&edge);
    let failed = || edge.services.metrics.total(&names::HANDSHAKES_FAILED);

    let silent = door.socket(&edge).await;
    let mut plain = door.socket(&edge).await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(rest(plain).await[0], 21, "a TLS alert, as the protocol wants it");
    assert_eq!(failed(), 1);

    let mut client = door.client().await;
    let told = client.call(&MetadataRequest::default(), 12).await;
    assert_eq!(&*told.brokers[0].host, "tls.example");
    assert_eq!(edge.server.connections(), 2, "the silent one is still waited for");

    edge.pass(Duration::from_secs(10)).await;
    assert_eq!(rest(silent).await, b"");
    assert_eq!(failed(), 2);
    client.call(&MetadataRequest::default(), 12).await;
    assert_eq!(edge.server.connections(), 1);
}

#[tokio::test]
async fn handshakes_count_as_connections() {
    let edge = Edge::with(&[("max.connections", "2")]).await;
    let door = Door::of(&edge);
    let _silent = door.socket(&edge).await;
    let mut client = door.client().await;
    let refused = door.socket(&edge).await;
    assert_eq!(rest(refused).await, b"");
    assert_eq!(edge.services.metrics.total(&names::CONNECTIONS_REFUSED), 1);
    client.call(&MetadataRequest::default(), 12).await;
}
