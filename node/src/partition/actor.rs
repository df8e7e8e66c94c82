//! The one task that owns a partition: it takes what waits in the mailbox, judges it, appends it in one write, asks
//! for a sync, and answers whoever the watermark has passed.
//!
//! Owns the log, the state and the producers. Between two awaits it only runs synchronous methods, so that nothing
//! is ever half done. It must never wait for the device in its own thread.

use super::admission::Admitted;
use super::command::{Append, Command, Kind, Reply, Waiter};
use super::error::{AppendError, LookupError, TicketError, Unavailable};
use super::producers::{Producers, Undo, Verdict};
use super::request::{Acks, Appended, Done, Ticket, Watermarks};
use super::shared::{Live, Shared};
use super::state::{State, Waiters};
use crate::config::TopicConfig;
use crate::log::{self, CopyEpochs, Log, Synced};
use crate::metadata::PartitionState;
use crate::sys::mailbox::Mailbox;
use headwater_protocol::ids::Offset;
use headwater_protocol::record::BatchView;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How much is written at once, unless a single append is larger.
const GROUP_BYTES_MAX: usize = 8 << 20;
const GROUP_APPENDS_MAX: usize = 256;
/// A group from this size on is written on another thread: copying it takes longer than the way there and back, and
/// what comes next is read and checked meanwhile.
const ASIDE_BYTES: usize = 256 << 10;
/// What a crash leaves to be replayed for the producers' sake.
const SNAPSHOT_EVERY_BYTES: u64 = 32 << 20;
/// How far a topic that caches writes may run ahead of the disk.
const CACHED_BYTES_MAX: u64 = 256 << 20;

pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    /// Absent only while it is with a blocking thread, or lost to one that died.
    pub(super) log: Option<Log>,
    pub(super) synced: watch::Receiver<Synced>,
    pub(super) state: State,
    pub(super) producers: Producers,
    pub(super) watermarks: watch::Sender<Watermarks>,
    pub(super) waiters: Waiters<Waiter>,
    /// Bytes appended since the last snapshot of the producers, and since the last sync was asked for.
    pub(super) unsaved_bytes: u64,
    pub(super) unsynced_bytes: u64,
    pub(super) snapshot_at: Offset,
    /// Since when a sync is under way.
    pub(super) sync_asked_at: Option<Instant>,
}

/// Appends that are judged and go to the log together.
#[derive(Default)]
struct Group {
    batches: Vec<BatchView>,
    staged: Vec<Staged>,
    undo: Vec<Undo>,
    bytes: usize,
    /// Where the next batch goes.
    next: Offset,
}

