//! One connection to the test broker: frames in, answers out, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use headwater_protocol::frame::{self, Next};
use headwater_protocol::kafka::add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use headwater_protocol::kafka::add_partitions_to_txn::AddPartitionsToTxnRequest;
use headwater_protocol::kafka::api_versions::{ApiVersion, ApiVersionsResponse, FinalizedFeatureKey};
use headwater_protocol::kafka::create_topics::{
    CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use headwater_protocol::kafka::end_txn::{EndTxnRequest, EndTxnResponse};
use headwater_protocol::kafka::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use headwater_protocol::kafka::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use headwater_protocol::kafka::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use headwater_protocol::kafka::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use headwater_protocol::kafka::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use headwater_protocol::kafka::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use headwater_protocol::kafka::txn_offset_commit::TxnOffsetCommitRequest;
use headwater_protocol::kafka::{
    ApiKey, ErrorCode, Message, RequestPeek, decode_request_header, encode_response,
};
use headwater_protocol::primitives::{Reader, Records, Str, Uuid};
use headwater_protocol::record::BatchView;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::coordinator::add_answer;
use super::{Action, PartitionLog, Shared, State};

const SPOKEN: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 0, 13),
    (ApiKey::Fetch, 4, 18),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::AddPartitionsToTxn, 0, 5),
    (ApiKey::AddOffsetsToTxn, 0, 4),
    (ApiKey::EndTxn, 0, 5),
    (ApiKey::TxnOffsetCommit, 0, 5),
];

/// A fetch session: what the client asked to be told about, topic ids and indexes to requests.
type Session = BTreeMap<(Uuid, String, i32), FetchPartition>;

pub(super) async fn stream<R, W>(mut reader: R, mut writer: W, shared: Shared)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let serving = async {
        let mut buffer = BytesMut::new();
        let mut session = Session::new();
        loop {
            let frame = loop {
                match frame::next(&mut buffer, 200 << 20).unwrap() {
                    Next::Frame(frame) => break frame,
                    Next::Need(_) => {
                        if reader.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                }
            };
            let Some(answer) = answer(frame, &mut session, &shared).await else {
                return;
            };
            for mut piece in answer {
                while piece.has_remaining() {
                    match writer.write_buf(&mut piece).await {
                        Ok(0) | Err(_) => return,
                        Ok(_) => {}
                    }
                }
            }
        }
    };
    tokio::select! {
        () = shared.cancel.cancelled() => {}
        () = serving => {}
    }
}

/// The frames to send back (none for acks=0), or `None` to end the connection.
async fn answer(frame: Bytes, session: &mut Session, shared: &Shared) -> Option<Vec<Bytes>> {
    let mut r = Reader::new(frame);
    let peek = RequestPeek::new(&r).unwrap();
    let key = ApiKey::try_from(peek.key).unwrap();
    let action = {
        let mut state = shared.lock();
        *state.requests.entry(peek.key).or_default() += 1;
        let newest = state.newest.entry(peek.key).or_insert(peek.version);
        *newest = peek.version.max(*newest);
        (state.script)(key)
    };
    if action == Action::DropBefore {
        return None;
    }
    if key == ApiKey::ApiVersions && peek.version > cap(&shared.lock(), key, 4) {
        let mut body = api_versions(&shared.lock());
        body.error_code = ErrorCode::UNSUPPORTED_VERSION.0;
        return Some(encode_response(&body, key, 0, peek.correlation_id).unwrap());
    }
    let version = peek.version;
    decode_request_header(&mut r, key, version).unwrap();
    let refused = match action {
        Action::Refuse(code) => Some(code),
        _ => None,
    };
    let encoded = serve(key, version, peek.correlation_id, r, session, shared, refused).await;
    match action {
        Action::DropAfter => None,
        Action::Hold => {
            shared.released.notified().await;
            Some(encoded)
        }
        Action::Serve | Action::Refuse(_) | Action::DropBefore => Some(encoded),
    }
}

