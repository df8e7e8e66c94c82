//! Gathers records into batches, per partition, within the producer's memory.
//!
//! Owns the batches that are not being sent yet and the memory they take. It must never wait: a caller who
//! finds no room is told how much he needs, and waits outside the lock.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::PartitionIndex;
use headwater_protocol::partitioner::partition_for_key;
use headwater_protocol::record::{BatchBuilder, BatchOptions, Compression, HEADER_BYTES, NewRecord};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::delivery::{Completion, Delivery, Duty, Ledger, SendError};
use super::transaction::Transaction;
use super::{ProducerConfig, Record};
use crate::door::{self, Instant};
use crate::partitioner::Sticky;

/// The least memory a batch begins with.
const BATCH_BYTES_MIN: usize = 1024;
/// Builders kept for the next batch, with their codecs' tables. Worth it only when compressing.
const SPARE_BUILDERS: usize = 8;

/// Smaller buffers are the allocator's.
const BUFFER_BYTES_MIN: usize = 64 << 10;

/// A topic by the order in which the producer met it, and a partition of it.
pub(super) type PartitionKey = (u32, u32);

/// What all topics of a producer share.
pub(super) struct Shared {
    pub(super) config: ProducerConfig,
    /// In bytes.
    memory: Arc<Semaphore>,
    pub(super) ledger: Arc<Ledger>,
    /// None: records are sent in no transaction.
    pub(super) transaction: Option<Arc<Transaction>>,
    signals: Mutex<Signals>,
    signalled: Notify,
    spares: Mutex<Vec<BatchBuilder>>,
    /// Memory of batches that were acknowledged, for those to come.
    buffers: Mutex<Buffers>,
}

/// Unused buffers: memory that was touched once need not be faulted in anew for each batch.
#[derive(Default)]
struct Buffers {
    unused: Vec<BytesMut>,
    bytes: usize,
}

/// A finished batch. When it is dropped and nobody else holds it, its memory is used for another.
pub(super) struct Finished {
    bytes: Bytes,
    /// None when the memory is not worth keeping.
    shared: Option<Arc<Shared>>,
}

impl Finished {
    pub(super) fn new(bytes: Bytes, shared: &Arc<Shared>) -> Self {
        let is_plain = shared.config.compression == Compression::None;
        Self {
            bytes,
            shared: is_plain.then(|| Arc::clone(shared)),
        }
    }
}

impl From<Bytes> for Finished {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, shared: None }
    }
}

impl Deref for Finished {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else { return };
        // Whoever else holds it still may be writing it to the network.
        if let Ok(buffer) = std::mem::take(&mut self.bytes).try_into_mut() {
            shared.keep(buffer);
        }
    }
}

#[derive(Default)]
pub(super) struct Signals {
    pub(super) topics: Vec<Arc<Topic>>,
    pub(super) dirty: Vec<PartitionKey>,
    /// Flushes under way: everything is to be sent at once.
    pub(super) flushes: usize,
    pub(super) closed: bool,
}

/// The batches of one topic.
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) index: u32,
    shared: Arc<Shared>,
    state: Mutex<TopicState>,
}

struct TopicState {
    partitions: Vec<Batches>,
    /// Partitions that records without a key may go to: those with a leader.
    available: Vec<u32>,
    sticky: Sticky,
}

#[derive(Default)]
struct Batches {
    open: Option<OpenBatch>,
    sealed: VecDeque<OpenBatch>,
    /// The sender has been told and has not looked since.
    signalled: bool,
    /// How large the last batch became; the next one likely does too.
    usual_bytes: usize,
}

/// A batch that takes records, or waits to be sent.
pub(super) struct OpenBatch {
    pub(super) builder: BatchBuilder,
    pub(super) duty: Duty,
    pub(super) memory: OwnedSemaphorePermit,
    pub(super) created: Instant,
    completion: Arc<Completion>,
}

/// Why a record was not taken.
pub(super) enum NotTaken {
    /// So many bytes are needed first.
    Memory(usize),
    Failed(SendError),
}

/// What the sender may take from a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Full batches only.
    Full,
    /// Also one that still has room, if it was begun so early.
    BegunBy(Instant),
    /// Whatever there is.
    Any,
}

