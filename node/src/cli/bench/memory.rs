//! `bench memory`: what a node holds when it is idle, and when a lot has gone through a module.

use std::convert::Infallible;
use std::time::Duration;

use headwater_sdk::{Client, NewTopic};
use serde_json::{Value, json};

use super::load::{Load, Loaded};
use super::rounded;
use super::target::{Carrier, connect};
use crate::cli::builtin;
use crate::cli::child::{Folder, NodeProcess};
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::cli::module::upload;
use crate::sys::Sys;

/// What a node is given to settle before it counts as idle.
const SETTLE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(300);
/// How often the node's memory is looked at under load.
const LOOK: Duration = Duration::from_millis(100);
/// How many of those figures are told: enough to see whether it grows.
const POINTS: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    load: Load,
}

pub(super) async fn run(sys: &Sys, arguments: &Arguments) -> Result<Value, Failure> {
    let folder = Folder::new(sys)?;
    let data = folder.path().join("node");
    let node = NodeProcess::start(sys, &data, &[]).await?;
    sys.clock.sleep(SETTLE).await;
    let idle = node.memory();
    let client = connect(&node, Carrier::Tcp).await?;
    let http = node.api()?;
    for name in ["in", "out"] {
        client
            .admin()
            .create_topic(&NewTopic::new(name, arguments.load.partitions).with("retention.ms", "-1"))
            .await?;
    }
    let module = upload(&http, builtin::component("filter")?, None, None).await?;
    let spec = json!({
        "name": "pass", "module": { "name": "filter", "version": module["version"] }, "params": { "where": "true" },
        "source": "in", "sinks": ["out"], "start": "earliest",
    });
    http.post("/transforms", &spec).await?;
    let mut series = Vec::new();
    let loaded = {
        let passing = pass(sys, &client, &http, &arguments.load);
        tokio::select! {
            passed = passing => passed?,
            never = look(sys, &node, &mut series) => match never {},
        }
    };
    let loaded_memory = node.memory();
    client.close().await;
    sys.clock.sleep(SETTLE).await;
    let after = node.memory();
    node.stop().await?;
    Ok(json!({
        "workload": "memory", "records": loaded.records, "value_bytes": arguments.load.size,
        "idle_bytes": idle.map(|memory| memory.resident_bytes),
        "series_mb": thinned(&series), "series_seconds": rounded(LOOK.as_secs_f64() * series.len() as f64),
        "loaded_bytes": loaded_memory.map(|memory| memory.resident_bytes),
        "peak_bytes": loaded_memory.map(|memory| memory.peak_bytes),
        "after_bytes": after.map(|memory| memory.resident_bytes),
    }))
}

/// Produces the load, and waits until the filter has passed all of it on.
async fn pass(sys: &Sys, client: &Client, http: &Http, load: &Load) -> Result<Loaded, Failure> {
    let loaded = load.run(sys, client, "in").await?;
    let deadline = sys.clock.now() + PATIENCE;
    loop {
        let status = http.get("/transforms/pass").await?;
        if status["totals"]["records_out"]
            .as_u64()
            .is_some_and(|out| out >= loaded.records as u64)
        {
            return Ok(loaded);
        }
        if sys.clock.now() >= deadline {
            return Err(Failure::new(format!(
                "the filter did not keep up: {}",
                status["totals"]
            )));
        }
        sys.clock.sleep(Duration::from_millis(100)).await;
    }
}

/// Looks at the node's memory again and again.
async fn look(sys: &Sys, node: &NodeProcess, series: &mut Vec<u64>) -> Infallible {
    loop {
        series.extend(node.memory().map(|memory| memory.resident_bytes));
        sys.clock.sleep(LOOK).await;
    }
}

/// The largest figure of each of so many equal parts, in megabytes.
fn thinned(series: &[u64]) -> Vec<f64> {
    let part = series.len().div_ceil(POINTS).max(1);
    let largest = series.chunks(part).filter_map(|part| part.iter().max());
    largest.map(|bytes| rounded(*bytes as f64 / 1e6)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_keeps_its_peaks() {
        assert!(thinned(&[]).is_empty());
        assert_eq!(thinned(&[1_000_000, 3_000_000]), [1.0, 3.0]);
        let long: Vec<u64> = (1..=50).map(|number| number * 1_000_000).collect();
        let thin = thinned(&long);
        assert_eq!((thin.len(), thin[0], thin[16]), (17, 3.0, 50.0));
    }
}
