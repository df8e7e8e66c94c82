//! The properties of the cleaner, by Kafka's names, and their typed branch.

use super::properties::Kind;
use super::server::{BrokerConfig, INT_MAX, ServerProperty, live};
use std::time::Duration;

pub(super) const PROPERTIES: &[ServerProperty] = &[
    live(
        "log.cleaner.enable",
        Kind::Bool,
        "true",
        "Whether logs of topics with cleanup.policy=compact are compacted.",
    ),
    live(
        "log.cleaner.dedupe.buffer.size",
        Kind::Bytes {
            min: 65_536,
            max: i64::MAX,
        },
        "134217728",
        "The most memory for the keys of the log that is compacted, 24 bytes each; more keys take more passes.",
    ),
    live(
        "log.cleaner.io.max.bytes.per.second",
        Kind::Bytes {
            min: 65_536,
            max: i64::MAX,
        },
        "67108864",
        "How fast the logs of a node are read to be compacted.",
    ),
    live(
        "log.cleaner.backoff.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "15000",
        "How long the cleaner rests when no log is dirty enough.",
    ),
];

/// How compacted topics are compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCleaner {
    pub is_on: bool,
    /// Memory for keys.
    pub map_bytes: usize,
    pub bytes_per_second: u64,
    /// Between two looks that found nothing to do.
    pub backoff: Duration,
}

impl LogCleaner {
    pub fn of(broker: &BrokerConfig) -> Self {
        let count = |name| u64::try_from(broker.number(name)).unwrap_or(0);
        Self {
            is_on: broker.value("log.cleaner.enable") == "true",
            map_bytes: usize::try_from(count("log.cleaner.dedupe.buffer.size")).unwrap_or(usize::MAX),
            bytes_per_second: count("log.cleaner.io.max.bytes.per.second"),
            backoff: Duration::from_millis(count("log.cleaner.backoff.ms")),
        }
    }
}
