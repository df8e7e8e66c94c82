//! Who leads a partition, how far each replica is, and what is committed. Pure.
//!
//! Owns the watermark rules; time and progress are arguments, what follows is returned.

use super::error::EpochError;
use super::followers::{Followers, ReplicaFetch};
use super::in_sync::Member;
use super::request::Watermarks;
use crate::config::TopicConfig;
use crate::metadata::PartitionState;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset};
use std::time::{Duration, Instant};

/// How far one replica's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub log_end: Offset,
    /// Up to here it survives a power cut.
    pub synced: Offset,
}

/// What a log says of its replica when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub log_start: Offset,
    pub own: Progress,
    /// What was known to be committed: never more than is.
    pub committed: Offset,
    /// The last epoch in the log's history.
    pub epoch: LeaderEpoch,
}

/// The properties that decide what is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub write_caching: bool,
    pub min_in_sync: usize,
    /// How long a replica may lack something before it is not in sync any more.
    pub lag_max: Duration,
}

impl Rules {
    pub fn of(config: &TopicConfig, lag_max: Duration) -> Self {
        Self {
            write_caching: config.write_caching,
            min_in_sync: config.min_insync_replicas,
            lag_max,
        }
    }

    fn committed(self, progress: Progress) -> Offset {
        if self.write_caching {
            progress.log_end
        } else {
            progress.synced
        }
    }
}

/// What this node is to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    /// Nobody leads, or nobody may yet.
    Idle,
}

/// One partition as this node's replica sees it.
///
/// - On the leader, the high watermark is the lowest end of all replicas in sync, those proposed to be and those about
///   to join: the synced end, or the log end where the topic caches writes. It stands while fewer are in sync than
///   `min.insync.replicas` asks for. On a follower it is the leader's, as far as the own log reaches.
/// - It never falls, except by `restarted` and `cut_off`, and never lies below the log start or beyond the log's end.
/// - `synced <= log_end`; the log start may be raised up to the high watermark.
/// - An epoch in which this node led before its log was opened is not led again while others hold replicas: they may
///   have records of it that were lost here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    me: NodeId,
    leadership: PartitionState,
    /// The set that was proposed and may already be in force.
    proposed: Option<Vec<NodeId>>,
    own: Progress,
    followers: Followers,
    /// The last epoch of the log's history when it was opened.
    opened_in: LeaderEpoch,
    /// Where the reign of this leader begins.
    epoch_start: Offset,
    log_start: Offset,
    high_watermark: Offset,
    /// Where the first transaction begins that is not known to have ended for good.
    unstable: Option<Offset>,
    rules: Rules,
}

impl State {
    pub fn new(me: NodeId, leadership: PartitionState, found: Found, rules: Rules, now: Instant) -> Self {
        let end = found.own.log_end;
        let mut state = Self {
            me,
            followers: Followers::begin(&leadership.isr, now),
            leadership,
            proposed: None,
            own: found.own,
            opened_in: found.epoch,
            epoch_start: end,
            log_start: found.log_start,
            high_watermark: found.committed.max(found.log_start).min(end),
            unstable: None,
            rules,
        };
        state.advance();
        state
    }

    pub fn role(&self) -> Role {
        let PartitionState {
            leader,
            leader_epoch,
            ref replicas,
            ..
        } = self.leadership;
        if leader == NodeId::NONE {
            return Role::Idle;
        }
        if leader != self.me {
            return Role::Follower;
        }
        let is_over = leader_epoch < self.opened_in;
        let was_led = leader_epoch == self.opened_in && replicas.len() > 1;
        if is_over || was_led {
            Role::Idle
        } else {
            Role::Leader
        }
    }

    pub fn is_leader(&self) -> bool {
        self.role() == Role::Leader
    }

    pub fn leadership(&self) -> &PartitionState {
        &self.leadership
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leadership.leader_epoch
    }

    pub fn in_sync_count(&self) -> usize {
        self.leadership.isr.len()
    }

    /// Whether `min.insync.replicas` is met.
    pub fn has_enough_in_sync(&self) -> bool {
        self.in_sync_count() >= self.rules.min_in_sync
    }

