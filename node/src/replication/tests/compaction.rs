//! Replicas that compact on their own: they hold different bytes and the same last values, and a log with gaps is copied
//! like any other.

use super::cluster::TOPIC;
use super::*;
use crate::sys::disk::Disk;
use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset, ProducerEpoch, ProducerId};
use headwater_protocol::record::{BatchBuilder, BatchOptions, Batches, NewRecord, ProducerStamp};
use std::collections::BTreeMap;
use std::path::PathBuf;

const COMPACTED: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("segment.bytes", "600")];
const KEYS: usize = 5;

fn keyed(producer: ProducerStamp, from: usize, count: usize) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer,
        ..BatchOptions::PLAIN
    });
    for number in from..from + count {
        let (key, value) = (format!("key {}", number % KEYS), format!("value {number}"));
        let record = NewRecord {
            timestamp_ms: 1_700_000_000_000,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
    }
    builder.build().unwrap().unwrap()
}

fn stamp(sequence: usize) -> ProducerStamp {
    ProducerStamp {
        id: ProducerId(7),
        epoch: ProducerEpoch(0),
        base_sequence: sequence as i32,
    }
}

/// The last value of each key on one node.
async fn latest(cluster: &Cluster, node: i32) -> BTreeMap<String, (i64, String)> {
    let mut latest = BTreeMap::new();
    for batch in Batches::new(cluster.bytes(node, 0).await).map(Result::unwrap) {
        batch.check_crc().unwrap();
        for record in batch.records(1 << 20).unwrap() {
            let record = record.unwrap();
            let text = |bytes: Option<Bytes>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
            let value = (record.offset.value(), text(record.value));
            latest.insert(text(record.key), value);
        }
    }
    latest
}

/// What it has to be after so many records.
fn expected(count: usize) -> BTreeMap<String, (i64, String)> {
    let last = (0..count).map(|n| (format!("key {}", n % KEYS), (n as i64, format!("value {n}"))));
    last.collect()
}

/// Returns once the logs of all nodes are small, and have the same records.
async fn compacted(cluster: &Cluster) {
    cluster.converged(0).await;
    cluster
        .until("all are compacted", |cluster| {
            let ids: Vec<i32> = cluster.members.keys().map(|id| id.value()).collect();
            ids.into_iter()
                .all(|node| cluster.get(node, 0).size_bytes() < 2_500)
        })
        .await;
}

/// A hundred batches of four records, the last of them appended by node 1.
async fn filled(seed: u64) -> Cluster {
    let cluster = Cluster::new(seed, 3, 1, &COMPACTED).await;
    let leader = cluster.get(1, 0);
    for round in 0..100 {
        write(&leader, keyed(stamp(round * 4), round * 4, 4)).await;
    }
    cluster
}

#[tokio::test]
async fn a_new_replica_copies_a_compacted_log_and_leads_on() {
    let mut cluster = filled(61).await;
    compacted(&cluster).await;
    for node in 1..=3 {
        assert_eq!(latest(&cluster, node).await, expected(400), "node {node}");
    }
    // A replica that has lost everything begins with the batches that are left.
    cluster.crash(3).await;
    cluster.elect(0, 2, &[1, 2]).await;
    cluster.disks[&NodeId(3)]
        .remove_folder(&PathBuf::from(format!("topics/{TOPIC}-0")))
        .unwrap();
    write(&cluster.get(2, 0), keyed(stamp(400), 400, 1)).await;
    cluster.start(3).await;
    cluster
        .until("it is in sync", |cluster| {
            cluster.quorum.partition(0).isr.len() == 3
        })
        .await;
    cluster.converged(0).await;
    assert_eq!(latest(&cluster, 3).await, expected(401));
    let (copy, leader) = (cluster.get(3, 0), cluster.get(2, 0));
    for epoch in 0..4 {
        assert_eq!(
            copy.own_epoch_end(LeaderEpoch(epoch)),
            leader.own_epoch_end(LeaderEpoch(epoch)),
            "epoch {epoch}"
        );
    }
    // It leads, knows its producers, and is followed.
    cluster.elect(0, 3, &[1, 2, 3]).await;
    let leader = cluster.get(3, 0);
    let again = write(&leader, keyed(stamp(400), 400, 1)).await;
    assert_eq!(again.base_offset, Offset(400), "a duplicate is known for one");
    write(&leader, keyed(stamp(401), 401, 9)).await;
    cluster.converged(0).await;
    for node in 1..=3 {
        assert_eq!(latest(&cluster, node).await, expected(410), "node {node}");
    }
}

#[tokio::test]
async fn a_damaged_compacted_segment_is_fetched_from_a_replica_with_other_bytes() {
    let cluster = filled(62).await;
    compacted(&cluster).await;
    let folder = PathBuf::from(format!("topics/{TOPIC}-0"));
    let registry = &cluster.members[&NodeId(2)].registry;
    let disk = &cluster.disks[&NodeId(2)];
    let entries = disk.list(&folder).unwrap();
    let first = entries.iter().find(|entry| entry.name.ends_with(".log")).unwrap();
    let file = folder.join(&first.name);
    let byte = disk.content(&file).unwrap()[30];
    disk.corrupt(&file, 30, &[byte ^ 0x40]);
    let mut book = registry.damaged();
    book.mark_unchanged();
    registry.scrub(&registry.list());
    registry.scrubbed().await;
    assert!(book.has_changed().unwrap(), "it was found, repaired or not");
    cluster
        .until("it is repaired", |cluster| cluster.get(2, 0).damaged().is_empty())
        .await;
    registry.scrub(&registry.list());
    registry.scrubbed().await;
    assert_eq!(cluster.get(2, 0).damaged(), []);
    for node in 1..=3 {
        assert_eq!(latest(&cluster, node).await, expected(400), "node {node}");
    }
    write(&cluster.get(1, 0), keyed(stamp(400), 400, 4)).await;
    cluster.converged(0).await;
    assert_eq!(latest(&cluster, 2).await, expected(404));
}
