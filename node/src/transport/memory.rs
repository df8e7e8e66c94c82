//! Connections inside the process: for tests and the simulator, and for what a node asks of itself as it asks others. The
//! same behaviour without a socket.
//!
//! Streams and sessions over a simulated net (`sys::net::simulated`), where pipes are bounded: a pipe that is full makes
//! its writer wait, as a socket does; a reset breaks what is not yet read, as QUIC does. It must never know what the net
//! does to them on their way.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::dialer::DialError;
use super::stream::{ReadHalf, Stream, WriteHalf};
use super::{Carrier, CloseCode, Incoming, ListenerKind, Peer, Session, SessionError, SessionStats};
use crate::security::identity::CertificateFacts;
use crate::security::tls::ALPN_KAFKA;
use crate::sys::net::simulated::{
    Closed, ConnectError, Connection, Fabric, Host, Kind, Listener as Port, Receiver, Sender,
};

/// Makes a listener and the connector that reaches it. `kind` decides which address clients are told.
pub fn listener(kind: ListenerKind) -> (Connector, Listener) {
    let fabric = Fabric::instant();
    let host = fabric.boot("server");
    let open = |kind| {
        host.listen(SocketAddr::from(([0, 0, 0, 0], 9)), kind)
            .expect("a fresh host listens nowhere")
    };
    let connectors = CancellationToken::new();
    let (streams, sessions) = (open(Kind::Stream), open(Kind::Session));
    let connector = Connector {
        host: fabric.boot("client"),
        target: streams.address(),
        _open: Arc::new(connectors.clone().drop_guard()),
    };
    let listener = Listener {
        ports: vec![streams, sessions],
        kind,
        connectors,
    };
    (connector, listener)
}

/// Two ends of one stream, which break when `broken` is cancelled. Must be called inside a runtime.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
pub(crate) fn pair(broken: &CancellationToken) -> (Stream, Stream) {
    use futures_util::FutureExt as _;
    let fabric = Fabric::instant();
    let (server, client) = (fabric.boot("server"), fabric.boot("client"));
    let any = SocketAddr::from(([0, 0, 0, 0], 9));
    let port = server
        .listen(any, Kind::Stream)
        .expect("a fresh host listens nowhere");
    let target = port.address();
    let both = async { tokio::join!(dial_stream(&client, target), port.accept()) };
    let (here, connection) = both.now_or_never().expect("nothing takes time on this net");
    let there = SessionEnd(connection.expect("it was dialed"))
        .accept()
        .now_or_never();
    let (broken, hosts) = (broken.clone(), (server, client));
    tokio::spawn(async move {
        broken.cancelled().await;
        fabric.reset("client", "server");
        drop(hosts);
    });
    let there = there
        .expect("nothing takes time on this net")
        .expect("it was dialed");
    (here.expect("somebody listens"), there)
}

/// The accepting side.
pub struct Listener {
    ports: Vec<Port>,
    kind: ListenerKind,
    /// Cancelled when nobody can connect any more.
    connectors: CancellationToken,
}

impl Listener {
    /// Listens on a simulated net as the listener of that kind does on a real one.
    pub fn bind(host: &Host, address: SocketAddr, kind: ListenerKind) -> io::Result<Self> {
        let double = match kind {
            ListenerKind::Tcp | ListenerKind::Tls => Kind::Stream,
            ListenerKind::Quic => Kind::Session,
        };
        Ok(Self {
            ports: vec![host.listen(address, double)?],
            kind,
            connectors: CancellationToken::new(),
        })
    }

