//! Which partitions are on this node. It follows the metadata: what the image says is opened, reconfigured or
//! dropped by one task (`reconcile`).
//!
//! Owns the folder of topics and the node's only timer of its own. It must never delete what the metadata did not
//! say is deleted.

mod cleaner;
mod folders;
mod gauges;
mod reconcile;
mod scrub;

use super::Partition;
use super::admission::Unfolding;
use super::command::Command;
use super::damage::Damages;
use super::in_sync::InSyncSets;
use super::shared::{Failed, Means};
use crate::config::BrokerConfig;
use crate::log::Logs;
use crate::metadata::View;
use crate::sys::Sys;
use crate::sys::task::{Kind, Tasks};
use crate::telemetry::{Health, Metrics, names};
use arc_swap::ArcSwap;
use cleaner::Cleaner;
use futures_util::{StreamExt, stream};
use headwater_protocol::ids::{NodeId, Offset, PartitionIndex, TopicId};
use reconcile::Reconciler;
use scrub::Scrubber;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Memory that keeps the newest batches of all partitions for their readers.
const TAIL_BYTES: usize = 32 << 20;
/// Room that records leave on the disk: epochs, checkpoints and the cluster's metadata are written when records are
/// refused already, and at the next start.
const SPARE_BYTES: u64 = 8 << 20;
/// Compressed batches that are unfolded at the same time.
const UNFOLDING_AT_ONCE: usize = 2;

/// Logs that are synced and closed at the same time.
const CLOSING_AT_ONCE: usize = 16;

/// The partitions of this node, by topic name and by topic id. Cheap to clone.
///
/// - It follows the metadata: a partition is here soon after the image says so (`reconciled`).
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    index: ArcSwap<Index>,
    /// The metadata offset up to which the index is true.
    reconciled: watch::Receiver<Offset>,
    tasks: Tasks,
    sys: Sys,
    logs: Logs,
    me: NodeId,
    failed: watch::Receiver<Failed>,
    damaged: watch::Receiver<Damages>,
    /// Whose logs somebody wants scrubbed now.
    to_scrub: watch::Sender<BTreeSet<(TopicId, PartitionIndex)>>,
}

/// What a registry works with.
pub struct Options {
    pub me: NodeId,
    pub broker: BrokerConfig,
    pub maintenance_interval_ms: i64,
    pub view: View,
    pub sys: Sys,
    pub health: Health,
    pub metrics: Metrics,
    /// Who decides about in-sync sets.
    pub in_sync_sets: Arc<dyn InSyncSets>,
    /// How long a replica may lack something before it is not in sync any more.
    pub replica_lag_max: Duration,
}

/// The partitions of one topic by index; those without a replica here are absent.
type Topic = BTreeMap<PartitionIndex, Partition>;

#[derive(Default, Clone)]
struct Index {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: BTreeMap<TopicId, Arc<Topic>>,
}

impl Index {
    /// As it is, without some partitions of a topic.
    fn without(&self, topic: &crate::metadata::Topic, gone: &[(PartitionIndex, Partition)]) -> Self {
        let mut index = self.clone();
        if let Some(known) = index.by_id.get(&topic.id) {
            let mut kept = Topic::clone(known);
            kept.retain(|at, _| gone.iter().all(|(index, _)| index != at));
            let kept = Arc::new(kept);
            index.by_name.insert(Arc::clone(&topic.name), Arc::clone(&kept));
            index.by_id.insert(topic.id, kept);
        }
        index
    }
}

impl Registry {
    /// Starts following the metadata. The partitions of the present image are opened first: `reconciled` tells when.
    pub fn start(options: Options) -> Self {
        let tasks = options.sys.tasks.child("partitions");
        let means = Arc::new(means(&options, &tasks));
        let (sender, reconciled) = watch::channel(Offset(-1));
        let shared = Arc::new(Shared {
            index: ArcSwap::from_pointee(Index::default()),
            reconciled,
            tasks: tasks.clone(),
            sys: options.sys.clone(),
            logs: means.logs.clone(),
            me: options.me,
            failed: means.failed.subscribe(),
            damaged: means.damaged.subscribe(),
            to_scrub: watch::Sender::default(),
        });
        let registry = Self { shared };
        registry.describe(&options.metrics);
        let scrubber = Scrubber::new(registry.clone(), &options, tasks.clone());
        drop(tasks.spawn("scrub", Kind::Critical, scrubber.run()));
        let cleaner = Cleaner::new(registry.clone(), &options, tasks.clone());
        drop(tasks.spawn("cleaner", Kind::Critical, cleaner.run()));
        let reconciler = Reconciler::new(registry.clone(), options, means, tasks.clone(), sender);
        drop(tasks.spawn("registry", Kind::Critical, reconciler.run()));
        registry
    }

    /// Whose partitions these are.
    pub fn me(&self) -> NodeId {
        self.shared.me
    }

