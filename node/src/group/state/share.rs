//! A share group (KIP-932): who is in it, and which partitions each member is to read. Several may read the same one, so nobody
//! waits for anybody else to give something up. Values, and their way into the log and back.
//!
//! `ShareGroup` is a value: what is to become of it is drawn up on a copy, and takes its place when the log has it.

mod assignor;
mod beat;
mod queue;

use super::super::error::GroupError;
use super::super::request::{Assignment, DescribedSharer, Epoch, Name, ShareDescription, Stage};
use super::super::store::{
    CurrentShare, GroupRecord, RestoredSharers, ShareKey, ShareMember, ShareMetadata, share_current_record,
    share_member_record, share_metadata_record, share_target_record, share_targets_record,
};
use super::State;
use super::consumer::Looked;
use super::group::Group;
pub(super) use queue::Sharing;
use queue::{Session, Wish};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What a group has while it is a share group.
#[derive(Debug, Default)]
pub(super) struct Sharers {
    /// As the log has it.
    group: Arc<ShareGroup>,
    /// Something newer is on its way into the log.
    is_writing: bool,
    /// What is dealt with when that has ended.
    waiting: VecDeque<Wish>,
    sessions: BTreeMap<Name, Session>,
    looked: Looked,
}

impl Sharers {
    pub(super) fn restored(kept: RestoredSharers) -> Self {
        Self {
            group: Arc::new(ShareGroup::restored(kept)),
            ..Self::default()
        }
    }

    /// Whether nobody is in it, nor on the way.
    pub(super) fn is_empty(&self) -> bool {
        self.group.members.is_empty() && !self.is_writing && self.waiting.is_empty()
    }

    /// Whether the log has it.
    fn is_kept(&self) -> bool {
        self.group.metadata.epoch > Epoch::default()
    }
}

/// - `assignment_epoch` is never behind a member's epoch nor before that of `metadata`.
/// - Who has a target is a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ShareGroup {
    /// Its epoch rises with whatever the members are to be assigned anew for.
    metadata: ShareMetadata,
    /// The epoch that `targets` are of.
    assignment_epoch: Epoch,
    members: BTreeMap<Name, Arc<Sharer>>,
    targets: BTreeMap<Name, Arc<Assignment>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sharer {
    said: ShareMember,
    current: CurrentShare,
}

impl ShareGroup {
    fn restored(kept: RestoredSharers) -> Self {
        let mut current = kept.current;
        let members = kept.members.into_iter().map(|(id, said)| {
            let current = current.remove(&id).unwrap_or_default();
            (id, Arc::new(Sharer { said, current }))
        });
        let members: BTreeMap<_, _> = members.collect();
        let targets = kept.targets.into_iter();
        Self {
            metadata: kept.metadata.unwrap_or_default(),
            assignment_epoch: kept.targets_epoch.unwrap_or_default(),
            targets: targets
                .filter(|(id, _)| members.contains_key(id))
                .map(|(id, target)| (id, Arc::new(target)))
                .collect(),
            members,
        }
    }

    fn target(&self, id: &str) -> Arc<Assignment> {
        self.targets.get(id).cloned().unwrap_or_default()
    }

    /// All topics that members subscribe to.
    fn subscribed(&self) -> BTreeSet<&Name> {
        let members = self.members.values();
        members.flat_map(|member| &member.said.topics).collect()
    }

    /// Takes a member out, and what it was to have.
    fn remove(&mut self, id: &str) -> Option<Arc<Sharer>> {
        self.targets.remove(id);
        self.members.remove(id)
    }

    pub(super) fn stage(&self) -> Stage {
        if self.members.is_empty() {
            Stage::Empty
        } else {
            Stage::Stable
        }
    }

