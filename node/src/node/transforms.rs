//! The cluster as transforms see it: partitions led by any node, and transactions coordinated by any node.
//!
//! It asks whoever leads, here by the handle, elsewhere as a Kafka client would. What it is told it passes on; it remembers nothing.

use crate::config::{BrokerConfig, TopicConfig};
use crate::controller::Controller;
use crate::metadata::{Topic, View};
use crate::partition::{
    self, AppendError, AppendOptions, Fault, Isolation, Partition, PartitionName, ReadRequest, Registry,
    Verified,
};
use crate::peer::Peers;
use crate::sys::clock::Clock;
use crate::transaction::{Add, Begin, End, Producer, TopicPartition, TransactionError, Transactions};
use crate::transform::{Outside, OutsideError, Read, Sending, Write, Writer};
use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join_all};
use headwater_protocol::ids::{NodeId, Offset};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod elsewhere;

/// How long a transaction may be open before its coordinator aborts it. It is open only while it is written.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a coordinator may be away, or busy with the transaction before, until the pipeline begins anew.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pauses before it is asked again, at first and at most: markers take a few milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 1 << 20;

/// What it is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) me: NodeId,
    pub(crate) clock: Clock,
    pub(crate) view: View,
    pub(crate) controller: Controller,
    pub(crate) registry: Registry,
    pub(crate) peers: Peers,
    pub(crate) broker: BrokerConfig,
    pub(crate) transactions: Transactions,
    pub(crate) transaction_timeout_max: Duration,
}

/// What is around the pipelines of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    parts: Arc<Parts>,
}

/// Where a partition is led.
enum Place {
    Here(Partition),
    There(NodeId),
}

