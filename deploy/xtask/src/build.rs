//! `cargo xtask build`: the release binary with everything inside that belongs inside.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::{modules, pack, place, step, ui};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    crate::flags(args, [])?;
    let binary = release()?;
    let bytes = binary.metadata()?.len();
    println!("{} ({:.1} MB)", binary.display(), bytes as f64 / 1e6);
    Ok(())
}

/// Builds what the node embeds, then the node; answers where the binary is.
pub(crate) fn release() -> anyhow::Result<PathBuf> {
    embedded(&place::target())?;
    node(&["--release"], |command| command)
}

/// Builds what the node embeds when it is built into this target folder: the built-in modules, and the web UI when npm is there.
pub(crate) fn embedded(target: &Path) -> anyhow::Result<()> {
    modules::builtin(target)?;
    if !ui::is_here() {
        return Ok(());
    }
    if ui::has_npm() {
        ui::run(&[])
    } else {
        step::say("web UI: left out, because npm is not installed");
        Ok(())
    }
}

/// Builds the node's binary with these extra arguments, its modules compiled behind it; answers where cargo says it is.
pub(crate) fn node(extra: &[&str], configure: fn(&mut Command) -> &mut Command) -> anyhow::Result<PathBuf> {
    let mut command = step::cargo(["build", "--package", "headwater", "--bin", "headwater"]);
    configure(command.args(extra));
    step::run("headwater", &mut command)?;
    // Asked again, it answers at once; the first call showed its progress on the terminal.
    command.args(["--quiet", "--message-format", "json"]);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    let binary = executable(&String::from_utf8_lossy(&output.stdout));
    let binary = binary.context("cargo named no executable for headwater")?;
    pack::append(&binary)?;
    Ok(binary)
}

/// Finds the path of the `headwater` binary among cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "headwater")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_among_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"headwater"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"headwater"},"executable":"/t/release/headwater"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/t/release/headwater")));
        assert_eq!(executable(""), None);
    }
}
