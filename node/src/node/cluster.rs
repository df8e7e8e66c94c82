//! This node as a member of its cluster: who it is, that it is there, and how it goes.
//!
//! Owns the registration and the heartbeat. It must never act on metadata older than its own registration: what a former
//! process led, another node may lead by now.

use super::{Bound, Core, StartError};
use crate::config::NodeConfig;
use crate::controller::{self, Change, Controller, Outcome, PartitionRef, ProposeError, Standing};
use crate::metadata::features::{Level, Supported};
use crate::metadata::image::Addresses;
use crate::metadata::{Node, NodeState, View};
use crate::partition::{InSyncChange, InSyncRefused, InSyncSets, Member, Proposing};
use crate::peer::Peers;
use crate::sys::clock::Clock;
use crate::sys::task::{Kind, Task, Tasks};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headwater_protocol::ids::{BrokerEpoch, NodeId};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The task that tells the controller that this node is there.
const HEARTBEAT: &str = "heartbeat";
/// How long a node waits for its own registration before it registers again; a while longer than a controller is looked for.
const REGISTERING: Duration = Duration::from_secs(40);
/// How long a node that asks for its leave waits between two questions.
const LEAVING: Duration = Duration::from_millis(50);
/// How soon the controller is told again what it could not be told.
const RETRY: Duration = Duration::from_secs(1);

/// The cluster a data directory is to belong to, as far as the configuration tells. The voters of a new cluster who are
/// told of no id take one that follows from who they are, so that all take the same.
pub(super) fn id(config: &NodeConfig) -> Result<Option<String>, StartError> {
    if config.cluster_id.is_some() || config.voters.is_empty() {
        return Ok(config.cluster_id.clone());
    }
    if !config.voters.iter().any(|voter| voter.id == config.node_id) {
        return Err(StartError::ClusterId(config.node_id));
    }
    if config.voters.len() == 1 {
        return Ok(None);
    }
    let mut voters: Vec<String> = config
        .voters
        .iter()
        .map(|voter| format!("{}@{}", voter.id, voter.address))
        .collect();
    voters.sort();
    let digest = Sha256::digest(format!("headwater cluster {}", voters.join(",")));
    Ok(Some(URL_SAFE_NO_PAD.encode(&digest[..16])))
}

/// The members of a new cluster's quorum; of a cluster of one, itself.
pub(super) fn voters(config: &NodeConfig) -> BTreeMap<NodeId, String> {
    if config.voters.is_empty() {
        return BTreeMap::from([(config.node_id, String::new())]);
    }
    config
        .voters
        .iter()
        .map(|voter| (voter.id, voter.address.clone()))
        .collect()
}

/// What the cluster is to know of this node.
pub(super) fn describe(core: &Core, bound: Bound, directory: &str) -> Node {
    let advertise = &core.config.advertise;
    let told = |set: &Option<String>, bound: Option<SocketAddr>| {
        set.clone()
            .or_else(|| bound.map(|address| reachable(address).to_string()))
            .unwrap_or_default()
    };
    let addresses = Addresses {
        tcp: told(&advertise.tcp, bound.tcp),
        tls: told(&advertise.tls, bound.tls),
        quic: told(&advertise.quic, bound.quic),
        http: told(&advertise.http, bound.http),
    };
    let mut node = Node::new(core.config.node_id, addresses, core.config.rack.clone());
    node.incarnation = URL_SAFE_NO_PAD.encode(core.sys.random.secret::<16>());
    node.directory = directory.to_owned();
    node.version = env!("CARGO_PKG_VERSION").to_owned();
    node.features = Supported::up_to(&core.config.feature_levels_max).registered();
    node
}

/// An address others can use: one bound to every interface is told as the local one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut told = address;
    if address.ip().is_unspecified() {
        told.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    told
}

/// Tells the cluster who this is. Returns when this node knows everything up to its registration; waits as long as there
/// is no controller.
pub(super) async fn register(core: &Core, node: Node) -> Result<Node, ProposeError> {
    loop {
        let registering = core.controller.propose(Change::RegisterNode(node.clone()));
        let Ok(registered) = core.sys.clock.timeout(REGISTERING, registering).await else {
            // An operator may have unregistered it meanwhile: then nobody tells it of anything.
            tracing::warn!("the registration has not come back to this node, it registers again");
            continue;
        };
        match registered {
            Ok(applied) => {
                return match applied.outcome {
                    Outcome::Node(node) => Ok(node),
                    Outcome::Done
                    | Outcome::Topic(_)
                    | Outcome::Module(_)
                    | Outcome::ProducerIds(_)
                    | Outcome::Partition(_) => Err(ProposeError::Stopped),
                };
            }
            Err(ProposeError::TimedOut(reason)) => {
                tracing::warn!(reason, "no controller yet, waiting for the other voters");
            }
            Err(error) => return Err(error),
        }
    }
}

