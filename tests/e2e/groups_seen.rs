//! Groups over HTTP and by the command line: any node tells of all of them, however many nodes coordinate them, and sets
//! them anew.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_sdk::protocol::kafka::share_group_heartbeat::ShareGroupHeartbeatRequest;
use headwater_sdk::protocol::primitives::Str;
use headwater_sdk::{Client, Config, Election, GroupConfig, NewTopic, NodeId};
use headwater_tests::{Answer, Node, PATIENCE, Site, join, operate, until, within, write_numbers};
use serde_json::{Value, json};

const TOPIC: &str = "shared";

async fn get(node: &Node, path: &str) -> anyhow::Result<Value> {
    node.http().get(&format!("/api/v1{path}")).await?.json()
}

async fn set(node: &Node, group: &str, body: Value) -> anyhow::Result<Answer> {
    node.http()
        .post(&format!("/api/v1/groups/{group}/offsets"), &body)
        .await
}

async fn produce(client: &Client, count: i64) -> anyhow::Result<()> {
    write_numbers(client, TOPIC, 3, 0..count).await
}

/// Reads everything there is as a member of a group, and leaves.
async fn read(client: &Client, group: &str, count: usize) -> anyhow::Result<()> {
    let mut consumer = client.group_consumer(GroupConfig {
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_secs(1),
        ..GroupConfig::new(group, [TOPIC])
    })?;
    for _ in 0..count {
        within(PATIENCE, "a record", consumer.next()).await??;
    }
    Ok(consumer.close().await?)
}

#[tokio::test]
async fn a_group_is_seen_while_it_reads_and_set_back_when_it_does_not() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let nothing = json!({ "groups": [], "unanswered": [] });
    ensure!(get(&node, "/groups").await? == nothing);
    let unknown = node.http().get("/api/v1/groups/nobody").await?;
    ensure!(unknown.status == 404, "{unknown:?}");
    let client = Client::connect(Config::new(&node.bootstrap())?).await?;
    client.admin().create_topic(&NewTopic::new(TOPIC, 3)).await?;
    produce(&client, 10).await?;
    // Where one is to begin that was never there.
    let unknown = set(&node, "first", json!({ "to": "latest" })).await?;
    ensure!(unknown.status == 404, "{unknown:?}");
    let body = json!({ "to": "offset", "value": 3, "topics": [{ "topic": TOPIC }] });
    let answer = set(&node, "first", body).await?.json()?;
    ensure!(
        answer["partitions"][0]["before"].is_null() && answer["partitions"][0]["after"] == 3,
        "{answer}"
    );
    ensure!(get(&node, "/groups/first").await?["lag"] == 21);
    ensure!(node.http().delete("/api/v1/groups/first").await?.status == 204);
    let mut consumer = client.group_consumer(GroupConfig {
        auto_commit: None,
        ..GroupConfig::new("readers", [TOPIC])
    })?;
    for _ in 0..30 {
        within(PATIENCE, "a record", consumer.next()).await??;
    }
    consumer.commit().await?;
    produce(&client, 5).await?;
    let list = get(&node, "/groups").await?;
    let expected = json!({
        "group": "readers", "kind": "classic", "state": "stable", "protocol_type": "consumer", "coordinator": 1, "members": 1,
        "topics": [TOPIC], "lag": 15,
    });
    ensure!(list["groups"] == json!([expected]), "{list}");
    let group = get(&node, "/groups/readers").await?;
    let member = &group["members"][0];
    ensure!(
        group["assignor"] == "cooperative-sticky" && group["lag"] == 15 && member["partitions"] == 3,
        "{group}"
    );
    let row = json!({
        "topic": TOPIC, "partition": 1, "committed_offset": 10, "high_watermark": 15, "lag": 5,
        "member_id": member["member_id"], "member_ids": [member["member_id"]],
    });
    ensure!(group["partitions"][1] == row, "{group}");
    let refused = set(&node, "readers", json!({ "to": "earliest" })).await?;
    ensure!(
        refused.status == 409 && refused.text().contains("GROUP_HAS_MEMBERS"),
        "{refused:?}"
    );
    let refused = node.http().delete("/api/v1/groups/readers").await?;
    ensure!(refused.status == 409, "{refused:?}");
    consumer.close().await?;

    let after = |answer: &Value| -> Vec<i64> {
        let rows = answer["partitions"].as_array().into_iter().flatten();
        rows.filter_map(|row| row["after"].as_i64()).collect()
    };
    for (body, expected) in [
        (json!({ "to": "earliest", "dry_run": true }), vec![0, 0, 0]),
        (json!({ "to": "by", "value": -3 }), vec![7, 7, 7]),
        (
            json!({ "to": "offset", "value": 4, "topics": [{ "topic": TOPIC, "partitions": [2] }] }),
            vec![4],
        ),
        (json!({ "to": "by", "value": 100 }), vec![15, 15, 15]),
        (json!({ "to": "time", "value": 0 }), vec![0, 0, 0]),
        (
            json!({ "to": "latest", "topics": [{ "topic": TOPIC }] }),
            vec![15, 15, 15],
        ),
    ] {
        let answer = set(&node, "readers", body.clone()).await?.json()?;
        ensure!(after(&answer) == expected, "{body}: {answer}");
    }
    let group = get(&node, "/groups/readers").await?;
    ensure!(group["state"] == "empty" && group["lag"] == 0, "{group}");
    for wrong in [
        json!({ "to": "offset" }),
        json!({ "to": "latest", "value": 1 }),
        json!({ "to": "offset", "value": -1 }),
        json!({ "to": "latest", "topics": [{ "topic": TOPIC, "partitions": [3] }] }),
    ] {
        let refused = set(&node, "readers", wrong.clone()).await?;
        ensure!(refused.status == 400, "{wrong}: {refused:?}");
    }
    let unknown = set(
        &node,
        "readers",
        json!({ "to": "latest", "topics": [{ "topic": "gone" }] }),
    )
    .await?;
    ensure!(unknown.status == 404, "{unknown:?}");
    let deleted = node.http().delete("/api/v1/groups/readers").await?;
    ensure!(deleted.status == 204, "{deleted:?}");
    ensure!(get(&node, "/groups").await? == nothing);
    ensure!(node.http().delete("/api/v1/groups/readers").await?.status == 404);
    client.close().await;
    Ok(())
}

