//! The golden vectors, and what can be done with the message of one without knowing its type.

#![allow(clippy::disallowed_methods, reason = "a test that reads the checkout")]

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::path::Path;

use bytes::Bytes;
use headwater_protocol::kafka::{Message, Request};
use headwater_protocol::primitives::{DecodeError, EncodeError, Reader, Writer};

use crate::filler::{Fill, Filler, Kind};

pub(crate) struct Api {
    pub(crate) name: &'static str,
    pub(crate) sides: [Side; 2],
}

type Outcome<T> = Result<T, DecodeError>;

/// The request or the response of an API.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) versions: RangeInclusive<i16>,
    /// The bytes of the message filled by the rule.
    pub(crate) encode_filled: fn(Kind, i16) -> Result<Vec<u8>, EncodeError>,
    /// Whether the bytes decode to the message filled by the rule.
    pub(crate) decode_compare: fn(Bytes, Kind, i16) -> Outcome<bool>,
    /// The bytes decoded, to the last one, and encoded; none if what they say cannot be encoded.
    pub(crate) round_trip: fn(Bytes, i16) -> Outcome<Option<Vec<u8>>>,
}

pub(crate) struct Vector {
    pub(crate) side: String,
    pub(crate) version: i16,
    pub(crate) kind: Kind,
    pub(crate) bytes: Bytes,
}

impl Api {
    pub(crate) fn of<R>(name: &'static str) -> Self
    where
        R: Request<Response: Fill + Default + PartialEq + Debug> + Fill + Default + PartialEq + Debug,
    {
        let request = Side::of::<R>("request", R::VERSIONS);
        assert_eq!(R::KEY.versions(), R::VERSIONS, "{name}");
        Self {
            name,
            sides: [request, Side::of::<R::Response>("response", R::VERSIONS)],
        }
    }

    pub(crate) fn side(&self, name: &str) -> &Side {
        self.sides
            .iter()
            .find(|side| side.name == name)
            .expect("a vector is of a request or a response")
    }
}

impl Side {
    pub(crate) fn of<M: Message + Fill + Default + PartialEq + Debug>(
        name: &'static str,
        versions: RangeInclusive<i16>,
    ) -> Self {
        Self {
            name,
            versions,
            encode_filled: |kind, version| encode(&Filler::message::<M>(kind, version), version),
            decode_compare: |bytes, kind, version| {
                Ok(decode::<M>(bytes, version)? == Filler::message::<M>(kind, version))
            },
            round_trip: |bytes, version| Ok(encode(&decode::<M>(bytes, version)?, version).ok()),
        }
    }
}

fn encode<M: Message>(message: &M, version: i16) -> Result<Vec<u8>, EncodeError> {
    let mut w = Writer::new();
    message.encode(&mut w, version)?;
    let length = w.len();
    let bytes = w.finish().concat();
    assert_eq!(bytes.len(), length);
    Ok(bytes)
}

fn decode<M: Message>(bytes: Bytes, version: i16) -> Result<M, DecodeError> {
    let mut r = Reader::new(bytes);
    let message = M::decode(&mut r, version)?;
    r.finish("message")?;
    Ok(message)
}

pub(crate) fn vectors(api: &str) -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/kafka");
    let path = folder.join(format!("{api}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .map(|line| vector(line).unwrap_or_else(|| panic!("{api}: {line}")))
        .collect()
}

/// A line is `request|response version full|sparse|plain hex`.
fn vector(line: &str) -> Option<Vector> {
    let mut words = line.split(' ');
    Some(Vector {
        side: words.next()?.to_owned(),
        version: words.next()?.parse().ok()?,
        kind: match words.next()? {
            "full" => Kind::Full,
            "sparse" => Kind::Sparse,
            "plain" => Kind::Plain,
            _ => return None,
        },
        bytes: unhex(words.next()?)?,
    })
}

fn unhex(text: &str) -> Option<Bytes> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    Some(digits?.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
