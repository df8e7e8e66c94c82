//! The replicating half of the handle: what a follower's copying calls, and how a leader hears of its replicas.

use super::Partition;
use super::admission;
use super::command::{Command, FollowReply, Replicate};
use super::error::ReplicaError;
use super::followers::ReplicaFetch;
use super::request::{EpochEnd, LeaderMarks, Position};
use crate::metadata::PartitionState;
use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

impl Partition {
    /// The leader hears how far a replica is. Never waits. It counts once the partition's task has seen it, and only in
    /// the epoch it names.
    pub fn replica_fetched(&self, fetch: ReplicaFetch) {
        self.shared.reports.send_if_modified(|reports| {
            let before = reports.insert(fetch.replica, fetch);
            before.is_none_or(|before| fetch.is_news_after(&before))
        });
    }

    /// The last fetch of each replica in the present epoch.
    pub fn replica_fetches(&self) -> Vec<ReplicaFetch> {
        let epoch = self.leader_epoch();
        let reports = self.shared.reports.borrow();
        let current = reports.values().filter(|fetch| fetch.leader_epoch == epoch);
        current.copied().collect()
    }

    /// Where this replica goes on, once all it has is safe. Fails if it does not follow in `epoch`. Changes nothing if
    /// the future is dropped.
    pub async fn follow(&self, epoch: LeaderEpoch) -> Result<Position, ReplicaError> {
        self.ask_replica(|reply| Command::Follow { epoch, reply }).await
    }

    /// Takes over what the leader answered: batches at the offsets and of the epochs they have, if there are any, its
    /// watermark and its log start. Batches that are here already are passed over. Answers when all of it is on disk
    /// (in the log, where the topic caches writes). If the future is dropped, it may have happened.
    pub async fn append_replica(
        &self,
        leader: LeaderMarks,
        batches: Bytes,
    ) -> Result<Position, ReplicaError> {
        let admitted = if batches.is_empty() {
            None
        } else {
            let admitted = admission::admit_copy(batches)?;
            let permit = self.shared.room.acquire(admitted.bytes).await;
            Some((admitted, permit))
        };
        self.ask_replica(|reply| {
            Command::Replicate(Replicate {
                leader,
                admitted,
                reply,
            })
        })
        .await
    }

    /// Takes away what lies at `to` and behind it, since the leader's history is another one there. Refused below the
    /// watermark: the partition is offline then. If the future is dropped, it may have happened.
    pub async fn truncate_replica(&self, epoch: LeaderEpoch, to: Offset) -> Result<Position, ReplicaError> {
        self.ask_replica(|reply| Command::Truncate { epoch, to, reply })
            .await
    }

    /// Empties this replica and begins it anew at `at`, behind its end: the leader let go of what lies between. If the
    /// future is dropped, it may have happened.
    pub async fn restart_replica(&self, epoch: LeaderEpoch, at: Offset) -> Result<Position, ReplicaError> {
        self.ask_replica(|reply| Command::RestartReplica { epoch, at, reply })
            .await
    }

    /// Where `epoch`, or the one before it that is known, ends in this replica, leader or not. None: it is above all
    /// that is known here.
    pub fn own_epoch_end(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        let found = self.shared.reader.as_ref()?.epoch_end(epoch);
        found.map(|(epoch, end)| EpochEnd { epoch, end })
    }

    /// Who leads, as far as this replica knows.
    pub fn leader(&self) -> NodeId {
        self.shared.live.load().leadership.leader
    }

    /// Who holds the partition, as far as this replica knows.
    pub fn leadership(&self) -> Arc<PartitionState> {
        Arc::clone(&self.shared.live.load().leadership)
    }

    /// How many committed records the leader has that this replica has not. Zero on the leader.
    pub fn replica_lag(&self) -> u64 {
        if self.is_leader() {
            return 0;
        }
        let leader = Offset(self.shared.leader_high_watermark.load(Ordering::Relaxed));
        let own = self.shared.watermarks.borrow().log_end;
        u64::try_from(leader.since(own)).unwrap_or(0)
    }

    /// Whether a replica is out of sync.
    pub(super) fn is_under_replicated(&self) -> bool {
        let live = self.shared.live.load();
        live.is_leader && live.leadership.isr.len() < live.leadership.replicas.len()
    }

    /// Whether fewer replicas are in sync than `acks=all` asks for.
    pub(super) fn is_under_min_in_sync(&self) -> bool {
        let live = self.shared.live.load();
        live.is_leader && live.leadership.isr.len() < live.config.min_insync_replicas
    }

    async fn ask_replica(
        &self,
        command: impl FnOnce(FollowReply) -> Command,
    ) -> Result<Position, ReplicaError> {
        if let Some(reason) = self.offline() {
            return Err(ReplicaError::Offline { reason });
        }
        let (reply, answer) = oneshot::channel();
        let sent = self.shared.mailbox.send(command(reply)).await;
        sent.map_err(|_| ReplicaError::Stopped)?;
        answer.await.unwrap_or(Err(ReplicaError::Stopped))
    }
}
