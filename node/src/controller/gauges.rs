//! What the controller tells at each scrape: the cluster as this node knows it, and its part of the quorum.
//!
//! Owns nothing. It must never wait: a scrape is answered from what is known.

use std::sync::Arc;

use headwater_protocol::ids::NodeId;

use super::health::{self, Counts};
use super::raft::{Quorum, QuorumState};
use crate::config::BrokerConfig;
use crate::metadata::{Image, NodeState, View};
use crate::telemetry::metrics::Scrape;
use crate::telemetry::{Metrics, names};

/// Has `metrics` ask at each scrape.
pub(super) fn describe(metrics: &Metrics, me: NodeId, quorum: Quorum, known: View, broker: BrokerConfig) {
    metrics.on_scrape(move |scrape| {
        let image = known.image();
        let broker = broker.with_cluster(Arc::clone(&image.broker_configs));
        cluster(scrape, &image, &broker);
        of_quorum(scrape, &quorum.state(), me);
    });
}

fn cluster(scrape: &mut Scrape, image: &Image, broker: &BrokerConfig) {
    for (state, name) in [
        (NodeState::Active, "active"),
        (NodeState::Fenced, "fenced"),
        (NodeState::ShuttingDown, "shutting-down"),
    ] {
        let nodes = image.nodes.values().filter(|node| node.state == state);
        scrape.value(&names::CLUSTER_NODES, &[name], nodes.count() as u64);
    }
    let mut counts = Counts::default();
    health::examine(image, broker).for_each(|partition| counts.add(partition.ailments));
    for (family, count) in [
        (&names::CLUSTER_PARTITIONS, counts.partitions),
        (&names::CLUSTER_PARTITIONS_LEADERLESS, counts.leaderless),
        (&names::CLUSTER_PARTITIONS_UNDER_MIN_ISR, counts.under_min_in_sync),
        (&names::CLUSTER_PARTITIONS_AT_MIN_ISR, counts.at_min_in_sync),
        (
            &names::CLUSTER_PARTITIONS_UNDER_REPLICATED,
            counts.under_replicated,
        ),
        (&names::CLUSTER_PARTITIONS_MOVING, counts.moving),
    ] {
        scrape.value(family, &[], count as u64);
    }
}

fn of_quorum(scrape: &mut Scrape, state: &QuorumState, me: NodeId) {
    let leads = state.leader == Some(me);
    scrape.value(&names::CONTROLLER_ACTIVE, &[], u64::from(leads));
    scrape.value(&names::QUORUM_TERM, &[], state.term);
    scrape.value(&names::QUORUM_VOTERS, &[], state.voters.len() as u64);
    scrape.value(&names::QUORUM_OBSERVERS, &[], state.observers.len() as u64);
    let others = state.addresses.keys().filter(|node| leads && **node != me);
    for node in others {
        if let Some(lag) = state.lag(*node) {
            scrape.value(&names::QUORUM_LAG, &[&node.to_string()], lag);
        }
    }
}
