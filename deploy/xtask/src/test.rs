//! `cargo xtask test`: every test there is, from a bare toolchain, with the runners' own totals at the end.
//!
//! It owns the order of the runners. It must never hide a failure: each runner runs to its end whatever the one before
//! it said, and the exit code follows the sum.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::totals::{self, Totals};
use crate::{build, faults, modules, place, sim, step, tools, ui};

/// The side workspace of the modules: its tests run on the host.
const MODULES: &str = "wasm-modules/Cargo.toml";

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    crate::flags(args, [])?;
    let started = Instant::now();
    let mut rows = Vec::new();
    if let Err(why) = all(&mut rows) {
        // What stopped the runners is a failure like any other: it is counted, and the totals still close the output.
        rows.push(("stopped", check(Err(why))));
    }
    close(&rows, started)
}

/// Runs one runner after the other; an error is for what keeps the rest from running at all.
fn all(rows: &mut Vec<(&'static str, Totals)>) -> anyhow::Result<()> {
    let browser = ui::is_here();
    tools::debian(&[("kcat", "kcat"), ("zstd", "zstd"), ("npm", "npm")])?;
    if step::ask("id", &["-u"]).as_deref() == Some("0") {
        tools::debian(faults::TOOLS)?;
    }
    if browser {
        tools::debian(&[("chromium", "chromium")])?;
    }
    let packages = tools::npm_package("vega-datasets", "3.2.1")?;
    let python = tools::python(&["confluent-kafka", "kafka-python", "aiokafka", "duckdb"])?;
    build::embedded(&place::shared_target())?;
    modules::all(&place::shared_target())?;
    let node = Node::build()?;

    rows.push(("dependencies", check(tools::deny())));
    rows.push(("rust", cargo_tests("rust", &["--workspace"], |command| command)?));
    rows.push(("simulator", sim::test()?));
    rows.push(("real processes", processes(&node, &python, &packages)?));
    if place::root().join(MODULES).exists() {
        rows.push((
            "modules",
            cargo_tests("modules", &["--manifest-path", MODULES], |command| command)?,
        ));
    }
    if browser {
        web(&node, rows)?;
    }
    Ok(())
}

/// The node that the tests start: a link to the binary that was built for them, so that another clone's build into
/// the same target folder cannot replace it under a running test.
struct Node {
    binary: PathBuf,
}

impl Node {
    fn build() -> anyhow::Result<Self> {
        let built = build::node(&[], configure)?;
        let folder = built
            .parent()
            .context("a binary has a folder")?
            .join("under-test");
        std::fs::create_dir_all(&folder)?;
        let binary = folder.join(format!("headwater-{}", std::process::id()));
        std::fs::hard_link(&built, &binary).or_else(|_| std::fs::copy(&built, &binary).map(drop))?;
        Ok(Self { binary })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Left behind, it is only in the way of nobody.
        let _ = std::fs::remove_file(&self.binary);
    }
}

/// Where and how the tests are built: in a target folder that clones share, and without debug information where nobody
/// will open a debugger.
fn configure(command: &mut Command) -> &mut Command {
    command.env("CARGO_TARGET_DIR", place::shared_target());
    if std::env::var_os("CI").is_some() {
        command
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_PROFILE_TEST_DEBUG", "0");
    }
    command
}

/// Ring 4, which a plain `cargo test` leaves out because it starts the node's binary.
fn processes(node: &Node, python: &Path, packages: &Path) -> anyhow::Result<Totals> {
    cargo_tests("real processes", &["--workspace", "--test", "e2e"], |command| {
        command
            .env("HEADWATER_BIN", &node.binary)
            .env("HEADWATER_PYTHON", python)
            .env("HEADWATER_PACKAGES", packages)
    })
}

fn cargo_tests(
    what: &str,
    args: &[&str],
    with: impl Fn(&mut Command) -> &mut Command,
) -> anyhow::Result<Totals> {
    let mut command = step::cargo(["test", "--no-fail-fast"]);
    let (output, succeeded) = step::run_and_read(what, with(configure(command.args(args))))?;
    Ok(totals::of_cargo(&output).seen(succeeded))
}

/// The web UI's types, its unit tests, and its stories in a real browser.
fn web(node: &Node, rows: &mut Vec<(&'static str, Totals)>) -> anyhow::Result<()> {
    ui::install()?;
    rows.push((
        "web UI, types",
        check(step::run("web UI, types", &mut ui::types())),
    ));
    let npm = |what: &str, script: &str, read: fn(&str) -> Totals| {
        let mut command = step::program("npm", "web-ui", &["run", script]);
        let (output, succeeded) = step::run_and_read(what, command.env("HEADWATER_BIN", &node.binary))?;
        anyhow::Ok(read(&output).seen(succeeded))
    };
    rows.push(("web UI, unit", npm("web UI, unit", "test", totals::of_vitest)?));
    if place::root().join("web-ui/playwright.config.ts").exists() {
        rows.push((
            "web UI, browser",
            npm("web UI, browser", "e2e", totals::of_playwright)?,
        ));
    }
    Ok(())
}

/// A runner that only succeeds or fails is one test.
fn check(outcome: anyhow::Result<()>) -> Totals {
    match outcome {
        Ok(()) => Totals {
            passed: 1,
            ..Totals::default()
        },
        Err(why) => {
            eprintln!("{why:#}");
            Totals {
                failed: 1,
                ..Totals::default()
            }
        }
    }
}

/// Prints each runner's totals and their sum as the last line; fails if anything failed.
fn close(rows: &[(&str, Totals)], started: Instant) -> anyhow::Result<()> {
    let mut sum = Totals::default();
    println!();
    for (what, totals) in rows {
        println!("{what:<18}{totals}");
        sum += *totals;
    }
    println!("{:<18}{:.0} s", "wall time", started.elapsed().as_secs_f64());
    println!("{} passed, {} failed", sum.passed, sum.failed);
    if sum.failed > 0 {
        bail!("{} of {} tests failed", sum.failed, sum.passed + sum.failed);
    }
    Ok(())
}
