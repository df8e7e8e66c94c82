//! Which Rust builds a module: one that has the standard library of the guests' target.
//!
//! Owns the choice and the environment that makes a plain `cargo build` yield components. It must never change what
//! the user's own builds use, and installs nothing but the target, by rustup.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::super::common::note;
use super::super::failure::Failure;
use crate::sys::clock::Clock;
use crate::sys::disk::{Disk as _, os::OsDisk};

/// No WASI: a module imports nothing but what it asks the host for.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";

const RUSTUP_TIMEOUT: Duration = Duration::from_secs(120);

/// Finds a compiler for the target.
pub(super) async fn find() -> Result<PathBuf, Failure> {
    let rustc = std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from);
    let sysroot = PathBuf::from(read(&rustc, &["--print", "sysroot"]).await?);
    if has_std(&sysroot) {
        return Ok(sysroot.join("bin/rustc"));
    }
    // What `cargo xtask modules` made on machines whose rustup cannot fetch the target.
    if let Some(kept) = kept_toolchain()
        && has_std(&kept.join("sysroot"))
    {
        return Ok(kept.join("rustc"));
    }
    add_target(&sysroot).await?;
    match has_std(&sysroot) {
        true => Ok(sysroot.join("bin/rustc")),
        false => Err(missing("rustup added nothing")),
    }
}

async fn add_target(sysroot: &Path) -> Result<(), Failure> {
    let name = sysroot
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    note(&format!("rustup target add {TARGET} --toolchain {name}"));
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", TARGET, "--toolchain", &name])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = Clock::system().timeout(RUSTUP_TIMEOUT, rustup.status()).await;
    match ended {
        Err(_) => Err(missing(&format!(
            "rustup took longer than {} s",
            RUSTUP_TIMEOUT.as_secs()
        ))),
        Ok(Err(why)) => Err(missing(&format!("rustup cannot be started: {why}"))),
        Ok(Ok(status)) if !status.success() => Err(missing(&format!("rustup failed ({status})"))),
        Ok(Ok(_)) => Ok(()),
    }
}

fn missing(why: &str) -> Failure {
    Failure::new(format!("no Rust here can build for {TARGET}: {why}")).hint(format!(
        "`rustup target add {TARGET}` is the short way; in a checkout of Headwater, `cargo xtask modules` makes a \
         toolchain that is found from then on"
    ))
}

fn kept_toolchain() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = || set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|folder| folder.join(".cache")));
    set("GUEST_TOOLCHAIN_DIR").or_else(|| Some(cache()?.join("headwater/guest-toolchain")))
}

fn has_std(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let entries = OsDisk::new(Path::new("")).list(&libraries).unwrap_or_default();
    entries
        .iter()
        .any(|entry| entry.name.starts_with("libstd-") && entry.name.ends_with(".rlib"))
}

async fn read(program: &Path, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await;
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => Err(Failure::new(format!(
            "{} failed ({})",
            program.display(),
            output.status
        ))),
        Err(why) => Err(Failure::new(format!("cannot start {}: {why}", program.display()))
            .hint("modules in Rust need Rust: https://rustup.rs")),
    }
}

/// Makes a cargo command build components with it.
pub(super) fn apply(rustc: &Path, cargo: &mut Command) {
    // Flags and wrappers meant for other builds would win over the target's.
    for name in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
    ] {
        cargo.env_remove(name);
    }
    cargo
        .env("RUSTC", rustc)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-component-ld")
        .env(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
            "-Ctarget-feature=+simd128",
        );
}
