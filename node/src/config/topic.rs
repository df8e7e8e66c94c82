//! The properties of topics, by Kafka's names: one list that CreateTopics, AlterConfigs, DescribeConfigs, the HTTP
//! API and the command line all read; and the typed branch that a partition works with.

use super::properties::{Kind, Property, PropertyError, list_items, nearest};
use super::server::BrokerConfig;
use super::throttled::Throttled;
use std::collections::BTreeMap;

/// A property of a topic, and the server property that gives its default where the topic does not set it.
#[derive(Debug, Clone, Copy)]
pub struct TopicProperty {
    pub property: Property,
    pub broker: Option<&'static str>,
}

const fn topic(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    broker: Option<&'static str>,
    doc: &'static str,
) -> TopicProperty {
    TopicProperty {
        property: Property {
            name,
            kind,
            default,
            doc,
        },
        broker,
    }
}

const MS: Kind = Kind::Ms {
    min: 0,
    max: i64::MAX,
};
const MS_OR_NONE: Kind = Kind::Ms {
    min: -1,
    max: i64::MAX,
};
/// 24.8 days: what fits the signed 32 bits of an index entry or of a Kafka client.
const INT_MAX: i64 = i32::MAX as i64;

/// Every property a topic has, in the order of their names.
pub const PROPERTIES: &[TopicProperty] = &[
    topic(
        "cleanup.policy",
        Kind::ListOf(&["delete", "compact"]),
        "delete",
        Some("log.cleanup.policy"),
        "What happens to old records: delete them by age and size, or keep the last one of each key.",
    ),
    topic(
        "compression.type",
        Kind::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        "producer",
        Some("compression.type"),
        "The compression batches are stored with; `producer`, the only one supported, keeps what was sent.",
    ),
    topic(
        "delete.retention.ms",
        MS,
        "86400000",
        Some("log.cleaner.delete.retention.ms"),
        "How long a compacted topic keeps the mark of a deleted key.",
    ),
    topic(
        "file.delete.delay.ms",
        MS,
        "60000",
        Some("log.segment.delete.delay.ms"),
        "Accepted for compatibility: a deleted segment's file goes as soon as no reader holds it.",
    ),
    topic(
        "flush.messages",
        Kind::Number {
            min: 1,
            max: i64::MAX,
        },
        "9223372036854775807",
        Some("log.flush.interval.messages"),
        "Accepted for compatibility: every append is synced, see write.caching.",
    ),
    topic(
        "flush.ms",
        MS,
        "9223372036854775807",
        Some("log.flush.interval.ms"),
        "Accepted for compatibility: every append is synced, see write.caching.",
    ),
    topic(
        "follower.replication.throttled.replicas",
        Kind::Text,
        "",
        None,
        "The replicas that follower.replication.throttled.rate holds up: `*`, or PARTITION:NODE,...",
    ),
    topic(
        "index.interval.bytes",
        Kind::Bytes { min: 0, max: INT_MAX },
        "4096",
        Some("log.index.interval.bytes"),
        "How many bytes of a segment lie between two entries of its index.",
    ),
    topic(
        "leader.replication.throttled.replicas",
        Kind::Text,
        "",
        None,
        "The leaders that leader.replication.throttled.rate holds up: `*`, or PARTITION:NODE,...",
    ),
    topic(
        "max.compaction.lag.ms",
        Kind::Ms {
            min: 1,
            max: i64::MAX,
        },
        "9223372036854775807",
        Some("log.cleaner.max.compaction.lag.ms"),
        "How long a record may stay uncompacted.",
    ),
    topic(
        "max.message.bytes",
        Kind::Bytes { min: 0, max: INT_MAX },
        "1048588",
        Some("message.max.bytes"),
        "The largest batch that is accepted, as it is sent.",
    ),
    topic(
        "message.timestamp.after.max.ms",
        MS,
        "3600000",
        Some("log.message.timestamp.after.max.ms"),
        "How far ahead of the clock a record's timestamp may be.",
    ),
    topic(
        "message.timestamp.before.max.ms",
        MS,
        "9223372036854775807",
        Some("log.message.timestamp.before.max.ms"),
        "How far behind the clock a record's timestamp may be.",
    ),
    topic(
        "message.timestamp.type",
        Kind::OneOf(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        Some("log.message.timestamp.type"),
        "Whose time a record carries: its producer's, or the broker's at the append.",
    ),
    topic(
        "min.cleanable.dirty.ratio",
        Kind::Ratio,
        "0.5",
        Some("log.cleaner.min.cleanable.ratio"),
        "How much of a compacted log must be uncompacted before it is compacted again.",
    ),
    topic(
        "min.compaction.lag.ms",
        MS,
        "0",
        Some("log.cleaner.min.compaction.lag.ms"),
        "How long a record stays uncompacted at least.",
    ),
    topic(
        "min.insync.replicas",
        Kind::Number { min: 1, max: INT_MAX },
        "1",
        Some("min.insync.replicas"),
        "How many replicas must be in sync for acks=all to be accepted.",
    ),
    topic(
        "preallocate",
        Kind::Bool,
        "false",
        Some("log.preallocate"),
        "Accepted for compatibility: segments grow as they are written.",
    ),
    topic(
        "retention.bytes",
        Kind::Bytes {
            min: -1,
            max: i64::MAX,
        },
        "-1",
        Some("log.retention.bytes"),
        "How many bytes a partition keeps; -1 sets no limit.",
    ),
    topic(
        "retention.ms",
        MS_OR_NONE,
        "604800000",
        Some("log.retention.ms"),
        "How long a record is kept; -1 sets no limit.",
    ),
    topic(
        "segment.bytes",
        Kind::Bytes {
            min: 14,
            max: INT_MAX,
        },
        "1073741824",
        Some("log.segment.bytes"),
        "How large a segment grows; whole segments are deleted.",
    ),
    topic(
        "segment.index.bytes",
        Kind::Bytes { min: 4, max: INT_MAX },
        "10485760",
        Some("log.index.size.max.bytes"),
        "Accepted for compatibility: indexes grow with their segment.",
    ),
    topic(
        "segment.jitter.ms",
        MS,
        "0",
        Some("log.roll.jitter.ms"),
        "Accepted for compatibility: segments are rolled when they are due.",
    ),
    topic(
        "segment.ms",
        Kind::Ms {
            min: 1,
            max: i64::MAX,
        },
        "604800000",
        Some("log.roll.ms"),
        "How long a segment is written to before the next one is begun.",
    ),
    topic(
        "unclean.leader.election.enable",
        Kind::OneOf(&["false"]),
        "false",
        Some("unclean.leader.election.enable"),
        "A replica that is not in sync never leads: only false is supported.",
    ),
    topic(
        "write.caching",
        Kind::Bool,
        "false",
        Some("write.caching"),
        "Acknowledge from memory and sync later. A power cut may then lose acknowledged records.",
    ),
];

/// Finds a property, or says which one may have been meant.
pub fn find(name: &str) -> Result<&'static TopicProperty, PropertyError> {
    PROPERTIES
        .iter()
        .find(|known| known.property.name == name)
        .ok_or_else(|| PropertyError::Unknown {
            key: name.to_owned(),
            nearest: nearest(name, PROPERTIES.iter().map(|known| known.property.name)),
        })
}

