//! A topic that the nodes make for themselves: how it is made, and which of its partitions a key belongs to.

use crate::controller::{Change, Controller, NewTopic, ProposeError};
use crate::metadata::{Topic, View};
use crate::partition::Registry;
use crate::sys::clock::Clock;
use headwater_protocol::ids::PartitionIndex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a coordinator keeps of one key is one record; it may be larger than what others write to a topic.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How long a new topic may take to be opened here before the caller is answered all the same.
const OPENING: Duration = Duration::from_secs(5);

/// The partition that a key belongs to, as every Kafka broker and tool computes it. `count` is not 0.
pub(super) fn partition_of(key: &str, count: usize) -> PartitionIndex {
    let hash = java_hash(key);
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

/// The topic cannot be had at the moment, or nobody leads the partition: ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no coordinator at the moment")]
pub struct Unavailable;

/// How the topic is to be made.
#[derive(Debug, Clone)]
pub struct OwnTopic {
    pub name: &'static str,
    pub partitions: i32,
    pub replication_factor: i16,
    pub segment_bytes: i64,
    /// How many nodes the quorum is meant to have.
    pub voters: usize,
}

impl OwnTopic {
    /// The topic, made now if nobody needed it before.
    pub async fn ensure(
        &self,
        view: &View,
        controller: &Controller,
        registry: &Registry,
        clock: &Clock,
    ) -> Result<Arc<Topic>, Unavailable> {
        if let Some(topic) = self.usable(view)? {
            return Ok(topic);
        }
        match controller
            .propose(Change::CreateTopic(self.to_be_made(view)))
            .await
        {
            Ok(applied) => {
                tracing::info!(topic = self.name, "own topic created");
                // Not opened in time: clients ask again by themselves.
                let opened = registry.reconciled(applied.offset);
                let _ = clock.timeout(OPENING, opened).await;
            }
            // Somebody was faster.
            Err(ProposeError::TopicExists(_)) => {}
            Err(error) => {
                tracing::warn!(%error, topic = self.name, "own topic cannot be created");
                return Err(Unavailable);
            }
        }
        self.usable(view)?.ok_or(Unavailable)
    }

    fn usable(&self, view: &View) -> Result<Option<Arc<Topic>>, Unavailable> {
        match view.topic(self.name) {
            Some(topic) if !topic.internal => {
                tracing::warn!(
                    topic = self.name,
                    "there are no coordinators while a client's topic has this name"
                );
                Err(Unavailable)
            }
            found => Ok(found),
        }
    }

    /// As many replicas as asked for, or one on each node of a smaller cluster. Nodes that are away for the moment count: a
    /// cluster of three does not keep its offsets on one node because the others were being restarted.
    fn to_be_made(&self, view: &View) -> NewTopic {
        let nodes = view.image().nodes.len().max(self.voters).max(1);
        let nodes = i16::try_from(nodes).unwrap_or(i16::MAX);
        NewTopic {
            partitions: self.partitions,
            replication_factor: self.replication_factor.min(nodes),
            configs: BTreeMap::from([
                ("cleanup.policy".to_owned(), "compact".to_owned()),
                ("segment.bytes".to_owned(), self.segment_bytes.to_string()),
                ("max.message.bytes".to_owned(), MESSAGE_BYTES_MAX.to_string()),
            ]),
            internal: true,
            ..NewTopic::named(self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_where_java_says() {
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
