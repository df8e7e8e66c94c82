//! Connections: dialed, accepted, closed, forgotten.
//! A part of the state; it must never touch what a stream carries.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::state::{Backlog, Connection, ConnectionId, End, Event, Owner, Side, State};
use super::{Closed, Kind};

/// Connections that wait to be accepted; more are refused.
const WAITING_MAX: usize = 256;

impl State {
    pub(super) fn listen(&mut self, owner: Owner, address: SocketAddr, kind: Kind) -> io::Result<SocketAddr> {
        if !self.is_alive(owner) {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        let host = &mut self.hosts[owner.host];
        let port = match address.port() {
            0 => host.port(),
            port => port,
        };
        if !address.ip().is_unspecified() && address.ip() != host.address {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if host.backlogs.contains_key(&(port, kind)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        host.backlogs.insert((port, kind), Backlog::default());
        Ok(SocketAddr::new(host.address, port))
    }

    pub(super) fn poll_accept(
        &mut self,
        owner: Owner,
        port: (u16, Kind),
        context: &Context<'_>,
    ) -> Poll<Option<ConnectionId>> {
        if !self.is_alive(owner) {
            return Poll::Ready(None);
        }
        let Some(backlog) = self.hosts[owner.host].backlogs.get_mut(&port) else {
            return Poll::Ready(None);
        };
        while let Some(id) = backlog.waiting.pop_front() {
            if self.connections.contains_key(&id) {
                return Poll::Ready(Some(id));
            }
        }
        backlog.waiters.wait(context);
        Poll::Pending
    }

    pub(super) fn unlisten(&mut self, owner: Owner, port: (u16, Kind)) {
        if !self.is_alive(owner) {
            return;
        }
        let Some(backlog) = self.hosts[owner.host].backlogs.remove(&port) else {
            return;
        };
        self.wake.extend(backlog.waiters.0);
        for id in backlog.waiting {
            self.release(owner, id, 1);
        }
    }

    pub(super) fn dial(
        &mut self,
        owner: Owner,
        target: SocketAddr,
        kind: Kind,
        greeting: Bytes,
    ) -> io::Result<ConnectionId> {
        if !self.is_alive(owner) {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        let to = self.hosts.iter().position(|host| host.address == target.ip());
        let to = to.ok_or(io::ErrorKind::HostUnreachable)?;
        let host = &mut self.hosts[owner.host];
        let from = SocketAddr::new(host.address, host.port());
        let id = self.number();
        let boot = self.hosts[to].boot;
        let far = Owner { host: to, boot };
        self.connections.insert(
            id,
            Connection {
                kind,
                greeting,
                is_open: false,
                ends: [End::new(owner, from), End::new(far, target)],
                pipes: BTreeSet::new(),
            },
        );
        if kind == Kind::Stream {
            let (there, back) = self.add_stream(id, 0);
            let connection = self.connections.get_mut(&id).expect("inserted above");
            connection.ends[0].opened.push_back((back, there));
            connection.ends[1].opened.push_back((there, back));
        }
        if let Some(links) = &self.links {
            let at = self.now + links.patience.dial;
            self.schedule(at, None, Event::DialTimedOut(id));
        }
        self.send((owner.host, to), 0, Event::Arrive(id));
        Ok(id)
    }

    pub(super) fn arrive(&mut self, id: ConnectionId) {
        self.note(id, 1, || "dial".to_owned());
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let (kind, end) = (connection.kind, &mut connection.ends[1]);
        let host = &mut self.hosts[end.owner.host];
        // It may have restarted since.
        end.owner.boot = host.boot;
        let way = (end.owner.host, connection.ends[0].owner.host);
        let backlog = host.backlogs.get_mut(&(connection.ends[1].address.port(), kind));
        let Some(backlog) = backlog.filter(|backlog| backlog.waiting.len() < WAITING_MAX) else {
            connection.ends[1].is_gone = true;
            // A datagram to nobody has no answer.
            if kind == Kind::Stream || self.links.is_none() {
                self.send(way, 0, Event::Answer(id, Some(Closed::Refused)));
            }
            return;
        };
        backlog.waiting.push_back(id);
        self.wake.append(&mut backlog.waiters.0);
        self.send(way, 0, Event::Answer(id, None));
    }

    pub(super) fn answer(&mut self, id: ConnectionId, refused: Option<Closed>) {
        if let Some(refused) = refused {
            self.close_end(id, 0, refused);
        } else if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_open = true;
            self.wake.append(&mut connection.ends[0].waiters.0);
        }
    }

    pub(super) fn poll_dialed(
        &mut self,
        owner: Owner,
        id: ConnectionId,
        context: &Context<'_>,
    ) -> Poll<Result<(), Closed>> {
        if !self.is_alive(owner) {
            return Poll::Ready(Err(Closed::Here));
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return Poll::Ready(Err(Closed::Here));
        };
        if let Some(closed) = &connection.ends[0].closed {
            return Poll::Ready(Err(closed.clone()));
        }
        if connection.is_open {
            return Poll::Ready(Ok(()));
        }
        connection.ends[0].waiters.wait(context);
        Poll::Pending
    }

    pub(super) fn facts(&self, id: ConnectionId, side: Side) -> Option<(Bytes, SocketAddr)> {
        let connection = self.connections.get(&id)?;
        Some((connection.greeting.clone(), connection.ends[1 - side].address))
    }

    pub(super) fn poll_closed(
        &mut self,
        owner: Owner,
        id: ConnectionId,
        side: Side,
        context: &Context<'_>,
    ) -> Poll<Closed> {
        if !self.is_alive(owner) {
            return Poll::Ready(Closed::Here);
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return Poll::Ready(Closed::Here);
        };
        let end = &mut connection.ends[side];
        if let Some(closed) = &end.closed {
            return Poll::Ready(closed.clone());
        }
        end.waiters.wait(context);
        Poll::Pending
    }

    /// Closes this end at once, and the other when it hears of it.
    pub(super) fn close(&mut self, owner: Owner, id: ConnectionId, side: Side, code: u32, reason: &str) {
        if !self.is_alive(owner) || !self.close_end(id, side, Closed::Here) {
            return;
        }
        let reason = reason.to_owned();
        self.tell_closed(id, 1 - side, Closed::There { code, reason });
    }

    pub(super) fn tell_closed(&mut self, id: ConnectionId, side: Side, closed: Closed) {
        if let Some(connection) = self.connections.get(&id) {
            let way = (
                connection.ends[1 - side].owner.host,
                connection.ends[side].owner.host,
            );
            self.send(way, 0, Event::Close(id, side, closed));
        }
    }

    /// Whether it was open.
    pub(super) fn close_end(&mut self, id: ConnectionId, side: Side, closed: Closed) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let end = &mut connection.ends[side];
        if end.closed.is_some() {
            return false;
        }
        end.closed = Some(closed);
        self.wake.append(&mut end.waiters.0);
        for pipe in &connection.pipes {
            if let Some(pipe) = self.pipes.get_mut(pipe) {
                let waiters = match pipe.to == side {
                    true => &mut pipe.readers,
                    false => &mut pipe.writers,
                };
                self.wake.append(&mut waiters.0);
            }
        }
        true
    }

    /// The last handle of an end was dropped.
    pub(super) fn release(&mut self, owner: Owner, id: ConnectionId, side: Side) {
        if !self.is_alive(owner) {
            return;
        }
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let is_claimed = connection.is_open && connection.ends[side].opened.is_empty();
        // One that is a stream has said with its halves what there was to say, if ever it was taken up.
        if connection.kind == Kind::Session || !is_claimed {
            self.close(owner, id, side, 0, "");
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ends[side].is_gone = true;
        }
        self.sweep_one(id);
    }

    pub(super) fn sweep(&mut self) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            self.sweep_one(id);
        }
    }

    /// Forgets a connection of which nobody holds an end.
    pub(super) fn sweep_one(&mut self, id: ConnectionId) {
        let gone = |connection: &Connection| connection.ends.iter().all(|end| end.is_gone);
        if !self.connections.get(&id).is_some_and(gone) {
            return;
        }
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        for end in connection.ends {
            self.idle.extend(end.waiters.0);
        }
        for pipe in connection.pipes {
            if let Some(pipe) = self.pipes.remove(&pipe) {
                self.idle.extend(pipe.readers.0);
                self.idle.extend(pipe.writers.0);
            }
        }
    }
}
