//! From a frame to a handler: which API, which version, what it decodes to. The only big match.
//!
//! It owns the table of what is served. It must never answer on a handler's behalf, except to an ApiVersions request
//! of a version nobody knows yet.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::frame::FrameError;
use headwater_protocol::kafka::api_versions::ApiVersionsResponse;
use headwater_protocol::kafka::{
    ApiKey, EncodeFrameError, ErrorCode, Message, RequestPeek, decode_request_header, encode_response,
};
use headwater_protocol::primitives::{DecodeError, Reader};

use super::frames::Frame;
use super::handlers::{self, produce};
use super::request::{Caller, Context};
use crate::sys::budget::Permit;
use crate::transport::CloseCode;

/// A request being begun: for a produce until it is submitted, for all others until they are answered.
pub(super) type Begun = Pin<Box<dyn Future<Output = Step> + Send>>;

/// What became of a request that was begun.
pub(super) enum Step {
    Answer(Answer),
    Produced(produce::InFlight),
    Close(Fault),
}

/// A whole response frame, and the memory it holds until it is written.
pub(super) struct Answer {
    pub(super) buffers: Vec<Bytes>,
    pub(super) permit: Option<Permit>,
}

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("malformed request: {0}")]
    Front(DecodeError),
    #[error("malformed {} request of version {version}: {error}", key.name())]
    Body {
        key: ApiKey,
        version: i16,
        error: DecodeError,
    },
    #[error("API key {0} is not known")]
    UnknownApi(i16),
    #[error("{} is not served", .0.name())]
    NotServed(ApiKey),
    #[error("{} of version {version} is not served", key.name())]
    Version { key: ApiKey, version: i16 },
    #[error("a produce without acknowledgement failed: {0}")]
    Unanswered(String),
    /// An answer of ours that does not fit its version: our fault.
    #[error("{} of version {version} cannot be answered: {error}", key.name())]
    Encode {
        key: ApiKey,
        version: i16,
        error: EncodeFrameError,
    },
}

impl Fault {
    pub(super) fn close_code(&self) -> CloseCode {
        match self {
            Self::Frame(_)
            | Self::Front(_)
            | Self::Body { .. }
            | Self::UnknownApi(_)
            | Self::NotServed(_)
            | Self::Version { .. } => CloseCode::Malformed,
            Self::Unanswered(_) | Self::Encode { .. } => CloseCode::Failed,
        }
    }
}

/// Whether a frame holds a produce, which need not wait for the answers before it.
pub(super) fn is_produce(frame: &Frame) -> bool {
    frame.bytes.first_chunk() == Some(&(ApiKey::Produce as i16).to_be_bytes())
}

/// Begins a request. Nothing happens until the future is polled.
pub(super) fn begin(caller: &Arc<Caller>, frame: Frame) -> Begun {
    match open(caller, frame) {
        Ok((context, reader, permit)) => route(context, reader, permit),
        Err(step) => Box::pin(std::future::ready(step)),
    }
}

/// Reads the front of a request and checks that it is one of ours.
#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn open(caller: &Arc<Caller>, frame: Frame) -> Result<(Context, Reader, Option<Permit>), Step> {
    let mut reader = Reader::new(frame.bytes);
    let RequestPeek {
        key,
        version,
        correlation_id,
    } = RequestPeek::new(&reader).map_err(|error| Step::Close(Fault::Front(error)))?;
    let key = ApiKey::try_from(key).map_err(|_| Step::Close(Fault::UnknownApi(key)))?;
    if !is_served(key) {
        return Err(Step::Close(Fault::NotServed(key)));
    }
    if !key.versions().contains(&version) {
        return Err(match key {
            ApiKey::ApiVersions => unknown_api_versions(caller, correlation_id),
            _ => Step::Close(Fault::Version { key, version }),
        });
    }
    let header =
        decode_request_header(&mut reader, key, version).map_err(|error| Step::Close(Fault::Front(error)))?;
    let received = caller.shared.services.sys.clock.now();
    let caller = Arc::clone(caller);
    let context = Context {
        caller,
        key,
        version,
        correlation_id,
        client_id: header.client_id,
        received,
    };
    Ok((context, reader, frame.permit))
}

