//! Random histories: nodes that crash, ways that are cut, elections, sets that shrink and grow, an idempotent producer
//! that sends again what it got no answer for. In the end every record is there once, in order, at the offset that was
//! acknowledged, and all replicas are the same to the byte.

use super::cluster::{ALL, Pace};
use super::*;
use crate::metadata::PartitionState;
use crate::partition::Pending;
use crate::sys::random::Random;
use crate::sys::task::Blocking;
use headwater_protocol::ids::{LeaderEpoch, NodeId};
use std::collections::VecDeque;
use std::time::Duration;

const NODES: i32 = 3;
/// Faults take a while to be noticed; nobody measures here.
const FAST: Pace = Pace {
    step: Duration::from_millis(10),
    lag_max_ms: 1000,
    blocking: Blocking::Inline,
};

/// One idempotent client, which finds the leader by the quorum's word.
struct Client {
    next: i32,
    /// First sequence, records, the answer on its way.
    unacknowledged: VecDeque<(i32, usize, Option<Pending>)>,
    acknowledged: Vec<(i32, i64)>,
    /// The reign in which it sent last.
    sent_in: LeaderEpoch,
}

impl Client {
    async fn send(&mut self, cluster: &Cluster, count: usize) {
        // Nothing new overtakes what may have to be sent again.
        let reign = cluster.quorum.partition(0).leader_epoch;
        let is_lost = |(_, _, pending): &(i32, usize, Option<Pending>)| pending.is_none();
        if self.unacknowledged.iter().any(is_lost)
            || (reign != self.sent_in && !self.unacknowledged.is_empty())
        {
            self.settle(cluster).await;
        }
        if self.unacknowledged.len() == 5 || self.unacknowledged.iter().any(is_lost) {
            return;
        }
        self.sent_in = reign;
        let pending = submit(cluster, self.next, count).await;
        self.unacknowledged.push_back((self.next, count, pending));
        self.next += count as i32;
    }

    /// Waits a while for what is on its way, then sends the rest again, in order.
    async fn settle(&mut self, cluster: &Cluster) {
        let mut left = VecDeque::new();
        for (sequence, count, pending) in self.unacknowledged.drain(..) {
            let answer = match pending {
                Some(pending) => {
                    let answer = cluster.clock.timeout(Duration::from_millis(500), pending).await;
                    answer.ok().and_then(Result::ok)
                }
                None => None,
            };
            match answer {
                Some(appended) => self.acknowledged.push((sequence, appended.base_offset.value())),
                None => left.push_back((sequence, count, None)),
            }
        }
        for (sequence, count, pending) in &mut left {
            *pending = submit(cluster, *sequence, *count).await;
            if pending.is_none() {
                break;
            }
        }
        self.sent_in = cluster.quorum.partition(0).leader_epoch;
        self.unacknowledged = left;
    }
}

async fn submit(cluster: &Cluster, sequence: i32, count: usize) -> Option<Pending> {
    let leader = cluster.quorum.partition(0).leader;
    if !cluster.members.contains_key(&leader) {
        return None;
    }
    let bytes = idempotent(7, sequence, &values(sequence as usize, count));
    cluster.get(leader.value(), 0).submit(bytes, ALL).await.ok()
}

/// What a controller does about a node that is gone: it is in no set, and leads nothing.
async fn fence(cluster: &Cluster, node: i32) {
    let state = cluster.quorum.partition(0);
    let node = NodeId(node);
    if state.isr == [node] {
        // Nobody else has everything: nobody leads until it is back.
        let leader_epoch = LeaderEpoch(state.leader_epoch.value() + 1);
        let next = PartitionState {
            leader: NodeId::NONE,
            leader_epoch,
            partition_epoch: state.partition_epoch + 1,
            ..state
        };
        cluster.quorum.set(0, next);
    } else {
        let isr: Vec<NodeId> = state.isr.iter().copied().filter(|other| *other != node).collect();
        let leader = if state.leader == node {
            isr[0]
        } else {
            state.leader
        };
        let is_election = leader != state.leader;
        let leader_epoch = LeaderEpoch(state.leader_epoch.value() + i32::from(is_election));
        let next = PartitionState {
            leader,
            leader_epoch,
            isr,
            partition_epoch: state.partition_epoch + 1,
            ..state
        };
        cluster.quorum.set(0, next);
    }
    cluster.reconciled().await;
}

