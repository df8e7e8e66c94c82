//! The records of `__share_group_state`, in Kafka's own format, so that Kafka's tools read them. Pure.
//!
//! Each is a whole state (Kafka's `ShareSnapshot`), so that the last one of a key is enough: the topic is compacted. What Kafka
//! writes between two of them (`ShareUpdate`) is not understood here, and counted.

use super::ledger::Entry;
use super::request::{Kept, KeptBatch, KeptState, Key};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use headwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;

const SNAPSHOT_KEY: i16 = 0;
/// The one version of the value.
const VALUE: i16 = 0;
/// Of the value: how many offsets behind the start are done with.
const COMPLETE_TAG: u32 = 0;
/// Nobody has decided yet where the group begins.
const NO_START: i64 = -1;

/// One record of the topic; no value: the group has no state of the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Bytes,
    pub(super) value: Option<Bytes>,
}

pub(super) fn record(key: &Key, entry: Option<&Entry>) -> Record {
    let mut bytes = BytesMut::new();
    bytes.put_i16(SNAPSHOT_KEY);
    bytes.put_i16(i16::try_from(key.group.len()).unwrap_or(i16::MAX));
    bytes.put_slice(key.group.as_bytes());
    bytes.put_slice(&key.place.0.bytes());
    bytes.put_i32(key.place.1.value());
    Record {
        key: bytes.freeze(),
        value: entry.map(encode),
    }
}

fn encode(entry: &Entry) -> Bytes {
    let kept = &entry.kept;
    let mut value = BytesMut::new();
    value.put_i16(VALUE);
    value.put_i32(entry.snapshot_epoch);
    value.put_i32(kept.state_epoch);
    value.put_i32(kept.leader_epoch.value());
    value.put_i64(kept.start.map_or(NO_START, Offset::value));
    value.put_i64(entry.created_ms);
    value.put_i64(entry.written_ms);
    let count = u32::try_from(kept.batches.len()).unwrap_or(u32::MAX - 1);
    put_varint(&mut value, count + 1);
    let mut complete = 0i64;
    for batch in &kept.batches {
        value.put_i64(batch.first.value());
        value.put_i64(batch.last.value());
        value.put_i8(batch.state.code());
        value.put_i16(batch.count);
        put_varint(&mut value, 0);
        if batch.state != KeptState::Available {
            complete = complete.saturating_add(batch.length());
        }
    }
    put_varint(&mut value, 1);
    put_varint(&mut value, COMPLETE_TAG);
    put_varint(&mut value, 4);
    value.put_i32(i32::try_from(complete).unwrap_or(i32::MAX));
    value.freeze()
}

