//! `headwater demo`: the main job, end to end, on real data. An edge and a core are started as processes of this binary; a
//! week of flights is produced at the edge, filtered and enriched there, mirrored to the core, aggregated there.
//!
//! Owns the two nodes: however the demo ends, they end.

mod answer;
mod data;
mod load;
mod pipeline;
mod progress;

use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_sdk::{Batch, Client, Config, Consumer, ConsumerConfig, Isolation, Start, Trust};
use tokio::signal::unix::{SignalKind, signal};

use self::answer::{Answer, Hours, Part};
pub(super) use self::data::{Airport, Flight, airports, flights};
use self::pipeline::{DELAYS, ENRICHED, HOURLY, at_core};
use self::progress::Progress;
use super::child::{Folder, NodeProcess};
use super::common::{note, print};
use super::failure::Failure;
use super::http::Http;
use super::table::count;
use crate::sys::Sys;

/// How long nothing may move before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often positions are asked for.
const LOOK: Duration = Duration::from_millis(100);
/// How many of the worst hours are shown.
const ROWS: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Check the answer against the one that DuckDB gave, and exit: 0 when they agree, 1 when not
    #[arg(long)]
    once: bool,
    /// Flights in place of the week that is inside, in order of departure: CSV, plain or zstd, with the columns date,
    /// delay, distance, origin, destination
    #[arg(long, value_name = "FILE")]
    flights: Option<PathBuf>,
    /// The answer to compare with in place of the one that is inside: CSV, as tests/data/expected.py prints it
    #[arg(long, value_name = "FILE")]
    expected: Option<PathBuf>,
}

/// What goes in, and what must come out.
struct Given {
    flights: Vec<Flight>,
    /// None for flights that nobody gave the answer to.
    expected: Option<Hours>,
}

impl Given {
    fn read(arguments: &Arguments) -> Result<Self, Failure> {
        let expected = match (&arguments.expected, &arguments.flights) {
            (Some(file), _) => Some(data::expected_of(file)?),
            (None, None) => Some(data::expected()?),
            (None, Some(_)) if arguments.once => {
                return Err(Failure::usage("--once compares, and nobody has said with what")
                    .hint("--expected FILE names the answer to your flights"));
            }
            (None, Some(_)) => None,
        };
        let flights = match &arguments.flights {
            Some(file) => data::flights_of(file)?,
            None => flights()?,
        };
        Ok(Self { flights, expected })
    }
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let sys = Sys::real(Path::new(""));
    tokio::select! {
        biased;
        _ = terminate.recv() => Err(Failure::new("stopped by SIGTERM")),
        _ = interrupt.recv() => Err(Failure::new("stopped")),
        done = Box::pin(show(&sys, &arguments)) => done,
    }
}

async fn show(sys: &Sys, arguments: &Arguments) -> Result<(), Failure> {
    let given = Given::read(arguments)?;
    let mut progress = Progress::new(sys.clock.clone());
    let folder = Folder::new(sys)?;
    let mut nodes = Nodes::start(sys, &folder).await?;
    progress.step(&format!(
        "a core and an edge are up, in {}",
        folder.path().display()
    ));
    let answer = Box::pin(journey(sys, &given.flights, &mut nodes, &mut progress)).await?;
    let hours = answer.hours.late_hours();
    print(&format!(
        "\nThe ten airport-hours that lost most minutes to delays:\n\n{}\n",
        answer::worst(&hours, &answer.airports, ROWS)
    ))?;
    let verdict = given
        .expected
        .map_or(Ok(()), |expected| compare(&hours, &expected));
    print(&format!(
        "{}{}",
        nodes.core.shown("core"),
        nodes.edge.shown("edge")
    ))?;
    if !arguments.once {
        if let Err(differs) = &verdict {
            note(&differs.to_string());
        }
        note("\nBoth nodes stay up for you to look around. Ctrl-C ends them.");
        nodes.watch(sys).await?;
    }
    nodes.stop().await?;
    verdict
}

/// A core and an edge.
struct Nodes {
    core: NodeProcess,
    edge: NodeProcess,
}

impl Nodes {
    async fn start(sys: &Sys, folder: &Folder) -> Result<Self, Failure> {
        let (core, edge) = (folder.path().join("core"), folder.path().join("edge"));
        let (core, edge) = tokio::join!(
            NodeProcess::start(sys, &core, &[]),
            NodeProcess::start(sys, &edge, &[])
        );
        Ok(Self {
            core: core?,
            edge: edge?,
        })
    }

