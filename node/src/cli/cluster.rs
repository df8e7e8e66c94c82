//! `headwater cluster`: who is in the cluster and how much it holds; its members, its quorum, its replicas' places.

mod configs;
mod decommission;
mod elect;
mod features;
mod plan;
mod progress;
mod quorum;
pub(super) mod reassign;
mod rebalance;
mod spread;

use headwater_sdk::Admin;
use headwater_sdk::protocol::ids::NodeId;
use serde_json::{Value, json};

use super::common::Common;
use super::failure::Failure;
use super::http::Http;
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
    /// Show the nodes with their state, who controls them, the quorum, the cluster's health, and totals
    Describe,
    /// Empty a node, and take it out of the cluster
    Decommission(decommission::Arguments),
    /// Spread replicas and leaders over all nodes, with more or fewer replicas if asked
    Rebalance(rebalance::Arguments),
    /// Show which replicas are being moved
    Reassignments,
    /// Let the preferred replicas lead again
    ElectLeaders(elect::Arguments),
    /// Show the levels of features that are in force, and that all nodes support
    Features,
    /// Raise the levels of features when every node runs a newer version, or lower them
    Upgrade(features::Arguments),
    /// Show and change properties of nodes while they run
    Configs(configs::Arguments),
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
        Command::Rebalance(arguments) => rebalance::run(common, admin, arguments).await,
        Command::Reassignments => progress::list(common, admin).await,
        Command::ElectLeaders(arguments) => elect::run(common, admin, arguments).await,
        Command::Features => features::show(common, admin).await,
        Command::Upgrade(arguments) => features::upgrade(common, admin, arguments).await,
        Command::Configs(arguments) => configs::run(common, admin, arguments).await,
        Command::Quorum => quorum::show(common, admin).await,
        Command::AddVoter { node } => quorum::add(common, admin, NodeId(node)).await,
        Command::RemoveVoter { node } => quorum::remove(common, admin, NodeId(node)).await,
    }
}

async fn describe(common: &Common) -> Result<(), Failure> {
    // The node's own account says more; any Kafka broker can say who is in its cluster.
    let value = match by_http(&common.http()?).await {
        Ok(value) => value,
        Err(_) => by_protocol(common).await?,
    };
    common.answer(&value, described)
}

async fn by_http(http: &Http) -> Result<Value, Failure> {
    let mut value = http.get("/cluster").await?;
    for part in ["quorum", "health"] {
        // A node of another version may not tell.
        if let Ok(told) = http.get(&format!("/cluster/{part}")).await {
            value[part] = told;
        }
    }
    Ok(value)
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
    let mut out = format!(
        "cluster     {}\ncontroller  {}\n",
        text(&value["cluster_id"]),
        text(&value["controller_id"])
    );
    out.push_str(&levels(&value["features"]));
    out.push_str(&health(&value["health"]));
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
    out.push('\n');
    out.push_str(&nodes(value));
    out.push_str(&quorum(&value["quorum"]));
    out
}

/// What has no value is shown as a dash.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A line for each feature: its level, and whether it could be higher.
fn levels(features: &Value) -> String {
    let mut out = String::new();
    for feature in features.as_array().into_iter().flatten() {
        out.push_str(&format!(
            "level       {} {}",
            text(&feature["name"]),
            text(&feature["finalized"])
        ));
        let (finalized, possible) = (feature["finalized"].as_i64(), feature["possible"].as_i64());
        if possible > finalized {
            out.push_str(&format!(
                ", every node supports {}: `headwater cluster upgrade`",
                text(&feature["possible"])
            ));
        }
        out.push('\n');
    }
    out
}

/// One line for how it is, and one for each thing that is the matter.
fn health(health: &Value) -> String {
    if health.is_null() {
        return String::new();
    }
    let mut out = format!("health      {}\n", text(&health["state"]));
    let fenced = health["nodes"]["fenced"].as_u64().unwrap_or(0);
    if fenced > 0 {
        let noun = if fenced == 1 { "node" } else { "nodes" };
        out.push_str(&format!("            {} {noun} fenced\n", count(fenced)));
    }
    for (name, what) in [
        ("leaderless", "without a leader"),
        ("under_min_isr", "under min.insync.replicas"),
        ("at_min_isr", "at min.insync.replicas"),
        ("under_replicated", "under-replicated"),
        ("moving", "moving"),
    ] {
        let affected = &health[name];
        let number = affected["count"].as_u64().unwrap_or(0);
        if number > 0 {
            let noun = if number == 1 { "partition" } else { "partitions" };
            let names = places(&affected["first"], number);
            out.push_str(&format!("            {} {noun} {what}: {names}\n", count(number)));
        }
    }
    out
}

/// The first few partitions by name, and how many more there are.
fn places(first: &Value, number: u64) -> String {
    const SHOWN: usize = 5;
    let first = first.as_array().into_iter().flatten().take(SHOWN);
    let mut names: Vec<String> = first
        .map(|place| format!("{}-{}", text(&place["topic"]), place["partition"]))
        .collect();
    let more = number.saturating_sub(names.len() as u64);
    if more > 0 {
        names.push(format!("{} more", count(more)));
    }
    names.join(", ")
}

