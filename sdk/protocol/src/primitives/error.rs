//! Why a message could not be read or written.
//!
//! Owns the two error types of the codec. They carry facts, never input bytes.

use thiserror::Error;

/// The bytes are not a message of the expected kind and version.
///
/// Always the sender's fault and never worth a retry: a server closes the connection (it can no longer tell
/// where it stands in the stream of requests), a client gives the broker up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{what} at byte {offset}: {kind}")]
pub struct DecodeError {
    /// The field that was being read.
    pub what: &'static str,
    /// Where in the message the field begins, counted from the reader's first byte.
    pub offset: usize,
    pub kind: DecodeErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeErrorKind {
    #[error("needs {needed} bytes, {remaining} remain")]
    Truncated { needed: usize, remaining: usize },
    #[error("claims {count} elements, {remaining} bytes remain")]
    Count { count: usize, remaining: usize },
    #[error("has the negative length {0}")]
    NegativeLength(i32),
    #[error("is null where this version allows no null")]
    Null,
    #[error("is not valid UTF-8")]
    Utf8,
    #[error("is a varint longer than 32 bits")]
    Varint,
    #[error("decodes to more memory than a message of {message_bytes} bytes may take")]
    Memory { message_bytes: usize },
    #[error("is followed by {0} unexpected bytes")]
    Trailing(usize),
}

/// The message cannot be written in the wanted version.
///
/// The fault of whoever built the message: a value that the version does not carry, or one too long for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{what} {kind}")]
pub struct EncodeError {
    /// The field that was being written.
    pub what: &'static str,
    pub kind: EncodeErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeErrorKind {
    #[error("of {length} is longer than the format's {max}")]
    TooLong { length: usize, max: usize },
    #[error("is null where this version allows no null")]
    Null,
    #[error("is set but version {0} does not carry it")]
    NotInVersion(i16),
    #[error("are set but this version carries no tagged fields")]
    NotFlexible,
    #[error("uses tag {0} twice")]
    DuplicateTag(u32),
}
