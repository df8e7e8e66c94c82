//! Transactions: writes to several partitions, and commits of offsets, that are seen together or not at all (KIP-98, 360, 447, 890).
//!
//! Owns the topic `__transaction_state` and, for each of its partitions that this node leads, the transactional ids that belong to
//! it. What is in a transaction it does not know; that a partition keeps its records from being seen is the partition's own affair.
//!
//! ```text
//! transaction  the handle: which partition a transactional id belongs to, who coordinates it
//! post         what `coordination` runs for each partition led here
//! coordinator  the task: reads its partition, works requests off, writes, answers
//! markers      tells every partition how a transaction ended
//! state        the rules, pure      store   the records, pure
//! ```

mod coordinator;
mod error;
mod markers;
mod post;
mod request;
mod state;
mod store;

pub use error::TransactionError;
pub use request::{Add, Begin, Description, End, Producer, Stage, TopicPartition, TransactionalId, by_topic};

use crate::config::TransactionConfig;
use crate::controller::Controller;
use crate::coordination::{self, Deployment, OwnTopic, Unavailable};
use crate::metadata::View;
use crate::metadata::topic::TRANSACTIONS_TOPIC;
use crate::partition::Registry;
use crate::peer::Peers;
use crate::sys::Sys;
use crate::telemetry::{Metrics, names};
use coordinator::{Handle, Letter};
use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use headwater_protocol::primitives::Str;
use markers::Markers;
use post::TransactionPost;
use state::{Answer, Settings};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The longest transactional id: a string of the protocol.
const ID_BYTES_MAX: usize = 32_000;
/// How long another node's coordinator may take to say whether partitions belong to a transaction.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first version in which one node asks another for many transactions, and whether they are open (KIP-890).
const BETWEEN_NODES: i16 = 4;

/// What the transactions of a node are made of.
pub struct Parts {
    pub me: NodeId,
    pub config: TransactionConfig,
    /// How many nodes the quorum is meant to have.
    pub voters: usize,
    pub sys: Sys,
    pub view: View,
    pub controller: Controller,
    pub registry: Registry,
    pub peers: Peers,
    pub metrics: Metrics,
}

/// The transactions of this node. Cheap to clone.
///
/// - A call that is dropped may have happened.
#[derive(Clone)]
pub struct Transactions {
    me: NodeId,
    peers: Peers,
    coordinators: Arc<Deployment<TransactionPost>>,
}

impl Transactions {
    /// Begins to coordinate what this node leads. Ends with its scope of `parts.sys.tasks`.
    pub fn start(parts: Parts) -> Self {
        let post = TransactionPost {
            settings: Settings {
                timeout_max: parts.config.timeout_max,
                expiration: parts.config.expiration,
            },
            sys: parts.sys.clone(),
            markers: Markers {
                me: parts.me,
                sys: parts.sys.clone(),
                view: parts.view.clone(),
                registry: parts.registry.clone(),
                peers: parts.peers.clone(),
            },
        };
        let topic = OwnTopic {
            name: TRANSACTIONS_TOPIC,
            partitions: parts.config.topic_partitions,
            replication_factor: parts.config.topic_replication_factor,
            segment_bytes: parts.config.topic_segment_bytes,
            voters: parts.voters,
        };
        let means = coordination::Means {
            me: parts.me,
            topic,
            tasks: parts.sys.tasks.child("transaction"),
            sys: parts.sys,
            view: parts.view,
            controller: parts.controller,
            registry: parts.registry,
        };
        let coordinators = Deployment::start(means, post);
        let shown = Arc::clone(&coordinators);
        parts.metrics.on_scrape(move |scrape| {
            let coordinators = shown.all();
            let count = coordinators.values().map(Handle::count).sum::<usize>();
            scrape.value(&names::TRANSACTION_COORDINATORS, &[], coordinators.len() as u64);
            scrape.value(&names::TRANSACTIONAL_IDS, &[], count as u64);
        });
        Self {
            me: parts.me,
            peers: parts.peers,
            coordinators,
        }
    }

    /// Ends all coordinators. What they were asked and have not answered is answered `NotCoordinator`.
    pub async fn stop(&self, patience: Duration) {
        self.coordinators.stop(patience).await;
    }

