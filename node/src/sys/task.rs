//! Tasks: named, with a parent, a kind and a token that cancels them.
//!
//! It owns the only spawning of tasks and threads, and the count of those still running. A scope ends when
//! every task below it has; it must never leave one behind unseen, nor swallow a panic.

#![allow(clippy::disallowed_methods, reason = "the door itself")]

mod background;
mod pace;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use background::Background;

pub use pace::Pace;

/// What the death of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The node cannot go on without it: a panic is reported through [`Tasks::failure`].
    Critical,
    /// Its owner notices by itself; a panic is logged.
    BestEffort,
}

/// Where work that may wait for the disk runs.
#[derive(Debug, Clone)]
pub enum Blocking {
    /// On threads of its own.
    Threads,
    /// At once, where it is asked for: the order of a simulated run then depends on nothing but its seed.
    Inline,
    /// In a task that takes its time, before the work and behind it: a crash may come before, between and after.
    Paced(Pace),
}

/// A scope in which tasks run. Cheap to clone; clones are the same scope.
#[derive(Clone, Debug)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    cancel: CancellationToken,
    /// Counts the tasks of this scope and of every scope below it.
    tracker: TaskTracker,
    parent: Option<Tasks>,
    blocking: Blocking,
    /// Shared by the whole tree.
    background: Arc<Background>,
    /// Where tasks run, when the root was made inside of a runtime; else where the caller is.
    runtime: Option<Handle>,
    failure: watch::Sender<Option<Failure>>,
}

/// A critical task that is no more: it panicked, or gave up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task} has ended: {reason}")]
pub struct Failure {
    pub task: String,
    pub reason: String,
}

/// The work did not come to its end: it panicked, or the runtime is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task did not finish")]
pub struct Unfinished;

/// Tasks were still running when the time to stop was up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{running} tasks of {scope} still run")]
pub struct StillRunning {
    pub scope: String,
    pub running: usize,
}

/// The end of one task, to be awaited. Dropping it does not stop the task.
#[derive(Debug)]
pub struct Task<T> {
    output: oneshot::Receiver<T>,
}

impl<T> Future for Task<T> {
    type Output = Result<T, Unfinished>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.output.poll_unpin(context).map_err(|_| Unfinished)
    }
}

impl Tasks {
    /// Tasks run in the runtime this is called in, from wherever they are spawned; without one, in that of
    /// whoever spawns them, which must be in one.
    pub fn root(name: &str, blocking: Blocking) -> Self {
        Self::new(
            name.to_owned(),
            CancellationToken::new(),
            None,
            blocking,
            watch::Sender::new(None),
        )
    }

    /// A scope below this one: cancelled with it, waited for by it.
    pub fn child(&self, name: &str) -> Self {
        let name = format!("{}/{name}", self.inner.name);
        let inner = &self.inner;
        let (cancel, failure) = (inner.cancel.child_token(), inner.failure.clone());
        Self::new(name, cancel, Some(self.clone()), inner.blocking.clone(), failure)
    }

    fn new(
        name: String,
        cancel: CancellationToken,
        parent: Option<Self>,
        blocking: Blocking,
        failure: watch::Sender<Option<Failure>>,
    ) -> Self {
        let tracker = TaskTracker::new();
        tracker.close();
        let outer = parent.as_ref().and_then(|parent| parent.inner.runtime.clone());
        let background = parent.as_ref().map(|parent| Arc::clone(&parent.inner.background));
        Self {
            inner: Arc::new(Inner {
                name,
                cancel,
                tracker,
                blocking,
                background: background.unwrap_or_default(),
                runtime: outer.or_else(|| Handle::try_current().ok()),
                parent,
                failure,
            }),
        }
    }

    fn runtime(&self) -> Handle {
        self.inner.runtime.clone().unwrap_or_else(Handle::current)
    }

    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Fires when the scope is to end. Every task watches it.
    pub fn cancelled(&self) -> CancellationToken {
        self.inner.cancel.clone()
    }

    /// Asks every task of this scope to end.
    pub fn cancel(&self) {
        self.inner.cancel.cancel();
    }

    /// Says in the name of a critical task that the node cannot go on, for a reason that is no bug.
    pub fn give_up(&self, task: &str, reason: String) {
        let task = format!("{}/{task}", self.inner.name);
        tracing::error!(task, reason, "the node cannot go on");
        fail(&self.inner.failure, task, reason);
    }

