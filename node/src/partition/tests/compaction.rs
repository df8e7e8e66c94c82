//! Topics that are compacted: the cleaner finds them by itself, leaves others alone, and goes by the properties.

use super::*;
use crate::telemetry::names;

fn keyed(producer: ProducerStamp, records: &[(u32, u32)]) -> Bytes {
    let options = BatchOptions {
        producer,
        ..BatchOptions::PLAIN
    };
    keyed_with(options, records)
}

pub(super) fn keyed_with(options: BatchOptions, records: &[(u32, u32)]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for (key, value) in records {
        let (key, value) = (key.to_be_bytes(), format!("value {value}"));
        let record = NewRecord {
            timestamp_ms: NOW,
            key: Some(&key),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        builder.append(&record).expect("it fits");
    }
    builder.build().expect("it can be written").expect("records")
}

/// Fifty batches of two records over four keys, two in each segment, by one producer.
async fn fill(partition: &Partition) {
    for number in 0..50_u32 {
        let stamp = ProducerStamp {
            id: ProducerId(7),
            epoch: ProducerEpoch(0),
            base_sequence: number as i32 * 2,
        };
        let records = [(number % 4, number), (number % 2, number)];
        let ticket = partition.append(keyed(stamp, &records), ALL).await.unwrap();
        ticket.done().await.unwrap();
    }
}

/// Lets the cleaner look, and everything that follows from it happen.
pub(super) async fn later(rig: &Rig, seconds: u64) {
    for _ in 0..seconds {
        rig.sys.clock.advance(Duration::from_secs(1));
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
}

pub(super) const SMALL: (&str, &str) = ("segment.bytes", "250");
pub(super) const COMPACT: (&str, &str) = ("cleanup.policy", "compact");

/// The last value of each key below the segment that is appended to, and all of that one.
fn last_values() -> Vec<(i64, String)> {
    vec![
        (92, "value 46".to_owned()),
        (93, "value 46".to_owned()),
        (94, "value 47".to_owned()),
        (95, "value 47".to_owned()),
        (96, "value 48".to_owned()),
        (97, "value 48".to_owned()),
        (98, "value 49".to_owned()),
        (99, "value 49".to_owned()),
    ]
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_last_values_and_no_other_is_touched() {
    let mut rig = Rig::new().await;
    let compacted = rig.any_topic(1, "c", &[COMPACT, SMALL], None, false).await;
    let deleted = rig.any_topic(2, "d", &[SMALL], None, false).await;
    fill(&compacted).await;
    fill(&deleted).await;
    let before = deleted.size_bytes();
    later(&rig, 20).await;
    assert_eq!(consume(&compacted, 0).await, last_values());
    assert_eq!(
        compacted.watermarks().borrow().log_start,
        Offset(0),
        "nothing is deleted"
    );
    assert_eq!(
        (deleted.size_bytes(), consume(&deleted, 0).await.len()),
        (before, 100)
    );
    // What the partition knows of its producer is what the log says, before and after a crash.
    let mut rig = rig.crash().await;
    assert_eq!(consume(&rig.get("c"), 0).await, last_values());
    let stamp = ProducerStamp {
        id: ProducerId(7),
        epoch: ProducerEpoch(0),
        base_sequence: 98,
    };
    let again = keyed(stamp, &[(1, 49), (1, 49)]);
    let duplicate = rig.get("c").submit(again, ALL).await.unwrap().await.unwrap();
    assert_eq!(duplicate.base_offset, Offset(98));
    // Retention with `compact` alone lets nothing go, with `delete` it does.
    let topic = TopicId([1; 16]);
    rig.say(&[config(topic, "retention.ms", "1")]).await;
    later(&rig, 120).await;
    assert_eq!(consume(&rig.get("c"), 0).await, last_values());
    rig.say(&[config(topic, "cleanup.policy", "compact,delete")])
        .await;
    later(&rig, 120).await;
    assert_eq!(consume(&rig.get("c"), 100).await, []);
    assert_eq!(rig.get("c").watermarks().borrow().log_start, Offset(100));
}

#[tokio::test]
async fn a_log_that_cannot_be_compacted_is_set_aside_and_others_go_on() {
    let mut rig = Rig::new().await;
    let broken = rig.any_topic(1, "a", &[COMPACT, SMALL], None, false).await;
    let good = rig.any_topic(2, "b", &[COMPACT, SMALL], None, false).await;
    fill(&broken).await;
    fill(&good).await;
    let folder = format!("topics/{}-0", TopicId([1; 16]));
    let file = Path::new(&folder).join(format!("{:020}.log", 8));
    rig.disk.corrupt(&file, 70, &[0xff]);
    later(&rig, 20).await;
    assert_eq!(consume(&good, 0).await, last_values());
    assert_eq!(broken.damaged().len(), 1, "it is known where");
    assert_eq!(rig.metrics.total(&names::CLEANER_FAILURES), 1);
    assert_eq!(rig.metrics.total(&names::CLEANER_RUNS), 1);
    assert_eq!(broken.offline(), None);
    later(&rig, 20).await;
    assert_eq!(rig.metrics.total(&names::CLEANER_FAILURES), 1, "it is left alone");
    assert!(rig.metrics.total(&names::CLEANER_CLEANED_BYTES) > 1_000);
}

#[tokio::test]
async fn a_log_that_is_not_dirty_enough_or_too_young_waits() {
    let mut rig = Rig::new().await;
    let properties = [COMPACT, SMALL, ("min.cleanable.dirty.ratio", "1")];
    let never = rig.any_topic(1, "never", &properties, None, false).await;
    let properties = [COMPACT, SMALL, ("min.compaction.lag.ms", "4000000000000")];
    let young = rig.any_topic(2, "young", &properties, None, false).await;
    let properties = [
        COMPACT,
        SMALL,
        ("min.cleanable.dirty.ratio", "1"),
        ("max.compaction.lag.ms", "60000"),
    ];
    let overdue = rig.any_topic(3, "overdue", &properties, None, false).await;
    for partition in [&never, &young, &overdue] {
        fill(partition).await;
    }
    later(&rig, 40).await;
    for partition in [&never, &young, &overdue] {
        assert_eq!(consume(partition, 0).await.len(), 100, "{}", partition.name());
    }
    later(&rig, 150).await;
    assert_eq!(consume(&never, 0).await.len(), 100);
    assert_eq!(consume(&young, 0).await.len(), 100);
    // The last segment was rolled in time, so that even that is compacted.
    let left: Vec<i64> = consume(&overdue, 0).await.iter().map(|it| it.0).collect();
    assert_eq!(left, [92, 94, 97, 99]);
    rig.say(&[config(TopicId([1; 16]), "min.cleanable.dirty.ratio", "0.5")])
        .await;
    later(&rig, 40).await;
    assert_eq!(consume(&never, 0).await, last_values());
}

#[tokio::test]
async fn what_was_compacted_is_never_cut_though_nobody_knows_any_more_that_it_was_committed() {
    let mut rig = Rig::new().await;
    let partition = rig.any_topic(1, "c", &[COMPACT, SMALL], None, false).await;
    fill(&partition).await;
    later(&rig, 20).await;
    let state = PartitionState {
        leader: NodeId(2),
        leader_epoch: LeaderEpoch(1),
        replicas: vec![NodeId(1), NodeId(2)],
        isr: vec![NodeId(2)],
        ..PartitionState::default()
    };
    rig.say(&[Record::Partition {
        topic: TopicId([1; 16]),
        index: PartitionIndex(0),
        state,
    }])
    .await;
    let rig = rig.crash().await;
    let partition = rig.get("c");
    assert_eq!(partition.watermarks().borrow().high_watermark, Offset(0));
    let position = partition
        .truncate_replica(LeaderEpoch(1), Offset(98))
        .await
        .unwrap();
    assert_eq!(position.next, Offset(98), "what was not compacted may go");
    let refused = partition.truncate_replica(LeaderEpoch(1), Offset(50)).await;
    assert!(
        matches!(refused, Err(ReplicaError::Offline { .. })),
        "{refused:?}"
    );
    assert!(
        partition
            .offline()
            .is_some_and(|reason| reason.contains("below 96"))
    );
}
