//! Fetch: reads what the session wants, waits while that is too little, answers with slices of the log.
//!
//! A wait ends when a watermark moves, the time is up, or the client has gone; nothing polls. What an answer holds
//! of memory is taken from the shared budget before it is read. A replica's fetch is believed only if the stream is that
//! node's own; it reads up to the log's end, tells the partition how far the replica is, and its wait ends as well when
//! a request comes behind it, or shortly after there is a higher watermark to tell.

mod gather;
mod origin;

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::fetch::{
    AbortedTransaction, FetchRequest, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use headwater_protocol::primitives::{Records, Str};
use indexmap::IndexMap;

use self::gather::{Found, Gather, Look};
use self::origin::Origin;
use super::{addresses, isolation};
use crate::metadata::Image;
use crate::partition::Isolation;
use crate::partition::transactions::Aborted;
use crate::server::errors;
use crate::server::request::Context;
use crate::server::sessions::{FetchSession, Scope, Told, TopicKey};
use crate::sys::budget::Permit;

/// How long a higher watermark waits for records to go with, before a replica is told it alone.
const TELL_WATERMARK: Duration = Duration::from_millis(10);

pub(in crate::server) async fn handle(
    context: &Context,
    mut request: FetchRequest,
) -> (FetchResponse, Option<Permit>) {
    let origin = match Origin::of(context, &request) {
        Ok(origin) => origin,
        Err(code) => return (refused(code), None),
    };
    let by_id = context.version >= 13;
    let begun = context
        .caller
        .shared
        .fetch_sessions
        .begin(&mut request, by_id, context.received);
    let (mut lease, scope) = match begun {
        Ok(begun) => begun,
        Err(code) => return (refused(code), None),
    };
    let session = lease.session();
    let limits = limits(context, &request, origin);
    session.fetches_as(limits.origin.incarnation());
    let mut gather = Gather::new(context, limits);
    for at in session.take_due() {
        gather.look(session, at, Look::First).await;
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    if gather.wants_more() && !wait.is_zero() {
        await_more(context, session, &mut gather, wait).await;
    }
    let (found, permit) = gather.finish();
    let mut response = answer(context, session, scope, found);
    response.session_id = lease.give_back();
    (response, permit)
}

fn refused(code: ErrorCode) -> FetchResponse {
    FetchResponse {
        error_code: code.0,
        ..FetchResponse::default()
    }
}

/// How much may be answered, and how.
struct Limits {
    bytes_min: usize,
    bytes_max: usize,
    isolation: Isolation,
    origin: Origin,
}

fn limits(context: &Context, request: &FetchRequest, origin: Origin) -> Limits {
    let own = context.services().config.server.fetch_bytes_max;
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(own);
    Limits {
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max),
        bytes_max,
        isolation: isolation(request.isolation_level),
        origin,
    }
}

/// Waits until enough is there. Each partition that moves is looked at again, and only it.
async fn await_more(context: &Context, session: &mut FetchSession, gather: &mut Gather<'_>, wait: Duration) {
    let clock = &context.services().sys.clock;
    let deadline = context.received + wait;
    let mut time_up = std::pin::pin!(clock.sleep_until(deadline));
    let mut hurry = std::pin::pin!(context.caller.hurry.cancelled());
    let mut pressed = context.caller.pressed.subscribe();
    let mut pressed = std::pin::pin!(pressed.wait_for(|pressed| *pressed));
    let mut told_soon = false;
    gather.looked_at().for_each(|at| session.watch(at));
    while gather.wants_more() {
        let moved = tokio::select! {
            biased;
            () = &mut hurry => return,
            _ = &mut pressed => return,
            at = session.moved() => at,
            () = &mut time_up => return,
        };
        gather.look(session, moved, Look::Again).await;
        if gather.has_watermark_to_tell() && !told_soon {
            // Mostly records come next, and carry it.
            told_soon = true;
            time_up.set(clock.sleep_until(deadline.min(clock.now() + TELL_WATERMARK)));
        }
        session.watch(moved);
    }
}

/// Shapes the answer: everything, or what the client was not told yet.
fn answer(
    context: &Context,
    session: &mut FetchSession,
    scope: Scope,
    found: BTreeMap<usize, Found>,
) -> FetchResponse {
    let image = context.services().view.image();
    let mut topics: IndexMap<TopicKey, Vec<PartitionData>> = IndexMap::new();
    let mut last_with_records = None;
    let mut elsewhere = Vec::new();
    for (at, found) in found {
        if found.is_to_be_looked_at_again() {
            session.look_again(at);
        } else if session.id != 0 && !found.is_to_be_dealt_with() {
            session.watch(at);
        }
        let ((key, index), slot) = session.slots.get_index_mut(at).expect("one result per slot");
        let told = Told {
            code: found.code,
            // Where histories part, a replica takes over nothing else.
            high_watermark: match found.diverging {
                Some(_) => Offset(-1),
                None => found.high_watermark,
            },
            log_start: found.log_start,
        };
        let news = !found.records.is_empty()
            || found.diverging.is_some()
            || found.preferred.is_some()
            || found.code != ErrorCode::NONE
            || slot.told != Some(told);
        if !found.records.is_empty() {
            last_with_records = Some(at);
        }
        slot.resting = found.is_to_be_dealt_with();
        if scope == Scope::News && !news {
            continue;
        }
        slot.told = Some(told);
        let mut data = partition_data(*index, found);
        if context.version >= 12 && errors::is_elsewhere(ErrorCode(data.error_code)) {
            data.current_leader = leader(&image, key, *index);
            elsewhere.push(data.current_leader.leader_id);
        }
        topics.entry(key.clone()).or_default().push(data);
    }
    if let Some(at) = last_with_records {
        session.first = (at + 1) % session.slots.len();
    }
    let responses = topics
        .into_iter()
        .map(|(key, partitions)| topic_response(key, partitions))
        .collect();
    let mut response = FetchResponse {
        responses,
        ..FetchResponse::default()
    };
    if context.version >= 16 && !elsewhere.is_empty() {
        response.node_endpoints = endpoints(context, &image, elsewhere);
    }
    response
}

fn topic_response(key: TopicKey, partitions: Vec<PartitionData>) -> FetchableTopicResponse {
    match key {
        TopicKey::Name(topic) => FetchableTopicResponse {
            topic,
            partitions,
            ..Default::default()
        },
        TopicKey::Id(id) => FetchableTopicResponse {
            topic_id: id.into(),
            partitions,
            ..Default::default()
        },
    }
}

fn partition_data(partition_index: i32, found: Found) -> PartitionData {
    let mut data = PartitionData {
        partition_index,
        error_code: found.code.0,
        high_watermark: found.high_watermark.value(),
        last_stable_offset: found.last_stable.value(),
        log_start_offset: found.log_start.value(),
        aborted_transactions: (found.isolation == Isolation::Committed)
            .then(|| found.aborted.iter().map(aborted).collect()),
        records: Some(Records::from(found.records)),
        ..PartitionData::default()
    };
    if let Some(node) = found.preferred {
        data.preferred_read_replica = node.value();
    }
    if let Some(end) = found.diverging {
        data.diverging_epoch.epoch = end.epoch.value();
        data.diverging_epoch.end_offset = end.end.value();
    }
    data
}

fn aborted(aborted: &Aborted) -> AbortedTransaction {
    AbortedTransaction {
        producer_id: aborted.producer.value(),
        first_offset: aborted.first.value(),
        ..AbortedTransaction::default()
    }
}

fn leader(image: &Image, key: &TopicKey, index: i32) -> LeaderIdAndEpoch {
    let topic = match key {
        TopicKey::Name(name) => image.topic(name),
        TopicKey::Id(id) => image.topic_by_id(*id),
    };
    let state = topic.and_then(|topic| topic.partition(PartitionIndex(index)));
    state.map_or_else(LeaderIdAndEpoch::default, |state| LeaderIdAndEpoch {
        leader_id: state.leader.value(),
        leader_epoch: state.leader_epoch.value(),
        ..Default::default()
    })
}

fn endpoints(context: &Context, image: &Image, mut nodes: Vec<i32>) -> Vec<NodeEndpoint> {
    nodes.sort_unstable();
    nodes.dedup();
    let place = |id: i32| {
        let node = image.nodes.get(&id.into())?;
        let (host, port) = addresses::of(node, context.listener())?;
        let rack = node.rack.as_ref().map(Str::from);
        Some(NodeEndpoint {
            node_id: id,
            host,
            port,
            rack,
            ..Default::default()
        })
    };
    nodes.into_iter().filter_map(place).collect()
}
