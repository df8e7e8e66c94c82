//! The records of share groups (KIP-932): as those of the consumer protocol, under keys of their own.
//!
//! | key | what it holds |
//! |---|---|
//! | 11 | the group's epoch, and a hash of the topics that it was found for |
//! | 10, 13, 14 | of one member: what it subscribes to, what it is to have, what it has |
//! | 12 | the epoch of what the members are to have |
//!
//! Key 15 is where Kafka notes which partitions have a state; here they have one from their first use on, and it is passed over.

use super::GroupRecord;
use super::consumer::{put, read_assignment, read_names, write_assignment};
use super::format::{Malformed, Reader, Writer};
use crate::group::request::{Assignment, Epoch, Name};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

const MEMBER_KEY: i16 = 10;
const GROUP_KEY: i16 = 11;
const TARGETS_KEY: i16 = 12;
const TARGET_KEY: i16 = 13;
const CURRENT_KEY: i16 = 14;
const STATES_KEY: i16 = 15;
/// The one version of every value.
const VALUE: i16 = 0;
/// A member has what it is to have; in a share group it knows no other state.
const STABLE: i8 = 0;

/// The group itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ShareMetadata {
    pub(crate) epoch: Epoch,
    /// Of the topics that are subscribed to and how many partitions each has; zero: there are none.
    pub(crate) topics_hash: i64,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShareMember {
    pub(crate) rack: Option<Name>,
    pub(crate) client_id: Name,
    pub(crate) client_host: Name,
    pub(crate) topics: BTreeSet<Name>,
}

/// What a member has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CurrentShare {
    pub(crate) epoch: Epoch,
    pub(crate) previous_epoch: Epoch,
    pub(crate) assigned: Assignment,
}

/// What one key of a group names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ShareKey<'a> {
    Group,
    Member(&'a Name),
    Targets,
    Target(&'a Name),
    Current(&'a Name),
}

impl ShareKey<'_> {
    fn bytes(&self, group: &str) -> Bytes {
        let (version, member) = match self {
            Self::Group => (GROUP_KEY, None),
            Self::Member(id) => (MEMBER_KEY, Some(id)),
            Self::Targets => (TARGETS_KEY, None),
            Self::Target(id) => (TARGET_KEY, Some(id)),
            Self::Current(id) => (CURRENT_KEY, Some(id)),
        };
        let mut key = Writer::new(version);
        key.string(group);
        if let Some(member) = member {
            key.string(member);
        }
        key.finish()
    }

    pub(crate) fn tombstone(&self, group: &str) -> GroupRecord {
        GroupRecord {
            key: self.bytes(group),
            value: None,
        }
    }

    fn record(&self, group: &str, mut value: Writer) -> GroupRecord {
        value.end_of_struct();
        GroupRecord {
            key: self.bytes(group),
            value: Some(value.finish()),
        }
    }
}

pub(crate) fn share_metadata_record(group: &str, metadata: ShareMetadata) -> GroupRecord {
    let mut value = Writer::flexible(VALUE);
    value.i32(metadata.epoch.0);
    value.i64(metadata.topics_hash);
    ShareKey::Group.record(group, value)
}

pub(crate) fn share_member_record(group: &str, id: &Name, member: &ShareMember) -> GroupRecord {
    let mut value = Writer::flexible(VALUE);
    value.nullable_string(member.rack.as_deref());
    value.string(&member.client_id);
    value.string(&member.client_host);
    value.count(member.topics.len());
    member.topics.iter().for_each(|topic| value.string(topic));
    ShareKey::Member(id).record(group, value)
}

pub(crate) fn share_targets_record(group: &str, epoch: Epoch) -> GroupRecord {
    let mut value = Writer::flexible(VALUE);
    value.i32(epoch.0);
    ShareKey::Targets.record(group, value)
}

pub(crate) fn share_target_record(group: &str, id: &Name, target: &Assignment) -> GroupRecord {
    let mut value = Writer::flexible(VALUE);
    write_assignment(&mut value, target);
    ShareKey::Target(id).record(group, value)
}

pub(crate) fn share_current_record(group: &str, id: &Name, current: &CurrentShare) -> GroupRecord {
    let mut value = Writer::flexible(VALUE);
    value.i32(current.epoch.0);
    value.i32(current.previous_epoch.0);
    value.i8(STABLE);
    write_assignment(&mut value, &current.assigned);
    ShareKey::Current(id).record(group, value)
}

/// A group as its records describe it. They may be of different times: members may be missing to assignments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RestoredSharers {
    pub(crate) metadata: Option<ShareMetadata>,
    pub(crate) members: BTreeMap<Name, ShareMember>,
    pub(crate) targets_epoch: Option<Epoch>,
    pub(crate) targets: BTreeMap<Name, Assignment>,
    pub(crate) current: BTreeMap<Name, CurrentShare>,
}

/// Whether keys of this version are ours.
pub(super) fn is_ours(version: i16) -> bool {
    matches!(version, MEMBER_KEY..=STATES_KEY)
}

impl RestoredSharers {
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
            STATES_KEY => {}
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

fn read_metadata(value: &mut Reader<'_>) -> Result<ShareMetadata, Malformed> {
    Ok(ShareMetadata {
        epoch: Epoch(value.i32()?),
        topics_hash: value.i64()?,
    })
}

fn read_member(value: &mut Reader<'_>) -> Result<ShareMember, Malformed> {
    Ok(ShareMember {
        rack: value.nullable_string()?,
        client_id: value.string()?,
        client_host: value.string()?,
        topics: read_names(value)?,
    })
}

fn read_current(value: &mut Reader<'_>) -> Result<CurrentShare, Malformed> {
    let (epoch, previous_epoch) = (Epoch(value.i32()?), Epoch(value.i32()?));
    // Its state.
    value.i8()?;
    Ok(CurrentShare {
        epoch,
        previous_epoch,
        assigned: read_assignment(value)?,
    })
}
