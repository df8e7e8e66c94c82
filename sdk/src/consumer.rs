//! [`Consumer`]: reads partitions in order, from any place, ahead of its reader.
//!
//! Owns the positions. Partitions are assigned by hand; the task behind it fetches ahead within a budget of
//! bytes. It must never move a position past a record that was not handed out.

mod batch;
mod fetcher;
mod queue;
mod session;
mod state;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::record::OwnedRecords;
use tokio::sync::mpsc;

pub use self::batch::{Batch, ConsumerRecord, RecordView, Records};
use self::fetcher::{Command, Fetcher};
pub use self::queue::Watermarks;
use self::queue::{Data, Message, Queue, Slot};
use self::state::OffsetOrSpec;
use crate::admin::{Isolation, OffsetSpec};
use crate::client::Client;
use crate::config::ConfigError;
use crate::door::Tasks;
use crate::error::Error;

/// Commands that may wait for the task; more make their callers wait.
const COMMANDS: usize = 256;

/// Settings of a [`Consumer`].
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    pub isolation: Isolation,
    /// What to do when a position is not in the log (any more).
    pub out_of_range: OutOfRange,
    /// A fetch is answered at once when so many bytes are there.
    pub fetch_bytes_min: usize,
    /// Otherwise it is answered after this time at the latest.
    pub fetch_wait: Duration,
    /// Bytes one answer may bring.
    pub fetch_bytes_max: usize,
    /// Bytes one answer may bring of one partition. A single larger batch comes all the same.
    pub partition_fetch_bytes: usize,
    /// Bytes that may be fetched ahead in all: half of them at rest, half under way.
    pub prefetch_bytes: usize,
    /// A partition with so many bytes ahead is not fetched.
    pub prefetch_partition_bytes: usize,
    /// Fetches that may be under way at one broker, each on a stream of its own: a partition that waits for
    /// records does not delay one that has them.
    pub fetch_streams: u8,
    /// Whether every batch is compared with its checksum.
    pub check_crc: bool,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            isolation: Isolation::ReadUncommitted,
            out_of_range: OutOfRange::Earliest,
            fetch_bytes_min: 1,
            fetch_wait: Duration::from_millis(500),
            fetch_bytes_max: 16 << 20,
            partition_fetch_bytes: 4 << 20,
            prefetch_bytes: 64 << 20,
            prefetch_partition_bytes: 16 << 20,
            fetch_streams: 3,
            check_crc: true,
        }
    }
}

/// What happens when a position is out of range, for instance because retention has passed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfRange {
    /// Go on with the first record that is there.
    Earliest,
    /// Go on with the next record that comes.
    Latest,
    /// Fail with [`Error::OffsetOutOfRange`]; the partition rests until a seek.
    Fail,
}

/// Where to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first record that is there.
    Earliest,
    /// The next record that comes.
    Latest,
    Offset(Offset),
    /// The first record with this timestamp (milliseconds since 1970) or a later one.
    Timestamp(i64),
}

impl From<Start> for OffsetOrSpec {
    fn from(start: Start) -> Self {
        match start {
            Start::Offset(offset) => Self::Offset(offset),
            Start::Earliest => Self::Spec(OffsetSpec::Earliest),
            Start::Latest => Self::Spec(OffsetSpec::Latest),
            Start::Timestamp(ms) => Self::Spec(OffsetSpec::Timestamp(ms)),
        }
    }
}

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} partition {}", self.topic, self.partition)
    }
}

/// Reads the partitions it was assigned.
///
/// - Records of one partition come in order, each once, until a seek.
/// - Memory: at most `prefetch_bytes` are fetched ahead or under way, but for single batches larger than
///   what was asked for.
/// - Dropping it stops its task; [`Consumer::close`] waits for that.
pub struct Consumer {
    client: Client,
    parts: BTreeMap<TopicPartition, Assigned>,
    queue: Arc<Queue>,
    commands: mpsc::Sender<Command>,
    tasks: Tasks,
    /// Batches ready to be handed out, all of one partition.
    current: Option<Current>,
}

