//! What the demo declares on its two nodes: topics, modules, transforms, and the link between them.
//!
//! Owns their names. Everything is asked of the nodes' HTTP API, as any user would.

use serde_json::{Value, json};

use crate::cli::builtin;
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::cli::module::upload;

pub(super) const SITE: &str = "edge";
/// Put before the names of topics that come from the edge.
const PREFIX: &str = "edge.";
const HOUR_MS: i64 = 3600 * 1000;
const PARTITIONS: u32 = 3;

pub(super) const FLIGHTS: &str = "flights";
pub(super) const AIRPORTS: &str = "airports";
pub(super) const LATE: &str = "flights-late";
pub(super) const ENRICHED: &str = "flights-enriched";
pub(super) const HOURLY: &str = "flights-hourly";
pub(super) const DELAYS: &str = "delays-hourly";

/// A topic as the core has it.
pub(super) fn at_core(topic: &str) -> String {
    format!("{PREFIX}{topic}")
}

/// Lets the edge in: an invitation from the core, used at the edge.
pub(super) async fn enrol(core: &Http, core_quic: &str, edge: &Http) -> Result<(), Failure> {
    let flow = json!({
        "direction": "up", "mode": "mirror", "topics": [ENRICHED, HOURLY], "prefix": PREFIX, "on_gap": "hold",
    });
    let invitation = json!({ "name": SITE, "core": core_quic, "flows": [flow] });
    let made = core.post("/sites/invitations", &invitation).await?;
    edge.post("/sites/enrol", &json!({ "token": made["token"] }))
        .await?;
    Ok(())
}

/// Topics at the edge. The records are of 2001: without an end to retention they would go at once.
pub(super) async fn edge_topics(edge: &Http) -> Result<(), Failure> {
    for name in [FLIGHTS, LATE, ENRICHED, HOURLY] {
        topic(edge, name, PARTITIONS, json!({ "retention.ms": "-1" })).await?;
    }
    topic(edge, AIRPORTS, 1, json!({ "cleanup.policy": "compact" })).await
}

/// Topics at the core, beside those that the link makes.
pub(super) async fn core_topics(core: &Http) -> Result<(), Failure> {
    topic(core, DELAYS, PARTITIONS, json!({ "retention.ms": "-1" })).await
}

async fn topic(http: &Http, name: &str, partitions: u32, configs: Value) -> Result<(), Failure> {
    let body = json!({ "name": name, "partitions": partitions, "replication_factor": 1, "configs": configs });
    http.post("/topics", &body)
        .await
        .map(drop)
        .map_err(|why| why.during(&format!("topic {name}")))
}

/// Uploads built-in modules; answers with the version of each.
pub(super) async fn modules<const N: usize>(http: &Http, names: [&str; N]) -> Result<[String; N], Failure> {
    let mut versions = [const { String::new() }; N];
    for (name, version) in names.iter().zip(&mut versions) {
        let made = upload(http, builtin::component(name)?, None, None)
            .await
            .map_err(|why| why.during(&format!("module {name}")))?;
        *version = made["version"].as_str().unwrap_or_default().to_owned();
    }
    Ok(versions)
}

/// Deploys what runs at the edge: the late flights, with their airport; and how many flights there were at all.
pub(super) async fn edge_transforms(edge: &Http, versions: &[String; 3]) -> Result<(), Failure> {
    let [filter, enrich, aggregate] = versions;
    let late = json!({
        "name": "late", "module": { "name": "filter", "version": filter }, "params": { "where": "delay > 15" },
        "source": FLIGHTS, "sinks": [LATE], "placement": "edge", "start": "earliest",
    });
    let enriched = json!({
        "name": "enriched", "module": { "name": "enrich", "version": enrich },
        "params": { "table": "airports", "key": "origin", "fields": "name as airport, city", "on-missing": "fail" },
        "source": LATE, "sinks": [ENRICHED], "lookups": { "airports": AIRPORTS }, "placement": "edge",
        "start": "earliest",
    });
    let hourly = json!({
        "name": "hourly", "module": { "name": "aggregate", "version": aggregate },
        "params": { "compute": "count() as flights", "group-by": "origin" },
        "source": FLIGHTS, "sinks": [HOURLY], "placement": "edge", "start": "earliest",
        "window_ms": HOUR_MS, "emit": "update",
    });
    deploy(edge, [late, enriched, hourly]).await
}

/// Deploys what runs at the core: the delays of each origin and hour.
pub(super) async fn core_transforms(core: &Http, versions: &[String; 1]) -> Result<(), Failure> {
    let compute = "count() as late, sum(delay) as delay_sum, min(delay) as delay_min, max(delay) as delay_max, \
                   avg(delay) as delay_mean";
    let delays = json!({
        "name": "delays", "module": { "name": "aggregate", "version": versions[0] },
        "params": { "compute": compute, "group-by": "origin" },
        "source": at_core(ENRICHED), "sinks": [DELAYS], "placement": "core", "start": "earliest",
        "window_ms": HOUR_MS, "emit": "update",
    });
    deploy(core, [delays]).await
}

async fn deploy<const N: usize>(http: &Http, specs: [Value; N]) -> Result<(), Failure> {
    for spec in specs {
        let name = format!("transform {}", spec["name"].as_str().unwrap_or_default());
        http.post("/transforms", &spec)
            .await
            .map_err(|why| why.during(&name))?;
    }
    Ok(())
}

/// Whether a topic is there with all its partitions.
pub(super) async fn has_topic(http: &Http, name: &str) -> bool {
    let found = http.get(&format!("/topics/{name}")).await;
    found.is_ok_and(|topic| {
        topic["partitions"]
            .as_array()
            .is_some_and(|all| all.len() == PARTITIONS as usize)
    })
}

/// How far a transform is, and how far its source goes.
pub(super) async fn position(http: &Http, transform: &str) -> Result<Position, Failure> {
    let status = http.get(&format!("/transforms/{transform}")).await?;
    let partitions = || status["partitions"].as_array().into_iter().flatten();
    let sum = |name: &str| {
        partitions()
            .filter_map(|partition| partition[name].as_i64())
            .sum()
    };
    let failed = status["totals"]["failed"].as_i64().unwrap_or(0);
    Ok(Position {
        read: sum("position"),
        source_end: sum("high_watermark"),
        late: sum("late"),
        sent: status["totals"]["records_out"].as_i64().unwrap_or(0),
        failed,
        error: status["last_error"]["message"].as_str().map(str::to_owned),
    })
}

/// How far a transform is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) read: i64,
    pub(super) source_end: i64,
    pub(super) late: i64,
    /// How many records came of it.
    pub(super) sent: i64,
    pub(super) failed: i64,
    pub(super) error: Option<String>,
}
