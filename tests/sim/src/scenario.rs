//! What a run is like: every parameter drawn from the seed, so that seeds differ in kind and not only in order.
//! Pure. Owns the bounds of each parameter.

use std::time::Duration;

use headwater::metadata::features::Level;
use headwater::sys::net::simulated::Link;
use headwater::sys::random::Random;

use crate::machine::DiskPace;
use crate::process::Skew;
use crate::workload::admin::NewTopic;
use crate::workload::operate::Duties;
use crate::workload::{keep, member, transact};

/// What the command line asks for; the seed decides the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wishes {
    pub(crate) nodes: Option<usize>,
    pub(crate) seconds: Option<u64>,
    /// No run has clients of transactions, groups and a compacted topic.
    pub(crate) is_plain: bool,
}

/// How often each fault comes, once in so many milliseconds; None: never in this run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rates {
    pub(crate) crash_ms: Option<u64>,
    pub(crate) stop_ms: Option<u64>,
    pub(crate) pause_ms: Option<u64>,
    pub(crate) cut_ms: Option<u64>,
    pub(crate) slow_ms: Option<u64>,
    pub(crate) reset_ms: Option<u64>,
    pub(crate) disk_error_ms: Option<u64>,
    pub(crate) disk_full_ms: Option<u64>,
    pub(crate) blackout_ms: Option<u64>,
}

/// How soon nodes lose patience with one another; drawn, so that every order of expiry comes up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) election_ms: u64,
    pub(crate) heartbeat_ms: u64,
    pub(crate) session_ms: u64,
    pub(crate) lag_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) nodes: usize,
    pub(crate) skews: Vec<Skew>,
    pub(crate) disk: DiskPace,
    pub(crate) link: Link,
    pub(crate) timing: Timing,
    pub(crate) topics: Vec<NewTopic>,
    pub(crate) segment_bytes: u64,
    pub(crate) producers: u32,
    pub(crate) consumers: u32,
    pub(crate) records_max: u64,
    pub(crate) padding_max: u64,
    pub(crate) pause_ms_max: u64,
    pub(crate) faults: Rates,
    /// Whether there are faults before there are topics.
    pub(crate) is_rough_start: bool,
    /// How long there are faults.
    pub(crate) unrest: Duration,
    pub(crate) duties: Duties,
    /// None: nobody has a transactional id.
    pub(crate) transactions: Option<transact::Plan>,
    /// None: there are no members of groups.
    pub(crate) members: Option<member::Plan>,
    /// None: no topic of clients is compacted.
    pub(crate) kept: Option<keep::Plan>,
    /// The partitions and the replicas of the topics that coordinators keep.
    pub(crate) coordinators: i32,
    pub(crate) coordinator_replicas: i16,
}

impl Scenario {
    pub(crate) fn draw(random: &Random, wishes: Wishes) -> Self {
        let between = |low: u64, high: u64| low + random.below(high - low + 1);
        // Drawn in any case: a wish changes nothing else.
        let drawn = nodes(random);
        let nodes = wishes.nodes.unwrap_or(drawn);
        let skew = |_| Skew {
            offset_ms: i64::try_from(between(0, 4_000)).unwrap_or(0) - 2_000,
            rate_ppm: i64::try_from(between(0, 400)).unwrap_or(0) - 200,
        };
        let latency = Duration::from_micros(between(100, 3_000));
        let drawn_seconds = between(5, 25);
        let segment_bytes = between(2, 64) * 1024;
        let mut scenario = Self {
            nodes,
            skews: (0..nodes).map(skew).collect(),
            disk: DiskPace {
                usual: Duration::from_micros(between(50, 8_000)),
                stall: Duration::from_millis(between(1, 300)),
            },
            link: Link {
                latency_min: latency / 2,
                latency_max: latency * 2,
                bytes_per_second: random.one_in(4).then(|| between(200_000, 5_000_000)),
                late_one_in: between(10, 200),
            },
            timing: Timing::draw(random),
            topics: (0..between(1, 3))
                .map(|number| topic(random, number, nodes, segment_bytes))
                .collect(),
            segment_bytes,
            producers: between(1, 4) as u32,
            consumers: between(1, 3) as u32,
            records_max: between(1, 40),
            padding_max: between(0, 2_000),
            pause_ms_max: between(0, 60),
            faults: Rates::draw(random),
            is_rough_start: random.one_in(4),
            unrest: Duration::from_secs(wishes.seconds.unwrap_or(drawn_seconds)),
            duties: Duties::default(),
            transactions: None,
            members: None,
            kept: None,
            coordinators: 1,
            coordinator_replicas: 1,
        };
        scenario.timing.suit(&scenario.link);
        // Last: what was drawn before is what it was.
        scenario.duties = Duties::draw(random, nodes, &scenario.topics);
        // A node that is taken out needs another one to take its place in everything.
        let replicas_max = match scenario.duties.retire_ms {
            Some(_) => nodes - 1,
            None => nodes,
        };
        scenario.coordinators = between(1, 3) as i32;
        scenario.coordinator_replicas = replicas_max.min(3) as i16;
        if !wishes.is_plain {
            scenario.transactions = transact::Plan::draw(random, replicas_max, segment_bytes);
            scenario.members = member::Plan::draw(random);
            scenario.kept = keep::Plan::draw(random, replicas_max, segment_bytes);
        }
        scenario
    }
}

