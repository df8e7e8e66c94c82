//! The one task that owns a partition: it takes what waits in the mailbox, judges it, appends it in one write, asks
//! for a sync, and answers whoever the watermark has passed.
//!
//! Owns the log, the state and the producers. Between two awaits it only runs synchronous methods, so that nothing
//! is ever half done. It must never wait for the device in its own thread.

mod append;
mod check;
mod follow;
mod grounds;
mod role;
mod upkeep;

use super::command::{Command, FollowReply, Waiter};
use super::error::{AppendError, ReplicaError, TicketError};
use super::in_sync::{InSyncRefused, Proposing};
use super::producers::Producers;
use super::request::Watermarks;
use super::shared::{Live, Reports, Shared};
use super::state::State;
use super::waiters::Waiters;
use crate::log::{self, Log, Synced};
use crate::metadata::PartitionState;
use crate::sys::clock::Clock;
use crate::sys::mailbox::Mailbox;
use check::{Check, outcome_of};
pub(super) use grounds::Grounds;
use headwater_protocol::ids::Offset;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a crash leaves to be replayed for the producers' sake.
const SNAPSHOT_EVERY_BYTES: u64 = 32 << 20;
/// How far a topic that caches writes may run ahead of the disk.
const CACHED_BYTES_MAX: u64 = 256 << 20;
/// How often the watermark of a partition with replicas is written down while it moves.
const STORE_WATERMARK_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    /// Absent only while it is with a blocking thread, or lost to one that died.
    pub(super) log: Option<Log>,
    pub(super) synced: watch::Receiver<Synced>,
    pub(super) state: State,
    pub(super) producers: Producers,
    pub(super) watermarks: watch::Sender<Watermarks>,
    /// Who waits for the watermark.
    pub(super) waiters: Waiters<Waiter>,
    /// Who waits until this replica has on disk what it took over.
    pub(super) following: Waiters<FollowReply>,
    pub(super) reports: watch::Receiver<Reports>,
    /// What was asked of the controller and has no answer yet.
    pub(super) proposal: Option<Proposing>,
    /// A full disk has kept the reign from beginning: when that is tried again. Nobody is led meanwhile.
    pub(super) reign_due: Option<Instant>,
    /// Nothing is proposed before.
    pub(super) quiet_until: Option<Instant>,
    /// When the watermark was written down, and which.
    pub(super) stored: Option<(Instant, Offset)>,
    /// Bytes appended since the last snapshot of the producers, and since the last sync was asked for.
    pub(super) unsaved_bytes: u64,
    pub(super) unsynced_bytes: u64,
    pub(super) snapshot_at: Offset,
    /// Since when a sync is under way.
    pub(super) sync_asked_at: Option<Instant>,
    /// What is known of the producers is of this.
    pub(super) grounds: Grounds,
    /// Reads what headers alone were believed of, while somebody waits for that.
    pub(super) check: Option<Check>,
    /// Others were told of transactions that are open.
    pub(super) has_shown_open: bool,
}

/// Whether the task goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    End,
}

