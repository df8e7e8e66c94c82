//! What tells records apart: their own key, or one of their fields.

use headwater_guest::Error;

use crate::fields::{Fields, Slot, View};
use crate::lexer::ParseError;
use crate::path::Path;
use crate::value::Value;
use crate::write::put_number;

/// Of an object or an array, where records are told apart.
pub const INDISTINCT: &str = "by which records cannot be told apart";

/// Where the text stands by which a record is known.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    Record,
    Field(Slot),
}

impl Key {
    /// Reads `key`, or the path of a field.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn parse(source: &str, fields: &mut Fields) -> Result<Self, ParseError> {
        match source.trim() {
            "key" => Ok(Self::Record),
            path => Ok(Self::Field(fields.add(&Path::parse(path)?))),
        }
    }

    /// Appends the text; false if the record has none, or null. Numbers are written in their one form.
    ///
    /// # Errors
    /// When the field is an object or an array, of which `unusable` says why that does not do.
    #[inline]
    pub fn put(self, view: &View<'_>, to: &mut Vec<u8>, unusable: &str) -> Result<bool, Error> {
        let slot = match self {
            Self::Record => {
                to.extend_from_slice(view.record.key().unwrap_or_default());
                return Ok(view.record.key().is_some());
            }
            Self::Field(slot) => slot,
        };
        match view.field(slot) {
            Value::Null => return Ok(false),
            Value::Text(text) => text.put(to),
            Value::Boolean(truth) => to.extend_from_slice(if truth { b"true" } else { b"false" }),
            Value::Number(number) => put_number(to, number.simplest()),
            value @ (Value::Nested(_) | Value::BadNumber(_)) => {
                return Err(Error::new(format!(
                    "{} is {}, {unusable}",
                    view.path(slot),
                    value.kind()
                )));
            }
        }
        Ok(true)
    }
}
