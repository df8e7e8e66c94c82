//! Connections inside the process, for tests and the simulator: the same behaviour without a socket.
//!
//! Owns bounded pipes. A pipe that is full makes its writer wait, as a socket does; a reset breaks what is not yet
//! read, as QUIC does.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::stream::{ReadHalf, Stream, WriteHalf};
use super::{Carrier, CloseCode, Incoming, ListenerKind, Peer, Session, SessionError, SessionStats};
use crate::security::identity::CertificateFacts;

/// What one direction of a stream holds before its writer waits.
const PIPE_BYTES: usize = 64 * 1024;
/// Connections and streams that wait to be accepted; the opener waits beyond.
const WAITING_MAX: usize = 256;

/// Makes a listener and the connector that reaches it. `kind` decides which address clients are told.
pub fn listener(kind: ListenerKind) -> (Connector, Listener) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let connector = Connector {
        sender,
        kind,
        ports: Arc::new(AtomicU64::new(49_152)),
    };
    (connector, Listener { receiver, address })
}

/// The accepting side.
pub struct Listener {
    receiver: mpsc::Receiver<Incoming>,
    address: SocketAddr,
}

impl Listener {
    pub(super) async fn accept(&mut self) -> Option<Incoming> {
        self.receiver.recv().await
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The dialing side. When every clone is gone, the listener accepts no more.
#[derive(Clone)]
pub struct Connector {
    sender: mpsc::Sender<Incoming>,
    kind: ListenerKind,
    ports: Arc<AtomicU64>,
}

impl Connector {
    /// Connects as a TCP client does.
    pub async fn stream(&self) -> io::Result<Stream> {
        let (here, there) = pair(&CancellationToken::new());
        self.deliver(Incoming::Stream {
            stream: there,
            peer: self.peer(None),
        })
        .await?;
        Ok(here)
    }

    /// Connects as a QUIC client does, showing `certificate`.
    pub async fn session(&self, certificate: Option<CertificateFacts>) -> io::Result<Session> {
        let (here, there) = session_pair();
        let peer = self.peer(certificate.map(Arc::new));
        let alpn = crate::security::tls::ALPN_KAFKA.to_vec();
        self.deliver(Incoming::Session(Session::memory(
            there,
            peer.clone(),
            alpn.clone(),
        )))
        .await?;
        Ok(Session::memory(
            here,
            Peer {
                certificate: None,
                ..peer
            },
            alpn,
        ))
    }

    async fn deliver(&self, incoming: Incoming) -> io::Result<()> {
        self.sender
            .send(incoming)
            .await
            .map_err(|_| io::ErrorKind::ConnectionRefused.into())
    }

    fn peer(&self, certificate: Option<Arc<CertificateFacts>>) -> Peer {
        let port = self.ports.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(port % 16_384 + 49_152).expect("below 65,536");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Peer {
            address,
            certificate,
            node: None,
            transport: Carrier::Memory,
            listener: self.kind,
        }
    }
}

/// Two ends of one stream, which break when `closed` is cancelled.
pub fn pair(closed: &CancellationToken) -> (Stream, Stream) {
    let (writer_a, reader_b) = pipe(closed);
    let (writer_b, reader_a) = pipe(closed);
    let end = |reader, writer| Stream {
        reader: ReadHalf::Memory(reader),
        writer: WriteHalf::Memory(writer),
    };
    (end(reader_a, writer_a), end(reader_b, writer_b))
}

fn pipe(closed: &CancellationToken) -> (Writer, Reader) {
    let reset = Arc::new(AtomicBool::new(false));
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let broken = closed.child_token();
    let wait = || Box::pin(broken.clone().cancelled_owned());
    let writer = Writer {
        pipe: near,
        reset: Arc::clone(&reset),
        broken: broken.clone(),
        wait: wait(),
        _session: None,
    };
    let reader = Reader {
        pipe: far,
        reset,
        broken: broken.clone(),
        wait: wait(),
        _session: None,
    };
    (writer, reader)
}

/// The reading end of a pipe.
pub struct Reader {
    pipe: DuplexStream,
    /// The writer broke the pipe: what is in it is not read any more. When the session closes, it still is.
    reset: Arc<AtomicBool>,
    broken: CancellationToken,
    wait: Pin<Box<WaitForCancellationFutureOwned>>,
    _session: Option<Arc<CloseOnDrop>>,
}

/// The writing end of a pipe. Dropping it ends the pipe cleanly.
pub struct Writer {
    pipe: DuplexStream,
    /// The writer broke the pipe: what is in it is not read any more. When the session closes, it still is.
    reset: Arc<AtomicBool>,
    broken: CancellationToken,
    wait: Pin<Box<WaitForCancellationFutureOwned>>,
    _session: Option<Arc<CloseOnDrop>>,
}

impl Writer {
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Release);
        self.broken.cancel();
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.wait.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_broken = self.wait.as_mut().poll(cx).is_ready();
        let broken = || Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        if is_broken && self.reset.load(Ordering::Acquire) {
            return broken();
        }
        match Pin::new(&mut self.pipe).poll_read(cx, buf) {
            Poll::Pending if is_broken => broken(),
            read => read,
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_broken(cx)?;
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_broken(cx)?;
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_broken(cx)?;
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("broken", &self.broken.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("broken", &self.broken.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// Two ends of one session.
pub fn session_pair() -> (SessionEnd, SessionEnd) {
    let shared = Arc::new(Shared {
        closed: CancellationToken::new(),
        verdict: watch::Sender::new(None),
    });
    let (to_b, from_a) = mpsc::channel(WAITING_MAX);
    let (to_a, from_b) = mpsc::channel(WAITING_MAX);
    let end = |opened, incoming, side| SessionEnd {
        shared: Arc::clone(&shared),
        opened,
        incoming: Arc::new(Mutex::new(incoming)),
        side,
        guard: Arc::new(CloseOnDrop(Arc::clone(&shared))),
    };
    (end(to_b, from_b, 0), end(to_a, from_a, 1))
}

/// One end of a session in memory.
#[derive(Clone)]
pub struct SessionEnd {
    shared: Arc<Shared>,
    opened: mpsc::Sender<Stream>,
    incoming: Arc<Mutex<mpsc::Receiver<Stream>>>,
    side: u8,
    /// Held for its drop: with the last clone of this end and of its streams, the session closes.
    guard: Arc<CloseOnDrop>,
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(Verdict {
            side: u8::MAX,
            code: CloseCode::Done.value(),
            reason: String::new(),
        });
    }
}

struct Shared {
    closed: CancellationToken,
    verdict: watch::Sender<Option<Verdict>>,
}

/// Who closed, and what he said.
#[derive(Clone)]
struct Verdict {
    side: u8,
    code: u32,
    reason: String,
}

impl Shared {
    fn close(&self, verdict: Verdict) {
        self.verdict.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(verdict);
            }
            first
        });
        self.closed.cancel();
    }
}

impl SessionEnd {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && self.side == other.side
    }

