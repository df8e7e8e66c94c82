//! What others ask of a group of the consumer protocol: to see it, to commit in it, to end it.

use super::super::super::error::GroupError;
use super::super::super::request::{ConsumerDescription, DescribedConsumer, Epoch, Identity, Name, Stage};
use super::super::group::Group;
use super::super::{State, Undertaking};
use super::draft::assignor_of;
use super::{ConsumerGroup, Member};
use std::sync::Arc;

impl Group {
    /// The group as the log has it, if its members use the consumer protocol.
    pub(in super::super) fn consumer_group(&self) -> Option<&ConsumerGroup> {
        let consumers = self.consumers.as_deref().filter(|it| it.is_kept());
        consumers.map(|it| &*it.group)
    }

    pub(in super::super) fn subscribes_to(&self, topic: &Name) -> bool {
        let group = self.consumer_group();
        group.is_some_and(|group| group.subscribed().contains(topic))
    }
}

impl ConsumerGroup {
    /// Whether a member, or nobody where there are no members, speaks in its present epoch.
    pub(in super::super) fn check_committer(
        &self,
        who: &Identity,
        epoch: Epoch,
    ) -> Result<Committer, GroupError> {
        if epoch < Epoch::JOINING && self.members.is_empty() {
            return Ok(Committer::Nobody);
        }
        let member = self.member(&who.member).ok_or(GroupError::UnknownMember)?;
        if member.current.epoch != epoch {
            return Ok(Committer::StaleMember);
        }
        Ok(Committer::Member)
    }
}

/// Who commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Committer {
    Nobody,
    Member,
    /// A member that is in another epoch.
    StaleMember,
}

impl State {
    /// None: there is no such group.
    pub(crate) fn describe_consumers(&self, name: &str) -> Result<Option<ConsumerDescription>, GroupError> {
        let Some(group) = self.groups.get(name) else {
            return Ok(None);
        };
        let Some(consumers) = group.consumer_group() else {
            // What is about to become one is not there yet.
            return match group.consumers {
                Some(_) => Ok(None),
                None => Err(GroupError::OtherProtocol),
            };
        };
        let member = |member: &Arc<Member>| DescribedConsumer {
            member: member.id.clone(),
            instance: member.said.instance.clone(),
            rack: member.said.rack.clone(),
            epoch: member.current.epoch,
            client_id: member.said.client_id.clone(),
            client_host: member.said.client_host.clone(),
            topics: member.said.topics.clone(),
            regex: member.said.regex.clone(),
            assigned: member.current.assigned.clone(),
            target: (*consumers.target(&member.id)).clone(),
        };
        Ok(Some(ConsumerDescription {
            group: group.name.clone(),
            stage: if group.is_dying {
                Stage::Dead
            } else {
                consumers.stage()
            },
            epoch: consumers.epoch,
            assignment_epoch: consumers.assignment_epoch,
            assignor: assignor_of(consumers, &self.settings.assignors),
            members: consumers.members.values().map(member).collect(),
        }))
    }

    /// Whether whoever asks for offsets by a member's name is that member, in its present epoch. Of groups of the classic
    /// protocol anybody may ask.
    pub(crate) fn check_reader(&self, name: &str, who: Option<&(Name, Epoch)>) -> Result<(), GroupError> {
        let group = self.groups.get(name).and_then(Group::consumer_group);
        let (Some(group), Some((id, epoch))) = (group, who) else {
            return Ok(());
        };
        let member = group.member(id).ok_or(GroupError::UnknownMember)?;
        if member.current.epoch != *epoch {
            return Err(GroupError::StaleEpoch);
        }
        Ok(())
    }

    /// A member of the classic protocol comes: a group without members becomes one of that.
    pub(in super::super) fn end_consumers(
        &mut self,
        name: &Name,
        is_newcomer: bool,
    ) -> Result<(), GroupError> {
        let Some(consumers) = self.group(name).consumers.as_deref() else {
            return Ok(());
        };
        if !consumers.group.members.is_empty() {
            return Err(GroupError::InconsistentProtocol);
        }
        if !consumers.is_empty() {
            return Err(GroupError::NotAvailable);
        }
        if !is_newcomer {
            return Err(GroupError::UnknownMember);
        }
        let records = consumers.group.tombstones(name);
        let bytes = consumers.group.live_bytes(name);
        self.group(name).consumers = None;
        self.live_bytes -= bytes;
        let group = name.clone();
        self.write(records, Undertaking::ConsumersEnded { group });
        Ok(())
    }
}
