//! How share groups are delivered to: the properties of a node that say so, and the typed part of the tree.

use super::dynamic::Dynamic;
use super::properties::Kind;
use super::server::{BrokerConfig, INT_MAX, ServerProperty, find, node};
use super::topic::{Described, Source};
use std::time::Duration;

const RESET: &str = "group.share.auto.offset.reset";
const ISOLATION: &str = "group.share.isolation.level";

pub(super) const PROPERTIES: &[ServerProperty] = &[
    node(
        "share.coordinator.state.topic.num.partitions",
        Kind::Number { min: 1, max: 1_000 },
        "12",
        "Partitions of `__share_group_state`, when it is made: over so many coordinators share groups are spread. It stays so.",
    ),
    node(
        "share.coordinator.state.topic.replication.factor",
        Kind::Number { min: 1, max: 32767 },
        "3",
        "Replicas of `__share_group_state`, when it is made; in a smaller cluster one on each node.",
    ),
    node(
        "share.coordinator.state.topic.segment.bytes",
        Kind::Bytes {
            min: 1 << 14,
            max: INT_MAX,
        },
        "4194304",
        "How large its segments grow.",
    ),
    node(
        "group.share.record.lock.duration.ms",
        Kind::Ms {
            min: 1_000,
            max: 3_600_000,
        },
        "30000",
        "How long a member of a share group (KIP-932) may take for a record before it is for others.",
    ),
    node(
        "group.share.delivery.count.limit",
        Kind::Number { min: 2, max: 10 },
        "5",
        "So many times a record is delivered to a share group at most.",
    ),
    node(
        "group.share.partition.max.record.locks",
        Kind::Number {
            min: 100,
            max: 10_000,
        },
        "2000",
        "So many records of a partition a share group may have begun and not done with.",
    ),
    node(
        "group.share.max.share.sessions",
        Kind::Number { min: 1, max: 100_000 },
        "2000",
        "How many members of share groups may fetch from this node.",
    ),
    node(
        RESET,
        Kind::OneOf(&["latest", "earliest"]),
        "latest",
        "Where a share group begins in a partition that it was never delivered from, unless the group's own share.auto.offset.reset says otherwise.",
    ),
    node(
        ISOLATION,
        Kind::OneOf(&["read_uncommitted", "read_committed"]),
        "read_uncommitted",
        "Whether share groups see records of transactions that are open or were aborted, unless the group's own share.isolation.level says otherwise.",
    ),
];

/// How records are delivered to share groups, and the topic that holds what was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareConfig {
    pub topic_partitions: i32,
    pub topic_replication_factor: i16,
    pub topic_segment_bytes: i64,
    pub lock_duration: Duration,
    pub deliveries_max: i16,
    pub locks_max: usize,
    pub sessions_max: usize,
}

impl ShareConfig {
    pub(super) fn of(broker: &BrokerConfig) -> Self {
        let number = |name| broker.number(name);
        let count = |name| usize::try_from(number(name)).unwrap_or(usize::MAX);
        let lock_ms = u64::try_from(number("group.share.record.lock.duration.ms")).unwrap_or(0);
        let factor = number("share.coordinator.state.topic.replication.factor");
        let partitions = number("share.coordinator.state.topic.num.partitions");
        Self {
            topic_partitions: i32::try_from(partitions).unwrap_or(1),
            topic_replication_factor: i16::try_from(factor).unwrap_or(i16::MAX),
            topic_segment_bytes: number("share.coordinator.state.topic.segment.bytes"),
            lock_duration: Duration::from_millis(lock_ms),
            deliveries_max: i16::try_from(number("group.share.delivery.count.limit")).unwrap_or(i16::MAX),
            locks_max: count("group.share.partition.max.record.locks"),
            sessions_max: count("group.share.max.share.sessions"),
        }
    }
}

impl BrokerConfig {
    /// Whether a share group begins at the start of what it was never delivered from.
    pub fn share_begins_at_start(&self, group: &str) -> bool {
        self.of_group_or_all(group, RESET) == "earliest"
    }

    /// Whether a share group sees only what is committed.
    pub fn share_reads_committed(&self, group: &str) -> bool {
        self.of_group_or_all(group, ISOLATION) == "read_committed"
    }

    fn of_group_or_all(&self, group: &str, name: &str) -> String {
        self.of_group(group, name).unwrap_or_else(|| self.value(name))
    }

    /// The properties of one group, as DescribeConfigs tells them.
    pub fn describe_group(&self, group: &str) -> Vec<Described> {
        let described = Dynamic::of_groups().iter().filter_map(|name| {
            let property = &find(name).ok()?.property;
            let own = self.of_group(group, name);
            let told = Dynamic::name_of_group(name);
            let source = match own {
                Some(_) => Source::Group,
                None => Source::Default,
            };
            let value = own.unwrap_or_else(|| self.value(name));
            Some(Described {
                name: told,
                value: value.clone(),
                source,
                kind: property.kind,
                doc: property.doc,
                synonyms: vec![(told, value, source)],
            })
        });
        described.collect()
    }
}
