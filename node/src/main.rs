//! The `headwater` binary: hands the arguments to `cli` and its answer to the shell.

use std::process::ExitCode;

fn main() -> ExitCode {
    headwater::cli::run(std::env::args_os())
}
