//! What every run has in common: a lab, a load, an end in which all is healed, read, dumped and judged.
//!
//! It owns the order of the end. It must never give a verdict on less than everything that was recorded.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use headwater_checker::{Judge, Verdict};
use headwater_tests::{Random, until, within};

use crate::dump;
use crate::lab::{self, Hosts, Lab, Plan};
use crate::load::{self, Load, Volume};

/// How long writes may take to go through again in every partition when nothing is wrong any more.
pub(crate) const RECOVERY: Duration = Duration::from_secs(60);
/// How long followers may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(120);
const BUFFER_BYTES: usize = 1 << 20;

/// A run under way.
pub(crate) struct Course {
    pub(crate) lab: Lab,
    pub(crate) load: Load,
    pub(crate) started: Instant,
    is_settled: bool,
    folder: PathBuf,
}

impl Course {
    pub(crate) async fn start(
        hosts: Hosts,
        plan: &Plan,
        volume: Volume,
        random: Random,
    ) -> anyhow::Result<Self> {
        let lab = Lab::start(hosts, plan, random).await?;
        let load = Load::start(&lab, &plan.folder, volume).await?;
        let course = Self {
            lab,
            load,
            started: Instant::now(),
            is_settled: false,
            folder: plan.folder.clone(),
        };
        course.writes_go_through().await.context("the load never began")?;
        Ok(course)
    }

    /// Waits until each partition has acknowledged a record that was sent after now.
    pub(crate) async fn writes_go_through(&self) -> anyhow::Result<()> {
        let since = load::now();
        let all = self.load.tally.all_acknowledged_since(since);
        within(RECOVERY, "an acknowledgement in every partition", all).await
    }

    /// Waits until all replicas are in sync.
    pub(crate) async fn in_sync(&self) -> anyhow::Result<()> {
        self.in_sync_within(CATCH_UP).await
    }

    pub(crate) async fn in_sync_within(&self, limit: Duration) -> anyhow::Result<()> {
        let client = load::connect(&self.lab.bootstrap("")).await?;
        let caught_up = until(limit, "all replicas in sync", || async {
            Ok(load::is_in_sync(&client).await?.then_some(()))
        })
        .await;
        client.close().await;
        caught_up
    }

    /// Fails if a node or a client has ended by itself.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        self.lab.check_alive()?;
        self.load.check_alive()
    }

    /// Says something on the timeline.
    pub(crate) fn say(&self, what: &str) {
        println!("{:>7.1} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// Lets the load come to rest.
    pub(crate) async fn settle(&mut self) -> anyhow::Result<()> {
        if self.is_settled {
            return Ok(());
        }
        self.lab.all_ready().await?;
        self.in_sync().await?;
        let settled = self.load.settle().await?;
        self.is_settled = true;
        self.say(&settled.map_or_else(
            || "some records have no outcome yet: unknown".to_owned(),
            |last| format!("every record has its outcome, the last client to end was {last}"),
        ));
        Ok(())
    }

    /// Lets everything come to rest, reads the log, stops the nodes, dumps what they store, and judges.
    pub(crate) async fn close(mut self) -> anyhow::Result<Verdict> {
        self.settle().await?;
        let count = self
            .load
            .read_closing(&self.lab.bootstrap(""))
            .await
            .context("the closing read")?;
        let read = self.load.tally.read();
        self.say(&format!(
            "the log holds {count} records; consumers read {read} while it ran"
        ));
        self.in_sync().await?;
        self.lab.stop().await?;
        let mut files = self.load.histories();
        for member in &self.lab.members {
            let replica = member.number.to_string();
            let path = self.folder.join(format!("node-{}.dump", member.number.0));
            dump::write(
                &member.disk.data(),
                &self.load.topic_id.to_string(),
                &replica,
                &path,
            )?;
            files.push(path);
        }
        let frames = self.lab.switch.frames();
        self.say(&format!(
            "the switch carried {} frames and dropped {}",
            frames.carried, frames.dropped
        ));
        for (why, count) in self.load.tally.errors() {
            println!("{:>10}  {count} times: {why}", "");
        }
        judge(&files)
    }
}

/// Reads histories and dumps, and judges them.
pub(crate) fn judge(files: &[PathBuf]) -> anyhow::Result<Verdict> {
    let mut judge = Judge::default();
    read_each(files, |lines| judge.read(lines))?;
    Ok(judge.verdict())
}

/// Hands over one history after the other.
pub(crate) fn read_each(
    files: &[PathBuf],
    mut read: impl FnMut(BufReader<File>) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    for path in files {
        let file = File::open(path).with_context(|| format!("no {}", path.display()))?;
        read(BufReader::with_capacity(BUFFER_BYTES, file))?;
    }
    Ok(())
}

/// A folder for a run, removed in the end of one that holds.
pub(crate) fn make_folder(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => {
            lab::make_folder(path)?;
            Ok(path.to_owned())
        }
        None => Ok(tempfile::Builder::new()
            .prefix("headwater-faults-")
            .tempdir()?
            .keep()),
    }
}
