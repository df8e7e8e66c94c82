//! `bench startup`: from the start of the process to its ready line, new, after a stop in order and after a kill, with more
//! and more partitions; what the node then holds while nothing happens; and how large the binary is.
//!
//! With --nodes N it is one node of so many, each of which holds every partition; the others run on meanwhile.

use std::path::Path;
use std::time::Duration;

use headwater_sdk::{NewTopic, ProducerConfig};
use serde_json::{Value, json};

use super::load::round;
use super::target::{Carrier, Place, connect};
use super::{median, rounded};
use crate::cli::child::{Folder, Members, NodeProcess};
use crate::cli::common::note;
use crate::cli::failure::Failure;
use crate::cli::table::Table;
use crate::cli::units;
use crate::sys::Sys;
use crate::sys::disk::{Disk as _, Open, os::OsDisk};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Partitions of each case
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "0,1000", value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// Starts of each kind; the middle one is told
    #[arg(long, value_name = "N", default_value = "7")]
    starts: usize,
    /// How long the idle node is looked at
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::duration_ms)]
    idle: i64,
}

/// Records in each partition: enough that a log has something to recover.
const RECORDS: usize = 20;
/// What a node is given to settle before it counts as idle.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) async fn run(sys: &Sys, place: &Place, arguments: &Arguments) -> Result<Value, Failure> {
    let mut new = Vec::new();
    for _ in 0..arguments.starts.max(1) {
        let folder = Folder::new(sys)?;
        let node = NodeProcess::start(sys, folder.path(), &[]).await?;
        new.push(ms(node.started_in));
        node.stop().await?;
    }
    let mut cases = Vec::new();
    for partitions in &arguments.partitions {
        note(&format!("{partitions} partitions"));
        cases.push(Case::measure(sys, place, arguments, *partitions).await?);
    }
    note(&table(&cases));
    Ok(json!({
        "workload": "startup", "starts": arguments.starts.max(1), "nodes": place.nodes(),
        "idle_seconds": rounded(arguments.idle as f64 / 1e3),
        "empty_ms": rounded(median(new)),
        "cases": cases.iter().map(Case::figures).collect::<Vec<_>>(),
        "binary_bytes": binary_bytes(),
    }))
}

/// A node with so many partitions.
struct Case {
    partitions: i32,
    after_stop_ms: f64,
    after_kill_ms: f64,
    stop_ms: f64,
    /// After a stop in order, and after a kill.
    idle: [Idle; 2],
}

/// What a node holds, and does, while nothing is asked of it.
#[derive(Debug, Clone, Copy)]
struct Idle {
    resident_bytes: u64,
    /// The most it held since its start.
    peak_bytes: u64,
    open_files: usize,
    /// Of one core.
    cpu_percent: f64,
}

impl Case {
    async fn measure(
        sys: &Sys,
        place: &Place,
        arguments: &Arguments,
        partitions: i32,
    ) -> Result<Self, Failure> {
        let folder = Folder::new(sys)?;
        let members = place.members(sys, folder.path(), place.nodes())?;
        let mut others = members.start_all().await?;
        let mut node = others.pop().ok_or_else(|| Failure::new("a cluster has a node"))?;
        if partitions > 0 {
            fill(&node, partitions).await?;
        }
        let (mut after_kill, mut after_stop, mut stops) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..arguments.starts.max(1) {
            node.kill().await?;
            node = start_again(&members).await?;
            after_kill.push(ms(node.started_in));
        }
        let killed = idle(sys, &node, arguments).await?;
        for _ in 0..arguments.starts.max(1) {
            let began = sys.clock.now();
            node.stop().await?;
            stops.push(ms(sys.clock.now().saturating_duration_since(began)));
            node = start_again(&members).await?;
            after_stop.push(ms(node.started_in));
        }
        let stopped = idle(sys, &node, arguments).await?;
        for node in others.into_iter().chain([node]) {
            node.kill().await?;
        }
        Ok(Self {
            partitions,
            after_stop_ms: median(after_stop),
            after_kill_ms: median(after_kill),
            stop_ms: median(stops),
            idle: [stopped, killed],
        })
    }

    fn figures(&self) -> Value {
        let [stopped, killed] = self.idle.map(|idle| {
            json!({
                "resident_bytes": idle.resident_bytes, "peak_bytes": idle.peak_bytes,
                "open_files": idle.open_files, "cpu_percent": rounded(idle.cpu_percent),
            })
        });
        json!({
            "partitions": self.partitions,
            "after_stop_ms": rounded(self.after_stop_ms), "after_kill_ms": rounded(self.after_kill_ms),
            "stop_ms": rounded(self.stop_ms),
            "idle_after_stop": stopped, "idle_after_kill": killed,
        })
    }
}

/// The node that is measured is the last one.
async fn start_again(members: &Members) -> Result<NodeProcess, Failure> {
    members.start(members.count()).await
}

/// Makes the partitions and puts something into each.
async fn fill(node: &NodeProcess, partitions: i32) -> Result<(), Failure> {
    let client = connect(node, Carrier::Tcp).await?;
    client
        .admin()
        .create_topic(&NewTopic::new("many", partitions))
        .await?;
    let producer = client.producer(ProducerConfig::default())?;
    let to = producer.topic("many").await?;
    let round = round("something to recover", partitions);
    for _ in 0..RECORDS {
        to.send_all(&round).await?.all().await?;
    }
    producer.close().await;
    client.close().await;
    Ok(())
}

/// Looks at a node that nobody asks anything.
async fn idle(sys: &Sys, node: &NodeProcess, arguments: &Arguments) -> Result<Idle, Failure> {
    let unknown = || Failure::new("the system does not tell what the node uses");
    sys.clock.sleep(SETTLE).await;
    let (before, began) = (node.cpu().ok_or_else(unknown)?, sys.clock.now());
    sys.clock
        .sleep(Duration::from_millis(arguments.idle.unsigned_abs()))
        .await;
    let used = node.cpu().ok_or_else(unknown)?.saturating_sub(before);
    let took = sys.clock.now().saturating_duration_since(began);
    let memory = node.memory().ok_or_else(unknown)?;
    Ok(Idle {
        resident_bytes: memory.resident_bytes,
        peak_bytes: memory.peak_bytes,
        open_files: node.open_files().ok_or_else(unknown)?,
        cpu_percent: used.as_secs_f64() * 100.0 / took.as_secs_f64().max(0.001),
    })
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn table(cases: &[Case]) -> String {
    let mut table = Table::new(&[
        ">partitions",
        "after a",
        ">ready ms",
        ">idle MB",
        ">peak MB",
        ">open files",
        ">idle CPU %",
    ]);
    for case in cases {
        let [stopped, killed] = case.idle;
        for (after, ready, idle) in [
            ("stop", case.after_stop_ms, stopped),
            ("kill", case.after_kill_ms, killed),
        ] {
            table.row([
                case.partitions.to_string(),
                after.to_owned(),
                rounded(ready).to_string(),
                rounded(idle.resident_bytes as f64 / 1e6).to_string(),
                rounded(idle.peak_bytes as f64 / 1e6).to_string(),
                idle.open_files.to_string(),
                rounded(idle.cpu_percent).to_string(),
            ]);
        }
    }
    table.text()
}

fn binary_bytes() -> Option<u64> {
    let path = std::env::current_exe().ok()?;
    OsDisk::new(Path::new(""))
        .open(&path, Open::Read)
        .ok()?
        .bytes()
        .ok()
}
