//! Writes lines from standard input to a topic, and says where each went.
//!
//! ```text
//! cargo run -p headwater-sdk --example produce -- quic://localhost:9092 flights
//! ```
#![allow(clippy::print_stdout, reason = "it is a program for the terminal")]

use anyhow::Context;
use headwater_sdk::{Client, Config, Delivery, ProducerConfig, Record, Trust};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Records that may be on their way before the oldest is waited for.
const AHEAD: usize = 1000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().context("usage: produce BOOTSTRAP TOPIC")?;
    let topic = arguments.next().context("usage: produce BOOTSTRAP TOPIC")?;

    let config = Config::new(&bootstrap)?.with_trust(Trust::SkipVerification);
    let client = Client::connect(config).await?;
    let producer = client.producer(ProducerConfig::default())?;
    let topic = producer.topic(&topic).await?;

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut ahead = std::collections::VecDeque::with_capacity(AHEAD);
    while let Some(line) = lines.next_line().await? {
        // A key before a tab, if there is one: records of one key stay in order.
        let record = match line.split_once('\t') {
            Some((key, value)) => Record::value(value).key(key),
            None => Record::value(&line),
        };
        ahead.push_back(topic.send(record).await?);
        if ahead.len() == AHEAD
            && let Some(oldest) = ahead.pop_front()
        {
            report(&oldest).await?;
        }
    }
    producer.flush().await;
    for delivery in &ahead {
        report(delivery).await?;
    }
    producer.close().await;
    client.close().await;
    Ok(())
}

async fn report(delivery: &Delivery) -> anyhow::Result<()> {
    let receipt = delivery.receipt().await?;
    let offset = receipt
        .offset
        .map_or_else(|| "?".to_owned(), |offset| offset.to_string());
    println!("{} {offset}", receipt.partition);
    Ok(())
}
