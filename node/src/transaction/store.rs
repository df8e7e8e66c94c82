//! The records of `__transaction_state`, in Kafka's own format, so that Kafka's tools read them and ours read Kafka's. Pure.
//!
//! It owns the layout of keys and values. What it does not know it leaves alone, and says so: a partition with such records must
//! not be rewritten.

use super::request::{Producer, Stage, TopicPartition, TransactionalId, by_topic};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use headwater_protocol::ids::{PartitionIndex, ProducerEpoch, ProducerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const KEY_VERSION: i16 = 0;
/// The flexible one: it has room for what KIP-890 needs (KIP-915).
const VALUE_VERSION: i16 = 1;
/// Tags of the value.
const PREVIOUS_PRODUCER: u32 = 0;
const NEXT_PRODUCER: u32 = 1;
const CLIENT_VERSION: u32 = 2;
/// Counts are bounded by what a record may hold.
const PARTITIONS_MAX: usize = 1 << 20;

/// A transactional id as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) producer: Producer,
    /// The producer it was before its last step (KIP-360, KIP-890).
    pub(crate) before: Option<Producer>,
    /// What it becomes once its transaction is done, where its epochs are used up.
    pub(crate) next: Option<ProducerId>,
    pub(crate) timeout_ms: i32,
    pub(crate) stage: Stage,
    pub(crate) partitions: BTreeSet<TopicPartition>,
    pub(crate) updated_ms: i64,
    pub(crate) started_ms: Option<i64>,
    /// Each transaction has an epoch of its own (KIP-890).
    pub(crate) bumps_epoch: bool,
}

/// One record of the topic; no value: the transactional id is forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

pub(crate) fn record(id: &str, kept: Option<&Kept>) -> Record {
    let mut key = BytesMut::new();
    key.put_i16(KEY_VERSION);
    key.put_i16(i16::try_from(id.len()).unwrap_or(i16::MAX));
    key.put_slice(id.as_bytes());
    Record {
        key: key.freeze(),
        value: kept.map(encode),
    }
}

fn encode(kept: &Kept) -> Bytes {
    let mut value = BytesMut::new();
    value.put_i16(VALUE_VERSION);
    value.put_i64(kept.producer.id.value());
    value.put_i16(kept.producer.epoch.value());
    value.put_i32(kept.timeout_ms);
    value.put_i8(code(kept.stage));
    let topics = by_topic(&kept.partitions);
    put_count(&mut value, topics.len());
    for (topic, indexes) in topics {
        put_count(&mut value, topic.len());
        value.put_slice(topic.as_bytes());
        put_count(&mut value, indexes.len());
        indexes.into_iter().for_each(|index| value.put_i32(index));
        put_varint(&mut value, 0);
    }
    value.put_i64(kept.updated_ms);
    value.put_i64(kept.started_ms.unwrap_or(-1));
    put_tags(&mut value, kept);
    value.freeze()
}

fn put_tags(value: &mut BytesMut, kept: &Kept) {
    let mut tags: Vec<(u32, Vec<u8>)> = Vec::new();
    if let Some(before) = kept.before {
        // Kafka has the id alone here; the epoch behind it is ours, and passed over there.
        let mut tag = before.id.value().to_be_bytes().to_vec();
        tag.extend_from_slice(&before.epoch.value().to_be_bytes());
        tags.push((PREVIOUS_PRODUCER + OWN_TAGS, tag));
    }
    if let Some(next) = kept.next {
        tags.push((NEXT_PRODUCER, next.value().to_be_bytes().to_vec()));
    }
    let version: i16 = if kept.bumps_epoch { 2 } else { 0 };
    tags.push((CLIENT_VERSION, version.to_be_bytes().to_vec()));
    tags.sort_unstable_by_key(|(tag, _)| *tag);
    put_varint(value, u32::try_from(tags.len()).unwrap_or(0));
    for (tag, bytes) in tags {
        put_varint(value, tag);
        put_varint(value, u32::try_from(bytes.len()).unwrap_or(0));
        value.put_slice(&bytes);
    }
}

/// Tags from here on are not Kafka's; its readers keep what they do not know.
const OWN_TAGS: u32 = 10_000;

fn code(stage: Stage) -> i8 {
    match stage {
        Stage::Empty => 0,
        Stage::Ongoing => 1,
        Stage::PrepareCommit => 2,
        Stage::PrepareAbort => 3,
        Stage::CompleteCommit => 4,
        Stage::CompleteAbort => 5,
    }
}

fn put_varint(bytes: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        bytes.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

/// A length as flexible versions have it: one more than it is.
fn put_count(bytes: &mut BytesMut, count: usize) {
    put_varint(bytes, u32::try_from(count + 1).unwrap_or(u32::MAX));
}

/// A record that no version known here describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed;

impl From<bytes::TryGetError> for Malformed {
    fn from(_: bytes::TryGetError) -> Self {
        Self
    }
}

/// Reads a partition of the topic from its beginning; a later record of a key stands for all earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    known: BTreeMap<TransactionalId, Kept>,
    unknown: u64,
}

