//! Lifelines: to every other node a TCP connection that carries nothing. The kernel of its host closes it when the process
//! is gone, and then refuses another one: a process that was killed is noticed within a moment, whatever the timeouts.
//!
//! It owns these connections. It must never conclude anything from an end alone, nor from the refusal of a node that it
//! never reached: a connection ends for many reasons, and a path may be closed while the node is well.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::{BrokerEpoch, NodeId};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::raft::Quorum;
use crate::metadata::{Image, Node, View};
use crate::sys::Sys;
use crate::sys::net::Lifeline;
use crate::sys::task::{Kind, Tasks};

/// How long a host may take to answer.
const CONNECT: Duration = Duration::from_secs(2);
/// Between two tries to connect, at first and at most. A connection that ended is tried anew at once.
const RETRY_MIN: Duration = Duration::from_millis(2);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// A process that nobody can connect to any more, by its registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gone {
    pub(super) node: NodeId,
    pub(super) epoch: BrokerEpoch,
}

/// Who is gone, as this node sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Lifelines {
    gone: watch::Receiver<BTreeSet<Gone>>,
}

impl Lifelines {
    /// Whether a node with this registration is gone.
    pub(super) fn is_gone(&self, node: NodeId, epoch: BrokerEpoch) -> bool {
        self.gone.borrow().contains(&Gone { node, epoch })
    }

    pub(super) fn gone(&mut self) -> Vec<Gone> {
        self.gone.borrow_and_update().iter().copied().collect()
    }

    /// Returns when there is news, or never. Cancel safe.
    pub(super) async fn changed(&mut self) {
        if self.gone.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns when this node is gone. Cancel safe.
    pub(super) async fn until_gone(&mut self, node: NodeId, epoch: BrokerEpoch) {
        let gone = Gone { node, epoch };
        if self.gone.wait_for(|all| all.contains(&gone)).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Holds lifelines as long as this node votes.
pub(super) struct Holder {
    me: NodeId,
    sys: Sys,
    tasks: Tasks,
    quorum: Quorum,
    known: View,
    gone: Arc<watch::Sender<BTreeSet<Gone>>>,
}

/// What a lifeline is held to; its end is the drop of the guard.
struct Held {
    epoch: BrokerEpoch,
    address: String,
    _guard: DropGuard,
}

impl Holder {
    pub(super) fn new(
        me: NodeId,
        sys: &Sys,
        tasks: &Tasks,
        quorum: Quorum,
        known: View,
    ) -> (Self, Lifelines) {
        let (gone, seen) = watch::channel(BTreeSet::new());
        let holder = Self {
            me,
            sys: sys.clone(),
            tasks: tasks.child("lifelines"),
            quorum,
            known,
            gone: Arc::new(gone),
        };
        (holder, Lifelines { gone: seen })
    }

    pub(super) async fn run(self, cancel: CancellationToken) {
        let mut images = self.known.watch();
        let mut quorum = self.quorum.watch();
        let mut held = BTreeMap::new();
        let mut votes = false;
        loop {
            let image = images.borrow_and_update().clone();
            self.reconcile(&mut held, &image, votes);
            loop {
                let goes_on = tokio::select! {
                    biased;
                    () = cancel.cancelled() => false,
                    changed = images.changed() => {
                        if changed.is_ok() {
                            break;
                        }
                        false
                    }
                    is_running = quorum.changed() => is_running,
                };
                if !goes_on {
                    return;
                }
                let now = quorum.state().voters.contains(&self.me);
                if std::mem::replace(&mut votes, now) != now {
                    break;
                }
            }
        }
    }

    /// Holds a lifeline to each registration of another node that has a listener, and no other.
    fn reconcile(&self, held: &mut BTreeMap<NodeId, Held>, image: &Image, votes: bool) {
        let wanted = |id: &NodeId, epoch: BrokerEpoch, address: &str| {
            let node = image.nodes.get(id);
            votes && node.is_some_and(|node| node.epoch == epoch && node.addresses.tcp == address)
        };
        held.retain(|id, held| wanted(id, held.epoch, &held.address));
        self.gone.send_if_modified(|gone| {
            let before = gone.len();
            gone.retain(|gone| held.get(&gone.node).is_some_and(|held| held.epoch == gone.epoch));
            gone.len() < before
        });
        let others = image
            .nodes
            .values()
            .filter(|node| node.id != self.me && !node.addresses.tcp.is_empty());
        for node in others.filter(|_| votes) {
            held.entry(node.id).or_insert_with(|| self.begin(node));
        }
    }

    fn begin(&self, node: &Node) -> Held {
        let cancel = self.tasks.cancelled().child_token();
        let line = Line {
            who: Gone {
                node: node.id,
                epoch: node.epoch,
            },
            address: node.addresses.tcp.clone(),
            sys: self.sys.clone(),
            gone: Arc::clone(&self.gone),
        };
        let ended = cancel.clone();
        drop(self.tasks.spawn("lifeline", Kind::BestEffort, async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = line.hold() => {}
            }
        }));
        Held {
            epoch: node.epoch,
            address: node.addresses.tcp.clone(),
            _guard: cancel.drop_guard(),
        }
    }
}

struct Line {
    who: Gone,
    address: String,
    sys: Sys,
    gone: Arc<watch::Sender<BTreeSet<Gone>>>,
}

impl Line {
    async fn hold(self) {
        let (mut was_reached, mut rest) = (false, RETRY_MIN);
        loop {
            let connected = self.sys.clock.timeout(CONNECT, connect(&self.sys, &self.address));
            match connected.await {
                Ok(Ok(line)) => {
                    was_reached = true;
                    self.tell(false);
                    let since = self.sys.clock.now();
                    line.ended().await;
                    if self.sys.clock.now().duration_since(since) >= RETRY_MAX {
                        rest = RETRY_MIN;
                        continue;
                    }
                }
                Ok(Err(error)) if is_refusal(&error) && was_reached => self.tell(true),
                Ok(Err(_)) | Err(_) => {}
            }
            self.sys.clock.sleep(rest).await;
            rest = (rest * 2).min(RETRY_MAX);
        }
    }

    fn tell(&self, is_gone: bool) {
        self.gone.send_if_modified(|gone| match is_gone {
            true => gone.insert(self.who),
            false => gone.remove(&self.who),
        });
    }
}

/// An error only if each address it has gives one; the last one then.
async fn connect(sys: &Sys, address: &str) -> io::Result<Lifeline> {
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for address in sys.net.resolve(address).await? {
        outcome = sys.net.lifeline(address).await;
        match &outcome {
            Err(error) if is_refusal(error) => {}
            Ok(_) | Err(_) => break,
        }
    }
    outcome
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}
