//! The task that fetches from one leader: many partitions, one stream, one session.
//!
//! It owns the stream. What is fetched is handed to the partitions at once and all together; each goes on by itself when
//! its records are safe, so that a slow one holds up nobody.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use headwater_protocol::ids::{BrokerEpoch, LeaderEpoch, NodeId};
use headwater_protocol::kafka::fetch::FetchRequest;
use headwater_protocol::kafka::{ErrorCode, decode_response, encode_request};
use headwater_protocol::primitives::Str;
use tokio::sync::watch;

use super::session::{Limits, Session, Taken, Task, Work};
use super::stream::{Answer, Stream};
use super::throttle::Throttle;
use super::{Assignments, Connecting, Key, Leaders, truncation};
use crate::config::Replication as Settings;
use crate::metadata::View;
use crate::partition::{Partition, Position, ReplicaError};
use crate::sys::Sys;
use crate::sys::budget::{Budget, Permit};
use crate::sys::buffers::Buffers;
use crate::telemetry::{Counter, Metrics, names};

/// The version of Fetch that nodes speak among themselves.
pub(super) const VERSION: i16 = 17;
/// How much longer than its wait a fetch may take before the stream is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a leader that was not reached is left alone, at first.
const REDIAL: Duration = Duration::from_millis(20);
/// Memory for answers that is kept when nothing is fetched.
const UNUSED_BYTES_MAX: usize = 4 << 20;

/// What a fetcher is made of.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) me: NodeId,
    pub(super) leader: NodeId,
    pub(super) settings: Settings,
    pub(super) sys: Sys,
    pub(super) view: View,
    pub(super) leaders: Arc<dyn Leaders>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) metrics: Metrics,
    pub(super) assignments: watch::Receiver<Arc<Assignments>>,
}

/// Work that was done for a partition.
struct Done {
    key: Key,
    epoch: LeaderEpoch,
    result: Result<Position, ReplicaError>,
    /// Fetching waits for it.
    is_awaited: bool,
}

type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// The way to the leader.
enum Link {
    /// Not tried before then.
    Down {
        until: Instant,
    },
    Dialing(Connecting),
    Up(Stream),
}

enum Event {
    Assigned,
    Done(Done),
    Link(LinkEvent),
    Time,
    Stop,
}

enum LinkEvent {
    Opened(Stream),
    Answered(Answer),
    Broken(String),
}

struct Fetcher {
    parts: Parts,
    assignments: watch::Receiver<Arc<Assignments>>,
    session: Session,
    partitions: BTreeMap<Key, Partition>,
    jobs: FuturesUnordered<Job>,
    link: Link,
    failures: u32,
    correlation_id: i32,
    budget: Budget,
    buffers: Buffers,
    bytes_in: Counter,
}

/// Fetches until cancelled.
pub(super) async fn run(parts: Parts) {
    let settings = &parts.settings;
    let limits = Limits {
        partition_bytes_max: settings.fetch_bytes_max,
        response_bytes_max: settings.response_bytes_max,
        wait_max: settings.wait_max,
        backoff_max: settings.backoff_max,
    };
    let fetcher = Fetcher {
        session: Session::new(parts.me, limits),
        partitions: BTreeMap::new(),
        jobs: FuturesUnordered::new(),
        link: Link::Down {
            until: parts.sys.clock.now(),
        },
        failures: 0,
        correlation_id: 0,
        budget: Budget::new(settings.response_bytes_max.saturating_mul(3)),
        buffers: Buffers::new(UNUSED_BYTES_MAX),
        bytes_in: parts.metrics.counter(&names::REPLICATION_BYTES_IN, &[]),
        assignments: parts.assignments.clone(),
        parts,
    };
    fetcher.run().await;
}

impl Fetcher {
    async fn run(mut self) {
        self.assign();
        loop {
            self.ask();
            match self.event().await {
                Event::Stop => return,
                Event::Assigned => self.assign(),
                Event::Done(done) => {
                    self.done(done);
                    // Whatever else is done by now goes into the same request.
                    while let Some(Some(done)) = self.jobs.next().now_or_never() {
                        self.done(done);
                    }
                }
                Event::Link(event) => self.on_link(event),
                Event::Time => self.on_time(),
            }
        }
    }

    async fn event(&mut self) -> Event {
        let cancel = self.parts.sys.tasks.cancelled();
        let clock = self.parts.sys.clock.clone();
        let time = clock.sleep_until_some(self.wakes_at());
        tokio::select! {
            biased;
            () = cancel.cancelled() => Event::Stop,
            changed = self.assignments.changed() => match changed {
                Ok(()) => Event::Assigned,
                Err(_) => Event::Stop,
            },
            Some(done) = self.jobs.next() => Event::Done(done),
            event = link_event(&mut self.link, &self.parts, &self.budget, &self.buffers) => Event::Link(event),
            () = time => Event::Time,
        }
    }

