//! The records of groups: what is written of their generations, how much of the log that takes, and the whole of it.

use super::super::error::{AppendRefused, GroupError};
use super::super::request::{Committed, Join, Name, TopicPartition};
use super::super::store::{self, GroupRecord};
use super::consumer::ConsumerGroup;
use super::group::Group;
use super::member::Member;
use super::share::ShareGroup;
use super::{Answer, CallId, State};
use bytes::Bytes;

/// A static member that took over from its former process without a rebalance (KIP-345).
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) group: Name,
    pub(super) call: CallId,
    /// As it was, with its former id: it comes back if this cannot be kept.
    pub(super) before: Box<Member>,
    pub(super) id: Name,
    /// The leader as it was called before.
    pub(super) leader_before: Name,
    pub(super) may_skip_assignment: bool,
    pub(super) value: Bytes,
}

impl Moved {
    pub(super) fn new(
        group: &Group,
        call: CallId,
        before: Member,
        id: Name,
        leader_before: Name,
        join: &Join,
        value: Bytes,
    ) -> Self {
        Self {
            group: group.name.clone(),
            call,
            before: Box::new(before),
            id,
            leader_before,
            may_skip_assignment: join.may_skip_assignment,
            value,
        }
    }
}

impl Group {
    pub(super) fn value_bytes(&self) -> usize {
        let record = |value: &Bytes| GroupRecord {
            key: store::group_key(&self.name),
            value: Some(value.clone()),
        };
        self.value.as_ref().map_or(0, |value| record(value).bytes())
    }

    pub(super) fn live_bytes(&self) -> usize {
        let offsets = self.offsets.iter();
        let offsets = offsets.map(|(partition, committed)| offset_bytes(&self.name, partition, committed));
        let consumers = self.consumer_group();
        let consumers = consumers.map_or(0, |group| group.live_bytes(&self.name));
        let sharers = self.share_group();
        let sharers = sharers.map_or(0, |group| group.live_bytes(&self.name));
        self.value_bytes() + consumers + sharers + offsets.sum::<usize>()
    }

    /// The records after which the log has nothing of it but offsets.
    pub(super) fn tombstones(&self) -> Vec<GroupRecord> {
        match (self.consumer_group(), self.share_group()) {
            (Some(group), _) => group.tombstones(&self.name),
            (None, Some(group)) => group.tombstones(&self.name),
            (None, None) => vec![store::group_tombstone(&self.name)],
        }
    }
}

/// About how much of the log a committed offset takes.
pub(super) fn offset_bytes(group: &str, partition: &TopicPartition, committed: &Committed) -> usize {
    const FIXED_BYTES: usize = 48;
    FIXED_BYTES + group.len() + partition.topic.len() + committed.metadata.len()
}

impl State {
    pub(crate) fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// How many of the groups use the consumer protocol.
    pub(crate) fn consumer_group_count(&self) -> usize {
        let groups = self.groups.values();
        groups.filter(|group| group.consumers.is_some()).count()
    }

    pub(crate) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// Whether everything that came out of here is in the log for good.
    pub(crate) fn is_settled(&self) -> bool {
        self.undertakings.is_empty()
    }

    /// Everything that the log must hold, one group after another. Only while `is_settled`: what is on its way would lie
    /// before it and be forgotten.
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = GroupRecord> {
        self.groups.values().flat_map(|group| {
            let itself = group.value.clone().map(|value| GroupRecord {
                key: store::group_key(&group.name),
                value: Some(value),
            });
            let offsets = group.offsets.iter();
            let consumers = group.consumer_group();
            let consumers = consumers.map(|it| it.records_since(&ConsumerGroup::default(), &group.name));
            let sharers = group.share_group();
            let sharers = sharers.map(|it| it.records_since(&ShareGroup::default(), &group.name));
            let members = consumers.into_iter().chain(sharers).flatten();
            itself.into_iter().chain(members).chain(
                offsets.map(|(partition, committed)| store::offset_record(&group.name, partition, committed)),
            )
        })
    }

    pub(super) fn put_offset(&mut self, name: &str, partition: TopicPartition, committed: Committed) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        self.live_bytes += offset_bytes(name, &partition, &committed);
        let key = partition.clone();
        if let Some(before) = group.offsets.insert(partition, committed) {
            self.live_bytes -= offset_bytes(name, &key, &before);
        }
    }

    pub(super) fn drop_offset(&mut self, name: &str, partition: &TopicPartition) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        if let Some(before) = group.offsets.remove(partition) {
            self.live_bytes -= offset_bytes(name, partition, &before);
        }
    }

    pub(super) fn deletion_is_done(
        &mut self,
        name: &str,
        offsets: &[TopicPartition],
        whole: bool,
        asked: Option<(CallId, Answer)>,
        result: Result<(), AppendRefused>,
    ) {
        match result {
            Ok(()) => {
                for partition in offsets {
                    self.pending.overrule(name, partition, None);
                    self.drop_offset(name, partition);
                }
                if whole {
                    self.remove_group(name);
                }
                if let Some((call, answer)) = asked {
                    self.answer(call, answer);
                }
            }
            Err(refused) => {
                if let Some(group) = self.groups.get_mut(name) {
                    group.is_dying = false;
                }
                if let Some((call, answer)) = asked {
                    let error = super::refusal(refused, GroupError::NotAvailable);
                    let answer = match answer {
                        Answer::PerPartition(_) => Answer::PerPartition(Err(error)),
                        Answer::Deleted(_)
                        | Answer::Joined(_)
                        | Answer::Synced(_)
                        | Answer::Reconciled(_) => Answer::Deleted(Err(error)),
                    };
                    self.answer(call, answer);
                }
            }
        }
    }
}