    fn check(&mut self) -> Result<(), Failure> {
        self.core.check()?;
        self.edge.check()
    }

    /// Returns when a node has ended by itself.
    async fn watch(&mut self, sys: &Sys) -> Result<(), Failure> {
        loop {
            self.check()?;
            sys.clock.sleep(Duration::from_secs(1)).await;
        }
    }

    async fn stop(self) -> Result<(), Failure> {
        let (edge, core) = tokio::join!(self.edge.stop(), self.core.stop());
        edge.and(core)
    }
}

/// What came of it.
struct Outcome {
    hours: Answer,
    airports: Vec<Airport>,
}

async fn journey(
    sys: &Sys,
    flights: &[Flight],
    nodes: &mut Nodes,
    progress: &mut Progress,
) -> Result<Outcome, Failure> {
    let (core, edge) = (nodes.core.api()?, nodes.edge.api()?);
    pipeline::enrol(&core, &nodes.core.quic, &edge).await?;
    progress
        .step("the edge is enrolled: it dials the core over QUIC with a certificate of the core's authority");
    pipeline::edge_topics(&edge).await?;
    pipeline::core_topics(&core).await?;
    let at_edge = pipeline::modules(&edge, ["filter", "enrich", "aggregate"]).await?;
    let at_core_node = pipeline::modules(&core, ["aggregate"]).await?;
    progress.step("topics are made, modules are uploaded");

    let edge_client = client(&nodes.edge).await?;
    let core_client = client(&nodes.core).await?;
    let airports = airports();
    load::airports(&edge_client, &airports).await?;
    pipeline::edge_transforms(&edge, &at_edge).await?;
    for topic in [ENRICHED, HOURLY].map(at_core) {
        appears(sys, nodes, &core, &topic).await?;
    }
    pipeline::core_transforms(&core, &at_core_node).await?;
    progress.step(&format!(
        "{} airports are loaded; filter and enrich run at the edge, the hourly aggregate at the core",
        count(airports.len() as u64)
    ));

    let begun = progress.seconds();
    let mut watch = Watch::begin(sys, &core_client, core, edge, flights.len()).await?;
    let loading = load::flights(&edge_client, flights);
    let hours = tokio::try_join!(loading, watch.follow(nodes, progress)).map(|(_, ())| watch.answer)?;
    progress.step(&format!(
        "{} flights went all the way in {:.1} s: produced over QUIC, filtered, enriched, mirrored, aggregated",
        count(flights.len() as u64),
        progress.seconds() - begun
    ));
    edge_client.close().await;
    core_client.close().await;
    Ok(Outcome { hours, airports })
}

/// A client over QUIC; both ends are this machine.
async fn client(node: &NodeProcess) -> Result<Client, Failure> {
    let config = Config::new(&node.quic_bootstrap()).map_err(headwater_sdk::Error::from)?;
    Ok(Client::connect(config.with_trust(Trust::SkipVerification)).await?)
}

/// Waits for a topic that the link makes.
async fn appears(sys: &Sys, nodes: &mut Nodes, http: &Http, topic: &str) -> Result<(), Failure> {
    let deadline = sys.clock.now() + PATIENCE;
    while !pipeline::has_topic(http, topic).await {
        nodes.check()?;
        if sys.clock.now() >= deadline {
            let why = format!(
                "{topic} did not appear at the core within {} s",
                PATIENCE.as_secs()
            );
            return Err(Failure::new(why).hint("`headwater link list` at both nodes says how the link is"));
        }
        sys.clock.sleep(LOOK).await;
    }
    Ok(())
}

/// Follows the records on their way, and reads the results at the core.
struct Watch {
    sys: Sys,
    core: Http,
    edge: Http,
    results: Consumer,
    answer: Answer,
    total: i64,
    /// The last figures that differed from those before, and until when the next must come.
    moved: ([i64; 5], std::time::Instant),
}

