//! Where a workload runs: a cluster that is there, or a node started for it.
//!
//! Owns the node and the topics made for the run; both go when it ends.

use std::time::Duration;

use futures_util::future::join_all;
use headwater_sdk::{Client, Config, NewTopic, Transport, Trust};
use serde_json::Value;

use crate::cli::builtin;
use crate::cli::child::{Folder, NodeProcess};
use crate::cli::common::Common;
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::sys::Sys;

/// How long a node may take to offer its modules, and how often it is asked.
const MODULES_PATIENCE: Duration = Duration::from_secs(60);
const MODULES_PAUSE: Duration = Duration::from_millis(100);
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
        let folder = Folder::new(sys)?;
        let replicas = format!("default.replication.factor={}", self.nodes);
        let in_sync = format!("min.insync.replicas={}", self.nodes.min(2));
        let own = [replicas, in_sync];
        let properties: Vec<&str> = own.iter().chain(&self.properties).map(String::as_str).collect();
        let nodes = match self.nodes {
            1 => vec![NodeProcess::start(sys, &folder.path().join("node"), &properties).await?],
            count => NodeProcess::start_cluster(sys, folder.path(), count, &properties).await?,
        };
        let node = nodes.first().expect("there is one at least");
        let client = connect(node, self.transport).await?;
        let http = node.api()?;
        await_modules(sys, &http).await?;
        Ok(Target {
            client,
            http,
            nodes,
            topics: Vec::new(),
            sys: sys.clone(),
            _folder: Some(folder),
        })
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
