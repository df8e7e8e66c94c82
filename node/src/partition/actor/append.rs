//! Appends on the leader: judged one by one, written together, answered when the watermark has passed them.

use super::super::admission::Admitted;
use super::super::command::{Append, Command, Kind, Reply, Waiter};
use super::super::error::AppendError;
use super::super::producers::{Undo, Verdict, end_of};
use super::super::request::{Acks, Appended, Done, Ticket, Verified};
use super::{Actor, CACHED_BYTES_MAX, LOST, refused};
use crate::log::{self, CopyEpochs, Log};
use crate::sys::mailbox::Mailbox;
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{BatchHeader, BatchView, EndTransaction};
use std::time::Instant;

/// How much is written at once, unless a single append is larger.
const GROUP_BYTES_MAX: usize = 8 << 20;
const GROUP_APPENDS_MAX: usize = 256;
/// A group from this size on is written on another thread: copying it takes longer than the way there and back, and
/// what comes next is read and checked meanwhile.
const ASIDE_BYTES: usize = 256 << 10;

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

impl Actor {
    /// Gathers the appends that wait, writes them, answers them. Gives back a command of another kind, if it met one.
    pub(super) async fn append_group(
        &mut self,
        first: Append,
        mailbox: &mut Mailbox<Command>,
    ) -> Option<Command> {
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
                Some(Command::Append(append)) if append.kind == kind => self.stage(*append, &mut group),
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
            verified,
            reply,
            permit,
            admitted_at,
        } = append;
        let judged = self
            .check_leading(kind, acks, current_epoch)
            .and_then(|()| match kind {
                Kind::Produce => self.judge_produced(&admitted, verified, group),
                Kind::Copy => self.judge_copied(&admitted, group),
                Kind::Marker => self.judge_marker(&admitted, group),
            });
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

    fn check_leading(
        &self,
        kind: Kind,
        acks: Acks,
        current_epoch: Option<LeaderEpoch>,
    ) -> Result<(), AppendError> {
        let live = self.shared.live.load();
        if let Some(reason) = &live.offline {
            return Err(AppendError::Offline {
                reason: reason.to_string(),
            });
        }
        if !self.state.is_leader() {
            return Err(AppendError::NotLeader);
        }
        if self.reign_due.is_some() {
            return Err(AppendError::DiskFull);
        }
        self.state.check_epoch(current_epoch)?;
        let (in_sync, required) = (self.state.in_sync_count(), live.config.min_insync_replicas);
        if acks == Acks::All && kind == Kind::Produce && in_sync < required {
            return Err(AppendError::NotEnoughReplicas { in_sync, required });
        }
        Ok(())
    }

    fn judge_produced(
        &mut self,
        admitted: &Admitted,
        verified: Option<Verified>,
        group: &mut Group,
    ) -> Result<(Appended, u64), AppendError> {
        let first = *admitted.batches[0].header();
        self.check_readable(&first)?;
        if first.is_idempotent()
            && let Verdict::Duplicate {
                base_offset,
                last_offset,
                append_time_ms,
            } = self.check_sequence(&first, group.next)?
        {
            let mut appended = self.appended(
                base_offset,
                last_offset,
                Some(append_time_ms).filter(|ms| *ms >= 0),
            );
            appended.duplicate = true;
            return Ok((appended, 0));
        }
        if first.is_idempotent() {
            let verified = verified.filter(|verified| verified.epoch == self.state.leader_epoch());
            self.producers
                .check_transaction(&first, verified.map(|verified| verified.at))?;
        }
        let (base, mut records) = (group.next, 0);
        for batch in &admitted.batches {
            let mut header = *batch.header();
            header.base_offset = group.next;
            group.next = header.next_offset();
            records += u64::from(header.record_count.unsigned_abs());
            self.note(&header, None, admitted.append_time_ms, group);
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
            self.note(&header, end_of(batch), None, group);
        }
        let last = Offset(group.next.value() - 1);
        Ok((self.appended(base, last, None), records))
    }

    fn judge_marker(
        &mut self,
        admitted: &Admitted,
        group: &mut Group,
    ) -> Result<(Appended, u64), AppendError> {
        let batch = &admitted.batches[0];
        let mut header = *batch.header();
        let end = end_of(batch).expect("a marker of our own says what it ends");
        self.producers.check_marker(&header, end)?;
        header.base_offset = group.next;
        group.next = header.next_offset();
        self.note(&header, Some(end), None, group);
        let at = header.base_offset;
        Ok((self.appended(at, at, None), 0))
    }

    fn note(
        &mut self,
        header: &BatchHeader,
        end: Option<EndTransaction>,
        append_time_ms: Option<i64>,
        group: &mut Group,
    ) {
        let now_ms = self.shared.means.clock.unix_ms();
        let append_time_ms = append_time_ms.unwrap_or(-1);
        let undo = self.producers.note(header, end, append_time_ms, now_ms);
        group.undo.extend(undo);
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
            Kind::Produce | Kind::Marker => log.append(batches, epoch),
            Kind::Copy => log.append_copy(batches, CopyEpochs::Stamp(epoch)),
        };
        match self.write_log(bytes, append).await {
            Ok(appended) => {
                assert_eq!(appended.next, next, "the log ends where the group does");
                let must_save = appended.rolled_at.is_some() || self.must_save();
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
                for staged in staged {
                    self.shared.meters.refused.increment();
                    staged.reply.refuse(error.clone());
                }
            }
        }
    }

    /// Writes `bytes` to the log, and takes note of what became of it: a leader's records and a follower's alike.
    pub(super) async fn write_log(
        &mut self,
        bytes: usize,
        append: impl FnOnce(&mut Log) -> Result<log::Appended, log::AppendError> + Send + 'static,
    ) -> Result<log::Appended, AppendError> {
        let must_wait = self.log.as_ref().is_some_and(Log::is_new);
        let written = if bytes >= ASIDE_BYTES || must_wait {
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
        match &written {
            Ok(appended) => {
                self.set_disk_full(false);
                self.state.appended(appended.next, self.shared.means.clock.now());
                self.unsaved_bytes += bytes as u64;
                self.unsynced_bytes += bytes as u64;
            }
            Err(AppendError::DiskFull) => self.set_disk_full(true),
            Err(AppendError::Offline { reason }) => self.go_offline(reason.clone()),
            Err(error) => {
                tracing::warn!(partition = %self.shared.name, %error, "append refused by the log");
            }
        }
        written
    }

    pub(super) fn ask_for_sync(&mut self, rolled: bool) {
        let is_cached = self.shared.live.load().config.write_caching;
        if !is_cached || rolled || self.unsynced_bytes >= CACHED_BYTES_MAX {
            self.flush();
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
}
