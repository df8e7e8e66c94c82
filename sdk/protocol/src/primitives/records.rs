//! [`Records`]: the record batches inside a message, as a rope that is never flattened on the way out.
//!
//! Owns nothing of a batch's inside; it must never look into the bytes.

use bytes::{Bytes, BytesMut};

/// Record batches as a list of byte slices that follow each other on the wire.
///
/// A fetch answers with slices of several segments; each stays where it is until the socket takes it.
///
/// - No part is empty.
#[derive(Clone, Debug, Default)]
pub struct Records(Parts);

// One part is by far the most common case, and must not cost a vector per partition.
#[derive(Clone, Debug, Default)]
enum Parts {
    #[default]
    None,
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Records {
    pub const fn new() -> Self {
        Self(Parts::None)
    }

    /// The slices in wire order.
    pub fn parts(&self) -> &[Bytes] {
        match &self.0 {
            Parts::None => &[],
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.parts().iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.parts().is_empty()
    }

    /// Appends a slice without copying it. An empty slice changes nothing.
    pub fn push(&mut self, part: Bytes) {
        if part.is_empty() {
            return;
        }
        self.0 = match std::mem::take(&mut self.0) {
            Parts::None => Parts::One(part),
            Parts::One(first) => Parts::Many(vec![first, part]),
            Parts::Many(mut parts) => {
                parts.push(part);
                Parts::Many(parts)
            }
        };
    }

    /// The records as one slice; copies only if there are several parts.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Parts::None => Bytes::new(),
            Parts::One(part) => part,
            Parts::Many(parts) => {
                let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
                for part in parts {
                    whole.extend_from_slice(&part);
                }
                whole.freeze()
            }
        }
    }
}

impl From<Bytes> for Records {
    fn from(part: Bytes) -> Self {
        let mut records = Self::new();
        records.push(part);
        records
    }
}

impl From<Vec<Bytes>> for Records {
    fn from(mut parts: Vec<Bytes>) -> Self {
        parts.retain(|part| !part.is_empty());
        match parts.len() {
            0 => Self::new(),
            1 => Self(Parts::One(parts.remove(0))),
            _ => Self(Parts::Many(parts)),
        }
    }
}

// Equal by content: where the cuts lie is not part of the value.
impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |records: &Self| records.clone().into_bytes();
        match (self.parts(), other.parts()) {
            ([one], [two]) => one == two,
            _ => self.len() == other.len() && bytes(self) == bytes(other),
        }
    }
}

impl Eq for Records {}