impl Shared {
    pub(super) fn new(config: ProducerConfig) -> Arc<Self> {
        let memory = config.buffer_memory.min(Semaphore::MAX_PERMITS);
        let transaction = config.transactional_id.as_deref().map(Transaction::new);
        Arc::new(Self {
            config,
            transaction,
            memory: Arc::new(Semaphore::new(memory)),
            ledger: Ledger::new(),
            signals: Mutex::default(),
            signalled: Notify::new(),
            spares: Mutex::default(),
            buffers: Mutex::default(),
        })
    }

    /// Waits for memory. Those who wait are served in order. Cancel safe.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, SendError> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.memory)
            .acquire_many_owned(permits)
            .await
            .map_err(|_| SendError::Closed)
    }

    fn try_reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.memory)
            .try_acquire_many_owned(u32::try_from(bytes).ok()?)
            .ok()
    }

    /// Adds a topic, and gives it its number.
    pub(super) fn add_topic(self: &Arc<Self>, name: Arc<str>, partitions: usize, seed: u64) -> Arc<Topic> {
        let mut signals = self.signals();
        if let Some(known) = signals.topics.iter().find(|topic| topic.name == name) {
            return Arc::clone(known);
        }
        let state = TopicState {
            partitions: Vec::new(),
            available: Vec::new(),
            sticky: Sticky::new(self.config.batch_bytes, seed),
        };
        let index = signals.topics.len() as u32;
        let topic = Arc::new(Topic {
            name,
            index,
            shared: Arc::clone(self),
            state: Mutex::new(state),
        });
        topic.resize(partitions, None);
        signals.topics.push(Arc::clone(&topic));
        topic
    }

    pub(super) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.signals()
            .topics
            .iter()
            .find(|topic| *topic.name == *name)
            .cloned()
    }

    pub(super) fn signals(&self) -> MutexGuard<'_, Signals> {
        // Nothing panics while it holds the lock.
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when no append is under way that began before: what it took has its ticket.
    pub(super) fn await_appends(&self) {
        let topics = self.signals().topics.clone();
        topics.iter().for_each(|topic| drop(topic.lock()));
    }

    /// Wakes the sender.
    pub(super) fn wake(&self) {
        self.signalled.notify_one();
    }

    /// Waits until the sender has something to look at. Cancel safe.
    pub(super) async fn woken(&self) {
        self.signalled.notified().await;
    }

    /// No record is taken from now on, and those who wait for memory are told.
    pub(super) fn close(&self) {
        self.signals().closed = true;
        self.memory.close();
        self.wake();
    }

    fn is_closed(&self) -> bool {
        self.memory.is_closed()
    }

    fn builder(&self, bytes: usize) -> BatchBuilder {
        let spare = self.spares().pop();
        spare.unwrap_or_else(|| {
            let options = BatchOptions {
                level: self.config.compression_level,
                transactional: self.transaction.is_some(),
                ..BatchOptions::compressed(self.config.compression)
            };
            BatchBuilder::with_buffer(options, self.buffer(bytes))
        })
    }

    /// An empty buffer with room for `bytes` at least.
    fn buffer(&self, bytes: usize) -> BytesMut {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        match buffers.unused.pop() {
            Some(buffer) => {
                buffers.bytes -= buffer.capacity();
                // Too small a one is freed: batches have grown since.
                if buffer.capacity() >= bytes {
                    buffer
                } else {
                    BytesMut::with_capacity(bytes)
                }
            }
            None => BytesMut::with_capacity(bytes),
        }
    }

    fn keep(&self, mut buffer: BytesMut) {
        buffer.clear();
        let capacity = buffer.capacity();
        if !(BUFFER_BYTES_MIN..=2 * self.config.batch_bytes).contains(&capacity) {
            return;
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.bytes + capacity <= self.config.buffer_memory / 8 {
            buffers.bytes += capacity;
            buffers.unused.push(buffer);
        }
    }

    /// Keeps a builder whose codec was set up.
    pub(super) fn give_back(&self, builder: BatchBuilder) {
        let mut spares = self.spares();
        if spares.len() < SPARE_BUILDERS {
            spares.push(builder);
        }
    }

    fn spares(&self) -> MutexGuard<'_, Vec<BatchBuilder>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    /// Takes one record, if there is memory; `spare` is memory that the caller waited for.
    pub(super) fn append(
        &self,
        record: &Record<'_>,
        spare: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Delivery, NotTaken> {
        let now_ms = record.timestamp_ms.unwrap_or_else(door::unix_ms);
        let mut state = self.lock();
        self.append_locked(&mut state, record, now_ms, spare)
    }

    /// Takes as many of `records` as there is memory for and says how many, and why it stopped.
    pub(super) fn append_all(
        &self,
        records: &[Record<'_>],
        spare: &mut Option<OwnedSemaphorePermit>,
        mut taken: impl FnMut(Delivery),
    ) -> (usize, Result<(), NotTaken>) {
        // One look at the clock for all: they are sent at once.
        let now_ms = door::unix_ms();
        let mut state = self.lock();
        for (index, record) in records.iter().enumerate() {
            match self.append_locked(&mut state, record, now_ms, spare) {
                Ok(delivery) => taken(delivery),
                Err(reason) => return (index, Err(reason)),
            }
        }
        (records.len(), Ok(()))
    }

    #[inline]
    fn append_locked(
        &self,
        state: &mut TopicState,
        record: &Record<'_>,
        now_ms: i64,
        spare: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Delivery, NotTaken> {
        if state.partitions.is_empty() {
            return Err(NotTaken::Failed(SendError::Closed));
        }
        // Under the topic's lock, so that `await_appends` has something to wait for.
        if let Some(transaction) = &self.shared.transaction
            && !transaction.takes_records()
        {
            return Err(NotTaken::Failed(transaction.refusal()));
        }
        let bytes = record.bytes_bound();
        let partition = self.choose(state, record, bytes)?;
        let batches = &mut state.partitions[partition as usize];
        self.make_room(batches, partition, bytes, spare)?;
        let open = batches.open.as_mut().expect("room was made in it");
        let timestamp_ms = record.timestamp_ms.unwrap_or(now_ms);
        let Record {
            key, value, headers, ..
        } = *record;
        open.builder
            .append(&NewRecord {
                timestamp_ms,
                key,
                value,
                headers,
            })
            .map_err(|cause| NotTaken::Failed(SendError::Encode(cause)))?;
        let index = open.builder.record_count() as u32 - 1;
        let delivery = open.completion.delivery(index);
        if open.builder.plain_bytes() >= self.shared.config.batch_bytes {
            self.seal(batches, partition);
        }
        Ok(delivery)
    }

    #[inline]
    fn choose(&self, state: &mut TopicState, record: &Record<'_>, bytes: usize) -> Result<u32, NotTaken> {
        let count = state.partitions.len();
        let partition = match (record.partition, record.key) {
            (Some(partition), _) => {
                let index = u32::try_from(partition.0)
                    .ok()
                    .filter(|index| (*index as usize) < count);
                index.ok_or_else(|| {
                    let topic = self.name.to_string();
                    NotTaken::Failed(SendError::UnknownPartition {
                        topic,
                        partition,
                        count,
                    })
                })?
            }
            (None, Some(key)) => partition_for_key(key, count as u32),
            (None, None) if state.available.is_empty() => state.sticky.next(count as u32, bytes),
            (None, None) => {
                let place = state.sticky.next(state.available.len() as u32, bytes);
                state.available[place as usize]
            }
        };
        Ok(partition)
    }

    /// Sees to an open batch with memory for `bytes` more.
    #[inline]
    fn make_room(
        &self,
        batches: &mut Batches,
        partition: u32,
        bytes: usize,
        spare: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), NotTaken> {
        if let Some(open) = &mut batches.open {
            let needed = open.builder.plain_bytes() + bytes;
            if needed <= open.memory.num_permits() {
                return Ok(());
            }
            if needed <= self.shared.config.batch_bytes && self.grow(open, needed) {
                return Ok(());
            }
            self.seal(batches, partition);
        }
        self.open(batches, partition, bytes, spare)
    }

    fn grow(&self, open: &mut OpenBatch, needed: usize) -> bool {
        let held = open.memory.num_permits();
        let wanted = needed.max(2 * held).min(self.shared.config.batch_bytes);
        match self.shared.try_reserve(wanted - held) {
            Some(more) => {
                open.memory.merge(more);
                true
            }
            None => false,
        }
    }

    #[cold]
    fn open(
        &self,
        batches: &mut Batches,
        partition: u32,
        bytes: usize,
        spare: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), NotTaken> {
        let shared = &self.shared;
        if shared.is_closed() {
            return Err(NotTaken::Failed(SendError::Closed));
        }
        let needed = HEADER_BYTES + bytes;
        let limit = shared.config.record_bytes_max.min(shared.config.buffer_memory);
        if needed > limit {
            return Err(NotTaken::Failed(SendError::TooLarge { bytes: needed, limit }));
        }
        let usual = batches
            .usual_bytes
            .max(BATCH_BYTES_MIN)
            .min(shared.config.batch_bytes)
            .max(needed);
        let waited_for = spare.take().filter(|memory| memory.num_permits() >= needed);
        let memory = waited_for
            .or_else(|| shared.try_reserve(usual))
            .or_else(|| shared.try_reserve(needed));
        let Some(memory) = memory else {
            return Err(NotTaken::Memory(needed));
        };
        let completion = Completion::new(PartitionIndex(partition as i32));
        let duty = Duty::new(Arc::clone(&completion), shared.ledger.ticket());
        let builder = shared.builder(memory.num_permits());
        batches.open = Some(OpenBatch {
            builder,
            duty,
            memory,
            created: door::now(),
            completion,
        });
        self.signal(batches, partition);
        Ok(())
    }

    fn seal(&self, batches: &mut Batches, partition: u32) {
        if let Some(open) = batches.open.take().and_then(OpenBatch::finished) {
            batches.usual_bytes = open.builder.plain_bytes().min(self.shared.config.batch_bytes);
            batches.sealed.push_back(open);
            self.signal(batches, partition);
        }
    }

    fn signal(&self, batches: &mut Batches, partition: u32) {
        if !batches.signalled {
            batches.signalled = true;
            self.shared.signals().dirty.push((self.index, partition));
            self.shared.wake();
        }
    }

    /// Takes the oldest batch of a partition, as far as `which` allows.
    pub(super) fn take(&self, partition: u32, which: Take) -> Option<OpenBatch> {
        let mut state = self.lock();
        let batches = state.partitions.get_mut(partition as usize)?;
        batches.signalled = false;
        if let Some(sealed) = batches.sealed.pop_front() {
            return Some(sealed);
        }
        let due = match which {
            Take::Full => false,
            Take::BegunBy(at) => batches.open.as_ref().is_some_and(|open| open.created <= at),
            Take::Any => true,
        };
        if !due {
            return None;
        }
        let open = batches.open.take().and_then(OpenBatch::finished)?;
        batches.usual_bytes = open.builder.plain_bytes().min(self.shared.config.batch_bytes);
        Some(open)
    }

    /// When the oldest batch of a partition that waits here was begun.
    pub(super) fn oldest(&self, partition: u32) -> Option<Instant> {
        let state = self.lock();
        let batches = state.partitions.get(partition as usize)?;
        let oldest = batches.sealed.front().or(batches.open.as_ref());
        oldest.map(|batch| batch.created)
    }

    /// Follows the topic's growth; partitions never become fewer. `available` are those with a leader, if
    /// some have none.
    pub(super) fn resize(&self, count: usize, available: Option<Vec<u32>>) {
        let mut state = self.lock();
        let count = count.max(state.partitions.len()).max(1);
        state.partitions.resize_with(count, Batches::default);
        state.available = available.unwrap_or_default();
    }

    /// Drops everything that waits; its deliveries are told.
    pub(super) fn clear(&self) {
        let partitions = std::mem::take(&mut self.lock().partitions);
        // Outside the lock: a delivery's waiters run when they are told.
        drop(partitions);
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn lock(&self) -> MutexGuard<'_, TopicState> {
        // What can panic under it is a record that breaks the builder's own promises; the batches before
        // are whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenBatch {
    /// Binds the duty to the records that are in; `None` when there are none.
    fn finished(mut self) -> Option<Self> {
        let count = u32::try_from(self.builder.record_count())
            .ok()
            .filter(|count| *count > 0)?;
        self.duty.covers(count);
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_an_acknowledged_batch_is_used_for_another() {
        let shared = Shared::new(ProducerConfig::default());
        let place = |shared: &Arc<Shared>| {
            let mut builder = shared.builder(100_000);
            let value = Some(&[7_u8; 90_000][..]);
            let record = NewRecord {
                value,
                ..NewRecord::default()
            };
            builder.append(&record).expect("it fits");
            let bytes = builder.build().expect("it can be written");
            Finished::new(bytes.expect("there is a record"), shared)
        };
        let first = place(&shared);
        let at = first.as_ptr();
        let on_its_way = Bytes::clone(&first);
        drop(first);
        let second = place(&shared);
        assert_ne!(second.as_ptr(), at, "the first is still being sent");
        drop(on_its_way);
        let at = second.as_ptr();
        drop(second);
        assert_eq!(place(&shared).as_ptr(), at);
    }
}
