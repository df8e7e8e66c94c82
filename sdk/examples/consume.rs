//! Prints a topic from its beginning, and goes on with what comes, until interrupted.
//!
//! ```text
//! cargo run -p headwater-sdk --example consume -- quic://localhost:9092 flights
//! ```
#![allow(clippy::print_stdout, reason = "it is a program for the terminal")]

use anyhow::Context;
use headwater_sdk::{Batch, Client, Config, ConsumerConfig, Start, Trust};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().context("usage: consume BOOTSTRAP TOPIC")?;
    let topic = arguments.next().context("usage: consume BOOTSTRAP TOPIC")?;

    let config = Config::new(&bootstrap)?.with_trust(Trust::SkipVerification);
    let client = Client::connect(config).await?;
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    consumer.assign_all(&topic, Start::Earliest).await?;

    loop {
        tokio::select! {
            batch = consumer.next_batch() => print(&batch?)?,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    consumer.close().await;
    client.close().await;
    Ok(())
}

fn print(batch: &Batch) -> anyhow::Result<()> {
    for record in batch.records()?.iter() {
        let record = record?;
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or_else(String::new, |b| String::from_utf8_lossy(b).into_owned())
        };
        println!(
            "{}:{}\t{}\t{}",
            batch.partition(),
            record.offset,
            text(record.key),
            text(record.value)
        );
    }
    Ok(())
}
