//! `cargo xtask modules`: builds every guest of `wasm-modules` as a WebAssembly component.
//!
//! It owns where they end up: the built-in ones in `target/modules/NAME.wasm`, from where the node embeds them, the
//! examples in `target/modules/examples`, those that misbehave in `target/modules/hostile`. A file whose bytes are what
//! they were is left alone, so that nothing is rebuilt because of it.

mod debian;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{place, step};
use toolchain::{TARGET, Toolchain};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    crate::flags(args, [])?;
    all(&place::target())
}

/// Builds what the node embeds, for a node that is built into this target folder.
pub(crate) fn builtin(target: &Path) -> anyhow::Result<()> {
    let names = [
        "filter",
        "enrich",
        "aggregate",
        "route",
        "dedup",
        "anomaly",
        "join",
    ];
    let mut what = vec!["--lib"];
    what.extend(names.iter().flat_map(|name| ["--package", name]));
    build(target, &what)
}

/// Builds everything, for tests that are built into this target folder.
pub(crate) fn all(target: &Path) -> anyhow::Result<()> {
    build(target, &["--workspace", "--lib", "--examples"])
}

fn build(target: &Path, what: &[&str]) -> anyhow::Result<()> {
    let toolchain = Toolchain::find()?;
    let into = target.join("modules");
    let mut rows = Vec::new();
    for module in compile(&toolchain, target, what)? {
        let folder = into.join(module.folder);
        fs::create_dir_all(&folder)?;
        let to = folder.join(module.name).with_extension("wasm");
        let bytes = place(&module.file, &to)?;
        rows.push((module.folder, to, bytes));
    }
    rows.sort();
    report(&into, &rows, &toolchain);
    Ok(())
}

/// A module that cargo has made.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    name: String,
    folder: &'static str,
    file: PathBuf,
}

fn compile(toolchain: &Toolchain, target: &Path, what: &[&str]) -> anyhow::Result<Vec<Module>> {
    let mut command = step::cargo(["build", "--release", "--locked", "--target", TARGET]);
    command.args(what).arg("--target-dir").arg(target.join("guest"));
    command.current_dir(place::root().join("wasm-modules"));
    toolchain.apply(&mut command);
    step::run("modules", &mut command)?;
    // Asked again, it answers at once; the first call showed its progress on the terminal.
    command.args(["--quiet", "--message-format", "json"]);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    let modules = made(&String::from_utf8_lossy(&output.stdout));
    if modules.is_empty() {
        bail!("cargo named no module among its artifacts");
    }
    Ok(modules)
}

/// Finds the modules among cargo's messages.
fn made(messages: &str) -> Vec<Module> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| {
            let files = message["filenames"].as_array()?.iter().filter_map(Value::as_str);
            let file = files
                .map(PathBuf::from)
                .find(|file| file.extension().is_some_and(|end| end == "wasm"))?;
            let manifest = message["manifest_path"].as_str()?;
            let folder = if manifest.contains("/builtin/") {
                ""
            } else if manifest.contains("/hostile/") {
                "hostile"
            } else {
                "examples"
            };
            Some(Module {
                name: message["target"]["name"].as_str()?.into(),
                folder,
                file,
            })
        })
        .collect()
}

/// Copies a file to its place unless the same bytes are there; answers its size.
pub(crate) fn place(file: &Path, to: &Path) -> anyhow::Result<u64> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    if fs::read(to).ok().as_deref() != Some(&bytes) {
        // Renamed into place: whoever reads it meanwhile sees the old or the new one, whole.
        let half = to.with_extension("part");
        fs::write(&half, &bytes).with_context(|| format!("cannot write {}", half.display()))?;
        fs::rename(&half, to)?;
    }
    Ok(bytes.len() as u64)
}

fn report(into: &Path, rows: &[(&str, PathBuf, u64)], toolchain: &Toolchain) {
    let kilobytes = |bytes: u64| bytes as f64 / 1e3;
    for (_, path, bytes) in rows.iter().filter(|(folder, ..)| folder.is_empty()) {
        println!("{:<44}{:>8.1} kB", path.display(), kilobytes(*bytes));
    }
    for folder in ["examples", "hostile"] {
        let sizes: Vec<u64> = rows
            .iter()
            .filter(|(in_folder, ..)| *in_folder == folder)
            .map(|(.., bytes)| *bytes)
            .collect();
        if !sizes.is_empty() {
            let path = into.join(folder);
            let (sum, count) = (sizes.iter().sum(), sizes.len());
            println!(
                "{:<44}{:>8.1} kB in {count} modules",
                path.display(),
                kilobytes(sum)
            );
        }
    }
    println!("built with {toolchain}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_among_messages() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/guest/Cargo.toml","target":{"name":"headwater_guest"},"filenames":["/t/libheadwater_guest.rlib"]}
{"reason":"compiler-artifact","manifest_path":"/w/builtin/filter/Cargo.toml","target":{"name":"filter"},"filenames":["/t/filter.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/w/examples/hostile/core/Cargo.toml","target":{"name":"core_module"},"filenames":["/t/core_module.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/w/examples/rust/Cargo.toml","target":{"name":"split_lines"},"filenames":["/t/split_lines.wasm"]}
{"reason":"build-finished","success":true}"#;
        let module = |name: &str, folder, file: &str| Module {
            name: name.into(),
            folder,
            file: file.into(),
        };
        assert_eq!(
            made(messages),
            [
                module("filter", "", "/t/filter.wasm"),
                module("core_module", "hostile", "/t/core_module.wasm"),
                module("split_lines", "examples", "/t/split_lines.wasm"),
            ]
        );
    }
}
