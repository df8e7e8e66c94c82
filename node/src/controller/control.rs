//! How a proposal finds the controller: decided here where this node leads the quorum, else sent to whoever does, and
//! retried while nobody does.
//!
//! It owns the messages between a node and the controller. A change whose answer was lost may have happened; those that
//! are sent again here are the same change twice.

use super::error::ProposeError;
use super::raft::QuorumState;
use super::{Applied, Change, Controller, MemberChange, Request};
use crate::metadata::features::{Level, Supported};
use crate::metadata::{Ended, Node, NodeState};
use crate::peer::{Answering, Answers, CallError, Kind};
use bytes::Bytes;
use headwater_protocol::ids::{BrokerEpoch, NodeId, Offset, TopicId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a proposal is tried: no client waits longer by default.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long somebody waits for certainty who can do without it.
const CERTAINTY: Duration = Duration::from_secs(1);
/// How long one node may take for one answer: a commit, several elections long.
const ANSWER: Duration = Duration::from_secs(5);
/// How long whoever seems to lead is asked in vain before another one is asked who leads.
const DOUBT: Duration = Duration::from_secs(1);
/// How long a proposal rests when nobody leads, unless somebody does before.
const REST: Duration = Duration::from_millis(50);

/// How a node stands with the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub state: NodeState,
    /// It asked to stop, and leads nothing any more that another could lead.
    pub may_stop: bool,
    /// The metadata by which that is so.
    pub as_of: Offset,
    /// The feature level that the controller takes the node for.
    #[serde(default)]
    pub level: Level,
}

/// Where whoever leads the quorum is looked for.
#[derive(Debug, Default)]
struct Search {
    /// Who was named by the last one that was asked.
    hint: Option<NodeId>,
    /// Since when whoever seems to lead is asked in vain.
    in_vain: Option<Instant>,
    /// How many were asked who did not seem to lead.
    asked: usize,
}

/// A call to whoever leads the quorum.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Call {
    Propose(Box<Change>),
    Heartbeat {
        node: NodeId,
        epoch: BrokerEpoch,
        leaving: bool,
    },
    Members(MemberChange),
    Quorum,
}

