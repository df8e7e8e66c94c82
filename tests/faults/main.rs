//! Ring 4, faults: real nodes on hosts of their own, clients that write down what they are told, everything going wrong,
//! and a judge in the end. `cargo xtask faults` installs what it needs, builds it and runs it.
//!
//! It owns its arguments and its exit code: 0 when every property held and the cluster came back from everything. It
//! needs root, for namespaces and mounts, all of its own making.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a tool for the terminal that starts real processes"
)]

mod away;
mod course;
mod dump;
mod fault;
mod figures;
mod groups;
mod grow;
mod lab;
mod latency;
mod load;
mod ordeal;
mod transactions;
mod transforms;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand};
use headwater_checker::Verdict;
use headwater_tests::Random;

use crate::course::Course;
use crate::fault::Kind;
use crate::lab::{Hosts, Plan};
use crate::load::Volume;

const GIB: u64 = 1 << 30;

#[derive(Parser)]
#[command(about = "Puts real nodes through real faults and judges what their clients were told")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    setting: Setting,
}

#[derive(Args)]
struct Setting {
    /// Nodes, each on a host and a disk of its own
    #[arg(long, global = true, default_value_t = 3)]
    nodes: u8,
    /// Says which faults come, and when; drawn and printed if not given
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Records in a second, of all producers together
    #[arg(long, global = true, default_value_t = 1_000)]
    rate: u64,
    /// Bytes of each record's value
    #[arg(long, global = true, default_value_t = 120)]
    record_bytes: usize,
    #[arg(long, global = true, default_value_t = 4)]
    partitions: u32,
    /// Where histories, logs and disks go; kept in the end
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    /// Size of each node's disk; its file takes what is written
    #[arg(long, global = true, default_value_t = 4)]
    disk_gib: u64,
    /// Acknowledge from memory: the counter-proof, in which power cuts must lose something
    #[arg(long, global = true)]
    from_memory: bool,
    /// A property of every node; may be given again
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    properties: Vec<String>,
    /// Leave out the clients in Python
    #[arg(long, global = true)]
    no_python: bool,
}

