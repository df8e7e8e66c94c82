//! `bench mirror`: an edge and a core on this machine, a topic between them: live, then as a backlog; bytes on the wire
//! against bytes of records.

use std::time::Duration;

use headwater_sdk::NewTopic;
use serde_json::{Value, json};

use super::load::{Load, join};
use super::rounded;
use super::target::{Carrier, connect};
use crate::cli::child::{Folder, NodeProcess};
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::sys::Sys;

const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(5);
const SITE: &str = "edge";
const TOPIC: &str = "mirrored";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    load: Load,
}

pub(super) async fn run(sys: &Sys, arguments: &Arguments) -> Result<Value, Failure> {
    let folder = Folder::new(sys)?;
    let core = NodeProcess::start(sys, &folder.path().join("core"), &[]).await?;
    let edge = NodeProcess::start(sys, &folder.path().join("edge"), &[]).await?;
    let (core_api, edge_api) = (core.api()?, edge.api()?);
    let client = connect(&edge, Carrier::Quic).await?;
    let load = &arguments.load;
    let mut topic = NewTopic::new(TOPIC, load.partitions).with("retention.ms", "-1");
    if load.caching {
        topic = topic.with("write.caching", "true");
    }
    client.admin().create_topic(&topic).await?;
    let flow = json!({ "direction": "up", "mode": "mirror", "topics": [TOPIC] });
    let invitation = json!({ "name": SITE, "core": core.quic, "flows": [flow] });
    let made = core_api.post("/sites/invitations", &invitation).await?;
    edge_api
        .post("/sites/enrol", &json!({ "token": made["token"] }))
        .await?;

    let warm_up = load.records / 10;
    Load {
        records: warm_up,
        ..load.clone()
    }
    .run(sys, &client, TOPIC)
    .await?;
    copied(sys, &core_api, warm_up as i64).await?;
    let before = wire(&edge_api, &core_api).await?;

    let began = sys.clock.now();
    let produced = load.run(sys, &client, TOPIC).await?;
    copied(sys, &core_api, (warm_up + load.records) as i64).await?;
    let live = sys.clock.now().saturating_duration_since(began);

    core_api
        .post(&format!("/links/{SITE}/pause"), &Value::Null)
        .await?;
    load.run(sys, &client, TOPIC).await?;
    let began = sys.clock.now();
    core_api
        .post(&format!("/links/{SITE}/resume"), &Value::Null)
        .await?;
    copied(sys, &core_api, (warm_up + 2 * load.records) as i64).await?;
    let backlog = sys.clock.now().saturating_duration_since(began);
    let after = wire(&edge_api, &core_api).await?;

    let mb_per_second = |took: Duration| rounded(produced.bytes as f64 / 1e6 / took.as_secs_f64());
    let mut figures = json!({ "workload": "mirror", "transport": "quic", "records": load.records });
    join(&mut figures, load.words());
    join(
        &mut figures,
        json!({
            "live_seconds": rounded(live.as_secs_f64()), "live_mb_per_second": mb_per_second(live),
            "backlog_seconds": rounded(backlog.as_secs_f64()), "backlog_mb_per_second": mb_per_second(backlog),
            "wire_bytes": after.sent - before.sent, "payload_bytes": after.stored - before.stored,
            "wire_to_payload": rounded((after.sent - before.sent) as f64 / (after.stored - before.stored).max(1) as f64),
            "core_peak_bytes": core.memory().map(|memory| memory.peak_bytes),
            "edge_peak_bytes": edge.memory().map(|memory| memory.peak_bytes),
        }),
    );
    client.close().await;
    edge.stop().await?;
    core.stop().await?;
    Ok(figures)
}

/// Waits until the core has so many records.
async fn copied(sys: &Sys, core: &Http, records: i64) -> Result<(), Failure> {
    let deadline = sys.clock.now() + PATIENCE;
    loop {
        let at = end(core).await;
        if at == records {
            return Ok(());
        }
        if at > records || sys.clock.now() >= deadline {
            return Err(Failure::new(format!(
                "the core has {at} records, expected {records}"
            )));
        }
        sys.clock.sleep(LOOK).await;
    }
}

async fn end(core: &Http) -> i64 {
    // It appears with the first records.
    let topic = core.get(&format!("/topics/{TOPIC}")).await.unwrap_or_default();
    let partitions = topic["partitions"].as_array().into_iter().flatten();
    partitions
        .filter_map(|partition| partition["high_watermark"].as_i64())
        .sum()
}

/// What the link has cost so far.
struct Wire {
    sent: i64,
    stored: i64,
}

async fn wire(edge: &Http, core: &Http) -> Result<Wire, Failure> {
    let links = edge.get("/links").await?;
    let topic = core.get(&format!("/topics/{TOPIC}")).await?;
    let partitions = topic["partitions"].as_array().into_iter().flatten();
    Ok(Wire {
        sent: links[0]["bytes_sent"].as_i64().unwrap_or(0),
        stored: partitions
            .filter_map(|partition| partition["size_bytes"].as_i64())
            .sum(),
    })
}
