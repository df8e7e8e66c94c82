//! `headwater cluster rebalance`: spreads replicas and leaders over all nodes, with more or fewer replicas if asked.
//!
//! The plan is shown before any data moves. Topics that are made meanwhile are not in it.

use headwater_sdk::protocol::ids::NodeId;
use headwater_sdk::{Admin, Election, Reassignment};
use serde_json::{Value, json};

use super::super::common::{Common, note};
use super::super::failure::Failure;
use super::super::table::Table;
use super::decommission::{confirm, held, racks};
use super::progress::numbers;
use super::reassign::carry_out;
use super::spread::{Change, spread};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only this topic; may be given again [default: all, internal ones too]
    #[arg(long, value_name = "NAME")]
    topic: Vec<String>,
    /// Give each partition so many replicas [default: as many as it has]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    replication_factor: Option<u16>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Show the plan and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(common: &Common, admin: &Admin, arguments: Arguments) -> Result<(), Failure> {
    let changes = look(admin, &arguments).await?;
    let mut value = shape(&changes);
    if arguments.dry_run {
        return common.answer(&value, planned);
    }
    note(planned(&value).trim_end());
    if !arguments.yes && !changes.is_empty() {
        confirm("will not move replicas without being asked to")?;
    }
    let moves = changes.iter().map(|it| Reassignment {
        topic: it.topic.clone(),
        partition: it.partition,
        replicas: Some(it.after.clone()),
    });
    let moved = carry_out(admin, moves.collect()).await?;
    if !moved.is_empty() {
        let moved: Vec<_> = moved.into_iter().collect();
        // One that does not lead yet is elected by the controller later.
        admin.elect_leaders(Election::Preferred, Some(&moved)).await?;
    }
    value["moved"] = json!(changes.len());
    common.answer(&value, |_| format!("changed {} partitions\n", changes.len()))
}

async fn look(admin: &Admin, arguments: &Arguments) -> Result<Vec<Change>, Failure> {
    let racks = racks(admin).await?;
    let topics = admin.list_topics().await?;
    let is_there = |name: &&String| topics.iter().any(|topic| *topic.name == ***name);
    if let Some(unknown) = arguments.topic.iter().find(|name| !is_there(name)) {
        return Err(Failure::new(format!("there is no topic {unknown}")));
    }
    let is_wanted = |name: &str| arguments.topic.is_empty() || arguments.topic.iter().any(|it| it == name);
    let wanted = topics.iter().filter(|topic| is_wanted(&topic.name));
    let held: Vec<_> = wanted.flat_map(|topic| held(topic)).collect();
    spread(&held, &racks, arguments.replication_factor.map(usize::from)).map_err(|few| {
        Failure::new(format!(
            "{} replicas do not fit on {} nodes",
            few.replicas, few.nodes
        ))
        .hint("add a node first: `headwater cluster describe` lists those that are there")
    })
}

fn shape(changes: &[Change]) -> Value {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    let changes = changes.iter().map(|it| {
        json!({
            "topic": it.topic, "partition": it.partition.0,
            "before": ids(&it.before), "after": ids(&it.after),
        })
    });
    json!({ "changes": changes.collect::<Vec<_>>() })
}

fn planned(value: &Value) -> String {
    let changes = value["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if changes.is_empty() {
        return "everything is spread as it should be\n".to_owned();
    }
    let mut table = Table::new(&["topic", ">partition", "replicas", "then"]);
    for it in changes {
        table.row([
            it["topic"].as_str().unwrap_or_default().to_owned(),
            it["partition"].to_string(),
            numbers(&it["before"]),
            numbers(&it["after"]),
        ]);
    }
    table.text()
}
