//! A group of the consumer protocol (KIP-848): who is in it, who is to have what, who has what. Values, and their way into
//! the log and back.
//!
//! `ConsumerGroup` is a value: what is to become of it is drawn up on a copy, and takes its place when the log has it.

mod admin;
mod assignor;
mod beat;
mod draft;
mod queue;
mod reconcile;
mod timers;
mod topics;

use super::super::request::{Assignment, Epoch, Name, Stage};
use super::super::store::{
    self, ConsumerKey, ConsumerMember, ConsumerMetadata, CurrentAssignment, GroupRecord, MemberStage,
    ResolvedRegex, RestoredConsumers,
};
pub(super) use admin::Committer;
pub(super) use assignor::{Subscriber, assign};
use headwater_protocol::ids::{PartitionIndex, TopicId};
pub(super) use queue::Reconciling;
use queue::Wish;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use timers::{Revocation, Session};
pub(super) use topics::{Looked, Topics};

/// What a group has beside its offsets while its members use the consumer protocol.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    /// As the log has it.
    pub(super) group: Arc<ConsumerGroup>,
    /// Something newer is on its way into the log.
    pub(super) is_writing: bool,
    /// What is dealt with when that has ended.
    waiting: VecDeque<Wish>,
    sessions: BTreeMap<Name, Session>,
    revocations: BTreeMap<Name, Revocation>,
    looked: Looked,
}

impl Consumers {
    pub(super) fn restored(kept: RestoredConsumers) -> Self {
        Self {
            group: Arc::new(ConsumerGroup::restored(kept)),
            ..Self::default()
        }
    }

    /// Whether nobody is in it, nor on the way.
    pub(super) fn is_empty(&self) -> bool {
        self.group.members.is_empty() && !self.is_writing && self.waiting.is_empty()
    }

    /// Whether the log has it.
    pub(super) fn is_kept(&self) -> bool {
        self.group.epoch > Epoch::default()
    }
}

/// - `instances` and `members` name the same static members.
/// - `owners` has what members have or have not given up yet; no partition has two owners.
/// - `assignment_epoch` is never behind a member's epoch nor before `epoch`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ConsumerGroup {
    /// Rises with whatever the members are to be assigned anew for.
    pub(super) epoch: Epoch,
    pub(super) topics_hash: i64,
    /// The epoch that `targets` are of.
    pub(super) assignment_epoch: Epoch,
    pub(super) members: BTreeMap<Name, Arc<Member>>,
    /// What each member is to have in the end.
    pub(super) targets: BTreeMap<Name, Arc<Assignment>>,
    pub(super) regexes: BTreeMap<Name, Arc<ResolvedRegex>>,
    instances: BTreeMap<Name, Name>,
    owners: BTreeMap<(TopicId, PartitionIndex), Name>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: Name,
    pub(super) said: ConsumerMember,
    pub(super) current: CurrentAssignment,
}

impl Member {
    /// Whether it has all that it is to have in an epoch.
    fn is_reconciled_to(&self, epoch: Epoch) -> bool {
        self.current.stage == MemberStage::Stable && self.current.epoch == epoch
    }

    fn has(&self) -> impl Iterator<Item = (TopicId, PartitionIndex)> {
        let CurrentAssignment {
            assigned, revoking, ..
        } = &self.current;
        assigned.iter().chain(revoking.iter())
    }
}

impl ConsumerGroup {
    /// Of records that are not of one time, what is left is sound: no partition has two owners.
    fn restored(kept: RestoredConsumers) -> Self {
        let ConsumerMetadata { epoch, topics_hash } = kept.metadata.unwrap_or_default();
        let mut group = Self {
            epoch,
            topics_hash,
            assignment_epoch: kept.targets_epoch.unwrap_or_default(),
            ..Self::default()
        };
        let mut current = kept.current;
        let mut members: Vec<Member> = kept
            .members
            .into_iter()
            .map(|(id, said)| Member {
                current: current.remove(&id).unwrap_or_default(),
                id,
                said,
            })
            .collect();
        members.sort_by_key(|member| std::cmp::Reverse(member.current.epoch));
        for mut member in members {
            let is_free = |place: &(TopicId, PartitionIndex)| !group.owners.contains_key(place);
            let CurrentAssignment {
                assigned, revoking, ..
            } = &mut member.current;
            *assigned = assigned.iter().filter(is_free).collect();
            *revoking = revoking.iter().filter(is_free).collect();
            group.put(member);
        }
        let targets = kept.targets.into_iter();
        group.targets = targets
            .filter(|(id, _)| group.members.contains_key(id))
            .map(|(id, target)| (id, Arc::new(target)))
            .collect();
        let regexes = kept.regexes.into_iter();
        group.regexes = regexes
            .map(|(regex, resolved)| (regex, Arc::new(resolved)))
            .collect();
        group
    }

    pub(super) fn member(&self, id: &str) -> Option<&Arc<Member>> {
        self.members.get(id)
    }

    fn of_instance(&self, instance: &str) -> Option<&Arc<Member>> {
        self.members.get(self.instances.get(instance)?)
    }

    fn target(&self, id: &str) -> Arc<Assignment> {
        self.targets.get(id).cloned().unwrap_or_default()
    }

    /// Whether a partition may be given to a member. What it has given up itself is free to it.
    fn is_free_for(&self, id: &str, topic: TopicId, index: PartitionIndex) -> bool {
        self.owners
            .get(&(topic, index))
            .is_none_or(|owner| &**owner == id)
    }

