//! What an expression computes with.

use crate::number::Number;
use crate::text::Text;
use crate::write::{put_json_text, put_number};

/// A value while a record is looked at. It borrows from the record or from the expression.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Null, or missing.
    Null,
    Boolean(bool),
    Number(Number),
    Text(Text<'a>),
    /// An object or an array, as it stands.
    Nested(&'a [u8]),
    /// Starts like a number and is none, or none that a double can hold.
    BadNumber(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads one JSON value that has been cut out without space around it.
    #[inline]
    #[must_use]
    pub fn of_json(json: &'a [u8]) -> Self {
        match json {
            [b'"', inside @ .., b'"'] => Self::Text(if inside.contains(&b'\\') {
                Text::escaped(inside)
            } else {
                Text::plain(inside)
            }),
            [b'{' | b'[', ..] => Self::Nested(json),
            [b't', ..] => Self::Boolean(true),
            [b'f', ..] => Self::Boolean(false),
            [b'n', ..] => Self::Null,
            number => Number::parse(number).map_or(Self::BadNumber(number), Self::Number),
        }
    }

    /// What it is, in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::Nested([b'{', ..]) => "an object",
            Self::Nested(_) => "an array",
            Self::BadNumber(_) => "a malformed or huge number",
        }
    }

    /// Appends it as JSON.
    pub fn put_json(&self, to: &mut Vec<u8>) {
        match self {
            Self::Null => to.extend_from_slice(b"null"),
            Self::Boolean(true) => to.extend_from_slice(b"true"),
            Self::Boolean(false) => to.extend_from_slice(b"false"),
            Self::Number(number) => put_number(to, *number),
            Self::Text(text) => match text.as_plain() {
                Some(plain) => put_json_text(to, plain),
                None => {
                    to.push(b'"');
                    to.extend_from_slice(text.raw());
                    to.push(b'"');
                }
            },
            Self::Nested(json) | Self::BadNumber(json) => to.extend_from_slice(json),
        }
    }
}