    /// The node that coordinates a transactional id. Makes the topic if there is none yet.
    pub async fn coordinator_of(&self, id: &str) -> Result<NodeId, TransactionError> {
        check_id(id)?;
        let found = self.coordinators.coordinator_of(id).await;
        found.map_err(|Unavailable| TransactionError::NotAvailable)
    }

    /// A producer begins under a transactional id, and fences whoever had it before.
    pub async fn begin(&self, begin: Begin) -> Result<Producer, TransactionError> {
        check_id(&begin.id)?;
        let id = Arc::clone(&begin.id);
        self.ask(&id, |reply| Letter::Begin(begin, reply)).await
    }

    /// Adds partitions to a transaction that is coordinated here.
    pub async fn add(&self, add: Add) -> Result<(), TransactionError> {
        let id = Arc::clone(&add.id);
        self.ask(&id, |reply| Letter::Add(add, reply)).await.map(drop)
    }

    /// Ends a transaction; returns when that is decided and kept. Its producer goes on as what is returned.
    pub async fn end(&self, end: End) -> Result<Producer, TransactionError> {
        let id = Arc::clone(&end.id);
        self.ask(&id, |reply| Letter::End(end, reply)).await
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
        let request = request_of(&add);
        let client_id = Str::from_static("headwater-partition");
        let asked = self
            .peers
            .ask(leader, &request, BETWEEN_NODES, &client_id, PATIENCE);
        let answer = asked.await.map_err(|error| {
            tracing::debug!(%leader, %error, "the coordinator of a transaction did not answer");
            TransactionError::NotAvailable
        })?;
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

    /// None: the transactional id is not known.
    pub async fn describe(&self, id: &str) -> Result<Option<Description>, TransactionError> {
        let handle = self.handle(id)?;
        handle.ask(|reply| Letter::Describe(Arc::from(id), reply)).await
    }

    /// The transactional ids that this node coordinates, and an error beside those if it does not know all of them yet.
    pub async fn list(&self) -> (Vec<Description>, Result<(), TransactionError>) {
        let coordinators = self.coordinators.all();
        let (mut found, mut complete) = (Vec::new(), Ok(()));
        for handle in coordinators.values() {
            match handle.ask(Letter::List).await {
                Ok(listed) => found.extend(listed),
                Err(TransactionError::Loading) => complete = Err(TransactionError::Loading),
                // It is another node's by now, which lists it.
                Err(_) => {}
            }
        }
        (found, complete)
    }

    async fn ask(
        &self,
        id: &str,
        letter: impl FnOnce(oneshot::Sender<Answer>) -> Letter,
    ) -> Result<Producer, TransactionError> {
        let handle = self.handle(id)?;
        let answer = handle.ask(letter).await?;
        if let Answer::Remembered(result) = answer
            && is_final(&result)
            && !self.coordinators.is_in_office(id, &handle).await
        {
            return Err(TransactionError::NotCoordinator);
        }
        answer.result()
    }

    fn handle(&self, id: &str) -> Result<Handle, TransactionError> {
        let handle = self.coordinators.get(id);
        handle.ok_or(TransactionError::NotCoordinator)
    }
}

/// Whether who is told that does not ask again.
fn is_final(result: &Result<Producer, TransactionError>) -> bool {
    match result {
        Ok(_)
        | Err(
            TransactionError::Fenced | TransactionError::UnknownProducer | TransactionError::InvalidState,
        ) => true,
        Err(
            TransactionError::NotCoordinator
            | TransactionError::Loading
            | TransactionError::NotAvailable
            | TransactionError::Concurrent
            | TransactionError::InvalidId
            | TransactionError::InvalidTimeout
            | TransactionError::NeedsProducerId,
        ) => false,
    }
}

fn check_id(id: &str) -> Result<(), TransactionError> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(TransactionError::InvalidId);
    }
    Ok(())
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
        ErrorCode::INVALID_TXN_STATE | ErrorCode::TRANSACTION_ABORTABLE => TransactionError::InvalidState,
        ErrorCode::CONCURRENT_TRANSACTIONS => TransactionError::Concurrent,
        ErrorCode::NOT_COORDINATOR => TransactionError::NotCoordinator,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => TransactionError::Loading,
        _ => TransactionError::NotAvailable,
    }
}
