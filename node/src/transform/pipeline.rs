//! The task of one transform on one partition: reads what is committed, has the worker deal with it, appends what
//! comes of it, and commits how far it got.
//!
//! It owns the position. Outputs are committed with it, or acknowledged before it is, as the transform's delivery says. It wakes
//! when there is something to read, never to look whether there is. It stalls nobody but itself.

mod join;

use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_protocol::ids::Offset;
use tokio_util::sync::CancellationToken;

use super::changelog::{Changes, Commit, Owner};
use super::conduct::{Conduct, Offence};
use super::instance::{CallError, Module, Setup};
use super::join::{Joiner, Side};
use super::keyed::KeyedStore;
use super::letter::Origin;
use super::logs::{LogLevel, Logger};
use super::lookup::Lease;
use super::outbox::Append;
use super::outside::{Outside, OutsideError};
use super::query::{Asked, StateView};
use super::sinks::{Held, SinkPartitions, Sinks};
use super::state_log::{Committer, Means, Outputs, Step};
use super::status::{Cells, RunState, Totals};
use super::taken_up::{age, owner_of, restore_windows, take_up};
use super::windows::Windows;
use super::worker::{Attempt, Blame, Counts, Parts, Ran, Rules, Unreadable, Work, Worker};
use crate::metadata::{Delivery, ErrorPolicy, StartAt, Transform, World};
use crate::partition::{Isolation, Partition, PartitionName, ReadError, ReadRequest};
use crate::sys::clock::Clock;
use crate::sys::mailbox::{Mailbox, mailbox};
use crate::sys::task::Tasks;
use join::Joined;
pub(crate) use join::RightSource;

/// What one read asks for.
const READ_BYTES: usize = 1 << 20;
/// Accumulators and keyed entries of one partition may take this together.
const STATE_BYTES_MAX: usize = 64 << 20;
/// Questions about the state that wait for their turn.
const QUESTIONS_MAX: usize = 16;
/// What the answer to one of them may have.
const VIEW_BYTES_MAX: usize = 4 << 20;
/// The first and the longest pause before a record is tried again.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Everything one pipeline is started with.
pub(crate) struct Job {
    pub(crate) transform: Arc<Transform>,
    pub(crate) module: Arc<Module>,
    pub(crate) setup: Setup,
    pub(crate) source: Partition,
    /// Of a join.
    pub(crate) right: Option<RightSource>,
    pub(crate) sinks: Vec<SinkPartitions>,
    /// The dead-letter topic stands last among the sinks.
    pub(crate) has_dead_letters: bool,
    /// The topic for late records stands before it.
    pub(crate) has_late_sink: bool,
    /// Its partition of the changelog, wherever that is led.
    pub(crate) state: PartitionName,
    pub(crate) outside: Arc<dyn Outside>,
    /// Tables that must have caught up before the first record is dealt with.
    pub(crate) tables: Vec<Arc<Lease>>,
    pub(crate) cells: Arc<Cells>,
    pub(crate) logger: Logger,
    pub(crate) tasks: Tasks,
    pub(crate) clock: Clock,
}

/// How a pipeline ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It was asked to.
    Cancelled,
    /// Nothing will change by itself: a person must look.
    Stopped { reason: String },
    /// Something outside failed: try again from what is committed.
    Failed { reason: String },
}

impl End {
    fn failed(reason: impl ToString) -> Self {
        Self::Failed {
            reason: reason.to_string(),
        }
    }
}

/// Runs until it is cancelled or cannot go on.
pub(crate) async fn run(job: Job) -> End {
    let cancel = job.tasks.cancelled();
    let started = tokio::select! {
        biased;
        () = cancel.cancelled() => return End::Cancelled,
        started = Pipeline::start(job) => started,
    };
    let mut pipeline = match started {
        Ok(pipeline) => pipeline,
        Err(end) => return end,
    };
    let Err(end) = pipeline.work().await;
    // Whatever ended it, what was done so far counts.
    match (pipeline.committer.finish().await, end) {
        (Err(reason), End::Failed { .. } | End::Cancelled) => End::Failed { reason },
        (_, end) => end,
    }
}

