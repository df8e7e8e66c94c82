//! Transactions: writes to several partitions, and commits of offsets, that are seen together or not at all (KIP-98, 360, 447, 890).
//!
//! Owns the topic `__transaction_state` and, for each of its partitions that this node leads, the transactional ids that belong to
//! it. What is in a transaction it does not know; that a partition keeps its records from being seen is the partition's own affair.
//!
//! ```text
//! transaction  the handle: which partition a transactional id belongs to, who coordinates it
//! anywhere     the same asked of a coordinator on another node
//! post         what `coordination` runs for each partition led here
//! coordinator  the task: reads its partition, works requests off, writes, answers
//! markers      tells every partition how a transaction ended
//! state        the rules, pure      store   the records, pure
//! ```

mod anywhere;
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
use crate::controller::{Controller, ProducerIds};
use crate::coordination::{self, Deployment, OwnTopic, Unavailable};
use crate::metadata::View;
use crate::metadata::topic::TRANSACTIONS_TOPIC;
use crate::partition::Registry;
use crate::peer::Peers;
use crate::sys::Sys;
use crate::telemetry::{Metrics, names};
use coordinator::{Handle, Letter};
use headwater_protocol::ids::NodeId;
use markers::Markers;
use post::TransactionPost;
use state::{Answer, Settings};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The longest transactional id: a string of the protocol.
const ID_BYTES_MAX: usize = 32_000;
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
    controller: Controller,
    ids: Arc<ProducerIds>,
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
            controller: parts.controller.clone(),
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
            controller: parts.controller,
            ids: Arc::default(),
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
