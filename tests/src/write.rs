//! Writing numbers to a topic, with the SDK.

use std::ops::Range;

use headwater_sdk::{Client, PartitionIndex, ProducerConfig, Record};

use crate::{PATIENCE, within};

/// Writes each of the numbers to each of so many partitions. All are acknowledged on return.
pub async fn write_numbers(
    client: &Client,
    topic: &str,
    partitions: i32,
    numbers: Range<i64>,
) -> anyhow::Result<()> {
    let producer = client.producer(ProducerConfig::default())?;
    let topic = producer.topic(topic).await?;
    let mut deliveries = Vec::new();
    for number in numbers {
        let text = number.to_string();
        for partition in 0..partitions {
            let record = Record::value(&text).partition(PartitionIndex(partition));
            deliveries.push(topic.send(record).await?);
        }
    }
    for delivery in deliveries {
        within(PATIENCE, "records to be acknowledged", delivery.receipt()).await??;
    }
    producer.close().await;
    Ok(())
}
