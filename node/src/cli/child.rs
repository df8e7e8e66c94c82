//! Nodes that a command starts for itself: processes of this same binary, on free ports, in a folder of their own.
//!
//! Owns the processes and their folder. However the command ends, a node that was started is killed and its folder
//! removed; only a kill of the command itself can leave them behind.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::failure::Failure;
use super::http::Http;
use crate::sys::Sys;
use crate::sys::task::Kind;

/// How long a node may take to be ready, and to drain.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of a node's log that are kept for when it fails.
const LOG_LINES: usize = 40;
/// What CPU time is counted in: USER_HZ is 100 on every Linux we run on.
const TICK_MS: u64 = 10;

/// A folder below the system's for temporary files; removed when dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    sys: Sys,
}

impl Folder {
    pub(super) fn new(sys: &Sys) -> Result<Self, Failure> {
        let name = format!("headwater-{:016x}", sys.random.u64());
        let path = std::env::temp_dir().join(name);
        let made = sys.disk.create_folder(&path);
        made.map_err(|why| Failure::new(format!("cannot make {}: {why}", path.display())))?;
        Ok(Self {
            path,
            sys: sys.clone(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A rest that cannot be removed is the system's to clean up.
        let _ = self.sys.disk.remove_folder(&self.path);
    }
}

/// A running node of ours. Dropping it kills it.
#[derive(Debug)]
pub(super) struct NodeProcess {
    process: Child,
    pub(super) tcp: String,
    pub(super) quic: String,
    pub(super) http: String,
    /// From the start of the process to its ready line.
    pub(super) started_in: Duration,
    log: Arc<Mutex<VecDeque<String>>>,
    sys: Sys,
}

impl NodeProcess {
    /// Starts a node on `data` and waits until it is ready. `properties` are `KEY=VALUE`.
    pub(super) async fn start(sys: &Sys, data: &Path, properties: &[&str]) -> Result<Self, Failure> {
        Self::start_on(sys, data, "127.0.0.1:0", properties).await
    }

    async fn start_on(sys: &Sys, data: &Path, quic: &str, properties: &[&str]) -> Result<Self, Failure> {
        let mut command = command(data, quic, properties)?;
        let started = sys.clock.now();
        let mut process = command
            .spawn()
            .map_err(|why| Failure::new(format!("cannot start {:?}: {why}", command.as_std())))?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = process.stderr.take() {
            keep_log(sys, stderr, Arc::clone(&log));
        }
        let stdout = process.stdout.take().map(BufReader::new);
        let mut lines = stdout
            .ok_or_else(|| Failure::new("the node's output is not piped"))?
            .lines();
        let first = sys.clock.timeout(PATIENCE, lines.next_line()).await;
        let ready = sys.clock.now();
        let found = match first {
            Ok(Ok(Some(line))) => addresses(&line).ok_or_else(|| format!("its first words were {line:?}")),
            Ok(Ok(None)) => Err("it ended".to_owned()),
            Ok(Err(why)) => Err(why.to_string()),
            Err(_) => Err(format!("it said nothing for {} s", PATIENCE.as_secs())),
        };
        let [tcp, quic, http] = match found {
            Ok(found) => found,
            Err(why) => {
                let _ = process.kill().await;
                return Err(Failure::new(format!(
                    "a node did not become ready: {why}\n{}",
                    shown(&log)
                )));
            }
        };
        // The rest of its output is read, so that it never waits for us.
        sys.tasks.spawn("node-output", Kind::BestEffort, async move {
            while let Ok(Some(_)) = lines.next_line().await {}
        });
        let started_in = since(started, ready);
        Ok(Self {
            process,
            tcp,
            quic,
            http,
            started_in,
            log,
            sys: sys.clone(),
        })
    }

    pub(super) fn api(&self) -> Result<Http, Failure> {
        Http::new(&self.http)
    }

    /// Where its web UI and its Kafka listeners are, for a person.
    pub(super) fn shown(&self, name: &str) -> String {
        let (http, tcp, quic) = (&self.http, &self.tcp, &self.quic);
        format!("{name}  http://{http}  kafka {tcp} (TCP), {quic} (QUIC)\n")
    }

    pub(super) fn quic_bootstrap(&self) -> String {
        format!("quic://{}", self.quic)
    }

    /// The memory it holds now, and the most it ever held.
    pub(super) fn memory(&self) -> Option<Memory> {
        let text = self.told("status")?;
        let figure = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()
                .map(|kib| kib * 1024)
        };
        Some(Memory {
            resident_bytes: figure("VmRSS:")?,
            peak_bytes: figure("VmHWM:")?,
        })
    }

    /// The CPU time it has used.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let text = self.told("stat")?;
        // The name in parentheses may hold anything; the fields that follow it are numbers.
        let (_, fields) = text.rsplit_once(") ")?;
        let mut fields = fields.split_ascii_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        Some(Duration::from_millis((ticks()? + ticks()?) * TICK_MS))
    }

    /// How many files and sockets it holds open.
    pub(super) fn open_files(&self) -> Option<usize> {
        let folder = format!("/proc/{}/fdinfo", self.process.id()?);
        Some(self.sys.disk.list(Path::new(&folder)).ok()?.len())
    }

    /// What the system says of the process.
    fn told(&self, name: &str) -> Option<String> {
        let path = format!("/proc/{}/{name}", self.process.id()?);
        let file = self
            .sys
            .disk
            .open(Path::new(&path), crate::sys::disk::Open::Read)
            .ok()?;
        let mut bytes = Vec::new();
        file.read_at(0, &mut bytes, 16 << 10).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether it has ended by itself, and what it said last.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Failure::new(format!(
                "a node ended ({status})\n{}",
                shown(&self.log)
            ))),
            Err(why) => Err(Failure::new(format!("a node cannot be watched: {why}"))),
        }
    }

    /// SIGTERM, and waits for it to drain.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        let pid = self
            .process
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself; waiting says how.
            let _ = kill_process(pid, Signal::TERM);
        }
        match self.sys.clock.timeout(PATIENCE, self.process.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Failure::new(format!(
                "a node ended badly ({status})\n{}",
                shown(&self.log)
            ))),
            Ok(Err(why)) => Err(Failure::new(format!("a node cannot be waited for: {why}"))),
            Err(_) => Err(Failure::new(format!(
                "a node did not drain within {} s",
                PATIENCE.as_secs()
            ))),
        }
    }

    /// SIGKILL, and waits for the end.
    pub(super) async fn kill(mut self) -> Result<(), Failure> {
        self.process
            .kill()
            .await
            .map_err(|why| Failure::new(format!("a node cannot be killed: {why}")))
    }
}

