//! Members of the consumer protocol that come, crash, leave and come back while topics grow, and a log that refuses, takes
//! its time, or loses what it has not acknowledged: no partition ever has two owners, and in the end each has one.

use super::super::super::request::{Assignment, ConsumerHeartbeat, Epoch};
use super::consumers::{joins, of_instance, stays};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Instant;

/// One process, as far as it has come.
#[derive(Default)]
struct Process {
    id: String,
    instance: Option<String>,
    epoch: i32,
    topics: Vec<&'static str>,
    /// What it reads, also what it is to give up and has not.
    owned: Assignment,
    /// What it may read by what it was told last.
    told: Assignment,
    asked: Option<CallId>,
    /// When it said or heard something last: it gives up by itself what it may not have any more.
    alive_at: Option<Instant>,
    /// Since when it is to give something up.
    revoking_since: Option<Instant>,
    says_all: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Beat(usize),
    /// It gives up what it was told to.
    Release(usize),
    /// It is gone without a word, and another process begins in its place.
    Crash(usize),
    Leave(usize),
    /// Static members leave for a while, others for good.
    Away(usize),
    Subscribe(usize, bool),
    Grow(bool),
    Pass(u64),
    Refuse(bool),
    /// What is written stays on its way.
    Hold(bool),
    /// Another node takes over; of what is on its way it has so many writes at most.
    Failover(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0usize..4;
    prop_oneof![
        16 => n.clone().prop_map(Step::Beat),
        8 => n.clone().prop_map(Step::Release),
        1 => n.clone().prop_map(Step::Crash),
        1 => n.clone().prop_map(Step::Leave),
        1 => n.clone().prop_map(Step::Away),
        1 => (n, any::<bool>()).prop_map(|(n, both)| Step::Subscribe(n, both)),
        1 => any::<bool>().prop_map(Step::Grow),
        4 => (1..5000u64).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Refuse),
        2 => any::<bool>().prop_map(Step::Hold),
        1 => (0..3usize).prop_map(Step::Failover),
    ]
}

struct World {
    lab: Lab,
    processes: Vec<Process>,
    next_id: u32,
    sizes: [i32; 2],
}

impl World {
    fn new(count: usize) -> Self {
        let mut world = Self {
            lab: Lab::new(),
            processes: Vec::new(),
            next_id: 0,
            sizes: [4, 3],
        };
        world.lab.make_topic("t", 4);
        world.lab.make_topic("u", 3);
        for n in 0..count {
            let process = world.begin(n, vec!["t"]);
            world.processes.push(process);
        }
        world
    }

    /// A new process in a place; each second place is that of a static member.
    fn begin(&mut self, n: usize, topics: Vec<&'static str>) -> Process {
        self.next_id += 1;
        Process {
            id: format!("m{}", self.next_id),
            instance: n.is_multiple_of(2).then(|| format!("i{n}")),
            topics,
            ..Process::default()
        }
    }

    fn begin_anew(&mut self, n: usize) {
        let topics = self.processes[n].topics.clone();
        self.processes[n] = self.begin(n, topics);
    }

    fn take(&mut self, step: &Step) {
        let count = self.processes.len();
        match *step {
            Step::Beat(n) => self.beat(n % count),
            Step::Release(n) => {
                let process = &mut self.processes[n % count];
                process.owned = process
                    .owned
                    .iter()
                    .filter(|it| process.told.contains(it.0, it.1))
                    .collect();
            }
            Step::Crash(n) => self.begin_anew(n % count),
            Step::Leave(n) => self.leave(n % count, Epoch::LEAVING),
            Step::Away(n) => {
                let epoch = match self.processes[n % count].instance {
                    Some(_) => Epoch::AWAY,
                    None => Epoch::LEAVING,
                };
                self.leave(n % count, epoch);
            }
            Step::Subscribe(n, both) => {
                let process = &mut self.processes[n % count];
                process.topics = if both { vec!["t", "u"] } else { vec!["t"] };
                process.says_all = true;
            }
            Step::Grow(first) => {
                let (n, name) = if first { (0, "t") } else { (1, "u") };
                self.sizes[n] = (self.sizes[n] + 1).min(9);
                self.lab.make_topic(name, self.sizes[n]);
            }
            Step::Pass(ms) => self.lab.pass(Duration::from_millis(ms)),
            Step::Refuse(refuses) => self.lab.refuses = refuses.then_some(AppendRefused::NotNow),
            Step::Hold(holds) => {
                self.lab.holds = holds;
                self.lab.settle();
            }
            Step::Failover(kept) => self.failover(kept),
        }
        self.hear();
        self.check();
    }

    fn beat(&mut self, n: usize) {
        let process = &mut self.processes[n];
        if process.asked.is_some() {
            return;
        }
        let beat = if process.epoch == 0 {
            joins(&process.id, &process.topics)
        } else if process.says_all {
            ConsumerHeartbeat {
                epoch: Epoch(process.epoch),
                owned: Some(process.owned.clone()),
                ..joins(&process.id, &process.topics)
            }
        } else {
            ConsumerHeartbeat {
                owned: Some(process.owned.clone()),
                ..stays(&process.id, process.epoch)
            }
        };
        let beat = match &process.instance {
            Some(instance) => of_instance(beat, instance),
            None => beat,
        };
        process.says_all = false;
        process.alive_at = Some(self.lab.clock.now());
        let call = self.lab.beat_as(beat);
        self.processes[n].asked = Some(call);
    }

