//! What goes wrong, and when: crashes, a whole cluster without power, pauses, cuts, slow and lossy links, broken
//! connections, failing and full disks.
//!
//! Owns the schedule, drawn from the seed, and the repair of what it broke. It must never break more than the cluster
//! promises to survive: whatever was synced stays on each disk.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use headwater::node::Core;
use headwater::sys::disk::memory::Operation;
use headwater::sys::net::simulated::{Crash, Fabric, Link};
use headwater::sys::random::Random;

use crate::cluster;
use crate::invariants::Violation;
use crate::machine::{Machine, Status};
use crate::scenario::Rates;
use crate::summary::Summary;
use crate::trace::Trace;
use crate::workload::Control;

/// How the end of a node reads that is no member of its cluster any more.
const UNREGISTERED: &str = "it was unregistered";

/// Something to be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Repair {
    Boot(usize),
    /// A machine that should have stopped by now, in this of its lives.
    Stopped(usize, u64),
    Heal(String, String),
    Quicken(String, String),
    MakeRoom(usize),
}

pub(crate) struct Faults {
    random: Random,
    rates: Rates,
    fabric: Fabric,
    trace: Trace,
    control: Arc<Control>,
    repairs: Vec<(Duration, Repair)>,
    phase: Phase,
    /// Machines whose disk was told to fail, and that nobody has mended since.
    hurt: BTreeSet<usize>,
    /// Machines whose disk failed or was full, ever.
    touched: BTreeSet<usize>,
    /// Machines that are not to be started.
    kept_down: BTreeSet<usize>,
    violation: Option<Violation>,
}

/// Whether anything goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    NotYet,
    Unrest,
    Over,
}

/// What a fault does to the cluster.
type Fault = fn(&mut Faults, Duration, &mut [Machine], &mut Summary);

impl Faults {
    pub(crate) fn new(
        random: Random,
        rates: Rates,
        fabric: Fabric,
        trace: Trace,
        control: Arc<Control>,
    ) -> Self {
        Self {
            random,
            rates,
            fabric,
            trace,
            repairs: Vec::new(),
            phase: Phase::NotYet,
            hurt: BTreeSet::new(),
            touched: BTreeSet::new(),
            control,
            kept_down: BTreeSet::new(),
            violation: None,
        }
    }

    /// From now on things go wrong.
    pub(crate) fn begin(&mut self) {
        self.trace.say("things may go wrong from now on");
        self.phase = Phase::Unrest;
    }

