//! The task that makes the partitions on this node those of the metadata, and looks after them now and then.
//!
//! Owns every partition's scope. One image is reconciled wholly before the next is looked at; images in between may be
//! skipped, since only the newest counts.

use super::super::command::Configure;
use super::super::open::{Ready, Wanted, open};
use super::super::request::PartitionName;
use super::super::shared::Means;
use super::{Command, Index, Options, Partition, Registry, folders};
use crate::config::{BrokerConfig, TopicConfig};
use crate::metadata::{Delta, Image, PartitionState, Topic};
use crate::sys::mailbox::SendError;
use crate::sys::task::{Kind, Tasks};
use crate::telemetry::health::State;
use futures_util::StreamExt;
use futures_util::stream;
use headwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Logs that are opened at the same time: enough to keep the disk busy.
const OPENING_AT_ONCE: usize = 8;
/// Folders that are deleted at the same time.
const DELETING_AT_ONCE: usize = 8;
/// How soon a log that could not be opened is tried again.
const RETRY_OPENING: Duration = Duration::from_secs(10);

pub(super) struct Reconciler {
    registry: Registry,
    options: Options,
    means: Arc<Means>,
    tasks: Tasks,
    reconciled: watch::Sender<Offset>,
    /// What was reconciled last.
    image: Arc<Image>,
    running: BTreeMap<(TopicId, PartitionIndex), Partition>,
}

