//! The records of `__consumer_offsets`, in Kafka's own format, so that Kafka's tools read them and ours read Kafka's. Pure.
//!
//! It owns the layout of keys and values and the fold of a partition's records. What it does not know it leaves alone,
//! and says so: a partition with such records must not be rewritten.

mod consumer;
mod format;
mod share;

#[cfg(test)]
mod tests;

pub(crate) use consumer::{
    ConsumerKey, ConsumerMember, ConsumerMetadata, CurrentAssignment, MemberStage, ResolvedRegex,
    RestoredConsumers, current_record, member_record, metadata_record, regex_record, target_record,
    targets_record, tombstone,
};
pub(crate) use share::{
    CurrentShare, RestoredSharers, ShareKey, ShareMember, ShareMetadata, share_current_record,
    share_member_record, share_metadata_record, share_target_record, share_targets_record,
};

use super::request::{Committed, Generation, Name, TopicPartition};
use crate::coordination::Entry;
use bytes::Bytes;
use format::{Malformed, Reader, Writer};
use headwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, ProducerId};
use headwater_protocol::record::ControlKind;
use std::collections::BTreeMap;

/// Versions as they are written: what Kafka 2.1 and everything newer reads.
const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const OFFSET_VALUE: i16 = 3;
/// The one that says when it expires; it has no leader epoch.
const EXPIRING_OFFSET_VALUE: i16 = 1;
const GROUP_VALUE: i16 = 3;
/// The newest versions that are understood.
const OFFSET_VALUE_MAX: i16 = 4;
const GROUP_VALUE_MAX: i16 = 4;
/// From here on values are flexible (KIP-482).
const FLEXIBLE: i16 = 4;

/// One record of the topic; no value: what the key names is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupRecord {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

impl Entry for GroupRecord {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }
}

impl GroupRecord {
    /// About how much of the log it takes.
    pub(crate) fn bytes(&self) -> usize {
        RECORD_OVERHEAD_BYTES + self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Lengths, deltas and the like around a record's key and value.
const RECORD_OVERHEAD_BYTES: usize = 12;

/// A generation as it is kept: who is in it, and what each was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupMetadata {
    pub(crate) protocol_type: Name,
    pub(crate) generation: Generation,
    pub(crate) protocol: Option<Name>,
    pub(crate) leader: Option<Name>,
    /// Since when the group is in this state.
    pub(crate) since_ms: Option<i64>,
    pub(crate) members: Vec<MemberMetadata>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberMetadata {
    pub(crate) member: Name,
    pub(crate) instance: Option<Name>,
    pub(crate) client_id: Name,
    pub(crate) client_host: Name,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}

pub(crate) fn offset_key(group: &str, partition: &TopicPartition) -> Bytes {
    let mut key = Writer::new(OFFSET_KEY);
    key.string(group);
    key.string(&partition.topic);
    key.i32(partition.index.value());
    key.finish()
}

pub(crate) fn offset_record(group: &str, partition: &TopicPartition, committed: &Committed) -> GroupRecord {
    let version = match committed.expires_ms {
        Some(_) => EXPIRING_OFFSET_VALUE,
        None => OFFSET_VALUE,
    };
    let mut value = Writer::new(version);
    value.i64(committed.offset.value());
    if version == OFFSET_VALUE {
        value.i32(committed.leader_epoch.value());
    }
    value.string(&committed.metadata);
    value.i64(committed.committed_ms);
    if let Some(expires_ms) = committed.expires_ms {
        value.i64(expires_ms);
    }
    GroupRecord {
        key: offset_key(group, partition),
        value: Some(value.finish()),
    }
}

pub(crate) fn offset_tombstone(group: &str, partition: &TopicPartition) -> GroupRecord {
    GroupRecord {
        key: offset_key(group, partition),
        value: None,
    }
}

pub(crate) fn group_key(group: &str) -> Bytes {
    let mut key = Writer::new(GROUP_KEY);
    key.string(group);
    key.finish()
}

pub(crate) fn group_value(metadata: &GroupMetadata) -> Bytes {
    let mut value = Writer::new(GROUP_VALUE);
    value.string(&metadata.protocol_type);
    value.i32(metadata.generation.0);
    value.nullable_string(metadata.protocol.as_deref());
    value.nullable_string(metadata.leader.as_deref());
    value.i64(metadata.since_ms.unwrap_or(-1));
    value.count(metadata.members.len());
    for member in &metadata.members {
        value.string(&member.member);
        value.nullable_string(member.instance.as_deref());
        value.string(&member.client_id);
        value.string(&member.client_host);
        value.i32(member.rebalance_timeout_ms);
        value.i32(member.session_timeout_ms);
        value.bytes(&member.subscription);
        value.bytes(&member.assignment);
    }
    value.finish()
}

pub(crate) fn group_tombstone(group: &str) -> GroupRecord {
    GroupRecord {
        key: group_key(group),
        value: None,
    }
}

/// A group as its records describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RestoredGroup {
    /// Its last generation, with the value it was read from.
    pub(crate) metadata: Option<(GroupMetadata, Bytes)>,
    /// What the consumer protocol has of it.
    pub(crate) consumers: RestoredConsumers,
    /// What it is as a share group.
    pub(crate) sharers: RestoredSharers,
    pub(crate) offsets: BTreeMap<TopicPartition, Committed>,
}

/// A partition of the topic as its records describe it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) groups: BTreeMap<Name, RestoredGroup>,
    pub(crate) pending: Vec<PendingOffset>,
    /// How many records were passed over.
    pub(crate) unknown: u64,
}

