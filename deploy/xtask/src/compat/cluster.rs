//! A cluster of nodes on loopback, for as long as the value lives.
//!
//! It owns the processes and their folder: both go with it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};

use crate::step;

const ID: &str = "compat";

pub(super) struct Cluster {
    nodes: Vec<Node>,
    folder: PathBuf,
}

struct Node {
    child: Child,
    tcp: String,
    quic: String,
    /// Open as long as the node runs: it may say something more.
    _stdout: BufReader<ChildStdout>,
}

impl Cluster {
    /// Starts `size` nodes; returns when all are ready.
    pub(super) fn start(binary: &Path, size: usize) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("headwater-compat-{}-{size}", std::process::id()));
        let mut cluster = Self {
            nodes: Vec::new(),
            folder,
        };
        std::fs::create_dir_all(&cluster.folder)?;
        step::say(&format!("a cluster of {size}"));
        for id in 1..=size {
            let node = cluster.node(binary, id)?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    /// The first node is the quorum, the others join it.
    fn node(&self, binary: &Path, id: usize) -> anyhow::Result<Node> {
        let log = std::fs::File::create(self.folder.join(format!("node-{id}.log")))?;
        let mut command = Command::new(binary);
        command
            .args(["node", "--node-id", &id.to_string(), "--cluster-id", ID])
            .arg("--data-dir")
            .arg(self.folder.join(format!("node-{id}")))
            .args(["--listen-tcp", "127.0.0.1:0", "--listen-quic", "127.0.0.1:0"])
            .args(["--listen-http", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(first) = self.nodes.first() {
            command.args(["--voters", &format!("1@{}", first.quic)]);
        }
        let mut child = command.spawn().context("cannot start a node")?;
        let stdout = child.stdout.take().context("the node's stdout is not piped")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = |name: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.map(str::to_owned)
        };
        let (Some(tcp), Some(quic)) = (address("tcp="), address("quic=")) else {
            // It is not kept, so that nobody else ends it.
            let _ = child.kill();
            let _ = child.wait();
            bail!("node {id} did not become ready: {}", self.log(id));
        };
        Ok(Node {
            child,
            tcp,
            quic,
            _stdout: stdout,
        })
    }

    fn log(&self, id: usize) -> String {
        std::fs::read_to_string(self.folder.join(format!("node-{id}.log"))).unwrap_or_default()
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
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.tcp.as_str()).collect();
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
