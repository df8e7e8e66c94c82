//! Listeners, connections and streams: the same for TCP, TLS, QUIC and memory.
//!
//! A TCP or TLS connection is one stream; a QUIC connection is a session of many streams. What is above sees ordered
//! bytes in both directions and who the peer is, and cannot tell the rest apart. Owns sockets and their settings
//! (TCP_NODELAY on every TCP socket, made or accepted). It must never look into the bytes it carries, and never spawn
//! a task of its own: a handshake runs in the task that awaits `Accepting::establish`.

pub mod dialer;
pub mod listener;
pub mod memory;
pub mod quic;
pub mod session;
pub mod stream;
pub mod tcp;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

pub use dialer::{DialError, Dialer};
pub use listener::{Accepting, HandshakeError, Incoming, Listener};
pub use session::{Session, SessionError, SessionStats};
pub use stream::{ReadHalf, Stream, WriteHalf};

use crate::security::identity::CertificateFacts;
use headwater_protocol::ids::NodeId;

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    Tcp,
    Tls,
    Quic,
    Memory,
}

impl Carrier {
    /// For labels of metrics and log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::Memory => "memory",
        }
    }
}

/// Which advertised address a client must be given: the one of the kind it came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenerKind {
    Tcp,
    /// TCP, and nothing but TLS on it.
    Tls,
    Quic,
}

/// Who is at the other end of a connection. Streams of one session share it.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Verified against the cluster's authority; absent when the peer showed none.
    pub certificate: Option<Arc<CertificateFacts>>,
    /// Proved to be this node of the cluster, by the hello of its stream.
    pub node: Option<NodeId>,
    pub transport: Carrier,
    pub listener: ListenerKind,
}

/// Application codes of QUIC closes and resets, and what they say to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// Nothing went wrong.
    Done,
    /// The node drains; dial again, or another node.
    Draining,
    /// The bytes were not the protocol's.
    Malformed,
    /// A limit was reached: connections, idle time.
    Limit,
    /// The certificate is not welcome.
    Refused,
    /// The request asked for no answer and failed, or the answer cannot be given.
    Failed,
}

impl CloseCode {
    pub const fn value(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::Draining => 1,
            Self::Malformed => 2,
            Self::Limit => 3,
            Self::Refused => 4,
            Self::Failed => 5,
        }
    }
}
