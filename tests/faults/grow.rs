//! `grow`: one node under load becomes three, then five, everything moves each time, then two are let go, the first of
//! all among them. All of it by the commands that an operator has; no producer may be shown an error.
//!
//! It owns the steps. Clients are told of the first node alone, which is gone in the end.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use headwater_checker::Verdict;
use headwater_tests::{PATIENCE, Random, headwater, until};
use serde_json::{Value, json};

use crate::course::Course;
use crate::lab::NodeNumber;
use crate::load;

/// Hosts that this takes.
pub(crate) const NODES: u8 = 5;
const FIRST: NodeNumber = NodeNumber(1);
/// How long a command that was hit by a kill may be tried.
const COMMAND: Duration = Duration::from_secs(300);

struct Growth {
    course: Course,
    rest: Duration,
    /// Draws whom to kill, and when, where anybody is to be killed.
    killer: Option<Random>,
    cluster: String,
    steps: Vec<Value>,
}

/// Grows and shrinks, with a rest under load before each step.
pub(crate) async fn run(course: Course, rest: Duration, killer: Option<Random>) -> anyhow::Result<Verdict> {
    let mut growth = Growth {
        course,
        rest,
        killer,
        cluster: String::new(),
        steps: Vec::new(),
    };
    let described = growth.operate(&["cluster", "describe"]).await?;
    let id = described["cluster_id"].as_str().context("a cluster has an id")?;
    growth.cluster = id.to_owned();
    println!("step                                     seconds  longest silence  copied between nodes");

    growth.join_two().await?;
    growth
        .step(
            "three replicas of everything",
            Step::Move(&["cluster", "rebalance", "--yes", "--replication-factor", "3"]),
        )
        .await?;
    growth
        .step(
            "min.insync.replicas=2",
            Step::Change(&["topic", "alter", load::TOPIC, "--set", "min.insync.replicas=2"]),
        )
        .await?;
    growth.join_two().await?;
    growth
        .step(
            "everything over five",
            Step::Move(&["cluster", "rebalance", "--yes"]),
        )
        .await?;
    growth.expect(&[1, 2, 3, 4, 5]).await?;
    let other = NodeNumber(3);
    growth.let_go(FIRST).await?;
    growth.let_go(other).await?;
    growth.expect(&[2, 4, 5]).await?;
    growth.close().await
}

/// What an operator does.
enum Step<'a> {
    /// A command that moves replicas: a node may be killed meanwhile.
    Move(&'a [&'a str]),
    Change(&'a [&'a str]),
}

impl Growth {
    /// Runs a command of the operator, and reads its answer.
    async fn operate(&self, command: &[&str]) -> anyhow::Result<Value> {
        operate(&self.course.lab.bootstrap(""), command).await
    }

    /// Two more nodes, as voters.
    async fn join_two(&mut self) -> anyhow::Result<()> {
        for _ in 0..2 {
            self.take_rest().await?;
            let before = self.copied().await;
            let began = Instant::now();
            let number = self.course.lab.join(&self.cluster).await?;
            let id = number.0.to_string();
            // It votes when it holds nearly all of the metadata, which takes it a moment.
            self.operate(&["cluster", "add-voter", &id]).await?;
            self.told(&format!("{number} joins and votes"), began, before)
                .await?;
        }
        Ok(())
    }

    async fn let_go(&mut self, node: NodeNumber) -> anyhow::Result<()> {
        let quorum = self.operate(&["cluster", "quorum"]).await?;
        let leads = quorum["leader"] == node.0;
        let what = if leads { ", the quorum's leader" } else { "" };
        let id = node.0.to_string();
        let command = ["cluster", "decommission", &id, "--yes"];
        self.step(&format!("let {node} go{what}"), Step::Move(&command))
            .await?;
        self.course.lab.retire(node).await
    }

    /// Waits a while, does it, and tells what it cost.
    async fn step(&mut self, name: &str, step: Step<'_>) -> anyhow::Result<()> {
        self.take_rest().await?;
        let before = self.copied().await;
        let began = Instant::now();
        match (step, self.killer.is_some()) {
            (Step::Move(command), true) => self.move_under_fire(command).await?,
            (Step::Move(command) | Step::Change(command), _) => drop(self.operate(command).await?),
        }
        self.course.writes_go_through().await?;
        self.told(name, began, before).await
    }

    async fn take_rest(&mut self) -> anyhow::Result<()> {
        tokio::time::sleep(self.rest).await;
        self.course.check_alive()?;
        self.course.load.tally.take_silence();
        Ok(())
    }

