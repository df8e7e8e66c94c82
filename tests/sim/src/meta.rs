//! The test of the simulator itself: one seed twice gives the same lines. Without that nothing else is worth reading.
//!
//! Each run is a process of its own, as in a swarm, and the lines are compared as they come.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::Context;

/// Lines shown before the first difference.
const CONTEXT_LINES: usize = 12;

/// Runs the seed twice with every line written; says where they part, if they do. Answers with the number of lines.
pub(crate) fn compare(seed: u64, wishes: &[String]) -> anyhow::Result<u64> {
    let (mut one, mut ones) = start(seed, wishes)?;
    let (mut other, mut others) = start(seed, wishes)?;
    let mut context = std::collections::VecDeque::new();
    let mut count = 0;
    loop {
        let (first, second) = (ones.next().transpose()?, others.next().transpose()?);
        if first != second {
            let _ = (one.kill(), other.kill(), one.wait(), other.wait());
            let context: Vec<String> = context.into();
            anyhow::bail!(
                "seed {seed}: two runs part at line {count}\n{}\nfirst:  {}\nsecond: {}",
                context.join("\n"),
                first.as_deref().unwrap_or("(it ended)"),
                second.as_deref().unwrap_or("(it ended)")
            );
        }
        let Some(line) = first else { break };
        count += 1;
        if context.len() == CONTEXT_LINES {
            context.pop_front();
        }
        context.push_back(line);
    }
    let (first, second) = (one.wait()?, other.wait()?);
    anyhow::ensure!(
        first == second,
        "seed {seed}: one run ended with {first}, the other with {second}"
    );
    anyhow::ensure!(first.success(), "seed {seed}: both runs failed, alike");
    Ok(count)
}

fn start(seed: u64, wishes: &[String]) -> anyhow::Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["run", "--seed", &seed.to_string(), "--full"])
        .args(wishes)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a run")?;
    let stdout = child.stdout.take().context("stdout was piped")?;
    Ok((child, BufReader::new(stdout).lines()))
}
