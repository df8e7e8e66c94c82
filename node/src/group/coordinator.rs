//! The coordinator of one partition of the offsets topic, for one reign of this node over it: reads the groups back, works
//! requests off one by one, writes, and answers when what it wrote is on all in-sync replicas.
//!
//! It owns the state of its groups. What ends it is losing the partition, or not knowing any more what the log holds: then
//! everybody who waits is told to look for the coordinator again, and the next one reads the log anew.

mod letters;

pub(super) use letters::{Handle, Letter};

use super::error::AppendRefused;
use super::request::{Assignor, InTransaction};
use super::state::{CallId, Effect, Now, Settings, State, WriteId};
use super::store::{GroupRecord, Replay, Restored};
use crate::config::GroupConfig;
use crate::coordination::{Log, Unread, each_record};
use crate::metadata::View;
use crate::partition::producers::end_of;
use crate::partition::{AppendError, Partition, Pending, Watermarks};
use crate::sys::Sys;
use crate::sys::mailbox::{Mailbox, mailbox};
use crate::telemetry::{Counter, Metrics, names};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{BatchView, Error as RecordError};
use letters::{Reply, Status};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Requests that wait for a coordinator; those who send more wait.
const LETTERS_MAX: usize = 256;
/// Writes on their way; while there are as many nothing new is begun.
const WRITES_MAX: usize = 1024;

/// The counters that all coordinators of a node feed.
#[derive(Clone)]
pub(super) struct Meters {
    commits: Counter,
    loads: Counter,
    rewrites: Counter,
    rebalances: Counter,
}

impl Meters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            commits: metrics.counter(&names::GROUP_COMMITS, &[]),
            loads: metrics.counter(&names::GROUP_LOADS, &[]),
            rewrites: metrics.counter(&names::GROUP_REWRITES, &[]),
            rebalances: metrics.counter(&names::CONSUMER_GROUP_REBALANCES, &[]),
        }
    }
}

/// What all coordinators of a node work with.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) sys: Sys,
    pub(super) view: View,
    pub(super) meters: Meters,
    /// Counted up by each that has read its groups.
    pub(super) opened: watch::Sender<u64>,
}

/// Why a coordinator ends before its reign does.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Read(#[from] Unread),
    #[error("what the log holds is not known any more: {0}")]
    Write(AppendError),
    #[error("the partition is not led here in this epoch")]
    NotLeader,
}

/// What has come to its end in the log.
enum Written {
    Records {
        write: WriteId,
        /// Where they lie.
        result: Result<Offset, AppendError>,
        transaction: Option<InTransaction>,
    },
    /// All that is alive, once more; from where on.
    Everything(Result<Offset, AppendError>),
}

pub(super) struct Coordinator {
    log: Log,
    epoch: LeaderEpoch,
    sys: Sys,
    view: View,
    meters: Meters,
    status: Arc<Status>,
    letters: Mailbox<Letter>,
    state: State,
    /// Who waits for an answer.
    waiting: BTreeMap<CallId, Reply>,
    next_call: u64,
    /// How many rebalances have been counted.
    rebalances: u64,
    writes: FuturesOrdered<BoxFuture<'static, Written>>,
    watermarks: watch::Receiver<Watermarks>,
    /// Up to where markers have been looked for, while any is waited for.
    read_to: Offset,
    /// The log is to be written anew as soon as nothing is on its way.
    is_rewrite_due: bool,
    /// The size from which on it is written anew; none while it must not be.
    rewrite_from: Option<u64>,
}

impl Coordinator {
    pub(super) fn new(
        partition: Partition,
        epoch: LeaderEpoch,
        config: &GroupConfig,
        means: Means,
    ) -> (Self, Handle) {
        let Means {
            sys,
            view,
            meters,
            opened,
        } = means;
        let (sender, letters) = mailbox(LETTERS_MAX);
        let status = Arc::new(Status::new(opened));
        let coordinator = Self {
            watermarks: partition.watermarks(),
            read_to: Offset::ZERO,
            log: Log::new(partition, epoch),
            epoch,
            sys,
            view,
            meters,
            status: Arc::clone(&status),
            letters,
            state: State::new(settings(config)),
            waiting: BTreeMap::new(),
            next_call: 0,
            rebalances: 0,
            writes: FuturesOrdered::new(),
            is_rewrite_due: false,
            rewrite_from: Some(0),
        };
        (coordinator, Handle::new(epoch, sender, status))
    }

