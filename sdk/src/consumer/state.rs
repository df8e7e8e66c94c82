//! What is fetched from whom, and what an answer means.
//!
//! Pure: time is an argument, effects are returned. Owns the fetch position of every partition. The rule it
//! must never break: a position moves only to the end of the last whole batch that was handed on, so that
//! nothing is lost or seen twice wherever a broker cuts an answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset, ProducerId, TopicId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::fetch::PartitionData;
use headwater_protocol::record::{self, Aborted, BatchView, Batches};

use super::queue::{Budget, Charge, Data, Frame, Message, Slot, Watermarks};
use super::session::Wanted;
use super::{ConsumerConfig, OutOfRange, TopicPartition};
use crate::admin::{Isolation, ListedOffset, OffsetSpec};
use crate::door::Instant;
use crate::error::Error;
use crate::retry::Backoff;
use crate::routing::Cluster;

/// Memory beside the batches that one message takes, so that many tiny ones are bounded too.
const MESSAGE_BYTES: usize = 512;
/// A batch that fails its check may have been damaged on the way: it is fetched again, so often.
const CORRUPT_ATTEMPTS: u32 = 3;

/// One of the streams to a node that fetches go over.
pub(super) type LaneKey = (NodeId, u8);

/// All partitions of one consumer.
pub(super) struct State {
    config: Arc<ConsumerConfig>,
    backoff: Backoff,
    parts: BTreeMap<TopicPartition, Part>,
    pub(super) budget: Arc<Budget>,
    busy: BTreeSet<LaneKey>,
    lanes: u8,
}

struct Part {
    slot: Arc<Slot>,
    generation: u32,
    place: Place,
    leader: Option<(NodeId, LeaderEpoch)>,
    topic_id: TopicId,
    paused: bool,
    /// A fetch of this generation is under way.
    fetching: bool,
    bytes_max: usize,
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    At(Offset),
    Find(OffsetSpec),
    Finding,
    /// Failed; only a seek wakes it.
    Resting,
}

/// A fetch to be sent.
pub(super) struct Plan {
    pub(super) lane: LaneKey,
    pub(super) wanted: BTreeMap<TopicPartition, Wanted>,
    pub(super) generations: BTreeMap<TopicPartition, u32>,
    pub(super) bytes_max: usize,
}

/// A place to be looked up.
pub(super) struct Lookup {
    pub(super) key: TopicPartition,
    pub(super) generation: u32,
    pub(super) spec: OffsetSpec,
}

/// What came of an answer.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) messages: Vec<Message>,
    pub(super) stale_metadata: bool,
}

impl State {
    pub(super) fn new(config: Arc<ConsumerConfig>, backoff: Backoff) -> Self {
        let lanes = config.fetch_streams.max(1);
        Self {
            config,
            backoff,
            parts: BTreeMap::new(),
            budget: Arc::default(),
            busy: BTreeSet::new(),
            lanes,
        }
    }

    /// Adds a partition, or moves one that is there.
    pub(super) fn place(&mut self, slot: Arc<Slot>, generation: u32, at: OffsetOrSpec, cluster: &Cluster) {
        let place = match at {
            OffsetOrSpec::Offset(offset) => Place::At(offset),
            OffsetOrSpec::Spec(spec) => Place::Find(spec),
        };
        let paused = self.parts.get(&slot.key).is_some_and(|part| part.paused);
        let mut part = Part {
            generation,
            place,
            leader: None,
            topic_id: TopicId::NONE,
            paused,
            fetching: false,
            bytes_max: self.config.partition_fetch_bytes,
            failures: 0,
            not_before: None,
            slot,
        };
        part.route(cluster);
        self.parts.insert(part.slot.key.clone(), part);
    }

    pub(super) fn remove(&mut self, key: &TopicPartition) {
        self.parts.remove(key);
    }

    pub(super) fn pause(&mut self, key: &TopicPartition, paused: bool) {
        if let Some(part) = self.parts.get_mut(key) {
            part.paused = paused;
        }
    }

    /// Takes note of leaders. A topic that is gone fails its partitions.
    pub(super) fn route(&mut self, cluster: &Cluster) {
        for part in self.parts.values_mut() {
            part.route(cluster);
        }
    }

