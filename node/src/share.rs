//! Share groups (KIP-932): records are given to one member of a group at a time, each by itself, and come again until somebody
//! has said that he is done with them.
//!
//! Owns what was delivered of the partitions that this node leads, and the topic `__share_group_state`, where that is kept. Who
//! is in a group it does not know: `group` does. Nothing is acknowledged before it is on all in-sync replicas of that topic.
//!
//! ```text
//! share        the handle: what the edge asks for
//! service      the task that delivers here       state     its rules, pure: sessions, what is written when
//!                                                delivery  one partition for one group, pure
//! keeper       the way to a group's coordinator  remote    the same to another node, in Kafka's messages
//! coordinator  the task that keeps the states of the groups of one partition of the topic
//! ledger       its rules, pure                   store     the records, pure
//! ```
//!
//! Whoever delivers has read the state last, and is the only one who may write it: each reading gives it another epoch. If it is
//! not known what became of a write, the state is read anew, and what was delivered meanwhile is delivered again.

mod coordinator;
mod delivery;
mod error;
mod keeper;
mod ledger;
mod post;
mod remote;
mod request;
mod service;
mod state;
mod store;

pub use error::ShareError;
pub use request::{Ack, Acknowledge, Acquire, Acquired, Key, Name, Next, Open, Place, Seen, Span};

use crate::config::{BrokerConfig, ShareConfig};
use crate::controller::Controller;
use crate::coordination::{self, Deployment, OwnTopic, Unavailable};
use crate::metadata::View;
use crate::metadata::topic::SHARE_STATE_TOPIC;
use crate::partition::{Isolation, Registry};
use crate::peer::Peers;
use crate::sys::Sys;
use crate::sys::mailbox::{Sender, mailbox};
use crate::sys::task::Kind;
use crate::telemetry::{Metrics, names};
use coordinator::{Ask, Handle, Told};
use delivery::Rules;
use error::Unkept;
use futures_util::future::BoxFuture;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset};
use keeper::Keeper;
use post::SharePost;
pub(crate) use remote::Asks;
use service::{Counts, Letter, Means, Service};
use state::{SessionId, Settings};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Requests that wait for the task; those who send more wait.
const LETTERS_MAX: usize = 1024;

/// Asks whether there is a share group of a name. None: its coordinator does not answer.
pub type Knows = Arc<dyn Fn(Name) -> BoxFuture<'static, Option<bool>> + Send + Sync>;

/// What the share groups of a node are made of.
pub struct Parts {
    pub me: NodeId,
    pub config: ShareConfig,
    pub broker: BrokerConfig,
    /// How many nodes the quorum is meant to have.
    pub voters: usize,
    pub sys: Sys,
    pub view: View,
    pub controller: Controller,
    pub registry: Registry,
    pub peers: Peers,
    pub knows: Knows,
    pub metrics: Metrics,
}

/// A member's session, as one of its requests finds it.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    /// What is fetched, in the order in which it is this time.
    pub places: Vec<Place>,
    /// What the request named beyond what a session may.
    pub refused: Vec<Place>,
    /// Fires when the session is over, and with the member's connection.
    pub over: CancellationToken,
}

/// The share groups of this node. Cheap to clone.
///
/// - A call that is dropped may have happened; what it has acquired is given up when its lock runs out.
#[derive(Clone)]
pub struct Shares {
    keeper: Keeper,
    letters: Sender<Letter>,
    config: Arc<ShareConfig>,
    properties: Properties,
}

/// The properties of groups, as they are at the moment. Cheap to clone.
#[derive(Clone)]
struct Properties {
    broker: BrokerConfig,
    view: View,
}

impl Properties {
    fn now(&self) -> BrokerConfig {
        let cluster = Arc::clone(&self.view.image().broker_configs);
        self.broker.with_cluster(cluster)
    }
}