fn put_varint(bytes: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        bytes.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
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
pub(super) struct Replay {
    entries: BTreeMap<Key, Entry>,
    unknown: u64,
}

impl Replay {
    /// Folds one record in. One that is not understood is passed over and counted.
    pub(super) fn record(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let known = key.is_some_and(|key| self.fold(key, value).is_ok());
        self.unknown += u64::from(!known);
    }

    fn fold(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Malformed> {
        let key = decode_key(key)?;
        match value {
            Some(value) => {
                let entry = decode(value)?;
                self.entries.insert(key, entry);
            }
            None => drop(self.entries.remove(&key)),
        }
        Ok(())
    }

    /// What is left, and how many records were passed over.
    pub(super) fn finish(self) -> (BTreeMap<Key, Entry>, u64) {
        (self.entries, self.unknown)
    }
}

fn decode_key(mut key: &[u8]) -> Result<Key, Malformed> {
    let bytes = &mut key;
    if bytes.try_get_i16()? != SNAPSHOT_KEY {
        return Err(Malformed);
    }
    let length = usize::try_from(bytes.try_get_i16()?).map_err(|_| Malformed)?;
    let (group, mut rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    let mut topic = [0; 16];
    rest.try_copy_to_slice(&mut topic)?;
    Ok(Key {
        group: std::str::from_utf8(group).map(Arc::from).map_err(|_| Malformed)?,
        place: (TopicId(topic), PartitionIndex(rest.try_get_i32()?)),
    })
}

fn decode(mut value: &[u8]) -> Result<Entry, Malformed> {
    let bytes = &mut value;
    if bytes.try_get_i16()? != VALUE {
        return Err(Malformed);
    }
    let snapshot_epoch = bytes.try_get_i32()?;
    let state_epoch = bytes.try_get_i32()?;
    let leader_epoch = LeaderEpoch(bytes.try_get_i32()?);
    let start = Some(bytes.try_get_i64()?).filter(|start| *start >= 0).map(Offset);
    let created_ms = bytes.try_get_i64()?;
    let written_ms = bytes.try_get_i64()?;
    let mut batches = Vec::new();
    // Each reads some bytes, or there is an end: what is reserved grows with them.
    for _ in 1..varint(bytes)? {
        let batch = KeptBatch {
            first: Offset(bytes.try_get_i64()?),
            last: Offset(bytes.try_get_i64()?),
            state: KeptState::of(bytes.try_get_i8()?).ok_or(Malformed)?,
            count: bytes.try_get_i16()?,
        };
        pass_tags(bytes)?;
        batches.push(Some(batch).filter(KeptBatch::is_sound).ok_or(Malformed)?);
    }
    pass_tags(bytes)?;
    Ok(Entry {
        kept: Kept {
            state_epoch,
            leader_epoch,
            start,
            batches,
        },
        snapshot_epoch,
        created_ms,
        written_ms,
    })
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

fn pass_tags(bytes: &mut &[u8]) -> Result<(), Malformed> {
    for _ in 0..varint(bytes)? {
        varint(bytes)?;
        let length = usize::try_from(varint(bytes)?).map_err(|_| Malformed)?;
        let (_, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
        *bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> (Key, Entry) {
        let key = Key {
            group: Arc::from("gr"),
            place: (TopicId([9; 16]), PartitionIndex(3)),
        };
        let batch = KeptBatch {
            first: Offset(21),
            last: Offset(22),
            state: KeptState::Acknowledged,
            count: 2,
        };
        let entry = Entry {
            kept: Kept {
                state_epoch: 5,
                leader_epoch: LeaderEpoch(6),
                start: Some(Offset(20)),
                batches: vec![batch],
            },
            snapshot_epoch: 4,
            created_ms: 7,
            written_ms: 8,
        };
        (key, entry)
    }

    #[test]
    fn records_are_as_kafka_writes_them() {
        let (key, entry) = entry();
        let record = record(&key, Some(&entry));
        let mut expected = vec![0, 0, 0, 2, b'g', b'r'];
        expected.extend([9; 16]);
        expected.extend([0, 0, 0, 3]);
        assert_eq!(record.key, expected);
        let mut expected = vec![0, 0, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6];
        for long in [20u8, 7, 8] {
            expected.extend([0, 0, 0, 0, 0, 0, 0, long]);
        }
        expected.push(2);
        for long in [21u8, 22] {
            expected.extend([0, 0, 0, 0, 0, 0, 0, long]);
        }
        expected.extend([2, 0, 2, 0, 1, 0, 4, 0, 0, 0, 2]);
        assert_eq!(record.value.unwrap(), expected);
    }

    #[test]
    fn whatever_is_cut_short_or_foreign_is_passed_over() {
        let (key, entry) = entry();
        let whole = record(&key, Some(&entry));
        let (name, value) = (whole.key, whole.value.unwrap());
        for length in 0..value.len() {
            let mut replay = Replay::default();
            replay.record(Some(&name), Some(&value[..length]));
            assert_eq!(replay.finish(), (BTreeMap::new(), 1), "{length} bytes");
        }
        for length in 0..name.len() {
            let mut replay = Replay::default();
            replay.record(Some(&name[..length]), Some(&value));
            assert_eq!(replay.finish().1, 1, "{length} bytes");
        }
        let mut update = name.to_vec();
        update[1] = 1;
        let mut replay = Replay::default();
        replay.record(Some(&update), Some(&value));
        replay.record(None, None);
        replay.record(Some(&name), Some(&value));
        assert_eq!(replay.unknown, 2);
        assert_eq!(replay.finish().0, BTreeMap::from([(key, entry)]));
    }
}
