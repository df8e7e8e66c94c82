//! `bench startup`: from the start of the process to its ready line, with nothing and after a kill with many partitions; and
//! how large the binary is.

use std::path::Path;

use headwater_sdk::protocol::ids::PartitionIndex;
use headwater_sdk::{NewTopic, ProducerConfig, Record};
use serde_json::{Value, json};

use super::target::{Carrier, connect};
use super::{median, rounded};
use crate::cli::child::{Folder, NodeProcess};
use crate::cli::failure::Failure;
use crate::sys::Sys;
use crate::sys::disk::{Disk as _, Open, os::OsDisk};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Partitions of the second case
    #[arg(long, value_name = "N", default_value = "1000")]
    partitions: i32,
    /// Starts of each case; the middle one is told
    #[arg(long, value_name = "N", default_value = "7")]
    starts: usize,
}

/// Records in each partition: enough that a log has something to recover.
const RECORDS: usize = 20;

pub(super) async fn run(sys: &Sys, arguments: &Arguments) -> Result<Value, Failure> {
    let folder = Folder::new(sys)?;
    let mut empty = Vec::new();
    for start in 0..arguments.starts.max(1) {
        let node = NodeProcess::start(sys, &folder.path().join(format!("empty-{start}")), &[]).await?;
        empty.push(node.started_in.as_secs_f64() * 1e3);
        node.stop().await?;
    }
    let full = folder.path().join("full");
    fill(sys, &full, arguments.partitions).await?;
    let mut after_kill = Vec::new();
    for _ in 0..arguments.starts.max(1) {
        let node = NodeProcess::start(sys, &full, &[]).await?;
        after_kill.push(node.started_in.as_secs_f64() * 1e3);
        node.kill().await?;
    }
    Ok(json!({
        "workload": "startup", "starts": arguments.starts,
        "empty_ms": rounded(median(empty)),
        "partitions": arguments.partitions, "after_kill_ms": rounded(median(after_kill)),
        "binary_bytes": binary_bytes(),
    }))
}

/// Makes the partitions, puts something into each, and kills the node.
async fn fill(sys: &Sys, data: &Path, partitions: i32) -> Result<(), Failure> {
    let node = NodeProcess::start(sys, data, &[]).await?;
    let client = connect(&node, Carrier::Tcp).await?;
    client
        .admin()
        .create_topic(&NewTopic::new("many", partitions))
        .await?;
    let producer = client.producer(ProducerConfig::default())?;
    let to = producer.topic("many").await?;
    for _ in 0..RECORDS {
        for partition in 0..partitions {
            to.send(Record::value("something to recover").partition(PartitionIndex(partition)))
                .await?;
        }
    }
    producer.close().await;
    client.close().await;
    node.kill().await
}

fn binary_bytes() -> Option<u64> {
    let path = std::env::current_exe().ok()?;
    OsDisk::new(Path::new(""))
        .open(&path, Open::Read)
        .ok()?
        .bytes()
        .ok()
}
