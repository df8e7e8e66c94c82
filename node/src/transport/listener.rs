//! Where connections come in, whatever carries them.
//!
//! `accept` is cheap and never waits for a handshake, so that a slow or hostile client cannot hold up the others;
//! the caller runs `Accepting::establish` in the connection's own task, under a deadline of its own.

use std::io;
use std::net::SocketAddr;

use super::{ListenerKind, Peer, Session, SessionError, Stream, memory, quic, tcp};
use crate::security::tls::ServerTls;
use crate::sys::net::Net;
use crate::sys::net::simulated::Host;

/// A bound listener.
pub enum Listener {
    Tcp(tcp::Listener),
    Quic(quic::Listener),
    Memory(memory::Listener),
}

impl Listener {
    /// Listens for TCP on `net`, under TLS when there is one.
    pub fn tcp(net: &Net, address: SocketAddr, tls: Option<&ServerTls>) -> Result<Self, tcp::ListenError> {
        match net.host() {
            None => Ok(Self::Tcp(tcp::Listener::bind(net, address, tls)?)),
            Some(host) => Self::memory(host, address, ListenerKind::Tcp),
        }
    }

    /// Listens for TLS on `net`, beside the listener for TCP.
    pub fn tls(net: &Net, address: SocketAddr, tls: &ServerTls) -> Result<Self, tcp::ListenError> {
        match net.host() {
            None => Ok(Self::Tcp(tcp::Listener::bind_tls(net, address, tls)?)),
            Some(host) => Self::memory(host, address, ListenerKind::Tls),
        }
    }

    /// Listens for QUIC on `net`.
    pub fn quic(
        net: &Net,
        address: SocketAddr,
        tls: &ServerTls,
        settings: &quic::Settings,
    ) -> Result<Self, tcp::ListenError> {
        match net.host() {
            None => Ok(Self::Quic(quic::Listener::bind(net, address, tls, settings)?)),
            Some(host) => Self::memory(host, address, ListenerKind::Quic),
        }
    }

    fn memory(host: &Host, address: SocketAddr, kind: ListenerKind) -> Result<Self, tcp::ListenError> {
        let listener = memory::Listener::bind(host, address, kind);
        let listener = listener.map_err(|source| tcp::ListenError::Bind { address, source })?;
        Ok(Self::Memory(listener))
    }

    /// The next connection. An error is about one connection or passes (out of descriptors), except that
    /// `Ok(None)` says that no more will come. Cancel safe.
    pub async fn accept(&mut self) -> io::Result<Option<Accepting>> {
        match self {
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|accepting| Some(Accepting::Tcp(accepting))),
            Self::Quic(listener) => Ok(listener
                .accept()
                .await
                .map(|accepting| Accepting::Quic(Box::new(accepting)))),
            Self::Memory(listener) => Ok(listener
                .accept()
                .await
                .map(|accepting| Accepting::Memory(Box::new(accepting)))),
        }
    }

    /// What was bound, with the port that the system chose if it was asked to.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_address(),
            Self::Quic(listener) => listener.local_address(),
            Self::Memory(listener) => Ok(listener.address()),
        }
    }

    /// By which another certificate is shown; None where there is no TLS over TCP.
    pub fn tls_switch(&self) -> Option<tcp::TlsSwitch> {
        match self {
            Self::Tcp(listener) => listener.tls_switch(),
            Self::Quic(_) | Self::Memory(_) => None,
        }
    }

    /// Takes no more connections and lets those that are open finish what they are sending; call it after their
    /// sessions are closed.
    pub async fn close(self) {
        match self {
            Self::Tcp(_) | Self::Memory(_) => {}
            Self::Quic(listener) => listener.close().await,
        }
    }
}

/// A connection whose handshake has yet to be made.
pub enum Accepting {
    Tcp(tcp::Accepting),
    Quic(Box<quic::Accepting>),
    Memory(Box<memory::Accepting>),
}

impl Accepting {
    pub fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Tcp(accepting) => accepting.remote_address(),
            Self::Quic(accepting) => accepting.remote_address(),
            Self::Memory(accepting) => accepting.remote_address(),
        }
    }

    /// Makes the handshake, checks the certificate. Dropping the future drops the connection.
    pub async fn establish(self) -> Result<Incoming, HandshakeError> {
        match self {
            Self::Tcp(accepting) => accepting.establish().await,
            Self::Quic(accepting) => accepting.establish().await,
            Self::Memory(accepting) => Ok(accepting.establish().await?),
        }
    }

    /// Turns the connection away without a handshake.
    pub fn refuse(self) {
        match self {
            Self::Tcp(_) | Self::Memory(_) => {}
            Self::Quic(accepting) => accepting.refuse(),
        }
    }
}

/// An established connection.
pub enum Incoming {
    Stream { stream: Stream, peer: Peer },
    Session(Session),
}

impl Incoming {
    pub fn peer(&self) -> &Peer {
        match self {
            Self::Stream { peer, .. } => peer,
            Self::Session(session) => session.peer(),
        }
    }
}

/// Why a connection was not established. The peer's doing, except `Settings`.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the handshake failed: {0}")]
    Tls(#[from] io::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the client certificate cannot be read: {0}")]
    Certificate(#[from] crate::security::identity::IdentityError),
    #[error("the certificate {fingerprint} of {subject:?} is revoked")]
    Revoked {
        fingerprint: crate::security::identity::Fingerprint,
        subject: String,
    },
}
