//! Copies a topic to another one in capitals, each record exactly once, until interrupted: kill it and start it again.
//!
//! ```text
//! cargo run -p headwater-sdk --example transform -- quic://localhost:9092 words shouts shouter-1
//! ```
#![allow(clippy::print_stdout, reason = "it is a program for the terminal")]

use std::collections::BTreeMap;

use anyhow::Context;
use headwater_sdk::{
    Batch, Client, Config, GroupConfig, GroupMetadata, Isolation, Producer, ProducerConfig, Record,
    TransactionError, Trust,
};

const GROUP: &str = "shouting";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("usage: transform BOOTSTRAP FROM TO ID");
    let (bootstrap, from, to, id) = (argument()?, argument()?, argument()?, argument()?);

    let config = Config::new(&bootstrap)?.with_trust(Trust::SkipVerification);
    let client = Client::connect(config).await?;
    let producer = client.producer(ProducerConfig {
        // Another process that works beside this one has another.
        transactional_id: Some(id),
        ..ProducerConfig::default()
    })?;
    let mut group = GroupConfig::new(GROUP, [from]);
    // Offsets are committed by the producer alone, together with what was made of the records.
    group.auto_commit = None;
    group.consumer.isolation = Isolation::ReadCommitted;
    let mut consumer = client.group_consumer(group)?;
    loop {
        let batch = tokio::select! {
            batch = consumer.next_batch() => batch?,
            _ = tokio::signal::ctrl_c() => break,
        };
        // As whom the batch was read: if the group moves its partition meanwhile, the transaction is not committed.
        let reader = consumer.group_metadata();
        producer.begin().await?;
        let done = match shout(&producer, &to, &batch).await {
            Ok(()) => commit(&producer, &batch, &reader).await,
            Err(why) => Err(why),
        };
        match done {
            Ok(()) => println!("{} up to {}", batch.topic_partition(), batch.next_offset()),
            Err(why) if why.downcast_ref().is_some_and(TransactionError::is_fatal) => return Err(why),
            Err(why) => {
                println!("once more, because {why:#}");
                producer.abort().await?;
                consumer.rewind().await?;
            }
        }
    }
    producer.close().await;
    consumer.close().await?;
    client.close().await;
    Ok(())
}

async fn shout(producer: &Producer, to: &str, batch: &Batch) -> anyhow::Result<()> {
    for record in batch.records()?.iter() {
        let record = record?;
        let value = record.value.unwrap_or_default().to_ascii_uppercase();
        let shouted = match record.key {
            Some(key) => Record::value(&value).key(key),
            None => Record::value(&value),
        };
        // What becomes of it the commit says: it waits for all of them.
        producer.send(to, shouted).await?;
    }
    Ok(())
}

async fn commit(producer: &Producer, batch: &Batch, reader: &GroupMetadata) -> anyhow::Result<()> {
    let read = BTreeMap::from([(batch.topic_partition().clone(), batch.next_offset())]);
    producer.send_offsets(reader, &read).await?;
    Ok(producer.commit().await?)
}
