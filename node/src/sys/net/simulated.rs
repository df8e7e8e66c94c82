//! A net inside the process: hosts with names, connections that carry streams, links that delay, stall and break.
//!
//! What is sent over a cut link is not lost but late, as with TCP and QUIC; a connection breaks when the cut outlasts
//! its patience. One seed gives one history, provided that one thread drives it. Owns every host, connection and byte
//! on its way, all bounded. It must never read a clock: time is what [`Fabric::advance`] says.

mod connections;
mod link;
mod pipes;
mod state;

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::link::Links;
use self::state::{ConnectionId, Owner, PipeId, Side, State};
use crate::sys::random::Random;

pub use self::link::{Link, Patience};

type HostIndex = usize;

/// What a connection is the double of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// TCP: one stream.
    Stream,
    /// QUIC: many streams, opened by either side.
    Session,
}

/// Why a connection is no more, as one end sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    Here,
    There { code: u32, reason: String },
    Refused,
    Lost(&'static str),
}

/// How a host goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process ends, the machine does not: it answers for the dead process.
    Process,
    /// Nobody answers.
    Power,
}

/// Something that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub at: Duration,
    pub from: Arc<str>,
    pub to: Arc<str>,
    pub connection: u64,
    pub what: String,
}

/// The net as a whole, for whoever drives it. Clones are the same net.
#[derive(Clone, Debug)]
pub struct Fabric {
    state: Arc<Mutex<State>>,
}

impl Fabric {
    /// Everything arrives at once.
    pub fn instant() -> Self {
        Self::over(None)
    }

    /// Everything takes its time, drawn from `random`, and arrives when [`Fabric::advance`] says so.
    pub fn paced(random: Random) -> Self {
        Self::over(Some(Links::new(random)))
    }

    fn over(links: Option<Links>) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(links))),
        }
    }

    /// Does something to the net, then wakes whom it concerns.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // A panic in here is a bug of the simulation, which ends with it.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state);
        let (wake, idle) = (std::mem::take(&mut state.wake), std::mem::take(&mut state.idle));
        drop(state);
        drop(idle);
        for waker in wake {
            waker.wake();
        }
        result
    }

    /// A host of that name begins its life, or its next one: handles of the one before are dead.
    pub fn boot(&self, name: &str) -> Host {
        let owner = self.with(|state| state.boot(name));
        Host {
            fabric: self.clone(),
            owner,
        }
    }

    /// Everything that host holds is dead at once, without a goodbye.
    pub fn crash(&self, name: &str, how: Crash) {
        self.at(name, |state, host| state.crash(host, how));
    }

    /// Lets everything arrive that is due by `now`, which counts from the beginning.
    pub fn advance(&self, now: Duration) {
        self.with(|state| state.advance(now));
    }

    /// How links are that were not set.
    pub fn set_usual_link(&self, link: Link) {
        self.with_links(|links| links.set_usual(link));
    }

    pub fn set_patience(&self, patience: Patience) {
        self.with_links(|links| links.patience = patience);
    }

    /// How the link from one host to another is from now on; None: as usual.
    pub fn set_link(&self, from: &str, to: &str, link: Option<Link>) {
        self.between(from, to, |state, way| {
            if let Some(links) = &mut state.links {
                links.set(way, link);
            }
        });
    }

    /// Nothing arrives from one host at the other, until it is healed.
    pub fn cut(&self, from: &str, to: &str) {
        self.between(from, to, State::cut);
    }

    pub fn heal(&self, from: &str, to: &str) {
        self.between(from, to, State::heal);
    }

    /// Breaks every connection between two hosts.
    pub fn reset(&self, one: &str, other: &str) {
        self.between(one, other, |state, way| state.reset(way.0, way.1));
    }

    /// From now on what arrives is kept for [`Fabric::seen`], which has to be called now and then.
    pub fn watch(&self) {
        self.with(|state| state.seen = Some(Vec::new()));
    }

    /// What arrived since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        self.with(|state| state.seen.as_mut().map(std::mem::take).unwrap_or_default())
    }

    fn with_links(&self, work: impl FnOnce(&mut Links)) {
        self.with(|state| state.links.as_mut().map(work));
    }

    /// A host that nobody has booted has no links and no connections.
    fn at(&self, name: &str, work: impl FnOnce(&mut State, HostIndex)) {
        self.with(|state| {
            if let Some(host) = state.hosts.iter().position(|host| &*host.name == name) {
                work(state, host);
            }
        });
    }

    fn between(&self, from: &str, to: &str, work: impl FnOnce(&mut State, (HostIndex, HostIndex))) {
        self.at(from, |state, from| {
            if let Some(to) = state.hosts.iter().position(|host| &*host.name == to) {
                work(state, (from, to));
            }
        });
    }
}

/// One host's access to the net, for one life of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {
    fabric: Fabric,
    owner: Owner,
}

impl Host {
    /// Port 0 asks for a free one; the unspecified address means this host's own.
    pub fn listen(&self, address: SocketAddr, kind: Kind) -> io::Result<Listener> {
        let address = self
            .fabric
            .with(|state| state.listen(self.owner, address, kind))?;
        Ok(Listener {
            host: self.clone(),
            address,
            kind,
        })
    }

    /// Connects; `greeting` is told to the other side. Fails when there is no answer for the patience of a dial. A
    /// dropped future gives up.
    pub async fn connect(
        &self,
        target: SocketAddr,
        kind: Kind,
        greeting: Bytes,
    ) -> Result<Connection, ConnectError> {
        let dialed = self
            .fabric
            .with(|state| state.dial(self.owner, target, kind, greeting));
        let id = dialed.map_err(ConnectError::Io)?;
        let connection = Connection::new(self.clone(), id, 0);
        poll_fn(|context| {
            self.fabric
                .with(|state| state.poll_dialed(self.owner, id, context))
        })
        .await
        .map_err(ConnectError::Closed)?;
        Ok(connection)
    }

