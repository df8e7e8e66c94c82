//! The task of a producer: takes batches, numbers them, sends them to their leaders and judges the answers.
//!
//! Owns every partition's sequencer and the lanes to the brokers. It must never wait for one thing alone,
//! and never hold a batch back for another partition's sake.

mod draft;
mod lanes;
mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use headwater_protocol::ids::{NodeId, PartitionIndex, ProducerEpoch, ProducerId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::init_producer_id::InitProducerIdRequest;
use headwater_protocol::kafka::produce::ProduceResponse;
use headwater_protocol::record::BatchBuilder;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::draft::{Draft, Entry};
use self::transaction::Adding;
use super::batcher::{Finished, OpenBatch, PartitionKey, Shared, Take, Topic};
use super::delivery::{Duty, SendError, Written};
use super::sequencer::{Batch, Identity, Needs, Numbering, Outcome, Sequencer};
use super::stamp::{self, Stamp};
use super::transaction::Coordinator;
use crate::client::{Client, Target};
use crate::connection::{CallError, Connection};
use crate::door::{self, Instant};
use crate::error::Error;
use crate::routing::{Cluster, LeaderHint};

/// Batches larger than this are compressed away from the task.
const INLINE_COMPRESSION_BYTES: usize = 16 * 1024;

/// What a builder made of the records in it; nothing when there were none.
type Built = Result<Option<Bytes>, headwater_protocol::record::Error>;
/// A node and which of the streams to it.
type LaneKey = (NodeId, u8);

pub(super) struct Sender {
    client: Client,
    shared: Arc<Shared>,
    parts: BTreeMap<PartitionKey, Part>,
    lanes: BTreeMap<LaneKey, LaneState>,
    identity: Option<Identity>,
    identifying: bool,
    refreshing: bool,
    /// Partitions to look at.
    dirty: BTreeSet<PartitionKey>,
    timers: BTreeSet<(Instant, PartitionKey)>,
    work: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    image: watch::Receiver<Arc<Cluster>>,
    cluster: Arc<Cluster>,
    flushing: bool,
    /// Of the producer's transactions, if it has any.
    coordinator: Option<Arc<Coordinator>>,
    adding: Adding,
}

struct Part {
    topic: Arc<Topic>,
    sequencer: Sequencer,
    /// Where what is in flight was sent.
    lane: Option<LaneKey>,
    building: bool,
    timer: Option<Instant>,
}

#[derive(Default)]
struct LaneState {
    connection: Option<Connection>,
    /// Being dialed, resting after a failure, or full: some work will say when that is over.
    busy: bool,
    failures: u32,
    waiting: BTreeSet<PartitionKey>,
    draft: Draft,
}

/// Work that is over.
enum Done {
    Answered {
        lane: LaneKey,
        entries: Vec<Entry>,
        answer: Result<ProduceResponse, CallError>,
    },
    Connected {
        lane: LaneKey,
        result: Result<Connection, Error>,
    },
    /// A lane that rested, or had no room, may be looked at again.
    LaneAwake(LaneKey),
    Identified(Result<Identity, Error>),
    /// The coordinator was told of partitions.
    Added,
    Refreshed(Result<(), Error>),
    Built {
        key: PartitionKey,
        batch: Option<Batch>,
        builder: Option<Box<BatchBuilder>>,
    },
}

impl Sender {
    pub(super) fn new(client: Client, shared: Arc<Shared>, coordinator: Option<Arc<Coordinator>>) -> Self {
        let image = client.metadata().watch();
        let cluster = client.cluster();
        Self {
            client,
            shared,
            parts: BTreeMap::new(),
            lanes: BTreeMap::new(),
            identity: None,
            identifying: false,
            refreshing: false,
            dirty: BTreeSet::new(),
            timers: BTreeSet::new(),
            work: FuturesUnordered::new(),
            image,
            cluster,
            flushing: false,
            coordinator,
            adding: Adding::default(),
        }
    }

    /// Runs until told to stop; then every batch that is left has failed.
    pub(super) async fn run(mut self, stopped: CancellationToken, ended: CancellationToken) {
        let _ended = ended.drop_guard();
        if self.numbering() == Numbering::Idempotent {
            self.identify();
        }
        loop {
            self.hear();
            self.look();
            let due = self.timers.first().map(|(at, _)| *at);
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                biased;
                () = stopped.cancelled() => break,
                Some(done) = self.work.next() => self.finish(done),
                () = shared.woken() => {}
                changed = self.image.changed() => match changed {
                    Ok(()) => self.follow(),
                    Err(_) => break,
                },
                () = door::sleep_until(due.unwrap_or_else(door::now)), if due.is_some() => self.ring(),
            }
        }
        self.shared.close();
        let topics = std::mem::take(&mut self.shared.signals().topics);
        topics.iter().for_each(|topic| topic.clear());
    }

    fn numbering(&self) -> Numbering {
        match (&self.shared.transaction, self.shared.config.is_idempotent()) {
            (Some(_), _) => Numbering::Transactional,
            (None, true) => Numbering::Idempotent,
            (None, false) => Numbering::None,
        }
    }

    /// Takes in what the batcher says.
    fn hear(&mut self) {
        let numbering = self.numbering();
        let mut signals = self.shared.signals();
        for key in std::mem::take(&mut signals.dirty) {
            self.dirty.insert(key);
            if let std::collections::btree_map::Entry::Vacant(place) = self.parts.entry(key)
                && let Some(topic) = signals.topics.get(key.0 as usize)
            {
                let sequencer = Sequencer::new(numbering, self.shared.config.in_flight_max);
                let topic = Arc::clone(topic);
                place.insert(Part {
                    topic,
                    sequencer,
                    lane: None,
                    building: false,
                    timer: None,
                });
            }
        }
        let flushing = signals.flushes > 0;
        let began = flushing && !self.flushing;
        self.flushing = flushing;
        drop(signals);
        if began {
            self.dirty.extend(self.parts.keys());
        }
        self.heed_transaction();
    }

    /// Does what can be done for every partition that may have something to do, then sends.
    fn look(&mut self) {
        let now = door::now();
        while let Some(key) = self.dirty.pop_first() {
            self.look_at(key, now);
        }
        self.add_partitions(now);
        let drafted: Vec<LaneKey> = self
            .lanes
            .iter()
            .filter(|(_, lane)| !lane.draft.is_empty())
            .map(|(key, _)| *key)
            .collect();
        for lane in drafted {
            self.submit(lane, now);
        }
    }

    fn look_at(&mut self, key: PartitionKey, now: Instant) {
        if let Some(error) = self.doom() {
            self.fail(key, &error);
        }
        self.expire(key, now);
        while self.advance(key, now) {}
        self.set_timer(key, now);
    }

    /// Moves one batch of a partition on. `false` when there is nothing to do, or something to wait for.
    fn advance(&mut self, key: PartitionKey, now: Instant) -> bool {
        let (linger, flushing) = (self.shared.config.linger, self.flushing);
        let Some(part) = self.parts.get_mut(&key) else {
            return false;
        };
        if part.building || !part.sequencer.may_send(now) {
            return false;
        }
        if !part.sequencer.has_queued() && part.topic.oldest(key.1).is_none() {
            return false;
        }
        let transaction = self.shared.transaction.as_ref();
        let identity = transaction.map_or(self.identity, |transaction| transaction.identity());
        if let Some(identity) = identity {
            part.sequencer.identify(identity);
        }
        if !part.sequencer.has_identity() {
            self.identify();
            return false;
        }
        if !self.admits(key) {
            return false;
        }
        let Some(part) = self.parts.get_mut(&key) else {
            return false;
        };
        let partition = PartitionIndex(key.1 as i32);
        let Some((node, _)) = self.cluster.leader(&part.topic.name, partition) else {
            part.sequencer
                .note_failure("the partition has no leader".to_owned());
            self.refresh(now + self.client.config().backoff.pause(1, door::random_u64()));
            return false;
        };
        let lane = (node, self.stream_of(key));
        let Some(part) = self.parts.get_mut(&key) else {
            return false;
        };
        // To another lane only when nothing is under way on the old one, or the order might be lost.
        if part.sequencer.has_in_flight() && part.lane != Some(lane) {
            return false;
        }
        if !self.lane_takes(lane, key) {
            return false;
        }
        let Some(part) = self.parts.get_mut(&key) else {
            return false;
        };
        if part.sequencer.has_queued() {
            return self.draft(lane, key, now);
        }
        let which = match (part.sequencer.has_in_flight(), now.checked_sub(linger)) {
            (false, _) => Take::Any,
            _ if flushing => Take::Any,
            (true, Some(begun)) => Take::BegunBy(begun),
            (true, None) => Take::Full,
        };
        let Some(batch) = part.topic.take(key.1, which) else {
            return false;
        };
        self.build(key, batch);
        true
    }

    /// Numbers a batch and finishes it, elsewhere if that takes time.
    fn build(&mut self, key: PartitionKey, batch: OpenBatch) {
        let Some(part) = self.parts.get_mut(&key) else {
            return;
        };
        let OpenBatch {
            mut builder,
            duty,
            memory,
            created,
            ..
        } = batch;
        let count = builder.record_count() as u32;
        let stamp = part.sequencer.number(count);
        let deadline = created + self.shared.config.delivery_timeout;
        let compressing = self.shared.config.compression != headwater_protocol::record::Compression::None;
        let memory = Arc::new(memory);
        let shared = Arc::clone(&self.shared);
        let finish = move |bytes: Built, duty: Duty| {
            let bytes = bytes.map(|bytes| bytes.map(|bytes| Finished::new(bytes, &shared)));
            finished(bytes, duty, stamp, count, deadline, memory)
        };
        if !compressing || builder.plain_bytes() <= INLINE_COMPRESSION_BYTES {
            let bytes = stamp::build(&mut builder, stamp);
            if let Some(batch) = finish(bytes, duty) {
                part.sequencer.push(batch);
            }
            if compressing {
                self.shared.give_back(builder);
            }
            return;
        }
        part.building = true;
        self.work.push(Box::pin(async move {
            let built = door::blocking(move || {
                let bytes = stamp::build(&mut builder, stamp);
                (finish(bytes, duty), builder)
            });
            match built.await {
                Some((batch, builder)) => Done::Built {
                    key,
                    batch,
                    builder: Some(Box::new(builder)),
                },
                // The runtime is going down; the dropped duty has told the deliveries.
                None => Done::Built {
                    key,
                    batch: None,
                    builder: None,
                },
            }
        }));
    }

    fn assume_written(&mut self, entries: &[Entry], now: Instant) {
        for entry in entries {
            self.settle(
                entry,
                Outcome::Written(Written {
                    base_offset: None,
                    append_time_ms: None,
                }),
                now,
            );
        }
    }

    fn finish(&mut self, done: Done) {
        let now = door::now();
        match done {
            Done::Answered {
                lane,
                entries,
                answer,
            } => self.answered(lane, &entries, answer, now),
            Done::Connected { lane, result } => self.connected(lane, result, now),
            Done::LaneAwake(lane) => self.awake(lane),
            Done::Identified(result) => self.identified(result),
            Done::Added => self.added(),
            Done::Refreshed(result) => {
                self.refreshing = false;
                if result.is_ok() {
                    self.follow();
                    self.fail_unknown();
                }
                self.dirty.extend(self.parts.keys());
            }
            Done::Built { key, batch, builder } => {
                if let Some(builder) = builder {
                    self.shared.give_back(*builder);
                }
                if let Some(part) = self.parts.get_mut(&key) {
                    part.building = false;
                    if let Some(batch) = batch {
                        part.sequencer.push(batch);
                    }
                }
                self.dirty.insert(key);
            }
        }
    }

    fn answered(
        &mut self,
        lane: LaneKey,
        entries: &[Entry],
        answer: Result<ProduceResponse, CallError>,
        now: Instant,
    ) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.failures = 0;
            self.dirty.extend(std::mem::take(&mut lane.waiting));
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(cause) => {
                let lost = match &cause {
                    CallError::Closed(_) | CallError::Timeout { .. } | CallError::Decode { .. } => {
                        Outcome::Lost(cause.to_string())
                    }
                    CallError::Unsupported { .. } | CallError::Encode { .. } => Outcome::Refused {
                        code: ErrorCode::UNSUPPORTED_VERSION,
                        message: Some(cause.to_string()),
                    },
                };
                for entry in entries {
                    self.settle(entry, lost.clone(), now);
                }
                return;
            }
        };
        let mut outcomes = draft::outcomes(&answer, |name, id| {
            entries.iter().find_map(|entry| {
                let topic = &self.parts.get(&entry.key)?.topic;
                let known = || {
                    self.cluster
                        .topic(&topic.name)
                        .is_some_and(|known| known.id == id)
                };
                (*topic.name == *name || name.is_empty() && known()).then_some(topic.index)
            })
        });
        for entry in entries {
            let outcome = outcomes.remove(&entry.key);
            if let Some((_, hint)) = &outcome {
                self.learn(entry.key, hint.as_ref());
            }
            let missing = || Outcome::Lost("the answer does not mention the partition".to_owned());
            self.settle(entry, outcome.map_or_else(missing, |(outcome, _)| outcome), now);
        }
    }

    fn settle(&mut self, entry: &Entry, outcome: Outcome, now: Instant) {
        let Some(part) = self.parts.get_mut(&entry.key) else {
            return;
        };
        let backoff = self.client.config().backoff;
        let Needs {
            metadata,
            identity,
            refused,
        } = part
            .sequencer
            .settle(entry.number, outcome, now, &backoff, door::random_u64());
        self.dirty.insert(entry.key);
        if let Some(code) = refused {
            self.refused(code);
        }
        if metadata {
            self.refresh(now);
        }
        if identity {
            self.identity = None;
            self.identify();
        }
    }

    fn learn(&self, key: PartitionKey, hint: Option<&LeaderHint>) {
        if let (Some(hint), Some(part)) = (hint, self.parts.get(&key)) {
            let partition = PartitionIndex(key.1 as i32);
            self.client
                .metadata()
                .learn(|cluster| cluster.learn(&part.topic.name, partition, hint));
        }
    }

    /// Has the metadata fetched anew, at `at`, unless that is under way.
    fn refresh(&mut self, at: Instant) {
        if !self.refreshing {
            self.refreshing = true;
            let client = self.client.clone();
            self.work.push(Box::pin(async move {
                door::sleep_until(at).await;
                Done::Refreshed(client.metadata().refresh().await)
            }));
        }
    }

    /// Asks for a producer id, unless that is under way.
    fn identify(&mut self) {
        // Those of a transaction come from its coordinator.
        if self.numbering() == Numbering::Idempotent && !self.identifying && self.identity.is_none() {
            self.identifying = true;
            let client = self.client.clone();
            self.work.push(Box::pin(
                async move { Done::Identified(new_identity(&client).await) },
            ));
        }
    }

    fn identified(&mut self, result: Result<Identity, Error>) {
        self.identifying = false;
        match result {
            Ok(identity) => self.identity = Some(identity),
            Err(error) => {
                let error = SendError::Client(Box::new(error));
                let waiting: Vec<_> = self.parts.keys().copied().collect();
                waiting.into_iter().for_each(|key| self.fail(key, &error));
            }
        }
        self.dirty.extend(self.parts.keys());
    }

    /// Takes note of the cluster as it is now.
    fn follow(&mut self) {
        self.cluster = self.client.cluster();
        let topics = self.shared.signals().topics.clone();
        for topic in topics {
            let Some(known) = self.cluster.topic(&topic.name) else {
                continue;
            };
            let led = known
                .partitions
                .iter()
                .enumerate()
                .filter(|(_, partition)| partition.leader.is_some());
            let led: Vec<u32> = led.map(|(index, _)| index as u32).collect();
            let all = led.len() == known.partitions.len();
            topic.resize(known.partitions.len(), (!all).then_some(led));
        }
        self.dirty.extend(self.parts.keys());
    }

    /// Fails what waits for topics that do not exist any more.
    fn fail_unknown(&mut self) {
        if self.client.config().auto_create_topics {
            return;
        }
        let gone = self
            .parts
            .iter()
            .filter(|(_, part)| self.cluster.topic(&part.topic.name).is_none());
        let gone: Vec<_> = gone
            .map(|(key, part)| (*key, SendError::UnknownTopic(part.topic.name.to_string())))
            .collect();
        gone.into_iter().for_each(|(key, error)| self.fail(key, &error));
    }

    /// Fails everything of a partition that is not in flight.
    fn fail(&mut self, key: PartitionKey, error: &SendError) {
        let Some(part) = self.parts.get_mut(&key) else {
            return;
        };
        part.sequencer.fail_all(error);
        while let Some(batch) = part.topic.take(key.1, Take::Any) {
            batch.duty.resolve(Err(error.clone()));
        }
    }

    /// Fails what has waited too long.
    fn expire(&mut self, key: PartitionKey, now: Instant) {
        let timeout = self.shared.config.delivery_timeout;
        let Some(part) = self.parts.get_mut(&key) else {
            return;
        };
        part.sequencer.expire(now, timeout);
        let Some(begun) = now.checked_sub(timeout) else {
            return;
        };
        while part.topic.oldest(key.1).is_some_and(|oldest| oldest <= begun) {
            let Some(batch) = part.topic.take(key.1, Take::BegunBy(begun)) else {
                return;
            };
            let last = part.sequencer.last_failure().to_owned();
            batch.duty.resolve(Err(SendError::TimedOut {
                timeout,
                maybe_written: false,
                last,
            }));
        }
    }

    fn set_timer(&mut self, key: PartitionKey, now: Instant) {
        let config = &self.shared.config;
        let Some(part) = self.parts.get_mut(&key) else {
            return;
        };
        let oldest = part.topic.oldest(key.1);
        let lingered = oldest
            .filter(|_| part.sequencer.may_send(now))
            .map(|begun| begun + config.linger);
        let expired = oldest.map(|begun| begun + config.delivery_timeout);
        let backlog = oldest.is_some() || part.sequencer.has_queued();
        let resumed = part.sequencer.not_before().filter(|_| backlog);
        let due = [lingered, expired, part.sequencer.next_deadline(), resumed];
        let due = due.into_iter().flatten().filter(|at| *at > now).min();
        if let Some(old) = part.timer.take() {
            self.timers.remove(&(old, key));
        }
        if let Some(due) = due {
            part.timer = Some(due);
            self.timers.insert((due, key));
        }
    }

    /// Looks at the partitions whose timers have run out.
    fn ring(&mut self) {
        let now = door::now();
        while let Some((_, key)) = self.timers.pop_first_if(now) {
            if let Some(part) = self.parts.get_mut(&key) {
                part.timer = None;
            }
            self.dirty.insert(key);
        }
    }
}

