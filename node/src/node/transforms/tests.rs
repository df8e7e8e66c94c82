//! Three nodes in one process: whatever a pipeline needs is led by another node.

use super::*;
use crate::config::NodeConfig;
use crate::controller::{Change, NewTopic};
use crate::node::{Node, around};
use crate::sys::Sys;
use crate::sys::disk::memory::MemoryDisk;
use crate::sys::net::Net;
use crate::sys::net::simulated::Fabric;
use crate::sys::random::Random;
use crate::sys::task::{Blocking, Tasks};
use futures_util::future::join_all;
use headwater_protocol::record::{
    BatchBuilder, BatchOptions, Batches, NewRecord, ProducerStamp, RECORDS_BYTES_MAX,
};

const PATIENCE: Duration = Duration::from_secs(60);
const NODES: i32 = 3;
const PORT: u16 = 9094;

async fn start(fabric: Fabric, id: i32) -> Node {
    let random = Random::seeded(id as u64);
    let sys = Sys {
        clock: Clock::system(),
        tasks: Tasks::root("node", Blocking::Threads),
        disk: Arc::new(MemoryDisk::new(random.fork())),
        net: Net::simulated(fabric.boot(&format!("n{id}"))),
        ..Sys::simulated(id as u64)
    };
    let voters: Vec<_> = (1..=NODES).map(|id| format!("{id}@n{id}:{PORT}")).collect();
    let values = [
        ("data.dir", "data".to_owned()),
        ("node.id", id.to_string()),
        ("voters", voters.join(",")),
        ("cluster.id", "lab".to_owned()),
        ("cluster.secret", "of the lab".to_owned()),
        ("listen.tcp", String::new()),
        ("listen.http", String::new()),
        ("listen.quic", format!("n{id}:{PORT}")),
        ("advertise.quic", format!("n{id}:{PORT}")),
    ];
    let values = values.map(|(key, value)| (key.to_owned(), value));
    let config = NodeConfig::from_values(values.into()).unwrap();
    Node::start(config, sys).await.unwrap()
}

/// A topic with a partition on each node.
async fn topic(node: &Node, name: &str, internal: bool) -> Vec<PartitionName> {
    let assignments = (0..NODES).map(|index| (index, vec![NodeId(index + 1)]));
    let topic = NewTopic {
        assignments: assignments.collect(),
        internal,
        ..NewTopic::named(name)
    };
    let controller = &node.core().controller;
    controller.propose(Change::CreateTopic(topic)).await.unwrap();
    let topic = node.core().view.topic(name).unwrap();
    let names = topic.indexes().map(|index| PartitionName {
        topic_id: topic.id,
        topic: Arc::clone(&topic.name),
        index,
    });
    names.collect()
}

fn batch(value: &str, writer: Option<(&Writer, i32)>) -> Bytes {
    let producer = writer.map(|(writer, base_sequence)| ProducerStamp {
        id: writer.producer,
        epoch: writer.epoch,
        base_sequence,
    });
    let mut builder = BatchBuilder::new(BatchOptions {
        transactional: producer.is_some(),
        producer: producer.unwrap_or(BatchOptions::PLAIN.producer),
        ..BatchOptions::PLAIN
    });
    let record = NewRecord {
        timestamp_ms: 1,
        value: Some(value.as_bytes()),
        ..NewRecord::default()
    };
    builder.append(&record).unwrap();
    builder.build().unwrap().unwrap()
}

