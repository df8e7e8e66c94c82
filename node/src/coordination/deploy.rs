//! Which coordinators run: compares which partitions of the topic this node leads with what runs here.

use super::topic::{OwnTopic, Unavailable, partition_of};
use crate::controller::Controller;
use crate::metadata::{Delta, Image, Topic, View};
use crate::partition::{Partition, Registry};
use crate::sys::Sys;
use crate::sys::mailbox::{Mailbox, Sender, mailbox};
use crate::sys::task::{Kind, Tasks};
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use headwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long after its end a coordinator is started again, if the partition is still led here.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// How long whoever looks for a coordinator waits at most for one that is about to be there.
const OPENING: Duration = Duration::from_secs(1);
/// Ends on their way to the reconciler.
const ENDS_MAX: usize = 64;

/// What a kind of coordinators is.
pub trait Post: Send + Sync + 'static {
    /// The way to one that runs.
    type Handle: Clone + Send + Sync + 'static;

    /// The topic whose partitions they coordinate.
    const TOPIC: &'static str;

    /// One that coordinates a partition in an epoch; it runs until it is dropped, or cannot go on.
    fn fill(
        &self,
        partition: Partition,
        epoch: LeaderEpoch,
        opened: watch::Sender<u64>,
    ) -> (BoxFuture<'static, ()>, Self::Handle);

    /// Whether it has read what it keeps.
    fn is_open(handle: &Self::Handle) -> bool;

    /// The epoch of the partition in which it coordinates.
    fn epoch(handle: &Self::Handle) -> LeaderEpoch;

    /// Topics were deleted.
    fn topics_removed(&self, _handle: &Self::Handle, _topics: &[Arc<Topic>]) {}
}

/// What the coordinators of a node work with.
#[derive(Clone)]
pub struct Means {
    pub me: NodeId,
    pub topic: OwnTopic,
    pub sys: Sys,
    pub view: View,
    pub controller: Controller,
    pub registry: Registry,
    pub tasks: Tasks,
}

/// The coordinators of one kind that run here.
pub struct Deployment<P: Post> {
    means: Means,
    /// By partition of the topic.
    handles: ArcSwap<BTreeMap<PartitionIndex, P::Handle>>,
    /// Counts coordinators that have read what they keep.
    opened: watch::Sender<u64>,
}

impl<P: Post> Deployment<P> {
    /// Begins to coordinate what this node leads. Ends with the scope of `means.tasks`.
    pub fn start(means: Means, post: P) -> Arc<Self> {
        let deployment = Arc::new(Self {
            means,
            handles: ArcSwap::default(),
            opened: watch::Sender::new(0),
        });
        let reconciler = Reconciler::new(Arc::clone(&deployment), post);
        let tasks = &deployment.means.tasks;
        drop(tasks.spawn("reconcile", Kind::Critical, reconciler.run()));
        deployment
    }

    /// The node that coordinates a key. Makes the topic if there is none yet.
    pub async fn coordinator_of(&self, key: &str) -> Result<NodeId, Unavailable> {
        let Means {
            me,
            topic,
            view,
            controller,
            registry,
            sys,
            ..
        } = &self.means;
        let topic = topic.ensure(view, controller, registry, &sys.clock).await?;
        let index = partition_of(key, topic.partitions.len());
        let leader = topic.partition(index).map_or(NodeId::NONE, |state| state.leader);
        if leader == NodeId::NONE {
            return Err(Unavailable);
        }
        if leader == *me {
            // Whoever is sent here asks at once: a coordinator that is about to be there saves it a refusal and a pause.
            let _ = sys.clock.timeout(OPENING, self.opened(index)).await;
        }
        Ok(leader)
    }

    /// The partition of the topic that a key belongs to. None: there is no such topic yet.
    pub fn partition_of(&self, key: &str) -> Option<PartitionIndex> {
        let topic = self.means.view.topic(P::TOPIC)?;
        Some(partition_of(key, topic.partitions.len()))
    }

    /// The node that leads what a key belongs to, as far as this one knows. None: nobody.
    pub fn leader_of(&self, key: &str) -> Option<NodeId> {
        let topic = self.means.view.topic(P::TOPIC)?;
        let index = partition_of(key, topic.partitions.len());
        let leader = topic.partition(index)?.leader;
        (leader != NodeId::NONE).then_some(leader)
    }

    /// The coordinator of a key, if it runs here.
    pub fn get(&self, key: &str) -> Option<P::Handle> {
        self.handles.load().get(&self.partition_of(key)?).cloned()
    }

