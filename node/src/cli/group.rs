//! `headwater group`: list, describe, reset and delete consumer groups and share groups, by the Kafka protocol: it works on
//! any broker.

mod describe;
mod reset;

use std::collections::BTreeMap;

use headwater_sdk::protocol::ids::PartitionIndex;
use headwater_sdk::{Admin, Client, Isolation, OffsetSpec, TopicPartition};
use serde_json::{Value, json};

use super::common::{Common, confirm};
use super::failure::Failure;
use super::table::Table;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Name the groups and how they are
    List,
    /// Show members, what each was assigned, and how far behind the group is
    Describe {
        /// The group's name
        name: String,
    },
    /// Set where a group without members goes on
    Reset(reset::Arguments),
    /// Delete groups without members, and all they have committed or were delivered
    Delete {
        /// The groups' names
        #[arg(required = true)]
        names: Vec<String>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    if let Command::Delete { names, yes: false } = &command {
        confirm(&format!(
            "delete {} with all that was committed",
            names.join(", ")
        ))?;
    }
    let client = common.client().await?;
    let done = act(&common, &client, command).await;
    client.close().await;
    done
}

async fn act(common: &Common, client: &Client, command: Command) -> Result<(), Failure> {
    let admin = client.admin();
    match command {
        Command::List => list(common, &admin).await,
        Command::Describe { name } => describe::run(common, &admin, &name).await,
        Command::Reset(arguments) => reset::run(common, &admin, arguments).await,
        Command::Delete { names, .. } => {
            for name in &names {
                admin.delete_group(name).await?;
            }
            common.answer(&json!({ "deleted": names }), |_| {
                format!("deleted {}\n", names.join(", "))
            })
        }
    }
}

async fn list(common: &Common, admin: &Admin) -> Result<(), Failure> {
    let groups = admin.list_groups().await?;
    let shape = |group: &headwater_sdk::GroupListing| json!({ "group": group.group, "state": group.state, "protocol_type": group.protocol_type, "kind": group.kind });
    let value = Value::Array(groups.iter().map(shape).collect());
    common.answer(&value, |_| {
        if groups.is_empty() {
            return "no groups\n".to_owned();
        }
        let mut table = Table::new(&["group", "state", "protocol", "kind"]);
        for group in &groups {
            let protocol = if group.protocol_type.is_empty() {
                "-"
            } else {
                &group.protocol_type
            };
            let kind = if group.kind.is_empty() { "-" } else { &group.kind };
            table.row([&*group.group, &*group.state, protocol, kind]);
        }
        table.text()
    })
}

/// Looks a place up in each of some partitions. Partitions of topics that are gone, and those without a record that late,
/// are absent.
async fn places(
    admin: &Admin,
    partitions: impl Iterator<Item = &TopicPartition>,
    place: OffsetSpec,
) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
    let mut topics: BTreeMap<&str, Vec<(PartitionIndex, OffsetSpec)>> = BTreeMap::new();
    for it in partitions {
        topics.entry(&it.topic).or_default().push((it.partition, place));
    }
    let mut found = BTreeMap::new();
    for (topic, places) in topics {
        let listed = match admin
            .list_offsets(topic, &places, Isolation::ReadUncommitted)
            .await
        {
            Ok(listed) => listed,
            Err(headwater_sdk::Error::UnknownTopic(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        for (partition, listed) in listed {
            if let Some(offset) = listed.offset {
                let topic = topic.into();
                found.insert(TopicPartition { topic, partition }, offset.0);
            }
        }
    }
    Ok(found)
}
