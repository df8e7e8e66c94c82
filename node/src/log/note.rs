//! A number of a log that is kept for the next start and nothing depends on: how far it was known to be committed, when it
//! was scrubbed, up to where it is compacted.
//!
//! Owns one small file for each, which is overwritten in place and mostly not synced. A damaged one is no number.

use std::io::{self, IoSlice};
use std::path::Path;

use headwater_protocol::record::crc32c;

use crate::sys::disk::{self, Disk, Open};

const FILE_BYTES: usize = 12;

/// Writes the number down. Not synced.
pub(super) fn write(disk: &dyn Disk, path: &Path, number: i64) -> io::Result<()> {
    let file = disk.open(path, Open::Create)?;
    file.write_at(0, &mut [IoSlice::new(&encode(number))])
}

/// Writes the number down, durably where the file has its name already.
pub(super) fn write_durably(disk: &dyn Disk, path: &Path, number: i64) -> io::Result<()> {
    let file = disk.open(path, Open::Create)?;
    file.write_at(0, &mut [IoSlice::new(&encode(number))])?;
    file.sync()
}

/// What was written down last, if that is known.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<i64>> {
    match disk::read_if_there(disk, path, FILE_BYTES) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| decode(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

fn encode(number: i64) -> [u8; FILE_BYTES] {
    let mut bytes = [0; FILE_BYTES];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    let crc = crc32c(&bytes[..8]);
    bytes[8..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<i64> {
    let bytes: &[u8; FILE_BYTES] = bytes.get(..FILE_BYTES)?.try_into().ok()?;
    let crc = u32::from_be_bytes(*bytes.last_chunk()?);
    let number = i64::from_be_bytes(*bytes.first_chunk()?);
    (crc == crc32c(&bytes[..8])).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_value_is_none() {
        let bytes = encode(0x0102_0304);
        assert_eq!(hex::encode(&bytes[..8]), "0000000001020304");
        assert_eq!(decode(&bytes), Some(0x0102_0304));
        for at in 0..FILE_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None);
            assert_eq!(decode(&bytes[..at]), None);
        }
    }
}
