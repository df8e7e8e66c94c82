//! `cargo xtask fuzz`: runs the fuzzers of the node's transforms for minutes in place of the moments that a test has.
//!
//! It owns the list of targets and how they are built: optimised, with every assertion and overflow check on. What a case is
//! and how one is run again is `node/src/transform/fuzz.rs`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};

use crate::step;

const TARGETS: [&str; 3] = ["modules", "answers", "host_calls"];
const MINUTES: f64 = 1.0;
/// What is in the way of every case, optimised.
const OPTIMISED: [&str; 3] = ["headwater", "headwater-protocol", "wasmparser"];

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let Options {
        targets,
        minutes,
        seed,
    } = Options::read(args)?;
    for target in targets {
        let mut command = step::cargo(["test", "--package", "headwater", "--lib"]);
        for package in OPTIMISED {
            let option = format!("profile.dev.package.{package}.opt-level=2");
            command.args(["--config", &option]);
        }
        let test = format!("transform::fuzz::{target}::{target}");
        command.args(["--", "--exact", &test, "--nocapture"]);
        command.env("HEADWATER_FUZZ_SECONDS", format!("{:.0}", minutes * 60.0));
        command.env("HEADWATER_FUZZ_SEED", seed.to_string());
        step::run(target, &mut command)?;
    }
    Ok(())
}

struct Options {
    targets: Vec<&'static str>,
    minutes: f64,
    /// The number of the first case.
    seed: u64,
}

impl Options {
    fn read(args: &[String]) -> anyhow::Result<Self> {
        let mut options = Self {
            targets: Vec::new(),
            minutes: MINUTES,
            seed: fresh_seed()?,
        };
        let mut args = args.iter();
        while let Some(argument) = args.next() {
            let mut value = || args.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--minutes" => options.minutes = value()?.parse().context("--minutes takes a number")?,
                "--seed" => options.seed = value()?.parse().context("--seed takes a number")?,
                name => match TARGETS.iter().find(|target| **target == name) {
                    Some(target) => options.targets.push(target),
                    None => bail!("no target `{name}`: there are {}", TARGETS.join(", ")),
                },
            }
        }
        ensure!(
            (0.0..=1e5).contains(&options.minutes),
            "--minutes takes what a clock shows"
        );
        if options.targets.is_empty() {
            options.targets.extend(TARGETS);
        }
        Ok(options)
    }
}

/// Another each time, so that no two runs try the same.
fn fresh_seed() -> anyhow::Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(now.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_not_there_is_named() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            Options::read(&words)
        };
        let options = read(&["answers", "--minutes", "2", "--seed", "7"]).unwrap();
        assert_eq!((options.targets, options.seed), (vec!["answers"], 7));
        assert_eq!(read(&[]).unwrap().targets, TARGETS);
        let error = read(&["questions"]).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("modules, answers, host_calls")));
        assert!(read(&["--seed"]).is_err() && read(&["--minutes", "-1"]).is_err());
    }
}
