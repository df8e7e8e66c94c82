//! Keeps the copies that this end is to hold: their topics, and one fetcher for each of their partitions.
//!
//! A reconciler: the wanted copies come in whole, whatever is missing is made, whatever is no longer wanted stops. It
//! owns the fetchers of one connection. It never deletes a topic: a copy that nobody asks for any more stays readable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::{PartitionIndex, TopicId};
use tokio::sync::watch;

use super::Shared;
use super::board::{Board, FlowKey, Side};
use super::control::FlowState;
use super::fetcher::{self, Fetcher};
use super::mapping::{WantedCopy, successor_name};
use super::session::Verifier;
use crate::controller::{Change, NewTopic, ProposeError};
use crate::metadata::{GapPolicy, MirrorSource, Topic};
use crate::sys::task::{Kind, Tasks};
use crate::transport::Session;

/// How soon a copy that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Why a copy cannot be kept now.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(
        "topic {name:?} exists here already and is no copy of this link's: rename it, or give the flow a prefix"
    )]
    Taken { name: String },
    #[error("the copy cannot be made: {0}")]
    Refused(#[from] ProposeError),
    #[error("the copy has {here} partitions, its source {there}")]
    TooManyPartitions { here: usize, there: i32 },
}

/// The reconciler of one connection.
pub(super) struct Copies {
    pub(super) shared: Arc<Shared>,
    pub(super) scope: Tasks,
    pub(super) board: Arc<Board>,
    pub(super) session: Session,
    pub(super) verifier: Verifier,
    pub(super) link: String,
    pub(super) site: String,
}

/// A fetcher that runs, and of what.
struct Running {
    scope: Tasks,
    copy: String,
    source: TopicId,
}

