//! A Rust for the guests where rustup cannot fetch the target: Debian's `rustc-web` and `rust-web-src`, unpacked (not
//! installed) into a folder of the cache, with the target's standard library built once from Debian's own sources.
//! No root is needed, and nothing is put on the path.
//!
//! It owns that folder. It must never mix libraries of two compilers: the standard library carries the version of the
//! compiler that built it.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::toolchain::{TARGET, has_std, read};
use crate::{place, step};

/// What `dpkg-deb` holds that a compiler does not need: most of the sources, the documentation.
const LEFT_OUT: [&str; 3] = ["./usr/src/*/src", "./usr/src/*/compiler", "./usr/share/*"];

/// Makes the toolchain unless it is there; answers its `rustc`.
/// `sysroot` is the user's own Rust, from which the linkers come.
pub(crate) fn toolchain(sysroot: &Path, host: &str) -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("GUEST_TOOLCHAIN_DIR")
        .map_or_else(|| place::cache().join("guest-toolchain"), PathBuf::from);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join(".lock"))?;
    lock.lock().context("cannot lock the toolchain's folder")?;
    let debian = folder.join("deb");
    if !debian.join("usr/bin/rustc").exists() {
        unpack(&folder)?;
    }
    let rustc = wrapper(&folder)?;
    join_sysroot(&folder, sysroot, host)?;
    let stamp = folder.join("STAMP");
    let version = read(&rustc, &["--version"])?;
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&version) || !has_std(&folder.join("sysroot")) {
        build_std(&folder, &rustc, sysroot)?;
        fs::write(&stamp, version)?;
    }
    Ok(rustc)
}

/// Downloads the packages and unpacks them into `deb`.
fn unpack(folder: &Path) -> anyhow::Result<()> {
    let (library, llvm) = match packages() {
        Ok(found) => found,
        Err(why) => {
            step::run("package lists", Command::new("apt-get").args(["update", "-qq"])).with_context(
                || format!("{why:#}, and the package lists cannot be renewed (as root: apt-get update)"),
            )?;
            packages()?
        }
    };
    let download = folder.join("download");
    let half = folder.join("deb.part");
    for stale in [&download, &half] {
        if stale.exists() {
            fs::remove_dir_all(stale)?;
        }
        fs::create_dir_all(stale)?;
    }
    let names = [
        "rustc-web",
        "libstd-rust-web-dev",
        "rust-web-src",
        &library,
        &llvm,
    ];
    // apt's own user cannot write here, which it mentions for each package and then does the right thing.
    step::run(
        "packages",
        Command::new("apt-get")
            .args(["download", "-qq"])
            .args(names)
            .current_dir(&download)
            .stderr(Stdio::null()),
    )?;
    for entry in fs::read_dir(&download)? {
        unpack_one(&entry?.path(), &half)?;
    }
    fs::rename(&half, folder.join("deb"))?;
    fs::remove_dir_all(&download)?;
    Ok(())
}

/// The packages whose names carry a version: the host's standard library and LLVM.
fn packages() -> anyhow::Result<(String, String)> {
    let library = dependency("libstd-rust-web-dev", "libstd-rust-web-")?;
    let llvm = dependency(&library, "libllvm")?;
    Ok((library, llvm))
}

fn dependency(package: &str, prefix: &str) -> anyhow::Result<String> {
    let listed = step::ask("apt-cache", &["depends", package]).unwrap_or_default();
    depends_on(&listed, prefix).with_context(|| format!("apt knows no {package} that depends on {prefix}*"))
}

/// Finds a package in what `apt-cache depends` lists.
fn depends_on(listed: &str, prefix: &str) -> Option<String> {
    listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        })
        .map(str::to_owned)
}

fn unpack_one(package: &Path, into: &Path) -> anyhow::Result<()> {
    let mut reader = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let tarball = reader.stdout.take().context("dpkg-deb's stdout was piped")?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--wildcards", "--no-wildcards-match-slash"])
        .args(LEFT_OUT.map(|pattern| format!("--exclude={pattern}")))
        .arg("-C")
        .arg(into)
        .stdin(tarball);
    let unpacked = tar.status().context("cannot start tar")?;
    let read = reader.wait()?;
    if !unpacked.success() || !read.success() {
        bail!("cannot unpack {}", package.display());
    }
    Ok(())
}

