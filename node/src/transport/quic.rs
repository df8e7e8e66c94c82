//! QUIC by quinn: one connection is a session of many streams, each of which behaves as one Kafka connection.
//!
//! Owns the endpoint and the numbers that decide its speed. It must never let a datagram be fragmented or a batch of
//! them exceed what one send may hold: with packets above 6,550 bytes, ten of them pass 65,507 bytes and segmentation
//! offload fails silently.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls_pki_types::CertificateDer;

use super::listener::{HandshakeError, Incoming};
use super::session::QuicEnd;
use super::stream::HandshakeOver;
use super::tcp::{ListenError, client_facts};
use super::{Carrier, CloseCode, ListenerKind, Peer, Session, SessionError, Stream};
use crate::security::identity::Identity;
use crate::security::tls::{EarlyData, Names, Revocations, ServerTls};
use crate::sys::net::Net;

/// The largest packet worth looking for; the loopback device carries it, and jumbo frames come near.
const PACKET_BYTES_MAX: u16 = 6_500;
/// What one send with segmentation offload may hold, and how many packets quinn puts into it.
const OFFLOAD_BYTES_MAX: u32 = 65_507;
const OFFLOAD_PACKETS: u32 = 10;
const _: () = assert!(PACKET_BYTES_MAX as u32 * OFFLOAD_PACKETS <= OFFLOAD_BYTES_MAX);

/// How a connection behaves. The defaults serve a LAN and a gateway's uplink alike.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Streams a peer may have open at once.
    pub streams_max: u32,
    /// What the peer may send on one stream, and on all, before we read it: our memory.
    pub stream_window_bytes: u32,
    pub connection_window_bytes: u32,
    /// What we keep unacknowledged: our memory, and twice the bandwidth-delay product of a fast long link.
    pub send_window_bytes: u64,
    pub keep_alive: Duration,
    pub idle_timeout: Duration,
    pub congestion: Congestion,
    pub early_data: EarlyData,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            streams_max: 1024,
            stream_window_bytes: 4 << 20,
            connection_window_bytes: 16 << 20,
            send_window_bytes: 16 << 20,
            keep_alive: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            congestion: Congestion::Cubic,
            early_data: EarlyData::Refuse,
        }
    }
}

/// Who decides how fast to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Congestion {
    /// Fair, and slow on paths that lose packets for other reasons than congestion.
    #[default]
    Cubic,
    /// Keeps its rate through random loss, at the price of many packets sent twice.
    Bbr,
}

/// Settings as quinn takes them.
pub(super) fn transport_config(settings: &Settings) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(settings.streams_max))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(settings.stream_window_bytes))
        .receive_window(VarInt::from_u32(settings.connection_window_bytes))
        .send_window(settings.send_window_bytes)
        .keep_alive_interval(Some(settings.keep_alive))
        .max_idle_timeout(IdleTimeout::try_from(settings.idle_timeout).ok())
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(true);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PACKET_BYTES_MAX);
    config.mtu_discovery_config(Some(discovery));
    config.ack_frequency_config(Some(AckFrequencyConfig::default()));
    match settings.congestion {
        Congestion::Cubic => config.congestion_controller_factory(Arc::new(CubicConfig::default())),
        Congestion::Bbr => config.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    Arc::new(config)
}

/// What an endpoint needs to know the connections of its predecessor for such: it then ends them for the peer at
/// its next packet, where it would leave the peer to find out by itself otherwise. Both are made from the node's private
/// key, which outlives a restart.
fn of_the_same_node(identity: &Identity) -> EndpointConfig {
    let key = |secret: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, secret);
    let root = key(identity.key.secret_der());
    let resets = hmac::sign(&root, b"headwater quic stateless reset");
    let ids = hmac::sign(&root, b"headwater quic connection ids");
    let ids = ids
        .as_ref()
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let mut config = EndpointConfig::new(Arc::new(key(resets.as_ref())));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// An endpoint on a socket of ours. Must be called inside a runtime: quinn's driver runs there.
pub(super) fn endpoint(
    net: &Net,
    address: SocketAddr,
    mut config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> io::Result<Endpoint> {
    config
        .max_udp_payload_size(PACKET_BYTES_MAX)
        .map_err(io::Error::other)?;
    let socket = net.bind_udp(address)?;
    Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime))
}