struct Pipeline {
    transform: Arc<Transform>,
    /// Away while it works.
    worker: Option<Worker>,
    committer: Committer,
    source: Partition,
    /// Where there is a second source.
    joined: Option<Joined>,
    sinks: Sinks,
    owner: Owner,
    /// Questions about the state.
    asked: Mailbox<Asked>,
    /// The positions that were handed over last to be committed, the second one of a join.
    handed: (Offset, Option<Offset>),
    /// Everything before it is handed over to be committed.
    position: Offset,
    cells: Arc<Cells>,
    logger: Logger,
    tasks: Tasks,
    cancel: CancellationToken,
    clock: Clock,
    conduct: Conduct,
    retry_pause: Duration,
    last_input: Instant,
    /// Leases keep their tables alive.
    _tables: Vec<Arc<Lease>>,
}

/// A pipeline never ends well: it ends with an `End`.
type Forever = std::convert::Infallible;

impl Pipeline {
    async fn start(job: Job) -> Result<Self, End> {
        let (transform, outside, cells) = (job.transform, job.outside, job.cells);
        let (source, tasks, clock) = (job.source, job.tasks, job.clock);
        cells.follow(source.watermarks());
        let right_here = job.right.as_ref().and_then(|right| right.here.as_ref());
        cells.follow_right(right_here.map(Partition::watermarks));
        catch_up(&job.tables).await?;
        let means = Means {
            tasks: tasks.clone(),
            clock: clock.clone(),
            outside: Arc::clone(&outside),
            log: job.state,
            cells: Arc::clone(&cells),
        };
        let taken_over = Committer::take_over(means, &transform).await;
        let (committer, restored) = taken_over.map_err(End::failed)?;
        let owner = owner_of(&transform);
        let second = job.right.as_ref().map(RightSource::second);
        let mut taken_up = take_up(restored, source.name().topic_id, &owner, second, &job.logger);
        let (age, is_other) = age(&transform, &taken_up);
        let joining = match job.right {
            Some(right) => Some(join::set_up(right, &transform, &outside, &mut taken_up).await?),
            None => None,
        };
        let is_rewritten = is_other || joining.as_ref().is_some_and(|joining| joining.is_begun);
        let (joined, join_parts) = joining.map(|joining| (joining.joined, joining.parts)).unzip();
        let is_aggregate = job.module.world() == World::Aggregate;
        let worker = Worker::new(Parts {
            module: job.module,
            setup: job.setup,
            rules: Rules {
                has_dead_letters: job.has_dead_letters,
                has_late_sink: job.has_late_sink,
                ..rules(&transform)
            },
            windows: is_aggregate.then(|| restore_windows(&transform, &taken_up)),
            keyed: KeyedStore::restore(STATE_BYTES_MAX, age, taken_up.entries),
            join: join_parts,
            sinks: job.sinks.iter().map(|sink| sink.sink.clone()).collect(),
            origin: origin(&transform, &source),
        });
        let (asking, asked) = mailbox(QUESTIONS_MAX);
        cells.ask_there(asking);
        let mut pipeline = Self {
            worker: Some(worker),
            committer,
            joined,
            sinks: Sinks::new(job.sinks, outside),
            owner,
            asked,
            handed: (Offset::ZERO, None),
            position: taken_up.position.unwrap_or(Offset::ZERO),
            cells,
            logger: job.logger,
            cancel: tasks.cancelled(),
            conduct: Conduct::default(),
            retry_pause: RETRY_PAUSE_MIN,
            last_input: clock.now(),
            _tables: job.tables,
            transform,
            source,
            tasks,
            clock,
        };
        pipeline.begin(taken_up.position.is_none()).await?;
        if is_rewritten {
            pipeline.rewrite().await?;
        }
        Ok(pipeline)
    }

    /// Sets the module up, and settles where a new transform begins, durably: from then on nothing is missed.
    async fn begin(&mut self, is_new: bool) -> Result<(), End> {
        let prepared = self.with_worker(|worker| worker.prepare()).await?;
        prepared.map_err(|error| End::Stopped {
            reason: error.to_string(),
        })?;
        if is_new {
            let watermarks = *self.source.watermarks().borrow();
            self.position = match self.transform.start {
                StartAt::Earliest => watermarks.log_start,
                StartAt::Latest => watermarks.high_watermark,
            };
            if self.joined.is_some() {
                let position = self.position;
                self.worker().skip_to(Side::Left, position);
            }
            let commit = Commit {
                is_whole: true,
                ..self.commit()
            };
            self.hand_over(self.nothing(), commit, Changes::default()).await?;
        } else {
            let right = self.commit().right.map(|right| right.position);
            self.cells.set_position(self.position, right, self.watermark_ms());
            self.handed = (self.position, right);
        }
        let position = self.position;
        self.with_worker(move |worker| drop(worker.load(bytes::Bytes::new(), position, 0)))
            .await?;
        self.cells.set_state(RunState::Running);
        Ok(())
    }

