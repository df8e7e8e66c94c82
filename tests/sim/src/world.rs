//! One run: a cluster, its clients, the net between them and the time, driven by one thread in an order that follows from
//! the seed alone.
//!
//! Owns time: in each step of a millisecond everything arrives that is due, then each process runs up to the end of the
//! step, one after the other. What is sent in a step arrives in a later one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater::sys::net::simulated::{Fabric, Host};
use headwater::sys::random::Random;

use crate::client::{Client, Partition};
use crate::cluster;
use crate::faults::Faults;
use crate::invariants::{Regular, Violation};
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::process::{Process, Skew};
use crate::reached::{self, Reached};
use crate::retirement;
use crate::scenario::{Scenario, Wishes};
use crate::summary::Summary;
use crate::trace::{Detail, Trace};
use crate::upgrades::Upgrades;
use crate::workload::consume::Consumer;
use crate::workload::keep::{self, Reader, Writer};
use crate::workload::member::{self, Member};
use crate::workload::operate::{Duties, Operator};
use crate::workload::produce::{Habits, Producer};
use crate::workload::transact::{self, Transactor, Work};
use crate::workload::watch::Watcher;
use crate::workload::{Control, admin};

const STEP: Duration = Duration::from_millis(1);
/// Nodes are looked at once in so many steps.
const LOOK_STEPS: u64 = 20;
/// Disks are read once in so many steps.
const COMPARE_STEPS: u64 = 2_000;

pub(crate) struct World {
    pub(crate) now: Duration,
    steps: u64,
    pub(crate) trace: Trace,
    pub(crate) fabric: Fabric,
    pub(crate) scenario: Scenario,
    pub(crate) machines: Vec<Machine>,
    pub(crate) clients: Process,
    clients_host: Host,
    clients_name: Arc<str>,
    world_name: Arc<str>,
    random: Random,
    pub(crate) oracle: Oracle,
    pub(crate) control: Arc<Control>,
    pub(crate) faults: Faults,
    pub(crate) upgrades: Upgrades,
    operators: Random,
    transactors: Random,
    members: Random,
    keepers: Random,
    regular: Regular,
    reached: Reached,
    pub(crate) summary: Summary,
    pub(crate) rot: Random,
    /// What lies on the disks is not what was written, and is about to be repaired.
    pub(crate) is_rotten: bool,
}

impl World {
    pub(crate) fn new(seed: u64, wishes: Wishes, trace: Trace) -> Self {
        let random = Random::seeded(seed);
        // Streams of their own: one more draw in one place changes nothing elsewhere.
        let [
            scenario,
            net,
            nodes,
            faults,
            clients,
            rot,
            upgrades,
            operators,
            transactors,
            members,
            keepers,
        ] = std::array::from_fn(|_| random.fork());
        let scenario = Scenario::draw(&scenario, wishes);
        let fabric = Fabric::paced(net);
        fabric.set_usual_link(scenario.link);
        if trace.detail() == Detail::Full {
            fabric.watch();
        }
        let control = Arc::new(Control::default());
        let machines = cluster::build(&scenario, &nodes, &fabric, &trace);
        Self {
            now: Duration::ZERO,
            steps: 0,
            clients_host: fabric.boot("clients"),
            faults: Faults::new(
                faults,
                scenario.faults,
                fabric.clone(),
                trace.clone(),
                Arc::clone(&control),
            ),
            upgrades: Upgrades::new(
                upgrades,
                scenario.duties.upgrade_ms,
                Arc::clone(&control),
                trace.clone(),
            ),
            operators,
            transactors,
            members,
            keepers,
            clients: Process::new(&clients, Duration::ZERO, Skew::default()),
            clients_name: "clients".into(),
            world_name: "world".into(),
            trace,
            fabric,
            scenario,
            machines,
            random: clients,
            oracle: Oracle::default(),
            control,
            regular: Regular::default(),
            reached: Reached::default(),
            summary: Summary::default(),
            rot,
            is_rotten: false,
        }
    }

