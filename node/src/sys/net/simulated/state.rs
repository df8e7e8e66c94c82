//! The net as plain state: who is connected to whom, what is on its way, what happens when it arrives.
//!
//! Synchronous: whoever is to be woken is noted, and woken when the lock is open again. It must never wake or drop a
//! waker itself, for both may run code that comes back here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::link::Links;
use super::{Closed, Crash, HostIndex, Kind, Seen};

pub(super) type ConnectionId = u64;
pub(super) type PipeId = u64;

/// One end of a connection: 0 dialed it, 1 accepted it.
pub(super) type Side = usize;

/// Whose handle this is: one of an earlier boot is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) host: HostIndex,
    pub(super) boot: u64,
}

/// Tasks that wait for something here.
#[derive(Debug, Default)]
pub(super) struct Waiters(pub(super) Vec<Waker>);

#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: Arc<str>,
    pub(super) address: IpAddr,
    pub(super) boot: u64,
    pub(super) port_next: u16,
    pub(super) backlogs: BTreeMap<(u16, Kind), Backlog>,
}

#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) waiting: VecDeque<ConnectionId>,
    pub(super) waiters: Waiters,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) kind: Kind,
    pub(super) greeting: Bytes,
    pub(super) is_open: bool,
    pub(super) ends: [End; 2],
    pub(super) pipes: BTreeSet<PipeId>,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) owner: Owner,
    pub(super) address: SocketAddr,
    pub(super) closed: Option<Closed>,
    /// No handle is left.
    pub(super) is_gone: bool,
    /// Streams to be accepted: what is read from, what is written to.
    pub(super) opened: VecDeque<(PipeId, PipeId)>,
    pub(super) waiters: Waiters,
}

/// One direction of a stream.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) connection: ConnectionId,
    /// The side that reads.
    pub(super) to: Side,
    pub(super) flight: VecDeque<Payload>,
    pub(super) readable: VecDeque<Bytes>,
    /// Bytes on their way and unread.
    pub(super) held: usize,
    /// The writer said its last.
    pub(super) is_finished: bool,
    /// The end arrived.
    pub(super) is_ended: bool,
    pub(super) is_reset: bool,
    /// The writer knows that nobody reads.
    pub(super) is_stopped: bool,
    pub(super) reader_gone: bool,
    pub(super) writer_gone: bool,
    /// The other direction, to be told of with the first arrival.
    pub(super) unannounced: Option<PipeId>,
    pub(super) readers: Waiters,
    pub(super) writers: Waiters,
}

#[derive(Debug)]
pub(super) enum Payload {
    Bytes(Bytes),
    End,
    Reset,
}

#[derive(Debug)]
pub(super) enum Event {
    /// A dial reaches its target.
    Arrive(ConnectionId),
    /// The answer to a dial reaches the dialer.
    Answer(ConnectionId, Option<Closed>),
    /// The next of a pipe arrives.
    Deliver(PipeId),
    /// The writer learns that nobody reads.
    Stopped(PipeId),
    /// This side learns that the connection is closed.
    Close(ConnectionId, Side, Closed),
    DialTimedOut(ConnectionId),
    /// A cut has outlasted the patience of such connections.
    CutTimedOut((HostIndex, HostIndex), u64, Kind),
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) now: Duration,
    /// None: everything arrives at once.
    pub(super) links: Option<Links>,
    pub(super) hosts: Vec<Host>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) pipes: BTreeMap<PipeId, Pipe>,
    pub(super) events: BTreeMap<(Duration, u64), (Option<(HostIndex, HostIndex)>, Event)>,
    pub(super) stalled: BTreeMap<(HostIndex, HostIndex), Vec<Event>>,
    pub(super) numbers: u64,
    pub(super) wake: Vec<Waker>,
    /// Not woken, only dropped outside of the lock.
    pub(super) idle: Vec<Waker>,
    pub(super) seen: Option<Vec<Seen>>,
}

