//! A place where a node lives: its data folder, configuration, ports and log, which outlive the node's process.
//!
//! It owns a temporary folder, removed at the end of a test that passes and kept, with its path printed, when it panics. Logs
//! stay whatever happens, for a day: a test that answers with an error looks from here like one that passes.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::node::tail;
use crate::{Addresses, Node, PATIENCE, within};

/// Where the logs of all nodes are, in the temporary folder of the machine: one folder for each run of a ring.
const LOGS: &str = "headwater-test-logs";
const LOGS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Where one node is started, again and again.
///
/// - The first start binds free ports; each later start binds the same ones.
#[derive(Debug)]
pub struct Site {
    folder: Option<TempDir>,
    data: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    bound: Mutex<Option<Addresses>>,
}

/// Starts a node in a running cluster, which is known by one of its members.
pub async fn join(id: i32, member: (i32, &Node), cluster: &str) -> anyhow::Result<(Site, Node)> {
    let (known, node) = member;
    let site = Site::new()?
        .argument("--node-id")
        .argument(id.to_string())
        .argument("--voters")
        .argument(format!("{known}@{}", node.addresses.quic))
        .argument("--cluster-id")
        .argument(cluster);
    let node = site.start().await?;
    Ok((site, node))
}

/// How a node that would not start ended.
#[derive(Debug)]
pub struct Refused {
    pub code: Option<i32>,
    pub said: String,
}

impl Site {
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("headwater-test-").tempdir()?;
        let data = folder.path().join("data");
        Ok(Self {
            folder: Some(folder),
            data,
            log: new_log(&std::env::temp_dir().join(LOGS))?,
            arguments: Vec::new(),
            bound: Mutex::new(None),
        })
    }

    /// The same with its data in a folder that somebody else owns.
    pub fn with_data(data: &Path) -> anyhow::Result<Self> {
        let mut site = Self::new()?;
        site.data = data.to_owned();
        Ok(site)
    }

    /// Adds an argument to each start.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Writes a configuration file and has each start read it.
    pub fn config(self, toml: &str) -> anyhow::Result<Self> {
        let path = self.path().join("headwater.toml");
        std::fs::write(&path, toml)?;
        Ok(self.argument("--config").argument(path.to_string_lossy()))
    }

    /// Where the test may put files of its own.
    pub fn path(&self) -> &Path {
        self.folder
            .as_ref()
            .expect("the folder lives as long as the site")
            .path()
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts a node and waits until it is ready.
    pub async fn start(&self) -> anyhow::Result<Node> {
        let child = self.command()?.spawn().context("cannot start headwater")?;
        let node = Node::ready(child, &self.log).await?;
        *self.bound.lock().expect("nothing panics while it holds this") = Some(node.addresses);
        Ok(node)
    }

    /// Starts a node that must not come up; answers how it ended and what it said.
    pub async fn start_refused(&self) -> anyhow::Result<Refused> {
        let mut command = self.command()?;
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start headwater")?;
        let output = within(
            PATIENCE,
            "the end of a node that must not start",
            child.wait_with_output(),
        )
        .await??;
        ensure!(
            !output.status.success(),
            "the node started and ended with success"
        );
        let said = [output.stdout, output.stderr].concat();
        Ok(Refused {
            code: output.status.code(),
            said: String::from_utf8_lossy(&said).into_owned(),
        })
    }

    fn command(&self) -> anyhow::Result<Command> {
        let bound = *self.bound.lock().expect("nothing panics while it holds this");
        let listen = |address: Option<SocketAddr>| {
            address.map_or_else(|| "127.0.0.1:0".to_owned(), |bound| bound.to_string())
        };
        let log = OpenOptions::new().append(true).open(&self.log)?;
        let mut command = node_binary()?;
        command
            .arg("node")
            .arg("--data-dir")
            .arg(&self.data)
            .args(["--listen-tcp", &listen(bound.map(|bound| bound.tcp))])
            .args(["--listen-quic", &listen(bound.map(|bound| bound.quic))])
            .args(["--listen-http", &listen(bound.map(|bound| bound.http))])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("{}", tail(&self.log));
            eprintln!("the whole log: {}", self.log.display());
            eprintln!("the node's folder is kept: {}", folder.keep().display());
        }
    }
}

/// A log for a node of the test that runs on this thread; folders of runs that are long over are removed.
fn new_log(logs: &Path) -> anyhow::Result<PathBuf> {
    let run = logs.join(std::process::id().to_string());
    std::fs::create_dir_all(&run)?;
    for folder in std::fs::read_dir(logs)?.flatten() {
        let changed = folder.metadata().and_then(|about| about.modified());
        let age = changed.ok().and_then(|changed| changed.elapsed().ok());
        if age.is_some_and(|age| age > LOGS_KEPT) {
            // Another run may be faster.
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("node").replace("::", "-");
    for number in 1.. {
        let path = run.join(format!("{test}-{number}.log"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => return Ok(path),
            Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(why) => return Err(why).with_context(|| format!("cannot make {}", path.display())),
        }
    }
    unreachable!("there is always a next number")
}

/// The node's binary, to be run with nothing from our own environment that would configure it.
pub fn node_binary() -> anyhow::Result<Command> {
    let mut command = Command::new(binary()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEADWATER_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// The binary under test: `HEADWATER_BIN`, else the one beside this test's own.
fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("HEADWATER_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    // target/PROFILE/deps/e2e-HASH -> target/PROFILE/headwater
    let folder = own
        .parent()
        .and_then(Path::parent)
        .context("a test runs from its target folder")?;
    let path = folder.join("headwater");
    if !path.exists() {
        bail!(
            "no {}: run `cargo build -p headwater` first, or set HEADWATER_BIN",
            path.display()
        );
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_of_a_test_has_a_log_that_stays() {
        let logs = tempfile::tempdir().expect("a folder");
        let names: Vec<String> = (0..2)
            .map(|_| new_log(logs.path()).expect("a log"))
            .map(|path| path.file_name().expect("a file").to_string_lossy().into_owned())
            .collect();
        let test = "site-tests-each_node_of_a_test_has_a_log_that_stays";
        assert_eq!(names, [format!("{test}-1.log"), format!("{test}-2.log")]);
    }
}