/// In-sync sets, as the controller decides about them.
pub(super) struct InSync {
    pub(super) controller: Controller,
    pub(super) me: NodeId,
}

impl InSyncSets for InSync {
    fn propose(&self, change: InSyncChange) -> Proposing {
        let (controller, me) = (self.controller.clone(), self.me);
        Box::pin(async move {
            let epoch = controller.known().nodes.get(&me).map(|node| node.epoch);
            let epoch =
                epoch.ok_or_else(|| InSyncRefused::Stale("this node is not registered".to_owned()))?;
            let known = |member: &Member| Some((member.node, member.broker_epoch?));
            let asked = Change::AlterInSync(controller::InSyncChange {
                topic: change.topic,
                index: change.index,
                node: me,
                node_epoch: epoch,
                leader_epoch: change.leader_epoch,
                partition_epoch: change.partition_epoch,
                in_sync: change.in_sync.iter().map(|member| member.node).collect(),
                epochs: change.in_sync.iter().filter_map(known).collect(),
            });
            match controller.propose(asked).await {
                Ok(applied) => match applied.outcome {
                    Outcome::Partition(state) => Ok(state),
                    Outcome::Done
                    | Outcome::Topic(_)
                    | Outcome::Module(_)
                    | Outcome::ProducerIds(_)
                    | Outcome::Node(_) => Err(InSyncRefused::Stale("the topic is gone".to_owned())),
                },
                Err(error @ (ProposeError::IneligibleReplica(_) | ProposeError::Refused(_))) => {
                    Err(InSyncRefused::Ineligible(error.to_string()))
                }
                Err(
                    error @ (ProposeError::TimedOut(_)
                    | ProposeError::Stopped
                    | ProposeError::Storage(_)
                    | ProposeError::NotController),
                ) => Err(InSyncRefused::Unknown(error.to_string())),
                Err(error) => Err(InSyncRefused::Stale(error.to_string())),
            }
        })
    }
}

/// Tells the controller of replicas here that cannot be trusted any more.
pub(super) fn report_failures(core: &Core, me: &Node) {
    let (controller, registry) = (core.controller.clone(), core.registry.clone());
    let (node, epoch) = (me.id, me.epoch);
    let (clock, cancel) = (core.sys.clock.clone(), core.sys.tasks.cancelled());
    drop(
        core.sys
            .tasks
            .spawn("replica failures", Kind::Critical, async move {
                let mut failed = registry.failed();
                loop {
                    let partitions: Vec<PartitionRef> = failed
                        .borrow_and_update()
                        .iter()
                        .map(|(topic, index)| PartitionRef {
                            topic: *topic,
                            index: *index,
                        })
                        .collect();
                    let mut pause = None;
                    if !partitions.is_empty() {
                        let change = Change::ReplicasFailed {
                            node,
                            epoch,
                            partitions,
                        };
                        if let Err(error) = controller.propose(change).await {
                            tracing::warn!(%error, "the controller could not be told of failed replicas");
                            pause = Some(RETRY);
                        }
                    }
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return,
                        changed = failed.changed() => if changed.is_err() {
                            return;
                        },
                        () = clock.sleep(pause.unwrap_or(RETRY)), if pause.is_some() => {}
                    }
                }
            }),
    );
}

/// Keeps the book of the other nodes' addresses true.
pub(super) fn follow(core: &Core) {
    let (view, peers) = (core.view.clone(), core.peers.clone());
    let cancel = core.sys.tasks.cancelled();
    let keeping = keep_book(view, peers, cancel);
    drop(core.sys.tasks.spawn("address book", Kind::Critical, keeping));
}

