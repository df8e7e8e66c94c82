//! The reconciler of transforms: compares what the metadata says with what runs here, and starts and stops pipelines.
//! It owns which pipelines run. It changes nothing by itself but the topics that transforms need; it never looks
//! for changes, it is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use headwater_protocol::ids::{NodeId, Offset, PartitionIndex};
use tokio::sync::watch;

use super::depot::Depot;
use super::launch::{self, Launch};
use super::logs::LogRing;
use super::lookup::Tables;
use super::modules::Modules;
use super::outside::Outside;
use super::pipeline::End;
use super::plan::{self, Fingerprint, Plan, Rest, RunPlan};
use super::status::{Cells, RunState, TransformStatus};
use crate::controller::change::TopicRef;
use crate::controller::{Change, Controller, NewTopic, ProposeError};
use crate::metadata::{Image, View};
use crate::partition::Registry;
use crate::sys::clock::Clock;
use crate::sys::mailbox::{Mailbox, Sender, mailbox};
use crate::sys::task::{Kind, Tasks};
use crate::telemetry::Metrics;

const RESTART_PAUSE_MIN: Duration = Duration::from_millis(500);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A pipeline that ran this long begins with the shortest pause again.
const RAN_WELL: Duration = Duration::from_secs(60);
/// Ends on their way to the reconciler.
const ENDS_MAX: usize = 64;

/// What the reconciler and everything it starts work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) view: View,
    pub(crate) controller: Controller,
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Tasks,
    pub(crate) clock: Clock,
    pub(crate) node: NodeId,
    pub(crate) modules: Arc<Modules>,
    pub(crate) depot: Arc<Depot>,
    pub(crate) tables: Tables,
    pub(crate) outside: Arc<dyn Outside>,
}

/// What others may see of the transforms on this node.
#[derive(Default)]
pub(crate) struct Board {
    transforms: Mutex<BTreeMap<String, Arc<Posted>>>,
}

/// One transform on the board.
#[derive(Default)]
pub(crate) struct Posted {
    pub(crate) ring: Arc<LogRing>,
    whole: Mutex<Option<RunState>>,
    cells: Mutex<BTreeMap<PartitionIndex, Arc<Cells>>>,
}

impl Board {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Posted>> {
        self.lock().get(name).cloned()
    }

    fn post(&self, name: &str) -> Arc<Posted> {
        Arc::clone(self.lock().entry(name.to_owned()).or_default())
    }

    fn take_down(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Posted>>> {
        self.transforms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Posted {
    pub(crate) fn status(&self) -> TransformStatus {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions = cells.values().map(|cells| cells.status()).collect();
        let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner).clone();
        TransformStatus::of(whole.unwrap_or(RunState::Starting), partitions)
    }

    pub(crate) fn cells(&self) -> Vec<Arc<Cells>> {
        self.cells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(crate) fn cells_at(&self, partition: PartitionIndex) -> Option<Arc<Cells>> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.get(&partition).cloned()
    }

    fn set_whole(&self, state: RunState) {
        *self.whole.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    fn cells_of(&self, metrics: &Metrics, name: &str, partition: PartitionIndex) -> Arc<Cells> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            cells
                .entry(partition)
                .or_insert_with(|| Cells::new(metrics, name, partition)),
        )
    }

    fn keep_only(&self, partitions: &[PartitionIndex]) {
        self.cells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|index, _| partitions.contains(index));
    }
}

type Key = (String, PartitionIndex);

/// One pipeline that runs, ends, waits to be started again, or has stopped for good.
struct Entry {
    fingerprint: Fingerprint,
    phase: Phase,
    cells: Arc<Cells>,
    pause: Duration,
}

enum Phase {
    Running {
        scope: Tasks,
        since: Instant,
    },
    /// It was asked to end, and has not yet.
    Ending,
    Waiting {
        until: Instant,
    },
    /// Until something about it changes.
    Stopped,
}

/// A pipeline has ended.
pub(crate) struct Ended {
    pub(crate) key: Key,
    pub(crate) end: End,
}

pub(crate) struct Reconciler {
    means: Means,
    board: Arc<Board>,
    entries: BTreeMap<Key, Entry>,
    /// Of the modules that were known last.
    digests: BTreeSet<String>,
    ends: Mailbox<Ended>,
    report: Sender<Ended>,
    reconciled: watch::Sender<Offset>,
}

