//! Streams: two pipes, each with bytes on their way and bytes that wait to be read.
//! A part of the state; it must never look into what it carries.

use std::io;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use super::Closed;
use super::state::{ConnectionId, Event, Owner, Payload, Pipe, PipeId, Side, State};

/// What one direction of a stream holds before its writer waits.
const PIPE_BYTES: usize = 64 * 1024;
/// The most that arrives at once.
const SEGMENT_BYTES_MAX: usize = 16 * 1024;
/// Streams that one connection has open; the opener waits beyond.
const STREAMS_MAX: usize = 1024;

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl State {
    /// Two pipes: from `side` and to it.
    pub(super) fn add_stream(&mut self, id: ConnectionId, side: Side) -> (PipeId, PipeId) {
        let (there, back) = (self.number(), self.number());
        self.pipes.insert(there, Pipe::new(id, 1 - side));
        self.pipes.insert(back, Pipe::new(id, side));
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.pipes.extend([there, back]);
        }
        (there, back)
    }

    pub(super) fn poll_open(
        &mut self,
        owner: Owner,
        id: ConnectionId,
        side: Side,
        context: &Context<'_>,
    ) -> Poll<Result<(PipeId, PipeId), Closed>> {
        if !self.is_alive(owner) {
            return Poll::Ready(Err(Closed::Here));
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return Poll::Ready(Err(Closed::Here));
        };
        if let Some(closed) = &connection.ends[side].closed {
            return Poll::Ready(Err(closed.clone()));
        }
        if connection.pipes.len() >= 2 * STREAMS_MAX {
            connection.ends[side].waiters.wait(context);
            return Poll::Pending;
        }
        let (there, back) = self.add_stream(id, side);
        if let Some(pipe) = self.pipes.get_mut(&there) {
            pipe.unannounced = Some(back);
        }
        Poll::Ready(Ok((back, there)))
    }

    /// The next stream that the other side opened: what is read from, what is written to.
    pub(super) fn poll_opened(
        &mut self,
        owner: Owner,
        id: ConnectionId,
        side: Side,
        context: &Context<'_>,
    ) -> Poll<Result<(PipeId, PipeId), Closed>> {
        if !self.is_alive(owner) {
            return Poll::Ready(Err(Closed::Here));
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return Poll::Ready(Err(Closed::Here));
        };
        let end = &mut connection.ends[side];
        if let Some(closed) = &end.closed {
            return Poll::Ready(Err(closed.clone()));
        }
        if let Some(stream) = end.opened.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        end.waiters.wait(context);
        Poll::Pending
    }

    pub(super) fn closed_for(&self, pipe: &Pipe, side: Side) -> bool {
        let connection = self.connections.get(&pipe.connection);
        connection.is_none_or(|connection| connection.ends[side].closed.is_some())
    }

    /// Appends to `buffer` what has arrived, `bytes_max` at most; nothing at the end.
    pub(super) fn poll_read(
        &mut self,
        owner: Owner,
        id: PipeId,
        bytes_max: usize,
        buffer: &mut dyn FnMut(&[u8]),
        context: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_alive(owner) {
            return Poll::Ready(Err(broken()));
        }
        let Some(pipe) = self.pipes.get(&id) else {
            return Poll::Ready(Err(broken()));
        };
        let is_closed = self.closed_for(pipe, pipe.to);
        let pipe = self.pipes.get_mut(&id).expect("looked up above");
        if pipe.is_reset {
            return Poll::Ready(Err(broken()));
        }
        if let Some(first) = pipe.readable.front_mut() {
            let taken = first.len().min(bytes_max);
            buffer(&first[..taken]);
            first.advance(taken);
            if first.is_empty() {
                pipe.readable.pop_front();
            }
            pipe.held -= taken;
            self.wake.append(&mut pipe.writers.0);
            return Poll::Ready(Ok(()));
        }
        if pipe.is_ended {
            return Poll::Ready(Ok(()));
        }
        if is_closed {
            return Poll::Ready(Err(broken()));
        }
        pipe.readers.only(context, &mut self.idle);
        Poll::Pending
    }

    pub(super) fn poll_write(
        &mut self,
        owner: Owner,
        id: PipeId,
        bytes: &[u8],
        context: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Err(error) = self.can_write(owner, id) {
            return Poll::Ready(Err(error));
        }
        let pipe = self.pipes.get_mut(&id).expect("checked above");
        let size = bytes.len().min(PIPE_BYTES - pipe.held).min(SEGMENT_BYTES_MAX);
        if size == 0 && !bytes.is_empty() {
            pipe.writers.only(context, &mut self.idle);
            return Poll::Pending;
        }
        if size > 0 {
            pipe.held += size;
            self.push(id, Payload::Bytes(Bytes::copy_from_slice(&bytes[..size])));
        }
        Poll::Ready(Ok(size))
    }

    /// Whether what is written has a chance.
    pub(super) fn can_write(&self, owner: Owner, id: PipeId) -> io::Result<()> {
        let pipe = self
            .pipes
            .get(&id)
            .filter(|_| self.is_alive(owner))
            .ok_or_else(broken)?;
        if self.closed_for(pipe, 1 - pipe.to) {
            return Err(broken());
        }
        match pipe.is_stopped || pipe.is_finished {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }

    /// Says that nothing follows.
    pub(super) fn finish(&mut self, owner: Owner, id: PipeId) {
        self.last_word(owner, id, Payload::End);
    }

    /// Breaks what is unread.
    pub(super) fn break_pipe(&mut self, owner: Owner, id: PipeId) {
        self.last_word(owner, id, Payload::Reset);
    }

    pub(super) fn last_word(&mut self, owner: Owner, id: PipeId, payload: Payload) {
        let is_alive = self.is_alive(owner);
        let Some(pipe) = self.pipes.get_mut(&id).filter(|_| is_alive) else {
            return;
        };
        if pipe.is_finished {
            return;
        }
        pipe.is_finished = true;
        self.push(id, payload);
    }

    /// Whether the other side has everything, the end included.
    pub(super) fn poll_delivered(
        &mut self,
        owner: Owner,
        id: PipeId,
        context: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(pipe) = self.pipes.get(&id).filter(|_| self.is_alive(owner)) else {
            return Poll::Ready(Err(broken()));
        };
        let is_closed = self.closed_for(pipe, 1 - pipe.to);
        let pipe = self.pipes.get_mut(&id).expect("looked up above");
        if pipe.is_ended || pipe.is_stopped {
            return Poll::Ready(Ok(()));
        }
        if is_closed {
            return Poll::Ready(Err(broken()));
        }
        pipe.writers.only(context, &mut self.idle);
        Poll::Pending
    }

    pub(super) fn push(&mut self, id: PipeId, payload: Payload) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        let size = match &payload {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::End | Payload::Reset => 0,
        };
        pipe.flight.push_back(payload);
        if let Some(connection) = self.connections.get(&pipe.connection) {
            let host = |side: Side| connection.ends[side].owner.host;
            let way = (host(1 - pipe.to), host(pipe.to));
            self.send(way, size, Event::Deliver(id));
        }
    }

    pub(super) fn deliver(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        let Some(payload) = pipe.flight.pop_front() else {
            return;
        };
        let (connection, to) = (pipe.connection, pipe.to);
        if self.seen.is_some() {
            let what = match &payload {
                Payload::Bytes(bytes) => format!("pipe {id} {} bytes {:016x}", bytes.len(), digest(bytes)),
                Payload::End => format!("pipe {id} end"),
                Payload::Reset => format!("pipe {id} reset"),
            };
            self.note(connection, to, || what);
        }
        let Some(pipe) = self.pipes.get(&id) else { return };
        if pipe.reader_gone || self.closed_for(pipe, to) {
            return;
        }
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        match payload {
            Payload::Bytes(bytes) => pipe.readable.push_back(bytes),
            Payload::End => {
                pipe.is_ended = true;
                self.wake.append(&mut pipe.writers.0);
            }
            Payload::Reset => pipe.is_reset = true,
        }
        self.wake.append(&mut pipe.readers.0);
        if let Some(back) = pipe.unannounced.take()
            && let Some(connection) = self.connections.get_mut(&connection)
        {
            let end = &mut connection.ends[to];
            end.opened.push_back((id, back));
            self.wake.append(&mut end.waiters.0);
        }
    }

    pub(super) fn drop_reader(&mut self, owner: Owner, id: PipeId) {
        let is_alive = self.is_alive(owner);
        let Some(pipe) = self.pipes.get_mut(&id).filter(|_| is_alive) else {
            return;
        };
        pipe.reader_gone = true;
        pipe.readable.clear();
        self.idle.append(&mut pipe.readers.0);
        let (connection, to, is_over) = (pipe.connection, pipe.to, pipe.is_ended || pipe.is_reset);
        if !is_over && let Some(connection) = self.connections.get(&connection) {
            let way = (connection.ends[to].owner.host, connection.ends[1 - to].owner.host);
            self.send(way, 0, Event::Stopped(id));
        }
        self.forget(id);
    }

    pub(super) fn drop_writer(&mut self, owner: Owner, id: PipeId) {
        if !self.is_alive(owner) {
            return;
        }
        self.finish(owner, id);
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.writer_gone = true;
            self.idle.append(&mut pipe.writers.0);
        }
        self.forget(id);
    }

    /// Forgets a pipe that nobody holds.
    pub(super) fn forget(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get(&id) else { return };
        if !pipe.reader_gone || !pipe.writer_gone {
            return;
        }
        let Some(pipe) = self.pipes.remove(&id) else {
            return;
        };
        if let Some(connection) = self.connections.get_mut(&pipe.connection) {
            connection.pipes.remove(&id);
            for end in &mut connection.ends {
                self.wake.append(&mut end.waiters.0);
            }
        }
    }
}

/// FNV-1a: tells two contents apart in a trace.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
