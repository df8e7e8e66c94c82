//! `bench replication`: the same work on one node and on several that all hold every partition, with few partitions and
//! with many: how fast records go in, how long an acknowledgement takes, how long until another node leads.
//!
//! Every case runs on a fresh cluster. All nodes and the client share the machine: what several nodes do takes several
//! times the CPU, so that the ratios of one run say more than its figures.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use headwater_sdk::protocol::record::Compression;
use headwater_sdk::{Acks, ProducerConfig, Record};
use serde_json::{Value, json};

use super::histogram::Histogram;
use super::load::{Load, round, turn};
use super::target::{Place, Target};
use super::{median, rounded};
use crate::cli::common::note;
use crate::cli::failure::Failure;
use crate::cli::table::Table;
use crate::cli::units;
use crate::sys::Sys;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Clusters to compare, by their number of nodes; every ratio is to the first
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,3", value_parser = clap::value_parser!(u8).range(1..=9))]
    clusters: Vec<u8>,
    /// Partitions of each case
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,100,2000", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Vec<i32>,
    /// Bytes of values in each measurement of throughput
    #[arg(long, value_name = "BYTES", default_value = "200MB", value_parser = units::bytes)]
    volume: u64,
    /// Records a second while latency is measured
    #[arg(long, value_name = "N", default_value = "1000")]
    rate: u32,
    /// How long latency is measured
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::duration_ms)]
    duration: i64,
    /// Rounds of all cases; the middle figure of each is told
    #[arg(long, value_name = "N", default_value = "1")]
    runs: usize,
}

/// Throughput is measured with these: what records are, and how they get to their partitions.
const LOADS: [(&str, u64, bool); 3] = [
    ("1 KB", 1000, false),
    ("100 B", 100, false),
    ("1 KB spread", 1000, true),
];
/// Bytes of a record whose latency is measured.
const LATENCY_BYTES: usize = 100;
/// Records in flight while latency is measured; beyond them the rate is not kept.
const LATENCY_IN_FLIGHT_MAX: usize = 100_000;

pub(super) async fn run(sys: &Sys, place: &Place, arguments: &Arguments) -> Result<Value, Failure> {
    let mut cases = Vec::new();
    for partitions in &arguments.partitions {
        let mut base = None;
        for nodes in &arguments.clusters {
            let mut runs = Vec::new();
            for _ in 0..arguments.runs.max(1) {
                note(&format!("{nodes} nodes, {partitions} partitions"));
                runs.push(Measured::of(sys, place, arguments, *nodes, *partitions).await?);
            }
            let measured = Measured::middle(&runs);
            let base = base.get_or_insert_with(|| measured.clone());
            cases.push(Case {
                nodes: *nodes,
                partitions: *partitions,
                ratio: measured.beside(base),
                measured,
            });
        }
    }
    note(&table(&cases));
    let config = load(1000, false, 1, arguments).producer();
    Ok(json!({
        "workload": "replication", "acks": "all", "synced": true, "compression": "none",
        "volume_bytes": arguments.volume, "batch_bytes": config.batch_bytes, "in_flight_batches": config.in_flight_max,
        "linger_ms": config.linger.as_millis() as u64,
        "rate": arguments.rate, "rate_value_bytes": LATENCY_BYTES, "runs": arguments.runs.max(1),
        "cases": cases.iter().map(Case::figures).collect::<Vec<_>>(),
    }))
}

/// One row.
struct Case {
    nodes: u8,
    partitions: i32,
    measured: Measured,
    /// To the first cluster with as many partitions.
    ratio: Measured,
}

/// What is measured of one cluster, or the ratio of two such.
#[derive(Debug, Clone, PartialEq)]
struct Measured {
    create_ms: f64,
    /// By load.
    mb_per_second: Vec<f64>,
    /// CPU time of all nodes, for each megabyte, by load.
    cpu_ms_per_mb: Vec<f64>,
    p50_ms: f64,
    p99_ms: f64,
    p99_9_ms: f64,
    /// CPU time of all nodes while the rate was kept, in percent of one core.
    rate_cpu_percent: f64,
    /// From a node's death to an acknowledged write to every partition; 0 for a node alone.
    failover_ms: f64,
}