impl State {
    pub(super) fn new(links: Option<Links>) -> Self {
        Self {
            now: Duration::ZERO,
            links,
            hosts: Vec::new(),
            connections: BTreeMap::new(),
            pipes: BTreeMap::new(),
            events: BTreeMap::new(),
            stalled: BTreeMap::new(),
            numbers: 0,
            wake: Vec::new(),
            idle: Vec::new(),
            seen: None,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn is_alive(&self, owner: Owner) -> bool {
        self.hosts[owner.host].boot == owner.boot
    }

    /// The host of that name, made if need be; its earlier boot is over.
    pub(super) fn boot(&mut self, name: &str) -> Owner {
        let found = self.hosts.iter().position(|host| &*host.name == name);
        let host = found.unwrap_or_else(|| self.add_host(name));
        self.hosts[host].boot += 1;
        let orphans = self.connections_of(|end| end.owner.host == host && end.is_gone);
        for (id, side) in orphans {
            self.tell_closed(id, 1 - side, Closed::Lost("reset by a peer that restarted"));
        }
        Owner {
            host,
            boot: self.hosts[host].boot,
        }
    }

    pub(super) fn add_host(&mut self, name: &str) -> HostIndex {
        let index = self.hosts.len();
        let low = u16::try_from(index + 1).expect("a few hosts").to_be_bytes();
        self.hosts.push(Host {
            name: name.into(),
            address: IpAddr::from([10, 0, low[0], low[1]]),
            boot: 0,
            port_next: 49_152,
            backlogs: BTreeMap::new(),
        });
        index
    }

    /// Everything of the host is dead at once. Its peers learn of it as `how` says.
    pub(super) fn crash(&mut self, host: HostIndex, how: Crash) {
        self.hosts[host].boot += 1;
        for (_, backlog) in std::mem::take(&mut self.hosts[host].backlogs) {
            self.idle.extend(backlog.waiters.0);
        }
        for (id, side) in self.connections_of(|end| end.owner.host == host && !end.is_gone) {
            self.bury(id, side);
            let kind = self.connections[&id].kind;
            if how == Crash::Process && kind == Kind::Stream {
                self.tell_closed(id, 1 - side, Closed::Lost("reset by peer"));
            } else if let Some(links) = &self.links {
                let at = self.now + links.patience.of(kind);
                let closed = Closed::Lost("timed out");
                self.schedule(at, None, Event::Close(id, 1 - side, closed));
            }
        }
        self.sweep();
    }

    /// Marks an end whose handles are dead, without a word to the other.
    pub(super) fn bury(&mut self, id: ConnectionId, side: Side) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let end = &mut connection.ends[side];
        end.is_gone = true;
        end.closed.get_or_insert(Closed::Here);
        self.idle.append(&mut end.waiters.0);
        for pipe in &connection.pipes {
            let Some(pipe) = self.pipes.get_mut(pipe) else {
                continue;
            };
            if pipe.to == side {
                pipe.reader_gone = true;
                self.idle.append(&mut pipe.readers.0);
            } else {
                pipe.writer_gone = true;
                self.idle.append(&mut pipe.writers.0);
            }
        }
    }

    pub(super) fn connections_of(&self, is_meant: impl Fn(&End) -> bool) -> Vec<(ConnectionId, Side)> {
        let ends = self.connections.iter().flat_map(|(id, connection)| {
            let ends = connection.ends.iter().enumerate();
            ends.map(move |(side, end)| (*id, side, end))
        });
        ends.filter(|(_, _, end)| is_meant(end))
            .map(|(id, side, _)| (id, side))
            .collect()
    }

    pub(super) fn resolve(&self, name: &str) -> Option<IpAddr> {
        let host = self.hosts.iter().find(|host| &*host.name == name)?;
        Some(host.address)
    }

    pub(super) fn schedule(&mut self, at: Duration, way: Option<(HostIndex, HostIndex)>, event: Event) {
        let number = self.number();
        self.events.insert((at, number), (way, event));
    }

    /// Sends an event along the way from one host to another.
    pub(super) fn send(&mut self, way: (HostIndex, HostIndex), bytes: usize, event: Event) {
        match &mut self.links {
            Some(links) => {
                let at = links.arrival(self.now, way, bytes);
                self.schedule(at, Some(way), event);
            }
            None => self.happen(event),
        }
    }

    /// Lets everything happen that is due by `now`.
    pub(super) fn advance(&mut self, now: Duration) {
        while let Some(first) = self.events.first_entry() {
            if first.key().0 > now {
                break;
            }
            self.now = self.now.max(first.key().0);
            let (way, event) = first.remove();
            let is_cut = |way| self.links.as_ref().is_some_and(|links| links.is_cut(way));
            match way.filter(|way| is_cut(*way)) {
                Some(way) => self.stalled.entry(way).or_default().push(event),
                None => self.happen(event),
            }
        }
        self.now = self.now.max(now);
    }

    pub(super) fn cut(&mut self, way: (HostIndex, HostIndex)) {
        let Some(links) = &mut self.links else { return };
        let Some(number) = links.cut(way) else { return };
        let patience = links.patience;
        for kind in [Kind::Session, Kind::Stream] {
            let at = self.now + patience.of(kind);
            self.schedule(at, None, Event::CutTimedOut(way, number, kind));
        }
    }

    /// What stalled arrives a moment later, in its order.
    pub(super) fn heal(&mut self, way: (HostIndex, HostIndex)) {
        let Some(links) = &mut self.links else { return };
        if !links.heal(way) {
            return;
        }
        let at = links.arrival(self.now, way, 0);
        for event in self.stalled.remove(&way).unwrap_or_default() {
            self.schedule(at, Some(way), event);
        }
    }

    /// Breaks every connection between two hosts.
    pub(super) fn reset(&mut self, a: HostIndex, b: HostIndex) {
        for id in self.between(a, b, None) {
            for side in [0, 1] {
                self.close_end(id, side, Closed::Lost("reset by the network"));
            }
        }
    }

    pub(super) fn between(&self, a: HostIndex, b: HostIndex, kind: Option<Kind>) -> Vec<ConnectionId> {
        let connects = |connection: &Connection| {
            let [near, far] = [connection.ends[0].owner.host, connection.ends[1].owner.host];
            ((near, far) == (a, b) || (near, far) == (b, a))
                && kind.is_none_or(|kind| kind == connection.kind)
        };
        let found = self
            .connections
            .iter()
            .filter(|(_, connection)| connects(connection));
        found.map(|(id, _)| *id).collect()
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(id) => self.arrive(id),
            Event::Answer(id, refused) => self.answer(id, refused),
            Event::Deliver(id) => self.deliver(id),
            Event::Stopped(id) => {
                if let Some(pipe) = self.pipes.get_mut(&id) {
                    pipe.is_stopped = true;
                    self.wake.append(&mut pipe.writers.0);
                }
            }
            Event::Close(id, side, closed) => {
                self.note(id, side, || format!("close {closed:?}"));
                self.close_end(id, side, closed);
            }
            Event::DialTimedOut(id) => {
                if self
                    .connections
                    .get(&id)
                    .is_some_and(|connection| !connection.is_open)
                {
                    self.close_end(id, 0, Closed::Lost("no answer"));
                }
            }
            Event::CutTimedOut(way, number, kind) => {
                let links = self.links.as_ref();
                if links.and_then(|links| links.cut_number(way)) == Some(number) {
                    for id in self.between(way.0, way.1, Some(kind)) {
                        for side in [0, 1] {
                            self.close_end(id, side, Closed::Lost("timed out"));
                        }
                    }
                }
            }
        }
    }

