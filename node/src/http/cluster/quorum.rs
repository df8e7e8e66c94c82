//! The quorum: who leads it, who votes, and how far each one holds its log.

use axum::Json;
use axum::extract::State;
use headwater_protocol::ids::NodeId;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use crate::controller::QuorumState;

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Quorum {
    /// Who answers: what is said is what this node knows.
    pub node_id: i32,
    /// Null: nobody leads, or this node does not know who does.
    #[schema(required)]
    pub leader: Option<i32>,
    pub term: u64,
    /// The end of this node's log of metadata.
    pub log_end_offset: i64,
    /// The last entry that this node has folded.
    pub applied_offset: i64,
    /// Why the quorum works no more on this node.
    #[schema(required)]
    pub failed: Option<String>,
    /// By id.
    pub members: Vec<QuorumMember>,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::http) struct QuorumMember {
    pub id: i32,
    pub role: QuorumRole,
    /// How far it holds the log; null: only the leader of the quorum knows, and this node is another one.
    #[schema(required)]
    pub log_end_offset: Option<i64>,
    /// Entries that the leader has and it has not; null as above.
    #[schema(required)]
    pub lag: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum QuorumRole {
    Voter,
    /// It holds the log without a vote.
    Observer,
}

#[utoipa::path(get, path = "/api/v1/cluster/quorum", tag = "cluster", responses((status = 200, body = Quorum)))]
pub(in crate::http) async fn quorum(State(api): State<Api>) -> Json<Quorum> {
    let state = api.controller.quorum();
    let me = api.config.node_id;
    Json(Quorum {
        node_id: me.0,
        leader: state.leader.map(|leader| leader.0),
        term: state.term,
        log_end_offset: state.log_end.0,
        applied_offset: state.applied.0,
        members: members(&state, me),
        failed: state.failed,
    })
}

/// A node knows its own log; the leader also those of the others, and its own lacks nothing.
fn members(state: &QuorumState, me: NodeId) -> Vec<QuorumMember> {
    let leads = state.leader == Some(me);
    let mut members: Vec<NodeId> = state.voters.union(&state.observers).copied().collect();
    members.sort();
    let member = |id: NodeId| QuorumMember {
        id: id.0,
        role: if state.voters.contains(&id) {
            QuorumRole::Voter
        } else {
            QuorumRole::Observer
        },
        log_end_offset: if id == me {
            Some(state.log_end.0)
        } else {
            state.reached.get(&id).map(|reached| reached.0)
        },
        lag: if id == me {
            leads.then_some(0)
        } else {
            state.lag(id)
        },
    };
    members.into_iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_protocol::ids::Offset;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn only_the_leader_knows_how_far_the_others_are() {
        let leader = QuorumState {
            leader: Some(NodeId(1)),
            voters: BTreeSet::from([1, 2].map(NodeId)),
            observers: BTreeSet::from([NodeId(3)]),
            reached: BTreeMap::from([(NodeId(2), Offset(10)), (NodeId(3), Offset(7))]),
            log_end: Offset(10),
            ..QuorumState::default()
        };
        let shown = |state: &QuorumState, me| {
            let members = members(state, NodeId(me)).into_iter();
            members
                .map(|it| (it.id, it.role, it.log_end_offset, it.lag))
                .collect::<Vec<_>>()
        };
        let (voter, observer) = (QuorumRole::Voter, QuorumRole::Observer);
        assert_eq!(
            shown(&leader, 1),
            [
                (1, voter, Some(10), Some(0)),
                (2, voter, Some(10), Some(0)),
                (3, observer, Some(7), Some(3)),
            ]
        );
        let follower = QuorumState {
            reached: BTreeMap::new(),
            ..leader
        };
        assert_eq!(
            shown(&follower, 2),
            [
                (1, voter, None, None),
                (2, voter, Some(10), None),
                (3, observer, None, None),
            ]
        );
    }
}
