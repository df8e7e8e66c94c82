//! Partitions through their public face, on a disk in memory that crashes, fills up and fails.

mod history;

use super::registry::Options;
use super::*;
use crate::config::BrokerConfig;
use crate::metadata::{Image, MirrorSource, PartitionState, Publisher, Record, View};
use crate::sys::Sys;
use crate::sys::disk::Disk;
use crate::sys::disk::memory::{MemoryDisk, Operation};
use crate::sys::random::Random;
use crate::telemetry::{Health, Metrics};
use headwater_protocol::ids::{NodeId, PartitionIndex, ProducerEpoch, ProducerId, TopicId};
use headwater_protocol::record::{BatchBuilder, BatchOptions, Batches, NewRecord, ProducerStamp};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

const NOW: i64 = 1_700_000_000_000;
const ALL: AppendOptions = AppendOptions {
    acks: Acks::All,
    current_epoch: None,
    origin: Origin::Client,
};

/// A machine with a registry that follows metadata the test writes.
struct Rig {
    disk: MemoryDisk,
    sys: Sys,
    image: Image,
    publisher: Publisher,
    registry: Registry,
    health: Health,
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

    async fn boot(disk: MemoryDisk, image: Image) -> Self {
        let sys = Sys {
            disk: Arc::new(disk.clone()),
            ..Sys::simulated(9)
        };
        let (publisher, view) = View::new(image.clone());
        let health = Health::default();
        let registry = Registry::start(Options {
            me: NodeId(1),
            broker: BrokerConfig::new(BTreeMap::new()),
            maintenance_interval_ms: 1000,
            view,
            sys: sys.clone(),
            health: health.clone(),
            metrics: Metrics::default(),
        });
        registry.reconciled(image.offset).await;
        Self {
            disk,
            sys,
            image,
            publisher,
            registry,
            health,
        }
    }

