//! What clients do to the cluster: they make topics, produce, consume and administer, each in a task of its own.
//!
//! Owns the switches by which the run tells them to end. They tell the oracle everything they try and see.

pub(crate) mod admin;
pub(crate) mod consume;
pub(crate) mod keep;
pub(crate) mod member;
pub(crate) mod operate;
pub(crate) mod produce;
pub(crate) mod retire;
pub(crate) mod transact;
pub(crate) mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::retire::Stage;

/// Switches and counters that a run and its clients share.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Topics are there: the others may begin.
    pub(crate) ready: AtomicBool,
    /// Everything is healed: clients are left alone, too.
    pub(crate) calm: AtomicBool,
    pub(crate) stop_producing: AtomicBool,
    pub(crate) stop_consuming: AtomicBool,
    /// Clients that have not ended.
    pub(crate) producing: AtomicU64,
    pub(crate) consuming: AtomicU64,
    pub(crate) transacting: AtomicU64,
    pub(crate) operating: AtomicU64,
    pub(crate) stop_operating: AtomicBool,
    /// The upgrade is so far that no node goes back.
    pub(crate) may_finalize: AtomicBool,
    pub(crate) finalized: AtomicBool,
    /// The lowest feature level of any node.
    pub(crate) lowest_level: AtomicI16,
    /// Answers that were an error or none, for the summary.
    pub(crate) retries: AtomicU64,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// The one node that is taken out of the cluster.
    stage: Mutex<Stage>,
    /// Nodes that a request to unregister them may reach at any time: it was not answered, or is not yet.
    farewells: Mutex<BTreeSet<i32>>,
    /// Nodes that have started and not ended.
    running: Mutex<BTreeSet<i32>>,
}

impl Control {
    pub(crate) fn is_set(switch: &AtomicBool) -> bool {
        switch.load(Ordering::Relaxed)
    }

    pub(crate) fn set(switch: &AtomicBool) {
        switch.store(true, Ordering::Relaxed);
    }

    /// Returns when all topics are made.
    pub(crate) async fn until_ready(&self) {
        while !Self::is_set(&self.ready) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    pub(crate) fn note_farewell(&self, node: i32) {
        let mut farewells = self.farewells.lock().unwrap_or_else(PoisonError::into_inner);
        farewells.insert(node);
    }

    pub(crate) fn has_farewell_under_way(&self, node: i32) -> bool {
        let farewells = self.farewells.lock().unwrap_or_else(PoisonError::into_inner);
        farewells.contains(&node)
    }

    pub(crate) fn set_running(&self, nodes: impl Iterator<Item = i32>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = nodes.collect();
    }

    pub(crate) fn is_running(&self, node: i32) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.contains(&node)
    }

    /// For the summary.
    pub(crate) fn count(&self, what: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
