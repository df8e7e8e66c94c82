//! The switch that all hosts of a lab are plugged into: it carries Ethernet frames and makes the weather.
//!
//! It owns a packet socket in a namespace of its own and the thread that serves it. A program, because kernels are often
//! built without `netem`; it also cuts one direction alone, which only a switch sees. Frames it cannot send any faster
//! than they come are dropped by the kernel, as a real one drops them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context;
use headwater_tests::{PATIENCE, Random, until};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, eth, recvfrom, sendto,
    socket_with,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::namespace::{Namespace, Port};
use super::weather::Weather;

/// More than any frame of a cable with an MTU of 1500.
const FRAME_BYTES_MAX: usize = 2048;
const BUFFER_BYTES: usize = 16 << 20;
/// Frames taken before those that are due are sent.
const BURST: usize = 64;
const MAC_BYTES: usize = 6;

/// A running switch. Dropped, it stops.
#[derive(Debug)]
pub(crate) struct Switch {
    state: Arc<State>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Debug)]
struct State {
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
            weather: Mutex::new(Weather::fair(ports)),
            known: AtomicU64::new(0),
            carried: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("switch".to_owned())
            .spawn(move || {
                namespace.enter()?;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(serve(shared, ports, random, stopped))
            })?;
        Ok(Self {
            state,
            stop,
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
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // How it ended matters to nobody any more.
            let _ = thread.join();
        }
    }
}

/// A frame that waits for its time; equal times keep their order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    due: Instant,
    turn: u64,
    to: Port,
    frame: Vec<u8>,
}

/// What only the thread knows.
struct Hub {
    socket: AsyncFd<OwnedFd>,
    state: Arc<State>,
    random: Random,
    /// Where frames for a port go out: the address that its frames came in by.
    ways: Vec<Option<SocketAddrAny>>,
    late: BinaryHeap<Reverse<Late>>,
    turn: u64,
}

async fn serve(
    state: Arc<State>,
    ports: usize,
    random: Random,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        Some(eth::ALL),
    )
    .context("cannot open a packet socket")?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)?;
    let mut hub = Hub {
        socket: AsyncFd::register(socket)?,
        state,
        random,
        ways: vec![None; ports],
        late: BinaryHeap::new(),
        turn: 0,
    };
    loop {
        let due = hub.late.peek().map(|Reverse(late)| late.due.into());
        let next = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = stopped.changed() => return Ok(()),
            ready = hub.socket.readable() => {
                ready?.clear_ready();
                hub.take()?;
            }
            () = next => {}
        }
        hub.send_due(Instant::now());
    }
}

impl Hub {
    /// Takes frames until there are none.
    fn take(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; FRAME_BYTES_MAX];
        for taken in 1.. {
            let (length, from) = match recvfrom(self.socket.get_ref(), &mut buffer, RecvFlags::empty()) {
                Ok((_, length, from)) => (length, from),
                Err(Errno::AGAIN) => return Ok(()),
                // A cable that went down says so once.
                Err(Errno::INTR | Errno::NETDOWN) => continue,
                Err(why) => return Err(why).context("the switch cannot read"),
            };
            if let (Some(frame), Some(from)) = (buffer.get(..length), from) {
                self.pass(frame, from);
            }
            if taken % BURST == 0 {
                self.send_due(Instant::now());
            }
        }
        Ok(())
    }

    fn pass(&mut self, frame: &[u8], way: SocketAddrAny) {
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
            None => (0..self.ways.len() as u8)
                .map(Port)
                .filter(|to| *to != from)
                .for_each(|to| self.carry(from, to, frame)),
        }
    }

    fn carry(&mut self, from: Port, to: Port, frame: &[u8]) {
        if usize::from(to.0) >= self.ways.len() {
            return;
        }
        let link = self
            .state
            .weather
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .link(from, to);
        let arrivals = link.arrivals(&mut self.random);
        if arrivals[0].is_none() {
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
        for arrival in arrivals.into_iter().flatten() {
            if arrival.is_zero() {
                self.send(to, frame);
            } else {
                self.turn += 1;
                let (due, turn) = (Instant::now() + arrival, self.turn);
                self.late.push(Reverse(Late {
                    due,
                    turn,
                    to,
                    frame: frame.to_vec(),
                }));
            }
        }
    }

    fn send_due(&mut self, now: Instant) {
        while self.late.peek().is_some_and(|Reverse(late)| late.due <= now) {
            if let Some(Reverse(late)) = self.late.pop() {
                self.send(late.to, &late.frame);
            }
        }
    }

    fn send(&self, to: Port, frame: &[u8]) {
        if let Some(way) = &self.ways[usize::from(to.0)]
            && sendto(self.socket.get_ref(), frame, SendFlags::DONTWAIT, way).is_ok()
        {
            self.state.carried.fetch_add(1, Ordering::Relaxed);
        }
    }
}