    /// The first critical task that panicked or gave up, anywhere in the tree.
    pub fn failure(&self) -> watch::Receiver<Option<Failure>> {
        self.inner.failure.subscribe()
    }

    /// Runs `future` as a task of this scope. It is not stopped by force: it watches [`Tasks::cancelled`].
    pub fn spawn<F>(&self, name: &str, kind: Kind, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (sender, output) = oneshot::channel();
        let name = format!("{}/{name}", self.inner.name);
        let failure = self.inner.failure.clone();
        let alive = self.tokens();
        self.runtime().spawn(async move {
            match AssertUnwindSafe(future).catch_unwind().await {
                // Nobody waits for it any more: normal.
                Ok(output) => drop(sender.send(output)),
                Err(panic) => report(&failure, name, kind, &*panic),
            }
            drop(alive);
        });
        Task { output }
    }

    /// Runs a task made by `make`, and makes it anew after a panic, `pause` later, until the scope ends.
    pub fn spawn_restarting<M, F>(&self, name: &str, clock: super::clock::Clock, pause: Duration, mut make: M)
    where
        M: FnMut() -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let cancel = self.cancelled();
        let full_name = format!("{}/{name}", self.inner.name);
        let failure = self.inner.failure.clone();
        self.spawn(name, Kind::Critical, async move {
            loop {
                match AssertUnwindSafe(make()).catch_unwind().await {
                    Ok(()) => return,
                    Err(panic) => report(&failure, full_name.clone(), Kind::BestEffort, &*panic),
                }
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return,
                    () = clock.sleep(pause) => {}
                }
            }
        });
    }

    /// Runs work that may wait for the disk, or keep a core busy, off the runtime's own threads. It runs to
    /// its end even when the future is dropped.
    pub fn blocking<T, W>(&self, name: &str, work: W) -> Task<T>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        match &self.inner.blocking {
            Blocking::Threads => {
                let (run, task) = self.work(name, work);
                drop(self.runtime().spawn_blocking(run));
                task
            }
            Blocking::Inline => self.inline(name, work),
            Blocking::Paced(pace) => self.paced(pace, name, work),
        }
    }

    /// Like [`Tasks::blocking`], for work that nobody else may feel: on a few threads of low priority, behind
    /// what was handed over before.
    pub fn background<T, W>(&self, name: &str, work: W) -> Task<T>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        match &self.inner.blocking {
            Blocking::Threads => {
                let (run, task) = self.work(name, work);
                if let Err(run) = self.inner.background.run(Box::new(run)) {
                    drop(self.runtime().spawn_blocking(run));
                }
                task
            }
            Blocking::Inline => self.inline(name, work),
            Blocking::Paced(pace) => self.paced(pace, name, work),
        }
    }

    fn inline<T, W>(&self, name: &str, work: W) -> Task<T>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let (run, task) = self.work(name, work);
        run();
        task
    }

    fn paced<T, W>(&self, pace: &Pace, name: &str, work: W) -> Task<T>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let (before, after) = pace.draw();
        self.spawn(name, Kind::BestEffort, async move {
            tokio::time::sleep(before).await;
            let output = work();
            tokio::time::sleep(after).await;
            output
        })
    }

    /// What a thread is to do, and the end of it.
    fn work<T, W>(&self, name: &str, work: W) -> (impl FnOnce() + Send + 'static, Task<T>)
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let (sender, output) = oneshot::channel();
        let failure = self.inner.failure.clone();
        let full_name = format!("{}/{name}", self.inner.name);
        let alive = self.tokens();
        let run = move || {
            match catch_unwind(AssertUnwindSafe(work)) {
                Ok(output) => drop(sender.send(output)),
                Err(panic) => report(&failure, full_name, Kind::BestEffort, &*panic),
            }
            drop(alive);
        };
        (run, Task { output })
    }

    /// Asks every task to end and waits until all have, for as long as `clock` allows.
    pub async fn stop(&self, clock: &super::clock::Clock, patience: Duration) -> Result<(), StillRunning> {
        self.cancel();
        let ended = clock.timeout(patience, self.inner.tracker.wait()).await;
        ended.map_err(|_| StillRunning {
            scope: self.inner.name.clone(),
            running: self.running(),
        })
    }

    /// Waits until no task of this scope runs, without asking any to end.
    pub async fn ended(&self) {
        self.inner.tracker.wait().await;
    }

    /// How many tasks run in this scope and below it.
    pub fn running(&self) -> usize {
        self.inner.tracker.len()
    }

    fn tokens(&self) -> Vec<TaskTrackerToken> {
        let mut tokens = vec![self.inner.tracker.token()];
        let mut scope = self;
        while let Some(parent) = &scope.inner.parent {
            tokens.push(parent.inner.tracker.token());
            scope = parent;
        }
        tokens
    }
}

