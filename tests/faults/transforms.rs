//! `transforms`: flights go through filter, enrich, hourly aggregates and a join while what they need is killed; then every table
//! is compared with the answer of DuckDB.
//!
//! It owns the order of things and the summary. The numbered load goes on beside: by it a cluster is known to be back.

mod aim;
mod pace;
mod script;
mod stages;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use headwater_checker::{Delivery, Tables, Verdict};
use headwater_tests::{Random, checkout};
use serde_json::{Value, json};

use self::aim::Deck;
pub(crate) use self::aim::Role;
use self::pace::Pace;
use self::script::Script;
use crate::course::{Course, read_each};
use crate::figures::percentiles;
use crate::load::{self, now};
use crate::ordeal;

const SCRIPT: &str = "flights.py";
/// How long pipelines may take to go on when nothing is wrong any more.
const GO_ON: Duration = Duration::from_secs(120);
/// How long the feed may take to have all acknowledged, and pipelines to deal with all of it.
const SETTLE: Duration = Duration::from_secs(300);
/// How long reading and comparing everything may take.
const COMPARE: Duration = Duration::from_secs(600);

/// What the transforms are to promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Promise {
    /// Each row is there once
    ExactlyOnce,
    /// No row is lost; how many came again is counted
    AtLeastOnce,
}

impl Promise {
    /// As the API and the script call it.
    fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }

    fn judged(self) -> Delivery {
        match self {
            Self::ExactlyOnce => Delivery::ExactlyOnce,
            Self::AtLeastOnce => Delivery::AtLeastOnce,
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) lasts: Duration,
    pub(crate) only: Vec<Role>,
    pub(crate) promise: Promise,
    /// Flights in a second.
    pub(crate) rate: u64,
    /// The flights; those that are kept beside the tests if it is not given.
    pub(crate) data: Option<PathBuf>,
}

/// What has come of the faults so far.
#[derive(Debug, Default)]
struct Toll {
    lasted: Duration,
    by_role: BTreeMap<&'static str, u64>,
    went_on_ms: Vec<f64>,
    /// Faults that came before the pipelines had gone on after the one before.
    on_top: u64,
}

/// Puts the pipelines through faults for so long, then judges.
pub(crate) async fn run(
    mut course: Course,
    mut random: Random,
    order: Order,
    folder: &Path,
) -> anyhow::Result<Verdict> {
    let Order {
        lasts,
        only,
        promise,
        rate,
        data,
    } = order;
    let data = data.unwrap_or_else(|| checkout().join("tests/data/flights-2001-01.csv.zst"));
    let data = data.to_string_lossy();
    let bootstrap = course.lab.bootstrap("");
    let nodes = course.lab.members.iter().map(|member| member.http()).collect();
    let pace = Pace::new(nodes);
    stages::create_topics(&bootstrap).await?;
    let filling = Script::start(SCRIPT, folder, "airports", &[&bootstrap])?;
    filling.ended(SETTLE).await.context("filling the table")?;
    stages::deploy(&pace, promise).await?;
    let fed = folder.join("fed.csv").to_string_lossy().into_owned();
    let (partitions, rate) = (stages::PARTITIONS.to_string(), rate.to_string());
    let arguments = [&*bootstrap, &partitions, &rate, &data, &fed];
    let feed = Script::start(SCRIPT, folder, "feed", &arguments)?;
    pace.gone_on(Instant::now(), GO_ON)
        .await
        .context("the pipelines never began")?;
    course.say("the pipelines run");

    let mut deck = Deck::new(Random::seeded(random.number()), course.lab.numbers(), only);
    let mut toll = Toll::default();
    let client = load::connect(&bootstrap).await?;
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        let faults: u64 = toll.by_role.values().sum();
        one(&mut course, &mut deck, &client, &pace, &mut toll)
            .await
            .with_context(|| format!("after {faults} faults"))?;
    }
    toll.lasted = begun.elapsed();
    client.close().await;

    course.say("the faults are over, everything is healed");
    course.writes_go_through().await?;
    course.lab.all_ready().await?;
    let fed_all = feed.end(SETTLE).await.context("the feed")?;
    let fed_all: Value = serde_json::from_str(&fed_all).context("the feed's last word")?;
    let healed = Instant::now();
    pace.all_settled(SETTLE).await?;
    let finish = Script::start(SCRIPT, folder, "finish", &[&bootstrap, &partitions])?;
    finish.ended(SETTLE).await.context("the last records")?;
    pace.all_settled(SETTLE).await?;
    course.say(&format!(
        "flights: {fed_all}, dealt with {:.1} s after the last",
        healed.elapsed().as_secs_f64()
    ));
    let history = folder.join("tables.history");
    let path = history.to_string_lossy();
    let arguments = [&*bootstrap, &partitions, &fed, &path, promise.name()];
    let compare = Script::start(SCRIPT, folder, "compare", &arguments)?;
    compare.ended(COMPARE).await.context("reading the tables")?;
    let mut tables = Tables::new(promise.judged());
    read_each(&[history], |lines| tables.read(lines))?;
    let tables = tables.verdict();
    println!("{tables}");
    let verdict = course.close().await?;
    println!("{}", toll.summary(promise, &fed_all));
    ensure!(
        tables.holds(),
        "transforms did not keep what they promise ({})",
        promise.name()
    );
    Ok(verdict)
}

/// Deals one fault, and waits until the cluster has come back from it, and mostly until all pipelines have gone on, too.
async fn one(
    course: &mut Course,
    deck: &mut Deck,
    client: &headwater_sdk::Client,
    pace: &Pace,
    toll: &mut Toll,
) -> anyhow::Result<()> {
    let dealt = deck.deal().context("there is no such fault")?;
    tokio::time::sleep(dealt.pause).await;
    course.check_alive()?;
    let (fault, whom) = dealt.aimed(client, pace).await?;
    course.load.tally.take_silence();
    let begun = Instant::now();
    fault.begin(&mut course.lab).await?;
    let going_on = pace.gone_on(begun, GO_ON);
    fault.last(&mut course.lab, dealt.lasts).await?;
    fault.end(&mut course.lab).await?;
    let mended = now();
    *toll.by_role.entry(dealt.role.name()).or_default() += 1;
    let line = format!(
        "{:<34} {whom:<46} {:>5.2} s long",
        fault.to_string(),
        dealt.lasts.as_secs_f64()
    );
    ordeal::recover(course, fault, mended)
        .await
        .with_context(|| line.clone())?;
    if dealt.is_waited_for {
        let after = going_on.await.with_context(|| line.clone())?;
        toll.went_on_ms.push(after.took.as_secs_f64() * 1e3);
        course.say(&format!(
            "{line}, all went on after {:>5.2} s, {} last",
            after.took.as_secs_f64(),
            after.last
        ));
    } else {
        toll.on_top += 1;
        course.say(&format!("{line}, the next comes on top of it"));
    }
    Ok(())
}

impl Toll {
    fn summary(&mut self, promise: Promise, fed: &Value) -> Value {
        let faults: u64 = self.by_role.values().sum();
        json!({
            "delivery": promise.name(),
            "seconds": self.lasted.as_secs(),
            "faults": self.by_role,
            "seconds_per_fault": self.lasted.as_secs_f64() / faults.max(1) as f64,
            "on_top_of_others": self.on_top,
            "flights": fed,
            "went_on_ms": percentiles(&mut self.went_on_ms),
        })
    }
}