#[derive(Subcommand)]
enum Command {
    /// One fault after the other
    Run {
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
        /// These kinds alone
        #[arg(long, value_delimiter = ',')]
        only: Vec<Kind>,
    },
    /// Transfers and copies in transactions, while nodes and clients are killed
    Transactions {
        #[arg(long, default_value_t = 15.0)]
        minutes: f64,
        /// These kinds alone
        #[arg(long, value_delimiter = ',')]
        only: Vec<Kind>,
    },
    /// Flights through filter, enrich, hourly aggregates and a join, while what they need is killed; compared with DuckDB
    Transforms {
        #[arg(long, default_value_t = 15.0)]
        minutes: f64,
        #[arg(long, value_enum, default_value = "exactly-once")]
        delivery: transforms::Promise,
        /// Flights in a second
        #[arg(long, default_value_t = 250)]
        flights: u64,
        /// A CSV of flights by departure, plain or .zst, instead of the week in tests/data
        #[arg(long)]
        data: Option<PathBuf>,
        /// These parts alone
        #[arg(long, value_delimiter = ',')]
        only: Vec<transforms::Role>,
    },
    /// Many members share many partitions (see --partitions), while members are killed, leave and come
    Groups {
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        #[arg(long, value_enum, default_value = "classic")]
        protocol: groups::Protocol,
        #[arg(long, default_value_t = 100)]
        members: u32,
    },
    /// Kills leaders and measures how long writes stand still
    Failover {
        #[arg(long, default_value_t = 50)]
        kills: u32,
    },
    /// Restarts one node after the other; nothing may fail
    Rolling {
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// Cuts the power of all nodes at once
    Power {
        #[arg(long, default_value_t = 10)]
        cuts: u32,
    },
    /// Leaves a node down for a while and measures what its catching up costs the others
    Away {
        /// How long it is down
        #[arg(long, default_value_t = 60.0)]
        minutes: f64,
        /// How long each window without trouble is measured
        #[arg(long, default_value_t = 120)]
        window_seconds: u64,
    },
    /// Grows a cluster from one node to three and five, moves everything, and shrinks it to three others
    Grow {
        /// How long the load runs between two steps
        #[arg(long, default_value_t = 10)]
        rest_seconds: u64,
        /// Kill a node while replicas move
        #[arg(long)]
        with_kills: bool,
    },
    /// Judges histories and dumps that a run has left
    Judge { files: Vec<PathBuf> },
    /// Writes down what a stopped node has stored of a topic
    Dump {
        data: PathBuf,
        topic_id: String,
        replica: String,
        to: PathBuf,
    },
}

fn main() -> ExitCode {
    match begin(Arguments::parse()) {
        Ok(verdict) => {
            println!("{verdict}");
            ExitCode::from(u8::from(!verdict.holds()))
        }
        Err(why) => {
            println!("verdict: FAILED: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin(arguments: Arguments) -> anyhow::Result<Verdict> {
    let Arguments { command, setting } = arguments;
    match &command {
        Command::Judge { files } => return course::judge(files),
        Command::Dump {
            data,
            topic_id,
            replica,
            to,
        } => {
            dump::write(data, topic_id, replica, to)?;
            return course::judge(std::slice::from_ref(to));
        }
        Command::Run { .. }
        | Command::Transactions { .. }
        | Command::Transforms { .. }
        | Command::Groups { .. }
        | Command::Failover { .. }
        | Command::Rolling { .. }
        | Command::Power { .. }
        | Command::Away { .. }
        | Command::Grow { .. } => {}
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "this needs root: it makes network namespaces and mounts disks"
    );
    ensure!(
        setting.record_bytes >= load::RECORD_BYTES_MIN,
        "a record of {} bytes has no room for its name: {} at least",
        setting.record_bytes,
        load::RECORD_BYTES_MIN
    );
    let seed = setting.seed.unwrap_or_else(|| load::now() % 1_000_000_000);
    let folder = course::make_folder(setting.folder.as_deref())?;
    println!(
        "seed {seed}, {} records/s, everything in {}",
        setting.rate,
        folder.display()
    );
    let (nodes, founders) = match &command {
        Command::Grow { .. } => (grow::NODES, 1),
        _ => (setting.nodes, setting.nodes),
    };
    let plan = Plan {
        nodes,
        founders,
        disk_bytes: setting.disk_gib * GIB,
        folder: folder.clone(),
        properties: setting.properties.clone(),
    };
    // Before there is a second thread: all that come later are on the clients' host, as this one.
    let hosts = Hosts::new(plan.nodes)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let verdict = runtime.block_on(async {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            verdict = run(command, hosts, &plan, &setting, Random::seeded(seed)) => verdict,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    let verdict =
        verdict.with_context(|| format!("seed {seed}; logs and histories are in {}", folder.display()))?;
    if verdict.holds() && setting.folder.is_none() {
        std::fs::remove_dir_all(&folder).context("the folder of a good run cannot be removed")?;
    } else {
        println!("logs and histories are in {}", folder.display());
    }
    Ok(verdict)
}

async fn run(
    command: Command,
    hosts: Hosts,
    plan: &Plan,
    setting: &Setting,
    mut random: Random,
) -> anyhow::Result<Verdict> {
    let is_measured = matches!(
        command,
        Command::Failover { .. } | Command::Rolling { .. } | Command::Groups { .. }
    );
    let volume = Volume {
        partitions: setting.partitions,
        rate: setting.rate,
        record_bytes: setting.record_bytes,
        replicas: i16::from(plan.founders.min(3)),
        with_python: !setting.no_python,
        with_consumers: !is_measured,
        from_memory: setting.from_memory,
    };
    let weather = Random::seeded(random.number());
    let course = Course::start(hosts, plan, volume, weather).await?;
    match command {
        Command::Run { minutes, only } => {
            let lasts = Duration::from_secs_f64(minutes * 60.0);
            ordeal::run(course, random, lasts, &only).await
        }
        Command::Transactions { minutes, only } => {
            let lasts = Duration::from_secs_f64(minutes * 60.0);
            transactions::run(course, random, lasts, &only, &plan.folder).await
        }
        Command::Transforms {
            minutes,
            delivery,
            flights,
            data,
            only,
        } => {
            let order = transforms::Order {
                lasts: Duration::from_secs_f64(minutes * 60.0),
                only,
                promise: delivery,
                rate: flights,
                data,
            };
            transforms::run(course, random, order, &plan.folder).await
        }
        Command::Groups {
            minutes,
            protocol,
            members,
        } => {
            let lasts = Duration::from_secs_f64(minutes * 60.0);
            groups::run(course, random, lasts, (protocol, members), &plan.folder).await
        }
        Command::Failover { kills } => figures::failover(course, random, kills).await,
        Command::Rolling { rounds } => figures::rolling(course, rounds).await,
        Command::Power { cuts } => figures::power(course, random, cuts).await,
        Command::Grow {
            rest_seconds,
            with_kills,
        } => {
            let killer = with_kills.then_some(random);
            grow::run(course, Duration::from_secs(rest_seconds), killer).await
        }
        Command::Away {
            minutes,
            window_seconds,
        } => {
            let (away, window) = (
                Duration::from_secs_f64(minutes * 60.0),
                Duration::from_secs(window_seconds),
            );
            away::run(course, random, away, window).await
        }
        Command::Judge { .. } | Command::Dump { .. } => unreachable!("these need no lab"),
    }
}
