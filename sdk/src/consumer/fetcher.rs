//! The task of a consumer: sends fetches, reads answers, looks places up.
//!
//! Owns the state and the sessions. It must never wait for one thing alone: every answer, command, piece of
//! news and timer is taken as it comes.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use headwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex};
use headwater_protocol::kafka::fetch::{FetchRequest, FetchResponse, NodeEndpoint};
use headwater_protocol::kafka::{ErrorCode, fetch};
use tokio::sync::{mpsc, watch};

use super::queue::{Message, Queue, Slot};
use super::session::Session;
use super::state::{LaneKey, Lookup, OffsetOrSpec, Outcome, Plan, State};
use super::{ConsumerConfig, TopicPartition};
use crate::admin::{ListedOffset, list_offsets};
use crate::client::{Client, Lane};
use crate::door::{self, Instant};
use crate::error::Error;
use crate::routing::{Broker, Cluster, LeaderHint};

/// What the consumer tells its task.
pub(super) enum Command {
    Place {
        slot: Arc<Slot>,
        generation: u32,
        at: OffsetOrSpec,
    },
    Remove(TopicPartition),
    Pause(TopicPartition),
    Resume(TopicPartition),
}

pub(super) struct Fetcher {
    client: Client,
    config: Arc<ConsumerConfig>,
    state: State,
    sessions: BTreeMap<LaneKey, Session>,
    queue: Arc<Queue>,
    commands: mpsc::Receiver<Command>,
    work: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    image: watch::Receiver<Arc<Cluster>>,
    /// A refresh of the metadata is under way.
    refreshing: bool,
    /// Refreshes in a row that left some partition without a leader.
    leaderless: u32,
}

/// Work that is over.
enum Done {
    Fetched {
        lane: LaneKey,
        generations: BTreeMap<TopicPartition, u32>,
        answer: Result<FetchResponse, Error>,
    },
    Found {
        lookups: Vec<Lookup>,
        answer: Result<BTreeMap<PartitionIndex, ListedOffset>, Error>,
    },
    Refreshed(Result<(), Error>),
}

impl Fetcher {
    pub(super) fn new(
        client: Client,
        config: Arc<ConsumerConfig>,
        queue: Arc<Queue>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let image = client.metadata().watch();
        let state = State::new(Arc::clone(&config), client.config().backoff);
        let (sessions, work) = (BTreeMap::new(), FuturesUnordered::new());
        Self {
            client,
            config,
            state,
            sessions,
            queue,
            commands,
            work,
            image,
            refreshing: false,
            leaderless: 0,
        }
    }