    /// Where the own reign begins.
    pub fn epoch_start(&self) -> Offset {
        self.epoch_start
    }

    /// Takes over what the metadata, or the answer to a proposal, says. What is older than what is known is not news.
    /// Returns whether it was taken.
    pub fn lead(&mut self, leadership: PartitionState, now: Instant) -> bool {
        let age = |state: &PartitionState| (state.leader_epoch, state.partition_epoch);
        if age(&leadership) < age(&self.leadership) {
            return false;
        }
        if leadership.leader_epoch > self.leadership.leader_epoch {
            self.followers = Followers::begin(&leadership.isr, now);
            self.proposed = None;
            self.epoch_start = self.own.log_end;
        } else if leadership.partition_epoch > self.leadership.partition_epoch {
            // Changes are compared and set: what was proposed is in this one, or can never be any more.
            self.proposed = None;
        }
        self.followers.retain(&leadership.replicas);
        for node in self
            .leadership
            .isr
            .iter()
            .filter(|node| !leadership.isr.contains(node))
        {
            self.followers.left(*node);
        }
        for node in &leadership.isr {
            self.followers.welcome(*node, now);
        }
        self.leadership = leadership;
        self.advance();
        true
    }

    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        self.advance();
    }

    /// The log grew to `end`.
    pub fn appended(&mut self, end: Offset, now: Instant) {
        assert!(
            end >= self.own.log_end,
            "a log grows at its end: {end} after {}",
            self.own.log_end
        );
        if end > self.own.log_end {
            self.followers.outrun(self.own.log_end, now);
        }
        self.own.log_end = end;
        self.advance();
    }

    /// The log is on disk up to `end`.
    pub fn synced(&mut self, end: Offset) {
        assert!(
            end <= self.own.log_end,
            "synced {end} of a log that ends at {}",
            self.own.log_end
        );
        self.own.synced = self.own.synced.max(end);
        self.advance();
    }

    /// How far the own log counts: on disk, or written where the topic caches writes.
    pub fn own_committed(&self) -> Offset {
        self.rules.committed(self.own)
    }

    /// Where the first transaction begins that has no end, or one that may still be lost.
    pub fn set_unstable(&mut self, first: Option<Offset>) {
        self.unstable = first;
    }

    /// Another replica fetched. `may_join`: the cluster takes it for one that may be in sync.
    pub fn replica_fetched(&mut self, fetch: ReplicaFetch, may_join: bool) {
        let is_ours = self.is_leader() && fetch.leader_epoch == self.leader_epoch();
        let is_replica = self.leadership.replicas.contains(&fetch.replica) && fetch.replica != self.me;
        if !is_ours || !is_replica || fetch.offset > self.own.log_end {
            return;
        }
        self.followers.fetched(fetch, self.rules.lag_max, may_join);
        self.advance();
    }

    /// The leader says how far it is committed.
    pub fn leader_committed(&mut self, high_watermark: Offset) {
        if self.role() == Role::Follower {
            self.high_watermark = self.high_watermark.max(high_watermark.min(self.own.log_end));
        }
    }

    /// The in-sync set as it should be, if it should change and nothing is proposed yet: with the replicas that have
    /// caught up, without those that do not keep up.
    pub fn in_sync_wanted(&mut self, now: Instant) -> Option<Vec<NodeId>> {
        if !self.is_leader() || self.proposed.is_some() {
            return None;
        }
        let PartitionState { replicas, isr, .. } = &self.leadership;
        let keeps = |node: &NodeId| {
            *node == self.me
                || self
                    .followers
                    .keeps_up(*node, self.own.log_end, now, self.rules.lag_max)
        };
        let joins = |node: &NodeId| {
            let reached = self.followers.offset(*node);
            let has_all = reached.is_some_and(|at| at >= self.high_watermark && at >= self.epoch_start);
            !isr.contains(node) && has_all && self.followers.is_joining(*node)
        };
        let kept = isr.iter().filter(|node| keeps(node));
        let joining = replicas.iter().filter(|node| joins(node));
        let wanted: Vec<NodeId> = kept.chain(joining).copied().collect();
        (wanted != *isr).then_some(wanted)
    }

    /// Nobody is waited for any longer who does not keep up.
    pub fn give_up_slow(&mut self, now: Instant) {
        self.followers
            .give_up_slow(self.own.log_end, now, self.rules.lag_max);
        self.advance();
    }

    /// `in_sync` is asked for and counts from now on. Returns its members as they are known here.
    pub fn propose(&mut self, in_sync: Vec<NodeId>) -> Vec<Member> {
        let member = |node: &NodeId| Member {
            node: *node,
            broker_epoch: self.followers.broker_epoch(*node),
        };
        let members = in_sync.iter().map(member).collect();
        self.proposed = Some(in_sync);
        members
    }

    /// What was proposed is refused.
    pub fn drop_proposal(&mut self) {
        self.proposed = None;
        self.advance();
    }

    pub fn has_proposal(&self) -> bool {
        self.proposed.is_some()
    }

    /// The records below `start` are gone.
    pub fn trimmed(&mut self, start: Offset) {
        self.log_start = self.log_start.max(start);
        self.high_watermark = self.high_watermark.max(self.log_start);
    }

    /// Everything from `end` on was taken away, as another history won.
    pub fn truncated(&mut self, end: Offset) {
        assert!(
            end >= self.high_watermark,
            "truncated to {end}, below the high watermark {}",
            self.high_watermark
        );
        self.cut_off(end);
    }

    /// As `truncated`, below the watermark if need be: the copy of a source that lost its log.
    pub fn cut_off(&mut self, end: Offset) {
        self.own.log_end = self.own.log_end.min(end);
        self.own.synced = self.own.synced.min(end);
        self.high_watermark = self.high_watermark.min(end);
    }

    /// The log was emptied and begins anew at `offset`.
    pub fn restarted(&mut self, offset: Offset, now: Instant) {
        self.own = Progress {
            log_end: offset,
            synced: offset,
        };
        self.followers = Followers::begin(&self.leadership.isr, now);
        (self.log_start, self.high_watermark, self.epoch_start) = (offset, offset, offset);
    }

    /// Compares the epoch a caller believes in with the one here (KIP-320).
    pub fn check_epoch(&self, asked: Option<LeaderEpoch>) -> Result<(), EpochError> {
        check_epoch(asked, self.leader_epoch())
    }

    pub fn watermarks(&self) -> Watermarks {
        Watermarks {
            log_start: self.log_start,
            high_watermark: self.high_watermark,
            last_stable: self
                .unstable
                .unwrap_or(self.high_watermark)
                .clamp(self.log_start, self.high_watermark),
            log_end: self.own.log_end,
            synced: self.own.synced,
        }
    }

    fn advance(&mut self) {
        if !self.is_leader() {
            return;
        }
        let PartitionState { replicas, isr, .. } = &self.leadership;
        if isr.len() < self.rules.min_in_sync.min(replicas.len()) {
            return;
        }
        let mut lowest = self.own_committed();
        let maximal = isr.iter().chain(self.proposed.iter().flatten());
        for replica in maximal.filter(|replica| **replica != self.me) {
            // A replica that has not been heard of in this reign holds the watermark where it is.
            let Some(reached) = self.followers.offset(*replica) else {
                return;
            };
            lowest = lowest.min(reached);
        }
        for (_, reached) in self.followers.joining() {
            lowest = lowest.min(reached);
        }
        self.high_watermark = self.high_watermark.max(lowest);
        assert!(
            self.high_watermark <= self.own.log_end,
            "high watermark {} beyond the log's end {}",
            self.high_watermark,
            self.own.log_end
        );
    }
}

/// Compares the epoch a caller believes in with the current one (KIP-320). Without one nothing is compared.
pub fn check_epoch(asked: Option<LeaderEpoch>, current: LeaderEpoch) -> Result<(), EpochError> {
    match asked {
        Some(asked) if asked < current => Err(EpochError::Fenced { asked, current }),
        Some(asked) if asked > current => Err(EpochError::Unknown { asked, current }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
