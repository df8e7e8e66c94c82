//! Group commit: one sync for everything waiting, many logs at once.
//!
//! It owns how far each log is durable. Whoever appended asks for a sync; while one runs, further askers wait
//! for the next, which covers them all. A few workers on blocking threads serve all logs of the node in the
//! order of asking. After a failed sync a log is broken: it must never be synced again and believed.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use headwater_protocol::ids::Offset;
use tokio::sync::watch;

use super::checkpoint::{CheckpointFile, RecoveryPoint};
use super::error::Broken;
use super::segment::Segment;
use crate::sys::disk::{Disk, File};
use crate::sys::task::Tasks;
use std::path::{Path, PathBuf};

/// Syncs under way at once: enough to let the device merge them, few enough to stay cheap.
const WORKERS_MAX: usize = 12;
/// A crash leaves about this much of each log to be checked when it is opened.
const CHECKPOINT_BYTES: u64 = 1 << 20;

/// How far a log is durable.
#[derive(Debug, Clone)]
pub struct Synced {
    /// Every record before it survives a loss of power.
    pub offset: Offset,
    /// Set once and for good when a write or a sync failed.
    pub broken: Option<Arc<Broken>>,
}

/// The workers all logs of a node share.
#[derive(Debug)]
pub(super) struct Syncer {
    tasks: Tasks,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arc<Flush>>,
    workers: usize,
}

impl Syncer {
    pub(super) fn new(tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            tasks,
            queue: Mutex::default(),
        })
    }

    fn submit(self: &Arc<Self>, flush: Arc<Flush>) {
        let mut queue = lock(&self.queue);
        queue.waiting.push_back(flush);
        if queue.workers == WORKERS_MAX {
            return;
        }
        queue.workers += 1;
        drop(queue);
        let worker = Worker {
            syncer: Arc::clone(self),
            is_counted: true,
        };
        // Dropping the handle lets it run on.
        drop(self.tasks.blocking("sync", move || worker.run()));
    }
}

/// Counted among the workers until it finds nothing to do, or is dropped by a runtime that goes down.
struct Worker {
    syncer: Arc<Syncer>,
    is_counted: bool,
}

impl Worker {
    fn run(mut self) {
        while let Some(flush) = self.next() {
            if flush.run() == Again::Yes {
                lock(&self.syncer.queue).waiting.push_back(flush);
            }
        }
    }

    /// Under one lock, so that a log queued from now on finds a worker missing.
    fn next(&mut self) -> Option<Arc<Flush>> {
        let mut queue = lock(&self.syncer.queue);
        let next = queue.waiting.pop_front();
        if next.is_none() {
            queue.workers -= 1;
            self.is_counted = false;
        }
        next
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.is_counted {
            lock(&self.syncer.queue).workers -= 1;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Yes,
    No,
}

/// What one log must sync, and how far it is.
#[derive(Debug)]
pub(super) struct Flush {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    state: Mutex<State>,
    /// Signalled when a sync has ended.
    ended: Condvar,
    synced: watch::Sender<Synced>,
    checkpoint: Mutex<CheckpointFile>,
}

#[derive(Debug)]
struct State {
    /// The log's end, and where it lies.
    end: Offset,
    position: u64,
    /// Largest timestamp of the active segment.
    max_timestamp: i64,
    active: Arc<Segment>,
    /// Segments sealed since the last sync.
    sealed: Vec<Arc<Segment>>,
    /// The epoch file, when it has grown.
    epochs: Option<Arc<dyn File>>,
    folder_changed: bool,
    /// There is no checkpoint, and none of the names is durable yet.
    is_new: bool,
    asked: bool,
    /// In the queue, or with a worker.
    busy: bool,
    running: bool,
    paused: bool,
    broken: Option<Arc<Broken>>,
}

/// What one sync covers.
struct Work {
    end: Offset,
    position: u64,
    max_timestamp: i64,
    active: Arc<Segment>,
    sealed: Vec<Arc<Segment>>,
    epochs: Option<Arc<dyn File>>,
    folder_changed: bool,
}

/// Keeps syncs from running until dropped.
pub(super) struct Pause<'a>(&'a Flush);

impl Flush {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        active: Arc<Segment>,
        max_timestamp: i64,
        synced: Offset,
        checkpoint: CheckpointFile,
    ) -> Arc<Self> {
        let state = State {
            end: active.next(),
            position: active.bytes(),
            max_timestamp,
            active,
            sealed: Vec::new(),
            epochs: None,
            // Nobody knows which names an earlier process has synced.
            folder_changed: true,
            is_new: false,
            asked: false,
            busy: false,
            running: false,
            paused: false,
            broken: None,
        };
        Arc::new(Self {
            disk,
            folder,
            state: Mutex::new(state),
            ended: Condvar::new(),
            synced: watch::Sender::new(Synced {
                offset: synced,
                broken: None,
            }),
            checkpoint: Mutex::new(checkpoint),
        })
    }

