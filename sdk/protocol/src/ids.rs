//! Newtypes for the integers of the protocol, so that two bare numbers never stand side by side.
//! They own no rules beyond their order; they must never do arithmetic that can overflow silently.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

use crate::primitives::Uuid;

/// Declares one integer newtype: copyable, ordered, printable, convertible both ways.
macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare integer, as it goes on the wire.
            pub const fn value(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl From<$name> for $inner {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

integer_id! {
    /// One node of a cluster.
    NodeId(i32)
}

integer_id! {
    /// One partition of a topic, counted from 0.
    PartitionIndex(i32)
}

integer_id! {
    /// The position of a record in its partition. Valid offsets are not negative; a log never reaches
    /// `i64::MAX`.
    Offset(i64)
}

integer_id! {
    /// The reign of one partition leader, stamped into every batch it appends.
    LeaderEpoch(i32)
}

integer_id! {
    /// Who produced a batch, as handed out by InitProducerId.
    ProducerId(i64)
}

integer_id! {
    /// The incarnation of a producer: a higher one fences the lower.
    ProducerEpoch(i16)
}

integer_id! {
    /// The incarnation of a node, given at its registration; a higher one fences the lower.
    BrokerEpoch(i64)
}

impl Offset {
    pub const ZERO: Self = Self(0);

    /// The offset `count` records further on. Saturates: no log gets there.
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many offsets lie between `earlier` and `self`; negative when `earlier` is later.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl NodeId {
    /// No node known.
    pub const NONE: Self = Self(-1);
}

/// The identity of a topic, for as long as it lives: a topic deleted and created again by the same name has
/// another one. 16 bytes on the wire; written as URL-safe base64 without padding, as Kafka does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// No topic: what the wire carries where an id is not known.
    pub const NONE: Self = Self([0; 16]);

    /// Makes an id of 16 random bytes (a version 4 UUID).
    pub const fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// The 16 bytes, as they go on the wire.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Uuid(self.0), f)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// The text is not 22 characters of URL-safe base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a topic id is 22 characters of URL-safe base64")]
pub struct InvalidTopicId;

impl FromStr for TopicId {
    type Err = InvalidTopicId;

    fn from_str(text: &str) -> Result<Self, InvalidTopicId> {
        text.parse::<Uuid>().map(Self::from).map_err(|_| InvalidTopicId)
    }
}

impl From<Uuid> for TopicId {
    fn from(id: Uuid) -> Self {
        Self(id.0)
    }
}

impl From<TopicId> for Uuid {
    fn from(id: TopicId) -> Self {
        Self(id.0)
    }
}

impl Serialize for TopicId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TopicId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl LeaderEpoch {
    /// No epoch known.
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// A batch without idempotence.
    pub const NONE: Self = Self(-1);
}

impl ProducerEpoch {
    /// A batch without idempotence.
    pub const NONE: Self = Self(-1);
}

impl BrokerEpoch {
    /// No epoch known: the receiver does not check it.
    pub const NONE: Self = Self(-1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_reads_back_what_it_writes() {
        let id = TopicId([0xfb, 0xff, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xff]);
        assert_eq!(id.to_string(), "-_8AAQIDBAUGBwgJCgsM_w");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(TopicId::NONE.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        for wrong in [
            "",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(wrong.parse::<TopicId>(), Err(InvalidTopicId), "{wrong}");
        }
    }
}
