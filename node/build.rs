//! Puts what belongs inside into the binary: the web UI and the built-in modules where they were built, and the guest
//! SDK's sources. Without the first two the node builds all the same, and says what is missing when it is asked for it: a
//! plain `cargo build` needs cargo alone.

#![allow(clippy::disallowed_methods, reason = "it runs before there is a node")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    let root = PathBuf::from(
        env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR for build scripts"),
    );
    let dist = root.join("../web-ui/dist");
    let files = if env::var_os("CARGO_FEATURE_UI").is_some() {
        files_below(&dist)?
    } else {
        Vec::new()
    };
    write_list(&out.join("ui.rs"), "FILES", &dist, &files)?;
    let guests = root.join("../wasm-modules");
    write_list(&out.join("guest.rs"), "SDK", &guests, &sdk(&guests)?)?;
    let modules = modules_folder(&out);
    write_list(&out.join("modules.rs"), "MODULES", &modules, &built_in(&modules)?)
}

/// The guest SDK: what a module's project needs beside itself.
fn sdk(guests: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![guests.join("Cargo.toml")];
    for part in ["guest", "wit"] {
        files.extend(files_below(&guests.join(part))?);
    }
    println!("cargo::rerun-if-changed={}", guests.join("Cargo.toml").display());
    Ok(files)
}

/// Where `cargo xtask modules` puts what it builds: beside the profiles of this build. Cross builds have their profiles a
/// folder deeper.
fn modules_folder(out: &Path) -> PathBuf {
    // target[/TRIPLE]/PROFILE/build/headwater-HASH/out
    let target = out.ancestors().nth(4).unwrap_or(out);
    let above = target.parent().unwrap_or(target).join("modules");
    let beside = target.join("modules");
    if !beside.is_dir() && above.is_dir() {
        above
    } else {
        beside
    }
}

/// The modules that ship with the node, not those that are examples.
fn built_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = files_below(folder)?;
    files.retain(|file| file.parent() == Some(folder) && file.extension().is_some_and(|end| end == "wasm"));
    Ok(files)
}

/// Writes the list called `name`: every file by its path below `folder`, with its bytes.
fn write_list(to: &Path, name: &str, folder: &Path, files: &[PathBuf]) -> io::Result<()> {
    let mut list = format!("pub(super) static {name}: [(&str, &[u8]); {}] = [\n", files.len());
    for file in files {
        let below = file
            .strip_prefix(folder)
            .expect("it was found below the folder")
            .to_string_lossy();
        let path = fs::canonicalize(file)?;
        writeln!(
            list,
            "    ({:?}, include_bytes!({:?})),",
            below.replace('\\', "/"),
            path
        )
        .expect("a string takes it");
    }
    list.push_str("];\n");
    fs::write(to, list)
}

/// Every file below `folder`, in order. Cargo is told to look again when it changes; a folder that is not there is made,
/// because cargo would take it for changed at every build.
fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    // A checkout that cannot be written to is built all the same.
    let _ = fs::create_dir_all(folder);
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_below(&path)?);
        } else {
            println!("cargo::rerun-if-changed={}", path.display());
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