impl Scenario {
    /// The topics that clients make.
    pub(crate) fn all_topics(&self) -> Vec<NewTopic> {
        let transactional = self.transactions.iter().flat_map(|plan| &plan.topics);
        let kept = self.kept.iter().map(|plan| &plan.topic);
        let all = self.topics.iter().chain(transactional).chain(kept);
        all.cloned().collect()
    }

    /// The topics that coordinators keep, once there are any.
    pub(crate) fn own_topics(&self) -> Vec<NewTopic> {
        let own = |name: &str| NewTopic {
            name: name.to_owned(),
            partitions: self.coordinators,
            replicas: self.coordinator_replicas,
            configs: Vec::new(),
        };
        let transactions = self.transactions.as_ref().map(|_| own("__transaction_state"));
        let has_groups = self.transactions.is_some() || self.members.is_some();
        let offsets = has_groups.then(|| own("__consumer_offsets"));
        transactions.into_iter().chain(offsets).collect()
    }

    /// The feature level of the binary that every node begins with.
    pub(crate) fn level(&self) -> Level {
        match self.duties.upgrade_ms {
            Some(_) => Level::FIRST,
            None => Level::NEWEST,
        }
    }
}

impl Duties {
    /// What an operator does, exists in some of the runs; a node alone can only be upgraded, and none is replaced where
    /// its replicas have nowhere else to go.
    fn draw(random: &Random, nodes: usize, topics: &[NewTopic]) -> Self {
        let pause = |one_in: u64, low: u64, high: u64| {
            random.one_in(one_in).then(|| low + random.below(high - low + 1))
        };
        let (move_ms, vote_ms) = (pause(2, 300, 4_000), pause(3, 500, 5_000));
        let (upgrade_ms, retire_ms) = (pause(3, 500, 5_000), pause(2, 500, 5_000));
        let has_others = nodes > 1;
        let has_room = topics.iter().all(|topic| (topic.replicas as usize) < nodes);
        Self {
            move_ms: move_ms.filter(|_| has_others),
            vote_ms: vote_ms.filter(|_| has_others),
            // One that joins an upgrade is another story.
            retire_ms: retire_ms.filter(|_| has_others && has_room && upgrade_ms.is_none()),
            upgrade_ms,
        }
    }
}

impl transact::Plan {
    /// Transactions exist in some of the runs.
    fn draw(random: &Random, replicas_max: usize, segment_bytes: u64) -> Option<Self> {
        let between = |low: u64, high: u64| low + random.below(high - low + 1);
        let exists = random.one_in(2);
        let topic = |name: &str, partitions: u64| NewTopic {
            name: name.to_owned(),
            partitions: partitions as i32,
            ..topic(random, 0, replicas_max, segment_bytes)
        };
        let plan = Self {
            topics: [topic("written", between(2, 3)), topic("copied", between(1, 2))],
            writers: between(1, 3) as u32,
            copiers: between(0, 2) as u32,
            rivals: between(1, 3) as u32,
            watchers: between(1, 2) as u32,
            records_max: between(1, 4),
            padding_max: between(0, 1_000),
            pause_ms_max: between(0, 200),
            timeout_ms_max: between(500, 10_000),
        };
        exists.then_some(plan)
    }
}

