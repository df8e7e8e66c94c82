//! Where a workload runs: a cluster that is there, or a node started for it.
//!
//! Owns the node and the topics made for the run; both go when it ends.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use headwater_sdk::{Client, Config, NewTopic, Transport, Trust};
use serde_json::Value;

use crate::cli::builtin;
use crate::cli::child::{Folder, Members, NodeProcess};
use crate::cli::common::Common;
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::sys::Sys;

/// How long a node may take to offer its modules, and how often it is asked.
const MODULES_PATIENCE: Duration = Duration::from_secs(60);
const MODULES_PAUSE: Duration = Duration::from_millis(100);
/// How long all nodes may take to know of each other, and how often they are asked.
const NODES_PATIENCE: Duration = Duration::from_secs(30);
const NODES_PAUSE: Duration = Duration::from_millis(20);
/// How long the files of a topic that was removed take to be gone.
const REMOVAL: Duration = Duration::from_millis(700);

/// Flags that say where.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    #[command(flatten)]
    common: Common,
    /// Start a fresh node for this run, in a temporary folder
    #[arg(long, global = true)]
    spawn: bool,
    /// Start so many nodes, and give every topic a replica on each, two of which must be in sync
    #[arg(long, global = true, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9), requires = "spawn")]
    nodes: u8,
    /// How to reach a node started by --spawn
    #[arg(long, global = true, value_enum, default_value = "tcp")]
    transport: Carrier,
    /// A property of a node started by --spawn; may be given again
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    properties: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Carrier {
    Tcp,
    Quic,
}

/// A place that is ready.
pub(super) struct Target {
    pub(super) client: Client,
    pub(super) http: Http,
    nodes: Vec<NodeProcess>,
    topics: Vec<String>,
    sys: Sys,
    _folder: Option<Folder>,
}

impl Place {
    /// Of each partition, where --spawn says so.
    pub(super) fn replicas(&self) -> Option<u8> {
        self.spawn.then_some(self.nodes)
    }

    pub(super) async fn prepare(&self, sys: &Sys) -> Result<Target, Failure> {
        if !self.spawn {
            let client = Client::connect(self.common.config()?).await?;
            let http = self.common.http()?;
            return Ok(Target {
                client,
                http,
                nodes: Vec::new(),
                topics: Vec::new(),
                sys: sys.clone(),
                _folder: None,
            });
        }
        self.spawn(sys, self.nodes).await
    }

    /// Starts so many nodes, whatever the flags say of their number.
    pub(super) async fn spawn(&self, sys: &Sys, nodes: u8) -> Result<Target, Failure> {
        let folder = Folder::new(sys)?;
        let nodes = self.members(sys, folder.path(), nodes)?.start_all().await?;
        let node = nodes.first().expect("there is one at least");
        let client = connect(node, self.transport).await?;
        let http = node.api()?;
        await_modules(sys, &http).await?;
        await_nodes(sys, &client, nodes.len()).await?;
        Ok(Target {
            client,
            http,
            nodes,
            topics: Vec::new(),
            sys: sys.clone(),
            _folder: Some(folder),
        })
    }

    /// A cluster of so many nodes with a replica of every partition on each.
    pub(super) fn members(&self, sys: &Sys, folder: &Path, nodes: u8) -> Result<Members, Failure> {
        let mut properties = vec![
            format!("default.replication.factor={nodes}"),
            format!("min.insync.replicas={}", nodes.min(2)),
        ];
        properties.extend_from_slice(&self.properties);
        Members::new(sys, folder, nodes, &properties)
    }

    /// How many nodes the flags ask for.
    pub(super) fn nodes(&self) -> u8 {
        self.nodes
    }
}

