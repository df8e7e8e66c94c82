//! The records of groups of the consumer protocol (KIP-848): one for each thing that changes by itself.
//!
//! | key | what it holds |
//! |---|---|
//! | 3 | the group's epoch, and a hash of the topics that it was found for |
//! | 5, 7, 8 | of one member: what it subscribes to, what it is to have, what it has |
//! | 6 | the epoch of what the members are to have |
//! | 16 | the topics of one regular expression |
//!
//! Key 4 was the topics themselves up to Kafka 4.0; it is passed over.

use super::GroupRecord;
use super::format::{Malformed, Reader, Writer};
use crate::group::request::{Assignment, Epoch, Name};
use bytes::Bytes;
use headwater_protocol::ids::{PartitionIndex, TopicId};
use std::collections::{BTreeMap, BTreeSet};

const GROUP_KEY: i16 = 3;
const TOPICS_KEY: i16 = 4;
const MEMBER_KEY: i16 = 5;
const TARGETS_KEY: i16 = 6;
const TARGET_KEY: i16 = 7;
const CURRENT_KEY: i16 = 8;
const REGEX_KEY: i16 = 16;
/// The one version of every value.
const VALUE: i16 = 0;
/// Of the group's value: the hash.
const HASH_TAG: u32 = 0;

/// The group itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ConsumerMetadata {
    pub(crate) epoch: Epoch,
    /// Of the topics that are subscribed to and how many partitions each has; zero: it is not known.
    pub(crate) topics_hash: i64,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsumerMember {
    pub(crate) instance: Option<Name>,
    pub(crate) rack: Option<Name>,
    pub(crate) client_id: Name,
    pub(crate) client_host: Name,
    pub(crate) topics: BTreeSet<Name>,
    pub(crate) regex: Option<Name>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) assignor: Option<Name>,
}

/// What a member has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CurrentAssignment {
    pub(crate) epoch: Epoch,
    pub(crate) previous_epoch: Epoch,
    pub(crate) stage: MemberStage,
    pub(crate) assigned: Assignment,
    /// What it is to give up, and has not.
    pub(crate) revoking: Assignment,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MemberStage {
    /// It has what it is to have in its epoch.
    #[default]
    Stable,
    /// It has to give something up first.
    Unrevoked,
    /// It waits for what others have not given up.
    Unreleased,
}

impl MemberStage {
    fn code(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::Unrevoked => 1,
            Self::Unreleased => 2,
        }
    }

    /// One of a newer version waits: what it may have is found out anew.
    fn of(code: i8) -> Self {
        match code {
            0 => Self::Stable,
            1 => Self::Unrevoked,
            _ => Self::Unreleased,
        }
    }
}

/// The topics that a regular expression stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvedRegex {
    pub(crate) topics: BTreeSet<Name>,
    /// The metadata that they were looked up in.
    pub(crate) version: i64,
    pub(crate) resolved_ms: i64,
}

