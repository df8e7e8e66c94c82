//! How this node reaches another: one UDP socket for all QUIC connections it opens, and TCP where it is told to.
//!
//! Owns the endpoint. An address change of this machine (another network, another uplink) does not break its
//! connections: the other side follows. It must never decide whom to trust; the caller says.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::quic::{self, Settings};
use super::tcp::ListenError;
use super::{Carrier, CloseCode, ListenerKind, Peer, Session, SessionError, Stream, memory};
use crate::security::identity::{CertificateFacts, Identity, IdentityError};
use crate::security::tls::{self, EarlyData, TlsError, Trust};
use crate::sys::net::Net;
use crate::sys::net::simulated::Host;

/// Why a dial came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot resolve {target}: {source}")]
    Resolve { target: String, source: io::Error },
    #[error("cannot open a socket: {0}")]
    Socket(#[from] io::Error),
    #[error("cannot dial {target}: {reason}")]
    Refused { target: String, reason: String },
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Settings(#[from] ListenError),
    #[error("the server's certificate cannot be read: {0}")]
    Certificate(#[from] IdentityError),
}

/// What to show and whom to believe.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub trust: Trust,
    pub identity: Option<Identity>,
    /// `ALPN_KAFKA`, or `ALPN_ENROL` for a site that has no certificate yet.
    pub alpn: &'static [u8],
}

/// Opens QUIC connections. Must be made inside a runtime; sockets are opened at the first dial of each family.
pub struct Dialer {
    net: Net,
    settings: Settings,
    v4: Mutex<Option<quinn::Endpoint>>,
    v6: Mutex<Option<quinn::Endpoint>>,
}

impl Dialer {
    pub fn new(net: Net, settings: Settings) -> Self {
        Self {
            net,
            settings,
            v4: Mutex::new(None),
            v6: Mutex::new(None),
        }
    }

    /// Dials `host:port`; every address of the host is tried in turn. Returns when the handshake is complete on
    /// this side; the caller gives the deadline. Dropping the future gives up.
    pub async fn dial(&self, target: &str, credentials: &Credentials) -> Result<Session, DialError> {
        if let Some(host) = self.net.host() {
            let address = simulated(host, target)?;
            let shown = credentials
                .identity
                .as_ref()
                .and_then(|identity| identity.chain.first());
            return memory::dial(host, address, credentials.alpn, shown).await;
        }
        let tls = tls::client_config(
            &credentials.trust,
            credentials.identity.as_ref(),
            credentials.alpn,
            EarlyData::Refuse,
        )?;
        let config = quic::client_config(tls, &self.settings)?;
        let addresses = self
            .net
            .resolve(target)
            .await
            .map_err(|source| DialError::Resolve {
                target: target.to_owned(),
                source,
            })?;
        let host = host_of(target);
        let mut last = DialError::Refused {
            target: target.to_owned(),
            reason: "the name has no address".to_owned(),
        };
        for address in addresses {
            match self.dial_address(address, host, config.clone()).await {
                Ok(session) => return Ok(session),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn dial_address(
        &self,
        address: SocketAddr,
        host: &str,
        config: quinn::ClientConfig,
    ) -> Result<Session, DialError> {
        let endpoint = self.endpoint(address)?;
        let connecting = endpoint
            .connect_with(config, address, host)
            .map_err(|e| DialError::Refused {
                target: address.to_string(),
                reason: e.to_string(),
            })?;
        let end = quic::complete(connecting).await?;
        let chain = end
            .connection
            .peer_identity()
            .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let certificate = match chain.as_ref().and_then(|chain| chain.first()) {
            Some(leaf) => Some(Arc::new(CertificateFacts::read(leaf)?)),
            None => None,
        };
        let peer = Peer {
            address,
            certificate,
            node: None,
            transport: Carrier::Quic,
            listener: ListenerKind::Quic,
        };
        let alpn = quic::agreed_protocol(&end.connection);
        Ok(Session::quic(end, peer, alpn))
    }

    fn endpoint(&self, to: SocketAddr) -> io::Result<quinn::Endpoint> {
        let (slot, any) = match to {
            SocketAddr::V4(_) => (&self.v4, SocketAddr::from(([0, 0, 0, 0], 0))),
            SocketAddr::V6(_) => (&self.v6, SocketAddr::from(([0u16; 8], 0))),
        };
        // The guarded value is only ever replaced whole, so a panic elsewhere cannot have spoiled it.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = slot.as_ref() {
            return Ok(endpoint.clone());
        }
        let endpoint = quic::endpoint(&self.net, any, quinn::EndpointConfig::default(), None)?;
        *slot = Some(endpoint.clone());
        Ok(endpoint)
    }

    /// Dials one TCP stream, under TLS when there are credentials. The caller gives the deadline.
    pub async fn dial_stream(
        &self,
        target: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Stream, DialError> {
        if let Some(host) = self.net.host() {
            return memory::dial_stream(host, simulated(host, target)?).await;
        }
        let addresses = self
            .net
            .resolve(target)
            .await
            .map_err(|source| DialError::Resolve {
                target: target.to_owned(),
                source,
            })?;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match self.net.connect_tcp(address).await {
                Ok(socket) => return tls_over(socket, host_of(target), credentials).await,
                Err(failure) => last = failure,
            }
        }
        Err(DialError::Socket(last))
    }

    /// Moves all connections to new sockets, as when the network under them has gone. They go on.
    pub fn rebind(&self) -> io::Result<()> {
        for (slot, any) in [
            (&self.v4, SocketAddr::from(([0, 0, 0, 0], 0))),
            (&self.v6, SocketAddr::from(([0u16; 8], 0))),
        ] {
            let endpoint = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(endpoint) = endpoint {
                endpoint.rebind(self.net.bind_udp(any)?)?;
            }
        }
        Ok(())
    }

    /// Closes every connection and waits until the goodbyes are sent.
    pub async fn close(&self) {
        for slot in [&self.v4, &self.v6] {
            let endpoint = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(endpoint) = endpoint {
                endpoint.close(CloseCode::Done.value().into(), b"");
                endpoint.wait_idle().await;
            }
        }
    }
}

/// The one address of a name on a simulated net.
fn simulated(host: &Host, target: &str) -> Result<SocketAddr, DialError> {
    let found = host.resolve(target).map(|found| found.first().copied());
    let found = found.and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()));
    found.map_err(|source| DialError::Resolve {
        target: target.to_owned(),
        source,
    })
}

async fn tls_over(
    socket: TcpStream,
    host: &str,
    credentials: Option<&Credentials>,
) -> Result<Stream, DialError> {
    let Some(Credentials {
        trust,
        identity,
        alpn,
    }) = credentials
    else {
        return Ok(Stream::tcp(socket));
    };
    let config = tls::client_config(trust, identity.as_ref(), alpn, EarlyData::Refuse)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|e| DialError::Refused {
        target: host.to_owned(),
        reason: e.to_string(),
    })?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    Ok(Stream::tls(TlsStream::Client(stream)))
}

/// The name that the server's certificate must carry: the target without its port and brackets.
fn host_of(target: &str) -> &str {
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}