impl member::Plan {
    /// Groups exist in some of the runs.
    fn draw(random: &Random) -> Option<Self> {
        let between = |low: u64, high: u64| low + random.below(high - low + 1);
        let exists = random.one_in(2);
        let groups = between(1, 2) as u32;
        let plan = Self {
            groups,
            reconciled: between(0, u64::from(groups)) as u32,
            members: between(1, 4) as u32,
            session_ms: between(500, 4_000),
            rebalance_ms: between(500, 4_000),
            life_ms: between(4_000, 25_000),
            pause_ms_max: between(0, 100),
            first_ms: between(0, 500),
        };
        exists.then_some(plan)
    }
}

impl keep::Plan {
    /// A compacted topic exists in some of the runs.
    fn draw(random: &Random, replicas_max: usize, segment_bytes: u64) -> Option<Self> {
        let between = |low: u64, high: u64| low + random.below(high - low + 1);
        let exists = random.one_in(3);
        let mut topic = NewTopic {
            name: keep::TOPIC.to_owned(),
            ..topic(random, 0, replicas_max, segment_bytes.min(16 * 1024))
        };
        // A replica that lags behind for longer may keep what was deleted, as in Kafka: tombstones go soon where there is one.
        let soon_ms = between(0, 2_000);
        let tombstones_ms = match replicas_max {
            1 => soon_ms,
            _ => 600_000,
        };
        let dirty = between(1, 60);
        topic.configs.extend([
            ("cleanup.policy", "compact".to_owned()),
            ("min.cleanable.dirty.ratio", format!("0.{dirty:02}")),
            ("delete.retention.ms", tombstones_ms.to_string()),
        ]);
        let plan = Self {
            topic,
            writers: between(1, 3) as u32,
            keys: between(1, 40) as u32,
            readers: between(1, 2) as u32,
            records_max: between(1, 20),
            padding_max: between(0, 1_000),
            pause_ms_max: between(0, 60),
            tombstones_ms,
            rest_ms: between(50, 1_500),
        };
        exists.then_some(plan)
    }
}

/// Mostly three: what can go wrong between nodes goes wrong among three.
fn nodes(random: &Random) -> usize {
    match random.below(10) {
        0 | 1 => 1,
        2..=7 => 3,
        _ => 5,
    }
}

fn topic(random: &Random, number: u64, nodes: usize, segment_bytes: u64) -> NewTopic {
    let partitions = 1 + random.below(3);
    // Mostly as in production: three, of which two must have it.
    let usual = !random.one_in(3);
    let (any, least) = (1 + random.below(nodes as u64), random.below(nodes as u64));
    let (replicas, min_in_sync) = match usual {
        true => (nodes.min(3) as u64, nodes.min(2) as u64),
        false => (any, 1 + least % any),
    };
    NewTopic {
        name: format!("t{number}"),
        partitions: i32::try_from(partitions).unwrap_or(1),
        replicas: i16::try_from(replicas).unwrap_or(1),
        configs: vec![
            ("segment.bytes", segment_bytes.to_string()),
            ("min.insync.replicas", min_in_sync.to_string()),
        ],
    }
}

impl Timing {
    fn draw(random: &Random) -> Self {
        let between = |low: u64, high: u64| low + random.below(high - low + 1);
        let election_ms = between(100, 400);
        let session_ms = between(300, 1_500);
        Self {
            election_ms,
            heartbeat_ms: election_ms / 3,
            session_ms,
            // Shorter than a session in some runs, much longer in others.
            lag_ms: match random.one_in(3) {
                true => between(400, 1_500),
                false => between(1_500, 10_000),
            },
        }
    }

    /// A session is longer than what may be under way on a link takes. Else a node that catches up is not heard of, and the news
    /// of that are what it waits behind, for as long as clients write.
    fn suit(&mut self, link: &Link) {
        const UNDER_WAY_BYTES: u64 = 256 * 1024;
        if let Some(rate) = link.bytes_per_second {
            self.session_ms = self.session_ms.max(UNDER_WAY_BYTES * 1000 / rate);
        }
    }
}

impl Rates {
    /// Each kind of fault exists in about half of the runs, more or less often.
    fn draw(random: &Random) -> Self {
        let rate = |low: u64, high: u64| random.one_in(2).then(|| low + random.below(high - low + 1));
        Self {
            crash_ms: rate(800, 6_000),
            stop_ms: rate(3_000, 20_000),
            pause_ms: rate(2_000, 10_000),
            cut_ms: rate(1_500, 8_000),
            slow_ms: rate(2_000, 8_000),
            reset_ms: rate(1_000, 8_000),
            disk_error_ms: rate(3_000, 12_000),
            disk_full_ms: rate(5_000, 20_000),
            blackout_ms: rate(3_000, 15_000),
        }
    }
}
