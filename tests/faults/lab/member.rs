//! One node: its process, its host, its disk, its log.
//!
//! It owns the process, by its id, from start to end; dropped, it is killed. The ready line is awaited in the
//! background: a node of a cluster may be ready only when others are.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, anyhow, ensure};
use headwater_tests::{Addresses, Http, PATIENCE, node_binary, until, within};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;

use super::disk::Disk;
use super::namespace::{Namespace, Port};

pub(crate) const KAFKA_PORT: u16 = 9092;
const HTTP_PORT: u16 = 8080;
const BYTES_FETCHED: &str = "headwater_replication_bytes_in_total ";
const LOG_LINES_SHOWN: usize = 40;

/// A node's number; its port at the switch has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeNumber(pub(crate) u8);

impl NodeNumber {
    pub(crate) fn port(self) -> Port {
        Port(self.0)
    }
}

impl std::fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// A node that may be up or down.
#[derive(Debug)]
pub(crate) struct Member {
    // Dropped first: what runs on a disk ends before the disk goes.
    running: Option<Running>,
    pub(crate) number: NodeNumber,
    pub(crate) disk: Disk,
    namespace: Namespace,
    log: PathBuf,
    /// What it is told besides where it is.
    arguments: Vec<String>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    ready: watch::Receiver<bool>,
}

impl Member {
    pub(crate) fn new(
        number: NodeNumber,
        namespace: Namespace,
        disk: Disk,
        folder: &Path,
        arguments: Vec<String>,
    ) -> Self {
        let log = folder.join(format!("node-{}.log", number.0));
        Self {
            running: None,
            number,
            disk,
            namespace,
            log,
            arguments,
        }
    }

    /// Starts the process; [`Member::ready`] waits for it.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.running.is_none(), "{} is running already", self.number);
        let address = self.number.port().address();
        let listen = |port: u16| format!("{address}:{port}");
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = node_binary()?;
        command
            .arg("node")
            .arg("--data-dir")
            .arg(self.disk.data())
            .args(["--node-id", &self.number.0.to_string()])
            .args(["--listen-tcp", &listen(KAFKA_PORT)])
            .args(["--listen-quic", &listen(KAFKA_PORT)])
            .args(["--listen-http", &listen(HTTP_PORT)])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        let mut child = self.namespace.spawn(command)?;
        let stdout = child.stdout.take().context("the node's stdout is piped")?;
        let (said, ready) = watch::channel(false);
        tokio::spawn(listen_for_ready(stdout, said));
        self.running = Some(Running { child, ready });
        Ok(())
    }

    /// Waits for the ready line.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let running = self
            .running
            .as_mut()
            .context("a node that is down is never ready")?;
        let said = within(PATIENCE, "the ready line", async {
            running.ready.wait_for(|ready| *ready).await.map(drop)
        })
        .await;
        match said {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(anyhow!("it ended before it was ready")),
            Err(why) => Err(why),
        }
        .with_context(|| format!("{}\n{}", self.number, self.tail()))
    }

    /// Where its API is, and is again when it was started anew.
    pub(crate) fn http(&self) -> Http {
        Http::new((self.number.port().address(), HTTP_PORT).into())
    }

    /// Bytes of batches that it has fetched from leaders since it was started.
    pub(crate) async fn bytes_fetched(&self) -> anyhow::Result<u64> {
        let text = self.http().get("/metrics").await?.text();
        let figure = text.lines().find_map(|line| line.strip_prefix(BYTES_FETCHED));
        Ok(figure.unwrap_or("0").parse()?)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether the process has ended without being told to.
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        match &mut self.running {
            Some(running) => Ok(running.child.try_wait()?),
            None => Ok(None),
        }
    }

    /// Waits until it has ended by itself, having said why and without a panic.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        let mut running = self.running.take().context("a node that is to end was running")?;
        within(
            PATIENCE,
            "the end of a node that was let go",
            running.child.wait(),
        )
        .await??;
        let said = std::fs::read_to_string(&self.log)?;
        ensure!(
            !said.contains("panicked"),
            "{} panicked\n{}",
            self.number,
            self.tail()
        );
        Ok(())
    }

    /// SIGKILL, and waits for the end. A node that is down already stays down.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut running) = self.running.take() {
            running.child.start_kill()?;
            within(PATIENCE, "the end of a killed node", running.child.wait()).await??;
        }
        Ok(())
    }

    /// SIGTERM, and waits for it to drain and exit 0.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let mut running = self
            .running
            .take()
            .context("a node that was told to end was running")?;
        let status = within(PATIENCE, "draining after SIGTERM", running.child.wait()).await??;
        ensure!(
            status.success(),
            "{} ended with {status}\n{}",
            self.number,
            self.tail()
        );
        Ok(())
    }

    /// Stops the process and waits until no thread of it is inside a call any more. [`Member::resume`] lets it go on.
    pub(crate) async fn hold(&self) -> anyhow::Result<()> {
        self.pause()?;
        let pid = self.pid()?.as_raw_nonzero();
        until(PATIENCE, "a process that stands still", || async {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))?;
            for task in tasks {
                let stat = std::fs::read_to_string(task?.path().join("stat"))?;
                // The state follows the name, which stands in brackets and may hold anything.
                let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
                if state != Some('T') {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
    }

    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let pid = self.running.as_ref().and_then(|running| running.child.id());
        let pid = pid
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        pid.with_context(|| format!("{} is down", self.number))
    }

    /// The end of what it has logged.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        format!(
            "-- the end of the log of {}:\n{}\n--",
            self.number,
            shown.join("\n")
        )
    }
}

/// Reads all that a node prints, so that it never waits for us.
async fn listen_for_ready(stdout: ChildStdout, said: watch::Sender<bool>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if Addresses::parse(&line).is_some() {
            said.send_replace(true);
        }
    }
}
