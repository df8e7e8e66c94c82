//! The frames of a stream of calls: a length, the number of the call, a byte, the body.
//!
//! ```text
//! request  length u32 | id u64 | 0           | body
//! answer   length u32 | id u64 | 0 ok, 1 not | body, or the reason as text
//! ```
//! Big-endian; the length counts what follows it. Pure, but for reading from a stream.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest body. A snapshot travels in pieces, a change is far smaller.
pub(super) const BODY_BYTES_MAX: usize = 32 << 20;
const HEAD_BYTES: usize = 4 + 8 + 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: u64,
    pub(super) mark: u8,
    pub(super) body: Bytes,
}

pub(super) const OK: u8 = 0;
pub(super) const FAILED: u8 = 1;

impl Frame {
    /// The frame as it is sent: its head, and the body as it is.
    pub(super) fn encode(self) -> [Bytes; 2] {
        let mut head = BytesMut::with_capacity(HEAD_BYTES);
        let length = u32::try_from(self.body.len() + HEAD_BYTES - 4).expect("bodies are bounded");
        head.put_u32(length);
        head.put_u64(self.id);
        head.put_u8(self.mark);
        [head.freeze(), self.body]
    }

    /// The next frame; None: the stream ended in order. Not cancel safe: whoever reads does nothing else.
    pub(super) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD_BYTES];
        if reader.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        reader.read_exact(&mut head[1..]).await?;
        let mut fields = &head[..];
        let length = fields.get_u32() as usize;
        let (id, mark) = (fields.get_u64(), fields.get_u8());
        let bytes = length.checked_sub(HEAD_BYTES - 4);
        let bytes = bytes.filter(|bytes| *bytes <= BODY_BYTES_MAX).ok_or_else(|| {
            let reason = format!("a frame of {length} bytes");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
        let mut body = BytesMut::with_capacity(bytes.min(1 << 20));
        while body.len() < bytes {
            let missing = bytes - body.len();
            if (&mut *reader).take(missing as u64).read_buf(&mut body).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some(Self {
            id,
            mark,
            body: body.freeze(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_as_they_were_written() {
        let frame = Frame {
            id: 7,
            mark: FAILED,
            body: Bytes::from_static(b"why"),
        };
        let bytes = frame.clone().encode().concat();
        assert_eq!(bytes, b"\0\0\0\x0c\0\0\0\0\0\0\0\x07\x01why");
        let mut two = &[&bytes[..], &bytes[..]].concat()[..];
        for expected in [Some(frame.clone()), Some(frame), None] {
            assert_eq!(Frame::read(&mut two).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_length_out_of_bounds_is_refused_and_a_cut_frame_is_no_end() {
        for (bytes, kind) in [
            (&[0xff; 13][..], io::ErrorKind::InvalidData),
            (b"\0\0\0\x02\0\0\0\0\0\0\0\x07\x01", io::ErrorKind::InvalidData),
            (b"\0\0\0\x0c\0\0\0\0\0\0\0\x07\x01w", io::ErrorKind::UnexpectedEof),
            (b"\0\0", io::ErrorKind::UnexpectedEof),
        ] {
            let read = Frame::read(&mut &bytes[..]).await;
            assert_eq!(read.unwrap_err().kind(), kind, "{bytes:?}");
        }
    }
}
