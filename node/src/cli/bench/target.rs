//! Where a workload runs: a cluster that is there, or a node started for it.
//!
//! Owns the node and the topics made for the run; both go when it ends.

use headwater_sdk::{Client, Config, NewTopic, Transport, Trust};

use crate::cli::child::{Folder, NodeProcess};
use crate::cli::common::Common;
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::sys::Sys;

/// Flags that say where.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    #[command(flatten)]
    common: Common,
    /// Start a fresh node for this run, in a temporary folder
    #[arg(long, global = true)]
    spawn: bool,
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
    pub(super) node: Option<NodeProcess>,
    topics: Vec<String>,
    sys: Sys,
    _folder: Option<Folder>,
}

impl Place {
    pub(super) async fn prepare(&self, sys: &Sys) -> Result<Target, Failure> {
        if !self.spawn {
            let client = Client::connect(self.common.config()?).await?;
            let http = self.common.http()?;
            return Ok(Target {
                client,
                http,
                node: None,
                topics: Vec::new(),
                sys: sys.clone(),
                _folder: None,
            });
        }
        let folder = Folder::new(sys)?;
        let properties: Vec<&str> = self.properties.iter().map(String::as_str).collect();
        let node = NodeProcess::start(sys, &folder.path().join("node"), &properties).await?;
        let client = connect(&node, self.transport).await?;
        let http = node.api()?;
        Ok(Target {
            client,
            http,
            node: Some(node),
            topics: Vec::new(),
            sys: sys.clone(),
            _folder: Some(folder),
        })
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
        if self.node.is_none() {
            for topic in &self.topics {
                self.client.admin().delete_topic(topic).await?;
            }
        }
        self.client.close().await;
        match self.node {
            Some(node) => node.stop().await,
            None => Ok(()),
        }
    }
}
