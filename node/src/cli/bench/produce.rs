//! `bench produce`: throughput, or one record at a time.

use headwater_sdk::{ProducerConfig, Record};
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
    /// Records sent first, that do not count
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
        let warm_up = arguments.warm_up.unwrap_or(load.records / 10);
        Load {
            records: warm_up,
            ..load.clone()
        }
        .run(sys, &target.client, &topic)
        .await?;
        let loaded = load.run(sys, &target.client, &topic).await?;
        join(&mut figures, loaded.figures());
    }
    target.finish().await?;
    Ok(figures)
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
