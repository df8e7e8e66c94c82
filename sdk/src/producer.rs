//! [`Producer`]: sends records, in batches, each once and in order.
//!
//! Owns the application's side: topics, memory, promises. Its task owns the way to the brokers. It must
//! never hold more memory than it was given, nor lose a record without telling.

mod batcher;
mod delivery;
mod record;
mod sender;
mod sequencer;
mod stamp;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::record::Compression;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::batcher::{NotTaken, Shared, Topic};
pub use self::delivery::{Deliveries, Delivery, Receipt, SendError};
pub use self::record::Record;
use self::sender::Sender;
pub use self::transaction::TransactionError;
use self::transaction::{Command, Coordinator, Transactor};
use crate::admin::Coordinated;
use crate::client::Client;
use crate::config::ConfigError;
use crate::door::{self, Tasks};
use crate::error::Error;

/// Settings of a [`Producer`].
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// What a record must have reached before it counts as delivered.
    pub acks: Acks,
    /// Whether brokers see to it that retries write nothing twice. Needs `Acks::All`; with other acks it is
    /// off.
    pub idempotent: bool,
    /// How large a batch grows, before compression.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more records while another batch of its partition is
    /// under way. When none is, it leaves at once.
    pub linger: Duration,
    pub compression: Compression,
    /// What the codec says it means; `None` is its default.
    pub compression_level: Option<i32>,
    /// Bytes of records that may be held: gathered, waiting, or sent and not acknowledged. When they are
    /// used up, `send` waits and `try_send` refuses.
    pub buffer_memory: usize,
    /// The largest record taken.
    pub record_bytes_max: usize,
    /// The largest request made of several batches.
    pub request_bytes_max: usize,
    /// Batches of one partition that may be under way at once. With more than 5 brokers forget too early
    /// which they have.
    pub in_flight_max: usize,
    /// From the first record of a batch to its outcome, retries included. A call about a transaction takes no longer.
    pub delivery_timeout: Duration,
    /// Makes the producer a transactional one, under a name that outlives it: the next that is made under the same name takes
    /// over, and what this one has open then is aborted. Needs `Acks::All` and `idempotent`.
    pub transactional_id: Option<String>,
    /// A transaction that is open for longer is aborted by its coordinator, and its producer fenced. Brokers refuse more than
    /// their `transaction.max.timeout.ms`, which is 15 minutes by default.
    pub transaction_timeout: Duration,
}

/// Calls about transactions that may wait for each other; more make their callers wait.
const COMMANDS: usize = 8;

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: true,
            batch_bytes: 512 << 10,
            linger: Duration::from_millis(5),
            compression: Compression::None,
            compression_level: None,
            buffer_memory: 32 << 20,
            record_bytes_max: 1 << 20,
            request_bytes_max: 4 << 20,
            in_flight_max: 5,
            delivery_timeout: Duration::from_secs(120),
            transactional_id: None,
            transaction_timeout: Duration::from_secs(60),
        }
    }
}

impl ProducerConfig {
    fn is_idempotent(&self) -> bool {
        self.idempotent && self.acks == Acks::All
    }

    fn check(&self) -> Result<(), ConfigError> {
        let least = |what, value: usize, min: usize| {
            if value < min {
                Err(ConfigError::TooSmall { what, min })
            } else {
                Ok(())
            }
        };
        least("batch_bytes", self.batch_bytes, 128)?;
        least("record_bytes_max", self.record_bytes_max, 128)?;
        least("buffer_memory", self.buffer_memory, self.batch_bytes)?;
        least("in_flight_max", self.in_flight_max, 1)?;
        if let Some(id) = &self.transactional_id {
            if id.is_empty() {
                return Err(ConfigError::Conflict("a transactional id has a name"));
            }
            if !self.is_idempotent() {
                return Err(ConfigError::Conflict(
                    "a transactional producer is idempotent and has Acks::All",
                ));
            }
            let timeout_ms = usize::try_from(self.transaction_timeout.as_millis()).unwrap_or(usize::MAX);
            least("transaction_timeout in milliseconds", timeout_ms, 1)?;
        }
        if self.is_idempotent() && self.in_flight_max > 5 {
            return Err(ConfigError::TooLarge {
                what: "in_flight_max of an idempotent producer",
                max: 5,
            });
        }
        Ok(())
    }
}