impl Measured {
    async fn of(
        sys: &Sys,
        place: &Place,
        arguments: &Arguments,
        nodes: u8,
        partitions: i32,
    ) -> Result<Self, Failure> {
        let mut target = place.spawn(sys, nodes).await?;
        let began = sys.clock.now();
        let topic = target.topic(partitions, false).await?;
        // It is there when a record of each partition is acknowledged.
        write_everywhere(&target, &topic, partitions).await?;
        let create_ms = ms(sys, began);
        note(&format!("  made in {} ms", rounded(create_ms)));
        let (mut mb_per_second, mut cpu_ms_per_mb) = (Vec::new(), Vec::new());
        for (name, size, spread) in LOADS {
            let load = load(size, spread, partitions, arguments);
            let warm_up = Load {
                records: load.records / 4,
                ..load.clone()
            };
            warm_up.run(sys, &target.client, &topic).await?;
            let before = target.cpu();
            let loaded = load.run(sys, &target.client, &topic).await?;
            let mb = loaded.bytes as f64 / 1e6;
            mb_per_second.push(mb / loaded.took.as_secs_f64());
            note(&format!(
                "  {name}: {} MB/s",
                rounded(mb / loaded.took.as_secs_f64())
            ));
            cpu_ms_per_mb.push((target.cpu() - before).as_secs_f64() * 1e3 / mb);
        }
        let before = target.cpu();
        let began = sys.clock.now();
        let latency = latency(sys, &target, &topic, partitions, arguments).await?;
        let rate_cpu_percent = (target.cpu() - before).as_secs_f64() * 1e5 / ms(sys, began);
        note(&format!("  p50 {} ms", rounded(latency.percentile_ms(0.5))));
        let failover_ms = match nodes {
            1 | 2 => 0.0,
            _ => failover(sys, &mut target, &topic, partitions).await?,
        };
        target.finish().await?;
        Ok(Self {
            create_ms,
            mb_per_second,
            cpu_ms_per_mb,
            p50_ms: latency.percentile_ms(0.5),
            p99_ms: latency.percentile_ms(0.99),
            p99_9_ms: latency.percentile_ms(0.999),
            rate_cpu_percent,
            failover_ms,
        })
    }

    /// The middle one of each figure.
    fn middle(runs: &[Self]) -> Self {
        let of = |figure: &dyn Fn(&Self) -> f64| median(runs.iter().map(figure).collect());
        let by_load = |figure: &dyn Fn(&Self) -> &Vec<f64>| {
            let middle = |at| median(runs.iter().map(|run| figure(run)[at]).collect());
            (0..LOADS.len()).map(middle).collect()
        };
        Self {
            create_ms: of(&|run| run.create_ms),
            mb_per_second: by_load(&|run| &run.mb_per_second),
            cpu_ms_per_mb: by_load(&|run| &run.cpu_ms_per_mb),
            p50_ms: of(&|run| run.p50_ms),
            p99_ms: of(&|run| run.p99_ms),
            p99_9_ms: of(&|run| run.p99_9_ms),
            rate_cpu_percent: of(&|run| run.rate_cpu_percent),
            failover_ms: of(&|run| run.failover_ms),
        }
    }

    /// Each figure as a multiple of another one's.
    fn beside(&self, base: &Self) -> Self {
        let all = |own: &[f64], base: &[f64]| own.iter().zip(base).map(|(own, base)| own / base).collect();
        Self {
            create_ms: self.create_ms / base.create_ms,
            mb_per_second: all(&self.mb_per_second, &base.mb_per_second),
            cpu_ms_per_mb: all(&self.cpu_ms_per_mb, &base.cpu_ms_per_mb),
            p50_ms: self.p50_ms / base.p50_ms,
            p99_ms: self.p99_ms / base.p99_ms,
            p99_9_ms: self.p99_9_ms / base.p99_9_ms,
            rate_cpu_percent: self.rate_cpu_percent / base.rate_cpu_percent,
            failover_ms: 0.0,
        }
    }

