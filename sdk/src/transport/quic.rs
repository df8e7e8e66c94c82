//! QUIC's settings, and how a connection comes up with or without early data.
//!
//! Owns the transport parameters. It must never open a stream.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{AckFrequencyConfig, ConnectionError, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use tokio::sync::watch;

use crate::config::{ConfigError, Congestion, QuicConfig};

/// The protocol's name in the handshake.
const ALPN: &[u8] = b"kafka";

/// One call of segmentation offload sends up to ten packets, and the kernel takes 65,507 bytes at most:
/// beyond this, sending fails silently and the connection crawls.
const MTU_MAX: u16 = 6_550;
const _: () = assert!(MTU_MAX as u32 * 10 <= 65_507);

/// Streams that the other side may have opened at once; links let the core open some on the edge's
/// connection.
const PEER_STREAMS_MAX: u32 = 64;

/// A QUIC connection, and what is known about its early data.
pub(crate) struct QuicDialed {
    pub(crate) connection: quinn::Connection,
    /// Resolves when the handshake is done: whether early data was accepted. `None` when it was done
    /// before the connection was handed out.
    pub(crate) handshake: Option<quinn::ZeroRttAccepted>,
}

pub(super) fn endpoint(socket: UdpSocket) -> io::Result<quinn::Endpoint> {
    let mut config = quinn::EndpointConfig::default();
    // What the other side may send here; without it, its discovery of a larger MTU ends at 1472.
    let accepted = config.max_udp_payload_size(MTU_MAX);
    debug_assert!(accepted.is_ok(), "the constant is a legal payload size");
    quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))
}

pub(super) fn client_config(
    tls: &rustls::ClientConfig,
    config: &QuicConfig,
) -> Result<quinn::ClientConfig, ConfigError> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = config.early_data;
    let tls = QuicClientConfig::try_from(tls).map_err(|cause| ConfigError::Tls(cause.to_string()))?;
    let mut client = quinn::ClientConfig::new(Arc::new(tls));
    client.transport_config(Arc::new(transport_config(config)?));
    Ok(client)
}

fn transport_config(config: &QuicConfig) -> Result<TransportConfig, ConfigError> {
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX).interval(Duration::from_secs(600));
    let idle = IdleTimeout::try_from(config.idle_timeout).map_err(|_| ConfigError::TooSmall {
        what: "quic.idle_timeout",
        min: 1,
    })?;
    transport
        .mtu_discovery_config(Some(mtu))
        .receive_window(VarInt::from_u32(config.connection_window_bytes))
        .stream_receive_window(VarInt::from_u32(config.stream_window_bytes))
        .send_window(u64::from(config.connection_window_bytes))
        .max_concurrent_bidi_streams(VarInt::from_u32(PEER_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(config.keep_alive))
        .max_idle_timeout(Some(idle))
        .ack_frequency_config(Some(AckFrequencyConfig::default()));
    match config.congestion {
        Congestion::Cubic => transport.congestion_controller_factory(Arc::new(CubicConfig::default())),
        Congestion::Bbr => transport.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    Ok(transport)
}

/// Waits for the handshake, unless a resumed session lets requests go ahead of it.
pub(super) async fn establish(
    connecting: quinn::Connecting,
    early_data: bool,
) -> Result<QuicDialed, ConnectionError> {
    if !early_data {
        return Ok(QuicDialed {
            connection: connecting.await?,
            handshake: None,
        });
    }
    match connecting.into_0rtt() {
        Ok((connection, accepted)) => Ok(QuicDialed {
            connection,
            handshake: Some(accepted),
        }),
        Err(connecting) => Ok(QuicDialed {
            connection: connecting.await?,
            handshake: None,
        }),
    }
}

/// Where the handshake of a connection stands, for those who must not send before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    Pending,
    Done,
    /// The server did not take the early data; streams opened before are void.
    EarlyDataRefused,
}

/// Publishes the end of the handshake.
pub(crate) async fn watch_handshake(accepted: quinn::ZeroRttAccepted, to: watch::Sender<Handshake>) {
    let state = if accepted.await {
        Handshake::Done
    } else {
        Handshake::EarlyDataRefused
    };
    to.send_replace(state);
}
