//! The job: topics, and what is deployed between them, as a user would.
//!
//! It owns their names, which `flights.py` knows, too. Each stage reads what the one before wrote; the hours are counted at the
//! source as well, where nothing was doubled before.

use headwater_sdk::NewTopic;
use headwater_tests::{PATIENCE, until};
use serde_json::{Value, json};

use super::Promise;
use super::pace::Pace;
use crate::load;

/// As many as there are nodes, so that each leads one of every topic.
pub(super) const PARTITIONS: i32 = 3;
pub(super) const SOURCE: &str = "flights";
const AIRPORTS: &str = "airports";
/// Where each stage writes, in the order of [`NAMES`].
pub(super) const SINKS: [&str; 5] = [
    "flights-late",
    "flights-enriched",
    "flights-hourly",
    "delays-hourly",
    "flights-joined",
];
/// The stages, each behind those that it reads from.
pub(super) const NAMES: [&str; 5] = ["late", "enriched", "hourly", "delays", "joined"];
const HOUR_MS: u64 = 3_600_000;
/// What comes again at least once is older than the rest; it is no older than this.
const DOUBLED_LATENESS_MS: u64 = 24 * HOUR_MS;

/// Topics with three replicas. The records are of 2001: without an end to retention they would go at once.
pub(super) async fn create_topics(bootstrap: &str) -> anyhow::Result<()> {
    let client = load::connect(bootstrap).await?;
    let kept = |name: String, partitions| NewTopic::new(name, partitions).with("retention.ms", "-1");
    let data = [SOURCE].into_iter().chain(SINKS);
    let data = data.map(|name| kept(name.to_owned(), PARTITIONS));
    let dead = NAMES.map(|name| kept(dead_letters(name), 1));
    let table = NewTopic::new(AIRPORTS, 1).with("cleanup.policy", "compact");
    for mut topic in data.chain(dead).chain([table]) {
        topic = topic.with("min.insync.replicas", "2");
        topic.replication_factor = Some(3);
        until(PATIENCE, "the topic", || async {
            Ok(Some(client.admin().create_topic(&topic).await?))
        })
        .await?;
    }
    client.close().await;
    Ok(())
}

/// Deploys every stage, with the modules that came with the nodes.
pub(super) async fn deploy(pace: &Pace, promise: Promise) -> anyhow::Result<()> {
    let modules = until(PATIENCE, "the modules that come with a node", || async {
        let known = pace.get("/api/v1/modules").await?;
        let names = ["filter", "enrich", "aggregate", "join"];
        let module = |name: &str| {
            let mut known = known.as_array().into_iter().flatten();
            let found = known.find(|module| module["name"] == name)?;
            Some(json!({ "name": name, "version": found["version"] }))
        };
        Ok(names.into_iter().map(module).collect::<Option<Vec<_>>>())
    })
    .await?;
    for spec in specs(&modules, promise) {
        pace.post("/api/v1/transforms", &spec).await?;
    }
    Ok(())
}

fn dead_letters(transform: &str) -> String {
    format!("{transform}.dead")
}

fn specs(modules: &[Value], promise: Promise) -> Vec<Value> {
    let figures = "sum(delay) as delay_sum, min(delay) as delay_min, max(delay) as delay_max";
    let hours =
        |count: &str| json!({ "compute": format!("count() as {count}, {figures}"), "group-by": "origin" });
    let enrich = json!({
        "table": "airports", "key": "origin", "fields": "name as airport, city", "on-missing": "fail",
    });
    // Late flights meet what is known of the hours that end about then. Those that meet nothing wait for that until the grace is
    // over: longer than a pipeline may fall behind another, and short enough to come to an end while faults come.
    let join = json!({
        "with": SINKS[2], "kind": "left", "within": "45m", "grace": "7d",
        "fields": "left.id, left.date, left.delay, left.origin, left.city, \
                   right.window_start as hour, right.flights, right.delay_sum",
    });
    let lateness = match promise {
        Promise::ExactlyOnce => 0,
        Promise::AtLeastOnce => DOUBLED_LATENESS_MS,
    };
    // Module, parameters, what it reads, and what only it has.
    let stages = [
        (0, json!({ "where": "delay > 15" }), SOURCE, json!({})),
        (
            1,
            enrich,
            SINKS[0],
            json!({ "lookups": { "airports": AIRPORTS } }),
        ),
        (
            2,
            hours("flights"),
            SOURCE,
            json!({ "window_ms": HOUR_MS, "emit": "close" }),
        ),
        (
            2,
            hours("late"),
            SINKS[1],
            json!({ "window_ms": HOUR_MS, "emit": "update", "lateness_ms": lateness }),
        ),
        (3, join, SINKS[1], json!({})),
    ];
    let each = NAMES.into_iter().zip(SINKS).zip(stages);
    let spec =
        |((name, sink), (module, params, source, more)): ((&str, &str), (usize, Value, &str, Value))| {
            let mut spec = json!({
                "name": name, "module": modules[module], "params": params, "source": source, "sinks": [sink],
                "dead_letter": dead_letters(name), "start": "earliest",
            });
            // The default is left to be the default.
            if promise == Promise::AtLeastOnce {
                spec["delivery"] = json!(promise.name());
            }
            if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
                spec.extend(more);
            }
            spec
        };
    each.map(spec).collect()
}

/// The topic of a transform's state, which the nodes make.
pub(super) fn state_of(transform: &str) -> String {
    format!("__transform_state.{transform}")
}

/// By which a pipeline writes.
pub(super) fn transactional_id(transform: &str, partition: i32) -> String {
    format!("headwater-transform-{transform}-{partition}")
}
