//! DescribeTransactions (key 65): transactional ids that this node coordinates (KIP-664).

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_transactions::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, TopicData, TransactionState,
};
use headwater_protocol::primitives::Str;

use super::transactions::code_of;
use crate::server::request::Context;
use crate::transaction::{Description, by_topic};

pub(in crate::server) async fn handle(
    context: &Context,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let transactions = &context.services().transactions;
    let mut transaction_states = Vec::with_capacity(request.transactional_ids.len());
    for id in request.transactional_ids {
        let found = transactions.describe(&id).await;
        let refused = |code: ErrorCode| TransactionState {
            error_code: code.0,
            transactional_id: id.clone(),
            ..TransactionState::default()
        };
        transaction_states.push(match found {
            Ok(Some(description)) => state(&description),
            Ok(None) => refused(ErrorCode::TRANSACTIONAL_ID_NOT_FOUND),
            Err(error) => refused(code_of(error, false)),
        });
    }
    DescribeTransactionsResponse {
        transaction_states,
        ..DescribeTransactionsResponse::default()
    }
}

fn state(description: &Description) -> TransactionState {
    let topics = by_topic(&description.partitions).into_iter();
    let topics = topics.map(|(topic, partitions)| TopicData {
        topic: Str::from(topic),
        partitions,
        ..TopicData::default()
    });
    TransactionState {
        transactional_id: Str::from(&*description.id),
        transaction_state: Str::from(description.stage.name()),
        transaction_timeout_ms: description.timeout_ms,
        transaction_start_time_ms: description.started_ms.unwrap_or(-1),
        producer_id: description.producer.id.value(),
        producer_epoch: description.producer.epoch.value(),
        topics: topics.collect(),
        ..TransactionState::default()
    }
}
