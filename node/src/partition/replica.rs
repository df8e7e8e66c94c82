//! The replicating half of the handle: what a follower's copying calls, and how a leader hears of its replicas.

use super::Partition;
use super::admission;
use super::command::{Command, FollowReply, Replicate};
use super::error::ReplicaError;
use super::followers::ReplicaFetch;
use super::request::{EpochEnd, LeaderMarks, Position, Watermarks};
use crate::metadata::PartitionState;
use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::oneshot;

/// How far a follower is, as its leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerProgress {
    pub node: NodeId,
    pub is_in_sync: bool,
    /// All below it is safe there. None: it has not fetched in this reign.
    pub reached: Option<Offset>,
    /// Records that the leader has and the follower is not known to have.
    pub lag: u64,
    /// When it fetched last in this reign and had something to say, or the partition had moved.
    pub fetched_at: Option<Instant>,
}

impl FollowerProgress {
    fn new(node: NodeId, is_in_sync: bool, last: Option<&ReplicaFetch>, marks: Watermarks) -> Self {
        let reached = last.map(|fetch| fetch.offset);
        // Who is in sync holds what is committed, heard of or not.
        let known = if is_in_sync {
            marks.high_watermark
        } else {
            marks.log_start
        };
        let behind = marks.log_end.since(reached.unwrap_or(known));
        Self {
            node,
            is_in_sync,
            reached,
            lag: u64::try_from(behind).unwrap_or(0),
            fetched_at: last.map(|fetch| fetch.at),
        }
    }
}

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
            Command::Replicate(Box::new(Replicate {
                leader,
                admitted,
                reply,
            }))
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

    /// How far each of the others is, as their leader knows it. Empty unless this node leads.
    pub fn followers(&self) -> Vec<FollowerProgress> {
        let live = self.shared.live.load();
        if !live.is_leader {
            return Vec::new();
        }
        let marks = *self.shared.watermarks.borrow();
        let reports = self.shared.reports.borrow();
        let me = live.leadership.leader;
        let others = live.leadership.replicas.iter().filter(|node| **node != me);
        others
            .map(|node| {
                let last = reports
                    .get(node)
                    .filter(|fetch| fetch.leader_epoch == live.leader_epoch);
                FollowerProgress::new(*node, live.leadership.isr.contains(node), last, marks)
            })
            .collect()
    }

    /// Whether a replica is out of sync.
    pub(super) fn is_under_replicated(&self) -> bool {
        let live = self.shared.live.load();
        live.is_leader && live.leadership.is_under_replicated()
    }

    /// Whether fewer replicas are in sync than `acks=all` asks for.
    pub(super) fn is_under_min_in_sync(&self) -> bool {
        let live = self.shared.live.load();
        live.is_leader
            && live
                .leadership
                .is_under_min_in_sync(live.config.min_insync_replicas)
    }

    /// Whether one replica less in sync would be too few for `acks=all`.
    pub(super) fn is_at_min_in_sync(&self) -> bool {
        let live = self.shared.live.load();
        live.is_leader && live.leadership.is_at_min_in_sync(live.config.min_insync_replicas)
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

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_protocol::ids::BrokerEpoch;

    #[test]
    fn a_follower_lags_by_what_it_is_not_known_to_have() {
        let marks = Watermarks {
            log_start: Offset(100),
            high_watermark: Offset(180),
            last_stable: Offset(180),
            log_end: Offset(200),
            synced: Offset(200),
        };
        let fetch = ReplicaFetch {
            replica: NodeId(2),
            broker_epoch: Some(BrokerEpoch(1)),
            leader_epoch: LeaderEpoch(0),
            offset: Offset(195),
            log_start: Offset(0),
            log_end: Offset(195),
            at: crate::sys::clock::Clock::manual(0).now(),
        };
        let ahead = ReplicaFetch {
            offset: Offset(201),
            ..fetch
        };
        for (is_in_sync, last, lag) in [
            (true, Some(&fetch), 5),
            (false, Some(&fetch), 5),
            // What is shown of the own log may be older than the fetch.
            (true, Some(&ahead), 0),
            (true, None, 20),
            (false, None, 100),
        ] {
            let shown = FollowerProgress::new(NodeId(2), is_in_sync, last, marks);
            assert_eq!(shown.lag, lag, "{shown:?}");
            assert_eq!(shown.reached, last.map(|fetch| fetch.offset));
        }
    }
}
