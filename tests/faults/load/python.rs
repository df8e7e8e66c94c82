//! Clients through confluent-kafka: other people's code, in a process of its own on the clients' host.
//!
//! It owns the process. A word on its stdin ends it; what it prints is counted.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, ensure};
use headwater_tests::{checkout, python_interpreter};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;

use super::tally::Tally;

const SCRIPT: &str = "tests/faults/scripts/client.py";

/// What the script is to do; its numbers go to different counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Produce { rate: u64, record_bytes: usize },
    Consume,
}

/// What the script is started with.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) task: Task,
    pub(crate) name: String,
    pub(crate) history: PathBuf,
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) partitions: u32,
}

/// Runs the script until told to stop, and then to its end.
pub(crate) async fn run(
    order: Order,
    tally: Arc<Tally>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let Order {
        task, name, topic, ..
    } = &order;
    let (command, last) = match task {
        Task::Produce { rate, record_bytes } => ("produce", format!("{rate},{record_bytes}")),
        Task::Consume => ("consume", String::new()),
    };
    let mut child = Command::new(python_interpreter())
        .arg(checkout().join(SCRIPT))
        .args([
            command,
            name,
            &order.bootstrap,
            topic,
            &order.partitions.to_string(),
            &last,
        ])
        .arg(&order.history)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("python is missing: `cargo xtask faults` installs what it needs")?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
    let mut counted = 0;
    let mut is_told = false;
    loop {
        let line = tokio::select! {
            biased;
            () = async { let _ = stop.wait_for(|stop| *stop).await; }, if !is_told => {
                is_told = true;
                stdin.write_all(b"end\n").await?;
                continue;
            }
            line = lines.next_line() => line?,
        };
        match line.as_deref().and_then(|line| line.split_once(' ')) {
            Some(("count", number)) => {
                let count: u64 = number.parse()?;
                let more = count.saturating_sub(counted);
                match task {
                    Task::Produce { .. } => tally.add_acknowledged(more),
                    Task::Consume => tally.add_read(more),
                }
                counted = count;
            }
            Some((_, why)) => tally.error(&format!("{name}: {why}")),
            None if line.is_some() => {}
            None => break,
        }
    }
    let status = child.wait().await?;
    ensure!(status.success(), "{name} ended with {status}");
    ensure!(is_told, "{name} ended before it was told to");
    Ok(())
}
