//! `headwater group describe`: members, what each was assigned, what was committed or where a share group starts, and the
//! lag.

use std::collections::{BTreeMap, BTreeSet};

use headwater_sdk::{Admin, GroupKind, OffsetSpec, TopicPartition};
use serde_json::{Value, json};

use super::places;
use crate::cli::common::Common;
use crate::cli::failure::Failure;
use crate::cli::table::{Table, count, figure};

pub(super) async fn run(common: &Common, admin: &Admin, name: &str) -> Result<(), Failure> {
    let group = admin.describe_group(name).await?;
    let reached = reached(admin, name, group.kind).await?;
    let mut owners: BTreeMap<&TopicPartition, Vec<&str>> = BTreeMap::new();
    for member in &group.members {
        for it in &member.assignment {
            owners.entry(it).or_default().push(&member.member_id);
        }
    }
    let all: BTreeSet<&TopicPartition> = owners.keys().copied().chain(reached.keys()).collect();
    let ends = places(admin, all.iter().copied(), OffsetSpec::Latest).await?;
    let partitions = all.iter().map(|it| {
        let offset = reached.get(*it).map(|reached| reached.offset);
        let end = ends.get(*it).copied();
        let lag = match group.kind {
            GroupKind::Classic | GroupKind::Consumer => offset.zip(end).map(|(offset, end)| (end - offset).max(0)),
            GroupKind::Share => reached.get(*it).and_then(|reached| reached.lag),
        };
        let owners: &[&str] = owners.get(*it).map_or(&[], Vec::as_slice);
        let alone = match group.kind {
            GroupKind::Classic | GroupKind::Consumer => owners.first(),
            GroupKind::Share => None,
        };
        json!({
            "topic": &*it.topic, "partition": it.partition.0, "committed_offset": offset, "high_watermark": end,
            "lag": lag, "member_id": alone, "member_ids": owners,
        })
    });
    let members = group.members.iter().map(|member| {
        json!({
            "member_id": member.member_id, "instance_id": member.instance_id, "client_id": member.client_id,
            "host": member.host, "epoch": member.epoch, "partitions": member.assignment.len(),
        })
    });
    let value = json!({
        "group": group.group, "kind": group.kind.name(), "state": group.state, "coordinator": group.coordinator.0,
        "protocol_type": group.protocol_type, "assignor": group.assignor, "epoch": group.epoch,
        "members": members.collect::<Vec<_>>(), "partitions": partitions.collect::<Vec<_>>(),
    });
    common.answer(&value, described)
}

/// How far a group is in a partition.
struct Reached {
    /// What it has committed, or where a share group starts.
    offset: i64,
    /// As the broker tells it of a share group: records behind the start may be done with.
    lag: Option<i64>,
}

async fn reached(
    admin: &Admin,
    name: &str,
    kind: GroupKind,
) -> Result<BTreeMap<TopicPartition, Reached>, Failure> {
    Ok(match kind {
        GroupKind::Classic | GroupKind::Consumer => {
            let committed = admin.group_offsets(name).await?.into_iter();
            let reached = committed.map(|(it, committed)| {
                let offset = committed.offset.0;
                (it, Reached { offset, lag: None })
            });
            reached.collect()
        }
        GroupKind::Share => {
            let started = admin.share_group_offsets(name).await?.into_iter();
            let reached = started.map(|(it, started)| {
                let offset = started.start.0;
                let lag = started.lag;
                (it, Reached { offset, lag })
            });
            reached.collect()
        }
    })
}

fn described(value: &Value) -> String {
    let text = |value: &Value| {
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .unwrap_or("-")
            .to_owned()
    };
    let mut out = format!(
        "group        {}\nkind         {}\nstate        {}\ncoordinator  {}\nassignor     {}\nepoch        {}\n",
        text(&value["group"]),
        text(&value["kind"]),
        text(&value["state"]),
        figure(&value["coordinator"]),
        text(&value["assignor"]),
        figure(&value["epoch"]),
    );
    let rows = |name: &str| value[name].as_array().filter(|rows| !rows.is_empty()).cloned();
    if let Some(members) = rows("members") {
        let mut table = Table::new(&["member", "instance", "client", "host", ">epoch", ">partitions"]);
        for member in members {
            table.row([
                text(&member["member_id"]),
                text(&member["instance_id"]),
                text(&member["client_id"]),
                text(&member["host"]),
                figure(&member["epoch"]),
                figure(&member["partitions"]),
            ]);
        }
        out.push('\n');
        out.push_str(&table.text());
    }
    if let Some(partitions) = rows("partitions") {
        let offset = match value["kind"] == GroupKind::Share.name() {
            true => ">start",
            false => ">committed",
        };
        let mut table = Table::new(&["topic", ">partition", offset, ">end", ">lag", "member"]);
        for partition in partitions {
            table.row([
                text(&partition["topic"]),
                figure(&partition["partition"]),
                figure(&partition["committed_offset"]),
                figure(&partition["high_watermark"]),
                partition["lag"].as_u64().map_or_else(|| "-".to_owned(), count),
                members(&partition["member_ids"]),
            ]);
        }
        out.push('\n');
        out.push_str(&table.text());
    }
    out
}

fn members(ids: &Value) -> String {
    let ids = ids.as_array().into_iter().flatten().filter_map(Value::as_str);
    let ids: Vec<&str> = ids.collect();
    match ids.is_empty() {
        true => "-".to_owned(),
        false => ids.join(", "),
    }
}
