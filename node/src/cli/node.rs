//! `headwater node`: reads the configuration, starts the node, says `ready`, and drains it at SIGTERM or SIGINT.

use crate::config::file::Layers;
use crate::config::{LogFormat, NodeConfig};
use crate::node::{Bound, Node};
use crate::sys::process::{self, Program};
use crate::sys::{Sys, memory};
use crate::telemetry::logging;
use anyhow::Context as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

/// Every flag is also a key of the file and a `HEADWATER_*` variable; flags win over variables, variables over the
/// file.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where everything is stored.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A TOML file of properties.
    #[arg(long, value_name = "FILE", env = "HEADWATER_CONFIG")]
    config: Option<PathBuf>,
    /// This node's number in its cluster.
    #[arg(long, value_name = "N")]
    node_id: Option<String>,
    /// Where Kafka over TCP is accepted; port 0 takes a free one, an empty address turns it off.
    #[arg(long, value_name = "ADDRESS")]
    listen_tcp: Option<String>,
    /// Where Kafka over TLS is accepted, beside TCP; off unless it is given.
    #[arg(long, value_name = "ADDRESS")]
    listen_tls: Option<String>,
    /// Where Kafka over QUIC is accepted.
    #[arg(long, value_name = "ADDRESS")]
    listen_quic: Option<String>,
    /// Where HTTP is accepted.
    #[arg(long, value_name = "ADDRESS")]
    listen_http: Option<String>,
    /// The TCP address clients are told.
    #[arg(long, value_name = "ADDRESS")]
    advertise_tcp: Option<String>,
    /// The TLS address clients are told.
    #[arg(long, value_name = "ADDRESS")]
    advertise_tls: Option<String>,
    /// The QUIC address clients are told.
    #[arg(long, value_name = "ADDRESS")]
    advertise_quic: Option<String>,
    /// The cluster to belong to.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    cluster_id: Option<String>,
    /// The quorum's nodes by their QUIC addresses: 1@HOST:PORT,2@HOST:PORT,...
    #[arg(long, value_name = "LIST")]
    voters: Option<String>,
    /// Any property, as KEY=VALUE; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    properties: Vec<String>,
}

/// Runs the node until it is told to stop, or cannot go on.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    memory::share_heaps();
    let config = configure(arguments)?;
    let format = match config.telemetry.format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::start(format, &config.telemetry.filter)?;
    if let Err(error) = process::allow_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.worker_threads > 0 {
        runtime.worker_threads(config.worker_threads);
    }
    let runtime = runtime
        .thread_name("headwater")
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(serve(config))
}

fn configure(arguments: Arguments) -> anyhow::Result<NodeConfig> {
    let mut layers = Layers::default();
    if let Some(path) = &arguments.config {
        let text = read_file(path)?;
        layers.add_toml(&path.display().to_string(), &text)?;
    }
    layers.add_variables(std::env::vars())?;
    let data_dir = arguments.data_dir.map(|path| path.display().to_string());
    for (flag, key, value) in [
        ("--data-dir", "data.dir", data_dir),
        ("--node-id", "node.id", arguments.node_id),
        ("--listen-tcp", "listen.tcp", arguments.listen_tcp),
        ("--listen-tls", "listen.tls", arguments.listen_tls),
        ("--listen-quic", "listen.quic", arguments.listen_quic),
        ("--listen-http", "listen.http", arguments.listen_http),
        ("--advertise-tcp", "advertise.tcp", arguments.advertise_tcp),
        ("--advertise-tls", "advertise.tls", arguments.advertise_tls),
        ("--advertise-quic", "advertise.quic", arguments.advertise_quic),
        ("--cluster-id", "cluster.id", arguments.cluster_id),
        ("--voters", "voters", arguments.voters),
    ] {
        if let Some(value) = value {
            layers.set(flag, key, &value)?;
        }
    }
    for property in &arguments.properties {
        let (key, value) = property
            .split_once('=')
            .with_context(|| format!("--set {property}: KEY=VALUE"))?;
        layers.set("--set", key.trim(), value)?;
    }
    Ok(layers.finish()?)
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    const CONFIG_BYTES_MAX: usize = 1 << 20;
    let disk = crate::sys::disk::os::OsDisk::new(Path::new(""));
    let bytes = crate::sys::disk::read(&disk, path, CONFIG_BYTES_MAX)
        .with_context(|| format!("cannot read {}", path.display()))?;
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))
}

async fn serve(config: NodeConfig) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let sys = Sys {
        program: Some(Program::this().context("cannot find this program")?),
        ..Sys::real(&config.data_dir)
    };
    let node = tokio::select! {
        biased;
        node = Node::start(config, sys) => node?,
        // Nothing was promised to anybody yet; what is on disk is recovered by the next start.
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    say_ready(node.bound()).context("cannot write the ready line")?;
    let failed = tokio::select! {
        biased;
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = node.failed() => Some(failure),
    };
    node.stop().await?;
    match failed {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}

/// The one line on standard output: whoever started the node reads from it what was bound.
fn say_ready(bound: &Bound) -> std::io::Result<()> {
    let mut line = String::from("ready");
    for (name, address) in [
        ("tcp", bound.tcp),
        ("quic", bound.quic),
        ("http", bound.http),
        ("tls", bound.tls),
    ] {
        if let Some(address) = address {
            line.push_str(&format!(" {name}={address}"));
        }
    }
    let mut output = std::io::stdout();
    writeln!(output, "{line}")?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Whole {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn a_clusters_id_may_begin_with_a_dash() {
        // As one in sixty-four of those that nodes make does.
        let line = ["headwater", "--cluster-id", "-5xY_0Q", "--node-id", "2"];
        let Whole { arguments } = Whole::try_parse_from(line).expect("it is one");
        assert_eq!(arguments.cluster_id.as_deref(), Some("-5xY_0Q"));
        assert!(arguments.node_id.is_some());
    }
}
