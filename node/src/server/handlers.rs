//! One file per Kafka API: check, call one service, shape the answer.
//!
//! A handler owns nothing. It must never touch a log, and never fail: what goes wrong becomes a code in the answer.

pub(super) mod add_offsets_to_txn;
pub(super) mod add_partitions_to_txn;
pub(super) mod add_raft_voter;
mod addresses;
pub(super) mod alter_configs;
pub(super) mod alter_partition_reassignments;
pub(super) mod alter_share_group_offsets;
pub(super) mod api_versions;
mod configs;
pub(super) mod consumer_group_describe;
pub(super) mod consumer_group_heartbeat;
pub(super) mod create_partitions;
pub(super) mod create_topics;
pub(super) mod delete_groups;
pub(super) mod delete_records;
pub(super) mod delete_share_group_offsets;
pub(super) mod delete_share_group_state;
pub(super) mod delete_topics;
pub(super) mod describe_cluster;
pub(super) mod describe_configs;
pub(super) mod describe_groups;
pub(super) mod describe_log_dirs;
pub(super) mod describe_producers;
pub(super) mod describe_quorum;
pub(super) mod describe_share_group_offsets;
pub(super) mod describe_topic_partitions;
pub(super) mod describe_transactions;
pub(super) mod elect_leaders;
pub(super) mod end_txn;
mod ends;
pub(super) mod fetch;
pub(super) mod find_coordinator;
pub(super) mod get_telemetry_subscriptions;
mod groups;
pub(super) mod heartbeat;
pub(super) mod incremental_alter_configs;
pub(super) mod init_producer_id;
pub(super) mod initialize_share_group_state;
pub(super) mod join_group;
pub(super) mod leave_group;
pub(super) mod list_config_resources;
pub(super) mod list_groups;
pub(super) mod list_offsets;
pub(super) mod list_partition_reassignments;
pub(super) mod list_transactions;
pub(super) mod metadata;
pub(super) mod offset_commit;
pub(super) mod offset_delete;
pub(super) mod offset_fetch;
pub(super) mod offset_for_leader_epoch;
pub(super) mod produce;
pub(super) mod push_telemetry;
pub(super) mod read_share_group_state;
pub(super) mod read_share_group_state_summary;
mod refusal;
pub(super) mod remove_raft_voter;
mod share;
pub(super) mod share_acknowledge;
pub(super) mod share_fetch;
pub(super) mod share_group_describe;
pub(super) mod share_group_heartbeat;
pub(super) mod sync_group;
mod transactions;
pub(super) mod txn_offset_commit;
pub(super) mod unregister_broker;
pub(super) mod update_features;
mod voters;
pub(super) mod write_share_group_state;
pub(super) mod write_txn_markers;

use headwater_protocol::ids::{LeaderEpoch, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;

use super::errors;
use super::request::Context;
use crate::partition::{Isolation, Partition};

/// What a client is told that did not ask what it may do.
const OPERATIONS_NOT_ASKED: i32 = i32::MIN;
/// Every operation on a topic, and on the cluster, as bits: nothing is refused while there are no ACLs.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Read, delete and describe.
const GROUP_OPERATIONS: i32 = 0b1_0100_1000;
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// An epoch as requests carry it: below zero, the client knows none.
fn current_epoch(epoch: i32) -> Option<LeaderEpoch> {
    (epoch >= 0).then_some(LeaderEpoch(epoch))
}

fn isolation(level: i8) -> Isolation {
    if level == 1 {
        Isolation::Committed
    } else {
        Isolation::Uncommitted
    }
}

/// A partition by name, or why it is not here.
fn partition(context: &Context, topic: &str, index: i32) -> Result<Partition, ErrorCode> {
    let services = context.services();
    let found = services.registry.get(topic, PartitionIndex(index));
    found.ok_or_else(|| errors::absent_name(&services.view, topic, index, services.node_id()))
}
