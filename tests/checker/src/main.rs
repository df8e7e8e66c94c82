//! `headwater-checker FILE...`: judges histories and dumps, prints the verdict, exits 0 only if it holds.
//!
//! It owns its arguments and its exit code: 0 holds, 1 violated, 2 could not be judged.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a tool for the terminal that reads files"
)]

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use headwater_checker::Judge;

/// Bytes read at once.
const BUFFER: usize = 1 << 20;

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        eprintln!("usage: headwater-checker FILE...");
        return ExitCode::from(2);
    }
    let mut judge = Judge::default();
    for path in &files {
        let read = File::open(path).and_then(|file| judge.read(BufReader::with_capacity(BUFFER, file)));
        if let Err(why) = read {
            eprintln!("{path}: {why}");
            return ExitCode::from(2);
        }
    }
    let verdict = judge.verdict();
    println!("{verdict}");
    ExitCode::from(u8::from(!verdict.holds()))
}
