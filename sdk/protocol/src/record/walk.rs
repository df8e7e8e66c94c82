//! The lazy walk over the records of one batch.
//! Owns the record layout. Must never allocate: keys, values and headers are slices of the batch.
//!
//! ```text
//! length varint | attributes i8 | timestamp delta varlong | offset delta varint
//! | key length varint, key | value length varint, value | header count varint, headers
//! ```
//! A length of -1 stands for null.

use bytes::Bytes;

use super::varint::{Flaw, read_i32, read_i64};
use super::{BatchHeader, Error};
use crate::ids::Offset;

/// The uncompressed records of a batch.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    payload: Bytes,
}

impl Records {
    pub(super) fn new(header: BatchHeader, payload: Bytes) -> Self {
        Self { header, payload }
    }

    /// The header of the batch they came from.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records as they lie in memory.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Borrows one record after another: the fastest walk.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter {
            rest: &self.payload,
            left: self.header.record_count,
            last_delta: -1,
            delta_max: self.header.last_offset_delta,
        }
    }

    /// Shares a part that the walk borrowed, without copying it.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.payload.slice_ref(part)
    }

    /// Walks everything, headers too.
    pub fn check(&self) -> Result<(), Error> {
        for record in self {
            for header in record?.headers {
                header?;
            }
        }
        Ok(())
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordRef<'a>, Error>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Records {
    type Item = Result<Record, Error>;
    type IntoIter = OwnedRecords;

    fn into_iter(self) -> Self::IntoIter {
        OwnedRecords {
            left: self.header.record_count,
            last_delta: -1,
            at: 0,
            records: self,
        }
    }
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

impl<'a> RecordRef<'a> {
    /// Reads the record at the front of `rest`, its length field included, and moves `rest` past it. For a caller
    /// who keeps where records begin, to come back to a few of them.
    #[inline]
    pub fn read(rest: &mut &'a [u8]) -> Result<Self, Error> {
        read_record(rest).map_err(Error::malformed)
    }
}

/// Walks records and checks each as it goes. Ends after the first error.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    left: i32,
    last_delta: i32,
    delta_max: i32,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordRef<'a>, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            return Some(Err(Error::malformed("bytes follow the last record")));
        }
        let record = read_record(&mut self.rest).and_then(|record| {
            if record.offset_delta <= self.last_delta || record.offset_delta > self.delta_max {
                return Err("record offsets are not in order");
            }
            Ok(record)
        });
        match record {
            Ok(record) => {
                self.last_delta = record.offset_delta;
                self.left -= 1;
                Some(Ok(record))
            }
            Err(reason) => {
                self.left = 0;
                self.rest = &[];
                Some(Err(Error::malformed(reason)))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The count is the sender's word: never an invitation to reserve. A record takes 7 bytes or more.
        (0, Some(self.rest.len() / 7 + 1))
    }
}

#[inline]
fn read_record<'a>(rest: &mut &'a [u8]) -> Result<RecordRef<'a>, Flaw> {
    let length = read_i32(rest)?;
    let mut body = take(rest, length)?;
    let (&_attributes, after) = body.split_first().ok_or("a record is empty")?;
    body = after;
    let timestamp_delta = read_i64(&mut body)?;
    let offset_delta = read_i32(&mut body)?;
    let key = read_nullable(&mut body)?;
    let value = read_nullable(&mut body)?;
    let count = read_i32(&mut body)?;
    if count < 0 {
        return Err("a header count is negative");
    }
    if count == 0 && !body.is_empty() {
        return Err("bytes follow a record's last field");
    }
    Ok(RecordRef {
        offset_delta,
        timestamp_delta,
        key,
        value,
        headers: Headers {
            rest: body,
            left: count,
        },
    })
}

#[inline]
fn read_nullable<'a>(body: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Flaw> {
    match read_i32(body)? {
        -1 => Ok(None),
        length => take(body, length).map(Some),
    }
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], length: i32) -> Result<&'a [u8], Flaw> {
    let length = usize::try_from(length).map_err(|_| "a length is negative")?;
    let (part, after) = rest.split_at_checked(length).ok_or("a length passes the end")?;
    *rest = after;
    Ok(part)
}

/// One header of a record: a name, not necessarily UTF-8 from every producer, and an optional value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// The headers of a record, read as they are asked for. Ends after the first error.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: i32,
}

impl<'a> Headers<'a> {
    pub const NONE: Self = Self { rest: &[], left: 0 };

    /// Reads headers laid out as in a record, without the count in front.
    pub fn new(bytes: &'a [u8], count: i32) -> Self {
        Self {
            rest: bytes,
            left: count.max(0),
        }
    }

    /// How many the record says it has.
    pub fn header_count(&self) -> i32 {
        self.left
    }

    /// The headers as they lie in the record, to be copied on unread.
    pub fn encoded(&self) -> &'a [u8] {
        self.rest
    }

    /// The value of the first header with this name.
    pub fn find(self, key: &str) -> Option<Option<&'a [u8]>> {
        self.map_while(Result::ok)
            .find(|header| header.key == key.as_bytes())
            .map(|header| header.value)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<Header<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            return Some(Err(Error::malformed("bytes follow the last header")));
        }
        let header = read_header(&mut self.rest);
        self.left -= 1;
        Some(header.map_err(|reason| {
            self.left = 0;
            self.rest = &[];
            Error::malformed(reason)
        }))
    }
}

fn read_header<'a>(rest: &mut &'a [u8]) -> Result<Header<'a>, Flaw> {
    let key = read_nullable(rest)?.ok_or("a header has no name")?;
    let value = read_nullable(rest)?;
    Ok(Header { key, value })
}

/// One record that shares its batch's memory and can outlive the walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    encoded_headers: Bytes,
    header_count: i32,
}

impl Record {
    pub fn headers(&self) -> Headers<'_> {
        Headers {
            rest: &self.encoded_headers,
            left: self.header_count,
        }
    }

    /// Shares a part that [`Record::headers`] borrowed.
    pub fn share_header(&self, part: &[u8]) -> Bytes {
        self.encoded_headers.slice_ref(part)
    }
}

/// Walks records that share their batch's memory.
#[derive(Debug, Clone)]
pub struct OwnedRecords {
    records: Records,
    at: usize,
    left: i32,
    last_delta: i32,
}

impl Iterator for OwnedRecords {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let payload = &self.records.payload;
        let header = &self.records.header;
        let mut walk = RecordIter {
            rest: payload.get(self.at..).unwrap_or_default(),
            left: self.left,
            last_delta: self.last_delta,
            delta_max: header.last_offset_delta,
        };
        let next = walk.next()?;
        self.at = payload.len() - walk.rest.len();
        self.left = walk.left;
        self.last_delta = walk.last_delta;
        Some(next.map(|record| Record {
            offset: header.base_offset.plus(i64::from(record.offset_delta)),
            timestamp_ms: header.timestamp_of(record.timestamp_delta),
            key: record.key.map(|key| payload.slice_ref(key)),
            value: record.value.map(|value| payload.slice_ref(value)),
            encoded_headers: match record.headers.left {
                0 => Bytes::new(),
                _ => payload.slice_ref(record.headers.rest),
            },
            header_count: record.headers.left,
        }))
    }
}
