//! `headwater topic reassign`: moves the replicas of a topic to other nodes, or takes that back.

use std::collections::BTreeSet;

use headwater_sdk::protocol::ids::{NodeId, PartitionIndex};
use headwater_sdk::{Admin, Reassignment, TopicPartition};
use serde_json::json;

use super::super::common::Common;
use super::super::failure::Failure;
use super::progress::{at, until_moved};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The topic's name
    name: String,
    /// The nodes that are to hold it, the one preferred as leader first: 2,3
    #[arg(
        long,
        short,
        value_name = "NODES",
        value_delimiter = ',',
        required_unless_present = "cancel"
    )]
    replicas: Vec<i32>,
    /// Only this partition; may be given again [default: all]
    #[arg(long, short, value_name = "N")]
    partition: Vec<i32>,
    /// Take back what is under way
    #[arg(long, conflicts_with = "replicas")]
    cancel: bool,
    /// Do not wait until the data has moved
    #[arg(long)]
    no_wait: bool,
}

pub(in crate::cli) async fn run(common: &Common, admin: &Admin, arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        name,
        replicas,
        partition,
        cancel,
        no_wait,
    } = arguments;
    let partitions = match &partition[..] {
        [] if cancel => under_way(admin, &name).await?,
        [] => {
            let topic = admin.describe_topic(&name).await?;
            (0..topic.partitions.len() as i32).map(PartitionIndex).collect()
        }
        chosen => chosen.iter().copied().map(PartitionIndex).collect(),
    };
    let replicas: Option<Vec<NodeId>> = (!cancel).then(|| replicas.into_iter().map(NodeId).collect());
    let moves: Vec<_> = partitions
        .iter()
        .map(|partition| Reassignment {
            topic: name.clone(),
            partition: *partition,
            replicas: replicas.clone(),
        })
        .collect();
    start(admin, &moves).await?;
    if !no_wait && !cancel {
        let wanted: BTreeSet<_> = partitions.iter().map(|index| at(&name, *index)).collect();
        until_moved(admin, &wanted).await?;
    }
    let count = moves.len();
    let value =
        json!({ "topic": name, "partitions": partitions.iter().map(|index| index.0).collect::<Vec<_>>() });
    common.answer(&value, |_| {
        let noun = if count == 1 { "partition" } else { "partitions" };
        match (cancel, no_wait) {
            (true, _) => format!("took back {count} {noun} of {name}\n"),
            (false, true) => format!("moving {count} {noun} of {name}\n"),
            (false, false) => format!("moved {count} {noun} of {name}\n"),
        }
    })
}

/// Asks for all of them; fails with the first that was refused.
async fn start(admin: &Admin, moves: &[Reassignment]) -> Result<(), Failure> {
    if moves.is_empty() {
        return Ok(());
    }
    for taken in admin.alter_partition_reassignments(moves).await? {
        taken?;
    }
    Ok(())
}

/// Moves replicas and waits until they are there. Returns the partitions.
pub(super) async fn carry_out(
    admin: &Admin,
    moves: Vec<Reassignment>,
) -> Result<BTreeSet<TopicPartition>, Failure> {
    start(admin, &moves).await?;
    let wanted: BTreeSet<_> = moves.into_iter().map(|it| at(&it.topic, it.partition)).collect();
    if !wanted.is_empty() {
        until_moved(admin, &wanted).await?;
    }
    Ok(wanted)
}

async fn under_way(admin: &Admin, name: &str) -> Result<Vec<PartitionIndex>, Failure> {
    let ongoing = admin.list_partition_reassignments().await?;
    let of_topic = ongoing.into_iter().filter(|moving| moving.topic == name);
    Ok(of_topic.map(|moving| moving.partition).collect())
}
