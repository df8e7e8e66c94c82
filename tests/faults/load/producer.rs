//! A producer of ours: sends numbered records at a steady rate, and writes down what it was told of each.
//!
//! It owns its sequence numbers. It never sends a record again itself, and never gives one up before it is told to end:
//! retries are the client library's, and what it says is what is judged.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use headwater_checker::Kind;
use headwater_sdk::{Client, Delivery, PartitionIndex, ProducerConfig, Record, TopicProducer};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::history::{History, now};
use super::tally::Tally;
use super::value::Named;

/// Between two bursts.
const TICK: Duration = Duration::from_millis(10);
/// Records of one partition that may wait for their outcome; at the limit the producer waits.
const WAITING_MAX: usize = 2_000;
/// Nothing is given up while a run lasts.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(3600);

/// What a producer is to do.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) partitions: u32,
    /// Records in a second, over all partitions.
    pub(crate) rate: u64,
    pub(crate) record_bytes: usize,
}

struct Sent {
    sequence: u64,
    invoked: u64,
    delivery: Delivery,
}

/// Sends until told to stop, then waits for every outcome.
pub(crate) async fn run(
    client: Client,
    order: Order,
    history: History,
    tally: Arc<Tally>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let config = ProducerConfig {
        delivery_timeout: DELIVERY_TIMEOUT,
        ..ProducerConfig::default()
    };
    let producer = client.producer(config)?;
    let topic = producer.topic(&order.topic).await?;
    let mut lanes = Vec::new();
    let mut outcomes = JoinSet::new();
    for partition in 0..order.partitions {
        let (lane, sent) = mpsc::channel(WAITING_MAX);
        lanes.push((lane, 0_u64));
        outcomes.spawn(write_outcomes(
            partition,
            sent,
            history.clone(),
            Arc::clone(&tally),
        ));
    }

    let mut ticks = tokio::time::interval(TICK);
    // After a stall the rate is what it was: a burst of all that was missed would be another load.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut owed, mut turn) = (0.0, 0);
    while !*stop.borrow() {
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            _ = ticks.tick() => owed += order.rate as f64 * TICK.as_secs_f64(),
        }
        while owed >= 1.0 {
            owed -= 1.0;
            let partition = turn % order.partitions;
            turn = turn.wrapping_add(1);
            let (lane, sequence) = &mut lanes[partition as usize];
            // A partition without a leader holds up its own records, not those of others.
            let Ok(place) = lane.try_reserve() else { continue };
            place.send(send(&topic, &order, (partition, *sequence), &history).await?);
            *sequence += 1;
        }
    }
    drop(lanes);
    while let Some(ended) = outcomes.join_next().await {
        ended??;
    }
    producer.close().await;
    client.close().await;
    history.flush()
}

async fn send(
    topic: &TopicProducer,
    order: &Order,
    (partition, sequence): (u32, u64),
    history: &History,
) -> anyhow::Result<Sent> {
    let value = Named {
        producer: &order.name,
        partition,
        sequence,
    }
    .value(order.record_bytes);
    let invoked = now();
    history.event(Kind::Invoke, partition, |event| {
        (event.sequence, event.at) = (Some(sequence), Some(invoked))
    })?;
    let index = PartitionIndex(i32::try_from(partition)?);
    let delivery = topic
        .send(Record::value(&value).partition(index))
        .await
        .context("a record was not taken")?;
    Ok(Sent {
        sequence,
        invoked,
        delivery,
    })
}

/// Writes the outcomes of one partition's records, in the order in which they were sent.
async fn write_outcomes(
    partition: u32,
    mut sent: mpsc::Receiver<Sent>,
    history: History,
    tally: Arc<Tally>,
) -> anyhow::Result<()> {
    let silence = tally.silence();
    while let Some(Sent {
        sequence,
        invoked,
        delivery,
    }) = sent.recv().await
    {
        let outcome = delivery.receipt().await;
        let at = now();
        let (kind, offset) = match &outcome {
            Ok(receipt) => (
                Kind::Ok,
                receipt
                    .offset
                    .and_then(|offset| u64::try_from(offset.value()).ok()),
            ),
            Err(why) if why.maybe_written() => (Kind::Unknown, None),
            Err(_) => (Kind::Fail, None),
        };
        history.event(kind, partition, |event| {
            (event.sequence, event.offset, event.at) = (Some(sequence), offset, Some(at));
        })?;
        match outcome {
            Ok(_) => {
                silence.acknowledge(at);
                tally.acknowledge(partition, invoked, at);
            }
            Err(why) => tally.refuse(&why.to_string()),
        }
    }
    silence.end();
    Ok(())
}
