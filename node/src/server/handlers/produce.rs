//! Produce: batches go to their partitions in the order of the stream, answers follow when each is acknowledged.
//!
//! Beginning and answering are apart so that many produces of one connection are in flight. A produce whose answer
//! nobody waits for is appended all the same.

mod waiting;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::ids::{PartitionIndex, TopicId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData,
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData, TopicProduceResponse,
};
use headwater_protocol::primitives::{Str, Uuid};
use headwater_protocol::record::BatchHeader;

use self::waiting::{Place, Waiting};
use super::{addresses, transactions};
use crate::metadata::{self, Image, Node};
use crate::partition::{Acks, AppendError, AppendOptions, Appended, Origin, Partition, Verified};
use crate::server::dispatch::{self, Answer, Fault};
use crate::server::errors;
use crate::server::request::Context;
use crate::sys::budget::Permit;
use crate::transaction::Producer;

/// A produce that has been submitted.
pub(in crate::server) struct InFlight {
    context: Context,
    acks: Acks,
    topics: Vec<Topic>,
    /// The first partition that is not known to be answered, as a position in `topics` and in it.
    next: (usize, usize),
    timeout: Duration,
    timer: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    bytes: usize,
    /// The request's share of memory: its batches may lie in it until they are on disk.
    _permit: Option<Permit>,
}

struct Topic {
    response: TopicProduceResponse,
    /// One for each partition of the response, taken when it is answered.
    pending: Vec<Option<Waiting>>,
}

/// What a finished produce asks of its connection.
pub(in crate::server) enum Outcome {
    Answer(Answer),
    /// Nobody wants to hear of it.
    Nothing,
    /// Nobody would hear of the failure otherwise: the connection is closed.
    Failed(Fault),
}

/// Submits every batch, waiting where a partition's queue is full.
pub(in crate::server) async fn begin(
    context: Context,
    request: ProduceRequest,
    permit: Option<Permit>,
) -> InFlight {
    await_handshake(&context, &request).await;
    let acks = match request.acks {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    };
    let mut bytes = 0;
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for data in request.topic_data {
        let id = request.transactional_id.as_ref();
        topics.push(submit_topic(&context, data, acks, id, &mut bytes).await);
    }
    InFlight {
        acks: acks.unwrap_or(Acks::All),
        topics,
        next: (0, 0),
        timeout: Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)),
        timer: None,
        bytes,
        context,
        _permit: permit,
    }
}

async fn submit_topic(
    context: &Context,
    data: TopicProduceData,
    acks: Option<Acks>,
    transactional_id: Option<&Str>,
    bytes: &mut usize,
) -> Topic {
    let TopicProduceData {
        name,
        topic_id,
        partition_data,
        ..
    } = data;
    let mut partition_responses = Vec::with_capacity(partition_data.len());
    let mut pending = Vec::with_capacity(partition_data.len());
    for PartitionProduceData { index, records, .. } in partition_data {
        let records = records.unwrap_or_default().into_bytes();
        *bytes += records.len();
        let submitted = match acks {
            None => Err(refused(index, ErrorCode::INVALID_REQUIRED_ACKS)),
            Some(acks) => match partition_of(context, &name, topic_id.into(), index).await {
                Ok(partition) => submit(context, &partition, index, records, acks, transactional_id).await,
                Err(code) => Err(refused(index, code)),
            },
        };
        let (response, waiting) = match submitted {
            Ok(waiting) => (
                PartitionProduceResponse {
                    index,
                    ..Default::default()
                },
                Some(waiting),
            ),
            Err(response) => (response, None),
        };
        partition_responses.push(response);
        pending.push(waiting);
    }
    let response = TopicProduceResponse {
        name,
        topic_id,
        partition_responses,
        ..Default::default()
    };
    Topic { response, pending }
}

/// The partition that a batch is for.
async fn partition_of(
    context: &Context,
    name: &Str,
    id: TopicId,
    index: i32,
) -> Result<Partition, ErrorCode> {
    let services = context.services();
    let by_id = context.version >= 13;
    let opened = || match by_id {
        true => services.registry.get_by_id(id, PartitionIndex(index)),
        false => services.registry.get(name, PartitionIndex(index)),
    };
    if let Some(partition) = opened() {
        return Ok(partition);
    }
    let image = services.view.image();
    let code = match topic_of(&image, name, id) {
        None if by_id => ErrorCode::UNKNOWN_TOPIC_ID,
        topic => errors::absent(topic.map(Arc::as_ref), index, services.node_id()),
    };
    if code == ErrorCode::LEADER_NOT_AVAILABLE {
        // Refused, it could be overtaken by what its client has sent behind it.
        let reconciled = services.registry.reconciled(image.offset);
        let _ = services.sys.clock.timeout(OPENING, reconciled).await;
    }
    opened().ok_or(code)
}

