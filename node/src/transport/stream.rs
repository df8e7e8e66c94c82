//! One ordered stream of bytes in each direction, whatever carries it.
//!
//! Owns the halves. `finish` ends a direction cleanly, `reset` and dropping both halves breaks it; a write half that is
//! dropped without either may look like one or the other. It must never buffer: what
//! `write_buffers` has taken is with the kernel or in QUIC's bounded send window.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;
use futures_util::future::Shared;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::TlsStream;

use super::{CloseCode, memory};

/// A bidirectional stream. Both halves can be moved apart.
#[derive(Debug)]
pub struct Stream {
    pub reader: ReadHalf,
    pub writer: WriteHalf,
}

impl Stream {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: ReadHalf::Tcp(reader),
            writer: WriteHalf::Tcp(writer),
        }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: ReadHalf::Tls(reader),
            writer: WriteHalf::Tls(writer),
        }
    }

    pub(super) fn quic(
        (writer, reader): (quinn::SendStream, quinn::RecvStream),
        handshake: Option<&HandshakeOver>,
    ) -> Self {
        let early = handshake.filter(|_| reader.is_0rtt()).cloned();
        Self {
            reader: ReadHalf::Quic(reader, early),
            writer: WriteHalf::Quic(writer),
        }
    }
}

/// Resolves when the handshake is over: what came before it is then no replay. Cheap to clone.
#[derive(Clone)]
pub struct HandshakeOver(Shared<quinn::ZeroRttAccepted>);

impl HandshakeOver {
    pub(super) fn new(accepted: quinn::ZeroRttAccepted) -> Self {
        Self(accepted.shared())
    }

    pub async fn wait(self) {
        self.0.await;
    }
}

impl std::fmt::Debug for HandshakeOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HandshakeOver").field(&self.0.peek()).finish()
    }
}

/// The bytes that come in. End of file means that the peer finished cleanly.
#[derive(Debug)]
pub enum ReadHalf {
    Tcp(OwnedReadHalf),
    Tls(tokio::io::ReadHalf<TlsStream<TcpStream>>),
    Quic(quinn::RecvStream, Option<HandshakeOver>),
    Memory(memory::Reader),
}

impl ReadHalf {
    /// Set when the stream began before the handshake was over: until then, its bytes may be a replay.
    pub fn early(&self) -> Option<HandshakeOver> {
        match self {
            Self::Quic(_, early) => early.clone(),
            Self::Tcp(_) | Self::Tls(_) | Self::Memory(_) => None,
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Tls(half) => Pin::new(half).poll_read(cx, buf),
            Self::Quic(half, _) => AsyncRead::poll_read(Pin::new(half), cx, buf),
            Self::Memory(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

/// The bytes that go out.
#[derive(Debug)]
pub enum WriteHalf {
    Tcp(OwnedWriteHalf),
    Tls(tokio::io::WriteHalf<TlsStream<TcpStream>>),
    Quic(quinn::SendStream),
    Memory(memory::Writer),
}

/// As many buffers as one system call takes from us.
const SLICES_MAX: usize = 64;

impl WriteHalf {
    /// Writes all buffers in order, with as few system calls as the carrier allows; QUIC takes the bytes as they
    /// are, without a copy. Leaves `buffers` empty. When the future is dropped, some of the bytes have been written
    /// and the stream is of no more use.
    pub async fn write_buffers(&mut self, buffers: &mut Vec<Bytes>) -> io::Result<()> {
        let written = match self {
            Self::Quic(stream) => stream.write_all_chunks(buffers).await.map_err(io::Error::from),
            Self::Tcp(half) => write_slices(half, buffers).await,
            Self::Tls(half) => match write_slices(half, buffers).await {
                Ok(()) => half.flush().await,
                failed => failed,
            },
            Self::Memory(half) => write_slices(half, buffers).await,
        };
        buffers.clear();
        written
    }

    /// Ends this direction cleanly: the peer reads everything written before, then end of file. Over QUIC it returns
    /// when the peer has acknowledged all of it: a session that is closed before takes what is on its way along.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.shutdown().await?;
        match self {
            Self::Quic(stream) => stream.stopped().await.map(drop).map_err(io::Error::from),
            Self::Memory(half) => half.delivered().await,
            Self::Tcp(_) | Self::Tls(_) => Ok(()),
        }
    }

    /// Breaks this direction: the peer's reads fail, now or after what is already on its way. Over TCP the peer
    /// learns of it when the read half is dropped too.
    pub fn reset(self, code: CloseCode) {
        match self {
            Self::Quic(mut stream) => {
                // Already finished or reset: there is nothing left to break.
                let _ = stream.reset(code.value().into());
            }
            Self::Tcp(half) => {
                // Closing sends a reset in place of what is still queued, and no end before it.
                let _ = half.as_ref().set_zero_linger();
                half.forget();
            }
            // TLS has no reset of its own: an end without a close notification is an error to the reader.
            Self::Tls(_) => {}
            Self::Memory(half) => half.reset(),
        }
    }

    /// On QUIC, streams of a higher priority send first; elsewhere it means nothing.
    pub fn set_priority(&mut self, priority: i32) {
        if let Self::Quic(stream) = self {
            // A closed stream sends nothing, at any priority.
            let _ = stream.set_priority(priority);
        }
    }
}

async fn write_slices<W: AsyncWrite + Unpin>(writer: &mut W, buffers: &mut [Bytes]) -> io::Result<()> {
    let mut first = 0;
    loop {
        while buffers.get(first).is_some_and(Bytes::is_empty) {
            first += 1;
        }
        let Some(rest) = buffers.get_mut(first..).filter(|rest| !rest.is_empty()) else {
            return Ok(());
        };
        let mut written = if let [only] = rest {
            writer.write(only).await?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = rest.len().min(SLICES_MAX);
            for (slice, buffer) in slices.iter_mut().zip(rest.iter()) {
                *slice = IoSlice::new(buffer);
            }
            writer.write_vectored(&slices[..count]).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        for buffer in rest {
            let taken = written.min(buffer.len());
            buffer.advance(taken);
            written -= taken;
            if written == 0 {
                break;
            }
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write(cx, buf),
            Self::Tls(half) => Pin::new(half).poll_write(cx, buf),
            Self::Quic(half) => AsyncWrite::poll_write(Pin::new(half), cx, buf),
            Self::Memory(half) => Pin::new(half).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write_vectored(cx, bufs),
            Self::Tls(half) => Pin::new(half).poll_write_vectored(cx, bufs),
            Self::Quic(half) => Pin::new(half).poll_write_vectored(cx, bufs),
            Self::Memory(half) => Pin::new(half).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(half) => half.is_write_vectored(),
            Self::Tls(half) => half.is_write_vectored(),
            Self::Quic(half) => half.is_write_vectored(),
            Self::Memory(half) => half.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_flush(cx),
            Self::Tls(half) => Pin::new(half).poll_flush(cx),
            Self::Quic(half) => Pin::new(half).poll_flush(cx),
            Self::Memory(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Self::Tls(half) => Pin::new(half).poll_shutdown(cx),
            Self::Quic(half) => Pin::new(half).poll_shutdown(cx),
            Self::Memory(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}