    fn figures(&self) -> Value {
        let by_load = |figures: &[f64]| -> Value {
            let named = LOADS.iter().zip(figures);
            named
                .map(|((name, ..), figure)| ((*name).to_owned(), json!(rounded(*figure))))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        json!({
            "create_ms": rounded(self.create_ms),
            "mb_per_second": by_load(&self.mb_per_second),
            "cpu_ms_per_mb": by_load(&self.cpu_ms_per_mb),
            "ack_ms": {
                "p50": rounded(self.p50_ms), "p99": rounded(self.p99_ms), "p99_9": rounded(self.p99_9_ms),
            },
            "rate_cpu_percent": rounded(self.rate_cpu_percent),
            "failover_ms": rounded(self.failover_ms),
        })
    }
}

impl Case {
    fn figures(&self) -> Value {
        let mut figures = self.measured.figures();
        figures["nodes"] = json!(self.nodes);
        figures["partitions"] = json!(self.partitions);
        figures["ratio"] = self.ratio.figures();
        figures
    }
}

fn load(size: u64, spread: bool, partitions: i32, arguments: &Arguments) -> Load {
    Load {
        records: usize::try_from(arguments.volume / size).unwrap_or(usize::MAX),
        size,
        partitions,
        spread,
        chunk: 1000,
        batch_bytes: None,
        in_flight: 5,
        acks: Acks::All,
        compression: Compression::None,
        caching: false,
    }
}

/// One record to each partition; returns when all are acknowledged.
async fn write_everywhere(target: &Target, topic: &str, partitions: i32) -> Result<(), Failure> {
    let producer = target.client.producer(ProducerConfig::default())?;
    let to = producer.topic(topic).await?;
    to.send_all(&round("here", partitions)).await?.all().await?;
    producer.close().await;
    Ok(())
}

/// The time from when a record was due to its acknowledgement, at a rate that waits for nothing, each record to the next
/// partition. The first second does not count.
async fn latency(
    sys: &Sys,
    target: &Target,
    topic: &str,
    partitions: i32,
    arguments: &Arguments,
) -> Result<Histogram, Failure> {
    let producer = target.client.producer(ProducerConfig {
        linger: Duration::ZERO,
        ..ProducerConfig::default()
    })?;
    let to = producer.topic(topic).await?;
    let value = [b'x'; LATENCY_BYTES];
    let pause = Duration::from_secs(1) / arguments.rate.max(1);
    let warm_up = arguments.rate as usize;
    let total = warm_up + arguments.rate as usize * usize::try_from(arguments.duration).unwrap_or(0) / 1000;
    let mut histogram = Histogram::new();
    let mut waiting = FuturesUnordered::new();
    let begin = sys.clock.now();
    let mut sent = 0;
    while sent < total || !waiting.is_empty() {
        let due = begin + pause * u32::try_from(sent).unwrap_or(u32::MAX);
        tokio::select! {
            Some(acknowledged) = waiting.next() => {
                let took: Option<Duration> = acknowledged?;
                took.into_iter().for_each(|took| histogram.record(took));
            }
            () = sys.clock.sleep_until(due), if sent < total && waiting.len() < LATENCY_IN_FLIGHT_MAX => {
                let record = Record::value(&value).partition(turn(sent, partitions));
                let delivery = to.send(record).await?;
                let counts = sent >= warm_up;
                waiting.push(async move {
                    delivery.receipt().await?;
                    let took = sys.clock.now().saturating_duration_since(due);
                    Ok::<_, Failure>(counts.then_some(took))
                });
                sent += 1;
            }
        }
    }
    drop(waiting);
    producer.close().await;
    Ok(histogram)
}

/// Kills a node, and waits until a record of each partition is acknowledged by those that are left.
async fn failover(sys: &Sys, target: &mut Target, topic: &str, partitions: i32) -> Result<f64, Failure> {
    let began = sys.clock.now();
    target.kill_last().await?;
    write_everywhere(target, topic, partitions).await?;
    Ok(ms(sys, began))
}

fn ms(sys: &Sys, since: Instant) -> f64 {
    sys.clock.now().saturating_duration_since(since).as_secs_f64() * 1e3
}

fn table(cases: &[Case]) -> String {
    let mut headings = vec![
        ">partitions".to_owned(),
        ">nodes".to_owned(),
        ">create ms".to_owned(),
    ];
    headings.extend(LOADS.iter().map(|(name, ..)| format!(">{name}, MB/s")));
    let rest = [">p50 ms", ">p99 ms", ">p99.9 ms", ">CPU %", ">failover ms"];
    headings.extend(rest.map(str::to_owned));
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = Table::new(&headings);
    for case in cases {
        let (own, ratio) = (&case.measured, &case.ratio);
        let with = |figure: f64, ratio: f64| format!("{} ({:.2}x)", rounded(figure), ratio);
        let mut cells = vec![
            case.partitions.to_string(),
            case.nodes.to_string(),
            rounded(own.create_ms).to_string(),
        ];
        let loads = own.mb_per_second.iter().zip(&ratio.mb_per_second);
        cells.extend(loads.map(|(figure, ratio)| with(*figure, *ratio)));
        cells.push(with(own.p50_ms, ratio.p50_ms));
        cells.push(with(own.p99_ms, ratio.p99_ms));
        cells.push(with(own.p99_9_ms, ratio.p99_9_ms));
        cells.push(rounded(own.rate_cpu_percent).to_string());
        cells.push(rounded(own.failover_ms).to_string());
        table.row(cells);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(figure: f64) -> Measured {
        Measured {
            create_ms: figure,
            mb_per_second: vec![figure; LOADS.len()],
            cpu_ms_per_mb: vec![figure; LOADS.len()],
            p50_ms: figure,
            p99_ms: figure,
            p99_9_ms: figure,
            rate_cpu_percent: figure,
            failover_ms: figure,
        }
    }

    #[test]
    fn the_middle_of_each_figure_is_told_and_its_ratio() {
        let odd = Measured {
            p99_ms: 0.5,
            ..measured(9.0)
        };
        let middle = Measured::middle(&[odd, measured(2.0), measured(4.0)]);
        let expected = Measured {
            p99_ms: 2.0,
            ..measured(4.0)
        };
        assert_eq!(middle, expected);
        let ratio = middle.beside(&measured(8.0));
        assert_eq!(
            (ratio.p50_ms, ratio.p99_ms, ratio.mb_per_second[1]),
            (0.5, 0.25, 0.5)
        );
    }
}