    async fn work(&mut self) -> Result<Forever, End> {
        if self.joined.is_some() {
            return self.work_joining().await;
        }
        loop {
            // Windows may be due from before.
            let attempt = self.with_worker(|worker| worker.attempt()).await?;
            self.work_off(attempt).await?;
            let batches = self.read().await?;
            let (from, now_ms) = (self.position, self.clock.unix_ms());
            let (unreadable, attempt) = self
                .with_worker(move |worker| (worker.load(batches, from, now_ms), worker.attempt()))
                .await?;
            self.last_input = self.clock.now();
            self.note_unreadable(&unreadable).await?;
            if self.worker().next_offset() <= from {
                return Err(End::failed(format!(
                    "the source cannot be read on from offset {from}"
                )));
            }
            self.work_off(attempt).await?;
            self.finish_input().await?;
            self.answer_all();
        }
    }

    /// Answers whoever has asked about the state by now. It is for the time between two steps.
    fn answer_all(&mut self) {
        while let Some(asked) = self.asked.try_recv() {
            self.answer(asked);
        }
    }

    fn answer(&mut self, asked: Asked) {
        let (entries, has_more) = self.worker().keyed().page(&asked.query, VIEW_BYTES_MAX);
        let (position, right) = self.handed;
        let view = StateView {
            position,
            right,
            entries,
            has_more,
        };
        // Who asked may have gone.
        let _ = asked.answer.send(view);
    }

