//! `bench mirror`: an edge and a core on this machine, a topic between them: live, then as a backlog; bytes on the wire
//! against bytes of records. With `--cuts`, the way between them is cut while records come in, and mended.

use std::time::Duration;

use headwater_sdk::{Client, NewTopic};
use serde_json::{Value, json};

use super::cable::Cable;
use super::load::{Load, join};
use super::target::{Carrier, connect};
use super::{median, rounded};
use crate::cli::child::{Folder, NodeProcess};
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::sys::Sys;

const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(5);
const SITE: &str = "edge";
const TOPIC: &str = "mirrored";
/// Of the records, so many are sent before anything is measured.
const WARM_UP: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    load: Load,
    /// Instead: cut the link for so many seconds each, send --records meanwhile, and time the copy from the link's
    /// return on
    #[arg(long, value_name = "SECONDS,...", value_delimiter = ',')]
    cuts: Vec<u64>,
}

pub(super) async fn run(sys: &Sys, arguments: &Arguments) -> Result<Value, Failure> {
    let load = &arguments.load;
    let mut figures = json!({ "workload": "mirror", "transport": "quic", "records": load.records });
    join(&mut figures, load.words());
    let measured = if arguments.cuts.is_empty() {
        throughput(sys, load).await?
    } else {
        cuts(sys, load, &arguments.cuts).await?
    };
    join(&mut figures, measured);
    Ok(figures)
}

/// Two linked nodes and a topic that is mirrored.
struct Pair {
    core: NodeProcess,
    edge: NodeProcess,
    core_api: Http,
    edge_api: Http,
    client: Client,
    /// Records produced so far.
    produced: usize,
    sys: Sys,
    _folder: Folder,
}

impl Pair {
    /// `way` says where the edge is to dial for the core's address.
    async fn start(
        sys: &Sys,
        load: &Load,
        way: impl FnOnce(&str) -> Result<String, Failure>,
    ) -> Result<Self, Failure> {
        let folder = Folder::new(sys)?;
        let core = NodeProcess::start(sys, &folder.path().join("core"), &[]).await?;
        let edge = NodeProcess::start(sys, &folder.path().join("edge"), &[]).await?;
        let (core_api, edge_api) = (core.api()?, edge.api()?);
        let client = connect(&edge, Carrier::Quic).await?;
        let mut topic = NewTopic::new(TOPIC, load.partitions).with("retention.ms", "-1");
        if load.caching {
            topic = topic.with("write.caching", "true");
        }
        client.admin().create_topic(&topic).await?;
        let flow = json!({ "direction": "up", "mode": "mirror", "topics": [TOPIC] });
        let invitation = json!({ "name": SITE, "core": way(&core.quic)?, "flows": [flow] });
        let made = core_api.post("/sites/invitations", &invitation).await?;
        edge_api
            .post("/sites/enrol", &json!({ "token": made["token"] }))
            .await?;
        let mut pair = Self {
            core,
            edge,
            core_api,
            edge_api,
            client,
            produced: 0,
            sys: sys.clone(),
            _folder: folder,
        };
        let warm_up = Load {
            records: load.records / WARM_UP,
            ..load.clone()
        };
        pair.produce(&warm_up).await?;
        pair.copied().await?;
        Ok(pair)
    }

    /// Answers how many bytes of values were sent.
    async fn produce(&mut self, load: &Load) -> Result<u64, Failure> {
        let loaded = load.run(&self.sys, &self.client, TOPIC).await?;
        self.produced += loaded.records;
        Ok(loaded.bytes)
    }

    /// Waits until the core has what was produced.
    async fn copied(&self) -> Result<(), Failure> {
        let deadline = self.sys.clock.now() + PATIENCE;
        let expected = self.produced as i64;
        loop {
            let at = end(&self.core_api).await;
            if at == expected {
                return Ok(());
            }
            if at > expected || self.sys.clock.now() >= deadline {
                return Err(Failure::new(format!(
                    "the core has {at} records, expected {expected}"
                )));
            }
            self.sys.clock.sleep(LOOK).await;
        }
    }

    /// Bytes of the copy.
    async fn stored(&self) -> Result<u64, Failure> {
        let topic = self.core_api.get(&format!("/topics/{TOPIC}")).await?;
        let partitions = topic["partitions"].as_array().into_iter().flatten();
        Ok(partitions
            .filter_map(|partition| partition["size_bytes"].as_u64())
            .sum())
    }