impl Reconciler {
    pub(super) fn new(
        registry: Registry,
        options: Options,
        means: Arc<Means>,
        tasks: Tasks,
        reconciled: watch::Sender<Offset>,
    ) -> Self {
        let image = Arc::new(Image::default());
        Self {
            registry,
            options,
            means,
            tasks,
            reconciled,
            image,
            running: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let cancel = self.tasks.cancelled();
        let mut images = self.options.view.watch();
        // Before the first record nothing is known, and nothing is missing either.
        let known = images.wait_for(|image| image.offset >= Offset::ZERO);
        let known = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            known = known => known.is_ok(),
        };
        if !known {
            return;
        }
        let first = images.borrow_and_update().clone();
        self.prepare(Arc::clone(&first)).await;
        self.reconcile(first).await;
        let interval = u64::try_from(self.options.maintenance_interval_ms).unwrap_or(u64::MAX);
        let interval = Duration::from_millis(interval.clamp(100, 86_400_000));
        let clock = self.options.sys.clock.clone();
        let mut next_round = clock.now() + self.until_next_round(interval);
        let (mut failed, mut damaged) = (self.means.failed.subscribe(), self.means.damaged.subscribe());
        let review_every = (self.options.replica_lag_max / 2).max(Duration::from_millis(1));
        let mut next_review = clock.now() + review_every;
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = images.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let image = images.borrow_and_update().clone();
                    self.reconcile(image).await;
                    next_round = next_round.min(clock.now() + self.until_next_round(interval));
                }
                // The senders are this task's own.
                _ = failed.changed() => self.report_health(),
                _ = damaged.changed() => self.report_health(),
                () = clock.sleep_until(next_round) => {
                    self.look_after().await;
                    next_round = clock.now() + self.until_next_round(interval);
                }
                () = clock.sleep_until(next_review), if self.leads_with_others() => {
                    self.review();
                    next_review = clock.now() + review_every;
                }
            }
        }
    }

    async fn prepare(&self, image: Arc<Image>) {
        let (disk, me) = (Arc::clone(&self.options.sys.disk), self.options.me);
        let prepared = self
            .tasks
            .blocking("folders", move || folders::prepare(disk.as_ref(), &image, me))
            .await;
        if let Ok(Err(error)) = prepared {
            tracing::error!(%error, "folder of topics cannot be prepared");
        }
    }

    /// Makes the partitions those of `image`.
    async fn reconcile(&mut self, image: Arc<Image>) {
        let delta = Delta::between(&self.image, &image);
        let broker = self
            .options
            .broker
            .with_cluster(Arc::clone(&image.broker_configs));
        self.means
            .producer_expiration_ms
            .store(broker.producer_expiration_ms(), Ordering::Relaxed);
        for topic in &delta.topics_removed {
            self.drop_topic(topic).await;
        }
        for topic in &delta.topics_changed {
            self.drop_moved(topic).await;
        }
        let mut wanted = Vec::new();
        if delta.broker_configs {
            for topic in image.topics.values() {
                wanted.extend(self.change_topic(topic, None, &broker).await);
            }
        } else {
            for topic in &delta.topics_changed {
                let before = self.image.topic_by_id(topic.id).map(Arc::as_ref);
                wanted.extend(self.change_topic(topic, before, &broker).await);
            }
        }
        self.open(wanted).await;
        if !delta.topics_removed.is_empty() || !delta.topics_changed.is_empty() {
            self.show(&image);
        }
        if !Arc::ptr_eq(&self.image.nodes, &image.nodes) {
            // Who may be in sync may have changed.
            self.review();
        }
        let offset = image.offset;
        self.image = image;
        self.report_health();
        self.reconciled.send_replace(offset);
    }

    /// Reconfigures the partitions that run, as far as they are not as they were `before`, and tells which are to be opened.
    async fn change_topic(
        &self,
        topic: &Topic,
        before: Option<&Topic>,
        broker: &BrokerConfig,
    ) -> Vec<Wanted> {
        let before = before.filter(|before| before.configs == topic.configs && before.mirror == topic.mirror);
        let config = Arc::new(TopicConfig::resolve(&topic.configs, broker));
        let mirror = topic.mirror.as_ref().map(|mirror| mirror.link.clone());
        let mut wanted = Vec::new();
        for (index, leadership) in topic.indexes().zip(&topic.partitions) {
            if !leadership.replicas.contains(&self.options.me) {
                continue;
            }
            match self.running.get(&(topic.id, index)) {
                Some(_) if before.and_then(|before| before.partition(index)) == Some(leadership) => {}
                Some(partition) => partition.configure(&config, leadership, mirror.clone()).await,
                None => wanted.push(Wanted {
                    me: self.options.me,
                    name: PartitionName {
                        topic_id: topic.id,
                        topic: Arc::clone(&topic.name),
                        index,
                    },
                    internal: topic.internal,
                    mirror: mirror.clone(),
                    leadership: leadership.clone(),
                    config: Arc::clone(&config),
                }),
            }
        }
        wanted
    }

    /// Opens partitions, several at a time, and starts their tasks.
    async fn open(&mut self, wanted: Vec<Wanted>) {
        if wanted.is_empty() {
            return;
        }
        let opening = stream::iter(wanted).map(|wanted| {
            let means = Arc::clone(&self.means);
            let name = wanted.name.clone();
            let opened = self.tasks.blocking("open", move || {
                let folder = folders::path(wanted.name.topic_id, wanted.name.index);
                open(wanted, &folder, means)
            });
            async move { (name, opened.await) }
        });
        let mut opening = opening.buffer_unordered(OPENING_AT_ONCE);
        let mut opened = Vec::new();
        while let Some((name, ready)) = opening.next().await {
            match ready {
                Ok(ready) => opened.push((name, ready)),
                // The panic was logged where it happened.
                Err(_) => tracing::error!(partition = %name, "partition was not opened"),
            }
        }
        drop(opening);
        for (name, Ready { partition, actor }) in opened {
            if let Some((actor, mailbox)) = actor {
                let cancel = self.tasks.cancelled();
                let task_name = name.to_string();
                drop(
                    self.tasks
                        .spawn(&task_name, Kind::BestEffort, actor.run(mailbox, cancel)),
                );
            }
            self.running.insert((name.topic_id, name.index), partition);
        }
    }

    async fn drop_topic(&mut self, topic: &Topic) {
        self.hide(topic);
        let dropped = topic
            .indexes()
            .filter_map(|index| Some((index, self.running.remove(&(topic.id, index))?)))
            .collect();
        self.delete(topic, dropped).await;
    }

    /// Drops the replicas that the metadata has taken away from this node.
    async fn drop_moved(&mut self, topic: &Topic) {
        let me = self.options.me;
        let is_here = |state: &PartitionState| state.replicas.contains(&me);
        let moved = topic.indexes().zip(&topic.partitions);
        let moved: Vec<_> = moved
            .filter(|(_, state)| !is_here(state))
            .filter_map(|(index, _)| Some((index, self.running.remove(&(topic.id, index))?)))
            .collect();
        if moved.is_empty() {
            return;
        }
        for (_, partition) in &moved {
            tracing::info!(partition = %partition.name(), "this node does not hold the partition any more");
        }
        self.registry
            .shared
            .index
            .rcu(|index| index.without(topic, &moved));
        self.delete(topic, moved).await;
    }

    async fn delete(&self, topic: &Topic, dropped: Vec<(PartitionIndex, Partition)>) {
        self.means.failed.send_if_modified(|failed| {
            let gone = |index: &PartitionIndex| failed.contains(&(topic.id, *index));
            let gone: Vec<_> = dropped.iter().map(|(index, _)| *index).filter(gone).collect();
            for index in &gone {
                failed.remove(&(topic.id, *index));
            }
            !gone.is_empty()
        });
        self.means.damaged.send_if_modified(|damaged| {
            let before = damaged.len();
            damaged.retain(|(id, index), _| *id != topic.id || dropped.iter().all(|(gone, _)| gone != index));
            damaged.len() != before
        });
        let deleting = stream::iter(dropped).map(|(index, partition)| {
            let (disk, folder) = (Arc::clone(&self.options.sys.disk), folders::path(topic.id, index));
            let tasks = self.tasks.clone();
            async move {
                // Whether it could still be synced does not matter any more.
                let _ = partition.close().await;
                let deleted = tasks
                    .blocking("delete", move || folders::delete(disk.as_ref(), &folder))
                    .await;
                if let Ok(Err(error)) = deleted {
                    tracing::warn!(partition = %partition.name(), %error, "folder not deleted");
                }
            }
        });
        deleting.buffer_unordered(DELETING_AT_ONCE).collect::<()>().await;
    }

    /// Takes a topic out of the index before its partitions end.
    fn hide(&self, topic: &Topic) {
        let mut index = Index::clone(&self.registry.shared.index.load());
        if index.by_id.remove(&topic.id).is_some() {
            index.by_name.remove(&topic.name);
            self.registry.shared.index.store(Arc::new(index));
        }
    }

    /// Shows everybody what runs.
    fn show(&self, image: &Image) {
        let mut index = Index::default();
        for topic in image.topics.values() {
            let key = |index| (topic.id, index);
            let partitions: BTreeMap<_, _> = topic
                .indexes()
                .filter_map(|index| Some((index, self.running.get(&key(index))?.clone())))
                .collect();
            let partitions = Arc::new(partitions);
            index
                .by_name
                .insert(Arc::clone(&topic.name), Arc::clone(&partitions));
            index.by_id.insert(topic.id, partitions);
        }
        self.registry.shared.index.store(Arc::new(index));
    }

    fn report_health(&self) {
        let offline = self
            .running
            .values()
            .filter(|partition| partition.offline().is_some())
            .count();
        let damaged = self.means.damaged.borrow().len();
        let state = match (offline, damaged) {
            (0, 0) => State::Ready,
            (0, _) => State::Degraded(format!("{damaged} partitions are damaged")),
            (_, 0) => State::Degraded(format!("{offline} partitions are offline")),
            _ => State::Degraded(format!("{offline} partitions are offline, {damaged} are damaged")),
        };
        self.options.health.set("partitions", state);
    }

    /// Whether a partition is led here that others hold as well.
    fn leads_with_others(&self) -> bool {
        let mut led = self.running.values().filter(|partition| partition.is_leader());
        led.any(|partition| partition.leadership().replicas.len() > 1)
    }

    /// Has every such partition look at its in-sync set.
    fn review(&self) {
        for partition in self.running.values() {
            if partition.is_leader() && partition.leadership().replicas.len() > 1 {
                // One that is busy enough to have a full mailbox looks in the next round.
                let _ = partition.shared.mailbox.try_send(Command::Review);
            }
        }
    }

    /// Soon, when something is to be tried again.
    fn until_next_round(&self, interval: Duration) -> Duration {
        let must_retry = self.running.values().any(Partition::has_no_log);
        if must_retry {
            interval.min(RETRY_OPENING)
        } else {
            interval
        }
    }

    /// One round of looking after every partition.
    async fn look_after(&mut self) {
        for partition in self.running.values() {
            match partition.shared.mailbox.try_send(Command::Maintain) {
                // One that is busy enough to have a full mailbox is looked after in the next round.
                Ok(()) | Err(SendError::Full(_) | SendError::Closed(_)) => {}
            }
        }
        self.open_again().await;
        self.report_health();
    }

    /// Tries the logs again that could not be opened: the cause may be gone, for instance a full disk.
    async fn open_again(&mut self) {
        let failed = self
            .running
            .iter()
            .filter(|(_, partition)| partition.has_no_log());
        let failed: Vec<_> = failed.map(|(key, _)| *key).collect();
        if failed.is_empty() {
            return;
        }
        let image = Arc::clone(&self.image);
        let broker = self
            .options
            .broker
            .with_cluster(Arc::clone(&image.broker_configs));
        for key in &failed {
            self.running.remove(key);
        }
        // Those that cannot be opened again say so again.
        self.means.failed.send_if_modified(|known| {
            let before = known.len();
            for key in &failed {
                known.remove(key);
            }
            known.len() != before
        });
        let topics: BTreeSet<TopicId> = failed.into_iter().map(|(topic, _)| topic).collect();
        let mut wanted = Vec::new();
        for topic in topics.into_iter().filter_map(|id| image.topic_by_id(id)) {
            wanted.extend(self.change_topic(topic, Some(topic), &broker).await);
        }
        self.open(wanted).await;
        self.show(&image);
        // Whoever copies for them holds the handles of before.
        self.reconciled.send_replace(image.offset);
    }
}

impl Partition {
    /// Its log could not be opened.
    fn has_no_log(&self) -> bool {
        self.shared.reader.is_none()
    }

    async fn configure(
        &self,
        config: &Arc<TopicConfig>,
        leadership: &PartitionState,
        mirror: Option<String>,
    ) {
        let command = Command::Configure(Box::new(Configure {
            config: Arc::clone(config),
            leadership: leadership.clone(),
            mirror,
        }));
        // A partition that is offline has no task that could take it.
        let _ = self.shared.mailbox.send(command).await;
    }
}
