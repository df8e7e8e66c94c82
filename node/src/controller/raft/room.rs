//! Waiting for room on a full disk. openraft takes any refusal of its storage for the end of this node's part in the
//! quorum; a full disk is none. While a node waits it neither leads nor votes, as one that stands still, and goes on by
//! itself when space returns.
//!
//! It must never wait for anything but room: after another failure the disk is not trusted.

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

    /// Returns when it is time to try again; false: the node stops, and nobody waits any longer.
    pub(super) async fn wait(&self) -> bool {
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
    pub(super) fn found(&self) {
        if self.is_full.swap(false, Ordering::Relaxed) {
            tracing::info!("there is room again, this node takes part in the quorum");
        }
    }
}
