//! `failover`, `rolling`, `power`: how long writes stand still when a leader is killed, whether anything fails when nodes
//! are restarted in order, and whether ten power cuts lose anything.
//!
//! It owns the figures and prints them as JSON, one object on the last line before the verdict.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use headwater_checker::Verdict;
use headwater_tests::{PATIENCE, Random, until, within};
use serde_json::json;

use crate::course::{Course, RECOVERY};
use crate::fault::Fault;
use crate::lab::NodeNumber;
use crate::load::{self, now};

/// Kills the leader of a partition again and again; measures from the kill to the next acknowledgement of a record that
/// was sent after it.
pub(crate) async fn failover(mut course: Course, mut random: Random, kills: u32) -> anyhow::Result<Verdict> {
    let client = load::connect(&course.lab.bootstrap("")).await?;
    let mut silences = Vec::new();
    for kill in 1..=kills {
        let partition = (kill - 1) % course.load.partitions();
        let leader = until(PATIENCE, "a leader", || load::leader(&client, partition)).await?;
        let node = NodeNumber(u8::try_from(leader)?);
        // Not always at the same point of anybody's timer.
        tokio::time::sleep(Duration::from_millis(random.below(200..1_200))).await;
        let killed = now();
        course.lab.member(node).kill().await?;
        if course.lab.members.len() == 1 {
            // Nobody takes over: what is measured is its own return.
            course.lab.member(node).start()?;
        }
        let next = within(
            RECOVERY,
            "the next acknowledgement",
            course.load.tally.acknowledged_since(partition, killed),
        )
        .await
        .with_context(|| format!("kill {kill}: {node}, leader of partition {partition}"))?;
        let silence = next.acknowledged.saturating_sub(killed) as f64 / 1e3;
        silences.push(silence);
        course.say(&format!(
            "kill {kill}: {node}, leader of partition {partition}: {silence:.0} ms"
        ));
        if !course.lab.member(node).is_up() {
            course.lab.member(node).start()?;
        }
        course.lab.member(node).ready().await?;
        course.in_sync().await?;
        course.check_alive()?;
    }
    client.close().await;
    let verdict = course.close().await?;
    println!(
        "{}",
        json!({ "failover_ms": percentiles(&mut silences), "kills": kills })
    );
    Ok(verdict)
}

/// Restarts one node after the other in order; no producer may be shown an error.
pub(crate) async fn rolling(mut course: Course, rounds: u32) -> anyhow::Result<Verdict> {
    let mut silences = Vec::new();
    for round in 1..=rounds {
        for node in course.lab.numbers() {
            course.load.tally.take_silence();
            course.lab.member(node).terminate().await?;
            course.lab.member(node).start()?;
            course.lab.member(node).ready().await?;
            course.in_sync().await?;
            course.writes_go_through().await?;
            let silence = course.load.tally.take_silence() as f64 / 1e3;
            silences.push(silence);
            course.say(&format!(
                "round {round}: {node} restarted, longest silence {silence:.0} ms"
            ));
        }
        course.check_alive()?;
    }
    let refused = course.load.tally.refused();
    let verdict = course.close().await?;
    println!(
        "{}",
        json!({ "silence_ms": percentiles(&mut silences), "restarts": silences.len(), "refused": refused })
    );
    ensure!(
        refused == 0,
        "{refused} records were refused during rolling restarts"
    );
    Ok(verdict)
}

/// Cuts the power of all nodes again and again.
pub(crate) async fn power(mut course: Course, mut random: Random, cuts: u32) -> anyhow::Result<Verdict> {
    let mut outages = Vec::new();
    for cut in 1..=cuts {
        tokio::time::sleep(Duration::from_millis(random.below(500..3_000))).await;
        let before = course.load.tally.acknowledged();
        Fault::PowerLoss.begin(&mut course.lab).await?;
        let started = Instant::now();
        Fault::PowerLoss.end(&mut course.lab).await?;
        course
            .writes_go_through()
            .await
            .with_context(|| format!("after power cut {cut}"))?;
        let outage = started.elapsed().as_secs_f64() * 1e3;
        outages.push(outage);
        course.say(&format!(
            "power cut {cut} after {before} acknowledgements, writes again after {outage:.0} ms"
        ));
        course.lab.all_ready().await?;
        course.check_alive()?;
    }
    let verdict = course.close().await?;
    println!(
        "{}",
        json!({ "start_to_write_ms": percentiles(&mut outages), "cuts": cuts })
    );
    Ok(verdict)
}

pub(crate) fn percentiles(values: &mut [f64]) -> serde_json::Value {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| match values.len() {
        0 => 0.0,
        count => values[(count * percent).div_ceil(100).clamp(1, count) - 1].round(),
    };
    json!({ "p50": at(50), "p90": at(90), "p99": at(99), "max": at(100) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_there() {
        let mut values: Vec<f64> = (1..=50).rev().map(f64::from).collect();
        assert_eq!(
            percentiles(&mut values),
            json!({ "p50": 25.0, "p90": 45.0, "p99": 50.0, "max": 50.0 })
        );
        assert_eq!(percentiles(&mut [])["max"], 0.0);
    }
}
