//! The records that a transform works on in one step: committed batches of its source, unpacked once, and where each
//! record lies in them.
//! It owns the layout `batch` that guests read (`wasm-modules/wit/README.md`). It must never copy a record except
//! into the guest's buffer, and never call a guest with bytes whose counts and lengths do not agree.

use std::ops::Range;

use bytes::Bytes;
use headwater_protocol::ids::Offset;
use headwater_protocol::record::{self, BatchHeader, BatchView, RecordRef, TimestampType};

/// Bit 0 of a section's flags: each record's timestamp is the base timestamp.
const LOG_APPEND_TIME: u32 = 1;

/// Consecutive records of a source partition.
///
/// - Records are numbered from 0 through all sections, in the order of their offsets.
/// - Every span was parsed once and holds one sound record.
#[derive(Debug, Default)]
pub(crate) struct Input {
    sections: Vec<Section>,
    spans: Vec<Span>,
}

/// The records of one Kafka batch.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) batch: BatchView,
    /// The records section, decompressed.
    body: Bytes,
    /// Which records of the input are of this section.
    pub(crate) records: Range<usize>,
}

/// Where a record lies in the body of its section, its length field included.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

/// A batch of the source that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the batch at offset {base_offset} is malformed: {error}")]
pub(crate) struct MalformedBatch {
    pub(crate) base_offset: Offset,
    /// Where reading can go on.
    pub(crate) next_offset: Offset,
    pub(crate) error: record::Error,
}

/// One record of the input, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) offset: Offset,
    pub(crate) timestamp_ms: i64,
    pub(crate) record: RecordRef<'a>,
}

impl Input {
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(crate) fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Forgets the records; keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.sections.clear();
        self.spans.clear();
    }

    /// Adds the records of `batch` from offset `from` on. Control batches have none.
    pub(crate) fn push(
        &mut self,
        batch: BatchView,
        from: Offset,
        bytes_max: usize,
    ) -> Result<(), MalformedBatch> {
        let header = *batch.header();
        if header.is_control() {
            return Ok(());
        }
        let first = self.spans.len();
        match self.read(&batch, from, bytes_max) {
            Ok(body) => {
                let records = first..self.spans.len();
                if !records.is_empty() {
                    self.sections.push(Section { batch, body, records });
                }
                Ok(())
            }
            Err(error) => {
                self.spans.truncate(first);
                let (base_offset, next_offset) = (header.base_offset, header.next_offset());
                Err(MalformedBatch {
                    base_offset,
                    next_offset,
                    error,
                })
            }
        }
    }

    fn read(&mut self, batch: &BatchView, from: Offset, bytes_max: usize) -> Result<Bytes, record::Error> {
        let records = batch.records(bytes_max)?;
        let body = records.payload().clone();
        let header = records.header();
        let begin = body.as_ptr() as usize;
        let mut start = 0u32;
        for record in &records {
            let record = record?;
            for header in record.headers {
                header?;
            }
            // The encoded headers are the last part of a record: where they end, it ends.
            let encoded = record.headers.encoded();
            let end = (encoded.as_ptr() as usize + encoded.len() - begin) as u32;
            if header.base_offset.plus(i64::from(record.offset_delta)) >= from {
                self.spans.push(Span { start, end });
            }
            start = end;
        }
        Ok(body)
    }

    /// Bytes of the records in `range`, as a guest is given them.
    pub(crate) fn encoded_bytes(&self, range: Range<usize>) -> usize {
        let sections = self.sections_of(range).map(|(section, part)| {
            let bytes = self.bytes_of(section, &part).len();
            SECTION_HEADER_BYTES + bytes
        });
        4 + sections.sum::<usize>()
    }

    /// Cuts the records into ranges that guests take at once: at most `bytes_max` and `records_max` each, but at
    /// least one record.
    pub(crate) fn ranges(&self, bytes_max: usize, records_max: usize) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for section in &self.sections {
            for index in section.records.clone() {
                let Span { start: from, end } = self.spans[index];
                let record = (end - from) as usize;
                let header = if index == section.records.start {
                    SECTION_HEADER_BYTES
                } else {
                    0
                };
                let is_full = bytes + header + record > bytes_max || index - start == records_max;
                if index > start && is_full {
                    ranges.push(start..index);
                    (start, bytes) = (index, 0);
                }
                bytes += record
                    + if index == start {
                        SECTION_HEADER_BYTES
                    } else {
                        header
                    };
            }
        }
        if start < self.len() {
            ranges.push(start..self.len());
        }
        ranges
    }

    /// Writes the records in `range` as a guest reads them.
    pub(crate) fn encode(&self, range: Range<usize>, out: &mut Vec<u8>) {
        out.clear();
        out.reserve(self.encoded_bytes(range.clone()));
        out.extend((range.len() as u32).to_le_bytes());
        for (section, part) in self.sections_of(range) {
            let header = section.batch.header();
            let (flags, timestamp) = match header.timestamp_type() {
                TimestampType::CreateTime => (0, header.base_timestamp),
                TimestampType::LogAppendTime => (LOG_APPEND_TIME, header.max_timestamp),
            };
            let records = self.bytes_of(section, &part);
            out.extend((part.len() as u32).to_le_bytes());
            out.extend((records.len() as u32).to_le_bytes());
            out.extend(flags.to_le_bytes());
            out.extend(header.base_offset.value().to_le_bytes());
            out.extend(timestamp.to_le_bytes());
            out.extend_from_slice(records);
        }
    }

    /// The sections that `range` touches, each with the part of `range` that lies in it.
    pub(crate) fn sections_of(&self, range: Range<usize>) -> impl Iterator<Item = (&Section, Range<usize>)> {
        let first = self.section_of(range.start);
        self.sections[first..]
            .iter()
            .take_while(move |section| section.records.start < range.end)
            .map(move |section| {
                let part = section.records.start.max(range.start)..section.records.end.min(range.end);
                (section, part)
            })
    }

    /// The record with this number.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn record(&self, index: usize) -> Source<'_> {
        self.record_of(&self.sections[self.section_of(index)], index)
    }

    /// Which section holds the record with this number.
    pub(crate) fn section_of(&self, index: usize) -> usize {
        self.sections
            .partition_point(|section| section.records.end <= index)
    }

    /// As `record`, for a caller who knows the section.
    #[inline]
    pub(crate) fn record_of<'a>(&self, section: &'a Section, index: usize) -> Source<'a> {
        let Span { start, end } = self.spans[index];
        let mut bytes = &section.body[start as usize..end as usize];
        let record = RecordRef::read(&mut bytes).expect("every span was parsed when it was added");
        let header: &BatchHeader = section.batch.header();
        Source {
            offset: header.base_offset.plus(i64::from(record.offset_delta)),
            timestamp_ms: header.timestamp_of(record.timestamp_delta),
            record,
        }
    }

    fn bytes_of<'a>(&self, section: &'a Section, part: &Range<usize>) -> &'a [u8] {
        let (first, last) = (self.spans[part.start], self.spans[part.end - 1]);
        &section.body[first.start as usize..last.end as usize]
    }
}

impl Section {
    /// Whether `part` is the whole Kafka batch.
    pub(crate) fn is_whole(&self, part: &Range<usize>) -> bool {
        part.len() == self.batch.header().record_count as usize
    }
}

const SECTION_HEADER_BYTES: usize = 4 + 4 + 4 + 8 + 8;

#[cfg(test)]
mod tests;
