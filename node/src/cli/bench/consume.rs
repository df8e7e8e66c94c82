//! `bench consume`: everything from offset 0 on, each record looked at, none missing.

use std::collections::BTreeMap;

use headwater_sdk::protocol::ids::{Offset, PartitionIndex};
use headwater_sdk::{Client, ConsumerConfig, Isolation, OffsetSpec, Start};
use serde_json::{Value, json};

use super::load::{Load, Loaded, join};
use super::target::Place;
use crate::cli::failure::Failure;
use crate::sys::Sys;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    load: Load,
    /// Read this topic as it is, in place of one that is produced first
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Read it so many times; the first pass does not count
    #[arg(long, value_name = "N", default_value = "2")]
    passes: u32,
}

pub(super) async fn run(sys: &Sys, place: &Place, arguments: &Arguments) -> Result<Value, Failure> {
    let mut target = place.prepare(sys).await?;
    let load = &arguments.load;
    let topic = match &arguments.topic {
        Some(topic) => topic.clone(),
        None => {
            let topic = target.topic(load.partitions, true).await?;
            load.run(sys, &target.client, &topic).await?;
            topic
        }
    };
    let mut figures =
        json!({ "workload": "consume", "transport": target.transport(), "passes": arguments.passes });
    let mut best: Option<Loaded> = None;
    for pass in 0..arguments.passes.max(1) {
        let read = read(sys, &target.client, &topic).await?;
        if arguments.topic.is_none() && read.records != load.records {
            return Err(Failure::new(format!(
                "{} records were produced, {} were read",
                load.records, read.records
            )));
        }
        let counts = pass > 0 || arguments.passes == 1;
        if counts && best.is_none_or(|best| read.took < best.took) {
            best = Some(read);
        }
    }
    if let Some(best) = best {
        join(&mut figures, best.figures());
    }
    figures["value_bytes"] = json!(load.size);
    figures["partitions"] = json!(load.partitions);
    figures["compression"] = json!(load.compression.name());
    target.finish().await?;
    Ok(figures)
}

/// Reads to where the topic ends now; a gap in the offsets is a failure.
async fn read(sys: &Sys, client: &Client, topic: &str) -> Result<Loaded, Failure> {
    let count = client.topic(topic).await?.partitions.len() as i32;
    let places: Vec<_> = (0..count)
        .map(|index| (PartitionIndex(index), OffsetSpec::Latest))
        .collect();
    let ends = client
        .admin()
        .list_offsets(topic, &places, Isolation::ReadUncommitted)
        .await?;
    let mut left: BTreeMap<PartitionIndex, (Offset, Offset)> = ends
        .into_iter()
        .filter_map(|(partition, end)| Some((partition, (Offset(0), end.offset.filter(|end| end.0 > 0)?))))
        .collect();
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    let (mut records, mut bytes) = (0, 0_u64);
    let began = sys.clock.now();
    consumer.assign_all(topic, Start::Earliest).await?;
    while !left.is_empty() {
        let batch = consumer.next_batch().await?;
        let corrupt = |why| Failure::new(format!("a batch cannot be read: {why}"));
        let Some((next, end)) = left.get_mut(&batch.partition()) else {
            continue;
        };
        for record in batch.records().map_err(corrupt)?.iter() {
            let record = record.map_err(corrupt)?;
            if record.offset != *next {
                return Err(Failure::new(format!(
                    "offset {next} is missing: {} came",
                    record.offset
                )));
            }
            *next = next.plus(1);
            records += 1;
            bytes += record.value.map_or(0, |value| value.len() as u64);
        }
        if *next >= *end {
            left.remove(&batch.partition());
        }
    }
    let took = sys.clock.now().saturating_duration_since(began);
    consumer.close().await;
    Ok(Loaded { records, bytes, took })
}