/// Reads a partition of the topic from its beginning.
///
/// - A later record of a key stands for all earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    groups: BTreeMap<Name, RestoredGroup>,
    /// Commits in transactions without a marker, in the order in which they lie in the log.
    pending: Vec<PendingOffset>,
    /// Records that were passed over.
    unknown: u64,
}

/// A commit in a transaction whose end is not in the log yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingOffset {
    pub(crate) producer: ProducerId,
    /// Where its batch lies.
    pub(crate) at: Offset,
    pub(crate) group: Name,
    pub(crate) partition: TopicPartition,
    pub(crate) committed: Committed,
}

impl Replay {
    /// Folds in one record of a transaction, of the batch that lies at `at`.
    pub(crate) fn record_in(
        &mut self,
        (producer, at): (ProducerId, Offset),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        let read = || {
            let mut key = Reader::new(key.ok_or(Malformed)?);
            if !matches!(key.i16()?, 0 | OFFSET_KEY) {
                return Err(Malformed);
            }
            Ok(PendingOffset {
                producer,
                at,
                group: key.string()?,
                partition: TopicPartition {
                    topic: key.string()?,
                    index: PartitionIndex(key.i32()?),
                },
                committed: read_offset(value.ok_or(Malformed)?)?,
            })
        };
        match read() {
            Ok(offset) => self.pending.push(offset),
            Err(Malformed) => self.unknown += 1,
        }
    }

    /// Folds in a marker: what was committed in the transaction holds, or nothing of it does. What lies behind it in the log
    /// overrules it.
    pub(crate) fn ended(&mut self, producer: ProducerId, kind: ControlKind) {
        let pending = std::mem::take(&mut self.pending);
        for offset in pending {
            if offset.producer != producer {
                self.pending.push(offset);
            } else if kind == ControlKind::Commit {
                let PendingOffset {
                    group,
                    partition,
                    committed,
                    ..
                } = offset;
                // Those of other transactions that lie before it.
                let is_older = |other: &PendingOffset| other.group == group && other.partition == partition;
                self.pending.retain(|other| !is_older(other));
                let group = self.groups.entry(group).or_default();
                group.offsets.insert(partition, committed);
            }
        }
    }

    fn overrule(&mut self, group: &Name, partition: &TopicPartition) {
        self.pending
            .retain(|offset| offset.group != *group || offset.partition != *partition);
    }

    /// Folds one record in. One that is not understood is passed over and counted.
    pub(crate) fn record(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let known = key.is_some_and(|key| self.fold(key, value).is_ok());
        self.unknown += u64::from(!known);
    }

