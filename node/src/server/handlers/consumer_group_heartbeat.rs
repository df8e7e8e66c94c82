//! ConsumerGroupHeartbeat (key 68, KIP-848): a member comes, is there, or goes, and hears what it may have.

use std::time::Duration;

use headwater_protocol::ids::PartitionIndex;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::consumer_group_heartbeat as wire;
use headwater_protocol::kafka::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, RequestTopicPartitions,
    ResponseTopicPartitions,
};
use headwater_protocol::primitives::Str;

use super::groups;
use crate::group::{self, Assignment, ConsumerHeartbeat, Epoch, GroupError, Name, Reconciled};
use crate::server::errors;
use crate::server::request::Context;

/// From this version on a client chooses its member id (KIP-1082).
const CHOOSES_ID_SINCE: i16 = 1;

pub(in crate::server) async fn handle(
    context: &Context,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let reconciled = match heartbeat(context, request) {
        Ok(beat) => groups::patiently(context, context.services().groups.consumer_heartbeat(beat)).await,
        Err(error) => Err(error),
    };
    match reconciled {
        Ok(reconciled) => accepted(reconciled),
        Err(error) => ConsumerGroupHeartbeatResponse {
            error_code: errors::of_group(&error).0,
            error_message: Some(Str::from(error.to_string())),
            ..ConsumerGroupHeartbeatResponse::default()
        },
    }
}

fn heartbeat(
    context: &Context,
    request: ConsumerGroupHeartbeatRequest,
) -> Result<ConsumerHeartbeat, GroupError> {
    let name = |text: Option<Str>| text.map(|text| group::name(&text)).transpose();
    let topics = request.subscribed_topic_names;
    let topics = topics.map(|topics| topics.iter().map(|topic| group::name(topic)).collect());
    // Below zero: it is as it was.
    let rebalance_timeout = u64::try_from(request.rebalance_timeout_ms).ok();
    let client_id = context.client_id.as_ref().map_or("", Str::as_str);
    Ok(ConsumerHeartbeat {
        who: groups::identity(
            &request.group_id,
            &request.member_id,
            request.instance_id.as_ref(),
        )?,
        epoch: Epoch(request.member_epoch),
        chooses_id: context.version >= CHOOSES_ID_SINCE,
        rack: name(request.rack_id)?,
        client_id: group::name(client_id)?,
        // As Kafka writes it.
        client_host: Name::from(format!("/{}", context.caller.peer.address.ip())),
        rebalance_timeout: rebalance_timeout.map(Duration::from_millis),
        topics: topics.transpose()?,
        regex: name(request.subscribed_topic_regex)?,
        assignor: name(request.server_assignor)?,
        owned: request.topic_partitions.map(|topics| owned(&topics)),
    })
}

fn owned(topics: &[RequestTopicPartitions]) -> Assignment {
    let partitions = topics.iter().flat_map(|topic| {
        let indexes = topic.partitions.iter();
        indexes.map(|index| (topic.topic_id.into(), PartitionIndex(*index)))
    });
    partitions.collect()
}

fn accepted(reconciled: Reconciled) -> ConsumerGroupHeartbeatResponse {
    let interval = reconciled.heartbeat_interval.as_millis();
    let assignment = |assignment: Assignment| {
        let topics = assignment.topics().iter();
        let topics = topics.map(|(topic, indexes)| ResponseTopicPartitions {
            topic_id: (*topic).into(),
            partitions: indexes.iter().map(|index| index.value()).collect(),
            ..ResponseTopicPartitions::default()
        });
        wire::Assignment {
            topic_partitions: topics.collect(),
            ..wire::Assignment::default()
        }
    };
    ConsumerGroupHeartbeatResponse {
        error_code: ErrorCode::NONE.0,
        member_id: Some(Str::from(&*reconciled.member)),
        member_epoch: reconciled.epoch.0,
        heartbeat_interval_ms: i32::try_from(interval).unwrap_or(i32::MAX),
        assignment: reconciled.assignment.map(assignment),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}