/// What a record must have reached before it counts as delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Nothing: it was handed to the network. It may be lost without anybody knowing.
    None,
    /// The leader's log.
    Leader,
    /// All in-sync replicas, as durably as the topic demands.
    All,
}

impl Acks {
    const fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// Sends records.
///
/// - Records of one partition are written in the order in which `send` took them, each once (with the
///   default settings), also when requests fail and are repeated.
/// - Memory: `buffer_memory`, plus a few builders with their codecs' tables when compressing.
/// - Dropping it gives up what is not acknowledged; [`Producer::close`] waits for it.
///
/// # Transactions
/// With [`ProducerConfig::transactional_id`] records are sent in transactions, and only then: [`Producer::begin`], then
/// `send` and [`Producer::send_offsets`], then [`Producer::commit`] or [`Producer::abort`]. What consumers with
/// [`crate::Isolation::ReadCommitted`] see of one is all of it, in all its partitions, or nothing.
///
/// Read, transform, write, each record exactly once, however often it is stopped and started again:
///
/// ```no_run
/// use std::collections::BTreeMap;
/// use headwater_sdk::{
///     Batch, Client, GroupConfig, GroupMetadata, Isolation, Producer, ProducerConfig, Record, TransactionError,
/// };
///
/// # async fn story(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let producer = client.producer(ProducerConfig {
///     // One for each process that works beside others, the same when it is started again.
///     transactional_id: Some("shouting-1".to_owned()),
///     ..ProducerConfig::default()
/// })?;
/// let mut group = GroupConfig::new("shouting", ["words"]);
/// // Offsets are committed by the producer alone.
/// group.auto_commit = None;
/// group.consumer.isolation = Isolation::ReadCommitted;
/// let mut consumer = client.group_consumer(group)?;
/// loop {
///     let batch = consumer.next_batch().await?;
///     // As whom the batch was read: if the group moves its partition meanwhile, the transaction is not committed.
///     let reader = consumer.group_metadata();
///     producer.begin().await?;
///     match shout(&producer, &batch, &reader).await {
///         Ok(()) => {}
///         // Somebody has taken over, or the coordinator gave up waiting.
///         Err(error) if error.is_fatal() => return Err(error.into()),
///         Err(_) => {
///             producer.abort().await?;
///             // Back to what is committed: the same records come again.
///             consumer.rewind().await?;
///         }
///     }
/// }
/// # }
///
/// async fn shout(producer: &Producer, batch: &Batch, reader: &GroupMetadata) -> Result<(), TransactionError> {
///     for record in batch.records().expect("a sound batch").iter() {
///         let word = record.expect("a sound record").value.unwrap_or_default().to_ascii_uppercase();
///         // What becomes of it the commit says: it waits for all of them.
///         producer.send("shouts", Record::value(&word)).await?;
///     }
///     let read = BTreeMap::from([(batch.topic_partition().clone(), batch.next_offset())]);
///     producer.send_offsets(reader, &read).await?;
///     producer.commit().await
/// }
/// ```
pub struct Producer {
    client: Client,
    shared: Arc<Shared>,
    /// To the transactor, where there is one.
    transactions: Option<mpsc::Sender<Command>>,
    tasks: Tasks,
    ended: CancellationToken,
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.close();
        self.tasks.cancel();
    }
}

impl Producer {
    pub(crate) fn new(client: Client, config: ProducerConfig) -> Result<Self, Error> {
        config.check()?;
        let shared = Shared::new(config);
        let tasks = client.tasks().child();
        let ended = CancellationToken::new();
        let coordinator = shared.transaction.as_ref().map(|transaction| {
            let kind = Coordinated::Transaction;
            Arc::new(Coordinator::new(client.clone(), kind, &transaction.id))
        });
        let sender = Sender::new(client.clone(), Arc::clone(&shared), coordinator.clone());
        tasks.spawn(sender.run(tasks.token().clone(), ended.clone()));
        let transactions = shared.transaction.clone().zip(coordinator);
        let transactions = transactions.map(|(transaction, coordinator)| {
            let (sender, commands) = mpsc::channel(COMMANDS);
            let transactor = Transactor {
                client: client.clone(),
                shared: Arc::clone(&shared),
                transaction,
                coordinator,
                commands,
                group: None,
            };
            tasks.spawn(transactor.run(tasks.token().clone()));
            sender
        });
        Ok(Self {
            client,
            shared,
            transactions,
            tasks,
            ended,
        })
    }

