//! The switch that all hosts of a lab are plugged into: it carries Ethernet frames and makes the weather.
//!
//! It owns a packet socket in a namespace of its own and two threads: one takes frames and sends those that go at once,
//! one keeps those that are late. A program, because kernels are often built without `netem`; it also cuts one direction
//! alone, which only a switch sees. Frames that come faster than they can be carried are dropped, as a real one drops
//! them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use headwater_tests::{PATIENCE, Random, until};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, eth, recvfrom, sendto,
    socket_with,
};

use super::namespace::{Namespace, Port};
use super::weather::Weather;

/// More than any frame of a cable with an MTU of 1500.
const FRAME_BYTES_MAX: usize = 2048;
const BUFFER_BYTES: usize = 16 << 20;
/// Late frames on their way from one thread to the other; more are dropped.
const HANDED_OVER_MAX: usize = 16_384;
/// How soon a switch that is told to stop does so.
const NAP: Duration = Duration::from_millis(100);
const MAC_BYTES: usize = 6;

/// A running switch. Dropped, it stops.
#[derive(Debug)]
pub(crate) struct Switch {
    state: Arc<State>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Debug)]
struct State {
    is_stopped: AtomicBool,
    weather: Mutex<Weather>,
    known: AtomicU64,
    carried: AtomicU64,
    dropped: AtomicU64,
}

/// Frames so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frames {
    pub(crate) carried: u64,
    /// By the weather.
    pub(crate) dropped: u64,
}

impl Switch {
    pub(crate) fn start(namespace: Namespace, ports: usize, random: Random) -> anyhow::Result<Self> {
        let state = Arc::new(State {
            is_stopped: AtomicBool::new(false),
            weather: Mutex::new(Weather::fair(ports)),
            known: AtomicU64::new(0),
            carried: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("switch".to_owned())
            .spawn(move || serve(&namespace, &shared, ports, random))?;
        Ok(Self {
            state,
            thread: Some(thread),
        })
    }

    /// Waits until it has heard from every port: it sends only where it has.
    pub(crate) async fn knows_all(&self, ports: usize) -> anyhow::Result<()> {
        until(PATIENCE, "a frame from every port", || async {
            Ok((self.state.known.load(Ordering::SeqCst) == ports as u64).then_some(()))
        })
        .await
    }

    pub(crate) fn weather(&self) -> MutexGuard<'_, Weather> {
        self.state.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn frames(&self) -> Frames {
        Frames {
            carried: self.state.carried.load(Ordering::Relaxed),
            dropped: self.state.dropped.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.state.is_stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // How it ended matters to nobody any more.
            let _ = thread.join();
        }
    }
}

/// Where frames for a port go out: the address that its frames came in by.
type Way = SocketAddrAny;

/// A frame that waits for its time; equal times keep their order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    due: Instant,
    turn: u64,
    way: Way,
    frame: Vec<u8>,
}

/// What only the thread that takes frames knows.
struct Hub<'a> {
    socket: &'a OwnedFd,
    state: &'a State,
    random: Random,
    ways: Vec<Option<Way>>,
    late: SyncSender<Late>,
    turn: u64,
}

fn serve(namespace: &Namespace, state: &State, ports: usize, random: Random) -> anyhow::Result<()> {
    namespace.enter()?;
    let raw = Some(eth::ALL);
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, raw)
        .context("cannot open a packet socket")?;
    set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(NAP))?;
    let (late, waiting) = sync_channel(HANDED_OVER_MAX);
    let socket = &socket;
    std::thread::scope(|scope| {
        scope.spawn(move || send_late(socket, state, &waiting));
        let hub = Hub {
            socket,
            state,
            random,
            ways: vec![None; ports],
            late,
            turn: 0,
        };
        // Dropped at its end, the hub ends the other thread too.
        hub.serve()
    })
}

/// Sends late frames when they are due, until nobody hands any over.
fn send_late(socket: &OwnedFd, state: &State, waiting: &Receiver<Late>) {
    let mut heap = BinaryHeap::new();
    loop {
        let now = Instant::now();
        while heap
            .peek()
            .is_some_and(|Reverse(late): &Reverse<Late>| late.due <= now)
        {
            if let Some(Reverse(late)) = heap.pop() {
                send(socket, state, &late.way, &late.frame);
            }
        }
        let nap = heap
            .peek()
            .map_or(NAP, |Reverse(late)| late.due.saturating_duration_since(now));
        match waiting.recv_timeout(nap) {
            Ok(late) => heap.push(Reverse(late)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn send(socket: &OwnedFd, state: &State, way: &Way, frame: &[u8]) {
    // A full queue drops the frame; a cable that is gone has no use for it.
    if sendto(socket, frame, SendFlags::DONTWAIT, way).is_ok() {
        state.carried.fetch_add(1, Ordering::Relaxed);
    }
}

impl Hub<'_> {
    fn serve(mut self) -> anyhow::Result<()> {
        let mut buffer = [0; FRAME_BYTES_MAX];
        while !self.state.is_stopped.load(Ordering::SeqCst) {
            match recvfrom(self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((_, length, Some(from))) => {
                    if let Some(frame) = buffer.get(..length) {
                        self.pass(frame, from);
                    }
                }
                // Nothing came for a while, or a cable went down, which is said once.
                Ok((_, _, None)) | Err(Errno::AGAIN | Errno::INTR | Errno::NETDOWN) => {}
                Err(why) => return Err(why).context("the switch cannot read"),
            }
        }
        Ok(())
    }

    fn pass(&mut self, frame: &[u8], way: Way) {
        let Some((to, rest)) = frame.split_at_checked(MAC_BYTES) else {
            return;
        };
        // What the switch's own side of a cable says has another address.
        let Some(from) = rest.get(..MAC_BYTES).and_then(Port::of_mac) else {
            return;
        };
        let Some(known) = self.ways.get_mut(usize::from(from.0)) else {
            return;
        };
        if known.replace(way).is_none() {
            self.state.known.fetch_add(1, Ordering::SeqCst);
        }
        match Port::of_mac(to) {
            Some(to) => self.carry(from, to, frame),
            None => {
                let others = (0..self.ways.len() as u8).map(Port).filter(|to| *to != from);
                others.for_each(|to| self.carry(from, to, frame));
            }
        }
    }

    fn carry(&mut self, from: Port, to: Port, frame: &[u8]) {
        let Some(Some(way)) = self.ways.get(usize::from(to.0)) else {
            return;
        };
        let weather = self.state.weather.lock().unwrap_or_else(PoisonError::into_inner);
        let link = weather.link(from, to);
        drop(weather);
        let arrivals = link.arrivals(&mut self.random);
        if arrivals[0].is_none() {
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
        for arrival in arrivals.into_iter().flatten() {
            if arrival.is_zero() {
                send(self.socket, self.state, way, frame);
                continue;
            }
            self.turn += 1;
            let late = Late {
                due: Instant::now() + arrival,
                turn: self.turn,
                way: way.clone(),
                frame: frame.to_vec(),
            };
            if self.late.try_send(late).is_err() {
                self.state.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
