//! Who leads, and who is in sync: changes of leadership, the fetches of the replicas, proposals of the leader.

use super::super::command::Configure;
use super::super::error::{AppendError, TicketError};
use super::super::in_sync::{InSyncChange, InSyncRefused, InSyncSets, Proposing};
use super::super::open;
use super::super::shared::Live;
use super::super::state::{Role, Rules};
use super::{Actor, refused};
use crate::log;
use crate::metadata::PartitionState;
use crate::sys::clock::Clock;
use crate::sys::random::Random;
use headwater_protocol::ids::NodeId;
use std::sync::Arc;
use std::time::Duration;

/// After a proposal was refused, the next one waits as long: the metadata says meanwhile what has changed.
const PROPOSE_AGAIN: Duration = Duration::from_millis(500);
/// How long a proposal whose outcome is not known waits before it is made again, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How soon a reign is begun again that a full disk has put off.
const REIGN_AGAIN: Duration = Duration::from_secs(1);

impl Actor {
    /// Takes over what the metadata says now.
    pub(super) async fn configure(&mut self, configure: Configure) {
        let Configure {
            config,
            leadership,
            mirror,
        } = configure;
        let now = self.shared.means.clock.now();
        let before = (self.state.role(), self.state.leader_epoch());
        self.state.lead(leadership, now);
        self.state
            .set_rules(Rules::of(&config, self.shared.means.replica_lag_max));
        let after = (self.state.role(), self.state.leader_epoch());
        if before.0 == Role::Leader && after.0 != Role::Leader {
            self.fail_waiters(&TicketError::NotLeader);
        }
        if before != after {
            self.fail_following();
        }
        if let Some(log) = &mut self.log {
            log.configure(log::Config::of_topic(&config));
        }
        if before != after {
            self.reign_due = None;
            if after.0 == Role::Leader {
                self.begin_reign().await;
            }
        }
        let old = self.shared.live.load_full();
        self.shared.live.store(Arc::new(Live {
            config,
            mirror: mirror.map(Arc::from),
            ..Live::clone(&old)
        }));
        self.show_leadership();
        let marks = self.state.watermarks();
        if marks.synced < marks.log_end {
            // What was cached is to be committed by syncs from now on, or the other way round.
            self.flush();
        }
        self.publish();
        self.answer_waiters();
        self.answer_following();
        if before != after {
            self.store_high_watermark();
        }
    }

    /// Notes the epoch before anybody is served in it. On a full disk the reign waits for room.
    pub(super) async fn begin_reign(&mut self) {
        let epoch = self.state.leader_epoch();
        let is_replicated = self.state.leadership().replicas.len() > 1;
        let begin = move |log: &mut log::Log| open::begin_reign(log, epoch, is_replicated);
        let begun = if is_replicated {
            self.with_log("begin epoch", begin).await
        } else {
            self.log.as_mut().map(begin)
        };
        self.reign_due = None;
        match begun.map_or(Ok(()), |begun| begun.map_err(refused)) {
            Ok(()) => {}
            Err(AppendError::DiskFull) => {
                self.set_disk_full(true);
                self.reign_due = Some(self.shared.means.clock.now() + REIGN_AGAIN);
            }
            Err(error) => self.go_offline(error.to_string()),
        }
    }

    /// Tries again what a full disk has put off.
    pub(super) async fn resume_reign(&mut self) {
        self.begin_reign().await;
        if self.reign_due.is_none() {
            self.set_disk_full(false);
            self.show_leadership();
            self.publish();
        }
    }

    /// Shows everybody who leads now and who is in sync.
    pub(super) fn show_leadership(&mut self) {
        let old = self.shared.live.load_full();
        self.count_in_sync(&old.leadership.isr);
        self.shared.live.store(Arc::new(Live {
            leader_epoch: self.state.leader_epoch(),
            is_leader: self.state.is_leader() && self.reign_due.is_none(),
            leadership: Arc::new(self.state.leadership().clone()),
            epoch_start: self.state.epoch_start(),
            ..Live::clone(&old)
        }));
        if *old.leadership != *self.state.leadership() {
            // Whoever waits for the watermarks is served otherwise by now, or by somebody else.
            self.watermarks.send_modify(|_| ());
        }
        if !self.state.has_proposal() {
            self.proposal = None;
        }
        if self.state.is_leader() && !self.state.has_enough_in_sync() {
            self.answer_waiters();
            self.fail_waiters(&TicketError::NotEnoughReplicas);
        }
    }

