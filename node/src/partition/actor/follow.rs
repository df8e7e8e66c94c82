//! The follower: takes over what its leader has, byte for byte, and lets go of what the leader never had.

use super::super::command::{FollowReply, Replicate};
use super::super::error::ReplicaError;
use super::super::open::{self, Rebuilt, append_time_of};
use super::super::producers::end_of;
use super::super::request::{LeaderMarks, Position};
use super::super::state::Role;
use super::{Actor, LOST};
use crate::log::{ChangeError, CopyEpochs, Log, LogReader};
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::BatchView;
use std::sync::atomic::Ordering;

impl Actor {
    /// Tells where this replica goes on, once what it has is safe.
    pub(super) fn follow(&mut self, epoch: LeaderEpoch, reply: FollowReply) {
        if let Err(error) = self.check_following(epoch) {
            let _ = reply.send(Err(error));
            return;
        }
        let end = self.state.watermarks().log_end;
        if self.state.own_committed() < end {
            self.flush();
        }
        self.following.push(end, reply);
        self.answer_following();
    }

    /// Takes over what a fetch brought. The answer comes when it is safe here.
    pub(super) async fn replicate(&mut self, replicate: Replicate) {
        let Replicate {
            leader,
            admitted,
            reply,
        } = replicate;
        let taken = match admitted {
            Some((admitted, permit)) => {
                let taken = self.take_over(leader, admitted.batches).await;
                drop(permit);
                taken
            }
            None => self.check_following(leader.epoch),
        };
        let taken = match taken {
            Ok(()) => self.adopt_marks(leader).await,
            error => error,
        };
        match taken {
            Ok(()) => {
                self.following.push(self.state.watermarks().log_end, reply);
                self.publish();
                self.answer_following();
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    async fn take_over(&mut self, leader: LeaderMarks, batches: Vec<BatchView>) -> Result<(), ReplicaError> {
        self.check_following(leader.epoch)?;
        let end = self.state.watermarks().log_end;
        let news = batches.into_iter().skip_while(|batch| batch.next_offset() <= end);
        let batches: Vec<BatchView> = news.collect();
        let Some(first) = batches.first() else {
            return Ok(());
        };
        if first.base_offset() < end {
            let found = first.base_offset();
            return Err(ReplicaError::NotContiguous { expected: end, found });
        }
        let now_ms = self.shared.means.clock.unix_ms();
        let (mut undo, mut bytes) = (Vec::new(), 0);
        for batch in &batches {
            bytes += batch.bytes().len();
            let header = batch.header();
            let end = end_of(batch);
            undo.extend(self.producers.note(header, end, append_time_of(header), now_ms));
        }
        let append = move |log: &mut Log| log.append_copy(batches, CopyEpochs::Keep);
        match self.write_log(bytes, append).await {
            Ok(appended) => {
                let must_save = appended.rolled_at.is_some() || self.must_save();
                self.ask_for_sync(appended.rolled_at.is_some());
                if must_save {
                    self.save_producers();
                }
                Ok(())
            }
            Err(error) => {
                undo.into_iter().rev().for_each(|undo| self.producers.undo(undo));
                Err(error.into())
            }
        }
    }

    /// The leader's watermark, and its start: what it let go of is let go here.
    async fn adopt_marks(&mut self, leader: LeaderMarks) -> Result<(), ReplicaError> {
        self.shared
            .leader_high_watermark
            .store(leader.high_watermark.value(), Ordering::Relaxed);
        self.state.leader_committed(leader.high_watermark);
        let marks = self.state.watermarks();
        let start = leader.log_start.min(marks.log_end);
        if start > marks.log_start {
            let trimmed = self.change("trim", move |log| log.trim_to(start)).await;
            trimmed.map_err(|error| ReplicaError::Offline {
                reason: error.to_string(),
            })?;
            self.state.trimmed(start);
        }
        Ok(())
    }

    /// Takes everything from `to` on away: the leader's history does not have it. What is committed never goes that
    /// way: if it would, records that were acknowledged are lost somewhere, and somebody has to look.
    pub(super) async fn truncate(&mut self, epoch: LeaderEpoch, to: Offset) -> Result<(), ReplicaError> {
        self.check_following(epoch)?;
        let marks = self.state.watermarks();
        let is_mirror = self.shared.live.load().mirror.is_some();
        // What is compacted was committed, whatever is known of that since the last start.
        let compacted = self.shared.reader.as_ref().map(LogReader::compacted_until);
        let committed = marks.high_watermark.max(compacted.unwrap_or(Offset::ZERO));
        if to < committed && !is_mirror {
            let reason = format!(
                "the leader of epoch {epoch} does not have what was committed: its history parts at {to}, below {committed}"
            );
            self.go_offline(reason.clone());
            return Err(ReplicaError::Offline { reason });
        }
        let (to, now_ms) = (to.max(marks.log_start), self.shared.means.clock.unix_ms());
        let offline = |reason: String| ReplicaError::Offline { reason };
        let cut = move |log: &mut Log| -> Result<(Offset, Rebuilt), ReplicaError> {
            let end = log.truncate_to(to).map_err(|error| match error {
                ChangeError::Full => ReplicaError::DiskFull,
                error => offline(error.to_string()),
            })?;
            Ok((end, open::rebuild(log, Offset::ZERO, now_ms).map_err(offline)?))
        };
        let done = self.with_log("truncate", cut).await;
        let (end, rebuilt) = match done.unwrap_or_else(|| Err(offline(LOST.to_owned()))) {
            Ok(done) => done,
            Err(error) => {
                if let ReplicaError::Offline { reason } = &error {
                    self.go_offline(reason.clone());
                }
                return Err(error);
            }
        };
        tracing::info!(
            partition = %self.shared.name,
            from = marks.log_end.value(),
            to = end.value(),
            high_watermark = marks.high_watermark.value(),
            "truncated to the leader's history"
        );
        self.read_producers(rebuilt, end);
        (self.unsaved_bytes, self.unsynced_bytes) = (0, 0);
        if is_mirror {
            self.state.cut_off(end);
            self.store_high_watermark();
        } else {
            self.state.truncated(end);
        }
        self.publish();
        Ok(())
    }

    /// Empties this replica, since the leader has let go of everything it could go on with.
    pub(super) async fn restart_replica(
        &mut self,
        epoch: LeaderEpoch,
        at: Offset,
    ) -> Result<(), ReplicaError> {
        self.check_following(epoch)?;
        let end = self.state.watermarks().log_end;
        if at <= end {
            return Err(ReplicaError::NotContiguous {
                expected: end,
                found: at,
            });
        }
        tracing::warn!(
            partition = %self.shared.name,
            end = end.value(),
            at = at.value(),
            "the leader has nothing that follows here any more, this replica begins anew"
        );
        let restarted = self.change("restart", move |log| log.restart_at(at)).await;
        restarted.map_err(|error| ReplicaError::Offline {
            reason: error.to_string(),
        })?;
        self.forget_producers(at);
        (self.unsaved_bytes, self.unsynced_bytes) = (0, 0);
        self.state.restarted(at, self.shared.means.clock.now());
        self.publish();
        Ok(())
    }

    fn check_following(&self, asked: LeaderEpoch) -> Result<(), ReplicaError> {
        if let Some(reason) = &self.shared.live.load().offline {
            return Err(ReplicaError::Offline {
                reason: reason.to_string(),
            });
        }
        let current = self.state.leader_epoch();
        if self.state.role() == Role::Follower && asked == current {
            Ok(())
        } else {
            Err(ReplicaError::NotFollower { asked, current })
        }
    }

    /// Whoever copies for this replica goes on where it is safe.
    pub(super) fn answer_following(&mut self) {
        let reached = self.state.own_committed();
        while let Some(reply) = self.following.pop_reached(reached) {
            let _ = reply.send(Ok(self.position()));
        }
    }

    pub(super) fn position(&self) -> Position {
        let marks = self.state.watermarks();
        let epoch = self.log.as_ref().map(|log| log.reader().epochs().latest());
        Position {
            next: self.state.own_committed(),
            epoch: epoch.unwrap_or(LeaderEpoch::NONE),
            log_start: marks.log_start,
        }
    }

    /// Nobody copies any more for the leader of before.
    pub(super) fn fail_following(&mut self) {
        let current = self.state.leader_epoch();
        for reply in self.following.drain() {
            let asked = current;
            let _ = reply.send(Err(ReplicaError::NotFollower { asked, current }));
        }
    }
}
