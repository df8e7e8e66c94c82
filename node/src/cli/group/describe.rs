//! `headwater group describe`: members, what each was assigned, what was committed, and the lag.

use std::collections::{BTreeMap, BTreeSet};

use headwater_sdk::{Admin, GroupMember, OffsetSpec, TopicPartition};
use serde_json::{Value, json};

use super::places;
use crate::cli::common::Common;
use crate::cli::failure::Failure;
use crate::cli::table::{Table, count, figure};

pub(super) async fn run(common: &Common, admin: &Admin, name: &str) -> Result<(), Failure> {
    let group = admin.describe_group(name).await?;
    let committed = admin.group_offsets(name).await?;
    let owners: BTreeMap<&TopicPartition, &GroupMember> = group
        .members
        .iter()
        .flat_map(|member| member.assignment.iter().map(move |it| (it, member)))
        .collect();
    let all: BTreeSet<&TopicPartition> = owners.keys().copied().chain(committed.keys()).collect();
    let ends = places(admin, all.iter().copied(), OffsetSpec::Latest).await?;
    let partitions = all.iter().map(|it| {
        let offset = committed.get(*it).map(|committed| committed.offset.0);
        let end = ends.get(*it).copied();
        let lag = offset.zip(end).map(|(offset, end)| (end - offset).max(0));
        json!({
            "topic": &*it.topic, "partition": it.partition.0, "committed_offset": offset, "high_watermark": end,
            "lag": lag, "member_id": owners.get(*it).map(|member| &member.member_id),
        })
    });
    let members = group.members.iter().map(|member| {
        json!({
            "member_id": member.member_id, "instance_id": member.instance_id, "client_id": member.client_id,
            "host": member.host, "epoch": member.epoch, "partitions": member.assignment.len(),
        })
    });
    let value = json!({
        "group": group.group, "state": group.state, "coordinator": group.coordinator.0,
        "protocol_type": group.protocol_type, "assignor": group.assignor, "epoch": group.epoch,
        "members": members.collect::<Vec<_>>(), "partitions": partitions.collect::<Vec<_>>(),
    });
    common.answer(&value, described)
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
        "group        {}\nstate        {}\ncoordinator  {}\nassignor     {}\nepoch        {}\n",
        text(&value["group"]),
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
        let mut table = Table::new(&["topic", ">partition", ">committed", ">end", ">lag", "member"]);
        for partition in partitions {
            table.row([
                text(&partition["topic"]),
                figure(&partition["partition"]),
                figure(&partition["committed_offset"]),
                figure(&partition["high_watermark"]),
                partition["lag"].as_u64().map_or_else(|| "-".to_owned(), count),
                text(&partition["member_id"]),
            ]);
        }
        out.push('\n');
        out.push_str(&table.text());
    }
    out
}