    /// A handle for one topic: the fast way to send many records.
    ///
    /// A dropped future leaves nothing behind.
    pub async fn topic(&self, name: &str) -> Result<TopicProducer, SendError> {
        if let Some(topic) = self.shared.topic(name) {
            return Ok(TopicProducer { topic });
        }
        let known = self.client.topic(name).await.map_err(|error| match error {
            Error::UnknownTopic(name) => SendError::UnknownTopic(name),
            error => SendError::Client(Box::new(error)),
        })?;
        if self.ended.is_cancelled() {
            return Err(SendError::Closed);
        }
        let (name, count) = (Arc::clone(&known.name), known.partitions.len());
        Ok(TopicProducer {
            topic: self.shared.add_topic(name, count, door::random_u64()),
        })
    }

    /// Sends one record. Resolves when it is taken: it waits for memory, not for the broker.
    ///
    /// A dropped future has sent it or not; records sent one after the other keep their order.
    pub async fn send(&self, topic: &str, record: Record<'_>) -> Result<Delivery, SendError> {
        self.topic(topic).await?.send(record).await
    }

    /// Sends everything that was taken so far without lingering, and waits until all of it has its outcome,
    /// good or bad. Cancel safe.
    pub async fn flush(&self) {
        let _flushing = Flushing::new(&self.shared);
        self.shared.ledger.settled().await;
    }

    /// Flushes, then stops the task and waits for its end. A transaction that was not committed is aborted, not flushed.
    ///
    /// A dropped future closes it without waiting.
    pub async fn close(self) {
        let transaction = self.shared.transaction.as_ref();
        if let Some(end) = transaction.and_then(|transaction| transaction.unfinished()) {
            // Where it does not succeed, the coordinator aborts it when its time is up.
            let _ = self.end(end).await;
        }
        self.flush().await;
        self.shared.close();
        self.tasks.cancel();
        self.ended.cancelled().await;
    }
}

/// Sends records to one topic. Cheap to clone; of no use once its producer is gone.
#[derive(Clone)]
pub struct TopicProducer {
    topic: Arc<Topic>,
}

impl TopicProducer {
    /// Sends one record. Resolves when it is taken: it waits for memory, not for the broker.
    ///
    /// A dropped future has sent it or not; records sent one after the other keep their order.
    pub async fn send(&self, record: Record<'_>) -> Result<Delivery, SendError> {
        let mut memory = None;
        loop {
            match self.topic.append(&record, &mut memory) {
                Ok(delivery) => return Ok(delivery),
                Err(NotTaken::Failed(error)) => return Err(error),
                Err(NotTaken::Memory(bytes)) => memory = Some(self.topic.shared().reserve(bytes).await?),
            }
        }
    }

    /// Sends one record if there is memory for it, else says [`SendError::Full`].
    pub fn try_send(&self, record: Record<'_>) -> Result<Delivery, SendError> {
        self.topic
            .append(&record, &mut None)
            .map_err(|reason| match reason {
                NotTaken::Failed(error) => error,
                NotTaken::Memory(_) => SendError::Full,
            })
    }

    /// Sends many records, in order. Resolves when all are taken.
    ///
    /// A dropped future, or an error, leaves the first few sent.
    pub async fn send_all(&self, mut records: &[Record<'_>]) -> Result<Deliveries, SendError> {
        let mut deliveries = Deliveries::default();
        let mut memory = None;
        loop {
            let (taken, stopped) = self
                .topic
                .append_all(records, &mut memory, |delivery| deliveries.push(delivery));
            records = &records[taken..];
            match stopped {
                Ok(()) => return Ok(deliveries),
                Err(NotTaken::Failed(error)) => return Err(error),
                Err(NotTaken::Memory(bytes)) => memory = Some(self.topic.shared().reserve(bytes).await?),
            }
        }
    }

    /// The topic's name.
    pub fn name(&self) -> &Arc<str> {
        &self.topic.name
    }
}

/// A flush that is under way.
struct Flushing<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Flushing<'a> {
    fn new(shared: &'a Arc<Shared>) -> Self {
        shared.signals().flushes += 1;
        shared.wake();
        Self { shared }
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.shared.signals().flushes -= 1;
        self.shared.wake();
    }
}

#[cfg(test)]
mod tests;
