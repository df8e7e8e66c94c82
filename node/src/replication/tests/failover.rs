//! A leader that dies, the one that follows it, and its return.

use super::cluster::{ALL, LEADER};
use super::*;
use crate::metadata::PartitionState;
use crate::partition::{AppendError, TicketError};
use crate::sys::disk::memory::{MemoryDisk, Operation};
use crate::sys::random::Random;
use headwater_protocol::ids::{NodeId, Offset};
use std::time::Duration;

#[tokio::test]
async fn an_append_is_acknowledged_when_every_replica_in_sync_has_it() {
    let cluster = Cluster::new(1, 3, 1, &[("min.insync.replicas", "2")]).await;
    let leader = cluster.get(1, 0);
    for round in 0..20 {
        let ticket = leader.append(batch(&values(round * 3, 3)), ALL).await.unwrap();
        let appended = ticket.done().await.unwrap();
        let end = appended.last_offset.plus(1);
        for node in [2, 3] {
            let marks = *cluster.get(node, 0).watermarks().borrow();
            assert!(marks.synced >= end, "node {node} has it on disk");
        }
    }
    cluster.same_everywhere(0).await;
    // A replica that is away holds the watermark, until it is out of the set.
    cluster.cut(1, 3);
    let pending = leader.submit(batch(&values(60, 1)), ALL).await.unwrap();
    tokio::pin!(pending);
    let early = cluster.clock.timeout(Duration::from_secs(5), &mut pending).await;
    assert!(early.is_err(), "one in sync does not have it");
    pending.await.unwrap();
    assert_eq!(cluster.quorum.partition(0).isr, [NodeId(1), NodeId(2)]);
    // It comes back into the set when it has caught up.
    cluster.heal();
    cluster
        .until("node 3 is in sync", |cluster| {
            cluster.quorum.partition(0).isr.len() == 3
        })
        .await;
    cluster.same_everywhere(0).await;
}

#[tokio::test]
async fn too_few_in_sync_refuse_what_comes_and_fail_what_waits() {
    let cluster = Cluster::new(2, 2, 1, &[("min.insync.replicas", "2")]).await;
    let leader = cluster.get(1, 0);
    write(&leader, batch(&values(0, 1))).await;
    cluster.cut(1, 2);
    let waiting = leader.append(batch(&values(1, 1)), ALL).await.unwrap();
    assert_eq!(waiting.done().await, Err(TicketError::NotEnoughReplicas));
    let refused = leader.append(batch(&values(2, 1)), ALL).await.unwrap_err();
    let expected = AppendError::NotEnoughReplicas {
        in_sync: 1,
        required: 2,
    };
    assert_eq!(refused, expected);
    // What the leader alone has is not committed.
    assert_eq!(cluster.records(1, 0).await.len(), 1);
    cluster.heal();
    cluster
        .until("both are in sync", |cluster| {
            cluster.quorum.partition(0).isr.len() == 2
        })
        .await;
    cluster.same_everywhere(0).await;
    assert_eq!(cluster.records(2, 0).await.len(), 2);
}

#[tokio::test]
async fn a_leader_that_comes_back_gives_up_what_nobody_else_had() {
    for seed in 0..20 {
        come_back(seed).await;
    }
}

