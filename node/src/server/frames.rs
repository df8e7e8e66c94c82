//! Frames off a stream: many small ones from one read, a large one straight into memory of its own.
//!
//! Owns the bytes read and not yet taken. The length is checked before anything is reserved, and a large frame takes
//! its bytes from the shared budget first; it must never hold more than one unfinished frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use headwater_protocol::frame::{self, FrameError, Next, PREFIX_BYTES};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::sys::budget::{Budget, Permit};
use crate::sys::buffers::{Buffer, Buffers};

/// What is read at once; grows with what arrives, so that an idle connection costs little.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// A frame from this size on gets its own memory, and a permit for it.
const LARGE_BYTES: usize = 32 * 1024;

/// A whole request, without its length.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    /// What the frame took from the shared budget; small frames take nothing, their number is bounded.
    pub(super) permit: Option<Permit>,
}

/// What became of a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// There may be a frame now.
    More,
    /// The peer has ended the stream.
    End,
}

type Waiting = Pin<Box<dyn Future<Output = Permit> + Send>>;

/// The reading side of a connection.
pub(super) struct Frames {
    buffer: BytesMut,
    read_bytes: usize,
    large: Option<Large>,
    /// The frame before was large: the next one probably is too, so only its length is read at first, and its
    /// bytes need not be moved.
    after_large: bool,
    frame_bytes_max: usize,
    budget: Budget,
    buffers: Buffers,
}

/// A large frame on its way in.
struct Large {
    /// None before its first byte: while it waits for its share it holds nothing.
    bytes: Option<Buffer>,
    length: usize,
    permit: Granted,
}

impl Large {
    fn is_whole(&self) -> bool {
        self.bytes
            .as_ref()
            .is_some_and(|bytes| bytes.len() == self.length)
    }
}

enum Granted {
    Waiting(Waiting),
    Yes(Permit),
}

impl Frames {
    pub(super) fn new(frame_bytes_max: usize, budget: Budget, buffers: Buffers) -> Self {
        let buffer = BytesMut::new();
        Self {
            buffer,
            read_bytes: READ_BYTES_MIN,
            large: None,
            after_large: false,
            frame_bytes_max,
            budget,
            buffers,
        }
    }

