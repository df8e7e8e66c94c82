//! One task per stream: reads requests, works on them in order, writes answers in order.
//!
//! - A produce is submitted to its partitions as soon as it is read, and answered when they acknowledge it: many are
//!   in flight at once, and the submissions keep the order of the stream.
//! - Every other request begins when all before it are answered, as in Kafka. A replica's fetch that waits for records
//!   is answered as it is when another request comes behind it.
//! - Answers that are ready together go out in one write.
//! - A fault of the peer closes this stream and nothing else.
//!
//! It owns the stream. It must never hold more than a bounded number of requests and bytes: a peer that does not
//! read its answers is not read from either.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Shared;
use super::dispatch::{self, Answer, Begun, Fault, Step};
use super::frames::{Fill, Frame, Frames};
use super::handlers::produce;
use super::request::Caller;
use crate::sys::budget::Permit;
use crate::sys::task::Kind;
use crate::transport::{CloseCode, Peer, ReadHalf, Stream, WriteHalf};

/// Produces of one stream that wait for their acknowledgement, in number and in bytes.
const IN_FLIGHT_MAX: usize = 64;
const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
/// Answers are written at the latest when this much is ready.
const WRITE_BYTES: usize = 256 << 10;
/// How long a peer may keep a large frame, which holds shared memory, without sending more of it.
const STALL: Duration = Duration::from_secs(30);

pub(super) fn spawn(shared: &Arc<Shared>, stream: Stream, peer: Arc<Peer>) {
    shared.tasks.spawn(
        "stream",
        Kind::BestEffort,
        serve(Arc::clone(shared), stream, peer),
    );
}

/// Serves `stream` until it ends, a fault of its peer, a drain, or an idle time too long.
pub(super) async fn serve(shared: Arc<Shared>, stream: Stream, peer: Arc<Peer>) {
    let Stream { reader, writer } = stream;
    let early = reader.early();
    let limits = &shared.services.config.server;
    let frames = Frames::new(
        limits.request_bytes_max,
        shared.requests.clone(),
        shared.buffers.clone(),
    );
    let connection = Connection {
        reader,
        frames,
        active: shared.services.sys.clock.now(),
        caller: Arc::new(Caller::new(shared, peer, early)),
        in_flight: VecDeque::new(),
        in_flight_bytes: 0,
        running: None,
        held: None,
        out: Out::default(),
        input: Input::Open,
    };
    connection.run(writer).await;
}

/// Whether more requests are taken.
enum Input {
    Open,
    /// The peer has sent its last byte; what it sent before is still worked on.
    Ended,
    /// No request is begun any more; those begun are answered.
    Draining,
    Broken(Fault),
}

/// Why a connection is over.
enum Over {
    /// Everything asked was answered.
    Done,
    Fault(Fault),
    /// The peer cannot be read from or written to any more.
    Lost(io::Error),
    Idle,
    /// The node stops now.
    Stopped,
}

struct Connection {
    caller: Arc<Caller>,
    reader: ReadHalf,
    frames: Frames,
    /// Produces, in the order in which they came.
    in_flight: VecDeque<produce::InFlight>,
    in_flight_bytes: usize,
    /// The request that is being begun or worked on.
    running: Option<Begun>,
    /// A request that waits until all before it are answered.
    held: Option<Frame>,
    out: Out,
    input: Input,
    /// When a byte last moved.
    active: Instant,
}

/// Answers on their way out, with the memory they hold.
#[derive(Default)]
struct Out {
    buffers: Vec<Bytes>,
    bytes: usize,
    permits: Vec<Permit>,
}

enum Event {
    Produced(produce::Outcome),
    Stepped(Step),
    Read(io::Result<Fill>),
}

