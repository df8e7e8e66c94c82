//! The changelog topic of a transform, one partition of it: reading it back, and committing to it.
//! It owns the order that at-least-once stands on: outputs are acknowledged before the position that says so is
//! written; `transact` has the other way. It bounds the changelog: when most of it is history it writes the whole state and deletes
//! what is older.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::ids::Offset;
use headwater_protocol::record::{self, Batches};
use tokio_util::sync::CancellationToken;

use super::changelog::{self, Changes, Commit, Replay, Restored};
use super::outside::{Outside, OutsideError, Sending, Write, Writer};
use super::sinks::Held;
use super::stamp;
use super::status::Cells;
use super::transact::Transacting;
use crate::metadata::{Delivery, Transform};
use crate::partition::PartitionName;
use crate::sys::budget::{Budget, Permit};
use crate::sys::clock::Clock;
use crate::sys::mailbox::{Mailbox, Sender, mailbox};
use crate::sys::task::{Kind, Task, Tasks};

/// A changelog below this size is never rewritten.
const REWRITE_BYTES_MIN: usize = 64 << 20;
/// How many times the live state a changelog may be.
const REWRITE_RATIO: usize = 4;
/// Steps whose outputs are on their way.
const STEPS_MAX: usize = 8;
/// What the transactional ids of pipelines begin with.
const TRANSACTIONAL_ID: &str = "headwater-transform-";
/// How long what was handed over may take once the pipeline is to end.
const GRACE: Duration = Duration::from_secs(5);
/// Outputs that are kept until their transaction: no more than are committed at once.
const HELD_BYTES_MAX: usize = 8 << 20;

/// What was found in a changelog.
pub(crate) struct Found {
    pub(crate) restored: Restored,
    pub(crate) log_bytes: usize,
    /// The last of it was written in no transaction.
    pub(crate) is_alone: bool,
}

/// A state that nobody else writes any more.
pub(crate) struct Taken {
    pub(crate) way: Way,
    pub(crate) found: Found,
}

/// How commits are written from now on.
pub(crate) enum Way {
    /// In transactions, outputs and all.
    Transactions(Writer),
    /// One behind the other, when the outputs are acknowledged. The sequence is that of the next record.
    Alone { writer: Writer, sequence: i32 },
}

/// Reads the state of a transform on one partition back, when whoever wrote it before can do so no more.
pub(crate) async fn take_over(
    outside: &dyn Outside,
    clock: &Clock,
    transform: &Transform,
    log: &PartitionName,
) -> Result<Taken, String> {
    // The changelog has a partition for each of the source.
    let id: Arc<str> = format!("{TRANSACTIONAL_ID}{}-{}", transform.name, log.index).into();
    let failed = |error: OutsideError| format!("the state cannot be taken over: {error}");
    // This ends what was open, and who wrote in transactions before writes no more.
    let writer = outside.begin(id).await.map_err(failed)?;
    // Who wrote in none is fenced by the first batch of a higher epoch.
    let fence = changelog::fence(clock.unix_ms());
    let fence = fence.map_err(|error| format!("the state cannot be written: {error}"))?;
    let mut sequence = 0;
    match transform.delivery {
        Delivery::ExactlyOnce => {
            let found = restore(outside, log).await?;
            if !found.is_alone {
                let way = Way::Transactions(writer);
                return Ok(Taken { way, found });
            }
            let stamped = stamp::in_transaction(fence, writer.producer, writer.epoch, &mut sequence);
            let write = Write {
                to: log.clone(),
                batches: stamped.map_err(|error| format!("the state cannot be written: {error}"))?,
            };
            outside.write(writer.clone(), vec![write]).await.map_err(failed)?;
            let way = Way::Transactions(outside.commit(writer).await.map_err(failed)?);
            let found = restore(outside, log).await?;
            Ok(Taken { way, found })
        }
        Delivery::AtLeastOnce => {
            let fenced = append(outside, log, &writer, &mut sequence, fence).await;
            fenced.map_err(failed)?;
            let way = Way::Alone { writer, sequence };
            let found = restore(outside, log).await?;
            Ok(Taken { way, found })
        }
    }
}

