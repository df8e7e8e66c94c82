//! Many seeds, each in a process of its own, as many at a time as there are cores.
//! It must never hide a seed: each has a line, and a failed one says how to see it again.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::totals::Totals;

/// A run that takes more of a processor goes round in circles.
const CPU_MAX_S: u64 = 120;
/// One that takes longer waits for something that never comes, or for a processor.
const RUN_MAX: Duration = Duration::from_secs(1200);

/// When a swarm ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum End {
    /// When every seed was run.
    #[default]
    All,
    /// When one has failed.
    Found,
}

/// Runs seeds from `first` on; answers with those that failed, and with what all of them reached.
pub(crate) fn run(first: u64, count: u64, end: End, wishes: &[String]) -> anyhow::Result<(Vec<u64>, Totals)> {
    let program = std::env::current_exe()?;
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let totals = Mutex::new(Totals::default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let is_found = end == End::Found && failed.lock().is_ok_and(|failed| !failed.is_empty());
                    if index >= count || is_found {
                        return;
                    }
                    let seed = first.wrapping_add(index);
                    let mut command = Command::new(&program);
                    command.args(["run", "--seed", &seed.to_string()]).args(wishes);
                    let (succeeded, said) = finish(seed, &mut command);
                    print!("{said}");
                    if let Ok(mut totals) = totals.lock() {
                        totals.add(&said);
                    }
                    if !succeeded && let Ok(mut failed) = failed.lock() {
                        failed.push(seed);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_default();
    failed.sort_unstable();
    Ok((failed, totals.into_inner().unwrap_or_default()))
}

/// Runs it to its end; whether it succeeded, and what it said.
fn finish(seed: u64, command: &mut Command) -> (bool, String) {
    let started = Instant::now();
    let cpu = Rlimit {
        current: Some(CPU_MAX_S),
        maximum: None,
    };
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return (false, format!("seed {seed} could not be started: {error}\n")),
    };
    if let Some(pid) = Pid::from_raw(child.id().cast_signed())
        && let Err(error) = prlimit(Some(pid), Resource::Cpu, cpu)
    {
        // One that has ended already needs none.
        if error != Errno::SRCH {
            let _ = (child.kill(), child.wait());
            return (false, format!("seed {seed} could not be limited: {error}\n"));
        }
    }
    // A quiet run writes less than a pipe holds.
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.signal() == Some(Signal::XCPU.as_raw()) => {
                return (false, format!("seed {seed} FAILED: it goes round in circles\n"));
            }
            Ok(Some(status)) => return (status.success(), said(&mut child)),
            Ok(None) if started.elapsed() < RUN_MAX => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) | Err(_) => {
                let _ = (child.kill(), child.wait());
                return (false, format!("seed {seed} FAILED: it does not end\n"));
            }
        }
    }
}

fn said(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stdout) = &mut child.stdout {
        let _ = stdout.read_to_string(&mut text);
    }
    if let Some(stderr) = &mut child.stderr {
        let _ = stderr.read_to_string(&mut text);
    }
    text
}