    async fn told(
        &mut self,
        name: &str,
        began: Instant,
        before: Vec<(NodeNumber, u64)>,
    ) -> anyhow::Result<()> {
        let seconds = began.elapsed().as_secs_f64();
        let silence = self.course.load.tally.take_silence() as f64 / 1e3;
        let was = |node| {
            before
                .iter()
                .find(|(known, _)| *known == node)
                .map_or(0, |(_, bytes)| *bytes)
        };
        // A node that was started anew counts from zero.
        let copied = self.copied().await;
        let copied = copied
            .iter()
            .map(|(node, bytes)| bytes.checked_sub(was(*node)).unwrap_or(*bytes));
        let megabytes = copied.sum::<u64>() as f64 / 1e6;
        self.course.say(&format!(
            "{name:<36} {seconds:>7.2} s {silence:>12.0} ms {megabytes:>12.1} MB"
        ));
        self.steps
            .push(json!({ "step": name, "seconds": seconds, "silence_ms": silence, "copied_mb": megabytes }));
        Ok(())
    }

    /// What each node has fetched from others so far; of one that was let go meanwhile nothing is known.
    async fn copied(&self) -> Vec<(NodeNumber, u64)> {
        let mut copied = Vec::new();
        for member in self.course.lab.members.iter().filter(|member| member.is_up()) {
            if let Ok(bytes) = member.bytes_fetched().await {
                copied.push((member.number, bytes));
            }
        }
        copied
    }

    /// Runs a command, kills a node while it moves replicas, and starts it again. A command that failed by it is given
    /// again, as an operator would.
    async fn move_under_fire(&mut self, command: &[&str]) -> anyhow::Result<()> {
        let bootstrap = self.course.lab.bootstrap("");
        let words: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let moving = tokio::spawn(async move {
            until(COMMAND, "the command to succeed", || async {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                Ok(Some(operate(&bootstrap, &words).await?))
            })
            .await
        });
        // Who is to go stays up: once it is gone it must not come back.
        let leaving = (command[1] == "decommission").then(|| command[2].to_owned());
        let mut numbers = self.course.lab.numbers();
        numbers.retain(|number| leaving.as_deref() != Some(number.0.to_string().as_str()));
        let Some(random) = &mut self.killer else {
            return Ok(());
        };
        let node = numbers[random.below(0..numbers.len() as u64) as usize];
        let (wait, down) = (random.below(0..500), random.below(0..2_000));
        self.until_moving(&moving).await?;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let was_over = moving.is_finished();
        self.course.lab.member(node).kill().await?;
        tokio::time::sleep(Duration::from_millis(down)).await;
        self.course.lab.member(node).start()?;
        self.course.lab.member(node).ready().await?;
        moving.await??;
        let when = if was_over {
            "when all had moved"
        } else {
            "while replicas moved"
        };
        self.course.say(&format!("kill -9 {node} {when}, {down} ms down"));
        self.course.in_sync().await
    }

    async fn until_moving<T>(&self, command: &tokio::task::JoinHandle<T>) -> anyhow::Result<()> {
        let client = load::connect(&self.course.lab.bootstrap("")).await?;
        let admin = client.admin();
        let moving = until(PATIENCE, "replicas that move", || async {
            let ongoing = admin.list_partition_reassignments().await?;
            Ok((!ongoing.is_empty() || command.is_finished()).then_some(()))
        })
        .await;
        client.close().await;
        moving
    }

    /// Fails unless these nodes, and no others, vote and hold replicas.
    async fn expect(&self, nodes: &[i64]) -> anyhow::Result<()> {
        let quorum = self.operate(&["cluster", "quorum"]).await?;
        let voters = quorum["voters"].as_array().into_iter().flatten();
        let voters: Vec<i64> = voters.filter_map(|voter| voter["node"].as_i64()).collect();
        ensure!(voters == nodes, "voters {voters:?}, not {nodes:?}");
        let topic = self.operate(&["topic", "describe", load::TOPIC]).await?;
        let partitions = topic["partitions"].as_array().context("partitions")?;
        for partition in partitions {
            let replicas = partition["replicas"].as_array().context("replicas")?;
            let are_there = replicas
                .iter()
                .filter_map(Value::as_i64)
                .all(|node| nodes.contains(&node));
            ensure!(replicas.len() == 3 && are_there, "{partition}");
        }
        Ok(())
    }

    async fn close(self) -> anyhow::Result<Verdict> {
        let Self { course, steps, .. } = self;
        let refused = course.load.tally.refused();
        let verdict = course.close().await?;
        println!("{}", json!({ "steps": steps, "refused": refused }));
        let volume = &verdict.volume;
        ensure!(
            refused == 0 && volume.unknown == 0 && volume.failed == 0 && volume.unfinished == 0,
            "producers were shown errors"
        );
        Ok(verdict)
    }
}

async fn operate(bootstrap: &str, command: &[&str]) -> anyhow::Result<Value> {
    let connection = ["--bootstrap", bootstrap, "--output", "json"];
    let finished = headwater(command.iter().chain(&connection)).await?;
    let answer = finished.success().with_context(|| command.join(" "))?;
    Ok(serde_json::from_slice(&answer)?)
}
