//! What a partition's handles and its task share: the name, the newest properties, the counters. The task writes,
//! handles read.

use super::admission::Unfolding;
use super::command::Command;
use super::damage::Damages;
use super::followers::ReplicaFetch;
use super::in_sync::InSyncSets;
use super::request::{PartitionName, Watermarks};
use super::transactions::{Aborted, AbortedIndex};
use crate::config::TopicConfig;
use crate::log::{LogReader, Logs};
use crate::metadata::{PartitionState, View};
use crate::sys::budget::Budget;
use crate::sys::clock::Clock;
use crate::sys::mailbox::Sender;
use crate::sys::random::Random;
use crate::sys::task::Tasks;
use crate::telemetry::{Counter, Histogram, Metrics, names};
use arc_swap::ArcSwap;
use headwater_protocol::ids::{
    LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What all partitions of a node work with.
pub(super) struct Means {
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    pub(super) logs: Logs,
    pub(super) unfolding: Unfolding,
    pub(super) metrics: Metrics,
    pub(super) append_seconds: Histogram,
    pub(super) sync_seconds: Histogram,
    pub(super) refused: Counter,
    pub(super) retention_bytes: Counter,
    pub(super) recovery_cut_bytes: Counter,
    pub(super) isr_shrinks: Counter,
    pub(super) isr_expands: Counter,
    pub(super) producer_expiration_ms: AtomicI64,
    /// Who the nodes are, and which of them take part.
    pub(super) view: View,
    pub(super) in_sync_sets: Arc<dyn InSyncSets>,
    pub(super) replica_lag_max: Duration,
    pub(super) random: Random,
    /// Partitions whose log cannot be trusted.
    pub(super) failed: watch::Sender<Failed>,
    /// What is damaged in logs that can be trusted otherwise.
    pub(super) damaged: watch::Sender<Damages>,
    pub(super) damaged_found: Counter,
    pub(super) damaged_repaired: Counter,
}

/// The partitions of this node whose log is broken or cannot be opened.
pub type Failed = BTreeSet<(TopicId, PartitionIndex)>;

/// The last fetch of each replica.
pub(super) type Reports = BTreeMap<NodeId, ReplicaFetch>;

pub(super) struct Shared {
    pub(super) name: PartitionName,
    pub(super) internal: bool,
    pub(super) means: Arc<Means>,
    pub(super) meters: Meters,
    pub(super) mailbox: Sender<Command>,
    /// Bytes that may wait in the mailbox.
    pub(super) room: Budget,
    pub(super) watermarks: watch::Receiver<Watermarks>,
    /// None: the log could not be opened.
    pub(super) reader: Option<LogReader>,
    pub(super) live: ArcSwap<Live>,
    /// How far the replicas have fetched: whoever serves their fetches writes, the task reads.
    pub(super) reports: watch::Sender<Reports>,
    /// How far the leader said it is committed, while this is a follower.
    pub(super) leader_high_watermark: AtomicI64,
    pub(super) disk_full: AtomicBool,
    /// Retention spares what lies behind this offset, as long as the log is not larger than so many bytes.
    pub(super) hold_from: AtomicI64,
    pub(super) hold_bytes_max: AtomicU64,
    pub(super) transactions: Mutex<Shown>,
}

/// What readers and writers have to know of the partition's transactions; the task writes.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) aborted: AbortedIndex,
    /// Those that are open, with the epoch of their last batch.
    pub(super) open: BTreeMap<ProducerId, ProducerEpoch>,
}

/// What may change while the partition lives.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) config: Arc<TopicConfig>,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) is_leader: bool,
    pub(super) leadership: Arc<PartitionState>,
    /// Where the reign of this leader begins.
    pub(super) epoch_start: Offset,
    /// The link that keeps this copy.
    pub(super) mirror: Option<Arc<str>>,
    /// Why nothing can be appended until the next start.
    pub(super) offline: Option<Arc<str>>,
}

/// The counters a partition feeds; those by topic are shared by its partitions.
pub(super) struct Meters {
    bytes_in: Counter,
    records_in: Counter,
    pub(super) bytes_out: Counter,
    append_seconds: Histogram,
    pub(super) refused: Counter,
}

impl Meters {
    pub(super) fn of(topic: &str, means: &Means) -> Self {
        Self {
            bytes_in: means.metrics.counter(&names::TOPIC_BYTES_IN, &[topic]),
            records_in: means.metrics.counter(&names::TOPIC_RECORDS_IN, &[topic]),
            bytes_out: means.metrics.counter(&names::TOPIC_BYTES_OUT, &[topic]),
            append_seconds: means.append_seconds.clone(),
            refused: means.refused.clone(),
        }
    }

    pub(super) fn appended(&self, records: u64, bytes: usize) {
        self.records_in.add(records);
        self.bytes_in.add(bytes as u64);
    }

    pub(super) fn acknowledged(&self, clock: &Clock, admitted_at: Instant) {
        self.append_seconds
            .record(clock.now().duration_since(admitted_at));
    }
}

impl Shared {
    pub(super) fn transactions(&self) -> MutexGuard<'_, Shown> {
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The transactions that were aborted and have records between two offsets.
    pub(super) fn aborted_between(&self, from: Offset, until: Offset) -> Vec<Aborted> {
        self.transactions().aborted.overlapping(from, until)
    }

    /// The log is not trusted any more: somebody else has to lead.
    pub(super) fn note_failed(&self) {
        let key = (self.name.topic_id, self.name.index);
        self.means.failed.send_if_modified(|failed| failed.insert(key));
    }

    pub(super) fn segment_bytes(&self) -> usize {
        usize::try_from(self.live.load().config.segment_bytes).unwrap_or(usize::MAX)
    }

    /// The first offset that retention has to spare.
    pub(super) fn keep_from(&self) -> Offset {
        let size = self.reader.as_ref().map_or(0, LogReader::size_bytes);
        if size > self.hold_bytes_max.load(Ordering::Relaxed) {
            return Offset(i64::MAX);
        }
        Offset(self.hold_from.load(Ordering::Relaxed))
    }
}
