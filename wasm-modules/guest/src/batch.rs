//! The records a module is called with, read in place from the host's buffer.
//! It owns the layout "batch" of `wit/README.md`; it never copies a record.

use crate::wire::Reader;

const RECORD_TIMES_ARE_APPEND_TIMES: u32 = 1;

/// The records of one call.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    count: u32,
    sections: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Reads the front of a buffer from the host.
    ///
    /// # Panics
    /// When the buffer is shorter than its header; iterating panics where the rest is malformed. The host checks
    /// buffers before it calls, so neither happens inside a broker.
    #[must_use]
    pub fn new(buffer: &'a [u8]) -> Self {
        let mut reader = Reader::new(buffer);
        let count = reader.u32();
        Self {
            count,
            sections: reader.take(buffer.len() - 4),
        }
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The records in order.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        Records {
            left: self.count,
            index: 0,
            sections: Reader::new(self.sections),
            records: Reader::new(&[]),
            base_offset: 0,
            base_timestamp: 0,
            append_times: false,
        }
    }
}

impl<'a> IntoIterator for &Batch<'a> {
    type Item = Record<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.records()
    }
}

/// Iterates over the records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    left: u32,
    index: u32,
    sections: Reader<'a>,
    records: Reader<'a>,
    base_offset: i64,
    base_timestamp: i64,
    append_times: bool,
}

impl Records<'_> {
    #[cold]
    fn next_section(&mut self) {
        let _record_count = self.sections.u32();
        let size = self.sections.u32();
        self.append_times = self.sections.u32() & RECORD_TIMES_ARE_APPEND_TIMES != 0;
        self.base_offset = self.sections.i64();
        self.base_timestamp = self.sections.i64();
        self.records = Reader::new(self.sections.take(size as usize));
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Record<'a>> {
        if self.left == 0 {
            return None;
        }
        if self.records.is_empty() {
            self.next_section();
        }
        let length = self.records.length();
        let mut body = Reader::new(self.records.take(length));
        let _attributes = body.u8();
        let timestamp_delta = body.varint();
        let offset_delta = body.varint();
        let record = Record {
            index: self.index,
            offset: self.base_offset.wrapping_add(offset_delta),
            timestamp_ms: if self.append_times {
                self.base_timestamp
            } else {
                self.base_timestamp.wrapping_add(timestamp_delta)
            },
            key: body.bytes(),
            value: body.bytes(),
            headers: Headers {
                left: body.length(),
                rest: body,
            },
        };
        self.left -= 1;
        self.index += 1;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Records<'_> {}

/// One record, a view into the batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    index: u32,
    offset: i64,
    timestamp_ms: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// Its position in the batch, which outputs and failures refer to.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its offset in the source partition. Gaps are possible.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// The value of the last header with this name, as Kafka's clients look it up.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers
            .filter(|(found, _)| *found == name.as_bytes())
            .last()
            .and_then(|(_, value)| value)
    }
}

/// Iterates over the headers of a record: name and value.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    left: usize,
    rest: Reader<'a>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let length = self.rest.length();
        let name = self.rest.take(length);
        Some((name, self.rest.bytes()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Section, TestRecord, encode_batch, encode_sections};

    #[test]
    fn reads_what_kafka_writes() {
        // One section: base offset 7, base timestamp 1000; the record is Kafka's own encoding, byte by byte.
        let record = [
            0x20, 0x00, 0x06, 0x02, 0x02, b'k', 0x08, b'v', b'a', b'l', b'u', 0x02, 0x02, b'h', 0x04, b'x',
            b'y',
        ];
        let mut buffer = Vec::new();
        buffer.extend(1u32.to_le_bytes());
        buffer.extend(1u32.to_le_bytes());
        buffer.extend(17u32.to_le_bytes());
        buffer.extend(0u32.to_le_bytes());
        buffer.extend(7i64.to_le_bytes());
        buffer.extend(1000i64.to_le_bytes());
        buffer.extend(record);
        let batch = Batch::new(&buffer);
        let [record] = batch.records().collect::<Vec<_>>()[..] else {
            panic!("one record")
        };
        assert_eq!(
            (record.index(), record.offset(), record.timestamp_ms()),
            (0, 8, 1003)
        );
        assert_eq!(
            (record.key(), record.value()),
            (Some(&b"k"[..]), Some(&b"valu"[..]))
        );
        assert_eq!(
            record.headers().collect::<Vec<_>>(),
            [(&b"h"[..], Some(&b"xy"[..]))]
        );
    }

    #[test]
    fn sections_run_on() {
        let buffer = encode_sections(&[
            Section {
                base_offset: 10,
                base_timestamp_ms: 100,
                append_times: false,
                records: vec![
                    TestRecord::value("a").timestamp_ms(105),
                    TestRecord::value("b").timestamp_ms(90),
                ],
            },
            Section {
                base_offset: 20,
                base_timestamp_ms: 500,
                append_times: true,
                records: vec![TestRecord::tombstone("k").timestamp_ms(1)],
            },
        ]);
        let seen: Vec<_> = Batch::new(&buffer)
            .records()
            .map(|record| {
                (
                    record.index(),
                    record.offset(),
                    record.timestamp_ms(),
                    record.value(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (0, 10, 105, Some(&b"a"[..])),
                (1, 11, 90, Some(&b"b"[..])),
                (2, 20, 500, None)
            ]
        );
    }

    #[test]
    fn the_last_header_of_a_name_counts() {
        let buffer = encode_batch(&[TestRecord::value("v")
            .header("a", "1")
            .header("b", "2")
            .header("a", "3")]);
        let record = Batch::new(&buffer).records().next().expect("one record");
        assert_eq!(record.header("a"), Some(&b"3"[..]));
        assert_eq!(record.header("c"), None);
        assert_eq!(record.headers().len(), 3);
    }

    #[test]
    fn an_empty_batch_has_no_section() {
        assert_eq!(Batch::new(&0u32.to_le_bytes()).records().count(), 0);
    }

    #[test]
    #[should_panic(expected = "ends too early")]
    fn a_cut_batch_traps() {
        let buffer = encode_batch(&[TestRecord::value("value")]);
        Batch::new(&buffer[..buffer.len() - 2]).records().for_each(drop);
    }
}
