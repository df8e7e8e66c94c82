//! A connection that carries many streams: QUIC's, or its double in memory.
//!
//! Owns the connection: when the last clone and the last stream are gone, the connection closes. Either side opens
//! streams; the other learns of one when its first byte arrives. It must never open a stream that nobody asked for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::stream::HandshakeOver;
use super::{CloseCode, Peer, Stream, memory};

/// Why a session gives no more streams.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the connection was closed by this side")]
    ClosedHere,
    #[error("the connection was closed by the peer: code {code}, {reason:?}")]
    ClosedThere { code: u64, reason: String },
    #[error("the connection was lost: {0}")]
    Lost(String),
}

impl From<quinn::ConnectionError> for SessionError {
    fn from(e: quinn::ConnectionError) -> Self {
        match e {
            quinn::ConnectionError::LocallyClosed => Self::ClosedHere,
            quinn::ConnectionError::ApplicationClosed(close) => Self::ClosedThere {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            other => Self::Lost(other.to_string()),
        }
    }
}

/// What a connection has cost so far, on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionStats {
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub packets_lost: u64,
    /// Frames sent that the peer has to acknowledge.
    pub eliciting_sent: u64,
    /// Frames of packets that were the peer's beyond doubt: bytes may come from anybody, a restarted peer's reset too.
    pub frames_received: u64,
    pub round_trip: Duration,
}

/// A cheap handle on a connection of many streams.
#[derive(Clone, Debug)]
pub struct Session {
    inner: Inner,
    peer: Peer,
    /// The protocol agreed on in the handshake.
    alpn: Vec<u8>,
}

/// A quinn connection, and what a server that accepts early data has to remember about its beginning.
#[derive(Clone, Debug)]
pub(super) struct QuicEnd {
    pub connection: quinn::Connection,
    /// Absent when the handshake was over before the session was made.
    pub handshake: Option<HandshakeOver>,
    /// A stream that came before the end of the handshake, to be accepted first.
    pub first: Option<Arc<Mutex<Option<Stream>>>>,
}

#[derive(Clone, Debug)]
enum Inner {
    Quic(QuicEnd),
    Memory(memory::SessionEnd),
}

impl Session {
    pub(super) fn quic(end: QuicEnd, peer: Peer, alpn: Vec<u8>) -> Self {
        Self {
            inner: Inner::Quic(end),
            peer,
            alpn,
        }
    }

    pub(super) fn memory(end: memory::SessionEnd, peer: Peer, alpn: Vec<u8>) -> Self {
        Self {
            inner: Inner::Memory(end),
            peer,
            alpn,
        }
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    pub fn alpn(&self) -> &[u8] {
        &self.alpn
    }

    /// The next stream that the peer opens. Cancel safe.
    pub async fn accept_stream(&self) -> Result<Stream, SessionError> {
        match &self.inner {
            Inner::Quic(end) => {
                let first = end
                    .first
                    .as_ref()
                    .and_then(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).take());
                match first {
                    Some(stream) => Ok(stream),
                    None => Ok(Stream::quic(
                        end.connection.accept_bi().await?,
                        end.handshake.as_ref(),
                    )),
                }
            }
            Inner::Memory(end) => end.accept().await,
        }
    }

    /// Opens a stream; waits while the peer's limit of concurrent streams is reached. Cancel safe.
    pub async fn open_stream(&self) -> Result<Stream, SessionError> {
        match &self.inner {
            Inner::Quic(end) => Ok(Stream::quic(end.connection.open_bi().await?, None)),
            Inner::Memory(end) => end.open().await,
        }
    }

    /// Closes the connection at once: streams fail on both sides. Whoever wants answers delivered waits for them
    /// first.
    pub fn close(&self, code: CloseCode, reason: &str) {
        match &self.inner {
            Inner::Quic(end) => end.connection.close(code.value().into(), reason.as_bytes()),
            Inner::Memory(end) => end.close(code, reason),
        }
    }

    /// Whether both are handles on the same connection.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.inner, &other.inner) {
            (Inner::Quic(one), Inner::Quic(two)) => one.connection.stable_id() == two.connection.stable_id(),
            (Inner::Memory(one), Inner::Memory(two)) => one.is_same(two),
            (Inner::Quic(_), Inner::Memory(_)) | (Inner::Memory(_), Inner::Quic(_)) => false,
        }
    }

    /// Waits until the connection is gone, and says why.
    pub async fn closed(&self) -> SessionError {
        match &self.inner {
            Inner::Quic(end) => end.connection.closed().await.into(),
            Inner::Memory(end) => end.closed().await,
        }
    }

    /// What only the two ends of this connection know: whoever signs it speaks over this connection and no other
    /// (RFC 5705, RFC 9266). Empty in memory, where nobody is in between.
    pub fn channel(&self) -> Vec<u8> {
        match &self.inner {
            Inner::Quic(end) => {
                let mut secret = [0; 32];
                match end
                    .connection
                    .export_keying_material(&mut secret, b"EXPORTER-Channel-Binding", b"")
                {
                    Ok(()) => secret.to_vec(),
                    // No connection without keys is ever handed out.
                    Err(_) => Vec::new(),
                }
            }
            Inner::Memory(_) => Vec::new(),
        }
    }

    pub fn stats(&self) -> SessionStats {
        match &self.inner {
            Inner::Quic(end) => {
                let stats = end.connection.stats();
                SessionStats {
                    bytes_sent: stats.udp_tx.bytes,
                    bytes_received: stats.udp_rx.bytes,
                    packets_lost: stats.path.lost_packets,
                    eliciting_sent: eliciting(&stats.frame_tx),
                    frames_received: stats.frame_rx.acks + eliciting(&stats.frame_rx),
                    round_trip: stats.path.rtt,
                }
            }
            Inner::Memory(end) => end.stats(),
        }
    }

    /// Tells a path that moves from one that only rests: for tests and diagnosis.
    pub fn remote_address(&self) -> std::net::SocketAddr {
        match &self.inner {
            Inner::Quic(end) => end.connection.remote_address(),
            Inner::Memory(_) => self.peer.address,
        }
    }
}

/// Frames that must be acknowledged, but for those of a handshake. A probe of an unanswered peer is a PING or, with a
/// peer that takes it, an IMMEDIATE_ACK.
fn eliciting(frames: &quinn::FrameStats) -> u64 {
    frames.stream
        + frames.ping
        + frames.immediate_ack
        + frames.max_data
        + frames.max_stream_data
        + frames.max_streams_bidi
        + frames.reset_stream
        + frames.stop_sending
}