/// What one key of a group names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConsumerKey<'a> {
    Group,
    Member(&'a Name),
    Targets,
    Target(&'a Name),
    Current(&'a Name),
    Regex(&'a Name),
}

impl ConsumerKey<'_> {
    fn bytes(&self, group: &str) -> Bytes {
        let (version, rest) = match self {
            Self::Group => (GROUP_KEY, None),
            Self::Member(id) => (MEMBER_KEY, Some(id)),
            Self::Targets => (TARGETS_KEY, None),
            Self::Target(id) => (TARGET_KEY, Some(id)),
            Self::Current(id) => (CURRENT_KEY, Some(id)),
            Self::Regex(regex) => (REGEX_KEY, Some(regex)),
        };
        let mut key = Writer::new(version);
        key.string(group);
        if let Some(rest) = rest {
            key.string(rest);
        }
        key.finish()
    }
}

pub(crate) fn tombstone(group: &str, key: &ConsumerKey<'_>) -> GroupRecord {
    GroupRecord {
        key: key.bytes(group),
        value: None,
    }
}

fn record(group: &str, key: &ConsumerKey<'_>, value: Writer) -> GroupRecord {
    GroupRecord {
        key: key.bytes(group),
        value: Some(value.finish()),
    }
}

pub(crate) fn metadata_record(group: &str, metadata: ConsumerMetadata) -> GroupRecord {
    let mut value = Writer::flexible(VALUE);
    value.i32(metadata.epoch.0);
    match metadata.topics_hash {
        0 => value.end_of_struct(),
        hash => value.tagged_i64(HASH_TAG, hash),
    }
    record(group, &ConsumerKey::Group, value)
}

pub(crate) fn member_record(group: &str, id: &Name, member: &ConsumerMember) -> GroupRecord {
    let mut value = Writer::flexible(VALUE);
    value.nullable_string(member.instance.as_deref());
    value.nullable_string(member.rack.as_deref());
    value.string(&member.client_id);
    value.string(&member.client_host);
    value.count(member.topics.len());
    member.topics.iter().for_each(|topic| value.string(topic));
    value.nullable_string(member.regex.as_deref());
    value.i32(member.rebalance_timeout_ms);
    value.nullable_string(member.assignor.as_deref());
    value.end_of_struct();
    record(group, &ConsumerKey::Member(id), value)
}

pub(crate) fn targets_record(group: &str, epoch: Epoch) -> GroupRecord {
    let mut value = Writer::flexible(VALUE);
    value.i32(epoch.0);
    value.end_of_struct();
    record(group, &ConsumerKey::Targets, value)
}

pub(crate) fn target_record(group: &str, id: &Name, target: &Assignment) -> GroupRecord {
    let mut value = Writer::flexible(VALUE);
    write_assignment(&mut value, target);
    value.end_of_struct();
    record(group, &ConsumerKey::Target(id), value)
}

pub(crate) fn current_record(group: &str, id: &Name, current: &CurrentAssignment) -> GroupRecord {
    let mut value = Writer::flexible(VALUE);
    value.i32(current.epoch.0);
    value.i32(current.previous_epoch.0);
    value.i8(current.stage.code());
    write_assignment(&mut value, &current.assigned);
    write_assignment(&mut value, &current.revoking);
    value.end_of_struct();
    record(group, &ConsumerKey::Current(id), value)
}

pub(crate) fn regex_record(group: &str, regex: &Name, resolved: &ResolvedRegex) -> GroupRecord {
    let mut value = Writer::flexible(VALUE);
    value.count(resolved.topics.len());
    resolved.topics.iter().for_each(|topic| value.string(topic));
    value.i64(resolved.version);
    value.i64(resolved.resolved_ms);
    value.end_of_struct();
    record(group, &ConsumerKey::Regex(regex), value)
}

pub(super) fn write_assignment(value: &mut Writer, assignment: &Assignment) {
    value.count(assignment.topics().len());
    for (topic, indexes) in assignment.topics() {
        value.uuid(topic.bytes());
        value.count(indexes.len());
        indexes.iter().for_each(|index| value.i32(index.value()));
        value.end_of_struct();
    }
}

/// A group as its records describe it. They may be of different times: members may be missing to assignments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RestoredConsumers {
    pub(crate) metadata: Option<ConsumerMetadata>,
    pub(crate) members: BTreeMap<Name, ConsumerMember>,
    pub(crate) targets_epoch: Option<Epoch>,
    pub(crate) targets: BTreeMap<Name, Assignment>,
    pub(crate) current: BTreeMap<Name, CurrentAssignment>,
    pub(crate) regexes: BTreeMap<Name, ResolvedRegex>,
}

/// Whether keys of this version are ours.
pub(super) fn is_ours(version: i16) -> bool {
    matches!(version, GROUP_KEY..=CURRENT_KEY | REGEX_KEY)
}

impl RestoredConsumers {
    /// Folds one record in; `key` has been read up to the group's name.
    pub(super) fn fold(
        &mut self,
        version: i16,
        key: &mut Reader<'_>,
        value: Option<&[u8]>,
    ) -> Result<(), Malformed> {
        let mut value = match value {
            Some(bytes) => {
                let mut value = Reader::new(bytes);
                if value.i16()? != VALUE {
                    return Err(Malformed);
                }
                value.flexible = true;
                Some(value)
            }
            None => None,
        };
        let value = value.as_mut();
        match version {
            GROUP_KEY => self.metadata = value.map(read_metadata).transpose()?,
            TOPICS_KEY => {}
            MEMBER_KEY => put(
                &mut self.members,
                key.string()?,
                value.map(read_member).transpose()?,
            ),
            TARGETS_KEY => self.targets_epoch = value.map(|value| value.i32().map(Epoch)).transpose()?,
            TARGET_KEY => {
                let target = value.map(read_assignment).transpose()?;
                put(&mut self.targets, key.string()?, target);
            }
            CURRENT_KEY => put(
                &mut self.current,
                key.string()?,
                value.map(read_current).transpose()?,
            ),
            REGEX_KEY => put(
                &mut self.regexes,
                key.string()?,
                value.map(read_regex).transpose()?,
            ),
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

pub(super) fn put<T>(all: &mut BTreeMap<Name, T>, key: Name, value: Option<T>) {
    match value {
        Some(value) => drop(all.insert(key, value)),
        None => drop(all.remove(&key)),
    }
}

fn read_metadata(value: &mut Reader<'_>) -> Result<ConsumerMetadata, Malformed> {
    let epoch = Epoch(value.i32()?);
    let hash = value.tagged(Some(HASH_TAG))?;
    Ok(ConsumerMetadata {
        epoch,
        topics_hash: hash.map_or(Ok(0), |mut hash| hash.i64())?,
    })
}

fn read_member(value: &mut Reader<'_>) -> Result<ConsumerMember, Malformed> {
    Ok(ConsumerMember {
        instance: value.nullable_string()?,
        rack: value.nullable_string()?,
        client_id: value.string()?,
        client_host: value.string()?,
        topics: read_names(value)?,
        regex: value.nullable_string()?,
        rebalance_timeout_ms: value.i32()?,
        assignor: value.nullable_string()?,
    })
}

pub(super) fn read_names(value: &mut Reader<'_>) -> Result<BTreeSet<Name>, Malformed> {
    let count = value.count()?;
    (0..count).map(|_| value.string()).collect()
}

pub(super) fn read_assignment(value: &mut Reader<'_>) -> Result<Assignment, Malformed> {
    let mut assignment = Assignment::default();
    for _ in 0..value.count()? {
        let topic = TopicId(value.uuid()?);
        for _ in 0..value.count()? {
            assignment.insert(topic, PartitionIndex(value.i32()?));
        }
        value.end_of_struct()?;
    }
    Ok(assignment)
}

fn read_current(value: &mut Reader<'_>) -> Result<CurrentAssignment, Malformed> {
    Ok(CurrentAssignment {
        epoch: Epoch(value.i32()?),
        previous_epoch: Epoch(value.i32()?),
        stage: MemberStage::of(value.i8()?),
        assigned: read_assignment(value)?,
        revoking: read_assignment(value)?,
    })
}

fn read_regex(value: &mut Reader<'_>) -> Result<ResolvedRegex, Malformed> {
    Ok(ResolvedRegex {
        topics: read_names(value)?,
        version: value.i64()?,
        resolved_ms: value.i64()?,
    })
}
