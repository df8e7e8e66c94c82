//! The layout: there and back, and the first version of it.

use super::*;
use proptest::prelude::*;

fn partition(topic: &str, index: i32) -> TopicPartition {
    TopicPartition {
        topic: Arc::from(topic),
        index: PartitionIndex(index),
    }
}

fn kept(stage: Stage) -> Kept {
    Kept {
        producer: Producer {
            id: ProducerId(4000),
            epoch: ProducerEpoch(7),
        },
        before: None,
        next: None,
        timeout_ms: 60_000,
        stage,
        partitions: BTreeSet::from([partition("a", 0), partition("a", 2), partition("b", 1)]),
        updated_ms: 1_700_000_000_000,
        started_ms: Some(1_699_999_999_000),
        bumps_epoch: false,
    }
}

fn replayed(records: &[Record]) -> (BTreeMap<TransactionalId, Kept>, u64) {
    let mut replay = Replay::default();
    for Record { key, value } in records {
        replay.record(Some(key), value.as_deref());
    }
    replay.finish()
}

#[test]
fn the_last_record_of_an_id_counts() {
    let (first, last) = (kept(Stage::Ongoing), kept(Stage::PrepareAbort));
    let records = [
        record("one", Some(&first)),
        record("two", Some(&first)),
        record("one", Some(&last)),
        record("two", None),
    ];
    let (known, unknown) = replayed(&records);
    assert_eq!(known, BTreeMap::from([(Arc::from("one"), last)]));
    assert_eq!(unknown, 0);
}

#[test]
fn the_first_version_is_read_too() {
    // Version 0: fixed counts and lengths, no tags.
    let mut value = BytesMut::new();
    value.put_i16(0);
    value.put_i64(4000);
    value.put_i16(7);
    value.put_i32(60_000);
    value.put_i8(1);
    value.put_i32(1);
    value.put_i16(1);
    value.put_slice(b"a");
    value.put_i32(2);
    value.put_i32(0);
    value.put_i32(2);
    value.put_i64(5);
    value.put_i64(4);
    let read = decode(&value).expect("readable");
    let expected = Kept {
        partitions: BTreeSet::from([partition("a", 0), partition("a", 2)]),
        updated_ms: 5,
        started_ms: Some(4),
        ..kept(Stage::Ongoing)
    };
    assert_eq!(read, expected);
}

#[test]
fn what_is_not_understood_is_passed_over_and_counted() {
    let whole = record("one", Some(&kept(Stage::Ongoing)));
    let value = whole.value.as_ref().expect("set");
    for cut in 0..value.len() {
        let broken = Record {
            key: whole.key.clone(),
            value: Some(value.slice(..cut)),
        };
        let (known, unknown) = replayed(&[broken]);
        assert_eq!((known.len(), unknown), (0, 1), "cut at {cut}");
    }
}

fn any_kept() -> impl Strategy<Value = Kept> {
    let producer = || {
        (0..i64::MAX, 0..i16::MAX).prop_map(|(id, epoch)| Producer {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch),
        })
    };
    let partitions = prop::collection::btree_set(
        ("[a-z]{1,200}", 0..9i32).prop_map(|(topic, index)| partition(&topic, index)),
        0..20,
    );
    let stage = prop::sample::select(Stage::ALL.to_vec());
    let before = prop::option::of(producer());
    let next = prop::option::of((0..i64::MAX).prop_map(ProducerId));
    let times = (
        any::<i64>(),
        prop::option::of(0..i64::MAX),
        any::<i32>(),
        any::<bool>(),
    );
    (producer(), before, next, stage, partitions, times).prop_map(
        |(producer, before, next, stage, partitions, (updated_ms, started_ms, timeout_ms, bumps_epoch))| {
            Kept {
                producer,
                before,
                next,
                timeout_ms,
                stage,
                partitions,
                updated_ms,
                started_ms,
                bumps_epoch,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_was_written_is_read(kept in any_kept(), id in "[a-zA-Z0-9.-]{1,300}") {
        let (known, unknown) = replayed(&[record(&id, Some(&kept))]);
        prop_assert_eq!(known, BTreeMap::from([(Arc::from(id.as_str()), kept)]));
        prop_assert_eq!(unknown, 0);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        key in prop::collection::vec(any::<u8>(), 0..50),
        value in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut replay = Replay::default();
        replay.record(Some(&key), Some(&value));
        let _ = decode(&value);
    }
}
