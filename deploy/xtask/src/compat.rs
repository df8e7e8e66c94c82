//! `cargo xtask compat`: other people's clients against a cluster of one node and one of three; what works is a table in the
//! documentation.
//!
//! It owns the clusters' processes, and the list of clients with how each is brought here. What a client is asked is its
//! driver's own (`tests/compat`). It must never call something a pass that did not happen.

mod clients;
mod cluster;
mod table;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::Value;

use self::clients::{CLIENTS, Client};
use self::cluster::Cluster;
use self::table::{Column, Outcome};
use crate::{build, place, step};

/// Where the table goes.
const PAGE: &str = "node/docs/clients.md";
/// Sizes of the clusters.
const SIZES: [usize; 2] = [1, 3];
/// How long one driver may take, in seconds.
const PATIENCE: &str = "900";

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let started = Instant::now();
    let wanted = wanted(args)?;
    let binary = match std::env::var_os("HEADWATER_BIN") {
        Some(binary) => binary.into(),
        None => build::node(&[], |command| command)?,
    };
    let clusters = SIZES.map(|size| Cluster::start(&binary, size));
    let [one, three] = clusters;
    let mut clusters = [one?, three?];
    let columns: Vec<Column> = wanted
        .iter()
        .map(|client| column(client, &mut clusters))
        .collect();
    drop(clusters);
    print!("{}", table::text(&columns));
    println!("{:<18}{:.0} s", "wall time", started.elapsed().as_secs_f64());
    let (passed, failed) = table::totals(&columns);
    println!("{passed} passed, {failed} failed");
    if wanted.len() == CLIENTS.len() {
        let page = place::root().join(PAGE);
        let text = std::fs::read_to_string(&page).with_context(|| format!("cannot read {PAGE}"))?;
        std::fs::write(&page, table::replaced(&text, &columns)?)?;
    }
    if failed > 0 {
        bail!("{failed} of {} cells failed", passed + failed);
    }
    Ok(())
}

/// The clients that are named, or all.
fn wanted(args: &[String]) -> anyhow::Result<Vec<&'static Client>> {
    if args.is_empty() {
        return Ok(CLIENTS.iter().collect());
    }
    let find = |name: &String| {
        let known = || {
            CLIENTS
                .iter()
                .map(|client| client.name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let found = CLIENTS.iter().find(|client| client.name == *name);
        found.with_context(|| format!("no client `{name}` (known: {})", known()))
    };
    args.iter().map(find).collect()
}

/// Brings a client here and runs it against each cluster.
fn column(client: &Client, clusters: &mut [Cluster]) -> Column {
    let mut column = Column::new(client.name, client.kind);
    let line = match (client.prepare)() {
        Ok(line) => line,
        Err(why) => {
            column.fail(&format!("it could not be brought here: {why:#}"));
            return column;
        }
    };
    for cluster in clusters {
        if let Err(why) = drive(client, &line, cluster, &mut column) {
            column.fail(&format!("{}: {why:#}", cluster.name()));
        }
    }
    column
}

fn drive(client: &Client, line: &[String], cluster: &mut Cluster, column: &mut Column) -> anyhow::Result<()> {
    let what = format!("{} against {}", client.name, cluster.name());
    step::say(&what);
    let mut driver = start(client, line, cluster)?;
    let stdin = driver.stdin.take().context("the driver's stdin is not piped")?;
    let stdout = driver.stdout.take().context("the driver's stdout is not piped")?;
    let told = listen(BufReader::new(stdout), stdin, cluster, column);
    if told.is_err() {
        // Nobody listens to it any more; `timeout` passes this on to what it runs only as a request to end.
        step::ask("kill", &[&driver.id().to_string()]);
    }
    let status = driver.wait()?;
    let told = told?;
    if !status.success() {
        bail!("its driver ended with {status} after {told} features");
    }
    if told == 0 {
        bail!("its driver told nothing");
    }
    Ok(())
}

fn start(client: &Client, line: &[String], cluster: &Cluster) -> anyhow::Result<Child> {
    let prefix = format!("{}-{}", client.name, std::process::id());
    let (bootstrap, size) = (cluster.bootstrap(), cluster.size().to_string());
    let mut command = Command::new("timeout");
    command
        .arg(PATIENCE)
        .args(line)
        .args([&bootstrap, &prefix, &size])
        .current_dir(place::root().join("tests/compat"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
        .spawn()
        .with_context(|| format!("cannot start {}", line.join(" ")))
}

/// Hears a driver out, and does what it asks for; answers how many features it told of.
fn listen(
    stdout: impl BufRead,
    mut stdin: impl Write,
    cluster: &mut Cluster,
    column: &mut Column,
) -> anyhow::Result<usize> {
    let mut told = 0;
    let mut since = Instant::now();
    for line in stdout.lines() {
        let line = line?;
        let Ok(value) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        if let Some(node) = value["kill"].as_str() {
            let id = node.parse().with_context(|| format!("not a node: {line}"))?;
            cluster.kill(id)?;
            // A driver that has given up does not read it.
            let _ = writeln!(stdin, "back");
        } else if let Some(feature) = value["feature"].as_str() {
            let outcome = Outcome::read(text("outcome"), text("why"));
            let outcome = outcome.with_context(|| format!("no outcome: {line}"))?;
            let seconds = since.elapsed().as_secs_f64();
            println!("{feature:<24}{seconds:>6.1} s  {outcome}");
            since = Instant::now();
            column.put(feature, cluster.name(), outcome);
            told += 1;
        } else {
            column.title(text("client"), text("version"));
        }
    }
    Ok(told)
}