    /// Waits until there is something to read, and reads it.
    async fn read(&mut self) -> Result<bytes::Bytes, End> {
        let mut watermarks = self.source.watermarks();
        loop {
            watermarks.borrow_and_update();
            let request = ReadRequest {
                from: self.position,
                max_bytes: READ_BYTES,
                isolation: Isolation::Committed,
                min_one: true,
                current_epoch: None,
                up_to_log_end: false,
            };
            match self.source.read(request).await {
                Ok(outcome) if outcome.bytes > 0 => {
                    let visible = outcome.visible();
                    if !visible.is_empty() {
                        return Ok(visible);
                    }
                    // All of it was given up with its transaction.
                    self.position = outcome.next;
                    continue;
                }
                Ok(_) => {}
                Err(ReadError::OutOfRange { asked, start, end }) => {
                    self.jump(asked, if asked < start { start } else { end }).await?;
                    continue;
                }
                Err(error) => return Err(End::failed(format!("the source cannot be read: {error}"))),
            }
            let idle_close = self.idle_close_at();
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(End::Cancelled),
                () = self.committer.failed() => return Err(End::failed("committing failed")),
                changed = watermarks.changed() => {
                    changed.map_err(|_| End::failed("the source partition was closed"))?;
                }
                Some(asked) = self.asked.recv() => self.answer(asked),
                () = self.clock.sleep_until_some(idle_close) => self.close_windows().await?,
            }
        }
    }

    /// When all windows close for want of input. None while none is open, or it was not asked for.
    fn idle_close_at(&self) -> Option<Instant> {
        let idle = u64::try_from(self.transform.idle_close_ms?).unwrap_or_default();
        let windows = self.worker.as_ref().and_then(Worker::windows)?;
        (!windows.is_empty()).then(|| self.last_input + Duration::from_millis(idle))
    }

    async fn close_windows(&mut self) -> Result<(), End> {
        let now_ms = self.clock.unix_ms();
        let attempt = self
            .with_worker(move |worker| {
                worker.close_all_windows(now_ms);
                worker.attempt()
            })
            .await?;
        self.work_off(attempt).await?;
        self.finish_input().await
    }

    /// The source no longer has, or does not have any more, the records from the position on.
    async fn jump(&mut self, from: Offset, to: Offset) -> Result<(), End> {
        self.note_jump(from, to);
        self.position = to;
        self.hand_over(self.nothing(), self.commit(), Changes::default())
            .await
    }

    fn note_jump(&self, from: Offset, to: Offset) {
        let message = if from < to {
            format!("records {from} to {to} were deleted from the source before they were dealt with")
        } else {
            format!("the source ends at {to}, before the position {from}: it has lost records")
        };
        self.note(LogLevel::Warn, message, Some(from));
    }

    /// Deals with an attempt and everything that follows from it, until the worker has nothing left to do.
    async fn work_off(&mut self, mut attempt: Option<Attempt>) -> Result<(), End> {
        while let Some(Attempt { work, result, cpu }) = attempt {
            self.cells.count_cpu(cpu);
            if self.cancel.is_cancelled() {
                return Err(End::Cancelled);
            }
            match result {
                Ok(ran) => {
                    self.conduct.succeeded();
                    self.deliver(work, ran).await?;
                }
                Err(Blame::Range(error)) => {
                    let began = self.clock.now();
                    self.cut(work, error.reason(), error.to_string()).await?;
                    let took = cpu + self.clock.now().saturating_duration_since(began);
                    let pause = self.conduct.failed(offence(&error), took);
                    // Trying again has pauses of its own.
                    if self.transform.on_error != ErrorPolicy::Retry {
                        self.pause(pause).await?;
                    }
                }
                Err(Blame::One {
                    index,
                    reason,
                    message,
                }) => {
                    let (Work::Records(range) | Work::Windows(range)) = &work;
                    if index == range.start {
                        self.settle(work, reason, message).await?;
                    } else {
                        self.worker().put_back(work, index);
                    }
                }
                Err(Blame::Module { reason }) => return Err(End::Stopped { reason }),
                Err(Blame::Stopping) => return Err(End::Cancelled),
            }
            attempt = self.with_worker(|worker| worker.attempt()).await?;
        }
        Ok(())
    }

    /// Halves the work of a failed attempt, or settles the one record it comes down to.
    async fn cut(&mut self, work: Work, reason: &'static str, message: String) -> Result<(), End> {
        match self.worker().cut(work) {
            None => Ok(()),
            Some(one) => self.settle(one, reason, message).await,
        }
    }

    /// Applies the error policy to the first record or window of `work`.
    async fn settle(&mut self, work: Work, reason: &'static str, message: String) -> Result<(), End> {
        let offset = self.worker().offset_of(&work);
        let at = offset.map_or_else(|| "a window".to_owned(), |offset| format!("record {offset}"));
        let text = format!("{at}: {reason}: {message}");
        match self.transform.on_error {
            ErrorPolicy::DeadLetter | ErrorPolicy::Skip => {
                self.note(LogLevel::Warn, text, offset);
                let (now, why) = (work.clone(), message);
                let written = self
                    .with_worker(move |worker| worker.write_off(now, reason, &why))
                    .await?;
                match written {
                    Ok(ran) => self.deliver(work, ran).await,
                    Err(Blame::Module { reason }) => Err(End::Stopped { reason }),
                    Err(other) => Err(End::failed(format!("{other:?}"))),
                }
            }
            ErrorPolicy::Stop => {
                self.note(LogLevel::Error, text.clone(), offset);
                Err(End::Stopped { reason: text })
            }
            ErrorPolicy::Retry => {
                self.note(LogLevel::Warn, text.clone(), offset);
                self.cells.set_state(RunState::Retrying { reason: text });
                let (Work::Records(range) | Work::Windows(range)) = &work;
                let first = range.start;
                self.worker().put_back(work, first);
                self.pause(self.retry_pause).await?;
                self.retry_pause = (self.retry_pause * 2).min(RETRY_PAUSE_MAX);
                Ok(())
            }
        }
    }

    /// Sends what an attempt gave, or keeps it for the transaction, and hands its state and position over to be committed.
    async fn deliver(&mut self, work: Work, ran: Ran) -> Result<(), End> {
        let Ran {
            appends,
            counts,
            position,
        } = ran;
        let outputs = match self.held(appends).await? {
            Err(refused) => Err(refused),
            Ok(held) => match self.transform.delivery {
                Delivery::ExactlyOnce => Ok(Outputs::Held(held)),
                Delivery::AtLeastOnce => self.sinks.send(held).await.map(Outputs::Sent),
            },
        };
        let outputs = match refusal(outputs)? {
            Ok(outputs) => outputs,
            Err(reason) => {
                self.worker().reject();
                let message = format!("an output was refused: {reason}");
                // Boxed, because settling delivers the dead letter.
                return Box::pin(self.cut(work, "output-refused", message)).await;
            }
        };
        let changes = self.worker().accept();
        let counts = match &self.joined {
            // The records of both sides were counted when they were joined.
            Some(_) => Counts { taken: 0, ..counts },
            None => {
                self.position = position.unwrap_or(self.position);
                counts
            }
        };
        self.cells.count(totals(counts));
        self.retry_pause = RETRY_PAUSE_MIN;
        if matches!(self.cells.state(), RunState::Retrying { .. }) {
            self.cells.set_state(RunState::Running);
        }
        if let Some(joined) = &mut self.joined {
            joined.keep(outputs, changes);
            return Ok(());
        }
        self.commit_changes(outputs, changes).await
    }

    /// Outputs that their sinks would take, by all that can be known here.
    async fn held(&mut self, appends: Vec<Append>) -> Result<Result<Vec<Held>, OutsideError>, End> {
        if appends.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let sinks = self.sinks.clone();
        self.with_worker(move |_| sinks.hold(appends)).await
    }

    /// What a step has that gives no output.
    fn nothing(&self) -> Outputs {
        join::nothing(self.transform.delivery)
    }

    /// All that was read is dealt with: the position moves behind it, even where there was no record.
    async fn finish_input(&mut self) -> Result<(), End> {
        if self.joined.is_some() {
            return self.finish_join().await;
        }
        let next = self.worker().next_offset();
        let changes = self.worker().accept();
        if next == self.position && changes == Changes::default() {
            return Ok(());
        }
        self.position = self.position.max(next);
        self.commit_changes(self.nothing(), changes).await
    }

    async fn commit_changes(&mut self, outputs: Outputs, changes: Changes) -> Result<(), End> {
        let live = self.live_bytes();
        self.cells.set_state_bytes(live);
        let commit = self.commit();
        if self.committer.wants_whole(live) {
            let whole = self.whole();
            return self
                .hand_over(
                    outputs,
                    Commit {
                        is_whole: true,
                        ..commit
                    },
                    whole,
                )
                .await;
        }
        self.hand_over(outputs, commit, changes).await
    }

    /// Commits the whole state as it is, in place of everything from before.
    async fn rewrite(&mut self) -> Result<(), End> {
        let commit = Commit {
            is_whole: true,
            ..self.commit()
        };
        let whole = self.whole();
        self.hand_over(self.nothing(), commit, whole).await
    }

    fn commit(&self) -> Commit {
        let keyed = self.worker.as_ref().map(Worker::keyed);
        Commit {
            is_stamped: keyed.is_some_and(KeyedStore::is_aging),
            clock_ms: keyed.and_then(KeyedStore::clock_ms),
            right: self
                .joined
                .as_ref()
                .map(|joined| joined.right(self.worker.as_ref())),
            ..Commit::new(
                self.source.name().topic_id,
                self.position,
                self.watermark_ms(),
                self.owner.clone(),
            )
        }
    }

    fn watermark_ms(&self) -> Option<i64> {
        self.worker
            .as_ref()
            .and_then(Worker::windows)
            .and_then(Windows::watermark_ms)
    }

    async fn hand_over(&mut self, outputs: Outputs, commit: Commit, changes: Changes) -> Result<(), End> {
        self.handed = (commit.position, commit.right.as_ref().map(|right| right.position));
        if self
            .committer
            .hand_over(Step {
                outputs,
                commit,
                changes,
            })
            .await
        {
            return Ok(());
        }
        Err(End::failed("committing failed"))
    }

    fn live_bytes(&mut self) -> usize {
        let worker = self.worker();
        let joined = worker.joiner().map_or(0, Joiner::bytes);
        worker.keyed().bytes() + worker.windows().map_or(0, Windows::bytes) + joined
    }

    fn whole(&mut self) -> Changes {
        let worker = self.worker();
        let groups = worker
            .windows()
            .map(|windows| windows.groups().map(|(key, state)| (key, Some(state))).collect());
        let groups = groups.unwrap_or_default();
        let entries = worker.keyed().entries();
        let entries = entries
            .map(|(key, value)| (Arc::clone(key), Some(Arc::clone(value))))
            .collect();
        let joins = worker.joiner().into_iter().flat_map(Joiner::entries);
        let joins = joins
            .map(|(key, value)| (Arc::clone(key), Some(Arc::clone(value))))
            .collect();
        Changes {
            groups,
            entries,
            joins,
        }
    }

    async fn pause(&mut self, duration: Duration) -> Result<(), End> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(End::Cancelled),
            () = self.clock.sleep(duration) => Ok(()),
        }
    }

    async fn note_unreadable(&mut self, unreadable: &[Unreadable]) -> Result<(), End> {
        for Unreadable { offset, message } in unreadable {
            self.note(LogLevel::Error, message.clone(), Some(*offset));
            if matches!(self.transform.on_error, ErrorPolicy::Stop | ErrorPolicy::Retry) {
                return Err(End::Stopped {
                    reason: message.clone(),
                });
            }
            self.cells.count(Totals {
                failed: 1,
                ..Totals::default()
            });
        }
        Ok(())
    }

    fn note(&self, level: LogLevel, message: String, offset: Option<Offset>) {
        self.logger.line(level, message.clone());
        self.cells.set_error(message, self.clock.unix_ms(), offset);
    }

    fn worker(&mut self) -> &mut Worker {
        self.worker
            .as_mut()
            .expect("the worker is only away while it is waited for")
    }

    /// Has the worker do something that may take long, on a thread that may block.
    async fn with_worker<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, End> {
        let mut worker = self
            .worker
            .take()
            .expect("the worker is only away while it is waited for");
        let run = move || {
            let result = work(&mut worker);
            (worker, result)
        };
        let done = if self.conduct.is_trusted() {
            self.tasks.blocking("guest", run)
        } else {
            self.tasks.background("guest", run)
        };
        let (worker, result) = done.await.map_err(|_| End::failed("the worker broke off"))?;
        self.worker = Some(worker);
        Ok(result)
    }
}

