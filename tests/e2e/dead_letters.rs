//! Dead letters over HTTP and on the command line: found with their reasons, mended and written back, written back at a
//! rate, and told apart when they fail again.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use headwater_sdk::{Client, ConsumerRecord, PartitionIndex, Producer, ProducerConfig, Record};
use headwater_tests::{Answer, Node, PATIENCE, Site, client, headwater, read_all, until};
use serde_json::{Value, json};

const SOURCE: &str = "readings";
const SINK: &str = "low";
const DEAD: &str = "readings.dead-letter";
const LETTERS: &str = "/api/v1/transforms/keep/dead-letters";
const REDRIVE: &str = "/api/v1/transforms/keep/dead-letters/redrive";
const REDRIVES: &str = "/api/v1/transforms/keep/redrives";

async fn get(node: &Node, path: &str) -> anyhow::Result<Value> {
    node.http().get(path).await?.json()
}

async fn redrive(node: &Node, body: &Value) -> anyhow::Result<Answer> {
    node.http().post(REDRIVE, body).await
}

/// Runs a command on transforms, and reads its answer.
async fn command(node: &Node, command: &[&str]) -> anyhow::Result<Value> {
    let http = node.addresses.http.to_string();
    let connection = ["--http", http.as_str(), "--output", "json"];
    let finished = headwater(["transform"].iter().chain(command).chain(&connection)).await?;
    Ok(serde_json::from_slice(
        &finished.success().with_context(|| command.join(" "))?,
    )?)
}

/// A filter that keeps low figures, and fails on what is no JSON.
async fn deploy(node: &Node) -> anyhow::Result<()> {
    let module = until(PATIENCE, "the filter that is inside", || async {
        let known = get(node, "/api/v1/modules").await?;
        let mut known = known.as_array().into_iter().flatten();
        Ok(known.find(|module| module["name"] == "filter").cloned())
    })
    .await?;
    let spec = json!({
        "name": "keep", "module": { "name": "filter", "version": module["version"] },
        "params": { "where": "figure < 300" }, "source": SOURCE, "sinks": [SINK],
    });
    node.http().post("/api/v1/transforms", &spec).await?.json()?;
    Ok(())
}

async fn send(producer: &Producer, partition: i32, value: &str) -> anyhow::Result<()> {
    let record = Record::value(value).key("k").partition(PartitionIndex(partition));
    producer.send(SOURCE, record).await?.receipt().await?;
    Ok(())
}

/// The letters, the newest first, when there are so many.
async fn letters(node: &Node, count: usize) -> anyhow::Result<Vec<Value>> {
    until(PATIENCE, &format!("{count} letters"), || async {
        let page = get(node, LETTERS).await?;
        let letters = page["letters"].as_array().context("letters")?;
        ensure!(letters.len() <= count, "{page}");
        Ok((letters.len() == count).then(|| letters.clone()))
    })
    .await
}

fn headers(record: &ConsumerRecord) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = record.headers().flatten();
    headers
        .map(|header| (text(header.key), text(header.value.unwrap_or_default())))
        .collect()
}

/// The records of the source that were written back.
async fn written_back(client: &Client) -> anyhow::Result<Vec<ConsumerRecord>> {
    let mut records = read_all(client, SOURCE).await?;
    records.retain(|record| headers(record).contains_key("headwater-redrive-count"));
    Ok(records)
}

