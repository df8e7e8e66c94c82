//! What clients do to the cluster: they make topics, produce and consume, each in a task of its own.
//!
//! Owns the switches by which the run tells them to end. They tell the oracle everything they try and see.

pub(crate) mod admin;
pub(crate) mod consume;
pub(crate) mod produce;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Switches and counters that a run and its clients share.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Topics are there: the others may begin.
    pub(crate) ready: AtomicBool,
    pub(crate) stop_producing: AtomicBool,
    pub(crate) stop_consuming: AtomicBool,
    /// Clients that have not ended.
    pub(crate) producing: AtomicU64,
    pub(crate) consuming: AtomicU64,
    /// Answers that were an error or none, for the summary.
    pub(crate) retries: AtomicU64,
}

impl Control {
    pub(crate) fn is_set(switch: &AtomicBool) -> bool {
        switch.load(Ordering::Relaxed)
    }

    pub(crate) fn set(switch: &AtomicBool) {
        switch.store(true, Ordering::Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts one client among those that have not ended, as long as it is held.
pub(crate) struct Alive(Arc<Control>, fn(&Control) -> &AtomicU64);

impl Alive {
    pub(crate) fn new(control: &Arc<Control>, counter: fn(&Control) -> &AtomicU64) -> Self {
        counter(control).fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(control), counter)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}