/// Checks one property of a topic and gives the form it is stored in.
pub fn check(name: &str, value: &str) -> Result<String, PropertyError> {
    let kept = find(name)?.property.normalize(value)?;
    let refuse = |reason: &str| {
        Err(PropertyError::Invalid {
            key: name.to_owned(),
            value: kept.clone(),
            reason: reason.to_owned(),
        })
    };
    match name {
        "compression.type" if kept != "producer" => {
            refuse("the broker does not compress again, only `producer` is supported")
        }
        "leader.replication.throttled.replicas" | "follower.replication.throttled.replicas"
            if Throttled::parse(&kept).is_none() =>
        {
            refuse("`*`, or PARTITION:NODE with commas between")
        }
        "cleanup.policy" if kept.is_empty() => refuse("delete, compact, or both"),
        _ => Ok(kept),
    }
}

/// Where the value of a property comes from, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Topic,
    Group,
    /// Set for this node while running.
    Broker,
    /// Set for all nodes while running.
    Cluster,
    /// The node's own file, variables or flags.
    Node,
    Default,
}

/// A property as DescribeConfigs tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub name: &'static str,
    pub value: String,
    pub source: Source,
    pub kind: Kind,
    pub doc: &'static str,
    /// Everything that could give the value, the one in force first.
    pub synonyms: Vec<(&'static str, String, Source)>,
}

/// All properties of a topic with `set` of its own, under the given defaults.
pub fn describe(set: &BTreeMap<String, String>, broker: &BrokerConfig) -> Vec<Described> {
    PROPERTIES
        .iter()
        .map(|known| describe_one(known, set, broker))
        .collect()
}

