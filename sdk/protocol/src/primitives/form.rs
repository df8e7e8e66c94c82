//! The two ways Kafka writes lengths, and what can be an element of an array.
//!
//! Owns the choice only; the bytes are the reader's and the writer's.

use super::{DecodeError, EncodeError, Reader, Str, Uuid, Writer};

/// How lengths are written, decided by a message's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Fixed-width lengths, -1 for null, no tagged fields.
    Classic,
    /// Lengths as unsigned varints of length + 1, 0 for null; every struct ends with tagged fields (KIP-482).
    Flexible,
}

impl Form {
    /// The form of `version` in a message whose first flexible version is given.
    pub const fn since(version: i16, first_flexible: i16) -> Self {
        if version >= first_flexible {
            Self::Flexible
        } else {
            Self::Classic
        }
    }
}

/// What can stand in an array: a schema struct or one of the primitive types.
pub trait Element: Sized {
    fn read(r: &mut Reader, what: &'static str, form: Form, version: i16) -> Result<Self, DecodeError>;

    fn write(&self, w: &mut Writer, what: &'static str, form: Form, version: i16) -> Result<(), EncodeError>;
}

macro_rules! fixed_width_element {
    ($($type:ty => $method:ident),*) => {$(
        impl Element for $type {
            fn read(r: &mut Reader, what: &'static str, _: Form, _: i16) -> Result<Self, DecodeError> {
                r.$method(what)
            }

            fn write(&self, w: &mut Writer, _: &'static str, _: Form, _: i16) -> Result<(), EncodeError> {
                w.$method(*self);
                Ok(())
            }
        }
    )*};
}

fixed_width_element!(i8 => i8, i16 => i16, i32 => i32, i64 => i64, Uuid => uuid);

impl Element for Str {
    fn read(r: &mut Reader, what: &'static str, form: Form, _: i16) -> Result<Self, DecodeError> {
        r.string(what, form)
    }

    fn write(&self, w: &mut Writer, what: &'static str, form: Form, _: i16) -> Result<(), EncodeError> {
        w.string(what, form, self)
    }
}