    /// Whether the coordinator of a key is that still, by all that was decided before this was asked: one that was cut off does not
    /// hear that another has taken over, and what it remembers may be untrue. No, where the quorum does not answer.
    pub async fn is_in_office(&self, key: &str, handle: &P::Handle) -> bool {
        let Means {
            me, view, controller, ..
        } = &self.means;
        if let Err(error) = controller.up_to_date().await {
            tracing::debug!(%error, topic = P::TOPIC, "a coordinator does not know whether it is that still");
            return false;
        }
        let Some(topic) = view.topic(P::TOPIC) else {
            return false;
        };
        let index = partition_of(key, topic.partitions.len());
        let state = topic.partition(index);
        state.is_some_and(|state| state.leader == *me && state.leader_epoch == P::epoch(handle))
    }

    /// Whether there is no such topic, by all that was decided before this was asked.
    pub async fn is_unused(&self) -> Result<bool, Unavailable> {
        let Means { view, controller, .. } = &self.means;
        controller.up_to_date().await.map_err(|_| Unavailable)?;
        Ok(view.topic(P::TOPIC).is_none())
    }

    /// Ends all coordinators. What they were asked and have not answered is answered by nobody.
    pub async fn stop(&self, patience: Duration) {
        let Means { tasks, sys, .. } = &self.means;
        if let Err(error) = tasks.stop(&sys.clock, patience).await {
            tracing::warn!(%error, topic = P::TOPIC, "coordinators are cut short");
        }
    }

    pub fn all(&self) -> Arc<BTreeMap<PartitionIndex, P::Handle>> {
        self.handles.load_full()
    }

    /// Returns when the coordinator of a partition has read what it keeps.
    async fn opened(&self, index: PartitionIndex) {
        let mut opened = self.opened.subscribe();
        loop {
            opened.borrow_and_update();
            let is_open = self.handles.load().get(&index).is_some_and(P::is_open);
            // The sender lives in this struct, so waiting cannot fail.
            if is_open || opened.changed().await.is_err() {
                return;
            }
        }
    }

    fn show(&self, change: impl FnOnce(&mut BTreeMap<PartitionIndex, P::Handle>)) {
        let mut all = BTreeMap::clone(&self.handles.load());
        change(&mut all);
        self.handles.store(Arc::new(all));
    }
}

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

struct Reconciler<P: Post> {
    deployment: Arc<Deployment<P>>,
    post: P,
    entries: BTreeMap<PartitionIndex, Entry>,
    ends: Mailbox<Reign>,
    report: Sender<Reign>,
    /// What was reconciled last.
    image: Arc<Image>,
}

impl<P: Post> Reconciler<P> {
    fn new(deployment: Arc<Deployment<P>>, post: P) -> Self {
        let (report, ends) = mailbox(ENDS_MAX);
        Self {
            deployment,
            post,
            entries: BTreeMap::new(),
            ends,
            report,
            image: Arc::default(),
        }
    }

    async fn run(mut self) {
        let means = self.deployment.means.clone();
        let cancel = means.tasks.cancelled();
        let mut images = means.view.watch();
        let mut partitions = means.registry.watch();
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
                () = means.sys.clock.sleep_until_some(restart) => {}
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
        let now = self.deployment.means.sys.clock.now();
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
        let Means { me, registry, .. } = &self.deployment.means;
        let topic = image.topic(P::TOPIC).filter(|topic| topic.internal);
        let Some(topic) = topic else {
            return BTreeMap::new();
        };
        let led = topic
            .indexes()
            .zip(&topic.partitions)
            .filter(|(index, state)| state.leader == *me && registry.get_by_id(topic.id, *index).is_some());
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
        let deployment = &self.deployment;
        let Some(partition) = deployment.means.registry.get_by_id(reign.topic, reign.index) else {
            return;
        };
        let scope = deployment.means.tasks.child(&format!("{}", reign.index));
        let (coordinator, handle) = self.post.fill(partition, reign.epoch, deployment.opened.clone());
        let (cancel, report) = (scope.cancelled(), self.report.clone());
        drop(scope.spawn("coordinator", Kind::BestEffort, async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = coordinator => drop(report.send(reign).await),
            }
        }));
        deployment.show(|all| drop(all.insert(reign.index, handle)));
        self.entries.insert(reign.index, Entry::Running { reign, scope });
    }

    fn drop_coordinator(&self, index: PartitionIndex, entry: &Entry) {
        self.deployment.show(|all| drop(all.remove(&index)));
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
        self.deployment.show(|all| drop(all.remove(&reign.index)));
        let until = self.deployment.means.sys.clock.now() + RESTART_PAUSE;
        self.entries.insert(reign.index, Entry::Waiting { reign, until });
    }

    fn next_restart(&self) -> Option<Instant> {
        let waiting = self.entries.values().filter_map(|entry| match entry {
            Entry::Waiting { until, .. } => Some(*until),
            Entry::Running { .. } => None,
        });
        waiting.min()
    }

    fn tell_of_deleted_topics(&self, image: &Arc<Image>) {
        let removed = Delta::between(&self.image, image).topics_removed;
        if removed.is_empty() {
            return;
        }
        for handle in self.deployment.all().values() {
            self.post.topics_removed(handle, &removed);
        }
    }
}
