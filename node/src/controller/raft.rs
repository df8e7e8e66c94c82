//! The quorum: one Raft group by openraft, over our own log, our own snapshots and our own connections.
//!
//! It is a narrow door (`Quorum`): submit records, know who leads, change who votes. What is behind it can be exchanged
//! for another Raft without anybody noticing. It owns `metadata/`. It never judges a record.

mod alone;
mod machine;
mod mark;
mod network;
mod newcomer;
mod newer;
mod room;
mod runtime;
mod snapshot;
mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use headwater_protocol::ids::{NodeId, Offset};
use openraft::error::{ChangeMembershipError, ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{BasicNode, ChangeMembers, Config, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::machine::Machine;
use self::network::Network;
use self::newer::Newer;
use self::storage::Store;
use crate::log;
use crate::metadata::features::Supported;
use crate::metadata::record::{FORMAT, RecordError};
use crate::metadata::{Publisher, Record};
use crate::peer::{Kind, Peers};
use crate::sys::Sys;

pub(super) use self::snapshot::SnapshotError;

/// Entries behind the last snapshot after which the next is written.
const SNAPSHOT_EVERY_ENTRIES: u64 = 2000;
/// Entries kept behind a snapshot: for followers that are a little late, and for a start from the snapshot before.
const ENTRIES_KEPT: u64 = 2 * SNAPSHOT_EVERY_ENTRIES;

openraft::declare_raft_types!(
    /// What our Raft is made of.
    pub(super) Types:
        D = Changes,
        R = Outcome,
        NodeId = NodeId,
        Node = BasicNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = Vec<u8>,
        AsyncRuntime = runtime::Runtime,
);

type LogId = openraft::LogId<NodeId>;
type Vote = openraft::Vote<NodeId>;
type Entry = openraft::Entry<Types>;
type StorageError = openraft::StorageError<NodeId>;
type Membership = openraft::StoredMembership<NodeId, BasicNode>;
type Raft = openraft::Raft<Types>;
type Metrics = openraft::RaftMetrics<NodeId, BasicNode>;

/// The content of one entry: what was decided, and on which state of affairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changes {
    format: u32,
    /// The last change that the decision knew of: where another one came in between, this one does not happen.
    pub(super) basis: Offset,
    pub(super) records: Vec<Record>,
}

impl Changes {
    pub(super) fn new(basis: Offset, records: Vec<Record>) -> Self {
        Self {
            format: FORMAT,
            basis,
            records,
        }
    }

    fn check(&self) -> Result<(), RecordError> {
        if self.format > FORMAT {
            return Err(RecordError::Newer { found: self.format });
        }
        Ok(())
    }
}

/// What became of an entry when it was folded: the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// It held no changes.
    Nothing,
    Folded,
    /// It was decided on an older state of affairs.
    Stale,
}

/// Why the metadata cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Log(#[from] log::OpenError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(
        "the log starts at {start}, the newest snapshot ends at {snapshot}: records between them are lost"
    )]
    Gap { start: Offset, snapshot: Offset },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{what} cannot be read: {reason}")]
    Corrupt { what: &'static str, reason: String },
    #[error("metadata belongs to cluster {found:?}, the data directory to {expected:?}")]
    OtherCluster { found: String, expected: String },
    #[error("the quorum did not start: {0}")]
    Raft(String),
    #[error("the thread that read the metadata died")]
    Died,
}

/// Why records did not become part of the metadata.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SubmitError {
    /// Nothing was written.
    #[error("this node does not lead the quorum")]
    NotLeader,
    /// Another change of who takes part has not ended. Nothing was written.
    #[error("another change of the quorum's members is under way")]
    Changing,
    /// Nothing was written.
    #[error("the quorum's members cannot be these: {0}")]
    Members(String),
    /// They may be there later, or not.
    #[error("{0}")]
    Broken(String),
}

/// Who leads, and who takes part, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuorumState {
    pub leader: Option<NodeId>,
    pub term: u64,
    pub voters: BTreeSet<NodeId>,
    /// Nodes that hold the metadata and do not vote.
    pub observers: BTreeSet<NodeId>,
    /// The addresses of both.
    pub addresses: BTreeMap<NodeId, String>,
    /// How far each of the others holds the log, where this node leads.
    pub reached: BTreeMap<NodeId, Offset>,
    /// Those of the others that hold an entry of this leader's term, and with it all that was committed before.
    #[serde(default)]
    pub whole: BTreeSet<NodeId>,
    pub log_end: Offset,
    pub applied: Offset,
    /// Why the quorum works no more on this node.
    pub failed: Option<String>,
}

