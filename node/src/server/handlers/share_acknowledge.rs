//! ShareAcknowledge (key 79, KIP-932): a member says what became of records, and is answered when that is written down.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::share_acknowledge::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionData, ShareAcknowledgeRequest, ShareAcknowledgeResponse,
    ShareAcknowledgeTopicResponse,
};
use headwater_protocol::primitives::Uuid;

use super::share::{self, Member, Words};
use crate::server::errors;
use crate::server::request::Context;
use crate::share::{Name, Open, Place};

pub(in crate::server) async fn handle(
    context: &Context,
    request: ShareAcknowledgeRequest,
) -> ShareAcknowledgeResponse {
    match try_handle(context, request).await {
        Ok(outcomes) => answer(context, outcomes),
        Err(code) => ShareAcknowledgeResponse {
            error_code: code.0,
            ..ShareAcknowledgeResponse::default()
        },
    }
}

async fn try_handle(
    context: &Context,
    request: ShareAcknowledgeRequest,
) -> Result<Vec<(Place, ErrorCode)>, ErrorCode> {
    let member = Member::of(request.group_id.as_ref(), request.member_id.as_ref())?;
    let open = Open {
        group: Name::clone(&member.group),
        member: Name::clone(&member.id),
        epoch: request.share_session_epoch,
        adds: Vec::new(),
        forgets: Vec::new(),
        may_begin: false,
    };
    let shares = &context.services().shares;
    let opened = shares.open(open, context.caller.hurry.clone()).await;
    opened.map_err(|error| errors::of_share(&error))?;
    let outcomes = share::acknowledge(context, &member, words(&request)).await;
    if request.share_session_epoch == Open::ENDS {
        shares.close(member.group, member.id).await;
    }
    Ok(outcomes)
}

fn words(request: &ShareAcknowledgeRequest) -> Vec<Words> {
    let topics = request.topics.iter();
    let partitions = topics.flat_map(|topic| topic.partitions.iter().map(|it| (topic.topic_id, it)));
    let words = partitions.map(|(topic, partition)| {
        let batches = partition.acknowledgement_batches.iter();
        let batches = batches.map(|it| (it.first_offset, it.last_offset, &it.acknowledge_types[..]));
        let words = share::words(batches, request.is_renew_ack);
        (share::place(topic, partition.partition_index), words)
    });
    words.collect()
}

fn answer(context: &Context, outcomes: Vec<(Place, ErrorCode)>) -> ShareAcknowledgeResponse {
    let image = context.services().view.image();
    let mut elsewhere = BTreeSet::new();
    let mut topics: BTreeMap<Uuid, Vec<PartitionData>> = BTreeMap::new();
    for (place, code) in outcomes {
        let mut data = PartitionData {
            partition_index: place.1.value(),
            error_code: code.0,
            ..PartitionData::default()
        };
        if let Some((leader_id, leader_epoch)) = share::leader(&image, place, code) {
            elsewhere.insert(leader_id);
            data.current_leader = LeaderIdAndEpoch {
                leader_id,
                leader_epoch,
                ..LeaderIdAndEpoch::default()
            };
        }
        topics.entry(place.0.into()).or_default().push(data);
    }
    let topic = |(topic_id, partitions)| ShareAcknowledgeTopicResponse {
        topic_id,
        partitions,
        ..ShareAcknowledgeTopicResponse::default()
    };
    let endpoint = |(node_id, host, port, rack)| NodeEndpoint {
        node_id,
        host,
        port,
        rack,
        ..NodeEndpoint::default()
    };
    let endpoints = share::endpoints(context, &image, &elsewhere);
    ShareAcknowledgeResponse {
        acquisition_lock_timeout_ms: share::lock_timeout_ms(context),
        responses: topics.into_iter().map(topic).collect(),
        node_endpoints: endpoints.into_iter().map(endpoint).collect(),
        ..ShareAcknowledgeResponse::default()
    }
}
