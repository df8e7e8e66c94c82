//! What a leader knows of the other replicas: how far each has come, and since when it keeps up. Pure.
//!
//! Owns the rule of who keeps up. It never decides who is in the in-sync set; that is the cluster's.

use headwater_protocol::ids::{BrokerEpoch, LeaderEpoch, NodeId, Offset};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A replica's fetch, as its leader took it: everything below `offset` is on the replica's disk (or in its log, where
/// the topic caches writes), and is the same there as here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaFetch {
    pub replica: NodeId,
    /// The incarnation that fetched; None: it did not say.
    pub broker_epoch: Option<BrokerEpoch>,
    /// The leader's epoch in which the histories were compared.
    pub leader_epoch: LeaderEpoch,
    pub offset: Offset,
    /// Where the replica's log starts; -1: it did not say.
    pub log_start: Offset,
    /// The leader's log end when it was asked.
    pub log_end: Offset,
    pub at: Instant,
}

impl ReplicaFetch {
    /// Whether it says something that can change a decision, after `known`.
    pub(super) fn is_news_after(&self, known: &Self) -> bool {
        self.offset != known.offset
            || self.leader_epoch != known.leader_epoch
            || self.broker_epoch != known.broker_epoch
    }
}

/// One other replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Follower {
    last: Option<ReplicaFetch>,
    /// When it last had all that the leader had.
    caught_up_at: Option<Instant>,
    /// It keeps up and may join: the watermark waits for it, or it would never catch a moving one.
    joining: bool,
    /// It kept up at its last fetch, when the cluster did not take it yet: it joins as soon as the cluster does, even if it
    /// has nothing new to say.
    refused: bool,
}

impl Follower {
    fn has_all(&self, log_end: Offset) -> bool {
        self.last.is_some_and(|last| last.offset >= log_end)
    }

    fn keeps_up(&self, log_end: Offset, now: Instant, lag_max: Duration) -> bool {
        let is_recent = |at| now.saturating_duration_since(at) <= lag_max;
        self.has_all(log_end) || self.caught_up_at.is_some_and(is_recent)
    }
}

/// All other replicas of one reign.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Followers {
    known: BTreeMap<NodeId, Follower>,
}

impl Followers {
    /// A new reign: nobody has fetched in it. Those in sync are given time to.
    pub(super) fn begin(in_sync: &[NodeId], now: Instant) -> Self {
        let fresh = Follower {
            last: None,
            caught_up_at: Some(now),
            joining: false,
            refused: false,
        };
        Self {
            known: in_sync.iter().map(|node| (*node, fresh)).collect(),
        }
    }

    /// Takes a fetch over. `may_join`: the cluster takes that incarnation for one that may be in sync.
    pub(super) fn fetched(&mut self, fetch: ReplicaFetch, lag_max: Duration, may_join: bool) {
        let follower = self.known.entry(fetch.replica).or_insert(Follower {
            last: None,
            caught_up_at: None,
            joining: false,
            refused: false,
        });
        if follower.last == Some(fetch) {
            // Nothing new of the replica itself, but the cluster may take it now, or not any more.
            let kept_up = follower.joining || follower.refused;
            (follower.joining, follower.refused) = (may_join && kept_up, !may_join && kept_up);
            return;
        }
        let before = follower.last.filter(|last| last.at <= fetch.at);
        if fetch.offset >= fetch.log_end {
            follower.caught_up_at = follower.caught_up_at.max(Some(fetch.at));
        } else if let Some(before) = before
            && fetch.offset >= before.log_end
        {
            // By now it has all that was there when it asked before.
            follower.caught_up_at = follower.caught_up_at.max(Some(before.at));
        }
        follower.last = Some(fetch);
        let keeps_up = follower
            .caught_up_at
            .is_some_and(|at| fetch.at.duration_since(at) <= lag_max);
        follower.joining = may_join && keeps_up;
        follower.refused = keeps_up && !may_join;
    }

    /// The leader's log grows beyond `log_end`: those who had all of it lack something from now on, and not since they
    /// fetched last. A replica of a partition that does not move has nothing to say for as long.
    pub(super) fn outrun(&mut self, log_end: Offset, now: Instant) {
        for follower in self.known.values_mut() {
            if follower.has_all(log_end) {
                follower.caught_up_at = follower.caught_up_at.max(Some(now));
            }
        }
    }

    /// How far a replica is known to be in this reign.
    pub(super) fn offset(&self, node: NodeId) -> Option<Offset> {
        self.known.get(&node)?.last.map(|last| last.offset)
    }

    pub(super) fn broker_epoch(&self, node: NodeId) -> Option<BrokerEpoch> {
        self.known.get(&node)?.last?.broker_epoch
    }

    /// The lowest offset of those the watermark waits for although they are not in sync yet.
    pub(super) fn joining(&self) -> impl Iterator<Item = (NodeId, Offset)> {
        let joining = self.known.iter().filter(|(_, follower)| follower.joining);
        joining.filter_map(|(node, follower)| Some((*node, follower.last?.offset)))
    }