#[allow(clippy::too_many_arguments, reason = "a test's one dispatch")]
async fn serve(
    key: ApiKey,
    version: i16,
    id: i32,
    mut r: Reader,
    session: &mut Session,
    shared: &Shared,
    refused: Option<i16>,
) -> Vec<Bytes> {
    match key {
        ApiKey::ApiVersions => encode(&api_versions(&shared.lock()), key, version, id),
        ApiKey::Metadata => {
            let request = MetadataRequest::decode(&mut r, version).unwrap();
            encode(&metadata(&shared.lock(), &request, refused), key, version, id)
        }
        ApiKey::CreateTopics => {
            let request = CreateTopicsRequest::decode(&mut r, version).unwrap();
            encode(&create(&mut shared.lock(), &request), key, version, id)
        }
        ApiKey::InitProducerId => {
            let request = InitProducerIdRequest::decode(&mut r, version).unwrap();
            let body = match refused {
                Some(error_code) => InitProducerIdResponse {
                    error_code,
                    ..Default::default()
                },
                None => shared.lock().init(&request),
            };
            encode(&body, key, version, id)
        }
        ApiKey::FindCoordinator
        | ApiKey::AddPartitionsToTxn
        | ApiKey::AddOffsetsToTxn
        | ApiKey::EndTxn
        | ApiKey::TxnOffsetCommit => coordinate(key, version, id, r, shared, refused),
        ApiKey::ListOffsets => {
            let request = ListOffsetsRequest::decode(&mut r, version).unwrap();
            encode(&list(&shared.lock(), &request), key, version, id)
        }
        ApiKey::Produce => {
            let request = ProduceRequest::decode(&mut r, version).unwrap();
            let body = produce(&mut shared.lock(), &request, version, refused);
            shared.changed.notify_waiters();
            if request.acks == 0 {
                Vec::new()
            } else {
                encode(&body, key, version, id)
            }
        }
        ApiKey::Fetch => {
            let request = FetchRequest::decode(&mut r, version).unwrap();
            let body = fetch(shared, session, &request, refused).await;
            encode(&body, key, version, id)
        }
        other => panic!("the test broker does not speak {other:?}"),
    }
}

/// What coordinators of transactions are asked.
fn coordinate(
    key: ApiKey,
    version: i16,
    id: i32,
    mut r: Reader,
    shared: &Shared,
    refused: Option<i16>,
) -> Vec<Bytes> {
    let mut state = shared.lock();
    let encoded = match key {
        ApiKey::FindCoordinator => {
            FindCoordinatorRequest::decode(&mut r, version).unwrap();
            let body = FindCoordinatorResponse {
                error_code: refused.unwrap_or(0),
                node_id: 1,
                ..Default::default()
            };
            encode(&body, key, version, id)
        }
        ApiKey::AddPartitionsToTxn => {
            let request = AddPartitionsToTxnRequest::decode(&mut r, version).unwrap();
            let body = match refused {
                Some(code) => add_answer(&request, code),
                None => state.add_partitions(&request),
            };
            encode(&body, key, version, id)
        }
        ApiKey::AddOffsetsToTxn => {
            let request = AddOffsetsToTxnRequest::decode(&mut r, version).unwrap();
            let body = AddOffsetsToTxnResponse {
                error_code: refused.unwrap_or_else(|| state.add_offsets(&request)),
                ..Default::default()
            };
            encode(&body, key, version, id)
        }
        ApiKey::EndTxn => {
            let request = EndTxnRequest::decode(&mut r, version).unwrap();
            let body = match refused {
                Some(error_code) => EndTxnResponse {
                    error_code,
                    ..Default::default()
                },
                None => state.end(&request, version),
            };
            encode(&body, key, version, id)
        }
        _ => {
            let request = TxnOffsetCommitRequest::decode(&mut r, version).unwrap();
            encode(
                &state.commit_offsets(&request, version, refused),
                key,
                version,
                id,
            )
        }
    };
    shared.changed.notify_waiters();
    encoded
}

fn encode<M: Message>(body: &M, key: ApiKey, version: i16, correlation_id: i32) -> Vec<Bytes> {
    encode_response(body, key, version, correlation_id).unwrap()
}

fn cap(state: &State, key: ApiKey, most: i16) -> i16 {
    state.version_caps.get(&(key as i16)).copied().unwrap_or(most)
}

