//! One group: who is in it, where it stands, what it has committed. Changes of its members that decide nothing.

use super::super::error::GroupError;
use super::super::request::{
    Committed, DescribedMember, Description, Generation, GroupKind, JoinedMember, Listed, Name, Stage,
    TopicPartition,
};
use super::super::store::{GroupMetadata, RestoredConsumers, RestoredGroup, RestoredSharers};
use super::consumer::Consumers;
use super::member::Member;
use super::share::Sharers;
use bytes::Bytes;
use headwater_protocol::consumer_protocol::{PROTOCOL_TYPE, Subscription};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No member.
    Empty,
    /// Members are to join until `until`.
    Preparing {
        until: Instant,
        /// The first rebalance of an empty group: it ends when its time is up, and goes on for as long as this while
        /// newcomers keep coming.
        initial: Option<Duration>,
    },
    /// The leader is to assign.
    Completing,
    Stable,
}

/// - `members`, `instances` and `leader` name the same members.
/// - A group with members has a leader, and a group in `Completing` or `Stable` a protocol that all support.
/// - `promised` and `members` have no id in common.
/// - With `consumers` it has the offsets beside it, and is `Empty` for the classic protocol.
/// - With `sharers` it has nothing beside it, and is `Empty` for the classic protocol.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Name,
    pub(super) phase: Phase,
    pub(super) generation: Generation,
    pub(super) protocol_type: Option<Name>,
    pub(super) protocol: Option<Name>,
    pub(super) leader: Option<Name>,
    pub(super) members: BTreeMap<Name, Member>,
    /// Static members: instance id to member id.
    pub(super) instances: BTreeMap<Name, Name>,
    /// Ids that were told to members which are to join by them, and until when (KIP-394).
    pub(super) promised: BTreeMap<Name, Instant>,
    /// Somebody has come since the initial delay began.
    pub(super) has_newcomers: bool,
    /// Who has not asked for its assignment of this generation, and until when it may.
    pub(super) unsynced: BTreeSet<Name>,
    pub(super) sync_until: Option<Instant>,
    /// The topics of all members; None where they cannot be told.
    pub(super) subscribed: Option<BTreeSet<Name>>,
    pub(super) offsets: BTreeMap<TopicPartition, Committed>,
    /// Commits that are on their way, counted.
    pub(super) committing: BTreeMap<TopicPartition, u32>,
    /// Since when it is stable, or empty.
    pub(super) since_ms: Option<i64>,
    /// It is being deleted.
    pub(super) is_dying: bool,
    /// The value that the log holds for the group itself.
    pub(super) value: Option<Bytes>,
    /// Set while its members use the consumer protocol.
    pub(super) consumers: Option<Box<Consumers>>,
    /// Set while it is a share group.
    pub(super) sharers: Option<Box<Sharers>>,
}