/// Appends batches to the changelog in no transaction, and waits for them. Gives the offset of the first.
async fn append(
    outside: &dyn Outside,
    log: &PartitionName,
    writer: &Writer,
    sequence: &mut i32,
    batches: Bytes,
) -> Result<Offset, OutsideError> {
    let broken = |error: record::Error| OutsideError::Failed(error.to_string());
    let batches = stamp::alone(batches, writer.producer, writer.epoch, sequence).map_err(broken)?;
    let mut sent = Vec::with_capacity(batches.len());
    for batch in batches {
        sent.push(outside.send(log.clone(), batch).await?);
    }
    let mut first = None;
    for sending in sent {
        let at = sending.await?;
        first = first.or(Some(at));
    }
    first.ok_or_else(|| OutsideError::Failed("there is nothing to append".to_owned()))
}

/// Reads the state back: what is committed by now.
async fn restore(outside: &dyn Outside, log: &PartitionName) -> Result<Found, String> {
    let failed = |error: &dyn std::error::Error| format!("the state cannot be read: {error}");
    let end = outside.end(log.clone()).await.map_err(|error| failed(&error))?;
    let mut replay = Replay::default();
    let (mut from, mut log_bytes, mut is_alone) = (Offset::ZERO, 0, false);
    while from < end {
        let read = outside.read(log.clone(), from).await;
        let read = read.map_err(|error| failed(&error))?;
        if read.next <= from {
            return Err(format!("the state cannot be read on from offset {from}"));
        }
        log_bytes += read.bytes;
        for batch in Batches::new(read.batches) {
            let batch = batch.map_err(|error| failed(&error))?;
            if !batch.header().is_control() {
                is_alone = !batch.header().is_transactional();
                replay.batch(&batch).map_err(|error| error.to_string())?;
            }
        }
        from = read.next;
    }
    Ok(Found {
        restored: replay.finish(),
        log_bytes,
        is_alone,
    })
}

/// What one step of a pipeline leaves to be committed.
pub(crate) struct Step {
    pub(crate) outputs: Outputs,
    pub(crate) commit: Commit,
    /// The whole state if `commit.is_whole`.
    pub(crate) changes: Changes,
}

/// What became of a step's outputs so far.
pub(crate) enum Outputs {
    /// They are on their way, and must be acknowledged first.
    Sent(Vec<Sending>),
    /// They are sent with the commit.
    Held(Vec<Held>),
}

/// What committing takes.
pub(crate) struct Means {
    pub(crate) tasks: Tasks,
    pub(crate) clock: Clock,
    pub(crate) outside: Arc<dyn Outside>,
    pub(crate) log: PartitionName,
    pub(crate) cells: Arc<Cells>,
}

/// A step on its way, with its share of memory.
pub(super) struct Handed {
    pub(super) step: Step,
    pub(super) held_bytes: usize,
    pub(super) room: Option<Permit>,
}

/// The way to commit. Dropping it ends the committing task once everything handed over is committed.
pub(crate) struct Committer {
    steps: Sender<Handed>,
    room: Budget,
    growth: Arc<Growth>,
    done: Task<Result<(), String>>,
}

/// How large the changelog has become. Counted by the committing task, looked at by the pipeline.
pub(super) struct Growth {
    log_bytes: AtomicUsize,
    is_rewriting: AtomicBool,
    rewrite_bytes_min: usize,
}

