//! How the cluster is: who takes part, and which partitions lack what, as this node's metadata has it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, look};
use crate::config::BrokerConfig;
use crate::controller::health::{Ailments, Condition, Counts, Examined, examine};
use crate::http::error::{ApiError, ErrorBody};
use crate::metadata::{Image, NodeState};

/// Partitions that a list names.
const NAMED_MAX: usize = 50;

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ClusterHealth {
    pub state: HealthState,
    /// The node that leads the quorum; null: nobody does, or this node does not know.
    #[schema(required)]
    pub controller_id: Option<i32>,
    pub nodes: NodeCounts,
    pub partitions: u64,
    /// Nobody leads them who takes part: they can neither be written nor read.
    pub leaderless: Affected,
    /// Fewer replicas are in sync than `min.insync.replicas`: nothing more is committed.
    pub under_min_isr: Affected,
    /// Of several replicas, of which `min.insync.replicas` are in sync and no more.
    pub at_min_isr: Affected,
    /// A replica is out of sync.
    pub under_replicated: Affected,
    /// Their replicas are being moved.
    pub moving: Affected,
}

/// Healthy: everybody is there and everything in sync. Failing: something cannot be written, or nobody leads the quorum.
/// Degraded: anything in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum HealthState {
    Healthy,
    Degraded,
    Failing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub(in crate::http) struct NodeCounts {
    pub active: u64,
    pub fenced: u64,
    pub shutting_down: u64,
}

/// How many partitions, and the first of them by name.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::http) struct Affected {
    pub count: u64,
    pub first: Vec<PartitionPlace>,
}

/// A partition by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::http) struct PartitionPlace {
    pub topic: String,
    pub partition: i32,
}

impl PartitionPlace {
    pub(super) fn of(examined: &Examined<'_>) -> Self {
        Self {
            topic: examined.topic.name.to_string(),
            partition: examined.index.0,
        }
    }
}

/// How a partition is, by the worst that holds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::http) enum PartitionCondition {
    Healthy,
    UnderReplicated,
    UnderMinIsr,
    Leaderless,
}

impl From<Ailments> for PartitionCondition {
    fn from(ailments: Ailments) -> Self {
        match ailments.worst() {
            Condition::Healthy => Self::Healthy,
            Condition::UnderReplicated => Self::UnderReplicated,
            Condition::UnderMinInSync => Self::UnderMinIsr,
            Condition::Leaderless => Self::Leaderless,
        }
    }
}

#[utoipa::path(
    get, path = "/api/v1/cluster/health", tag = "cluster",
    responses((status = 200, body = ClusterHealth), (status = 503, body = ErrorBody))
)]
pub(in crate::http) async fn health(State(api): State<Api>) -> Result<Json<ClusterHealth>, ApiError> {
    let controller_id = api.controller.quorum().leader.map(|leader| leader.0);
    let work = move |image: &Image, broker: &BrokerConfig| examined(image, broker, controller_id);
    look(&api, work).await.map(Json)
}

fn examined(image: &Image, broker: &BrokerConfig, controller_id: Option<i32>) -> ClusterHealth {
    let mut nodes = NodeCounts::default();
    for node in image.nodes.values() {
        match node.state {
            NodeState::Active => nodes.active += 1,
            NodeState::Fenced => nodes.fenced += 1,
            NodeState::ShuttingDown => nodes.shutting_down += 1,
        }
    }
    let mut counts = Counts::default();
    let mut lists: [Vec<PartitionPlace>; 5] = Default::default();
    for examined in examine(image, broker) {
        let ailments = examined.ailments;
        counts.add(ailments);
        let holds = [
            ailments.is_leaderless,
            ailments.is_under_min_in_sync,
            ailments.is_at_min_in_sync,
            ailments.is_under_replicated,
            ailments.is_moving,
        ];
        for (list, _) in lists.iter_mut().zip(holds).filter(|(_, holds)| *holds) {
            if list.len() < NAMED_MAX {
                list.push(PartitionPlace::of(&examined));
            }
        }
    }
    let affected = |count: usize, first| Affected {
        count: count as u64,
        first,
    };
    let [leaderless, under_min, at_min, under_replicated, moving] = lists;
    ClusterHealth {
        state: state(controller_id, nodes, counts),
        controller_id,
        nodes,
        partitions: counts.partitions as u64,
        leaderless: affected(counts.leaderless, leaderless),
        under_min_isr: affected(counts.under_min_in_sync, under_min),
        at_min_isr: affected(counts.at_min_in_sync, at_min),
        under_replicated: affected(counts.under_replicated, under_replicated),
        moving: affected(counts.moving, moving),
    }
}

fn state(controller_id: Option<i32>, nodes: NodeCounts, counts: Counts) -> HealthState {
    if controller_id.is_none() || counts.leaderless > 0 || counts.under_min_in_sync > 0 {
        HealthState::Failing
    } else if nodes.fenced > 0 || nodes.shutting_down > 0 || counts.under_replicated > 0 {
        HealthState::Degraded
    } else {
        HealthState::Healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_as_well_as_its_worst_part() {
        let whole = NodeCounts {
            active: 3,
            ..NodeCounts::default()
        };
        let fenced = NodeCounts { fenced: 1, ..whole };
        let counts = Counts::default();
        let leaderless = Counts {
            leaderless: 1,
            ..counts
        };
        let under_min = Counts {
            under_min_in_sync: 1,
            ..counts
        };
        let under_replicated = Counts {
            under_replicated: 1,
            ..counts
        };
        let (at_min, moving) = (
            Counts {
                at_min_in_sync: 1,
                ..counts
            },
            Counts { moving: 1, ..counts },
        );
        for (controller, nodes, counts, expected) in [
            (Some(1), whole, counts, HealthState::Healthy),
            (Some(1), whole, at_min, HealthState::Healthy),
            (Some(1), whole, moving, HealthState::Healthy),
            (Some(1), fenced, counts, HealthState::Degraded),
            (Some(1), whole, under_replicated, HealthState::Degraded),
            (Some(1), fenced, under_min, HealthState::Failing),
            (Some(1), whole, leaderless, HealthState::Failing),
            (None, whole, counts, HealthState::Failing),
        ] {
            assert_eq!(
                state(controller, nodes, counts),
                expected,
                "{controller:?} {nodes:?} {counts:?}"
            );
        }
    }
}