    /// Fails the partitions of topics that the cluster, freshly asked, does not know.
    pub(super) fn fail_unknown(&mut self, cluster: &Cluster) -> Vec<Message> {
        let unknown =
            |part: &&mut Part| cluster.topic(&part.slot.key.topic).is_none() && part.place != Place::Resting;
        let gone = self.parts.values_mut().filter(unknown);
        gone.map(|part| part.fail(Error::UnknownTopic(part.slot.key.topic.to_string())))
            .collect()
    }

    /// Whether a partition waits for a leader.
    pub(super) fn lacks_leader(&self) -> bool {
        self.parts
            .values()
            .any(|part| part.leader.is_none() && matches!(part.place, Place::At(_)))
    }

    /// The places to be looked up now; each is named once.
    pub(super) fn lookups(&mut self, now: Instant) -> Vec<Lookup> {
        let mut lookups = Vec::new();
        for (key, part) in &mut self.parts {
            if let Place::Find(spec) = part.place
                && part.is_due(now)
            {
                part.place = Place::Finding;
                lookups.push(Lookup {
                    key: key.clone(),
                    generation: part.generation,
                    spec,
                });
            }
        }
        lookups
    }

    /// The answer to a lookup.
    pub(super) fn found(
        &mut self,
        lookup: &Lookup,
        result: Result<Option<ListedOffset>, Error>,
        now: Instant,
        chance: u64,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(part) = self.parts.get_mut(&lookup.key) else {
            return outcome;
        };
        if part.generation != lookup.generation || part.place != Place::Finding {
            return outcome;
        }
        match result {
            Ok(Some(ListedOffset {
                offset: Some(offset), ..
            })) => {
                part.settle(offset);
                let (slot, generation) = (Arc::clone(&part.slot), part.generation);
                outcome.messages.push(Message::Placed {
                    slot,
                    generation,
                    offset,
                });
            }
            // No record is that young: reading goes on with the next that comes.
            Ok(_) => part.place = Place::Find(OffsetSpec::Latest),
            Err(error) if error.is_retriable() => {
                part.place = Place::Find(lookup.spec);
                part.wait(&self.backoff, now, chance);
                outcome.stale_metadata = true;
            }
            Err(error) => outcome.messages.push(part.fail(error)),
        }
        outcome
    }

    /// The fetches to send now: every partition that is due and has room, on a lane of its leader that is
    /// free.
    pub(super) fn plans(&mut self, now: Instant) -> Vec<Plan> {
        let mut plans = Vec::new();
        let nodes: BTreeSet<NodeId> = self
            .parts
            .values()
            .filter_map(|part| part.leader.map(|(node, _)| node))
            .collect();
        // Half of the budget rests here, half is shared by all fetches that can be under way: an idle one,
        // which may come back full, does not keep others from being sent.
        let half = (self.config.prefetch_bytes / 2).max(1);
        if self.budget.used() >= half {
            return plans;
        }
        let share = half / (nodes.len().max(1) * usize::from(self.lanes));
        let bytes_max = share.clamp(1, self.config.fetch_bytes_max);
        for node in nodes {
            let free = (0..self.lanes).find(|lane| !self.busy.contains(&(node, *lane)));
            let plan = free.and_then(|lane| self.plan((node, lane), bytes_max, now));
            if let Some(plan) = plan {
                self.busy.insert(plan.lane);
                plans.push(plan);
            }
        }
        plans
    }

    fn plan(&mut self, lane: LaneKey, bytes_max: usize, now: Instant) -> Option<Plan> {
        let (mut wanted, mut generations) = (BTreeMap::new(), BTreeMap::new());
        for (key, part) in &mut self.parts {
            let (Place::At(offset), Some((node, leader_epoch))) = (part.place, part.leader) else {
                continue;
            };
            let full = part.slot.buffered() >= self.config.prefetch_partition_bytes;
            if node != lane.0 || part.paused || part.fetching || full || !part.is_due(now) {
                continue;
            }
            part.fetching = true;
            let bytes_max = i32::try_from(part.bytes_max).unwrap_or(i32::MAX);
            wanted.insert(
                key.clone(),
                Wanted {
                    topic_id: part.topic_id,
                    offset,
                    leader_epoch,
                    bytes_max,
                },
            );
            generations.insert(key.clone(), part.generation);
        }
        (!wanted.is_empty()).then_some(Plan {
            lane,
            wanted,
            generations,
            bytes_max,
        })
    }