fn report(
    failure: &watch::Sender<Option<Failure>>,
    task: String,
    kind: Kind,
    panic: &(dyn std::any::Any + Send),
) {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let reason = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let reason = reason.unwrap_or_else(|| "no reason given".to_owned());
    tracing::error!(task, reason, "task panicked");
    if kind == Kind::Critical {
        fail(failure, task, reason);
    }
}

/// The first one counts.
fn fail(failure: &watch::Sender<Option<Failure>>, task: String, reason: String) {
    failure.send_if_modified(|first| {
        let is_first = first.is_none();
        first.get_or_insert(Failure { task, reason });
        is_first
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::Clock;
    use crate::sys::random::Random;

    #[tokio::test]
    async fn a_scope_waits_for_every_task_below_it() {
        let root = Tasks::root("test", Blocking::Threads);
        let child = root.child("a").child("b");
        let token = child.cancelled();
        let task = child.spawn("waiter", Kind::BestEffort, async move {
            token.cancelled().await;
            7
        });
        assert_eq!((root.running(), child.name()), (1, "test/a/b"));
        root.stop(&Clock::system(), Duration::from_secs(10))
            .await
            .unwrap();
        assert_eq!(task.await, Ok(7));
        assert_eq!(root.running(), 0);
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_named() {
        let root = Tasks::root("test", Blocking::Threads);
        let clock = Clock::manual(0);
        let _task = root.spawn("deaf", Kind::BestEffort, std::future::pending::<()>());
        let stopped = root.stop(&clock, Duration::ZERO).await;
        assert_eq!(
            stopped,
            Err(StillRunning {
                scope: "test".into(),
                running: 1
            })
        );
    }

    #[tokio::test]
    async fn a_critical_panic_is_reported_and_others_are_not() {
        let root = Tasks::root("test", Blocking::Threads);
        let mut failure = root.failure();
        let ended = root.spawn("careless", Kind::BestEffort, async { panic!("one") });
        assert_eq!(ended.await, Err(Unfinished));
        assert!(failure.borrow().is_none());
        let scope = root.child("log");
        assert!(
            scope
                .spawn("owner", Kind::Critical, async { panic!("two") })
                .await
                .is_err()
        );
        let seen = failure.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(
            seen,
            Some(Failure {
                task: "test/log/owner".into(),
                reason: "two".into()
            })
        );
    }

    #[tokio::test]
    async fn a_task_gives_up_without_a_panic() {
        let root = Tasks::root("test", Blocking::Threads);
        let mut failure = root.failure();
        root.child("log").give_up("owner", "no more room".into());
        let seen = failure.wait_for(Option::is_some).await.unwrap().clone();
        let reason = seen.expect("it was waited for").to_string();
        assert_eq!(reason, "task test/log/owner has ended: no more room");
    }

    #[tokio::test]
    async fn a_restarting_task_comes_back_after_a_panic() {
        let root = Tasks::root("test", Blocking::Threads);
        let (sender, mut runs) = tokio::sync::mpsc::channel(4);
        let mut count = 0;
        root.spawn_restarting("phoenix", Clock::system(), Duration::ZERO, move || {
            count += 1;
            let (sender, run) = (sender.clone(), count);
            async move {
                sender.send(run).await.unwrap();
                assert_eq!(run, 2, "the first run fails");
            }
        });
        assert_eq!((runs.recv().await, runs.recv().await), (Some(1), Some(2)));
        root.ended().await;
        assert!(root.failure().borrow().is_none());
    }

    #[tokio::test]
    async fn blocking_work_gives_its_result_in_every_way() {
        let pace = Pace::new(
            Random::seeded(1),
            Duration::from_millis(1),
            Duration::from_millis(1),
        );
        for blocking in [Blocking::Threads, Blocking::Inline, Blocking::Paced(pace)] {
            let root = Tasks::root("test", blocking);
            assert_eq!(root.blocking("sum", || 2 + 2).await, Ok(4));
            assert!(root.blocking("broken", || panic!("three")).await.is_err());
            assert_eq!(root.child("a").background("sum", || 2 + 3).await, Ok(5));
            assert!(root.background("broken", || panic!("four")).await.is_err());
        }
    }
}
