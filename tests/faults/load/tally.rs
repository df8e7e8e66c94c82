//! What the load has done so far, for the timeline and for whoever waits for an acknowledgement.
//!
//! It owns counters that clients add to. It judges nothing: that is the checker's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::history::now;

/// Counters of all clients, and of each partition its last acknowledgement.
#[derive(Debug)]
pub(crate) struct Tally {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    read: AtomicU64,
    partitions: Vec<Partition>,
    silences: Mutex<Vec<Arc<Silence>>>,
    /// Errors that clients were shown and lived through, by their words.
    errors: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug)]
struct Partition {
    latest: watch::Sender<Latest>,
}

/// How long one producer heard nothing of what it sent to one partition, in microseconds. Another client may have been
/// told of the end of a node long before.
#[derive(Debug)]
pub(crate) struct Silence {
    latest: AtomicU64,
    /// Since this was last asked.
    longest: AtomicU64,
    is_over: AtomicBool,
}

impl Silence {
    pub(crate) fn acknowledge(&self, at: u64) {
        let before = self.latest.fetch_max(at, Ordering::Relaxed);
        self.longest
            .fetch_max(at.saturating_sub(before), Ordering::Relaxed);
    }

    /// Nothing is sent any more.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> u64 {
        let longest = self.longest.swap(0, Ordering::Relaxed);
        if self.is_over.load(Ordering::Relaxed) {
            return longest;
        }
        longest.max(now().saturating_sub(self.latest.load(Ordering::Relaxed)))
    }
}

/// The last record acknowledged, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latest {
    pub(crate) invoked: u64,
    pub(crate) acknowledged: u64,
}

impl Tally {
    pub(crate) fn new(partitions: u32) -> Self {
        let now = now();
        let partition = |_| Partition {
            latest: watch::Sender::new(Latest {
                invoked: 0,
                acknowledged: now,
            }),
        };
        Self {
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            read: AtomicU64::new(0),
            partitions: (0..partitions).map(partition).collect(),
            silences: Mutex::default(),
            errors: Mutex::new(BTreeMap::new()),
        }
    }

    pub(crate) fn acknowledge(&self, partition: u32, invoked: u64, at: u64) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let Some(partition) = self.partitions.get(partition as usize) else {
            return;
        };
        partition.latest.send_modify(|latest| {
            latest.acknowledged = latest.acknowledged.max(at);
            latest.invoked = latest.invoked.max(invoked);
        });
    }

    /// Acknowledgements that another process has counted.
    pub(crate) fn add_acknowledged(&self, count: u64) {
        self.acknowledged.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn add_read(&self, count: u64) {
        self.read.fetch_add(count, Ordering::Relaxed);
    }

    /// A record ended without an acknowledgement.
    pub(crate) fn refuse(&self, why: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.error(why);
    }

    pub(crate) fn error(&self, why: &str) {
        // Numbers make every error another one; without them there are few.
        let plain: String = why.chars().filter(|c| !c.is_ascii_digit()).take(160).collect();
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < 100 || errors.contains_key(&plain) {
            *errors.entry(plain).or_insert(0) += 1;
        }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For one producer and partition.
    pub(crate) fn silence(&self) -> Arc<Silence> {
        let silence = Arc::new(Silence {
            latest: AtomicU64::new(now()),
            longest: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        silences.push(Arc::clone(&silence));
        silence
    }

    /// The longest time any producer of ours was without an acknowledgement of any partition since this was last asked, in
    /// microseconds.
    pub(crate) fn take_silence(&self) -> u64 {
        let silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        silences.iter().map(|silence| silence.take()).max().unwrap_or(0)
    }

    /// Waits until a record of this partition that was sent at or after this time is acknowledged.
    pub(crate) async fn acknowledged_since(&self, partition: u32, time: u64) -> Latest {
        let mut latest = self.partitions[partition as usize].latest.subscribe();
        let seen = latest.wait_for(|latest| latest.invoked >= time).await;
        *seen.expect("the sender lives as long as the tally")
    }

    /// The same for every partition.
    pub(crate) async fn all_acknowledged_since(&self, time: u64) {
        for partition in 0..self.partitions.len() {
            self.acknowledged_since(partition as u32, time).await;
        }
    }
}
