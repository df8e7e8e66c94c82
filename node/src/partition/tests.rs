//! Partitions through their public face, on a disk in memory that crashes, fills up and fails.

mod appending;
mod compaction;
mod failures;
mod history;
mod large;
mod offsets;
mod topics;
mod transactions;

use super::registry::Options;
use super::*;
use crate::config::BrokerConfig;
use crate::log::Damaged;
use crate::metadata::{Image, MirrorSource, PartitionState, Publisher, Record, View};
use crate::sys::Sys;
use crate::sys::disk::Disk;
use crate::sys::disk::memory::{MemoryDisk, Operation};
use crate::sys::random::Random;
use crate::sys::task::{Blocking, Tasks};
use crate::telemetry::{Health, Metrics};
use headwater_protocol::ids::{NodeId, PartitionIndex, ProducerEpoch, ProducerId, TopicId};
use headwater_protocol::record::{BatchBuilder, BatchOptions, BatchView, Batches, NewRecord, ProducerStamp};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

const NOW: i64 = 1_700_000_000_000;
const ALL: AppendOptions = AppendOptions {
    acks: Acks::All,
    current_epoch: None,
    origin: Origin::Client,
    verified: None,
};

fn with_threads() -> Sys {
    Sys {
        tasks: Tasks::root("node", Blocking::Threads),
        ..Sys::simulated(9)
    }
}

/// A machine with a registry that follows metadata the test writes.
struct Rig {
    disk: MemoryDisk,
    sys: Sys,
    image: Image,
    publisher: Publisher,
    registry: Registry,
    health: Health,
    metrics: Metrics,
}

impl Rig {
    async fn new() -> Self {
        let disk = MemoryDisk::new(Random::seeded(3));
        Self::boot(
            disk,
            Image {
                offset: Offset(0),
                ..Image::default()
            },
        )
        .await
    }

    /// As a node has it: what waits for the disk runs on threads of its own.
    async fn threaded() -> Self {
        let image = Image {
            offset: Offset(0),
            ..Image::default()
        };
        Self::boot_on(with_threads(), MemoryDisk::new(Random::seeded(3)), image).await
    }

    async fn boot(disk: MemoryDisk, image: Image) -> Self {
        Self::boot_on(Sys::simulated(9), disk, image).await
    }

    async fn boot_on(sys: Sys, disk: MemoryDisk, image: Image) -> Self {
        let sys = Sys {
            disk: Arc::new(disk.clone()),
            ..sys
        };
        let (publisher, view) = View::new(image.clone());
        let (health, metrics) = (Health::default(), Metrics::default());
        let registry = Registry::start(Options {
            me: NodeId(1),
            broker: BrokerConfig::new(BTreeMap::new()),
            maintenance_interval_ms: 60_000,
            view,
            sys: sys.clone(),
            health: health.clone(),
            metrics: metrics.clone(),
            in_sync_sets: Arc::new(FixedSets),
            replica_lag_max: Duration::from_secs(10),
        });
        registry.reconciled(image.offset).await;
        Self {
            disk,
            sys,
            image,
            publisher,
            registry,
            health,
            metrics,
        }
    }

    /// Stops, and starts again.
    async fn restart(self) -> Self {
        assert_eq!(self.registry.stop(Duration::from_secs(1)).await, 0);
        let Self { disk, image, .. } = self;
        Self::boot(disk, image).await
    }

    /// The power goes, and comes back.
    async fn crash(self) -> Self {
        self.crash_onto(Sys::simulated(9)).await
    }

    async fn crash_onto(self, new: Sys) -> Self {
        let Self {
            disk,
            sys,
            image,
            registry,
            ..
        } = self;
        sys.tasks
            .stop(&sys.clock, Duration::from_secs(1))
            .await
            .expect("every task watches its token");
        drop(registry);
        disk.crash();
        Self::boot_on(new, disk, image).await
    }

