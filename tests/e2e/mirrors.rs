//! Mirrors hold what the SDK produced, batch by batch: compressed or not, in many batches at once, through a cut while
//! real flights are produced. Compared by a script that shares no code with the product.
//!
//! How long the cut is and how many flights are produced in it is small here. The long story, in release:
//! `HEADWATER_CUT_SECONDS=60 HEADWATER_CUT_FLIGHTS=500000 cargo test --release -p headwater-tests --test e2e mirrors`.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use headwater_sdk::protocol::record::Compression;
use headwater_sdk::{Client, Config, Deliveries, NewTopic, PartitionIndex, ProducerConfig, Record, Trust};
use headwater_tests::{Node, PATIENCE, Site, checkout, python, until};

use crate::links::{Pair, copy_of, link};

async fn connect(node: &Node) -> anyhow::Result<Client> {
    let config = Config::new(&format!("quic://{}", node.addresses.quic))?;
    Ok(Client::connect(config.with_trust(Trust::SkipVerification)).await?)
}

/// What the script says of two partitions.
async fn compare(source: (&Node, &str), copy: (&Node, &str), partition: u32) -> anyhow::Result<String> {
    let (one, other, partition) = (source.0.bootstrap(), copy.0.bootstrap(), partition.to_string());
    let arguments = [&*one, source.1, &*partition, &*other, copy.1];
    python("e2e/scripts/same_batches.py", arguments)?.success().await
}

