//! What goes wrong, and when: crashes, pauses, cuts, slow links, broken connections, failing and full disks.
//!
//! Owns the schedule, drawn from the seed, and the repair of what it broke. It must never break more than the cluster
//! promises to survive.

use std::io::ErrorKind;
use std::time::Duration;

use headwater::sys::disk::Disk;
use headwater::sys::disk::memory::Operation;
use headwater::sys::net::simulated::{Crash, Fabric, Link};
use headwater::sys::random::Random;

use crate::machine::{Machine, Status};
use crate::scenario::Rates;
use crate::summary::Summary;
use crate::trace::Trace;

/// Something to be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Repair {
    Boot(usize),
    /// A machine that was asked to stop and should have by now.
    Stopped(usize),
    Heal(String, String),
    Quicken(String, String),
    MakeRoom(usize),
}

pub(crate) struct Faults {
    random: Random,
    rates: Rates,
    fabric: Fabric,
    trace: Trace,
    repairs: Vec<(Duration, Repair)>,
    /// No new ones.
    is_over: bool,
}

/// What a fault does to the cluster.
type Fault = fn(&mut Faults, Duration, &mut [Machine], &mut Summary);

impl Faults {
    pub(crate) fn new(random: Random, rates: Rates, fabric: Fabric, trace: Trace) -> Self {
        Self {
            random,
            rates,
            fabric,
            trace,
            repairs: Vec::new(),
            is_over: false,
        }
    }

    /// One millisecond of bad luck.
    pub(crate) fn tick(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        self.repair(now, machines, summary);
        if self.is_over {
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
        } = self.rates;
        let faults: [(Option<u64>, Fault); 8] = [
            (crash_ms, Self::crash),
            (stop_ms, Self::stop),
            (pause_ms, Self::pause),
            (cut_ms, Self::cut),
            (slow_ms, Self::slow),
            (reset_ms, Self::reset),
            (disk_error_ms, Self::disk_error),
            (disk_full_ms, Self::disk_full),
        ];
        for (rate, fault) in faults {
            if rate.is_some_and(|rate| self.random.one_in(rate)) {
                fault(self, now, machines, summary);
            }
        }
    }

    /// From now on everything is repaired and nothing breaks.
    pub(crate) fn end(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        self.is_over = true;
        for (at, _) in &mut self.repairs {
            *at = now;
        }
        self.repair(now, machines, summary);
    }

    fn repair(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        for (index, machine) in machines.iter_mut().enumerate() {
            let is_expected = self
                .repairs
                .iter()
                .any(|(_, repair)| *repair == Repair::Boot(index));
            if is_expected {
                continue;
            }
            match machine.status() {
                Status::Failed(reason) => {
                    // A disk that fails may end a node; the invariants see to it that nothing else does.
                    self.trace.say(format_args!("{} ended: {reason}", machine.name));
                    summary.count("ended");
                    self.fabric.crash(&machine.name, Crash::Process);
                    machine.disk.kill();
                    machine.bury();
                    self.boot_soon(now, index);
                }
                Status::Stopped => {
                    summary.count("stopped");
                    self.fabric.crash(&machine.name, Crash::Process);
                    machine.disk.kill();
                    machine.bury();
                    self.boot_soon(now, index);
                }
                Status::Down => self.boot_soon(now, index),
                Status::Starting | Status::Running(_) => {}
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
                Repair::Boot(index) => {
                    summary.count("boots");
                    machines[index].boot(now);
                }
                Repair::Stopped(index) => self.cut_short(now, index, machines, summary),
                Repair::Heal(from, to) => self.fabric.heal(&from, &to),
                Repair::Quicken(from, to) => self.fabric.set_link(&from, &to, None),
                Repair::MakeRoom(index) => machines[index].disk.set_capacity(u64::MAX),
            }
        }
    }

    /// A node that takes too long to stop is killed, as a supervisor does.
    fn cut_short(&mut self, now: Duration, index: usize, machines: &mut [Machine], summary: &mut Summary) {
        if matches!(machines[index].status(), Status::Running(_)) {
            summary.count("cut_short");
            machines[index].crash(Crash::Process);
            self.boot_soon(now, index);
        }
    }

    fn boot_soon(&mut self, now: Duration, index: usize) {
        let wait = match self.is_over {
            true => Duration::ZERO,
            false => Duration::from_millis(self.random.below(3_000)),
        };
        self.repairs.push((now + wait, Repair::Boot(index)));
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

    fn stop(&mut self, now: Duration, machines: &mut [Machine], _summary: &mut Summary) {
        let index = self.any(machines);
        if matches!(machines[index].status(), Status::Running(_)) {
            machines[index].stop();
            self.repairs
                .push((now + Duration::from_secs(20), Repair::Stopped(index)));
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

    fn disk_error(&mut self, _now: Duration, machines: &mut [Machine], summary: &mut Summary) {
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
        self.trace.say(format_args!(
            "disk of {} fails {operation:?} after {skip}",
            machines[index].name
        ));
        machines[index].disk.fail(operation, skip, ErrorKind::Other);
        // A node whose partitions are offline has to be restarted by somebody.
        self.repairs
            .push((_now + self.ms(500, 6_000), Repair::Stopped(index)));
    }

    fn disk_full(&mut self, now: Duration, machines: &mut [Machine], summary: &mut Summary) {
        let index = self.any(machines);
        summary.count("disk_full");
        let disk = &machines[index].disk;
        disk.set_capacity(u64::MAX);
        let free = disk.free_bytes(std::path::Path::new("")).unwrap_or(u64::MAX);
        let room = self.random.below(20_000);
        disk.set_capacity(u64::MAX - free + room);
        self.trace
            .say(format_args!("disk of {} is full", machines[index].name));
        self.repairs
            .push((now + self.ms(200, 6_000), Repair::MakeRoom(index)));
    }
}
