//! Moving replicas: those that are added catch up first, then those that are to go leave. Pure.

use crate::metadata::PartitionState;

/// Ends a reassignment whose new replicas are all in sync: what was to be removed goes, unless it leads, in which case
/// the first replica that stays and is in sync takes over.
pub(super) fn finish(next: &mut PartitionState) {
    let is_moving = !next.adding.is_empty() || !next.removing.is_empty();
    if !is_moving || !next.adding.iter().all(|added| next.isr.contains(added)) {
        return;
    }
    let stays = |node: &headwater_protocol::ids::NodeId| !next.removing.contains(node);
    let replicas: Vec<_> = next.replicas.iter().copied().filter(stays).collect();
    let isr: Vec<_> = next.isr.iter().copied().filter(stays).collect();
    let Some(successor) = replicas.iter().copied().find(|replica| isr.contains(replica)) else {
        // Nobody who stays is in sync yet.
        return;
    };
    if !isr.contains(&next.leader) {
        next.leader = successor;
        next.leader_epoch = (next.leader_epoch.value() + 1).into();
    }
    let eligible = next.eligible.iter().copied().filter(stays).collect();
    (next.replicas, next.isr, next.eligible) = (replicas, isr, eligible);
    next.adding.clear();
    next.removing.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_protocol::ids::{LeaderEpoch, NodeId};

    fn nodes(ids: &[i32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn who_is_removed_goes_when_all_who_are_added_are_in_sync() {
        let mut moving = PartitionState {
            leader: NodeId(1),
            leader_epoch: LeaderEpoch(4),
            replicas: nodes(&[3, 4, 1, 2]),
            isr: nodes(&[1, 2, 3]),
            adding: nodes(&[3, 4]),
            removing: nodes(&[1, 2]),
            ..PartitionState::default()
        };
        let before = moving.clone();
        finish(&mut moving);
        assert_eq!(moving, before, "4 is not in sync yet");
        moving.isr.push(NodeId(4));
        finish(&mut moving);
        let expected = PartitionState {
            leader: NodeId(3),
            leader_epoch: LeaderEpoch(5),
            replicas: nodes(&[3, 4]),
            isr: nodes(&[3, 4]),
            ..PartitionState::default()
        };
        assert_eq!(moving, expected);
    }
}
