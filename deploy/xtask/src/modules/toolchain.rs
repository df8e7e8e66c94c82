//! Which Rust builds the guests: the user's own when it has the target, or can get it; otherwise Debian's.
//!
//! It owns the choice and the environment that makes a plain `cargo build` produce components. `GUEST_TOOLCHAIN`
//! (`auto`, `rustup`, `debian`) forces one. It must never change what the user's own builds use.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::debian;
use crate::step;

/// The guests' target: no WASI, so that a module imports nothing but what it asks the host for.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

const RUSTUP_TIMEOUT: Duration = Duration::from_secs(120);

/// A compiler that has the target's standard library.
#[derive(Debug)]
pub(crate) struct Toolchain {
    rustc: PathBuf,
    about: String,
}

impl Toolchain {
    /// Finds one, or makes one, saying what it does.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let mode = std::env::var("GUEST_TOOLCHAIN").unwrap_or_else(|_| "auto".into());
        let own = Own::find()?;
        match mode.as_str() {
            "rustup" => {
                own.with_target()?;
                own.toolchain()
            }
            "debian" => debian::toolchain(&own.sysroot, &own.host).and_then(Self::described),
            "auto" => {
                match own.with_target() {
                    Ok(()) => own.toolchain(),
                    Err(why) => {
                        step::say(&format!("{why:#}; taking Debian's rustc-web in its place"));
                        debian::toolchain(&own.sysroot, &own.host)
                        .and_then(Self::described)
                        .with_context(|| format!("no Rust here builds {TARGET} (`rustup target add {TARGET}` is the short way)"))
                    }
                }
            }
            other => bail!("GUEST_TOOLCHAIN is `{other}`; it can be auto, rustup or debian"),
        }
    }

    fn described(rustc: PathBuf) -> anyhow::Result<Self> {
        let version = read(&rustc, &["--version"])?;
        Ok(Self {
            about: format!("{version}, {}", rustc.display()),
            rustc,
        })
    }

    /// Makes a cargo command build components with it.
    pub(crate) fn apply(&self, command: &mut Command) {
        // Flags and wrappers meant for the user's own builds would win over the target's, or rebuild everything.
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_BUILD_TARGET",
        ] {
            command.env_remove(name);
        }
        command
            .env("RUSTC", &self.rustc)
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-component-ld")
            .env(
                "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
                "-Ctarget-feature=+simd128",
            );
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.about)
    }
}

/// The Rust that builds the rest of the project.
struct Own {
    sysroot: PathBuf,
    host: String,
}

impl Own {
    fn find() -> anyhow::Result<Self> {
        let rustc = std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from);
        let version = read(&rustc, &["-vV"])?;
        let host = version
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("rustc names no host")?;
        Ok(Self {
            sysroot: read(&rustc, &["--print", "sysroot"])?.into(),
            host: host.into(),
        })
    }

    fn toolchain(&self) -> anyhow::Result<Toolchain> {
        Toolchain::described(self.sysroot.join("bin/rustc"))
    }

    fn has_target(&self) -> bool {
        has_std(&self.sysroot)
    }

    /// Sees to it that the target is there, by rustup if it must.
    fn with_target(&self) -> anyhow::Result<()> {
        if self.has_target() {
            return Ok(());
        }
        let name = self
            .sysroot
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        step::say(&format!("rustup target add {TARGET} --toolchain {name}"));
        let mut rustup = Command::new("rustup");
        rustup
            .args(["target", "add", TARGET, "--toolchain", &name])
            .stdin(Stdio::null());
        finish_within(&mut rustup, RUSTUP_TIMEOUT)?;
        if !self.has_target() {
            bail!(
                "rustup says it added {TARGET}, but {} has none",
                self.sysroot.display()
            );
        }
        Ok(())
    }
}

/// Whether a sysroot has the target's standard library.
pub(crate) fn has_std(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    std::fs::read_dir(libraries).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    })
}

/// The stdout of a program that must succeed.
pub(crate) fn read(program: impl AsRef<Path>, args: &[&str]) -> anyhow::Result<String> {
    let program = program.as_ref();
    let output = Command::new(program)
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        bail!(
            "{} {} failed ({})",
            program.display(),
            args.join(" "),
            output.status
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs it to its end, which must be a good one and come in time.
fn finish_within(command: &mut Command, limit: Duration) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            bail!("{name} failed ({status})");
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("{name} took longer than {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended() {
        let mut sleeper = Command::new("sleep");
        let late = finish_within(sleeper.arg("60"), Duration::from_millis(1)).expect_err("it takes a minute");
        assert!(late.to_string().contains("took longer"), "{late}");
        finish_within(&mut Command::new("true"), Duration::from_secs(60)).expect("it ends at once");
        finish_within(&mut Command::new("false"), Duration::from_secs(60)).expect_err("it fails");
    }
}