impl Shares {
    /// Begins to deliver, and to coordinate what this node leads. Ends with its scope of `parts.sys.tasks`.
    pub fn start(parts: Parts) -> Self {
        let tasks = parts.sys.tasks.child("share");
        let properties = Properties {
            broker: parts.broker,
            view: parts.view.clone(),
        };
        let means = coordination::Means {
            me: parts.me,
            topic: topic(&parts.config, parts.voters),
            tasks: tasks.clone(),
            sys: parts.sys.clone(),
            view: parts.view,
            controller: parts.controller,
            registry: parts.registry.clone(),
        };
        let post = SharePost {
            sys: parts.sys.clone(),
        };
        let keeper = Keeper {
            me: parts.me,
            sys: parts.sys.clone(),
            coordinators: Deployment::start(means, post),
            peers: parts.peers,
        };
        let config = Arc::new(parts.config);
        let counts = Arc::new(Counts::default());
        let (letters, mailbox) = mailbox(LETTERS_MAX);
        let means = Means {
            sys: parts.sys,
            registry: parts.registry,
            keeper: keeper.clone(),
            settings: settings(&config),
            properties: properties.clone(),
            knows: parts.knows,
            counts: Arc::clone(&counts),
            acquired: parts.metrics.counter(&names::SHARE_ACQUIRED, &[]),
            acknowledged: parts.metrics.counter(&names::SHARE_ACKNOWLEDGEMENTS, &[]),
        };
        let cancel = tasks.cancelled();
        let service = Service::new(means, mailbox);
        drop(tasks.spawn("deliver", Kind::Critical, async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = service.run() => {}
            }
        }));
        let shown = Arc::clone(&keeper.coordinators);
        parts.metrics.on_scrape(move |scrape| {
            let coordinators = shown.all();
            let states = coordinators.values().map(Handle::count).sum::<usize>();
            let sessions = counts.sessions.load(Ordering::Relaxed);
            let partitions = counts.partitions.load(Ordering::Relaxed);
            scrape.value(&names::SHARE_COORDINATORS, &[], coordinators.len() as u64);
            scrape.value(&names::SHARE_STATES, &[], states as u64);
            scrape.value(&names::SHARE_SESSIONS, &[], sessions as u64);
            scrape.value(&names::SHARE_PARTITIONS, &[], partitions as u64);
        });
        Self {
            keeper,
            letters,
            config,
            properties,
        }
    }

    /// Ends delivery and all coordinators. What they were asked and have not answered is answered `NotAvailable`.
    pub async fn stop(&self, patience: Duration) {
        self.keeper.coordinators.stop(patience).await;
    }

    /// How long members may take for what they have acquired.
    pub fn lock_timeout(&self) -> Duration {
        self.config.lock_duration
    }

    /// Which records members of a group see.
    pub fn isolation(&self, group: &str) -> Isolation {
        match self.properties.now().share_reads_committed(group) {
            true => Isolation::Committed,
            false => Isolation::Uncommitted,
        }
    }

    /// The node that keeps a group's states. Makes the topic if there is none yet.
    pub async fn coordinator_of(&self, group: &str) -> Result<NodeId, ShareError> {
        let found = self.keeper.coordinators.coordinator_of(group).await;
        found.map_err(|Unavailable| ShareError::NotAvailable)
    }

    /// A member's session goes on, begins or ends. One that begins ends with `gone`, which fires when the member's connection
    /// does.
    pub async fn open(&self, open: Open, gone: CancellationToken) -> Result<Session, ShareError> {
        self.ask(|reply| Letter::Open { open, gone, reply }).await?
    }

    /// A member ends its session: what it has acquired is for others.
    pub async fn close(&self, group: Name, member: Name) {
        // A task that has ended has forgotten it.
        let _ = self.letters.send(Letter::Close { group, member }).await;
    }

    /// Where to read for a group in a partition, which this node leads in an epoch. Returns when its state is read.
    pub async fn next(&self, key: Key, epoch: LeaderEpoch, log_start: Offset) -> Result<Next, ShareError> {
        let letter = |reply| Letter::Next {
            key,
            epoch,
            log_start,
            reply,
        };
        self.ask(letter).await?
    }

    /// Gives records to a member that were read where `next` said. There may be none left, and there are none for a session
    /// that is over.
    pub async fn acquire(
        &self,
        session: &Session,
        key: Key,
        epoch: LeaderEpoch,
        wanted: Acquire,
    ) -> Result<Vec<Acquired>, ShareError> {
        let session = session.id;
        let letter = |reply| Letter::Acquire {
            session,
            key,
            epoch,
            wanted,
            reply,
        };
        self.ask(letter).await
    }

    /// A member says what became of what it has acquired; when it returns, that is on all in-sync replicas.
    pub async fn acknowledge(
        &self,
        key: Key,
        epoch: LeaderEpoch,
        by: Name,
        batches: Vec<Acknowledge>,
    ) -> Result<(), ShareError> {
        let letter = |reply| Letter::Acknowledge {
            key,
            epoch,
            by,
            batches,
            reply,
        };
        self.ask(letter).await?
    }

    /// What is kept of a group; `places` None: of all partitions that have a state.
    pub async fn see(
        &self,
        group: &Name,
        places: Option<Vec<Place>>,
    ) -> Result<Vec<(Place, Seen)>, ShareError> {
        match self.keeper.ask(group, Ask::See(places)).await? {
            Told::Seen(seen) => Ok(seen),
            Told::Read(_) | Told::Done(_) => Err(ShareError::NotAvailable),
        }
    }

    /// A group without members begins anew at these offsets; returns when that is on all in-sync replicas.
    pub async fn alter(&self, group: &Name, starts: Vec<(Place, Offset)>) -> Result<(), ShareError> {
        let starts = starts.into_iter().map(|(place, start)| (place, Some(start)));
        self.do_all(group, Ask::Initialize(starts.collect())).await
    }

    /// Forgets what was delivered to a group without members; `places` None: all of it.
    pub async fn forget(&self, group: &Name, places: Option<Vec<Place>>) -> Result<(), ShareError> {
        if self.properties.view.topic(SHARE_STATE_TOPIC).is_none() {
            // Nothing was ever kept, and the topic is not made for that.
            return Ok(());
        }
        self.do_all(group, Ask::Delete(places)).await
    }

    /// Answers another node that asks this one's coordinator.
    pub(crate) async fn answer<R: Asks>(&self, request: &R) -> R::Response {
        let told = match request.ask() {
            Some(ask) => {
                self.keeper
                    .ask_here(&Name::from(request.group().as_str()), ask)
                    .await
            }
            None => Err(Unkept::Unknown),
        };
        request.answer(told)
    }

    async fn do_all(&self, group: &Name, ask: Ask) -> Result<(), ShareError> {
        match self.keeper.ask(group, ask).await? {
            Told::Done(results) => Ok(results.into_iter().try_for_each(|(_, result)| result)?),
            Told::Read(_) | Told::Seen(_) => Err(ShareError::NotAvailable),
        }
    }

    async fn ask<T>(&self, letter: impl FnOnce(oneshot::Sender<T>) -> Letter) -> Result<T, ShareError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.letters.send(letter(reply)).await;
        sent.map_err(|_| ShareError::NotAvailable)?;
        answer.await.map_err(|_| ShareError::NotAvailable)
    }
}

fn topic(config: &ShareConfig, voters: usize) -> OwnTopic {
    OwnTopic {
        name: SHARE_STATE_TOPIC,
        partitions: config.topic_partitions,
        replication_factor: config.topic_replication_factor,
        segment_bytes: config.topic_segment_bytes,
        voters,
    }
}

fn settings(config: &ShareConfig) -> Settings {
    Settings {
        rules: Rules {
            lock: config.lock_duration,
            deliveries_max: config.deliveries_max,
            in_flight_max: config.locks_max,
        },
        sessions_max: config.sessions_max,
    }
}