    /// Returns when the reign is over, or when the log has to be read anew. May be dropped at any await.
    pub(super) async fn run(mut self) {
        let partition = self.log.name();
        if let Err(lost) = self.load().await {
            tracing::warn!(%partition, epoch = %self.epoch, reason = %lost, "groups could not be read");
            return;
        }
        let Err(lost) = self.serve().await else { return };
        tracing::warn!(%partition, epoch = %self.epoch, reason = %lost, "groups will be read anew");
    }

    /// Reads the groups back. What this node's log holds is committed sooner or later; nothing is answered before.
    async fn load(&mut self) -> Result<(), Lost> {
        let began = self.sys.clock.now();
        let mut replay = Replay::default();
        self.read_to = self
            .log
            .read(|batch, from| replay_batch(batch, from, &mut replay))
            .await?;
        let Restored {
            groups,
            pending,
            unknown,
        } = replay.finish();
        if unknown > 0 {
            let partition = self.log.name();
            tracing::warn!(%partition, unknown, "records are not understood, and kept: a newer version wrote them");
            self.rewrite_from = None;
        }
        let count = groups.len();
        self.state.see(self.view.image());
        self.state.restore(groups, self.now());
        self.state.restore_pending(pending, self.now());
        let image = self.view.image();
        self.state.forget_topics(|topic| image.topic(topic).is_some());
        self.meters.loads.increment();
        self.show_groups();
        self.status.open();
        let took_ms = self.sys.clock.now().duration_since(began).as_millis();
        tracing::debug!(partition = %self.log.name(), epoch = %self.epoch, groups = count, took_ms, "groups are read");
        Ok(())
    }

    /// Ends well when nobody can ask any more.
    async fn serve(&mut self) -> Result<(), Lost> {
        loop {
            self.carry_out().await?;
            let may_begin = !self.is_rewrite_due && self.writes.len() < WRITES_MAX;
            let deadline = self.state.next_deadline().filter(|_| may_begin);
            let clock = self.sys.clock.clone();
            let has_pending = self.state.has_pending();
            tokio::select! {
                biased;
                changed = self.watermarks.changed(), if has_pending => match changed {
                    Ok(()) => {
                        let until = self.watermarks.borrow_and_update().high_watermark;
                        self.read_markers(until).await?;
                    }
                    Err(_) => return Err(Lost::NotLeader),
                },
                Some(written) = self.writes.next(), if !self.writes.is_empty() => self.note(written).await?,
                letter = self.letters.recv(), if may_begin => match letter {
                    Some(letter) => {
                        self.state.see(self.view.image());
                        self.handle(letter);
                    }
                    None => return Ok(()),
                },
                () = clock.sleep_until_some(deadline) => {
                    let now = self.now();
                    self.state.see(self.view.image());
                    self.state.tick(now);
                }
            }
            let is_settled = self.state.is_settled() && !self.state.has_pending();
            if self.is_rewrite_due && self.writes.is_empty() && is_settled {
                self.rewrite().await;
            }
        }
    }

