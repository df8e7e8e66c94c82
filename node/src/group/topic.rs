//! The topic that holds what groups commit: how it is made, and which of its partitions a group belongs to.

use super::Shared;
use super::error::GroupError;
use crate::controller::{Change, NewTopic, ProposeError};
use crate::metadata::Topic;
use crate::metadata::topic::OFFSETS_TOPIC;
use headwater_protocol::ids::PartitionIndex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A generation of a large group is one record; it is larger than what others write to a topic.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How long a new topic may take to be opened here before the caller is answered all the same.
const OPENING: Duration = Duration::from_secs(5);

/// The partition that a group belongs to, as every Kafka broker and tool computes it. `count` is not 0.
pub(super) fn partition_of(group: &str, count: usize) -> PartitionIndex {
    let hash = java_hash(group);
    // Java's `abs` of the lowest number is negative; Kafka takes 0 for it.
    let positive = hash.checked_abs().unwrap_or(0);
    let count = i32::try_from(count).unwrap_or(i32::MAX).max(1);
    PartitionIndex(positive % count)
}

/// `String.hashCode`, which Java defines over UTF-16.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0, |hash, unit| {
        31i32.wrapping_mul(hash).wrapping_add(i32::from(unit))
    })
}

/// The topic, made now if nobody needed it before.
pub(super) async fn ensure(shared: &Shared) -> Result<Arc<Topic>, GroupError> {
    if let Some(topic) = usable(shared)? {
        return Ok(topic);
    }
    match shared.controller.propose(Change::CreateTopic(new(shared))).await {
        Ok(applied) => {
            tracing::info!(topic = OFFSETS_TOPIC, "topic created for consumer groups");
            // Not opened in time: clients ask again by themselves.
            let opened = shared.registry.reconciled(applied.offset);
            let _ = shared.sys.clock.timeout(OPENING, opened).await;
        }
        // Somebody was faster.
        Err(ProposeError::TopicExists(_)) => {}
        Err(error) => {
            tracing::warn!(%error, topic = OFFSETS_TOPIC, "topic cannot be created for consumer groups");
            return Err(GroupError::NotAvailable);
        }
    }
    usable(shared)?.ok_or(GroupError::NotAvailable)
}

fn usable(shared: &Shared) -> Result<Option<Arc<Topic>>, GroupError> {
    match shared.view.topic(OFFSETS_TOPIC) {
        Some(topic) if !topic.internal => {
            tracing::warn!(
                topic = OFFSETS_TOPIC,
                "there are no consumer groups while a client's topic has this name"
            );
            Err(GroupError::NotAvailable)
        }
        found => Ok(found),
    }
}

/// As many replicas as asked for, or one on each node of a smaller cluster. Nodes that are away for the moment count: a
/// cluster of three does not keep its offsets on one node because the others were being restarted.
fn new(shared: &Shared) -> NewTopic {
    let image = shared.view.image();
    let nodes = image.nodes.len().max(shared.voters).max(1);
    let nodes = i16::try_from(nodes).unwrap_or(i16::MAX);
    let config = &shared.config;
    NewTopic {
        partitions: config.offsets_partitions,
        replication_factor: config.offsets_replication_factor.min(nodes),
        configs: BTreeMap::from([
            ("cleanup.policy".to_owned(), "compact".to_owned()),
            (
                "segment.bytes".to_owned(),
                config.offsets_segment_bytes.to_string(),
            ),
            ("max.message.bytes".to_owned(), MESSAGE_BYTES_MAX.to_string()),
        ]),
        internal: true,
        ..NewTopic::named(OFFSETS_TOPIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_belongs_where_java_says() {
        // `"...".hashCode()` of a JVM.
        for (text, hash) in [
            ("", 0),
            ("a", 97),
            ("test", 3_556_498),
            ("console-consumer-1", 35_782_224),
            ("grüße", 98_768_023),
            ("polygenelubricants", i32::MIN),
        ] {
            assert_eq!(java_hash(text), hash, "{text:?}");
        }
        assert_eq!(partition_of("polygenelubricants", 50), PartitionIndex(0));
        assert_eq!(partition_of("test", 50), PartitionIndex(48));
        assert_eq!(partition_of("test", 1), PartitionIndex(0));
    }
}