    pub(super) fn synced(&self) -> watch::Receiver<Synced> {
        self.synced.subscribe()
    }

    pub(super) fn check(&self) -> Result<(), Arc<Broken>> {
        match &lock(&self.state).broken {
            Some(broken) => Err(Arc::clone(broken)),
            None => Ok(()),
        }
    }

    /// Notes an append to the active segment.
    pub(super) fn appended(&self, end: Offset, position: u64, max_timestamp: i64) {
        let mut state = lock(&self.state);
        (state.end, state.position, state.max_timestamp) = (end, position, max_timestamp);
    }

    /// Notes that appends go to a new segment from now on.
    pub(super) fn rolled(&self, active: &Arc<Segment>) {
        let mut state = lock(&self.state);
        (state.position, state.max_timestamp) = (0, -1);
        state.folder_changed = true;
        let old = std::mem::replace(&mut state.active, Arc::clone(active));
        state.sealed.push(old);
    }

    /// The next sync is one of the folder, too.
    pub(super) fn note_folder_changed(&self) {
        lock(&self.state).folder_changed = true;
    }

    /// Notes that nothing was ever written to the log.
    pub(super) fn note_new(&self) {
        lock(&self.state).is_new = true;
    }

    pub(super) fn is_new(&self) -> bool {
        lock(&self.state).is_new
    }

    /// Gives a new log its checkpoint, and returns once all its names are durable. Whatever is written before that counts
    /// for nothing: a log without a checkpoint and without records is taken for new.
    pub(super) fn anchor(&self) -> io::Result<()> {
        if !self.is_new() {
            return Ok(());
        }
        let above = self.folder.parent().unwrap_or_else(|| Path::new(""));
        self.disk.sync_folder(above)?;
        let mut checkpoint = self.checkpoint();
        let content = checkpoint.content();
        checkpoint.write(content)?;
        checkpoint.sync()?;
        self.disk.sync_folder(&self.folder)?;
        lock(&self.state).is_new = false;
        Ok(())
    }

    /// Adds segments that recovery has sealed.
    pub(super) fn sealed(&self, segments: impl IntoIterator<Item = Arc<Segment>>) {
        lock(&self.state).sealed.extend(segments);
    }

    pub(super) fn epoch_begun(&self, file: Arc<dyn File>) {
        let mut state = lock(&self.state);
        state.epochs = Some(file);
        state.folder_changed = true;
    }

    /// Asks for everything appended so far to become durable. Returns at once.
    pub(super) fn ask(self: &Arc<Self>, syncer: &Arc<Syncer>) {
        let mut state = lock(&self.state);
        state.asked = true;
        if state.busy || state.paused || state.broken.is_some() {
            return;
        }
        state.busy = true;
        drop(state);
        syncer.submit(Arc::clone(self));
    }

    /// Syncs here and now, and moves the recovery point to the end. Returns once everything appended is
    /// durable.
    pub(super) fn now(&self) -> Result<(), Arc<Broken>> {
        self.check()?;
        let pause = self.pause();
        let work = self.take_work();
        if work.has_news(self.synced.borrow().offset) {
            let done = work.sync(&*self.disk, &self.folder);
            self.settle(&work, done)?;
        }
        self.save_progress(&work, 1);
        drop(pause);
        Ok(())
    }

    /// Waits for a running sync to end and lets no other begin.
    pub(super) fn pause(&self) -> Pause<'_> {
        let mut state = lock(&self.state);
        while state.running || state.paused {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.paused = true;
        Pause(self)
    }

    /// Declares the log broken: a write has failed.
    pub(super) fn break_by(&self, action: &'static str, cause: io::Error) -> Arc<Broken> {
        let broken = {
            let mut state = lock(&self.state);
            let new = || {
                Arc::new(Broken {
                    action,
                    cause: Arc::new(cause),
                })
            };
            Arc::clone(state.broken.get_or_insert_with(new))
        };
        tracing::error!(folder = %self.folder.display(), %broken, "log is broken");
        self.synced
            .send_modify(|synced| synced.broken = Some(Arc::clone(&broken)));
        broken
    }

