//! A node that is killed while transforms run goes on where they were. Held is what each delivery promises. Exactly once: every output and
//! every dead letter is seen once. At least once: no record is lost, and what was sent just before a kill may be sent again. With either
//! position and windows are kept together, so that every result of a window is the right one.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use headwater_sdk::{
    Client, ConsumerRecord, Deliveries, PartitionIndex, ProducerConfig, Record, TopicProducer,
};
use headwater_tests::{Node, PATIENCE, Random, Site, client, read_all, until, within};
use serde_json::{Value, json};

const RECORDS: u64 = 40_000;
const KILLS: u64 = 10;
const PARTITIONS: i32 = 3;
/// Records of one window, over all keys.
const WINDOW_RECORDS: u64 = 1000;
const KEYS: u64 = 20;
const BASE_MS: i64 = 1_000_000_000_000;
/// Every so manieth record is no JSON.
const BROKEN_EVERY: u64 = 97;
const TRANSFORMS: [&str; 3] = ["keep", "sums", "live"];
/// The others deliver exactly once.
const AT_LEAST_ONCE: &str = "live";

fn is_broken(number: u64) -> bool {
    number % BROKEN_EVERY == 5
}

fn figure(number: u64) -> u64 {
    number * 7919 % 1000
}

fn is_kept(number: u64) -> bool {
    !is_broken(number) && figure(number) < 300
}

fn key(number: u64) -> String {
    format!("k{}", number % KEYS)
}

fn text(number: u64) -> String {
    if is_broken(number) {
        format!("broken {number}")
    } else {
        json!({ "number": number, "figure": figure(number) }).to_string()
    }
}

/// Hands over the numbers of a range, each a millisecond after the one before; some are under way when this returns.
async fn send(topic: &TopicProducer, numbers: std::ops::Range<u64>) -> anyhow::Result<Deliveries> {
    let texts: Vec<_> = numbers
        .map(|number| (number, text(number), key(number)))
        .collect();
    let records: Vec<_> = texts
        .iter()
        .map(|(number, text, key)| {
            Record::value(text)
                .key(key)
                .timestamp_ms(BASE_MS + *number as i64)
        })
        .collect();
    Ok(topic.send_all(&records).await?)
}

async fn deploy(node: &Node, spec: Value) -> anyhow::Result<()> {
    node.http().post("/api/v1/transforms", &spec).await?.json()?;
    Ok(())
}

async fn deploy_all(node: &Node) -> anyhow::Result<()> {
    let modules = until(PATIENCE, "the modules that are inside", || async {
        let known = node.http().get("/api/v1/modules").await?.json()?;
        let found: BTreeMap<String, Value> = known
            .as_array()
            .into_iter()
            .flatten()
            .map(|module| {
                let name = module["name"].as_str().unwrap_or_default().to_owned();
                let version = module["version"].clone();
                (name.clone(), json!({ "name": name, "version": version }))
            })
            .collect();
        Ok((found.contains_key("filter") && found.contains_key("aggregate")).then_some(found))
    })
    .await?;
    let of = |name: &str, module: &str, params: Value| {
        json!({
            "name": name, "module": modules[module], "params": params, "source": "readings", "sinks": [name],
            "dead_letter": format!("{name}.dead"), "start": "earliest",
            "delivery": if name == AT_LEAST_ONCE { "at-least-once" } else { "exactly-once" },
        })
    };
    deploy(node, of("keep", "filter", json!({ "where": "figure < 300" }))).await?;
    let compute = "count() as records, sum(figure), min(figure), max(figure)";
    for (name, emit) in [("sums", "close"), ("live", "update")] {
        let mut spec = of(
            name,
            "aggregate",
            json!({ "compute": compute, "group-by": "key" }),
        );
        spec["window_ms"] = json!(WINDOW_RECORDS);
        spec["emit"] = json!(emit);
        deploy(node, spec).await?;
    }
    Ok(())
}

/// How many records of the source a transform has dealt with, durably.
async fn position(node: &Node, transform: &str) -> anyhow::Result<u64> {
    let status = node
        .http()
        .get(&format!("/api/v1/transforms/{transform}"))
        .await?
        .json()?;
    let partitions = status["partitions"].as_array().context("partitions")?;
    Ok(partitions
        .iter()
        .filter_map(|partition| partition["position"].as_u64())
        .sum())
}

