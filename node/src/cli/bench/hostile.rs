//! `bench hostile`: what modules that misbehave cost those who have nothing to do with them.
//!
//! A producer on a topic of its own is measured in calm and then beside each module in turn. A module that the node takes
//! in is deployed on another topic, which is fed all the while; one that it refuses is offered over and over. The feed
//! runs in calm, too.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use headwater_sdk::{ProducerConfig, Record};
use serde_json::{Value, json};

use super::histogram::Histogram;
use super::load::{pool, send};
use super::rounded;
use super::target::{Place, Target};
use crate::cli::common::read_file;
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::cli::module::upload;
use crate::cli::units;
use crate::sys::Sys;

/// Somewhat more than a node takes in, so that its own refusal is measured.
const MODULE_BYTES_MAX: usize = 33 << 20;
const VALUE_BYTES: usize = 100;
/// The feed: so many records each time.
const FEED_RECORDS: usize = 1000;
const FEED_PAUSE: Duration = Duration::from_millis(100);
/// Between two single records whose acknowledgement is timed.
const PACE: Duration = Duration::from_millis(1);
/// Between two offers of something that is refused.
const OFFER_PAUSE: Duration = Duration::from_millis(10);
const RANDOM_FILE_BYTES: usize = 64 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Components to be uploaded, one after the other, behind an empty file and a random one
    #[arg(value_name = "FILE.wasm")]
    modules: Vec<PathBuf>,
    /// Records of 100 bytes produced for each throughput
    #[arg(long, value_name = "N", default_value = "500000")]
    records: usize,
    /// How long single records are timed, a thousand each second
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = units::duration_ms)]
    duration: i64,
    /// Acknowledge from memory: the topics get write.caching=true
    #[arg(long)]
    caching: bool,
}

pub(super) async fn run(sys: &Sys, place: &Place, arguments: &Arguments) -> Result<Value, Failure> {
    let mut target = place.prepare(sys).await?;
    let bystander = Bystander {
        topic: target.topic(1, arguments.caching).await?,
        values: pool(),
    };
    // The first one warms up.
    let mut calm = Vec::new();
    for _ in 0..2 {
        let feed = target.topic(1, arguments.caching).await?;
        calm.push(beside(sys, &target, arguments, &bystander, &feed, std::future::pending()).await?);
    }
    calm.remove(0);
    let mut rows = Vec::new();
    for (name, component) in components(arguments)? {
        let feed = target.topic(1, arguments.caching).await?;
        let trouble = Trouble::bring(sys, &mut target, arguments, &feed, component).await?;
        let measured = beside(
            sys,
            &target,
            arguments,
            &bystander,
            &feed,
            trouble.keep_on(sys, &target.http),
        );
        let measured = measured.await?;
        rows.push((name, measured, trouble.end(&target.http).await?));
    }
    let feed = target.topic(1, arguments.caching).await?;
    calm.push(beside(sys, &target, arguments, &bystander, &feed, std::future::pending()).await?);
    let calm = Measured::mean(&calm);
    let modules: Vec<Value> = rows
        .iter()
        .map(|(name, measured, outcome)| row(name, measured, &calm, outcome))
        .collect();
    let figures = json!({
        "workload": "hostile", "transport": target.transport(), "acks": "all", "synced": !arguments.caching,
        "value_bytes": VALUE_BYTES, "records": arguments.records, "compression": "none",
        "calm": calm.figures(), "modules": modules,
    });
    target.finish().await?;
    Ok(figures)
}

/// What is brought against the node: name and bytes.
fn components(arguments: &Arguments) -> Result<Vec<(String, Bytes)>, Failure> {
    let noise = pool()[..RANDOM_FILE_BYTES].to_vec();
    let mut all = vec![
        ("(an empty file)".to_owned(), Bytes::new()),
        ("(a random file)".to_owned(), noise.into()),
    ];
    for file in &arguments.modules {
        let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy();
        all.push((name.into_owned(), read_file(file, MODULE_BYTES_MAX)?.into()));
    }
    Ok(all)
}

fn row(name: &str, measured: &Measured, calm: &Measured, outcome: &Value) -> Value {
    let mut row = measured.figures();
    row["module"] = json!(name);
    row["throughput_ratio"] = json!(rounded(measured.records_per_second / calm.records_per_second));
    row["ack_p99_ratio"] = json!(rounded(measured.ack_p99_ms / calm.ack_p99_ms));
    super::load::join(&mut row, outcome.clone());
    row
}

/// Whoever has nothing to do with the modules.
struct Bystander {
    topic: String,
    values: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    records_per_second: f64,
    ack_p50_ms: f64,
    ack_p99_ms: f64,
}

impl Measured {
    fn mean(all: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| all.iter().map(figure).sum::<f64>() / all.len() as f64;
        Self {
            records_per_second: of(|one| one.records_per_second),
            ack_p50_ms: of(|one| one.ack_p50_ms),
            ack_p99_ms: of(|one| one.ack_p99_ms),
        }
    }

    fn figures(&self) -> Value {
        json!({
            "records_per_second": rounded(self.records_per_second),
            "ack_p50_ms": rounded(self.ack_p50_ms), "ack_p99_ms": rounded(self.ack_p99_ms),
        })
    }
}

/// Measures the bystander while `trouble` goes on and its topic is fed.
async fn beside(
    sys: &Sys,
    target: &Target,
    arguments: &Arguments,
    bystander: &Bystander,
    feed: &str,
    trouble: impl Future<Output = Result<Infallible, Failure>>,
) -> Result<Measured, Failure> {
    tokio::select! {
        biased;
        measured = measure(sys, target, arguments, bystander) => measured,
        Err(failed) = feeding(sys, target, feed) => Err(failed),
        Err(failed) = trouble => Err(failed),
    }
}

