//! Other people's clients, run as programs: kcat, and Python with its packages.
//!
//! It owns their processes, each with a deadline. A tool that is missing fails the test and says how to get it:
//! `cargo xtask test` installs them all.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::artifact::{cache, set};
use crate::site::node_binary;
use crate::{Node, checkout, within};

/// How long a tool may run.
const LIMIT: Duration = Duration::from_secs(300);

/// A tool that ran to its end.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    /// What it printed, if it succeeded.
    pub fn success(self) -> anyhow::Result<Vec<u8>> {
        let shown =
            String::from_utf8_lossy(&self.stdout[self.stdout.len().saturating_sub(2000)..]).into_owned();
        ensure!(self.status.success(), "{}\n{shown}\n{}", self.status, self.stderr);
        Ok(self.stdout)
    }
}

/// Runs kcat with these arguments, these bytes on its stdin.
pub async fn kcat<I: AsRef<OsStr>>(
    args: impl IntoIterator<Item = I>,
    stdin: &[u8],
) -> anyhow::Result<Finished> {
    let mut command = Command::new("kcat");
    command.args(args).stderr(Stdio::piped());
    let running = start(command).context("kcat is missing: `cargo xtask test` installs it")?;
    within(LIMIT, "kcat", finish(running, stdin)).await?
}

/// Runs the node's own binary with these arguments.
pub async fn headwater<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> anyhow::Result<Finished> {
    let mut command = node_binary()?;
    command.args(args).stderr(Stdio::piped());
    within(LIMIT, "headwater", finish(start(command)?, b"")).await?
}

/// Runs a command of the operator against a node, and reads its answer.
pub async fn operate(node: &Node, command: &[&str]) -> anyhow::Result<serde_json::Value> {
    let bootstrap = node.bootstrap();
    let connection = ["--bootstrap", bootstrap.as_str(), "--output", "json"];
    let finished = headwater(command.iter().chain(&connection)).await?;
    let answer = finished.success().with_context(|| command.join(" "))?;
    Ok(serde_json::from_slice(&answer)?)
}

/// As `headwater`, in a folder and with bytes on its stdin. What cargo builds for it stays in that folder.
pub async fn headwater_in<I: AsRef<OsStr>>(
    folder: &Path,
    args: impl IntoIterator<Item = I>,
    stdin: &[u8],
) -> anyhow::Result<Finished> {
    let mut command = node_binary()?;
    command
        .args(args)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", folder.join("target"));
    within(LIMIT, "headwater", finish(start(command)?, stdin)).await?
}

/// Starts the node's own binary with these arguments, to be read while it runs. Dropped, it is killed.
pub fn headwater_running<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> anyhow::Result<Running> {
    let mut command = node_binary()?;
    command.args(args);
    running(command, "headwater")
}

/// Starts a Python script of `tests/` with the packages that `cargo xtask test` installs.
pub fn python<I: AsRef<OsStr>>(script: &str, args: impl IntoIterator<Item = I>) -> anyhow::Result<Running> {
    let mut command = Command::new(python_interpreter());
    command
        .arg("-u")
        .arg(checkout().join("tests").join(script))
        .args(args);
    running(command, script).context("python is missing: `cargo xtask test` installs what it needs")
}

fn running(mut command: Command, script: &str) -> anyhow::Result<Running> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Read by nobody here, so it must not be a pipe that fills.
        .stderr(Stdio::inherit());
    let mut child = command.spawn()?;
    let lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
    Ok(Running {
        child,
        lines,
        script: script.to_owned(),
    })
}

/// A program that is running; what it prints is read line by line. Dropped, it is asked to end.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    script: String,
}

impl Running {
    /// The next line it prints; none when it has closed its stdout.
    pub async fn line(&mut self) -> anyhow::Result<Option<String>> {
        Ok(within(LIMIT, &self.script, self.lines.next_line()).await??)
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        self.ask_to_end();
        Ok(within(LIMIT, &self.script, self.child.wait()).await??)
    }

    fn ask_to_end(&self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Reads on to its end, which must be success; answers the last line it printed.
    pub async fn success(mut self) -> anyhow::Result<String> {
        let mut last = String::new();
        while let Some(line) = self.line().await? {
            last = line;
        }
        let status = within(LIMIT, &self.script, self.child.wait()).await??;
        ensure!(status.success(), "{}: {status}\n{last}", self.script);
        Ok(last)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not SIGKILL: what it has started itself goes with it.
        self.ask_to_end();
    }
}

/// `HEADWATER_PYTHON`, else the environment that `cargo xtask test` made, else whatever python3 is.
pub fn python_interpreter() -> PathBuf {
    if let Some(path) = set("HEADWATER_PYTHON") {
        return path;
    }
    let made = cache().map(|cache| cache.join("python/bin/python"));
    made.filter(|path| path.exists())
        .unwrap_or_else(|| "python3".into())
}

fn start(mut command: Command) -> std::io::Result<Child> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

async fn finish(mut child: Child, stdin: &[u8]) -> anyhow::Result<Finished> {
    let mut pipe = child.stdin.take().context("stdin is piped")?;
    let write = async {
        // A tool that ends early closes its stdin; its status tells.
        let _ = pipe.write_all(stdin).await;
        drop(pipe);
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Finished {
        status: output.status,
        stdout: output.stdout,
        stderr,
    })
}
