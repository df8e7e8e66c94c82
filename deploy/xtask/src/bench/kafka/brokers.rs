//! The two brokers: how each is started with the same job, and how Kafka's tools are run.
//!
//! It owns what is set on either side; all else is as each of them comes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::cluster::Place;
use super::keeper::{Keeper, Running};
use crate::{build, jars, place};

/// What a cluster of Kafka's calls itself: any 16 bytes, in base64.
const CLUSTER_ID: &str = "aGVhZHdhdGVyLWtha2JhQQ";
/// As `kafka-run-class.sh`, which all of Kafka's scripts end in, starts the Java machine.
const JAVA: &[&str] = &[
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];
/// As `kafka-server-start.sh` does.
const BROKER_HEAP: &[&str] = &["-Xmx1G", "-Xms1G"];
/// As `kafka-producer-perf-test.sh` does.
const TOOL_HEAP: &[&str] = &["-Xmx512M"];
/// A new group waits for more members: half a second with Headwater, three with Kafka, whose own configuration file says this
/// instead. What is compared is the joining, not the waiting.
const NO_DELAY: &str = "group.initial.rebalance.delay.ms=0";
/// How long one of the tools may take.
const TOOL_PATIENCE: Duration = Duration::from_secs(900);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Headwater,
    Kafka,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Headwater => "headwater",
            Self::Kafka => "kafka",
        })
    }
}

/// Whether an acknowledgement waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acks {
    /// Kafka as it comes; Headwater with `write.caching=true`.
    Memory,
    /// Headwater as it comes; Kafka with `log.flush.interval.messages=1`.
    Synced,
}

impl fmt::Display for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Synced => "synced",
        })
    }
}

/// Where the programs are.
pub(super) struct Programs {
    headwater: PathBuf,
    class_path: String,
}

impl Programs {
    /// Fetches Kafka, compiles our own programs against its client, and builds Headwater unless a binary is given.
    pub(super) fn prepare(headwater: Option<PathBuf>) -> anyhow::Result<Self> {
        let libraries = place::cache().join(format!("compat/kafka-broker-{}", jars::NEWEST));
        std::fs::create_dir_all(&libraries)?;
        let libraries = jars::fetch("tests/compat/java/bench", libraries, jars::NEWEST)?;
        let class_path = jars::compiled(&libraries, &["tests/compat/java/bench"])?;
        let headwater = match headwater {
            Some(binary) => std::path::absolute(&binary)?,
            None => build::release()?,
        };
        Ok(Self {
            headwater,
            class_path,
        })
    }

    pub(super) fn headwater(&self) -> &Path {
        &self.headwater
    }

    /// Makes a folder ready for a broker's first start.
    pub(super) fn format(&self, kind: Kind, acks: Acks, at: &Place, all: &[Place]) -> anyhow::Result<()> {
        match kind {
            Kind::Headwater => Ok(()),
            Kind::Kafka => {
                let properties = properties_path(at);
                std::fs::write(&properties, kafka_properties(acks, at, all))?;
                let mut format = self.java(TOOL_HEAP, "kafka.tools.StorageTool");
                format.args(["format", "-t", CLUSTER_ID, "-c"]).arg(&properties);
                let output = format.output().context("cannot start java")?;
                if !output.status.success() {
                    bail!(
                        "Kafka's folder was not made: {}",
                        String::from_utf8_lossy(&output.stderr)
                    );
                }
                Ok(())
            }
        }
    }

    /// The line that starts a broker.
    pub(super) fn broker(&self, kind: Kind, at: &Place, all: &[Place]) -> Command {
        match kind {
            Kind::Headwater => {
                let mut command = Command::new(&self.headwater);
                let (address, http) = (at.address.to_string(), at.second.to_string());
                command.args(["node", "--node-id", &at.id.to_string(), "--data-dir"]);
                command.arg(at.folder.join("data"));
                command.args(["--cluster-id", "bench", "--listen-http", &http]);
                command.args(["--listen-tcp", &address, "--listen-quic", &address]);
                command.args(["--set", NO_DELAY]);
                if all.len() > 1 {
                    command.args(["--voters", &voters(all, |place| place.address.to_string())]);
                }
                command
            }
            Kind::Kafka => {
                let mut command = self.java(BROKER_HEAP, "kafka.Kafka");
                command.arg(properties_path(at));
                command
            }
        }
    }

