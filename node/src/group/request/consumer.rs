//! What members say and are told by the consumer protocol (KIP-848): values without wire formats.

use super::{Identity, Name, Stage};
use crate::group::error::GroupError;
use headwater_protocol::ids::{PartitionIndex, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// An epoch of a group, of its target assignment, or of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub i32);

impl Epoch {
    /// A member that is none yet, or has given everything up.
    pub const JOINING: Self = Self(0);
    pub const LEAVING: Self = Self(-1);
    /// A static member leaves and means to come back.
    pub const AWAY: Self = Self(-2);

    /// Counts on, and begins anew before it would become negative.
    pub(in crate::group) fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Partitions of topics that are told by their ids. No topic is without partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment(BTreeMap<TopicId, BTreeSet<PartitionIndex>>);

impl Assignment {
    pub fn insert(&mut self, topic: TopicId, index: PartitionIndex) {
        self.0.entry(topic).or_default().insert(index);
    }

    pub fn contains(&self, topic: TopicId, index: PartitionIndex) -> bool {
        self.0.get(&topic).is_some_and(|indexes| indexes.contains(&index))
    }

    pub fn iter(&self) -> impl Iterator<Item = (TopicId, PartitionIndex)> {
        let topics = self.0.iter();
        topics.flat_map(|(topic, indexes)| indexes.iter().map(|index| (*topic, *index)))
    }

    pub fn topics(&self) -> &BTreeMap<TopicId, BTreeSet<PartitionIndex>> {
        &self.0
    }

    pub fn count(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of it is in `other`.
    pub(in crate::group) fn is_within(&self, other: &Self) -> bool {
        self.iter().all(|(topic, index)| other.contains(topic, index))
    }

    pub(in crate::group) fn overlaps(&self, other: &Self) -> bool {
        self.iter().any(|(topic, index)| other.contains(topic, index))
    }
}

impl FromIterator<(TopicId, PartitionIndex)> for Assignment {
    fn from_iter<I: IntoIterator<Item = (TopicId, PartitionIndex)>>(partitions: I) -> Self {
        let mut assignment = Self::default();
        for (topic, index) in partitions {
            assignment.insert(topic, index);
        }
        assignment
    }
}

/// A member is there. What is absent has not changed since it was said last.
#[derive(Debug, Clone)]
pub struct ConsumerHeartbeat {
    pub who: Identity,
    pub epoch: Epoch,
    /// The client is to choose its id; else one that has none is given one.
    pub chooses_id: bool,
    pub rack: Option<Name>,
    pub client_id: Name,
    pub client_host: Name,
    pub rebalance_timeout: Option<Duration>,
    pub topics: Option<BTreeSet<Name>>,
    /// Topics by regular expression; an empty one is none any more.
    pub regex: Option<Name>,
    pub assignor: Option<Name>,
    /// What it has at the moment.
    pub owned: Option<Assignment>,
}

impl ConsumerHeartbeat {
    /// Everything that a member has to say, so that it is told everything as well.
    pub(in crate::group) fn is_full(&self) -> bool {
        self.epoch == Epoch::JOINING
            || (self.rebalance_timeout.is_some() && self.topics.is_some() && self.owned.is_some())
    }

    /// Whether it may be asked at all, whatever the group.
    pub(in crate::group) fn check(&self, assignors: &[Assignor]) -> Result<(), GroupError> {
        let blank = |text: &str| text.trim().is_empty();
        let is_blank = |text: &Option<Name>| text.as_deref().is_some_and(blank);
        let needs_id = self.chooses_id || self.epoch > Epoch::JOINING || self.epoch == Epoch::LEAVING;
        let has = |text: &Option<Name>| text.as_deref().is_some_and(|text| !text.is_empty());
        let wrong = if needs_id && blank(&self.who.member) {
            "a member id is needed"
        } else if blank(&self.who.group) {
            "a group id is needed"
        } else if is_blank(&self.who.instance) {
            "an instance id cannot be empty"
        } else if is_blank(&self.rack) {
            "a rack cannot be empty"
        } else if self.epoch == Epoch::JOINING && self.rebalance_timeout.is_none() {
            "who joins says its rebalance timeout"
        } else if self.epoch == Epoch::JOINING && self.owned.as_ref().is_none_or(|it| !it.is_empty()) {
            "who joins has no partitions, and says so"
        } else if self.epoch == Epoch::JOINING
            && self.topics.as_ref().is_none_or(BTreeSet::is_empty)
            && !has(&self.regex)
        {
            "who joins says what it subscribes to"
        } else if self.epoch == Epoch::AWAY && self.who.instance.is_none() {
            "only static members leave for a while"
        } else if self.epoch < Epoch::AWAY {
            "there is no such epoch"
        } else {
            let known = |name: &Name| assignors.iter().any(|assignor| assignor.name() == &**name);
            if self.assignor.as_ref().is_some_and(|name| !known(name)) {
                return Err(GroupError::UnsupportedAssignor);
            }
            return Ok(());
        };
        Err(GroupError::InvalidRequest(wrong))
    }
}

/// How far a member has come on its way to its target assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    pub member: Name,
    pub epoch: Epoch,
    /// When it is to be heard of next; zero for one that leaves.
    pub heartbeat_interval: Duration,
    /// What it may have; None: as it was told last.
    pub assignment: Option<Assignment>,
}

/// How partitions are dealt out among the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// Everybody has as many, and keeps what it has.
    Uniform,
    /// Topic by topic in ranges, so that partitions of one index go together.
    Range,
}

impl Assignor {
    pub const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerDescription {
    pub group: Name,
    pub stage: Stage,
    pub epoch: Epoch,
    pub assignment_epoch: Epoch,
    pub assignor: Assignor,
    pub members: Vec<DescribedConsumer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedConsumer {
    pub member: Name,
    pub instance: Option<Name>,
    pub rack: Option<Name>,
    pub epoch: Epoch,
    pub client_id: Name,
    pub client_host: Name,
    pub topics: BTreeSet<Name>,
    pub regex: Option<Name>,
    pub assigned: Assignment,
    pub target: Assignment,
}
