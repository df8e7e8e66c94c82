//! The commands of the binary: what they are called, what they take, what they exit with.
//!
//! Owns the arguments and what is printed. Commands other than `node` are clients: they talk to a node like anybody
//! else, and must never reach into its data directory.

mod bench;
mod builtin;
mod child;
mod cluster;
mod commands;
mod common;
mod consume;
mod demo;
mod failure;
mod group;
mod http;
mod link;
mod module;
mod node;
mod produce;
mod show;
mod site;
mod table;
mod time;
mod topic;
mod transaction;
mod transform;
mod units;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

/// Streams begin at the edge: a Kafka-compatible log, links and WebAssembly transforms in one binary.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a node until it is told to stop.
    Node(node::Arguments),
    /// Compiles the component on standard input: for a node, which starts it
    #[cfg(feature = "wasm")]
    #[command(hide = true)]
    CompileModule,
    /// Writes the built-in modules, compiled: for the build, which puts them behind the binary
    #[cfg(feature = "wasm")]
    #[command(hide = true)]
    PackModules,
    #[command(flatten)]
    Client(commands::Command),
}

/// Runs the command that `arguments` name, the program's own name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(answer) => {
            // Help and version are answers, too; if nobody reads them there is nobody to tell.
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2));
        }
    };
    match arguments.command {
        Command::Node(arguments) => ended(node::run(arguments)),
        #[cfg(feature = "wasm")]
        Command::CompileModule => crate::transform::compile_stdin(),
        #[cfg(feature = "wasm")]
        Command::PackModules => ended(builtin::pack()),
        Command::Client(command) => commands::run(command),
    }
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If nobody reads it there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "headwater: {error:#}");
            ExitCode::FAILURE
        }
    }
}
