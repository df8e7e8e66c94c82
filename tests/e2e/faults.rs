//! A minute of faults: the whole ring once, at a fixed seed, on every run of the tests. The long runs are
//! `cargo xtask faults`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_tests::{python_interpreter, within};

/// Faults for a minute, and what it takes to begin, to recover from the last one and to judge.
const LIMIT: Duration = Duration::from_secs(420);

/// What the ring cannot do without.
const TOOLS: [&str; 4] = ["ip", "ethtool", "xfs_io", "mkfs.ext4"];

/// Why this machine cannot make faults.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let is_there = |tool: &&str| {
        Command::new("which")
            .arg(tool)
            .output()
            .is_ok_and(|found| found.status.success())
    };
    let tool = TOOLS.iter().find(|tool| !is_there(tool))?;
    Some(format!("{tool} is missing: `cargo xtask test` installs it"))
}

#[tokio::test]
async fn a_minute_of_faults_breaks_no_promise() -> anyhow::Result<()> {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let mut ring = tokio::process::Command::new(env!("CARGO_BIN_EXE_faults"));
    ring.args(["run", "--nodes", "1", "--minutes", "1", "--seed", "1"])
        .env("HEADWATER_PYTHON", python_interpreter())
        .kill_on_drop(true);
    let output = within(LIMIT, "a minute of faults", ring.output())
        .await?
        .context("the ring cannot be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // A run that did nothing is no proof.
    ensure!(
        said.contains("cut the power of all nodes") && said.contains("verdict: holds"),
        "{said}"
    );
    Ok(())
}
