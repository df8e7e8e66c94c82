//! Groups whose coordinator dies: the next one has all that was acknowledged, and goes on with the same members.

use super::Cluster;
use crate::group::{
    Commit, Generation, GroupError, Heartbeat, Identity, Join, Joined, Name, NewOffset, Protocol, SyncGroup,
    TopicPartition,
};
use crate::metadata::{PartitionState, Record};
use crate::sys::task::{Blocking, Kind, Task, Tasks};
use bytes::Bytes;
use futures_util::FutureExt;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId};
use std::time::Duration;

/// A topic to commit offsets of.
fn consumed() -> [Record; 2] {
    let id = TopicId([2; 16]);
    let header = Record::Topic {
        id,
        name: "t".to_owned(),
        internal: false,
        mirror: None,
    };
    let partition = Record::Partition {
        topic: id,
        index: PartitionIndex(0),
        state: PartitionState::fresh(vec![NodeId(1)]),
    };
    [header, partition]
}

fn who(member: &Name) -> Identity {
    Identity {
        group: Name::from("g"),
        member: member.clone(),
        instance: None,
    }
}

/// Asks beside the test.
fn client<T: Send + 'static>(name: &str, asks: impl Future<Output = T> + Send + 'static) -> Task<T> {
    Tasks::root("clients", Blocking::Inline).spawn(name, Kind::BestEffort, asks)
}

fn nobody() -> Identity {
    who(&Name::from(""))
}

/// Asks node `n` until it is the one, and has read what it must.
macro_rules! ask {
    ($cluster:expr, $n:expr, $method:ident($($argument:expr),*)) => {{
        let until = $cluster.clock.now() + Duration::from_secs(60);
        loop {
            let groups = $cluster.members[&NodeId($n)].groups.clone();
            match groups.$method($($argument),*).await {
                Err(GroupError::NotCoordinator | GroupError::Loading | GroupError::NotAvailable)
                    if $cluster.clock.now() < until =>
                {
                    $cluster.clock.sleep(Duration::from_millis(1)).await;
                }
                answer => break answer,
            }
        }
    }};
}

fn commit(who: Identity, generation: i32, offset: i64) -> Commit {
    let new = NewOffset {
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(-1),
        metadata: Name::from(""),
        kept_for: None,
    };
    Commit {
        who,
        generation: Generation(generation),
        offsets: vec![(partition(), new)],
        knows_epochs: true,
        transaction: None,
    }
}

fn partition() -> TopicPartition {
    TopicPartition {
        topic: Name::from("t"),
        index: PartitionIndex(0),
    }
}

async fn committed(cluster: &Cluster, node: i32) -> i64 {
    let offsets = ask!(cluster, node, offsets(Name::from("g"), Some(vec![partition()])));
    let (_, committed) = offsets.unwrap().remove(0);
    committed.map_or(-1, |committed| committed.offset.value())
}

#[tokio::test]
async fn no_acknowledged_commit_is_lost_when_coordinators_die() {
    for seed in 0..5 {
        let mut cluster = Cluster::of_groups(seed, 3, 1).await;
        cluster.quorum.say(&consumed());
        let mut last = -1;
        let mut leader = 1;
        for round in 0..6 {
            for _ in 0..10 + seed * 7 {
                let done = ask!(cluster, leader, commit(commit(nobody(), -1, last + 1)));
                assert_eq!(done.unwrap()[0].1, Ok(()));
                last += 1;
            }
            // One more is on its way: it may be there afterwards, or not.
            let groups = cluster.members[&NodeId(leader)].groups.clone();
            let request = commit(nobody(), -1, last + 1);
            let pending = client("commit", async move { groups.commit(request).await });
            tokio::task::yield_now().await;
            cluster.crash(leader).await;
            let pending = pending.await.unwrap();
            let (dead, next) = (leader, leader % 3 + 1);
            let alive: Vec<i32> = (1..=3).filter(|node| *node != dead).collect();
            cluster.elect(0, next, &alive).await;
            leader = next;
            let found = committed(&cluster, leader).await;
            let lowest = if pending.is_ok() { last + 1 } else { last };
            assert!(
                (lowest..=last + 1).contains(&found),
                "seed {seed}, round {round}: {found} after {last}"
            );
            last = found;
            cluster.start(dead).await;
            cluster
                .until("all are in sync", |cluster| {
                    cluster.quorum.partition(0).isr.len() == 3
                })
                .await;
        }
        cluster.same_everywhere(0).await;
    }
}

