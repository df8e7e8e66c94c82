//! `headwater group reset`: where a group without members goes on. Shown first with `--dry-run`.

use std::collections::BTreeMap;

use headwater_sdk::protocol::kafka::ErrorCode;
use headwater_sdk::{Admin, GroupKind, Offset, OffsetSpec, PartitionIndex, TopicPartition};
use serde_json::{Value, json};

use super::places;
use crate::cli::common::Common;
use crate::cli::failure::Failure;
use crate::cli::table::{Table, figure};
use crate::cli::time;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The group's name
    name: String,
    /// A topic, or TOPIC:PARTITION; may be given again [default: all that the group has committed, or was delivered from]
    #[arg(long = "topic", short, value_name = "TOPIC[:PARTITION]")]
    topics: Vec<String>,
    #[command(flatten)]
    to: To,
    /// Show what would be set, and set nothing
    #[arg(long)]
    dry_run: bool,
}

/// Where to.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct To {
    /// The first record that is there
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last record
    #[arg(long)]
    to_latest: bool,
    /// This offset
    #[arg(long, value_name = "OFFSET")]
    to_offset: Option<i64>,
    /// The first record of this time (such as 2001-01-01T17:00:00) or later; behind the last record, if there is none
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to_time: Option<i64>,
    /// So many records forth, or back if negative
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    by: Option<i64>,
}

fn parse_time(text: &str) -> Result<i64, String> {
    time::parse(text).ok_or_else(|| "expected a time such as 2001-01-01T17:00:00".to_owned())
}

pub(super) async fn run(common: &Common, admin: &Admin, arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        name,
        topics,
        to,
        dry_run,
    } = arguments;
    let kind = kind(admin, &name).await?;
    let committed = committed(admin, &name, kind).await?;
    let partitions = chosen(admin, &topics, &committed).await?;
    let plan = plan(admin, &partitions, &to, &committed).await?;
    if !dry_run {
        match kind {
            GroupKind::Classic | GroupKind::Consumer => admin.alter_group_offsets(&name, &plan).await?,
            GroupKind::Share => admin.alter_share_group_offsets(&name, &plan).await?,
        }
    }
    let before = |it: &TopicPartition| committed.get(it).map(|offset| offset.0);
    let rows = plan.iter().map(|(it, offset)| {
        json!({
            "topic": &*it.topic, "partition": it.partition.0, "before": before(it), "after": offset.0,
        })
    });
    let value = json!({ "group": name, "dry_run": dry_run, "partitions": rows.collect::<Vec<_>>() });
    common.answer(&value, told)
}

/// One that is not there yet is made by setting its offsets, and is a classic one.
async fn kind(admin: &Admin, name: &str) -> Result<GroupKind, Failure> {
    match admin.describe_group(name).await {
        Ok(group) => Ok(group.kind),
        Err(error) if error.code() == Some(ErrorCode::GROUP_ID_NOT_FOUND) => Ok(GroupKind::Classic),
        Err(error) => Err(error.into()),
    }
}

/// What a group has committed, or where a share group starts.
async fn committed(
    admin: &Admin,
    name: &str,
    kind: GroupKind,
) -> Result<BTreeMap<TopicPartition, Offset>, Failure> {
    Ok(match kind {
        GroupKind::Classic | GroupKind::Consumer => {
            let committed = admin.group_offsets(name).await?.into_iter();
            committed.map(|(it, committed)| (it, committed.offset)).collect()
        }
        GroupKind::Share => {
            let started = admin.share_group_offsets(name).await?.into_iter();
            started.map(|(it, started)| (it, started.start)).collect()
        }
    })
}

/// The partitions that are named, or those that the group has committed.
async fn chosen(
    admin: &Admin,
    topics: &[String],
    committed: &BTreeMap<TopicPartition, Offset>,
) -> Result<Vec<TopicPartition>, Failure> {
    let mut chosen = Vec::new();
    for named in topics {
        // A topic's name has no colon.
        let (topic, partition) = match named.split_once(':') {
            Some((topic, partition)) => (topic, Some(partition)),
            None => (named.as_str(), None),
        };
        let count = admin.describe_topic(topic).await?.partitions.len();
        let indexes = match partition {
            None => (0..i32::try_from(count).unwrap_or(i32::MAX)).collect(),
            Some(text) => {
                let index = text.parse::<i32>().ok();
                let index = index.filter(|index| usize::try_from(*index).is_ok_and(|index| index < count));
                let refuse = || {
                    Failure::usage(format!(
                        "{topic} has no partition {text:?}, it has {count} of them"
                    ))
                };
                vec![index.ok_or_else(refuse)?]
            }
        };
        chosen.extend(indexes.into_iter().map(|index| TopicPartition {
            topic: topic.into(),
            partition: PartitionIndex(index),
        }));
    }
    if topics.is_empty() {
        chosen.extend(committed.keys().cloned());
    }
    if chosen.is_empty() {
        return Err(Failure::usage("the group has committed nothing").hint("name topics with --topic"));
    }
    Ok(chosen)
}

/// The offsets to be set, each within what its partition holds.
async fn plan(
    admin: &Admin,
    partitions: &[TopicPartition],
    to: &To,
    committed: &BTreeMap<TopicPartition, Offset>,
) -> Result<BTreeMap<TopicPartition, Offset>, Failure> {
    let begins = places(admin, partitions.iter(), OffsetSpec::Earliest).await?;
    let ends = places(admin, partitions.iter(), OffsetSpec::Latest).await?;
    let timed = match to.to_time {
        Some(ms) => places(admin, partitions.iter(), OffsetSpec::Timestamp(ms)).await?,
        None => BTreeMap::new(),
    };
    let mut plan = BTreeMap::new();
    for it in partitions {
        let (Some(begin), Some(end)) = (begins.get(it).copied(), ends.get(it).copied()) else {
            return Err(
                Failure::new(format!("{it} does not exist any more")).hint("name the others with --topic")
            );
        };
        let before = committed.get(it).map(|offset| offset.0);
        let wanted = match to {
            To {
                to_earliest: true, ..
            } => begin,
            To { to_latest: true, .. } => end,
            To {
                to_offset: Some(offset),
                ..
            } => *offset,
            To { to_time: Some(_), .. } => timed.get(it).copied().unwrap_or(end),
            To { by: Some(count), .. } => {
                let nothing =
                    || Failure::usage(format!("the group has committed nothing of {it} to go on from"));
                before.ok_or_else(nothing)?.saturating_add(*count)
            }
            // The arguments are required.
            To { .. } => end,
        };
        plan.insert(it.clone(), Offset(wanted.clamp(begin, end.max(begin))));
    }
    Ok(plan)
}

fn told(value: &Value) -> String {
    let mut table = Table::new(&["topic", ">partition", ">before", ">after"]);
    for row in value["partitions"].as_array().into_iter().flatten() {
        table.row([
            row["topic"].as_str().unwrap_or_default().to_owned(),
            row["partition"].to_string(),
            figure(&row["before"]),
            row["after"].to_string(),
        ]);
    }
    let mut out = table.text();
    if value["dry_run"] == true {
        out.push_str("nothing was set: this is what would be\n");
    }
    out
}
