//! A cluster of either broker on loopback, with its data in a folder of its own.
//!
//! It owns the processes, their ports and their files. What differs between the two brokers stands in `brokers.rs`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::brokers::{Acks, Kind, Programs};
use super::keeper::{Keeper, Running};
use super::{probe, usage};
use crate::step;

/// How long a cluster may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How often a broker that starts is asked.
const ASKED_EVERY: Duration = Duration::from_millis(1);

/// One broker of a cluster: where it listens, and where its files are.
pub(super) struct Place {
    pub(super) id: usize,
    /// For clients, and for the other brokers.
    pub(super) address: SocketAddr,
    /// Kafka's controllers among themselves; HTTP with Headwater.
    pub(super) second: SocketAddr,
    pub(super) folder: PathBuf,
}

pub(super) struct Cluster<'a> {
    programs: &'a Programs,
    keeper: &'a Keeper,
    kind: Kind,
    places: Vec<Place>,
    running: Vec<Option<Running<'a>>>,
    folder: PathBuf,
}

/// What all processes of a cluster have used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) cpu_seconds: f64,
    pub(super) peak_bytes: f64,
}

impl<'a> Cluster<'a> {
    /// Makes the folders and, where the broker wants that, formats them. Nothing runs yet.
    pub(super) fn prepare(
        programs: &'a Programs,
        keeper: &'a Keeper,
        kind: Kind,
        acks: Acks,
        size: usize,
    ) -> anyhow::Result<Self> {
        // What others have written must not be written out while this one is measured.
        step::ask("sync", &[]);
        let folder = keeper.folder().join(format!("{kind}"));
        std::fs::create_dir_all(&folder)?;
        let places = places(&folder, size)?;
        for place in &places {
            std::fs::create_dir_all(&place.folder)?;
            programs.format(kind, acks, place, &places)?;
        }
        Ok(Self {
            programs,
            keeper,
            kind,
            running: places.iter().map(|_| None).collect(),
            places,
            folder,
        })
    }

    /// Starts all that do not run; answers how long it took until each of them named all of them to a client.
    pub(super) fn start(&mut self) -> anyhow::Result<Duration> {
        let since = Instant::now();
        for at in 0..self.places.len() {
            if self.running[at].is_none() {
                self.running[at] = Some(self.spawn(at)?);
            }
        }
        for at in 0..self.places.len() {
            self.wait_for(at, since + START_PATIENCE)?;
        }
        Ok(since.elapsed())
    }

    fn spawn(&self, at: usize) -> anyhow::Result<Running<'a>> {
        let place = &self.places[at];
        let path = self.log_path(place.id);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        let mut command = self.programs.broker(self.kind, place, &self.places);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.keeper.spawn(&mut command)
    }

    fn wait_for(&mut self, at: usize, deadline: Instant) -> anyhow::Result<()> {
        let (id, address) = (self.places[at].id, self.places[at].address);
        while probe::brokers(address) != Some(self.places.len()) {
            let running = self.running[at].as_mut().context("it was not started")?;
            if let Some(status) = running.has_ended()? {
                bail!(
                    "{} {id} ended with {status} at its start: {}",
                    self.kind,
                    self.log(id)
                );
            }
            if Instant::now() > deadline {
                bail!("{} {id} does not answer: {}", self.kind, self.log(id));
            }
            std::thread::sleep(ASKED_EVERY);
        }
        Ok(())
    }

    /// Kills one of them with its process, as SIGKILL does; `start` starts it again.
    pub(super) fn kill(&mut self, id: usize) -> anyhow::Result<()> {
        let at = self.places.iter().position(|place| place.id == id);
        let running = at.and_then(|at| self.running[at].take());
        drop(running.with_context(|| format!("{} {id} does not run", self.kind))?);
        Ok(())
    }

    /// Asks all of them to end, at once: one by one, the last ones would have no quorum to take their leave of. Who has not
    /// ended in time is killed.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + STOP_PATIENCE;
        let mut all: Vec<_> = self.running.iter_mut().filter_map(Option::take).collect();
        all.iter().for_each(Running::ask_to_end);
        for running in &mut all {
            running.ended_by(deadline)?;
        }
        Ok(())
    }

    pub(super) fn keeper(&self) -> &'a Keeper {
        self.keeper
    }

    pub(super) fn bootstrap(&self) -> String {
        let addresses: Vec<_> = self
            .places
            .iter()
            .map(|place| place.address.to_string())
            .collect();
        addresses.join(",")
    }

    /// Lets the peaks of all begin anew.
    pub(super) fn forget_peaks(&self) -> anyhow::Result<()> {
        self.pids().try_for_each(usage::forget_peak)
    }

    pub(super) fn used(&self) -> anyhow::Result<Used> {
        let mut used = Used {
            cpu_seconds: 0.0,
            peak_bytes: 0.0,
        };
        for pid in self.pids() {
            used.cpu_seconds += usage::cpu_seconds(pid)?;
            used.peak_bytes += usage::peak_bytes(pid)?;
        }
        Ok(used)
    }

    fn pids(&self) -> impl Iterator<Item = u32> {
        self.running.iter().flatten().map(Running::pid)
    }

    fn log_path(&self, id: usize) -> PathBuf {
        self.folder.join(format!("{id}.log"))
    }

    /// The end of what a broker has said.
    fn log(&self, id: usize) -> String {
        const LINES: usize = 5;
        let text = std::fs::read_to_string(self.log_path(id)).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        self.running.clear();
        // The keeper removes what could not be removed here.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn places(folder: &Path, size: usize) -> anyhow::Result<Vec<Place>> {
    let mut ports = Ports::new();
    let place = |id| {
        Ok(Place {
            id,
            address: ports.next()?,
            second: ports.next()?,
            folder: folder.join(id.to_string()),
        })
    };
    (1..=size).map(place).collect()
}

/// Free ports, below those that the system gives to connections: a broker that starts again finds its own still free.
struct Ports {
    next: u16,
}

impl Ports {
    fn new() -> Self {
        let spread = u16::try_from(std::process::id() % 8_000).unwrap_or_default();
        Self {
            next: 20_000 + spread,
        }
    }

    fn next(&mut self) -> anyhow::Result<SocketAddr> {
        while self.next < 32_000 {
            self.next += 1;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.next));
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                return Ok(address);
            }
        }
        bail!("no free ports")
    }
}
