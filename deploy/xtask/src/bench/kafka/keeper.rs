//! Ends what was started and removes what was written, however this program ends: by itself, by Ctrl-C, or killed.
//!
//! It owns a folder, and a shell that outlives us: the shell is told what begins and what ends, and cleans up as soon as
//! nobody can tell it anything any more. It must never end a process that it was not told of.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::step;

/// Reads `+ PID` and `- PID` until there is nothing more to read. What is ended writes until it is gone, so the folder may
/// not be empty at first.
const SHELL: &str = r#"
trap '' INT TERM HUP
pids=' '
while read -r sign pid; do
  case $sign in
    +) pids="$pids$pid " ;;
    -) pids="${pids%%" $pid "*} ${pids#*" $pid "}" ;;
  esac
done
kill -9 $pids 2>/dev/null
for again in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$1" 2>/dev/null && break
  sleep 0.3
done
"#;

pub(super) struct Keeper {
    folder: PathBuf,
    shell: Child,
    /// Taken when it is to clean up.
    told: Option<ChildStdin>,
}

impl Keeper {
    pub(super) fn start() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("headwater-kafka-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut shell = Command::new("sh");
        shell.args(["-c", SHELL, "sh"]).arg(&folder).stdin(Stdio::piped());
        let mut shell = shell.spawn().context("cannot start a shell")?;
        let told = shell.stdin.take();
        Ok(Self { folder, shell, told })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a program that ends with us.
    pub(super) fn spawn(&self, command: &mut Command) -> anyhow::Result<Running<'_>> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let running = Running { child, keeper: self };
        self.tell('+', running.pid())?;
        Ok(running)
    }

    fn tell(&self, sign: char, pid: u32) -> anyhow::Result<()> {
        let mut told = self.told.as_ref().context("the keeper is gone")?;
        writeln!(told, "{sign} {pid}").context("the keeper does not listen")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.told.take());
        // Whether it could remove everything is its own affair.
        let _ = self.shell.wait();
    }
}

/// A process, killed when it is dropped.
pub(super) struct Running<'a> {
    child: Child,
    keeper: &'a Keeper,
}

impl Running<'_> {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its input and output, where they are pipes; once.
    pub(super) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.child.stdin.take().zip(self.child.stdout.take())
    }

    pub(super) fn has_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end, until then.
    pub(super) fn ended_by(&mut self, deadline: Instant) -> anyhow::Result<Option<ExitStatus>> {
        while Instant::now() < deadline {
            if let Some(status) = self.has_ended()? {
                return Ok(Some(status));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }

    /// Asks it to end, as SIGTERM does.
    pub(super) fn ask_to_end(&self) {
        step::ask("kill", &[&self.pid().to_string()]);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.keeper.tell('-', self.pid());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exists(pid: u32) -> bool {
        step::ask("kill", &["-0", &pid.to_string()]).is_some()
    }

    #[test]
    fn what_was_left_running_ends_and_the_folder_goes() {
        let mut keeper = Keeper::start().expect("a shell");
        let sleep = || {
            let mut command = Command::new("sleep");
            command.arg("600");
            command
        };
        let dropped = keeper.spawn(&mut sleep()).expect("sleep").pid();
        assert!(!exists(dropped), "it ends with its value");
        // As if this process had been killed: nobody is left to drop it.
        let mut left = sleep().spawn().expect("sleep");
        keeper.tell('+', left.id()).expect("it listens");
        std::fs::write(keeper.folder().join("file"), "text").expect("a file");
        drop(keeper.told.take());
        assert!(!left.wait().expect("it has ended").success());
        let _ = keeper.shell.wait();
        assert!(!keeper.folder().exists());
    }
}