async fn reaches(node: &Node, transform: &str, records: u64) -> anyhow::Result<()> {
    until(
        PATIENCE,
        &format!("{transform} to reach {records} records"),
        || async {
            let at = position(node, transform).await?;
            if at >= records {
                Ok(Some(()))
            } else {
                anyhow::bail!("it is at {at}")
            }
        },
    )
    .await
}

/// A record far ahead of all others in each partition closes their windows.
async fn close_windows(topic: &TopicProducer) -> anyhow::Result<()> {
    for partition in 0..PARTITIONS {
        let record = Record::value("{\"figure\":0}")
            .key("end")
            .partition(PartitionIndex(partition));
        let sent = topic.send(record.timestamp_ms(BASE_MS + 1_000_000_000)).await?;
        within(PATIENCE, "the last record", sent.receipt()).await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_lose_no_record_and_bend_no_window() -> anyhow::Result<()> {
    let mut random = Random::new();
    let site = Site::new()?;
    let mut node = site.start().await?;
    node.create_topic("readings", PARTITIONS as u32, &["retention.ms=-1"])
        .await?;
    for name in TRANSFORMS {
        node.create_topic(name, 2, &["retention.ms=-1"]).await?;
    }
    deploy_all(&node).await?;
    let records = client(&node).await?;
    let producer = records.producer(ProducerConfig {
        batch_bytes: 8 << 10,
        ..ProducerConfig::default()
    })?;
    let topic = producer.topic("readings").await?;

    let step = RECORDS / KILLS;
    let mut deliveries = Vec::new();
    for kill in 0..KILLS {
        deliveries.push(send(&topic, kill * step..(kill + 1) * step).await?);
        // Somewhere within what was just handed over, by the clock of one of the three.
        let moment = kill * step + random.below(1..step);
        let by = TRANSFORMS[random.below(0..3) as usize];
        reaches(&node, by, moment).await?;
        node.kill().await?;
        node = site.start().await?;
    }
    for delivered in &deliveries {
        within(PATIENCE, "deliveries", delivered.all()).await??;
    }
    close_windows(&topic).await?;
    for name in TRANSFORMS {
        reaches(&node, name, RECORDS + PARTITIONS as u64).await?;
    }

    let source = read_all(&records, "readings").await?;
    assert_eq!(
        source.len() as u64,
        RECORDS + PARTITIONS as u64,
        "the source itself"
    );
    check_kept(&records).await?;
    for name in TRANSFORMS {
        check_letters(&records, name, &source).await?;
    }
    check_closed(&records).await?;
    check_live(&records).await
}

fn value(record: &ConsumerRecord) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(
        record.value.as_deref().context("a value")?,
    )?)
}

async fn check_kept(client: &Client) -> anyhow::Result<()> {
    let records = read_all(client, "keep").await?;
    let mut seen = BTreeSet::new();
    for record in &records {
        let value = value(record)?;
        if record.key.as_deref() == Some(b"end") {
            continue;
        }
        let number = value["number"].as_u64().context("a number")?;
        ensure!(
            record.key.as_deref() == Some(key(number).as_bytes()),
            "the key of {number}"
        );
        ensure!(
            record.timestamp_ms == BASE_MS + number as i64,
            "the time of {number}"
        );
        ensure!(seen.insert(number), "{number} is kept once more");
    }
    let expected: BTreeSet<u64> = (0..RECORDS).filter(|number| is_kept(*number)).collect();
    ensure!(
        seen == expected,
        "{} kept, expected {}",
        seen.len(),
        expected.len()
    );
    Ok(())
}