    /// Runs until the consumer is gone.
    pub(super) async fn run(mut self, stopped: tokio_util::sync::CancellationToken) {
        let budget = Arc::clone(&self.state.budget);
        loop {
            let now = door::now();
            self.start_work(now);
            let due = self.state.next_due(now);
            tokio::select! {
                biased;
                () = stopped.cancelled() => return,
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(done) = self.work.next() => self.finish(done),
                changed = self.image.changed() => match changed {
                    Ok(()) => self.state.route(&self.client.cluster()),
                    Err(_) => return,
                },
                () = budget.freed.notified() => {}
                () = door::sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Place { slot, generation, at } => {
                self.state.place(slot, generation, at, &self.client.cluster());
            }
            Command::Remove(key) => self.state.remove(&key),
            Command::Pause(key) => self.state.pause(&key, true),
            Command::Resume(key) => self.state.pause(&key, false),
        }
    }

    fn start_work(&mut self, now: Instant) {
        let mut lookups: BTreeMap<Arc<str>, Vec<Lookup>> = BTreeMap::new();
        for lookup in self.state.lookups(now) {
            lookups
                .entry(Arc::clone(&lookup.key.topic))
                .or_default()
                .push(lookup);
        }
        for (topic, lookups) in lookups {
            let (client, isolation) = (self.client.clone(), self.config.isolation);
            self.work.push(Box::pin(async move {
                let places: Vec<_> = lookups
                    .iter()
                    .map(|lookup| (lookup.key.partition, lookup.spec))
                    .collect();
                let answer = list_offsets(&client, &topic, &places, isolation).await;
                Done::Found { lookups, answer }
            }));
        }
        if self.state.lacks_leader() {
            let pause = self
                .client
                .config()
                .backoff
                .pause(self.leaderless, door::random_u64());
            self.refresh(now + pause);
        } else {
            self.leaderless = 0;
        }
        // One round per node; a node with several free lanes gets another when it has more to ask.
        loop {
            let plans = self.state.plans(now);
            if plans.is_empty() {
                break;
            }
            for plan in plans {
                self.send(plan);
            }
        }
    }

    fn send(&mut self, plan: Plan) {
        let Plan {
            lane,
            wanted,
            generations,
            bytes_max,
        } = plan;
        let mut request = FetchRequest {
            max_wait_ms: i32::try_from(self.config.fetch_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: i32::try_from(self.config.fetch_bytes_min).unwrap_or(i32::MAX),
            max_bytes: i32::try_from(bytes_max).unwrap_or(i32::MAX),
            isolation_level: self.config.isolation.code(),
            ..Default::default()
        };
        self.sessions.entry(lane).or_default().ask(wanted, &mut request);
        let client = self.client.clone();
        let timeout = self.config.fetch_wait + client.config().request_timeout;
        self.work.push(Box::pin(async move {
            let (node, stream) = lane;
            let answer = match client.connection(node, Lane::Fetch(stream)).await {
                Ok(connection) => connection.call(&request, timeout).await.map_err(Error::from),
                Err(error) => Err(error),
            };
            Done::Fetched {
                lane,
                generations,
                answer,
            }
        }));
    }

    fn finish(&mut self, done: Done) {
        let (now, chance) = (door::now(), door::random_u64());
        match done {
            Done::Fetched {
                lane,
                generations,
                answer,
            } => self.fetched(lane, generations, answer, now, chance),
            Done::Found { lookups, answer } => {
                for lookup in lookups {
                    let result = answer
                        .clone()
                        .map(|found| found.get(&lookup.key.partition).copied());
                    let outcome = self.state.found(&lookup, result, now, chance);
                    self.act(outcome);
                }
            }
            Done::Refreshed(result) => {
                self.refreshing = false;
                if result.is_ok() {
                    let cluster = self.client.cluster();
                    self.state.route(&cluster);
                    for message in self.state.fail_unknown(&cluster) {
                        self.queue.push(message);
                    }
                }
            }
        }
    }

    fn fetched(
        &mut self,
        lane: LaneKey,
        generations: BTreeMap<TopicPartition, u32>,
        answer: Result<FetchResponse, Error>,
        now: Instant,
        chance: u64,
    ) {
        self.state.ended(lane, &generations);
        let session = self.sessions.entry(lane).or_default();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                session.reset();
                let outcome = self.state.failed(&generations, &error, now, chance);
                return self.act(outcome);
            }
        };
        if !session.answered(&answer) {
            return;
        }
        if answer.error_code != ErrorCode::NONE.0 {
            let error = Error::refused("fetch", answer.error_code, None);
            let outcome = self.state.failed(&generations, &error, now, chance);
            return self.act(outcome);
        }
        let bytes = answer.responses.iter().flat_map(|topic| &topic.partitions);
        let bytes = bytes
            .map(|p| p.records.as_ref().map_or(0, |records| records.len()))
            .sum();
        let frame = self.state.budget.frame(bytes);
        let cluster = self.client.cluster();
        for topic in answer.responses {
            let name: Arc<str> = match topic.topic.is_empty() {
                false => Arc::from(topic.topic.as_str()),
                true => match cluster.topic_by_id(topic.topic_id.into()) {
                    Some(known) => Arc::clone(&known.name),
                    None => continue,
                },
            };
            for partition in topic.partitions {
                let index = PartitionIndex(partition.partition_index);
                let key = TopicPartition {
                    topic: Arc::clone(&name),
                    partition: index,
                };
                let Some(generation) = generations.get(&key) else {
                    continue;
                };
                self.learn(&key, &partition.current_leader, &answer.node_endpoints);
                let outcome = self
                    .state
                    .fetched(&key, *generation, partition, &frame, now, chance);
                self.act(outcome);
            }
        }
    }

    /// Takes a hint at a new leader into the image, which routes all partitions anew.
    fn learn(&self, key: &TopicPartition, leader: &fetch::LeaderIdAndEpoch, endpoints: &[NodeEndpoint]) {
        if leader.leader_id < 0 {
            return;
        }
        let endpoint = endpoints
            .iter()
            .find(|endpoint| endpoint.node_id == leader.leader_id);
        let hint = LeaderHint {
            leader: NodeId(leader.leader_id),
            leader_epoch: LeaderEpoch(leader.leader_epoch),
            broker: endpoint.and_then(|endpoint| {
                let rack = endpoint.rack.as_ref().map(ToString::to_string);
                Some(Broker {
                    host: endpoint.host.to_string(),
                    port: u16::try_from(endpoint.port).ok()?,
                    rack,
                })
            }),
        };
        self.client
            .metadata()
            .learn(|cluster| cluster.learn(&key.topic, key.partition, &hint));
    }

    fn act(&mut self, outcome: Outcome) {
        for message in outcome.messages {
            if let Message::Failed { slot, error, .. } = &message {
                tracing::debug!(partition = %slot.key, %error, "partition rests");
            }
            self.queue.push(message);
        }
        if outcome.stale_metadata {
            self.refresh(door::now());
        }
    }

    /// Has the metadata fetched anew, at `at`, unless that is under way.
    fn refresh(&mut self, at: Instant) {
        if self.refreshing {
            return;
        }
        self.refreshing = true;
        self.leaderless = self.leaderless.saturating_add(1);
        let client = self.client.clone();
        self.work.push(Box::pin(async move {
            door::sleep_until(at).await;
            Done::Refreshed(client.metadata().refresh().await)
        }));
    }
}
