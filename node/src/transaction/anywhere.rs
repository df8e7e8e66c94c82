//! Requests to whoever coordinates a transaction, here or on another node.

use super::Transactions;
use super::error::TransactionError;
use super::request::{Add, Begin, End, Producer, by_topic};
use crate::coordination::Unavailable;
use headwater_protocol::ids::{NodeId, ProducerEpoch, ProducerId};
use headwater_protocol::kafka::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use headwater_protocol::kafka::end_txn::EndTxnRequest;
use headwater_protocol::kafka::init_producer_id::InitProducerIdRequest;
use headwater_protocol::kafka::{ErrorCode, Request};
use headwater_protocol::primitives::Str;
use std::time::Duration;

/// How long another node's coordinator may take to say whether partitions belong to a transaction.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first version in which one node asks another for many transactions, and whether they are open (KIP-890).
const BETWEEN_NODES: i16 = 4;
/// They tell who was fenced, and name an epoch for each transaction.
const BEGIN_VERSION: i16 = 5;
const END_VERSION: i16 = 5;
const NOBODY: Producer = Producer {
    id: ProducerId::NONE,
    epoch: ProducerEpoch::NONE,
};

impl Transactions {
    /// As `begin`, wherever the transactional id is coordinated. Needs no fresh producer id: one is found where it is needed.
    pub async fn begin_anywhere(&self, begin: Begin) -> Result<Producer, TransactionError> {
        let leader = self.coordinator_of(&begin.id).await?;
        if leader == self.me {
            return match self.begin(begin.clone()).await {
                Err(TransactionError::NeedsProducerId) => {
                    let fresh = Some(self.fresh().await?);
                    self.begin(Begin { fresh, ..begin }).await
                }
                begun => begun,
            };
        }
        let Producer { id, epoch } = begin.before.unwrap_or(NOBODY);
        let request = InitProducerIdRequest {
            transactional_id: Some(Str::from(&*begin.id)),
            transaction_timeout_ms: i32::try_from(begin.timeout.as_millis()).unwrap_or(i32::MAX),
            producer_id: id.value(),
            producer_epoch: epoch.value(),
            ..InitProducerIdRequest::default()
        };
        let answer = self.ask_node(leader, &request, BEGIN_VERSION).await?;
        producer_of(answer.error_code, answer.producer_id, answer.producer_epoch)
    }

    /// As `end` with an epoch for each transaction, wherever it is coordinated. Needs no fresh producer id.
    pub async fn end_anywhere(&self, end: End) -> Result<Producer, TransactionError> {
        let end = End {
            bumps_epoch: true,
            ..end
        };
        let leader = self.coordinators.leader_of(&end.id);
        let leader = leader.ok_or(TransactionError::NotAvailable)?;
        if leader == self.me {
            return match self.end(end.clone()).await {
                Err(TransactionError::NeedsProducerId) => {
                    let fresh = Some(self.fresh().await?);
                    self.end(End { fresh, ..end }).await
                }
                ended => ended,
            };
        }
        let request = EndTxnRequest {
            transactional_id: Str::from(&*end.id),
            producer_id: end.producer.id.value(),
            producer_epoch: end.producer.epoch.value(),
            committed: end.commit,
            ..EndTxnRequest::default()
        };
        let answer = self.ask_node(leader, &request, END_VERSION).await?;
        producer_of(answer.error_code, answer.producer_id, answer.producer_epoch)
    }

    /// As `add`, wherever the transaction is coordinated: for whoever is about to write one partition of it.
    pub async fn add_anywhere(&self, add: Add) -> Result<(), TransactionError> {
        let coordinators = &self.coordinators;
        if coordinators.partition_of(&add.id).is_none() {
            // Nobody ever began a transaction, or this node has not heard of it.
            return Err(match coordinators.is_unused().await {
                Ok(true) => TransactionError::UnknownProducer,
                Ok(false) | Err(Unavailable) => TransactionError::NotAvailable,
            });
        }
        let leader = coordinators.leader_of(&add.id);
        let leader = leader.ok_or(TransactionError::NotAvailable)?;
        if leader == self.me {
            return self.add(add).await;
        }
        let answer = self.ask_node(leader, &request_of(&add), BETWEEN_NODES).await?;
        let topics = answer
            .results_by_transaction
            .into_iter()
            .flat_map(|transaction| transaction.topic_results);
        let mut codes = topics
            .flat_map(|topic| topic.results_by_partition)
            .map(|partition| ErrorCode(partition.partition_error_code));
        let top = ErrorCode(answer.error_code);
        let first = codes.find(|code| *code != ErrorCode::NONE);
        match first.unwrap_or(top) {
            ErrorCode::NONE => Ok(()),
            code => Err(error_of(code)),
        }
    }

    async fn ask_node<R: Request>(
        &self,
        leader: NodeId,
        request: &R,
        version: i16,
    ) -> Result<R::Response, TransactionError> {
        let client_id = Str::from_static("headwater-partition");
        let asked = self.peers.ask(leader, request, version, &client_id, PATIENCE);
        asked.await.map_err(|error| {
            tracing::debug!(%leader, %error, "the coordinator of a transaction did not answer");
            TransactionError::NotAvailable
        })
    }

    async fn fresh(&self) -> Result<ProducerId, TransactionError> {
        self.ids.next(&self.controller).await.map_err(|error| {
            tracing::debug!(%error, "there is no producer id");
            TransactionError::NotAvailable
        })
    }
}

fn producer_of(code: i16, id: i64, epoch: i16) -> Result<Producer, TransactionError> {
    match ErrorCode(code) {
        ErrorCode::NONE => Ok(Producer {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch),
        }),
        code => Err(error_of(code)),
    }
}

fn request_of(add: &Add) -> AddPartitionsToTxnRequest {
    let topic = |(name, partitions): (&str, Vec<i32>)| AddPartitionsToTxnTopic {
        name: Str::from(name),
        partitions,
        ..AddPartitionsToTxnTopic::default()
    };
    AddPartitionsToTxnRequest {
        transactions: vec![AddPartitionsToTxnTransaction {
            transactional_id: Str::from(&*add.id),
            producer_id: add.producer.id.value(),
            producer_epoch: add.producer.epoch.value(),
            verify_only: add.verify_only,
            topics: by_topic(&add.partitions).into_iter().map(topic).collect(),
            ..AddPartitionsToTxnTransaction::default()
        }],
        ..AddPartitionsToTxnRequest::default()
    }
}

/// What another node's coordinator meant.
fn error_of(code: ErrorCode) -> TransactionError {
    match code {
        ErrorCode::PRODUCER_FENCED | ErrorCode::INVALID_PRODUCER_EPOCH => TransactionError::Fenced,
        ErrorCode::INVALID_PRODUCER_ID_MAPPING => TransactionError::UnknownProducer,
        ErrorCode::INVALID_TRANSACTION_TIMEOUT => TransactionError::InvalidTimeout,
        ErrorCode::INVALID_TXN_STATE | ErrorCode::TRANSACTION_ABORTABLE => TransactionError::InvalidState,
        ErrorCode::CONCURRENT_TRANSACTIONS => TransactionError::Concurrent,
        ErrorCode::NOT_COORDINATOR => TransactionError::NotCoordinator,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => TransactionError::Loading,
        _ => TransactionError::NotAvailable,
    }
}
