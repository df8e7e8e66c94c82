//! `groups`: many members share many partitions while members are killed, leave and come; then who read what is judged.
//!
//! It owns the group's processes. The numbered load is what they read.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_checker::{Ownership, Verdict};
use headwater_tests::Random;
use serde_json::json;

use crate::course::{Course, read_each};
use crate::load::Crew;

/// Members in each process of `groups.py`.
const MEMBERS: u32 = 10;

/// Which protocol the members speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// JoinGroup and SyncGroup
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848)
    Consumer,
}

/// Disturbs the group for so long, then judges.
pub(crate) async fn run(
    mut course: Course,
    mut random: Random,
    lasts: Duration,
    (protocol, members): (Protocol, u32),
    folder: &Path,
) -> anyhow::Result<Verdict> {
    let task = match protocol {
        Protocol::Classic => "classic",
        Protocol::Consumer => "consumer",
    };
    let processes = members.div_ceil(MEMBERS);
    let (bootstrap, partitions) = (course.lab.bootstrap(""), course.load.partitions());
    let clients = (1..=processes).map(|number| (task, format!("members-{number}")));
    let mut crew = Crew::start("groups.py", folder, bootstrap, partitions, clients)?;
    while course.started.elapsed() < lasts {
        tokio::time::sleep(Duration::from_millis(random.below(5_000..15_000))).await;
        let which = random.below(0..u64::from(processes)) as usize;
        if random.below(0..2) == 0 {
            course.say(&format!("kill -9 {}", crew.name(which)));
            crew.kill(which).await?;
        } else {
            course.say(&format!("{} leave and others come", crew.name(which)));
            crew.renew(which).await?;
        }
        crew.tend()?;
        course.check_alive()?;
    }
    course.say(&format!(
        "{} processes of {MEMBERS} members each in all",
        crew.lives()
    ));
    course.settle().await?;
    let files = crew.close().await.context("the end of the group")?;
    let mut ownership = Ownership::default();
    read_each(&files, |lines| ownership.read(lines))?;
    let ownership = ownership.verdict();
    println!("{ownership}");
    let verdict = course.close().await?;
    let idle = |percent| ownership.idle_ms(percent).round();
    println!(
        "{}",
        json!({ "protocol": task, "members": members, "without_owner_ms": { "p50": idle(50), "p99": idle(99), "max": idle(100) } })
    );
    ensure!(ownership.holds(), "the group did not keep what it promises");
    Ok(verdict)
}