    pub(super) fn is_joining(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|follower| follower.joining)
    }

    /// Whether a replica has all there is, or had it not longer than `lag_max` ago.
    pub(super) fn keeps_up(&self, node: NodeId, log_end: Offset, now: Instant, lag_max: Duration) -> bool {
        let Some(follower) = self.known.get(&node) else {
            return false;
        };
        follower.keeps_up(log_end, now, lag_max)
    }

    /// Nobody waits any longer for those who do not keep up.
    pub(super) fn give_up_slow(&mut self, log_end: Offset, now: Instant, lag_max: Duration) {
        for follower in self.known.values_mut() {
            let keeps_up = follower.keeps_up(log_end, now, lag_max);
            follower.joining &= keeps_up;
            follower.refused &= keeps_up;
        }
    }

    /// Forgets all that `keep` does not name.
    pub(super) fn retain(&mut self, keep: &[NodeId]) {
        self.known.retain(|node, _| keep.contains(node));
    }

    /// Who left the in-sync set is waited for only when it fetches again.
    pub(super) fn left(&mut self, node: NodeId) {
        if let Some(follower) = self.known.get_mut(&node) {
            (follower.joining, follower.refused) = (false, false);
        }
    }

    /// Somebody who comes into the in-sync set is given time to fetch.
    pub(super) fn welcome(&mut self, node: NodeId, now: Instant) {
        self.known.entry(node).or_insert(Follower {
            last: None,
            caught_up_at: Some(now),
            joining: false,
            refused: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(10);

    fn fetch(offset: i64, log_end: i64, at: Instant) -> ReplicaFetch {
        ReplicaFetch {
            replica: NodeId(2),
            broker_epoch: Some(BrokerEpoch(1)),
            leader_epoch: LeaderEpoch(0),
            offset: Offset(offset),
            log_start: Offset(0),
            log_end: Offset(log_end),
            at,
        }
    }

    #[test]
    fn a_replica_with_nothing_new_joins_when_the_cluster_takes_it() {
        let now = crate::sys::clock::Clock::manual(0).now();
        let mut followers = Followers::begin(&[], now);
        followers.fetched(fetch(10, 10, now), LAG, false);
        assert!(!followers.is_joining(NodeId(2)), "it is fenced");
        followers.fetched(fetch(10, 10, now), LAG, true);
        assert!(followers.is_joining(NodeId(2)));
        followers.fetched(fetch(10, 10, now), LAG, false);
        assert!(!followers.is_joining(NodeId(2)), "it is fenced again");
        followers.fetched(fetch(10, 10, now), LAG, true);
        assert!(followers.is_joining(NodeId(2)));
        // Once it has left, its last fetch is no reason to wait for it.
        followers.left(NodeId(2));
        followers.fetched(fetch(10, 10, now), LAG, true);
        assert!(!followers.is_joining(NodeId(2)));
    }

    #[test]
    fn a_replica_keeps_up_while_it_reaches_what_was_there_a_moment_ago() {
        let start = crate::sys::clock::Clock::manual(0).now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut followers = Followers::begin(&[], start);
        // The leader's log grows all the time: the replica is behind at each fetch, by less than one round.
        for round in 0..30 {
            let behind = round as i64 * 10;
            followers.fetched(fetch(behind, behind + 10, at(round)), LAG, true);
        }
        assert!(followers.keeps_up(NodeId(2), Offset(300), at(29), LAG));
        assert!(followers.is_joining(NodeId(2)));
        // It was level with the leader's end of second 28, and is silent since 29.
        assert!(followers.keeps_up(NodeId(2), Offset(300), at(38), LAG));
        assert!(!followers.keeps_up(NodeId(2), Offset(300), at(39), LAG));
        followers.give_up_slow(Offset(300), at(39), LAG);
        assert!(!followers.is_joining(NodeId(2)));
        // One that has everything is never slow.
        assert!(followers.keeps_up(NodeId(2), Offset(290), at(1000), LAG));
    }

    #[test]
    fn a_replica_that_had_everything_lacks_it_from_the_append_on() {
        let start = crate::sys::clock::Clock::manual(0).now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut followers = Followers::begin(&[], start);
        followers.fetched(fetch(10, 10, start), LAG, true);
        // For an hour nothing is appended, and the replica has nothing to say of the partition.
        followers.give_up_slow(Offset(10), at(3600), LAG);
        assert!(followers.is_joining(NodeId(2)));
        followers.outrun(Offset(10), at(3600));
        assert!(followers.keeps_up(NodeId(2), Offset(11), at(3610), LAG));
        // What comes next gives it no more time.
        followers.outrun(Offset(11), at(3605));
        assert!(!followers.keeps_up(NodeId(2), Offset(12), at(3611), LAG));
    }

    #[test]
    fn one_far_behind_is_not_waited_for() {
        let start = crate::sys::clock::Clock::manual(0).now();
        let mut followers = Followers::begin(&[], start);
        followers.fetched(fetch(0, 1000, start), LAG, true);
        assert!(!followers.is_joining(NodeId(2)));
        assert!(!followers.keeps_up(NodeId(2), Offset(1000), start, LAG));
        followers.fetched(fetch(1000, 1500, start + LAG / 2), LAG, true);
        assert!(followers.is_joining(NodeId(2)));
        followers.fetched(fetch(1200, 1500, start + LAG / 2), LAG, false);
        assert!(!followers.is_joining(NodeId(2)), "the cluster does not want it");
    }
}
