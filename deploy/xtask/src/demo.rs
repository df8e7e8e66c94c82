//! `cargo xtask demo`: builds the release binary with everything inside, then becomes `headwater demo`.

use std::process::Command;

use crate::{build, step};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    crate::flags(args, ["--once"])?;
    let binary = build::release()?;
    Err(step::become_program(Command::new(binary).arg("demo").args(args)))
}
