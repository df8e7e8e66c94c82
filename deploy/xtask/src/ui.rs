//! `cargo xtask ui`: the web UI, built by its own tools into `web-ui/dist`, from where the node embeds it; with
//! `--types`, the API's description beside it and the types made of that, written anew.

use std::process::Command;

use anyhow::bail;

use crate::{place, step};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let [types] = crate::flags(args, ["--types"])?;
    if !is_here() {
        bail!("there is no web-ui/package.json in this checkout");
    }
    if !has_npm() {
        bail!("npm is not installed; the node builds without it and then serves no web UI");
    }
    install()?;
    if types {
        return write_types();
    }
    step::run("web UI", &mut step::program("npm", "web-ui", &["run", "build"]))
}

/// Installs exactly what the lock file names, unless that was done since it last changed.
pub(crate) fn install() -> anyhow::Result<()> {
    let folder = place::root().join("web-ui");
    let changed = |path: &str| folder.join(path).metadata().and_then(|data| data.modified()).ok();
    // npm writes this file last.
    if let (Some(done), Some(lock)) = (
        changed("node_modules/.package-lock.json"),
        changed("package-lock.json"),
    ) && done >= lock
    {
        return Ok(());
    }
    step::run(
        "web UI packages",
        &mut step::program("npm", "web-ui", &["ci", "--no-audit", "--no-fund"]),
    )
}

/// The node writes what its API is, the UI's tools make types of it.
fn write_types() -> anyhow::Result<()> {
    let test = [
        "test",
        "--quiet",
        "--package",
        "headwater",
        "--lib",
        "http::openapi",
    ];
    step::run("API's description", step::cargo(test).env("WRITE_OPENAPI", "1"))?;
    step::run("UI's types", &mut step::program("npm", "web-ui", &["run", "api"]))
}

/// The check of the UI's types, to be run: that they are those of the API, and that the pages keep to them.
pub(crate) fn types() -> Command {
    step::program("npm", "web-ui", &["run", "check"])
}

pub(crate) fn is_installed() -> bool {
    place::root().join("web-ui/node_modules").exists()
}

pub(crate) fn is_here() -> bool {
    place::root().join("web-ui/package.json").exists()
}

pub(crate) fn has_npm() -> bool {
    step::ask("npm", &["--version"]).is_some()
}