async fn come_back(seed: u64) {
    let mut cluster = Cluster::new(seed, 3, 1, &[("segment.bytes", "2000")]).await;
    let leader = cluster.get(1, 0);
    let mut sequence = 0;
    for round in 0..10 {
        let bytes = idempotent(7, sequence, &values(round * 2, 2));
        write(&leader, bytes).await;
        sequence += 2;
    }
    // The leader is alone, takes more, and dies.
    cluster.cut(1, 2);
    cluster.cut(1, 3);
    let lost = leader.append(batch(&values(900, 5)), LEADER).await.unwrap();
    drop(lost);
    cluster.clock.sleep(Duration::from_secs(1)).await;
    cluster.crash(1).await;
    cluster.heal();
    cluster.elect(0, 2, &[2, 3]).await;
    let leader = cluster.get(2, 0);
    // The producer did not hear of its last batch, and sends it again: it is there already.
    let again = idempotent(7, sequence - 2, &values(18, 2));
    let appended = write(&leader, again).await;
    assert!(appended.duplicate);
    assert_eq!(appended.base_offset.value(), 18);
    for round in 10..15 {
        let bytes = idempotent(7, sequence, &values(round * 2, 2));
        write(&leader, bytes).await;
        sequence += 2;
    }
    cluster.start(1).await;
    cluster
        .until("node 1 is in sync", |cluster| {
            cluster.quorum.partition(0).isr.len() == 3
        })
        .await;
    cluster.same_everywhere(0).await;
    let expected: Vec<(i64, String)> = (0..).zip(values(0, 30)).collect();
    assert_eq!(cluster.records(1, 0).await, expected);
    // It leads again, and knows its producers.
    cluster.elect(0, 1, &[1, 2, 3]).await;
    let leader = cluster.get(1, 0);
    let again = idempotent(7, sequence - 2, &values(28, 2));
    assert!(write(&leader, again).await.duplicate);
    let next = idempotent(7, sequence, &values(30, 1));
    write(&leader, next).await;
    cluster.same_everywhere(0).await;
}

#[tokio::test]
async fn an_epoch_without_a_record_is_no_history() {
    let cluster = Cluster::new(4, 3, 1, &[]).await;
    let leader = cluster.get(1, 0);
    write(&leader, batch(&values(0, 2))).await;
    cluster.converged(0).await;
    // Node 2 gets ahead of node 3, which then leads for a moment, in which nobody hears it.
    cluster.cut(1, 3);
    let ahead = leader.append(batch(&values(2, 2)), LEADER).await.unwrap();
    drop(ahead);
    cluster
        .until("node 2 has more", |cluster| {
            cluster.get(2, 0).watermarks().borrow().log_end.value() == 4
        })
        .await;
    cluster.cut(2, 3);
    cluster.elect(0, 3, &[1, 2, 3]).await;
    cluster.elect(0, 2, &[1, 2, 3]).await;
    cluster.heal();
    let leader = cluster.get(2, 0);
    write(&leader, batch(&values(4, 1))).await;
    cluster.same_everywhere(0).await;
    assert_eq!(cluster.records(3, 0).await.len(), 5);
}

#[tokio::test]
async fn a_replica_whose_history_parted_learns_what_is_committed() {
    let cluster = Cluster::new(6, 3, 1, &[]).await;
    let leader = cluster.get(1, 0);
    let committed = leader.append(batch(&values(0, 2)), ALL).await.unwrap();
    committed.done().await.unwrap();
    cluster.converged(0).await;
    // Node 2 has all there is, and leads for a moment, in which nobody hears it.
    cluster.cut(1, 3);
    drop(leader.append(batch(&values(2, 2)), LEADER).await.unwrap());
    cluster
        .until("node 2 has more", |cluster| {
            cluster.get(2, 0).watermarks().borrow().log_end.value() == 4
        })
        .await;
    cluster.cut(1, 2);
    cluster.cut(2, 3);
    cluster.elect(0, 2, &[1, 2, 3]).await;
    cluster.elect(0, 1, &[1, 3]).await;
    cluster.heal();
    cluster.cut(1, 2);
    cluster.cut(2, 3);
    cluster
        .until("it is committed without node 2", |cluster| {
            cluster.get(1, 0).watermarks().borrow().high_watermark.value() == 4
        })
        .await;
    cluster.heal();
    cluster.converged(0).await;
}

