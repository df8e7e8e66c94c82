//! Producing as fast as it goes: what several workloads begin with.
//!
//! Owns the flags of a load and its words in the figures.

use std::time::Duration;

use headwater_sdk::protocol::ids::PartitionIndex;
use headwater_sdk::protocol::record::Compression;
use headwater_sdk::{Acks, Client, Deliveries, ProducerConfig, Record};
use serde_json::{Value, json};

use super::rounded;
use crate::cli::failure::Failure;
use crate::cli::produce::{acks, codec};
use crate::cli::units;
use crate::sys::Sys;

/// Where values are cut from: bytes that no codec shrinks, the same at every run.
const POOL_BYTES: usize = 1 << 20;

/// Flags that say what is produced, and how.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Load {
    /// How many records
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub(super) records: usize,
    /// How large each value is
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = units::bytes)]
    pub(super) size: u64,
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) partitions: i32,
    /// Deal the records to the partitions in turn, as keys do, instead of a batch to each
    #[arg(long)]
    pub(super) spread: bool,
    /// Records handed to the producer at once
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(super) chunk: usize,
    /// How large a batch grows [default: about 1000 records, at most 1 MB]
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    pub(super) batch_bytes: Option<u64>,
    /// Batches of a partition under way at once
    #[arg(long, value_name = "N", default_value = "5")]
    pub(super) in_flight: usize,
    /// What a record must have reached: all, 1 or 0
    #[arg(long, value_name = "ACKS", default_value = "all", value_parser = acks)]
    pub(super) acks: Acks,
    /// How batches are compressed
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = codec)]
    pub(super) compression: Compression,
    /// Acknowledge from memory: the topic gets write.caching=true
    #[arg(long)]
    pub(super) caching: bool,
}

/// How long a load took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loaded {
    pub(super) records: usize,
    pub(super) bytes: u64,
    pub(super) took: Duration,
}

impl Loaded {
    pub(super) fn records_per_second(&self) -> f64 {
        self.records as f64 / self.took.as_secs_f64()
    }

    pub(super) fn figures(&self) -> Value {
        json!({
            "records": self.records,
            "seconds": rounded(self.took.as_secs_f64()),
            "records_per_second": rounded(self.records_per_second()),
            "mb_per_second": rounded(self.bytes as f64 / 1e6 / self.took.as_secs_f64()),
        })
    }
}

impl Load {
    pub(super) fn producer(&self) -> ProducerConfig {
        let usual = ((self.size + 20) * 1000).clamp(16 << 10, 1_000_000);
        ProducerConfig {
            acks: self.acks,
            batch_bytes: self.batch_bytes.unwrap_or(usual) as usize,
            compression: self.compression,
            in_flight_max: self.in_flight,
            buffer_memory: 64 << 20,
            ..ProducerConfig::default()
        }
    }

    /// What was asked of the brokers, for the figures.
    pub(super) fn words(&self) -> Value {
        let acks = match self.acks {
            Acks::All => "all",
            Acks::Leader => "1",
            Acks::None => "0",
        };
        json!({
            "acks": acks,
            "synced": self.acks == Acks::All && !self.caching,
            "compression": self.compression.name(),
            "value_bytes": self.size,
            "partitions": self.partitions,
            "spread": self.spread,
            "batch_bytes": self.producer().batch_bytes,
            "in_flight_batches": self.in_flight,
        })
    }

    /// Produces everything; the time ends with the last acknowledgement.
    pub(super) async fn run(&self, sys: &Sys, client: &Client, topic: &str) -> Result<Loaded, Failure> {
        let pool = pool();
        let size = usize::try_from(self.size)
            .unwrap_or(usize::MAX)
            .min(POOL_BYTES / 2);
        let record = |index: usize| {
            let at = index.wrapping_mul(61) % (POOL_BYTES - size);
            let record = Record::value(&pool[at..at + size]);
            if !self.spread {
                return record;
            }
            record.partition(turn(index, self.partitions))
        };
        let bytes = (size * self.records) as u64;
        let config = self.producer();
        let took = send(sys, client, topic, config, self.chunk, self.records, record).await?;
        Ok(Loaded {
            records: self.records,
            bytes,
            took,
        })
    }
}

/// Whose turn it is when records are dealt to the partitions.
pub(super) fn turn(index: usize, partitions: i32) -> PartitionIndex {
    let partitions = usize::try_from(partitions).unwrap_or(1).max(1);
    PartitionIndex(i32::try_from(index % partitions).expect("below the number of partitions"))
}

/// One record for each partition.
pub(super) fn round(value: &str, partitions: i32) -> Vec<Record<'_>> {
    let all = 0..usize::try_from(partitions).unwrap_or(0);
    all.map(|index| Record::value(value).partition(turn(index, partitions)))
        .collect()
}

/// Produces so many records, `chunk` at once.
pub(super) async fn send<'a>(
    sys: &Sys,
    client: &Client,
    topic: &str,
    config: ProducerConfig,
    chunk: usize,
    records: usize,
    record: impl Fn(usize) -> Record<'a>,
) -> Result<Duration, Failure> {
    let producer = client.producer(config)?;
    let to = producer.topic(topic).await?;
    let mut deliveries: Vec<Deliveries> = Vec::with_capacity(records.div_ceil(chunk));
    let mut batch: Vec<Record<'_>> = Vec::with_capacity(chunk);
    let began = sys.clock.now();
    let mut at = 0;
    while at < records {
        let end = (at + chunk).min(records);
        batch.clear();
        batch.extend((at..end).map(&record));
        deliveries.push(to.send_all(&batch).await?);
        at = end;
    }
    producer.flush().await;
    let took = sys.clock.now().saturating_duration_since(began);
    for delivery in &deliveries {
        delivery.all().await?;
    }
    producer.close().await;
    Ok(took)
}

/// Bytes by xorshift from a fixed seed.
pub(super) fn pool() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(POOL_BYTES);
    while bytes.len() < POOL_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Puts the entries of one object into another.
pub(super) fn join(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