async fn submit(
    context: &Context,
    partition: &Partition,
    index: i32,
    records: Bytes,
    acks: Acks,
    transactional_id: Option<&Str>,
) -> Result<Waiting, PartitionProduceResponse> {
    if records.is_empty() {
        return Err(refused(index, ErrorCode::INVALID_RECORD));
    }
    let verified = match transactional_id {
        Some(id) => in_transaction(context, partition, id, &records)
            .await
            .map_err(|code| refused(index, code))?,
        None => None,
    };
    let options = AppendOptions {
        acks,
        current_epoch: None,
        // Nodes write for their transforms, whose state is in topics of their own.
        origin: match context.caller.peer.node {
            Some(_) => Origin::Internal,
            None => Origin::Client,
        },
        verified,
    };
    let epoch = partition.leader_epoch();
    let submitted = partition.submit(records, options).await;
    submitted
        .map(|pending| Waiting::new(pending, epoch))
        .map_err(|error| failed(context, index, &error))
}

/// Makes sure that the transaction of a batch is open. One that is in none, or broken, is judged later.
async fn in_transaction(
    context: &Context,
    partition: &Partition,
    id: &Str,
    records: &Bytes,
) -> Result<Option<Verified>, ErrorCode> {
    let Ok(header) = BatchHeader::parse(records) else {
        return Ok(None);
    };
    if !header.is_transactional() || !partition.is_leader() {
        return Ok(None);
    }
    let producer = Producer {
        id: header.producer_id,
        epoch: header.producer_epoch,
    };
    let adds = context.version >= ADDS_SINCE;
    let opened = transactions::open(context, partition, id, producer, adds).await;
    opened.map_err(transactions::code_of_open)
}

/// How long a batch waits at most for a partition that is led here and not opened yet.
const OPENING: Duration = Duration::from_secs(1);

/// From this version on the client leaves it to the leader to make a partition part of a transaction (KIP-890).
const ADDS_SINCE: i16 = 12;

/// A produce that is not idempotent must not be served while it may be a replay.
async fn await_handshake(context: &Context, request: &ProduceRequest) {
    let Some(early) = &context.caller.early else {
        return;
    };
    let mut partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    let idempotent = partitions.all(|partition| {
        let records = partition
            .records
            .as_ref()
            .map(|records| records.clone().into_bytes())
            .unwrap_or_default();
        BatchHeader::parse(&records).is_ok_and(|header| header.producer_id.value() >= 0)
    });
    if !idempotent {
        early.clone().wait().await;
    }
}

impl InFlight {
    /// What it counts in the connection's limit.
    pub(in crate::server) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all partitions are answered, or the client's time is up.
    pub(in crate::server) fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Outcome> {
        if self.poll_partitions(cx).is_pending() {
            if self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
            self.give_up();
        }
        Poll::Ready(self.finish())
    }

    fn poll_partitions(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let (first_topic, mut first) = self.next;
        for (at_topic, topic) in self.topics.iter_mut().enumerate().skip(first_topic) {
            for (at, waiting) in topic.pending.iter_mut().enumerate().skip(first) {
                let Some(pending) = waiting else { continue };
                let response = &mut topic.response.partition_responses[at];
                let place = Place {
                    topic: &topic.response.name,
                    topic_id: topic.response.topic_id.into(),
                    index: PartitionIndex(response.index),
                };
                let Poll::Ready(answer) = pending.poll(cx, &self.context, place) else {
                    self.next = (at_topic, at);
                    return Poll::Pending;
                };
                *waiting = None;
                match answer {
                    Ok(appended) => acknowledge(response, appended),
                    Err(error) => *response = failed(&self.context, response.index, &error),
                }
            }
            first = 0;
        }
        Poll::Ready(())
    }