    /// A fetch is over, well or not: its lane and its partitions are free.
    pub(super) fn ended(&mut self, lane: LaneKey, generations: &BTreeMap<TopicPartition, u32>) {
        self.busy.remove(&lane);
        for (key, generation) in generations {
            if let Some(part) = self
                .parts
                .get_mut(key)
                .filter(|part| part.generation == *generation)
            {
                part.fetching = false;
            }
        }
    }

    /// A fetch failed as a whole.
    pub(super) fn failed(
        &mut self,
        generations: &BTreeMap<TopicPartition, u32>,
        error: &Error,
        now: Instant,
        chance: u64,
    ) -> Outcome {
        let mut outcome = Outcome {
            stale_metadata: true,
            ..Outcome::default()
        };
        for (key, generation) in generations {
            let Some(part) = self
                .parts
                .get_mut(key)
                .filter(|part| part.generation == *generation)
            else {
                continue;
            };
            if error.is_retriable() {
                part.wait(&self.backoff, now, chance);
            } else {
                outcome.messages.push(part.fail(error.clone()));
            }
        }
        outcome
    }

    /// One partition's part of an answer to a fetch that began at `from`.
    pub(super) fn fetched(
        &mut self,
        key: &TopicPartition,
        generation: u32,
        data: PartitionData,
        frame: &Arc<Frame>,
        now: Instant,
        chance: u64,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(part) = self
            .parts
            .get_mut(key)
            .filter(|part| part.generation == generation)
        else {
            return outcome;
        };
        let Place::At(from) = part.place else {
            return outcome;
        };
        let code = ErrorCode(data.error_code);
        if code == ErrorCode::NONE {
            part.take(
                &self.config,
                from,
                data,
                frame,
                &self.backoff,
                (now, chance),
                &mut outcome,
            );
        } else if code == ErrorCode::OFFSET_OUT_OF_RANGE {
            part.out_of_range(&self.config, from, &mut outcome);
        } else {
            let error = Error::refused(format!("fetch {key}"), code.0, None);
            // A broker that has not heard of the topic yet says that it is unknown; the fresh image decides.
            let unknown = [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::UNKNOWN_TOPIC_ID];
            if error.is_retriable() || unknown.contains(&code) {
                part.wait(&self.backoff, now, chance);
                outcome.stale_metadata = true;
            } else {
                outcome.messages.push(part.fail(error));
            }
        }
        outcome
    }

    /// When something becomes due that is not yet.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.parts
            .values()
            .filter_map(|part| part.not_before)
            .filter(|at| *at > now)
            .min()
    }
}

/// A place by number or by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OffsetOrSpec {
    Offset(Offset),
    Spec(OffsetSpec),
}

