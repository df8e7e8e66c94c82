//! A consumer of ours: reads every partition from its beginning and writes down what it was given.
//!
//! It owns nothing but its place. One that goes along while faults happen reads until it is told to stop; the closing one
//! reads to the end of the log as it stands when all is over.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use headwater_checker::Kind;
use headwater_sdk::{
    Batch, Client, Consumer, ConsumerConfig, Error, Isolation, Offset, OffsetSpec, PartitionIndex, Start,
};
use headwater_tests::within;
use tokio::sync::watch;

use super::history::{History, now};
use super::tally::Tally;
use super::value::Named;

/// Reads along until told to stop.
pub(crate) async fn along(
    client: Client,
    (topic, partitions): (String, u32),
    history: History,
    tally: Arc<Tally>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut consumer = begin(&client, (&topic, partitions), &history).await?;
    while !*stop.borrow() {
        let next = tokio::select! {
            biased;
            _ = stop.changed() => break,
            next = consumer.next_batch() => next,
        };
        match next {
            Ok(batch) => tally.add_read(write(&batch, &history)?),
            Err(Error::Closed) => anyhow::bail!("the consumer was closed"),
            Err(why) => tally.error(&format!("consumer: {why}")),
        }
    }
    consumer.close().await;
    client.close().await;
    history.flush()
}

/// Reads all there is, as the last witness. `patience` is for each step forward.
pub(crate) async fn closing(
    client: Client,
    (topic, partitions): (String, u32),
    history: History,
    patience: Duration,
) -> anyhow::Result<u64> {
    history.event(Kind::Closing, 0, |_| {})?;
    let places: Vec<_> = indexes(partitions)
        .map(|index| (index, OffsetSpec::Latest))
        .collect();
    let listed = client
        .admin()
        .list_offsets(&topic, &places, Isolation::ReadUncommitted)
        .await?;
    let mut ends = Vec::new();
    for (index, listed) in &listed {
        let end = listed
            .offset
            .with_context(|| format!("partition {index} has no end"))?;
        ends.push((*index, end));
        history.event(Kind::End, u32::try_from(index.0)?, |event| {
            event.offset = u64::try_from(end.value()).ok()
        })?;
    }
    let mut consumer = begin(&client, (&topic, partitions), &history).await?;
    let mut count = 0;
    while !is_read(&consumer, &topic, &ends) {
        let next = within(
            patience,
            "the next batch of the closing read",
            consumer.next_batch(),
        )
        .await?;
        count += write(&next?, &history)?;
    }
    consumer.close().await;
    client.close().await;
    history.flush()?;
    Ok(count)
}

async fn begin(
    client: &Client,
    (topic, partitions): (&str, u32),
    history: &History,
) -> anyhow::Result<Consumer> {
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    let all: Vec<PartitionIndex> = indexes(partitions).collect();
    for partition in 0..partitions {
        history.event(Kind::Start, partition, |event| event.offset = Some(0))?;
    }
    consumer.assign(topic, &all, Start::Offset(Offset(0))).await?;
    Ok(consumer)
}

fn is_read(consumer: &Consumer, topic: &str, ends: &[(PartitionIndex, Offset)]) -> bool {
    ends.iter().all(|(index, end)| {
        *end == Offset(0) || consumer.position(topic, *index).is_some_and(|at| at >= *end)
    })
}

fn indexes(partitions: u32) -> impl Iterator<Item = PartitionIndex> {
    (0..).take(partitions as usize).map(PartitionIndex)
}

/// Writes down every record of a batch; answers how many there were.
fn write(batch: &Batch, history: &History) -> anyhow::Result<u64> {
    let (partition, at) = (u32::try_from(batch.partition().0)?, now());
    let records = batch.records()?;
    let mut count = 0;
    for record in records.iter() {
        let record = record?;
        let offset = u64::try_from(record.offset.value()).ok();
        let named = record
            .value
            .and_then(Named::parse)
            .filter(|named| named.partition == partition);
        match named {
            Some(named) => history.event(Kind::Read, partition, |event| {
                (event.offset, event.at) = (offset, Some(at));
                (event.producer, event.sequence) = (Some(named.producer), Some(named.sequence));
            })?,
            None => history.event(Kind::Alien, partition, |event| {
                (event.offset, event.at) = (offset, Some(at))
            })?,
        }
        count += 1;
    }
    Ok(count)
}