    /// Only a produce for all replicas waits for others than its leader, so only it has a deadline.
    fn poll_timer(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        if self.acks != Acks::All {
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| {
            let clock = self.context.services().sys.clock.clone();
            let deadline = self.context.received + self.timeout;
            Box::pin(async move { clock.sleep_until(deadline).await })
        });
        timer.as_mut().poll(cx)
    }

    fn give_up(&mut self) {
        for topic in &mut self.topics {
            for (at, waiting) in topic.pending.iter_mut().enumerate() {
                if waiting.take().is_some() {
                    let response = &mut topic.response.partition_responses[at];
                    *response = refused(response.index, ErrorCode::REQUEST_TIMED_OUT);
                }
            }
        }
    }

    fn finish(&mut self) -> Outcome {
        if self.acks == Acks::None {
            return match self.first_error() {
                None => Outcome::Nothing,
                Some(code) => Outcome::Failed(Fault::Unanswered(code.to_string())),
            };
        }
        let responses: Vec<_> = self.topics.drain(..).map(|topic| topic.response).collect();
        let mut response = ProduceResponse {
            responses,
            ..ProduceResponse::default()
        };
        if self.context.version >= 10 {
            name_leaders(&self.context, &mut response);
        }
        match dispatch::encode(&self.context, &response) {
            Ok(buffers) => Outcome::Answer(Answer {
                buffers,
                permit: None,
            }),
            Err(fault) => Outcome::Failed(fault),
        }
    }

    fn first_error(&self) -> Option<ErrorCode> {
        let responses = self
            .topics
            .iter()
            .flat_map(|topic| &topic.response.partition_responses);
        responses
            .map(|response| ErrorCode(response.error_code))
            .find(|code| *code != ErrorCode::NONE)
    }
}

fn acknowledge(response: &mut PartitionProduceResponse, appended: Appended) {
    response.base_offset = appended.base_offset.value();
    response.log_append_time_ms = appended.log_append_time_ms.unwrap_or(-1);
    response.log_start_offset = appended.log_start.value();
}

fn refused(index: i32, code: ErrorCode) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: code.0,
        base_offset: -1,
        ..Default::default()
    }
}

fn failed(context: &Context, index: i32, error: &AppendError) -> PartitionProduceResponse {
    let code = errors::of_append(error);
    let mut response = refused(index, code);
    if context.version >= 8 {
        response.error_message = Some(Str::from(error.to_string()));
        if let AppendError::InvalidRecord { index, reason } = error {
            response.record_errors.push(BatchIndexAndErrorMessage {
                batch_index: i32::try_from(*index).unwrap_or(i32::MAX),
                batch_index_error_message: Some(Str::from_static(reason)),
                ..Default::default()
            });
        }
    }
    response
}

/// A topic as a client names it: by its id, or by its name where the id is zero.
fn topic_of<'a>(image: &'a Image, name: &Str, id: TopicId) -> Option<&'a Arc<metadata::Topic>> {
    if id == TopicId::from(Uuid::ZERO) {
        image.topic(name)
    } else {
        image.topic_by_id(id)
    }
}

/// Names the leaders of partitions that were asked here in vain, and where they are (KIP-951).
fn name_leaders(context: &Context, response: &mut ProduceResponse) {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    if !partitions
        .into_iter()
        .any(|partition| errors::is_elsewhere(ErrorCode(partition.error_code)))
    {
        return;
    }
    let image = context.services().view.image();
    let mut nodes = BTreeSet::new();
    for topic in &mut response.responses {
        let known = topic_of(&image, &topic.name, topic.topic_id.into());
        for partition in &mut topic.partition_responses {
            let state = known.and_then(|known| known.partition(PartitionIndex(partition.index)));
            let (true, Some(state)) = (errors::is_elsewhere(ErrorCode(partition.error_code)), state) else {
                continue;
            };
            nodes.insert(state.leader);
            partition.current_leader = LeaderIdAndEpoch {
                leader_id: state.leader.value(),
                leader_epoch: state.leader_epoch.value(),
                ..Default::default()
            };
        }
    }
    let place = |node: &Node| {
        let (host, port) = addresses::of(node, context.listener())?;
        let rack = node.rack.as_ref().map(Str::from);
        Some(NodeEndpoint {
            node_id: node.id.value(),
            host,
            port,
            rack,
            ..Default::default()
        })
    };
    response.node_endpoints = nodes
        .iter()
        .filter_map(|id| place(image.nodes.get(id)?))
        .collect();
}