    /// The next time that something is due.
    fn wakes_at(&self) -> Option<Instant> {
        let link = match &self.link {
            Link::Down { until } => Some(*until),
            Link::Dialing(_) => None,
            Link::Up(_) => self.late_at(),
        };
        [link, self.session.wakes_at()].into_iter().flatten().min()
    }

    /// When the oldest request has been without an answer for too long.
    fn late_at(&self) -> Option<Instant> {
        let since = self.session.waits_since()?;
        Some(since + self.parts.settings.wait_max + PATIENCE)
    }

    fn on_time(&mut self) {
        let now = self.parts.sys.clock.now();
        for task in self.session.wake(now) {
            self.work(task, None);
        }
        match &self.link {
            Link::Down { until } if *until <= now => {
                self.link = Link::Dialing(self.parts.leaders.connect(self.parts.leader));
            }
            Link::Up(_) if self.late_at().is_some_and(|late| late <= now) => {
                self.broken("no answer in time".to_owned());
            }
            Link::Down { .. } | Link::Dialing(_) | Link::Up(_) => {}
        }
    }

    fn assign(&mut self) {
        let assignments = Arc::clone(&self.assignments.borrow_and_update());
        let epochs = assignments.iter().map(|(key, assigned)| (*key, assigned.epoch));
        let tasks = self.session.assign(&epochs.collect());
        let partitions = assignments.iter();
        self.partitions = partitions
            .map(|(key, assigned)| (*key, assigned.partition.clone()))
            .collect();
        for task in tasks {
            self.work(task, None);
        }
    }

    /// Sends what is to be asked now.
    fn ask(&mut self) {
        let Link::Up(stream) = &self.link else { return };
        let now = self.parts.sys.clock.now();
        while let Some(request) = self.session.next(now, self.broker_epoch()) {
            self.correlation_id = self.correlation_id.wrapping_add(1);
            let client_id = Str::from_static("headwater-replica");
            let frame = encode_request(&request, VERSION, self.correlation_id, Some(&client_id));
            let sent = match frame {
                Ok(frame) => stream.send(frame),
                Err(error) => {
                    tracing::error!(leader = %self.parts.leader, %error, "a fetch cannot be written");
                    false
                }
            };
            if !sent {
                return self.broken("the request could not be sent".to_owned());
            }
        }
    }

    /// This node's incarnation, as the metadata has it.
    fn broker_epoch(&self) -> Option<BrokerEpoch> {
        let image = self.parts.view.image();
        image.nodes.get(&self.parts.me).map(|node| node.epoch)
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Opened(stream) => {
                self.session.reconnected();
                self.link = Link::Up(stream);
            }
            LinkEvent::Answered(answer) => match self.answered(answer) {
                Ok(()) => self.failures = 0,
                Err(reason) => self.broken(reason),
            },
            LinkEvent::Broken(reason) => self.broken(reason),
        }
    }

    /// Gives the way to the leader up, and tries anew after a pause.
    fn broken(&mut self, reason: String) {
        let leader = self.parts.leader;
        if self.failures == 0 {
            tracing::info!(%leader, reason, "replicas cannot be fetched from their leader");
        } else {
            tracing::debug!(%leader, reason, failures = self.failures, "the leader cannot be fetched from yet");
        }
        self.count_error("connection");
        let pause = REDIAL * 2_u32.saturating_pow(self.failures.min(16));
        let pause = pause.min(self.parts.settings.backoff_max);
        let spread = self.parts.sys.random.below(1 + pause.as_millis() as u64 / 2);
        self.failures += 1;
        self.session.reconnected();
        self.link = Link::Down {
            until: self.parts.sys.clock.now() + pause + Duration::from_millis(spread),
        };
    }

    fn answered(&mut self, answer: Answer) -> Result<(), String> {
        let Answer { bytes, permit } = answer;
        let decoded = decode_response::<FetchRequest>(bytes, VERSION);
        let (_, response) = decoded.map_err(|error| format!("the answer cannot be read: {error}"))?;
        let now = self.parts.sys.clock.now();
        let asked = self.session.waits_since().unwrap_or(now);
        let taken = self.session.answered(response, now);
        let Taken { tasks, refused } = taken.map_err(|code| format!("the leader refuses: {code}"))?;
        for task in tasks {
            self.work(task, Some((&permit, asked)));
        }
        for ((topic, index), code) in refused {
            tracing::debug!(leader = %self.parts.leader, %topic, %index, %code, "the leader refuses a partition");
            self.count_error(reason_of(code));
        }
        Ok(())
    }

    /// Begins what is to be done for a partition; of an answer also its memory, and when it was asked for.
    fn work(&mut self, task: Task, answer: Option<(&Arc<Permit>, Instant)>) {
        let Task { key, epoch, work } = task;
        let Some(partition) = self.partitions.get(&key).cloned() else {
            return;
        };
        let is_awaited = !matches!(work, Work::Note { .. });
        let (bytes, is_gaining) = match &work {
            Work::Append {
                records, is_gaining, ..
            } => (records.len() as u64, *is_gaining),
            Work::Follow | Work::Note { .. } | Work::Truncate { .. } | Work::Restart { .. } => (0, false),
        };
        self.bytes_in.add(bytes);
        let throttle = Arc::clone(&self.parts.throttle);
        let (permit, asked) = answer.unzip();
        let permit = permit.cloned();
        let clock = self.parts.sys.clock.clone();
        // There is more where so much came from. Who is nearly there, or hardly gains, must not rest: it would never be.
        let may_rest = is_gaining && bytes >= self.parts.settings.fetch_bytes_max as u64 / 2;
        self.jobs.push(Box::pin(async move {
            let result = apply(&partition, epoch, work).await;
            drop(permit);
            if bytes > 0 && result.is_ok() {
                if let Some(asked) = asked.filter(|_| may_rest) {
                    let took = clock.now().saturating_duration_since(asked);
                    throttle.rest(&partition, took).await;
                }
                throttle.pass(&partition, bytes).await;
            }
            Done {
                key,
                epoch,
                result,
                is_awaited,
            }
        }));
    }

    fn done(&mut self, done: Done) {
        let Done {
            key,
            epoch,
            result,
            is_awaited,
        } = done;
        if !is_awaited {
            return;
        }
        if let Err(error) = &result {
            let (topic, index) = key;
            match error {
                // The metadata is on its way to one of both.
                ReplicaError::NotFollower { .. } | ReplicaError::Stopped => {
                    tracing::debug!(%topic, %index, %error, "the replica does not follow");
                }
                ReplicaError::NotContiguous { .. }
                | ReplicaError::Corrupt { .. }
                | ReplicaError::DiskFull
                | ReplicaError::Offline { .. } => {
                    tracing::warn!(leader = %self.parts.leader, %topic, %index, %error, "the replica cannot go on");
                }
            }
            self.count_error(kind_of(error));
        }
        let now = self.parts.sys.clock.now();
        self.session.done(key, epoch, result.ok(), now);
    }

    fn count_error(&self, reason: &str) {
        self.parts
            .metrics
            .counter(&names::REPLICATION_ERRORS, &[reason])
            .increment();
    }
}