impl Watch {
    async fn begin(
        sys: &Sys,
        client: &Client,
        core: Http,
        edge: Http,
        flights: usize,
    ) -> Result<Self, Failure> {
        let mut results = client.consumer(ConsumerConfig {
            isolation: Isolation::ReadCommitted,
            ..ConsumerConfig::default()
        })?;
        results.assign_all(DELAYS, Start::Earliest).await?;
        results.assign_all(&at_core(HOURLY), Start::Earliest).await?;
        Ok(Self {
            core,
            edge,
            results,
            answer: Answer::default(),
            total: flights as i64,
            moved: ([0; 5], sys.clock.now()),
            sys: sys.clone(),
        })
    }

    /// Until every flight is counted and every late one is in the sums.
    async fn follow(&mut self, nodes: &mut Nodes, progress: &mut Progress) -> Result<(), Failure> {
        loop {
            self.take_results().await?;
            let late = pipeline::position(&self.edge, "late").await?;
            let enriched = pipeline::position(&self.edge, "enriched").await?;
            let delays = pipeline::position(&self.core, "delays").await?;
            let kept = late.sent;
            let counted = self.answer.records(Part::Flights);
            let summed = self.answer.records(Part::Delays);
            for (name, position) in [("late", &late), ("enriched", &enriched), ("delays", &delays)] {
                if position.failed > 0 || position.late > 0 {
                    let said = position.error.as_deref().unwrap_or("no reason given");
                    let (failed, late) = (position.failed, position.late);
                    return Err(Failure::new(format!(
                        "transform {name}: {failed} records failed, {late} late: {said}"
                    )));
                }
            }
            // Of offsets some are the marks of transactions: only records are counted.
            let is_read = late.read == self.total && enriched.read == enriched.source_end;
            if is_read && counted == self.total && summed == kept {
                return Ok(());
            }
            let part = (late.read + counted) as f64 / (2 * self.total) as f64;
            progress.bar(
                part,
                &format!(
                    "flights {} of {}, late {}, at the core {}, in the sums {}",
                    count(late.source_end.unsigned_abs()),
                    count(self.total.unsigned_abs()),
                    count(kept.unsigned_abs()),
                    count(delays.source_end.unsigned_abs()),
                    count(summed.unsigned_abs()),
                ),
            );
            self.expect_movement([late.read, enriched.read, delays.read, counted, summed])?;
            nodes.check()?;
        }
    }

    /// Takes what results there are, and waits a moment for more.
    async fn take_results(&mut self) -> Result<(), Failure> {
        let until = self.sys.clock.now() + LOOK;
        loop {
            let left = until.saturating_duration_since(self.sys.clock.now());
            match self.sys.clock.timeout(left, self.results.next_batch()).await {
                Ok(batch) => take(&mut self.answer, &batch?)?,
                Err(_) => return Ok(()),
            }
        }
    }

    fn expect_movement(&mut self, figures: [i64; 5]) -> Result<(), Failure> {
        let now = self.sys.clock.now();
        if figures != self.moved.0 {
            self.moved = (figures, now);
            return Ok(());
        }
        if now.saturating_duration_since(self.moved.1) < PATIENCE {
            return Ok(());
        }
        let [late, enriched, delays, counted, summed] = figures;
        Err(Failure::new(format!(
            "nothing has moved for {} s: late read {late} of {}, enriched {enriched}, delays {delays}, counted {counted}, \
             summed {summed}",
            PATIENCE.as_secs(),
            self.total
        )))
    }
}

fn take(answer: &mut Answer, batch: &Batch) -> Result<(), Failure> {
    let part = if &**batch.topic() == DELAYS {
        Part::Delays
    } else {
        Part::Flights
    };
    let damaged = |why| Failure::new(format!("a result cannot be read: {why}"));
    for record in batch.records().map_err(damaged)?.iter() {
        let value = record.map_err(damaged)?.value.unwrap_or_default();
        answer.take(part, value).map_err(Failure::new)?;
    }
    Ok(())
}

fn compare(hours: &Hours, expected: &Hours) -> Result<(), Failure> {
    let differences = answer::differences(hours, expected);
    if differences.is_empty() {
        return print(&format!(
            "All {} airport-hours agree with the answer that DuckDB computed from the same data.\n\n",
            count(expected.len() as u64)
        ));
    }
    let shown = differences.join("\n  ");
    Err(Failure::new(format!(
        "the answer has {} airport-hours, DuckDB's {}; they differ:\n  {shown}",
        count(hours.len() as u64),
        count(expected.len() as u64)
    )))
}
