//! The walk over the batches of one segment file, front to back.
//! Owns the judgement of where a file stops making sense. Must never read past the length it was given, nor
//! reserve memory by a length it read.

use std::io;

use bytes::Bytes;
use headwater_protocol::ids::Offset;
use headwater_protocol::record::{self, BatchHeader, BatchView, HEADER_BYTES};

use crate::sys::disk::File;

/// How much of a batch is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// The header: bodies are skipped unread.
    Header,
    /// Nothing that the checksum does not cover.
    Checksum,
    /// Not even the page cache: what is checked comes from the device, as far as it can be had.
    Device,
}

/// One batch where it lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub header: BatchHeader,
    pub position: u64,
}

impl Placed {
    pub(super) fn end(&self) -> u64 {
        self.position + self.header.total_bytes() as u64
    }

    /// The whole batch, as it lies there.
    pub(super) fn batch(&self, file: &dyn File) -> io::Result<BatchView> {
        let wanted = self.header.total_bytes();
        let mut bytes = Vec::with_capacity(wanted);
        file.read_at(self.position, &mut bytes, wanted)?;
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        BatchView::parse(Bytes::from(bytes)).map_err(invalid)
    }
}

/// The first thing in a file that is not the next batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    pub position: u64,
    pub reason: String,
}

const CHUNK_BYTES: usize = 256 << 10;

/// Walks batches from `position` to `end`.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    file: &'a dyn File,
    trust: Trust,
    position: u64,
    end: u64,
    /// The lowest offset the next batch may begin with.
    next: Offset,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn new(file: &'a dyn File, trust: Trust, position: u64, end: u64, next: Offset) -> Self {
        Self {
            file,
            trust,
            position,
            end,
            next,
            buffer: Vec::new(),
            buffer_at: position,
        }
    }

    /// The next batch, the damage that ends the walk, or `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<Placed, Damage>>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let found = self.try_next()?;
        match &found {
            Ok(placed) => {
                self.position = placed.end();
                self.next = placed.header.next_offset();
            }
            Err(_) => self.end = self.position,
        }
        Ok(Some(found))
    }

    /// The bytes of the batch that came last, where they were checked.
    pub(super) fn batch(&self, placed: &Placed) -> &[u8] {
        let start = (placed.position - self.buffer_at) as usize;
        &self.buffer[start..start + placed.header.total_bytes()]
    }

    fn try_next(&mut self) -> io::Result<Result<Placed, Damage>> {
        let position = self.position;
        let damage = |reason: String| Ok(Err(Damage { position, reason }));
        let header = match BatchHeader::parse(self.bytes(HEADER_BYTES)?) {
            Ok(header) => header,
            Err(error) => return damage(error.to_string()),
        };
        let total = header.total_bytes();
        if total as u64 > self.end - position {
            let error = record::Error::Incomplete {
                needed: total,
                available: (self.end - position) as usize,
            };
            return damage(error.to_string());
        }
        if header.base_offset < self.next {
            return damage(format!(
                "batch begins at offset {} below {}",
                header.base_offset, self.next
            ));
        }
        if self.trust != Trust::Header {
            let bytes = self.bytes(total)?;
            if bytes.len() < total {
                return damage("the file is shorter than it says".to_owned());
            }
            let crc = record::crc32c(&bytes[record::CRC_COVERS_FROM..]);
            if crc != header.crc {
                return damage(
                    record::Error::Checksum {
                        expected: crc,
                        actual: header.crc,
                    }
                    .to_string(),
                );
            }
        }
        Ok(Ok(Placed { header, position }))
    }

    /// The next `wanted` bytes, or those that are left.
    fn bytes(&mut self, wanted: usize) -> io::Result<&[u8]> {
        let skipped = (self.position - self.buffer_at) as usize;
        if self.buffer.len() < skipped + wanted {
            self.buffer.drain(..skipped.min(self.buffer.len()));
            self.buffer_at = self.position;
            let at = self.position + self.buffer.len() as u64;
            let chunk = match self.trust {
                Trust::Header => CHUNK_BYTES / 16,
                Trust::Checksum | Trust::Device => CHUNK_BYTES,
            };
            let more = wanted.max(chunk).min((self.end - self.position) as usize);
            let more = more.saturating_sub(self.buffer.len());
            match self.trust {
                Trust::Header | Trust::Checksum => self.file.read_at(at, &mut self.buffer, more)?,
                Trust::Device => self.file.read_afresh(at, &mut self.buffer, more)?,
            };
        }
        let start = (self.position - self.buffer_at) as usize;
        let end = self.buffer.len().min(start + wanted);
        Ok(&self.buffer[start.min(end)..end])
    }
}