impl Reconciler {
    /// Also gives the offsets of the images it has dealt with.
    pub(crate) fn new(means: Means, board: Arc<Board>) -> (Self, watch::Receiver<Offset>) {
        let (report, ends) = mailbox(ENDS_MAX);
        let (reconciled, watched) = watch::channel(Offset(-1));
        (
            Self {
                means,
                board,
                entries: BTreeMap::new(),
                digests: BTreeSet::new(),
                ends,
                report,
                reconciled,
            },
            watched,
        )
    }

    pub(crate) async fn run(mut self) {
        let cancel = self.means.tasks.cancelled();
        let mut images = self.means.view.watch();
        let mut partitions = self.means.registry.watch();
        loop {
            let image = Arc::clone(&images.borrow_and_update());
            partitions.borrow_and_update();
            self.reconcile(&image).await;
            self.reconciled.send_replace(image.offset);
            let restart = self.next_restart();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                ended = self.ends.recv() => {
                    if let Some(ended) = ended {
                        self.note_end(ended);
                    }
                }
                changed = images.changed() => if changed.is_err() { return },
                changed = partitions.changed() => if changed.is_err() { return },
                () = self.means.clock.sleep_until_some(restart) => {}
            }
        }
    }

    async fn reconcile(&mut self, image: &Arc<Image>) {
        let mut wanted: BTreeMap<Key, Arc<RunPlan>> = BTreeMap::new();
        for (name, transform) in image.transforms.iter() {
            let posted = self.board.post(name);
            match plan::plan(transform, image, self.means.node) {
                Plan::Run(run) => {
                    posted.set_whole(RunState::Running);
                    posted.keep_only(&run.partitions);
                    let run: Arc<RunPlan> = run.into();
                    let keys = run
                        .partitions
                        .iter()
                        .map(|index| ((name.clone(), *index), Arc::clone(&run)));
                    wanted.extend(keys);
                }
                Plan::Rest(rest) => {
                    posted.set_whole(match rest {
                        Rest::Paused => RunState::Paused,
                        Rest::PlacedElsewhere => RunState::Stopped {
                            reason: "it is placed on other nodes".to_owned(),
                        },
                    });
                }
                Plan::Create(topics) => {
                    posted.set_whole(RunState::Starting);
                    self.create(&posted, topics).await;
                }
                Plan::GrowState { topic, count } => {
                    let change = Change::CreatePartitions {
                        topic,
                        count,
                        assignments: Vec::new(),
                        validate_only: false,
                    };
                    self.propose(&posted, change).await;
                }
                Plan::Blocked { reason } => posted.set_whole(RunState::Stopped { reason }),
            }
        }
        self.stop_unwanted(&wanted);
        for (key, run) in wanted {
            self.start(key, run);
        }
        self.tidy(image).await;
        self.forget_modules(image);
    }

    async fn create(&self, posted: &Posted, topics: Vec<NewTopic>) {
        for topic in topics {
            self.propose(posted, Change::CreateTopic(topic)).await;
        }
    }

    /// The next image shows what came of it.
    async fn propose(&self, posted: &Posted, change: Change) {
        match self.means.controller.propose(change).await {
            Ok(_) | Err(ProposeError::TopicExists(_)) => {}
            Err(error) => posted.set_whole(RunState::Stopped {
                reason: error.to_string(),
            }),
        }
    }

    fn stop_unwanted(&mut self, wanted: &BTreeMap<Key, Arc<RunPlan>>) {
        self.entries.retain(|key, entry| {
            let is_wanted = wanted
                .get(key)
                .is_some_and(|run| run.fingerprint() == entry.fingerprint);
            match &entry.phase {
                _ if is_wanted => true,
                Phase::Running { scope, .. } => {
                    scope.cancel();
                    entry.phase = Phase::Ending;
                    true
                }
                // It starts anew, or goes, when it has ended.
                Phase::Ending => true,
                Phase::Waiting { .. } | Phase::Stopped => false,
            }
        });
    }

    fn start(&mut self, key: Key, run: Arc<RunPlan>) {
        let now = self.means.clock.now();
        let pause = match self.entries.get(&key) {
            None => RESTART_PAUSE_MIN,
            Some(Entry {
                phase: Phase::Waiting { until },
                pause,
                ..
            }) if *until <= now => *pause,
            Some(_) => return,
        };
        let (name, partition) = &key;
        let posted = self.board.post(name);
        let cells = posted.cells_of(&self.means.metrics, name, *partition);
        cells.set_state(RunState::Starting);
        let fingerprint = run.fingerprint();
        let scope = self.means.tasks.child(&format!("{name}-{partition}"));
        let launch = Launch {
            means: self.means.clone(),
            run,
            partition: *partition,
            scope: scope.clone(),
            cells: Arc::clone(&cells),
            ring: Arc::clone(&posted.ring),
        };
        let pipeline = scope.spawn("pipeline", Kind::BestEffort, launch::run(launch));
        let (report, ended) = (self.report.clone(), key.clone());
        // It ends with the pipeline it waits for.
        drop(scope.spawn("end", Kind::BestEffort, async move {
            let broke_off = |_| End::Failed {
                reason: "the pipeline broke off".to_owned(),
            };
            let end = pipeline.await.unwrap_or_else(broke_off);
            // If nobody listens any more the node is stopping.
            let _ = report.send(Ended { key: ended, end }).await;
        }));
        let phase = Phase::Running { scope, since: now };
        self.entries.insert(
            key,
            Entry {
                fingerprint,
                phase,
                cells,
                pause,
            },
        );
    }

    fn note_end(&mut self, ended: Ended) {
        let now = self.means.clock.now();
        let Some(entry) = self.entries.get_mut(&ended.key) else {
            return;
        };
        let since = match &entry.phase {
            Phase::Running { since, .. } => *since,
            Phase::Ending | Phase::Waiting { .. } | Phase::Stopped => {
                self.entries.remove(&ended.key);
                return;
            }
        };
        match ended.end {
            End::Cancelled => {
                self.entries.remove(&ended.key);
            }
            End::Stopped { reason } => {
                tracing::warn!(transform = ended.key.0, partition = %ended.key.1, reason, "transform stopped");
                entry
                    .cells
                    .set_error(reason.clone(), self.means.clock.unix_ms(), None);
                entry.cells.set_state(RunState::Stopped { reason });
                entry.phase = Phase::Stopped;
            }
            End::Failed { reason } => {
                tracing::warn!(transform = ended.key.0, partition = %ended.key.1, reason, "transform is started again");
                entry
                    .cells
                    .set_error(reason.clone(), self.means.clock.unix_ms(), None);
                entry.cells.set_state(RunState::Retrying { reason });
                let ran_well = now.duration_since(since) >= RAN_WELL;
                let pause = if ran_well { RESTART_PAUSE_MIN } else { entry.pause };
                entry.phase = Phase::Waiting { until: now + pause };
                entry.pause = (pause * 2).min(RESTART_PAUSE_MAX);
            }
        }
    }

    fn next_restart(&self) -> Option<Instant> {
        let waiting = self.entries.values().filter_map(|entry| match entry.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Running { .. } | Phase::Ending | Phase::Stopped => None,
        });
        waiting.min()
    }

    /// Takes away the files of modules that are known no more.
    fn forget_modules(&mut self, image: &Image) {
        let known: BTreeSet<String> = image.modules.values().map(|it| it.digest.clone()).collect();
        for digest in std::mem::replace(&mut self.digests, known) {
            if self.digests.contains(&digest) {
                continue;
            }
            let modules = Arc::clone(&self.means.modules);
            let forget = async move {
                let forgotten = modules.blocking(move |modules| modules.forget(&digest)).await;
                if let Err(error) = forgotten.and_then(|done| Ok(done?)) {
                    tracing::warn!(%error, "the files of a removed module could not be taken away");
                }
            };
            // It ends by itself.
            drop(self.means.tasks.spawn("forget-module", Kind::BestEffort, forget));
        }
    }

    /// Takes down what is no more: transforms that were removed, and their changelogs.
    async fn tidy(&self, image: &Image) {
        let is_gone = |name: &str| {
            !image.transforms.contains_key(name) && !self.entries.keys().any(|(running, _)| running == name)
        };
        let posted: Vec<_> = self
            .board
            .lock()
            .keys()
            .filter(|name| is_gone(name))
            .cloned()
            .collect();
        posted.iter().for_each(|name| self.board.take_down(name));
        let states = image
            .topics
            .iter()
            .filter(|(name, topic)| topic.internal && plan::owner_of_state(name).is_some_and(is_gone));
        for (name, topic) in states {
            let change = Change::DeleteTopic {
                topic: TopicRef::Id(topic.id),
            };
            if let Err(error) = self.means.controller.propose(change).await {
                tracing::warn!(topic = %name, %error, "the state of a removed transform could not be deleted");
            }
        }
    }
}
