//! `cargo xtask check`: what a change must pass before anybody else reads it. Minutes, not more; it installs nothing
//! unless asked, and it never writes to the tree.

use crate::{step, tools, ui};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let [deny] = crate::flags(args, ["--deny"])?;
    step::run("format", &mut step::cargo(["fmt", "--all", "--check"]))?;
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step::run("lints", &mut step::cargo(lints))?;
    // Rings 1 and 2 and tidy; ring 4 (`e2e`) starts processes and belongs to `test`.
    step::run(
        "unit tests",
        &mut step::cargo([
            "test",
            "--quiet",
            "--workspace",
            "--lib",
            "--bins",
            "--test",
            "tidy",
        ]),
    )?;
    step::run(
        "docs",
        step::cargo(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    if ui::is_installed() {
        step::run("web UI, types", &mut ui::types())?;
    }
    if deny {
        tools::deny()?;
    }
    Ok(())
}