    /// Sets the books after the owner cut the log, durably, while paused.
    pub(super) fn cut(&self, active: &Arc<Segment>, max_timestamp: i64, end: Offset) {
        let mut state = lock(&self.state);
        state.sealed.clear();
        (state.end, state.position, state.max_timestamp) = (end, active.bytes(), max_timestamp);
        state.active = Arc::clone(active);
        drop(state);
        self.synced.send_modify(|synced| synced.offset = end);
    }

    /// The file with the log's start and recovery point. Held briefly.
    pub(super) fn checkpoint(&self) -> MutexGuard<'_, CheckpointFile> {
        lock(&self.checkpoint)
    }

    /// One turn of a worker.
    fn run(&self) -> Again {
        {
            let mut state = lock(&self.state);
            if state.paused || state.broken.is_some() {
                state.busy = false;
                return Again::No;
            }
            state.running = true;
            state.asked = false;
        }
        let turn = Turn(self);
        let work = self.take_work();
        let done = work.sync(&*self.disk, &self.folder);
        // Whoever waits is told first; the checkpoint is for later.
        if self.settle(&work, done).is_ok() {
            self.save_progress(&work, CHECKPOINT_BYTES);
        }
        drop(turn);
        let mut state = lock(&self.state);
        if state.asked && !state.paused && state.broken.is_none() {
            return Again::Yes;
        }
        state.busy = false;
        Again::No
    }

    fn take_work(&self) -> Work {
        let mut state = lock(&self.state);
        Work {
            end: state.end,
            position: state.position,
            max_timestamp: state.max_timestamp,
            active: Arc::clone(&state.active),
            sealed: std::mem::take(&mut state.sealed),
            epochs: state.epochs.take(),
            folder_changed: std::mem::take(&mut state.folder_changed),
        }
    }

    fn settle(&self, work: &Work, done: io::Result<()>) -> Result<(), Arc<Broken>> {
        match done {
            Ok(()) => {
                self.synced.send_if_modified(|synced| {
                    let is_news = work.end > synced.offset;
                    synced.offset = synced.offset.max(work.end);
                    is_news
                });
                Ok(())
            }
            Err(cause) => Err(self.break_by("sync", cause)),
        }
    }

    /// Moves the recovery point up when it has fallen `behind` bytes back.
    fn save_progress(&self, work: &Work, behind: u64) {
        let mut file = lock(&self.checkpoint);
        let mut content = file.content();
        let old = content.recovered;
        if old.segment == work.active.base() && work.position.saturating_sub(old.position) < behind {
            return;
        }
        let saved = work
            .active
            .index()
            .save(work.position)
            .and_then(|(entries, last_entry_position)| {
                content.recovered = RecoveryPoint {
                    segment: work.active.base(),
                    position: work.position,
                    next: work.end,
                    max_timestamp: work.max_timestamp,
                    entries: u32::try_from(entries).map_err(io::Error::other)?,
                    last_entry_position,
                };
                file.write(content)?;
                // What lies in closed segments is known to be durable, whatever a crash does.
                let has_rolled = old.segment != work.active.base();
                if has_rolled { file.sync() } else { Ok(()) }
            });
        // A checkpoint only saves work: without it, more is checked at the next start.
        if let Err(error) = saved {
            tracing::warn!(folder = %self.folder.display(), %error, "checkpoint not written");
        }
    }
}

/// A sync under way: whoever waits for its end is woken even if it panics.
struct Turn<'a>(&'a Flush);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).running = false;
        self.0.ended.notify_all();
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).paused = false;
        self.0.ended.notify_all();
    }
}

impl Work {
    /// Whether there is anything that a log durable up to `synced` does not have on the device yet.
    fn has_news(&self, synced: Offset) -> bool {
        self.end > synced || self.folder_changed || self.epochs.is_some() || !self.sealed.is_empty()
    }

    /// Older segments first: what is durable is always a prefix.
    fn sync(&self, disk: &dyn Disk, folder: &Path) -> io::Result<()> {
        if self.folder_changed {
            disk.sync_folder(folder)?;
        }
        if let Some(epochs) = &self.epochs {
            epochs.sync()?;
        }
        for segment in &self.sealed {
            segment.sync()?;
        }
        self.active.file()?.sync()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves its state whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
