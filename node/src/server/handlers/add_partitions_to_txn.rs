//! AddPartitionsToTxn (key 24): partitions become part of a transaction before anything is written to them (KIP-98). From version 4 on
//! it is a node that asks, for many transactions, or whether they are open (KIP-890).

use std::collections::BTreeSet;

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult, AddPartitionsToTxnTransaction,
};
use headwater_protocol::primitives::Str;

use super::transactions::{code_of, partitions, producer};
use crate::server::request::Context;
use crate::transaction::{Add, TopicPartition, TransactionalId, by_topic};

/// From this version on many transactions are named at once.
const BATCHED_SINCE: i16 = 4;
/// Before this version clients know no `PRODUCER_FENCED`.
const FENCED_SINCE: i16 = 2;

pub(in crate::server) async fn handle(
    context: &Context,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    if context.version < BATCHED_SINCE {
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            topics: request.v3_and_below_topics,
            ..AddPartitionsToTxnTransaction::default()
        };
        return AddPartitionsToTxnResponse {
            results_by_topic_v3_and_below: add(context, &transaction).await,
            ..AddPartitionsToTxnResponse::default()
        };
    }
    let mut results_by_transaction = Vec::with_capacity(request.transactions.len());
    for transaction in &request.transactions {
        results_by_transaction.push(AddPartitionsToTxnResult {
            transactional_id: transaction.transactional_id.clone(),
            topic_results: add(context, transaction).await,
            ..AddPartitionsToTxnResult::default()
        });
    }
    AddPartitionsToTxnResponse {
        results_by_transaction,
        ..AddPartitionsToTxnResponse::default()
    }
}

async fn add(
    context: &Context,
    transaction: &AddPartitionsToTxnTransaction,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let services = context.services();
    let image = services.view.image();
    let (known, unknown) = partitions(&image, &transaction.topics);
    if !unknown.is_empty() {
        // Nothing is added unless all can be.
        let refused = results(&unknown, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let others = results(&known, ErrorCode::OPERATION_NOT_ATTEMPTED);
        return refused.into_iter().chain(others).collect();
    }
    let add = Add {
        id: TransactionalId::from(transaction.transactional_id.as_str()),
        producer: producer(transaction.producer_id, transaction.producer_epoch),
        partitions: known.clone(),
        verify_only: transaction.verify_only,
    };
    let code = match services.transactions.add(add).await {
        Ok(()) => ErrorCode::NONE,
        Err(error) => code_of(error, context.version < FENCED_SINCE),
    };
    results(&known, code)
}

fn results(partitions: &BTreeSet<TopicPartition>, code: ErrorCode) -> Vec<AddPartitionsToTxnTopicResult> {
    let result = |partition_index: i32| AddPartitionsToTxnPartitionResult {
        partition_index,
        partition_error_code: code.0,
        ..AddPartitionsToTxnPartitionResult::default()
    };
    let topics = by_topic(partitions).into_iter();
    let topics = topics.map(|(name, indexes)| AddPartitionsToTxnTopicResult {
        name: Str::from(name),
        results_by_partition: indexes.into_iter().map(result).collect(),
        ..AddPartitionsToTxnTopicResult::default()
    });
    topics.collect()
}
