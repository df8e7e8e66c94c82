//! `bench transform`: records through a built-in module in the broker, and what that costs whoever produces them.

use std::time::Duration;

use headwater_sdk::{Client, ProducerConfig};
use serde_json::{Value, json};

use super::load::send;
use super::rounded;
use super::target::{Place, Target};
use crate::cli::builtin;
use crate::cli::demo::{Flight, airports, flights};
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::cli::module::upload;
use crate::sys::Sys;

const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What the module does
    #[arg(long, value_enum, default_value = "pass")]
    module: Work,
    /// What a crash may do to outputs
    #[arg(long, value_enum, default_value = "exactly-once")]
    delivery: DeliveryArgument,
    /// How many records: flights as JSON of about 85 bytes
    #[arg(long, value_name = "N", default_value = "1000000")]
    records: usize,
    /// Acknowledge from memory: the topics get write.caching=true
    #[arg(long)]
    caching: bool,
}

/// What is done to each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Work {
    /// A filter that keeps everything and looks at nothing.
    Pass,
    /// A filter that reads a field of the JSON value.
    Json,
    /// A lookup per record and a longer value.
    Enrich,
    /// A sum for each origin and hour.
    Aggregate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DeliveryArgument {
    ExactlyOnce,
    AtLeastOnce,
}

impl DeliveryArgument {
    const fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }
}

impl Work {
    const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Json => "json",
            Self::Enrich => "enrich",
            Self::Aggregate => "aggregate",
        }
    }

    const fn module(self) -> &'static str {
        match self {
            Self::Pass | Self::Json => "filter",
            Self::Enrich => "enrich",
            Self::Aggregate => "aggregate",
        }
    }

    fn params(self) -> Value {
        match self {
            Self::Pass => json!({ "where": "true" }),
            Self::Json => json!({ "where": "delay > 15" }),
            Self::Enrich => {
                json!({ "table": "airports", "key": "origin", "fields": "name as airport, city" })
            }
            Self::Aggregate => json!({
                "compute": "count() as flights, sum(delay) as delay_sum", "group-by": "origin", "time": "date",
            }),
        }
    }
}

pub(super) async fn run(sys: &Sys, place: &Place, arguments: &Arguments) -> Result<Value, Failure> {
    let mut target = place.prepare(sys).await?;
    let flights = flights()?;
    let records = arguments.records;
    let plain = target.topic(1, arguments.caching).await?;
    // The topic without a module, twice: the first pass warms up.
    load(sys, &target.client, &plain, &flights, records).await?;
    let without = load(sys, &target.client, &plain, &flights, records).await?;
    let deployment = Deployment::prepare(sys, &mut target, arguments).await?;
    load(sys, &target.client, &deployment.source, &flights, records).await?;
    let began = sys.clock.now();
    deployment.deploy(&target.http).await?;
    deployment.passed(sys, &target.http, records).await?;
    let backlog = sys.clock.now().saturating_duration_since(began);
    // Once more, while the module runs on the same topic.
    let with = load(sys, &target.client, &deployment.source, &flights, records).await?;
    let totals = deployment.passed(sys, &target.http, 2 * records).await?;
    target
        .http
        .delete(&format!("/transforms/{}", deployment.name))
        .await?;
    let bytes: usize = flights.iter().map(|flight| flight.json.len()).sum();
    let rate = |took: Duration| rounded(records as f64 / took.as_secs_f64());
    let cpu_ms = totals["cpu_ms"].as_f64().unwrap_or(0.0);
    let figures = json!({
        "workload": "transform", "module": arguments.module.name(),
        "delivery": arguments.delivery.name(), "transport": target.transport(),
        "records": records, "value_bytes_mean": rounded(bytes as f64 / flights.len() as f64), "partitions": 1,
        "compression": "none", "acks": "all", "synced": !arguments.caching,
        "backlog_seconds": rounded(backlog.as_secs_f64()), "records_per_second": rate(backlog),
        "cpu_us_per_record": rounded(cpu_ms * 1e3 / (2 * records) as f64), "records_out": totals["records_out"],
        "produce_without_records_per_second": rate(without), "produce_with_records_per_second": rate(with),
        "produce_slowdown": rounded(with.as_secs_f64() / without.as_secs_f64()),
    });
    target.finish().await?;
    Ok(figures)
}

async fn upload_module(http: &Http, work: Work) -> Result<String, Failure> {
    // It may be there from an earlier run; then it is the same one.
    let modules = http.get("/modules").await?;
    let made = match crate::cli::transform::newest(&modules, work.module()) {
        Ok(version) => return Ok(version),
        Err(_) => upload(http, builtin::component(work.module())?, None, None).await?,
    };
    Ok(made["version"].as_str().unwrap_or_default().to_owned())
}

async fn fill_table(target: &Target, table: &str) -> Result<(), Failure> {
    let airports = airports();
    let producer = target.client.producer(ProducerConfig::default())?;
    let to = producer.topic(table).await?;
    for airport in &airports {
        to.send(headwater_sdk::Record::value(&airport.json).key(&airport.code))
            .await?;
    }
    producer.close().await;
    Ok(())
}

async fn load(
    sys: &Sys,
    client: &Client,
    topic: &str,
    flights: &[Flight],
    records: usize,
) -> Result<Duration, Failure> {
    let config = ProducerConfig {
        batch_bytes: 128 << 10,
        buffer_memory: 64 << 20,
        ..ProducerConfig::default()
    };
    send(sys, client, topic, config, 1000, records, |index| {
        headwater_sdk::Record::value(flights[index % flights.len()].json.as_bytes())
    })
    .await
}

/// A module on a topic of ours.
struct Deployment {
    name: String,
    source: String,
    spec: Value,
}

impl Deployment {
    async fn prepare(sys: &Sys, target: &mut Target, arguments: &Arguments) -> Result<Self, Failure> {
        let work = arguments.module;
        let version = upload_module(&target.http, work).await?;
        let name = format!("bench-{:016x}", sys.random.u64());
        let source = target.topic(1, arguments.caching).await?;
        let sink = target.topic(1, arguments.caching).await?;
        let mut spec = json!({
            "name": name, "module": { "name": work.module(), "version": version }, "params": work.params(),
            "source": source, "sinks": [sink], "start": "earliest", "delivery": arguments.delivery.name(),
        });
        if work == Work::Enrich {
            let table = target.topic(1, false).await?;
            fill_table(target, &table).await?;
            spec["lookups"] = json!({ "airports": table });
        }
        if work == Work::Aggregate {
            spec["window_ms"] = json!(3_600_000);
            // The flights come round again and again: none is late.
            spec["lateness_ms"] = json!(30_i64 * 24 * 3_600_000);
        }
        Ok(Self { name, source, spec })
    }

    async fn deploy(&self, http: &Http) -> Result<(), Failure> {
        http.post("/transforms", &self.spec).await.map(drop)
    }

    /// Waits until it has passed so many records of its one partition; answers with its totals.
    async fn passed(&self, sys: &Sys, http: &Http, records: usize) -> Result<Value, Failure> {
        let deadline = sys.clock.now() + PATIENCE;
        loop {
            let mut status = http.get(&format!("/transforms/{}", self.name)).await?;
            if status["partitions"][0]["position"]
                .as_u64()
                .is_some_and(|at| at >= records as u64)
            {
                return Ok(status["totals"].take());
            }
            if sys.clock.now() >= deadline {
                let totals = &status["totals"];
                return Err(Failure::new(format!(
                    "the transform did not pass {records} records in time: {totals}"
                )));
            }
            sys.clock.sleep(LOOK).await;
        }
    }
}
