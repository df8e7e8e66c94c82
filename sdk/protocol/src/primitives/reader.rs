//! [`Reader`]: a cursor over one message that bounds everything it is told.
//!
//! Owns decoding of the primitive types. It must never reserve memory for a length or a count that the bytes
//! at hand cannot hold, and never copy text, bytes or records out of the frame.

use bytes::{Buf, Bytes};

use super::{DecodeError, DecodeErrorKind, Element, Form, Records, Str, TaggedFields, Uuid};

/// Decoded arrays may take this many times the bytes of their message, and a little more.
///
/// The schemas' densest real messages (lists of short names) take about ten times their wire size.
const MEMORY_PER_BYTE: usize = 16;
const MEMORY_BYTES_MIN: usize = 64 * 1024;

/// An array reserves at most this many times the bytes that remain before its elements are read.
const RESERVE_PER_BYTE: usize = 4;

/// Reads the fields of one message from the front of a [`Bytes`].
///
/// - A length is compared with the bytes that remain before anything is taken, a count as well (an element
///   takes one byte at least).
/// - An array reserves at most four times the bytes that remain, and room for one element.
/// - All arrays of a message together take no more memory than 16 times its bytes plus 64 KiB.
/// - Depth is bounded by the schemas, none of which is recursive.
/// - After an error the position is unspecified; the reader is of no further use.
#[derive(Clone, Debug)]
pub struct Reader {
    buf: Bytes,
    /// The offset just behind `buf`, counted from the message's first byte.
    end: usize,
    message_bytes: usize,
    memory_left: usize,
}

impl Reader {
    pub fn new(message: Bytes) -> Self {
        let message_bytes = message.len();
        Self {
            buf: message,
            end: message_bytes,
            message_bytes,
            memory_left: message_bytes
                .saturating_mul(MEMORY_PER_BYTE)
                .saturating_add(MEMORY_BYTES_MIN),
        }
    }

    pub fn remaining(&self) -> usize {
        self.buf.len()
    }

    /// How far the reader has come, in bytes from the start of the message.
    pub fn offset(&self) -> usize {
        self.end - self.buf.len()
    }

    /// The bytes not read yet, for a look ahead.
    pub fn rest(&self) -> &[u8] {
        &self.buf
    }