/// An append that has its offsets, if the write succeeds.
struct Staged {
    appended: Appended,
    records: u64,
    bytes: usize,
    acks: Acks,
    reply: Reply,
    admitted_at: Instant,
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
        self.publish();
        if self.state.watermarks().synced < self.state.watermarks().log_end {
            self.flush();
        }
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                changed = self.synced.changed() => match changed {
                    Ok(()) => self.on_synced(),
                    // The log is gone, with whoever was to bring it back.
                    Err(_) => break,
                },
                command = mailbox.recv() => {
                    let Some(command) = command else { break };
                    if self.serve(command, &mut mailbox).await == Next::End {
                        break;
                    }
                }
            }
        }
        self.fail_waiters(&TicketError::Stopped);
    }

    /// Serves one command, and all appends that wait behind it.
    async fn serve(&mut self, command: Command, mailbox: &mut Mailbox<Command>) -> Next {
        let mut waiting = Some(command);
        while let Some(command) = waiting.take() {
            match command {
                Command::Append(append) => waiting = self.append_group(append, mailbox).await,
                Command::Configure {
                    config,
                    leadership,
                    mirror,
                } => {
                    self.configure(config, leadership, mirror.map(Arc::from));
                }
                Command::DeleteRecords { before, reply } => {
                    let result = self.delete_records(before).await;
                    let _ = reply.send(result);
                }
                Command::RestartAt { offset, reply } => {
                    let result = self.restart_at(offset).await;
                    let _ = reply.send(result);
                }
                Command::Maintain => self.maintain().await,
                Command::Close { reply } => {
                    let _ = reply.send(self.close().await);
                    return Next::End;
                }
            }
        }
        Next::Go
    }

    /// Gathers the appends that wait, writes them, answers them. Gives back a command of another kind, if it met one.
    async fn append_group(&mut self, first: Append, mailbox: &mut Mailbox<Command>) -> Option<Command> {
        let mut other = None;
        let kind = first.kind;
        let bytes_max = GROUP_BYTES_MAX.min(self.shared.segment_bytes());
        let mut group = Group {
            next: self.state.watermarks().log_end,
            ..Group::default()
        };
        self.stage(first, &mut group);
        while group.bytes < bytes_max && group.staged.len() < GROUP_APPENDS_MAX {
            match mailbox.try_recv() {
                Some(Command::Append(append)) if append.kind == kind => self.stage(append, &mut group),
                command => {
                    other = command;
                    break;
                }
            }
        }
        self.write(group, kind).await;
        other
    }

    /// Judges one append, and gives it its place in the group.
    fn stage(&mut self, append: Append, group: &mut Group) {
        let Append {
            admitted,
            kind,
            acks,
            current_epoch,
            reply,
            permit,
            admitted_at,
        } = append;
        let judged = self.judge(&admitted, kind, acks, current_epoch, group);
        // The bytes are the group's now, which is bounded itself.
        drop(permit);
        match judged {
            Err(error) => {
                self.shared.meters.refused.increment();
                reply.refuse(error);
            }
            Ok((appended, records)) => {
                let bytes = if appended.duplicate { 0 } else { admitted.bytes };
                if !appended.duplicate {
                    group.batches.extend(admitted.batches);
                }
                group.bytes += bytes;
                group.staged.push(Staged {
                    appended,
                    records,
                    bytes,
                    acks,
                    reply,
                    admitted_at,
                });
            }
        }
    }

    fn judge(
        &mut self,
        admitted: &Admitted,
        kind: Kind,
        acks: Acks,
        current_epoch: Option<headwater_protocol::ids::LeaderEpoch>,
        group: &mut Group,
    ) -> Result<(Appended, u64), AppendError> {
        let live = self.shared.live.load();
        if let Some(reason) = &live.offline {
            return Err(AppendError::Offline {
                reason: reason.to_string(),
            });
        }
        if !self.state.is_leader() {
            return Err(AppendError::NotLeader);
        }
        self.state.check_epoch(current_epoch)?;
        let (in_sync, required) = (self.state.in_sync_count(), live.config.min_insync_replicas);
        if acks == Acks::All && kind == Kind::Produce && in_sync < required {
            return Err(AppendError::NotEnoughReplicas { in_sync, required });
        }
        match kind {
            Kind::Produce => self.judge_produced(admitted, group),
            Kind::Copy => self.judge_copied(admitted, group),
        }
    }

    fn judge_produced(
        &mut self,
        admitted: &Admitted,
        group: &mut Group,
    ) -> Result<(Appended, u64), AppendError> {
        let first = *admitted.batches[0].header();
        if first.is_idempotent()
            && let Verdict::Duplicate {
                base_offset,
                last_offset,
                append_time_ms,
            } = self.producers.check(&first)?
        {
            let mut appended = self.appended(
                base_offset,
                last_offset,
                Some(append_time_ms).filter(|ms| *ms >= 0),
            );
            appended.duplicate = true;
            return Ok((appended, 0));
        }
        let (base, mut records) = (group.next, 0);
        for batch in &admitted.batches {
            let mut header = *batch.header();
            header.base_offset = group.next;
            group.next = header.next_offset();
            records += u64::from(header.record_count.unsigned_abs());
            self.note(&header, admitted.append_time_ms, group);
        }
        let last = Offset(group.next.value() - 1);
        Ok((self.appended(base, last, admitted.append_time_ms), records))
    }

    fn judge_copied(
        &mut self,
        admitted: &Admitted,
        group: &mut Group,
    ) -> Result<(Appended, u64), AppendError> {
        let base = admitted.batches[0].base_offset();
        if base < group.next {
            return Err(AppendError::NotContiguous {
                expected: group.next,
                found: base,
            });
        }
        let mut records = 0;
        for batch in &admitted.batches {
            let header = *batch.header();
            group.next = header.next_offset();
            records += u64::from(header.record_count.unsigned_abs());
            self.note(&header, None, group);
        }
        let last = Offset(group.next.value() - 1);
        Ok((self.appended(base, last, None), records))
    }

    fn note(
        &mut self,
        header: &headwater_protocol::record::BatchHeader,
        append_time_ms: Option<i64>,
        group: &mut Group,
    ) {
        if header.is_idempotent() && !header.is_control() {
            let now_ms = self.shared.means.clock.unix_ms();
            group.undo.push(
                self.producers
                    .record(header, append_time_ms.unwrap_or(-1), now_ms),
            );
        }
    }

    fn appended(&self, base: Offset, last: Offset, log_append_time_ms: Option<i64>) -> Appended {
        Appended {
            base_offset: base,
            last_offset: last,
            log_append_time_ms,
            log_start: self.state.watermarks().log_start,
            leader_epoch: self.state.leader_epoch(),
            duplicate: false,
        }
    }

    /// Writes a group and answers it.
    async fn write(&mut self, group: Group, kind: Kind) {
        let Group {
            batches,
            staged,
            undo,
            bytes,
            next,
        } = group;
        if batches.is_empty() {
            // Duplicates only: nothing is new, but somebody waits.
            staged.into_iter().for_each(|staged| self.answer(staged));
            return;
        }
        let epoch = self.state.leader_epoch();
        let append = move |log: &mut Log| match kind {
            Kind::Produce => log.append(batches, epoch),
            Kind::Copy => log.append_copy(batches, CopyEpochs::Stamp(epoch)),
        };
        let written = if bytes >= ASIDE_BYTES {
            self.with_log("write", append).await
        } else {
            self.log.as_mut().map(append)
        };
        let lost = || AppendError::Offline {
            reason: LOST.to_owned(),
        };
        let written = written
            .ok_or_else(lost)
            .and_then(|written| written.map_err(refused));
        match written {
            Ok(appended) => {
                assert_eq!(appended.next, next, "the log ends where the group does");
                self.set_disk_full(false);
                self.state.appended(next);
                self.unsaved_bytes += bytes as u64;
                self.unsynced_bytes += bytes as u64;
                let must_save = appended.rolled_at.is_some() || self.unsaved_bytes >= SNAPSHOT_EVERY_BYTES;
                self.ask_for_sync(appended.rolled_at.is_some());
                self.publish();
                staged.into_iter().for_each(|staged| self.answer(staged));
                self.answer_waiters();
                if must_save {
                    self.save_producers();
                }
            }
            Err(error) => {
                undo.into_iter().rev().for_each(|undo| self.producers.undo(undo));
                match &error {
                    AppendError::DiskFull => self.set_disk_full(true),
                    AppendError::Offline { reason } => self.go_offline(reason.clone()),
                    other => {
                        tracing::warn!(partition = %self.shared.name, error = %other, "append refused by the log")
                    }
                }
                for staged in staged {
                    self.shared.meters.refused.increment();
                    staged.reply.refuse(error.clone());
                }
            }
        }
    }

    fn ask_for_sync(&mut self, rolled: bool) {
        let is_cached = self.shared.live.load().config.write_caching;
        if !is_cached || rolled || self.unsynced_bytes >= CACHED_BYTES_MAX {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.unsynced_bytes = 0;
        self.sync_asked_at
            .get_or_insert_with(|| self.shared.means.clock.now());
        if let Some(log) = &self.log {
            log.flush();
        }
    }

    fn answer(&mut self, staged: Staged) {
        let Staged {
            appended,
            records,
            bytes,
            acks,
            reply,
            admitted_at,
        } = staged;
        self.shared.meters.appended(records, bytes);
        let end = appended.last_offset.plus(1);
        let is_done = acks != Acks::All || self.state.watermarks().high_watermark >= end;
        match (reply, is_done) {
            (Reply::Pending(reply), true) => {
                self.shared
                    .meters
                    .acknowledged(&self.shared.means.clock, admitted_at);
                let _ = reply.send(Ok(appended));
            }
            (Reply::Pending(reply), false) => {
                self.waiters.push(
                    end,
                    Waiter::Pending {
                        reply,
                        appended,
                        admitted_at,
                    },
                );
            }
            (Reply::Ticket(reply), true) => {
                let _ = reply.send(Ok(Ticket {
                    appended,
                    done: Done::Already,
                }));
            }
            (Reply::Ticket(reply), false) => {
                let (done, receiver) = tokio::sync::oneshot::channel();
                let _ = reply.send(Ok(Ticket {
                    appended,
                    done: Done::Later(receiver),
                }));
                self.waiters.push(end, Waiter::Ticket(done));
            }
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

    /// Shows the watermarks to readers, if they moved.
    fn publish(&mut self) {
        let now = self.state.watermarks();
        self.watermarks.send_if_modified(|shown| {
            let is_news = *shown != now;
            *shown = now;
            is_news
        });
    }

    fn configure(&mut self, config: Arc<TopicConfig>, leadership: PartitionState, mirror: Option<Arc<str>>) {
        let epoch = leadership.leader_epoch;
        let led = self.state.is_leader().then(|| self.state.leader_epoch());
        self.state.lead(leadership);
        self.state.set_write_caching(config.write_caching);
        if led.is_some() && !self.state.is_leader() {
            self.fail_waiters(&TicketError::NotLeader);
        }
        if let Some(log) = &mut self.log {
            log.configure(log::Config::of_topic(&config));
            if self.state.is_leader()
                && led != Some(epoch)
                && let Err(error) = log.begin_epoch(epoch).map_err(refused)
            {
                self.go_offline(error.to_string());
            }
        }
        let old = self.shared.live.load_full();
        self.shared.live.store(Arc::new(Live {
            config,
            leader_epoch: epoch,
            is_leader: self.state.is_leader(),
            in_sync_count: self.state.in_sync_count(),
            mirror,
            offline: old.offline.clone(),
        }));
        // What was cached is to be committed by syncs from now on, or the other way round.
        self.flush();
        self.publish();
        self.answer_waiters();
    }

    async fn delete_records(&mut self, before: Option<Offset>) -> Result<Offset, LookupError> {
        let Watermarks {
            log_start,
            high_watermark,
            ..
        } = self.state.watermarks();
        let before = before.unwrap_or(high_watermark);
        if !self.shared.live.load().config.deleted_by_retention {
            return Err(LookupError::Refused(
                "records are deleted from topics with cleanup.policy=delete only",
            ));
        }
        if before > high_watermark || before < Offset::ZERO {
            return Err(LookupError::OutOfRange {
                asked: before,
                start: log_start,
                end: high_watermark,
            });
        }
        if before > log_start {
            self.change("trim", move |log| log.trim_to(before)).await?;
            self.state.trimmed(before);
            self.publish();
        }
        Ok(self.state.watermarks().log_start)
    }

    async fn restart_at(&mut self, offset: Offset) -> Result<(), LookupError> {
        if self.shared.live.load().mirror.is_none() {
            return Err(LookupError::Refused(
                "only a mirror can be emptied and begun anew",
            ));
        }
        if offset < Offset::ZERO {
            let end = self.state.watermarks().log_end;
            return Err(LookupError::OutOfRange {
                asked: offset,
                start: Offset::ZERO,
                end,
            });
        }
        self.change("restart", move |log| log.restart_at(offset)).await?;
        self.producers = Producers::default();
        (self.unsaved_bytes, self.unsynced_bytes, self.snapshot_at) = (0, 0, offset);
        self.fail_waiters(&TicketError::NotLeader);
        self.state.restarted(offset);
        self.publish();
        Ok(())
    }

    /// Changes the log on a thread that may wait for the device.
    async fn change<T: Send + 'static>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Log) -> Result<T, log::ChangeError> + Send + 'static,
    ) -> Result<T, LookupError> {
        match self.with_log(name, work).await {
            Some(Ok(done)) => Ok(done),
            Some(Err(log::ChangeError::OutOfRange { asked, start, end })) => {
                Err(LookupError::OutOfRange { asked, start, end })
            }
            Some(Err(log::ChangeError::Broken(broken))) => {
                self.go_offline(broken.to_string());
                let reason = broken.to_string();
                Err(Unavailable::Offline { reason }.into())
            }
            None => {
                let reason = LOST.to_owned();
                Err(Unavailable::Offline { reason }.into())
            }
        }
    }

    /// Hands the log to a blocking thread and takes it back. None: there is no log any more.
    async fn with_log<T: Send + 'static>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Log) -> T + Send + 'static,
    ) -> Option<T> {
        let mut log = self.log.take()?;
        let lent = self.shared.means.tasks.blocking(name, move || {
            let done = work(&mut log);
            (log, done)
        });
        match lent.await {
            Ok((log, done)) => {
                self.log = Some(log);
                Some(done)
            }
            Err(_) => {
                self.go_offline(LOST.to_owned());
                None
            }
        }
    }

    /// Lets go of what is old, and forgets who was silent for too long.
    async fn maintain(&mut self) {
        let now_ms = self.shared.means.clock.unix_ms();
        self.producers.expire(
            now_ms,
            self.shared.means.producer_expiration_ms.load(Ordering::Relaxed),
        );
        let keep_from = self
            .shared
            .keep_from()
            .min(self.state.watermarks().high_watermark);
        let Some(done) = self
            .with_log("maintain", move |log| log.maintain(keep_from))
            .await
        else {
            return;
        };
        match done {
            Ok(maintained) => {
                self.shared.means.retention_bytes.add(maintained.removed_bytes);
                self.state.trimmed(maintained.start);
                if maintained.removed_bytes > 0 {
                    tracing::info!(
                        partition = %self.shared.name,
                        bytes = maintained.removed_bytes,
                        start = maintained.start.value(),
                        "retention removed segments"
                    );
                }
                if maintained.rolled_at.is_some() {
                    self.save_producers();
                }
                if self.unsynced_bytes > 0 {
                    self.flush();
                }
                self.publish();
            }
            Err(error) => match refused(error) {
                AppendError::Offline { reason } => self.go_offline(reason),
                error => {
                    tracing::warn!(partition = %self.shared.name, %error, "maintenance refused by the log")
                }
            },
        }
    }

    fn save_producers(&mut self) {
        let end = self.state.watermarks().log_end;
        let Some(log) = &mut self.log else { return };
        self.unsaved_bytes = 0;
        if end == self.snapshot_at {
            return;
        }
        self.snapshot_at = end;
        // Without it the next start replays more; nothing else.
        if let Err(error) = log.store_snapshot(end, &self.producers.encode()) {
            tracing::warn!(partition = %self.shared.name, %error, "producer snapshot not written");
        }
    }

    /// Syncs everything and closes the log. Whether it did.
    async fn close(&mut self) -> bool {
        if self.shared.live.load().offline.is_some() {
            return false;
        }
        self.save_producers();
        let Some(log) = self.log.take() else { return false };
        let closed = self
            .shared
            .means
            .tasks
            .blocking("close", move || log.close())
            .await;
        let end = self.state.watermarks().log_end;
        let is_synced = matches!(closed, Ok(Ok(())));
        if is_synced {
            self.state.synced(end);
            self.publish();
            self.answer_waiters();
        }
        is_synced
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
