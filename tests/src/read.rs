//! Reading a topic from its beginning to its end, with the SDK.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use headwater_sdk::{
    Client, Config, Consumer, ConsumerConfig, ConsumerRecord, Isolation, Offset, OffsetSpec, PartitionIndex,
    Start, Trust,
};

use crate::{Node, PATIENCE};

/// How often the position is looked at while no record comes.
const LOOK: Duration = Duration::from_millis(50);

/// A client of a node over QUIC, which trusts whoever answers.
pub async fn client(node: &Node) -> anyhow::Result<Client> {
    let config = Config::new(&format!("quic://{}", node.addresses.quic))?;
    Ok(Client::connect(config.with_trust(Trust::SkipVerification)).await?)
}

/// Every record of a topic that is in no transaction, or in one that is committed, partition by partition in the order of offsets.
pub async fn read_all(client: &Client, topic: &str) -> anyhow::Result<Vec<ConsumerRecord>> {
    let ends = ends(client, topic).await?;
    let mut consumer = client.consumer(ConsumerConfig {
        isolation: Isolation::ReadCommitted,
        ..ConsumerConfig::default()
    })?;
    consumer.assign_all(topic, Start::Earliest).await?;
    let (mut records, mut silent_since) = (Vec::new(), Instant::now());
    while !is_read(&consumer, topic, &ends) {
        match tokio::time::timeout(LOOK, consumer.next()).await {
            Ok(record) => {
                silent_since = Instant::now();
                records.push(record?);
            }
            // Marks of transactions that stand last move the position, and are no records.
            Err(_) => ensure!(
                silent_since.elapsed() < PATIENCE,
                "{topic} gave no more records for {PATIENCE:?}, and is not read to its end"
            ),
        }
    }
    consumer.close().await;
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

async fn ends(client: &Client, topic: &str) -> anyhow::Result<Vec<(PartitionIndex, Offset)>> {
    let described = client.admin().describe_topic(topic).await?;
    let places: Vec<_> = (0..)
        .take(described.partitions.len())
        .map(|index| (PartitionIndex(index), OffsetSpec::Latest))
        .collect();
    let listed = client
        .admin()
        .list_offsets(topic, &places, Isolation::ReadCommitted)
        .await?;
    listed
        .iter()
        .map(|(index, listed)| Ok((*index, listed.offset.context("a partition has an end")?)))
        .collect()
}

fn is_read(consumer: &Consumer, topic: &str, ends: &[(PartitionIndex, Offset)]) -> bool {
    let reached = |(index, end): &(PartitionIndex, Offset)| {
        *end == Offset(0) || consumer.position(topic, *index).is_some_and(|at| at >= *end)
    };
    ends.iter().all(reached)
}