    /// The partition, if it is on this node.
    pub fn get(&self, topic: &str, index: PartitionIndex) -> Option<Partition> {
        self.shared.index.load().by_name.get(topic)?.get(&index).cloned()
    }

    pub fn get_by_id(&self, topic: TopicId, index: PartitionIndex) -> Option<Partition> {
        self.shared.index.load().by_id.get(&topic)?.get(&index).cloned()
    }

    /// All partitions, by topic name and index.
    pub fn list(&self) -> Vec<Partition> {
        self.shared
            .index
            .load()
            .by_name
            .values()
            .flat_map(|topic| topic.values().cloned())
            .collect()
    }

    /// Returns when the partitions on this node are those of the image at `offset` (what `propose` answers with).
    pub async fn reconciled(&self, offset: Offset) {
        // The reconciler's end is the node's end: whoever waits is being stopped as well.
        let _ = self
            .shared
            .reconciled
            .clone()
            .wait_for(|reached| *reached >= offset)
            .await;
    }

    /// The partitions whose log is broken or cannot be opened, and every change of that: who leads one of them here has to
    /// hand it over. One that could be opened anew is not among them any more.
    pub fn failed(&self) -> watch::Receiver<Failed> {
        self.shared.failed.clone()
    }

    /// What is damaged in the logs of this node, and every change of that.
    pub fn damaged(&self) -> watch::Receiver<Damages> {
        self.shared.damaged.clone()
    }

    /// Has the logs of these partitions scrubbed now, one after the other, whenever they were last.
    pub fn scrub(&self, partitions: &[Partition]) {
        self.shared.to_scrub.send_modify(|wanted| {
            let names = partitions.iter().map(Partition::name);
            wanted.extend(names.map(|name| (name.topic_id, name.index)));
        });
    }

    /// Whether nobody's log waits to be scrubbed, nor is being scrubbed because it was asked for.
    pub fn is_scrubbed(&self) -> bool {
        self.shared.to_scrub.borrow().is_empty()
    }

    /// Returns once nobody's log waits to be scrubbed, nor is being scrubbed because it was asked for.
    pub async fn scrubbed(&self) {
        let mut waiting = self.shared.to_scrub.subscribe();
        // The sender is here.
        let _ = waiting.wait_for(BTreeSet::is_empty).await;
    }

    /// Follows the offsets up to which this node is reconciled: changes whenever partitions may have come or gone.
    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.shared.reconciled.clone()
    }

    /// Syncs and closes every partition, for `patience` at most; handles answer `Stopped` afterwards. Returns how
    /// many partitions could not be synced.
    pub async fn stop(&self, patience: Duration) -> usize {
        let partitions = self.list();
        let closing = stream::iter(&partitions)
            .map(Partition::close)
            .buffer_unordered(CLOSING_AT_ONCE);
        let synced = closing.filter(|is_synced| std::future::ready(*is_synced)).count();
        let synced = self.shared.sys.clock.timeout(patience, synced).await.unwrap_or(0);
        let unsynced = partitions.len() - synced;
        self.shared.tasks.cancel();
        unsynced
    }
}

impl Partition {
    /// Whether everything is on disk now, and the log closed.
    async fn close(&self) -> bool {
        let (reply, closed) = oneshot::channel();
        let sent = self.shared.mailbox.send(Command::Close { reply }).await;
        sent.is_ok() && closed.await.unwrap_or(false)
    }
}

fn means(options: &Options, tasks: &Tasks) -> Means {
    let metrics = &options.metrics;
    Means {
        clock: options.sys.clock.clone(),
        tasks: tasks.clone(),
        logs: Logs::new(&options.sys, TAIL_BYTES).sparing(SPARE_BYTES),
        unfolding: Unfolding::new(tasks.clone(), UNFOLDING_AT_ONCE),
        metrics: metrics.clone(),
        append_seconds: metrics.histogram(&names::APPEND_SECONDS, &[]),
        sync_seconds: metrics.histogram(&names::SYNC_SECONDS, &[]),
        refused: metrics.counter(&names::APPEND_REFUSED, &[]),
        retention_bytes: metrics.counter(&names::RETENTION_BYTES, &[]),
        recovery_cut_bytes: metrics.counter(&names::RECOVERY_TRUNCATED_BYTES, &[]),
        isr_shrinks: metrics.counter(&names::ISR_SHRINKS, &[]),
        isr_expands: metrics.counter(&names::ISR_EXPANDS, &[]),
        producer_expiration_ms: AtomicI64::new(options.broker.producer_expiration_ms()),
        view: options.view.clone(),
        in_sync_sets: Arc::clone(&options.in_sync_sets),
        replica_lag_max: options.replica_lag_max,
        random: options.sys.random.fork(),
        failed: watch::Sender::default(),
        damaged: watch::Sender::default(),
        damaged_found: metrics.counter(&names::LOG_DAMAGED, &[]),
        damaged_repaired: metrics.counter(&names::LOG_REPAIRED, &[]),
    }
}