fn api_versions(state: &State) -> ApiVersionsResponse {
    let api = |(key, min, max): &(ApiKey, i16, i16)| ApiVersion {
        api_key: *key as i16,
        min_version: *min,
        max_version: cap(state, *key, *max),
        ..Default::default()
    };
    ApiVersionsResponse {
        api_keys: SPOKEN.iter().map(api).collect(),
        finalized_features_epoch: 0,
        finalized_features: vec![FinalizedFeatureKey {
            name: Str::from_static("transaction.version"),
            max_version_level: state.transaction_version,
            min_version_level: state.transaction_version,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// An id made of the name, good enough for a test.
pub(crate) fn topic_id(name: &str) -> Uuid {
    Uuid::from_u128(
        name.bytes()
            .fold(1, |id: u128, byte| id.wrapping_mul(257).wrapping_add(byte.into())),
    )
}

fn name_of(state: &State, name: &Str, id: Uuid) -> String {
    if !name.is_empty() {
        return name.to_string();
    }
    state
        .topics
        .keys()
        .find(|name| topic_id(name) == id)
        .cloned()
        .unwrap_or_default()
}

fn metadata(state: &State, request: &MetadataRequest, refused: Option<i16>) -> MetadataResponse {
    let names: Vec<String> = match &request.topics {
        None => state.topics.keys().cloned().collect(),
        Some(topics) => topics
            .iter()
            .filter_map(|topic| topic.name.as_ref())
            .map(ToString::to_string)
            .collect(),
    };
    let topic = |name: String| {
        let logs = state.topics.get(&name);
        let partition = |(index, log): (usize, &PartitionLog)| MetadataResponsePartition {
            partition_index: index as i32,
            leader_id: 1,
            leader_epoch: log.leader_epoch,
            replica_nodes: vec![1],
            isr_nodes: vec![1],
            ..Default::default()
        };
        let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0;
        MetadataResponseTopic {
            error_code: refused.unwrap_or_else(|| if logs.is_some() { 0 } else { unknown }),
            topic_id: topic_id(&name),
            name: Some(Str::from(name)),
            partitions: logs.map_or_else(Vec::new, |logs| logs.iter().enumerate().map(partition).collect()),
            ..Default::default()
        }
    };
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: 1,
            host: Str::from(state.address.ip().to_string()),
            port: i32::from(state.address.port()),
            ..Default::default()
        }],
        cluster_id: Some(Str::from_static("test")),
        controller_id: 1,
        topics: names.into_iter().map(topic).collect(),
        ..Default::default()
    }
}

fn create(state: &mut State, request: &CreateTopicsRequest) -> CreateTopicsResponse {
    let topics = request.topics.iter().map(|topic| {
        let name = topic.name.to_string();
        let exists = state.topics.contains_key(&name);
        if !exists {
            let logs = (0..topic.num_partitions.max(1))
                .map(|_| PartitionLog::default())
                .collect();
            state.topics.insert(name.clone(), logs);
        }
        CreatableTopicResult {
            topic_id: topic_id(&name),
            name: topic.name.clone(),
            error_code: if exists {
                ErrorCode::TOPIC_ALREADY_EXISTS.0
            } else {
                0
            },
            ..Default::default()
        }
    });
    CreateTopicsResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn list(state: &State, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let log = state
                .topics
                .get(topic.name.as_str())
                .and_then(|logs| logs.get(partition.partition_index as usize));
            let offset = log.map_or(-1, |log| match partition.timestamp {
                -1 => log.end,
                -2 => log.start,
                at => log
                    .batches
                    .iter()
                    .find(|batch| batch.header().max_timestamp >= at)
                    .map_or(-1, |batch| batch.base_offset().0),
            });
            ListOffsetsPartitionResponse {
                partition_index: partition.partition_index,
                error_code: if log.is_some() {
                    0
                } else {
                    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0
                },
                offset,
                timestamp: -1,
                ..Default::default()
            }
        });
        ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions: partitions.collect(),
            ..Default::default()
        }
    });
    ListOffsetsResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn produce(
    state: &mut State,
    request: &ProduceRequest,
    version: i16,
    refused: Option<i16>,
) -> ProduceResponse {
    let mut responses = Vec::new();
    for topic in &request.topic_data {
        let name = name_of(state, &topic.name, topic.topic_id);
        let mut partition_responses = Vec::new();
        for partition in &topic.partition_data {
            let records = partition.records.clone().unwrap_or_default().into_bytes();
            let header = *BatchView::parse(records.clone()).unwrap().header();
            let admitted = request.transactional_id.as_ref().map_or(Ok(()), |id| {
                assert!(header.is_transactional(), "its batches say so");
                let producer = (header.producer_id.0, header.producer_epoch.0);
                let place = (name.clone(), partition.index);
                match refused {
                    Some(_) => Ok(()),
                    None => state.admit(id, producer, place, version),
                }
            });
            let log = state
                .topics
                .get_mut(&name)
                .and_then(|logs| logs.get_mut(partition.index as usize));
            let appended = match (refused, log) {
                (Some(code), _) => Err(ErrorCode(code)),
                (None, None) => Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
                (None, Some(log)) => admitted.and_then(|()| log.append(records)),
            };
            partition_responses.push(PartitionProduceResponse {
                index: partition.index,
                error_code: appended.err().map_or(0, |code| code.0),
                base_offset: appended.unwrap_or(-1),
                log_append_time_ms: -1,
                ..Default::default()
            });
        }
        responses.push(TopicProduceResponse {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partition_responses,
            ..Default::default()
        });
    }
    ProduceResponse {
        responses,
        ..Default::default()
    }
}