    /// It has given everything up before it says so.
    fn leave(&mut self, n: usize, epoch: Epoch) {
        let process = &mut self.processes[n];
        let beat = stays(&process.id, epoch.0);
        let beat = match &process.instance {
            Some(instance) => of_instance(beat, instance),
            None => beat,
        };
        self.begin_anew(n);
        self.lab.beat_as(beat);
    }

    fn failover(&mut self, kept: usize) {
        let on_their_way = std::mem::take(&mut self.lab.held);
        for (_, records) in on_their_way.into_iter().take(kept) {
            self.lab.log.extend(records);
        }
        let (calls, ids, refuses) = (self.lab.calls, self.lab.ids, self.lab.refuses);
        self.lab = Lab {
            calls,
            ids,
            refuses,
            ..self.lab.read_back()
        };
        for process in &mut self.processes {
            process.says_all |= process.asked.take().is_some();
        }
    }

    fn hear(&mut self) {
        let now = self.lab.clock.now();
        for n in 0..self.processes.len() {
            let process = &mut self.processes[n];
            if let Some(call) = process.asked
                && self.lab.answers.contains_key(&call)
            {
                process.asked = None;
                let told = self.lab.told(call);
                self.hear_told(n, told.map(|told| (told.epoch, told.assignment)), now);
            }
            let process = &self.processes[n];
            let is_silent = process.alive_at.is_some_and(|at| now >= at + SESSION);
            let is_slow = process.revoking_since.is_some_and(|at| now >= at + REBALANCE);
            if is_silent || is_slow {
                self.begin_anew(n);
            }
        }
    }

    fn hear_told(&mut self, n: usize, told: Result<(Epoch, Option<Assignment>), GroupError>, now: Instant) {
        let process = &mut self.processes[n];
        match told {
            Ok((epoch, assignment)) => {
                process.epoch = epoch.0;
                process.alive_at = Some(now);
                if let Some(assignment) = assignment {
                    process.owned = process.owned.iter().chain(assignment.iter()).collect();
                    process.told = assignment;
                }
                let is_done = process.owned.is_within(&process.told);
                process.revoking_since = match process.revoking_since {
                    _ if is_done => None,
                    since => Some(since.unwrap_or(now)),
                };
            }
            Err(GroupError::NotAvailable) => process.says_all = true,
            Err(GroupError::FencedEpoch | GroupError::UnknownMember | GroupError::GroupNotFound) => {
                (process.owned, process.told) = Default::default();
                (process.epoch, process.revoking_since) = (0, None);
            }
            // Its former process is not known to be gone yet.
            Err(GroupError::UnreleasedInstance | GroupError::FencedInstance) => self.begin_anew(n),
            Err(other) => panic!("{other}"),
        }
    }

    fn check(&self) {
        let mut owners = BTreeMap::new();
        for process in &self.processes {
            for place in process.owned.iter() {
                let before = owners.insert(place, &process.id);
                assert_eq!(before, None, "{} and another one have {place:?}", process.id);
            }
        }
    }

    /// The log takes everything and nobody fails any more: everything has an owner soon.
    fn calm_down(&mut self) {
        self.take(&Step::Refuse(false));
        self.take(&Step::Hold(false));
        for _ in 0..60 {
            for n in 0..self.processes.len() {
                self.take(&Step::Release(n));
                self.take(&Step::Beat(n));
            }
            self.take(&Step::Pass(2000));
        }
        let subscribed: BTreeSet<_> = self.processes.iter().flat_map(|it| &it.topics).collect();
        let sizes = [("t", self.sizes[0]), ("u", self.sizes[1])];
        let expected = sizes.iter().filter(|(topic, _)| subscribed.contains(topic));
        let expected: i32 = expected.map(|(_, size)| size).sum();
        let counts: Vec<usize> = self.processes.iter().map(|it| it.owned.count()).collect();
        assert_eq!(counts.iter().sum::<usize>(), usize::try_from(expected).unwrap());
        if self
            .processes
            .iter()
            .all(|it| it.topics == self.processes[0].topics)
        {
            let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
            assert!(spread <= 1, "{counts:?}");
        }
        let seen = self.lab.seen();
        assert_eq!(seen.stage, Stage::Stable);
        assert_eq!(seen.members.len(), self.processes.len());
        let other = self.lab.read_back();
        assert_eq!(other.seen(), seen);
        assert_eq!(other.state.live_bytes(), self.lab.state.live_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_partition_has_two_owners_and_in_the_end_each_has_one(
        count in 1usize..5,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut world = World::new(count);
        for step in &steps {
            world.take(step);
        }
        world.calm_down();
    }
}
