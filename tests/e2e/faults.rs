//! A minute of faults: the whole ring once, at a fixed seed, on every run of the tests, and the proof that it can fail. The
//! long runs are `cargo xtask faults`.

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

/// Runs the ring; answers what it printed, its errors included.
async fn ring(args: &[&str]) -> anyhow::Result<String> {
    let mut ring = tokio::process::Command::new(env!("CARGO_BIN_EXE_faults"));
    ring.args(args)
        .env("HEADWATER_PYTHON", python_interpreter())
        .kill_on_drop(true);
    let output = within(LIMIT, "the faults ring", ring.output())
        .await?
        .context("the ring cannot be started")?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test]
async fn a_minute_of_faults_breaks_no_promise() -> anyhow::Result<()> {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let said = ring(&["run", "--nodes", "1", "--minutes", "1", "--seed", "1"]).await?;
    // A run that did nothing is no proof.
    ensure!(
        said.contains("cut the power of all nodes") && said.contains("verdict: holds"),
        "{said}"
    );
    Ok(())
}

/// The counter-proof: a power cut loses what was acknowledged from memory, and the judge says so.
#[tokio::test]
async fn a_power_cut_takes_what_was_not_synced() -> anyhow::Result<()> {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let args = [
        "power",
        "--nodes",
        "1",
        "--cuts",
        "2",
        "--from-memory",
        "--no-python",
    ];
    let said = ring(&args).await?;
    ensure!(said.contains("verdict: VIOLATED"), "nothing was lost:\n{said}");
    Ok(())
}