async fn fetch(
    shared: &Shared,
    session: &mut Session,
    request: &FetchRequest,
    refused: Option<i16>,
) -> FetchResponse {
    let sessions = shared.lock().fetch_sessions && request.session_epoch >= 0;
    if request.session_epoch <= 0 || !sessions {
        session.clear();
    }
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.topic_id, topic.topic.to_string(), partition.partition);
            session.insert(key, partition.clone());
        }
    }
    for topic in &request.forgotten_topics_data {
        for partition in &topic.partitions {
            session.remove(&(topic.topic_id, topic.topic.to_string(), *partition));
        }
    }
    let deadline = tokio::time::Instant::now() + Duration::from_millis(request.max_wait_ms.max(0) as u64);
    let incremental = sessions && request.session_epoch > 0;
    loop {
        let changed = shared.changed.notified();
        let (responses, bytes) = read_all(&shared.lock(), session, request.max_bytes, refused, incremental);
        let full = bytes >= request.min_bytes.max(0) as usize;
        if full || !responses.is_empty() && bytes == 0 && refused.is_some() {
            return done(sessions, responses);
        }
        if tokio::time::timeout_at(deadline, changed).await.is_err() {
            return done(sessions, responses);
        }
    }
}

fn done(sessions: bool, responses: Vec<FetchableTopicResponse>) -> FetchResponse {
    FetchResponse {
        session_id: if sessions { 77 } else { 0 },
        responses,
        ..Default::default()
    }
}

fn read_all(
    state: &State,
    session: &Session,
    bytes_max: i32,
    refused: Option<i16>,
    incremental: bool,
) -> (Vec<FetchableTopicResponse>, usize) {
    let mut left = bytes_max.max(0) as usize;
    let mut total = 0;
    let mut responses = Vec::new();
    for ((id, name, index), asked) in session {
        let topic = name_of(state, &Str::from(name), *id);
        let log = state
            .topics
            .get(&topic)
            .and_then(|logs| logs.get(*index as usize));
        let mut data = PartitionData {
            partition_index: *index,
            ..Default::default()
        };
        match (refused, log) {
            (Some(code), _) => data.error_code = code,
            (None, None) => data.error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
            (None, Some(log)) if asked.fetch_offset < log.start || asked.fetch_offset > log.end => {
                data.error_code = ErrorCode::OFFSET_OUT_OF_RANGE.0;
            }
            (None, Some(log)) => {
                data.high_watermark = log.end;
                data.last_stable_offset = log.end;
                data.log_start_offset = log.start;
                let most = left.min(asked.partition_max_bytes.max(0) as usize);
                let batches = if total > 0 && most == 0 {
                    Vec::new()
                } else {
                    log.read(asked.fetch_offset, most, state.cut_last_batch)
                };
                let size: usize = batches.iter().map(Bytes::len).sum();
                total += size;
                left = left.saturating_sub(size);
                data.records = Some(Records::from(batches));
            }
        }
        if data.error_code != 0 {
            total = total.max(1);
        } else if incremental && data.records.as_ref().is_none_or(Records::is_empty) {
            continue;
        }
        let topic = Str::from(name);
        responses.push(FetchableTopicResponse {
            topic,
            topic_id: *id,
            partitions: vec![data],
            ..Default::default()
        });
    }
    (responses, total)
}
