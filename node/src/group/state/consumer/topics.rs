//! What a group's subscriptions come to by the metadata: the topics of regular expressions, and how many partitions there are.

use super::super::super::error::GroupError;
use super::super::super::request::{Assignor, Name};
use super::super::super::store::ResolvedRegex;
use super::ConsumerGroup;
use super::assignor::{self, Subscriber};
use crate::metadata::{Image, Topic};
use headwater_protocol::ids::TopicId;
use regex::bytes::{Regex, RegexBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How much memory a regular expression may take once it is compiled.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// The metadata that all groups are assigned by, and counts of how often it changed.
#[derive(Debug, Default)]
pub(in super::super) struct Topics {
    image: Arc<Image>,
    /// Rises when a topic comes or goes.
    names: u64,
    /// Rises when anything about topics changes.
    any: u64,
}

/// What a group has looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct Looked {
    names: u64,
    any: u64,
}

impl Topics {
    pub(in super::super) fn see(&mut self, image: Arc<Image>) {
        if !Arc::ptr_eq(&self.image.topic_names, &image.topic_names) {
            self.names += 1;
        }
        if !Arc::ptr_eq(&self.image.topics, &image.topics) {
            self.any += 1;
        }
        self.image = image;
    }

    fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.image.topic(name)
    }

    pub(in super::super) fn have_changed_since(&self, looked: Looked) -> bool {
        looked.any != self.any || looked.names != self.names
    }

    pub(in super::super) fn looked(&self) -> Looked {
        Looked {
            names: self.names,
            any: self.any,
        }
    }

    /// Looks up the topics of each regular expression that a member has, as far as they may have changed. Whether any of
    /// them has others than before.
    pub(super) fn resolve(&self, group: &mut ConsumerGroup, looked: Looked, unix_ms: i64) -> bool {
        let regexes = group
            .members
            .values()
            .filter_map(|member| member.said.regex.clone());
        let wanted: BTreeSet<Name> = regexes.collect();
        group.regexes.retain(|regex, _| wanted.contains(regex));
        let mut have_changed = false;
        for regex in wanted {
            let before = group.regexes.get(&regex);
            if before.is_some() && looked.names == self.names {
                continue;
            }
            // One that another build took and this one does not stands for nothing.
            let topics = compile(&regex).map_or_else(|_| BTreeSet::new(), |regex| self.matching(&regex));
            if before.is_some_and(|before| before.topics == topics) {
                continue;
            }
            have_changed = true;
            let resolved = ResolvedRegex {
                topics,
                version: self.image.changed.value(),
                resolved_ms: unix_ms,
            };
            group.regexes.insert(regex, Arc::new(resolved));
        }
        have_changed
    }

    /// The topics of the nodes' own are for those who name them.
    fn matching(&self, regex: &Regex) -> BTreeSet<Name> {
        let topics = self.image.topics.values().filter(|topic| !topic.internal);
        let names = topics.map(|topic| &topic.name);
        names
            .filter(|name| regex.is_match(name.as_bytes()))
            .cloned()
            .collect()
    }

    /// What changes when a topic that is subscribed to comes, goes, or has more partitions. Zero stands for none.
    pub(super) fn hash(&self, group: &ConsumerGroup) -> i64 {
        self.hash_of(group.subscribed())
    }

    pub(in super::super) fn hash_of(&self, subscribed: BTreeSet<&Name>) -> i64 {
        let mut hash = Fnv::default();
        let mut is_any = false;
        for topic in subscribed.into_iter().filter_map(|name| self.topic(name)) {
            is_any = true;
            hash.add(&topic.id.bytes());
            hash.add(&(topic.partitions.len() as u64).to_be_bytes());
        }
        if is_any { hash.0.cast_signed() | 1 } else { 0 }
    }

    /// The topics that are there, with how many partitions each has beside those in `counts`.
    pub(in super::super) fn count_partitions<'a>(
        &self,
        names: impl IntoIterator<Item = &'a Name>,
        counts: &mut BTreeMap<TopicId, i32>,
    ) -> BTreeSet<TopicId> {
        let topics = names.into_iter().filter_map(|name| self.topic(name));
        topics
            .map(|topic| {
                let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                counts.insert(topic.id, count);
                topic.id
            })
            .collect()
    }

    /// Deals the partitions out anew.
    pub(super) fn assign(&self, group: &mut ConsumerGroup, assignor: Assignor) {
        let mut counts: BTreeMap<TopicId, i32> = BTreeMap::new();
        let mut members = Vec::with_capacity(group.members.len());
        for (id, member) in &group.members {
            let ids = self.count_partitions(group.topics_of(member), &mut counts);
            members.push(Subscriber {
                id: id.clone(),
                instance: member.said.instance.clone(),
                topics: ids,
                before: group.targets.get(id).map(|it| (**it).clone()).unwrap_or_default(),
            });
        }
        let assignments = assignor::assign(assignor, &members, &counts);
        for (member, assignment) in members.into_iter().zip(assignments) {
            let before = group.targets.get(&member.id);
            if before.is_none_or(|before| **before != assignment) {
                group.targets.insert(member.id, Arc::new(assignment));
            }
        }
    }
}

pub(super) fn check_regex(regex: &str) -> Result<(), GroupError> {
    compile(regex).map(drop)
}

/// As in Kafka, it is to match the whole of a name, and letters are those of ASCII, as names of topics are.
fn compile(regex: &str) -> Result<Regex, GroupError> {
    // By itself first: what is put around it must not make it a valid one.
    let build = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        let builder = builder.unicode(false).size_limit(REGEX_BYTES_MAX);
        builder
            .build()
            .map_err(|error| GroupError::InvalidRegex(Arc::from(error.to_string())))
    };
    build(regex)?;
    build(&format!(r"\A(?:{regex})\z"))
}

/// FNV-1a of 64 bits.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
