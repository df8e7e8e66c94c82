//! The watch over the quorum's leader: a process that is gone is replaced at once.
//!
//! Raft waits for a silent leader much longer than a dead one deserves, as it cannot tell them apart; where the leader's
//! host says that the process is gone, this can. It must never shorten the wait for a leader that is only silent: that is
//! Raft's own timeout.
//!
//! Voters are bound to a leader for a while after they heard of it, and refuse others until then. Who stands for election
//! itself is bound no more. So all of them stand, and of those of one term the one with the greatest id is given the votes:
//! it stands last, when the others are free.

use std::time::Duration;

use headwater_protocol::ids::{BrokerEpoch, NodeId};
use tokio_util::sync::CancellationToken;

use super::lifelines::Lifelines;
use super::raft::{Quorum, QuorumState};
use crate::metadata::View;
use crate::sys::Sys;

/// How long after the others the voter with the greatest id stands.
const LAST: Duration = Duration::from_millis(5);
/// When a voter stands again, and how much later than the one before each further one does. Twice as long each time: on a
/// slow machine an election takes its time, and whoever stands again ends the one before.
const AGAIN: Duration = Duration::from_millis(100);
const STAGGER: Duration = Duration::from_millis(60);
/// How often it stands before it leaves the matter to Raft.
const TRIES: u32 = 4;

pub(super) struct Vigil {
    pub(super) me: NodeId,
    pub(super) sys: Sys,
    pub(super) quorum: Quorum,
    pub(super) known: View,
    pub(super) lifelines: Lifelines,
}

impl Vigil {
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = self.watch_over() => {}
        }
    }

    /// Returns when the quorum has ended.
    async fn watch_over(&mut self) {
        let mut watch = self.quorum.watch();
        let mut images = self.known.watch();
        loop {
            let state = watch.state();
            let leader = state.leader;
            let epoch = leader.and_then(|leader| Some(images.borrow_and_update().nodes.get(&leader)?.epoch));
            let place = place(&state, self.me);
            tokio::select! {
                biased;
                is_running = watch.changed() => if !is_running {
                    return;
                },
                _ = images.changed() => {}
                () = gone(&mut self.lifelines, leader, epoch), if place.is_some() => {
                    let (Some(leader), Some(place)) = (leader, place) else { continue };
                    tracing::info!(%leader, "the quorum's leader is gone, this node stands for election");
                    self.stand(leader, place).await;
                }
            }
        }
    }

    /// Stands for election until somebody else than the leader that is gone leads.
    async fn stand(&self, gone: NodeId, place: Place) {
        let mut rest = if place.is_last { LAST } else { Duration::ZERO };
        let mut voted_for = self.me;
        for doubled in 0..TRIES {
            if self.is_led_within(rest, gone).await {
                return;
            }
            rest = (AGAIN + STAGGER * place.rank) * 2_u32.pow(doubled);
            // Who was given this node's vote since is about to lead, perhaps.
            let before = std::mem::replace(&mut voted_for, self.quorum.voted_for());
            if doubled == 0 || voted_for == self.me || voted_for == before {
                self.quorum.elect().await;
            }
        }
        if !self.is_led_within(rest, gone).await {
            tracing::info!("no leader was elected yet, it is left to the quorum's own timeout");
        }
    }

    async fn is_led_within(&self, patience: Duration, gone: NodeId) -> bool {
        let mut watch = self.quorum.watch();
        let led = async {
            while watch.state().leader.is_none_or(|leader| leader == gone) {
                if !watch.changed().await {
                    return;
                }
            }
        };
        self.sys.clock.timeout(patience, led).await.is_ok()
    }
}

async fn gone(lifelines: &mut Lifelines, leader: Option<NodeId>, epoch: Option<BrokerEpoch>) {
    match (leader, epoch) {
        (Some(leader), Some(epoch)) => lifelines.until_gone(leader, epoch).await,
        _ => std::future::pending().await,
    }
}

/// Where a voter stands among those that are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// How many have a smaller id.
    rank: u32,
    is_last: bool,
}

/// None where this node does not vote, or leads itself, or nobody does.
fn place(state: &QuorumState, me: NodeId) -> Option<Place> {
    let leader = state.leader.filter(|leader| *leader != me)?;
    if !state.voters.contains(&me) {
        return None;
    }
    let others = || state.voters.iter().filter(|voter| **voter != leader);
    let rank = others().filter(|voter| **voter < me).count();
    Some(Place {
        rank: u32::try_from(rank).unwrap_or(0),
        is_last: others().next_back() == Some(&me),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_voter_with_the_greatest_id_of_those_left_stands_last() {
        let state = |leader: Option<i32>| QuorumState {
            leader: leader.map(NodeId),
            voters: [1, 2, 3].map(NodeId).into(),
            ..QuorumState::default()
        };
        let place = |leader, me| {
            let place = place(&state(leader), NodeId(me))?;
            Some((place.rank, place.is_last))
        };
        assert_eq!(place(Some(2), 1), Some((0, false)));
        assert_eq!(place(Some(2), 3), Some((1, true)));
        assert_eq!(place(Some(3), 2), Some((1, true)));
        assert_eq!(place(Some(2), 2), None, "it leads itself");
        assert_eq!(place(None, 1), None);
        assert_eq!(place(Some(2), 4), None, "it does not vote");
    }
}
