//! What is done to a log beside appending: records deleted, retention, restarts, snapshots, the end. All of it may wait
//! for the device, so it runs on a blocking thread.

use super::super::command::Replace;
use super::super::error::{AppendError, LookupError, TicketError, Unavailable};
use super::super::request::Watermarks;
use super::super::transactions::AbortedIndex;
use super::{Actor, LOST, refused};
use crate::log::{self, Log, Repaired};
use headwater_protocol::ids::Offset;
use std::sync::atomic::Ordering;

impl Actor {
    pub(super) async fn delete_records(&mut self, before: Option<Offset>) -> Result<Offset, LookupError> {
        if !self.shared.live.load().config.deleted_by_retention {
            return Err(LookupError::Refused(
                "records are deleted from topics with cleanup.policy=delete only",
            ));
        }
        let high_watermark = self.state.watermarks().high_watermark;
        self.forget(before.unwrap_or(high_watermark)).await
    }

    /// Whoever writes a compacted topic of the node's own knows what it still needs.
    pub(super) async fn forget(&mut self, before: Offset) -> Result<Offset, LookupError> {
        let Watermarks {
            log_start,
            high_watermark,
            ..
        } = self.state.watermarks();
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

    pub(super) async fn restart_at(&mut self, offset: Offset) -> Result<(), LookupError> {
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
        self.forget_producers(offset);
        (self.unsaved_bytes, self.unsynced_bytes) = (0, 0);
        self.fail_waiters(&TicketError::NotLeader);
        self.state.restarted(offset, self.shared.means.clock.now());
        // The history went with the records: the reign goes on in a new one.
        self.begin_reign().await;
        self.show_leadership();
        self.publish();
        Ok(())
    }

    /// Puts a repaired segment where it belongs.
    pub(super) async fn adopt(&mut self, repaired: Repaired) -> Result<(), LookupError> {
        let (from, until, bytes) = (repaired.from(), repaired.until, repaired.bytes);
        let is_believed = self.grounds.rest_on(from, until);
        let adopt = move |log: &mut Log| {
            if is_believed {
                log.forget_snapshots(from)?;
            }
            log.adopt(repaired)
        };
        if !self.change("repair", adopt).await? {
            return Err(LookupError::Refused("the log does not reach there any more"));
        }
        self.shared.note_repaired(from, until);
        self.shared.means.damaged_repaired.increment();
        tracing::warn!(
            partition = %self.shared.name,
            from = from.value(),
            until = until.value(),
            bytes,
            "log is repaired from another replica"
        );
        if is_believed {
            self.grounds.doubt();
        }
        self.read_again().await;
        Ok(())
    }

    /// Puts what compaction has made where it belongs.
    pub(super) async fn replace(&mut self, replace: Replace) {
        let Replace { replacement, reply } = replace;
        // Before anybody reads what is without them. What they ended has gone before.
        let before = self.forget_markers(replacement.forgotten());
        let replaced = self.change("compact", move |log| log.replace(replacement)).await;
        if let Some(before) = before
            && !matches!(replaced, Ok(true))
        {
            self.shared.transactions().aborted = before;
        }
        let _ = reply.send(replaced);
    }

    /// What was aborted and is not told any more without these markers. Answers with what was told before, if that is something else.
    fn forget_markers(&self, markers: &[Offset]) -> Option<AbortedIndex> {
        if markers.is_empty() {
            return None;
        }
        let mut shown = self.shared.transactions();
        let before = shown.aborted.clone();
        shown.aborted.forget(markers);
        Some(before)
    }

    pub(super) async fn note_clean(&mut self, until: Offset) {
        // Without it the next pass begins where this one did.
        let _: Option<()> = self.with_log("note", move |log| log.note_clean(until)).await;
    }

    /// Changes the log on a thread that may wait for the device.
    pub(super) async fn change<T: Send + 'static>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Log) -> Result<T, log::ChangeError> + Send + 'static,
    ) -> Result<T, LookupError> {
        match self.with_log(name, work).await {
            Some(Ok(done)) => Ok(done),
            Some(Err(log::ChangeError::OutOfRange { asked, start, end })) => {
                Err(LookupError::OutOfRange { asked, start, end })
            }
            Some(Err(log::ChangeError::Full)) => Err(LookupError::Refused("disk full")),
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
    pub(super) async fn with_log<T: Send + 'static>(
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
    pub(super) async fn maintain(&mut self) {
        if self.check.is_none() && !self.shared.has_damage() {
            // Retention may have let go of what was damaged.
            self.begin_check();
        }
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
                    // So that what was closed counts as durable: only then it is compacted.
                    if let Some(log) = &self.log {
                        log.flush();
                    }
                }
                if self.unsynced_bytes > 0 {
                    self.flush();
                }
                self.store_high_watermark();
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

    pub(super) fn save_producers(&mut self) {
        let end = self.state.watermarks().log_end;
        self.unsaved_bytes = 0;
        if end == self.snapshot_at || self.awaits_repair() {
            return;
        }
        let Some(log) = &mut self.log else { return };
        self.snapshot_at = end;
        let content = {
            let mut shown = self.shared.transactions();
            shown
                .aborted
                .extend(self.producers.transactions_mut().take_aborted());
            self.producers.encode(&shown.aborted)
        };
        // Without it the next start replays more; nothing else.
        if let Err(error) = log.store_snapshot(end, &content) {
            tracing::warn!(partition = %self.shared.name, %error, "producer snapshot not written");
        }
    }

    /// Syncs everything and closes the log. Whether it did.
    pub(super) async fn close(&mut self) -> bool {
        if self.shared.live.load().offline.is_some() {
            return false;
        }
        self.save_producers();
        self.store_high_watermark();
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
}
