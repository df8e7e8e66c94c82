//! The reconciler of coordinators: compares which partitions of the offsets topic this node leads with what runs here.
//! It owns which coordinators run. It never looks into a group.

use super::Shared;
use super::coordinator::{Coordinator, Handle, Means, Meters};
use crate::metadata::topic::OFFSETS_TOPIC;
use crate::metadata::{Delta, Image};
use crate::sys::mailbox::{Mailbox, Sender, mailbox};
use crate::sys::task::{Kind, Tasks};
use crate::telemetry::Metrics;
use headwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after its end a coordinator is started again, if the partition is still led here.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// Ends on their way to the reconciler.
const ENDS_MAX: usize = 64;

/// One reign over one partition: a coordinator lives as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reign {
    topic: TopicId,
    index: PartitionIndex,
    epoch: LeaderEpoch,
}

enum Entry {
    Running {
        reign: Reign,
        scope: Tasks,
    },
    /// It ended by itself: it could not read or write.
    Waiting {
        reign: Reign,
        until: Instant,
    },
}

impl Entry {
    fn reign(&self) -> Reign {
        match self {
            Self::Running { reign, .. } | Self::Waiting { reign, .. } => *reign,
        }
    }
}

pub(super) struct Reconciler {
    me: NodeId,
    shared: Arc<Shared>,
    meters: Meters,
    entries: BTreeMap<PartitionIndex, Entry>,
    ends: Mailbox<Reign>,
    report: Sender<Reign>,
    /// What was reconciled last.
    image: Arc<Image>,
}

impl Reconciler {
    pub(super) fn new(me: NodeId, shared: Arc<Shared>, metrics: &Metrics) -> Self {
        let (report, ends) = mailbox(ENDS_MAX);
        Self {
            me,
            shared,
            meters: Meters::new(metrics),
            entries: BTreeMap::new(),
            ends,
            report,
            image: Arc::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let cancel = shared.tasks.cancelled();
        let mut images = shared.view.watch();
        let mut partitions = shared.registry.watch();
        loop {
            let image = Arc::clone(&images.borrow_and_update());
            partitions.borrow_and_update();
            self.reconcile(&image);
            let restart = self.next_restart();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                ended = self.ends.recv() => {
                    if let Some(reign) = ended {
                        self.note_end(reign);
                    }
                }
                changed = images.changed() => if changed.is_err() { return },
                changed = partitions.changed() => if changed.is_err() { return },
                () = shared.sys.clock.sleep_until_some(restart) => {}
            }
        }
    }

    fn reconcile(&mut self, image: &Arc<Image>) {
        let wanted = self.wanted(image);
        let entries = std::mem::take(&mut self.entries);
        for (index, entry) in entries {
            if wanted.get(&index) == Some(&entry.reign()) {
                self.entries.insert(index, entry);
            } else {
                self.drop_coordinator(index, &entry);
            }
        }
        let now = self.shared.sys.clock.now();
        for (index, reign) in wanted {
            let may_start = match self.entries.get(&index) {
                None => true,
                Some(Entry::Waiting { until, .. }) => *until <= now,
                Some(Entry::Running { .. }) => false,
            };
            if may_start {
                self.start(reign);
            }
        }
        self.tell_of_deleted_topics(image);
        self.image = Arc::clone(image);
    }

    /// What this node leads and has open.
    fn wanted(&self, image: &Image) -> BTreeMap<PartitionIndex, Reign> {
        let topic = image.topic(OFFSETS_TOPIC).filter(|topic| topic.internal);
        let Some(topic) = topic else {
            return BTreeMap::new();
        };
        let led = topic.indexes().zip(&topic.partitions).filter(|(index, state)| {
            state.leader == self.me && self.shared.registry.get_by_id(topic.id, *index).is_some()
        });
        let reign = |(index, state): (PartitionIndex, &crate::metadata::PartitionState)| {
            let reign = Reign {
                topic: topic.id,
                index,
                epoch: state.leader_epoch,
            };
            (index, reign)
        };
        led.map(reign).collect()
    }

    fn start(&mut self, reign: Reign) {
        let shared = &self.shared;
        let Some(partition) = shared.registry.get_by_id(reign.topic, reign.index) else {
            return;
        };
        let scope = shared.tasks.child(&format!("{}", reign.index));
        let means = Means {
            sys: shared.sys.clone(),
            view: shared.view.clone(),
            meters: self.meters.clone(),
            opened: shared.opened.clone(),
        };
        let (coordinator, handle) = Coordinator::new(partition, reign.epoch, &shared.config, means);
        let (cancel, report) = (scope.cancelled(), self.report.clone());
        drop(scope.spawn("coordinator", Kind::BestEffort, async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = coordinator.run() => drop(report.send(reign).await),
            }
        }));
        self.show(|all| drop(all.insert(reign.index, handle)));
        self.entries.insert(reign.index, Entry::Running { reign, scope });
    }

    fn drop_coordinator(&self, index: PartitionIndex, entry: &Entry) {
        self.show(|all| drop(all.remove(&index)));
        if let Entry::Running { scope, .. } = entry {
            scope.cancel();
        }
    }

    fn note_end(&mut self, reign: Reign) {
        let is_running =
            matches!(self.entries.get(&reign.index), Some(Entry::Running { reign: it, .. }) if *it == reign);
        if !is_running {
            return;
        }
        self.show(|all| drop(all.remove(&reign.index)));
        let until = self.shared.sys.clock.now() + RESTART_PAUSE;
        self.entries.insert(reign.index, Entry::Waiting { reign, until });
    }

    fn show(&self, change: impl FnOnce(&mut BTreeMap<PartitionIndex, Handle>)) {
        let mut all = BTreeMap::clone(&self.shared.coordinators.load());
        change(&mut all);
        self.shared.coordinators.store(Arc::new(all));
    }

    fn next_restart(&self) -> Option<Instant> {
        let waiting = self.entries.values().filter_map(|entry| match entry {
            Entry::Waiting { until, .. } => Some(*until),
            Entry::Running { .. } => None,
        });
        waiting.min()
    }

    /// What was committed of a topic that is gone is of no use.
    fn tell_of_deleted_topics(&self, image: &Arc<Image>) {
        let removed = Delta::between(&self.image, image).topics_removed;
        if removed.is_empty() {
            return;
        }
        let names = removed.iter().map(|topic| topic.name.clone()).collect();
        for handle in self.shared.coordinators.load().values() {
            handle.forget_topics(&names);
        }
    }
}