/// Declares what is served: the table and the way to each handler. Produce is apart because it
/// is answered later, Fetch and ShareFetch because their answers hold memory.
macro_rules! apis {
    ($($key:ident => $handler:ident $early:ident;)*) => {
        /// The APIs that are served, in the order of their keys.
        pub(super) fn served() -> impl Iterator<Item = ApiKey> {
            ApiKey::all().filter(|key| is_served(*key))
        }

        fn is_served(key: ApiKey) -> bool {
            matches!(key, ApiKey::Produce | ApiKey::Fetch | ApiKey::ShareFetch $(| ApiKey::$key)*)
        }

        /// Whether a request may be served before it is known not to be a replay. A produce looks into itself.
        fn is_harmless(key: ApiKey) -> bool {
            match key {
                ApiKey::Produce | ApiKey::Fetch => true,
                ApiKey::ShareFetch => false,
                $(ApiKey::$key => apis!(@early $early),)*
                _ => false,
            }
        }

        fn route(context: Context, mut reader: Reader, permit: Option<Permit>) -> Begun {
            match context.key {
                ApiKey::Produce => Box::pin(async move {
                    match Message::decode(&mut reader, context.version) {
                        Ok(request) => Step::Produced(produce::begin(context, request, permit).await),
                        Err(error) => malformed(&context, error),
                    }
                }),
                ApiKey::Fetch => Box::pin(async move {
                    match Message::decode(&mut reader, context.version) {
                        Ok(request) => {
                            let (response, permit) = handlers::fetch::handle(&context, request).await;
                            answer(&context, &response, permit)
                        }
                        Err(error) => malformed(&context, error),
                    }
                }),
                ApiKey::ShareFetch => Box::pin(async move {
                    let _permit = permit;
                    match Message::decode(&mut reader, context.version) {
                        Ok(request) => {
                            drop(reader);
                            confirmed(&context).await;
                            let (response, permit) = handlers::share_fetch::handle(&context, request).await;
                            answer(&context, &response, permit)
                        }
                        Err(error) => malformed(&context, error),
                    }
                }),
                $(ApiKey::$key => Box::pin(async move {
                    let _permit = permit;
                    let request = match Message::decode(&mut reader, context.version) {
                        Ok(request) => request,
                        Err(error) => return malformed(&context, error),
                    };
                    drop(reader);
                    confirmed(&context).await;
                    let response = handlers::$handler::handle(&context, request).await;
                    answer(&context, &response, None)
                }),)*
                _ => Box::pin(std::future::ready(Step::Close(Fault::NotServed(context.key)))),
            }
        }
    };
    (@early early) => { true };
    (@early late) => { false };
}