impl QuorumState {
    /// Entries that this leader of the quorum has and a member has not. None: it is not known here.
    pub fn lag(&self, node: NodeId) -> Option<u64> {
        let reached = self.reached.get(&node)?;
        Some(u64::try_from(self.log_end.since(*reached)).unwrap_or(0))
    }
}

/// How fast a quorum notices that its leader is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a follower waits for its leader before it stands for election, at least; twice as long at most.
    pub election_timeout_ms: u64,
    pub heartbeat_ms: u64,
}

/// What a quorum is made of.
pub(super) struct Parts<'a> {
    pub(super) me: NodeId,
    pub(super) sys: &'a Sys,
    pub(super) peers: Peers,
    pub(super) timing: Timing,
    pub(super) publisher: Publisher,
    /// What this node reads.
    pub(super) supported: Supported,
    pub(super) opened: Opened,
}

/// What lies on the disk, before anybody is told.
pub(super) struct Opened {
    store: Store,
    snapshot: Option<snapshot::Found>,
}

impl Opened {
    /// Reads what a former process left.
    pub(super) async fn read(sys: &Sys, supported: &Supported) -> Result<Self, OpenError> {
        let (sys, scope) = (sys.clone(), sys.tasks.child("quorum"));
        let supported = supported.clone();
        let opened = scope.clone().blocking("open metadata", move || {
            let store = Store::open(&sys, scope)?;
            let snapshot = snapshot::load_newest(sys.disk.as_ref(), &supported)?;
            let folded = snapshot.as_ref().map_or(Offset(-1), |found| found.image.offset);
            if store.start() > folded.plus(1) {
                return Err(OpenError::Gap {
                    start: store.start(),
                    snapshot: folded,
                });
            }
            Ok(Self { store, snapshot })
        });
        opened.await.map_err(|_| OpenError::Died)?
    }

    /// The image as of the newest snapshot; what came later is folded once the quorum runs.
    pub(super) fn image(&self) -> crate::metadata::Image {
        self.snapshot
            .as_ref()
            .map_or_else(Default::default, |found| found.image.clone())
    }
}

/// A handle to this node's part of the quorum. Cheap to clone.
#[derive(Clone)]
pub(super) struct Quorum {
    me: NodeId,
    raft: Raft,
    peers: Peers,
    newer: Newer,
    store: Store,
    /// Its end was asked for.
    is_stopping: Arc<AtomicBool>,
}

