//! `headwater cluster`: who is in the cluster and how much it holds; its members, its quorum, its replicas' places.

mod decommission;
mod elect;
mod plan;
mod progress;
mod quorum;
pub(super) mod reassign;

use headwater_sdk::Admin;
use headwater_sdk::protocol::ids::NodeId;
use serde_json::{Value, json};

use super::common::Common;
use super::failure::Failure;
use super::table::{Table, bytes, count};
use super::time::span;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the nodes, who controls them, and totals
    Describe,
    /// Empty a node, and take it out of the cluster
    Decommission(decommission::Arguments),
    /// Show which replicas are being moved
    Reassignments,
    /// Let the preferred replicas lead again
    ElectLeaders(elect::Arguments),
    /// Show who votes about the metadata, and how far each is
    Quorum,
    /// Give a node a vote
    AddVoter {
        /// The node's number
        node: i32,
    },
    /// Take a node's vote away
    RemoveVoter {
        /// The node's number
        node: i32,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    if let Command::Describe = command {
        return describe(&common).await;
    }
    let client = common.client().await?;
    let done = act(&common, &client.admin(), command).await;
    client.close().await;
    done
}

async fn act(common: &Common, admin: &Admin, command: Command) -> Result<(), Failure> {
    match command {
        Command::Describe => describe(common).await,
        Command::Decommission(arguments) => decommission::run(common, admin, arguments).await,
        Command::Reassignments => progress::list(common, admin).await,
        Command::ElectLeaders(arguments) => elect::run(common, admin, arguments).await,
        Command::Quorum => quorum::show(common, admin).await,
        Command::AddVoter { node } => quorum::add(common, admin, NodeId(node)).await,
        Command::RemoveVoter { node } => quorum::remove(common, admin, NodeId(node)).await,
    }
}

async fn describe(common: &Common) -> Result<(), Failure> {
    // The node's own account says more; any Kafka broker can say who is in its cluster.
    let value = match common.http()?.get("/cluster").await {
        Ok(value) => value,
        Err(_) => by_protocol(common).await?,
    };
    common.answer(&value, described)
}

async fn by_protocol(common: &Common) -> Result<Value, Failure> {
    let client = common.client().await?;
    let described = client.admin().describe_cluster().await;
    let transport = client.transport().to_string().to_lowercase();
    client.close().await;
    let described = described?;
    let node = |(id, broker): &(NodeId, headwater_sdk::routing::Broker)| json!({ "id": id.0, (transport.as_str()): format!("{}:{}", broker.host, broker.port), "rack": broker.rack });
    Ok(json!({
        "cluster_id": described.cluster_id,
        "controller_id": described.controller.map(|node| node.0),
        "nodes": described.brokers.iter().map(node).collect::<Vec<_>>(),
    }))
}

fn described(value: &Value) -> String {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = format!(
        "cluster     {}\ncontroller  {}\n",
        text(&value["cluster_id"]),
        text(&value["controller_id"])
    );
    if let Some(uptime_ms) = value["uptime_ms"].as_i64() {
        let (role, version) = (text(&value["role"]), text(&value["version"]));
        out.push_str(&format!(
            "role        {role}\nversion     {version}\nuptime      {}\n",
            span(uptime_ms)
        ));
    }
    if let Some(totals) = value["totals"].as_object() {
        let figure = |name: &str| totals.get(name).and_then(Value::as_u64).unwrap_or(0);
        out.push_str(&format!(
            "topics      {} with {} partitions, {}\ntraffic     {} records in, {} in, {} out, {} connections\n",
            count(figure("topics")),
            count(figure("partitions")),
            bytes(figure("size_bytes")),
            count(figure("records_in")),
            bytes(figure("bytes_in")),
            bytes(figure("bytes_out")),
            count(figure("connections")),
        ));
    }
    let mut table = Table::new(&[">node", "tcp", "quic", "http", "rack"]);
    for node in value["nodes"].as_array().into_iter().flatten() {
        table.row(["id", "tcp", "quic", "http", "rack"].map(|name| text(&node[name])));
    }
    out.push('\n');
    out.push_str(&table.text());
    out
}
