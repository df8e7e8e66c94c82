//! Running other programs: says what runs, streams its output, and fails with the command line when it fails.
//!
//! It owns child processes from start to end. It must never go on after a failure that nobody looked at.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::place;

/// `cargo`, the one that runs us, from the root of the checkout.
pub(crate) fn cargo<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(place::root());
    // Facts about xtask's own build, which would otherwise reach the builds it starts.
    for name in [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PKG_NAME",
        "CARGO_PKG_VERSION",
    ] {
        command.env_remove(name);
    }
    command
}

/// Any other program, from a folder of the checkout.
pub(crate) fn program(name: impl AsRef<OsStr>, folder: &str, args: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(args).current_dir(place::root().join(folder));
    command
}

/// Prints a heading for what follows.
pub(crate) fn say(what: &str) {
    eprintln!("\n== {what}");
}

/// Runs it to its end with our own stdin, stdout and stderr.
pub(crate) fn run(what: &str, command: &mut Command) -> anyhow::Result<()> {
    say(&format!("{what}: {}", line(command)));
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{what} failed ({status}): {}", line(command));
    }
    eprintln!("== {what}: {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Runs it to its end, showing its stdout and returning it, with whether it succeeded.
pub(crate) fn run_and_read(what: &str, command: &mut Command) -> anyhow::Result<(String, bool)> {
    say(&format!("{what}: {}", line(command)));
    let started = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", line(command)))?;
    let stdout = child.stdout.take().expect("stdout was piped two lines up");
    let text = tee(stdout)?;
    let status = child.wait()?;
    eprintln!("== {what}: {:.0} s, {status}", started.elapsed().as_secs_f64());
    Ok((text, status.success()))
}

/// Runs it quietly; its stdout if it could be started and succeeded.
pub(crate) fn ask(name: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(name)
        .args(args)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Becomes that program: returns only when it could not be started.
#[cfg(unix)]
pub(crate) fn become_program(command: &mut Command) -> anyhow::Error {
    use std::os::unix::process::CommandExt;
    let shown = line(command);
    anyhow::Error::new(command.exec()).context(format!("cannot start {shown}"))
}

fn tee(from: impl Read) -> anyhow::Result<String> {
    let mut from = BufReader::new(from);
    let mut text = String::new();
    let mut bytes = Vec::new();
    let mut stdout = std::io::stdout();
    while from.read_until(b'\n', &mut bytes)? > 0 {
        stdout.write_all(&bytes)?;
        stdout.flush()?;
        text.push_str(&String::from_utf8_lossy(&bytes));
        bytes.clear();
    }
    Ok(text)
}

/// What a user would have typed: the program by its name, not by its path.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