impl Cluster {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
        }
    }

    fn place(&self, name: &PartitionName) -> Result<Place, OutsideError> {
        let image = self.parts.view.image();
        let topic = image.topic_by_id(name.topic_id);
        let state = topic.and_then(|topic| topic.partition(name.index));
        let leader = state.map(|state| state.leader);
        match leader {
            Some(leader) if leader == self.parts.me => {
                let found = self.parts.registry.get_by_id(name.topic_id, name.index);
                found
                    .map(Place::Here)
                    .ok_or_else(|| failed(name, "not opened yet"))
            }
            Some(NodeId::NONE) => Err(failed(name, "without a leader")),
            Some(leader) => Ok(Place::There(leader)),
            None => Err(failed(name, "gone")),
        }
    }

    async fn begun(&self, id: Arc<str>) -> Result<Writer, OutsideError> {
        // A node that was cut off must not fence the one that has taken over.
        let up_to_date = self.parts.controller.up_to_date().await;
        up_to_date.map_err(|error| OutsideError::Failed(error.to_string()))?;
        let begin = Begin {
            id: Arc::clone(&id),
            timeout: TRANSACTION_TIMEOUT.min(self.parts.transaction_timeout_max),
            before: None,
            fresh: None,
        };
        let mut patience = Patience::new(&self.parts.clock);
        loop {
            match self.parts.transactions.begin_anywhere(begin.clone()).await {
                Ok(producer) => return Ok(writer(id, producer)),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    async fn written(&self, writer: Writer, writes: Vec<Write>) -> Result<Vec<Offset>, OutsideError> {
        let partitions = writes.iter().map(|write| TopicPartition {
            topic: Arc::clone(&write.to.topic),
            index: write.to.index,
        });
        let add = Add {
            id: Arc::clone(&writer.id),
            producer: producer(&writer),
            partitions: partitions.collect(),
            verify_only: false,
        };
        let places = self.opened(&writer, &writes, add).await?;
        let sent = writes
            .into_iter()
            .zip(places)
            .map(async |(write, place)| match place {
                (Place::Here(partition), verified) => append(&partition, write.batches, verified).await,
                (Place::There(leader), _) => {
                    let mut first = None;
                    for batch in write.batches {
                        let at = self.produce(leader, &write.to, batch, Some(&*writer.id)).await?;
                        first = first.or(Some(at));
                    }
                    first.ok_or_else(|| failed(&write.to, "given nothing to append"))
                }
            });
        try_join_all(sent).await
    }

    /// Makes the partitions part of the transaction. What is verified is taken anew before each attempt: the markers of the
    /// transaction before may come meanwhile, and make it worthless.
    async fn opened(
        &self,
        writer: &Writer,
        writes: &[Write],
        add: Add,
    ) -> Result<Vec<(Place, Option<Verified>)>, OutsideError> {
        let (mut patience, mut is_sure) = (Patience::new(&self.parts.clock), true);
        loop {
            let places = writes.iter().map(|write| {
                let place = self.place(&write.to)?;
                let verified = match &place {
                    Place::Here(partition) => partition.transaction_of(writer.producer, writer.epoch).err(),
                    Place::There(_) => None,
                };
                Ok((place, verified))
            });
            let places = places.collect::<Result<Vec<_>, OutsideError>>()?;
            match self.parts.transactions.add_anywhere(add.clone()).await {
                Ok(()) if is_sure => return Ok(places),
                // The last of those markers may have come since: asked once more, the answer costs no write.
                Ok(()) => is_sure = true,
                Err(error) => {
                    is_sure = false;
                    patience.after(error).await?;
                }
            }
        }
    }

    async fn ended(&self, ending: Writer, commit: bool) -> Result<Writer, OutsideError> {
        let end = End {
            id: Arc::clone(&ending.id),
            producer: producer(&ending),
            commit,
            bumps_epoch: true,
            fresh: None,
        };
        let mut patience = Patience::new(&self.parts.clock);
        loop {
            match self.parts.transactions.end_anywhere(end.clone()).await {
                Ok(producer) => return Ok(writer(ending.id, producer)),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    async fn sent(&self, to: PartitionName, batches: Bytes) -> Result<Sending, OutsideError> {
        match self.place(&to)? {
            Place::Here(partition) => {
                let pending = partition.submit(batches, AppendOptions::OWN).await;
                let pending = pending.map_err(|error| of_append(&error))?;
                Ok(Box::pin(async move {
                    let appended = pending.await.map_err(|error| of_append(&error))?;
                    Ok(appended.base_offset)
                }))
            }
            Place::There(leader) => {
                let cluster = self.clone();
                Ok(Box::pin(async move {
                    cluster.produce(leader, &to, batches, None).await
                }))
            }
        }
    }

    async fn settled_end(&self, of: PartitionName) -> Result<Offset, OutsideError> {
        let partition = match self.place(&of)? {
            Place::Here(partition) => partition,
            Place::There(leader) => return self.list_end(leader, &of).await,
        };
        let mut watermarks = partition.watermarks();
        let end = watermarks.borrow().log_end;
        let settled = watermarks.wait_for(|now| now.last_stable >= end || !partition.is_leader());
        settled.await.map_err(|_| failed(&of, "closed"))?;
        match partition.is_leader() {
            true => Ok(end),
            false => Err(failed(&of, "led elsewhere now")),
        }
    }

    async fn found(&self, of: PartitionName, from: Offset) -> Result<Read, OutsideError> {
        let partition = match self.place(&of)? {
            Place::Here(partition) => partition,
            Place::There(leader) => return self.fetch(leader, &of, from).await,
        };
        let log_start = partition.watermarks().borrow().log_start;
        let request = ReadRequest {
            from: from.max(log_start),
            max_bytes: READ_BYTES,
            isolation: Isolation::Committed,
            min_one: true,
            current_epoch: None,
            up_to_log_end: false,
        };
        let outcome = partition.read(request).await;
        let outcome = outcome.map_err(|error| failed(&of, error))?;
        Ok(Read {
            batches: outcome.visible(),
            bytes: outcome.bytes,
            next: outcome.next,
        })
    }

    async fn awaited(&self, of: PartitionName, from: Offset) -> Result<(), OutsideError> {
        let partition = match self.place(&of)? {
            Place::Here(partition) => partition,
            Place::There(leader) => return self.await_newer(leader, &of, from).await,
        };
        let mut watermarks = partition.watermarks();
        let moved = watermarks.wait_for(|now| now.last_stable > from || !partition.is_leader());
        moved.await.map(drop).map_err(|_| failed(&of, "closed"))
    }

    async fn forgotten(&self, of: PartitionName, before: Offset) -> Result<(), OutsideError> {
        match self.place(&of)? {
            Place::Here(partition) => {
                let deleted = partition.delete_records(Some(before)).await;
                deleted.map(drop).map_err(|error| failed(&of, error))
            }
            Place::There(leader) => self.delete(leader, &of, before).await,
        }
    }
}

impl Outside for Cluster {
    fn config(&self, topic: &Topic) -> TopicConfig {
        TopicConfig::resolve(&topic.configs, &self.parts.broker)
    }

    fn check(&self, to: &PartitionName, batches: &Bytes) -> Result<(), OutsideError> {
        let now_ms = self.parts.clock.unix_ms();
        let checked = match self.parts.registry.get_by_id(to.topic_id, to.index) {
            Some(here) => partition::check_own(batches, &here.config(), now_ms),
            None => match self.parts.view.image().topic_by_id(to.topic_id) {
                Some(topic) => partition::check_own(batches, &self.config(topic), now_ms),
                None => return Err(failed(to, "gone")),
            },
        };
        checked.map_err(|error| of_append(&error))
    }

    fn begin(&self, id: Arc<str>) -> BoxFuture<'_, Result<Writer, OutsideError>> {
        Box::pin(self.begun(id))
    }

    fn write(&self, writer: Writer, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Offset>, OutsideError>> {
        Box::pin(self.written(writer, writes))
    }

    fn commit(&self, writer: Writer) -> BoxFuture<'_, Result<Writer, OutsideError>> {
        Box::pin(self.ended(writer, true))
    }

    fn abort(&self, writer: Writer) -> BoxFuture<'_, Result<Writer, OutsideError>> {
        Box::pin(self.ended(writer, false))
    }

    fn send(&self, to: PartitionName, batches: Bytes) -> BoxFuture<'_, Result<Sending, OutsideError>> {
        Box::pin(self.sent(to, batches))
    }

    fn end(&self, of: PartitionName) -> BoxFuture<'_, Result<Offset, OutsideError>> {
        Box::pin(self.settled_end(of))
    }

    fn read(&self, of: PartitionName, from: Offset) -> BoxFuture<'_, Result<Read, OutsideError>> {
        Box::pin(self.found(of, from))
    }

    fn newer(&self, of: PartitionName, from: Offset) -> BoxFuture<'_, Result<(), OutsideError>> {
        Box::pin(self.awaited(of, from))
    }

    fn forget(&self, of: PartitionName, before: Offset) -> BoxFuture<'_, Result<(), OutsideError>> {
        Box::pin(self.forgotten(of, before))
    }
}

