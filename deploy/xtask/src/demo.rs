//! `cargo xtask demo`: builds the release binary with everything inside, then becomes `headwater demo`.

use std::process::Command;

use anyhow::Context;

use crate::{build, step};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    check(args)?;
    let binary = build::release()?;
    Err(step::become_program(Command::new(binary).arg("demo").args(args)))
}

/// Refuses what the demo would refuse, before anything is built. `--once` is a flag, the others name a file.
fn check(args: &[String]) -> anyhow::Result<()> {
    let mut args = args.iter();
    while let Some(argument) = args.next() {
        match argument.as_str() {
            "--flights" | "--expected" => {
                args.next().with_context(|| format!("{argument} needs a file"))?;
            }
            _ => {
                crate::flags(std::slice::from_ref(argument), ["--once"])?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn what_the_demo_does_not_know_is_refused_at_once() {
        let checked =
            |args: &[&str]| check(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>()).is_ok();
        assert!(checked(&[]) && checked(&["--once", "--flights", "a.csv", "--expected", "b.csv"]));
        assert!(!checked(&["--twice"]) && !checked(&["--flights"]) && !checked(&["a.csv"]));
    }
}
