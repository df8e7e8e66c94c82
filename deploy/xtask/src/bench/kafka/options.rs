//! What the command was asked for.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use super::brokers::Acks;

pub(super) const HELP: &str = "\
cargo xtask bench kafka [OPTIONS] [WORK...]

The same work, by Kafka's own tools, for Headwater and for Apache Kafka on this machine, by turns (A B B A); the ratios, as a
table and as JSON (node/docs/kafka.md). WORK is any of startup, produce, consume, latency, failover; all of them otherwise.

  --quick             a tenth of the records: to see that it works
  --brokers 1|3       clusters of this size only; failover wants three
  --acks memory|synced   acknowledgements of this kind only
  --rounds N          how often each broker has its turn (2)
  --headwater PATH    this binary; without it the release binary is built (also HEADWATER_BIN)
  --json FILE         the JSON goes there
";

/// What can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Startup,
    Produce,
    Consume,
    Latency,
    /// With several brokers only.
    Failover,
}

impl Work {
    const ALL: [(&'static str, Self); 5] = [
        ("startup", Self::Startup),
        ("produce", Self::Produce),
        ("consume", Self::Consume),
        ("latency", Self::Latency),
        ("failover", Self::Failover),
    ];

    fn read(name: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        let (_, work) = found.with_context(|| format!("unknown argument `{name}` (see --help)"))?;
        Ok(*work)
    }
}

#[derive(Debug)]
pub(super) struct Options {
    pub(super) works: Vec<Work>,
    pub(super) brokers: Vec<usize>,
    pub(super) acks: Vec<Acks>,
    pub(super) rounds: usize,
    pub(super) is_quick: bool,
    pub(super) headwater: Option<PathBuf>,
    pub(super) json: Option<PathBuf>,
}

impl Options {
    pub(super) fn read(args: &[String]) -> anyhow::Result<Self> {
        let mut options = Self {
            works: Vec::new(),
            brokers: vec![1, 3],
            acks: vec![Acks::Memory, Acks::Synced],
            rounds: 2,
            is_quick: false,
            headwater: std::env::var_os("HEADWATER_BIN").map(PathBuf::from),
            json: None,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--quick" => options.is_quick = true,
                "--brokers" => options.brokers = vec![brokers(value()?)?],
                "--acks" => options.acks = vec![acks(value()?)?],
                "--rounds" => options.rounds = value()?.parse().context("--rounds is a number")?,
                "--headwater" => options.headwater = Some(value()?.into()),
                "--json" => options.json = Some(value()?.into()),
                name => options.works.push(Work::read(name)?),
            }
        }
        ensure!(options.rounds > 0, "--rounds is at least 1");
        if options.works == [Work::Failover] {
            options.brokers.retain(|brokers| *brokers > 1);
            ensure!(!options.brokers.is_empty(), "failover wants three brokers");
        }
        if options.works.is_empty() {
            options.works = Work::ALL.map(|(_, work)| work).to_vec();
        }
        Ok(options)
    }

    pub(super) fn wants(&self, work: Work) -> bool {
        self.works.contains(&work)
    }
}

fn brokers(text: &str) -> anyhow::Result<usize> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => bail!("--brokers is 1 or 3"),
    }
}

fn acks(text: &str) -> anyhow::Result<Acks> {
    match text {
        "memory" => Ok(Acks::Memory),
        "synced" => Ok(Acks::Synced),
        _ => bail!("--acks is memory or synced"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> anyhow::Result<Options> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::read(&args)
    }

    #[test]
    fn everything_is_compared_unless_something_is_named() {
        let all = read("").expect("nothing is enough");
        assert_eq!((all.works.len(), all.acks.len(), all.rounds), (5, 2, 2));
        assert_eq!(all.brokers, [1, 3]);
        let some = read("--quick --acks synced --rounds 3 produce").expect("known");
        assert!(some.is_quick && some.wants(Work::Produce) && !some.wants(Work::Latency));
        assert_eq!((some.acks, some.rounds), (vec![Acks::Synced], 3));
        assert_eq!(read("failover").expect("known").brokers, [3]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for line in [
            "prduce",
            "--brokers 2",
            "--rounds 0",
            "--rounds",
            "--acks none",
            "--brokers 1 failover",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
