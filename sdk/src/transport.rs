//! Reaching a broker: TCP, TLS and QUIC behind one dialer.
//!
//! Owns the sockets' options, the TLS settings and the one QUIC endpoint of a client. It must never know
//! what is sent, nor choose between transports: `bootstrap` does that.

mod quic;
mod tls;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use headwater_protocol::ids::NodeId;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

pub(crate) use self::quic::{Handshake, QuicDialed, watch_handshake};
use crate::config::{Address, Config, ConfigError, QuicConfig, Transport};
use crate::connection::CallError;
use crate::door;

/// What can carry requests: both halves of a stream.
pub(crate) struct ByteStream {
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Why a broker could not be reached. Worth another attempt, save where the certificate is refused.
#[derive(Debug, Clone, Error)]
pub enum DialError {
    #[error("{address}: the name does not resolve: {cause}")]
    Resolve { address: Address, cause: Arc<io::Error> },
    #[error("{address}: {cause}")]
    Connect { address: Address, cause: Arc<io::Error> },
    #[error("{address}: {cause}")]
    Quic {
        address: Address,
        cause: quinn::ConnectionError,
    },
    #[error("{address}: {cause}")]
    QuicStart {
        address: Address,
        cause: quinn::ConnectError,
    },
    #[error("{address}: not reached within {} ms", timeout.as_millis())]
    Timeout { address: Address, timeout: Duration },
    #[error("{address}: the host name cannot stand in a certificate")]
    ServerName { address: Address },
    #[error("{address} needs to be told whom to trust; set Config::trust")]
    NoTrust { address: Address },
    #[error("no socket for QUIC: {0}")]
    Socket(Arc<io::Error>),
    #[error("{address}: {cause}")]
    Negotiation { address: Address, cause: Box<CallError> },
    #[error("node {node} is not in the cluster any more")]
    UnknownNode { node: NodeId },
    #[error("the client is closed")]
    Closed,
}

/// Dials brokers. One per client.
pub(crate) struct Dialer {
    tls: Option<TlsParts>,
    server_name: Option<String>,
    timeout: Duration,
    quic: QuicConfig,
    /// Made at the first QUIC dial: a client of TCP alone opens no UDP socket.
    endpoint: OnceLock<quinn::Endpoint>,
}

struct TlsParts {
    stream: TlsConnector,
    quic: quinn::ClientConfig,
}

impl Dialer {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let tls = match tls::client_config(config)? {
            None => None,
            Some(stream) => {
                let quic = quic::client_config(&stream, &config.quic)?;
                Some(TlsParts {
                    stream: TlsConnector::from(Arc::new(stream)),
                    quic,
                })
            }
        };
        Ok(Self {
            tls,
            server_name: config.server_name.clone(),
            timeout: config.connect_timeout,
            quic: config.quic.clone(),
            endpoint: OnceLock::new(),
        })
    }

    /// Opens one TCP or TLS connection to `address`, within the connect timeout. A dropped future leaves
    /// nothing behind.
    pub(crate) async fn stream(&self, address: &Address) -> Result<ByteStream, DialError> {
        let dialing = async {
            let tcp = self.tcp(address).await?;
            if address.transport == Transport::Tls {
                return self.tls(address, tcp).await;
            }
            let (reader, writer) = tcp.into_split();
            Ok(ByteStream {
                reader: Box::new(reader),
                writer: Box::new(writer),
            })
        };
        self.in_time(address, dialing).await
    }

