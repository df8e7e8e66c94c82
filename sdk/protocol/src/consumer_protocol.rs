//! What consumers of a group tell each other through its coordinator: subscriptions and assignments
//! (`ConsumerProtocolSubscription` and `ConsumerProtocolAssignment` in Kafka, versions 0 to 3).
//!
//! Each begins with its version. A version newer than ours is read as ours: what it adds comes behind (KIP-54).

use crate::primitives::{DecodeError, Element, EncodeError, Form, Reader, Str, Writer};
use bytes::{Bytes, BytesMut};

/// The name that groups of consumers have for their kind.
pub const PROTOCOL_TYPE: &str = "consumer";
/// The newest version that is understood.
const VERSION_MAX: i16 = 3;

/// What a member wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscription {
    pub topics: Vec<Str>,
    /// The assignor's own.
    pub user_data: Option<Bytes>,
    /// From version 1: what it has, for assignors that move no more than they must (KIP-429).
    pub owned: Vec<TopicPartitions>,
    /// From version 2: the generation in which it got that; -1: none (KIP-792).
    pub generation: i32,
    /// From version 3: where it stands (KIP-881).
    pub rack: Option<Str>,
}

/// What a member gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    pub partitions: Vec<TopicPartitions>,
    /// The assignor's own.
    pub user_data: Option<Bytes>,
}

/// Some partitions of a topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicPartitions {
    pub topic: Str,
    pub partitions: Vec<i32>,
}

impl Element for TopicPartitions {
    fn read(r: &mut Reader, _what: &'static str, form: Form, version: i16) -> Result<Self, DecodeError> {
        Ok(Self {
            topic: r.string("topic", form)?,
            partitions: r.array("partitions", form, version)?,
        })
    }

    fn write(
        &self,
        w: &mut Writer,
        _what: &'static str,
        form: Form,
        version: i16,
    ) -> Result<(), EncodeError> {
        w.string("topic", form, &self.topic)?;
        w.array("partitions", form, version, &self.partitions)
    }
}

/// The version in front; none where there is nothing, or nothing of this kind.
fn version(r: &mut Reader) -> Option<i16> {
    let version = r.i16("version").ok()?;
    (version >= 0).then_some(version.min(VERSION_MAX))
}

impl Subscription {
    /// None where the bytes are no subscription.
    pub fn decode(bytes: Bytes) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let version = version(&mut r)?;
        Self::read(&mut r, version).ok()
    }

    fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let form = Form::Classic;
        Ok(Self {
            topics: r.array("topics", form, version)?,
            user_data: r.nullable_bytes("user_data", form)?,
            owned: if version >= 1 {
                r.array("owned_partitions", form, version)?
            } else {
                Vec::new()
            },
            generation: if version >= 2 { r.i32("generation_id")? } else { -1 },
            rack: if version >= 3 {
                r.nullable_string("rack_id", form)?
            } else {
                None
            },
        })
    }

    /// In the newest version.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let (mut w, form) = (Writer::new(), Form::Classic);
        w.i16(VERSION_MAX);
        w.array("topics", form, VERSION_MAX, &self.topics)?;
        w.nullable_bytes("user_data", form, self.user_data.as_ref())?;
        w.array("owned_partitions", form, VERSION_MAX, &self.owned)?;
        w.i32(self.generation);
        w.nullable_string("rack_id", form, self.rack.as_ref())?;
        Ok(joined(w))
    }
}

impl Assignment {
    /// None where the bytes are no assignment. No bytes are an empty one, as the coordinator gives it.
    pub fn decode(bytes: Bytes) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let mut r = Reader::new(bytes);
        let version = version(&mut r)?;
        let partitions = r.array("assigned_partitions", Form::Classic, version).ok()?;
        let user_data = r.nullable_bytes("user_data", Form::Classic).ok()?;
        Some(Self {
            partitions,
            user_data,
        })
    }

    /// In the newest version.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let (mut w, form) = (Writer::new(), Form::Classic);
        w.i16(VERSION_MAX);
        w.array("assigned_partitions", form, VERSION_MAX, &self.partitions)?;
        w.nullable_bytes("user_data", form, self.user_data.as_ref())?;
        Ok(joined(w))
    }
}

fn joined(w: Writer) -> Bytes {
    let mut all = BytesMut::with_capacity(w.len());
    for part in w.finish() {
        all.extend_from_slice(&part);
    }
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Bytes {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    fn owned() -> Vec<TopicPartitions> {
        vec![TopicPartitions {
            topic: Str::from_static("b"),
            partitions: vec![0, 7],
        }]
    }

    #[test]
    fn subscriptions_of_every_version_are_read_and_the_newest_is_written() {
        let topics = vec![Str::from_static("a"), Str::from_static("b")];
        let plain = Subscription {
            topics,
            generation: -1,
            ..Subscription::default()
        };
        let front = "00000002 000161 000162 ffffffff";
        let check = |hex: &str, expected: Option<&Subscription>| {
            assert_eq!(Subscription::decode(bytes(hex)).as_ref(), expected, "{hex}");
        };
        check(&format!("0000 {front}"), Some(&plain));
        let owning = Subscription {
            owned: owned(),
            ..plain
        };
        let owned_hex = "00000001 000162 00000002 00000000 00000007";
        check(&format!("0001 {front} {owned_hex}"), Some(&owning));
        let of_generation = Subscription {
            generation: 4,
            ..owning
        };
        check(
            &format!("0002 {front} {owned_hex} 00000004"),
            Some(&of_generation),
        );
        let placed = Subscription {
            rack: Some(Str::from_static("r")),
            ..of_generation
        };
        let newest = format!("0003 {front} {owned_hex} 00000004 000172");
        check(&newest, Some(&placed));
        assert_eq!(placed.encode().unwrap(), bytes(&newest));
        // Of a version to come.
        check(
            &format!("0009 {front} {owned_hex} 00000004 000172 01020304"),
            Some(&placed),
        );
        for wrong in [
            "",
            "00",
            "ffff 00000000",
            "0000 00000002 000161",
            "0003 00000000 ffffffff",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn assignments_are_read_and_written() {
        let assignment = Assignment {
            partitions: owned(),
            user_data: Some(Bytes::from_static(&[9])),
        };
        let hex = "0003 00000001 000162 00000002 00000000 00000007 00000001 09";
        assert_eq!(Assignment::decode(bytes(hex)), Some(assignment.clone()));
        assert_eq!(assignment.encode().unwrap(), bytes(hex));
        assert_eq!(Assignment::decode(Bytes::new()), Some(Assignment::default()));
        assert_eq!(Assignment::decode(bytes("0000 7fffffff")), None);
    }
}