#[tokio::test]
async fn a_leader_does_not_lead_on_in_an_epoch_it_led_before_its_restart() {
    let mut cluster = Cluster::new(5, 2, 1, &[]).await;
    let leader = cluster.get(1, 0);
    write(&leader, batch(&values(0, 2))).await;
    cluster.crash(1).await;
    cluster.start(1).await;
    assert!(
        !cluster.get(1, 0).is_leader(),
        "others may have records of that epoch that were lost here"
    );
    cluster.elect(0, 1, &[1, 2]).await;
    let leader = cluster.get(1, 0);
    cluster
        .until("it leads", |cluster| cluster.get(1, 0).is_leader())
        .await;
    write(&leader, batch(&values(2, 1))).await;
    cluster.same_everywhere(0).await;
}

#[tokio::test]
async fn a_replica_that_lost_its_disk_begins_where_its_leader_does() {
    let mut cluster = Cluster::new(6, 2, 1, &[]).await;
    let leader = cluster.get(1, 0);
    for round in 0..5 {
        let bytes = batch(&values(round * 2, 2));
        write(&leader, bytes).await;
    }
    cluster.crash(2).await;
    cluster.quorum.set(
        0,
        PartitionState {
            isr: vec![NodeId(1)],
            partition_epoch: 9,
            ..cluster.quorum.partition(0)
        },
    );
    cluster.reconciled().await;
    leader.delete_records(Some(Offset(6))).await.unwrap();
    let fresh = MemoryDisk::new(Random::seeded(1));
    cluster.disks.insert(NodeId(2), fresh);
    cluster.start(2).await;
    cluster
        .until("node 2 is in sync", |cluster| {
            cluster.quorum.partition(0).isr.len() == 2
        })
        .await;
    cluster.same_everywhere(0).await;
    let marks = *cluster.get(2, 0).watermarks().borrow();
    assert_eq!((marks.log_start.value(), marks.log_end.value()), (6, 10));
}

#[tokio::test]
async fn a_replica_whose_disk_fails_acknowledges_nothing_and_says_so() {
    let cluster = Cluster::new(7, 3, 1, &[]).await;
    let leader = cluster.get(1, 0);
    write(&leader, batch(&values(0, 1))).await;
    cluster.converged(0).await;
    cluster.disks[&NodeId(2)].fail(Operation::Sync, 0, std::io::ErrorKind::Other);
    let waiting = leader.append(batch(&values(1, 1)), ALL).await.unwrap().done();
    tokio::pin!(waiting);
    let early = cluster.clock.timeout(Duration::from_secs(5), &mut waiting).await;
    assert!(early.is_err(), "one in sync does not have it on disk");
    let failed = cluster.members[&NodeId(2)].registry.failed();
    assert_eq!(failed.borrow().len(), 1);
    waiting.await.unwrap();
    assert_eq!(cluster.quorum.partition(0).isr, [NodeId(1), NodeId(3)]);
    // Opened anew, it catches up.
    let mut cluster = cluster;
    cluster.crash(2).await;
    cluster.start(2).await;
    cluster
        .until("node 2 is in sync", |cluster| {
            cluster.quorum.partition(0).isr.len() == 3
        })
        .await;
    cluster.same_everywhere(0).await;
}

#[tokio::test]
async fn a_set_whose_fate_is_not_known_counts_with_the_one_before() {
    let cluster = Cluster::new(8, 3, 1, &[]).await;
    let leader = cluster.get(1, 0);
    write(&leader, batch(&values(0, 1))).await;
    cluster.quorum.deaf.lock().unwrap().insert(NodeId(1));
    cluster.cut(1, 3);
    let waiting = leader.append(batch(&values(1, 1)), ALL).await.unwrap().done();
    tokio::pin!(waiting);
    let early = cluster.clock.timeout(Duration::from_secs(30), &mut waiting).await;
    assert!(early.is_err(), "node 3 may still be in sync");
    // It is asked again, and again.
    cluster.quorum.deaf.lock().unwrap().clear();
    waiting.await.unwrap();
    assert_eq!(cluster.quorum.partition(0).isr, [NodeId(1), NodeId(2)]);
}
