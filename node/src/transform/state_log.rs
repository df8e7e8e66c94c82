//! The changelog topic of a transform, one partition of it: reading it back, and committing to it.
//! It owns the order that at-least-once stands on: outputs are acknowledged before the position that says so is
//! written. It bounds the changelog: when most of it is history it writes the whole state and deletes what is older.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use headwater_protocol::ids::Offset;
use headwater_protocol::record::Batches;

use super::changelog::{self, Changes, Commit, Replay, Restored};
use super::status::Cells;
use crate::partition::{AppendOptions, Isolation, Partition, Pending, ReadRequest};
use crate::sys::clock::Clock;
use crate::sys::mailbox::{Mailbox, Sender, mailbox};
use crate::sys::task::{Kind, Task, Tasks};

/// A changelog below this size is never rewritten.
const REWRITE_BYTES_MIN: usize = 64 << 20;
/// How many times the live state a changelog may be.
const REWRITE_RATIO: usize = 4;
/// Steps whose outputs are on their way.
const STEPS_MAX: usize = 8;
const READ_BYTES: usize = 1 << 20;

/// Reads the state back. Gives how many bytes of changelog that took as well.
pub(crate) async fn restore(log: &Partition) -> Result<(Restored, usize), String> {
    let watermarks = *log.watermarks().borrow();
    let mut replay = Replay::default();
    let (mut from, mut bytes) = (watermarks.log_start, 0);
    // This partition has one writer, who waits for us: what is in the log is all there is.
    while from < watermarks.log_end {
        let request = ReadRequest {
            from,
            max_bytes: READ_BYTES,
            isolation: Isolation::Uncommitted,
            min_one: true,
            current_epoch: None,
            up_to_log_end: true,
        };
        let outcome = log
            .read(request)
            .await
            .map_err(|error| format!("the state cannot be read: {error}"))?;
        if outcome.next <= from {
            return Err(format!("the state cannot be read on from offset {from}"));
        }
        bytes += outcome.bytes;
        for batch in Batches::new(outcome.contiguous()) {
            let batch = batch.map_err(|error| format!("the state cannot be read: {error}"))?;
            if !batch.header().is_control() {
                replay.batch(&batch).map_err(|error| error.to_string())?;
            }
        }
        from = outcome.next;
    }
    Ok((replay.finish(), bytes))
}

/// What one step of a pipeline leaves to be committed.
pub(crate) struct Step {
    /// Outputs that must be acknowledged first.
    pub(crate) outputs: Vec<Pending>,
    pub(crate) commit: Commit,
    /// The whole state if `commit.is_whole`.
    pub(crate) changes: Changes,
}

/// The way to commit. Dropping it ends the committing task once everything handed over is committed.
pub(crate) struct Committer {
    steps: Sender<Step>,
    growth: Arc<Growth>,
    done: Task<Result<(), String>>,
}

/// How large the changelog has become. Counted by the committing task, looked at by the pipeline.
struct Growth {
    log_bytes: AtomicUsize,
    is_rewriting: AtomicBool,
    rewrite_bytes_min: usize,
}

impl Committer {
    pub(crate) fn start(
        tasks: &Tasks,
        clock: &Clock,
        log: Partition,
        log_bytes: usize,
        cells: Arc<Cells>,
    ) -> Self {
        Self::with_limit(tasks, clock, log, log_bytes, cells, REWRITE_BYTES_MIN)
    }

    pub(crate) fn with_limit(
        tasks: &Tasks,
        clock: &Clock,
        log: Partition,
        log_bytes: usize,
        cells: Arc<Cells>,
        rewrite_bytes_min: usize,
    ) -> Self {
        let (steps, waiting) = mailbox(STEPS_MAX);
        let growth = Arc::new(Growth {
            log_bytes: AtomicUsize::new(log_bytes),
            is_rewriting: AtomicBool::new(false),
            rewrite_bytes_min,
        });
        let task = Committing {
            log,
            waiting,
            clock: clock.clone(),
            growth: Arc::clone(&growth),
            cells,
        };
        let done = tasks.spawn("commit", Kind::BestEffort, task.run());
        Self { steps, growth, done }
    }

    /// Hands a step over. Waits while too many are under way. False: committing has failed, ask `finish` why.
    pub(crate) async fn hand_over(&self, step: Step) -> bool {
        self.steps.send(step).await.is_ok()
    }

    /// Returns when committing has failed and nothing more will be committed.
    pub(crate) async fn failed(&self) {
        self.steps.closed().await;
    }

    /// Whether the next step had better commit the whole state, given how large it is.
    pub(crate) fn wants_whole(&self, live_bytes: usize) -> bool {
        let limit = self
            .growth
            .rewrite_bytes_min
            .max(live_bytes.saturating_mul(REWRITE_RATIO));
        self.growth.log_bytes.load(Ordering::Relaxed) > limit
            && !self.growth.is_rewriting.swap(true, Ordering::Relaxed)
    }

    /// Waits until everything handed over is committed.
    pub(crate) async fn finish(self) -> Result<(), String> {
        drop(self.steps);
        self.done
            .await
            .unwrap_or_else(|_| Err("committing broke off".to_owned()))
    }
}

struct Committing {
    log: Partition,
    waiting: Mailbox<Step>,
    clock: Clock,
    growth: Arc<Growth>,
    cells: Arc<Cells>,
}

impl Committing {
    async fn run(mut self) -> Result<(), String> {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(step) => step,
                None => match self.waiting.recv().await {
                    Some(step) => step,
                    None => return Ok(()),
                },
            };
            let (mut commit, mut changes) = acknowledged(first).await?;
            // One commit for everything that has gathered meanwhile; a whole state stands at the front of one.
            while let Some(step) = self.waiting.try_recv() {
                if step.commit.is_whole {
                    next = Some(step);
                    break;
                }
                let (later, more) = acknowledged(step).await?;
                commit = Commit {
                    is_whole: commit.is_whole,
                    ..later
                };
                changes.extend(more);
            }
            self.commit(&commit, &changes).await?;
        }
    }

    async fn commit(&mut self, commit: &Commit, changes: &Changes) -> Result<(), String> {
        let batches = changelog::encode(changes, commit, self.clock.unix_ms())
            .map_err(|error| format!("the state cannot be written: {error}"))?;
        let bytes = batches.len();
        let failed = |error: &dyn std::error::Error| format!("the state cannot be committed: {error}");
        let pending = self
            .log
            .submit(batches, AppendOptions::OWN)
            .await
            .map_err(|error| failed(&error))?;
        let appended = pending.await.map_err(|error| failed(&error))?;
        self.cells.set_position(commit.position, commit.watermark_ms);
        if !commit.is_whole {
            self.growth.log_bytes.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        }
        self.growth.log_bytes.store(bytes, Ordering::Relaxed);
        self.growth.is_rewriting.store(false, Ordering::Relaxed);
        self.forget(appended.base_offset).await;
        Ok(())
    }

    /// Deletes the history before the whole state. If that fails, the next whole state does it.
    async fn forget(&self, before: Offset) {
        if let Err(error) = self.log.delete_records(Some(before)).await {
            tracing::warn!(topic = %self.log.name().topic, %error, "old transform state could not be deleted");
        }
    }
}

async fn acknowledged(step: Step) -> Result<(Commit, Changes), String> {
    for output in step.outputs {
        output
            .await
            .map_err(|error| format!("an output was not acknowledged: {error}"))?;
    }
    Ok((step.commit, step.changes))
}