fn nodes(value: &Value) -> String {
    let nodes = || value["nodes"].as_array().into_iter().flatten();
    let has_tls = nodes().any(|node| node["tls"].as_str().is_some_and(|address| !address.is_empty()));
    let places: &[&str] = match has_tls {
        true => &["tcp", "tls", "quic", "http", "rack"],
        false => &["tcp", "quic", "http", "rack"],
    };
    if nodes().all(|node| node["state"].is_null()) {
        // Any Kafka broker says as much.
        let mut table = Table::new(&[&[">node"], places].concat());
        for node in nodes() {
            let names = ["id"].iter().chain(places);
            table.row(names.map(|name| text(&node[*name])));
        }
        return table.text();
    }
    let heads: &[&str] = &[
        ">node", "state", ">leads", ">follows", ">size", ">epoch", "version",
    ];
    let mut table = Table::new(&[heads, places].concat());
    for node in nodes() {
        let size = node["size_bytes"].as_u64().map_or_else(|| "-".to_owned(), bytes);
        let mut row: Vec<String> = ["id", "state", "leads", "follows"]
            .map(|name| text(&node[name]))
            .into();
        row.push(size);
        row.extend(
            ["epoch", "version"]
                .iter()
                .chain(places)
                .map(|name| text(&node[*name])),
        );
        table.row(row);
    }
    table.text()
}

fn quorum(quorum: &Value) -> String {
    if quorum.is_null() {
        return String::new();
    }
    let mut out = format!(
        "\nquorum in term {}, led by {}\n",
        text(&quorum["term"]),
        quorum["leader"]
            .as_i64()
            .map_or_else(|| "nobody".to_owned(), |node| format!("node {node}")),
    );
    if let Some(failed) = quorum["failed"].as_str() {
        out.push_str(&format!(
            "it works no more on node {}: {failed}\n",
            text(&quorum["node_id"])
        ));
    }
    let mut table = Table::new(&[">node", "role", ">log end", ">lag"]);
    for member in quorum["members"].as_array().into_iter().flatten() {
        table.row(["id", "role", "log_end_offset", "lag"].map(|name| text(&member[name])));
    }
    out.push_str(&table.text());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_names_what_is_the_matter() {
        let first: Vec<Value> = (0..7)
            .map(|index| json!({ "topic": "t", "partition": index }))
            .collect();
        let value = json!({
            "cluster_id": "c", "controller_id": 1,
            "features": [
                { "name": "f", "finalized": 1, "possible": 2 }, { "name": "g", "finalized": 2, "possible": 2 },
            ],
            "health": {
                "state": "failing", "nodes": { "active": 2, "fenced": 1, "shutting_down": 0 },
                "leaderless": { "count": 1, "first": [{ "topic": "t", "partition": 6 }] },
                "under_min_isr": { "count": 0, "first": [] }, "at_min_isr": { "count": 0, "first": [] },
                "under_replicated": { "count": 70, "first": first }, "moving": { "count": 0, "first": [] },
            },
            "nodes": [{
                "id": 1, "state": "active", "leads": 3, "follows": 4, "size_bytes": 1500, "epoch": 2, "version": "1.0",
                "tcp": "a:1", "quic": "a:2", "http": "a:3", "rack": null,
            }],
            "quorum": {
                "node_id": 1, "leader": 1, "term": 4, "failed": null,
                "members": [{ "id": 2, "role": "observer", "log_end_offset": 9, "lag": 3 }],
            },
        });
        let shown = described(&value);
        for line in [
            "level       f 1, every node supports 2: `headwater cluster upgrade`",
            "level       g 2",
            "health      failing",
            "            1 node fenced",
            "            1 partition without a leader: t-6",
            "            70 partitions under-replicated: t-0, t-1, t-2, t-3, t-4, 65 more",
            "   1  active      3        4  1.5 kB      2  1.0      a:1  a:2   a:3   -",
            "quorum in term 4, led by node 1",
            "   2  observer        9    3",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line:?} in\n{shown}");
        }
        assert!(!shown.contains("moving"), "{shown}");
    }

    #[test]
    fn the_tls_listener_is_shown_where_there_is_one() {
        let node = |tls: &str| json!({ "nodes": [{ "id": 5, "tcp": "a:1", "tls": tls, "quic": "a:2", "http": "a:3", "rack": "r" }] });
        let shown = nodes(&node("a:4"));
        assert!(
            shown.lines().any(|line| line == "   5  a:1  a:4  a:2   a:3   r"),
            "{shown}"
        );
        assert!(!nodes(&node("")).contains("tls"));
    }

    #[test]
    fn any_broker_s_answer_can_be_shown() {
        let value = json!({
            "cluster_id": "c", "controller_id": null,
            "nodes": [{ "id": 5, "tcp": "a:1", "rack": "r" }],
        });
        let shown = described(&value);
        assert!(shown.contains("controller  -"), "{shown}");
        assert!(
            shown.lines().any(|line| line == "   5  a:1  -     -     r"),
            "{shown}"
        );
        assert!(!shown.contains("quorum") && !shown.contains("health"), "{shown}");
    }
}