    /// The records that make what the log has of `before` into this. Who goes goes first.
    pub(super) fn records_since(&self, before: &Self, name: &str) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for id in before.members.keys().filter(|id| !self.members.contains_key(*id)) {
            for key in [ShareKey::Current(id), ShareKey::Target(id), ShareKey::Member(id)] {
                records.push(key.tombstone(name));
            }
        }
        for (id, member) in &self.members {
            if before.members.get(id).is_none_or(|it| it.said != member.said) {
                records.push(share_member_record(name, id, &member.said));
            }
        }
        if self.metadata != before.metadata && self.metadata != ShareMetadata::default() {
            records.push(share_metadata_record(name, self.metadata));
        }
        for (id, target) in &self.targets {
            if before.targets.get(id) != Some(target) {
                records.push(share_target_record(name, id, target));
            }
        }
        if self.assignment_epoch != before.assignment_epoch && self.assignment_epoch != Epoch::default() {
            records.push(share_targets_record(name, self.assignment_epoch));
        }
        for (id, member) in &self.members {
            if before
                .members
                .get(id)
                .is_none_or(|it| it.current != member.current)
            {
                records.push(share_current_record(name, id, &member.current));
            }
        }
        records
    }

    /// The records after which the log has nothing of it.
    pub(super) fn tombstones(&self, name: &str) -> Vec<GroupRecord> {
        let mut records = Self::default().records_since(self, name);
        records.extend([ShareKey::Targets, ShareKey::Group].map(|key| key.tombstone(name)));
        records
    }

    /// About how much of the log it takes.
    pub(super) fn live_bytes(&self, name: &str) -> usize {
        const RECORD_BYTES: usize = 40;
        let assignment = |it: &Assignment| 18 * it.topics().len() + 4 * it.count();
        let member = |(id, member): (&Name, &Arc<Sharer>)| {
            let said = &member.said;
            let topics = said.topics.iter().map(|topic| 2 + topic.len());
            let rack = said.rack.as_ref().map_or(0, |rack| rack.len());
            let texts = said.client_id.len() + said.client_host.len() + rack + topics.sum::<usize>();
            2 * (RECORD_BYTES + name.len() + id.len()) + texts + assignment(&member.current.assigned)
        };
        let target = |(id, target): (&Name, &Arc<Assignment>)| {
            RECORD_BYTES + name.len() + id.len() + assignment(target)
        };
        2 * (RECORD_BYTES + name.len())
            + self.members.iter().map(member).sum::<usize>()
            + self.targets.iter().map(target).sum::<usize>()
    }
}

impl Group {
    /// The group as the log has it, if it is a share group.
    pub(super) fn share_group(&self) -> Option<&ShareGroup> {
        let sharers = self.sharers.as_deref().filter(|it| it.is_kept());
        sharers.map(|it| &*it.group)
    }
}

impl State {
    /// How many of the groups are share groups.
    pub(crate) fn share_group_count(&self) -> usize {
        let groups = self.groups.values();
        groups.filter(|group| group.sharers.is_some()).count()
    }

    /// None: there is no such group.
    pub(crate) fn describe_sharers(&self, name: &str) -> Result<Option<ShareDescription>, GroupError> {
        let Some(group) = self.groups.get(name) else {
            return Ok(None);
        };
        let Some(sharers) = group.share_group() else {
            // What is about to become one is not there yet.
            return match group.sharers {
                Some(_) => Ok(None),
                None => Err(GroupError::OtherProtocol),
            };
        };
        let member = |(id, member): (&Name, &Arc<Sharer>)| DescribedSharer {
            member: id.clone(),
            rack: member.said.rack.clone(),
            epoch: member.current.epoch,
            client_id: member.said.client_id.clone(),
            client_host: member.said.client_host.clone(),
            topics: member.said.topics.clone(),
            assigned: member.current.assigned.clone(),
        };
        Ok(Some(ShareDescription {
            group: group.name.clone(),
            stage: group.stage(),
            epoch: sharers.metadata.epoch,
            assignment_epoch: sharers.assignment_epoch,
            members: sharers.members.iter().map(member).collect(),
        }))
    }
}