    /// Takes the next whole frame, if it is here.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(large) = self.large.take_if(|large| large.is_whole()) {
            let (Some(bytes), Granted::Yes(permit)) = (large.bytes, large.permit) else {
                unreachable!("nothing is read before it is granted")
            };
            return Ok(Some(Frame {
                bytes: bytes.freeze(),
                permit: Some(permit),
            }));
        }
        if self.large.is_some() {
            return Ok(None);
        }
        match frame::next(&mut self.buffer, self.frame_bytes_max)? {
            Next::Frame(bytes) => {
                self.after_large = false;
                Ok(Some(Frame { bytes, permit: None }))
            }
            Next::Need(_) => {
                self.begin_large()?;
                Ok(None)
            }
        }
    }

    /// Whether a frame has begun whose rest holds memory of the shared budget.
    pub(super) fn holds_budget(&self) -> bool {
        self.large
            .as_ref()
            .is_some_and(|large| matches!(large.permit, Granted::Yes(_)))
    }

    /// Gives an unfinished frame that will be large its own memory.
    fn begin_large(&mut self) -> Result<(), FrameError> {
        let Some(length) = frame::peek_length(&self.buffer, self.frame_bytes_max)? else {
            return Ok(());
        };
        if length < LARGE_BYTES {
            return Ok(());
        }
        let permit = match self.budget.try_acquire(length) {
            Some(permit) => Granted::Yes(permit),
            None => {
                let budget = self.budget.clone();
                Granted::Waiting(Box::pin(async move { budget.acquire(length).await }))
            }
        };
        self.large = Some(Large {
            bytes: None,
            length,
            permit,
        });
        Ok(())
    }

    /// Reads once, waiting if nothing is there. Reading further than one unfinished frame is the caller's choice:
    /// he calls again before he has taken the frames.
    pub(super) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Fill>> {
        let read = match &mut self.large {
            Some(large) => {
                if let Granted::Waiting(waiting) = &mut large.permit {
                    large.permit = Granted::Yes(ready!(waiting.as_mut().poll(cx)));
                }
                let bytes = match &mut large.bytes {
                    Some(bytes) => bytes,
                    none => {
                        let bytes = none.insert(self.buffers.take(large.length));
                        bytes.extend_from_slice(&self.buffer[PREFIX_BYTES..]);
                        self.buffer.clear();
                        self.after_large = true;
                        bytes
                    }
                };
                let rest = large.length - bytes.len();
                if rest == 0 {
                    // Whole and not taken yet: whoever takes it comes back.
                    return Poll::Pending;
                }
                ready!(poll_read_buf(
                    Pin::new(reader),
                    cx,
                    &mut (&mut **bytes).limit(rest)
                ))?
            }
            None => ready!(self.poll_small(reader, cx))?,
        };
        Poll::Ready(Ok(if read == 0 { Fill::End } else { Fill::More }))
    }

    fn poll_small<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.len() >= READ_BYTES_MAX {
            // Full of frames that are not taken yet: whoever takes one comes back.
            return Poll::Pending;
        }
        if self.after_large && self.buffer.len() < PREFIX_BYTES {
            let rest = PREFIX_BYTES - self.buffer.len();
            self.buffer.reserve(rest);
            return poll_read_buf(Pin::new(reader), cx, &mut (&mut self.buffer).limit(rest));
        }
        // The rest of a frame that is not large fits without moving it twice.
        let unfinished = frame::peek_length(&self.buffer, self.frame_bytes_max)
            .ok()
            .flatten();
        let missing = unfinished.map_or(0, |length| {
            (length + PREFIX_BYTES).saturating_sub(self.buffer.len())
        });
        let room = self.read_bytes.max(missing.min(LARGE_BYTES));
        self.buffer.reserve(room);
        let read = ready!(poll_read_buf(
            Pin::new(reader),
            cx,
            &mut (&mut self.buffer).limit(room)
        ))?;
        if read == room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if read < self.read_bytes / 8 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Poll::Ready(Ok(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn frames_of(stream: &[u8], chunk: usize, max: usize) -> Result<Vec<Bytes>, FrameError> {
        let (mut near, mut far) = tokio::io::duplex(chunk);
        let stream = stream.to_vec();
        let write = async move {
            use tokio::io::AsyncWriteExt;
            // The reader may stop at a broken frame.
            let _ = near.write_all(&stream).await;
        };
        let read = async move {
            let mut frames = Frames::new(max, Budget::new(1 << 20), Buffers::new(1 << 20));
            let mut found = Vec::new();
            loop {
                while let Some(frame) = frames.next()? {
                    assert_eq!(
                        frame.permit.is_some(),
                        frame.bytes.len() >= LARGE_BYTES && chunk < LARGE_BYTES
                    );
                    found.push(frame.bytes);
                }
                if poll_fn(|cx| frames.poll_fill(&mut far, cx)).await.unwrap() == Fill::End {
                    return Ok(found);
                }
            }
        };
        tokio::join!(write, read).1
    }

    #[tokio::test]
    async fn every_size_comes_through_every_cut() {
        let sizes = [
            0, 1, 100, 4_000, 70_000, 33_000, 90_000, 5, 32_768, 32_767, 50_000, 50_000, 0, 8,
        ];
        let mut stream = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            stream.extend_from_slice(&frame::prefix(*size).unwrap());
            stream.extend(std::iter::repeat_n(i as u8, *size));
        }
        for chunk in [7, 1000, 4096, 30_000] {
            let found = frames_of(&stream, chunk, 1 << 20).await.unwrap();
            assert_eq!(
                found.iter().map(Bytes::len).collect::<Vec<_>>(),
                sizes,
                "in chunks of {chunk}"
            );
            for (i, frame) in found.iter().enumerate() {
                assert!(frame.iter().all(|byte| *byte == i as u8));
            }
        }
    }

    #[tokio::test]
    async fn a_length_above_the_limit_reserves_nothing() {
        for (prefix, error) in [
            (
                i32::MAX,
                FrameError::TooLarge {
                    length: i32::MAX as usize,
                    max: 1000,
                },
            ),
            (
                1001,
                FrameError::TooLarge {
                    length: 1001,
                    max: 1000,
                },
            ),
            (-1, FrameError::Negative(-1)),
        ] {
            assert_eq!(frames_of(&prefix.to_be_bytes(), 64, 1000).await, Err(error));
        }
    }

    #[tokio::test]
    async fn a_large_frame_waits_for_its_share() {
        let budget = Budget::new(100_000);
        let taken = budget.try_acquire(60_000).unwrap();
        let mut frames = Frames::new(1 << 20, budget.clone(), Buffers::new(1 << 20));
        let mut stream = frame::prefix(50_000).unwrap().to_vec();
        stream.resize(50_004, 1);
        let mut reader = stream.as_slice();
        assert_eq!(
            poll_fn(|cx| frames.poll_fill(&mut reader, cx)).await.unwrap(),
            Fill::More
        );
        assert!(frames.next().unwrap().is_none());
        let mut fill = std::pin::pin!(poll_fn(|cx| frames.poll_fill(&mut reader, cx)));
        assert!(futures_util::poll!(fill.as_mut()).is_pending());
        drop(taken);
        assert_eq!(fill.await.unwrap(), Fill::More);
        loop {
            if let Some(frame) = frames.next().unwrap() {
                assert_eq!((frame.bytes.len(), budget.available()), (50_000, 50_000));
                return;
            }
            assert_eq!(
                poll_fn(|cx| frames.poll_fill(&mut reader, cx)).await.unwrap(),
                Fill::More
            );
        }
    }
}
