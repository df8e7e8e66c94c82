//! `cargo xtask ui`: the web UI, built by its own tools into `web-ui/dist`, from where the node embeds it; with
//! `--types`, the API's description beside it and the types made of that, written anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::{modules, place, step};

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
    build()
}

/// Builds it beside the node, then puts what has changed into its place: the node is built anew for nothing else.
fn build() -> anyhow::Result<()> {
    let made = std::path::absolute(place::target())?.join("ui");
    let into = made.display().to_string();
    let build = ["run", "build", "--", "--outDir", &into, "--emptyOutDir"];
    step::run("web UI", &mut step::program("npm", "web-ui", &build))?;
    mirror(&made, &place::root().join("web-ui/dist"))
}

/// Makes one folder hold what another does; files whose bytes are the same are left alone.
fn mirror(from: &Path, to: &Path) -> anyhow::Result<()> {
    let wanted = files_below(from)?;
    for file in &wanted {
        let to = to.join(file);
        fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        modules::place(&from.join(file), &to)?;
    }
    for file in files_below(to)?.difference(&wanted) {
        fs::remove_file(to.join(file))?;
    }
    Ok(())
}

/// The files of a folder and those in it, by their paths in it.
fn files_below(folder: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.insert(path.strip_prefix(folder)?.to_path_buf());
            }
        }
    }
    Ok(files)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("headwater-ui-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        for (name, bytes) in [("index.html", "new"), ("assets/kept.js", "same")] {
            fs::create_dir_all(from.join("assets")).expect("a folder");
            fs::write(from.join(name), bytes).expect("a file");
        }
        for (name, bytes) in [
            ("index.html", "old"),
            ("assets/kept.js", "same"),
            ("assets/gone.js", ""),
        ] {
            fs::create_dir_all(to.join("assets")).expect("a folder");
            fs::write(to.join(name), bytes).expect("a file");
        }
        let written = |name: &str| {
            to.join(name)
                .metadata()
                .and_then(|data| data.modified())
                .expect("a time")
        };
        let before = written("assets/kept.js");
        mirror(&from, &to).expect("it is mirrored");
        assert_eq!(
            files_below(&to).expect("files"),
            files_below(&from).expect("files")
        );
        assert_eq!(fs::read(to.join("index.html")).expect("a file"), b"new");
        assert_eq!(written("assets/kept.js"), before, "it was not written");
        fs::remove_dir_all(&folder).expect("our own folder");
    }
}