    /// The power goes, and comes back.
    async fn crash(self) -> Self {
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
        Self::boot(disk, image).await
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
        partition_epoch: 0,
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

#[tokio::test]
async fn what_is_appended_is_read_in_order() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    let mut pending = Vec::new();
    for (acks, from, count) in [(Acks::None, 0, 3), (Acks::Leader, 3, 1), (Acks::All, 4, 2)] {
        let options = AppendOptions { acks, ..ALL };
        pending.push((
            from,
            partition
                .submit(plain(from, count), options)
                .await
                .expect("queued"),
        ));
    }
    for (from, pending) in pending {
        let appended = pending.await.expect("appended");
        assert_eq!(
            (appended.base_offset.value(), appended.duplicate),
            (from as i64, false)
        );
    }
    let ticket = partition.append(plain(6, 1), ALL).await.expect("appended");
    assert_eq!(ticket.done().await.expect("committed").last_offset, Offset(6));
    assert_eq!(consume(&partition, 0).await, numbered(7));
    assert_eq!(consume(&partition, 5).await, numbered(7)[5..]);
    let marks = *partition.watermarks().borrow();
    assert_eq!(
        (marks.high_watermark, marks.log_end, marks.log_start),
        (Offset(7), Offset(7), Offset(0))
    );
}

#[tokio::test]
async fn appends_of_many_get_offsets_without_a_gap() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    let appends = (0..500).map(|_| {
        let partition = partition.clone();
        async move {
            let pending = partition.submit(plain(0, 3), ALL).await.expect("queued");
            pending.await.expect("committed").base_offset.value()
        }
    });
    let mut bases = futures_util::future::join_all(appends).await;
    bases.sort_unstable();
    assert_eq!(bases, (0..500).map(|number| number * 3).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_retry_is_a_duplicate_even_across_a_crash() {
    let mut rig = Rig::new().await;
    let mut partition = rig.topic(1, &[]).await;
    let mut sent = 0;
    for round in 0..6 {
        for _ in 0..7 {
            let appended = partition
                .append(idempotent(sent, 2), ALL)
                .await
                .expect("in order");
            assert_eq!(
                appended.done().await.expect("committed").base_offset.value(),
                i64::from(sent)
            );
            sent += 2;
        }
        if round % 2 == 0 {
            rig = rig.crash().await;
            partition = rig.get("t");
        }
        for back in 1..=5 {
            let sequence = sent - 2 * back;
            let again = partition
                .append(idempotent(sequence, 2), ALL)
                .await
                .expect("known");
            let appended = again.done().await.expect("committed");
            assert_eq!(
                (appended.base_offset.value(), appended.duplicate),
                (i64::from(sequence), true)
            );
        }
        let error = partition
            .append(idempotent(sent + 1, 1), ALL)
            .await
            .expect_err("a gap");
        assert_eq!(
            error,
            AppendError::OutOfOrderSequence {
                producer: ProducerId(7),
                found: sent + 1,
                expected: sent
            }
        );
    }
    assert_eq!(consume(&partition, 0).await, numbered(sent as usize));
}

#[tokio::test]
async fn what_was_acknowledged_survives_every_crash() {
    let mut rig = Rig::new().await;
    rig.topic(1, &[("segment.bytes", "2000")]).await;
    let mut written = 0;
    for round in 0..30 {
        let partition = rig.get("t");
        let count = 1 + round % 7;
        for _ in 0..4 {
            let ticket = partition
                .append(plain(written, count), ALL)
                .await
                .expect("appended");
            ticket.done().await.expect("committed");
            written += count;
        }
        // Nobody waits for this one: it may be there afterwards, whole, or not at all.
        let options = AppendOptions {
            acks: Acks::None,
            ..ALL
        };
        let ticket = partition
            .submit(plain(written, 2), options)
            .await
            .expect("queued");
        drop(ticket);
        rig = rig.crash().await;
        let found = consume(&rig.get("t"), 0).await;
        assert!(
            found.len() == written || found.len() == written + 2,
            "{} of {written}",
            found.len()
        );
        assert_eq!(found, numbered(found.len()), "round {round}");
        written = found.len();
    }
}

#[tokio::test]
async fn a_failed_sync_takes_one_partition_offline_and_no_other() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    partition
        .append(plain(0, 1), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    rig.disk.fail(Operation::Sync, 0, io::ErrorKind::Other);
    let ticket = partition
        .append(plain(1, 1), ALL)
        .await
        .expect("it is in the log");
    assert!(matches!(ticket.done().await, Err(TicketError::Offline { .. })));
    let error = partition
        .append(plain(1, 1), ALL)
        .await
        .expect_err("not trusted any more");
    assert!(matches!(error, AppendError::Offline { .. }), "{error}");
    assert_eq!(consume(&partition, 0).await, numbered(1));
    let other = rig.any_topic(2, "other", &[], None, false).await;
    other
        .append(plain(0, 1), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    assert!(rig.health.is_ready() && rig.health.is_alive());
    let rig = rig.crash().await;
    let partition = rig.get("t");
    let committed = consume(&partition, 0).await.len();
    let ticket = partition
        .append(plain(committed, 1), ALL)
        .await
        .expect("opened anew");
    ticket.done().await.expect("committed");
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_recovers_by_itself() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    partition
        .append(idempotent(0, 1), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    rig.disk.set_capacity(0);
    for _ in 0..3 {
        assert_eq!(
            partition.append(idempotent(1, 1), ALL).await.expect_err("full"),
            AppendError::DiskFull
        );
    }
    assert!(partition.is_disk_full());
    assert_eq!(consume(&partition, 0).await, numbered(1));
    rig.disk.set_capacity(1 << 30);
    let ticket = partition
        .append(idempotent(1, 1), ALL)
        .await
        .expect("the refused one is not a duplicate");
    assert!(!ticket.done().await.expect("committed").duplicate);
    assert!(!partition.is_disk_full());
    assert_eq!(consume(&partition, 0).await, numbered(2));
}

#[tokio::test]
async fn partitions_come_change_and_go_with_the_metadata() {
    let mut rig = Rig::new().await;
    let first = rig.topic(1, &[]).await;
    first
        .append(plain(0, 5), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    let id = TopicId([1; 16]);

    rig.say(&[config(id, "max.message.bytes", "80")]).await;
    while first.config().max_message_bytes != 80 {
        tokio::task::yield_now().await;
    }
    let error = first.append(plain(0, 5), ALL).await.expect_err("too large now");
    assert!(
        matches!(error, AppendError::TooLarge { limit: 80, .. }),
        "{error}"
    );

    rig.say(&[partition(id, 1, 0)]).await;
    assert!(rig.registry.get_by_id(id, PartitionIndex(1)).is_some());
    assert_eq!(rig.registry.list().len(), 2);

    // Deleted and made again by the same name: another log.
    let again = TopicId([2; 16]);
    rig.say(&[
        Record::RemoveTopic { id },
        Record::Topic {
            id: again,
            name: "t".to_owned(),
            internal: false,
            mirror: None,
        },
        partition(again, 0, 0),
    ])
    .await;
    assert!(rig.registry.get_by_id(id, PartitionIndex(0)).is_none());
    assert_eq!(consume(&rig.get("t"), 0).await, []);
    assert_eq!(
        first.append(plain(0, 1), ALL).await.expect_err("gone"),
        AppendError::Stopped
    );
    let folders = rig.disk.list(Path::new("topics")).expect("listed");
    let names: Vec<_> = folders.into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [format!("{again}-0")]);
}

#[tokio::test]
async fn epochs_are_checked_and_kept() {
    let mut rig = Rig::new().await;
    let partition_0 = rig.topic(1, &[]).await;
    partition_0
        .append(plain(0, 4), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    rig.say(&[partition(TopicId([1; 16]), 0, 5)]).await;
    while partition_0.leader_epoch() != LeaderEpoch(5) {
        tokio::task::yield_now().await;
    }
    partition_0
        .append(plain(4, 2), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    let with = |epoch| AppendOptions {
        current_epoch: Some(LeaderEpoch(epoch)),
        ..ALL
    };
    let (asked, current) = (LeaderEpoch(0), LeaderEpoch(5));
    let fenced = EpochError::Fenced { asked, current };
    assert_eq!(
        partition_0.append(plain(6, 1), with(0)).await.expect_err("old"),
        AppendError::Epoch(fenced)
    );
    let unknown = EpochError::Unknown {
        asked: LeaderEpoch(6),
        current,
    };
    let read = ReadRequest {
        current_epoch: Some(LeaderEpoch(6)),
        ..request(0)
    };
    assert_eq!(
        partition_0.read(read).await.expect_err("new"),
        ReadError::Epoch(unknown)
    );
    for (epoch, expected) in [(0, (0, 4)), (3, (0, 4)), (5, (5, 6)), (9, (-1, -1))] {
        let end = partition_0
            .epoch_end(LeaderEpoch(epoch), Some(current))
            .await
            .expect("known");
        assert_eq!((end.epoch.value(), end.end.value()), expected, "epoch {epoch}");
    }
}

#[tokio::test]
async fn offsets_are_looked_up_and_records_deleted() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    partition
        .append(plain(0, 4), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    let check = async |query, expected: Option<(i64, i64)>| {
        let found = partition
            .list_offset(query, Isolation::Uncommitted, None)
            .await
            .expect("answered");
        assert_eq!(
            found.map(|it| (it.offset.value(), it.timestamp_ms)),
            expected,
            "{query:?}"
        );
    };
    check(OffsetQuery::Earliest, Some((0, -1))).await;
    check(OffsetQuery::Latest, Some((4, -1))).await;
    check(OffsetQuery::At(NOW), Some((0, NOW))).await;
    check(OffsetQuery::At(NOW + 1), None).await;
    check(OffsetQuery::MaxTimestamp, Some((0, NOW))).await;

    assert_eq!(partition.delete_records(Some(Offset(3))).await, Ok(Offset(3)));
    assert_eq!(partition.delete_records(Some(Offset(1))).await, Ok(Offset(3)));
    let beyond = LookupError::OutOfRange {
        asked: Offset(5),
        start: Offset(3),
        end: Offset(4),
    };
    assert_eq!(partition.delete_records(Some(Offset(5))).await, Err(beyond));
    check(OffsetQuery::Earliest, Some((3, -1))).await;
    let gone = ReadError::OutOfRange {
        asked: Offset(2),
        start: Offset(3),
        end: Offset(4),
    };
    assert_eq!(partition.read(request(2)).await.expect_err("gone"), gone);
    assert_eq!(partition.delete_records(None).await, Ok(Offset(4)));
    let rig = rig.crash().await;
    assert_eq!(rig.get("t").watermarks().borrow().log_start, Offset(4));
}

#[tokio::test]
async fn a_mirror_is_written_by_its_link_only() {
    let mut rig = Rig::new().await;
    let mirror = MirrorSource {
        link: "up".to_owned(),
        site: "s".to_owned(),
        topic: "t".to_owned(),
        topic_id: TopicId([9; 16]),
    };
    let copy = rig.any_topic(1, "copy", &[], Some(mirror), false).await;
    let refused = copy
        .append(plain(0, 1), ALL)
        .await
        .expect_err("not ours to write");
    assert_eq!(
        refused,
        AppendError::ReadOnlyMirror {
            link: "up".to_owned()
        }
    );
    let at = |offset, from| {
        batch(
            BatchOptions {
                base_offset: Offset(offset),
                ..BatchOptions::PLAIN
            },
            &values(from, 2),
        )
    };
    for (offset, from) in [(0, 0), (2, 2), (10, 10)] {
        copy.append_copy(at(offset, from))
            .await
            .expect("it goes on")
            .done()
            .await
            .expect("committed");
    }
    let found: Vec<_> = consume(&copy, 0)
        .await
        .into_iter()
        .map(|(offset, _)| offset)
        .collect();
    assert_eq!(found, [0, 1, 2, 3, 10, 11]);
    let back = copy.append_copy(at(5, 5)).await.expect_err("behind the end");
    assert_eq!(
        back,
        AppendError::NotContiguous {
            expected: Offset(12),
            found: Offset(5)
        }
    );
    copy.restart_at(Offset(100)).await.expect("emptied");
    let marks = *copy.watermarks().borrow();
    assert_eq!(
        (marks.log_start, marks.high_watermark, marks.log_end),
        (Offset(100), Offset(100), Offset(100))
    );
    copy.append_copy(at(100, 0))
        .await
        .expect("it goes on")
        .done()
        .await
        .expect("committed");
    assert_eq!(consume(&copy, 100).await.len(), 2);
}

#[tokio::test]
async fn internal_topics_are_closed_to_clients_save_one() {
    let mut rig = Rig::new().await;
    let closed = rig.any_topic(1, "__audit", &[], None, true).await;
    assert_eq!(
        closed.append(plain(0, 1), ALL).await.expect_err("closed"),
        AppendError::Internal
    );
    let ours = AppendOptions {
        origin: Origin::Internal,
        ..ALL
    };
    closed.append(plain(0, 1), ours).await.expect("open to the node");
    let open = rig.any_topic(2, "_schemas", &[], None, true).await;
    open.append(plain(0, 1), ALL).await.expect("open to clients");
}

#[tokio::test]
async fn acks_all_needs_enough_replicas() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[("min.insync.replicas", "2")]).await;
    let error = partition
        .append(plain(0, 1), ALL)
        .await
        .expect_err("one is not two");
    assert_eq!(
        error,
        AppendError::NotEnoughReplicas {
            in_sync: 1,
            required: 2
        }
    );
    let options = AppendOptions {
        acks: Acks::Leader,
        ..ALL
    };
    partition
        .append(plain(0, 1), options)
        .await
        .expect("the leader alone is enough");
}

#[tokio::test]
async fn write_caching_commits_before_the_sync() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[("write.caching", "true")]).await;
    let before = rig.disk.calls(Operation::Sync);
    for round in 0..10 {
        partition
            .append(plain(round, 1), ALL)
            .await
            .expect("appended")
            .done()
            .await
            .expect("committed");
    }
    assert_eq!(rig.disk.calls(Operation::Sync), before);
    assert_eq!(consume(&partition, 0).await, numbered(10));
    assert_eq!(rig.registry.stop(Duration::from_secs(1)).await, 0);
    assert!(rig.disk.calls(Operation::Sync) > before);
}

#[tokio::test]
async fn retention_lets_old_segments_go_unless_they_are_held() {
    let mut rig = Rig::new().await;
    let partition = rig
        .topic(1, &[("segment.bytes", "1000"), ("retention.bytes", "2000")])
        .await;
    partition.hold(Some(Offset(30)), u64::MAX);
    for from in 0..100 {
        partition
            .append(plain(from, 1), ALL)
            .await
            .expect("appended")
            .done()
            .await
            .expect("committed");
    }
    let mut marks = partition.watermarks();
    rig.sys.clock.advance(Duration::from_secs(2));
    marks
        .wait_for(|marks| marks.log_start > Offset(0))
        .await
        .expect("it runs");
    assert!(marks.borrow().log_start <= Offset(30), "what is held stays");
    partition.hold(None, 0);
    rig.sys.clock.advance(Duration::from_secs(2));
    marks
        .wait_for(|marks| marks.log_start > Offset(50))
        .await
        .expect("it runs");
    assert!(partition.size_bytes() <= 4000);
    let start = partition.watermarks().borrow().log_start.value();
    assert_eq!(consume(&partition, start).await, numbered(100)[start as usize..]);
}

#[tokio::test]
async fn a_stop_syncs_everything_and_the_next_start_checks_nothing() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[("write.caching", "true")]).await;
    partition.append(idempotent(0, 3), ALL).await.expect("appended");
    assert_eq!(rig.registry.stop(Duration::from_secs(1)).await, 0);
    assert_eq!(
        partition.append(plain(0, 1), ALL).await.expect_err("stopped"),
        AppendError::Stopped
    );
    let rig = rig.crash().await;
    let partition = rig.get("t");
    assert_eq!(consume(&partition, 0).await, numbered(3));
    let again = partition.append(idempotent(0, 3), ALL).await.expect("known");
    assert!(again.appended.duplicate);
}

#[tokio::test]
async fn a_log_that_could_not_be_opened_is_tried_again() {
    let mut rig = Rig::new().await;
    rig.disk.fail(Operation::Open, 0, io::ErrorKind::Other);
    let partition = rig.topic(1, &[]).await;
    assert!(partition.offline().is_some());
    let error = partition.append(plain(0, 1), ALL).await.expect_err("offline");
    assert!(matches!(error, AppendError::Offline { .. }), "{error}");
    assert!(matches!(
        partition.read(request(0)).await,
        Err(ReadError::Offline { .. })
    ));
    rig.sys.clock.advance(Duration::from_secs(11));
    while rig.get("t").offline().is_some() {
        tokio::task::yield_now().await;
    }
    rig.get("t")
        .append(plain(0, 1), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
}
