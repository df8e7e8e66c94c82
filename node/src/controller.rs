//! The one who changes the cluster's metadata: a change is proposed, checked against the image, turned into records,
//! made durable by the quorum, folded, and published.
//!
//! Every node has a part of the quorum or observes it, and folds the same entries; whoever leads it decides. A proposal
//! made anywhere finds its way to him. It owns the metadata log. Nobody else appends to it; everybody reads the outcome
//! through `metadata::View`.

mod balance;
pub mod change;
mod control;
mod decide;
mod elections;
pub mod error;
mod features;
mod gauges;
pub mod health;
mod lifelines;
mod nodes;
mod objects;
mod placement;
mod producer_ids;
mod raft;
mod reassign;
mod service;
mod sessions;
mod topics;
mod vigil;

pub use change::{
    Change, Factor, FeatureUpdate, InSyncChange, Leaders, NewTopic, PartitionRef, Reassignment,
};
pub use control::Standing;
pub use error::ProposeError;
pub use producer_ids::ProducerIds;
pub use raft::{OpenError, QuorumState, Timing};
pub use topics::check_name;

use crate::config::BrokerConfig;
use crate::metadata::features::{Supported, first_records};
use crate::metadata::{Ended, Image, Module, Node, PartitionState, Publisher, Record, Topic, View};
use crate::peer::{Answers, Peers};
use crate::sys::Sys;
use crate::sys::mailbox::{Sender, mailbox};
use crate::sys::task::{Kind, Tasks};
use crate::telemetry::{Health, Metrics};
use headwater_protocol::ids::{BrokerEpoch, NodeId, Offset, ProducerId};
use lifelines::{Holder, Lifelines};
use raft::{Opened, Quorum};
use serde::{Deserialize, Serialize};
use service::{Parts, Service};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use vigil::Vigil;

/// Proposals that wait; beyond it `propose` waits.
const MAILBOX_PROPOSALS: usize = 256;

/// A handle to propose changes with. Cheap to clone.
#[derive(Clone)]
pub struct Controller {
    me: NodeId,
    requests: Sender<Request>,
    quorum: Quorum,
    gate: Arc<Gate>,
    supported: Supported,
    sys: Sys,
}

/// What the task is asked, and who waits for it.
enum Request {
    Propose {
        change: Box<Change>,
        reply: oneshot::Sender<Result<Applied, ProposeError>>,
    },
    Heartbeat {
        node: NodeId,
        epoch: BrokerEpoch,
        /// It wants to stop.
        leaving: bool,
        reply: oneshot::Sender<Result<Standing, ProposeError>>,
    },
    /// The quorum as its leader knows it.
    Quorum {
        reply: oneshot::Sender<Result<QuorumState, ProposeError>>,
    },
    Members {
        change: MemberChange,
        reply: oneshot::Sender<Result<(), ProposeError>>,
    },
}

/// A change of who takes part in the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// An observer that has caught up gets a vote.
    AddVoter(NodeId),
    /// A voter goes on as an observer.
    RemoveVoter(NodeId),
}

/// What became of a change: durable, folded, and visible in this node's view.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    /// The entry of the change; the image's own offset if it changed nothing.
    pub offset: Offset,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    /// The topic as it is now; as it would be, if the change was to be validated only.
    Topic(Arc<Topic>),
    Module(Arc<Module>),
    ProducerIds(ProducerIdBlock),
    Node(Node),
    Partition(PartitionState),
}

/// Producer ids that nobody else is given, now or ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerIdBlock {
    pub first: ProducerId,
    pub count: i64,
}

/// What a controller works with.
pub struct Options {
    pub me: NodeId,
    /// The cluster the data directory belongs to.
    pub cluster_id: String,
    /// The members of a new cluster's quorum by address; of a cluster of one, itself. Does not name this node where it
    /// is to observe.
    pub voters: BTreeMap<NodeId, String>,
    /// This node's own defaults.
    pub broker: BrokerConfig,
    pub timing: Timing,
    /// How long a node may be silent before others take over from it.
    pub session_timeout: Duration,
    /// The levels of features that this node reads and writes.
    pub supported: Supported,
    pub sys: Sys,
    pub peers: Peers,
    pub health: Health,
    pub metrics: Metrics,
}

#[cfg(test)]
impl Options {
    /// A cluster of one, which is node 1.
    pub(crate) fn alone(cluster_id: &str, broker: BrokerConfig, sys: &Sys) -> Self {
        let me = NodeId(1);
        let peers = Peers::new(crate::peer::Parts {
            me,
            cluster_id: cluster_id.to_owned(),
            directory: String::new(),
            secret: crate::peer::Secret::new(""),
            sys: sys.clone(),
            dialer: crate::transport::Dialer::new(sys.net.clone(), Default::default()),
        });
        Self {
            me,
            cluster_id: cluster_id.to_owned(),
            voters: BTreeMap::from([(me, String::new())]),
            broker,
            timing: Timing {
                election_timeout_ms: 100,
                heartbeat_ms: 20,
            },
            session_timeout: Duration::from_secs(1),
            supported: Supported::default(),
            sys: sys.clone(),
            peers,
            health: Health::default(),
            metrics: Metrics::default(),
        }
    }
}

