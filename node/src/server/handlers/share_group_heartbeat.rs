//! ShareGroupHeartbeat (key 76, KIP-932): a member comes, is there, or goes, and hears what it is to read.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::share_group_heartbeat as wire;
use headwater_protocol::kafka::share_group_heartbeat::{
    ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse, TopicPartitions,
};
use headwater_protocol::primitives::Str;

use super::groups;
use crate::group::{self, Assignment, Epoch, GroupError, Name, Reconciled, ShareHeartbeat};
use crate::server::errors;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: ShareGroupHeartbeatRequest,
) -> ShareGroupHeartbeatResponse {
    let reconciled = match heartbeat(context, request) {
        Ok(beat) => groups::patiently(context, context.services().groups.share_heartbeat(beat)).await,
        Err(error) => Err(error),
    };
    match reconciled {
        Ok(reconciled) => accepted(reconciled),
        Err(error) => ShareGroupHeartbeatResponse {
            error_code: errors::of_group(&error).0,
            error_message: Some(Str::from(error.to_string())),
            ..ShareGroupHeartbeatResponse::default()
        },
    }
}

fn heartbeat(context: &Context, request: ShareGroupHeartbeatRequest) -> Result<ShareHeartbeat, GroupError> {
    let topics = request.subscribed_topic_names;
    let topics = topics.map(|topics| topics.iter().map(|topic| group::name(topic)).collect());
    let client_id = context.client_id.as_ref().map_or("", Str::as_str);
    Ok(ShareHeartbeat {
        group: group::name(&request.group_id)?,
        member: group::name(&request.member_id)?,
        epoch: Epoch(request.member_epoch),
        rack: request.rack_id.map(|rack| group::name(&rack)).transpose()?,
        client_id: group::name(client_id)?,
        // As Kafka writes it.
        client_host: Name::from(format!("/{}", context.caller.peer.address.ip())),
        topics: topics.transpose()?,
    })
}

fn accepted(reconciled: Reconciled) -> ShareGroupHeartbeatResponse {
    let interval = reconciled.heartbeat_interval.as_millis();
    let assignment = |assignment: Assignment| {
        let topics = assignment.topics().iter();
        let topics = topics.map(|(topic, indexes)| TopicPartitions {
            topic_id: (*topic).into(),
            partitions: indexes.iter().map(|index| index.value()).collect(),
            ..TopicPartitions::default()
        });
        wire::Assignment {
            topic_partitions: topics.collect(),
            ..wire::Assignment::default()
        }
    };
    ShareGroupHeartbeatResponse {
        error_code: ErrorCode::NONE.0,
        member_id: Some(Str::from(&*reconciled.member)),
        member_epoch: reconciled.epoch.0,
        heartbeat_interval_ms: i32::try_from(interval).unwrap_or(i32::MAX),
        assignment: reconciled.assignment.map(assignment),
        ..ShareGroupHeartbeatResponse::default()
    }
}