    /// Does what the state wants done.
    async fn carry_out(&mut self) -> Result<(), Lost> {
        for effect in self.state.take_effects() {
            match effect {
                Effect::Answer { call, answer } => {
                    if let Some(reply) = self.waiting.remove(&call) {
                        reply.give(answer);
                    }
                }
                Effect::Write {
                    write,
                    records,
                    transaction,
                } => {
                    let now_ms = self.sys.clock.unix_ms();
                    let appended = match transaction {
                        None => self.log.append(&records, now_ms).await,
                        Some(transaction) => self.append_in(transaction, &records, now_ms).await,
                    };
                    // A refusal keeps its place: the state hears of writes in their order.
                    self.writes.push_back(Box::pin(async move {
                        let result = match appended {
                            Ok(pending) => pending.await.map(|done| done.base_offset),
                            Err(error) => Err(error),
                        };
                        Written::Records {
                            write,
                            result,
                            transaction,
                        }
                    }));
                }
            }
        }
        let rebalances = self.state.rebalances();
        self.meters.rebalances.add(rebalances - self.rebalances);
        self.rebalances = rebalances;
        self.show_groups();
        Ok(())
    }

    /// Queues commits as part of a transaction. They have one batch: none of them counts without the others.
    async fn append_in(
        &mut self,
        transaction: InTransaction,
        records: &[GroupRecord],
        now_ms: i64,
    ) -> Result<Pending, AppendError> {
        let InTransaction {
            producer,
            epoch,
            verified,
        } = transaction;
        self.log
            .append_in(producer, epoch, verified, records, now_ms)
            .await
    }

    /// Commits of a transaction lie at `at`. Markers in front of them end what came before; one behind them may have been met
    /// already, when they were not known yet.
    async fn note_commits(&mut self, write: WriteId, at: Offset) -> Result<(), Lost> {
        if self.state.has_pending() {
            self.read_markers(at).await?;
        }
        self.state.appended(write, Ok(at), self.now());
        self.read_to = at;
        let until = self.watermarks.borrow_and_update().high_watermark;
        self.read_markers(until).await
    }

    /// Looks for markers in what has been committed since it was looked at last, up to an offset.
    async fn read_markers(&mut self, until: Offset) -> Result<(), Lost> {
        if until <= self.read_to {
            return Ok(());
        }
        let mut ended = Vec::new();
        let mark = |batch: &BatchView, _| {
            if let Some(end) = end_of(batch) {
                ended.push((batch.header().producer_id, end.kind, batch.base_offset()));
            }
            Ok(())
        };
        self.log.read_between(self.read_to, until, mark).await?;
        self.read_to = until;
        for (producer, kind, marker) in ended {
            self.state.transaction_ended(producer, kind, marker);
        }
        Ok(())
    }

    async fn note(&mut self, written: Written) -> Result<(), Lost> {
        match written {
            Written::Records {
                write,
                result,
                transaction,
            } => {
                let result = match result {
                    Ok(at) => Ok(at),
                    Err(error) => Err(judge(error)?),
                };
                match (result, transaction) {
                    (Ok(at), Some(_)) => self.note_commits(write, at).await?,
                    (Ok(_), None) | (Err(_), _) => self.state.appended(write, result, self.now()),
                }
                self.look_at_size();
            }
            Written::Everything(Ok(from)) => {
                self.log.forget(from).await;
                self.meters.rewrites.increment();
                self.rest_from_rewriting();
            }
            Written::Everything(Err(error)) => {
                // Some of it may be in the log: the same again, which changes nothing.
                tracing::warn!(partition = %self.log.name(), %error, "the offsets could not be written anew");
            }
        }
        Ok(())
    }

    /// The log is mostly history once it is several times as large as what is alive. A segment goes as a whole only.
    fn look_at_size(&mut self) {
        let live = u64::try_from(self.state.live_bytes()).unwrap_or(u64::MAX);
        let size = self.log.size_bytes();
        let limit = live
            .saturating_mul(4)
            .saturating_add(2 * self.log.segment_bytes());
        self.is_rewrite_due = self.rewrite_from.is_some_and(|from| size > limit.max(from));
    }