struct Assigned {
    slot: Arc<Slot>,
    position: Option<Offset>,
    paused: bool,
    /// What came while the partition was paused.
    held: VecDeque<Data>,
}

struct Current {
    data: Data,
    /// The batch whose records are handed out one by one.
    records: Option<OwnedRecords>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Consumer {
    pub(crate) fn new(client: Client, config: ConsumerConfig) -> Result<Self, Error> {
        let least = config
            .fetch_bytes_max
            .min(config.partition_fetch_bytes)
            .min(config.prefetch_bytes);
        if least == 0 {
            return Err(ConfigError::TooSmall {
                what: "a consumer's fetch and prefetch bytes",
                min: 1,
            }
            .into());
        }
        let queue = Arc::new(Queue::default());
        let (commands, to_obey) = mpsc::channel(COMMANDS);
        let tasks = client.tasks().child();
        let fetcher = Fetcher::new(client.clone(), Arc::new(config), Arc::clone(&queue), to_obey);
        tasks.spawn(fetcher.run(tasks.token().clone()));
        Ok(Self {
            client,
            parts: BTreeMap::new(),
            queue,
            commands,
            tasks,
            current: None,
        })
    }

    /// Adds partitions of a topic, to be read from `start`. Partitions that are there already are moved.
    ///
    /// A dropped future may have added some of them.
    pub async fn assign(
        &mut self,
        topic: &str,
        partitions: &[PartitionIndex],
        start: Start,
    ) -> Result<(), Error> {
        let known = self.client.topic(topic).await?;
        let count = known.partitions.len();
        let there =
            |partition: &&PartitionIndex| usize::try_from(partition.0).is_ok_and(|index| index < count);
        if let Some(partition) = partitions.iter().find(|partition| !there(partition)) {
            return Err(Error::UnknownPartition {
                topic: topic.to_owned(),
                partition: *partition,
                count,
            });
        }
        for partition in partitions {
            let key = TopicPartition {
                topic: Arc::clone(&known.name),
                partition: *partition,
            };
            self.place(key, start).await?;
        }
        Ok(())
    }

    /// Adds all partitions that a topic has at the moment.
    ///
    /// A dropped future may have added some of them.
    pub async fn assign_all(&mut self, topic: &str, start: Start) -> Result<(), Error> {
        let count = self.client.topic(topic).await?.partitions.len();
        let all: Vec<_> = (0..count).map(|index| PartitionIndex(index as i32)).collect();
        self.assign(topic, &all, start).await
    }

    /// Stops reading a partition and forgets its position. A dropped future may have done so.
    pub async fn unassign(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), Error> {
        let key = TopicPartition {
            topic: Arc::from(topic),
            partition,
        };
        let Some(assigned) = self.parts.remove(&key) else {
            return Ok(());
        };
        assigned.slot.generation.fetch_add(1, Ordering::AcqRel);
        self.tell(Command::Remove(key)).await
    }

    /// Moves the position of an assigned partition. What was fetched ahead is dropped.
    ///
    /// A dropped future may leave the partition at rest; seek again.
    pub async fn seek(&mut self, topic: &str, partition: PartitionIndex, to: Start) -> Result<(), Error> {
        let key = TopicPartition {
            topic: Arc::from(topic),
            partition,
        };
        if !self.parts.contains_key(&key) {
            return Err(Error::Usage(
                "seek needs an assigned partition; call assign first",
            ));
        }
        self.place(key, to).await
    }

    /// Keeps a partition from being handed out and fetched; its position stays.
    ///
    /// A dropped future may have paused it.
    pub async fn pause(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), Error> {
        self.set_paused(topic, partition, true).await
    }

    /// Undoes [`Consumer::pause`]. A dropped future may have done so.
    pub async fn resume(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), Error> {
        self.set_paused(topic, partition, false).await
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The partitions being read.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.parts.keys()
    }

    /// The offset of the next record of a partition; `None` until a place given by meaning was looked up.
    pub fn position(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        self.part(topic, partition)?.position
    }

    /// Offsets of a partition as last told by its leader.
    pub fn watermarks(&self, topic: &str, partition: PartitionIndex) -> Option<Watermarks> {
        self.part(topic, partition)?.slot.watermarks()
    }

    /// How many offsets the position is behind the high watermark.
    pub fn lag(&self, topic: &str, partition: PartitionIndex) -> Option<i64> {
        let part = self.part(topic, partition)?;
        Some(
            part.slot
                .watermarks()?
                .high_watermark
                .since(part.position?)
                .max(0),
        )
    }

    /// The next batch of any partition, waiting for one. The position moves behind it.
    ///
    /// Cancel safe: a dropped future has handed out nothing.
    pub async fn next_batch(&mut self) -> Result<Batch, Error> {
        loop {
            if let Some(batch) = self.take_batch() {
                return Ok(batch);
            }
            self.advance().await?;
        }
    }

    /// The next batch if one is at hand.
    pub fn try_next_batch(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            if let Some(batch) = self.take_batch() {
                return Ok(Some(batch));
            }
            let Some(message) = self.queue.try_pop() else {
                return Ok(None);
            };
            self.accept(message)?;
        }
    }

