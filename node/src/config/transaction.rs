//! How transactions are run: the properties of a node that say so, and the typed part of the tree.

use super::properties::Kind;
use super::server::{BrokerConfig, INT_MAX, ServerProperty, node};
use std::time::Duration;

pub(super) const PROPERTIES: &[ServerProperty] = &[
    node(
        "transaction.state.log.num.partitions",
        Kind::Number { min: 1, max: 1_000 },
        "12",
        "Partitions of `__transaction_state`, when it is made: over so many coordinators transactional ids are spread. It stays so.",
    ),
    node(
        "transaction.state.log.replication.factor",
        Kind::Number { min: 1, max: 32767 },
        "3",
        "Replicas of `__transaction_state`, when it is made; in a smaller cluster one on each node.",
    ),
    node(
        "transaction.state.log.segment.bytes",
        Kind::Bytes {
            min: 1 << 14,
            max: INT_MAX,
        },
        "4194304",
        "How large its segments grow.",
    ),
    node(
        "transaction.max.timeout.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "900000",
        "The longest time that a client may ask for before its open transaction is aborted.",
    ),
    node(
        "transactional.id.expiration.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "604800000",
        "How long a transactional id is kept that nobody uses.",
    ),
];

/// How transactions are run, and the topic that holds their state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionConfig {
    pub topic_partitions: i32,
    pub topic_replication_factor: i16,
    pub topic_segment_bytes: i64,
    pub timeout_max: Duration,
    pub expiration: Duration,
}

impl TransactionConfig {
    pub(super) fn of(broker: &BrokerConfig) -> Self {
        let number = |name| broker.number(name);
        let ms = |name| Duration::from_millis(u64::try_from(number(name)).unwrap_or(0));
        let factor = number("transaction.state.log.replication.factor");
        Self {
            topic_partitions: i32::try_from(number("transaction.state.log.num.partitions")).unwrap_or(1),
            topic_replication_factor: i16::try_from(factor).unwrap_or(i16::MAX),
            topic_segment_bytes: number("transaction.state.log.segment.bytes"),
            timeout_max: ms("transaction.max.timeout.ms"),
            expiration: ms("transactional.id.expiration.ms"),
        }
    }
}