apis! {
    ListOffsets => list_offsets late;
    Metadata => metadata early;
    OffsetCommit => offset_commit late;
    OffsetFetch => offset_fetch late;
    FindCoordinator => find_coordinator late;
    JoinGroup => join_group late;
    Heartbeat => heartbeat late;
    LeaveGroup => leave_group late;
    SyncGroup => sync_group late;
    DescribeGroups => describe_groups late;
    ListGroups => list_groups late;
    ApiVersions => api_versions early;
    CreateTopics => create_topics late;
    DeleteTopics => delete_topics late;
    DeleteRecords => delete_records late;
    InitProducerId => init_producer_id late;
    OffsetForLeaderEpoch => offset_for_leader_epoch late;
    AddPartitionsToTxn => add_partitions_to_txn late;
    AddOffsetsToTxn => add_offsets_to_txn late;
    EndTxn => end_txn late;
    WriteTxnMarkers => write_txn_markers late;
    TxnOffsetCommit => txn_offset_commit late;
    DescribeConfigs => describe_configs late;
    AlterConfigs => alter_configs late;
    DescribeLogDirs => describe_log_dirs late;
    CreatePartitions => create_partitions late;
    DeleteGroups => delete_groups late;
    IncrementalAlterConfigs => incremental_alter_configs late;
    ElectLeaders => elect_leaders late;
    AlterPartitionReassignments => alter_partition_reassignments late;
    ListPartitionReassignments => list_partition_reassignments late;
    OffsetDelete => offset_delete late;
    DescribeQuorum => describe_quorum late;
    UpdateFeatures => update_features late;
    DescribeCluster => describe_cluster late;
    DescribeProducers => describe_producers late;
    UnregisterBroker => unregister_broker late;
    DescribeTransactions => describe_transactions late;
    ListTransactions => list_transactions late;
    ConsumerGroupHeartbeat => consumer_group_heartbeat late;
    ConsumerGroupDescribe => consumer_group_describe late;
    GetTelemetrySubscriptions => get_telemetry_subscriptions late;
    PushTelemetry => push_telemetry late;
    ListConfigResources => list_config_resources late;
    DescribeTopicPartitions => describe_topic_partitions late;
    ShareGroupHeartbeat => share_group_heartbeat late;
    ShareGroupDescribe => share_group_describe late;
    ShareAcknowledge => share_acknowledge late;
    AddRaftVoter => add_raft_voter late;
    RemoveRaftVoter => remove_raft_voter late;
    InitializeShareGroupState => initialize_share_group_state late;
    ReadShareGroupState => read_share_group_state late;
    WriteShareGroupState => write_share_group_state late;
    DeleteShareGroupState => delete_share_group_state late;
    ReadShareGroupStateSummary => read_share_group_state_summary late;
    DescribeShareGroupOffsets => describe_share_group_offsets late;
    AlterShareGroupOffsets => alter_share_group_offsets late;
    DeleteShareGroupOffsets => delete_share_group_offsets late;
}

/// Waits until a request that is not harmless is known not to be a replay.
async fn confirmed(context: &Context) {
    if let Some(early) = &context.caller.early
        && !is_harmless(context.key)
    {
        early.clone().wait().await;
    }
}

fn malformed(context: &Context, error: DecodeError) -> Step {
    Step::Close(Fault::Body {
        key: context.key,
        version: context.version,
        error,
    })
}

fn answer<M: Message>(context: &Context, response: &M, permit: Option<Permit>) -> Step {
    match encode(context, response) {
        Ok(buffers) => Step::Answer(Answer { buffers, permit }),
        Err(fault) => Step::Close(fault),
    }
}

/// Turns a response into its frame and counts the request as answered.
pub(super) fn encode<M: Message>(context: &Context, response: &M) -> Result<Vec<Bytes>, Fault> {
    let (key, version) = (context.key, context.version);
    let buffers = encode_response(response, key, version, context.correlation_id)
        .map_err(|error| Fault::Encode { key, version, error })?;
    let now = context.services().sys.clock.now();
    context
        .caller
        .shared
        .meters
        .answered(key, now.duration_since(context.received));
    Ok(buffers)
}

/// A client newer than us asks what we speak: it understands the oldest answer (KIP-511).
fn unknown_api_versions(caller: &Caller, correlation_id: i32) -> Step {
    let services = &caller.shared.services;
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION.0,
        api_keys: handlers::api_versions::ranges(&services.broker(&services.view.image())),
        ..ApiVersionsResponse::default()
    };
    match encode_response(&response, ApiKey::ApiVersions, 0, correlation_id) {
        Ok(buffers) => Step::Answer(Answer {
            buffers,
            permit: None,
        }),
        Err(error) => Step::Close(Fault::Encode {
            key: ApiKey::ApiVersions,
            version: 0,
            error,
        }),
    }
}
