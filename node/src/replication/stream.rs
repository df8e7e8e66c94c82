//! The stream to a leader: frames out, frames in, each in its order.
//!
//! Owns both ends until one of them breaks or nobody sends any more. An answer takes its bytes from a budget before it is
//! read, so that what is not yet in the logs is bounded.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::frame::{PREFIX_BYTES, peek_length};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::Ends;
use crate::sys::budget::{Budget, Permit};
use crate::sys::buffers::Buffers;
use crate::sys::mailbox::{Mailbox, Sender, mailbox};
use crate::sys::task::{Kind, Tasks};

/// Requests that wait to be written, answers that wait to be looked at: as many as are on their way.
const WAITING_MAX: usize = 4;
/// An answer is as large as was asked for, or as one batch that is larger.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// A whole answer, and the share of memory it takes until everything in it is dealt with.
pub(super) struct Answer {
    pub(super) bytes: Bytes,
    pub(super) permit: Arc<Permit>,
}

/// An open stream. Dropped, it ends.
pub(super) struct Stream {
    requests: Sender<Vec<Bytes>>,
    answers: Mailbox<io::Result<Answer>>,
    closed: CancellationToken,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Stream {
    pub(super) fn new(ends: Ends, tasks: &Tasks, budget: Budget, buffers: Buffers) -> Self {
        let (requests, outbox) = mailbox(WAITING_MAX);
        let (inbox, answers) = mailbox(WAITING_MAX);
        let closed = tasks.cancelled().child_token();
        let cancelled = closed.clone();
        tasks.spawn("stream", Kind::BestEffort, async move {
            let write = write(ends.writer, outbox);
            let read = read(ends.reader, inbox.clone(), budget, buffers);
            let broken = tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                broken = read => broken,
                broken = write => broken,
            };
            // Nobody may be there to hear it.
            let _ = inbox.send(Err(broken)).await;
        });
        Self {
            requests,
            answers,
            closed,
        }
    }

    /// Queues a request. False: too many wait, or the stream is broken, which `answer` tells.
    pub(super) fn send(&self, request: Vec<Bytes>) -> bool {
        self.requests.try_send(request).is_ok()
    }

    /// The next answer. Cancel-safe.
    pub(super) async fn answer(&mut self) -> io::Result<Answer> {
        let answer = self.answers.recv().await;
        answer.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// Writes until something breaks, and tells what.
async fn write(
    mut writer: Box<dyn AsyncWrite + Send + Unpin>,
    mut requests: Mailbox<Vec<Bytes>>,
) -> io::Error {
    while let Some(request) = requests.recv().await {
        for buffer in request {
            if let Err(error) = writer.write_all(&buffer).await {
                return error;
            }
        }
        if let Err(error) = writer.flush().await {
            return error;
        }
    }
    io::ErrorKind::BrokenPipe.into()
}

/// Reads until something breaks, and tells what.
async fn read(
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    answers: Sender<io::Result<Answer>>,
    budget: Budget,
    buffers: Buffers,
) -> io::Error {
    loop {
        let answer = match next(&mut reader, &budget, &buffers).await {
            Ok(answer) => answer,
            Err(error) => return error,
        };
        if answers.send(Ok(answer)).await.is_err() {
            return io::ErrorKind::BrokenPipe.into();
        }
    }
}

async fn next(
    reader: &mut (impl AsyncRead + Unpin),
    budget: &Budget,
    buffers: &Buffers,
) -> io::Result<Answer> {
    let mut prefix = [0; PREFIX_BYTES];
    reader.read_exact(&mut prefix).await?;
    let length = peek_length(&prefix, FRAME_BYTES_MAX);
    let length = length.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let length = length.expect("four bytes say a length");
    let permit = Arc::new(budget.acquire(length.max(1)).await);
    let mut buffer = buffers.take(length);
    while buffer.len() < length {
        let rest = (length - buffer.len()) as u64;
        if (&mut *reader).take(rest).read_buf(&mut *buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let bytes = buffer.freeze();
    Ok(Answer { bytes, permit })
}