impl Quorum {
    /// Starts this node's part. It takes part in elections from now on, and folds what is committed.
    pub(super) async fn start(parts: Parts<'_>) -> Result<Self, OpenError> {
        let Parts {
            me,
            sys,
            peers,
            timing,
            publisher,
            supported,
            opened: Opened { store, snapshot },
        } = parts;
        runtime::seed(&sys.random);
        let config = Config {
            cluster_name: "headwater".to_owned(),
            heartbeat_interval: timing.heartbeat_ms,
            election_timeout_min: timing.election_timeout_ms,
            election_timeout_max: 2 * timing.election_timeout_ms,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY_ENTRIES),
            max_in_snapshot_log_to_keep: ENTRIES_KEPT,
            replication_lag_threshold: 2 * SNAPSHOT_EVERY_ENTRIES,
            enable_elect: store.may_stand(),
            ..Config::default()
        };
        let config = config
            .validate()
            .map_err(|error| OpenError::Raft(error.to_string()))?;
        if !store.alone().is() {
            store.forget_that_it_led(me);
        }
        let newer = Newer::default();
        let machine = Machine::new(sys, publisher, snapshot, supported, newer.clone());
        let network = Network::new(peers.clone());
        let raft = Raft::new(me, Arc::new(config), network, store.clone(), machine).await;
        let raft = raft.map_err(|error| OpenError::Raft(error.to_string()))?;
        Ok(Self {
            me,
            raft,
            peers,
            newer,
            store,
            is_stopping: Arc::default(),
        })
    }

    /// Begins the quorum of a new cluster. Every voter may say so, with the same voters; where there is something
    /// already, nothing happens.
    pub(super) async fn begin(&self, voters: BTreeMap<NodeId, String>) -> Result<(), OpenError> {
        let voters: BTreeMap<NodeId, BasicNode> = voters
            .into_iter()
            .map(|(id, address)| (id, BasicNode::new(address)))
            .collect();
        let newcomer = self.store.newcomer();
        if voters.len() > 1 {
            newcomer.begin().await?;
        } else if newcomer.is_one() {
            self.store.alone().begin().await?;
            newcomer.end().await?;
        }
        self.raft.runtime_config().elect(true);
        match self.raft.initialize(voters).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(OpenError::Raft(error.to_string())),
        }
    }

    /// Whether there is anything in the log or before it.
    pub(super) async fn has_begun(&self) -> bool {
        self.raft.is_initialized().await.unwrap_or(false)
    }

    /// Lets time pass, or not: a voter alone needs neither heartbeats nor elections.
    pub(super) fn keep_time(&self, keep: bool) {
        self.raft.runtime_config().tick(keep);
    }

    /// Returns when this node has folded everything that any leader before it had committed. A leader that comes back in
    /// its own term does not know what it had committed: that may be all it has.
    pub(super) async fn caught_up(&self) -> Result<(), SubmitError> {
        let has = self.raft.metrics().borrow().last_log_index;
        self.leads_still().await?;
        let folded = self.raft.metrics().borrow().last_applied;
        match folded.map(|folded| folded.index) >= has {
            true => Ok(()),
            false => Err(SubmitError::NotLeader),
        }
    }

    /// Returns when a majority says that this node leads, and all it has committed until then is folded here.
    pub(super) async fn leads_still(&self) -> Result<(), SubmitError> {
        match self.raft.ensure_linearizable().await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(_)) => Err(SubmitError::NotLeader),
            Err(RaftError::Fatal(error)) => Err(SubmitError::Broken(error.to_string())),
        }
    }

    /// This node leads, and has folded all that was committed: it is no newcomer.
    pub(super) async fn end_newcomer(&self) -> Result<(), OpenError> {
        Ok(self.store.newcomer().end().await?)
    }

    /// The voters of a change that a leader before this one began and did not finish.
    pub(super) fn unfinished(&self) -> Option<BTreeSet<NodeId>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        match metrics
            .membership_config
            .membership()
            .get_joint_config()
            .as_slice()
        {
            [_, .., last] => Some(last.clone()),
            [_] | [] => None,
        }
    }

    /// Makes records part of the metadata. Returns their offset and what became of them, once they are folded here.
    /// If the future is dropped, it may have happened.
    pub(super) async fn submit(&self, changes: Changes) -> Result<(Offset, Outcome), SubmitError> {
        match self.raft.client_write(changes).await {
            Ok(written) => Ok((offset(written.log_id.index), written.data)),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(SubmitError::NotLeader),
            Err(error) => Err(SubmitError::Broken(error.to_string())),
        }
    }

    /// Returns when a member holds all that was committed when this was asked, or cannot any more: whether it does. Cancel safe.
    pub(super) async fn until_whole(&self, node: NodeId) -> bool {
        let mut watch = self.watch();
        let committed = watch.state().applied;
        let is_whole = |state: &QuorumState| {
            let reached = state.reached.get(&node).copied().unwrap_or_default();
            state.whole.contains(&node) && reached > committed
        };
        loop {
            let state = watch.state();
            if is_whole(&state) {
                return true;
            }
            let is_member = state.addresses.contains_key(&node) && state.leader == Some(self.me);
            if !is_member || !watch.changed().await {
                return false;
            }
        }
    }

    /// Adds a node that holds the metadata without a vote. Returns when it is committed; the node may still be behind.
    pub(super) async fn add_observer(&self, node: NodeId, address: &str) -> Result<(), SubmitError> {
        let node_info = BasicNode::new(address);
        let added = self.raft.add_learner(node, node_info, false).await;
        added.map(drop).map_err(refused)
    }

    /// A node without a vote need not hold the metadata any more.
    pub(super) async fn remove_observer(&self, node: NodeId) -> Result<(), SubmitError> {
        let gone = ChangeMembers::RemoveNodes(BTreeSet::from([node]));
        let changed = self.raft.change_membership(gone, true).await;
        changed.map(drop).map_err(refused)
    }

    /// Makes these nodes the voters. Each must be an observer or a voter already. Who loses his vote stays an observer.
    pub(super) async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), SubmitError> {
        let changed = self.raft.change_membership(voters, true).await;
        changed.map(drop).map_err(refused)
    }

    pub(super) fn state(&self) -> QuorumState {
        state(&self.raft.metrics().borrow())
    }

    /// Follows who leads and who takes part.
    pub(super) fn watch(&self) -> Watch {
        Watch {
            metrics: self.raft.metrics(),
        }
    }

    /// Whom this node gave its vote last; itself, when it stood for election.
    pub(super) fn voted_for(&self) -> NodeId {
        self.raft.metrics().borrow().vote.leader_id().node_id
    }

    /// Stands for election, whatever the time; not as a newcomer.
    pub(super) async fn elect(&self) {
        if !self.store.may_stand() {
            return;
        }
        // An end of the quorum is told to those who watch it.
        let _ = self.raft.trigger().elect().await;
    }

    pub(super) fn is_leader(&self) -> bool {
        self.raft.metrics().borrow().current_leader == Some(self.me)
    }

    /// Answers what another member sent.
    pub(super) async fn answer(&self, kind: Kind, body: Bytes) -> Result<Bytes, String> {
        match kind {
            Kind::Raft => network::answer(&self.raft, &self.store, self.me, &self.newer, body).await,
            Kind::Snapshot => network::answer_snapshot(&self.raft, &self.store, body).await,
            Kind::Control => Err("no call of the quorum".to_owned()),
        }
    }

    /// Ends this node's part.
    pub(super) async fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        if self.raft.shutdown().await.is_err() {
            tracing::warn!("the quorum's task ended in a panic");
        }
    }

    /// Whether its end was asked for.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// What only a newer node can read, if this one has met that: it cannot go on.
    pub(super) fn newer(&self) -> Option<String> {
        self.newer.found()
    }

    /// Returns when there is such a thing. Cancel safe.
    pub(super) async fn outdated(&self) -> String {
        self.newer.wait().await
    }

    pub(super) fn peers(&self) -> &Peers {
        &self.peers
    }
}

