//! `cargo xtask faults`: real nodes, real faults, a verdict. Installs the tools that make the faults, builds the node and
//! the ring, and runs it with the arguments given; without a command among them it is `run`.
//!
//! It owns the list of tools. Everything else, the help too, is the ring's own: `tests/faults`.

use std::path::PathBuf;

use anyhow::Context;

use crate::{build, place, step, tools};

/// What makes faults, by Debian's packages: namespaces and cables, whole frames, disks that fail, ext4.
pub(crate) const TOOLS: &[(&str, &str)] = &[
    ("iproute2", "ip"),
    ("ethtool", "ethtool"),
    ("xfsprogs", "xfs_io"),
    ("e2fsprogs", "mkfs.ext4"),
    ("mount", "mount"),
];

const COMMANDS: [&str; 11] = [
    "run",
    "transactions",
    "transforms",
    "groups",
    "failover",
    "rolling",
    "power",
    "away",
    "grow",
    "judge",
    "dump",
];

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let is_release = args.iter().any(|argument| argument == "--release");
    let mut rest: Vec<String> = args
        .iter()
        .filter(|argument| *argument != "--release")
        .cloned()
        .collect();
    if !rest
        .iter()
        .any(|argument| COMMANDS.contains(&argument.as_str()) || crate::is_help(argument))
    {
        rest.insert(0, "run".to_owned());
    }
    tools::debian(TOOLS)?;
    let python = tools::python(&["confluent-kafka", "duckdb"])?;
    let binary = if is_release {
        build::release()?
    } else {
        build::node(&[], |command| command)?
    };
    let mut command = step::program(ring()?, "", &[]);
    command
        .args(&rest)
        .env("HEADWATER_BIN", binary)
        .env("HEADWATER_PYTHON", python);
    Err(step::become_program(&mut command))
}

/// Builds the ring; answers where its program is.
fn ring() -> anyhow::Result<PathBuf> {
    let build = ["build", "--package", "headwater-tests", "--bin", "faults"];
    step::run("faults", &mut step::cargo(build))?;
    let built = place::target().join("debug/faults");
    built
        .exists()
        .then_some(built)
        .context("cargo built no program for the faults ring")
}