    /// Ends the reading: an error if bytes are left over.
    pub fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.error(what, DecodeErrorKind::Trailing(left))),
        }
    }

    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        Ok(self.i8(what)? != 0)
    }

    pub fn i8(&mut self, what: &'static str) -> Result<i8, DecodeError> {
        self.fixed(what).map(i8::from_be_bytes)
    }

    pub fn i16(&mut self, what: &'static str) -> Result<i16, DecodeError> {
        self.fixed(what).map(i16::from_be_bytes)
    }

    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.fixed(what).map(u16::from_be_bytes)
    }

    pub fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.fixed(what).map(i32::from_be_bytes)
    }

    pub fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.fixed(what).map(i64::from_be_bytes)
    }

    pub fn f64(&mut self, what: &'static str) -> Result<f64, DecodeError> {
        self.fixed(what).map(f64::from_be_bytes)
    }

    pub fn uuid(&mut self, what: &'static str) -> Result<Uuid, DecodeError> {
        self.fixed(what).map(Uuid)
    }

    /// An unsigned varint of up to 32 bits.
    pub fn uvarint(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for (index, &byte) in self.buf.iter().take(5).enumerate() {
            // The fifth byte holds the last four bits.
            if index == 4 && byte > 0x0f {
                return Err(self.error(what, DecodeErrorKind::Varint));
            }
            value |= u32::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.buf.advance(index + 1);
                return Ok(value);
            }
        }
        Err(self.truncated(what, self.remaining() + 1))
    }

    pub fn string(&mut self, what: &'static str, form: Form) -> Result<Str, DecodeError> {
        self.nullable_string(what, form)?
            .ok_or_else(|| self.error(what, DecodeErrorKind::Null))
    }

    pub fn nullable_string(&mut self, what: &'static str, form: Form) -> Result<Option<Str>, DecodeError> {
        let length = match form {
            Form::Classic => i32::from(self.i16(what)?),
            Form::Flexible => self.compact_length(what)?,
        };
        let Some(bytes) = self.take_nullable(what, length)? else {
            return Ok(None);
        };
        let text = Str::from_utf8(bytes).map_err(|_| self.error(what, DecodeErrorKind::Utf8))?;
        Ok(Some(text))
    }

    pub fn bytes(&mut self, what: &'static str, form: Form) -> Result<Bytes, DecodeError> {
        self.nullable_bytes(what, form)?
            .ok_or_else(|| self.error(what, DecodeErrorKind::Null))
    }

    pub fn nullable_bytes(&mut self, what: &'static str, form: Form) -> Result<Option<Bytes>, DecodeError> {
        let length = self.long_length(what, form)?;
        self.take_nullable(what, length)
    }

    pub fn records(&mut self, what: &'static str, form: Form) -> Result<Option<Records>, DecodeError> {
        Ok(self.nullable_bytes(what, form)?.map(Records::from))
    }

    pub fn array<T: Element>(
        &mut self,
        what: &'static str,
        form: Form,
        version: i16,
    ) -> Result<Vec<T>, DecodeError> {
        self.nullable_array(what, form, version)?
            .ok_or_else(|| self.error(what, DecodeErrorKind::Null))
    }

    pub fn nullable_array<T: Element>(
        &mut self,
        what: &'static str,
        form: Form,
        version: i16,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.count(what, form, size_of::<T>())? else {
            return Ok(None);
        };
        let mut elements = Vec::with_capacity(count.min(self.reserve_max::<T>()));
        for _ in 0..count {
            elements.push(T::read(self, what, form, version)?);
        }
        Ok(Some(elements))
    }

    /// A struct that may be absent: one byte says so.
    pub fn nullable_struct<T: Element>(
        &mut self,
        what: &'static str,
        form: Form,
        version: i16,
    ) -> Result<Option<T>, DecodeError> {
        if self.i8(what)? < 0 {
            Ok(None)
        } else {
            T::read(self, what, form, version).map(Some)
        }
    }

    /// The tagged fields of a struct without any known tag.
    pub fn tagged_fields(&mut self, form: Form) -> Result<TaggedFields, DecodeError> {
        self.tagged_fields_with(form, |_, _| Ok(false))
    }

    /// The tagged fields of a struct. `known` reads the value of a tag it knows, all of it, or returns false
    /// without reading; what it does not know is kept.
    pub fn tagged_fields_with(
        &mut self,
        form: Form,
        mut known: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<TaggedFields, DecodeError> {
        const WHAT: &str = "tagged fields";
        let mut unknown = TaggedFields::new();
        if form == Form::Classic {
            return Ok(unknown);
        }
        for _ in 0..self.uvarint(WHAT)? {
            let tag = self.uvarint(WHAT)?;
            let length = self.uvarint(WHAT)? as usize;
            if length > self.remaining() {
                return Err(self.truncated(WHAT, length));
            }
            // The value is read by a view of exactly its bytes.
            let rest = self.buf.split_off(length);
            self.end -= rest.len();
            if !known(self, tag)? {
                self.charge(WHAT, size_of::<(u32, Bytes)>())?;
                unknown.push(tag, self.buf.split_to(length));
            }
            if !self.buf.is_empty() {
                return Err(self.error(WHAT, DecodeErrorKind::Trailing(self.remaining())));
            }
            self.end += rest.len();
            self.buf = rest;
        }
        Ok(unknown)
    }

    /// The length of an array, checked against the bytes that remain and paid for; none for null.
    fn count(
        &mut self,
        what: &'static str,
        form: Form,
        element_bytes: usize,
    ) -> Result<Option<usize>, DecodeError> {
        let count = match self.long_length(what, form)? {
            -1 => return Ok(None),
            negative if negative < 0 => {
                return Err(self.error(what, DecodeErrorKind::NegativeLength(negative)));
            }
            count => count as usize,
        };
        if count > self.remaining() {
            return Err(self.error(
                what,
                DecodeErrorKind::Count {
                    count,
                    remaining: self.remaining(),
                },
            ));
        }
        self.charge(what, count.saturating_mul(element_bytes))?;
        Ok(Some(count))
    }

    /// How many elements memory is reserved for before any is read: a few bytes for each that remains. An
    /// honest array seldom needs more; one that does grows as its elements arrive.
    pub(super) fn reserve_max<T>(&self) -> usize {
        1 + RESERVE_PER_BYTE * self.remaining() / size_of::<T>().max(1)
    }

    /// Takes memory from the message's budget.
    fn charge(&mut self, what: &'static str, memory_bytes: usize) -> Result<(), DecodeError> {
        match self.memory_left.checked_sub(memory_bytes) {
            Some(left) => self.memory_left = left,
            None => {
                return Err(self.error(
                    what,
                    DecodeErrorKind::Memory {
                        message_bytes: self.message_bytes,
                    },
                ));
            }
        }
        Ok(())
    }

    fn long_length(&mut self, what: &'static str, form: Form) -> Result<i32, DecodeError> {
        match form {
            Form::Classic => self.i32(what),
            Form::Flexible => self.compact_length(what),
        }
    }

    /// A varint of length + 1, as a length with -1 for null.
    fn compact_length(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        let raw = self.uvarint(what)?;
        i32::try_from(i64::from(raw) - 1).map_err(|_| self.truncated(what, raw as usize - 1))
    }

    fn take_nullable(&mut self, what: &'static str, length: i32) -> Result<Option<Bytes>, DecodeError> {
        match length {
            -1 => Ok(None),
            negative if negative < 0 => Err(self.error(what, DecodeErrorKind::NegativeLength(negative))),
            length if length as usize > self.remaining() => Err(self.truncated(what, length as usize)),
            length => Ok(Some(self.buf.split_to(length as usize))),
        }
    }

    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let Some(bytes) = self.buf.first_chunk::<N>().copied() else {
            return Err(self.truncated(what, N));
        };
        self.buf.advance(N);
        Ok(bytes)
    }

    #[cold]
    fn truncated(&self, what: &'static str, needed: usize) -> DecodeError {
        self.error(
            what,
            DecodeErrorKind::Truncated {
                needed,
                remaining: self.remaining(),
            },
        )
    }

    #[cold]
    fn error(&self, what: &'static str, kind: DecodeErrorKind) -> DecodeError {
        DecodeError {
            what,
            offset: self.offset(),
            kind,
        }
    }
}