    /// A node that ended by itself, although nothing was wrong with its disk.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.clone()
    }

    /// One millisecond of bad luck.
    pub(crate) fn tick(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        self.repair(now, machines, summary);
        if self.phase != Phase::Unrest {
            return;
        }
        let Rates {
            crash_ms,
            stop_ms,
            pause_ms,
            cut_ms,
            slow_ms,
            reset_ms,
            disk_error_ms,
            disk_full_ms,
            blackout_ms,
        } = self.rates;
        let faults: [(Option<u64>, Fault); 9] = [
            (crash_ms, Self::crash),
            (stop_ms, Self::stop),
            (pause_ms, Self::pause),
            (cut_ms, Self::cut),
            (slow_ms, Self::slow),
            (reset_ms, Self::reset),
            (disk_error_ms, Self::disk_error),
            (disk_full_ms, Self::disk_full),
            (blackout_ms, Self::blackout),
        ];
        for (rate, fault) in faults {
            if rate.is_some_and(|rate| self.random.one_in(rate)) {
                fault(self, now, machines, summary);
            }
        }
    }

    /// From now on everything is repaired and nothing breaks.
    pub(crate) fn end(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        self.phase = Phase::Over;
        for (at, _) in &mut self.repairs {
            *at = now;
        }
        for machine in machines.iter() {
            machine.disk.forget_faults();
        }
        self.repair(now, machines, summary);
    }

    fn repair(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        for (index, machine) in machines.iter_mut().enumerate() {
            if !self.repairs.iter().any(|(_, it)| *it == Repair::Boot(index)) {
                self.look_after(now, index, machine, summary);
            }
        }
        let mut due = Vec::new();
        self.repairs.retain(|(at, repair)| {
            let is_due = *at <= now;
            if is_due {
                due.push(repair.clone());
            }
            !is_due
        });
        for repair in due {
            match repair {
                Repair::Boot(index) if self.kept_down.contains(&index) => {}
                Repair::Boot(index) => {
                    summary.count("boots");
                    machines[index].boot(now);
                }
                Repair::Stopped(index, life) => {
                    if machines[index].lives() == life {
                        self.cut_short(now, index, machines, summary);
                    }
                }
                Repair::Heal(from, to) => self.fabric.heal(&from, &to),
                Repair::Quicken(from, to) => self.fabric.set_link(&from, &to, None),
                Repair::MakeRoom(index) => machines[index].disk.set_capacity(u64::MAX),
            }
        }
    }

    /// A node that has ended is booted, as a supervisor does; so is one that has given up what its failed disk holds, as an
    /// operator does, when there are no faults to wait for any more.
    fn look_after(&mut self, now: Duration, index: usize, machine: &mut Machine, summary: &mut Summary) {
        match machine.status() {
            Status::Failed(reason) => {
                let what = format!("{} ended: {reason}", machine.name);
                self.trace.say(&what);
                summary.count("ended");
                let is_farewell =
                    self.control.has_farewell_under_way(machine.id) && reason.ends_with(UNREGISTERED);
                if !is_farewell && !self.touched.contains(&index) {
                    let violation = Violation::new("a node runs until it is stopped", what);
                    self.violation.get_or_insert(violation);
                }
            }
            Status::Stopped => summary.count("stopped"),
            Status::Running(_) if self.phase == Phase::Over && self.hurt.contains(&index) => {
                if !has_given_up(machine) {
                    return;
                }
                self.trace.say(format_args!("{} has given up", machine.name));
                self.hurt.remove(&index);
                summary.count("mended");
            }
            Status::Down => return self.boot_soon(now, index),
            Status::Starting | Status::Running(_) => return,
        }
        self.fabric.crash(&machine.name, Crash::Process);
        machine.disk.kill();
        machine.bury();
        self.boot_soon(now, index);
    }

    /// A node that takes too long to stop is killed, as a supervisor does.
    fn cut_short(&mut self, now: Duration, index: usize, machines: &mut [Machine], summary: &mut Summary) {
        if machines[index].is_running() {
            summary.count("cut_short");
            machines[index].crash(Crash::Process);
            self.boot_soon(now, index);
        }
    }

    fn boot_soon(&mut self, now: Duration, index: usize) {
        if self.kept_down.contains(&index) {
            return;
        }
        let wait = match self.phase {
            Phase::Over => Duration::ZERO,
            Phase::NotYet | Phase::Unrest => Duration::from_millis(self.random.below(3_000)),
        };
        self.repairs.push((now + wait, Repair::Boot(index)));
    }

    /// The machine is stopped and not started any more.
    pub(crate) fn keep_down(&mut self, now: Duration, index: usize, machines: &mut [Machine]) {
        self.kept_down.insert(index);
        // One that is starting is asked as soon as it runs.
        if !machines[index].is_stopping() {
            self.stop_one(now, index, machines);
        }
    }

    /// The machine is started again, on whatever disk it has now.
    pub(crate) fn let_up(&mut self, index: usize) {
        self.kept_down.remove(&index);
    }

    fn ms(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(low + self.random.below(high - low + 1))
    }

    fn any(&self, machines: &[Machine]) -> usize {
        self.random.below(machines.len() as u64) as usize
    }

    fn crash(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        let index = self.any(machines);
        if !machines[index].is_up() {
            return;
        }
        let how = match self.random.one_in(2) {
            true => Crash::Power,
            false => Crash::Process,
        };
        summary.count(match how {
            Crash::Power => "power",
            Crash::Process => "killed",
        });
        machines[index].crash(how);
        self.boot_soon(now, index);
    }

    /// The power goes for all at once; each comes back when it does.
    fn blackout(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        summary.count("blackouts");
        for (index, machine) in machines.iter_mut().enumerate() {
            if machine.is_up() {
                machine.crash(Crash::Power);
                self.boot_soon(now, index);
            }
        }
    }

    fn stop(&mut self, now: Duration, machines: &mut [Machine], _summary: &mut Summary) {
        let index = self.any(machines);
        self.stop_one(now, index, machines);
    }

    /// Asks a node to stop in order, if it runs; it is started again.
    pub(crate) fn stop_one(&mut self, now: Duration, index: usize, machines: &mut [Machine]) {
        if machines[index].is_running() {
            machines[index].stop();
            let late = Repair::Stopped(index, machines[index].lives());
            self.repairs.push((now + Duration::from_secs(20), late));
        }
    }

    fn pause(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        let (index, time) = (self.any(machines), self.ms(50, 5_000));
        summary.count("pauses");
        machines[index].stand_still(now + time);
    }

    /// Two hosts on the net; clients are one of them.
    fn pair(&self, machines: &[Machine]) -> (String, String) {
        let mut names: Vec<String> = machines.iter().map(|machine| machine.name.to_string()).collect();
        names.push("clients".to_owned());
        let from = self.random.below(names.len() as u64) as usize;
        let to = (from + 1 + self.random.below(names.len() as u64 - 1) as usize) % names.len();
        (names[from].clone(), names[to].clone())
    }

    fn cut(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        // One way, both ways, or one node from all others.
        let (from, to) = self.pair(machines);
        let until = now + self.ms(50, 8_000);
        let ways = match self.random.below(3) {
            0 => vec![(from, to)],
            1 => vec![(from.clone(), to.clone()), (to, from)],
            _ => machines
                .iter()
                .map(|machine| machine.name.to_string())
                .filter(|name| *name != from)
                .flat_map(|name| [(from.clone(), name.clone()), (name, from.clone())])
                .collect(),
        };
        for (from, to) in ways {
            self.trace.say(format_args!("cut {from} -> {to} until {until:?}"));
            summary.count("cuts");
            self.fabric.cut(&from, &to);
            self.repairs.push((until, Repair::Heal(from, to)));
        }
    }

    fn slow(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        let (from, to) = self.pair(machines);
        let latency = self.ms(5, 400);
        summary.count("slow");
        let link = Link {
            latency_min: latency / 2,
            latency_max: latency,
            bytes_per_second: self.random.one_in(2).then_some(100_000),
            late_one_in: 2 + self.random.below(30),
        };
        self.trace.say(format_args!("slow {from} -> {to} {latency:?}"));
        self.fabric.set_link(&from, &to, Some(link));
        self.repairs
            .push((now + self.ms(500, 5_000), Repair::Quicken(from, to)));
    }

    fn reset(&mut self, _now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        let (one, other) = self.pair(machines);
        summary.count("resets");
        self.trace.say(format_args!("reset {one} {other}"));
        self.fabric.reset(&one, &other);
    }

    fn disk_error(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        let index = self.any(machines);
        let operations = [
            Operation::Read,
            Operation::Write,
            Operation::Sync,
            Operation::Rename,
            Operation::Open,
        ];
        let operation = operations[self.random.below(operations.len() as u64) as usize];
        let skip = self.random.below(20);
        summary.count("disk_errors");
        self.hurt.insert(index);
        self.touched.insert(index);
        self.trace.say(format_args!(
            "disk of {} fails {operation:?} after {skip}",
            machines[index].name
        ));
        machines[index].disk.fail(operation, skip, ErrorKind::Other);
        // A node whose partitions are offline has to be restarted by somebody.
        let soon = Repair::Stopped(index, machines[index].lives());
        self.repairs.push((now + self.ms(500, 6_000), soon));
    }

    fn disk_full(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        let index = self.any(machines);
        summary.count("disk_full");
        self.touched.insert(index);
        if self.random.one_in(3) && machines[index].is_up() {
            // So that it starts on a full disk.
            summary.count("full_starts");
            machines[index].crash(Crash::Power);
            self.repairs.push((now + self.ms(10, 500), Repair::Boot(index)));
        }
        let disk = &machines[index].disk;
        disk.leave_room(self.random.below(20_000));
        self.trace
            .say(format_args!("disk of {} is full", machines[index].name));
        self.repairs
            .push((now + self.ms(200, 6_000), Repair::MakeRoom(index)));
    }
}

/// Whether something of a node waits for the next start: replicas, or its part in the quorum.
fn has_given_up(machine: &Machine) -> bool {
    let replicas = cluster::replicas_of(machine);
    let has_no_quorum = |core: Core| core.controller.quorum().failed.is_some();
    replicas.iter().any(|replica| replica.is_offline) || machine.core().is_some_and(has_no_quorum)
}
