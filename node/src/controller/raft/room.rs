//! Waiting for room on a full disk. openraft takes any refusal of its storage for the end of this node's part in the
//! quorum; a full disk is none. While a node waits it neither leads nor votes, as one that stands still, and goes on by
//! itself when space returns.
//!
//! It must never wait for anything but room: after another failure the disk is not trusted.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::sys::clock::Clock;
use crate::sys::task::Tasks;

/// How soon a write that met a full disk is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Clones wait for the same disk.
#[derive(Debug, Clone)]
pub(super) struct Room {
    clock: Clock,
    cancel: CancellationToken,
    is_full: Arc<AtomicBool>,
}

impl Room {
    pub(super) fn new(clock: Clock, tasks: &Tasks) -> Self {
        Self {
            clock,
            cancel: tasks.cancelled(),
            is_full: Arc::default(),
        }
    }

    /// Makes an attempt again and again while `is_full` says that room is all it lacks. Once the node stops, nobody waits.
    pub(super) async fn find<T, E, F>(
        &self,
        is_full: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        loop {
            let done = attempt().await;
            let lacks_room = done.as_ref().err().is_some_and(&is_full);
            if lacks_room && self.wait().await {
                continue;
            }
            if done.is_ok() {
                self.found();
            }
            return done;
        }
    }

    /// Returns when it is time to try again; false: the node stops.
    async fn wait(&self) -> bool {
        if !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::error!("disk full, this node's part in the quorum waits");
        }
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => false,
            () = self.clock.sleep(RETRY) => true,
        }
    }

    /// Something was written.
    fn found(&self) {
        if self.is_full.swap(false, Ordering::Relaxed) {
            tracing::info!("there is room again, this node takes part in the quorum");
        }
    }
}
