//! The programs that tests need and a bare machine lacks: looks for each, installs what is missing with its ordinary
//! package client, and says so.
//!
//! It owns the list of them. It must never install anything that a plain `cargo build` would need.

use anyhow::bail;

use crate::step;

/// Holds dependencies to `deny.toml`. The advisory database lives on another host than the crates: without it the rest
/// is still checked, and the gap is said.
pub(crate) fn deny() -> anyhow::Result<()> {
    if step::ask("cargo", &["deny", "--version"]).is_none() {
        step::run(
            "cargo-deny",
            &mut step::cargo(["install", "--locked", "cargo-deny"]),
        )?;
    }
    step::run(
        "dependencies",
        &mut step::cargo(["deny", "--workspace", "check", "bans", "licenses", "sources"]),
    )?;
    let fetched = step::cargo(["deny", "fetch", "db"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !fetched {
        step::say("advisories: NOT CHECKED, the advisory database cannot be reached from here");
        return Ok(());
    }
    step::run(
        "advisories",
        &mut step::cargo(["deny", "--workspace", "check", "advisories"]),
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
    if step::ask("id", &["-u"]).as_deref() != Some("0") {
        bail!("install {} first (apt-get install, as root)", missing.join(" "));
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
        install.args(missing).env("DEBIAN_FRONTEND", "noninteractive"),
    )
}
