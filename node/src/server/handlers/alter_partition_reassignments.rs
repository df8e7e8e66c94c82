//! AlterPartitionReassignments (key 45, KIP-455): moves replicas, and takes moves back. Each partition by itself.

use futures_util::{StreamExt as _, stream};
use headwater_protocol::ids::{NodeId, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartitionResponse,
    ReassignableTopicResponse,
};
use headwater_protocol::primitives::Str;

use super::refusal::Refusal;
use crate::controller::{Change, Factor, Reassignment};
use crate::server::request::Context;

/// Partitions that are proposed at the same time: as many as share one entry of the quorum's log.
const AT_ONCE: usize = 64;

pub(in crate::server) async fn handle(
    context: &Context,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let may_resize = request.allow_replication_factor_change;
    let factor = if may_resize { Factor::Free } else { Factor::Fixed };
    let names: Vec<Str> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let asked = request.topics.into_iter().enumerate().flat_map(|(at, topic)| {
        let asked = topic.partitions.into_iter().map(move |partition| {
            let replicas = partition.replicas;
            Reassignment {
                topic: topic.name.to_string(),
                index: PartitionIndex(partition.partition_index),
                replicas: replicas.map(|ids| ids.into_iter().map(NodeId).collect()),
                factor,
            }
        });
        asked.map(move |reassignment| (at, reassignment))
    });
    let mut proposing = stream::iter(asked)
        .map(|(at, reassignment)| async move { (at, propose(context, reassignment).await) })
        .buffered(AT_ONCE);
    let mut responses: Vec<ReassignableTopicResponse> = names
        .into_iter()
        .map(|name| ReassignableTopicResponse {
            name,
            ..ReassignableTopicResponse::default()
        })
        .collect();
    while let Some((at, answered)) = proposing.next().await {
        responses[at].partitions.push(answered);
    }
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: may_resize,
        error_message: None,
        responses,
        ..AlterPartitionReassignmentsResponse::default()
    }
}

async fn propose(context: &Context, reassignment: Reassignment) -> ReassignablePartitionResponse {
    let partition_index = reassignment.index.value();
    let proposed = context
        .services()
        .controller
        .propose(Change::Reassign(reassignment))
        .await;
    let (code, error_message) = match proposed {
        Ok(_) => (ErrorCode::NONE, None),
        Err(error) => {
            let refusal = Refusal::from(error);
            (refusal.code, refusal.text())
        }
    };
    ReassignablePartitionResponse {
        partition_index,
        error_code: code.0,
        error_message,
        ..ReassignablePartitionResponse::default()
    }
}
