//! Tagged fields (KIP-482): the optional fields behind every struct of a flexible version.
//!
//! Owns their order and framing. Known tags belong to the generated messages; unknown ones are kept here so
//! that a message passes through an older node unharmed.

use bytes::Bytes;

use super::{EncodeError, EncodeErrorKind, Form, Writer};

/// Tagged fields that this build's schemas do not know, in the order received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaggedFields(Vec<(u32, Bytes)>);

impl TaggedFields {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &(u32, Bytes)> {
        self.0.iter()
    }

    pub fn push(&mut self, tag: u32, value: Bytes) {
        self.0.push((tag, value));
    }
}

/// The known tagged fields of one struct while it is being written.
///
/// Their count and their lengths stand before them, so each is written aside first. Nothing is allocated
/// unless a field is put.
#[derive(Debug, Default)]
pub struct Tags(Vec<(u32, Writer)>);

impl Tags {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one field. Fields are put in ascending order of their tags.
    pub fn put(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut value = Writer::scratch();
        write(&mut value)?;
        self.0.push((tag, value));
        Ok(())
    }

    /// Writes all fields, known and unknown, in ascending order of their tags, as Java does.
    pub fn finish(self, w: &mut Writer, form: Form, unknown: &TaggedFields) -> Result<(), EncodeError> {
        if form == Form::Classic {
            return classic_carries_none(unknown);
        }
        w.uvarint((self.0.len() + unknown.len()) as u32);
        let mut kept = unknown.iter().peekable();
        for (tag, value) in self.0 {
            while let Some((tag, value)) = kept.next_if(|(other, _)| *other < tag) {
                w.tagged_bytes(*tag, value)?;
            }
            if kept.peek().is_some_and(|(other, _)| *other == tag) {
                return Err(EncodeError {
                    what: "tagged fields",
                    kind: EncodeErrorKind::DuplicateTag(tag),
                });
            }
            w.uvarint(tag);
            w.uvarint(super::writer::length("tagged field", value.len(), u32::MAX as usize)? as u32);
            w.append(value);
        }
        for (tag, value) in kept {
            w.tagged_bytes(*tag, value)?;
        }
        Ok(())
    }
}

fn classic_carries_none(unknown: &TaggedFields) -> Result<(), EncodeError> {
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(EncodeError {
            what: "tagged fields",
            kind: EncodeErrorKind::NotFlexible,
        })
    }
}
