//! `cargo xtask check`: what a change must pass before anybody else reads it. Minutes, not more; it installs nothing
//! unless asked, and it never writes to the tree.

use std::process::Command;

use crate::{place, step, tools, ui};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let [deny] = crate::flags(args, ["--deny"])?;
    for (what, folder) in [("the workspace", ""), ("the modules", "wasm-modules")] {
        if place::root().join(folder).join("Cargo.toml").exists() {
            workspace(what, folder)?;
        }
    }
    let docs = ["doc", "--workspace", "--no-deps", "--quiet"];
    step::run("docs", step::cargo(docs).env("RUSTDOCFLAGS", "-D warnings"))?;
    if ui::is_installed() {
        step::run("types of the web UI", &mut ui::types())?;
    }
    if deny {
        tools::deny()?;
    }
    Ok(())
}

/// Format, lints, and every test that a plain `cargo test` runs: rings 1 and 2 and tidy. Ring 4 starts processes and
/// belongs to `cargo xtask test`.
fn workspace(what: &str, folder: &str) -> anyhow::Result<()> {
    let cargo = |args: &[&str]| -> Command {
        let mut command = step::cargo(args);
        command.current_dir(place::root().join(folder));
        command
    };
    step::run(
        &format!("format of {what}"),
        &mut cargo(&["fmt", "--all", "--check"]),
    )?;
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step::run(&format!("lints of {what}"), &mut cargo(&lints))?;
    step::run(
        &format!("tests of {what}"),
        &mut cargo(&["test", "--quiet", "--workspace"]),
    )
}
