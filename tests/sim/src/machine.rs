//! One node's machine: a disk that outlives the node, a place on the net, and the node's process while it runs.
//!
//! Owns booting, stopping and crashing. It must never reach into a node that is down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headwater::config::NodeConfig;
use headwater::metadata::features::{Level, VERSION};
use headwater::node::{Core, Node};
use headwater::sys::Sys;
use headwater::sys::clock::Clock;
use headwater::sys::disk::memory::MemoryDisk;
use headwater::sys::net::Net;
use headwater::sys::net::simulated::{Crash, Fabric};
use headwater::sys::random::Random;
use headwater::sys::task::{Blocking, Pace, Tasks};
use tokio_util::sync::CancellationToken;

use crate::disk::TracedDisk;
use crate::process::{Process, Skew};
use crate::trace::Trace;

/// The world begins on this day.
pub(crate) const EPOCH_MS: i64 = 1_790_000_000_000;

/// How fast a disk is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskPace {
    pub(crate) usual: Duration,
    pub(crate) stall: Duration,
}

pub(crate) struct Machine {
    pub(crate) name: Arc<str>,
    pub(crate) id: i32,
    pub(crate) disk: MemoryDisk,
    pub(crate) skew: Skew,
    config: BTreeMap<String, String>,
    /// Of the binary that it runs, or ran last; of the one that it starts next.
    level: Level,
    next_level: Level,
    began_at: Level,
    pace: DiskPace,
    random: Random,
    fabric: Fabric,
    trace: Trace,
    life: Option<Life>,
    lives: u64,
    /// It stands still until then.
    still_until: Option<Duration>,
}

struct Life {
    process: Process,
    stop: CancellationToken,
    status: Arc<Mutex<Status>>,
}

/// Where a node is in its life.
#[derive(Clone)]
pub(crate) enum Status {
    Down,
    Starting,
    Running(Core),
    /// It ended in order.
    Stopped,
    /// It ended by itself, and this is why.
    Failed(String),
}

/// What a machine is made of.
pub(crate) struct Parts {
    pub(crate) id: i32,
    pub(crate) config: BTreeMap<String, String>,
    /// The highest feature level of its binary.
    pub(crate) level: Level,
    pub(crate) skew: Skew,
    pub(crate) pace: DiskPace,
    pub(crate) random: Random,
    pub(crate) fabric: Fabric,
    pub(crate) trace: Trace,
}

