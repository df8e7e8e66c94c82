//! Framing: every Kafka message on a stream is preceded by its length, four bytes, big-endian.
//!
//! Owns the length prefix and its limits. It does no I/O and must never reserve memory for a frame whose
//! length it has not checked.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Size of the length in front of a frame.
pub const PREFIX_BYTES: usize = 4;

/// The stream cannot be followed any further; close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("a frame has the negative length {0}")]
    Negative(i32),
    #[error("a frame of {length} bytes is larger than the limit of {max}")]
    TooLarge { length: usize, max: usize },
}

/// What a buffer of received bytes begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A whole frame, without its length. It was taken from the buffer, not copied.
    Frame(Bytes),
    /// Part of a frame; at least this many bytes are missing. The buffer is as it was.
    Need(usize),
}

/// Takes the next frame of at most `max` bytes from the front of `buffer`.
///
/// Reserves nothing: a caller that wants the rest of the frame in one piece reserves what [`Next::Need`]
/// says, which never exceeds `max`, or less, as its memory budget allows.
pub fn next(buffer: &mut BytesMut, max: usize) -> Result<Next, FrameError> {
    let Some(length) = peek_length(buffer, max)? else {
        return Ok(Next::Need(PREFIX_BYTES - buffer.len()));
    };
    let whole = PREFIX_BYTES + length;
    if buffer.len() < whole {
        return Ok(Next::Need(whole - buffer.len()));
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Next::Frame(buffer.split_to(length).freeze()))
}

/// The length of the frame that `buffer` begins with, once its four bytes are there.
pub fn peek_length(buffer: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let signed = i32::from_be_bytes(*prefix);
    let length = usize::try_from(signed).map_err(|_| FrameError::Negative(signed))?;
    if length > max {
        Err(FrameError::TooLarge { length, max })
    } else {
        Ok(Some(length))
    }
}

/// The length that goes in front of a message of `length` bytes.
pub fn prefix(length: usize) -> Result<[u8; PREFIX_BYTES], FrameError> {
    match i32::try_from(length) {
        Ok(length) => Ok(length.to_be_bytes()),
        Err(_) => Err(FrameError::TooLarge {
            length,
            max: i32::MAX as usize,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_frames_one_after_the_other_however_the_bytes_arrive() {
        let stream = [
            &prefix(3).unwrap()[..],
            b"abc",
            &prefix(0).unwrap(),
            &prefix(2).unwrap(),
            b"de",
        ]
        .concat();
        for chunk in 1..=stream.len() {
            let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(chunk) {
                buffer.extend_from_slice(piece);
                while let Next::Frame(frame) = next(&mut buffer, 3).unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, [&b"abc"[..], b"", b"de"], "in chunks of {chunk}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn says_how_much_is_missing() {
        let check = |bytes: &[u8], expected| {
            let mut buffer = BytesMut::from(bytes);
            assert_eq!(next(&mut buffer, 1000), expected, "{bytes:?}");
        };
        check(b"", Ok(Next::Need(4)));
        check(&[0, 0, 1], Ok(Next::Need(1)));
        check(&[0, 0, 1, 0], Ok(Next::Need(256)));
        check(&[0, 0, 1, 0, 9, 9], Ok(Next::Need(254)));
        check(&[0xff, 0xff, 0xff, 0xfe], Err(FrameError::Negative(-2)));
        check(
            &[0, 0, 3, 0xe9],
            Err(FrameError::TooLarge {
                length: 1001,
                max: 1000,
            }),
        );
        check(
            &[0x7f, 0xff, 0xff, 0xff],
            Err(FrameError::TooLarge {
                length: i32::MAX as usize,
                max: 1000,
            }),
        );
    }
}