/// Appends batches of a transaction one behind the other, and waits for all of them.
async fn append(
    partition: &Partition,
    batches: Vec<Bytes>,
    verified: Option<Verified>,
) -> Result<Offset, OutsideError> {
    let options = AppendOptions {
        verified,
        ..AppendOptions::OWN
    };
    let mut pending = Vec::with_capacity(batches.len());
    for batch in batches {
        let submitted = partition.submit(batch, options).await;
        pending.push(submitted.map_err(|error| of_append(&error))?);
    }
    let appended = try_join_all(pending).await.map_err(|error| of_append(&error))?;
    let first = appended.first().map(|first| first.base_offset);
    first.ok_or_else(|| failed(partition.name(), "given nothing to append"))
}

/// How long a coordinator is asked again.
struct Patience<'a> {
    clock: &'a Clock,
    until: Instant,
    pause: Duration,
}

impl<'a> Patience<'a> {
    fn new(clock: &'a Clock) -> Self {
        Self {
            clock,
            until: clock.now() + PATIENCE,
            pause: PAUSE_MIN,
        }
    }

    /// Returns when it is to be asked again.
    async fn after(&mut self, error: TransactionError) -> Result<(), OutsideError> {
        match error {
            TransactionError::Concurrent
            | TransactionError::NotCoordinator
            | TransactionError::Loading
            | TransactionError::NotAvailable
                if self.clock.now() < self.until =>
            {
                self.clock.sleep(self.pause).await;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                Ok(())
            }
            TransactionError::Fenced | TransactionError::UnknownProducer => Err(OutsideError::Fenced),
            TransactionError::Concurrent
            | TransactionError::NotCoordinator
            | TransactionError::Loading
            | TransactionError::NotAvailable
            | TransactionError::InvalidId
            | TransactionError::InvalidTimeout
            | TransactionError::InvalidState
            | TransactionError::NeedsProducerId => Err(OutsideError::Failed(error.to_string())),
        }
    }
}

fn producer(writer: &Writer) -> Producer {
    Producer {
        id: writer.producer,
        epoch: writer.epoch,
    }
}

fn writer(id: Arc<str>, producer: Producer) -> Writer {
    Writer {
        id,
        producer: producer.id,
        epoch: producer.epoch,
    }
}

fn failed(name: &PartitionName, reason: impl std::fmt::Display) -> OutsideError {
    OutsideError::Failed(format!("partition {name}: {reason}"))
}

/// What a partition's refusal means to a pipeline.
fn of_append(error: &AppendError) -> OutsideError {
    match (error.fault(), error) {
        (Fault::Records, _) => OutsideError::Refused(error.to_string()),
        (_, AppendError::InvalidProducerEpoch { .. }) => OutsideError::Fenced,
        (Fault::Partition | Fault::InDoubt, _) => OutsideError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