/// Somebody leads, if anybody may.
async fn ensure_leader(cluster: &Cluster) {
    let state = cluster.quorum.partition(0);
    if state.leader == NodeId::NONE
        && let Some(node) = state.isr.iter().find(|node| cluster.members.contains_key(node))
    {
        let next = PartitionState {
            leader: *node,
            leader_epoch: LeaderEpoch(state.leader_epoch.value() + 1),
            partition_epoch: state.partition_epoch + 1,
            ..state.clone()
        };
        cluster.quorum.set(0, next);
        cluster.reconciled().await;
    }
}

async fn run(seed: u64, pace: Pace) {
    let random = Random::seeded(seed);
    let mut cluster = Cluster::paced(seed, NODES, 1, &[("segment.bytes", "3000")], pace).await;
    let mut client = Client {
        next: 0,
        unacknowledged: VecDeque::new(),
        acknowledged: Vec::new(),
        sent_in: LeaderEpoch(0),
    };
    for _ in 0..80 {
        let node = 1 + random.below(NODES as u64) as i32;
        match random.below(20) {
            0..9 => client.send(&cluster, 1 + random.below(4) as usize).await,
            9..13 => client.settle(&cluster).await,
            13 => cluster.cut(node, 1 + node % NODES),
            14 => cluster.heal(),
            15 => {
                // A leader that is well gives way to another one in sync.
                let state = cluster.quorum.partition(0);
                let alive: Vec<i32> = cluster.members.keys().map(|node| node.value()).collect();
                if state.isr.contains(&NodeId(node)) && alive.contains(&node) {
                    let in_sync: Vec<i32> = state.isr.iter().map(|node| node.value()).collect();
                    cluster.elect(0, node, &in_sync).await;
                }
            }
            16 | 17 => {
                if cluster.members.contains_key(&NodeId(node)) {
                    cluster.crash(node).await;
                    fence(&cluster, node).await;
                }
            }
            18 => {
                if !cluster.members.contains_key(&NodeId(node)) {
                    cluster.start(node).await;
                    ensure_leader(&cluster).await;
                }
            }
            _ => {
                cluster
                    .clock
                    .sleep(Duration::from_millis(random.below(2000)))
                    .await
            }
        }
    }
    cluster.heal();
    for node in 1..=NODES {
        if !cluster.members.contains_key(&NodeId(node)) {
            cluster.start(node).await;
        }
    }
    ensure_leader(&cluster).await;
    // The clock runs ahead of work on other threads.
    let patience = cluster.clock.now() + Duration::from_secs(600);
    while !client.unacknowledged.is_empty() {
        assert!(
            cluster.clock.now() < patience,
            "seed {seed}: the producer is stuck"
        );
        client.settle(&cluster).await;
        cluster.clock.sleep(Duration::from_millis(10)).await;
    }
    cluster
        .until("all are in sync", |cluster| {
            cluster.quorum.partition(0).isr.len() == NODES as usize
        })
        .await;
    cluster.same_everywhere(0).await;
    let found = cluster.records(1, 0).await;
    let expected: Vec<(i64, String)> = (0..).zip(values(0, client.next as usize)).collect();
    assert_eq!(found, expected, "seed {seed}");
    for (sequence, offset) in client.acknowledged {
        assert_eq!(
            i64::from(sequence),
            offset,
            "seed {seed}: where it was acknowledged"
        );
    }
}

#[tokio::test]
async fn every_acknowledged_record_is_there_once_whatever_the_nodes_do() {
    for seed in 0..12 {
        run(seed, FAST).await;
    }
}

#[tokio::test]
async fn nor_is_one_lost_by_a_crash_before_it_is_synced() {
    let threaded = Pace {
        blocking: Blocking::Threads,
        ..FAST
    };
    for seed in 100..110 {
        run(seed, threaded.clone()).await;
    }
}
