//! `cargo xtask test`: every test there is, from a bare toolchain, with the runners' own totals at the end.
//!
//! It owns the order of the runners. It must never hide a failure: each runner runs to its end whatever the one before
//! it said, and the exit code follows the sum.

use std::time::Instant;

use anyhow::bail;

use crate::totals::{self, Totals};
use crate::{build, place, step, tools, ui};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    crate::flags(args, [])?;
    let started = Instant::now();
    let browser = ui::is_here();
    if browser {
        tools::debian(&[("kcat", "kcat"), ("chromium", "chromium")])?;
    } else {
        tools::debian(&[("kcat", "kcat")])?;
    }
    build::embedded()?;
    let mut rows = vec![("rust", rust()?)];
    if browser {
        ui::install()?;
        rows.push((
            "web UI, unit",
            runner("web UI, unit", "test:unit", totals::of_vitest)?,
        ));
        rows.push((
            "web UI, browser",
            runner("web UI, browser", "test:browser", totals::of_playwright)?,
        ));
    }
    close(&rows, started)
}

/// Every Rust test of the workspace, each crate's and the rings'.
fn rust() -> anyhow::Result<Totals> {
    let mut command = step::cargo(["test", "--workspace", "--no-fail-fast"]);
    command.env("CARGO_TARGET_DIR", place::shared_target());
    let (output, succeeded) = step::run_and_read("rust tests", &mut command)?;
    Ok(totals::of_cargo(&output).seen(succeeded))
}

fn runner(what: &str, script: &str, read: fn(&str) -> Totals) -> anyhow::Result<Totals> {
    let mut command = step::program("npm", "web-ui", &["run", script]);
    let (output, succeeded) = step::run_and_read(what, &mut command)?;
    Ok(read(&output).seen(succeeded))
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
