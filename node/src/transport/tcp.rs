//! TCP, plain or under TLS: one connection is one stream.
//!
//! Owns the listening socket. Every socket, accepted or dialed, comes from `sys::net` with TCP_NODELAY set.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::listener::{HandshakeError, Incoming};
use super::{Carrier, ListenerKind, Peer, Stream};
use crate::security::identity::CertificateFacts;
use crate::security::tls::{Revocations, ServerTls, TlsError};
use crate::sys::net::{self, Net};

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the TLS settings do not serve QUIC: {0}")]
    Quic(String),
}

/// A bound TCP socket.
pub struct Listener {
    socket: net::Listener,
    tls: Option<Tls>,
}

#[derive(Clone)]
struct Tls {
    acceptor: TlsAcceptor,
    revocations: Arc<dyn Revocations>,
}

impl Listener {
    /// Binds `address`; with `tls`, every connection must begin with a TLS handshake.
    pub fn bind(net: &Net, address: SocketAddr, tls: Option<&ServerTls>) -> Result<Self, ListenError> {
        let tls = match tls {
            None => None,
            Some(tls) => Some(Tls {
                acceptor: TlsAcceptor::from(Arc::new(tls.for_tcp()?)),
                revocations: Arc::clone(&tls.revocations),
            }),
        };
        let socket = net
            .listen_tcp(address)
            .map_err(|source| ListenError::Bind { address, source })?;
        Ok(Self { socket, tls })
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) async fn accept(&self) -> io::Result<Accepting> {
        let (stream, address) = self.socket.accept().await?;
        Ok(Accepting {
            stream,
            address,
            tls: self.tls.clone(),
        })
    }
}

/// An accepted socket.
pub struct Accepting {
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Tls>,
}

impl Accepting {
    pub(super) fn remote_address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn establish(self) -> Result<Incoming, HandshakeError> {
        let peer = |certificate, transport| Peer {
            address: self.address,
            certificate,
            node: None,
            transport,
            listener: ListenerKind::Tcp,
        };
        let Some(tls) = self.tls else {
            return Ok(Incoming::Stream {
                stream: Stream::tcp(self.stream),
                peer: peer(None, Carrier::Tcp),
            });
        };
        let stream = tls.acceptor.accept(self.stream).await?;
        let certificate = client_facts(stream.get_ref().1.peer_certificates(), tls.revocations.as_ref())?;
        Ok(Incoming::Stream {
            stream: Stream::tls(TlsStream::Server(stream)),
            peer: peer(certificate, Carrier::Tls),
        })
    }
}

/// What the client's verified certificate says; an error when it has been revoked since.
pub(super) fn client_facts(
    chain: Option<&[CertificateDer<'_>]>,
    revocations: &dyn Revocations,
) -> Result<Option<Arc<CertificateFacts>>, HandshakeError> {
    let Some(leaf) = chain.and_then(<[_]>::first) else {
        return Ok(None);
    };
    let facts = CertificateFacts::read(leaf)?;
    if revocations.is_revoked(&facts) {
        return Err(HandshakeError::Revoked {
            fingerprint: facts.fingerprint,
            subject: facts.subject,
        });
    }
    Ok(Some(Arc::new(facts)))
}
