//! [`Writer`]: builds one message as a rope of `Bytes`.
//!
//! Owns encoding of the primitive types. It must never copy record bytes: what is large is spliced in.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Element, EncodeError, EncodeErrorKind, Form, Records, Str, TaggedFields, Tags, Uuid};
use crate::frame::{self, FrameError, PREFIX_BYTES};

/// A slice of at least this many bytes is spliced into the rope; a smaller one is cheaper to copy.
pub const SPLICE_BYTES_MIN: usize = 1024;

/// Writes fields one after the other into a rope: small ones side by side in a buffer, large byte slices as
/// they are.
#[derive(Debug, Default)]
pub struct Writer {
    /// Finished pieces: buffered bytes, then a spliced slice.
    pieces: Vec<(BytesMut, Bytes)>,
    tail: BytesMut,
    /// The bytes in `pieces`.
    piece_bytes: usize,
    /// Bytes at the very front that are kept free for the frame's length.
    headroom: usize,
}

impl Writer {
    pub fn new() -> Self {
        Self::with_capacity(256)
    }

    /// A writer whose small fields fit into `capacity` bytes without growing.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut tail = BytesMut::with_capacity(PREFIX_BYTES + capacity);
        tail.put_bytes(0, PREFIX_BYTES);
        Self {
            pieces: Vec::new(),
            tail,
            piece_bytes: 0,
            headroom: PREFIX_BYTES,
        }
    }

    /// A writer for a part of a message, to be appended to another.
    pub(super) fn scratch() -> Self {
        Self::default()
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.piece_bytes + self.tail.len() - self.headroom
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message, without a frame. No slice in it is empty.
    pub fn finish(mut self) -> Vec<Bytes> {
        let headroom = self.headroom;
        let _ = self.first().split_to(headroom);
        self.rope()
    }

    /// The message with its length in front, ready for the socket.
    pub fn finish_frame(mut self) -> Result<Vec<Bytes>, FrameError> {
        let prefix = frame::prefix(self.len())?;
        debug_assert_eq!(self.headroom, PREFIX_BYTES, "a scratch writer is never sent");
        self.first()[..PREFIX_BYTES].copy_from_slice(&prefix);
        Ok(self.rope())
    }

    pub fn bool(&mut self, value: bool) {
        self.tail.put_u8(u8::from(value));
    }

    pub fn i8(&mut self, value: i8) {
        self.tail.put_i8(value);
    }

    pub fn i16(&mut self, value: i16) {
        self.tail.put_i16(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.tail.put_u16(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.tail.put_i32(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.tail.put_i64(value);
    }

    pub fn f64(&mut self, value: f64) {
        self.tail.put_f64(value);
    }

    pub fn uuid(&mut self, value: Uuid) {
        self.tail.put_slice(&value.0);
    }

    /// An unsigned varint.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.tail.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.tail.put_u8(value as u8);
    }

    pub fn string(&mut self, what: &'static str, form: Form, text: &Str) -> Result<(), EncodeError> {
        let length = length(what, text.as_bytes().len(), i16::MAX as usize)?;
        match form {
            Form::Classic => self.i16(length as i16),
            Form::Flexible => self.uvarint(length as u32 + 1),
        }
        self.tail.put_slice(text.as_bytes());
        Ok(())
    }

    pub fn nullable_string(
        &mut self,
        what: &'static str,
        form: Form,
        text: Option<&Str>,
    ) -> Result<(), EncodeError> {
        match (text, form) {
            (Some(text), _) => self.string(what, form, text)?,
            (None, Form::Classic) => self.i16(-1),
            (None, Form::Flexible) => self.uvarint(0),
        }
        Ok(())
    }

    pub fn bytes(&mut self, what: &'static str, form: Form, value: &Bytes) -> Result<(), EncodeError> {
        self.long_length(what, form, Some(value.len()))?;
        self.splice(value);
        Ok(())
    }

    pub fn nullable_bytes(
        &mut self,
        what: &'static str,
        form: Form,
        value: Option<&Bytes>,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.bytes(what, form, value),
            None => self.long_length(what, form, None),
        }
    }

    pub fn records(
        &mut self,
        what: &'static str,
        form: Form,
        records: Option<&Records>,
    ) -> Result<(), EncodeError> {
        self.long_length(what, form, records.map(Records::len))?;
        for part in records.map_or(&[][..], Records::parts) {
            self.splice(part);
        }
        Ok(())
    }

    pub fn array<T: Element>(
        &mut self,
        what: &'static str,
        form: Form,
        version: i16,
        elements: &[T],
    ) -> Result<(), EncodeError> {
        self.long_length(what, form, Some(elements.len()))?;
        elements
            .iter()
            .try_for_each(|element| element.write(self, what, form, version))
    }

    pub fn nullable_array<T: Element>(
        &mut self,
        what: &'static str,
        form: Form,
        version: i16,
        elements: Option<&Vec<T>>,
    ) -> Result<(), EncodeError> {
        match elements {
            Some(elements) => self.array(what, form, version, elements),
            None => self.long_length(what, form, None),
        }
    }

    /// A struct that may be absent: one byte says so.
    pub fn nullable_struct<T: Element>(
        &mut self,
        what: &'static str,
        form: Form,
        version: i16,
        value: Option<&T>,
    ) -> Result<(), EncodeError> {
        self.i8(if value.is_some() { 1 } else { -1 });
        value.map_or(Ok(()), |value| value.write(self, what, form, version))
    }

    /// The tagged fields of a struct without any known tag.
    pub fn tagged_fields(&mut self, form: Form, unknown: &TaggedFields) -> Result<(), EncodeError> {
        Tags::new().finish(self, form, unknown)
    }

    /// What to do with a field that `version` does not carry: nothing if it `is_default`, else refuse.
    pub fn absent(&self, what: &'static str, version: i16, is_default: bool) -> Result<(), EncodeError> {
        if is_default {
            Ok(())
        } else {
            Err(EncodeError {
                what,
                kind: EncodeErrorKind::NotInVersion(version),
            })
        }
    }

    pub(super) fn tagged_bytes(&mut self, tag: u32, value: &Bytes) -> Result<(), EncodeError> {
        self.uvarint(tag);
        self.uvarint(length("tagged field", value.len(), u32::MAX as usize)? as u32);
        self.splice(value);
        Ok(())
    }

    /// Appends what a scratch writer holds.
    pub(super) fn append(&mut self, other: Self) {
        for (small, large) in other.pieces {
            self.tail.put_slice(&small);
            self.splice(&large);
        }
        self.tail.put_slice(&other.tail);
    }

    fn splice(&mut self, bytes: &Bytes) {
        if bytes.len() < SPLICE_BYTES_MIN {
            self.tail.put_slice(bytes);
            return;
        }
        let small = self.tail.split();
        self.piece_bytes += small.len() + bytes.len();
        self.pieces.push((small, bytes.clone()));
    }

    fn long_length(
        &mut self,
        what: &'static str,
        form: Form,
        value: Option<usize>,
    ) -> Result<(), EncodeError> {
        let value = value
            .map(|value| length(what, value, i32::MAX as usize))
            .transpose()?;
        match form {
            Form::Classic => self.i32(value.map_or(-1, |value| value as i32)),
            Form::Flexible => self.uvarint(value.map_or(0, |value| value as u32 + 1)),
        }
        Ok(())
    }

    /// The buffer that begins with the headroom.
    fn first(&mut self) -> &mut BytesMut {
        match self.pieces.first_mut() {
            Some((small, _)) => small,
            None => &mut self.tail,
        }
    }

    fn rope(self) -> Vec<Bytes> {
        let mut rope = Vec::with_capacity(2 * self.pieces.len() + 1);
        for (small, large) in self.pieces {
            rope.push(small.freeze());
            rope.push(large);
        }
        rope.push(self.tail.freeze());
        rope.retain(|slice| !slice.is_empty());
        rope
    }
}

/// The value of an optional field in a version that has no null for it.
pub fn required<'a, T>(what: &'static str, value: &'a Option<T>) -> Result<&'a T, EncodeError> {
    value.as_ref().ok_or(EncodeError {
        what,
        kind: EncodeErrorKind::Null,
    })
}

pub(super) fn length(what: &'static str, length: usize, max: usize) -> Result<usize, EncodeError> {
    if length <= max {
        Ok(length)
    } else {
        Err(EncodeError {
            what,
            kind: EncodeErrorKind::TooLong { length, max },
        })
    }
}
