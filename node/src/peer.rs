//! Calls to the other nodes of the cluster, and the answering of theirs.
//!
//! One connection per pair and direction, dialed when it is needed. Its streams are long-lived: each begins with a
//! `hello` that says who speaks, to whom, and for what; then it carries calls (a request and its answer, many at a time)
//! or Kafka requests, served by the ordinary handlers on behalf of that node. Kinds of calls have streams of their own,
//! so that a snapshot holds up no heartbeat.
//!
//! It owns the connections and the book of addresses. It must never look into a call, and never retry one: a call may have
//! happened although its answer was lost.

mod calls;
mod exchange;
mod frame;
mod hello;
mod serve;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_protocol::ids::NodeId;

use self::calls::Calls;
use self::hello::{Hello, Purpose};
use crate::security::tls::{ALPN_PEER, Trust};
use crate::sys::Sys;
use crate::sys::task::{Kind as TaskKind, Tasks};
use crate::transport::dialer::Credentials;
use crate::transport::{CloseCode, Dialer, Session, Stream};

pub use self::hello::{Refusal, Secret};

/// How long a node that could not be reached is left alone.
const REDIAL: Duration = Duration::from_millis(50);
/// How long a dial with its hello may take.
const DIAL: Duration = Duration::from_millis(1000);

/// What a call is about. Each kind has a stream of its own and somebody of its own who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Votes and entries of the quorum.
    Raft = 1,
    /// Snapshots of the quorum, in pieces.
    Snapshot = 2,
    /// Changes that are proposed to the controller, heartbeats.
    Control = 3,
}

impl Kind {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Raft),
            2 => Some(Self::Snapshot),
            3 => Some(Self::Control),
            _ => None,
        }
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    #[error("node {0} has no address")]
    Unknown(NodeId),
    /// Nothing was sent.
    #[error("node {node} is not reached: {reason}")]
    Unreachable { node: NodeId, reason: String },
    /// The other end does not take us for what we are.
    #[error("node {node} refuses: {refusal}")]
    Refused { node: NodeId, refusal: Refusal },
    /// It may have happened.
    #[error("the connection to node {node} broke: {reason}")]
    Lost { node: NodeId, reason: String },
    /// It may have happened.
    #[error("node {0} did not answer in time")]
    TimedOut(NodeId),
    /// The other end has nobody who answers such calls, or he failed.
    #[error("node {node} cannot answer: {reason}")]
    Failed { node: NodeId, reason: String },
}

/// An answer on its way.
pub type Answering = Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send>>;

/// Answers the calls of other nodes. Calls of one stream begin in order and may end in any.
pub trait Answers: Send + Sync + 'static {
    /// Begins to answer; the future is dropped when nobody waits any more.
    fn answer(&self, from: NodeId, kind: Kind, body: Bytes) -> Answering;
}

/// Serves Kafka requests on a stream on behalf of a node. Does not block.
pub trait Streams: Send + Sync + 'static {
    fn serve(&self, from: NodeId, stream: Stream, session: &Session);
}

/// What peers are made of.
pub struct Parts {
    pub me: NodeId,
    pub cluster_id: String,
    /// The data directory's own name: another one under the same node id is another node to its peers.
    pub directory: String,
    /// Known to every node of the cluster, or to none.
    pub secret: Secret,
    pub sys: Sys,
    pub dialer: Dialer,
}

/// The other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    me: NodeId,
    cluster_id: String,
    directory: String,
    secret: Secret,
    sys: Sys,
    tasks: Tasks,
    dialer: Dialer,
    book: Mutex<BTreeMap<NodeId, String>>,
    /// The data directory under which each node is known; another one is refused.
    directories: Mutex<BTreeMap<NodeId, String>>,
    links: Mutex<BTreeMap<NodeId, Arc<tokio::sync::Mutex<Link>>>>,
    answers: OnceLock<Arc<dyn Answers>>,
    streams: OnceLock<Arc<dyn Streams>>,
}

/// The way to one other node.
#[derive(Default)]
struct Link {
    session: Option<Session>,
    calls: BTreeMap<Kind, Calls>,
    failed: Option<(Instant, CallError)>,
}

impl Peers {
    pub fn new(parts: Parts) -> Self {
        let tasks = parts.sys.tasks.child("peers");
        Self {
            shared: Arc::new(Shared {
                me: parts.me,
                cluster_id: parts.cluster_id,
                directory: parts.directory,
                secret: parts.secret,
                sys: parts.sys,
                tasks,
                dialer: parts.dialer,
                book: Mutex::default(),
                directories: Mutex::default(),
                links: Mutex::default(),
                answers: OnceLock::new(),
                streams: OnceLock::new(),
            }),
        }
    }

    /// Who answers calls from now on. Set once, at start; until then they are refused.
    pub fn answer_by(&self, answers: Arc<dyn Answers>) {
        let _ = self.shared.answers.set(answers);
    }