    /// The addresses behind `host:port`, a name of the net or an address.
    pub fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host_and_port.parse() {
            return Ok(vec![address]);
        }
        let not_found = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let (name, port) = host_and_port.rsplit_once(':').ok_or_else(not_found)?;
        let port = port.parse().map_err(|_| not_found())?;
        let found = self
            .fabric
            .with(|state| state.resolve(name))
            .ok_or_else(not_found)?;
        Ok(vec![SocketAddr::new(found, port)])
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    Io(io::Error),
    Closed(Closed),
}

/// A listening port. Dropping it turns away who waits.
#[derive(Debug)]
pub struct Listener {
    host: Host,
    address: SocketAddr,
    kind: Kind,
}

impl Listener {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection; None when the host is down. Cancel-safe.
    pub async fn accept(&self) -> Option<Connection> {
        let port = (self.address.port(), self.kind);
        let owner = self.host.owner;
        let accept = |context: &mut Context<'_>| {
            self.host
                .fabric
                .with(|state| state.poll_accept(owner, port, context))
        };
        let id = poll_fn(accept).await?;
        Some(Connection::new(self.host.clone(), id, 1))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let port = (self.address.port(), self.kind);
        self.host
            .fabric
            .with(|state| state.unlisten(self.host.owner, port));
    }
}

/// One end of a connection. With its last clone and the last half of its streams, it closes.
#[derive(Clone, Debug)]
pub struct Connection {
    end: Arc<End>,
}

#[derive(Debug)]
struct End {
    host: Host,
    id: ConnectionId,
    side: Side,
}

impl Drop for End {
    fn drop(&mut self) {
        let Self { host, id, side } = self;
        host.fabric.with(|state| state.release(host.owner, *id, *side));
    }
}

impl Connection {
    fn new(host: Host, id: ConnectionId, side: Side) -> Self {
        Self {
            end: Arc::new(End { host, id, side }),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State, Owner, ConnectionId, Side) -> T) -> T {
        let End { host, id, side } = &*self.end;
        host.fabric.with(|state| work(state, host.owner, *id, *side))
    }

    /// Opens a stream, of which the other side learns with its first byte. Waits while there are too many. Cancel-safe.
    pub async fn open(&self) -> Result<(Receiver, Sender), Closed> {
        let open = |context: &mut Context<'_>| {
            self.with(|state, owner, id, side| state.poll_open(owner, id, side, context))
        };
        poll_fn(open).await.map(|pipes| self.stream(pipes))
    }

    /// The next stream the other side opened; of a connection that is a stream, that one. Cancel-safe.
    pub async fn accept(&self) -> Result<(Receiver, Sender), Closed> {
        let accept = |context: &mut Context<'_>| {
            self.with(|state, owner, id, side| state.poll_opened(owner, id, side, context))
        };
        poll_fn(accept).await.map(|pipes| self.stream(pipes))
    }

    fn stream(&self, (from, to): (PipeId, PipeId)) -> (Receiver, Sender) {
        let pipe = |id| Half {
            end: Arc::clone(&self.end),
            id,
        };
        (Receiver(pipe(from)), Sender(pipe(to)))
    }

    /// Closes this end at once and the other when it hears of it: streams fail.
    pub fn close(&self, code: u32, reason: &str) {
        self.with(|state, owner, id, side| state.close(owner, id, side, code, reason));
    }

    /// Returns when this end is closed, and says why.
    pub async fn closed(&self) -> Closed {
        let closed = |context: &mut Context<'_>| {
            self.with(|state, owner, id, side| state.poll_closed(owner, id, side, context))
        };
        poll_fn(closed).await
    }

    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.end, &other.end)
    }

    /// What the dialer said when it dialed.
    pub fn greeting(&self) -> Bytes {
        let facts = self.with(|state, _, id, side| state.facts(id, side));
        facts.map(|(greeting, _)| greeting).unwrap_or_default()
    }

    pub fn remote_address(&self) -> SocketAddr {
        let facts = self.with(|state, _, id, side| state.facts(id, side));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        facts.map_or(nowhere, |(_, address)| address)
    }
}

/// One end of one direction; it keeps its connection open.
#[derive(Debug)]
struct Half {
    end: Arc<End>,
    id: PipeId,
}

impl Half {
    fn with<T>(&self, work: impl FnOnce(&mut State, Owner, PipeId) -> T) -> T {
        let host = &self.end.host;
        host.fabric.with(|state| work(state, host.owner, self.id))
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Receiver(Half);

impl AsyncRead for Receiver {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        let mut put = |bytes: &[u8]| buffer.put_slice(bytes);
        self.0
            .with(|state, owner, id| state.poll_read(owner, id, room, &mut put, context))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.with(State::drop_reader);
    }
}

/// The writing end. Dropping it ends the direction cleanly.
#[derive(Debug)]
pub struct Sender(Half);

impl Sender {
    /// Breaks the direction: what is unread is not read any more.
    pub fn reset(&self) {
        self.0.with(State::break_pipe);
    }

    /// Returns when the other side has received everything, the end included.
    pub async fn delivered(&self) -> io::Result<()> {
        let delivered = |context: &mut Context<'_>| {
            self.0
                .with(|state, owner, id| state.poll_delivered(owner, id, context))
        };
        poll_fn(delivered).await
    }
}

impl AsyncWrite for Sender {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0
            .with(|state, owner, id| state.poll_write(owner, id, bytes, context))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.with(State::finish);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.with(State::drop_writer);
    }
}
