//! This program, started once more for one piece of work: what it uses is limited and gone when it ends, and what goes
//! wrong in it harms nobody else.
//!
//! It owns those processes: one whose work nobody waits for any more is killed. It must never start another program.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// What is kept of a process's last words.
const WORDS_BYTES_MAX: u64 = 4 << 10;
/// How far such a process stands back behind everything else on the machine.
const NICENESS: i32 = 10;

/// The file of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
}

/// How a process ended, and what it left.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub output: Vec<u8>,
    /// What it wrote to its standard error, from the beginning.
    pub words: String,
}

/// Why there is no result of a process.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("it cannot be started: {0}")]
    Start(io::Error),
    #[error("it cannot be listened to: {0}")]
    Listen(io::Error),
    #[error("it answers with more than {limit_bytes} bytes")]
    TooLong { limit_bytes: usize },
}

/// What a process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Heap, stack and other memory that it can write to. An allocation beyond it fails.
    pub memory_bytes: u64,
    /// CPU time; at its end the process is killed by SIGXCPU.
    pub cpu_seconds: u64,
}

impl Program {
    /// The program that runs now: this very file, even if another has taken its place on the disk meanwhile.
    pub fn this() -> io::Result<Self> {
        let path = if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe()?
        };
        Ok(Self { path })
    }

    /// Runs it to its end: gives it `input` on its standard input, and takes what it writes to its standard output. It is
    /// killed when the future is dropped.
    pub async fn run(
        &self,
        arguments: &[&str],
        input: Bytes,
        output_bytes_max: usize,
    ) -> Result<Ended, RunError> {
        let mut process = Command::new(&self.path)
            .arg0("headwater")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(RunError::Start)?;
        let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let give = async {
            if let Some(mut stdin) = stdin {
                // One that ends before it has read everything says why by its status.
                let _ = stdin.write_all(&input).await;
            }
        };
        let ((), output, words) = tokio::join!(
            give,
            take(stdout, output_bytes_max as u64 + 1),
            take(stderr, WORDS_BYTES_MAX)
        );
        let (output, words) = (
            output.map_err(RunError::Listen)?,
            words.map_err(RunError::Listen)?,
        );
        if output.len() > output_bytes_max {
            return Err(RunError::TooLong {
                limit_bytes: output_bytes_max,
            });
        }
        Ok(Ended {
            status: process.wait().await.map_err(RunError::Listen)?,
            output,
            words: String::from_utf8_lossy(&words).trim().to_owned(),
        })
    }
}

/// Reads to the end, or to the limit.
async fn take(from: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(bytes_max).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// Lets this process hold open as many files and sockets as the system lets it ask for; answers how many.
pub fn allow_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let current = limit.maximum;
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// The memory that this machine has.
pub fn machine_memory_bytes() -> u64 {
    let machine = rustix::system::sysinfo();
    machine.totalram.saturating_mul(u64::from(machine.mem_unit))
}

/// Limits this process, for good, lets others go first, and leaves no image of its memory behind.
pub fn limit_this(limits: Limits) -> io::Result<()> {
    let most = |amount: u64| Rlimit {
        current: Some(amount),
        maximum: Some(amount),
    };
    setrlimit(Resource::Data, most(limits.memory_bytes))?;
    setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(limits.cpu_seconds),
            // The first signal can be caught, the second cannot.
            maximum: Some(limits.cpu_seconds + 1),
        },
    )?;
    setrlimit(Resource::Core, most(0))?;
    nice(NICENESS)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn shell() -> Program {
        Program {
            path: PathBuf::from("/bin/sh"),
        }
    }

    #[tokio::test]
    async fn what_it_is_given_and_what_it_leaves() {
        let input = Bytes::from(vec![b'x'; 1 << 20]);
        let script = "cat; echo done >&2; exit 3";
        let ended = shell()
            .run(&["-c", script], input.clone(), 1 << 20)
            .await
            .unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!((ended.output, &*ended.words), (input.to_vec(), "done"));
    }

    #[tokio::test]
    async fn one_that_does_not_listen_is_heard_all_the_same() {
        let input = Bytes::from(vec![b'x'; 1 << 20]);
        let ended = shell().run(&["-c", "kill -ABRT $$"], input, 10).await.unwrap();
        assert_eq!(ended.status.signal(), Some(6));
    }

    #[tokio::test]
    async fn one_that_never_stops_talking_is_cut_off() {
        let endless = "while :; do echo more; done";
        let error = shell()
            .run(&["-c", endless], Bytes::new(), 1000)
            .await
            .unwrap_err();
        assert!(
            matches!(error, RunError::TooLong { limit_bytes: 1000 }),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_is_not_there_cannot_be_started() {
        let nowhere = Program {
            path: PathBuf::from("/nowhere/at/all"),
        };
        let error = nowhere.run(&[], Bytes::new(), 1).await.unwrap_err();
        assert!(matches!(error, RunError::Start(_)), "{error}");
    }
}