impl Growth {
    /// A commit of this size is in the changelog.
    pub(super) fn committed(&self, bytes: usize, is_whole: bool) {
        if is_whole {
            self.log_bytes.store(bytes, Ordering::Relaxed);
            self.is_rewriting.store(false, Ordering::Relaxed);
        } else {
            self.log_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Committer {
    /// Takes a state over, and commits to it from then on. Gives what was found there.
    pub(crate) async fn take_over(means: Means, transform: &Transform) -> Result<(Self, Restored), String> {
        let taken = take_over(&*means.outside, &means.clock, transform, &means.log).await;
        let Taken { way, found } = taken?;
        Ok((Self::start(means, way, found.log_bytes), found.restored))
    }

    pub(crate) fn start(means: Means, way: Way, log_bytes: usize) -> Self {
        let (steps, waiting) = mailbox(STEPS_MAX);
        let growth = Arc::new(Growth {
            log_bytes: AtomicUsize::new(log_bytes),
            is_rewriting: AtomicBool::new(false),
            rewrite_bytes_min: REWRITE_BYTES_MIN,
        });
        let (tasks, clock) = (means.tasks.clone(), means.clock.clone());
        let grown = Arc::clone(&growth);
        let done = match way {
            Way::Transactions(writer) => {
                let task = Transacting::new(means, waiting, grown, writer);
                let run = in_time(tasks.cancelled(), clock, task.run());
                tasks.spawn("commit", Kind::BestEffort, run)
            }
            Way::Alone { writer, sequence } => {
                let task = Committing {
                    means,
                    waiting,
                    growth: grown,
                    writer,
                    sequence,
                };
                let run = in_time(tasks.cancelled(), clock, task.run());
                tasks.spawn("commit", Kind::BestEffort, run)
            }
        };
        let room = Budget::new(HELD_BYTES_MAX);
        Self {
            steps,
            room,
            growth,
            done,
        }
    }

    /// Hands a step over. Waits while too many are under way. False: committing has failed, ask `finish` why.
    pub(crate) async fn hand_over(&self, step: Step) -> bool {
        let held_bytes = match &step.outputs {
            Outputs::Sent(_) => 0,
            Outputs::Held(held) => held.iter().map(|held| held.batches.len()).sum(),
        };
        let room = match held_bytes {
            0 => None,
            bytes => tokio::select! {
                biased;
                () = self.steps.closed() => return false,
                room = self.room.acquire(bytes) => Some(room),
            },
        };
        let handed = Handed {
            step,
            held_bytes,
            room,
        };
        self.steps.send(handed).await.is_ok()
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

/// Commits, but not much longer than the pipeline is wanted: whoever is waited for may be stopping as well. What is cut short the next
/// pipeline finds done or undone.
async fn in_time(
    cancelled: CancellationToken,
    clock: Clock,
    committing: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    let time_up = async {
        cancelled.cancelled().await;
        clock.sleep(GRACE).await;
    };
    tokio::select! {
        biased;
        done = committing => done,
        () = time_up => Err("the last steps could not be committed in time".to_owned()),
    }
}

struct Committing {
    means: Means,
    waiting: Mailbox<Handed>,
    growth: Arc<Growth>,
    writer: Writer,
    /// That of the next record in the changelog.
    sequence: i32,
}

impl Committing {
    async fn run(mut self) -> Result<(), String> {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(step) => step,
                None => match self.waiting.recv().await {
                    Some(handed) => handed.step,
                    None => return Ok(()),
                },
            };
            let (mut commit, mut changes) = acknowledged(first).await?;
            // One commit for everything that has gathered meanwhile; a whole state stands at the front of one.
            while let Some(Handed { step, .. }) = self.waiting.try_recv() {
                if step.commit.is_whole {
                    next = Some(step);
                    break;
                }
                let (later, more) = acknowledged(step).await?;
                commit = commit.followed_by(later);
                changes.extend(more);
            }
            self.commit(&commit, &changes).await?;
        }
    }

    async fn commit(&mut self, commit: &Commit, changes: &Changes) -> Result<(), String> {
        let Means {
            clock, outside, log, ..
        } = &self.means;
        let batches = changelog::encode(changes, commit, clock.unix_ms())
            .map_err(|error| format!("the state cannot be written: {error}"))?;
        let bytes = batches.len();
        let base = append(&**outside, log, &self.writer, &mut self.sequence, batches).await;
        let base = base.map_err(|error| format!("the state cannot be committed: {error}"))?;
        self.means.committed(&self.growth, commit, bytes, base).await;
        Ok(())
    }
}

impl Means {
    /// Takes note of a commit, and deletes the history before a whole state. If that fails, the next whole state does it.
    pub(super) async fn committed(&self, growth: &Growth, commit: &Commit, bytes: usize, base: Offset) {
        let right = commit.right.as_ref().map(|right| right.position);
        self.cells
            .set_position(commit.position, right, commit.watermark_ms);
        growth.committed(bytes, commit.is_whole);
        if commit.is_whole
            && let Err(error) = self.outside.forget(self.log.clone(), base).await
        {
            tracing::warn!(topic = %self.log.topic, %error, "old transform state could not be deleted");
        }
    }
}

async fn acknowledged(step: Step) -> Result<(Commit, Changes), String> {
    match step.outputs {
        Outputs::Sent(sent) => {
            for sending in sent {
                let sent = sending.await;
                sent.map_err(|error| format!("an output was not acknowledged: {error}"))?;
            }
        }
        Outputs::Held(held) => assert!(held.is_empty(), "what is held is sent in a transaction"),
    }
    Ok((step.commit, step.changes))
}
