//! The simulator: a whole cluster in one thread on one seed, with crashes and faults, judged by what clients were
//! promised. `README.md` says how to use it.
//!
//! This file reads the command line and picks.

mod client;
mod cluster;
mod digest;
mod disk;
mod entropy;
mod faults;
mod invariants;
mod liveness;
mod logs;
mod machine;
mod meta;
mod oracle;
mod process;
mod reached;
mod rest;
mod retirement;
mod rot;
mod scenario;
mod summary;
mod swarm;
mod totals;
mod trace;
mod upgrades;
mod workload;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use invariants::Violation;
use scenario::Wishes;
use swarm::End;
use trace::{Detail, Trace};
use world::World;

const USAGE: &str = "\
headwater-sim run    --seed S [--story | --full]     one seed; with its story, or with everything
headwater-sim replay --seed S                        the same with its story
headwater-sim swarm  --seeds N [--seed FIRST]        N seeds, a line each, the failed ones at the end
                     --until-found                   ends with the first that failed
headwater-sim meta   --seeds N [--seed FIRST]        each seed twice, compared line by line
  all: [--nodes N] [--seconds S]                     instead of what the seed says
       [--plain]                                     clients of plain topics only: no transactions, groups, compaction";

#[derive(Default)]
struct Arguments {
    command: String,
    seed: u64,
    seeds: u64,
    detail: Option<Detail>,
    end: End,
    wishes: Wishes,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(arguments) = read(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match arguments.command.as_str() {
        "run" => run(&arguments, arguments.detail.unwrap_or(Detail::Quiet)),
        "replay" => run(&arguments, arguments.detail.unwrap_or(Detail::Story)),
        "swarm" => swarm(&arguments),
        "meta" => meta(&arguments),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn read(words: &[String]) -> Option<Arguments> {
    let mut arguments = Arguments {
        seed: 1,
        seeds: 1,
        ..Arguments::default()
    };
    let mut words = words.iter();
    arguments.command = words.next()?.clone();
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse().ok();
        match word.as_str() {
            "--seed" => arguments.seed = number()?,
            "--seeds" => arguments.seeds = number()?,
            "--nodes" => arguments.wishes.nodes = Some(usize::try_from(number()?).ok()?),
            "--seconds" => arguments.wishes.seconds = Some(number()?),
            "--plain" => arguments.wishes.is_plain = true,
            "--story" => arguments.detail = Some(Detail::Story),
            "--until-found" => arguments.end = End::Found,
            "--full" => arguments.detail = Some(Detail::Full),
            _ => return None,
        }
    }
    Some(arguments)
}

impl Wishes {
    /// As they were given, for a process that is started or a line to be typed.
    fn words(self) -> Vec<String> {
        let nodes = self.nodes.map(|nodes| ["--nodes".to_owned(), nodes.to_string()]);
        let seconds = self
            .seconds
            .map(|seconds| ["--seconds".to_owned(), seconds.to_string()]);
        let plain = self.is_plain.then(|| "--plain".to_owned());
        let numbers = [nodes, seconds].into_iter().flatten().flatten();
        numbers.chain(plain).collect()
    }
}

fn run(arguments: &Arguments, detail: Detail) -> ExitCode {
    let seed = arguments.seed;
    entropy::seed(seed);
    let trace = Trace::new(detail);
    trace.take_logs();
    let mut world = World::new(seed, arguments.wishes, trace.clone());
    let outcome = live(&mut world);
    world.sum_up();
    let (nodes, virtual_s) = (world.machines.len(), world.now.as_secs());
    let run = format!("{nodes} nodes, {virtual_s} s: {}", world.summary);
    match outcome {
        Ok(()) => {
            println!("seed {seed} ok, {run}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            if detail == Detail::Quiet {
                trace.last(40).iter().for_each(|line| println!("{line}"));
            }
            println!("seed {seed} FAILED, {run}\n  {violation}");
            let words = arguments.wishes.words().join(" ");
            println!("  replay: cargo xtask sim replay --seed {seed} {words}");
            ExitCode::FAILURE
        }
    }
}

/// Unrest, then rest.
fn live(world: &mut World) -> Result<(), Violation> {
    world.begin();
    if !world.scenario.is_rough_start {
        liveness::begin(world)?;
    }
    world.faults.begin();
    world.pass(world.scenario.unrest)?;
    liveness::converge(world)?;
    world.pass(Duration::from_millis(100))
}

fn swarm(arguments: &Arguments) -> ExitCode {
    let wishes = arguments.wishes.words();
    match swarm::run(arguments.seed, arguments.seeds, arguments.end, &wishes) {
        Ok((failed, totals)) => {
            print!("{totals}");
            let passed = arguments.seeds - failed.len() as u64;
            if !failed.is_empty() {
                println!("failed seeds: {failed:?}");
                println!("found within {} seeds", failed[0] - arguments.seed + 1);
            }
            println!("sim result: {passed} passed; {} failed", failed.len());
            ExitCode::from(u8::from(!failed.is_empty()))
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn meta(arguments: &Arguments) -> ExitCode {
    let mut failed = 0;
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        match meta::compare(seed, &arguments.wishes.words()) {
            Ok(lines) => println!("seed {seed} twice: {lines} lines, all the same"),
            Err(error) => {
                failed += 1;
                println!("{error:#}");
            }
        }
    }
    println!(
        "meta result: {} passed; {failed} failed",
        arguments.seeds - failed
    );
    ExitCode::from(u8::from(failed > 0))
}