    /// Puts a member in place of itself.
    fn put(&mut self, member: Member) {
        self.take_out(&member.id);
        if let Some(instance) = &member.said.instance {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        for place in member.has() {
            let before = self.owners.insert(place, member.id.clone());
            assert!(before.is_none(), "a partition is given to one member only");
        }
        self.members.insert(member.id.clone(), Arc::new(member));
    }

    fn take_out(&mut self, id: &str) -> Option<Arc<Member>> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.said.instance {
            self.instances.remove(instance);
        }
        for place in member.has() {
            self.owners.remove(&place);
        }
        Some(member)
    }

    /// Takes a member out, and what it was to have.
    fn remove(&mut self, id: &str) -> Option<Arc<Member>> {
        self.targets.remove(id);
        self.take_out(id)
    }

    /// The topics that a member subscribes to, by name and by regular expression.
    fn topics_of<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a Name> {
        let regex = member.said.regex.as_ref();
        let resolved = regex.and_then(|regex| self.regexes.get(regex));
        let matched = resolved.into_iter().flat_map(|resolved| &resolved.topics);
        let named = &member.said.topics;
        named
            .iter()
            .chain(matched.filter(|topic| !named.contains(*topic)))
    }

    /// All topics that members subscribe to.
    pub(super) fn subscribed(&self) -> BTreeSet<&Name> {
        let members = self.members.values();
        members.flat_map(|member| self.topics_of(member)).collect()
    }

    pub(super) fn stage(&self) -> Stage {
        let mut members = self.members.values();
        if self.members.is_empty() {
            Stage::Empty
        } else if self.epoch > self.assignment_epoch {
            Stage::Assigning
        } else if members.all(|member| member.is_reconciled_to(self.assignment_epoch)) {
            Stage::Stable
        } else {
            Stage::Reconciling
        }
    }

    /// The records that make what the log has of `before` into this. Who goes goes first.
    pub(super) fn records_since(&self, before: &Self, name: &str) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for id in before.members.keys().filter(|id| !self.members.contains_key(*id)) {
            for key in [
                ConsumerKey::Current(id),
                ConsumerKey::Target(id),
                ConsumerKey::Member(id),
            ] {
                records.push(store::tombstone(name, &key));
            }
        }
        for (id, member) in &self.members {
            if before.members.get(id).is_none_or(|it| it.said != member.said) {
                records.push(store::member_record(name, id, &member.said));
            }
        }
        for regex in before.regexes.keys().filter(|it| !self.regexes.contains_key(*it)) {
            records.push(store::tombstone(name, &ConsumerKey::Regex(regex)));
        }
        for (regex, resolved) in &self.regexes {
            if before.regexes.get(regex) != Some(resolved) {
                records.push(store::regex_record(name, regex, resolved));
            }
        }
        let (ours, theirs) = (self.metadata(), before.metadata());
        if ours != theirs && ours != ConsumerMetadata::default() {
            records.push(store::metadata_record(name, ours));
        }
        for (id, target) in &self.targets {
            if before.targets.get(id) != Some(target) {
                records.push(store::target_record(name, id, target));
            }
        }
        if self.assignment_epoch != before.assignment_epoch && self.assignment_epoch != Epoch::default() {
            records.push(store::targets_record(name, self.assignment_epoch));
        }
        for (id, member) in &self.members {
            if before
                .members
                .get(id)
                .is_none_or(|it| it.current != member.current)
            {
                records.push(store::current_record(name, id, &member.current));
            }
        }
        records
    }

    /// The records after which the log has nothing of it.
    pub(super) fn tombstones(&self, name: &str) -> Vec<GroupRecord> {
        let mut records = Self::default().records_since(self, name);
        for key in [ConsumerKey::Targets, ConsumerKey::Group] {
            records.push(store::tombstone(name, &key));
        }
        records
    }

    fn metadata(&self) -> ConsumerMetadata {
        ConsumerMetadata {
            epoch: self.epoch,
            topics_hash: self.topics_hash,
        }
    }

    /// About how much of the log it takes.
    pub(super) fn live_bytes(&self, name: &str) -> usize {
        const RECORD_BYTES: usize = 40;
        let assignment = |it: &Assignment| 18 * it.topics().len() + 4 * it.count();
        let names = |it: &BTreeSet<Name>| it.iter().map(|name| 2 + name.len()).sum::<usize>();
        if self.epoch == Epoch::default() {
            return 0;
        }
        let member = |member: &Arc<Member>| {
            let said = &member.said;
            let texts = [&said.instance, &said.rack, &said.regex, &said.assignor];
            let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
            let texts = texts + said.client_id.len() + said.client_host.len() + names(&said.topics);
            let current = assignment(&member.current.assigned) + assignment(&member.current.revoking);
            2 * (RECORD_BYTES + name.len() + member.id.len()) + texts + current
        };
        let target = |(id, target): (&Name, &Arc<Assignment>)| {
            RECORD_BYTES + name.len() + id.len() + assignment(target)
        };
        let regex = |(regex, resolved): (&Name, &Arc<ResolvedRegex>)| {
            RECORD_BYTES + name.len() + regex.len() + names(&resolved.topics)
        };
        2 * (RECORD_BYTES + name.len())
            + self.members.values().map(member).sum::<usize>()
            + self.targets.iter().map(target).sum::<usize>()
            + self.regexes.iter().map(regex).sum::<usize>()
    }
}
