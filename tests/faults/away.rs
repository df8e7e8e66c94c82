//! `away`: a node is killed, stays down while the load goes on, comes back and catches up. What that costs the others.
//!
//! It owns the windows in which latencies are compared. All of them are of the same load; a window on the timeline is one
//! in which nothing else should run on the machine.

use std::time::{Duration, Instant};

use anyhow::ensure;
use headwater_checker::Verdict;
use headwater_tests::Random;
use serde_json::json;

use crate::course::Course;
use crate::latency::{self, Figures, Latencies, Window};
use crate::load::now;

/// Before the first window, and from a node's death to the next.
const SETTLE: Duration = Duration::from_secs(10);
/// What was sent in a window has its outcome before the next trouble.
const OUTCOMES: Duration = Duration::from_secs(2);
/// How long catching up may take.
const CATCH_UP: Duration = Duration::from_secs(3600);

const WHOLE: &str = "all nodes";
const WITHOUT: &str = "one away";
const CATCHING_UP: &str = "catching up";
const AFTER: &str = "in sync again";

/// What catching up took.
struct CaughtUp {
    to_ready: Duration,
    to_in_sync: Duration,
    bytes: u64,
    frames_dropped: u64,
}

/// Leaves a node away for so long, and measures each window for so long.
pub(crate) async fn run(
    mut course: Course,
    mut random: Random,
    away: Duration,
    measured: Duration,
) -> anyhow::Result<Verdict> {
    ensure!(
        away >= measured + SETTLE,
        "a node that is away for {away:?} leaves no window of {measured:?}"
    );
    let numbers = course.lab.numbers();
    ensure!(numbers.len() > 2, "a node that is away needs two others");
    let node = numbers[random.below(0..numbers.len() as u64) as usize];

    tokio::time::sleep(SETTLE).await;
    let mut windows = vec![quiet(&course, WHOLE, measured).await];
    tokio::time::sleep(OUTCOMES).await;
    course.say(&format!("kill -9 {node}, away for {} s", away.as_secs()));
    course.lab.member(node).kill().await?;
    tokio::time::sleep(away - measured).await;
    course.check_alive()?;
    windows.push(quiet(&course, WITHOUT, measured).await);
    tokio::time::sleep(OUTCOMES).await;

    course.say(&format!("window begins: {CATCHING_UP}"));
    let (from, began, dropped) = (now(), Instant::now(), course.lab.switch.frames().dropped);
    course.lab.member(node).start()?;
    course.lab.member(node).ready().await?;
    let to_ready = began.elapsed();
    course.in_sync_within(CATCH_UP).await?;
    windows.push(Window {
        name: CATCHING_UP,
        from,
        until: now(),
    });
    let caught_up = CaughtUp {
        to_ready,
        to_in_sync: began.elapsed(),
        bytes: course.lab.member(node).bytes_fetched().await?,
        frames_dropped: course.lab.switch.frames().dropped - dropped,
    };
    course.say("window ends");
    windows.push(quiet(&course, AFTER, measured).await);
    course.check_alive()?;

    let (histories, refused) = (course.load.histories(), course.load.tally.refused());
    let verdict = course.close().await?;
    report(&windows, latency::of(&histories, &windows)?, &caught_up, refused);
    ensure!(refused == 0, "{refused} records were refused");
    Ok(verdict)
}

async fn quiet(course: &Course, name: &'static str, lasts: Duration) -> Window {
    course.say(&format!("window begins: {name}, {} s", lasts.as_secs()));
    let from = now();
    tokio::time::sleep(lasts).await;
    course.say("window ends");
    Window {
        name,
        from,
        until: now(),
    }
}

fn report(windows: &[Window], latencies: Vec<Latencies>, caught_up: &CaughtUp, refused: u64) {
    let CaughtUp {
        to_ready,
        to_in_sync,
        bytes,
        frames_dropped,
    } = caught_up;
    let seconds = to_in_sync.as_secs_f64();
    let megabytes = *bytes as f64 / 1e6;
    println!(
        "ready after {:.2} s, in sync after {seconds:.2} s: {megabytes:.1} MB copied, {:.1} MB/s; the switch dropped \
         {frames_dropped} frames meanwhile",
        to_ready.as_secs_f64(),
        megabytes / seconds
    );
    println!("ms, from sending to                 records      p50      p99    p99.9      max");
    let mut shapes = serde_json::Map::new();
    let mut p99 = Vec::new();
    for (window, mut latencies) in windows.iter().zip(latencies) {
        let acknowledged = Figures::of(&mut latencies.acknowledged);
        let read = Figures::of(&mut latencies.read);
        println!("{:<16} {:<16} {acknowledged}", window.name, "acknowledgement");
        println!("{:<16} {:<16} {read}", "", "consumer");
        let shape = json!({ "acknowledged_ms": acknowledged.json(), "read_ms": read.json() });
        shapes.insert(window.name.replace(' ', "_"), shape);
        p99.push((window.name, acknowledged.p99));
    }
    let of = |name| {
        p99.iter()
            .find(|(known, _)| *known == name)
            .map_or(0.0, |(_, p99)| *p99)
    };
    let [factor, factor_of_whole] = [WITHOUT, WHOLE].map(|before| of(CATCHING_UP) / of(before));
    println!(
        "p99 of acknowledgements while it caught up: {factor:.2} times that of before, {factor_of_whole:.2} times that of \
         all nodes"
    );
    println!(
        "{}",
        json!({
            "windows": shapes, "factor_p99": factor, "factor_p99_of_whole": factor_of_whole, "to_ready_s": to_ready.as_secs_f64(), "to_in_sync_s": seconds,
            "copied_mb": megabytes, "copied_mb_per_s": megabytes / seconds, "refused": refused,
        })
    );
}
