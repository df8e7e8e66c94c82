//! How far the log was known to be committed, for the next start.
//!
//! Owns one small file that is overwritten in place and never synced: an older value is as true as a newer one, since
//! what is committed stays so. A damaged one is no value. It must never be above what was committed.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_protocol::ids::Offset;
use headwater_protocol::record::crc32c;

use super::Log;
use crate::sys::disk::{self, Disk, Open};

const NAME: &str = "high-watermark";
const FILE_BYTES: usize = 12;

impl Log {
    /// Writes down that everything below `offset` is committed. Not synced.
    pub fn store_high_watermark(&self, offset: Offset) -> io::Result<()> {
        let shared = &self.shared;
        let file = shared.logs.disk.open(&path(&shared.folder), Open::Create)?;
        file.write_at(0, &mut [IoSlice::new(&encode(offset))])
    }

    /// What was written down last, as far as the log reaches.
    pub fn high_watermark(&self) -> io::Result<Offset> {
        let shared = &self.shared;
        let stored = match disk::read_if_there(&*shared.logs.disk, &path(&shared.folder), FILE_BYTES) {
            Ok(bytes) => bytes.and_then(|bytes| decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            Err(error) => return Err(error),
        };
        Ok(stored
            .unwrap_or_else(|| self.start())
            .clamp(self.start(), self.end()))
    }
}

/// Forgets it: the log begins anew, and what was committed of the old one says nothing. Durable with the folder.
pub(super) fn forget(disk: &Arc<dyn Disk>, folder: &Path) -> io::Result<()> {
    match disk.remove_file(&path(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

fn encode(offset: Offset) -> [u8; FILE_BYTES] {
    let mut bytes = [0; FILE_BYTES];
    bytes[..8].copy_from_slice(&offset.value().to_be_bytes());
    let crc = crc32c(&bytes[..8]);
    bytes[8..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Offset> {
    let bytes: &[u8; FILE_BYTES] = bytes.get(..FILE_BYTES)?.try_into().ok()?;
    let crc = u32::from_be_bytes(*bytes.last_chunk()?);
    let offset = i64::from_be_bytes(*bytes.first_chunk()?);
    (crc == crc32c(&bytes[..8])).then_some(Offset(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_value_is_none() {
        let bytes = encode(Offset(0x0102_0304));
        assert_eq!(hex::encode(&bytes[..8]), "0000000001020304");
        assert_eq!(decode(&bytes), Some(Offset(0x0102_0304)));
        for at in 0..FILE_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None);
            assert_eq!(decode(&bytes[..at]), None);
        }
    }
}