impl Part {
    fn route(&mut self, cluster: &Cluster) {
        let key = &self.slot.key;
        self.leader = cluster.leader(&key.topic, key.partition);
        self.topic_id = cluster.topic(&key.topic).map_or(TopicId::NONE, |topic| topic.id);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    fn settle(&mut self, offset: Offset) {
        self.place = Place::At(offset);
        self.failures = 0;
        self.not_before = None;
    }

    fn wait(&mut self, backoff: &Backoff, now: Instant, chance: u64) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + backoff.pause(self.failures, chance));
    }

    fn fail(&mut self, error: Error) -> Message {
        self.place = Place::Resting;
        Message::Failed {
            slot: Arc::clone(&self.slot),
            generation: self.generation,
            error,
        }
    }

    fn out_of_range(&mut self, config: &ConsumerConfig, from: Offset, outcome: &mut Outcome) {
        let key = &self.slot.key;
        match config.out_of_range {
            OutOfRange::Earliest => self.place = Place::Find(OffsetSpec::Earliest),
            OutOfRange::Latest => self.place = Place::Find(OffsetSpec::Latest),
            OutOfRange::Fail => {
                let topic = key.topic.to_string();
                let error = Error::OffsetOutOfRange {
                    topic,
                    partition: key.partition,
                    offset: from,
                };
                outcome.messages.push(self.fail(error));
                return;
            }
        }
        tracing::warn!(topic = %key.topic, partition = key.partition.0, offset = from.0, "position out of range");
    }

    /// Takes the whole batches of an answer and moves on behind them.
    #[allow(clippy::too_many_arguments, reason = "one place, called once")]
    fn take(
        &mut self,
        config: &ConsumerConfig,
        from: Offset,
        data: PartitionData,
        frame: &Arc<Frame>,
        backoff: &Backoff,
        (now, chance): (Instant, u64),
        outcome: &mut Outcome,
    ) {
        self.slot.note(Watermarks {
            log_start: Offset(data.log_start_offset),
            high_watermark: Offset(data.high_watermark),
            last_stable: Offset(data.last_stable_offset),
        });
        let bytes = data.records.unwrap_or_default().into_bytes();
        if bytes.is_empty() {
            self.failures = 0;
            return;
        }
        let aborted = match config.isolation {
            Isolation::ReadUncommitted => Vec::new(),
            Isolation::ReadCommitted => data.aborted_transactions.unwrap_or_default(),
        };
        let received = bytes.len();
        let aborted = aborted.iter();
        let aborted = aborted.map(|named| (ProducerId(named.producer_id), Offset(named.first_offset)));
        let split = split(bytes, from, config.check_crc, Aborted::new(aborted));
        if split.next > from {
            self.place = Place::At(split.next);
            self.failures = 0;
            let used: usize = split.batches.iter().map(|batch| batch.bytes().len()).sum();
            let charge = Charge::new(Arc::clone(&self.slot), used + MESSAGE_BYTES, Arc::clone(frame));
            let (slot, generation) = (Arc::clone(&self.slot), self.generation);
            let Split { batches, next, .. } = split;
            outcome.messages.push(Message::Data(Data {
                slot,
                generation,
                from,
                batches,
                next,
                _charge: charge,
            }));
        } else if split.corrupt.is_none() {
            // Not even one batch fitted; brokers of today send it all the same.
            self.bytes_max = self.bytes_max.saturating_mul(2).max(received);
        }
        let Some(cause) = split.corrupt else { return };
        self.wait(backoff, now, chance);
        if self.failures >= CORRUPT_ATTEMPTS {
            let (topic, partition) = (self.slot.key.topic.to_string(), self.slot.key.partition);
            let error = Error::Corrupt {
                topic,
                partition,
                offset: split.next,
                cause,
            };
            outcome.messages.push(self.fail(error));
        }
    }
}

/// What the bytes of an answer hold.
struct Split {
    /// Whole batches that a consumer sees.
    batches: VecDeque<BatchView>,
    /// Behind the last whole batch, seen or hidden.
    next: Offset,
    /// Why the batch at `next` is not good.
    corrupt: Option<record::Error>,
}

fn split(bytes: Bytes, from: Offset, check_crc: bool, mut aborted: Aborted) -> Split {
    let mut split = Split {
        batches: VecDeque::new(),
        next: from,
        corrupt: None,
    };
    for batch in Batches::new(bytes) {
        let checked = batch.and_then(|batch| {
            if check_crc {
                batch.check_crc().map(|()| batch)
            } else {
                Ok(batch)
            }
        });
        match checked {
            // The broker may begin earlier than asked.
            Ok(batch) if batch.next_offset() <= split.next => {}
            Ok(batch) => {
                split.next = batch.next_offset();
                let hidden = aborted.hides(&batch);
                // What compaction has emptied only says that its offsets were there.
                let has_records = batch.header().record_count > 0;
                if !hidden && has_records && !batch.header().is_control() {
                    split.batches.push_back(batch);
                }
            }
            // Cut by the broker: the rest comes with the next answer.
            Err(record::Error::Incomplete { .. }) => break,
            Err(cause) => {
                split.corrupt = Some(cause);
                break;
            }
        }
    }
    split
}
