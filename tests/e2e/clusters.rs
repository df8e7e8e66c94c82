//! Clusters that grow, move what they hold and shrink, under a load that must not lose a record.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_sdk::{Client, Config, NewTopic, NodeId, ProducerConfig, Reassignment, Record};
use headwater_tests::{Node, PATIENCE, Site, join, operate, read_all, until, within};
use serde_json::Value;
use tokio::sync::watch;

const TOPIC: &str = "numbers";
const PARTITIONS: i32 = 4;
/// Records that are sent together and waited for.
const ROUND: u64 = 20;

fn voters(quorum: &Value) -> Vec<i64> {
    let voters = quorum["voters"].as_array().into_iter().flatten();
    voters.filter_map(|voter| voter["node"].as_i64()).collect()
}

/// Sends numbers until it is told to stop. Every record must be acknowledged by all in sync; returns how many were.
/// `sent` tells how many there are so far.
async fn load(
    client: Client,
    sent: watch::Sender<u64>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<u64> {
    let producer = client.producer(ProducerConfig::default())?;
    let topic = producer.topic(TOPIC).await?;
    let mut next = 0;
    while !*stop.borrow_and_update() {
        let texts: Vec<String> = (next..next + ROUND).map(|number| number.to_string()).collect();
        let records: Vec<_> = texts.iter().map(|text| Record::value(text).key(text)).collect();
        let deliveries = topic.send_all(&records).await?;
        let written = within(PATIENCE, "records to be acknowledged", deliveries.all()).await?;
        written.with_context(|| format!("records {next} to {}", next + ROUND))?;
        next += ROUND;
        sent.send_replace(next);
    }
    producer.close().await;
    Ok(next)
}

/// Waits until the load has written more.
async fn more(sent: &mut watch::Receiver<u64>) -> anyhow::Result<()> {
    let enough = *sent.borrow() + 10 * ROUND;
    within(PATIENCE, "more records", sent.wait_for(|sent| *sent >= enough)).await??;
    Ok(())
}

async fn moved_to(client: &Client, nodes: &[i32]) -> anyhow::Result<()> {
    let admin = client.admin();
    let wanted: Vec<NodeId> = nodes.iter().copied().map(NodeId).collect();
    until(PATIENCE, "the replicas to have moved", || async {
        let topic = admin.describe_topic(TOPIC).await?;
        let is_there = topic.partitions.iter().all(|it| it.replicas == wanted);
        Ok((is_there && admin.list_partition_reassignments().await?.is_empty()).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_cluster_grows_moves_what_it_holds_and_lets_a_node_go_under_load() -> anyhow::Result<()> {
    // A node alone becomes a quorum of three.
    let first_site = Site::new()?.argument("--node-id").argument("1");
    let mut first = first_site.start().await?;
    let alone = Client::connect(Config::new(&first.bootstrap())?).await?;
    let cluster = alone.admin().describe_cluster().await?.cluster_id;
    let (_second_site, second) = join(2, (1, &first), &cluster).await?;
    let (_third_site, third) = join(3, (1, &first), &cluster).await?;
    operate(&first, &["cluster", "add-voter", "2"]).await?;
    let quorum = operate(&third, &["cluster", "add-voter", "3"]).await?;
    ensure!(voters(&quorum) == [1, 2, 3], "{quorum}");

    // A topic of one copy, spread over all three, comes to the first two.
    let admin = alone.admin();
    let one_copy = NewTopic {
        replication_factor: Some(1),
        ..NewTopic::new(TOPIC, PARTITIONS).with("min.insync.replicas", "2")
    };
    admin.create_topic(&one_copy).await?;
    operate(&first, &["topic", "reassign", TOPIC, "--replicas", "1,2"]).await?;
    moved_to(&alone, &[1, 2]).await?;

    // While records are written it moves to the other two.
    let addresses = [&first, &second, &third].map(Node::bootstrap).join(",");
    let mut config = Config::new(&addresses)?;
    config.connect_timeout = Duration::from_secs(2);
    let client = Client::connect(config).await?;
    let (sender, mut sent) = watch::channel(0);
    let (stop, told) = watch::channel(false);
    let loading = tokio::spawn(load(client.clone(), sender, told));
    more(&mut sent).await?;
    let moves: Vec<_> = (0..PARTITIONS)
        .map(|at| Reassignment::to(TOPIC, at, [2, 3]))
        .collect();
    for taken in client.admin().alter_partition_reassignments(&moves).await? {
        taken?;
    }
    moved_to(&client, &[2, 3]).await?;
    more(&mut sent).await?;
    let left = first_site.data().join("topics");
    until(PATIENCE, "the first node to delete its replicas", || async {
        let folders = std::fs::read_dir(&left)?.count();
        Ok((folders == 0).then_some(()))
    })
    .await?;

    // It comes back to the first node, which then is to go: the plan is shown first, and nothing moves by it.
    let back = [
        "topic",
        "reassign",
        TOPIC,
        "--replicas",
        "1,2",
        "--partition",
        "0",
    ];
    operate(&second, &back).await?;
    let plan = operate(&second, &["cluster", "decommission", "1", "--dry-run"]).await?;
    let [only] = plan["moves"].as_array().context("moves")?.as_slice() else {
        anyhow::bail!("one replica is to move: {plan}");
    };
    ensure!(
        only["after"] == serde_json::json!([3, 2]) && plan["is_voter"] == true,
        "{plan}"
    );
    ensure!(only["size_bytes"].as_u64() > Some(0), "{plan}");
    ensure!(client.admin().describe_topic(TOPIC).await?.partitions[0].replicas[0] == NodeId(1));
    let gone = operate(&second, &["cluster", "decommission", "1", "--yes"]).await?;
    ensure!(gone["moved"] == 1 && gone["unregistered"] == true, "{gone}");
    until(PATIENCE, "the node that was let go to end", || {
        let is_running = first.is_running();
        async move { Ok((!is_running?).then_some(())) }
    })
    .await?;
    let said = first.log();
    ensure!(
        said.contains("it was unregistered") && !said.contains("panicked"),
        "{said}"
    );
    more(&mut sent).await?;
    let quorum = operate(&second, &["cluster", "quorum"]).await?;
    ensure!(
        voters(&quorum) == [2, 3] && quorum["observers"] == serde_json::json!([]),
        "{quorum}"
    );

    // The quorum shrinks to one, and a new node joins by the address of a node that has no vote.
    let quorum = operate(&second, &["cluster", "remove-voter", "2"]).await?;
    ensure!(voters(&quorum) == [3], "{quorum}");
    let (_fourth_site, fourth) = join(4, (2, &second), &cluster).await?;
    let quorum = operate(&fourth, &["cluster", "quorum"]).await?;
    ensure!(voters(&quorum) == [3], "{quorum}");
    more(&mut sent).await?;

    // Everything gets a third copy, on the new node.
    let more_copies = ["cluster", "rebalance", "--replication-factor", "3", "--yes"];
    let spread = operate(&second, &more_copies).await?;
    ensure!(spread["moved"] == PARTITIONS, "{spread}");
    let topic = client.admin().describe_topic(TOPIC).await?;
    for partition in &topic.partitions {
        let holders: BTreeSet<i32> = partition.replicas.iter().map(|node| node.0).collect();
        ensure!(
            holders == BTreeSet::from([2, 3, 4]) && partition.isr.len() == 3,
            "{partition:?}"
        );
    }
    let again = operate(&second, &["cluster", "rebalance", "--dry-run"]).await?;
    ensure!(again["changes"] == serde_json::json!([]), "{again}");
    more(&mut sent).await?;

    // Nothing that was acknowledged is missing, and nothing is there twice.
    stop.send_replace(true);
    let count = within(PATIENCE, "the load to end", loading).await???;
    let records = read_all(&client, TOPIC).await?;
    let found: BTreeSet<u64> = records
        .iter()
        .map(|record| {
            let value = record.value.as_deref().context("every record has a value")?;
            Ok(std::str::from_utf8(value)?.parse()?)
        })
        .collect::<anyhow::Result<_>>()?;
    ensure!(
        found == (0..count).collect(),
        "{} of {count} are there",
        found.len()
    );
    ensure!(
        records.len() as u64 == count,
        "{} records for {count}",
        records.len()
    );
    client.close().await;
    alone.close().await;
    Ok(())
}
