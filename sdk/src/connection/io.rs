//! The two tasks of a connection: one writes frames, one reads answers and hands them to whom they belong.
//!
//! Owns both halves of the stream and the order between them. It must never look into a frame beyond its
//! correlation id, nor reserve memory for a frame whose length it has not checked.

use std::io::{self, IoSlice};
use std::sync::{Arc, OnceLock};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use headwater_protocol::frame::{self, PREFIX_BYTES};
use headwater_protocol::kafka::ApiKey;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Frames written by one call when several wait.
const FRAMES_PER_WRITE: usize = 64;
/// Slices handed to the kernel at once.
const SLICES_PER_WRITE: usize = 64;
/// What is read ahead of the frame at hand; a larger frame is read straight into its own memory.
const READ_BUFFER_BYTES: usize = 32 * 1024;
const CORRELATION_BYTES: usize = 4;

/// Why a connection ended.
#[derive(Debug, Clone, Error)]
pub enum CloseReason {
    #[error("it was closed here")]
    ByUs,
    #[error("the broker closed it")]
    EndOfStream,
    #[error(transparent)]
    Io(Arc<io::Error>),
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
    #[error("the answer to {api:?} was late, and those behind it with it")]
    Late { api: ApiKey },
    #[error("the answer to {api:?} was unreadable")]
    Unreadable { api: ApiKey },
    #[error("the broker refused early data")]
    EarlyDataRefused,
}

/// The end of a connection: told once, by whoever sees it first.
///
/// - The reason is set before the token is cancelled, unless the token's parent was cancelled: then there
///   is none, and it was us.
pub(super) struct Closing {
    token: CancellationToken,
    reason: OnceLock<CloseReason>,
}

impl Closing {
    pub(super) fn new(token: CancellationToken) -> Self {
        Self {
            token,
            reason: OnceLock::new(),
        }
    }

    pub(super) fn close(&self, reason: CloseReason) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub(super) fn is_closed(&self) -> bool {
        self.token.is_cancelled()
    }

    pub(super) fn reason(&self) -> Option<CloseReason> {
        self.is_closed()
            .then(|| self.reason.get().cloned().unwrap_or(CloseReason::ByUs))
    }

    pub(super) async fn closed(&self) -> CloseReason {
        self.token.cancelled().await;
        self.reason.get().cloned().unwrap_or(CloseReason::ByUs)
    }
}

/// A frame on its way out.
pub(super) struct Outgoing {
    pub(super) frame: Vec<Bytes>,
    pub(super) correlation_id: i32,
    /// `None` when the broker does not answer.
    pub(super) reply: Option<oneshot::Sender<Bytes>>,
    /// Its share of the bytes in flight, given back with the answer.
    pub(super) permit: OwnedSemaphorePermit,
}

/// An answer that is to come.
pub(super) struct Expected {
    correlation_id: i32,
    reply: oneshot::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
}

/// Where frames go.
pub(crate) enum Sink {
    /// Takes slices without copying them.
    Quic(quinn::SendStream),
    Bytes(Box<dyn AsyncWrite + Send + Unpin>),
}

impl Sink {
    async fn write(&mut self, slices: &mut [Bytes]) -> io::Result<()> {
        match self {
            Self::Quic(stream) => stream.write_all_chunks(slices).await.map_err(io::Error::from),
            Self::Bytes(writer) => {
                write_vectored(writer, slices).await?;
                writer.flush().await
            }
        }
    }

    async fn finish(&mut self) {
        // The other side may be gone already; there is nobody left to tell.
        match self {
            Self::Quic(stream) => drop(stream.finish()),
            Self::Bytes(writer) => drop(writer.shutdown().await),
        }
    }
}