    /// UDP payload of the link so far, both directions together.
    async fn wire(&self) -> Result<u64, Failure> {
        let links = self.edge_api.get("/links").await?;
        let counted = |name: &str| links[0][name].as_u64().unwrap_or(0);
        Ok(counted("bytes_sent") + counted("bytes_received"))
    }

    async fn stop(self) -> Result<(), Failure> {
        self.client.close().await;
        self.edge.stop().await?;
        self.core.stop().await
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

async fn throughput(sys: &Sys, load: &Load) -> Result<Value, Failure> {
    let mut pair = Pair::start(sys, load, |core| Ok(core.to_owned())).await?;
    let (wire, stored) = (pair.wire().await?, pair.stored().await?);

    let began = sys.clock.now();
    let bytes = pair.produce(load).await?;
    let produced = sys.clock.now().saturating_duration_since(began);
    pair.copied().await?;
    let live = sys.clock.now().saturating_duration_since(began);

    let act = |what: &str| format!("/links/{SITE}/{what}");
    pair.core_api.post(&act("pause"), &Value::Null).await?;
    pair.produce(load).await?;
    let began = sys.clock.now();
    pair.core_api.post(&act("resume"), &Value::Null).await?;
    pair.copied().await?;
    let backlog = sys.clock.now().saturating_duration_since(began);
    let (wire, stored) = (pair.wire().await? - wire, pair.stored().await? - stored);

    let mb_per_second = |took: Duration| rounded(bytes as f64 / 1e6 / took.as_secs_f64());
    let figures = json!({
        "produce_seconds": rounded(produced.as_secs_f64()),
        "live_seconds": rounded(live.as_secs_f64()), "live_mb_per_second": mb_per_second(live),
        "backlog_seconds": rounded(backlog.as_secs_f64()), "backlog_mb_per_second": mb_per_second(backlog),
        "wire_bytes": wire, "payload_bytes": stored,
        "wire_to_payload": rounded(wire as f64 / stored.max(1) as f64),
        "core_peak_bytes": pair.core.memory().map(|memory| memory.peak_bytes),
        "edge_peak_bytes": pair.edge.memory().map(|memory| memory.peak_bytes),
    });
    pair.stop().await?;
    Ok(figures)
}

async fn cuts(sys: &Sys, load: &Load, cuts: &[u64]) -> Result<Value, Failure> {
    let mut cable = None;
    let laid = &mut cable;
    let mut pair = Pair::start(sys, load, |core| {
        Ok(laid.insert(Cable::to(sys, core)?).address.clone())
    })
    .await?;
    let cable = cable.ok_or_else(|| Failure::new("no cable was laid"))?;
    let mut rounds = Vec::with_capacity(cuts.len());
    let (mut times, mut wire_all, mut stored_all) = (Vec::new(), 0, 0);
    for seconds in cuts {
        let over = sys.clock.now() + Duration::from_secs(*seconds);
        let (wire, stored) = (cable.bytes(), pair.stored().await?);
        cable.cut();
        pair.produce(load).await?;
        sys.clock.sleep_until(over).await;
        let (mended, mended_ms) = (sys.clock.now(), sys.clock.unix_ms());
        cable.mend();
        pair.copied().await?;
        let complete = sys.clock.now().saturating_duration_since(mended);
        let links = pair.core_api.get("/links").await?;
        // A connection that lived through the cut was up at once.
        let up_ms = (links[0]["since_ms"].as_i64().unwrap_or(0) - mended_ms).max(0);
        let complete_ms = complete.as_secs_f64() * 1000.0;
        let (wire, stored) = (cable.bytes() - wire, pair.stored().await? - stored);
        rounds.push(json!({
            "cut_seconds": seconds,
            "mended_to_complete_ms": rounded(complete_ms),
            "link_up_to_complete_ms": rounded(complete_ms - up_ms as f64),
            "wire_bytes": wire, "payload_bytes": stored,
            "wire_to_payload": rounded(wire as f64 / stored.max(1) as f64),
        }));
        times.push(complete_ms);
        wire_all += wire;
        stored_all += stored;
    }
    pair.stop().await?;
    Ok(json!({
        "cuts": rounds,
        "mended_to_complete_p50_ms": rounded(median(times)),
        "wire_to_payload": rounded(wire_all as f64 / stored_all.max(1) as f64),
    }))
}