impl Actor {
    /// Serves until `cancel` fires, or the partition is closed or removed.
    pub(super) async fn run(mut self, mut mailbox: Mailbox<Command>, cancel: CancellationToken) {
        if self.state.watermarks().synced < self.state.watermarks().log_end {
            self.flush();
        }
        self.begin_check();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                changed = self.synced.changed() => match changed {
                    Ok(()) => self.on_synced(),
                    // The log is gone, with whoever was to bring it back.
                    Err(_) => break,
                },
                Ok(()) = self.reports.changed() => self.on_reports(),
                outcome = answer_to(&mut self.proposal) => self.on_proposed(outcome),
                outcome = outcome_of(&mut self.check) => self.on_checked(outcome).await,
                () = reached(self.reign_due, &self.shared.means.clock) => self.resume_reign().await,
                command = mailbox.recv() => {
                    let Some(command) = command else { break };
                    if self.serve(command, &mut mailbox).await == Next::End {
                        break;
                    }
                }
            }
        }
        self.fail_waiters(&TicketError::Stopped);
        self.following.drain().for_each(drop);
    }

    /// Serves one command, and all appends that wait behind it.
    async fn serve(&mut self, command: Command, mailbox: &mut Mailbox<Command>) -> Next {
        let mut waiting = Some(command);
        while let Some(command) = waiting.take() {
            match command {
                Command::Append(append) => {
                    waiting = self.append_group(*append, mailbox).await;
                    if self.grounds.is_check_due() {
                        self.read_again().await;
                    }
                }
                Command::Configure(configure) => self.configure(*configure).await,
                Command::Follow { epoch, reply } => self.follow(epoch, reply),
                Command::Replicate(replicate) => self.replicate(*replicate).await,
                Command::Truncate { epoch, to, reply } => match self.truncate(epoch, to).await {
                    Ok(()) => self.follow(epoch, reply),
                    Err(error) => drop(reply.send(Err(error))),
                },
                Command::RestartReplica { epoch, at, reply } => match self.restart_replica(epoch, at).await {
                    Ok(()) => self.follow(epoch, reply),
                    Err(error) => drop(reply.send(Err(error))),
                },
                Command::DiskFailed { reason } => self.go_offline(reason),
                Command::CloseSegment { from, until, reply } => {
                    let closed = self.change("close segment", move |log| log.close_segment(from, until));
                    let _ = reply.send(closed.await);
                }
                Command::Adopt(adopt) => {
                    let _ = adopt.reply.send(self.adopt(adopt.repaired).await);
                }
                Command::LastOfProducers { before, reply } => {
                    drop(reply.send(self.producers.last_offsets(before)));
                }
                Command::Replace(replace) => self.replace(*replace).await,
                Command::NoteClean { until } => self.note_clean(until).await,
                Command::Review => self.review(),
                Command::DeleteRecords { before, reply } => {
                    let result = self.delete_records(before).await;
                    let _ = reply.send(result);
                }
                Command::Forget { before, reply } => {
                    let result = self.forget(before).await;
                    let _ = reply.send(result);
                }
                Command::RestartAt { offset, reply } => {
                    let result = self.restart_at(offset).await;
                    let _ = reply.send(result);
                }
                Command::Maintain => self.maintain().await,
                Command::DescribeProducers { reply } => drop(reply.send(self.producers.describe())),
                Command::Settle { reply } => drop(reply.send(())),
                Command::Close { reply } => {
                    let _ = reply.send(self.close().await);
                    return Next::End;
                }
            }
        }
        Next::Go
    }

    fn flush(&mut self) {
        self.unsynced_bytes = 0;
        self.sync_asked_at
            .get_or_insert_with(|| self.shared.means.clock.now());
        if let Some(log) = &self.log {
            log.flush();
        }
    }

    fn on_synced(&mut self) {
        let Synced { offset, broken } = self.synced.borrow_and_update().clone();
        if let Some(broken) = broken {
            self.go_offline(broken.to_string());
            return;
        }
        if let Some(asked_at) = self.sync_asked_at.take() {
            let now = self.shared.means.clock.now();
            self.shared
                .means
                .sync_seconds
                .record(now.duration_since(asked_at));
        }
        let log_end = self.state.watermarks().log_end;
        self.state.synced(offset.min(log_end));
        if offset < log_end && !self.shared.live.load().config.write_caching {
            // The next sync, for what came after this one had begun, is on its way already.
            self.sync_asked_at = Some(self.shared.means.clock.now());
        }
        self.publish();
        self.answer_waiters();
        self.answer_following();
    }

    fn answer_waiters(&mut self) {
        let high_watermark = self.state.watermarks().high_watermark;
        while let Some(waiter) = self.waiters.pop_reached(high_watermark) {
            match waiter {
                Waiter::Pending {
                    reply,
                    appended,
                    admitted_at,
                } => {
                    self.shared
                        .meters
                        .acknowledged(&self.shared.means.clock, admitted_at);
                    let _ = reply.send(Ok(appended));
                }
                Waiter::Ticket(done) => {
                    let _ = done.send(Ok(()));
                }
            }
        }
    }

    fn fail_waiters(&mut self, error: &TicketError) {
        for waiter in self.waiters.drain() {
            match waiter {
                Waiter::Pending { reply, .. } => {
                    let _ = reply.send(Err(AppendError::Unacknowledged(error.clone())));
                }
                Waiter::Ticket(done) => {
                    let _ = done.send(Err(error.clone()));
                }
            }
        }
    }

    /// Shows which transactions are open and which were aborted, and finds the last stable offset.
    fn show_transactions(&mut self) {
        let marks = self.state.watermarks();
        let transactions = self.producers.transactions_mut();
        transactions.committed(marks.high_watermark);
        let first_unstable = transactions.first_unstable();
        let unchecked = self.grounds.stable_until().filter(|_| self.shared.has_others());
        self.state
            .set_unstable(first_unstable.into_iter().chain(unchecked).min());
        let aborted = transactions.take_aborted();
        let is_quiet = transactions.open_count() == 0 && aborted.is_empty();
        if is_quiet && !self.has_shown_open {
            return;
        }
        let mut shown = self.shared.transactions();
        shown.aborted.extend(aborted);
        shown.aborted.trim(marks.log_start);
        shown.open = transactions
            .open()
            .map(|(producer, open)| (producer, open.epoch))
            .collect();
        self.has_shown_open = !shown.open.is_empty();
    }

    /// Shows the watermarks to readers, if they moved.
    pub(super) fn publish(&mut self) {
        self.show_transactions();
        let now = self.state.watermarks();
        let is_committed = self.watermarks.borrow().high_watermark != now.high_watermark;
        let mut lets_go = false;
        let shown = self.watermarks.send_if_modified(|shown| {
            let is_news = *shown != now;
            lets_go = now.log_start > shown.log_start || now.log_end < shown.log_end;
            *shown = now;
            is_news
        });
        if lets_go {
            self.shared.forget_damage_outside(now.log_start, now.log_end);
            self.shared.transactions().aborted.trim(now.log_start);
        }
        if shown && is_committed && self.state.leadership().replicas.len() > 1 {
            let now = self.shared.means.clock.now();
            let is_due = |(at, _): (Instant, _)| now.saturating_duration_since(at) >= STORE_WATERMARK_EVERY;
            if self.stored.is_none_or(is_due) {
                self.store_high_watermark();
            }
        }
    }

    /// Writes the watermark down, for the next start: without a new one, an older one holds.
    fn store_high_watermark(&mut self) {
        if self.state.leadership().replicas.len() < 2 {
            return;
        }
        let high_watermark = self.state.watermarks().high_watermark;
        if self.stored.is_some_and(|(_, stored)| stored == high_watermark) {
            return;
        }
        self.stored = Some((self.shared.means.clock.now(), high_watermark));
        let Some(log) = &self.log else { return };
        if let Err(error) = log.store_high_watermark(high_watermark) {
            tracing::warn!(partition = %self.shared.name, %error, "high watermark not written");
        }
    }

    /// Whether a crash would leave too much to be replayed for the producers' sake.
    fn must_save(&self) -> bool {
        self.unsaved_bytes >= SNAPSHOT_EVERY_BYTES
    }

    /// The log cannot be trusted any more: nothing is appended until it is opened anew. Reads go on.
    fn go_offline(&mut self, reason: String) {
        let live = self.shared.live.load_full();
        if live.offline.is_none() {
            tracing::error!(partition = %self.shared.name, reason, "partition is offline");
            let reason = Some(Arc::from(reason.as_str()));
            self.shared.live.store(Arc::new(Live {
                offline: reason,
                ..Live::clone(&live)
            }));
            self.shared.note_failed();
            self.watermarks.send_modify(|_| ());
        }
        for reply in self.following.drain() {
            let reason = reason.clone();
            let _ = reply.send(Err(ReplicaError::Offline { reason }));
        }
        self.fail_waiters(&TicketError::Offline { reason });
    }

    fn set_disk_full(&mut self, is_full: bool) {
        let was_full = self.shared.disk_full.swap(is_full, Ordering::Relaxed);
        match (was_full, is_full) {
            (false, true) => tracing::error!(partition = %self.shared.name, "disk full, appends are refused"),
            (true, false) => {
                tracing::info!(partition = %self.shared.name, "there is room again, appends go on")
            }
            (true, true) | (false, false) => {}
        }
    }
}

/// The answer to a proposal, once there is one.
async fn answer_to(proposal: &mut Option<Proposing>) -> Result<PartitionState, InSyncRefused> {
    match proposal {
        Some(proposal) => proposal.await,
        None => std::future::pending().await,
    }
}

async fn reached(due: Option<Instant>, clock: &Clock) {
    match due {
        Some(due) => clock.sleep_until(due).await,
        None => std::future::pending().await,
    }
}

const LOST: &str = "the log was lost with the thread that worked on it";

fn refused(error: log::AppendError) -> AppendError {
    match error {
        log::AppendError::Full { .. } => AppendError::DiskFull,
        log::AppendError::NotContiguous { expected, found } => AppendError::NotContiguous { expected, found },
        log::AppendError::TooLarge { bytes } => {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            AppendError::TooLarge {
                bytes,
                limit: i32::MAX as usize,
            }
        }
        error @ log::AppendError::StaleEpoch { .. } => AppendError::Offline {
            reason: error.to_string(),
        },
        log::AppendError::Broken(broken) => AppendError::Offline {
            reason: broken.to_string(),
        },
    }
}