async fn write_vectored(
    writer: &mut (dyn AsyncWrite + Send + Unpin),
    mut slices: &mut [Bytes],
) -> io::Result<()> {
    while !slices.is_empty() {
        let mut gathered = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let count = slices.len().min(SLICES_PER_WRITE);
        for (to, from) in gathered.iter_mut().zip(slices.iter()) {
            *to = IoSlice::new(from);
        }
        let mut written = writer.write_vectored(&gathered[..count]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = slices.first_mut() {
            if written < first.len() {
                first.advance(written);
                break;
            }
            written -= first.len();
            slices = &mut slices[1..];
        }
    }
    Ok(())
}

/// Writes frames in the order of the queue until the connection ends.
pub(super) async fn write(
    mut sink: Sink,
    mut queue: mpsc::Receiver<Outgoing>,
    expect: mpsc::Sender<Expected>,
    closing: Arc<Closing>,
) {
    let mut batch = Vec::with_capacity(FRAMES_PER_WRITE);
    let mut slices = Vec::with_capacity(2 * FRAMES_PER_WRITE);
    let writing = async {
        while queue.recv_many(&mut batch, FRAMES_PER_WRITE).await > 0 {
            for outgoing in batch.drain(..) {
                let Outgoing {
                    frame,
                    correlation_id,
                    reply,
                    permit,
                } = outgoing;
                slices.extend(frame);
                let Some(reply) = reply else { continue };
                // Told before the bytes leave, so the reader knows every answer that can come. When the
                // channel is full the answers that are due make room.
                if expect
                    .send(Expected {
                        correlation_id,
                        reply,
                        _permit: permit,
                    })
                    .await
                    .is_err()
                {
                    return Ok(());
                }
            }
            sink.write(&mut slices).await?;
            slices.clear();
        }
        Ok(())
    };
    let ended = tokio::select! {
        biased;
        () = closing.token().cancelled() => Ok(()),
        ended = writing => ended,
    };
    match ended {
        Ok(()) => closing.close(CloseReason::ByUs),
        Err(error) => closing.close(CloseReason::Io(Arc::new(error))),
    }
    sink.finish().await;
}

/// Reads answers until the connection ends. Those that are still expected then are dropped, which fails
/// their callers.
pub(super) async fn read<R>(
    mut reader: R,
    mut expected: mpsc::Receiver<Expected>,
    frame_bytes_max: usize,
    closing: Arc<Closing>,
) where
    R: AsyncRead + Send + Unpin,
{
    let mut buffer = BytesMut::with_capacity(READ_BUFFER_BYTES);
    let reading = async {
        loop {
            let frame = match read_frame(&mut reader, &mut buffer, frame_bytes_max).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return CloseReason::EndOfStream,
                Err(error) => return CloseReason::Io(Arc::new(error)),
            };
            let Some(correlation) = frame.first_chunk::<CORRELATION_BYTES>() else {
                return CloseReason::Protocol(format!("an answer of {} bytes", frame.len()));
            };
            let Ok(next) = expected.try_recv() else {
                return CloseReason::Protocol("an answer that nobody asked for".to_owned());
            };
            let correlation = i32::from_be_bytes(*correlation);
            if correlation != next.correlation_id {
                let due = next.correlation_id;
                return CloseReason::Protocol(format!("answer {correlation} came when {due} was due"));
            }
            // Nobody may wait any more; that is normal.
            let _ = next.reply.send(frame);
        }
    };
    tokio::select! {
        biased;
        () = closing.token().cancelled() => {}
        reason = reading => closing.close(reason),
    }
}

/// The next frame without its length, in memory of its own; `None` when the stream ends between frames.
async fn read_frame<R>(reader: &mut R, buffer: &mut BytesMut, max: usize) -> io::Result<Option<Bytes>>
where
    R: AsyncRead + Send + Unpin,
{
    let length = loop {
        if let Some(length) = frame::peek_length(buffer, max).map_err(io::Error::other)? {
            break length;
        }
        buffer.reserve(READ_BUFFER_BYTES);
        if reader.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
    };
    buffer.advance(PREFIX_BYTES);
    let at_hand = length.min(buffer.len());
    let mut frame = BytesMut::with_capacity(length);
    frame.extend_from_slice(&buffer[..at_hand]);
    buffer.advance(at_hand);
    while frame.len() < length {
        let missing = length - frame.len();
        if reader.read_buf(&mut (&mut frame).limit(missing)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(frame.freeze()))
}
