//! `headwater bench`: the workloads behind the figures we publish, as JSON on standard output.
//!
//! Each states what it did: acks, whether they waited for the disk, compression, how much was in flight. Figures move with
//! the machine: compare those of one run.

mod cable;
mod consume;
mod end_to_end;
mod histogram;
mod hostile;
mod load;
mod memory;
mod mirror;
mod produce;
mod replication;
mod startup;
mod target;
mod transform;

use std::path::Path;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use self::target::Place;
use super::common::print;
use super::failure::Failure;
use crate::sys::Sys;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Records in: throughput, or with --each the time of one record's acknowledgement
    Produce(produce::Arguments),
    /// Records out: everything from offset 0 on, counted
    Consume(consume::Arguments),
    /// One record's way from a producer to a consumer, at a steady rate
    EndToEnd(end_to_end::Arguments),
    /// Records through a built-in module: throughput, and what it costs the producer
    Transform(transform::Arguments),
    /// What modules that misbehave cost a producer on another topic
    Hostile(hostile::Arguments),
    /// From an edge to its core, live and as a backlog (starts both nodes)
    Mirror(mirror::Arguments),
    /// What replication costs: three nodes beside one, with few and with many partitions (starts the nodes)
    Replication(replication::Arguments),
    /// From the start of a process to its ready line, and what it holds then (starts nodes; --nodes: one of so many)
    Startup(startup::Arguments),
    /// What a node holds, idle and under load (starts a node)
    Memory(memory::Arguments),
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let sys = Sys::real(Path::new(""));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let replicas = arguments.place.replicas();
    // Told to stop, the nodes that were started go with their workload.
    let mut figures = tokio::select! {
        biased;
        _ = terminate.recv() => return Err(Failure::new("stopped by SIGTERM")),
        _ = interrupt.recv() => return Err(Failure::new("stopped")),
        figures = Box::pin(measure(&sys, arguments)) => figures?,
    };
    figures["client_threads"] = json!(1);
    if let Some(replicas) = replicas {
        figures["replicas"] = json!(replicas);
    }
    say(&figures)
}

async fn measure(sys: &Sys, arguments: Arguments) -> Result<Value, Failure> {
    let Arguments { place, command } = arguments;
    match command {
        Command::Produce(arguments) => produce::run(sys, &place, &arguments).await,
        Command::Consume(arguments) => consume::run(sys, &place, &arguments).await,
        Command::EndToEnd(arguments) => end_to_end::run(sys, &place, &arguments).await,
        Command::Transform(arguments) => transform::run(sys, &place, &arguments).await,
        Command::Hostile(arguments) => hostile::run(sys, &place, &arguments).await,
        Command::Mirror(arguments) => mirror::run(sys, &arguments).await,
        Command::Replication(arguments) => replication::run(sys, &place, &arguments).await,
        Command::Startup(arguments) => startup::run(sys, &place, &arguments).await,
        Command::Memory(arguments) => memory::run(sys, &arguments).await,
    }
}

fn say(figures: &Value) -> Result<(), Failure> {
    print(&format!("{figures:#}\n"))
}

/// A figure with as many digits as mean something.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powf(4.0 - value.abs().log10().ceil());
    (value * scale).round() / scale
}

/// The middle one of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_four_digits() {
        assert_eq!(
            [rounded(123_456.0), rounded(0.123_456), rounded(0.0)],
            [123_500.0, 0.1235, 0.0]
        );
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