/// The nodes of a cluster by their numbers from 1 on: each can be started, and started again.
#[derive(Debug)]
pub(super) struct Members {
    folder: PathBuf,
    quic: Vec<SocketAddr>,
    properties: Vec<String>,
    sys: Sys,
}

impl Members {
    /// `count` nodes, each with a folder of its own below `folder`. `properties` are `KEY=VALUE`.
    pub(super) fn new(sys: &Sys, folder: &Path, count: u8, properties: &[String]) -> Result<Self, Failure> {
        // Each has to know beforehand where the others will be. The ports are free again for a moment only.
        let sockets: Vec<_> = (0..count)
            .map(|_| sys.net.bind_udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
            .collect::<Result<_, _>>()?;
        let quic: Vec<SocketAddr> = sockets
            .iter()
            .map(std::net::UdpSocket::local_addr)
            .collect::<Result<_, _>>()?;
        let mut properties = properties.to_vec();
        if count > 1 {
            let voters: Vec<String> = (1..)
                .zip(&quic)
                .map(|(id, address): (u8, _)| format!("{id}@{address}"))
                .collect();
            properties.push(format!("voters={}", voters.join(",")));
        }
        Ok(Self {
            folder: folder.to_owned(),
            quic,
            properties,
            sys: sys.clone(),
        })
    }

    pub(super) fn count(&self) -> u8 {
        u8::try_from(self.quic.len()).expect("there were so many")
    }

    /// Starts one of them, and waits until it is ready.
    pub(super) async fn start(&self, id: u8) -> Result<NodeProcess, Failure> {
        let own = format!("node.id={id}");
        let properties: Vec<&str> = std::iter::once(&own)
            .chain(&self.properties)
            .map(String::as_str)
            .collect();
        let data = self.folder.join(format!("node-{id}"));
        let quic = self.quic[usize::from(id) - 1].to_string();
        NodeProcess::start_on(&self.sys, &data, &quic, &properties).await
    }

    /// Starts all of them, in the order of their numbers, and waits until they are ready.
    pub(super) async fn start_all(&self) -> Result<Vec<NodeProcess>, Failure> {
        try_join_all((1..=self.count()).map(|id| self.start(id))).await
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) resident_bytes: u64,
    pub(super) peak_bytes: u64,
}

fn command(data: &Path, quic: &str, properties: &[&str]) -> Result<Command, Failure> {
    let binary =
        std::env::current_exe().map_err(|why| Failure::new(format!("cannot find this binary: {why}")))?;
    let mut command = Command::new(binary);
    command.arg("node").arg("--data-dir").arg(data);
    for flag in ["--listen-tcp", "--listen-http"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    command.args(["--listen-quic", quic]);
    for property in properties {
        command.args(["--set", property]);
    }
    // What the user set is meant for nodes of the user's.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEADWATER_") {
            command.env_remove(name);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Ok(command)
}

fn keep_log(sys: &Sys, from: impl AsyncRead + Send + Unpin + 'static, log: Arc<Mutex<VecDeque<String>>>) {
    sys.tasks.spawn("node-log", Kind::BestEffort, async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            if log.len() == LOG_LINES {
                log.pop_front();
            }
            log.push_back(line);
        }
    });
}

fn shown(log: &Mutex<VecDeque<String>>) -> String {
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Reads `ready tcp=ADDR quic=ADDR http=ADDR`.
fn addresses(line: &str) -> Option<[String; 3]> {
    let words = line.strip_prefix("ready ")?;
    let find = |name: &str| {
        words
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name))
            .map(str::to_owned)
    };
    Some([find("tcp=")?, find("quic=")?, find("http=")?])
}

fn since(earlier: Instant, later: Instant) -> Duration {
    later.saturating_duration_since(earlier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_three_addresses() {
        let found = addresses("ready tcp=127.0.0.1:1 quic=127.0.0.1:2 http=[::1]:3");
        assert_eq!(
            found,
            Some(["127.0.0.1:1", "127.0.0.1:2", "[::1]:3"].map(str::to_owned))
        );
        assert_eq!(addresses("ready tcp=127.0.0.1:1"), None);
        assert_eq!(addresses("tcp=1 quic=2 http=3"), None);
    }

    #[test]
    fn a_folder_lives_as_long_as_its_owner() {
        let sys = Sys::real(Path::new(""));
        let folder = Folder::new(&sys).expect("a folder");
        let path = folder.path().to_owned();
        assert!(sys.disk.list(&path).is_ok());
        drop(folder);
        assert!(sys.disk.list(&path).is_err());
    }
}
