//! `bench end-to-end`: from the call of `send` to the record in a consumer's hands, at a steady rate.

use std::time::{Duration, Instant};

use headwater_sdk::{Acks, ConsumerConfig, ProducerConfig, Record, Start};
use serde_json::{Value, json};

use super::histogram::Histogram;
use super::target::{Place, Target};
use crate::cli::failure::Failure;
use crate::cli::produce::acks;
use crate::cli::units;
use crate::sys::Sys;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Records a second, whether or not those before have arrived
    #[arg(long, value_name = "N", default_value = "1000")]
    rate: u32,
    /// For how long
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::duration_ms)]
    duration: i64,
    /// How large each value is, 8 bytes at least
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = units::bytes)]
    size: u64,
    /// What a record must have reached: all, 1 or 0
    #[arg(long, value_name = "ACKS", default_value = "all", value_parser = acks)]
    acks: Acks,
    /// Acknowledge from memory: the topic gets write.caching=true
    #[arg(long)]
    caching: bool,
}

/// Records that are sent first and do not count: a second's worth.
fn warm_up(rate: u32) -> u64 {
    u64::from(rate)
}

pub(super) async fn run(sys: &Sys, place: &Place, arguments: &Arguments) -> Result<Value, Failure> {
    let mut target = place.prepare(sys).await?;
    let topic = target.topic(1, arguments.caching).await?;
    let timed = u64::from(arguments.rate) * arguments.duration.unsigned_abs() / 1000;
    let total = warm_up(arguments.rate) + timed;
    let base = sys.clock.now();
    let (sent, received) = tokio::join!(
        send(sys, &target, &topic, arguments, base, total),
        receive(sys, &target, &topic, base, warm_up(arguments.rate), total)
    );
    let ack = sent?;
    let latency = received?;
    let figures = json!({
        "workload": "end-to-end", "transport": target.transport(), "rate": arguments.rate,
        "value_bytes": arguments.size, "partitions": 1, "compression": "none",
        "acks": match arguments.acks { Acks::All => "all", Acks::Leader => "1", Acks::None => "0" },
        // A consumer sees a record once it is synced, unless the topic caches writes.
        "synced": !arguments.caching,
        "latency_ms": latency.figures(), "send_late_ms": ack.figures(),
    });
    target.finish().await?;
    Ok(figures)
}

/// Sends at the rate; answers how late each left against the plan.
async fn send(
    sys: &Sys,
    target: &Target,
    topic: &str,
    arguments: &Arguments,
    base: Instant,
    total: u64,
) -> Result<Histogram, Failure> {
    let config = ProducerConfig {
        acks: arguments.acks,
        linger: Duration::ZERO,
        ..ProducerConfig::default()
    };
    let producer = target.client.producer(config)?;
    let to = producer.topic(topic).await?;
    let mut value = vec![0_u8; arguments.size.max(8) as usize];
    let mut late = Histogram::new();
    let pause = Duration::from_secs(1) / arguments.rate.max(1);
    let begin = sys.clock.now();
    for index in 0..total {
        let due = begin + pause * u32::try_from(index).unwrap_or(u32::MAX);
        sys.clock.sleep_until(due).await;
        let now = sys.clock.now();
        late.record(now.saturating_duration_since(due));
        let ns = now.saturating_duration_since(base).as_nanos() as u64;
        value[..8].copy_from_slice(&ns.to_le_bytes());
        to.send(Record::value(&value)).await?;
    }
    producer.close().await;
    Ok(late)
}

async fn receive(
    sys: &Sys,
    target: &Target,
    topic: &str,
    base: Instant,
    warm_up: u64,
    total: u64,
) -> Result<Histogram, Failure> {
    let mut consumer = target.client.consumer(ConsumerConfig::default())?;
    consumer.assign_all(topic, Start::Earliest).await?;
    let mut histogram = Histogram::new();
    for index in 0..total {
        let record = consumer.next().await?;
        let now = sys.clock.now();
        let stamp = record.value.as_ref().and_then(|value| value.first_chunk::<8>());
        let sent = stamp.map(|stamp| base + Duration::from_nanos(u64::from_le_bytes(*stamp)));
        let sent = sent.ok_or_else(|| Failure::new("a record came back shorter than it was"))?;
        if index >= warm_up {
            histogram.record(now.saturating_duration_since(sent));
        }
    }
    consumer.close().await;
    Ok(histogram)
}