/// Waits until a new node offers the modules it ships with: a first start may compile them, and nothing is measured
/// beside a compiler.
async fn await_modules(sys: &Sys, http: &Http) -> Result<(), Failure> {
    let deadline = sys.clock.now() + MODULES_PATIENCE;
    while builtin::count() > 0 {
        let modules = http.get("/modules").await?;
        let offered = modules.as_array().map_or(0, |modules| {
            let is_builtin = |module: &&Value| module["builtin"] == true;
            modules.iter().filter(is_builtin).count()
        });
        if offered >= builtin::count() {
            return Ok(());
        }
        if sys.clock.now() >= deadline {
            return Err(Failure::new(format!(
                "the node offers {offered} of its {} modules after {} s",
                builtin::count(),
                MODULES_PATIENCE.as_secs()
            )));
        }
        sys.clock.sleep(MODULES_PAUSE).await;
    }
    Ok(())
}

/// Waits until so many nodes can hold replicas: each registers when it is ready itself.
async fn await_nodes(sys: &Sys, client: &Client, nodes: usize) -> Result<(), Failure> {
    let deadline = sys.clock.now() + NODES_PATIENCE;
    loop {
        let known = client.admin().describe_cluster().await?.brokers.len();
        if known >= nodes {
            return Ok(());
        }
        if sys.clock.now() >= deadline {
            let patience = NODES_PATIENCE.as_secs();
            return Err(Failure::new(format!(
                "the cluster knows {known} of its {nodes} nodes after {patience} s"
            )));
        }
        sys.clock.sleep(NODES_PAUSE).await;
    }
}

/// A client of a node of ours.
pub(super) async fn connect(node: &NodeProcess, transport: Carrier) -> Result<Client, Failure> {
    let bootstrap = match transport {
        Carrier::Tcp => node.tcp.clone(),
        Carrier::Quic => node.quic_bootstrap(),
    };
    let config = Config::new(&bootstrap).map_err(headwater_sdk::Error::from)?;
    Ok(Client::connect(config.with_trust(Trust::SkipVerification)).await?)
}

impl Target {
    /// Makes a topic that goes with the run; answers its name.
    pub(super) async fn topic(&mut self, partitions: i32, caching: bool) -> Result<String, Failure> {
        let name = format!("bench-{:016x}", self.sys.random.u64());
        let mut topic = NewTopic::new(&name, partitions).with("retention.ms", "-1");
        if caching {
            topic = topic.with("write.caching", "true");
        }
        self.client.admin().create_topic(&topic).await?;
        self.topics.push(name.clone());
        Ok(name)
    }

    /// Removes a topic that has served its purpose, and waits until its files are gone.
    pub(super) async fn remove(&mut self, topic: &str) -> Result<(), Failure> {
        self.topics.retain(|name| name != topic);
        self.client.admin().delete_topic(topic).await?;
        self.sys.clock.sleep(REMOVAL).await;
        Ok(())
    }

    /// Kills a node that was started for this run, the last of them, and does not wait for what that means to the others.
    pub(super) async fn kill_last(&mut self) -> Result<(), Failure> {
        match self.nodes.pop() {
            Some(node) => node.kill().await,
            None => Err(Failure::new("there is no node of ours")),
        }
    }

    /// CPU time that the nodes of ours have used.
    pub(super) fn cpu(&self) -> Duration {
        self.nodes.iter().filter_map(NodeProcess::cpu).sum()
    }

    /// The transport that was used, as figures say it.
    pub(super) fn transport(&self) -> &'static str {
        match self.client.transport() {
            Transport::Quic => "quic",
            Transport::Tls => "tls",
            Transport::Tcp => "tcp",
        }
    }

    /// Removes what the run made.
    pub(super) async fn finish(self) -> Result<(), Failure> {
        if self.nodes.is_empty() {
            for topic in &self.topics {
                self.client.admin().delete_topic(topic).await?;
            }
        }
        self.client.close().await;
        for stopped in join_all(self.nodes.into_iter().map(NodeProcess::stop)).await {
            stopped?;
        }
        Ok(())
    }
}
