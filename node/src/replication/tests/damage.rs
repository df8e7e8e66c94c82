//! Bit rot, lost files and failing devices: found, never served, and repaired from another replica.

use super::cluster::{ALL, TOPIC};
use super::*;
use crate::partition::{Isolation, ReadError, ReadRequest};
use crate::sys::disk::Disk;
use crate::sys::disk::memory::Operation;
use headwater_protocol::ids::{NodeId, Offset};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const SMALL: [(&str, &str); 1] = [("segment.bytes", "600")];

/// A cluster with some closed segments on every node, which nobody has in memory any more.
async fn filled(seed: u64, nodes: i32) -> Cluster {
    let mut cluster = Cluster::new(seed, nodes, 2, &SMALL).await;
    for index in 0..2 {
        let leader = cluster.get(1, index);
        for round in 0..25 {
            let ticket = leader.append(batch(&values(round * 4, 4)), ALL).await.unwrap();
            ticket.done().await.unwrap();
        }
        cluster.same_everywhere(index).await;
    }
    for node in 1..=nodes {
        restart(&mut cluster, node).await;
    }
    cluster
}

/// The power goes and comes back; another node leads, if there is one.
async fn restart(cluster: &mut Cluster, node: i32) {
    let others: Vec<i32> = cluster
        .members
        .keys()
        .map(|id| id.value())
        .filter(|id| *id != node)
        .collect();
    cluster.crash(node).await;
    if let [next, ..] = &*others {
        for index in 0..2 {
            cluster.elect(index, *next, &others).await;
        }
    }
    cluster.start(node).await;
    let all = cluster.members.len();
    cluster
        .until("all are in sync again", |cluster| {
            (0..2).all(|index| cluster.quorum.partition(index).isr.len() == all)
        })
        .await;
}

fn folder(index: i32) -> PathBuf {
    PathBuf::from(format!("topics/{TOPIC}-{index}"))
}

fn segments(cluster: &Cluster, node: i32, index: i32) -> Vec<PathBuf> {
    let entries = cluster.disks[&NodeId(node)].list(&folder(index)).unwrap();
    let logs = entries.into_iter().filter(|entry| entry.name.ends_with(".log"));
    logs.map(|entry| folder(index).join(entry.name)).collect()
}

/// All bytes as they lie on the disk of one node.
fn stored(cluster: &Cluster, node: i32, index: i32) -> Vec<u8> {
    let disk = &cluster.disks[&NodeId(node)];
    let files = segments(cluster, node, index);
    files
        .iter()
        .flat_map(|file| disk.content(file).unwrap())
        .collect()
}

fn flip(cluster: &Cluster, node: i32, file: &Path, at: usize) {
    let disk = &cluster.disks[&NodeId(node)];
    let byte = disk.content(file).unwrap()[at];
    disk.corrupt(file, at, &[byte ^ 0x40]);
}

async fn scrub(cluster: &Cluster, node: i32) {
    let registry = &cluster.members[&NodeId(node)].registry;
    registry.scrub(&registry.list());
    registry.scrubbed().await;
}

async fn repaired(cluster: &Cluster) {
    cluster
        .until("all is repaired", |cluster| {
            let damaged = cluster.members.values().map(|member| member.registry.damaged());
            damaged.into_iter().all(|damaged| damaged.borrow().is_empty())
        })
        .await;
}

fn request(from: i64) -> ReadRequest {
    ReadRequest {
        from: Offset(from),
        max_bytes: 1,
        isolation: Isolation::Uncommitted,
        min_one: true,
        current_epoch: None,
        up_to_log_end: false,
    }
}

#[tokio::test]
async fn damaged_replicas_are_the_same_to_the_byte_again() {
    let cluster = filled(31, 3).await;
    let whole = stored(&cluster, 1, 0);
    let leader = cluster.quorum.partition(0).leader.value();
    // Different segments on each node: flipped bytes, and a file that is gone. The leader's as well.
    for node in 1..=3 {
        let files = segments(&cluster, node, 0);
        assert!(files.len() > 4, "{files:?}");
        flip(&cluster, node, &files[node as usize], 30);
        flip(&cluster, node, &files[node as usize], 120);
    }
    let gone = &segments(&cluster, leader, 0)[0];
    cluster.disks[&NodeId(leader)].remove_file(gone).unwrap();
    for node in 1..=3 {
        scrub(&cluster, node).await;
        assert_eq!(cluster.get(node, 1).damaged(), []);
    }
    repaired(&cluster).await;
    for node in 1..=3 {
        let kept = cluster.disks[&NodeId(node)].list(&folder(0)).unwrap();
        let kept = kept.iter().filter(|entry| entry.name.ends_with(".damaged"));
        assert_eq!(kept.count(), 1, "what was found on node {node} is kept");
    }
    for node in 1..=3 {
        // What was kept of the repair goes with the next scrub.
        scrub(&cluster, node).await;
        assert_eq!(cluster.get(node, 0).damaged(), []);
        assert_eq!(stored(&cluster, node, 0), whole, "node {node}");
        let left = cluster.disks[&NodeId(node)].list(&folder(0)).unwrap();
        assert!(
            left.iter().all(|entry| !entry.name.ends_with(".damaged")),
            "{left:?}"
        );
    }
    // Nobody left the in-sync set, and it goes on.
    assert_eq!(cluster.quorum.partition(0).isr.len(), 3);
    let leader = cluster.get(leader, 0);
    write(&leader, batch(&values(100, 1))).await;
    cluster.same_everywhere(0).await;
}