/// A member of a share group says that it is there, at the node that coordinates all, and is told its epoch.
async fn beat(client: &Client, member: &'static str, epoch: i32) -> anyhow::Result<i32> {
    let heartbeat = ShareGroupHeartbeatRequest {
        group_id: Str::from_static("workers"),
        member_id: Str::from_static(member),
        member_epoch: epoch,
        subscribed_topic_names: (epoch == 0).then(|| vec![Str::from_static(TOPIC)]),
        ..ShareGroupHeartbeatRequest::default()
    };
    let answer = client.admin().call_node(NodeId(1), &heartbeat).await?;
    ensure!(answer.error_code == 0, "{answer:?}");
    Ok(answer.member_epoch)
}

#[tokio::test]
async fn a_share_group_is_seen_among_the_others_and_begins_anew() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let client = Client::connect(Config::new(&node.bootstrap())?).await?;
    client.admin().create_topic(&NewTopic::new(TOPIC, 1)).await?;
    write_numbers(&client, TOPIC, 1, 0..10).await?;
    read(&client, "readers", 10).await?;
    let epochs = Cell::new([0, 0]);
    let group = until(PATIENCE, "both members to have the partition", || async {
        let [one, other] = epochs.get();
        epochs.set([
            beat(&client, "one", one).await?,
            beat(&client, "other", other).await?,
        ]);
        let group = get(&node, "/groups/workers").await?;
        let has_both = group["partitions"][0]["member_ids"] == json!(["one", "other"]);
        ensure!(has_both, "{group}");
        Ok(Some(group))
    })
    .await?;
    // It has fetched nothing yet.
    let row = json!({
        "topic": TOPIC, "partition": 0, "committed_offset": null, "high_watermark": 10, "lag": null,
        "member_id": null, "member_ids": ["one", "other"],
    });
    ensure!(group["partitions"] == json!([row]), "{group}");
    ensure!(
        (&group["kind"], &group["assignor"]) == (&json!("share"), &json!("simple")),
        "{group}"
    );
    let members = group["members"].as_array().context("members")?;
    ensure!(
        members.len() == 2 && members.iter().all(|member| member["partitions"] == 1),
        "{group}"
    );
    let list = get(&node, "/groups").await?;
    let kinds = [&list["groups"][0], &list["groups"][1]].map(|group| [&group["group"], &group["kind"]]);
    ensure!(
        json!(kinds) == json!([["readers", "classic"], ["workers", "share"]]),
        "{list}"
    );
    let to_third = json!({ "to": "offset", "value": 3, "topics": [{ "topic": TOPIC }] });
    let refused = set(&node, "workers", to_third.clone()).await?;
    ensure!(
        refused.status == 409 && refused.text().contains("GROUP_HAS_MEMBERS"),
        "{refused:?}"
    );
    for member in ["one", "other"] {
        beat(&client, member, -1).await?;
    }

    let nothing = set(&node, "workers", json!({ "to": "earliest" })).await?;
    ensure!(
        nothing.status == 409 && nothing.text().contains("NOTHING_COMMITTED"),
        "{nothing:?}"
    );
    set(&node, "workers", to_third).await?.json()?;
    for (body, lag) in [
        (json!({ "to": "by", "value": -1, "dry_run": true }), 7),
        (json!({ "to": "by", "value": -1 }), 8),
        (json!({ "to": "offset", "value": 100 }), 0),
        (json!({ "to": "time", "value": 0 }), 10),
    ] {
        set(&node, "workers", body.clone()).await?.json()?;
        let list = get(&node, "/groups").await?;
        let seen = &list["groups"][1];
        ensure!(
            (&seen["state"], &seen["lag"]) == (&json!("empty"), &json!(lag)),
            "{body}: {list}"
        );
    }
    let reset = ["group", "reset", "workers", "--to-offset", "4"];
    let answer = operate(&node, &reset).await?;
    ensure!(answer["partitions"][0]["before"] == 0, "{answer}");
    let described = operate(&node, &["group", "describe", "workers"]).await?;
    let group = get(&node, "/groups/workers").await?;
    ensure!(
        described["kind"] == "share" && group["kind"] == "share",
        "{described}"
    );
    let row = json!({
        "topic": TOPIC, "partition": 0, "committed_offset": 4, "high_watermark": 10, "lag": 6,
        "member_id": null, "member_ids": [],
    });
    ensure!(described["partitions"] == json!([row]), "{described}");
    ensure!(group["partitions"] == described["partitions"], "{group}");
    client
        .admin()
        .delete_share_group_offsets("workers", &[TOPIC])
        .await?;
    ensure!(client.admin().share_group_offsets("workers").await?.is_empty());
    let deleted = node.http().delete("/api/v1/groups/workers").await?;
    ensure!(deleted.status == 204, "{deleted:?}");
    ensure!(node.http().get("/api/v1/groups/workers").await?.status == 404);
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn every_node_tells_of_the_groups_of_all() -> anyhow::Result<()> {
    let first_site = Site::new()?.argument("--node-id").argument("1");
    let first = first_site.start().await?;
    let cluster = get(&first, "/cluster").await?["cluster_id"].clone();
    let cluster = cluster.as_str().context("a cluster has an id")?.to_owned();
    let (mut sites, mut nodes) = (vec![first_site], vec![first]);
    for id in [2, 3] {
        let (site, node) = join(id, (1, &nodes[0]), &cluster).await?;
        sites.push(site);
        nodes.push(node);
    }
    let bootstrap: Vec<String> = nodes.iter().map(Node::bootstrap).collect();
    let client = Client::connect(Config::new(&bootstrap.join(","))?).await?;
    let topic = NewTopic {
        replication_factor: Some(1),
        ..NewTopic::new(TOPIC, 3)
    };
    client.admin().create_topic(&topic).await?;
    produce(&client, 10).await?;
    let names: Vec<String> = (0..8).map(|number| format!("group-{number}")).collect();
    for name in &names {
        read(&client, name, 30).await?;
    }
    // On a busy machine one node may lead all for a while, and a member that left may be waited for.
    until(PATIENCE, "every node to tell of groups of several", || async {
        let _ = client.admin().elect_leaders(Election::Preferred, None).await?;
        for node in &nodes {
            let list = get(node, "/groups").await?;
            let groups = list["groups"].as_array().context("groups")?;
            let all = |name: &str, value: Value| groups.iter().all(|group| group[name] == value);
            let told: Vec<&str> = groups
                .iter()
                .filter_map(|group| group["group"].as_str())
                .collect();
            ensure!(
                told == names && all("lag", json!(0)) && all("state", json!("empty")),
                "{list}"
            );
            let coordinators: BTreeSet<i64> = groups
                .iter()
                .filter_map(|group| group["coordinator"].as_i64())
                .collect();
            ensure!(coordinators.len() > 1, "{list}");
        }
        Ok(Some(()))
    })
    .await?;
    // Whichever node is asked, the coordinator does it.
    for (node, name) in nodes.iter().zip(&names) {
        let answer = set(node, name, json!({ "to": "earliest" })).await?.json()?;
        ensure!(answer["partitions"][2]["after"] == 0, "{answer}");
        let seen = get(node, &format!("/groups/{name}")).await?;
        ensure!(seen["lag"] == 30, "{seen}");
        let described = operate(node, &["group", "describe", name]).await?;
        ensure!(
            described["coordinator"] == seen["coordinator"],
            "{described} {seen}"
        );
    }
    // One that is gone leaves a gap that is said, or others take its groups over.
    let last = nodes.pop().context("the third")?;
    last.kill().await?;
    until(PATIENCE, "the groups of the others", || async {
        let list = get(&nodes[0], "/groups").await?;
        let count = list["groups"].as_array().map_or(0, Vec::len);
        ensure!(count > 0 && count <= names.len(), "{list}");
        Ok((count == names.len()).then_some(()))
    })
    .await?;
    client.close().await;
    Ok(())
}