trait PopDue {
    fn pop_first_if(&mut self, now: Instant) -> Option<(Instant, PartitionKey)>;
}

impl PopDue for BTreeSet<(Instant, PartitionKey)> {
    fn pop_first_if(&mut self, now: Instant) -> Option<(Instant, PartitionKey)> {
        self.first()
            .is_some_and(|(at, _)| *at <= now)
            .then(|| self.pop_first())
            .flatten()
    }
}

/// A built batch, ready to be sent; a failure is told to its deliveries.
fn finished(
    bytes: Result<Option<Finished>, headwater_protocol::record::Error>,
    duty: Duty,
    stamp: Stamp,
    count: u32,
    deadline: Instant,
    memory: Arc<tokio::sync::OwnedSemaphorePermit>,
) -> Option<Batch> {
    match bytes {
        Ok(bytes) => {
            let bytes = bytes?;
            Some(Batch {
                bytes,
                stamp,
                count,
                duty,
                deadline,
                maybe_written: false,
                _memory: memory,
            })
        }
        Err(cause) => {
            duty.resolve(Err(SendError::Encode(cause)));
            None
        }
    }
}

/// Asks until a broker gives an id or refuses for good.
async fn new_identity(client: &Client) -> Result<Identity, Error> {
    let request = InitProducerIdRequest {
        // The message's own default is an empty name, which asks for a transaction.
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        ..Default::default()
    };
    let timeout = client.config().request_timeout;
    let mut failures = 0;
    loop {
        let answer = client.call(Target::Any, &request, timeout).await;
        let failure = match answer {
            Ok(answer) if answer.error_code == ErrorCode::NONE.0 => {
                let (id, epoch) = (
                    ProducerId(answer.producer_id),
                    ProducerEpoch(answer.producer_epoch),
                );
                return Ok(Identity { id, epoch });
            }
            Ok(answer) => Error::refused("a producer id", answer.error_code, None),
            Err(failure) => failure,
        };
        if !failure.is_retriable() {
            return Err(failure);
        }
        failures += 1;
        let pause = client.config().backoff.pause(failures, door::random_u64());
        door::sleep_until(door::now() + pause).await;
    }
}