async fn measure(
    sys: &Sys,
    target: &Target,
    arguments: &Arguments,
    bystander: &Bystander,
) -> Result<Measured, Failure> {
    let record = |index: usize| {
        let at = index.wrapping_mul(61) % (bystander.values.len() - VALUE_BYTES);
        Record::value(&bystander.values[at..at + VALUE_BYTES])
    };
    let config = ProducerConfig {
        batch_bytes: 128 << 10,
        buffer_memory: 64 << 20,
        ..ProducerConfig::default()
    };
    let (topic, records) = (&bystander.topic, arguments.records);
    let took = send(sys, &target.client, topic, config, 1000, records, record).await?;
    let acks = acknowledgements(sys, target, topic, arguments.duration).await?;
    Ok(Measured {
        records_per_second: records as f64 / took.as_secs_f64(),
        ack_p50_ms: acks.percentile_ms(0.5),
        ack_p99_ms: acks.percentile_ms(0.99),
    })
}

/// Single records at a steady pace, each timed from when it was due.
async fn acknowledgements(sys: &Sys, target: &Target, topic: &str, ms: i64) -> Result<Histogram, Failure> {
    let producer = target.client.producer(ProducerConfig {
        linger: Duration::ZERO,
        ..ProducerConfig::default()
    })?;
    let to = producer.topic(topic).await?;
    let mut histogram = Histogram::new();
    let begin = sys.clock.now();
    let count = u32::try_from(Duration::from_millis(ms.unsigned_abs()).as_millis() / PACE.as_millis());
    for index in 0..count.unwrap_or(u32::MAX) {
        let due = begin + PACE * index;
        sys.clock.sleep_until(due).await;
        to.send(Record::value(&[b'x'; VALUE_BYTES]))
            .await?
            .receipt()
            .await?;
        histogram.record(sys.clock.now().saturating_duration_since(due));
    }
    producer.close().await;
    Ok(histogram)
}

/// Keeps records coming for whatever reads the topic.
async fn feeding(sys: &Sys, target: &Target, topic: &str) -> Result<Infallible, Failure> {
    let producer = target.client.producer(ProducerConfig::default())?;
    let to = producer.topic(topic).await?;
    // The sign that the hostile modules of the node's own tests misbehave at.
    let value = [b'!'; VALUE_BYTES];
    let records = vec![Record::value(&value); FEED_RECORDS];
    loop {
        to.send_all(&records).await?.all().await?;
        sys.clock.sleep(FEED_PAUSE).await;
    }
}

/// A module, and how far the node let it come.
enum Trouble {
    /// It is deployed under this name.
    Runs { name: String },
    /// Its upload, or its deployment, is refused.
    Refused { offer: Offer, said: Value },
}

enum Offer {
    Upload(Bytes),
    Deployment(Value),
}

impl Trouble {
    async fn bring(
        sys: &Sys,
        target: &mut Target,
        arguments: &Arguments,
        source: &str,
        component: Bytes,
    ) -> Result<Self, Failure> {
        let name = format!("bench-{:016x}", sys.random.u64());
        let made = match upload(&target.http, component.clone(), Some(&name), None).await {
            Ok(made) => made,
            Err(refused) => {
                let said = json!({ "upload": refused.to_string() });
                return Ok(Self::Refused {
                    offer: Offer::Upload(component),
                    said,
                });
            }
        };
        let sink = target.topic(1, arguments.caching).await?;
        let mut spec = json!({
            "name": name, "module": { "name": made["name"], "version": made["version"] },
            "source": source, "sinks": [sink], "start": "earliest", "dead_letter": format!("{sink}.dead-letter"),
        });
        if made["world"] == "aggregate" {
            spec["window_ms"] = json!(1000);
        }
        match target.http.post("/transforms", &spec).await {
            Ok(_) => Ok(Self::Runs { name }),
            Err(refused) => {
                let said = json!({ "deployment": refused.to_string() });
                Ok(Self::Refused {
                    offer: Offer::Deployment(spec),
                    said,
                })
            }
        }
    }

    /// Goes on being a trouble.
    async fn keep_on(&self, sys: &Sys, http: &Http) -> Result<Infallible, Failure> {
        let Self::Refused { offer, .. } = self else {
            return std::future::pending().await;
        };
        loop {
            // Refused again, which is what is measured.
            let refused = match offer {
                Offer::Upload(component) => upload(http, component.clone(), None, None).await,
                Offer::Deployment(spec) => http.post("/transforms", spec).await,
            };
            if refused.is_ok() {
                return Err(Failure::new("what was refused at first was taken in later"));
            }
            sys.clock.sleep(OFFER_PAUSE).await;
        }
    }

    /// Takes it down; answers what became of it.
    async fn end(self, http: &Http) -> Result<Value, Failure> {
        let name = match self {
            Self::Refused { said, .. } => return Ok(said),
            Self::Runs { name } => name,
        };
        let path = format!("/transforms/{name}");
        let status = http.get(&path).await?;
        http.delete(&path).await?;
        let totals = &status["totals"];
        Ok(json!({
            "state": status["state"], "cpu_ms": totals["cpu_ms"], "records_in": totals["records_in"],
            "records_out": totals["records_out"], "failed": totals["failed"],
            "last_error": status["last_error"]["message"],
        }))
    }
}