async fn keep_book(view: View, peers: Peers, cancel: CancellationToken) {
    let mut images = view.watch();
    let mut known = Arc::<BTreeMap<NodeId, Node>>::default();
    loop {
        let image = images.borrow_and_update().clone();
        if known != image.nodes {
            for gone in known.keys().filter(|id| !image.nodes.contains_key(id)) {
                peers.forget(*gone);
            }
            for node in image.nodes.values() {
                peers.learn(node.id, &node.addresses.quic);
                peers.bind(node.id, &node.directory);
                if known
                    .get(&node.id)
                    .is_none_or(|before| before.epoch != node.epoch)
                {
                    peers.warm(node.id);
                }
            }
            known = Arc::clone(&image.nodes);
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            changed = images.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Tells the controller again and again that this node is there, as long as there is anybody else.
pub(super) struct Heartbeat {
    leaving: watch::Sender<bool>,
    left: Task<()>,
    clock: Clock,
}

impl Heartbeat {
    /// `told` is what this node said of itself, `me` what the controller took of it.
    pub(super) fn start(core: &Core, me: Node, told: Node) -> Self {
        let (leaving, asked) = watch::channel(false);
        let beat = Beat {
            me: me.id,
            epoch: me.epoch,
            tasks: core.sys.tasks.clone(),
            told,
            told_at: None,
            controller: core.controller.clone(),
            view: core.view.clone(),
            clock: core.sys.clock.clone(),
            interval: Duration::from_millis(core.config.liveness.heartbeat_ms),
            patience: Duration::from_millis(core.config.liveness.session_timeout_ms),
        };
        let cancel = core.sys.tasks.cancelled();
        let left = core
            .sys
            .tasks
            .spawn(HEARTBEAT, Kind::Critical, beat.run(asked, cancel));
        Self {
            leaving,
            left,
            clock: core.sys.clock.clone(),
        }
    }

    /// Asks for the leave, and waits until others lead what they can, `patience` at most.
    pub(super) async fn leave(self, patience: Duration) {
        self.leaving.send_replace(true);
        if self.clock.timeout(patience, self.left).await.is_err() {
            tracing::warn!("stopping although the controller has not given leave");
        }
    }
}

struct Beat {
    me: NodeId,
    epoch: BrokerEpoch,
    tasks: Tasks,
    /// What this node says of itself.
    told: Node,
    /// When it said so again.
    told_at: Option<Instant>,
    controller: Controller,
    view: View,
    clock: Clock,
    interval: Duration,
    patience: Duration,
}

impl Beat {
    fn give_up(&self, reason: String) {
        self.tasks.give_up(HEARTBEAT, reason);
    }

    /// A controller of the first feature level takes no note of what a node supports, an older one of where its TLS listener
    /// is, and its successor does not know it. Who leads by now is not known here: it is told until it knows.
    async fn tell_again(&mut self, taken_for: Level) {
        let now = self.clock.now();
        let is_early = self.told_at.is_some_and(|at| now.duration_since(at) < RETRY);
        let known = self.controller.known();
        let known = known.nodes.get(&self.me).map(|node| &node.addresses);
        let is_known = known.is_none_or(|addresses| *addresses == self.told.addresses);
        if is_early || (is_known && taken_for == Supported::of(&self.told).level()) {
            return;
        }
        self.told_at = Some(now);
        let again = Change::RegisterNode(self.told.clone());
        if let Err(error) = self.controller.propose(again).await {
            tracing::warn!(%error, "the controller could not be told what this node supports and where it is reached");
        }
    }

    async fn run(mut self, mut leaving: watch::Receiver<bool>, cancel: CancellationToken) {
        let mut images = self.view.watch();
        loop {
            let is_leaving = *leaving.borrow_and_update();
            let is_alone = images.borrow_and_update().nodes.len() <= 1;
            if is_alone && is_leaving {
                return;
            }
            let mut pause = if is_leaving { LEAVING } else { self.interval };
            if !is_alone {
                let told = self
                    .controller
                    .heartbeat(self.epoch, is_leaving, self.patience)
                    .await;
                match told {
                    Ok(Standing { may_stop: true, .. }) => return,
                    // It is let in at once when it reports.
                    Ok(Standing {
                        state: NodeState::Fenced,
                        ..
                    }) => pause = pause.min(LEAVING),
                    Ok(Standing { level, .. }) => self.tell_again(level).await,
                    Err(ProposeError::StaleNode { current, .. }) => {
                        let (me, epoch) = (self.me, self.epoch);
                        return self.give_up(format!(
                            "another process is node {me} in epoch {current} by now, this one was in epoch {epoch}"
                        ));
                    }
                    Err(ProposeError::Unknown { .. }) => {
                        let me = self.me;
                        return self.give_up(format!(
                            "node {me} is no member of the cluster any more: it was unregistered"
                        ));
                    }
                    Err(error) => tracing::warn!(%error, "heartbeat failed"),
                }
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = leaving.changed(), if !is_leaving => if changed.is_err() {
                    // The node is being taken down.
                    return;
                },
                changed = images.changed(), if is_alone => if changed.is_err() {
                    // The quorum's log failed, and nothing of the cluster will change here until the next start.
                    return;
                },
                () = self.clock.sleep(pause), if !is_alone => {}
            }
        }
    }
}