fn describe_one(known: &TopicProperty, set: &BTreeMap<String, String>, broker: &BrokerConfig) -> Described {
    let mut synonyms = Vec::new();
    if let Some(value) = set.get(known.property.name) {
        synonyms.push((known.property.name, value.clone(), Source::Topic));
    }
    if let Some(name) = known.broker {
        synonyms.extend(broker.layers(name).map(|(value, source)| (name, value, source)));
    }
    synonyms.push((
        known.broker.unwrap_or(known.property.name),
        known.property.default.to_owned(),
        Source::Default,
    ));
    let (_, value, source) = synonyms[0].clone();
    Described {
        name: known.property.name,
        value,
        source,
        kind: known.property.kind,
        doc: known.property.doc,
        synonyms,
    }
}

/// The properties a partition works with, typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    pub compacted: bool,
    pub deleted_by_retention: bool,
    /// None: no limit.
    pub retention_ms: Option<i64>,
    /// None: no limit.
    pub retention_bytes: Option<u64>,
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub index_interval_bytes: u64,
    /// Of a compacted topic: how dirty a log must be, in millionths of it, how long tombstones stay, and how long records
    /// stay uncompacted at least and at most (None: for ever).
    pub dirty_millionths_min: u32,
    pub delete_retention_ms: i64,
    pub compaction_lag_min_ms: i64,
    pub compaction_lag_max_ms: Option<i64>,
    pub max_message_bytes: usize,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub min_insync_replicas: usize,
    pub write_caching: bool,
    pub unclean_leader_election: bool,
    pub leader_throttled: Throttled,
    pub follower_throttled: Throttled,
}

/// Whose time a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

impl TopicConfig {
    /// The properties in force for a topic with `set` of its own. Values that were checked before they were set
    /// always parse; one that does not (written by a newer build) falls back to its default.
    pub fn resolve(set: &BTreeMap<String, String>, broker: &BrokerConfig) -> Self {
        let values = Values { set, broker };
        let policy = values.text("cleanup.policy");
        let throttled = |name| Throttled::parse(&values.text(name)).unwrap_or_default();
        Self {
            compacted: list_items(&policy).any(|item| item == "compact"),
            deleted_by_retention: list_items(&policy).any(|item| item == "delete"),
            retention_ms: Some(values.number("retention.ms")).filter(|ms| *ms >= 0),
            retention_bytes: u64::try_from(values.number("retention.bytes")).ok(),
            segment_bytes: values.count("segment.bytes"),
            segment_ms: values.number("segment.ms"),
            index_interval_bytes: values.count("index.interval.bytes"),
            dirty_millionths_min: values.millionths("min.cleanable.dirty.ratio"),
            delete_retention_ms: values.number("delete.retention.ms"),
            compaction_lag_min_ms: values.number("min.compaction.lag.ms"),
            compaction_lag_max_ms: Some(values.number("max.compaction.lag.ms")).filter(|ms| *ms < i64::MAX),
            max_message_bytes: usize::try_from(values.count("max.message.bytes")).unwrap_or(usize::MAX),
            timestamp_type: match values.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: values.number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: values.number("message.timestamp.after.max.ms"),
            min_insync_replicas: min_insync_replicas(set, broker),
            write_caching: values.text("write.caching") == "true",
            unclean_leader_election: values.text("unclean.leader.election.enable") == "true",
            leader_throttled: throttled("leader.replication.throttled.replicas"),
            follower_throttled: throttled("follower.replication.throttled.replicas"),
        }
    }
}

/// `min.insync.replicas` of a topic with `set` of its own: as `TopicConfig::resolve`, for whoever needs no more of many
/// topics.
pub fn min_insync_replicas(set: &BTreeMap<String, String>, broker: &BrokerConfig) -> usize {
    let values = Values { set, broker };
    usize::try_from(values.count("min.insync.replicas")).unwrap_or(usize::MAX)
}

struct Values<'a> {
    set: &'a BTreeMap<String, String>,
    broker: &'a BrokerConfig,
}

impl Values<'_> {
    fn text(&self, name: &str) -> String {
        let known = find(name).expect("only declared properties are asked for");
        describe_one(known, self.set, self.broker).value
    }

    fn number(&self, name: &str) -> i64 {
        let known = find(name).expect("only declared properties are asked for");
        self.text(name)
            .parse()
            .or_else(|_| known.property.default.parse())
            .expect("the default of a numeric property is a number")
    }

    /// A ratio from 0 to 1.
    fn millionths(&self, name: &str) -> u32 {
        let known = find(name).expect("only declared properties are asked for");
        let ratio: f64 = self
            .text(name)
            .parse()
            .or_else(|_| known.property.default.parse())
            .expect("the default of a ratio is a number");
        (ratio.clamp(0.0, 1.0) * 1e6).round() as u32
    }

    fn count(&self, name: &str) -> u64 {
        u64::try_from(self.number(name)).unwrap_or(0)
    }
}
