//! Transactions: which there are and where they stand, who writes to a partition, those that hang, and getting rid of them.
//!
//! A transactional id is known to its coordinator alone, an open transaction to the leader of its partition: whichever node
//! is asked here asks those.

mod hanging;
mod seen;

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::error::{ApiError, Body, ErrorBody, Path, Query};
use crate::transaction::Stage;

/// As long as a transaction may be open at most, unless `transaction.max.timeout.ms` was raised.
const OPEN_FOR_MS_DEFAULT: u64 = 15 * 60 * 1000;

/// A partition: its topic and its index.
type Place = (String, i32);

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/transactions", get(list))
        .route("/transactions/{id}", get(describe))
        .route("/hanging-transactions", get(hanging))
        .route("/hanging-transactions/abort", post(abort))
        .route("/topics/{topic}/partitions/{partition}/producers", get(producers))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Only those in this state.
    #[param(nullable = false)]
    pub state: Option<TransactionStage>,
    /// Only those that have been open for longer, in milliseconds.
    #[param(nullable = false)]
    pub open_for_ms: Option<u64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct HangingQuery {
    /// In partitions of this topic; in those of all topics if absent.
    #[param(nullable = false)]
    pub topic: Option<String>,
    /// What has been open for longer, in milliseconds; 15 minutes if absent.
    #[param(nullable = false)]
    pub open_for_ms: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TransactionList {
    pub transactions: Vec<TransactionSummary>,
    /// Nodes that did not answer: transactional ids that they coordinate are missing.
    pub unanswered: Vec<i32>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TransactionSummary {
    pub transactional_id: String,
    pub state: TransactionStage,
    /// The node that coordinates it.
    pub coordinator: i32,
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// A transaction that is open for longer is aborted.
    pub timeout_ms: i32,
    /// Null: none is open.
    #[schema(required)]
    pub started_ms: Option<i64>,
    /// Those that are part of it and have no marker yet.
    pub partitions: Vec<TransactionPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub(super) struct TransactionPartition {
    pub topic: String,
    pub partition: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TransactionStage {
    /// None was begun yet.
    Empty,
    Ongoing,
    /// It is decided; the partitions are being told.
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl From<TransactionStage> for Stage {
    fn from(stage: TransactionStage) -> Self {
        match stage {
            TransactionStage::Empty => Self::Empty,
            TransactionStage::Ongoing => Self::Ongoing,
            TransactionStage::PrepareCommit => Self::PrepareCommit,
            TransactionStage::PrepareAbort => Self::PrepareAbort,
            TransactionStage::CompleteCommit => Self::CompleteCommit,
            TransactionStage::CompleteAbort => Self::CompleteAbort,
        }
    }
}

impl From<Stage> for TransactionStage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Empty => Self::Empty,
            Stage::Ongoing => Self::Ongoing,
            Stage::PrepareCommit => Self::PrepareCommit,
            Stage::PrepareAbort => Self::PrepareAbort,
            Stage::CompleteCommit => Self::CompleteCommit,
            Stage::CompleteAbort => Self::CompleteAbort,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct PartitionProducer {
    pub producer_id: i64,
    pub producer_epoch: i32,
    pub last_sequence: i32,
    /// When it wrote last.
    pub last_timestamp_ms: i64,
    /// Of the coordinator that ended its last transaction here; null: none did.
    #[schema(required)]
    pub coordinator_epoch: Option<i32>,
    /// Where the transaction begins that it has open here; null: it has none.
    #[schema(required)]
    pub open_from: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HangingList {
    pub hanging: Vec<HangingTransaction>,
    /// Partitions of which it cannot be said, because their leader or a coordinator does not answer.
    pub unsearched: Vec<TransactionPartition>,
    /// Nodes that did not answer: what they may coordinate is not called hanging.
    pub unanswered: Vec<i32>,
}

/// A transaction that is open in a partition while no coordinator knows of it: nobody will end it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HangingTransaction {
    pub topic: String,
    pub partition: i32,
    pub producer_id: i64,
    pub producer_epoch: i32,
    /// Its first offset: readers of what is committed do not get past it.
    pub open_from: i64,
    /// When its producer wrote last.
    pub last_timestamp_ms: i64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AbortHanging {
    pub topic: String,
    pub partition: i32,
    pub producer_id: i64,
    /// As it was found. Another one that is open by now is left alone.
    pub open_from: i64,
}

/// The transactional ids of all nodes.
#[utoipa::path(
    get, path = "/api/v1/transactions", tag = "transactions", params(ListQuery),
    responses((status = 200, body = TransactionList))
)]
pub(super) async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Json<TransactionList> {
    let open_for = query.open_for_ms.map(Duration::from_millis);
    Json(seen::all(&api, query.state.map(Stage::from), open_for).await)
}

#[utoipa::path(
    get, path = "/api/v1/transactions/{id}", tag = "transactions", params(("id" = String, Path)),
    responses(
        (status = 200, body = TransactionSummary), (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody)
    )
)]
pub(super) async fn describe(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<TransactionSummary>, ApiError> {
    seen::one(&api, &id).await.map(Json)
}

/// Who writes to a partition with sequence numbers, as its leader knows.
#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/partitions/{partition}/producers", tag = "transactions",
    params(("topic" = String, Path), ("partition" = i32, Path)),
    responses(
        (status = 200, body = [PartitionProducer]), (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody)
    )
)]
pub(super) async fn producers(
    State(api): State<Api>,
    Path(place): Path<(String, i32)>,
) -> Result<Json<Vec<PartitionProducer>>, ApiError> {
    hanging::producers(&api, &place).await.map(Json)
}

/// Transactions that nobody will end: open in a partition for long, while no coordinator knows of them.
#[utoipa::path(
    get, path = "/api/v1/hanging-transactions", tag = "transactions", params(HangingQuery),
    responses((status = 200, body = HangingList), (status = 404, body = ErrorBody))
)]
pub(super) async fn hanging(
    State(api): State<Api>,
    Query(query): Query<HangingQuery>,
) -> Result<Json<HangingList>, ApiError> {
    let open_for = Duration::from_millis(query.open_for_ms.unwrap_or(OPEN_FOR_MS_DEFAULT));
    hanging::find(&api, query.topic.as_deref(), open_for)
        .await
        .map(Json)
}

/// Aborts a hanging transaction in its partition: readers of what is committed see nothing of it, and get past it.
#[utoipa::path(
    post, path = "/api/v1/hanging-transactions/abort", tag = "transactions", request_body = AbortHanging,
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn abort(
    State(api): State<Api>,
    Body(body): Body<AbortHanging>,
) -> Result<StatusCode, ApiError> {
    hanging::abort(&api, &body).await?;
    Ok(StatusCode::NO_CONTENT)
}
