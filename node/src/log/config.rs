//! What a log is told: the topic properties that concern it, by the meaning Kafka gives them.
//! Owns no defaults of its own beyond those of Kafka. Must never hear of topics.

use crate::config::TopicConfig;

/// Segment positions and relative offsets are 32 bits wide on disk.
pub(super) const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// The properties of one log. They may change while it is open: [`super::Log::configure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `segment.bytes`: a batch that would pass it begins a new segment.
    pub segment_bytes: u64,
    /// `segment.ms`: how long a segment is appended to.
    pub segment_ms: i64,
    /// `index.interval.bytes`: how far apart index entries are.
    pub index_interval_bytes: u64,
    /// `retention.ms`: how long after its newest record a segment stays. `None`: for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`: segments go, oldest first, while the rest is still as large. `None`: no limit.
    pub retention_bytes: Option<u64>,
    /// Newest bytes kept in memory for readers at the end, as long as the node's share lasts.
    pub tail_bytes_max: usize,
}

impl Config {
    /// The branch of a topic's properties that its logs obey. Only a `cleanup.policy` with `delete` in it
    /// lets records go by age or size.
    pub fn of_topic(topic: &TopicConfig) -> Self {
        let deletes = topic.deleted_by_retention;
        Self {
            segment_bytes: topic.segment_bytes.min(SEGMENT_BYTES_MAX),
            // What is appended to is not compacted: it must be rolled in time.
            segment_ms: match topic.compaction_lag_max_ms.filter(|_| topic.compacted) {
                Some(lag_max_ms) => topic.segment_ms.min(lag_max_ms),
                None => topic.segment_ms,
            },
            index_interval_bytes: topic.index_interval_bytes,
            retention_ms: topic.retention_ms.filter(|_| deletes),
            retention_bytes: topic.retention_bytes.filter(|_| deletes),
            tail_bytes_max: TAIL_BYTES_MAX,
        }
    }
}

/// A reader this far behind reads from the page cache.
const TAIL_BYTES_MAX: usize = 8 << 20;

impl Default for Config {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            index_interval_bytes: 4096,
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            tail_bytes_max: TAIL_BYTES_MAX,
        }
    }
}
