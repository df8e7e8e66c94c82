//! Prints a member's share of a topic until interrupted. Started twice, the two divide the partitions.
//!
//! ```text
//! cargo run -p headwater-sdk --example group -- quic://localhost:9092 flights readers
//! ```
#![allow(clippy::print_stdout, reason = "it is a program for the terminal")]

use anyhow::Context;
use headwater_sdk::{Client, Config, GroupConfig, Trust};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("usage: group BOOTSTRAP TOPIC GROUP");
    let (bootstrap, topic, group) = (argument()?, argument()?, argument()?);

    let config = Config::new(&bootstrap)?.with_trust(Trust::SkipVerification);
    let client = Client::connect(config).await?;
    let mut consumer = client.group_consumer(GroupConfig::new(&group, [topic]))?;
    loop {
        tokio::select! {
            record = consumer.next() => {
                let record = record?;
                let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
                println!("{}:{}\t{value}", record.partition, record.offset);
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    // Commits what was printed, and leaves, so that the others need not wait for it.
    consumer.close().await?;
    client.close().await;
    Ok(())
}