/// Every record that is no JSON is a dead letter with its reason and origin, and no other is.
async fn check_letters(client: &Client, transform: &str, source: &[ConsumerRecord]) -> anyhow::Result<()> {
    let place = |record: &ConsumerRecord| (record.partition.value(), record.offset.value());
    let texts: BTreeMap<_, _> = source
        .iter()
        .map(|record| (place(record), record.value.clone()))
        .collect();
    let mut seen = BTreeSet::new();
    let letters = read_all(client, &format!("{transform}.dead")).await?;
    for letter in &letters {
        let header = |name: &str| -> anyhow::Result<String> {
            let found = letter
                .headers()
                .flatten()
                .find(|header| header.key == name.as_bytes());
            let value = found
                .and_then(|header| header.value)
                .with_context(|| format!("no header {name}"))?;
            Ok(String::from_utf8(value.to_vec())?)
        };
        ensure!(
            header("headwater-error-reason")? == "rejected",
            "{}",
            header("headwater-error-reason")?
        );
        ensure!(
            header("headwater-error-message")?.contains("not JSON"),
            "{}",
            header("headwater-error-message")?
        );
        ensure!(header("headwater-error-transform")? == transform);
        ensure!(header("headwater-error-topic")? == "readings");
        let from = (
            header("headwater-error-partition")?.parse()?,
            header("headwater-error-offset")?.parse()?,
        );
        ensure!(
            texts.get(&from) == Some(&letter.value),
            "{transform}: the letter of {from:?} is another record"
        );
        let text = String::from_utf8(letter.value.as_deref().unwrap_or_default().to_vec())?;
        let is_new = seen.insert(text);
        ensure!(
            is_new || transform == AT_LEAST_ONCE,
            "{transform}: the letter of {from:?} came once more"
        );
    }
    let expected: BTreeSet<String> = (0..RECORDS)
        .filter(|number| is_broken(*number))
        .map(text)
        .collect();
    ensure!(
        seen == expected,
        "{transform}: {} letters, expected {}",
        seen.len(),
        expected.len()
    );
    Ok(())
}

/// Count, sum, least and most.
type Sums = (u64, u64, u64, u64);
type Windows = BTreeMap<(String, u64), Sums>;

fn expected_windows() -> Windows {
    let mut windows = Windows::new();
    for number in (0..RECORDS).filter(|number| !is_broken(*number)) {
        let window = (key(number), number / WINDOW_RECORDS);
        let (count, sum, least, most) = windows.entry(window).or_insert((0, 0, u64::MAX, 0));
        let figure = figure(number);
        (*count, *sum) = (*count + 1, *sum + figure);
        (*least, *most) = ((*least).min(figure), (*most).max(figure));
    }
    windows
}

/// Window and result of a record, unless it is of the records that closed the others.
fn result(record: &ConsumerRecord) -> anyhow::Result<Option<((String, u64), Sums)>> {
    let value = value(record)?;
    let key = value["key"].as_str().context("a key")?.to_owned();
    if key == "end" {
        return Ok(None);
    }
    // A window is sent with the last millisecond of it.
    let window = u64::try_from(record.timestamp_ms - BASE_MS)? / WINDOW_RECORDS;
    let figure = |name: &str| value[name].as_u64().with_context(|| format!("{name} in {value}"));
    let sums = (
        figure("records")?,
        figure("sum_figure")?,
        figure("min_figure")?,
        figure("max_figure")?,
    );
    Ok(Some(((key, window), sums)))
}

/// A window is told about when it closes: once, with the right result.
async fn check_closed(client: &Client) -> anyhow::Result<()> {
    let expected = expected_windows();
    let mut seen = BTreeSet::new();
    let records = read_all(client, "sums").await?;
    for record in &records {
        let Some((window, sums)) = result(record)? else {
            continue;
        };
        ensure!(
            expected.get(&window) == Some(&sums),
            "{window:?}: {sums:?}, expected {:?}",
            expected.get(&window)
        );
        ensure!(seen.insert(window.clone()), "{window:?} was told about once more");
    }
    ensure!(
        seen.len() == expected.len(),
        "{} windows, expected {}",
        seen.len(),
        expected.len()
    );
    Ok(())
}

/// The last update of each window is the right one, and none goes beyond it.
async fn check_live(client: &Client) -> anyhow::Result<()> {
    let expected = expected_windows();
    let mut last = Windows::new();
    for record in &read_all(client, "live").await? {
        let Some((window, sums)) = result(record)? else {
            continue;
        };
        let most = expected
            .get(&window)
            .with_context(|| format!("no window {window:?}"))?;
        ensure!(
            sums.0 <= most.0 && sums.1 <= most.1,
            "{window:?}: {sums:?} is more than {most:?}"
        );
        last.insert(window, sums);
    }
    ensure!(last == expected, "the last results are not the right ones");
    Ok(())
}
