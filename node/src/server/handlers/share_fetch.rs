//! ShareFetch (key 78, KIP-932): a member says what became of records, and is given more of them.
//!
//! What is said is written down first. Then what the session names is read where its group stands, and given to the member; a
//! wait ends when a watermark moves, when records come back, when the time is up, or when the session ends.

mod gather;

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::share_fetch::{
    AcquiredRecords, LeaderIdAndEpoch, NodeEndpoint, PartitionData, ShareFetchRequest, ShareFetchResponse,
    ShareFetchableTopicResponse,
};
use headwater_protocol::primitives::{Records, Uuid};

use self::gather::{Found, Gather, Limits};
use super::share::{self, Member, Words};
use crate::server::errors;
use crate::server::request::Context;
use crate::share::{Acquired, Name, Open, Place};
use crate::sys::budget::Permit;

/// A member that takes no more records than it asks for (KIP-1206).
const RECORD_LIMIT: i8 = 1;

pub(in crate::server) async fn handle(
    context: &Context,
    request: ShareFetchRequest,
) -> (ShareFetchResponse, Option<Permit>) {
    match try_handle(context, request).await {
        Ok((said, found, permit)) => (answer(context, said, found), permit),
        Err(code) => {
            let response = ShareFetchResponse {
                error_code: code.0,
                ..ShareFetchResponse::default()
            };
            (response, None)
        }
    }
}

type Outcome = (Vec<(Place, ErrorCode)>, BTreeMap<Place, Found>, Option<Permit>);

async fn try_handle(context: &Context, request: ShareFetchRequest) -> Result<Outcome, ErrorCode> {
    let member = Member::of(request.group_id.as_ref(), request.member_id.as_ref())?;
    let ends = request.share_session_epoch == Open::ENDS;
    let fetches = !ends && !request.is_renew_ack && request.max_bytes > 0 && request.max_records > 0;
    if request.is_renew_ack && request.max_bytes > 0 && request.max_records > 0 {
        // Who goes on with what it has fetches nothing with it.
        return Err(ErrorCode::INVALID_REQUEST);
    }
    let shares = &context.services().shares;
    let opened = shares
        .open(open(&member, &request), context.caller.hurry.clone())
        .await;
    let session = opened.map_err(|error| errors::of_share(&error))?;
    let said = share::acknowledge(context, &member, words(&request)).await;
    if ends {
        shares.close(member.group, member.id).await;
        return Ok((said, BTreeMap::new(), None));
    }
    if !fetches {
        return Ok((said, BTreeMap::new(), None));
    }
    let count = |count: i32| usize::try_from(count).unwrap_or(0);
    let bytes_max = count(request.max_bytes).min(context.services().config.server.fetch_bytes_max);
    let limits = Limits {
        bytes_min: count(request.min_bytes).clamp(1, bytes_max.max(1)),
        bytes_max,
        records_max: count(request.max_records),
        is_strict: request.share_acquire_mode == RECORD_LIMIT,
        batch_size: count(request.batch_size).max(1),
        wait_ms: u64::try_from(request.max_wait_ms).unwrap_or(0),
    };
    let (found, permit) = Gather::new(context, &member, &session, limits).run().await;
    if found
        .values()
        .any(|found| found.code == ErrorCode::GROUP_ID_NOT_FOUND)
    {
        // There is no group, so there is nobody in it.
        shares.close(member.group, member.id).await;
        return Err(ErrorCode::GROUP_ID_NOT_FOUND);
    }
    Ok((said, found, permit))
}

fn open(member: &Member, request: &ShareFetchRequest) -> Open {
    let adds = request.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|it| share::place(topic.topic_id, it.partition_index))
    });
    let forgets = request.forgotten_topics_data.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|index| share::place(topic.topic_id, *index))
    });
    Open {
        group: Name::clone(&member.group),
        member: Name::clone(&member.id),
        epoch: request.share_session_epoch,
        adds: adds.collect(),
        forgets: forgets.collect(),
        may_begin: true,
    }
}

/// A partition without words is named only to be fetched.
fn words(request: &ShareFetchRequest) -> Vec<Words> {
    let topics = request.topics.iter();
    let partitions = topics.flat_map(|topic| topic.partitions.iter().map(|it| (topic.topic_id, it)));
    let speaking = partitions.filter(|(_, partition)| !partition.acknowledgement_batches.is_empty());
    let words = speaking.map(|(topic, partition)| {
        let batches = partition.acknowledgement_batches.iter();
        let batches = batches.map(|it| (it.first_offset, it.last_offset, &it.acknowledge_types[..]));
        let words = share::words(batches, request.is_renew_ack);
        (share::place(topic, partition.partition_index), words)
    });
    words.collect()
}

/// Every partition that was spoken of, and every one of which there is something to tell.
fn answer(
    context: &Context,
    said: Vec<(Place, ErrorCode)>,
    mut found: BTreeMap<Place, Found>,
) -> ShareFetchResponse {
    let image = context.services().view.image();
    let mut elsewhere = BTreeSet::new();
    let mut topics: BTreeMap<Uuid, Vec<PartitionData>> = BTreeMap::new();
    let mut told: Vec<(Place, ErrorCode, Found)> = Vec::new();
    for (place, code) in said {
        told.push((place, code, found.remove(&place).unwrap_or_default()));
    }
    told.extend(
        found
            .into_iter()
            .map(|(place, found)| (place, ErrorCode::NONE, found)),
    );
    for (place, acknowledged, found) in told {
        let leader = share::leader(&image, place, found.code);
        let leader = leader.or_else(|| share::leader(&image, place, acknowledged));
        let mut data = PartitionData {
            partition_index: place.1.value(),
            error_code: found.code.0,
            acknowledge_error_code: acknowledged.0,
            records: Some(Records::from(found.records)),
            acquired_records: found.acquired.iter().map(acquired).collect(),
            ..PartitionData::default()
        };
        if let Some((leader_id, leader_epoch)) = leader {
            elsewhere.insert(leader_id);
            data.current_leader = LeaderIdAndEpoch {
                leader_id,
                leader_epoch,
                ..LeaderIdAndEpoch::default()
            };
        }
        topics.entry(place.0.into()).or_default().push(data);
    }
    let topic = |(topic_id, partitions)| ShareFetchableTopicResponse {
        topic_id,
        partitions,
        ..ShareFetchableTopicResponse::default()
    };
    let endpoint = |(node_id, host, port, rack)| NodeEndpoint {
        node_id,
        host,
        port,
        rack,
        ..NodeEndpoint::default()
    };
    let endpoints = share::endpoints(context, &image, &elsewhere);
    ShareFetchResponse {
        acquisition_lock_timeout_ms: share::lock_timeout_ms(context),
        responses: topics.into_iter().map(topic).collect(),
        node_endpoints: endpoints.into_iter().map(endpoint).collect(),
        ..ShareFetchResponse::default()
    }
}

fn acquired(acquired: &Acquired) -> AcquiredRecords {
    AcquiredRecords {
        first_offset: acquired.first.value(),
        last_offset: acquired.last.value(),
        delivery_count: acquired.count,
        ..AcquiredRecords::default()
    }
}
