//! `headwater module build`: runs cargo so that a plain library of the project becomes a component.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::toolchain::{self, TARGET};
use crate::cli::common::note;
use crate::cli::failure::Failure;
use crate::sys::disk::{Disk as _, Open, os::OsDisk};

/// A component that cargo has made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Built {
    pub(super) file: PathBuf,
    pub(super) bytes: u64,
}

/// Whether a path is a folder with a `Cargo.toml`.
pub(super) fn is_project(path: &Path) -> bool {
    OsDisk::new(Path::new(""))
        .open(&path.join("Cargo.toml"), Open::Read)
        .is_ok()
}

/// Builds all modules of a project.
pub(super) async fn project(folder: &Path) -> Result<Vec<Built>, Failure> {
    if !is_project(folder) {
        return Err(Failure::new(format!("{} has no Cargo.toml", folder.display()))
            .hint("`headwater module new NAME` writes a project"));
    }
    let rustc = toolchain::find().await?;
    note(&format!(
        "cargo build --release --target {TARGET} (with {})",
        rustc.display()
    ));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    toolchain::apply(&rustc, &mut cargo);
    let output = cargo
        .output()
        .await
        .map_err(|why| Failure::new(format!("cannot start cargo: {why}")))?;
    if !output.status.success() {
        return Err(Failure::new("the module does not build").hint("what cargo said is above"));
    }
    let files = components(&String::from_utf8_lossy(&output.stdout));
    if files.is_empty() {
        return Err(Failure::new("cargo built no module")
            .hint("Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\"]`"));
    }
    files.into_iter().map(measured).collect()
}

/// The component at a path; that of a project's folder is built first.
pub(super) async fn component_of(path: &Path) -> Result<PathBuf, Failure> {
    if !is_project(path) {
        return Ok(path.to_owned());
    }
    let mut built = project(path).await?;
    match (built.pop(), built.is_empty()) {
        (Some(one), true) => Ok(one.file),
        _ => Err(
            Failure::usage(format!("{} builds more than one module", path.display()))
                .hint("name one of the .wasm files that `headwater module build` shows"),
        ),
    }
}

fn measured(file: PathBuf) -> Result<Built, Failure> {
    let bytes = OsDisk::new(Path::new(""))
        .open(&file, Open::Read)
        .and_then(|open| open.bytes());
    let bytes = bytes.map_err(|why| Failure::new(format!("cannot read {}: {why}", file.display())))?;
    Ok(Built { file, bytes })
}

/// The `.wasm` files among cargo's messages.
fn components(messages: &str) -> Vec<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let artifacts = messages.filter(|message| message["reason"] == "compiler-artifact");
    let files = artifacts.flat_map(|message| {
        let names = message["filenames"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        names
            .filter(|name| name.ends_with(".wasm"))
            .map(PathBuf::from)
            .collect::<Vec<_>>()
    });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_found_among_messages() {
        let messages = r#"{"reason":"compiler-artifact","filenames":["/t/libguest.rlib"]}
not json
{"reason":"compiler-artifact","filenames":["/t/late.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(components(messages), [PathBuf::from("/t/late.wasm")]);
    }
}