    pub(super) fn note(&mut self, id: ConnectionId, to: Side, what: impl FnOnce() -> String) {
        let Some(seen) = &mut self.seen else { return };
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let name = |side: Side| Arc::clone(&self.hosts[connection.ends[side].owner.host].name);
        seen.push(Seen {
            at: self.now,
            from: name(1 - to),
            to: name(to),
            connection: id,
            what: what(),
        });
    }
}

impl Waiters {
    /// Wakes this task, too, when it is time.
    pub(super) fn wait(&mut self, context: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(context.waker())) {
            self.0.push(context.waker().clone());
        }
    }

    /// Wakes this task and no other.
    pub(super) fn only(&mut self, context: &Context<'_>, idle: &mut Vec<Waker>) {
        if !self.0.iter().any(|waker| waker.will_wake(context.waker())) {
            idle.append(&mut self.0);
            self.0.push(context.waker().clone());
        }
    }
}

impl Host {
    pub(super) fn port(&mut self) -> u16 {
        let port = self.port_next;
        self.port_next = port.checked_add(1).unwrap_or(49_152);
        port
    }
}

impl End {
    pub(super) fn new(owner: Owner, address: SocketAddr) -> Self {
        Self {
            owner,
            address,
            closed: None,
            is_gone: false,
            opened: VecDeque::new(),
            waiters: Waiters::default(),
        }
    }
}

impl Pipe {
    pub(super) fn new(connection: ConnectionId, to: Side) -> Self {
        Self {
            connection,
            to,
            flight: VecDeque::new(),
            readable: VecDeque::new(),
            held: 0,
            is_finished: false,
            is_ended: false,
            is_reset: false,
            is_stopped: false,
            reader_gone: false,
            writer_gone: false,
            unannounced: None,
            readers: Waiters::default(),
            writers: Waiters::default(),
        }
    }
}