    async fn say(&mut self, records: &[Record]) {
        for record in records {
            self.image.apply(self.image.offset.plus(1), record);
        }
        self.publisher.publish(Arc::new(self.image.clone()));
        self.registry.reconciled(self.image.offset).await;
    }

    async fn topic(&mut self, id: u8, configs: &[(&str, &str)]) -> Partition {
        self.any_topic(id, "t", configs, None, false).await
    }

    async fn any_topic(
        &mut self,
        id: u8,
        name: &str,
        configs: &[(&str, &str)],
        mirror: Option<MirrorSource>,
        internal: bool,
    ) -> Partition {
        let topic = TopicId([id; 16]);
        let mut records = vec![
            Record::Topic {
                id: topic,
                name: name.to_owned(),
                internal,
                mirror,
            },
            partition(topic, 0, 0),
        ];
        records.extend(configs.iter().map(|(key, value)| config(topic, key, value)));
        self.say(&records).await;
        self.get(name)
    }

    fn get(&self, topic: &str) -> Partition {
        self.registry.get(topic, PartitionIndex(0)).expect("it is here")
    }
}

fn partition(topic: TopicId, index: i32, epoch: i32) -> Record {
    let state = PartitionState {
        leader: NodeId(1),
        leader_epoch: LeaderEpoch(epoch),
        replicas: vec![NodeId(1)],
        isr: vec![NodeId(1)],
        ..PartitionState::default()
    };
    Record::Partition {
        topic,
        index: PartitionIndex(index),
        state,
    }
}

fn config(topic: TopicId, key: &str, value: &str) -> Record {
    Record::TopicConfig {
        topic,
        key: key.to_owned(),
        value: Some(value.to_owned()),
    }
}

fn batch(options: BatchOptions, values: &[String]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for value in values {
        let record = NewRecord {
            timestamp_ms: NOW,
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
        };
        builder.append(&record).expect("it fits");
    }
    builder
        .build()
        .expect("it can be written")
        .expect("it has records")
}

fn values(from: usize, count: usize) -> Vec<String> {
    (from..from + count)
        .map(|number| format!("value {number}"))
        .collect()
}

fn plain(from: usize, count: usize) -> Bytes {
    batch(BatchOptions::PLAIN, &values(from, count))
}

fn last_stable(partition: &Partition) -> i64 {
    partition.watermarks().borrow().last_stable.value()
}

fn idempotent(sequence: i32, count: usize) -> Bytes {
    let producer = ProducerStamp {
        id: ProducerId(7),
        epoch: ProducerEpoch(0),
        base_sequence: sequence,
    };
    batch(
        BatchOptions {
            producer,
            ..BatchOptions::PLAIN
        },
        &values(sequence as usize, count),
    )
}

fn request(from: i64) -> ReadRequest {
    ReadRequest {
        from: Offset(from),
        max_bytes: 1 << 20,
        isolation: Isolation::Uncommitted,
        min_one: true,
        current_epoch: None,
        up_to_log_end: false,
    }
}

/// Everything a consumer gets from `from` on: offsets and values.
async fn consume(partition: &Partition, from: i64) -> Vec<(i64, String)> {
    let (mut next, mut found) = (Offset(from), Vec::new());
    loop {
        let outcome = partition
            .read(request(next.value()))
            .await
            .expect("it can be read");
        if outcome.records.is_empty() && outcome.next == next {
            return found;
        }
        next = outcome.next;
        let joined: Bytes = outcome.records.concat().into();
        for batch in Batches::new(joined) {
            let batch = batch.expect("whole");
            batch.check_crc().expect("unchanged");
            for record in &batch.records(1 << 20).expect("readable") {
                let record = record.expect("readable");
                let offset = batch.base_offset().plus(i64::from(record.offset_delta)).value();
                let value = String::from_utf8(record.value.expect("set").to_vec()).expect("text");
                if offset >= from {
                    found.push((offset, value));
                }
            }
        }
    }
}

fn numbered(count: usize) -> Vec<(i64, String)> {
    (0..).zip(values(0, count)).collect()
}
