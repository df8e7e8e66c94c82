//! Follower fetching: for each node that leads something this node holds a replica of, one task fetches it.
//!
//! A replica is a reader like any other: an ordinary Fetch, over a stream on which the leader takes this node for what it
//! is. What a fetch asks for, everything below it is safe here: the next fetch is the acknowledgement.
//!
//! What is damaged here and whole elsewhere is fetched, too (`repair`).
//!
//! It owns the tasks and which of them has which partition. It must never decide who leads, nor who is in sync.

mod fetcher;
mod repair;
mod rest;
mod session;
mod stream;
mod throttle;
mod truncation;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, TopicId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use self::fetcher::Parts;
use self::repair::Repairer;
use self::throttle::Throttle;
use crate::config::{BrokerConfig, Replication as Settings};
use crate::metadata::{Image, View};
use crate::partition::{Partition, Registry};
use crate::peer::{CallError, Peers};
use crate::sys::Sys;
use crate::sys::task::{Kind, Tasks};
use crate::telemetry::Metrics;

/// After a fetcher has failed in itself, which is a bug, it begins anew as much later.
const RESTART: Duration = Duration::from_secs(1);

/// Both ends of a stream on which another node serves Kafka requests.
pub struct Ends {
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

/// A stream on its way.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Ends, CallError>> + Send>>;

/// How leaders are reached.
pub trait Leaders: Send + Sync + 'static {
    /// Opens a stream on which `node` takes this node for itself.
    fn connect(&self, node: NodeId) -> Connecting;
}

impl Leaders for Peers {
    fn connect(&self, node: NodeId) -> Connecting {
        let peers = self.clone();
        Box::pin(async move {
            let stream = peers.kafka_stream(node).await?;
            Ok(Ends {
                reader: Box::new(stream.reader),
                writer: Box::new(stream.writer),
            })
        })
    }
}

/// What replication works with.
pub struct Options {
    pub me: NodeId,
    pub settings: Settings,
    pub broker: BrokerConfig,
    pub sys: Sys,
    pub view: View,
    pub registry: Registry,
    pub leaders: Arc<dyn Leaders>,
    pub metrics: Metrics,
}

/// The running fetchers. Dropping it changes nothing.
pub struct Replication {
    tasks: Tasks,
}

/// One partition of this node that another node leads.
#[derive(Clone)]
struct Assigned {
    epoch: LeaderEpoch,
    partition: Partition,
}

type Key = (TopicId, PartitionIndex);
/// What is fetched from one leader.
type Assignments = BTreeMap<Key, Assigned>;

impl Replication {
    /// Follows the metadata and the registry from now on.
    pub fn start(options: Options) -> Self {
        let tasks = options.sys.tasks.child("replication");
        let throttle = Throttle::new(
            options.me,
            options.broker.clone(),
            options.view.clone(),
            options.sys.clock.clone(),
            options.settings.catch_up_percent,
        );
        let repairer = Repairer {
            me: options.me,
            sys: options.sys.clone(),
            tasks: tasks.clone(),
            view: options.view.clone(),
            registry: options.registry.clone(),
            leaders: Arc::clone(&options.leaders),
        };
        tasks.spawn("repair", Kind::Critical, repairer.run());
        let manager = Manager {
            tasks: tasks.clone(),
            throttle: Arc::new(throttle),
            options,
            running: BTreeMap::new(),
        };
        tasks.spawn("manager", Kind::Critical, manager.run());
        Self { tasks }
    }

    /// Ends every fetcher, and returns when they have ended.
    pub async fn stop(&self) {
        self.tasks.cancel();
        self.tasks.ended().await;
    }
}

/// Gives each partition to the fetcher of its leader.
struct Manager {
    tasks: Tasks,
    throttle: Arc<Throttle>,
    options: Options,
    running: BTreeMap<NodeId, Running>,
}

/// One leader's fetcher.
struct Running {
    scope: Tasks,
    assignments: watch::Sender<Arc<Assignments>>,
}

impl Manager {
    async fn run(mut self) {
        let cancel = self.tasks.cancelled();
        let mut reconciled = self.options.registry.watch();
        loop {
            reconciled.mark_unchanged();
            let partitions = self.options.registry.list();
            let wanted = plan(self.options.me, &self.options.view.image(), partitions);
            self.assign(wanted);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = reconciled.changed() => if changed.is_err() { return },
            }
        }
    }

    fn assign(&mut self, mut wanted: BTreeMap<NodeId, Assignments>) {
        self.running.retain(|leader, running| {
            let is_wanted = wanted.contains_key(leader);
            if !is_wanted {
                running.scope.cancel();
            }
            is_wanted
        });
        for (leader, running) in &self.running {
            if let Some(assignments) = wanted.remove(leader) {
                running.assignments.send_replace(Arc::new(assignments));
            }
        }
        for (leader, assignments) in wanted {
            let running = self.begin(leader, assignments);
            self.running.insert(leader, running);
        }
    }

    fn begin(&self, leader: NodeId, assignments: Assignments) -> Running {
        let scope = self.tasks.child(&format!("from {leader}"));
        let (sender, receiver) = watch::channel(Arc::new(assignments));
        let parts = Parts {
            me: self.options.me,
            leader,
            settings: self.options.settings.clone(),
            sys: Sys {
                tasks: scope.clone(),
                ..self.options.sys.clone()
            },
            view: self.options.view.clone(),
            leaders: Arc::clone(&self.options.leaders),
            throttle: Arc::clone(&self.throttle),
            metrics: self.options.metrics.clone(),
            assignments: receiver,
        };
        let clock = self.options.sys.clock.clone();
        scope.spawn_restarting("fetcher", clock, RESTART, move || fetcher::run(parts.clone()));
        Running {
            scope,
            assignments: sender,
        }
    }
}

/// Which partitions of this node are fetched from whom.
fn plan(me: NodeId, image: &Image, partitions: Vec<Partition>) -> BTreeMap<NodeId, Assignments> {
    let mut wanted: BTreeMap<NodeId, Assignments> = BTreeMap::new();
    for partition in partitions {
        let name = partition.name();
        let key = (name.topic_id, name.index);
        let topic = image.topic_by_id(name.topic_id);
        let Some(state) = topic.and_then(|topic| topic.partition(name.index)) else {
            continue;
        };
        let is_led_elsewhere = state.leader != NodeId::NONE && state.leader != me;
        if is_led_elsewhere && state.replicas.contains(&me) {
            let epoch = state.leader_epoch;
            let assigned = Assigned { epoch, partition };
            wanted.entry(state.leader).or_default().insert(key, assigned);
        }
    }
    wanted
}

#[cfg(test)]
mod tests;