/// What happens next on the way to the leader. Cancel-safe: what was begun stays in `link`.
async fn link_event(link: &mut Link, parts: &Parts, budget: &Budget, buffers: &Buffers) -> LinkEvent {
    match link {
        Link::Down { .. } => std::future::pending().await,
        Link::Dialing(connecting) => match connecting.await {
            Ok(ends) => {
                let stream = Stream::new(ends, &parts.sys.tasks, budget.clone(), buffers.clone());
                LinkEvent::Opened(stream)
            }
            Err(error) => LinkEvent::Broken(error.to_string()),
        },
        Link::Up(stream) => match stream.answer().await {
            Ok(answer) => LinkEvent::Answered(answer),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                LinkEvent::Broken("the leader ended the stream".to_owned())
            }
            Err(error) => LinkEvent::Broken(error.to_string()),
        },
    }
}

async fn apply(partition: &Partition, epoch: LeaderEpoch, work: Work) -> Result<Position, ReplicaError> {
    match work {
        Work::Follow => partition.follow(epoch).await,
        Work::Append { marks, records, .. } => partition.append_replica(marks, records.into_bytes()).await,
        Work::Note { marks } => partition.append_replica(marks, bytes::Bytes::new()).await,
        Work::Truncate { leader, own_end } => {
            let own = partition.own_epoch_end(leader.epoch);
            match truncation::keep_until(leader, own, own_end) {
                Some(to) => partition.truncate_replica(epoch, to).await,
                None => Err(ReplicaError::Corrupt {
                    reason: "the leader has no history to compare with".to_owned(),
                }),
            }
        }
        Work::Restart { at } => partition.restart_replica(epoch, at).await,
    }
}

fn reason_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::LEADER_NOT_AVAILABLE => "not_leader",
        ErrorCode::FENCED_LEADER_EPOCH | ErrorCode::UNKNOWN_LEADER_EPOCH => "epoch",
        ErrorCode::UNKNOWN_TOPIC_ID | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => "unknown_partition",
        ErrorCode::OFFSET_OUT_OF_RANGE => "offset",
        ErrorCode::KAFKA_STORAGE_ERROR | ErrorCode::CORRUPT_MESSAGE => "storage",
        _ => "other",
    }
}

fn kind_of(error: &ReplicaError) -> &'static str {
    match error {
        ReplicaError::NotFollower { .. } => "not_follower",
        ReplicaError::NotContiguous { .. } => "offset",
        ReplicaError::Corrupt { .. } => "corrupt",
        ReplicaError::DiskFull => "disk_full",
        ReplicaError::Offline { .. } => "offline",
        ReplicaError::Stopped => "stopped",
    }
}