/// A bound QUIC endpoint that accepts.
pub struct Listener {
    endpoint: Endpoint,
    revocations: Arc<dyn Revocations>,
    early_data: EarlyData,
}

impl Listener {
    pub fn bind(
        net: &Net,
        address: SocketAddr,
        tls: &ServerTls,
        settings: &Settings,
    ) -> Result<Self, ListenError> {
        let crypto = QuicServerConfig::try_from(tls.for_quic(settings.early_data)?)
            .map_err(|e| ListenError::Quic(e.to_string()))?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config
            .transport_config(transport_config(settings))
            .migration(true);
        let endpoint = endpoint(net, address, of_the_same_node(&tls.identity), Some(config))
            .map_err(|source| ListenError::Bind { address, source })?;
        Ok(Self {
            endpoint,
            revocations: Arc::clone(&tls.revocations),
            early_data: settings.early_data,
        })
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    pub(super) async fn accept(&self) -> Option<Accepting> {
        let incoming = self.endpoint.accept().await?;
        Some(Accepting {
            incoming,
            revocations: Arc::clone(&self.revocations),
            early_data: self.early_data,
        })
    }

    pub(super) async fn close(self) {
        self.endpoint
            .close(CloseCode::Draining.value().into(), b"draining");
        self.endpoint.wait_idle().await;
    }
}

/// A client's first packet.
pub struct Accepting {
    incoming: quinn::Incoming,
    revocations: Arc<dyn Revocations>,
    early_data: EarlyData,
}

impl Accepting {
    pub(super) fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    pub(super) fn refuse(self) {
        self.incoming.refuse();
    }

    pub(super) async fn establish(self) -> Result<Incoming, HandshakeError> {
        let address = self.incoming.remote_address();
        let connecting = self.incoming.accept().map_err(SessionError::from)?;
        let end = match self.early_data {
            EarlyData::Refuse => complete(connecting).await?,
            EarlyData::Accept => early(connecting).await?,
        };
        let chain = end
            .connection
            .peer_identity()
            .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let certificate = match client_facts(
            chain.as_ref().map(|chain| chain.as_slice()),
            Names::Own,
            self.revocations.as_ref(),
        ) {
            Ok(certificate) => certificate,
            Err(refusal) => {
                end.connection
                    .close(CloseCode::Refused.value().into(), b"certificate refused");
                return Err(refusal);
            }
        };
        let peer = Peer {
            address,
            certificate,
            node: None,
            transport: Carrier::Quic,
            listener: ListenerKind::Quic,
        };
        let alpn = agreed_protocol(&end.connection);
        Ok(Incoming::Session(Session::quic(end, peer, alpn)))
    }
}

pub(super) async fn complete(connecting: quinn::Connecting) -> Result<QuicEnd, SessionError> {
    Ok(QuicEnd {
        connection: connecting.await?,
        handshake: None,
        first: None,
    })
}

/// Waits for the end of the handshake, or for the first stream of a client that returns and does not wait for it.
/// A resumed session brings the client's certificate along, so that the principal is known in both cases.
async fn early(connecting: quinn::Connecting) -> Result<QuicEnd, SessionError> {
    let (connection, accepted) = match connecting.into_0rtt() {
        Ok(early) => early,
        Err(connecting) => return complete(connecting).await,
    };
    let over = HandshakeOver::new(accepted);
    let first = tokio::select! {
        biased;
        () = over.clone().wait() => None,
        stream = connection.accept_bi() => Some(Stream::quic(stream?, Some(&over))),
    };
    if let Some(reason) = connection.close_reason() {
        return Err(reason.into());
    }
    let first = first.map(|stream| Arc::new(Mutex::new(Some(stream))));
    Ok(QuicEnd {
        connection,
        handshake: Some(over),
        first,
    })
}

pub(super) fn agreed_protocol(connection: &quinn::Connection) -> Vec<u8> {
    connection
        .handshake_data()
        .and_then(|any| any.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol)
        .unwrap_or_default()
}

/// A dialer's settings as quinn takes them.
pub(super) fn client_config(
    tls: rustls::ClientConfig,
    settings: &Settings,
) -> Result<quinn::ClientConfig, ListenError> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| ListenError::Quic(e.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport_config(settings));
    Ok(config)
}
