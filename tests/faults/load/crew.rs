//! Clients in Python that are killed, put to sleep and replaced while they work.
//!
//! It owns the processes, by their ids. A history is appended to by every life of a client; each line is in the file
//! before the call that it is about is made.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_tests::{PATIENCE, checkout, python_interpreter, within};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use super::history::path;

/// What a client ends with that somebody else has replaced, or whose library gave up.
const FENCED: i32 = 3;
/// What a client gets in the end for what it has under way.
const SETTLE: Duration = Duration::from_secs(90);
/// How long the last reader may take to see everything done, and then to read everything.
const FINAL: Duration = Duration::from_secs(600);

/// One client, through all its lives.
#[derive(Debug)]
struct Hand {
    task: &'static str,
    name: String,
    child: Child,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Crew {
    script: &'static str,
    folder: PathBuf,
    bootstrap: String,
    partitions: u32,
    hands: Vec<Hand>,
    lives: u32,
}

impl Crew {
    /// Starts clients by a script of this ring: task and name of each.
    pub(crate) fn start(
        script: &'static str,
        folder: &Path,
        bootstrap: String,
        partitions: u32,
        clients: impl IntoIterator<Item = (&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let mut crew = Self {
            script,
            folder: folder.to_owned(),
            bootstrap,
            partitions,
            hands: Vec::new(),
            lives: 0,
        };
        for (task, name) in clients {
            let child = crew.spawn(task, &name, None)?;
            crew.hands.push(Hand { task, name, child });
        }
        Ok(crew)
    }

    /// What it prints is for its log, unless somebody listens.
    fn spawn(&mut self, task: &str, name: &str, stdout: Option<Stdio>) -> anyhow::Result<Child> {
        self.lives += 1;
        let log = self.folder.join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let stdout = stdout.map_or_else(|| log.try_clone().map(Stdio::from), Ok)?;
        Command::new(python_interpreter())
            .arg(checkout().join("tests/faults/scripts").join(self.script))
            .args([task, name, &self.bootstrap, &self.partitions.to_string()])
            .arg(path(&self.folder, name))
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("python is missing: `cargo xtask faults` installs what it needs")
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.hands.len()
    }

    pub(crate) fn name(&self, of: usize) -> &str {
        &self.hands[of].name
    }

    /// How many processes there were.
    pub(crate) fn lives(&self) -> u32 {
        self.lives
    }

    /// SIGKILL, and another in its place at once.
    pub(crate) async fn kill(&mut self, which: usize) -> anyhow::Result<()> {
        let hand = &mut self.hands[which];
        hand.child.start_kill()?;
        within(PATIENCE, "the end of a killed client", hand.child.wait()).await??;
        self.replace(which).map(drop)
    }

    /// Tells it to end, waits until it has, and starts another.
    pub(crate) async fn renew(&mut self, which: usize) -> anyhow::Result<()> {
        let hand = &mut self.hands[which];
        end(&mut hand.child).await?;
        let status = within(SETTLE, "a client's end", hand.child.wait()).await;
        check(&hand.name, status.with_context(|| hand.name.clone())??.code())?;
        self.replace(which).map(drop)
    }

    fn replace(&mut self, which: usize) -> anyhow::Result<Child> {
        let (task, name) = (self.hands[which].task, self.hands[which].name.clone());
        let child = self.spawn(task, &name, None)?;
        Ok(std::mem::replace(&mut self.hands[which].child, child))
    }

    /// Puts it to sleep, starts another of the same name, and wakes it after a while: it works on until it learns that it
    /// was replaced. Whatever it does then must have no effect.
    pub(crate) async fn haunt(&mut self, which: usize, asleep: Duration) -> anyhow::Result<()> {
        signal(&self.hands[which].child, Signal::STOP)?;
        let mut zombie = self.replace(which)?;
        tokio::time::sleep(asleep).await;
        signal(&zombie, Signal::CONT)?;
        let name = &self.hands[which].name;
        // Of a client that had nothing under way nobody asks anything: it may not notice.
        tokio::select! {
            ended = zombie.wait() => check(name, ended?.code()),
            () = tokio::time::sleep(asleep) => {
                zombie.start_kill()?;
                zombie.wait().await?;
                Ok(())
            }
        }
    }

    /// Starts those again that have ended by themselves, as their users would.
    pub(crate) fn tend(&mut self) -> anyhow::Result<()> {
        for which in 0..self.hands.len() {
            if let Some(status) = self.hands[which].child.try_wait()? {
                check(&self.hands[which].name, status.code())?;
                self.replace(which)?;
            }
        }
        Ok(())
    }

    /// Waits until the last reader says that everything is done, lets every client end, and has it read what is there. The
    /// load has ended, and nothing goes wrong any more. Answers with the histories.
    pub(crate) async fn close(mut self) -> anyhow::Result<Vec<PathBuf>> {
        let name = "final";
        let mut last = self.spawn(name, name, Some(Stdio::piped()))?;
        let mut lines = BufReader::new(last.stdout.take().context("stdout is piped")?).lines();
        let caught_up = async {
            loop {
                tokio::select! {
                    line = lines.next_line() => match line?.as_deref().and_then(|line| line.strip_prefix("caught up ")) {
                        Some(counts) => return anyhow::Ok(counts.to_owned()),
                        None => continue,
                    },
                    () = tokio::time::sleep(Duration::from_secs(1)) => self.tend()?,
                }
            }
        };
        let counts = within(FINAL, "the end of the work", caught_up).await??;
        println!("          done, and to do: {counts}");
        let mut files: Vec<PathBuf> = vec![path(&self.folder, name)];
        for hand in &mut self.hands {
            files.push(path(&self.folder, &hand.name));
            end(&mut hand.child).await?;
            let status = within(SETTLE, "a client's end", hand.child.wait()).await;
            if status.is_err() {
                // It says where it is.
                signal(&hand.child, Signal::USR1)?;
                let _ = within(Duration::from_secs(1), "its last word", hand.child.wait()).await;
            }
            let status = status.with_context(|| hand.name.clone())??;
            check(&hand.name, status.code())?;
        }
        end(&mut last).await?;
        // What it says besides is for its log.
        while within(FINAL, "the last reader", lines.next_line())
            .await??
            .is_some()
        {}
        let status = last.wait().await?;
        ensure!(status.success(), "the last reader ended with {status}");
        Ok(files)
    }
}

async fn end(child: &mut Child) -> anyhow::Result<()> {
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    // One that has just ended by itself does not listen.
    let _ = stdin.write_all(b"end\n").await;
    Ok(())
}

fn check(name: &str, code: Option<i32>) -> anyhow::Result<()> {
    ensure!(matches!(code, Some(0 | FENCED)), "{name} ended with {code:?}");
    Ok(())
}

fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(Pid::from_raw).context("the client has ended")?;
    Ok(kill_process(pid, signal)?)
}
