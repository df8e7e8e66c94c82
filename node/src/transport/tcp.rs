//! TCP, plain or under TLS: one connection is one stream.
//!
//! Owns the listening socket. Every socket, accepted or dialed, comes from `sys::net` with TCP_NODELAY set.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::listener::{HandshakeError, Incoming};
use super::{Carrier, ListenerKind, Peer, Stream};
use crate::security::identity::CertificateFacts;
use crate::security::tls::{Names, Revocations, ServerTls, TlsError};
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
    tls: Option<TlsSwitch>,
    kind: ListenerKind,
}

/// What a listener shows to those who connect from now on. The clones are one.
#[derive(Clone)]
pub struct TlsSwitch(Arc<ArcSwap<Tls>>);

impl TlsSwitch {
    fn new(tls: &ServerTls) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Tls::new(tls)?))))
    }

    /// Shows this from now on. On an error what was shown before stays.
    pub fn show(&self, tls: &ServerTls) -> Result<(), TlsError> {
        self.0.store(Arc::new(Tls::new(tls)?));
        Ok(())
    }
}

struct Tls {
    acceptor: TlsAcceptor,
    names: Names,
    revocations: Arc<dyn Revocations>,
}

impl Tls {
    fn new(tls: &ServerTls) -> Result<Self, TlsError> {
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(tls.for_tcp()?)),
            names: tls.clients.names,
            revocations: Arc::clone(&tls.revocations),
        })
    }
}

impl Listener {
    /// Binds `address`; with `tls`, every connection must begin with a TLS handshake.
    pub fn bind(net: &Net, address: SocketAddr, tls: Option<&ServerTls>) -> Result<Self, ListenError> {
        let tls = tls.map(TlsSwitch::new).transpose()?;
        Self::open(net, address, tls, ListenerKind::Tcp)
    }

    /// Binds `address` for TLS alone, as a listener of its own kind.
    pub fn bind_tls(net: &Net, address: SocketAddr, tls: &ServerTls) -> Result<Self, ListenError> {
        Self::open(net, address, Some(TlsSwitch::new(tls)?), ListenerKind::Tls)
    }

    fn open(
        net: &Net,
        address: SocketAddr,
        tls: Option<TlsSwitch>,
        kind: ListenerKind,
    ) -> Result<Self, ListenError> {
        let socket = net
            .listen_tcp(address)
            .map_err(|source| ListenError::Bind { address, source })?;
        Ok(Self { socket, tls, kind })
    }

    pub(super) fn tls_switch(&self) -> Option<TlsSwitch> {
        self.tls.clone()
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) async fn accept(&self) -> io::Result<Accepting> {
        let (stream, address) = self.socket.accept().await?;
        Ok(Accepting {
            stream,
            address,
            tls: self.tls.as_ref().map(|tls| tls.0.load_full()),
            kind: self.kind,
        })
    }
}

/// An accepted socket.
pub struct Accepting {
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    kind: ListenerKind,
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
            listener: self.kind,
        };
        let Some(tls) = self.tls else {
            return Ok(Incoming::Stream {
                stream: Stream::tcp(self.stream),
                peer: peer(None, Carrier::Tcp),
            });
        };
        let stream = tls.acceptor.accept(self.stream).await?;
        let chain = stream.get_ref().1.peer_certificates();
        let certificate = client_facts(chain, tls.names, tls.revocations.as_ref())?;
        Ok(Incoming::Stream {
            stream: Stream::tls(TlsStream::Server(stream)),
            peer: peer(certificate, Carrier::Tls),
        })
    }
}

/// What the client's verified certificate says, as far as its authority may say it; an error when it has been revoked
/// since.
pub(super) fn client_facts(
    chain: Option<&[CertificateDer<'_>]>,
    names: Names,
    revocations: &dyn Revocations,
) -> Result<Option<Arc<CertificateFacts>>, HandshakeError> {
    let Some(leaf) = chain.and_then(<[_]>::first) else {
        return Ok(None);
    };
    let mut facts = CertificateFacts::read(leaf)?;
    if names == Names::Strangers {
        facts.disown();
    }
    if revocations.is_revoked(&facts) {
        return Err(HandshakeError::Revoked {
            fingerprint: facts.fingerprint,
            subject: facts.subject,
        });
    }
    Ok(Some(Arc::new(facts)))
}
