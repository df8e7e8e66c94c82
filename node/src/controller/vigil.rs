//! The watch over the quorum's leader: a process that was killed is replaced as soon as the others may vote.
//!
//! Raft waits for a silent leader much longer than a dead one deserves, as it cannot tell them apart; where the leader's
//! host says that nobody listens there any more, this can. It must never shorten the wait for a leader that is only silent:
//! that is Raft's own timeout.

use std::time::{Duration, Instant};

use headwater_protocol::ids::NodeId;
use tokio_util::sync::CancellationToken;

use super::probe;
use super::raft::{Quorum, QuorumState, Timing};
use crate::metadata::View;
use crate::sys::Sys;

/// Heartbeats that are missed before the leader's host is asked.
const MISSED: u32 = 3;
/// How much later than the first each further voter stands, so that one of them gets all the votes.
const STAGGER: Duration = Duration::from_millis(40);
/// Added to the time in which voters are bound to their leader.
const SLACK: Duration = Duration::from_millis(10);

pub(super) struct Vigil {
    pub(super) me: NodeId,
    pub(super) sys: Sys,
    pub(super) quorum: Quorum,
    pub(super) known: View,
    pub(super) timing: Timing,
}

impl Vigil {
    pub(super) async fn run(self, cancel: CancellationToken) {
        let mut led = self.quorum.led();
        loop {
            // Nothing was heard of a leader since the last one that was looked at: there is nobody to watch over.
            let is_led = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = led.changed() => changed.is_ok(),
            };
            if !is_led {
                return;
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = self.watch_over(&mut led) => {}
            }
        }
    }

    /// Returns when the leader was silent for so long that its host was asked, and what follows from that is done.
    async fn watch_over(&self, led: &mut tokio::sync::watch::Receiver<Instant>) {
        let patience = Duration::from_millis(self.timing.heartbeat_ms) * MISSED;
        let last = loop {
            let last = *led.borrow_and_update();
            self.sys.clock.sleep_until(last + patience).await;
            if *led.borrow() == last {
                break last;
            }
        };
        let Some((leader, rank)) = leader_and_rank(&self.quorum.state(), self.me) else {
            return;
        };
        let Some(node) = self.known.image().nodes.get(&leader).cloned() else {
            return;
        };
        // Voters are bound to a leader for the longest of their timeouts.
        let bound = Duration::from_millis(2 * self.timing.election_timeout_ms);
        if probe::is_gone(self.sys.clone(), node, bound).await.is_none() {
            return;
        }
        self.sys
            .clock
            .sleep_until(last + bound + SLACK + STAGGER * rank)
            .await;
        if *led.borrow() == last && self.quorum.state().leader == Some(leader) {
            tracing::info!(%leader, "nobody listens where the quorum's leader did, this node stands for election");
            self.quorum.elect().await;
        }
    }
}

/// The leader, where it is another node and this one votes; and how many voters with a smaller number stand first.
fn leader_and_rank(state: &QuorumState, me: NodeId) -> Option<(NodeId, u32)> {
    let leader = state.leader.filter(|leader| *leader != me)?;
    if !state.voters.contains(&me) {
        return None;
    }
    let before = state
        .voters
        .iter()
        .filter(|voter| **voter != leader && **voter < me);
    Some((leader, u32::try_from(before.count()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_voters_that_are_left_stand_one_after_the_other() {
        let state = |leader: Option<i32>| QuorumState {
            leader: leader.map(NodeId),
            voters: [1, 2, 3].map(NodeId).into(),
            ..QuorumState::default()
        };
        let rank = |leader, me| leader_and_rank(&state(leader), NodeId(me));
        assert_eq!(rank(Some(2), 1), Some((NodeId(2), 0)));
        assert_eq!(rank(Some(2), 3), Some((NodeId(2), 1)));
        assert_eq!(rank(Some(2), 2), None, "it leads itself");
        assert_eq!(rank(None, 1), None);
        assert_eq!(rank(Some(2), 4), None, "it does not vote");
    }
}
