//! `headwater cluster decommission`: empties a node and takes it out of the cluster.
//!
//! The plan is shown before any data moves. What a node holds may change meanwhile, as topics are made: it is planned again
//! until the node holds nothing, and the cluster itself refuses to let go of one that does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, IsTerminal as _, Write as _};

use headwater_sdk::protocol::ids::{NodeId, PartitionIndex};
use headwater_sdk::{Admin, Reassignment, TopicPartition};
use serde_json::{Value, json};

use super::super::common::{Common, note};
use super::super::failure::Failure;
use super::super::table::{Table, bytes};
use super::plan::{Held, Move, plan};
use super::progress::{at, numbers};
use super::reassign::carry_out;

/// How often a node may be found with new replicas before a person has to look.
const ROUNDS_MAX: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The node's number
    node: i32,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Show the plan and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is to happen.
struct Plan {
    moves: Vec<Move>,
    /// By partition, as far as they are known.
    sizes: BTreeMap<TopicPartition, u64>,
    is_voter: bool,
}

pub(super) async fn run(common: &Common, admin: &Admin, arguments: Arguments) -> Result<(), Failure> {
    let node = NodeId(arguments.node);
    let plan = look(admin, node).await?;
    let mut value = shape(node, &plan);
    if arguments.dry_run {
        return common.answer(&value, planned);
    }
    note(planned(&value).trim_end());
    if !arguments.yes {
        confirm(&format!("will not empty node {node} without being asked to"))?;
    }
    let moved = empty(admin, node, plan).await?;
    leave(admin, node).await?;
    value["moved"] = json!(moved);
    value["unregistered"] = json!(true);
    common.answer(&value, |_| {
        format!("node {node} holds nothing any more and has left the cluster\n")
    })
}

/// Moves everything away, and what came meanwhile. Returns how many replicas there were.
async fn empty(admin: &Admin, node: NodeId, first: Plan) -> Result<usize, Failure> {
    let (mut plan, mut moved) = (first, 0);
    for _ in 0..ROUNDS_MAX {
        // What others have begun to move to it or away from it ends first, or is replaced.
        let moves = plan.moves.iter().map(|it| Reassignment {
            topic: it.topic.clone(),
            partition: it.partition,
            replicas: Some(it.after.clone()),
        });
        moved += carry_out(admin, moves.collect()).await?.len();
        plan = look(admin, node).await?;
        if plan.moves.is_empty() {
            return Ok(moved);
        }
    }
    Err(
        Failure::new(format!("node {node} is given new replicas again and again"))
            .hint("see who makes topics or moves replicas to it, and try again"),
    )
}

async fn leave(admin: &Admin, node: NodeId) -> Result<(), Failure> {
    let quorum = admin.describe_quorum().await?;
    if quorum.voters.iter().any(|voter| voter.node == node) {
        admin.remove_voter(node).await?;
    }
    admin.unregister_broker(node).await?;
    Ok(())
}

async fn look(admin: &Admin, node: NodeId) -> Result<Plan, Failure> {
    let racks = racks(admin).await?;
    let quorum = admin.describe_quorum().await?;
    let mut members = quorum.voters.iter().chain(&quorum.observers);
    if !racks.contains_key(&node) && !members.any(|member| member.node == node) {
        return Err(Failure::new(format!("node {node} is no member of the cluster"))
            .hint("`headwater cluster describe` lists them"));
    }
    let held: Vec<Held> = admin
        .list_topics()
        .await?
        .iter()
        .flat_map(|topic| held(topic))
        .collect();
    let moves = plan(node, &held, &racks).map_err(|stuck| {
        Failure::new(format!(
            "{} partition {} has {} replicas, and without node {node} there are {} nodes",
            stuck.topic, stuck.partition, stuck.replicas, stuck.nodes_left
        ))
        .hint("add a node first, or give the topic fewer replicas with `headwater topic reassign`")
    })?;
    let mut sizes = BTreeMap::new();
    let holders: BTreeSet<NodeId> = moves.iter().flat_map(|it| it.before.iter().copied()).collect();
    for holder in holders.into_iter().filter(|holder| racks.contains_key(holder)) {
        // The plan is as good without: a node that cannot be asked has no figures.
        let Ok(found) = admin.replica_sizes(holder).await else {
            continue;
        };
        for (partition, size) in found {
            let known = sizes.entry(partition).or_insert(0);
            *known = size.max(*known);
        }
    }
    Ok(Plan {
        moves,
        sizes,
        is_voter: quorum.voters.iter().any(|voter| voter.node == node),
    })
}

/// The nodes that are there, and where each stands.
pub(super) async fn racks(admin: &Admin) -> Result<BTreeMap<NodeId, Option<String>>, Failure> {
    let brokers = admin.describe_cluster().await?.brokers.into_iter();
    Ok(brokers.map(|(id, broker)| (id, broker.rack)).collect())
}

pub(super) fn held(topic: &headwater_sdk::routing::Topic) -> Vec<Held> {
    let partitions = topic.partitions.iter().enumerate();
    partitions
        .map(|(index, partition)| Held {
            topic: topic.name.to_string(),
            partition: PartitionIndex(index as i32),
            replicas: partition.replicas.clone(),
        })
        .collect()
}

fn shape(node: NodeId, plan: &Plan) -> Value {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    let size = |it: &Move| plan.sizes.get(&at(&it.topic, it.partition)).copied();
    let moves = plan.moves.iter().map(|it| {
        json!({
            "topic": it.topic, "partition": it.partition.0, "to": it.to.0,
            "before": ids(&it.before), "after": ids(&it.after), "size_bytes": size(it),
        })
    });
    json!({
        "node": node.0, "is_voter": plan.is_voter, "moves": moves.collect::<Vec<_>>(),
        "size_bytes": plan.moves.iter().filter_map(size).sum::<u64>(),
    })
}

fn planned(value: &Value) -> String {
    let moves = value["moves"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out = String::new();
    if !moves.is_empty() {
        let mut table = Table::new(&["topic", ">partition", "replicas", "then", ">to", ">bytes"]);
        for it in moves {
            let size = it["size_bytes"].as_u64();
            table.row([
                it["topic"].as_str().unwrap_or_default().to_owned(),
                it["partition"].to_string(),
                numbers(&it["before"]),
                numbers(&it["after"]),
                it["to"].to_string(),
                size.map_or_else(|| "-".to_owned(), bytes),
            ]);
        }
        out.push_str(&table.text());
        out.push('\n');
    }
    let vote = if value["is_voter"] == true {
        ", loses its vote"
    } else {
        ""
    };
    out.push_str(&format!(
        "node {} gives away {} replicas, {}{vote}, and leaves the cluster\n",
        value["node"],
        moves.len(),
        bytes(value["size_bytes"].as_u64().unwrap_or(0)),
    ));
    out
}

/// Asks a person; a script must say `--yes`.
pub(super) fn confirm(refusal: &str) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(refusal).hint("add --yes, or --dry-run to see the plan only"));
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "go on? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    note("nothing was moved");
    Err(Failure::new("not confirmed"))
}
