//! Every metric of the node, each declared once: its name, its kind, its labels, its meaning.
//!
//! Names start with `headwater_`, end with their unit, and with `_total` where they only rise.

use std::fmt;

/// A metric with all its series.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// Declares the families and the list of them all.
macro_rules! families {
    ($($kind:ident $constant:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Family =
                Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All of them, in the order in which they are written out.
        pub static ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    // The node.
    Gauge BUILD_INFO "headwater_build_info" ["version"] "1, with the version of the binary.";
    Gauge START_TIME "headwater_start_time_seconds" [] "When the node was started, since 1970.";
    Gauge READY "headwater_ready" [] "1 while the node accepts requests.";

    // Consumer groups.
    Gauge GROUP_COORDINATORS "headwater_group_coordinators" [] "Partitions of the offsets topic whose groups this node coordinates.";
    Gauge GROUPS "headwater_groups" [] "Groups that this node coordinates.";
    Gauge CONSUMER_GROUPS "headwater_consumer_groups" [] "Those of them whose members use the consumer protocol (KIP-848).";
    Gauge SHARE_GROUPS "headwater_share_groups" [] "Those of them that are share groups (KIP-932).";
    Gauge SHARE_COORDINATORS "headwater_share_coordinators" [] "Partitions of the share groups' state topic that this node coordinates.";
    Gauge SHARE_STATES "headwater_share_states" [] "Partitions whose state this node keeps for a share group, each for each group.";
    Gauge SHARE_SESSIONS "headwater_share_sessions" [] "Members of share groups that fetch from this node.";
    Gauge SHARE_PARTITIONS "headwater_share_partitions" [] "Partitions from which this node delivers to a share group, each for each group.";
    Counter SHARE_ACQUIRED "headwater_share_acquired_records_total" [] "Records given to members of share groups, each time they were.";
    Counter SHARE_ACKNOWLEDGEMENTS "headwater_share_acknowledgements_total" [] "What members of share groups said of records or ranges of them.";
    Gauge TRANSACTION_COORDINATORS "headwater_transaction_coordinators" [] "Partitions of the transactions' topic whose transactional ids this node coordinates.";
    Gauge TRANSACTIONAL_IDS "headwater_transactional_ids" [] "Transactional ids that this node coordinates.";
    Counter GROUP_COMMITS "headwater_group_commits_total" [] "Requests to commit offsets.";
    Counter GROUP_LOADS "headwater_group_loads_total" [] "Partitions of the offsets topic that were read to coordinate their groups.";
    Counter CONSUMER_GROUP_REBALANCES "headwater_consumer_group_rebalances_total" [] "New epochs of groups of the consumer protocol.";
    Counter GROUP_REWRITES "headwater_group_rewrites_total" [] "Times that a partition of the offsets topic was written anew, without its history.";

    // The Kafka edge.
    Gauge CONNECTIONS "headwater_connections" ["transport"] "Open connections.";
    Counter CONNECTIONS_REFUSED "headwater_connections_refused_total" [] "Connections turned away or not accepted.";
    Counter CONNECTIONS_IDLE_CLOSED "headwater_connections_idle_closed_total" [] "Connections closed because they were silent.";
    Counter HANDSHAKES_FAILED "headwater_handshakes_failed_total" [] "Connections that ended before they were established.";
    Counter MALFORMED_REQUESTS "headwater_malformed_requests_total" [] "Connections closed for bytes that are not the protocol.";
    Counter REQUESTS "headwater_requests_total" ["api"] "Requests answered.";
    Histogram REQUEST_SECONDS "headwater_request_seconds" ["api"] "From the last byte of a request to its encoded answer.";
    Counter CLIENT_METRICS_PUSHES "headwater_client_metrics_pushes_total" ["result"] "Pushes of clients' own metrics (KIP-714), accepted or refused.";
    Gauge CLIENT_METRIC "headwater_client_metric" ["client", "instance", "metric", "of"] "What a client said last of itself, by the name that it gave (KIP-714).";
    Counter REQUEST_BYTES "headwater_request_bytes_total" [] "Bytes of requests read.";
    Counter RESPONSE_BYTES "headwater_response_bytes_total" [] "Bytes of answers written.";

    // Topics and partitions.
    Counter TOPIC_BYTES_IN "headwater_topic_bytes_in_total" ["topic"] "Bytes of batches appended.";
    Counter TOPIC_RECORDS_IN "headwater_topic_records_in_total" ["topic"] "Records appended.";
    Counter TOPIC_BYTES_OUT "headwater_topic_bytes_out_total" ["topic"] "Bytes of batches read.";
    Gauge TOPICS "headwater_topics" [] "Topics in the metadata.";
    Gauge PARTITIONS "headwater_partitions" [] "Partitions on this node.";
    Gauge PARTITIONS_OFFLINE "headwater_partitions_offline" [] "Partitions whose log could not be written or read.";
    Gauge PARTITIONS_DISK_FULL "headwater_partitions_disk_full" [] "Partitions that refuse appends for want of space.";
    Gauge PARTITIONS_LEADING "headwater_partitions_leading" [] "Partitions led here.";
    Gauge PARTITIONS_UNDER_REPLICATED "headwater_partitions_under_replicated" [] "Partitions led here with a replica that is not in sync.";
    Gauge PARTITIONS_UNDER_MIN_ISR "headwater_partitions_under_min_isr" [] "Partitions led here with fewer replicas in sync than min.insync.replicas.";
    Gauge PARTITIONS_AT_MIN_ISR "headwater_partitions_at_min_isr" [] "Partitions led here of several replicas, of which min.insync.replicas are in sync and no more.";
    Gauge REPLICA_LAG "headwater_replica_lag" ["topic", "partition"] "Committed records that the leader has and this replica has not.";
    Gauge LOG_BYTES "headwater_log_bytes" ["topic", "partition"] "Bytes of the partition's log.";
    Gauge LOG_START_OFFSET "headwater_log_start_offset" ["topic", "partition"] "First offset that can be read.";
    Gauge LOG_END_OFFSET "headwater_log_end_offset" ["topic", "partition"] "Offset of the next record.";
    Gauge HIGH_WATERMARK "headwater_high_watermark" ["topic", "partition"] "Offset up to which all is committed.";
    Counter APPEND_REFUSED "headwater_append_refused_total" [] "Appends refused, for any reason.";
    Histogram APPEND_SECONDS "headwater_append_seconds" [] "From the admission of an append to its acknowledgement.";
    Gauge TAIL_BYTES "headwater_log_tail_bytes" [] "Memory that keeps the newest batches for readers.";
    Histogram SYNC_SECONDS "headwater_log_sync_seconds" [] "From asking for a sync of a log to its end.";
    Counter RETENTION_BYTES "headwater_retention_bytes_total" [] "Bytes deleted by retention.";
    Counter RECOVERY_TRUNCATED_BYTES "headwater_recovery_truncated_bytes_total" [] "Bytes of torn or corrupt tails cut off at start.";
    Counter SCRUB_BYTES "headwater_scrub_bytes_total" [] "Bytes of logs that the scrub has read and found good.";
    Counter SCRUB_ROUNDS "headwater_scrub_logs_total" [] "Logs that were scrubbed from front to end.";
    Counter SCRUB_INDEXES "headwater_scrub_indexes_rebuilt_total" [] "Indexes that lied and were made anew by the scrub.";
    Counter LOG_DAMAGED "headwater_log_damaged_total" [] "Segments found damaged or missing, by the scrub or by whoever reads.";
    Counter LOG_REPAIRED "headwater_log_repaired_total" [] "Segments repaired from another replica.";
    Counter CLEANER_RUNS "headwater_log_cleaner_runs_total" [] "Logs that were compacted as far as memory for their keys reached.";
    Histogram CLEANER_SECONDS "headwater_log_cleaner_seconds" [] "From the begin of such a pass to its end, with the rests it takes.";
    Counter CLEANER_READ_BYTES "headwater_log_cleaner_read_bytes_total" [] "Bytes of logs that were read to compact them.";
    Counter CLEANER_CLEANED_BYTES "headwater_log_cleaner_cleaned_bytes_total" [] "Bytes by which logs became smaller.";
    Counter CLEANER_FAILURES "headwater_log_cleaner_failures_total" [] "Passes that ended with an error.";
    Gauge CLEANER_LAST_FAILURE "headwater_log_cleaner_last_failure_time_seconds" [] "When a pass ended with an error last, since 1970.";
    Gauge CLEANER_MAX_DIRTY "headwater_log_cleaner_max_dirty_percent" [] "How much of the dirtiest compacted log is not compacted.";
    Gauge CLEANER_UNCLEANABLE "headwater_log_cleaner_uncleanable_partitions" [] "Compacted logs that are set aside, since they cannot be compacted for now.";
    Gauge PARTITIONS_DAMAGED "headwater_partitions_damaged" [] "Replicas on this node with a damaged segment.";
    Gauge PARTITIONS_UNREPAIRABLE "headwater_partitions_unrepairable" [] "Those of them of which there is no other replica.";

    // Replication.
    Gauge FOLLOWER_LAG "headwater_follower_lag" ["topic", "partition", "follower"] "Records that this leader has and the follower is not known to have; of the 2000 followers that lag most.";
    Gauge FOLLOWER_LAG_MAX "headwater_follower_lag_max" [] "The largest lag of all followers of this node.";
    Counter ISR_SHRINKS "headwater_isr_shrinks_total" [] "Replicas left the in-sync set of a partition led here.";
    Counter ISR_EXPANDS "headwater_isr_expands_total" [] "Replicas came into the in-sync set of a partition led here.";
    Counter REPLICATION_BYTES_IN "headwater_replication_bytes_in_total" [] "Bytes of batches fetched from leaders.";
    Counter REPLICATION_ERRORS "headwater_replication_errors_total" ["reason"] "Fetches from leaders, and partitions in them, that failed.";

    // Transforms.
    Counter TRANSFORM_RECORDS_IN "headwater_transform_records_in_total" ["transform"] "Records dealt with.";
    Counter TRANSFORM_RECORDS_OUT "headwater_transform_records_out_total" ["transform"] "Records sent to sinks.";
    Counter TRANSFORM_FAILED "headwater_transform_failed_total" ["transform"] "Records and windows the module could not process.";
    Counter TRANSFORM_REDRIVEN "headwater_transform_redriven_total" ["transform"] "Dead letters written back to the source.";
    Counter TRANSFORM_DROPPED "headwater_transform_dropped_total" ["transform"] "Records the module passed over.";
    Counter TRANSFORM_LATE "headwater_transform_late_total" ["transform"] "Records that came after their window had closed.";
    Counter TRANSFORM_CPU "headwater_transform_cpu_milliseconds_total" ["transform"] "CPU time used by the module.";
    Gauge TRANSFORM_LAG "headwater_transform_lag" ["transform", "partition"] "Committed records of the source that are not dealt with.";
    Gauge TRANSFORM_STATE_BYTES "headwater_transform_state_bytes" ["transform", "partition"] "Bytes of open windows and keyed state.";
    Gauge TRANSFORM_TABLE_BYTES "headwater_transform_table_bytes" ["topic"] "Bytes of a lookup table in memory.";

    // The cluster, as this node knows it: each node tells all of it.
    Gauge CLUSTER_NODES "headwater_cluster_nodes" ["state"] "Nodes of the cluster, by state.";
    Gauge CLUSTER_PARTITIONS "headwater_cluster_partitions" [] "Partitions of the cluster.";
    Gauge CLUSTER_PARTITIONS_LEADERLESS "headwater_cluster_partitions_leaderless" [] "Partitions of the cluster that nobody leads who takes part.";
    Gauge CLUSTER_PARTITIONS_UNDER_MIN_ISR "headwater_cluster_partitions_under_min_isr" [] "Partitions of the cluster with fewer replicas in sync than min.insync.replicas.";
    Gauge CLUSTER_PARTITIONS_AT_MIN_ISR "headwater_cluster_partitions_at_min_isr" [] "Partitions of the cluster of several replicas, of which min.insync.replicas are in sync and no more.";
    Gauge CLUSTER_PARTITIONS_UNDER_REPLICATED "headwater_cluster_partitions_under_replicated" [] "Partitions of the cluster with a replica that is not in sync.";
    Gauge CLUSTER_PARTITIONS_MOVING "headwater_cluster_partitions_moving" [] "Partitions of the cluster whose replicas are being moved.";

    // The quorum.
    Gauge CONTROLLER_ACTIVE "headwater_controller_active" [] "1 while this node leads the quorum.";
    Gauge QUORUM_TERM "headwater_quorum_term" [] "The term of the quorum, as this node knows it.";
    Gauge QUORUM_VOTERS "headwater_quorum_voters" [] "Nodes that vote.";
    Gauge QUORUM_OBSERVERS "headwater_quorum_observers" [] "Nodes that follow the quorum's log without a vote.";
    Gauge QUORUM_LAG "headwater_quorum_lag" ["node"] "Entries that this leader of the quorum has and the node has not.";
    Counter ELECTIONS "headwater_elections_total" ["kind"] "Leaders that this node chose for partitions while it led the quorum: clean, or unclean where records may be lost.";

    // Metadata.
    Gauge METADATA_OFFSET "headwater_metadata_offset" [] "The last metadata record applied here.";
    Counter METADATA_CHANGES "headwater_metadata_changes_total" ["result"] "Changes proposed, by result.";
    Histogram METADATA_COMMIT_SECONDS "headwater_metadata_commit_seconds" [] "How long a change took to become durable.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_page_of_metrics_lists_each_as_it_is_declared() {
        let page = include_str!("../../docs/metrics.md");
        let listed = |line: &str| line.starts_with("| `headwater_") && line.matches('|').count() == 5;
        let listed: Vec<&str> = page.lines().filter(|line| listed(line)).collect();
        let declared = ALL.iter().map(|family| {
            let labels = family.labels.join(", ");
            format!(
                "| `{}` | {} | {labels} | {} |",
                family.name, family.kind, family.help
            )
        });
        assert_eq!(listed, declared.collect::<Vec<_>>());
    }

    #[test]
    fn names_are_unique_and_keep_the_rules() {
        let mut seen = BTreeSet::new();
        for family in ALL {
            assert!(seen.insert(family.name), "{} is declared twice", family.name);
            assert!(family.name.starts_with("headwater_"), "{}", family.name);
            assert_eq!(
                family.name.ends_with("_total"),
                family.kind == Kind::Counter,
                "{}",
                family.name
            );
            assert!(
                family.help.ends_with('.') && !family.help.contains('\n'),
                "{}",
                family.name
            );
        }
    }
}