    fn fold(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Malformed> {
        let mut key = Reader::new(key);
        match key.i16()? {
            version if consumer::is_ours(version) => {
                let group = key.string()?;
                let restored = self.groups.entry(group.clone()).or_default();
                let folded = restored.consumers.fold(version, &mut key, value);
                self.forget(&group, |_| {});
                folded?;
            }
            version if share::is_ours(version) => {
                let group = key.string()?;
                let restored = self.groups.entry(group.clone()).or_default();
                let folded = restored.sharers.fold(version, &mut key, value);
                self.forget(&group, |_| {});
                folded?;
            }
            0 | OFFSET_KEY => {
                let group = key.string()?;
                let partition = TopicPartition {
                    topic: key.string()?,
                    index: PartitionIndex(key.i32()?),
                };
                self.overrule(&group, &partition);
                match value {
                    Some(value) => {
                        let committed = read_offset(value)?;
                        let group = self.groups.entry(group).or_default();
                        group.offsets.insert(partition, committed);
                    }
                    None => self.forget(&group, |group| {
                        group.offsets.remove(&partition);
                    }),
                }
            }
            GROUP_KEY => {
                let group = key.string()?;
                match value {
                    Some(value) => {
                        let metadata = read_group(value)?;
                        self.groups.entry(group).or_default().metadata =
                            Some((metadata, Bytes::copy_from_slice(value)));
                    }
                    None => self.forget(&group, |group| group.metadata = None),
                }
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn forget(&mut self, name: &Name, what: impl FnOnce(&mut RestoredGroup)) {
        if let Some(group) = self.groups.get_mut(name) {
            what(group);
            if *group == RestoredGroup::default() {
                self.groups.remove(name);
            }
        }
    }

    /// What is left.
    pub(crate) fn finish(self) -> Restored {
        Restored {
            groups: self.groups,
            pending: self.pending,
            unknown: self.unknown,
        }
    }
}

fn read_offset(value: &[u8]) -> Result<Committed, Malformed> {
    let mut value = Reader::new(value);
    let version = value.i16()?;
    if !(0..=OFFSET_VALUE_MAX).contains(&version) {
        return Err(Malformed);
    }
    value.flexible = version >= FLEXIBLE;
    let offset = Offset(value.i64()?);
    let leader_epoch = if version >= 3 { value.i32()? } else { -1 };
    let metadata = value.string()?;
    let committed_ms = value.i64()?;
    let expires_ms = if version == 1 { value.i64()? } else { -1 };
    Ok(Committed {
        offset,
        leader_epoch: LeaderEpoch(leader_epoch),
        metadata,
        committed_ms,
        expires_ms: (expires_ms >= 0).then_some(expires_ms),
    })
}

fn read_group(value: &[u8]) -> Result<GroupMetadata, Malformed> {
    let mut value = Reader::new(value);
    let version = value.i16()?;
    if !(0..=GROUP_VALUE_MAX).contains(&version) {
        return Err(Malformed);
    }
    value.flexible = version >= FLEXIBLE;
    let protocol_type = value.string()?;
    let generation = Generation(value.i32()?);
    let protocol = value.nullable_string()?;
    let leader = value.nullable_string()?;
    let since_ms = if version >= 2 { value.i64()? } else { -1 };
    let mut members = Vec::new();
    for _ in 0..value.count()? {
        members.push(read_member(&mut value, version)?);
    }
    Ok(GroupMetadata {
        protocol_type,
        generation,
        protocol,
        leader,
        since_ms: (since_ms >= 0).then_some(since_ms),
        members,
    })
}

fn read_member(value: &mut Reader<'_>, version: i16) -> Result<MemberMetadata, Malformed> {
    let member = value.string()?;
    let instance = if version >= 3 {
        value.nullable_string()?
    } else {
        None
    };
    let client_id = value.string()?;
    let client_host = value.string()?;
    let rebalance_timeout_ms = if version >= 1 { Some(value.i32()?) } else { None };
    let session_timeout_ms = value.i32()?;
    let read = MemberMetadata {
        member,
        instance,
        client_id,
        client_host,
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription: value.bytes()?,
        assignment: value.bytes()?,
    };
    value.end_of_struct()?;
    Ok(read)
}