/// Reads the metadata and starts this node's part of the quorum; begins it, if it is new and this node is a voter. The
/// view shows an empty image until `Controller::show`: nobody is to act on what an earlier process knew.
pub async fn start(options: Options) -> Result<(Controller, View), OpenError> {
    let Options {
        me,
        cluster_id,
        voters,
        broker,
        timing,
        session_timeout,
        supported,
        sys,
        peers,
        health,
        metrics,
    } = options;
    let tasks = sys.tasks.child("controller");
    let opened = Opened::read(&sys, &supported).await?;
    let image = opened.image();
    check_cluster(&image.cluster_id, &cluster_id)?;
    let (publisher, known) = View::new(image);
    let (gate, view) = Gate::new(known.clone());
    for (node, address) in &voters {
        peers.learn(*node, address);
    }
    let quorum = Quorum::start(raft::Parts {
        me,
        sys: &sys,
        peers: peers.clone(),
        timing,
        publisher,
        supported: supported.clone(),
        opened,
    })
    .await?;
    let (requests, mailbox) = mailbox(MAILBOX_PROPOSALS);
    let controller = Controller {
        me,
        requests,
        quorum: quorum.clone(),
        gate: Arc::new(gate),
        supported: supported.clone(),
        sys: sys.clone(),
    };
    let answers: Arc<dyn Answers> = Arc::new(control::Answerer::new(controller.clone()));
    peers.answer_by(answers);
    if voters.contains_key(&me) && !quorum.has_begun().await {
        quorum.begin(voters).await?;
    }
    gauges::describe(&metrics, me, quorum.clone(), known.clone(), broker.clone());
    let lifelines = watch_over(me, &sys, &tasks, &quorum, &known);
    let service = Service::new(
        Parts {
            me,
            cluster_id,
            session_timeout,
            lifelines,
            supported,
            sys,
            broker,
            view: known,
            health,
            metrics,
        },
        quorum,
    );
    let cancel = tasks.cancelled();
    drop(tasks.spawn("service", Kind::Critical, service.run(mailbox, cancel)));
    Ok((controller, view))
}

/// Notices processes that are gone, the quorum's leader among them.
fn watch_over(me: NodeId, sys: &Sys, tasks: &Tasks, quorum: &Quorum, known: &View) -> Lifelines {
    let (holder, lifelines) = Holder::new(me, sys, tasks, quorum.clone(), known.clone());
    let vigil = Vigil {
        me,
        sys: sys.clone(),
        quorum: quorum.clone(),
        known: known.clone(),
        lifelines: lifelines.clone(),
    };
    drop(tasks.spawn("lifelines", Kind::Critical, holder.run(tasks.cancelled())));
    drop(tasks.spawn("vigil", Kind::Critical, vigil.run(tasks.cancelled())));
    lifelines
}

/// Between what this node knows of the metadata and what it acts on.
struct Gate {
    known: View,
    shown: View,
    /// Absent once the gate is open.
    publisher: Mutex<Option<Publisher>>,
}

impl Gate {
    fn new(known: View) -> (Self, View) {
        let (publisher, shown) = View::new(Image::default());
        let gate = Self {
            known,
            shown: shown.clone(),
            publisher: Mutex::new(Some(publisher)),
        };
        (gate, shown)
    }

    /// Returns when what this node acts on has come to `offset`; while the gate is closed, when this node knows of it.
    async fn reached(&self, offset: Offset) -> Result<(), Ended> {
        self.known.reached(offset).await?;
        let is_closed = self
            .publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some();
        if !is_closed {
            self.shown.reached(offset).await?;
        }
        Ok(())
    }
}

impl Controller {
    /// From now on the view shows what this node knows: it is registered, and what it knew before is no longer taken for
    /// true. Called once.
    pub fn show(&self) {
        let publisher = self
            .gate
            .publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(publisher) = publisher else { return };
        let mut known = self.gate.known.watch();
        publisher.publish(known.borrow_and_update().clone());
        let tasks = self.sys.tasks.child("controller");
        let cancel = tasks.cancelled();
        drop(tasks.spawn("view", Kind::Critical, async move {
            loop {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return,
                    changed = known.changed() => if changed.is_err() {
                        return;
                    },
                }
                let image = known.borrow_and_update().clone();
                publisher.publish(image);
            }
        }));
    }

    /// The newest image this node knows, whether it acts on it already or not.
    pub fn known(&self) -> Arc<Image> {
        self.gate.known.image()
    }
}

/// An image that nothing was folded into yet belongs to nobody.
fn check_cluster(found: &str, expected: &str) -> Result<(), OpenError> {
    if found.is_empty() || found == expected {
        return Ok(());
    }
    Err(OpenError::OtherCluster {
        found: found.to_owned(),
        expected: expected.to_owned(),
    })
}

/// The first entry of a new cluster: what it is called, and the levels it begins at.
fn first_entry(cluster_id: &str, supported: &Supported) -> Vec<Record> {
    let mut records = vec![Record::Cluster {
        cluster_id: cluster_id.to_owned(),
    }];
    records.extend(first_records(supported));
    records
}

#[cfg(test)]
mod tests;
