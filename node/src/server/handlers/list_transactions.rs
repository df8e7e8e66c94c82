//! ListTransactions (key 66): the transactional ids that this node coordinates (KIP-664, KIP-994). A pattern is refused: what
//! Java's regular expressions mean, only Java knows.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::list_transactions::{
    ListTransactionsRequest, ListTransactionsResponse, TransactionState,
};
use headwater_protocol::primitives::Str;

use super::transactions::code_of;
use crate::server::request::Context;
use crate::transaction::{Description, Stage};

pub(in crate::server) async fn handle(
    context: &Context,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let pattern = request.transactional_id_pattern.as_ref();
    if pattern.is_some_and(|pattern| !pattern.is_empty()) {
        return ListTransactionsResponse {
            error_code: ErrorCode::INVALID_REGULAR_EXPRESSION.0,
            ..ListTransactionsResponse::default()
        };
    }
    let services = context.services();
    let (found, complete) = services.transactions.list().await;
    let now_ms = services.sys.clock.unix_ms();
    let is_wanted = |description: &Description| {
        let states = &request.state_filters;
        let producers = &request.producer_id_filters;
        let running_ms = description.started_ms.map_or(0, |started| now_ms - started);
        (states.is_empty() || states.iter().any(|state| **state == *description.stage.name()))
            && (producers.is_empty() || producers.contains(&description.producer.id.value()))
            && (request.duration_filter < 0 || running_ms > request.duration_filter)
    };
    let state = |description: &Description| TransactionState {
        transactional_id: Str::from(&*description.id),
        producer_id: description.producer.id.value(),
        transaction_state: Str::from(description.stage.name()),
        ..TransactionState::default()
    };
    let is_state = |text: &Str| Stage::ALL.into_iter().any(|stage| stage.name() == text.as_str());
    let unknown = request.state_filters.iter().filter(|text| !is_state(text));
    ListTransactionsResponse {
        error_code: complete.map_or_else(|error| code_of(error, false).0, |()| ErrorCode::NONE.0),
        unknown_state_filters: unknown.cloned().collect(),
        transaction_states: found.iter().filter(|found| is_wanted(found)).map(state).collect(),
        ..ListTransactionsResponse::default()
    }
}