    /// The next record of any partition, waiting for one. The position moves behind it.
    ///
    /// Cancel safe: a dropped future has handed out nothing.
    pub async fn next(&mut self) -> Result<ConsumerRecord, Error> {
        loop {
            if let Some(record) = self.take_record()? {
                return Ok(record);
            }
            self.advance().await?;
        }
    }

    /// Stops the task and waits for its end.
    pub async fn close(self) {
        self.tasks.cancel();
        self.commands.closed().await;
    }

    async fn advance(&mut self) -> Result<(), Error> {
        let message = tokio::select! {
            biased;
            message = self.queue.pop() => message,
            () = self.tasks.token().cancelled() => return Err(Error::Closed),
        };
        self.accept(message)
    }

    fn accept(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Data(data) => {
                let Some(part) = current_part(&mut self.parts, &data.slot, data.generation) else {
                    return Ok(());
                };
                if part.paused {
                    part.held.push_back(data);
                } else {
                    self.current = Some(Current { data, records: None });
                }
                Ok(())
            }
            Message::Placed {
                slot,
                generation,
                offset,
            } => {
                if let Some(part) = current_part(&mut self.parts, &slot, generation) {
                    part.position = Some(offset);
                }
                Ok(())
            }
            Message::Failed {
                slot,
                generation,
                error,
            } => current_part(&mut self.parts, &slot, generation).map_or(Ok(()), |_| Err(error)),
        }
    }

    /// The next batch of what is at hand.
    fn take_batch(&mut self) -> Option<Batch> {
        loop {
            let current = self.current.as_mut()?;
            let (slot, generation) = (&current.data.slot, current.data.generation);
            let Some(part) = current_part(&mut self.parts, slot, generation) else {
                self.current = None;
                continue;
            };
            if part.paused {
                let current = self.current.take()?;
                part.held.push_front(current.data);
                return None;
            }
            let position = part.position.unwrap_or(current.data.from).max(current.data.from);
            current.records = None;
            // A batch whose records were handed out one by one is passed by when they are all out.
            let rest = current.data.batches.pop_front();
            match rest {
                Some(view) if view.next_offset() <= position => {}
                Some(view) => {
                    part.position = Some(view.next_offset());
                    return Some(Batch::new(slot.key.clone(), position, view));
                }
                None => {
                    part.position = Some(current.data.next.max(position));
                    self.current = None;
                }
            }
        }
    }

    /// The next record of what is at hand.
    fn take_record(&mut self) -> Result<Option<ConsumerRecord>, Error> {
        loop {
            let Some(current) = self.current.as_mut() else {
                return Ok(None);
            };
            let slot = Arc::clone(&current.data.slot);
            let part = current_part(&mut self.parts, &slot, current.data.generation);
            let Some(part) = part.filter(|part| !part.paused) else {
                // Paused or moved: the batch path knows what to do with the rest.
                let taken = self.take_batch();
                debug_assert!(taken.is_none(), "nothing is handed out of a partition that rests");
                return Ok(None);
            };
            let position = part.position.unwrap_or(current.data.from).max(current.data.from);
            if let Some(records) = &mut current.records {
                match next_from(records, position) {
                    Some(Ok(record)) => {
                        part.position = Some(record.offset.plus(1));
                        let TopicPartition { topic, partition } = slot.key.clone();
                        return Ok(Some(ConsumerRecord {
                            topic,
                            partition,
                            record,
                        }));
                    }
                    Some(Err(cause)) => return Err(self.rest(&slot, position, cause)),
                    None => {
                        current.records = None;
                        if let Some(done) = current.data.batches.pop_front() {
                            part.position = Some(done.next_offset().max(position));
                        }
                    }
                }
                continue;
            }
            let Some(view) = current.data.batches.front() else {
                part.position = Some(current.data.next.max(position));
                self.current = None;
                continue;
            };
            let records = Batch::new(slot.key.clone(), position, view.clone()).records();
            match records {
                Ok(records) => current.records = Some(records.into_owned()),
                Err(cause) => return Err(self.rest(&slot, position, cause)),
            }
        }
    }

    /// Stops reading a partition whose records cannot be read, until a seek.
    fn rest(&mut self, slot: &Arc<Slot>, at: Offset, cause: headwater_protocol::record::Error) -> Error {
        self.current = None;
        // What was fetched behind it is void. If the task has no ear now, it goes on until its budget ends.
        slot.generation.fetch_add(1, Ordering::AcqRel);
        let _ = self.commands.try_send(Command::Remove(slot.key.clone()));
        let (topic, partition) = (slot.key.topic.to_string(), slot.key.partition);
        Error::Corrupt {
            topic,
            partition,
            offset: at,
            cause,
        }
    }

    async fn place(&mut self, key: TopicPartition, start: Start) -> Result<(), Error> {
        let position = match start {
            Start::Offset(offset) => Some(offset),
            Start::Earliest | Start::Latest | Start::Timestamp(_) => None,
        };
        let slot = match self.parts.get(&key) {
            Some(part) => Arc::clone(&part.slot),
            None => Slot::new(key.clone()),
        };
        let generation = slot.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let paused = self.parts.get(&key).is_some_and(|part| part.paused);
        let assigned = Assigned {
            slot: Arc::clone(&slot),
            position,
            paused,
            held: VecDeque::new(),
        };
        self.parts.insert(key, assigned);
        self.tell(Command::Place {
            slot,
            generation,
            at: start.into(),
        })
        .await
    }

    async fn set_paused(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        paused: bool,
    ) -> Result<(), Error> {
        let key = TopicPartition {
            topic: Arc::from(topic),
            partition,
        };
        let Some(part) = self.parts.get_mut(&key) else {
            return Err(Error::Usage(
                "pause and resume need an assigned partition; call assign first",
            ));
        };
        part.paused = paused;
        if !paused {
            // In front: what came after it may be waiting there.
            self.queue.push_front(std::mem::take(&mut part.held));
        }
        self.tell(if paused {
            Command::Pause(key)
        } else {
            Command::Resume(key)
        })
        .await
    }

    async fn tell(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::Closed)
    }

    fn part(&self, topic: &str, partition: PartitionIndex) -> Option<&Assigned> {
        self.parts.get(&TopicPartition {
            topic: Arc::from(topic),
            partition,
        })
    }
}

/// The partition that a message is for, unless a seek has made the message void.
fn current_part<'a>(
    parts: &'a mut BTreeMap<TopicPartition, Assigned>,
    slot: &Arc<Slot>,
    generation: u32,
) -> Option<&'a mut Assigned> {
    if slot.generation() != generation {
        return None;
    }
    parts
        .get_mut(&slot.key)
        .filter(|part| Arc::ptr_eq(&part.slot, slot))
}

/// The next record at or after `position`.
fn next_from(
    records: &mut OwnedRecords,
    position: Offset,
) -> Option<Result<headwater_protocol::record::Record, headwater_protocol::record::Error>> {
    records.find(|record| record.as_ref().map_or(true, |record| record.offset >= position))
}

#[cfg(test)]
mod tests;
