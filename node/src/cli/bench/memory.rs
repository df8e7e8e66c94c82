//! `bench memory`: what a node holds when it is idle, and when a lot has gone through a module.

use std::time::Duration;

use headwater_sdk::NewTopic;
use serde_json::{Value, json};

use super::load::Load;
use super::target::{Carrier, connect};
use crate::cli::builtin;
use crate::cli::child::{Folder, NodeProcess};
use crate::cli::failure::Failure;
use crate::cli::module::upload;
use crate::sys::Sys;

/// What a node is given to settle before it counts as idle.
const SETTLE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    load: Load,
}

pub(super) async fn run(sys: &Sys, arguments: &Arguments) -> Result<Value, Failure> {
    let folder = Folder::new(sys)?;
    let data = folder.path().join("node");
    // The first start compiles the modules that ship with the node; from the second on they are there.
    let node = NodeProcess::start(sys, &data, &[]).await?;
    sys.clock.sleep(SETTLE).await;
    let first = node.memory();
    node.stop().await?;
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
    let loaded = arguments.load.run(sys, &client, "in").await?;
    let deadline = sys.clock.now() + PATIENCE;
    loop {
        let status = http.get("/transforms/pass").await?;
        if status["totals"]["records_out"]
            .as_u64()
            .is_some_and(|out| out >= loaded.records as u64)
        {
            break;
        }
        if sys.clock.now() >= deadline {
            return Err(Failure::new(format!(
                "the filter did not keep up: {}",
                status["totals"]
            )));
        }
        sys.clock.sleep(Duration::from_millis(100)).await;
    }
    let loaded_memory = node.memory();
    client.close().await;
    sys.clock.sleep(SETTLE).await;
    let after = node.memory();
    node.stop().await?;
    Ok(json!({
        "workload": "memory", "records": loaded.records, "value_bytes": arguments.load.size,
        "first_start_bytes": first.map(|memory| memory.resident_bytes),
        "idle_bytes": idle.map(|memory| memory.resident_bytes),
        "loaded_bytes": loaded_memory.map(|memory| memory.resident_bytes),
        "peak_bytes": loaded_memory.map(|memory| memory.peak_bytes),
        "after_bytes": after.map(|memory| memory.resident_bytes),
    }))
}
