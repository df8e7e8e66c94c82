//! Snappy as Kafka uses it: blocks behind the header the Java library xerial writes.
//! Owns that framing. Must never believe a block's claimed size before it is bounded.
//!
//! ```text
//! 0x82 "SNAPPY" 0x00 | version i32 | compatible version i32 | (length i32 | raw snappy block)*
//! ```
//! Some producers send one raw block without the header; that is read too.

use super::{Compression, Error};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const VERSION: i32 = 1;
const HEADER_BYTES: usize = 16;
const BLOCK_BYTES: usize = 32 << 10;
/// Snappy's densest form copies 64 bytes by 3; more than this is a lie.
const EXPANSION_MAX: usize = 64;

pub(super) fn compress(
    encoder: &mut snap::raw::Encoder,
    input: &[u8],
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    for block in input.chunks(BLOCK_BYTES) {
        let length_at = out.len();
        out.resize(length_at + 4 + snap::raw::max_compress_len(block.len()), 0);
        let written = encoder.compress(block, &mut out[length_at + 4..])?;
        let length = i32::try_from(written).expect("a block of 32 KiB stays far below 2 GiB");
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
        out.truncate(length_at + 4 + written);
    }
    Ok(())
}

pub(super) fn decompress(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    if !input.starts_with(&MAGIC) {
        append_block(input, bytes_max, &mut out)?;
        return Ok(out);
    }
    let mut rest = input
        .get(HEADER_BYTES..)
        .ok_or_else(|| corrupt("the framing header is cut short"))?;
    while !rest.is_empty() {
        let (length, after) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| corrupt("a block length is cut"))?;
        let length = usize::try_from(i32::from_be_bytes(*length))
            .map_err(|_| corrupt("a block length is negative"))?;
        let (block, after) = after
            .split_at_checked(length)
            .ok_or_else(|| corrupt("a block length passes the end"))?;
        append_block(block, bytes_max, &mut out)?;
        rest = after;
    }
    Ok(out)
}

fn append_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    let claimed = snap::raw::decompress_len(block).map_err(corrupt)?;
    if claimed > bytes_max - out.len() {
        return Err(Error::TooLarge { limit: bytes_max });
    }
    if claimed > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(corrupt("a block claims more than it can hold"));
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(corrupt)?;
    out.truncate(start + written);
    Ok(())
}

fn corrupt(reason: impl ToString) -> Error {
    Error::Corrupt {
        codec: Compression::Snappy.name(),
        reason: reason.to_string(),
    }
}