/// Compares a mirrored partition and answers how many batches and records it has.
async fn same(pair: &Pair, topic: &str, partition: u32) -> anyhow::Result<(u64, u64)> {
    let said = compare((&pair.edge, topic), (&pair.core, &copy_of(topic)), partition).await?;
    let mut counts = said.split_whitespace().filter_map(|word| word.parse().ok());
    counts.next().zip(counts.next()).with_context(|| said.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_idempotent_producer_sent_is_copied_batch_by_batch() -> anyhow::Result<()> {
    const RECORDS: usize = 6_000;
    const PARTITIONS: u32 = 3;
    let pair = Pair::linked(None).await?;
    let client = connect(&pair.edge).await?;
    let codecs = [Compression::None, Compression::Lz4, Compression::Zstd];
    for codec in codecs {
        let topic = format!("readings-{}", codec.name());
        client
            .admin()
            .create_topic(&NewTopic::new(&topic, PARTITIONS as i32))
            .await?;
        // Small batches, so that one fetch brings many of them.
        let config = ProducerConfig {
            batch_bytes: 2_000,
            compression: codec,
            ..ProducerConfig::default()
        };
        let producer = client.producer(config)?;
        let to = producer.topic(&topic).await?;
        let values: Vec<String> = (0..RECORDS).map(|n| format!("{n:0100}")).collect();
        let records: Vec<_> = values
            .iter()
            .map(|value| Record::value(value).key(value))
            .collect();
        to.send_all(&records).await?.all().await?;
        producer.close().await;
    }
    for codec in codecs {
        let topic = format!("readings-{}", codec.name());
        pair.mirrored(&topic).await?;
        let mut total = 0;
        for partition in 0..PARTITIONS {
            let (batches, records) = same(&pair, &topic, partition).await?;
            ensure!(
                batches > 5,
                "{topic}-{partition} has {batches} batches: too few for this test"
            );
            total += records;
        }
        ensure!(total == RECORDS as u64, "{topic} has {total} records");
    }
    client.close().await;
    Ok(())
}

/// Sends each group of values as one batch, with nothing in it that differs from run to run.
async fn in_batches(client: &Client, topic: &str, groups: &[&[&str]]) -> anyhow::Result<()> {
    client.admin().create_topic(&NewTopic::new(topic, 1)).await?;
    let config = ProducerConfig {
        idempotent: false,
        ..ProducerConfig::default()
    };
    let producer = client.producer(config)?;
    let to = producer.topic(topic).await?;
    for group in groups {
        let record = |value| {
            Record::value(value)
                .timestamp_ms(1_000_000_000_000)
                .partition(PartitionIndex(0))
        };
        let records: Vec<_> = group.iter().copied().map(record).collect();
        to.send_all(&records).await?.all().await?;
    }
    producer.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_comparing_script_sees_a_byte_a_boundary_and_an_end() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let client = connect(&node).await?;
    in_batches(&client, "one", &[&["a", "b"], &["c"]]).await?;
    let copies: [(&str, &[&[&str]], bool); 4] = [
        ("same", &[&["a", "b"], &["c"]], true),
        ("byte", &[&["a", "b"], &["d"]], false),
        ("boundary", &[&["a"], &["b", "c"]], false),
        ("end", &[&["a", "b"]], false),
    ];
    for (copy, groups, is_same) in copies {
        in_batches(&client, copy, groups).await?;
        match compare((&node, "one"), (&node, copy), 0).await {
            Ok(said) => ensure!(
                is_same && said.starts_with("same 2 batches, 3 records"),
                "{copy}: {said}"
            ),
            Err(why) => ensure!(!is_same, "{copy}: {why}"),
        }
    }
    client.close().await;
    Ok(())
}

/// Flights from the test data, one line each, repeated until there are `count`.
fn flights(count: usize) -> anyhow::Result<Vec<String>> {
    let packed = std::fs::read(checkout().join("tests/data/flights-2001-01.csv.zst"))?;
    let text = String::from_utf8(zstd::decode_all(&*packed)?)?;
    let lines: Vec<&str> = text.lines().skip(1).collect();
    Ok(lines
        .iter()
        .cycle()
        .take(count)
        .map(|line| (*line).to_owned())
        .collect())
}

fn setting(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

async fn produce_flights(client: &Client, topic: &str, flights: &[String]) -> anyhow::Result<()> {
    let producer = client.producer(ProducerConfig::default())?;
    let to = producer.topic(topic).await?;
    let mut deliveries: Vec<Deliveries> = Vec::new();
    for chunk in flights.chunks(1_000) {
        // Keyed by the airport, as the demo does.
        let record = |line: &'_ String| line.split(',').nth(3).map(str::to_owned).unwrap_or_default();
        let keys: Vec<String> = chunk.iter().map(record).collect();
        let records: Vec<_> = chunk
            .iter()
            .zip(&keys)
            .map(|(line, key)| Record::value(line).key(key))
            .collect();
        deliveries.push(to.send_all(&records).await?);
    }
    producer.flush().await;
    for delivery in &deliveries {
        delivery.all().await?;
    }
    producer.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn flights_produced_during_a_cut_arrive_once_it_is_over() -> anyhow::Result<()> {
    const PARTITIONS: u32 = 2;
    let cut = Duration::from_secs(setting("HEADWATER_CUT_SECONDS", 2)?);
    let flights = flights(usize::try_from(setting("HEADWATER_CUT_FLIGHTS", 20_000)?)?)?;
    let pair = Pair::linked(None).await?;
    let client = connect(&pair.edge).await?;
    client
        .admin()
        .create_topic(&NewTopic::new("flights", PARTITIONS as i32))
        .await?;
    produce_flights(&client, "flights", &flights[..flights.len() / 100]).await?;
    pair.mirrored("flights").await?;

    let (before, began) = (pair.cable.metered(), Instant::now());
    pair.cable.cut();
    produce_flights(&client, "flights", &flights[flights.len() / 100..]).await?;
    ensure!(
        !pair.is_mirrored("flights").await?,
        "the copy went on without a link"
    );
    let waiting = link(&pair.edge).await?["flows"][0]["partitions"][0]["backlog_bytes"].clone();
    ensure!(
        waiting.as_u64().is_some_and(|bytes| bytes > 0),
        "backlog_bytes is {waiting}"
    );
    tokio::time::sleep(cut.saturating_sub(began.elapsed())).await;
    pair.cable.mend();
    let mended = Instant::now();
    pair.mirrored("flights").await?;
    let took = mended.elapsed();

    let mut records = 0;
    for partition in 0..PARTITIONS {
        records += same(&pair, "flights", partition).await?.1;
    }
    ensure!(
        records == flights.len() as u64,
        "{records} of {} flights",
        flights.len()
    );
    until(PATIENCE, "the edge to know that nothing waits", || async {
        let partitions = link(&pair.edge).await?["flows"][0]["partitions"].clone();
        let bytes = partitions
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| p["backlog_bytes"].as_u64());
        Ok(bytes.sum::<Option<u64>>().filter(|bytes| *bytes == 0).map(drop))
    })
    .await?;
    let wire = pair.cable.metered();
    let payload = link(&pair.core).await?["payload_bytes"].as_u64().unwrap_or(0);
    println!(
        "cut {} s, {records} flights, complete {} ms after it; {} bytes on the wire since the cut began, {payload} of records in all",
        cut.as_secs(),
        took.as_millis(),
        wire.up_bytes + wire.down_bytes - before.up_bytes - before.down_bytes,
    );
    client.close().await;
    Ok(())
}