/// Everything that is committed in a partition once nothing is open there.
async fn values(outside: &dyn Outside, of: &PartitionName) -> Vec<String> {
    let end = outside.end(of.clone()).await.unwrap();
    let (mut from, mut found) = (Offset::ZERO, Vec::new());
    while from < end {
        let read = outside.read(of.clone(), from).await.unwrap();
        assert!(read.next > from, "{of} cannot be read on from {from}");
        for batch in Batches::new(read.batches).map(Result::unwrap) {
            if batch.header().is_control() {
                continue;
            }
            for record in &batch.records(RECORDS_BYTES_MAX).unwrap() {
                let value = record.unwrap().value.unwrap().to_vec();
                found.push(String::from_utf8(value).unwrap());
            }
        }
        from = read.next;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_partitions_and_the_coordinator_are_led_it_is_one_transaction() {
    let fabric = Fabric::instant();
    let starting = (1..=NODES).map(|id| Box::pin(start(fabric.clone(), id)));
    let started = tokio::time::timeout(PATIENCE, join_all(starting)).await;
    let nodes = started.expect("they agree in time");
    let sinks = topic(&nodes[0], "sink", false).await;
    let state = topic(&nodes[0], "__kept", true).await;
    for node in &nodes {
        let offset = nodes[0].core().view.image().offset;
        node.core().registry.reconciled(offset).await;
    }
    let clusters = nodes
        .iter()
        .map(|node| Cluster::new(around(node.core(), &node.coordinators.transactions)));
    let clusters: Vec<_> = clusters.collect();
    let every = |writer: &Writer, value: &str, sequence: i32| {
        let all = sinks.iter().chain(&state).cloned();
        let write = |to| Write {
            to,
            batches: vec![
                batch(value, Some((writer, sequence))),
                batch(value, Some((writer, sequence + 1))),
            ],
        };
        all.map(write).collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    // Of several transactional ids each is coordinated somewhere else.
    for number in 0..6 {
        let (outside, other) = (&clusters[number % 3], &clusters[(number + 1) % 3]);
        let id: Arc<str> = format!("headwater-transform-t-{number}").into();
        let first = outside.begin(Arc::clone(&id)).await.unwrap();
        outside
            .write(first.clone(), every(&first, "lost", 0))
            .await
            .unwrap();
        let first = outside.abort(first).await.unwrap();
        outside
            .write(first.clone(), every(&first, "cut off", 0))
            .await
            .unwrap();
        // The same pipeline on another node.
        let second = other.begin(id).await.unwrap();
        let late = outside.write(first.clone(), every(&first, "late", 2)).await;
        assert_eq!(late, Err(OutsideError::Fenced));
        assert_eq!(outside.commit(first).await, Err(OutsideError::Fenced));
        let value = format!("kept {number}");
        let offsets = other
            .write(second.clone(), every(&second, &value, 0))
            .await
            .unwrap();
        assert_eq!(offsets.len(), sinks.len() + state.len());
        let third = other.commit(second.clone()).await.unwrap();
        assert_ne!(third, second, "each transaction has an epoch of its own");
        expected.extend([value.clone(), value]);
    }
    for name in sinks.iter().chain(&state) {
        for outside in &clusters {
            assert_eq!(values(outside, name).await, expected, "{name}");
        }
    }
    // Without a transaction, and to a topic that clients may not write.
    for name in &state {
        let sending = clusters[0]
            .send(name.clone(), batch("plain", None))
            .await
            .unwrap();
        let at = sending.await.unwrap();
        clusters[0].forget(name.clone(), at).await.unwrap();
        assert_eq!(values(&clusters[1], name).await, ["plain"], "{name}");
    }
    // Whoever waits for more hears of it, wherever it is led.
    for (name, outside) in sinks
        .iter()
        .flat_map(|name| clusters.iter().map(move |it| (name, it)))
    {
        let end = outside.end(name.clone()).await.unwrap();
        let waiting = outside.newer(name.clone(), end);
        let sending = async {
            let sending = clusters[0].send(name.clone(), batch("more", None)).await;
            sending.unwrap().await.unwrap()
        };
        let waited = futures_util::future::join(waiting, sending);
        let (heard, at) = tokio::time::timeout(PATIENCE, waited).await.unwrap();
        assert_eq!((heard, at), (Ok(()), end), "{name}");
        let read = outside.read(name.clone(), end).await.unwrap();
        assert_eq!(read.next, end.plus(1), "{name}");
    }
    for node in nodes {
        node.core().sys.tasks.cancel();
    }
}