impl Group {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            phase: Phase::Empty,
            generation: Generation(0),
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            promised: BTreeMap::new(),
            has_newcomers: false,
            unsynced: BTreeSet::new(),
            sync_until: None,
            subscribed: None,
            offsets: BTreeMap::new(),
            committing: BTreeMap::new(),
            since_ms: None,
            is_dying: false,
            value: None,
            consumers: None,
            sharers: None,
        }
    }

    pub(super) fn restored(name: Name, kept: RestoredGroup) -> Self {
        let mut group = Self {
            offsets: kept.offsets,
            ..Self::new(name)
        };
        if kept.sharers != RestoredSharers::default() {
            group.sharers = Some(Box::new(Sharers::restored(kept.sharers)));
            return group;
        }
        // One that has become of the classic protocol has no members of the other one, whatever is left of that.
        let is_classic = kept.metadata.is_some() && kept.consumers.members.is_empty();
        if kept.consumers != RestoredConsumers::default() && !is_classic {
            group.consumers = Some(Box::new(Consumers::restored(kept.consumers)));
            return group;
        }
        let Some((metadata, value)) = kept.metadata else {
            return group;
        };
        group.value = Some(value);
        group.generation = metadata.generation;
        group.protocol_type = Some(metadata.protocol_type).filter(|kind| !kind.is_empty());
        group.since_ms = metadata.since_ms;
        let protocol = metadata.protocol;
        for member in metadata.members {
            group.insert(Member::restored(member, protocol.as_ref()));
        }
        if group.members.is_empty() {
            return group;
        }
        group.phase = Phase::Stable;
        group.protocol = protocol;
        // `insert` chose the first one; what was written knows better, if it names a member.
        group.leader = metadata
            .leader
            .filter(|leader| group.members.contains_key(leader))
            .or(group.leader);
        group.subscribed = group.subscriptions();
        group
    }

    /// Whether nobody is a member, nor about to be one of the consumer protocol.
    pub(super) fn is_empty(&self) -> bool {
        self.phase == Phase::Empty
            && self
                .consumers
                .as_ref()
                .is_none_or(|consumers| consumers.is_empty())
            && self.sharers.as_ref().is_none_or(|sharers| sharers.is_empty())
    }

    pub(super) fn insert(&mut self, member: Member) {
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        self.promised.remove(&member.id);
        self.leader.get_or_insert_with(|| member.id.clone());
        self.members.insert(member.id.clone(), member);
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        self.promised.remove(id);
        self.unsynced.remove(id);
        let gone = self.members.remove(id)?;
        if let Some(instance) = &gone.instance
            && self.instances.get(instance).is_some_and(|holder| &**holder == id)
        {
            self.instances.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(gone)
    }

    pub(super) fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    pub(super) fn leader_or_none(&self) -> Name {
        self.leader.clone().unwrap_or_default()
    }

    pub(super) fn is_preparing(&self) -> bool {
        matches!(self.phase, Phase::Preparing { .. })
    }

    pub(super) fn awaiting_join(&self) -> usize {
        self.members
            .values()
            .filter(|member| member.joining.is_some())
            .count()
    }

    /// The longest time that one of the members takes to rejoin.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        let timeouts = self.members.values().map(|member| member.rebalance_timeout);
        timeouts.max().unwrap_or_default()
    }

    /// Whether somebody who supports `protocols` may be a member beside those who are.
    pub(super) fn accepts(&self, kind: &str, protocols: &[super::super::request::Protocol]) -> bool {
        if kind.is_empty() || protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        self.protocol_type.as_deref() == Some(kind)
            && protocols.iter().any(|protocol| {
                self.members
                    .values()
                    .all(|member| member.supports(&protocol.name))
            })
    }

    /// The protocol that all support and most like best.
    pub(super) fn choose_protocol(&self) -> Option<Name> {
        let mut votes: BTreeMap<&Name, usize> = BTreeMap::new();
        for voter in self.members.values() {
            let best = voter
                .protocols
                .iter()
                .map(|protocol| &protocol.name)
                .find(|name| self.members.values().all(|member| member.supports(name)));
            *votes.entry(best?).or_default() += 1;
        }
        votes
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map(|(name, _)| name.clone())
    }

    /// The topics that the members are subscribed to, if they are consumers and say so.
    pub(super) fn subscriptions(&self) -> Option<BTreeSet<Name>> {
        if self.protocol_type.as_deref() != Some(PROTOCOL_TYPE) {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let subscription = Subscription::decode(member.metadata(self.protocol.as_ref()))?;
            topics.extend(subscription.topics.iter().map(|topic| Name::from(topic.as_str())));
        }
        Some(topics)
    }

    /// All members, if `id` is the leader's: it assigns.
    pub(super) fn shown_to(&self, id: &str) -> Vec<JoinedMember> {
        if !self.is_leader(id) {
            return Vec::new();
        }
        let protocol = self.protocol.as_ref();
        self.members
            .values()
            .map(|member| member.shown(protocol))
            .collect()
    }

    /// Whether `member` is who it says it is.
    pub(super) fn check(&self, member: &str, instance: Option<&Name>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            let holder = self.instances.get(instance).ok_or(GroupError::UnknownMember)?;
            if &**holder != member {
                return Err(GroupError::FencedInstance);
            }
        }
        if self.members.contains_key(member) {
            Ok(())
        } else {
            Err(GroupError::UnknownMember)
        }
    }

    /// The group as it is to be kept with these assignments.
    pub(super) fn metadata(&self, assignments: &BTreeMap<Name, Bytes>, unix_ms: i64) -> GroupMetadata {
        let kept = |member: &Member| {
            let assignment = assignments.get(&member.id).cloned().unwrap_or_default();
            member.kept(self.protocol.as_ref(), assignment)
        };
        GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since_ms: Some(unix_ms),
            members: self.members.values().map(kept).collect(),
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match self.phase {
            _ if self.is_dying => Stage::Dead,
            Phase::Empty => match (self.consumer_group(), self.share_group()) {
                (Some(group), _) => group.stage(),
                (None, Some(group)) => group.stage(),
                (None, None) => Stage::Empty,
            },
            Phase::Preparing { .. } => Stage::PreparingRebalance,
            Phase::Completing => Stage::CompletingRebalance,
            Phase::Stable => Stage::Stable,
        }
    }

    pub(super) fn listed(&self) -> Listed {
        let kind = if self.consumer_group().is_some() {
            GroupKind::Consumer
        } else if self.sharers.is_some() {
            GroupKind::Share
        } else {
            GroupKind::Classic
        };
        Listed {
            group: self.name.clone(),
            kind,
            stage: self.stage(),
            protocol_type: match kind {
                GroupKind::Consumer => Name::from(PROTOCOL_TYPE),
                GroupKind::Share => Name::from(kind.name()),
                GroupKind::Classic => self.protocol_type.clone().unwrap_or_default(),
            },
        }
    }

    pub(super) fn described(&self) -> Description {
        let is_stable = self.stage() == Stage::Stable;
        let protocol = self.protocol.as_ref().filter(|_| is_stable);
        let member = |member: &Member| DescribedMember {
            member: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: member.metadata(protocol),
            assignment: if is_stable {
                member.assignment.clone()
            } else {
                Bytes::new()
            },
        };
        Description {
            group: self.name.clone(),
            stage: self.stage(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.cloned().unwrap_or_default(),
            members: self.members.values().map(member).collect(),
        }
    }
}
