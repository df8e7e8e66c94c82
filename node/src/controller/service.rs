//! The controller's task: while this node leads the quorum, it takes proposals, decides them one after another, submits
//! what was decided as one entry, and answers. It watches which nodes are there, and decides for those that are not.
//!
//! Nobody is answered, and nothing published, before it is committed. A proposal sees everything decided before it. What
//! was decided on a state of affairs that another leader has changed since does not happen (`Outcome::Stale`), and is
//! decided again.

use super::balance::unbalanced;
use super::decide::{Context, Decision, Tell, decide};
use super::elections;
use super::error::ProposeError;
use super::features;
use super::lifelines::{Gone, Lifelines};
use super::nodes;
use super::raft::{Changes, Outcome, Quorum, QuorumState, SubmitError};
use super::sessions::Sessions;
use super::{Applied, Change, Leaders, MemberChange, Request, Standing, first_entry};
use crate::config::{BrokerConfig, LeaderBalance};
use crate::metadata::features::{Level, Supported};
use crate::metadata::{Image, Node, NodeState, Record, View};
use crate::sys::Sys;
use crate::sys::mailbox::Mailbox;
use crate::telemetry::health::State;
use crate::telemetry::{Counter, Health, Histogram, Metrics, names};
use headwater_protocol::ids::{BrokerEpoch, NodeId, Offset, TopicId};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How many proposals share one entry.
const PROPOSALS_PER_ENTRY_MAX: usize = 64;
/// How often proposals are decided anew before those who ask are told to ask again.
const STALE_MAX: usize = 3;
/// Below it a quorum of one accepts no change, so that its log does not meet a full disk.
const FREE_BYTES_MIN: u64 = 4 << 20;
/// How long a change that is under way may take when the node stops.
const FINISH: Duration = Duration::from_secs(1);
/// How soon a leader that could not make sure of its reign tries again.
const REIGN_RETRY: Duration = Duration::from_millis(50);
/// How long a node that is to vote may take to get what it has not yet.
const CATCH_UP: Duration = Duration::from_millis(500);

/// What the service works with besides the quorum.
pub(super) struct Parts {
    pub(super) me: NodeId,
    pub(super) cluster_id: String,
    pub(super) session_timeout: Duration,
    pub(super) lifelines: Lifelines,
    pub(super) supported: Supported,
    pub(super) sys: Sys,
    pub(super) broker: BrokerConfig,
    pub(super) view: View,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
}

pub(super) struct Service {
    parts: Parts,
    quorum: Quorum,
    /// This node's reign, if it has one.
    reign: Option<Reign>,
    /// The term in which it could not make sure of one, and when it tries again.
    unsure: Option<(u64, Instant)>,
    /// Who led the quorum last, besides this node.
    predecessor: Option<NodeId>,
    committed: Counter,
    refused: Counter,
    commit_seconds: Histogram,
    clean_elections: Counter,
    unclean_elections: Counter,
}

/// What a leader of the quorum knows.
struct Reign {
    term: u64,
    sessions: Sessions,
    /// When it was looked at last who leads what he should.
    balanced_at: Instant,
}

/// Somebody who waits for a change.
type Reply = oneshot::Sender<Result<Applied, ProposeError>>;

/// A change and what became of it: what to tell and whether it is news, or why not.
struct Decided {
    change: Change,
    verdict: Result<(Tell, bool), ProposeError>,
    reply: Reply,
}

impl Service {
    pub(super) fn new(parts: Parts, quorum: Quorum) -> Self {
        let committed = parts.metrics.counter(&names::METADATA_CHANGES, &["committed"]);
        let refused = parts.metrics.counter(&names::METADATA_CHANGES, &["refused"]);
        let commit_seconds = parts.metrics.histogram(&names::METADATA_COMMIT_SECONDS, &[]);
        let clean_elections = parts.metrics.counter(&names::ELECTIONS, &["clean"]);
        let unclean_elections = parts.metrics.counter(&names::ELECTIONS, &["unclean"]);
        Self {
            parts,
            quorum,
            reign: None,
            unsure: None,
            predecessor: None,
            committed,
            refused,
            commit_seconds,
            clean_elections,
            unclean_elections,
        }
    }

