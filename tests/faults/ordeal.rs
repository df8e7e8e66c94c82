//! `run`: one fault after the other, drawn from a seed, with a timeline; then the verdict.
//!
//! It owns the timeline. After each fault it waits until writes go through again: a cluster that does not come back is as
//! wrong as one that loses a record.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use headwater_checker::Verdict;
use headwater_tests::Random;

use crate::course::Course;
use crate::fault::{Dealt, Deck, Fault, Kind};
use crate::load::now;

/// Puts the lab through faults for so long, then judges.
pub(crate) async fn run(
    mut course: Course,
    random: Random,
    lasts: Duration,
    only: &[Kind],
) -> anyhow::Result<Verdict> {
    let mut deck = Deck::new(random, course.lab.numbers(), only);
    let mut count = 0_u64;
    println!(
        "     time  fault, and acknowledgements in a second before, during and until writes went through again"
    );
    while course.started.elapsed() < lasts {
        let dealt = deck.deal().context("none of these faults is for so few nodes")?;
        one(&mut course, dealt)
            .await
            .with_context(|| format!("after {count} faults: {}", dealt.fault))?;
        count += 1;
    }
    course.say(&format!("{count} faults are over, everything is healed"));
    course.writes_go_through().await?;
    course.close().await
}

/// Deals one fault, and waits until the cluster has come back from it.
pub(crate) async fn one(course: &mut Course, dealt: Dealt) -> anyhow::Result<()> {
    let Dealt { pause, fault, lasts } = dealt;
    let peace = Span::begin(course);
    tokio::time::sleep(pause).await;
    let before = peace.rate(course);
    course.check_alive()?;
    course.load.tally.take_silence();

    let trouble = Span::begin(course);
    fault.begin(&mut course.lab).await?;
    fault.last(&mut course.lab, lasts).await?;
    let during = trouble.rate(course);
    fault.end(&mut course.lab).await?;

    let (mending, mended) = (Span::begin(course), now());
    recover(course, fault, mended).await?;
    let silence = Duration::from_micros(course.load.tally.take_silence());
    course.say(&format!(
        "{fault:<58} {before:>6.0} {during:>6.0} {:>6.0} /s   {:>5.2} s long, recovered {:>5.2} s later, silence {:>5.2} s",
        mending.rate(course),
        lasts.as_secs_f64(),
        mending.since.elapsed().as_secs_f64(),
        silence.as_secs_f64(),
        fault = fault.to_string(),
    ));
    Ok(())
}

/// Waits until writes go through again in every partition and every node is ready.
pub(crate) async fn recover(course: &mut Course, fault: Fault, mended: u64) -> anyhow::Result<()> {
    let tally = std::sync::Arc::clone(&course.load.tally);
    let recovered = tokio::time::timeout(crate::course::RECOVERY, tally.all_acknowledged_since(mended)).await;
    if recovered.is_err() {
        course.check_alive()?;
        let logs: Vec<String> = course.lab.members.iter().map(crate::lab::Member::tail).collect();
        bail!(
            "writes did not go through again within {:?} of the end of: {fault}\n{}",
            crate::course::RECOVERY,
            logs.join("\n")
        );
    }
    course.lab.all_ready().await
}

/// Acknowledgements from one moment on.
struct Span {
    since: Instant,
    acknowledged: u64,
}

impl Span {
    fn begin(course: &Course) -> Self {
        Self {
            since: Instant::now(),
            acknowledged: course.load.tally.acknowledged(),
        }
    }

    fn rate(&self, course: &Course) -> f64 {
        let count = course.load.tally.acknowledged() - self.acknowledged;
        count as f64 / self.since.elapsed().as_secs_f64().max(0.001)
    }
}
