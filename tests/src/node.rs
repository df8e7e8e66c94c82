//! One running `headwater node` process: its addresses, its end, its log.
//!
//! It owns the process. A dropped node is killed; when the test is failing, the end of its log is shown.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::task::JoinHandle;

use crate::{Http, PATIENCE, headwater, within};

/// Lines of the log that a failing test shows.
const LOG_LINES_SHOWN: usize = 60;

/// What a node said it bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub tcp: SocketAddr,
    pub quic: SocketAddr,
    pub http: SocketAddr,
    /// Only where it is told to listen there.
    pub tls: Option<SocketAddr>,
}

impl Addresses {
    /// Reads the ready line: `ready tcp=ADDR quic=ADDR http=ADDR`, with `tls=ADDR` behind it where that is on.
    pub fn parse(line: &str) -> Option<Self> {
        let words = line.strip_prefix("ready ")?;
        let find = |name: &str| {
            words
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.parse().ok())
        };
        Some(Self {
            tcp: find("tcp=")?,
            quic: find("quic=")?,
            http: find("http=")?,
            tls: find("tls="),
        })
    }
}

/// A node that said it is ready.
#[derive(Debug)]
pub struct Node {
    pub addresses: Addresses,
    child: Child,
    log: PathBuf,
    /// Reads the rest of stdout, so that the node never waits for us.
    rest: JoinHandle<()>,
}

impl Node {
    /// Waits for the ready line of a process just started. `log` is the file its stderr goes to.
    pub(crate) async fn ready(mut child: Child, log: &Path) -> anyhow::Result<Self> {
        let stdout = child.stdout.take().context("the node's stdout is not piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let addresses = match within(PATIENCE, "the ready line", first_ready(&mut lines))
            .await
            .and_then(|read| read)
        {
            Ok(addresses) => addresses,
            Err(why) => {
                let _ = child.start_kill();
                return Err(why.context(tail(log)));
            }
        };
        let rest = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            addresses,
            child,
            log: log.to_owned(),
            rest,
        })
    }

    /// Where Kafka clients connect.
    pub fn bootstrap(&self) -> String {
        self.addresses.tcp.to_string()
    }

    pub fn http(&self) -> Http {
        Http::new(self.addresses.http)
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("a node that was not waited for has a pid")
    }

    /// Everything the node has logged so far, on this start and those before on the same site.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The memory it holds now.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most memory that it ever held.
    pub fn peak_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, figure: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(figure))
            .with_context(|| format!("no {figure}"))?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.start_kill()?;
        within(PATIENCE, "the end of a killed node", self.child.wait()).await??;
        Ok(())
    }

    /// SIGTERM, and waits for it to drain and exit.
    pub async fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        let pid = i32::try_from(self.pid())?;
        let pid = rustix::process::Pid::from_raw(pid).context("a pid is never 0")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = within(PATIENCE, "draining after SIGTERM", self.child.wait()).await??;
        Ok(status)
    }

    /// Creates a topic, with properties by Kafka's names (`retention.ms=-1`), as an operator would.
    pub async fn create_topic(&self, name: &str, partitions: u32, properties: &[&str]) -> anyhow::Result<()> {
        let (bootstrap, partitions) = (self.bootstrap(), partitions.to_string());
        let mut args = vec![
            "topic",
            "create",
            name,
            "--bootstrap",
            &bootstrap,
            "--partitions",
            &partitions,
        ];
        args.extend(properties.iter().flat_map(|property| ["--config", property]));
        headwater(args)
            .await?
            .success()
            .with_context(|| format!("creating {name}"))?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.rest.abort();
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            eprintln!("{}", tail(&self.log));
        }
    }
}

async fn first_ready(lines: &mut tokio::io::Lines<BufReader<ChildStdout>>) -> anyhow::Result<Addresses> {
    let line = lines
        .next_line()
        .await?
        .context("the node ended before it was ready")?;
    Addresses::parse(&line).with_context(|| format!("not a ready line: {line}"))
}

/// The end of a log, with a heading.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    format!("-- the end of the node's log:\n{}\n--", shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_three_addresses() {
        let read =
            Addresses::parse("ready tcp=127.0.0.1:1 quic=127.0.0.1:2 http=[::1]:3").expect("a ready line");
        assert_eq!((read.tcp.port(), read.quic.port(), read.http.port()), (1, 2, 3));
        for wrong in [
            "",
            "ready",
            "ready tcp=127.0.0.1:1 quic=127.0.0.1:2",
            "tcp=1 quic=2 http=3",
        ] {
            assert_eq!(Addresses::parse(wrong), None, "{wrong}");
        }
    }
}
