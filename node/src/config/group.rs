//! How consumer groups are run: the properties of a node that say so, and the typed part of the tree.

use super::properties::Kind;
use super::server::{BrokerConfig, INT_MAX, ServerProperty, node};
use std::time::Duration;

pub(super) const PROPERTIES: &[ServerProperty] = &[
    node(
        "offsets.topic.num.partitions",
        Kind::Number { min: 1, max: 1_000 },
        "12",
        "Partitions of `__consumer_offsets`, when it is made: over so many coordinators groups are spread. It stays so.",
    ),
    node(
        "offsets.topic.replication.factor",
        Kind::Number { min: 1, max: 32767 },
        "3",
        "Replicas of `__consumer_offsets`, when it is made; in a smaller cluster one on each node.",
    ),
    node(
        "offsets.topic.segment.bytes",
        Kind::Bytes {
            min: 1 << 14,
            max: INT_MAX,
        },
        "4194304",
        "How large its segments grow. A partition takes two of them, and four times what is committed.",
    ),
    node(
        "offsets.retention.minutes",
        Kind::Number { min: 1, max: INT_MAX },
        "10080",
        "How long offsets are kept once their group has no members.",
    ),
    node(
        "offsets.retention.check.interval.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "600000",
        "How often old offsets are looked for.",
    ),
    node(
        "offset.metadata.max.bytes",
        Kind::Bytes { min: 0, max: 32_000 },
        "4096",
        "How much text a commit may carry for each partition.",
    ),
    node(
        "group.min.session.timeout.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "6000",
        "The shortest time after which a silent member may ask to be taken for gone.",
    ),
    node(
        "group.max.session.timeout.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "1800000",
        "The longest.",
    ),
    node(
        "group.initial.rebalance.delay.ms",
        Kind::Ms { min: 0, max: 300_000 },
        "500",
        "How long an empty group waits for more members after the first one.",
    ),
    node(
        "group.max.size",
        Kind::Number { min: 1, max: INT_MAX },
        "10000",
        "How many members a group may have.",
    ),
    node(
        "group.consumer.session.timeout.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "45000",
        "How long a member of the consumer protocol (KIP-848) may be silent before it is taken for gone.",
    ),
    node(
        "group.consumer.heartbeat.interval.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "5000",
        "How often such a member is to be heard of.",
    ),
    node(
        "group.consumer.max.size",
        Kind::Number { min: 1, max: INT_MAX },
        "10000",
        "How many members a group of the consumer protocol may have.",
    ),
    node(
        "group.consumer.assignors",
        Kind::ListOf(&["uniform", "range"]),
        "uniform,range",
        "How partitions may be dealt out among such members; the first one where they do not say.",
    ),
    node(
        "group.share.session.timeout.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "45000",
        "How long a member of a share group (KIP-932) may be silent before it is taken for gone.",
    ),
    node(
        "group.share.heartbeat.interval.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "5000",
        "How often such a member is to be heard of.",
    ),
    node(
        "group.share.max.size",
        Kind::Number { min: 1, max: INT_MAX },
        "200",
        "How many members a share group may have.",
    ),
];

/// How consumer groups are run, and the topic that holds their offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    pub offsets_partitions: i32,
    pub offsets_replication_factor: i16,
    pub offsets_segment_bytes: i64,
    pub retention: Duration,
    pub retention_check: Duration,
    pub metadata_bytes_max: usize,
    pub session_timeout_min: Duration,
    pub session_timeout_max: Duration,
    pub initial_delay: Duration,
    pub size_max: usize,
    pub consumer_session_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub consumer_size_max: usize,
    pub share_session_timeout: Duration,
    pub share_heartbeat_interval: Duration,
    pub share_size_max: usize,
    /// By the names that clients know.
    pub assignors: Vec<String>,
}

impl GroupConfig {
    pub(super) fn of(broker: &BrokerConfig) -> Self {
        let number = |name| broker.number(name);
        let count = |name| usize::try_from(number(name)).unwrap_or(usize::MAX);
        let ms = |name| Duration::from_millis(u64::try_from(number(name)).unwrap_or(0));
        let retention_minutes = u64::try_from(number("offsets.retention.minutes")).unwrap_or(0);
        let factor = number("offsets.topic.replication.factor");
        Self {
            offsets_partitions: i32::try_from(number("offsets.topic.num.partitions")).unwrap_or(1),
            offsets_replication_factor: i16::try_from(factor).unwrap_or(i16::MAX),
            offsets_segment_bytes: number("offsets.topic.segment.bytes"),
            retention: Duration::from_secs(60 * retention_minutes),
            retention_check: ms("offsets.retention.check.interval.ms"),
            metadata_bytes_max: count("offset.metadata.max.bytes"),
            session_timeout_min: ms("group.min.session.timeout.ms"),
            session_timeout_max: ms("group.max.session.timeout.ms"),
            initial_delay: ms("group.initial.rebalance.delay.ms"),
            size_max: count("group.max.size"),
            consumer_session_timeout: ms("group.consumer.session.timeout.ms"),
            heartbeat_interval: ms("group.consumer.heartbeat.interval.ms"),
            consumer_size_max: count("group.consumer.max.size"),
            share_session_timeout: ms("group.share.session.timeout.ms"),
            share_heartbeat_interval: ms("group.share.heartbeat.interval.ms"),
            share_size_max: count("group.share.max.size"),
            assignors: broker
                .value("group.consumer.assignors")
                .split(',')
                .map(str::to_owned)
                .collect(),
        }
    }
}
