//! Transactions over HTTP and on the command line: told of while they are open, found when nobody will end them, aborted.

use std::path::Path;

use anyhow::{Context, ensure};
use headwater_sdk::{Client, Config, NewTopic, PartitionIndex, Producer, ProducerConfig, Record};
use headwater_tests::{Answer, Node, PATIENCE, Site, operate, read_all, until, write_numbers};
use serde_json::{Value, json};

const TOPIC: &str = "orders";
const ID: &str = "billing/1";

async fn get(node: &Node, path: &str) -> anyhow::Result<Value> {
    node.http().get(&format!("/api/v1{path}")).await?.json()
}

async fn abort(node: &Node, body: &Value) -> anyhow::Result<Answer> {
    node.http().post("/api/v1/hanging-transactions/abort", body).await
}

/// A producer with a transaction open in partition 1.
async fn open(client: &Client) -> anyhow::Result<Producer> {
    let producer = client.producer(ProducerConfig {
        transactional_id: Some(ID.to_owned()),
        ..ProducerConfig::default()
    })?;
    producer.begin().await?;
    let record = Record::value("never seen").partition(PartitionIndex(1));
    producer.send(TOPIC, record).await?;
    producer.flush().await;
    Ok(producer)
}

#[tokio::test]
async fn a_transaction_is_seen_while_it_is_open() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let nothing = json!({ "transactions": [], "unanswered": [] });
    ensure!(get(&node, "/transactions").await? == nothing);
    ensure!(node.http().get("/api/v1/transactions/nobody").await?.status == 404);
    let client = Client::connect(Config::new(&node.bootstrap())?).await?;
    client.admin().create_topic(&NewTopic::new(TOPIC, 2)).await?;
    let producer = open(&client).await?;

    let list = get(&node, "/transactions").await?;
    let seen = &list["transactions"][0];
    let expected = json!({
        "transactional_id": ID, "state": "ongoing", "coordinator": 1, "producer_id": seen["producer_id"],
        "producer_epoch": 0, "timeout_ms": 60_000, "started_ms": seen["started_ms"],
        "partitions": [{ "topic": TOPIC, "partition": 1 }],
    });
    ensure!(*seen == expected && seen["started_ms"].is_i64(), "{list}");
    ensure!(get(&node, "/transactions/billing%2F1").await? == expected);
    ensure!(get(&node, "/transactions?state=empty").await? == nothing);
    ensure!(get(&node, "/transactions?open_for_ms=3600000").await? == nothing);
    ensure!(node.http().get("/api/v1/transactions?state=odd").await?.status == 400);
    let producers = get(&node, &format!("/topics/{TOPIC}/partitions/1/producers")).await?;
    let one = &producers[0];
    ensure!(
        one["producer_id"] == seen["producer_id"] && one["open_from"] == 0,
        "{producers}"
    );
    let unknown = node
        .http()
        .get(&format!("/api/v1/topics/{TOPIC}/partitions/2/producers"))
        .await?;
    ensure!(unknown.status == 404, "{unknown:?}");

    // Its coordinator knows of it, so it does not hang and is not aborted as if it did.
    let hanging = get(&node, "/hanging-transactions?open_for_ms=0").await?;
    ensure!(
        hanging == json!({ "hanging": [], "unsearched": [], "unanswered": [] }),
        "{hanging}"
    );
    let mut body =
        json!({ "topic": TOPIC, "partition": 1, "producer_id": seen["producer_id"], "open_from": 0 });
    let refused = abort(&node, &body).await?;
    ensure!(
        refused.status == 409 && refused.text().contains("NOT_HANGING"),
        "{refused:?}"
    );
    body["open_from"] = json!(7);
    let refused = abort(&node, &body).await?;
    ensure!(
        refused.status == 409 && refused.text().contains("NOT_OPEN"),
        "{refused:?}"
    );

    let listed = operate(&node, &["transaction", "list", "--state", "Ongoing"]).await?;
    ensure!(
        listed[0]["transactional_id"] == ID && listed[0]["state"] == "Ongoing",
        "{listed}"
    );
    let described = operate(&node, &["transaction", "describe", ID]).await?;
    ensure!(described == listed[0], "{described} {listed}");
    let found = operate(&node, &["transaction", "find-hanging", "--open-for", "0ms"]).await?;
    ensure!(found == json!([]), "{found}");
    let told = operate(&node, &["topic", "producers", TOPIC, "--partition", "1"]).await?;
    ensure!(told[0]["open_from"] == 0, "{told}");

    producer.abort().await?;
    until(PATIENCE, "the transaction to be complete", || async {
        let seen = get(&node, "/transactions/billing%2F1").await?;
        Ok((seen["state"] == "complete-abort" && seen["partitions"] == json!([])).then_some(()))
    })
    .await?;
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_nobody_will_end_is_found_and_aborted() -> anyhow::Result<()> {
    let site = Site::new()?;
    let mut node = site.start().await?;
    for turn in 0..2 {
        let client = Client::connect(Config::new(&node.bootstrap())?).await?;
        if turn == 0 {
            client.admin().create_topic(&NewTopic::new(TOPIC, 2)).await?;
        }
        let producer = open(&client).await?;
        let kept = client.admin().describe_topic("__transaction_state").await?;
        node.terminate().await?;
        drop(producer);
        client.close().await;
        // What coordinators knew is lost with their disk.
        forget(site.data(), &kept.id.to_string())?;
        node = site.start().await?;
        let client = Client::connect(Config::new(&node.bootstrap())?).await?;
        let row = until(PATIENCE, "the hanging transaction", || async {
            let list = get(
                &node,
                &format!("/hanging-transactions?open_for_ms=0&topic={TOPIC}"),
            )
            .await?;
            ensure!(
                list["unanswered"] == json!([]) && list["unsearched"] == json!([]),
                "{list}"
            );
            Ok(list["hanging"].as_array().and_then(|rows| rows.first().cloned()))
        })
        .await?;
        ensure!(row["topic"] == TOPIC && row["partition"] == 1, "{row}");
        let unfound = get(&node, "/hanging-transactions").await?;
        ensure!(
            unfound["hanging"] == json!([]),
            "it has not been open for 15 minutes: {unfound}"
        );
        let found = operate(
            &node,
            &[
                "transaction",
                "find-hanging",
                "--topic",
                TOPIC,
                "--open-for",
                "0ms",
            ],
        )
        .await?;
        ensure!(found[0]["producer_id"] == row["producer_id"], "{found}");
        let from = row["open_from"].as_i64().context("an offset")?;
        if turn == 0 {
            let body = json!({
                "topic": TOPIC, "partition": 1, "producer_id": row["producer_id"], "open_from": from,
            });
            let done = abort(&node, &body).await?;
            ensure!(done.status == 204, "{done:?}");
        } else {
            let from = from.to_string();
            let command = [
                "transaction",
                "abort",
                TOPIC,
                "--partition",
                "1",
                "--start-offset",
                &from,
                "--yes",
            ];
            operate(&node, &command).await?;
        }
        let left = get(&node, "/hanging-transactions?open_for_ms=0").await?;
        ensure!(left["hanging"] == json!([]), "{left}");
        // Readers of what is committed get past it, and see nothing of it.
        write_numbers(&client, TOPIC, 2, turn..turn + 1).await?;
        let seen = read_all(&client, TOPIC).await?;
        let expected = usize::try_from(2 * (turn + 1))?;
        ensure!(seen.len() == expected, "{seen:?}");
        client.close().await;
    }
    Ok(())
}

/// Deletes the replicas of a topic.
fn forget(data: &Path, topic: &str) -> anyhow::Result<()> {
    let mut forgotten = 0;
    for folder in std::fs::read_dir(data.join("topics"))? {
        let folder = folder?;
        if folder.file_name().to_string_lossy().starts_with(topic) {
            std::fs::remove_dir_all(folder.path())?;
            forgotten += 1;
        }
    }
    ensure!(forgotten > 0, "there is nothing to forget in {}", data.display());
    Ok(())
}