    /// Counts what became of the in-sync set since it was `before`: one that went and one that came in the same change
    /// are both counted.
    fn count_in_sync(&self, before: &[NodeId]) {
        if !self.state.is_leader() {
            return;
        }
        let now = &self.state.leadership().isr;
        if before.iter().any(|node| !now.contains(node)) {
            self.shared.means.isr_shrinks.increment();
        }
        if now.iter().any(|node| !before.contains(node)) {
            self.shared.means.isr_expands.increment();
        }
    }

    /// Takes over how far the replicas have fetched.
    pub(super) fn on_reports(&mut self) {
        let reports = self.reports.borrow_and_update().clone();
        if !self.state.is_leader() {
            return;
        }
        let image = self.shared.means.view.image();
        for fetch in reports.into_values() {
            let may_join = image
                .nodes
                .get(&fetch.replica)
                .is_some_and(|node| node.is_active() && fetch.broker_epoch == Some(node.epoch));
            self.state.replica_fetched(fetch, may_join);
        }
        self.change_in_sync();
        self.publish();
        self.answer_waiters();
    }

    /// Looks whether somebody does not keep up any more.
    pub(super) fn review(&mut self) {
        // Fetches that brought nothing new still say that somebody is there.
        self.on_reports();
        if self.state.is_leader() {
            self.state.give_up_slow(self.shared.means.clock.now());
            self.publish();
            self.answer_waiters();
        }
    }

    fn change_in_sync(&mut self) {
        let means = &self.shared.means;
        let now = means.clock.now();
        if self.quiet_until.is_some_and(|until| now < until) || self.shared.live.load().offline.is_some() {
            return;
        }
        let Some(in_sync) = self.state.in_sync_wanted(now) else {
            return;
        };
        let (from, to) = (names(&self.state.leadership().isr), names(&in_sync));
        tracing::info!(partition = %self.shared.name, from, to, "the in-sync set is to change");
        let leadership = self.state.leadership();
        let (leader_epoch, partition_epoch) = (leadership.leader_epoch, leadership.partition_epoch);
        let change = InSyncChange {
            topic: self.shared.name.topic_id,
            index: self.shared.name.index,
            leader: leadership.leader,
            leader_epoch,
            partition_epoch,
            in_sync: self.state.propose(in_sync),
        };
        let (sets, clock) = (Arc::clone(&means.in_sync_sets), means.clock.clone());
        self.proposal = Some(propose(sets, change, clock, means.random.clone()));
    }

    /// The answer to a proposal.
    pub(super) fn on_proposed(&mut self, outcome: Result<PartitionState, InSyncRefused>) {
        self.proposal = None;
        let now = self.shared.means.clock.now();
        match outcome {
            Ok(leadership) => {
                let in_sync = names(&leadership.isr);
                // In another reign there is no proposal left to be answered.
                if leadership.leader_epoch == self.state.leader_epoch() && self.state.lead(leadership, now) {
                    tracing::info!(partition = %self.shared.name, in_sync, "the in-sync set has changed");
                }
                self.state.drop_proposal();
            }
            Err(refused) => {
                tracing::info!(partition = %self.shared.name, %refused, "the in-sync set stays");
                self.state.drop_proposal();
                self.quiet_until = Some(now + PROPOSE_AGAIN);
            }
        }
        self.show_leadership();
        self.publish();
        self.answer_waiters();
    }
}

/// Asks until there is an answer.
fn propose(sets: Arc<dyn InSyncSets>, change: InSyncChange, clock: Clock, random: Random) -> Proposing {
    Box::pin(async move {
        let mut pause = RETRY_MIN;
        loop {
            match sets.propose(change.clone()).await {
                Err(InSyncRefused::Unknown(reason)) => {
                    tracing::debug!(topic = %change.topic, index = %change.index, reason, "asking again");
                    let jitter = random.below(1 + pause.as_millis() as u64 / 2);
                    clock.sleep(pause + Duration::from_millis(jitter)).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                answer => return answer,
            }
        }
    })
}

fn names(nodes: &[NodeId]) -> String {
    let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    names.join(",")
}
