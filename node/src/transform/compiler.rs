//! Compiling components, one at a time, each in a process of its own: what the compiler takes is gone when it is done, and
//! a module that makes it run away harms nobody but its uploader.
//!
//! It owns the limits of a compilation and both ends of the pipe. Without a program to start (tests, simulations) it
//! compiles in this process. It must never be waited for on a data path.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use rustix::process::Signal;
use tokio::sync::{Mutex, MutexGuard};

use super::MODULE_BYTES_MAX;
use super::engine::{self, Engine, Trusted};
use super::store::CODE_BYTES_MAX;
use crate::sys::process::{self, Ended, Limits, Program, RunError};
use crate::sys::task::Tasks;

/// The command of this program that compiles what it reads.
const COMMAND: &str = "compile-module";
/// A large component needs a lot for a while: about 600 bytes for each of its own.
const MEMORY_BYTES_MIN: u64 = 1 << 30;
const CPU_SECONDS: u64 = 300;
/// The compiler has refused the component; its output says why.
const REFUSED: u8 = 3;

/// Why there is no compiled code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("{0}")]
    Refused(String),
    #[error("compiling it takes more than {} MiB of memory", limit_bytes >> 20)]
    Memory { limit_bytes: u64 },
    #[error("compiling it takes more than {limit_seconds} s of CPU time")]
    Time { limit_seconds: u64 },
    #[error("compiled it has more than {} MiB", limit_bytes >> 20)]
    CodeTooLarge { limit_bytes: usize },
    #[error("the compiler broke down on it: {0}")]
    Crashed(String),
    /// Not the module's fault; may be tried again.
    #[error("the compiler cannot be used: {0}")]
    NoCompiler(String),
}

/// Turns components into code for this node's engine.
pub(crate) struct Compiler {
    program: Option<Program>,
    turn: Mutex<()>,
}

/// The right to compile: only one has it at a time, because a compilation may take all the memory that it is allowed.
pub(crate) struct Turn<'a> {
    program: &'a Option<Program>,
    _turn: MutexGuard<'a, ()>,
}

impl Compiler {
    pub(crate) fn new(program: Option<Program>) -> Self {
        Self {
            program,
            turn: Mutex::default(),
        }
    }

    /// Waits until no other component is compiled.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn {
            program: &self.program,
            _turn: self.turn.lock().await,
        }
    }
}

impl Turn<'_> {
    /// Compiles a component that was found sound. Dropped, it ends the process that was at it.
    pub(crate) async fn compile(
        &self,
        engine: Arc<Engine>,
        tasks: &Tasks,
        wasm: Bytes,
    ) -> Result<Trusted, CompileError> {
        let Some(program) = self.program else {
            let compiled = tasks.blocking("compile", move || engine.compile(&wasm));
            let compiled = compiled
                .await
                .map_err(|why| CompileError::NoCompiler(why.to_string()))?;
            return compiled.map_err(|error| CompileError::Refused(format!("{error:#}")));
        };
        let run = program.run(&[COMMAND], wasm, CODE_BYTES_MAX);
        let ended = run.await.map_err(|error| match error {
            RunError::TooLong { limit_bytes } => CompileError::CodeTooLarge { limit_bytes },
            RunError::Start(_) | RunError::Listen(_) => CompileError::NoCompiler(error.to_string()),
        })?;
        outcome(ended).map(Trusted::vouch)
    }
}

/// The code, or what the end of the process means.
fn outcome(ended: Ended) -> Result<Vec<u8>, CompileError> {
    let Ended {
        status,
        output,
        words,
    } = ended;
    let is = |signal: Signal| status.signal() == Some(signal.as_raw());
    if status.success() {
        Ok(output)
    } else if status.code() == Some(REFUSED.into()) {
        Err(CompileError::Refused(
            String::from_utf8_lossy(&output).into_owned(),
        ))
    } else if is(Signal::XCPU) {
        Err(CompileError::Time {
            limit_seconds: CPU_SECONDS,
        })
    } else if is(Signal::ABORT) && words.contains("memory allocation of") {
        // The words with which Rust's runtime ends a process that gets no memory.
        Err(CompileError::Memory {
            limit_bytes: limits().memory_bytes,
        })
    } else if is(Signal::KILL) || is(Signal::TERM) {
        Err(CompileError::NoCompiler(format!(
            "it was ended by force ({status})"
        )))
    } else {
        let last = words.lines().next_back().unwrap_or_default();
        Err(CompileError::Crashed(
            format!("{status} {last}").trim().to_owned(),
        ))
    }
}

/// What a compilation may take: of memory half of what the machine has.
fn limits() -> Limits {
    Limits {
        memory_bytes: (process::machine_memory_bytes() / 2).max(MEMORY_BYTES_MIN),
        cpu_seconds: CPU_SECONDS,
    }
}

/// The other end: compiles the component on standard input, writes the code to standard output. For a process that does
/// nothing else.
pub fn compile_stdin() -> ExitCode {
    let done = process::limit_this(limits()).and_then(|()| {
        let mut wasm = Vec::new();
        io::stdin()
            .take(MODULE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut wasm)?;
        let compiled = engine::compile_alone(&wasm);
        drop(wasm);
        let (output, code) = match compiled {
            Ok(code) => (code, ExitCode::SUCCESS),
            Err(reason) => (reason.into_bytes(), ExitCode::from(REFUSED)),
        };
        io::stdout().lock().write_all(&output)?;
        Ok(code)
    });
    done.unwrap_or_else(|error| {
        // Who started this process reads it.
        let _ = writeln!(io::stderr(), "{error}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use super::*;

    fn ended(status: i32, output: &str, words: &str) -> Ended {
        Ended {
            status: ExitStatus::from_raw(status),
            output: output.as_bytes().to_vec(),
            words: words.to_owned(),
        }
    }

    #[test]
    fn the_end_of_a_compiler_has_a_meaning() {
        let limit_bytes = limits().memory_bytes;
        let out_of_memory = "memory allocation of 8 bytes failed";
        let cases = [
            (ended(0, "code", ""), Ok(b"code".to_vec())),
            (
                ended(i32::from(REFUSED) << 8, "bad type", ""),
                Err(CompileError::Refused("bad type".to_owned())),
            ),
            (
                ended(Signal::XCPU.as_raw(), "", ""),
                Err(CompileError::Time {
                    limit_seconds: CPU_SECONDS,
                }),
            ),
            (
                ended(Signal::ABORT.as_raw(), "", out_of_memory),
                Err(CompileError::Memory { limit_bytes }),
            ),
            (
                ended(101 << 8, "", "thread panicked:\nindex out of bounds"),
                Err(CompileError::Crashed(
                    "exit status: 101 index out of bounds".to_owned(),
                )),
            ),
            (
                ended(Signal::KILL.as_raw(), "", ""),
                Err(CompileError::NoCompiler(
                    "it was ended by force (signal: 9 (SIGKILL))".to_owned(),
                )),
            ),
        ];
        for (end, expected) in cases {
            assert_eq!(outcome(end), expected);
        }
    }
}