    /// Who serves Kafka streams from now on. Set once, at start.
    pub fn serve_by(&self, streams: Arc<dyn Streams>) {
        let _ = self.shared.streams.set(streams);
    }

    /// Where `node` is reached from now on, as `host:port` of its QUIC listener.
    pub fn learn(&self, node: NodeId, address: &str) {
        if node == self.shared.me || address.is_empty() {
            return;
        }
        let mut book = lock(&self.shared.book);
        if book.get(&node).is_none_or(|known| known != address) {
            book.insert(node, address.to_owned());
            drop(book);
            // What was dialed by the old address is not looked at again.
            lock(&self.shared.links).remove(&node);
        }
    }

    /// From now on `node` is believed on this data directory only: one that comes back empty is not what it was.
    pub fn bind(&self, node: NodeId, directory: &str) {
        if !directory.is_empty() {
            lock(&self.shared.directories).insert(node, directory.to_owned());
        }
    }

    /// Connects to `node`, which is a new process, before anybody asks it anything: whoever stands for election has no
    /// time for that. What led to the former process is not looked at again.
    pub fn warm(&self, node: NodeId) {
        if node == self.shared.me {
            return;
        }
        lock(&self.shared.links).remove(&node);
        let (peers, cancel) = (self.clone(), self.shared.tasks.cancelled());
        self.shared.tasks.spawn("warm", TaskKind::BestEffort, async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                // One that is not there yet is dialed when it is needed.
                _ = peers.calls(node, Kind::Raft) => {}
            }
        });
    }

    /// Forgets a node: it is no member any more.
    pub fn forget(&self, node: NodeId) {
        lock(&self.shared.book).remove(&node);
        lock(&self.shared.directories).remove(&node);
        lock(&self.shared.links).remove(&node);
    }

    /// The nodes whose address is known.
    pub fn known(&self) -> Vec<NodeId> {
        lock(&self.shared.book).keys().copied().collect()
    }

    /// Asks `node`, and waits for the answer, `deadline` at most. If the future is dropped, the call may have happened.
    pub async fn call(
        &self,
        node: NodeId,
        kind: Kind,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let clock = &self.shared.sys.clock;
        let asked = async {
            let calls = self.calls(node, kind).await?;
            let answer = calls.ask(body).await;
            if let Err(CallError::Lost { .. }) = &answer {
                self.lost(node, &calls).await;
            }
            answer
        };
        clock
            .timeout(deadline, asked)
            .await
            .unwrap_or(Err(CallError::TimedOut(node)))
    }

    /// A stream to `node` for Kafka requests, which its handlers take for those of this node. The caller gives it up
    /// when it breaks, and asks for another.
    pub async fn kafka_stream(&self, node: NodeId) -> Result<Stream, CallError> {
        let clock = &self.shared.sys.clock;
        let opened = async {
            let link = self.link(node);
            let session = self.session(node, &mut *link.lock().await).await?;
            match self.open(node, &session, Purpose::Kafka).await {
                Ok(stream) => Ok(stream),
                Err(error) => {
                    self.drop_session(&mut *link.lock().await, &session);
                    Err(error)
                }
            }
        };
        clock
            .timeout(DIAL, opened)
            .await
            .unwrap_or(Err(CallError::TimedOut(node)))
    }

    /// Serves a connection that another node dialed, until it ends.
    pub async fn accept(&self, session: Session) {
        serve::run(&self.shared, session).await;
    }

    fn link(&self, node: NodeId) -> Arc<tokio::sync::Mutex<Link>> {
        Arc::clone(lock(&self.shared.links).entry(node).or_default())
    }

    async fn calls(&self, node: NodeId, kind: Kind) -> Result<Calls, CallError> {
        let link = self.link(node);
        let mut link = link.lock().await;
        if let Some(calls) = link.calls.get(&kind).filter(|calls| calls.is_alive()) {
            return Ok(calls.clone());
        }
        let session = self.session(node, &mut link).await?;
        let opened = self
            .shared
            .sys
            .clock
            .timeout(DIAL, self.open(node, &session, Purpose::Calls(kind as u8)))
            .await
            .unwrap_or(Err(CallError::TimedOut(node)));
        match opened {
            Ok(stream) => {
                let (calls, run) = Calls::new(node, stream);
                let cancel = self.shared.tasks.cancelled();
                self.shared
                    .tasks
                    .spawn("calls", TaskKind::BestEffort, run.until(cancel));
                link.calls.insert(kind, calls.clone());
                Ok(calls)
            }
            Err(error) => {
                self.drop_session(&mut link, &session);
                link.failed = Some((self.shared.sys.clock.now(), error.clone()));
                Err(error)
            }
        }
    }

    /// The connection to `node`, dialed if need be. One that was not reached a moment ago is not dialed again.
    async fn session(&self, node: NodeId, link: &mut Link) -> Result<Session, CallError> {
        if let Some(session) = &link.session {
            return Ok(session.clone());
        }
        let now = self.shared.sys.clock.now();
        if let Some((at, error)) = &link.failed
            && now.duration_since(*at) < REDIAL
        {
            return Err(error.clone());
        }
        let address = lock(&self.shared.book).get(&node).cloned();
        let address = address.ok_or(CallError::Unknown(node))?;
        let credentials = Credentials {
            trust: Trust::AnyCertificate,
            identity: None,
            alpn: ALPN_PEER,
        };
        let dialed = self
            .shared
            .sys
            .clock
            .timeout(DIAL, self.shared.dialer.dial(&address, &credentials));
        let unreachable = |reason: String| CallError::Unreachable { node, reason };
        let dialed = match dialed.await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!("no answer from {address}"))),
        };
        match dialed {
            Ok(session) => {
                link.failed = None;
                link.session = Some(session.clone());
                Ok(session)
            }
            Err(error) => {
                link.failed = Some((self.shared.sys.clock.now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn open(&self, node: NodeId, session: &Session, purpose: Purpose) -> Result<Stream, CallError> {
        let lost = |reason: String| CallError::Unreachable { node, reason };
        let mut stream = session
            .open_stream()
            .await
            .map_err(|error| lost(error.to_string()))?;
        let channel = session.channel();
        let hello = Hello {
            version: hello::VERSION,
            cluster: self.shared.cluster_id.clone(),
            from: self.shared.me,
            to: node,
            directory: self.shared.directory.clone(),
            purpose,
            proof: self.shared.secret.prove(&channel, self.shared.me, node),
        };
        let welcome = hello::exchange(&mut stream, &hello)
            .await
            .map_err(|error| lost(error.to_string()))?;
        let welcome = welcome.map_err(|refusal| CallError::Refused { node, refusal })?;
        if !self
            .shared
            .secret
            .verify(&welcome.proof, &channel, node, self.shared.me)
        {
            let refusal = Refusal::Secret;
            return Err(CallError::Refused { node, refusal });
        }
        self.check_directory(node, &welcome.directory)
            .map_err(|refusal| CallError::Refused { node, refusal })?;
        Ok(stream)
    }

    fn check_directory(&self, node: NodeId, shown: &str) -> Result<(), Refusal> {
        self.shared.check_directory(node, shown)
    }

    async fn lost(&self, node: NodeId, calls: &Calls) {
        let link = self.link(node);
        let mut link = link.lock().await;
        let is_current = link.calls.values().any(|known| known.is_same(calls));
        if let Some(session) = link.session.clone().filter(|_| is_current) {
            self.drop_session(&mut link, &session);
        }
    }

    fn drop_session(&self, link: &mut Link, session: &Session) {
        if link.session.as_ref().is_some_and(|known| known.is_same(session)) {
            session.close(CloseCode::Done, "dialing anew");
            link.session = None;
            link.calls.clear();
        }
    }
}

impl Shared {
    /// Whether another node is heard. A leader of the quorum is, whatever is known of him: he was elected, and a node that
    /// was away learns from nobody else that a new machine has taken his place. That machine votes and leads only when
    /// it holds what was committed (`controller::raft::newcomer`).
    fn check_sender(&self, node: NodeId, directory: &str, purpose: Purpose) -> Result<(), Refusal> {
        match purpose {
            Purpose::Calls(kind) if matches!(Kind::from_byte(kind), Some(Kind::Raft | Kind::Snapshot)) => {
                Ok(())
            }
            Purpose::Calls(_) | Purpose::Kafka => self.check_directory(node, directory),
        }
    }

    fn check_directory(&self, node: NodeId, shown: &str) -> Result<(), Refusal> {
        let directories = lock(&self.directories);
        match directories.get(&node) {
            Some(known) if known != shown => Err(Refusal::Directory {
                node,
                known: known.clone(),
                shown: shown.to_owned(),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The maps are changed by single calls that cannot leave them half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_in_the_place_of_another_is_heard_as_the_quorums_leader_only() {
        let sys = Sys::simulated(1);
        let peers = Peers::new(Parts {
            me: NodeId(1),
            cluster_id: "lab".to_owned(),
            directory: "mine".to_owned(),
            secret: Secret::new(""),
            dialer: Dialer::new(sys.net.clone(), Default::default()),
            sys,
        });
        peers.bind(NodeId(2), "before");
        let heard = |directory, purpose| peers.shared.check_sender(NodeId(2), directory, purpose).is_ok();
        let [raft, snapshot, control] =
            [Kind::Raft, Kind::Snapshot, Kind::Control].map(|kind| Purpose::Calls(kind as u8));
        assert!(heard("before", control) && heard("before", Purpose::Kafka));
        assert!(heard("after", raft) && heard("after", snapshot));
        assert!(!heard("after", control) && !heard("after", Purpose::Kafka));
    }
}
