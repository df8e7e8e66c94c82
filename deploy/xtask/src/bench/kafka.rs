//! `cargo xtask bench kafka`: Headwater beside Apache Kafka, on this machine, in one run, by Kafka's own tools.
//!
//! It owns the order of the turns: A B B A, so that what drifts meanwhile (a disk that others share, a processor that gets
//! warm) falls on both. `node/docs/kafka.md` says what is compared. It must never leave out what failed.

mod brokers;
mod cluster;
mod failover;
mod keeper;
mod options;
mod probe;
mod report;
mod tools;
mod usage;
mod work;

use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use self::brokers::{Kind, Programs};
use self::keeper::Keeper;
use self::options::Options;
use self::report::Sample;
use self::work::Turn;
use crate::{jars, step};

pub(super) fn run(args: &[String]) -> anyhow::Result<()> {
    if args.iter().any(|argument| crate::is_help(argument)) {
        print!("{}", options::HELP);
        return Ok(());
    }
    let started = Instant::now();
    let options = Options::read(args)?;
    let programs = Programs::prepare(options.headwater.clone())?;
    let keeper = Keeper::start()?;
    let machine = machine(&programs, &keeper);
    step::say(&format!("{machine}"));
    let mut samples = Vec::new();
    for &brokers in &options.brokers {
        for &acks in &options.acks {
            for round in 1..=options.rounds {
                for kind in order(round) {
                    let turn = Turn {
                        programs: &programs,
                        keeper: &keeper,
                        options: &options,
                        kind,
                        acks,
                        brokers,
                    };
                    take(&turn, round, &mut samples);
                }
            }
        }
    }
    drop(keeper);
    println!("{}", report::table(&samples));
    let mut all = report::json(&samples);
    all["machine"] = machine;
    match &options.json {
        Some(path) => std::fs::write(path, format!("{all:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?,
        None => println!("{all}"),
    }
    eprintln!("== wall time: {:.0} s", started.elapsed().as_secs_f64());
    match report::failures(&samples).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} failed", samples.len()),
    }
}

/// Who is first in a round: A B, B A, A B, ...
fn order(round: usize) -> [Kind; 2] {
    match round % 2 {
        1 => [Kind::Headwater, Kind::Kafka],
        _ => [Kind::Kafka, Kind::Headwater],
    }
}

fn take(turn: &Turn, round: usize, samples: &mut Vec<Sample>) {
    let Turn {
        kind, acks, brokers, ..
    } = *turn;
    step::say(&format!("{kind}, {brokers} of them, {acks}, round {round}"));
    let mut tell = |work: &str, figures: anyhow::Result<work::Figures>| {
        match &figures {
            Ok(figures) => eprintln!("{work}: {figures:.3?}"),
            Err(why) => eprintln!("{work}: FAILED: {why:#}"),
        }
        samples.push(Sample {
            brokers,
            acks,
            round,
            kind,
            work: work.to_owned(),
            figures: figures.map_err(|why| format!("{why:#}").replace('\n', " ")),
        });
    };
    if let Err(why) = turn.run(&mut tell) {
        tell("the cluster", Err(why));
    }
}

/// What the figures were measured on.
fn machine(programs: &Programs, keeper: &Keeper) -> Value {
    let headwater = programs.headwater().display().to_string();
    let folder = keeper.folder().display().to_string();
    let read = |name: &str, args: &[&str]| step::ask(name, args).unwrap_or_default();
    let filesystem = read("stat", &["-f", "-c", "%T", &folder]);
    if filesystem == "tmpfs" {
        step::say("the data lies in memory: no sync costs anything there (TMPDIR names another place)");
    }
    json!({
        "headwater": read(&headwater, &["--version"]),
        "kafka": jars::NEWEST,
        "java": read("java", &["--version"]).lines().next(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "filesystem": filesystem,
        "load_average": std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_taken_a_b_b_a() {
        let turns: Vec<_> = (1..=2).flat_map(order).collect();
        assert_eq!(
            turns,
            [Kind::Headwater, Kind::Kafka, Kind::Kafka, Kind::Headwater]
        );
    }
}
