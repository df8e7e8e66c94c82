//! The primitive types in the records of `__consumer_offsets`: the protocol's, over plain slices. Pure.
//!
//! Every length is compared with what is left before anything is taken.

use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// The bytes are not what their version says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Whether lengths are varints, one more than they say (KIP-482).
    pub(super) flexible: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            flexible: false,
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn i8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<[u8; 16], Malformed> {
        self.array()
    }

    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f).checked_shl(shift).ok_or(Malformed)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// A length; None: null.
    fn length(&mut self, fixed: fn(&mut Self) -> Result<i64, Malformed>) -> Result<Option<usize>, Malformed> {
        let length = if self.flexible {
            i64::from(self.varint()?) - 1
        } else {
            fixed(self)?
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| Malformed),
        }
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<Arc<str>>, Malformed> {
        let Some(length) = self.length(|reader| reader.i16().map(i64::from))? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| Malformed)?;
        Ok(Some(Arc::from(text)))
    }

    pub(super) fn string(&mut self) -> Result<Arc<str>, Malformed> {
        self.nullable_string()?.ok_or(Malformed)
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.length(|reader| reader.i32().map(i64::from))?.unwrap_or(0);
        self.take(length).map(Bytes::copy_from_slice)
    }

    /// How many elements follow.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.length(|reader| reader.i32().map(i64::from))?.unwrap_or(0);
        // An element takes a byte at least.
        if count > self.rest.len() {
            return Err(Malformed);
        }
        Ok(count)
    }

    /// Passes over the tagged fields that end a flexible structure.
    pub(super) fn end_of_struct(&mut self) -> Result<(), Malformed> {
        self.tagged(None).map(drop)
    }

    /// As `end_of_struct`, for what one of the fields holds.
    pub(super) fn tagged(&mut self, wanted: Option<u32>) -> Result<Option<Self>, Malformed> {
        let mut found = None;
        if !self.flexible {
            return Ok(found);
        }
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let length = self.varint()?;
            let rest = self.take(usize::try_from(length).map_err(|_| Malformed)?)?;
            if Some(tag) == wanted {
                found = Some(Self { rest, flexible: true });
            }
        }
        Ok(found)
    }
}

pub(super) struct Writer {
    bytes: BytesMut,
    flexible: bool,
}

impl Writer {
    /// What begins with its version.
    pub(super) fn new(version: i16) -> Self {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_i16(version);
        Self {
            bytes,
            flexible: false,
        }
    }

    /// As `new`, with the lengths and the ends of flexible structures (KIP-482).
    pub(super) fn flexible(version: i16) -> Self {
        Self {
            flexible: true,
            ..Self::new(version)
        }
    }

    pub(super) fn i8(&mut self, value: i8) {
        self.bytes.put_i8(value);
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.bytes.put_i32(value);
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.bytes.put_i64(value);
    }

    pub(super) fn uuid(&mut self, value: [u8; 16]) {
        self.bytes.put_slice(&value);
    }

    pub(super) fn string(&mut self, text: &str) {
        self.nullable_string(Some(text));
    }

    pub(super) fn nullable_string(&mut self, text: Option<&str>) {
        let length = text.map_or(-1, |text| {
            i16::try_from(text.len()).expect("names came in strings of the protocol")
        });
        if self.flexible {
            self.varint((i32::from(length) + 1).unsigned_abs());
        } else {
            self.bytes.put_i16(length);
        }
        self.bytes.put_slice(text.unwrap_or_default().as_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes.put_slice(bytes);
    }

    pub(super) fn count(&mut self, count: usize) {
        let count = i32::try_from(count).expect("it came in a request, which is smaller");
        if self.flexible {
            self.varint(count.unsigned_abs() + 1);
        } else {
            self.i32(count);
        }
    }

    /// No tagged fields end a structure.
    pub(super) fn end_of_struct(&mut self) {
        if self.flexible {
            self.varint(0);
        }
    }

    /// One tagged field ends a structure.
    pub(super) fn tagged_i64(&mut self, tag: u32, value: i64) {
        self.varint(1);
        self.varint(tag);
        self.varint(8);
        self.i64(value);
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.put_u8(value as u8);
    }

    pub(super) fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}
