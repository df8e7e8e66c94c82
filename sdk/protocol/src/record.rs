//! Record batches of the Kafka format v2: the one format on the wire, in memory and on disk.
//!
//! Owns the layout of a batch, its checksum and its codecs. It looks at records only when asked to: the
//! append path reads 61 bytes and one checksum, and hands the rest on as the same `Bytes`.
//! It must never trust a length, allocate by a number it was sent, or panic on any input.
//!
//! ```text
//!  0 base offset        i64 | 12 leader epoch i32 | 16 magic i8 = 2   | 17 crc32c u32 of bytes 21..
//!  8 length after it    i32 |                     |                   |
//! 21 attributes i16 | 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64
//! 43 producer id i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```

mod aborted;
mod batch;
mod builder;
mod compression;
mod control;
mod header;
mod rewrite;
mod varint;
mod walk;
mod xerial;

pub use aborted::Aborted;
pub use batch::{BatchView, Batches, RECORDS_BYTES_MAX};
pub use builder::{BatchBuilder, BatchOptions, HeaderRef, NewRecord, ProducerStamp};
pub use compression::Compression;
pub use control::{ControlKind, EndTransaction};
pub use header::{BatchHeader, CRC_COVERS_FROM, HEADER_BYTES, LENGTH_PREFIX_BYTES, TimestampType};
pub use rewrite::{Rewriter, emptied, filler};
pub use walk::{Header, Headers, OwnedRecords, Record, RecordIter, RecordRef, Records};

/// Why bytes are not a batch this crate accepts.
///
/// All are the sender's fault, save [`Error::Incomplete`], which at the end of a fetched range only means
/// that the range was cut there. None is worth a retry with the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("batch is cut short: {needed} bytes needed, {available} there")]
    Incomplete { needed: usize, available: usize },
    #[error("message format v{magic} is not supported, only record batches v2 are")]
    UnsupportedMagic { magic: i8 },
    #[error("batch length {length} is impossible")]
    InvalidLength { length: i32 },
    #[error("batch checksum is {actual:#010x}, its bytes give {expected:#010x}")]
    Checksum { expected: u32, actual: u32 },
    #[error("compression code {code} is unknown")]
    UnknownCompression { code: u8 },
    #[error("{codec} data is corrupt: {reason}")]
    Corrupt { codec: &'static str, reason: String },
    #[error("records take more than {limit} bytes uncompressed")]
    TooLarge { limit: usize },
    #[error("record batch is malformed: {reason}")]
    Malformed { reason: &'static str },
}

impl Error {
    const fn malformed(reason: &'static str) -> Self {
        Self::Malformed { reason }
    }
}

/// The checksum of a batch: CRC-32C of everything after the checksum itself.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

#[cfg(test)]
mod tests;