    pub(super) async fn accept(&self) -> Result<Stream, SessionError> {
        let mut incoming = self.incoming.lock().await;
        tokio::select! {
            biased;
            () = self.shared.closed.cancelled() => Err(self.reason()),
            stream = incoming.recv() => stream.map(|s| self.keep_open(s)).ok_or(SessionError::ClosedHere),
        }
    }

    pub(super) async fn open(&self) -> Result<Stream, SessionError> {
        let (here, there) = pair(&self.shared.closed);
        tokio::select! {
            biased;
            () = self.shared.closed.cancelled() => Err(self.reason()),
            sent = self.opened.send(there) => {
                sent.map(|()| self.keep_open(here)).map_err(|_| SessionError::ClosedHere)
            }
        }
    }

    /// Makes a stream hold its session, as QUIC's do.
    fn keep_open(&self, mut stream: Stream) -> Stream {
        if let ReadHalf::Memory(reader) = &mut stream.reader {
            reader._session = Some(Arc::clone(&self.guard));
        }
        if let WriteHalf::Memory(writer) = &mut stream.writer {
            writer._session = Some(Arc::clone(&self.guard));
        }
        stream
    }

    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        self.shared.close(Verdict {
            side: self.side,
            code: code.value(),
            reason: reason.to_owned(),
        });
    }

    pub(super) async fn closed(&self) -> SessionError {
        self.shared.closed.cancelled().await;
        self.reason()
    }

    pub(super) fn stats(&self) -> SessionStats {
        SessionStats::default()
    }

    fn reason(&self) -> SessionError {
        match self.shared.verdict.borrow().clone() {
            Some(verdict) if verdict.side != self.side => SessionError::ClosedThere {
                code: verdict.code.into(),
                reason: verdict.reason,
            },
            _ => SessionError::ClosedHere,
        }
    }
}

impl std::fmt::Debug for SessionEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionEnd")
            .field("closed", &self.shared.closed.is_cancelled())
            .finish_non_exhaustive()
    }
}