    /// Boots every node and starts every client.
    pub(crate) fn begin(&mut self) {
        self.trace.say(format_args!("{:?}", self.scenario));
        for machine in &mut self.machines {
            machine.boot(self.now);
        }
        let partitions: Vec<Partition> = self.scenario.topics.iter().flat_map(partitions_of).collect();
        let admin = admin::create(
            self.client("admin"),
            self.scenario.all_topics(),
            self.oracle.clone(),
            Arc::clone(&self.control),
        );
        self.clients.spawn(admin);
        for number in 0..self.scenario.producers {
            let producer = Producer {
                number,
                client: self.client(&format!("p{number}")),
                habits: Habits {
                    partitions: partitions.clone(),
                    records_max: self.scenario.records_max,
                    padding_max: self.scenario.padding_max,
                    pause_ms_max: self.scenario.pause_ms_max,
                },
                oracle: self.oracle.clone(),
                control: Arc::clone(&self.control),
            };
            self.clients.spawn(producer.run());
        }
        for number in 0..self.scenario.consumers {
            let consumer = Consumer {
                number,
                client: self.client(&format!("c{number}")),
                partitions: partitions.clone(),
                oracle: self.oracle.clone(),
                control: Arc::clone(&self.control),
            };
            self.clients.spawn(consumer.run());
        }
        self.begin_operators();
        if let Some(plan) = self.scenario.transactions.clone() {
            self.begin_transactions(&plan);
        }
        if let Some(plan) = self.scenario.members {
            self.begin_members(plan);
        }
        if let Some(plan) = self.scenario.kept.clone() {
            self.begin_keeping(&plan);
        }
    }

    fn begin_keeping(&self, plan: &keep::Plan) {
        let partitions = partitions_of(&plan.topic);
        for number in 0..plan.writers {
            let writer = Writer {
                number,
                client: self.client_by(&format!("k{number}"), &self.keepers),
                partitions: partitions.clone(),
                plan: plan.clone(),
                oracle: self.oracle.clone(),
                control: Arc::clone(&self.control),
            };
            self.clients.spawn(writer.run());
        }
        for number in 0..plan.readers {
            self.clients.spawn(self.reader(&format!("r{number}"), plan).run());
        }
    }

    /// Who goes through the compacted topic.
    pub(crate) fn reader(&self, name: &str, plan: &keep::Plan) -> Reader {
        Reader {
            client: self.client_by(name, &self.keepers),
            partitions: partitions_of(&plan.topic),
            tombstones: Duration::from_millis(plan.tombstones_ms),
            oracle: self.oracle.clone(),
            control: Arc::clone(&self.control),
        }
    }

    fn begin_members(&self, plan: member::Plan) {
        for (group, protocol) in plan.groups() {
            for number in 0..plan.members {
                let member = Member {
                    client: self.client_by(&format!("{group}.{number}"), &self.members),
                    group: group.clone(),
                    protocol,
                    partitions: self.scenario.topics.iter().flat_map(partitions_of).collect(),
                    plan,
                    oracle: self.oracle.clone(),
                    control: Arc::clone(&self.control),
                };
                self.clients.spawn(member.run());
            }
        }
    }

    fn begin_operators(&self) {
        let Duties {
            move_ms,
            vote_ms,
            retire_ms,
            upgrade_ms,
        } = self.scenario.duties;
        if let Some(pause_ms) = move_ms {
            self.clients.spawn(self.operator("mover").move_replicas(pause_ms));
        }
        if let Some(pause_ms) = vote_ms {
            self.clients
                .spawn(self.operator("teller").change_voters(pause_ms));
        }
        if let Some(pause_ms) = retire_ms {
            self.clients
                .spawn(self.operator("replacer").retire_nodes(pause_ms));
        }
        if upgrade_ms.is_some() {
            self.clients.spawn(self.operator("upgrader").finalize());
        }
    }

    fn begin_transactions(&self, plan: &transact::Plan) {
        let [written, copied] = plan.topics.each_ref().map(partitions_of);
        let inputs = self.copied_partitions();
        for owner in 0..plan.writers + plan.copiers {
            let (work, outputs) = match owner < plan.writers {
                true => (Work::Write, &written),
                false => (Work::Copy(inputs.clone()), &copied),
            };
            for rival in 0..plan.rivals {
                let transactor = Transactor {
                    owner,
                    client: self.client_by(&format!("x{owner}.{rival}"), &self.transactors),
                    work: work.clone(),
                    outputs: outputs.clone(),
                    plan: plan.clone(),
                    oracle: self.oracle.clone(),
                    control: Arc::clone(&self.control),
                };
                self.clients.spawn(transactor.run());
            }
        }
        for number in 0..plan.watchers {
            let watcher = Watcher {
                client: self.client_by(&format!("w{number}"), &self.transactors),
                partitions: written.iter().chain(&copied).cloned().collect(),
                oracle: self.oracle.clone(),
                control: Arc::clone(&self.control),
            };
            self.clients.spawn(watcher.run());
        }
    }