#[tokio::test]
async fn dead_letters_are_found_mended_and_written_back() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    node.create_topic(SOURCE, 2, &[]).await?;
    deploy(&node).await?;
    let records = client(&node).await?;
    let producer = records.producer(ProducerConfig::default())?;
    send(&producer, 0, r#"{"figure":1}"#).await?;
    for value in ["broken 1", "broken 2"] {
        send(&producer, 1, value).await?;
    }
    let found = letters(&node, 2).await?;
    let newest = &found[0];
    ensure!(
        newest["reason"] == "rejected" && newest["value"] == json!({ "utf8": "broken 2" }),
        "{newest}"
    );
    ensure!(
        newest["origin"]["topic"] == SOURCE
            && newest["origin"]["partition"] == 1
            && newest["origin"]["offset"] == 1,
        "{newest}"
    );
    ensure!(
        newest["redriven"].is_null() && newest["refusal"].is_null(),
        "{newest}"
    );
    let none = get(&node, &format!("{LETTERS}?reason=trap")).await?;
    ensure!(none["letters"] == json!([]), "{none}");
    let unknown = node.http().get("/api/v1/transforms/nobody/dead-letters").await?;
    ensure!(unknown.status == 404, "{unknown:?}");
    let odd = node.http().get(&format!("{LETTERS}?cursor=odd")).await?;
    ensure!(odd.status == 400, "{odd:?}");
    let listed = command(
        &node,
        &["dead-letters", "keep", "--reason", "rejected", "--limit", "1"],
    )
    .await?;
    ensure!(listed["letters"] == json!([newest]), "{listed}");
    let summary = command(&node, &["dead-letters", "keep", "--summary"]).await?;
    ensure!(
        summary["groups"][0]["count"] == 2 && summary["complete"] == true,
        "{summary}"
    );

    // One is mended.
    let letter = json!({ "partition": 0, "offset": newest["offset"] });
    let mended = json!({ "letter": letter, "edit": { "value": { "utf8": r#"{"figure":2}"# } } });
    let done = redrive(&node, &mended).await?.json()?;
    ensure!(
        done["state"] == "done" && done["last"] == json!({ "partition": 1, "offset": 2 }),
        "{done}"
    );
    until(PATIENCE, "the mended record in the sink", || async {
        let kept = read_all(&records, SINK).await?;
        Ok((kept.len() == 2).then_some(()))
    })
    .await?;
    let back = written_back(&records).await?;
    ensure!(
        back.len() == 1 && back[0].key.as_deref() == Some(b"k"),
        "{back:?}"
    );
    let history = headers(&back[0]);
    let from = format!("{DEAD}-0@{}", newest["offset"]);
    ensure!(history["headwater-redrive-from"] == from, "{history:?}");
    ensure!(history.len() == 4, "nothing of the failure: {history:?}");
    let twice = redrive(&node, &mended).await?;
    ensure!(
        twice.status == 409 && twice.text().contains("ALREADY_REDRIVEN"),
        "{twice:?}"
    );
    ensure!(letters(&node, 2).await?[0]["redriven"]["redrive"] == done["id"]);

    // The other one fails again, and tells what it went through.
    let tried = command(&node, &["redrive", "keep", "--reason", "rejected", "--dry-run"]).await?;
    ensure!(tried["redriven"] == 1 && tried["dry_run"] == true, "{tried}");
    let all = command(
        &node,
        &["redrive", "keep", "--reason", "rejected", "--rate", "1000"],
    )
    .await?;
    ensure!(
        all["state"] == "done" && all["redriven"] == 1 && all["passed"][0]["reason"] == "already-redriven",
        "{all}"
    );
    let again = &letters(&node, 3).await?[0];
    ensure!(
        again["value"] == json!({ "utf8": "broken 1" }) && again["history"][0]["reason"] == "rejected",
        "{again}"
    );
    ensure!(
        again["history"][0]["from"] == format!("{DEAD}-0@{}", found[1]["offset"])
            && again["headers"] == json!([]),
        "{again}"
    );
    records.close().await;
    Ok(())
}

#[tokio::test]
async fn a_redrive_is_watched_and_cancelled_and_forgotten_by_a_restart() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    node.create_topic(SOURCE, 2, &[]).await?;
    deploy(&node).await?;
    let records = client(&node).await?;
    let producer = records.producer(ProducerConfig::default())?;
    for number in 0..20 {
        send(&producer, number % 2, &format!("broken {number}")).await?;
    }
    letters(&node, 20).await?;
    let begun = redrive(&node, &json!({ "rate": 1 })).await?;
    ensure!(begun.status == 202, "{begun:?}");
    let begun = begun.json()?;
    let id = begun["id"].as_str().context("an id")?;
    let other = redrive(&node, &json!({ "rate": 1 })).await?;
    ensure!(
        other.status == 409 && other.text().contains("REDRIVE_RUNNING"),
        "{other:?}"
    );
    let path = format!("{REDRIVES}/{id}");
    until(PATIENCE, "the first to be written", || async {
        Ok((get(&node, &path).await?["redriven"] != 0).then_some(()))
    })
    .await?;
    let ended = node.http().delete(&path).await?.json()?;
    ensure!(
        ended["state"] == "cancelled" && ended["ranges"][0]["until_offset"].as_i64() >= Some(20),
        "{ended}"
    );
    let written = usize::try_from(ended["redriven"].as_u64().context("a number")?)?;
    ensure!(
        written < 20 && written_back(&records).await?.len() == written,
        "{ended}"
    );
    let listed = command(&node, &["redrives", "keep"]).await?;
    ensure!(listed == json!([ended]), "{listed}");
    records.close().await;

    node.terminate().await?;
    let node = site.start().await?;
    ensure!(get(&node, REDRIVES).await? == json!([]));
    // What failed again says so all the same.
    let found = letters(&node, 20 + written).await?;
    ensure!(
        found.iter().all(|letter| letter["redriven"].is_null()),
        "{found:?}"
    );
    let with_history = found.iter().filter(|letter| letter["history"] != json!([]));
    ensure!(with_history.count() == written, "{found:?}");
    Ok(())
}
