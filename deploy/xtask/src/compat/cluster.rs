//! A cluster of nodes on loopback, for as long as the value lives.
//!
//! It owns the processes and their folder: both go with it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::step;

const ID: &str = "compat";
/// How long a killed node stays away: the others lead what it led by then.
const AWAY: Duration = Duration::from_secs(3);
/// The ring may share its machine with whatever: a node that waits for a processor is not gone. One that was killed is known
/// to be gone at once, whatever these say.
const PATIENT: [&str; 2] = [
    "broker.session.timeout.ms=6000",
    "controller.quorum.election.timeout.ms=2000",
];

pub(super) struct Cluster {
    binary: PathBuf,
    nodes: Vec<Node>,
    folder: PathBuf,
}

struct Node {
    child: Child,
    bound: Bound,
    /// Open as long as the node runs: it may say something more.
    _stdout: BufReader<ChildStdout>,
}

/// Where a node listens.
#[derive(Debug, Clone)]
struct Bound {
    tcp: String,
    quic: String,
    http: String,
}

impl Bound {
    fn anywhere() -> Self {
        let free = || "127.0.0.1:0".to_owned();
        Self {
            tcp: free(),
            quic: free(),
            http: free(),
        }
    }

    /// What the ready line of a node says.
    fn read(line: &str) -> Option<Self> {
        let address = |name: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.map(str::to_owned)
        };
        Some(Self {
            tcp: address("tcp=")?,
            quic: address("quic=")?,
            http: address("http=")?,
        })
    }
}

impl Cluster {
    /// Starts `size` nodes, each with a vote; returns when all are ready.
    pub(super) fn start(binary: &Path, size: usize) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("headwater-compat-{}-{size}", std::process::id()));
        let mut cluster = Self {
            binary: binary.to_owned(),
            nodes: Vec::new(),
            folder,
        };
        std::fs::create_dir_all(&cluster.folder)?;
        step::say(&format!("a cluster of {size}"));
        for id in 1..=size {
            let node = cluster.node(id, Bound::anywhere())?;
            cluster.nodes.push(node);
            if id > 1 {
                cluster.add_voter(id)?;
            }
        }
        Ok(cluster)
    }

    /// The first node begins the quorum, the others join it.
    fn node(&self, id: usize, at: Bound) -> anyhow::Result<Node> {
        let path = self.log_path(id);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        let mut command = Command::new(&self.binary);
        command
            .args(["node", "--node-id", &id.to_string(), "--cluster-id", ID])
            .arg("--data-dir")
            .arg(self.folder.join(format!("node-{id}")))
            .args(["--listen-tcp", &at.tcp, "--listen-quic", &at.quic])
            .args(["--listen-http", &at.http])
            .args(PATIENT.iter().flat_map(|property| ["--set", property]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(first) = self.nodes.first().filter(|_| id > 1) {
            command.args(["--voters", &format!("1@{}", first.bound.quic)]);
        }
        let mut child = command.spawn().context("cannot start a node")?;
        let stdout = child.stdout.take().context("the node's stdout is not piped")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let Some(bound) = Bound::read(&line) else {
            // It is not kept, so that nobody else ends it.
            let _ = child.kill();
            let _ = child.wait();
            bail!("node {id} did not become ready: {}", self.log(id));
        };
        Ok(Node {
            child,
            bound,
            _stdout: stdout,
        })
    }

    fn add_voter(&self, id: usize) -> anyhow::Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(["cluster", "add-voter", &id.to_string()]);
        command.args(["--bootstrap", &self.bootstrap()]);
        let output = command.output().context("cannot start the command line")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "node {id} got no vote: {said}");
        Ok(())
    }

    /// Kills a node, and starts it again where it was after a while; returns when it is ready.
    pub(super) fn kill(&mut self, id: usize) -> anyhow::Result<()> {
        let at = id.checked_sub(1).filter(|at| *at < self.nodes.len());
        let at = at.with_context(|| format!("there is no node {id}"))?;
        let node = &mut self.nodes[at];
        node.child.kill()?;
        node.child.wait()?;
        let bound = node.bound.clone();
        std::thread::sleep(AWAY);
        self.nodes[at] = self.node(id, bound)?;
        Ok(())
    }

    fn log_path(&self, id: usize) -> PathBuf {
        self.folder.join(format!("node-{id}.log"))
    }

    fn log(&self, id: usize) -> String {
        std::fs::read_to_string(self.log_path(id)).unwrap_or_default()
    }

    pub(super) fn size(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn name(&self) -> &'static str {
        match self.size() {
            1 => "one node",
            _ => "three nodes",
        }
    }

    pub(super) fn bootstrap(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.bound.tcp.as_str()).collect();
        addresses.join(",")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // One that has ended already is what is wanted.
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
