//! The work that either broker is given, and what is read of it.
//!
//! It owns the workloads and their sizes. Both brokers get the same, or nothing is a comparison.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::brokers::{Acks, Kind, Programs};
use super::cluster::Cluster;
use super::failover;
use super::keeper::Keeper;
use super::options::{Options, Work};
use super::tools;
use super::usage;

/// What was measured, by name.
pub(super) type Figures = BTreeMap<&'static str, f64>;

/// What a producer writes, and a consumer reads afterwards.
struct Load {
    name: &'static str,
    topic: &'static str,
    partitions: usize,
    records: u64,
    size: u64,
    /// What the producer is told beside `acks=all`.
    producer: &'static [&'static str],
}

const LOADS: &[Load] = &[
    Load {
        name: "1 KB",
        topic: "records-1000",
        partitions: 1,
        records: 1_000_000,
        size: 1_000,
        producer: &[],
    },
    Load {
        name: "100 B",
        topic: "records-100",
        partitions: 1,
        records: 5_000_000,
        size: 100,
        producer: &[],
    },
    Load {
        name: "1 KB, six partitions, large batches",
        topic: "records-bulk",
        partitions: 6,
        records: 1_000_000,
        size: 1_000,
        producer: &["batch.size=262144", "linger.ms=10", "buffer.memory=67108864"],
    },
];
/// What either broker is warmed up with, and which topics are for latencies.
const WARM: Load = Load {
    name: "warm-up",
    topic: "warm",
    partitions: 1,
    records: 200_000,
    size: 1_000,
    producer: &[],
};
const EACH: &str = "each";
const PACED: &str = "paced";
/// Records a second, and bytes of each, where a rate is fixed.
const RATE: u64 = 1_000;
const PACED_BYTES: u64 = 100;

/// One broker's turn: a cluster of its own, from the first start to the end.
pub(super) struct Turn<'a> {
    pub(super) programs: &'a Programs,
    pub(super) keeper: &'a Keeper,
    pub(super) options: &'a Options,
    pub(super) kind: Kind,
    pub(super) acks: Acks,
    pub(super) brokers: usize,
}