async fn catch_up(tables: &[Arc<Lease>]) -> Result<(), End> {
    for table in tables {
        let caught_up = table.caught_up().await;
        caught_up.map_err(|reason| End::Stopped { reason })?;
    }
    Ok(())
}

fn origin(transform: &Transform, source: &Partition) -> Origin {
    Origin {
        transform: transform.name.clone(),
        module: transform.module.clone(),
        topic: transform.source.clone(),
        partition: source.name().index,
    }
}

/// Inside, why records will never be taken; what may go well later ends the pipeline.
fn refusal<T>(result: Result<T, OutsideError>) -> Result<Result<T, String>, End> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(OutsideError::Refused(reason)) => Ok(Err(reason)),
        Err(error @ (OutsideError::Fenced | OutsideError::Failed(_))) => {
            Err(End::failed(format!("an output cannot be appended: {error}")))
        }
    }
}

fn rules(transform: &Transform) -> Rules {
    Rules {
        batch_bytes_max: usize::try_from(transform.limits.batch_bytes).unwrap_or(usize::MAX),
        state_bytes_max: STATE_BYTES_MAX,
        is_strict: matches!(transform.on_error, ErrorPolicy::Stop | ErrorPolicy::Retry),
        has_dead_letters: false,
        has_late_sink: false,
        emit: transform.emit,
    }
}

fn totals(counts: Counts) -> Totals {
    let Counts {
        taken,
        sent,
        dropped,
        failed,
        late,
    } = counts;
    Totals {
        records_in: taken,
        records_out: sent,
        failed,
        dropped,
        late,
        cpu_ms: 0,
    }
}

fn offence(error: &CallError) -> Offence {
    match error {
        CallError::Timeout { .. } => Offence::Overran,
        CallError::Memory { .. }
        | CallError::Trap { .. }
        | CallError::AnswerTooLarge { .. }
        | CallError::RecordsTooLarge { .. }
        | CallError::Answer(_)
        | CallError::State(_)
        | CallError::Stopping => Offence::Broke,
    }
}
