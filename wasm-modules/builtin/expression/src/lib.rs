//! Expressions over the JSON fields of a record, as the built-in modules share them.
#![doc = include_str!("../README.md")]
//!
//! What this crate owns: the language, the lazy reader of JSON under it, and the text forms of numbers and times. It
//! allocates when an expression is read, never when a record is.

mod expression;
mod fields;
mod json;
mod key;
mod lexer;
mod names;
mod number;
mod parser;
mod path;
mod text;
mod time;
mod value;
mod write;

#[cfg(test)]
mod reading;
#[cfg(test)]
mod tests;

pub use expression::Expression;
pub use fields::{Fields, Slot, View};
pub use json::{Elements, Member, Members, NotJson, check};
pub use key::{INDISTINCT, Key};
pub use lexer::ParseError;
pub use number::Number;
pub use parser::Parser;
pub use path::Path;
pub use text::Text;
pub use time::{parse_time_ms, put_time};
pub use value::Value;
pub use write::{put_integer, put_json_text, put_number, put_shown};