/// Writes a `rustc` that finds Debian's libraries and our sysroot.
fn wrapper(folder: &Path) -> anyhow::Result<PathBuf> {
    let libraries = fs::read_dir(folder.join("deb/usr/lib"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
        .context("Debian's packages have no library folder")?;
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{}'${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}} exec '{}' --sysroot '{}' \"$@\"\n",
        libraries.display(),
        folder.join("deb/usr/bin/rustc").display(),
        folder.join("sysroot").display()
    );
    let rustc = folder.join("rustc");
    // Written only when it differs: cargo takes a touched compiler for a new one.
    if fs::read_to_string(&rustc).ok().as_deref() != Some(&text) {
        fs::write(&rustc, text)?;
        fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755))?;
    }
    Ok(rustc)
}

/// A sysroot of links: Debian's host library (for build scripts and macros) and sources, the user's own linkers.
fn join_sysroot(folder: &Path, own: &Path, host: &str) -> anyhow::Result<()> {
    let debian = folder.join("deb/usr");
    let rustlib = folder.join("sysroot/lib/rustlib");
    let sources = fs::read_dir(debian.join("src"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("rustc-"))
        })
        .context("Debian's packages have no sources")?;
    for part in [host, "src"] {
        fs::create_dir_all(rustlib.join(part))?;
    }
    fs::create_dir_all(rustlib.join(TARGET).join("lib"))?;
    link(
        &debian.join("lib/rustlib").join(host).join("lib"),
        &rustlib.join(host).join("lib"),
    )?;
    link(
        &own.join("lib/rustlib").join(host).join("bin"),
        &rustlib.join(host).join("bin"),
    )?;
    link(&sources, &rustlib.join("src/rust"))
}

fn link(to: &Path, at: &Path) -> anyhow::Result<()> {
    if fs::read_link(at).ok().as_deref() == Some(to) {
        return Ok(());
    }
    if at.symlink_metadata().is_ok() {
        fs::remove_file(at)?;
    }
    symlink(to, at).with_context(|| format!("cannot link {}", at.display()))
}

/// Builds the target's standard library by building a crate of nothing with `-Zbuild-std`.
fn build_std(folder: &Path, rustc: &Path, own: &Path) -> anyhow::Result<()> {
    let build = folder.join("build");
    fs::create_dir_all(build.join("src"))?;
    fs::write(build.join("src/lib.rs"), "")?;
    fs::write(
        build.join("Cargo.toml"),
        "[package]\nname = \"nothing\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n\
         [profile.release]\npanic = \"abort\"\n\n[workspace]\n",
    )?;
    let mut cargo = Command::new(own.join("bin/cargo"));
    cargo
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "-Zbuild-std=std,panic_abort",
            "--target-dir",
        ])
        .arg(build.join("target"))
        .current_dir(&build)
        // Debian's compiler is a release, and std is built with unstable flags everywhere.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", rustc)
        .env("RUSTFLAGS", "-Cembed-bitcode=yes -Zforce-unstable-if-unmarked");
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_TARGET_DIR",
    ] {
        cargo.env_remove(name);
    }
    step::run(&format!("standard library for {TARGET}, once"), &mut cargo)?;
    let libraries = folder.join("sysroot/lib/rustlib").join(TARGET).join("lib");
    fs::remove_dir_all(&libraries)?;
    fs::create_dir_all(&libraries)?;
    for entry in fs::read_dir(build.join("target").join(TARGET).join("release/deps"))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libnothing") {
            fs::copy(&path, libraries.join(name))?;
        }
    }
    fs::remove_dir_all(build)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versioned_packages_are_found() {
        let listed = "libstd-rust-web-1.96\n  Depends: libc6\n  Depends: libllvm19\n  Depends: libllvm\n";
        assert_eq!(depends_on(listed, "libllvm").as_deref(), Some("libllvm19"));
        assert_eq!(depends_on(listed, "libstd-rust-web-"), None);
        let listed =
            "libstd-rust-web-dev\n  Depends: libstd-rust-web-1.96\n  Conflicts: <libstd-rust-mozilla-dev>\n";
        assert_eq!(
            depends_on(listed, "libstd-rust-web-").as_deref(),
            Some("libstd-rust-web-1.96")
        );
    }
}
