//! A rolling upgrade: every node begins as an older binary, and one after the other is stopped and started as a newer one,
//! whatever else goes wrong; some go back once. Then the operator may finalize the level.
//!
//! Owns the order of it and which binary each machine starts next. It must never take a node back once the operator was
//! allowed to finalize: a request without an answer may be granted later.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater::metadata::features::Level;
use headwater::sys::random::Random;

use crate::faults::Faults;
use crate::machine::{Machine, Status};
use crate::summary::Summary;
use crate::trace::Trace;
use crate::workload::Control;

/// Between two restarts, when nothing goes wrong any more.
const HURRY: Duration = Duration::from_millis(200);

pub(crate) struct Upgrades {
    random: Random,
    trace: Trace,
    control: Arc<Control>,
    /// At most so long from one restart to the next.
    pace_ms: u64,
    /// None: not yet, or not in this run.
    next: Option<Duration>,
    /// So many nodes go back to the older binary first.
    backs: u64,
    /// The one that does right now.
    back: Option<usize>,
    has_gone_back: bool,
    is_over: bool,
    /// Older binaries have made the cluster: one that a newer one makes is of its level, and nobody goes back.
    is_founded: bool,
}

impl Upgrades {
    /// `pace_ms` is absent in a run whose nodes are all of the newest binary.
    pub(crate) fn new(random: Random, pace_ms: Option<u64>, control: Arc<Control>, trace: Trace) -> Self {
        let backs = random.below(3);
        Self {
            pace_ms: pace_ms.unwrap_or(0),
            next: pace_ms.map(|pace| Duration::from_millis(random.below(pace))),
            backs,
            back: None,
            random,
            trace,
            control,
            has_gone_back: false,
            is_over: false,
            is_founded: false,
        }
    }

    /// From now on it is only ended.
    pub(crate) fn end(&mut self, now: Duration) {
        self.is_over = true;
        self.next = self.next.map(|next| next.min(now));
        self.backs = 0;
    }

    /// Whether a node was given an older binary than it had.
    pub(crate) fn has_gone_back(&self) -> bool {
        self.has_gone_back
    }

    pub(crate) fn tick(
        &mut self,
        now: Duration,
        machines: &mut [Machine],
        faults: &mut Faults,
        summary: &mut Summary,
    ) {
        let lowest = machines.iter().map(Machine::level).min().unwrap_or(Level::NEWEST);
        self.control.lowest_level.store(lowest.0, Ordering::Relaxed);
        if self.is_on_its_way_back(machines) {
            return;
        }
        if self.pace_ms > 0 && self.backs == 0 {
            // From the last way back on: at first he is refused, as long as there are older nodes.
            Control::set(&self.control.may_finalize);
        }
        self.is_founded |= machines.iter().any(Machine::is_running);
        if !self.is_founded {
            return;
        }
        if self.next.is_none_or(|next| now < next)
            || (self.is_over && !machines.iter().all(Machine::is_running))
        {
            return;
        }
        let pause = match self.is_over {
            true => HURRY,
            false => Duration::from_millis(self.random.below(self.pace_ms)),
        };
        self.next = Some(now + pause);
        // One that is about to start as what it is cannot be asked to stop yet.
        if machines
            .iter()
            .any(|machine| matches!(machine.status(), Status::Starting))
        {
            return;
        }
        let is_old = |machine: &Machine| machine.next_level() < Level::NEWEST;
        let all = 0..machines.len();
        let (old, new): (Vec<usize>, Vec<usize>) = all.partition(|index| is_old(&machines[*index]));
        let any = |of: &[usize]| of[self.random.below(of.len() as u64) as usize];
        if self.backs > 0 && !new.is_empty() && (old.is_empty() || self.random.one_in(2)) {
            let index = any(&new);
            self.backs -= 1;
            self.back = Some(index);
            self.has_gone_back = true;
            summary.count("downgrades");
            self.restart(now, index, Level::FIRST, machines, faults);
        } else if old.is_empty() {
            self.next = None;
        } else {
            let index = any(&old);
            summary.count("upgrades");
            self.restart(now, index, Level::NEWEST, machines, faults);
        }
    }

    /// Whether a node that is to be older again does not run as such yet: the controller takes it for a newer one.
    fn is_on_its_way_back(&mut self, machines: &[Machine]) -> bool {
        let back = self.back.map(|index| &machines[index]);
        let is_so = back.is_some_and(|machine| machine.level() > Level::FIRST || !machine.is_running());
        if !is_so {
            self.back = None;
        }
        is_so
    }

    /// The binary is exchanged, and the node stopped; whoever looks after it starts it again.
    fn restart(
        &self,
        now: Duration,
        index: usize,
        level: Level,
        machines: &mut [Machine],
        faults: &mut Faults,
    ) {
        self.trace.say(format_args!(
            "{} is to run at level {level}",
            machines[index].name
        ));
        machines[index].set_next_level(level);
        faults.stop_one(now, index, machines);
    }
}
