//! The programs that tests need and a bare machine lacks: looks for each, installs what is missing with its ordinary
//! package client, and says so.
//!
//! It owns the list of them. It must never install anything that a plain `cargo build` would need.

use std::path::PathBuf;

use anyhow::bail;

use crate::{place, step};

/// Holds dependencies to `.deny.toml`. The advisory database lives on another host than the crates: without it the rest
/// is still checked, and the gap is said.
pub(crate) fn deny() -> anyhow::Result<()> {
    if step::ask("cargo-deny", &["--version"]).is_none() {
        step::run(
            "cargo-deny",
            &mut step::cargo(["install", "--quiet", "--locked", "cargo-deny"]),
        )?;
    }
    // Its own name, not `cargo deny`: a check of what it finds on the path is then a check of what runs.
    let deny = |args: &[&str]| step::program("cargo-deny", "", &[&["--workspace"], args].concat());
    step::run(
        "dependencies",
        &mut deny(&["check", "bans", "licenses", "sources"]),
    )?;
    if !deny(&["fetch", "db"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        step::say("advisories: NOT CHECKED, the advisory database cannot be reached from here");
        return Ok(());
    }
    step::run(
        "advisories",
        &mut deny(&["check", "--disable-fetch", "advisories"]),
    )
}

/// Installs Debian packages that are missing.
pub(crate) fn debian(packages: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, program)| step::ask("which", &[program]).is_none())
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    debian_packages(&missing)
}

fn debian_packages(packages: &[&str]) -> anyhow::Result<()> {
    if step::ask("id", &["-u"]).as_deref() != Some("0") {
        bail!("install {} first (apt-get install, as root)", packages.join(" "));
    }
    step::run(
        "package lists",
        &mut step::program("apt-get", "", &["update", "-qq"]),
    )?;
    let mut install = step::program(
        "apt-get",
        "",
        &["install", "-y", "-qq", "--no-install-recommends"],
    );
    step::run(
        "packages",
        install.args(packages).env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// An environment of our own with these packages; answers its interpreter.
pub(crate) fn python(packages: &[&str]) -> anyhow::Result<PathBuf> {
    let folder = place::cache().join("python");
    let interpreter = folder.join("bin/python");
    let shown = interpreter.to_string_lossy().into_owned();
    if step::ask(&shown, &["--version"]).is_none() {
        if step::ask("python3", &["-c", "import ensurepip"]).is_none() {
            debian_packages(&["python3-venv"])?;
        }
        let place = folder.to_string_lossy().into_owned();
        step::run(
            "python",
            &mut step::program("python3", "", &["-m", "venv", &place]),
        )?;
    }
    let missing = |package: &&&str| step::ask(&shown, &["-m", "pip", "show", "--quiet", package]).is_none();
    let missing: Vec<&str> = packages.iter().filter(missing).copied().collect();
    if !missing.is_empty() {
        let mut install = step::program(&interpreter, "", &["-m", "pip", "install", "--quiet"]);
        step::run("python packages", install.args(missing))?;
    }
    Ok(interpreter)
}

/// A package of npm's, kept in our cache as npm packs it; answers the folder it is in.
pub(crate) fn npm_package(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let folder = place::cache().join("packages");
    if folder.join(format!("{name}-{version}.tgz")).exists() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder)?;
    let (wanted, to) = (format!("{name}@{version}"), folder.to_string_lossy().into_owned());
    // npm checks what it fetches against the registry's digest.
    let args = ["pack", "--silent", &wanted, "--pack-destination", &to];
    step::run(&wanted, &mut step::program("npm", "", &args))?;
    Ok(folder)
}