impl Turn<'_> {
    /// Does all that was asked for, and tells of each piece of work as it comes.
    pub(super) fn run(&self, tell: &mut dyn FnMut(&str, anyhow::Result<Figures>)) -> anyhow::Result<()> {
        if self.options.wants(Work::Startup) {
            tell("start-up", self.startup());
        }
        if self.options.works == [Work::Startup] {
            return Ok(());
        }
        let mut cluster = self.cluster()?;
        cluster.start()?;
        if self.options.works.iter().any(|work| *work != Work::Failover) {
            self.usual(&cluster, tell)?;
        }
        if self.options.wants(Work::Failover) && self.brokers > 1 {
            self.failover(&mut cluster, tell);
        }
        Ok(())
    }

    /// What needs no broker to be killed.
    fn usual(
        &self,
        cluster: &Cluster,
        tell: &mut dyn FnMut(&str, anyhow::Result<Figures>),
    ) -> anyhow::Result<()> {
        self.make_topics(cluster)?;
        self.produce(cluster, &WARM)?;
        let first = self.measured(cluster, || self.consume(cluster, &WARM));
        if self.options.wants(Work::Consume) {
            tell("the first group of all reads a little", first);
        }
        for load in LOADS {
            self.load(cluster, load, tell);
        }
        if self.options.wants(Work::Latency) {
            let each = self.measured(cluster, || self.each(cluster));
            tell("end to end, one record at a time", each);
            let paced = self.measured(cluster, || self.paced(cluster));
            tell("1,000 records of 100 B a second", paced);
        }
        Ok(())
    }

    fn failover(&self, cluster: &mut Cluster, tell: &mut dyn FnMut(&str, anyhow::Result<Figures>)) {
        let kills = if self.options.is_quick { 2 } else { 6 };
        match failover::run(self.programs, cluster, &self.topic_properties(), kills) {
            Ok(failovers) => {
                tell("leader killed", failovers.leader);
                tell("leader killed that leads the quorum, too", failovers.both);
            }
            Err(why) => tell("leader killed", Err(why)),
        }
    }

    fn load(&self, cluster: &Cluster, load: &Load, tell: &mut dyn FnMut(&str, anyhow::Result<Figures>)) {
        let (wants_produce, wants_consume) = (
            self.options.wants(Work::Produce),
            self.options.wants(Work::Consume),
        );
        if !wants_produce && !wants_consume {
            return;
        }
        let produced = self.measured(cluster, || self.produce(cluster, load));
        let is_there = produced.is_ok();
        if wants_produce || !is_there {
            tell(&format!("produce {}", load.name), produced);
        }
        if wants_consume && is_there {
            let consumed = self.measured(cluster, || self.consume(cluster, load));
            tell(&format!("consume {}", load.name), consumed);
        }
    }

    fn cluster(&self) -> anyhow::Result<Cluster<'_>> {
        Cluster::prepare(self.programs, self.keeper, self.kind, self.acks, self.brokers)
    }

    /// The first start, in a folder that is empty but for what formatting made, and the next one.
    fn startup(&self) -> anyhow::Result<Figures> {
        let mut cluster = self.cluster()?;
        let first = cluster.start()?;
        let used = cluster.used()?;
        cluster.stop()?;
        let again = cluster.start()?;
        Ok(Figures::from([
            ("first_ms", first.as_secs_f64() * 1e3),
            ("again_ms", again.as_secs_f64() * 1e3),
            ("cpu_s", used.cpu_seconds),
            ("peak_mb", used.peak_bytes / 1e6),
        ]))
    }

    fn make_topics(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let mut args = vec![
            cluster.bootstrap(),
            self.brokers.to_string(),
            self.topic_properties(),
        ];
        args.extend(
            [&WARM]
                .into_iter()
                .chain(LOADS)
                .map(|load| format!("{}:{}", load.topic, load.partitions)),
        );
        args.extend([EACH, PACED].map(|topic| format!("{topic}:1")));
        self.tool("Topics", &args)?;
        Ok(())
    }

    fn topic_properties(&self) -> String {
        Programs::topic_properties(self.kind, self.acks, self.brokers)
    }

    fn produce(&self, cluster: &Cluster, load: &Load) -> anyhow::Result<Figures> {
        let records = self.records(load);
        // A fifth for the compilers of both Java machines; the tool leaves it out of its figures.
        let warm_up = records / 5;
        let mut args = line(&[
            ("--bootstrap-server", &cluster.bootstrap()),
            ("--topic", &load.topic),
            ("--num-records", &records),
            ("--warmup-records", &warm_up),
            ("--record-size", &load.size),
            ("--throughput", &-1),
        ]);
        args.extend(["--command-property", "acks=all"].map(str::to_owned));
        args.extend(load.producer.iter().map(|&property| property.to_owned()));
        let said = self.tool("org.apache.kafka.tools.ProducerPerformance", &args)?;
        tools::produced(&said, load.size).with_context(|| format!("not its figures: {said}"))
    }

    fn consume(&self, cluster: &Cluster, load: &Load) -> anyhow::Result<Figures> {
        let records = self.records(load);
        let args = line(&[
            ("--bootstrap-server", &cluster.bootstrap()),
            ("--topic", &load.topic),
            ("--num-records", &records),
            ("--timeout", &120_000),
        ]);
        let said = self.tool("org.apache.kafka.tools.ConsumerPerformance", &args)?;
        let (figures, found) =
            tools::consumed(&said, load.size).with_context(|| format!("not its figures: {said}"))?;
        ensure!(found >= records as f64, "it found {found} records of {records}");
        Ok(figures)
    }

    fn each(&self, cluster: &Cluster) -> anyhow::Result<Figures> {
        let records = if self.options.is_quick { 1_000 } else { 10_000 };
        let args = line(&[
            ("--bootstrap-server", &cluster.bootstrap()),
            ("--topic", &EACH),
            ("--num-records", &records),
            ("--producer-acks", &"all"),
            ("--record-size", &PACED_BYTES),
        ]);
        let said = self.tool("org.apache.kafka.tools.EndToEndLatency", &args)?;
        tools::end_to_end(&said).with_context(|| format!("not its figures: {said}"))
    }

    fn paced(&self, cluster: &Cluster) -> anyhow::Result<Figures> {
        let seconds = if self.options.is_quick { 3 } else { 20 };
        let numbers = [RATE, seconds, PACED_BYTES].map(|number| number.to_string());
        let mut args = vec![cluster.bootstrap(), PACED.to_owned()];
        args.extend(numbers);
        let said = self.tool("Paced", &args)?;
        let said: Value = serde_json::from_str(said.trim()).with_context(|| format!("not JSON: {said}"))?;
        let mut figures = Figures::new();
        for (name, path) in [
            ("ack_p50_ms", "/ack_ms/p50"),
            ("ack_p99_ms", "/ack_ms/p99"),
            ("ack_p99_9_ms", "/ack_ms/p99_9"),
            ("p50_ms", "/end_to_end_ms/p50"),
            ("p99_ms", "/end_to_end_ms/p99"),
            ("p99_9_ms", "/end_to_end_ms/p99_9"),
        ] {
            let value = said.pointer(path).and_then(Value::as_f64);
            figures.insert(name, value.with_context(|| format!("no {path}: {said}"))?);
        }
        Ok(figures)
    }

    fn tool(&self, class: &str, args: &[String]) -> anyhow::Result<String> {
        self.programs.tool(self.keeper, class, args)
    }

    /// Where each record waits for the disk, a quarter of them takes as long.
    fn records(&self, load: &Load) -> u64 {
        let records = match self.acks {
            Acks::Memory => load.records,
            Acks::Synced => load.records / 4,
        };
        if self.options.is_quick {
            records / 10
        } else {
            records
        }
    }

    /// Adds what the brokers, and everybody else, have used meanwhile.
    fn measured(
        &self,
        cluster: &Cluster,
        work: impl FnOnce() -> anyhow::Result<Figures>,
    ) -> anyhow::Result<Figures> {
        cluster.forget_peaks()?;
        let (since, before) = (Instant::now(), cluster.used()?);
        let (machine, clients) = (usage::machine_cpu_seconds()?, usage::children_cpu_seconds()?);
        let mut figures = work()?;
        let used = cluster.used()?;
        let cpu = used.cpu_seconds - before.cpu_seconds;
        let clients = usage::children_cpu_seconds()? - clients;
        let machine = usage::machine_cpu_seconds()? - machine;
        let others = (machine - clients - cpu) / since.elapsed().as_secs_f64();
        figures.extend([
            ("cpu_s", cpu),
            ("peak_mb", used.peak_bytes / 1e6),
            ("others_cores", others.max(0.0)),
        ]);
        Ok(figures)
    }
}

fn line(options: &[(&str, &dyn std::fmt::Display)]) -> Vec<String> {
    let words = options
        .iter()
        .flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]);
    words.collect()
}