impl Replay {
    /// Folds one record in. One that is not understood is passed over and counted.
    pub(crate) fn record(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let known = key.is_some_and(|key| self.fold(key, value).is_ok());
        self.unknown += u64::from(!known);
    }

    fn fold(&mut self, mut key: &[u8], value: Option<&[u8]>) -> Result<(), Malformed> {
        if key.try_get_i16()? != KEY_VERSION {
            return Err(Malformed);
        }
        let length = usize::try_from(key.try_get_i16()?).map_err(|_| Malformed)?;
        let id = text(&mut key, length)?;
        match value {
            Some(value) => {
                let kept = decode(value)?;
                self.known.insert(id, kept);
            }
            None => drop(self.known.remove(&id)),
        }
        Ok(())
    }

    /// What is left, and how many records were passed over.
    pub(crate) fn finish(self) -> (BTreeMap<TransactionalId, Kept>, u64) {
        (self.known, self.unknown)
    }
}

fn decode(mut value: &[u8]) -> Result<Kept, Malformed> {
    let bytes = &mut value;
    let version = bytes.try_get_i16()?;
    if !(0..=VALUE_VERSION).contains(&version) {
        return Err(Malformed);
    }
    let is_flexible = version >= 1;
    let producer = Producer {
        id: ProducerId(bytes.try_get_i64()?),
        epoch: ProducerEpoch(bytes.try_get_i16()?),
    };
    let timeout_ms = bytes.try_get_i32()?;
    let code_found = bytes.try_get_i8()?;
    let mut partitions = BTreeSet::new();
    for _ in 0..count(bytes, is_flexible)? {
        let length = string_length(bytes, is_flexible)?;
        let topic = text(bytes, length)?;
        for _ in 0..count(bytes, is_flexible)? {
            let index = PartitionIndex(bytes.try_get_i32()?);
            let topic = Arc::clone(&topic);
            partitions.insert(TopicPartition { topic, index });
        }
        if is_flexible {
            pass_tags(bytes, |_, _| Ok(()))?;
        }
    }
    let mut kept = Kept {
        producer,
        before: None,
        next: None,
        timeout_ms,
        stage: stage(code_found).ok_or(Malformed)?,
        partitions,
        updated_ms: bytes.try_get_i64()?,
        started_ms: Some(bytes.try_get_i64()?).filter(|ms| *ms >= 0),
        bumps_epoch: false,
    };
    if is_flexible {
        pass_tags(bytes, |tag, mut bytes| {
            match tag {
                _ if tag == PREVIOUS_PRODUCER + OWN_TAGS => {
                    kept.before = Some(Producer {
                        id: ProducerId(bytes.try_get_i64()?),
                        epoch: ProducerEpoch(bytes.try_get_i16()?),
                    });
                }
                NEXT_PRODUCER => {
                    kept.next = Some(ProducerId(bytes.try_get_i64()?)).filter(|id| id.value() >= 0);
                }
                CLIENT_VERSION => kept.bumps_epoch = bytes.try_get_i16()? >= 2,
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(kept)
}

fn stage(code_found: i8) -> Option<Stage> {
    Stage::ALL.into_iter().find(|stage| code(*stage) == code_found)
}

fn text(bytes: &mut &[u8], length: usize) -> Result<Arc<str>, Malformed> {
    let (text, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    std::str::from_utf8(text).map(Arc::from).map_err(|_| Malformed)
}

fn varint(bytes: &mut &[u8]) -> Result<u32, Malformed> {
    let mut value = 0u32;
    for shift in [0, 7, 14, 21, 28] {
        let byte = bytes.try_get_u8()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

/// How many follow; none where there is null.
fn count(bytes: &mut &[u8], is_flexible: bool) -> Result<usize, Malformed> {
    let count = if is_flexible {
        varint(bytes)?.saturating_sub(1)
    } else {
        u32::try_from(bytes.try_get_i32()?).unwrap_or(0)
    };
    let count = usize::try_from(count).map_err(|_| Malformed)?;
    if count > PARTITIONS_MAX {
        return Err(Malformed);
    }
    Ok(count)
}

fn string_length(bytes: &mut &[u8], is_flexible: bool) -> Result<usize, Malformed> {
    let length = if is_flexible {
        i64::from(varint(bytes)?) - 1
    } else {
        i64::from(bytes.try_get_i16()?)
    };
    usize::try_from(length).map_err(|_| Malformed)
}

fn pass_tags(
    bytes: &mut &[u8],
    mut tag: impl FnMut(u32, &[u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for _ in 0..varint(bytes)? {
        let number = varint(bytes)?;
        let length = usize::try_from(varint(bytes)?).map_err(|_| Malformed)?;
        let (content, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
        *bytes = rest;
        tag(number, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
