//! Producing the demo's data with the SDK.

use headwater_sdk::protocol::record::Compression;
use headwater_sdk::{Client, ProducerConfig, Record};

use super::data::{Airport, Flight};
use super::pipeline::{AIRPORTS, FLIGHTS};
use crate::cli::failure::Failure;

/// Records handed over at once.
const CHUNK: usize = 1000;

/// Fills the table of airports.
pub(super) async fn airports(client: &Client, airports: &[Airport]) -> Result<(), Failure> {
    let records: Vec<_> = airports
        .iter()
        .map(|airport| Record::value(&airport.json).key(&airport.code))
        .collect();
    send(client, AIRPORTS, &records).await
}

/// Produces the flights, keyed by origin, at the time they left.
pub(super) async fn flights<'a>(client: &Client, flights: &'a [Flight]) -> Result<(), Failure> {
    let record = |flight: &'a Flight| {
        Record::value(&flight.json)
            .key(&flight.origin)
            .timestamp_ms(flight.at_ms)
    };
    let records: Vec<Record<'a>> = flights.iter().map(record).collect();
    send(client, FLIGHTS, &records).await
}

async fn send(client: &Client, topic: &str, records: &[Record<'_>]) -> Result<(), Failure> {
    let producer = client.producer(ProducerConfig {
        compression: Compression::Lz4,
        ..ProducerConfig::default()
    })?;
    let to = producer.topic(topic).await?;
    let mut deliveries = Vec::new();
    for chunk in records.chunks(CHUNK) {
        deliveries.push(to.send_all(chunk).await?);
    }
    for delivery in &deliveries {
        delivery.all().await?;
    }
    producer.close().await;
    Ok(())
}