#[tokio::test]
async fn who_reads_damage_is_refused_until_it_is_repaired() {
    let cluster = filled(32, 3).await;
    let leader = cluster.quorum.partition(0).leader.value();
    let files = segments(&cluster, leader, 0);
    let whole = stored(&cluster, leader, 0);
    flip(&cluster, leader, &files[1], 100);
    let base: i64 = files[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let partition = cluster.get(leader, 0);
    let refused = partition.read(request(base)).await.unwrap_err();
    assert!(matches!(refused, ReadError::Corrupt { .. }), "{refused}");
    assert_eq!(partition.damaged().len(), 1, "nobody had to scrub");
    repaired(&cluster).await;
    let read = partition.read(request(base)).await.unwrap();
    assert!(read.bytes > 0);
    assert_eq!(stored(&cluster, leader, 0), whole);
}

#[tokio::test]
async fn a_node_starts_without_its_files_and_gets_them_back() {
    let mut cluster = filled(33, 3).await;
    let whole = stored(&cluster, 1, 0);
    for (node, round) in [(2, 0), (3, 1), (1, 2)] {
        let others: Vec<i32> = (1..=3).filter(|id| *id != node).collect();
        cluster.crash(node).await;
        cluster.elect(0, others[0], &others).await;
        cluster.elect(1, others[0], &others).await;
        let files = segments(&cluster, node, 0);
        let disk = &cluster.disks[&NodeId(node)];
        // From the middle, the first and the last one, all of them.
        let gone = match round {
            0 => vec![&files[2]],
            1 => vec![&files[0], files.last().unwrap()],
            _ => files.iter().collect(),
        };
        for file in gone {
            disk.remove_file(file).unwrap();
        }
        cluster.start(node).await;
        cluster
            .until("it is in sync", |cluster| {
                (0..2).all(|index| cluster.quorum.partition(index).isr.len() == 3)
            })
            .await;
        scrub(&cluster, node).await;
        repaired(&cluster).await;
        assert_eq!(stored(&cluster, node, 0), whole, "node {node}");
    }
    cluster.same_everywhere(0).await;
}

#[tokio::test]
async fn the_only_replica_reports_serves_the_rest_and_deletes_nothing() {
    let cluster = filled(34, 1).await;
    let files = segments(&cluster, 1, 0);
    flip(&cluster, 1, &files[1], 100);
    let rotten = stored(&cluster, 1, 0);
    scrub(&cluster, 1).await;
    cluster.clock.sleep(std::time::Duration::from_secs(5)).await;
    let partition = cluster.get(1, 0);
    let [damaged] = &*partition.damaged() else {
        panic!("one segment is damaged")
    };
    assert!(!partition.can_be_repaired());
    assert_eq!(stored(&cluster, 1, 0), rotten);
    assert!(partition.read(request(0)).await.unwrap().bytes > 0);
    assert!(
        partition
            .read(request(damaged.until.value()))
            .await
            .unwrap()
            .bytes
            > 0
    );
    assert!(partition.read(request(damaged.from.value())).await.is_err());
    write(&partition, batch(&values(100, 1))).await;
}

#[tokio::test]
async fn a_device_that_fails_under_a_reader_takes_one_replica_down() {
    let cluster = filled(35, 3).await;
    let node = cluster.quorum.partition(0).leader.value();
    let registry = &cluster.members[&NodeId(node)].registry;
    let (here, other) = (cluster.get(node, 0), cluster.get(node, 1));
    cluster.disks[&NodeId(node)].fail(Operation::Read, 0, ErrorKind::Other);
    here.read(request(4)).await.unwrap_err();
    cluster
        .until("the replica is offline", |cluster| {
            cluster.get(node, 0).offline().is_some()
        })
        .await;
    // Somebody else is to lead it, and the node goes on.
    assert_eq!(registry.failed().borrow().len(), 1);
    assert_eq!(other.offline(), None);
    write(&other, batch(&values(100, 1))).await;
}