    /// What transactions copy from.
    pub(crate) fn copied_partitions(&self) -> Vec<Partition> {
        let first = self.scenario.topics.iter().take(1);
        first.flat_map(partitions_of).collect()
    }

    fn operator(&self, name: &str) -> Operator {
        let (made, own) = (self.scenario.all_topics(), self.scenario.own_topics());
        Operator {
            client: self.client_by(name, &self.operators),
            topics: made.into_iter().chain(own).collect(),
            nodes: i32::try_from(self.scenario.nodes).unwrap_or(1),
            oracle: self.oracle.clone(),
            control: Arc::clone(&self.control),
        }
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        self.client_by(name, &self.random)
    }

    fn client_by(&self, name: &str, random: &Random) -> Client {
        let bootstrap = self
            .machines
            .iter()
            .map(|machine| format!("{}:{}", machine.name, cluster::PORT))
            .collect();
        Client::new(
            name.to_owned(),
            self.clients_host.clone(),
            bootstrap,
            random.fork(),
            self.trace.clone(),
        )
    }

    /// Lets time pass, with whatever goes wrong in it.
    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), Violation> {
        let until = self.now + time;
        while self.now < until {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.trace.turn(&self.world_name, self.now);
        self.fabric.advance(self.now);
        if self.trace.detail() == Detail::Full {
            for seen in self.fabric.seen() {
                let (at, from, to) = (seen.at, seen.from, seen.to);
                let (connection, what) = (seen.connection, seen.what);
                self.trace.detail_line(format_args!(
                    "net {at:?} {from} -> {to} connection {connection} {what}"
                ));
            }
        }
        let (now, summary) = (self.now, &mut self.summary);
        self.faults.tick(now, &mut self.machines, summary);
        self.upgrades
            .tick(now, &mut self.machines, &mut self.faults, summary);
        retirement::tick(now, &self.control, &mut self.machines, &mut self.faults, summary);
        let end = self.now + STEP;
        for machine in &mut self.machines {
            self.trace.turn(&machine.name, self.now);
            machine.run_until(end);
        }
        self.trace.turn(&self.clients_name, self.now);
        self.clients.run_until(end);
        self.trace.turn(&self.world_name, self.now);
        self.now = end;
        self.steps += 1;
        self.look()
    }

    fn look(&mut self) -> Result<(), Violation> {
        if self.steps.is_multiple_of(LOOK_STEPS) {
            cluster::check(&self.machines, &mut self.regular, &mut self.reached)?;
        }
        if self.steps.is_multiple_of(COMPARE_STEPS) && !self.is_rotten {
            cluster::compare(&self.machines)?;
        }
        let violation = self.oracle.violation().or_else(|| self.faults.violation());
        let violation =
            violation.or_else(|| reached::newer_calls(&self.trace, self.upgrades.has_gone_back()));
        violation.map_or(Ok(()), Err)
    }

    /// Takes the counters of the clients and of the branches into the summary.
    pub(crate) fn sum_up(&mut self) {
        let history = self.oracle.history();
        for (what, count) in [
            ("acks", history.acks),
            ("reads", history.fetched),
            ("retries", self.control.retries.load(Ordering::Relaxed)),
        ] {
            self.summary.add(what, count);
        }
        let counts = self.reached.counts().chain(self.trace.marks());
        for (what, count) in counts.chain(self.control.counts()) {
            self.summary.add(what, count);
        }
    }
}

pub(crate) fn partitions_of(topic: &admin::NewTopic) -> Vec<Partition> {
    let partition = |index| Partition {
        topic: topic.name.clone(),
        index,
    };
    (0..topic.partitions).map(partition).collect()
}
