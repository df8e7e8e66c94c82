//! `cargo xtask bench`: the release binary's own workloads (`headwater bench`), always on a fresh build.

use std::process::Command;

use crate::{build, step};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let binary = build::release()?;
    Err(step::become_program(Command::new(binary).arg("bench").args(args)))
}