    /// Serves until `cancel` fires; what was taken from the mailbox by then is finished first, if that is soon.
    pub(super) async fn run(mut self, mut mailbox: Mailbox<Request>, cancel: CancellationToken) {
        self.parts.health.set("controller", State::Ready);
        let clock = self.parts.sys.clock.clone();
        let too_late = async {
            cancel.cancelled().await;
            clock.sleep(FINISH).await;
        };
        tokio::select! {
            biased;
            () = self.serve_until(&cancel, &mut mailbox) => {}
            () = too_late => tracing::warn!("stopping with a change that no majority has taken yet"),
        }
        self.parts.health.set("controller", State::Stopping);
        self.quorum.stop().await;
    }

    async fn serve_until(&mut self, cancel: &CancellationToken, mailbox: &mut Mailbox<Request>) {
        let mut watch = self.quorum.watch();
        let quorum = self.quorum.clone();
        self.follow(&watch.state()).await;
        loop {
            let clock = self.parts.sys.clock.clone();
            let expiry = clock.sleep_until_some(self.next_deadline());
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                reason = quorum.outdated() => {
                    // Panics are how a critical task says that the node cannot go on.
                    panic!("this node is too old for its cluster: {reason}");
                }
                is_running = watch.changed() => {
                    if !is_running {
                        // A node without its part of the metadata would answer for ever that it is stopping.
                        let has_failed = watch.state().failed.is_some();
                        assert!(has_failed || self.quorum.is_stopping(), "the quorum's task died");
                        return;
                    }
                    let state = watch.state();
                    self.follow(&state).await;
                }
                request = mailbox.recv() => {
                    let Some(request) = request else { return };
                    self.take(request, mailbox).await;
                }
                () = self.parts.lifelines.changed() => self.bury().await,
                () = expiry => {
                    self.expire().await;
                    self.rebalance().await;
                    self.dismiss_observers().await;
                }
            }
        }
    }

    fn image(&self) -> Arc<Image> {
        self.parts.view.image()
    }

    fn now(&self) -> Instant {
        self.parts.sys.clock.now()
    }

    fn next_deadline(&self) -> Option<Instant> {
        match &self.reign {
            Some(reign) => {
                let sessions = reign.sessions.next_deadline(&self.image());
                let balance = self.balance().map(|balance| reign.balanced_at + balance.interval);
                sessions.into_iter().chain(balance).min()
            }
            None => self.quorum.is_leader().then(|| match self.unsure {
                Some((_, until)) => until,
                None => self.now() + REIGN_RETRY,
            }),
        }
    }

    /// How leaders are balanced; None: nobody does that, or there is nobody else.
    fn balance(&self) -> Option<LeaderBalance> {
        let image = self.image();
        let broker = self.parts.broker.with_cluster(Arc::clone(&image.broker_configs));
        (image.nodes.len() > 1).then(|| broker.leader_balance()).flatten()
    }

    /// Takes note of who leads now.
    async fn follow(&mut self, state: &QuorumState) {
        if let Some(failed) = &state.failed {
            tracing::error!(
                reason = failed,
                "the quorum failed on this node, no change is accepted until the next start"
            );
            self.parts.health.set("controller", State::Failed(failed.clone()));
            self.reign = None;
            return;
        }
        let is_alone =
            state.voters.len() == 1 && state.observers.is_empty() && state.voters.contains(&self.parts.me);
        // Alone and not leading, only its own timeout makes it stand for election.
        self.quorum
            .keep_time(!is_alone || state.leader != Some(self.parts.me));
        let reigns = state.leader == Some(self.parts.me);
        if let Some(leader) = state.leader.filter(|_| !reigns) {
            self.predecessor = Some(leader);
        }
        match &self.reign {
            Some(reign) if reigns && reign.term == state.term => {}
            _ if reigns => self.begin_reign(state.term).await,
            Some(_) => self.reign = None,
            None => {}
        }
    }

    /// What earlier leaders committed is folded here before anything is decided.
    async fn begin_reign(&mut self, term: u64) {
        self.reign = None;
        if self
            .unsure
            .is_some_and(|(unsure, until)| unsure == term && self.now() < until)
        {
            return;
        }
        if let Err(error) = self.quorum.caught_up().await {
            tracing::debug!(%error, "not a leader after all");
            // To ask is itself a change of the quorum's state: without a rest it would go round in circles.
            self.unsure = Some((term, self.now() + REIGN_RETRY));
            return;
        }
        self.unsure = None;
        if let Err(error) = self.quorum.end_newcomer().await {
            tracing::warn!(%error, "this node stays a newcomer for the moment");
        }
        let (now, timeout) = (self.now(), self.parts.session_timeout);
        let mut sessions = Sessions::begin(self.parts.me, timeout, now);
        if let Some(predecessor) = self.predecessor.take() {
            // An election comes of its silence.
            sessions.doubt(predecessor, timeout / 3, now);
        }
        self.reign = Some(Reign {
            term,
            sessions,
            balanced_at: now,
        });
        tracing::info!(term, "this node is the controller");
        if self.image().cluster_id.is_empty() {
            let first = first_entry(&self.parts.cluster_id, &self.parts.supported);
            if let Err(error) = self.submit(first).await {
                tracing::warn!(%error, "the cluster's first entry was not committed");
            }
        }
        if let Some(voters) = self.quorum.unfinished() {
            // Both the voters before and those after it would be needed for ever.
            let finished = self.quorum.set_voters(voters).await;
            if let Err(error) = finished {
                tracing::warn!(error = %propose_error(&error), "a change of the voters is not finished");
            }
        }
        self.bury().await;
        self.dismiss_observers().await;
    }

    async fn take(&mut self, request: Request, mailbox: &mut Mailbox<Request>) {
        let mut next = Some(request);
        while let Some(request) = next.take() {
            match request {
                Request::Propose { change, reply } => {
                    let mut proposals = vec![(*change, reply)];
                    while proposals.len() < PROPOSALS_PER_ENTRY_MAX {
                        match mailbox.try_recv() {
                            Some(Request::Propose { change, reply }) => proposals.push((*change, reply)),
                            other => {
                                next = other;
                                break;
                            }
                        }
                    }
                    self.serve(proposals).await;
                }
                Request::Heartbeat {
                    node,
                    epoch,
                    leaving,
                    reply,
                } => {
                    let standing = self.heartbeat(node, epoch, leaving).await;
                    let _ = reply.send(standing);
                }
                Request::Quorum { reply } => {
                    let _ = reply.send(self.describe().await);
                }
                Request::Members { change, reply } => {
                    let done = self.change_members(change).await;
                    let _ = reply.send(done);
                }
            }
        }
    }

    async fn serve(&mut self, proposals: Vec<(Change, Reply)>) {
        let started = self.now();
        let mut waiting = proposals;
        for _ in 0..STALE_MAX {
            if let Err(error) = self.may_decide() {
                waiting
                    .into_iter()
                    .for_each(|(_, reply)| answer(reply, Err(error.clone())));
                return;
            }
            let registers = |(change, _): &(Change, Reply)| matches!(change, Change::RegisterNode(_));
            // The progress of a former node of that number would be taken for its own.
            if waiting.iter().any(registers) && !self.dismiss_observers().await {
                break;
            }
            match self.decide_all(waiting).await {
                None => {
                    self.commit_seconds.record(self.now().duration_since(started));
                    return;
                }
                Some(again) => waiting = again,
            }
        }
        for (_, reply) in waiting {
            answer(reply, Err(ProposeError::NotController));
        }
    }

    fn may_decide(&self) -> Result<(), ProposeError> {
        if self.reign.is_none() {
            return Err(match self.quorum.state().failed {
                Some(reason) => ProposeError::Storage(reason),
                None => ProposeError::NotController,
            });
        }
        if self.quorum.state().voters.len() > 1 {
            // Without any room this node stands still, and another voter takes over.
            return Ok(());
        }
        let free = self.parts.sys.disk.free_bytes(Path::new(""));
        match free {
            Ok(free) if free < FREE_BYTES_MIN => Err(ProposeError::Storage("disk full".to_owned())),
            // A disk that cannot tell is no reason to refuse.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Decides what waits and commits it as one entry. Gives back what has to be decided anew.
    ///
    /// What was decided is told only once it is known to rest on the newest metadata: a leader that was cut off and does not know of
    /// its successor yet would refuse what is right by now.
    async fn decide_all(&mut self, proposals: Vec<(Change, Reply)>) -> Option<Vec<(Change, Reply)>> {
        let base = self.image();
        let mut image = Image::clone(&base);
        let mut records = Vec::new();
        let mut decided: Vec<Decided> = Vec::with_capacity(proposals.len());
        for (change, reply) in proposals {
            let decided_so = decide(change.clone(), &image, &self.context(&image));
            let permitted = decided_so.and_then(|decision| features::permit(decision, &image));
            let verdict = permitted.map(|Decision { records: more, tell }| {
                let is_news = !more.is_empty();
                image.amend(&more);
                records.extend(more);
                (tell, is_news)
            });
            decided.push(Decided {
                change,
                verdict,
                reply,
            });
        }
        let elected = elections::elected(&base, &records);
        let committed = match records.is_empty() {
            true => self.still_rests_on(&base).await,
            false => {
                let submitted = self.quorum.submit(Changes::new(base.changed, records)).await;
                submitted.map(|(at, outcome)| matches!(outcome, Outcome::Folded).then_some(at))
            }
        };
        let offset = match committed {
            Ok(Some(offset)) => offset,
            Ok(None) => return Some(decided.into_iter().map(|one| (one.change, one.reply)).collect()),
            Err(error) => {
                let error = propose_error(&error);
                for one in decided {
                    self.refused.increment();
                    answer(one.reply, Err(error.clone()));
                }
                return None;
            }
        };
        self.clean_elections.add(elected.clean);
        self.unclean_elections.add(elected.unclean);
        let image = self.image();
        for Decided { verdict, reply, .. } in decided {
            match verdict {
                Ok((tell, is_news)) => {
                    if is_news {
                        self.committed.increment();
                    }
                    let outcome = tell.outcome(&image);
                    answer(reply, Ok(Applied { offset, outcome }));
                }
                Err(error) => {
                    self.refused.increment();
                    tracing::debug!(%error, "change refused");
                    answer(reply, Err(error));
                }
            }
        }
        self.adopt_observers().await;
        self.dismiss_observers().await;
        None
    }

    /// The offset of the metadata if nobody has changed it since, as a majority knows it.
    async fn still_rests_on(&self, base: &Image) -> Result<Option<Offset>, SubmitError> {
        self.quorum.leads_still().await?;
        let image = self.image();
        Ok((image.changed == base.changed).then_some(base.offset))
    }

    /// The quorum, by one who leads it still when he is asked.
    async fn describe(&self) -> Result<QuorumState, ProposeError> {
        self.may_decide()?;
        let leads = self.quorum.leads_still().await;
        leads.map_err(|error| propose_error(&error))?;
        Ok(self.quorum.state())
    }

    /// Decides one change of the controller's own.
    async fn decide_one(&mut self, change: Change) -> Result<(), ProposeError> {
        let (reply, mut answered) = oneshot::channel();
        self.serve(vec![(change, reply)]).await;
        match answered.try_recv() {
            Ok(result) => result.map(drop),
            Err(_) => Err(ProposeError::Stopped),
        }
    }

    async fn submit(&mut self, records: Vec<Record>) -> Result<(), ProposeError> {
        let basis = self.image().changed;
        let submitted = self.quorum.submit(Changes::new(basis, records)).await;
        submitted.map(drop).map_err(|error| propose_error(&error))
    }

    fn context(&self, image: &Image) -> Context {
        Context {
            broker: self.parts.broker.with_cluster(Arc::clone(&image.broker_configs)),
            topic_id: TopicId::from_random(self.parts.sys.random.secret()),
            voters: self.quorum.state().voters,
            supported: self.parts.supported.clone(),
        }
    }

    async fn heartbeat(
        &mut self,
        id: NodeId,
        epoch: BrokerEpoch,
        leaving: bool,
    ) -> Result<Standing, ProposeError> {
        let now = self.now();
        let Some(reign) = &mut self.reign else {
            return Err(ProposeError::NotController);
        };
        let image = self.parts.view.image();
        if epoch.value() > image.offset.value() {
            // It registered behind all that is known here: somebody else leads by now. A node that is told that it is unknown, or
            // not the newest process of its name, ends. Whoever knows of its registration knows that for certain.
            return Err(ProposeError::NotController);
        }
        let node = nodes::current(id, epoch, &image)?;
        reign.sessions.heard(id, now);
        match (node.state, leaving) {
            // What it said before it went, or its listener alone is gone: clients do not reach it either way.
            (NodeState::Fenced, false) if self.parts.lifelines.is_gone(id, epoch) => {}
            (NodeState::Fenced, false) => {
                tracing::info!(node = %id, "node takes part");
                self.decide_one(Change::UnfenceNode { node: id, epoch }).await?;
            }
            (NodeState::Active | NodeState::ShuttingDown, true) => {
                self.decide_one(Change::ShutDownNode { node: id, epoch }).await?;
            }
            (NodeState::Fenced, true) | (NodeState::Active | NodeState::ShuttingDown, false) => {}
        }
        let image = self.image();
        let node = image.nodes.get(&id);
        let state = node.map_or(NodeState::Fenced, |node| node.state);
        Ok(Standing {
            state,
            may_stop: leaving && !leads_what_another_could(&image, id),
            as_of: image.offset,
            level: node.map_or(Level::FIRST, |node| Supported::of(node).level()),
        })
    }

    /// Fences the nodes that were silent for too long.
    async fn expire(&mut self) {
        let (now, image) = (self.now(), self.image());
        let Some(reign) = &mut self.reign else {
            let state = self.quorum.state();
            self.follow(&state).await;
            return;
        };
        for (node, epoch) in reign.sessions.expired(&image, now) {
            tracing::warn!(%node, "node is not heard of any more, others take over");
            if let Err(error) = self.decide_one(Change::FenceNode { node, epoch }).await {
                tracing::warn!(%node, %error, "node could not be fenced");
                // Not again at once: whoever leads now, or this node in a moment.
                if let Some(reign) = &mut self.reign {
                    reign.sessions.heard(node, now);
                }
            }
        }
    }

    /// Fences the nodes that are gone. One that is stopping has handed over what it could.
    async fn bury(&mut self) {
        for Gone { node, epoch } in self.parts.lifelines.gone() {
            let image = self.image();
            let known = image.nodes.get(&node);
            let is_active = known.is_some_and(|known| known.epoch == epoch && known.is_active());
            if self.reign.is_none() || !is_active {
                continue;
            }
            tracing::warn!(%node, "node is gone, others take over");
            if let Err(error) = self.decide_one(Change::FenceNode { node, epoch }).await {
                // Its session runs out soon.
                tracing::warn!(%node, %error, "node could not be fenced");
            }
        }
    }

    /// Gives preferred leaders their partitions back, when that is due.
    async fn rebalance(&mut self) {
        let (now, balance) = (self.now(), self.balance());
        let (Some(reign), Some(balance)) = (&mut self.reign, balance) else {
            return;
        };
        if now < reign.balanced_at + balance.interval {
            return;
        }
        reign.balanced_at = now;
        let partitions = unbalanced(&self.image(), balance.percentage);
        if partitions.is_empty() {
            return;
        }
        tracing::info!(partitions = partitions.len(), "preferred leaders are elected");
        let change = Change::ElectLeaders {
            leaders: Leaders::Preferred,
            partitions: Some(partitions),
        };
        if let Err(error) = self.decide_one(change).await {
            tracing::warn!(%error, "preferred leaders could not be elected");
        }
    }

    /// Nodes that registered become observers of the quorum, so that they hold the metadata.
    async fn adopt_observers(&mut self) {
        let state = self.quorum.state();
        let image = self.image();
        let strangers = image
            .nodes
            .values()
            .filter(|node| !state.addresses.contains_key(&node.id));
        for Node { id, addresses, .. } in strangers {
            self.quorum.peers().learn(*id, &addresses.quic);
            if let Err(error) = self.quorum.add_observer(*id, &addresses.quic).await {
                tracing::warn!(node = %id, %error, "node could not be made an observer of the quorum");
            }
        }
    }

    /// Nodes that are no members of the cluster any more need not hold the metadata. Returns whether none is left. What fails
    /// is tried again in a while, and by the next leader.
    async fn dismiss_observers(&mut self) -> bool {
        if self.reign.is_none() {
            return true;
        }
        let image = self.image();
        let mut observers = self.quorum.state().observers;
        // A leader without a vote goes by itself.
        observers.retain(|id| *id != self.parts.me && !image.nodes.contains_key(id));
        let mut is_done = true;
        for id in observers {
            self.quorum.peers().forget(id);
            if let Err(error) = self.quorum.remove_observer(id).await {
                tracing::warn!(node = %id, %error, "node is an observer of the quorum still");
                is_done = false;
            }
        }
        is_done
    }

    async fn change_members(&mut self, change: MemberChange) -> Result<(), ProposeError> {
        self.may_decide()?;
        let mut is_whole = false;
        if let MemberChange::AddVoter(node) = change {
            let clock = &self.parts.sys.clock;
            let caught_up = clock.timeout(CATCH_UP, self.quorum.until_whole(node)).await;
            is_whole = caught_up.unwrap_or(false);
        }
        let state = self.quorum.state();
        let refuse = |reason: String| Err(ProposeError::Refused(reason));
        let mut voters = state.voters.clone();
        if let Some(done) = done_already(&change, &voters) {
            // A leader that was replaced would tell of a state that is over.
            let leads = self.quorum.leads_still().await;
            return Err(leads.err().map_or(done, |error| propose_error(&error)));
        }
        match change {
            MemberChange::AddVoter(node) => {
                if !state.addresses.contains_key(&node) {
                    return refuse(format!("node {node} is not in the cluster: start it first"));
                }
                let behind = state
                    .log_end
                    .since(state.reached.get(&node).copied().unwrap_or_default());
                if !is_whole || behind > 1000 {
                    return refuse(format!(
                        "node {node} is {behind} entries behind: let it catch up first"
                    ));
                }
                voters.insert(node);
            }
            MemberChange::RemoveVoter(node) => {
                voters.remove(&node);
                if voters.is_empty() {
                    return refuse("a quorum needs a voter".to_owned());
                }
            }
        }
        // Heartbeats are needed from the moment a second vote counts.
        self.quorum.keep_time(true);
        let changed = self.quorum.set_voters(voters).await;
        changed.map_err(|error| {
            tracing::warn!(%error, "the voters of the quorum could not be changed");
            propose_error(&error)
        })
    }
}

/// What to say of a change that would change nothing.
fn done_already(change: &MemberChange, voters: &BTreeSet<NodeId>) -> Option<ProposeError> {
    let kind = "voter".into();
    match change {
        MemberChange::AddVoter(node) => voters.contains(node).then(|| ProposeError::Exists {
            kind,
            name: node.to_string(),
        }),
        MemberChange::RemoveVoter(node) => (!voters.contains(node)).then(|| ProposeError::Unknown {
            kind,
            name: node.to_string(),
        }),
    }
}

fn leads_what_another_could(image: &Image, id: NodeId) -> bool {
    let is_active = |node: &NodeId| image.nodes.get(node).is_some_and(Node::is_active);
    let mut partitions = image.topics.values().flat_map(|topic| &topic.partitions);
    partitions.any(|state| {
        state.leader == id
            && state
                .isr
                .iter()
                .chain(&state.eligible)
                .any(|replica| *replica != id && is_active(replica))
    })
}

fn propose_error(error: &SubmitError) -> ProposeError {
    match error {
        SubmitError::NotLeader => ProposeError::NotController,
        // Kafka says so, too: it may be asked for again.
        SubmitError::Changing => ProposeError::TimedOut(error.to_string()),
        SubmitError::Members(_) => ProposeError::Refused(error.to_string()),
        SubmitError::Broken(reason) => ProposeError::Storage(reason.clone()),
    }
}

fn answer(reply: Reply, result: Result<Applied, ProposeError>) {
    // That nobody waits any more is normal.
    let _ = reply.send(result);
}