impl Copies {
    /// Runs until its scope ends. Every fetcher ends with it.
    pub(super) async fn run(self, mut wanted: watch::Receiver<Vec<WantedCopy>>) {
        let cancelled = self.scope.cancelled();
        let mut running = BTreeMap::new();
        loop {
            let target = wanted.borrow_and_update().clone();
            let complete = self.reconcile(&target, &mut running).await;
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                changed = wanted.changed() => if changed.is_err() { return },
                () = self.shared.sys.clock.sleep(RETRY), if !complete => {}
            }
        }
    }

    /// Makes what runs what is wanted; answers whether all of it is.
    async fn reconcile(&self, target: &[WantedCopy], running: &mut BTreeMap<FlowKey, Running>) -> bool {
        let named = |key: &FlowKey| {
            target
                .iter()
                .any(|copy| copy.source.name == key.topic && key.partition < copy.source.partitions)
        };
        running.retain(|key, fetcher| {
            let keep = named(key);
            if !keep {
                fetcher.scope.cancel();
            }
            keep
        });
        self.board.retain(|key| key.side != Side::Received || named(key));
        let mut complete = true;
        for copy in target {
            match self.ensure_topic(copy).await {
                Ok(topic) => complete &= self.ensure_fetchers(copy, &topic, running),
                Err(reason) => {
                    complete = false;
                    self.note(copy, &reason);
                }
            }
        }
        complete
    }

    fn note(&self, copy: &WantedCopy, reason: &CopyError) {
        for partition in 0..copy.source.partitions {
            let key = FlowKey {
                side: Side::Received,
                topic: copy.source.name.clone(),
                partition,
            };
            self.board.cell(&key, &copy.name).update(|progress| {
                progress.state = FlowState::Waiting;
                progress.detail = Some(reason.to_string());
            });
        }
        tracing::warn!(link = %self.link, topic = %copy.source.name, copy = %copy.name, %reason, "copy is not kept");
    }

    /// The topic that holds the copy, as wide as its source.
    async fn ensure_topic(&self, copy: &WantedCopy) -> Result<Arc<Topic>, CopyError> {
        let topic = match self.existing(copy)? {
            Ok(topic) => topic,
            Err(name) => self.create(copy, name).await?,
        };
        let here = topic.partitions.len();
        let there = copy.source.partitions;
        match usize::try_from(there) {
            Ok(count) if here < count => self.widen(&topic, there).await,
            Ok(count) if here == count => Ok(topic),
            _ => Err(CopyError::TooManyPartitions { here, there }),
        }
    }

    /// The topic that is the copy already, or the name under which it is to be made.
    fn existing(&self, copy: &WantedCopy) -> Result<Result<Arc<Topic>, String>, CopyError> {
        let mut name = copy.name.clone();
        loop {
            let Some(topic) = self.shared.view.topic(&name) else {
                return Ok(Err(name));
            };
            let Some(mirror) = topic.mirror.as_ref().filter(|mirror| {
                mirror.link == self.link && mirror.site == self.site && mirror.topic == copy.source.name
            }) else {
                return Err(CopyError::Taken { name });
            };
            let successor = successor_name(&copy.name, copy.source.id);
            let replaced = mirror.topic_id != copy.source.id && copy.on_gap == GapPolicy::MarkGap;
            if !replaced || name == successor {
                // Under the policy to hold, a copy of another log is kept as it is, and its fetcher says so.
                return Ok(Ok(topic));
            }
            name = successor;
        }
    }

    async fn create(&self, copy: &WantedCopy, name: String) -> Result<Arc<Topic>, CopyError> {
        let mirror = MirrorSource {
            link: self.link.clone(),
            site: self.site.clone(),
            topic: copy.source.name.clone(),
            topic_id: copy.source.id,
        };
        let new = NewTopic {
            partitions: copy.source.partitions,
            configs: copy.source.configs.clone(),
            mirror: Some(mirror),
            ..NewTopic::named(name.clone())
        };
        self.propose(Change::CreateTopic(new), &name).await
    }

    async fn widen(&self, topic: &Topic, count: i32) -> Result<Arc<Topic>, CopyError> {
        let change = Change::CreatePartitions {
            topic: topic.name.to_string(),
            count,
            assignments: Vec::new(),
            validate_only: false,
        };
        self.propose(change, &topic.name).await
    }

    async fn propose(&self, change: Change, name: &str) -> Result<Arc<Topic>, CopyError> {
        let applied = self.shared.controller.propose(change).await?;
        self.shared.registry.reconciled(applied.offset).await;
        self.shared.view.topic(name).ok_or_else(|| CopyError::Taken {
            name: name.to_owned(),
        })
    }

    /// Starts what does not run yet; answers whether every partition could be found.
    fn ensure_fetchers(
        &self,
        copy: &WantedCopy,
        topic: &Topic,
        running: &mut BTreeMap<FlowKey, Running>,
    ) -> bool {
        let mut complete = true;
        for partition in 0..copy.source.partitions {
            let key = FlowKey {
                side: Side::Received,
                topic: copy.source.name.clone(),
                partition,
            };
            if let Some(fetcher) = running.get(&key) {
                if *fetcher.copy == *topic.name && fetcher.source == copy.source.id {
                    continue;
                }
                fetcher.scope.cancel();
            }
            let Some(here) = self.shared.registry.get(&topic.name, PartitionIndex(partition)) else {
                complete = false;
                continue;
            };
            let scope = self.scope.child(&format!("{}-{partition}", copy.source.name));
            let cell = self.board.cell(&key, &topic.name);
            cell.update(|progress| progress.copy = topic.name.to_string());
            let fetcher = Fetcher {
                sys: self.shared.sys.clone(),
                settings: self.shared.settings.clone(),
                session: self.session.clone(),
                verifier: self.verifier.clone(),
                board: Arc::clone(&self.board),
                cell,
                copy: here,
                begun_from: topic
                    .mirror
                    .as_ref()
                    .map_or(copy.source.id, |mirror| mirror.topic_id),
                source: copy.source.clone(),
                on_gap: copy.on_gap,
            };
            scope.spawn(
                "fetch",
                Kind::BestEffort,
                fetcher::run(fetcher, scope.cancelled()),
            );
            running.insert(
                key,
                Running {
                    scope,
                    copy: topic.name.to_string(),
                    source: copy.source.id,
                },
            );
        }
        complete
    }
}
