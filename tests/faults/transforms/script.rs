//! A script of this ring that has a task and an end: what it says last is its answer.
//!
//! It owns the process; dropped, it is killed. What goes wrong on its way is in a log of its own.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_tests::{checkout, python_interpreter, within};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

/// A script at work.
pub(super) struct Script {
    task: String,
    log: PathBuf,
    child: Child,
    stdin: ChildStdin,
    /// Reads all that it says, so that it never waits for us; gives the last of it.
    last: JoinHandle<String>,
}

impl Script {
    pub(super) fn start(script: &str, folder: &Path, task: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let log = folder.join(format!("{task}.log"));
        let said = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut child = Command::new(python_interpreter())
            .arg(checkout().join("tests/faults/scripts").join(script))
            .arg(task)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said)
            .kill_on_drop(true)
            .spawn()
            .context("python is missing: `cargo xtask faults` installs what it needs")?;
        let stdin = child.stdin.take().context("stdin is piped")?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let last = tokio::spawn(async move {
            let mut last = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                last = line;
            }
            last
        });
        Ok(Self {
            task: task.to_owned(),
            log,
            child,
            stdin,
            last,
        })
    }

    /// Tells it to end, and waits until it has. Gives what it said last.
    pub(super) async fn end(mut self, limit: Duration) -> anyhow::Result<String> {
        // One that has just ended by itself does not listen, and its status says so.
        let _ = self.stdin.write_all(b"end\n").await;
        self.ended(limit).await
    }

    /// Waits until it has ended well. Gives what it said last.
    pub(super) async fn ended(mut self, limit: Duration) -> anyhow::Result<String> {
        let status = within(limit, &format!("the end of {}", self.task), self.child.wait()).await??;
        let said = || std::fs::read_to_string(&self.log).unwrap_or_default();
        ensure!(
            status.success(),
            "{} ended with {status}; the end of {}:\n{}",
            self.task,
            self.log.display(),
            tail(&said())
        );
        Ok(self.last.await?)
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