impl Machine {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            id,
            config,
            level,
            skew,
            pace,
            random,
            fabric,
            trace,
        } = parts;
        let name = format!("n{id}").into();
        // Known to the others by name even while it is down.
        drop(fabric.boot(&format!("n{id}")));
        Self {
            name,
            id,
            disk: MemoryDisk::new(random.fork()),
            skew,
            config,
            level,
            next_level: level,
            began_at: level,
            pace,
            random,
            fabric,
            trace,
            life: None,
            lives: 0,
            still_until: None,
        }
    }

    pub(crate) fn boot(&mut self, now: Duration) {
        assert!(self.life.is_none(), "{} is up already", self.name);
        self.lives += 1;
        self.trace.say(format_args!("boot {}", self.name));
        let process = Process::new(&self.random, now, self.skew);
        let sys = process.inside(|| self.sys(now));
        let mut config =
            NodeConfig::from_values(self.config.clone()).expect("the simulator's own properties");
        self.level = self.next_level;
        config.feature_levels_max.insert(VERSION.to_owned(), self.level.0);
        let (stop, status) = (CancellationToken::new(), Arc::new(Mutex::new(Status::Starting)));
        process.spawn(live(config, sys, stop.clone(), Arc::clone(&status)));
        self.life = Some(Life {
            process,
            stop,
            status,
        });
    }

    fn sys(&self, now: Duration) -> Sys {
        let ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let pace = Pace::new(self.random.fork(), self.pace.usual, self.pace.stall);
        Sys {
            clock: Clock::runtime(EPOCH_MS + ms + self.skew.offset_ms),
            random: self.random.fork(),
            tasks: Tasks::root("node", Blocking::Paced(pace)),
            disk: Arc::new(TracedDisk::new(self.disk.clone(), self.trace.clone())),
            net: Net::simulated(self.fabric.boot(&self.name)),
            program: None,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// Another machine takes its place, with an empty disk. It joins a cluster that others are; or it is started as the one before it
    /// was, as if it were one of the first voters.
    pub(crate) fn begin_anew(&mut self) {
        assert!(self.life.is_none(), "{} is up", self.name);
        self.trace.say(format_args!("{} begins anew", self.name));
        self.disk = MemoryDisk::new(self.random.fork());
        if self.random.one_in(2) {
            return;
        }
        let others = self.config.get_mut("voters");
        let others = others.expect("a node alone is never replaced");
        let own = format!("{}@", self.id);
        let kept: Vec<&str> = others
            .split(',')
            .filter(|voter| !voter.starts_with(&own))
            .collect();
        *others = kept.join(",");
    }

    /// The feature level of the binary that it runs, or ran last.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// Whether it was an older binary once.
    pub(crate) fn began_old(&self) -> bool {
        self.began_at < Level::NEWEST
    }

    pub(crate) fn next_level(&self) -> Level {
        self.next_level
    }

    /// The binary is exchanged: the next boot starts another one.
    pub(crate) fn set_next_level(&mut self, level: Level) {
        self.next_level = level;
    }

    /// How often it was booted.
    pub(crate) fn lives(&self) -> u64 {
        self.lives
    }

    pub(crate) fn status(&self) -> Status {
        match &self.life {
            None => Status::Down,
            Some(life) => life.status.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Whether its node has started, and not ended.
    pub(crate) fn is_running(&self) -> bool {
        let status = self.life.as_ref().map(|life| &life.status);
        status.is_some_and(|status| {
            let status = status.lock().unwrap_or_else(PoisonError::into_inner);
            matches!(*status, Status::Running(_))
        })
    }

    /// What a running node shows of itself.
    pub(crate) fn core(&self) -> Option<Core> {
        match self.status() {
            Status::Running(core) => Some(core),
            Status::Down | Status::Starting | Status::Stopped | Status::Failed(_) => None,
        }
    }

    /// Asks the node to stop in order.
    pub(crate) fn stop(&self) {
        if let Some(life) = &self.life {
            self.trace.say(format_args!("stop {}", self.name));
            life.stop.cancel();
        }
    }

    /// Whether it was asked to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.stop.is_cancelled())
    }

    /// The node is gone at once. With the machine's power goes what its disk had not yet written.
    pub(crate) fn crash(&mut self, how: Crash) {
        self.trace.say(format_args!("crash {} {how:?}", self.name));
        self.fabric.crash(&self.name, how);
        match how {
            Crash::Process => self.disk.kill(),
            Crash::Power => self.disk.crash(),
        }
        self.bury();
    }

    /// Takes the process away, of a node that is gone or has ended.
    pub(crate) fn bury(&mut self) {
        self.still_until = None;
        let Some(life) = self.life.take() else { return };
        // What a node shows may hold timers, which belong to its runtime.
        let status = Arc::clone(&life.status);
        life.process.inside(|| {
            *status.lock().unwrap_or_else(PoisonError::into_inner) = Status::Down;
        });
        drop(life);
    }

    /// It does nothing until then, and does not notice.
    pub(crate) fn stand_still(&mut self, until: Duration) {
        if self.life.is_some() {
            self.trace.say(format_args!("pause {}", self.name));
            self.still_until = Some(until);
        }
    }

    pub(crate) fn run_until(&mut self, now: Duration) {
        if self.still_until.is_some_and(|until| until > now) {
            return;
        }
        let Some(life) = &self.life else { return };
        if self.still_until.take().is_some() {
            life.process.stand_still_until(now);
        }
        life.process.run_until(now);
    }
}

async fn live(config: NodeConfig, sys: Sys, stop: CancellationToken, status: Arc<Mutex<Status>>) {
    let set = |new: Status| *status.lock().unwrap_or_else(PoisonError::into_inner) = new;
    let node = match Box::pin(Node::start(config, sys)).await {
        Ok(node) => node,
        Err(error) => return set(Status::Failed(format!("did not start: {error}"))),
    };
    set(Status::Running(node.core().clone()));
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        failure = node.failed() => return set(Status::Failed(failure.to_string())),
    }
    match node.stop().await {
        Ok(()) => set(Status::Stopped),
        Err(error) => set(Status::Failed(format!("did not stop in order: {error}"))),
    }
}