    /// Opens one QUIC connection to `address`, within the connect timeout. A dropped future leaves nothing
    /// behind.
    pub(crate) async fn quic(&self, address: &Address) -> Result<QuicDialed, DialError> {
        let parts = self.tls.as_ref().ok_or_else(|| DialError::NoTrust {
            address: address.clone(),
        })?;
        let endpoint = self.endpoint()?;
        let name = self.server_name.as_deref().unwrap_or(&address.host);
        let dialing = async {
            let mut last = None;
            for socket in resolve(address).await? {
                let connecting =
                    endpoint
                        .connect_with(parts.quic.clone(), socket, name)
                        .map_err(|cause| DialError::QuicStart {
                            address: address.clone(),
                            cause,
                        })?;
                match quic::establish(connecting, self.quic.early_data).await {
                    Ok(dialed) => return Ok(dialed),
                    Err(cause) => {
                        last = Some(DialError::Quic {
                            address: address.clone(),
                            cause,
                        })
                    }
                }
            }
            Err(last.expect("a resolved name has an address"))
        };
        self.in_time(address, dialing).await
    }

    /// Moves all QUIC connections to a new socket, for instance after the network has changed. Without any
    /// there is nothing to do.
    pub(crate) fn rebind(&self) -> io::Result<()> {
        match self.endpoint.get() {
            Some(endpoint) => endpoint.rebind(door::bind_udp(self.quic.socket_buffer_bytes)?),
            None => Ok(()),
        }
    }

    /// The address QUIC packets leave from.
    pub(crate) fn local_quic_address(&self) -> Option<std::net::SocketAddr> {
        self.endpoint
            .get()
            .and_then(|endpoint| endpoint.local_addr().ok())
    }

    /// Closes all QUIC connections and waits until the last packets are out.
    pub(crate) async fn close(&self) {
        if let Some(endpoint) = self.endpoint.get() {
            endpoint.close(quinn::VarInt::from_u32(0), b"closed");
            endpoint.wait_idle().await;
        }
    }

    fn endpoint(&self) -> Result<quinn::Endpoint, DialError> {
        if let Some(endpoint) = self.endpoint.get() {
            return Ok(endpoint.clone());
        }
        let fail = |cause| DialError::Socket(Arc::new(cause));
        let socket = door::bind_udp(self.quic.socket_buffer_bytes).map_err(fail)?;
        let made = quic::endpoint(socket).map_err(fail)?;
        // Of two that were made at once, one is dropped unused.
        Ok(self.endpoint.get_or_init(|| made).clone())
    }

    async fn tcp(&self, address: &Address) -> Result<tokio::net::TcpStream, DialError> {
        let mut last = None;
        for socket in resolve(address).await? {
            match door::connect_tcp(socket).await {
                Ok(stream) => return Ok(stream),
                Err(cause) => last = Some(cause),
            }
        }
        let cause = Arc::new(last.expect("a resolved name has an address"));
        Err(DialError::Connect {
            address: address.clone(),
            cause,
        })
    }

    async fn tls(&self, address: &Address, tcp: tokio::net::TcpStream) -> Result<ByteStream, DialError> {
        let parts = self.tls.as_ref().ok_or_else(|| DialError::NoTrust {
            address: address.clone(),
        })?;
        let name = self.server_name.clone().unwrap_or_else(|| address.host.clone());
        let name = ServerName::try_from(name).map_err(|_| DialError::ServerName {
            address: address.clone(),
        })?;
        let stream = parts
            .stream
            .connect(name, tcp)
            .await
            .map_err(|cause| DialError::Connect {
                address: address.clone(),
                cause: Arc::new(cause),
            })?;
        let (reader, writer) = tokio::io::split(stream);
        Ok(ByteStream {
            reader: Box::new(reader),
            writer: Box::new(writer),
        })
    }

    async fn in_time<T>(
        &self,
        address: &Address,
        dialing: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        door::timeout_at(door::now() + self.timeout, dialing)
            .await
            .unwrap_or_else(|_| {
                Err(DialError::Timeout {
                    address: address.clone(),
                    timeout: self.timeout,
                })
            })
    }
}

async fn resolve(address: &Address) -> Result<Vec<std::net::SocketAddr>, DialError> {
    door::resolve(&address.host, address.port)
        .await
        .map_err(|cause| DialError::Resolve {
            address: address.clone(),
            cause: Arc::new(cause),
        })
}