    /// Writes everything that is alive once more, so that what lies before it can go. A cleaner would do the same for
    /// `cleanup.policy=compact`.
    async fn rewrite(&mut self) {
        self.is_rewrite_due = false;
        self.rest_from_rewriting();
        let now_ms = self.sys.clock.unix_ms();
        let appended = self.log.append_all(self.state.snapshot(), now_ms).await;
        if appended.is_empty() {
            // Nothing is on its way and nothing is alive: all of it is history.
            let end = self.log.committed_end();
            self.log.forget(end).await;
            self.rest_from_rewriting();
            return;
        }
        self.writes.push_back(Box::pin(async move {
            let mut from = None;
            for pending in appended {
                let done = match pending {
                    Ok(pending) => pending.await,
                    Err(error) => Err(error),
                };
                match done {
                    Ok(done) => {
                        from.get_or_insert(done.base_offset);
                    }
                    Err(error) => return Written::Everything(Err(error)),
                }
            }
            Written::Everything(from.ok_or(AppendError::Stopped))
        }));
    }

    /// The next time is when another segment is full, whatever came of this one.
    fn rest_from_rewriting(&mut self) {
        self.rewrite_from = Some(self.log.size_bytes() + self.log.segment_bytes());
    }

    fn show_groups(&self) {
        let (consumers, sharers) = (self.state.consumer_group_count(), self.state.share_group_count());
        self.status
            .show_groups(self.state.group_count(), consumers, sharers);
    }

    fn call(&mut self, reply: Reply) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.waiting.insert(call, reply);
        call
    }

    fn now(&self) -> Now {
        Now {
            at: self.sys.clock.now(),
            unix_ms: self.sys.clock.unix_ms(),
        }
    }
}

fn replay_batch(batch: &BatchView, from: Offset, replay: &mut Replay) -> Result<(), RecordError> {
    let header = *batch.header();
    if let Some(end) = end_of(batch) {
        replay.ended(header.producer_id, end.kind);
        return Ok(());
    }
    each_record(batch, from, |key, value| match header.is_transactional() {
        true => replay.record_in((header.producer_id, header.base_offset), key, value),
        false => replay.record(key, value),
    })
}

/// Whether nothing was appended for certain; everything else the log alone can tell.
fn judge(error: AppendError) -> Result<AppendRefused, Lost> {
    match error {
        AppendError::NotEnoughReplicas { .. } | AppendError::DiskFull => Ok(AppendRefused::NotNow),
        AppendError::TooLarge { .. } => Ok(AppendRefused::TooLarge),
        AppendError::InvalidProducerEpoch { .. } | AppendError::InvalidTransaction(_) => {
            Ok(AppendRefused::Fenced)
        }
        AppendError::NotLeader | AppendError::Epoch(_) => Err(Lost::NotLeader),
        AppendError::Corrupt { .. }
        | AppendError::UnsupportedFormat { .. }
        | AppendError::OutOfOrderSequence { .. }
        | AppendError::InvalidTimestamp { .. }
        | AppendError::InvalidRecord { .. }
        | AppendError::UnsupportedCompression { .. }
        | AppendError::CoordinatorFenced { .. }
        | AppendError::ReadOnlyMirror { .. }
        | AppendError::Internal
        | AppendError::NotContiguous { .. }
        | AppendError::Offline { .. }
        | AppendError::Unread { .. }
        | AppendError::Stopped
        | AppendError::Unacknowledged(_) => Err(Lost::Write(error)),
    }
}

fn settings(config: &GroupConfig) -> Settings {
    Settings {
        session_timeout_min: config.session_timeout_min,
        session_timeout_max: config.session_timeout_max,
        initial_delay: config.initial_delay,
        size_max: config.size_max,
        metadata_bytes_max: config.metadata_bytes_max,
        retention: config.retention,
        retention_check: config.retention_check,
        consumer_session_timeout: config.consumer_session_timeout,
        heartbeat_interval: config.heartbeat_interval,
        consumer_size_max: config.consumer_size_max,
        share_session_timeout: config.share_session_timeout,
        share_heartbeat_interval: config.share_heartbeat_interval,
        share_size_max: config.share_size_max,
        assignors: config
            .assignors
            .iter()
            .filter_map(|name| Assignor::of(name))
            .collect(),
    }
}