impl Connection {
    async fn run(mut self, mut writer: WriteHalf) {
        // However it ends, nobody waits for an answer then.
        let _hurries = self.caller.hurry.clone().drop_guard();
        let over = self.work(&mut writer).await;
        let fault = match over {
            Over::Done => {
                let stopped = self.caller.shared.tasks.cancelled();
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => {}
                    // The peer may be gone: then nobody waits for the end either.
                    _ = writer.finish() => {}
                }
                return;
            }
            Over::Lost(error) => {
                tracing::trace!(peer = %self.caller.peer.address, %error, "a connection was lost");
                return writer.reset(CloseCode::Done);
            }
            Over::Stopped => return writer.reset(CloseCode::Draining),
            Over::Idle => {
                self.caller.shared.meters.idle_closed.increment();
                return writer.reset(CloseCode::Limit);
            }
            Over::Fault(fault) => fault,
        };
        let code = fault.close_code();
        let meters = &self.caller.shared.meters;
        if code == CloseCode::Malformed {
            meters.malformed.increment();
        }
        let caller = &self.caller;
        meters.warn(&caller.shared.services.sys.clock, || {
            tracing::warn!(
                peer = %caller.peer.address,
                transport = caller.peer.transport.name(),
                principal = %caller.principal,
                %fault,
                "a connection is closed"
            );
        });
        writer.reset(code);
    }

    async fn work(&mut self, writer: &mut WriteHalf) -> Over {
        let shared = Arc::clone(&self.caller.shared);
        let clock = shared.services.sys.clock.clone();
        let mut stopped = std::pin::pin!(shared.tasks.cancelled().cancelled_owned());
        let mut drained = std::pin::pin!(shared.draining.child_token().cancelled_owned());
        let mut deadline = self.deadline();
        let mut idle = std::pin::pin!(clock.sleep_until(deadline));
        loop {
            self.begin_next();
            let event = match poll_fn(|cx| Poll::Ready(self.poll_event(cx))).await {
                Poll::Ready(event) => event,
                Poll::Pending if self.out.bytes > 0 => {
                    if let Err(over) = self.flush(writer).await {
                        return over;
                    }
                    continue;
                }
                Poll::Pending if self.is_finished() => {
                    match std::mem::replace(&mut self.input, Input::Draining) {
                        Input::Broken(fault) => return Over::Fault(fault),
                        Input::Open | Input::Ended | Input::Draining => return Over::Done,
                    }
                }
                Poll::Pending => {
                    if self.deadline() < deadline {
                        deadline = self.deadline();
                        idle.set(clock.sleep_until(deadline));
                    }
                    tokio::select! {
                        biased;
                        () = &mut stopped => return Over::Stopped,
                        () = &mut drained, if matches!(self.input, Input::Open) => {
                            self.input = Input::Draining;
                            continue;
                        }
                        event = poll_fn(|cx| self.poll_event(cx)) => event,
                        () = &mut idle => {
                            if self.running.is_some() || !self.in_flight.is_empty() {
                                self.active = clock.now();
                            }
                            deadline = self.deadline();
                            if deadline <= clock.now() {
                                return Over::Idle;
                            }
                            idle.set(clock.sleep_until(deadline));
                            continue;
                        }
                    }
                }
            };
            let is_submitted = matches!(event, Event::Stepped(Step::Produced(_)));
            if let Err(over) = self.take(event) {
                return over;
            }
            if is_submitted {
                // Its partition begins now, and not when everything that has arrived is read.
                tokio::task::yield_now().await;
            }
            if self.out.bytes >= WRITE_BYTES
                && let Err(over) = self.flush(writer).await
            {
                return over;
            }
        }
    }

    /// When the peer will have been silent for too long. Requests that are worked on are not silence.
    fn deadline(&self) -> Instant {
        let limits = &self.caller.shared.services.config.server;
        let idle = Duration::from_millis(u64::try_from(limits.idle_ms_max).unwrap_or(0));
        let patience = if self.frames.holds_budget() {
            STALL.min(idle)
        } else {
            idle
        };
        self.active + patience
    }

    fn is_finished(&self) -> bool {
        let closed = match self.input {
            Input::Open => false,
            Input::Ended | Input::Draining | Input::Broken(_) => true,
        };
        closed && self.running.is_none() && self.in_flight.is_empty()
    }

    /// Begins the next request, if one is here and may begin.
    fn begin_next(&mut self) {
        let taking = matches!(self.input, Input::Open | Input::Ended);
        let full = self.in_flight.len() >= IN_FLIGHT_MAX || self.in_flight_bytes >= IN_FLIGHT_BYTES_MAX;
        if !taking || full || self.running.is_some() {
            return;
        }
        let frame = match self.held.take() {
            Some(frame) => {
                self.caller.pressed.send_replace(false);
                frame
            }
            None => match self.frames.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    self.input = Input::Broken(error.into());
                    return;
                }
            },
        };
        if self.in_flight.is_empty() || dispatch::is_produce(&frame) {
            self.caller.shared.meters.bytes_in.add(frame.bytes.len() as u64);
            self.running = Some(dispatch::begin(&self.caller, frame));
            self.press();
        } else {
            self.held = Some(frame);
        }
    }

    /// Lets a replica's fetch that waits know of the request behind it: the replica has news, which are not to wait.
    fn press(&mut self) {
        if self.caller.peer.node.is_none() || self.running.is_none() || self.held.is_some() {
            return;
        }
        match self.frames.next() {
            Ok(Some(frame)) => {
                self.held = Some(frame);
                self.caller.pressed.send_replace(true);
            }
            Ok(None) => {}
            Err(error) => self.input = Input::Broken(error.into()),
        }
    }

    fn poll_event(&mut self, cx: &mut TaskContext<'_>) -> Poll<Event> {
        if let Some(first) = self.in_flight.front_mut()
            && let Poll::Ready(outcome) = first.poll(cx)
        {
            self.in_flight_bytes -= first.bytes();
            self.in_flight.pop_front();
            return Poll::Ready(Event::Produced(outcome));
        }
        if let Some(running) = &mut self.running
            && let Poll::Ready(step) = running.as_mut().poll(cx)
        {
            self.running = None;
            return Poll::Ready(Event::Stepped(step));
        }
        if !matches!(self.input, Input::Open) {
            return Poll::Pending;
        }
        let read = ready!(self.frames.poll_fill(&mut self.reader, cx));
        Poll::Ready(Event::Read(read))
    }

    fn take(&mut self, event: Event) -> Result<(), Over> {
        match event {
            Event::Produced(outcome) => match outcome {
                produce::Outcome::Answer(answer) => self.out.push(answer),
                produce::Outcome::Nothing => {}
                produce::Outcome::Failed(fault) => self.input = Input::Broken(fault),
            },
            Event::Stepped(step) => match step {
                Step::Answer(answer) => self.out.push(answer),
                Step::Produced(produced) => {
                    self.in_flight_bytes += produced.bytes();
                    self.in_flight.push_back(produced);
                }
                Step::Close(fault) => self.input = Input::Broken(fault),
            },
            Event::Read(Ok(Fill::More)) => {
                self.active = self.caller.shared.services.sys.clock.now();
                self.press();
            }
            Event::Read(Ok(Fill::End)) => {
                self.input = Input::Ended;
                self.caller.hurry.cancel();
            }
            Event::Read(Err(error)) => return Err(Over::Lost(error)),
        }
        Ok(())
    }

    /// Writes what is ready. A peer that takes nothing for the idle time is given up.
    async fn flush(&mut self, writer: &mut WriteHalf) -> Result<(), Over> {
        let shared = &self.caller.shared;
        let idle = u64::try_from(shared.services.config.server.idle_ms_max).unwrap_or(0);
        let mut rest = std::mem::take(&mut self.out.buffers);
        while !rest.is_empty() {
            let mut piece = first_piece(&mut rest);
            let written = tokio::select! {
                biased;
                written = writer.write_buffers(&mut piece) => written,
                () = shared.tasks.cancelled().cancelled_owned() => return Err(Over::Stopped),
                () = shared.services.sys.clock.sleep(Duration::from_millis(idle)) => return Err(Over::Idle),
            };
            written.map_err(Over::Lost)?;
            if rest.is_empty() {
                // The vector is used again.
                self.out.buffers = piece;
            }
        }
        shared.meters.bytes_out.add(self.out.bytes as u64);
        self.out.bytes = 0;
        self.out.permits.clear();
        self.active = shared.services.sys.clock.now();
        Ok(())
    }
}

/// Takes from the front what is written under one deadline: about a megabyte.
fn first_piece(rest: &mut Vec<Bytes>) -> Vec<Bytes> {
    const PIECE_BYTES: usize = 1 << 20;
    let mut bytes = 0;
    let fits = rest.iter().position(|buffer| {
        bytes += buffer.len();
        bytes > PIECE_BYTES
    });
    match fits {
        None => std::mem::take(rest),
        Some(at) => {
            let later = rest.split_off(at.max(1));
            std::mem::replace(rest, later)
        }
    }
}

impl Out {
    fn push(&mut self, answer: Answer) {
        self.bytes += answer.buffers.iter().map(Bytes::len).sum::<usize>();
        self.buffers.extend(answer.buffers);
        self.permits.extend(answer.permit);
    }
}