/// Follows the state of a quorum.
pub(super) struct Watch {
    metrics: watch::Receiver<Metrics>,
}

impl Watch {
    pub(super) fn state(&mut self) -> QuorumState {
        state(&self.metrics.borrow_and_update())
    }

    /// Returns when something changed; false: the quorum has ended. Cancel safe.
    pub(super) async fn changed(&mut self) -> bool {
        self.metrics.changed().await.is_ok()
    }
}

fn refused(error: RaftError<NodeId, ClientWriteError<NodeId, BasicNode>>) -> SubmitError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => SubmitError::NotLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(
            _,
        ))) => SubmitError::Changing,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(wrong)) => {
            SubmitError::Members(wrong.to_string())
        }
        RaftError::Fatal(error) => SubmitError::Broken(error.to_string()),
    }
}

fn state(metrics: &Metrics) -> QuorumState {
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let nodes = membership.nodes();
    let addresses: BTreeMap<NodeId, String> = nodes.map(|(id, node)| (*id, node.addr.clone())).collect();
    let observers = addresses
        .keys()
        .filter(|id| !voters.contains(id))
        .copied()
        .collect();
    let reached = metrics.replication.as_ref().map(|replication| {
        replication
            .iter()
            .map(|(id, log_id)| (*id, log_id.map_or(Offset(0), |id| offset(id.index).plus(1))))
            .collect()
    });
    let holds_own_term = |id: &Option<LogId>| id.is_some_and(|id| id.leader_id.term == metrics.current_term);
    let whole = metrics.replication.as_ref().map(|replication| {
        let whole = replication.iter().filter(|(_, id)| holds_own_term(id));
        whole.map(|(id, _)| *id).collect()
    });
    QuorumState {
        leader: metrics.current_leader,
        term: metrics.current_term,
        voters,
        observers,
        addresses,
        reached: reached.unwrap_or_default(),
        whole: whole.unwrap_or_default(),
        log_end: metrics
            .last_log_index
            .map_or(Offset(0), |index| offset(index).plus(1)),
        applied: metrics.last_applied.map_or(Offset(-1), |id| offset(id.index)),
        failed: match &metrics.running_state {
            Ok(()) | Err(Fatal::Stopped) => None,
            Err(failed) => Some(failed.to_string()),
        },
    }
}

fn offset(index: u64) -> Offset {
    Offset(i64::try_from(index).expect("a log never has 2^63 entries"))
}

fn index(offset: Offset) -> u64 {
    u64::try_from(offset.value()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