impl Call {
    fn level(&self) -> Level {
        match self {
            Self::Propose(change) => change.level(),
            Self::Heartbeat { .. } | Self::Members(_) | Self::Quorum => Level::FIRST,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Answer<T> {
    Done(T),
    Refused(ProposeError),
    /// Another node leads, if anybody does.
    NotLeader {
        leader: Option<NodeId>,
        address: Option<String>,
    },
}

impl Controller {
    /// Proposes a change. Returns when it is durable and this node's view shows it, or with the reason why it was
    /// refused. Waits while too many proposals are queued, and while nobody leads the quorum, 30 seconds at most. If the
    /// future is dropped, the change may have happened.
    pub async fn propose(&self, change: Change) -> Result<Applied, ProposeError> {
        let call = Call::Propose(Box::new(self.repeatable(change)));
        let applied: Applied = Box::pin(self.ask(&call, PATIENCE)).await?;
        self.comes_to(applied.offset).await?;
        Ok(applied)
    }

    /// Tells the controller that this node is there. The caller says when again. A node that may stop knows by then who
    /// leads in its place.
    pub async fn heartbeat(
        &self,
        epoch: BrokerEpoch,
        leaving: bool,
        patience: Duration,
    ) -> Result<Standing, ProposeError> {
        let node = self.me;
        let call = Call::Heartbeat { node, epoch, leaving };
        let standing: Standing = self.ask(&call, patience).await?;
        if standing.may_stop {
            // Once it drains it hears of nothing more, and would go on as the leader of before.
            self.comes_to(standing.as_of).await?;
        }
        Ok(standing)
    }

    /// Changes who takes part in the quorum. If the future is dropped, it may have happened.
    pub async fn change_members(&self, change: MemberChange) -> Result<(), ProposeError> {
        self.ask(&Call::Members(change), PATIENCE).await
    }

    /// Who leads, who takes part and how far each is, as the leader knows it.
    pub async fn describe_quorum(&self) -> Result<QuorumState, ProposeError> {
        self.ask(&Call::Quorum, PATIENCE).await
    }

    /// Returns when this node acts on all that was decided before this was asked. For who would refuse what is right by
    /// now: a node that is cut off does not hear that others have taken over. Waits a second at most.
    pub async fn up_to_date(&self) -> Result<(), ProposeError> {
        let deadline = self.sys.clock.now() + CERTAINTY;
        let quorum: QuorumState = self.ask(&Call::Quorum, CERTAINTY).await?;
        let left = deadline.saturating_duration_since(self.sys.clock.now());
        let in_time = self.sys.clock.timeout(left, self.comes_to(quorum.applied)).await;
        in_time.map_err(|_| ProposeError::TimedOut("this node is behind the metadata".to_owned()))?
    }

    /// Returns when this node acts on everything up to `offset`. One whose metadata log has failed never does: it must not take
    /// what it knew for what is so.
    async fn comes_to(&self, offset: Offset) -> Result<(), ProposeError> {
        let reached = self.gate.reached(offset).await;
        reached.map_err(|Ended| match self.quorum.state().failed {
            Some(failed) => ProposeError::Storage(failed),
            None => ProposeError::Stopped,
        })
    }

    /// Who leads and who takes part, as this node knows it.
    pub fn quorum(&self) -> QuorumState {
        self.quorum.state()
    }

    /// Leaves the lead of the quorum to the other voters, if this node has it and there are any: they elect one of them
    /// within a moment. Nothing can be proposed on this node any more.
    pub async fn abdicate(&self) {
        let state = self.quorum.state();
        if state.leader == Some(self.me) && state.voters.len() > 1 {
            tracing::info!("this node leaves the lead of the quorum to others");
            self.quorum.stop().await;
        }
    }

    /// Sent twice, a change must be the same one: a topic brings its id along.
    fn repeatable(&self, change: Change) -> Change {
        match change {
            Change::CreateTopic(mut topic) => {
                let fresh = || TopicId::from_random(self.sys.random.secret());
                topic.id = Some(topic.id.unwrap_or_else(fresh));
                Change::CreateTopic(topic)
            }
            change => change,
        }
    }

    async fn ask<T: DeserializeOwned + Outcome>(
        &self,
        call: &Call,
        patience: Duration,
    ) -> Result<T, ProposeError> {
        let deadline = self.sys.clock.now() + patience;
        let mut watch = self.quorum.watch();
        let mut search = Search::default();
        loop {
            let state = watch.state();
            if let Some(newer) = self.quorum.newer() {
                return Err(ProposeError::UnsupportedVersion(newer));
            }
            if let Some(failed) = state.failed {
                return Err(ProposeError::Storage(failed));
            }
            let left = deadline.saturating_duration_since(self.sys.clock.now());
            let target = self.next_target(&mut search, state.leader);
            let why = match target {
                Some(leader) if leader == self.me => match self.ask_here(call).await {
                    Err(ProposeError::NotController) => "this node does not lead any more".to_owned(),
                    answer => return T::from_any(answer?),
                },
                Some(node) if !self.is_read_by(node, call) => {
                    if state.leader == Some(node) {
                        return Err(ProposeError::UnsupportedVersion(format!(
                            "node {node} leads the quorum, and is too old for this: upgrade it first"
                        )));
                    }
                    format!("node {node} is too old for this")
                }
                Some(leader) => match self.ask_there(leader, call, left.min(ANSWER)).await {
                    Ok(Answer::Done(done)) => return Ok(done),
                    // Its own end, not the cluster's: somebody else leads soon.
                    Ok(Answer::Refused(error @ (ProposeError::Stopped | ProposeError::Storage(_)))) => {
                        error.to_string()
                    }
                    Ok(Answer::Refused(error)) => return Err(error),
                    Ok(Answer::NotLeader { leader, address }) => {
                        if let (Some(leader), Some(address)) = (leader, address) {
                            self.quorum.peers().learn(leader, &address);
                        }
                        search.hint = leader.filter(|leader| Some(*leader) != target);
                        format!("node {} does not lead", target.unwrap_or(NodeId::NONE))
                    }
                    Err(error) => error.to_string(),
                },
                None => "no other node is known".to_owned(),
            };
            if self.sys.clock.now() + REST >= deadline {
                return Err(ProposeError::TimedOut(why));
            }
            if search.hint.is_none() {
                search.in_vain.get_or_insert_with(|| self.sys.clock.now());
                let was_here = target == Some(self.me);
                tokio::select! {
                    biased;
                    // To ask here changes the quorum's state by itself: without a rest it would go round in circles.
                    is_running = watch.changed(), if !was_here => if !is_running {
                        return Err(ProposeError::Stopped);
                    },
                    () = self.sys.clock.sleep(REST) => {}
                }
            }
        }
    }

    /// Whether a node understands a call: by the level in force, or by what it registered.
    fn is_read_by(&self, node: NodeId, call: &Call) -> bool {
        let (level, image) = (call.level(), self.known());
        let supports = |node: &Node| Supported::of(node).level() >= level;
        level <= image.level() || image.nodes.get(&node).is_some_and(supports)
    }

    /// Whoever was named, or seems to lead; after a while in vain some other node, since one that the quorum has let go is
    /// never told of another leader.
    fn next_target(&self, search: &mut Search, leader: Option<NodeId>) -> Option<NodeId> {
        let now = self.sys.clock.now();
        let doubt = search.in_vain.take_if(|since| now >= *since + DOUBT);
        let believed = leader.filter(|_| doubt.is_none());
        let target = search.hint.take().or(believed);
        target.or_else(|| self.somebody(search))
    }

    /// Some node that may know who leads, another one each time.
    fn somebody(&self, search: &mut Search) -> Option<NodeId> {
        let known = self.quorum.peers().known();
        search.asked += 1;
        known.get(search.asked % known.len().max(1)).copied()
    }

    async fn ask_there<T: DeserializeOwned>(
        &self,
        node: NodeId,
        call: &Call,
        limit: Duration,
    ) -> Result<Answer<T>, CallError> {
        let body =
            serde_json::to_vec(call).expect("changes have string keys and no value that JSON cannot write");
        let peers = self.quorum.peers();
        if !peers.known().contains(&node)
            && let Some(address) = self.address_of(node)
        {
            peers.learn(node, &address);
        }
        let answer = peers.call(node, Kind::Control, Bytes::from(body), limit).await?;
        serde_json::from_slice(&answer).map_err(|error| CallError::Failed {
            node,
            reason: error.to_string(),
        })
    }

    async fn ask_here(&self, call: &Call) -> Result<Any, ProposeError> {
        match call.clone() {
            Call::Propose(change) => {
                let (reply, answer) = oneshot::channel();
                self.send(Request::Propose { change, reply }).await?;
                let applied = answer.await.map_err(|_| ProposeError::Stopped)??;
                Ok(Any::Applied(Box::new(applied)))
            }
            Call::Heartbeat { node, epoch, leaving } => {
                let (reply, answer) = oneshot::channel();
                self.send(Request::Heartbeat {
                    node,
                    epoch,
                    leaving,
                    reply,
                })
                .await?;
                answer
                    .await
                    .map_err(|_| ProposeError::Stopped)?
                    .map(Any::Standing)
            }
            Call::Quorum => {
                let (reply, answer) = oneshot::channel();
                self.send(Request::Quorum { reply }).await?;
                let state = answer.await.map_err(|_| ProposeError::Stopped)??;
                Ok(Any::Quorum(Box::new(state)))
            }
            Call::Members(change) => {
                let (reply, answer) = oneshot::channel();
                self.send(Request::Members { change, reply }).await?;
                answer
                    .await
                    .map_err(|_| ProposeError::Stopped)?
                    .map(|()| Any::Nothing)
            }
        }
    }

    async fn send(&self, request: Request) -> Result<(), ProposeError> {
        self.requests
            .send(request)
            .await
            .map_err(|_| ProposeError::Stopped)
    }
}

/// What any call is answered with here.
#[derive(Debug)]
enum Any {
    Applied(Box<Applied>),
    Standing(Standing),
    Quorum(Box<QuorumState>),
    Nothing,
}

/// What one kind of call is answered with.
trait Outcome: Sized {
    fn from_any(any: Any) -> Result<Self, ProposeError>;
}

impl Outcome for Applied {
    fn from_any(any: Any) -> Result<Self, ProposeError> {
        match any {
            Any::Applied(applied) => Ok(*applied),
            Any::Standing(_) | Any::Quorum(_) | Any::Nothing => Err(ProposeError::Stopped),
        }
    }
}

impl Outcome for Standing {
    fn from_any(any: Any) -> Result<Self, ProposeError> {
        match any {
            Any::Standing(standing) => Ok(standing),
            Any::Applied(_) | Any::Quorum(_) | Any::Nothing => Err(ProposeError::Stopped),
        }
    }
}

impl Outcome for QuorumState {
    fn from_any(any: Any) -> Result<Self, ProposeError> {
        match any {
            Any::Quorum(state) => Ok(*state),
            Any::Applied(_) | Any::Standing(_) | Any::Nothing => Err(ProposeError::Stopped),
        }
    }
}

impl Outcome for () {
    fn from_any(_: Any) -> Result<Self, ProposeError> {
        Ok(())
    }
}

/// Answers the calls of other nodes: those of the quorum, and those to whoever leads it.
pub(super) struct Answerer {
    controller: Controller,
}

impl Answerer {
    pub(super) fn new(controller: Controller) -> Self {
        Self { controller }
    }
}

impl Answers for Answerer {
    fn answer(&self, from: NodeId, kind: Kind, body: Bytes) -> Answering {
        let controller = self.controller.clone();
        Box::pin(async move {
            match kind {
                Kind::Raft | Kind::Snapshot => controller.quorum.answer(kind, body).await,
                Kind::Control => {
                    let call: Call = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                    if call.level() > controller.supported.level() {
                        tracing::warn!(node = %from, "a call of a newer version is refused");
                        return Err("a call of a newer version".to_owned());
                    }
                    if let Call::Heartbeat { node, .. } = &call
                        && *node != from
                    {
                        return Err(format!("node {from} speaks for node {node}"));
                    }
                    let answer = match controller.ask_here(&call).await {
                        Ok(Any::Applied(applied)) => written(&Answer::Done(applied)),
                        Ok(Any::Standing(standing)) => written(&Answer::Done(standing)),
                        Ok(Any::Quorum(state)) => written(&Answer::Done(state)),
                        Ok(Any::Nothing) => written(&Answer::Done(())),
                        Err(ProposeError::NotController) => written(&controller.not_leader()),
                        Err(error) => written(&Answer::<()>::Refused(error)),
                    };
                    Ok(answer)
                }
            }
        })
    }
}

impl Controller {
    fn not_leader(&self) -> Answer<()> {
        let state = self.quorum.state();
        let leader = state.leader.filter(|leader| *leader != self.me);
        let address = leader.and_then(|leader| self.address_of(leader));
        Answer::NotLeader { leader, address }
    }

    /// Where a node is reached: as it registered, else as it was made a member of the quorum. Who began the cluster alone
    /// is known by its registration only.
    fn address_of(&self, node: NodeId) -> Option<String> {
        let image = self.known();
        let registered = image.nodes.get(&node).map(|node| node.addresses.quic.clone());
        let known = registered.or_else(|| self.quorum.state().addresses.get(&node).cloned());
        known.filter(|address| !address.is_empty())
    }
}

fn written<T: Serialize>(answer: &Answer<T>) -> Bytes {
    Bytes::from(
        serde_json::to_vec(answer).expect("answers have string keys and no value that JSON cannot write"),
    )
}
