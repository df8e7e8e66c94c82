//! What coordinators tell of their transactional ids.

use std::time::Duration;

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_transactions::{DescribeTransactionsRequest, TransactionState};
use headwater_protocol::kafka::list_transactions::ListTransactionsRequest;
use headwater_protocol::primitives::Str;

use super::{TransactionList, TransactionPartition, TransactionStage, TransactionSummary};
use crate::http::Api;
use crate::http::error::ApiError;
use crate::http::nodes::{all_list, ask};
use crate::metadata::topic::TRANSACTIONS_TOPIC;
use crate::transaction::Stage;

const LIST_VERSION: i16 = 1;
const DESCRIBE_VERSION: i16 = 0;

/// What is asked for of each coordinator.
#[derive(Clone, Default)]
pub(super) struct Filter {
    pub(super) state: Option<Stage>,
    pub(super) open_for: Option<Duration>,
    /// Empty: any.
    pub(super) producers: Vec<i64>,
}

/// The transactional ids of all nodes that answer.
pub(super) async fn all(api: &Api, state: Option<Stage>, open_for: Option<Duration>) -> TransactionList {
    let filter = Filter {
        state,
        open_for,
        ..Filter::default()
    };
    found(api, &filter).await
}

pub(super) async fn found(api: &Api, filter: &Filter) -> TransactionList {
    let image = api.view.image();
    if image.topic(TRANSACTIONS_TOPIC).is_none() {
        return TransactionList {
            transactions: Vec::new(),
            unanswered: Vec::new(),
        };
    }
    let (transactions, unanswered) = all_list(&image, |node| of_node(api, node, filter)).await;
    let mut list = TransactionList {
        transactions,
        unanswered,
    };
    let by_id = |one: &TransactionSummary, other: &TransactionSummary| {
        one.transactional_id.cmp(&other.transactional_id)
    };
    list.transactions.sort_by(by_id);
    list
}

pub(super) async fn one(api: &Api, id: &str) -> Result<TransactionSummary, ApiError> {
    if api.view.topic(TRANSACTIONS_TOPIC).is_none() {
        return Err(unknown(id));
    }
    let node = api.transactions.coordinator_of(id).await;
    let node = node.map_err(|error| ApiError::unavailable("NO_COORDINATOR", error.to_string()))?;
    let mut states = describe(api, node, vec![Str::from(id)]).await?;
    let state = states.pop().ok_or_else(|| unknown(id))?;
    check(id, state.error_code)?;
    Ok(summary(node, state))
}

async fn of_node(api: &Api, node: NodeId, filter: &Filter) -> Result<Vec<TransactionSummary>, ApiError> {
    let open_for = filter.open_for.map(|time| time.as_millis());
    let request = ListTransactionsRequest {
        state_filters: filter
            .state
            .iter()
            .map(|stage| Str::from_static(stage.name()))
            .collect(),
        producer_id_filters: filter.producers.clone(),
        duration_filter: open_for.map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX)),
        ..ListTransactionsRequest::default()
    };
    let listed = ask(api, node, LIST_VERSION, &request).await?;
    check("", listed.error_code)?;
    let ids = listed.transaction_states.into_iter();
    let ids: Vec<Str> = ids.map(|state| state.transactional_id).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let states = describe(api, node, ids).await?;
    // One that is gone, or another node's, since it was listed is not this one's to tell of.
    let known = states
        .into_iter()
        .filter(|state| state.error_code == ErrorCode::NONE.0);
    Ok(known.map(|state| summary(node, state)).collect())
}

async fn describe(api: &Api, node: NodeId, ids: Vec<Str>) -> Result<Vec<TransactionState>, ApiError> {
    let request = DescribeTransactionsRequest {
        transactional_ids: ids,
        ..DescribeTransactionsRequest::default()
    };
    Ok(ask(api, node, DESCRIBE_VERSION, &request)
        .await?
        .transaction_states)
}

fn summary(coordinator: NodeId, state: TransactionState) -> TransactionSummary {
    let partitions = state.topics.iter().flat_map(|topic| {
        let partition = |index: &i32| TransactionPartition {
            topic: topic.topic.to_string(),
            partition: *index,
        };
        topic.partitions.iter().map(partition)
    });
    TransactionSummary {
        state: stage(&state.transaction_state),
        coordinator: coordinator.0,
        producer_id: state.producer_id,
        producer_epoch: state.producer_epoch,
        timeout_ms: state.transaction_timeout_ms,
        started_ms: Some(state.transaction_start_time_ms).filter(|ms| *ms >= 0),
        partitions: partitions.collect(),
        transactional_id: state.transactional_id.into(),
    }
}

fn stage(name: &str) -> TransactionStage {
    let found = Stage::ALL.into_iter().find(|stage| stage.name() == name);
    found.map_or(TransactionStage::Empty, TransactionStage::from)
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(
        "UNKNOWN_TRANSACTION",
        format!("transactional id {id:?} is not known"),
    )
}

/// What a coordinator's code means.
fn check(id: &str, code: i16) -> Result<(), ApiError> {
    match ErrorCode(code) {
        ErrorCode::NONE => Ok(()),
        ErrorCode::TRANSACTIONAL_ID_NOT_FOUND => Err(unknown(id)),
        code => {
            let message = format!("transactional id {id:?} has no coordinator at the moment: {code}");
            Err(ApiError::unavailable("NO_COORDINATOR", message).hint("Try again."))
        }
    }
}