fn join(member: &Name) -> Join {
    Join {
        who: who(member),
        client_id: Name::from("c"),
        client_host: Name::from("/h"),
        protocol_type: Name::from("consumer"),
        protocols: vec![Protocol {
            name: Name::from("range"),
            metadata: Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b't']),
        }],
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(60),
        takes_id_first: false,
        may_skip_assignment: true,
    }
}

fn sync(joined: &Joined) -> SyncGroup {
    SyncGroup {
        who: who(&joined.member),
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments: vec![(joined.member.clone(), Bytes::from_static(b"all"))],
    }
}

#[tokio::test]
async fn members_go_on_with_the_next_coordinator_and_the_former_one_sends_them_away() {
    let cluster = Cluster::of_groups(7, 3, 1).await;
    cluster.quorum.say(&consumed());
    let joined = ask!(cluster, 1, join(join(&Name::from("")))).unwrap();
    ask!(cluster, 1, sync(sync(&joined))).unwrap();
    let beat = Heartbeat {
        who: who(&joined.member),
        generation: joined.generation,
    };
    cluster.elect(0, 2, &[1, 2, 3]).await;
    assert_eq!(ask!(cluster, 2, heartbeat(beat.clone())), Ok(()));
    let done = ask!(cluster, 2, commit(commit(who(&joined.member), 1, 9)));
    assert_eq!(done.unwrap()[0].1, Ok(()));
    let synced = ask!(cluster, 2, sync(sync(&joined))).unwrap();
    assert_eq!(&synced.assignment[..], b"all");
    let described = ask!(cluster, 2, describe(Name::from("g"))).unwrap().unwrap();
    assert_eq!(described.members.len(), 1);
    cluster
        .until("node 1 has given it up", |cluster| !cluster.get(1, 0).is_leader())
        .await;
    let former = cluster.members[&NodeId(1)].groups.clone();
    assert_eq!(former.heartbeat(beat).await, Err(GroupError::NotCoordinator));
    let refused = former.commit(commit(nobody(), -1, 10)).await;
    assert_eq!(refused, Err(GroupError::NotCoordinator));
    assert_eq!(former.list().await, (Vec::new(), Ok(())));
    for node in [1, 2, 3] {
        let groups = &cluster.members[&NodeId(node)].groups;
        assert_eq!(
            groups.coordinator_of("g").await,
            Ok(NodeId(2)),
            "any node can tell"
        );
    }
}

#[tokio::test]
async fn without_enough_replicas_nothing_is_acknowledged_and_nothing_is_shown_that_may_vanish() {
    let cluster = Cluster::of_groups(3, 3, 1).await;
    cluster.quorum.say(&consumed());
    let done = ask!(cluster, 1, commit(commit(nobody(), -1, 1)));
    assert_eq!(done.unwrap()[0].1, Ok(()));
    // Alone, and not yet known to be: it takes the commit in, and cannot acknowledge it.
    cluster.cut(1, 2);
    cluster.cut(1, 3);
    let groups = cluster.members[&NodeId(1)].groups.clone();
    let mut pending = client(
        "commit",
        async move { groups.commit(commit(nobody(), -1, 2)).await },
    );
    cluster.clock.sleep(Duration::from_secs(1)).await;
    assert!((&mut pending).now_or_never().is_none(), "it is not acknowledged");
    assert_eq!(committed(&cluster, 1).await, 1, "not yet committed");
    cluster.elect(0, 2, &[2, 3]).await;
    cluster.heal();
    assert_eq!(pending.await.unwrap(), Err(GroupError::NotCoordinator));
    assert_eq!(committed(&cluster, 2).await, 1);
    let done = ask!(cluster, 2, commit(commit(nobody(), -1, 3)));
    assert_eq!(done.unwrap()[0].1, Ok(()));
    assert_eq!(committed(&cluster, 2).await, 3);
    cluster.same_everywhere(0).await;
}
