//! What every Kafka message is made of: bounded reading, rope writing, and the schema's value types.
//!
//! Owns the byte-level encoding of each primitive type, in both of Kafka's [`Form`]s. It must never know a
//! particular message, and never trust a length it has not compared with the bytes that remain.

mod error;
mod form;
mod reader;
mod records;
mod string;
mod tags;
mod uuid;
mod writer;

pub use error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
pub use form::{Element, Form};
pub use reader::Reader;
pub use records::Records;
pub use string::Str;
pub use tags::{TaggedFields, Tags};
pub use uuid::{ParseUuidError, Uuid};
pub use writer::{SPLICE_BYTES_MIN, Writer, required};

#[cfg(test)]
mod tests;
