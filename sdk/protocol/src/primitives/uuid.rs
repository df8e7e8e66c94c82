//! [`Uuid`]: Kafka's 128-bit ids and their 22-character text form.
//!
//! Owns the text form. It must never make ids: randomness is not this crate's.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TEXT_LENGTH: usize = 22;

/// A 128-bit id as the wire carries it. Shown as unpadded base64url, as Kafka's own tools do.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

/// The text is not 22 characters of unpadded base64url that encode 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a uuid: 22 characters of base64url expected")]
pub struct ParseUuidError;

impl Uuid {
    /// "No id", where a schema has no null.
    pub const ZERO: Self = Self([0; 16]);

    pub const fn from_u128(value: u128) -> Self {
        Self(value.to_be_bytes())
    }

    pub const fn to_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; TEXT_LENGTH];
        // 22 characters of 6 bits are 132 bits: the id comes first, four zero bits pad the last character.
        for (index, character) in text.iter_mut().enumerate() {
            let shift = 122 - 6 * index as i32;
            let bits = if shift >= 0 {
                self.to_u128() >> shift as u32
            } else {
                self.to_u128() << (-shift) as u32
            };
            *character = ALPHABET[(bits & 63) as usize];
        }
        f.pad(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        if text.len() != TEXT_LENGTH {
            return Err(ParseUuidError);
        }
        let mut value = 0u128;
        for (index, character) in text.bytes().enumerate() {
            let bits = ALPHABET
                .iter()
                .position(|&c| c == character)
                .ok_or(ParseUuidError)? as u128;
            if index < TEXT_LENGTH - 1 {
                value = value << 6 | bits;
            } else if bits & 15 == 0 {
                value = value << 2 | bits >> 4;
            } else {
                return Err(ParseUuidError);
            }
        }
        Ok(Self::from_u128(value))
    }
}