    /// What a topic is made with.
    pub(super) fn topic_properties(kind: Kind, acks: Acks, brokers: usize) -> String {
        let mut properties = Vec::new();
        if brokers > 1 {
            properties.push("min.insync.replicas=2");
        }
        if (kind, acks) == (Kind::Headwater, Acks::Memory) {
            properties.push("write.caching=true");
        }
        properties.join(",")
    }

    fn java(&self, heap: &[&str], class: &str) -> Command {
        let mut command = Command::new("java");
        command.args(heap).args(JAVA);
        command.args(["-cp", &self.class_path, class]);
        command
    }

    /// Runs one of Kafka's tools, or of our own programs in Java, to its end; answers what it printed.
    pub(super) fn tool(&self, keeper: &Keeper, class: &str, args: &[String]) -> anyhow::Result<String> {
        let out = keeper.folder().join("tool.out");
        let mut command = self.java(TOOL_HEAP, class);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&out)?)
            .stderr(std::fs::File::create(complaints(keeper))?);
        let mut running = keeper.spawn(&mut command)?;
        let ended = running.ended_by(Instant::now() + TOOL_PATIENCE)?;
        let said = std::fs::read_to_string(&out)?;
        let told = || format!("{} / {}", tail(&said), complaint(keeper));
        match ended {
            Some(status) if status.success() => Ok(said),
            Some(status) => bail!("{class} ended with {status}: {}", told()),
            None => bail!("{class} did not end in {TOOL_PATIENCE:?}: {}", told()),
        }
    }

    /// Starts one of our own programs in Java, to be talked with.
    pub(super) fn talk<'a>(
        &self,
        keeper: &'a Keeper,
        class: &str,
        args: &[String],
    ) -> anyhow::Result<Running<'a>> {
        let mut command = self.java(TOOL_HEAP, class);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(complaints(keeper))?);
        keeper.spawn(&mut command)
    }
}

fn complaints(keeper: &Keeper) -> PathBuf {
    keeper.folder().join("tool.err")
}

/// The end of what the last program in Java has complained of.
pub(super) fn complaint(keeper: &Keeper) -> String {
    tail(&std::fs::read_to_string(complaints(keeper)).unwrap_or_default())
}

fn tail(text: &str) -> String {
    const LINES: usize = 3;
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join(" / ")
}

fn properties_path(at: &Place) -> PathBuf {
    at.folder.join("server.properties")
}

fn voters(all: &[Place], address: fn(&Place) -> String) -> String {
    let voter = |place: &Place| format!("{}@{}", place.id, address(place));
    all.iter().map(voter).collect::<Vec<_>>().join(",")
}

fn kafka_properties(acks: Acks, at: &Place, all: &[Place]) -> String {
    let (client, controller) = (at.address, at.second);
    let replicas = all.len();
    let in_sync = replicas.min(2);
    let voters = voters(all, |place| place.second.to_string());
    let data = at.folder.join("data");
    let flush = match acks {
        Acks::Memory => "",
        Acks::Synced => "log.flush.interval.messages=1\n",
    };
    format!(
        "process.roles=broker,controller\n\
         node.id={}\n\
         controller.quorum.voters={voters}\n\
         listeners=PLAINTEXT://{client},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{client}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         log.dirs={}\n\
         offsets.topic.replication.factor={replicas}\n\
         transaction.state.log.replication.factor={replicas}\n\
         transaction.state.log.min.isr={in_sync}\n\
         share.coordinator.state.topic.replication.factor={replicas}\n\
         share.coordinator.state.topic.min.isr={in_sync}\n\
         {NO_DELAY}\n\
         {flush}",
        at.id,
        data.display()
    )
}
