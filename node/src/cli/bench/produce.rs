//! `bench produce`: throughput, or one record at a time.

use headwater_sdk::protocol::ids::PartitionIndex;
use headwater_sdk::{Acks, Isolation, OffsetSpec, ProducerConfig, Record};
use serde_json::{Value, json};

use super::histogram::Histogram;
use super::load::{Load, join};
use super::target::{Place, Target};
use crate::cli::failure::Failure;
use crate::sys::Sys;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    load: Load,
    /// Send a record when the one before it is acknowledged, and measure each
    #[arg(long)]
    each: bool,
    /// Records sent first, that do not count [default: as many as count, to a topic that is then removed; 200 of --each]
    #[arg(long, value_name = "N")]
    warm_up: Option<usize>,
}

pub(super) async fn run(sys: &Sys, place: &Place, arguments: &Arguments) -> Result<Value, Failure> {
    let mut target = place.prepare(sys).await?;
    let load = &arguments.load;
    let topic = target.topic(load.partitions, load.caching).await?;
    let mut figures = json!({ "workload": "produce", "transport": target.transport() });
    join(&mut figures, load.words());
    if arguments.each {
        let warm_up = arguments.warm_up.unwrap_or(200);
        let histogram = each(sys, &target, &topic, load, warm_up).await?;
        join(
            &mut figures,
            json!({ "workload": "produce-each", "batch_bytes": null, "in_flight_batches": 1 }),
        );
        figures["ack_ms"] = histogram.figures();
    } else {
        // The memory that holds the files' pages was touched before, as on a machine that has been up for a while.
        let warm_up = arguments.warm_up.unwrap_or(load.records);
        let first = target.topic(load.partitions, load.caching).await?;
        Load {
            records: warm_up,
            ..load.clone()
        }
        .run(sys, &target.client, &first)
        .await?;
        target.remove(&first).await?;
        let loaded = load.run(sys, &target.client, &topic).await?;
        // Without an acknowledgement records may be lost, or be on their way.
        if load.acks != Acks::None {
            verify(&target, &topic, load).await?;
        }
        figures["warm_up_records"] = json!(warm_up);
        join(&mut figures, loaded.figures());
    }
    target.finish().await?;
    Ok(figures)
}

/// Every record must be in its log, none twice.
async fn verify(target: &Target, topic: &str, load: &Load) -> Result<(), Failure> {
    let places: Vec<_> = (0..load.partitions)
        .map(|index| (PartitionIndex(index), OffsetSpec::Latest))
        .collect();
    let ends = target
        .client
        .admin()
        .list_offsets(topic, &places, Isolation::ReadUncommitted)
        .await?;
    let found: i64 = ends.values().filter_map(|end| end.offset).map(|end| end.0).sum();
    if usize::try_from(found) != Ok(load.records) {
        return Err(Failure::new(format!(
            "{} records were produced, the topic has {found}",
            load.records
        )));
    }
    Ok(())
}

async fn each(
    sys: &Sys,
    target: &Target,
    topic: &str,
    load: &Load,
    warm_up: usize,
) -> Result<Histogram, Failure> {
    let producer = target.client.producer(ProducerConfig {
        in_flight_max: 1,
        ..load.producer()
    })?;
    let to = producer.topic(topic).await?;
    let value = vec![b'x'; load.size as usize];
    let mut histogram = Histogram::new();
    for index in 0..warm_up + load.records {
        let began = sys.clock.now();
        to.send(Record::value(&value)).await?.receipt().await?;
        if index >= warm_up {
            histogram.record(sys.clock.now().saturating_duration_since(began));
        }
    }
    producer.close().await;
    Ok(histogram)
}