    pub(super) async fn accept(&mut self) -> Option<Accepting> {
        let [first, others @ ..] = self.ports.as_slice() else {
            return None;
        };
        // There are two where a test wants both kinds behind one connector, and one everywhere else.
        let second = async {
            match others.first() {
                Some(port) => port.accept().await,
                None => std::future::pending().await,
            }
        };
        let connection = tokio::select! {
            biased;
            connection = first.accept() => connection,
            connection = second => connection,
            () = self.connectors.cancelled() => None,
        };
        connection.map(|connection| Accepting {
            connection,
            kind: self.kind,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        self.ports.first().map_or(nowhere, Port::address)
    }
}

/// A connection that nobody has looked at yet.
pub struct Accepting {
    connection: Connection,
    kind: ListenerKind,
}

impl Accepting {
    pub(super) fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    pub(super) async fn establish(self) -> Result<Incoming, SessionError> {
        let Self { connection, kind } = self;
        let (alpn, certificate) = understand(&connection.greeting());
        let peer = peer(&connection, kind, certificate);
        let end = SessionEnd(connection);
        // No protocol is agreed on for a connection that is one stream.
        if alpn.is_empty() {
            let stream = end.accept().await?;
            return Ok(Incoming::Stream { stream, peer });
        }
        Ok(Incoming::Session(Session::memory(end, peer, alpn)))
    }
}

/// The dialing side. When every clone is gone, the listener accepts no more.
#[derive(Clone)]
pub struct Connector {
    host: Host,
    target: SocketAddr,
    _open: Arc<DropGuard>,
}

impl Connector {
    /// Connects as a TCP client does.
    pub async fn stream(&self) -> io::Result<Stream> {
        let dialed = dial_stream(&self.host, self.target).await;
        dialed.map_err(|_| io::ErrorKind::ConnectionRefused.into())
    }

    /// Connects as a QUIC client does, showing `certificate`.
    pub async fn session(&self, certificate: Option<&CertificateDer<'_>>) -> io::Result<Session> {
        let dialed = dial(&self.host, self.target, ALPN_KAFKA, certificate).await;
        dialed.map_err(|_| io::ErrorKind::ConnectionRefused.into())
    }
}

/// Dials as QUIC does. Nobody in between can read or write: no certificate is verified.
pub(super) async fn dial(
    host: &Host,
    target: SocketAddr,
    alpn: &[u8],
    certificate: Option<&CertificateDer<'_>>,
) -> Result<Session, DialError> {
    let greeting = greet(alpn, certificate);
    let connection = connect(host, target, Kind::Session, greeting).await?;
    let peer = peer(&connection, ListenerKind::Quic, None);
    Ok(Session::memory(SessionEnd(connection), peer, alpn.to_vec()))
}

/// Dials as TCP does.
pub(super) async fn dial_stream(host: &Host, target: SocketAddr) -> Result<Stream, DialError> {
    let connection = connect(host, target, Kind::Stream, Bytes::new()).await?;
    Ok(SessionEnd(connection).accept().await?)
}

async fn connect(
    host: &Host,
    target: SocketAddr,
    kind: Kind,
    greeting: Bytes,
) -> Result<Connection, DialError> {
    let connected = host.connect(target, kind, greeting).await;
    connected.map_err(|error| match error {
        ConnectError::Io(source) => DialError::Socket(source),
        ConnectError::Closed(Closed::Refused) => DialError::Socket(io::ErrorKind::ConnectionRefused.into()),
        ConnectError::Closed(closed) => DialError::Session(closed.into()),
    })
}

fn peer(connection: &Connection, listener: ListenerKind, certificate: Option<Arc<CertificateFacts>>) -> Peer {
    Peer {
        address: connection.remote_address(),
        certificate,
        node: None,
        transport: Carrier::Memory,
        listener,
    }
}

/// What a handshake would tell the other side: the protocol, and the certificate shown, if any.
fn greet(alpn: &[u8], certificate: Option<&CertificateDer<'_>>) -> Bytes {
    let mut greeting = BytesMut::new();
    greeting.put_u8(u8::try_from(alpn.len()).expect("our protocols have short names"));
    greeting.put_slice(alpn);
    greeting.put_slice(certificate.map(AsRef::as_ref).unwrap_or_default());
    greeting.freeze()
}

fn understand(greeting: &[u8]) -> (Vec<u8>, Option<Arc<CertificateFacts>>) {
    let (length, rest) = greeting.split_first().unwrap_or((&0, &[]));
    let (alpn, certificate) = rest.split_at_checked(usize::from(*length)).unwrap_or_default();
    let facts = CertificateFacts::read(&CertificateDer::from(certificate));
    (alpn.to_vec(), facts.ok().map(Arc::new))
}

impl From<Closed> for SessionError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Here => Self::ClosedHere,
            Closed::There { code, reason } => Self::ClosedThere {
                code: code.into(),
                reason,
            },
            Closed::Refused => Self::Lost("refused".to_owned()),
            Closed::Lost(reason) => Self::Lost(reason.to_owned()),
        }
    }
}

/// One end of a session in memory.
#[derive(Clone, Debug)]
pub struct SessionEnd(Connection);

impl SessionEnd {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.is_same(&other.0)
    }

    pub(super) async fn accept(&self) -> Result<Stream, SessionError> {
        Ok(stream(self.0.accept().await?))
    }

    pub(super) async fn open(&self) -> Result<Stream, SessionError> {
        Ok(stream(self.0.open().await?))
    }

    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        self.0.close(code.value(), reason);
    }

    pub(super) async fn closed(&self) -> SessionError {
        self.0.closed().await.into()
    }

    pub(super) fn stats(&self) -> SessionStats {
        SessionStats::default()
    }
}

fn stream((receiver, sender): (Receiver, Sender)) -> Stream {
    Stream {
        reader: ReadHalf::Memory(Reader(receiver)),
        writer: WriteHalf::Memory(Writer(sender)),
    }
}

/// The reading end of a pipe.
#[derive(Debug)]
pub struct Reader(Receiver);

/// The writing end of a pipe. Dropping it ends the pipe cleanly.
#[derive(Debug)]
pub struct Writer(Sender);

impl Writer {
    pub(super) fn reset(&self) {
        self.0.reset();
    }

    /// Returns when the other side has everything, the end included.
    pub(super) async fn delivered(&self) -> io::Result<()> {
        self.0.delivered().await
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
