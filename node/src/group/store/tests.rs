//! Golden bytes: what Kafka 3.9 and 4.x write and read for the same contents.

use super::*;
use crate::group::request::{Assignment, Epoch};
use headwater_protocol::ids::TopicId;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn committed() -> Committed {
    Committed {
        offset: Offset(42),
        leader_epoch: LeaderEpoch(7),
        metadata: Name::from("m"),
        committed_ms: 1_700_000_000_000,
        expires_ms: None,
    }
}

fn partition() -> TopicPartition {
    TopicPartition {
        topic: Name::from("orders"),
        index: PartitionIndex(3),
    }
}

fn metadata() -> GroupMetadata {
    GroupMetadata {
        protocol_type: Name::from("consumer"),
        generation: Generation(5),
        protocol: Some(Name::from("range")),
        leader: Some(Name::from("c-1")),
        since_ms: Some(1_700_000_000_000),
        members: vec![MemberMetadata {
            member: Name::from("c-1"),
            instance: None,
            client_id: Name::from("c"),
            client_host: Name::from("/127.0.0.1"),
            rebalance_timeout_ms: 300_000,
            session_timeout_ms: 45_000,
            subscription: Bytes::from_static(&[1, 2]),
            assignment: Bytes::from_static(&[3]),
        }],
    }
}

const OFFSET_KEY_HEX: &str = "0001 000267 31 00066f7264657273 00000003";
const OFFSET_VALUE_HEX: &str = "0003 000000000000002a 00000007 00016d 0000018bcfe56800";
const EXPIRING_VALUE_HEX: &str = "0001 000000000000002a 00016d 0000018bcfe56800 0000018bcfe56801";
const GROUP_KEY_HEX: &str = "0002 0002 6731";
const GROUP_VALUE_HEX: &str = "0003 0008636f6e73756d6572 00000005 000572616e6765 0003632d31 0000018bcfe56800 \
     00000001 0003632d31 ffff 000163 000a2f3132372e302e302e31 000493e0 0000afc8 00000002 0102 00000001 03";

#[test]
fn records_are_written_as_kafka_writes_them() {
    let record = offset_record("g1", &partition(), &committed());
    assert_eq!(hex(&record.key), hex(&bytes(OFFSET_KEY_HEX)));
    assert_eq!(hex(&record.value.unwrap()), hex(&bytes(OFFSET_VALUE_HEX)));
    let expiring = Committed {
        expires_ms: Some(1_700_000_000_001),
        ..committed()
    };
    let record = offset_record("g1", &partition(), &expiring);
    assert_eq!(hex(&record.value.unwrap()), hex(&bytes(EXPIRING_VALUE_HEX)));
    assert_eq!(hex(&group_key("g1")), hex(&bytes(GROUP_KEY_HEX)));
    assert_eq!(hex(&group_value(&metadata())), hex(&bytes(GROUP_VALUE_HEX)));
    assert_eq!(offset_tombstone("g1", &partition()).value, None);
    assert_eq!(hex(&group_tombstone("g1").key), hex(&bytes(GROUP_KEY_HEX)));
}

#[test]
fn every_version_of_an_offset_is_read() {
    let check = |hex: &str, expected: Committed| assert_eq!(read_offset(&bytes(hex)), Ok(expected), "{hex}");
    let old = || Committed {
        leader_epoch: LeaderEpoch(-1),
        ..committed()
    };
    check("0000 000000000000002a 00016d 0000018bcfe56800", old());
    let expiring = Committed {
        expires_ms: Some(1_700_000_000_001),
        ..old()
    };
    check(EXPIRING_VALUE_HEX, expiring);
    check(
        "0001 000000000000002a 00016d 0000018bcfe56800 ffffffffffffffff",
        old(),
    );
    check("0002 000000000000002a 00016d 0000018bcfe56800", old());
    check(OFFSET_VALUE_HEX, committed());
    // With the topic's id as a tagged field.
    check(
        "0004 000000000000002a 00000007 026d 0000018bcfe56800 01 00 10 000102030405060708090a0b0c0d0e0f",
        committed(),
    );
}

#[test]
fn every_version_of_a_group_is_read() {
    let check =
        |hex: &str, expected: GroupMetadata| assert_eq!(read_group(&bytes(hex)), Ok(expected), "{hex}");
    check(GROUP_VALUE_HEX, metadata());
    let old = |rebalance_timeout_ms| {
        let mut old = metadata();
        old.since_ms = None;
        old.members[0].rebalance_timeout_ms = rebalance_timeout_ms;
        old
    };
    let front = "0008636f6e73756d6572 00000005 000572616e6765 0003632d31";
    let member = "0003632d31 000163 000a2f3132372e302e302e31";
    let rest = "0000afc8 00000002 0102 00000001 03";
    check(&format!("0000 {front} 00000001 {member} {rest}"), old(45_000));
    check(
        &format!("0001 {front} 00000001 {member} 000493e0 {rest}"),
        old(300_000),
    );
    let empty = GroupMetadata {
        protocol: None,
        leader: None,
        members: Vec::new(),
        ..metadata()
    };
    check(
        "0002 0008636f6e73756d6572 00000005 ffff ffff 0000018bcfe56800 00000000",
        empty,
    );
    check(
        "0004 09636f6e73756d6572 00000005 0672616e6765 04632d31 0000018bcfe56800 02 04632d31 00 0263 \
         0b2f3132372e302e302e31 000493e0 0000afc8 03 0102 02 03 00 00",
        metadata(),
    );
}

#[test]
fn what_is_not_understood_is_counted_and_harms_nothing() {
    let mut replay = Replay::default();
    let (key, value) = (bytes(OFFSET_KEY_HEX), bytes(OFFSET_VALUE_HEX));
    replay.record(Some(&key), Some(&value));
    for (key, value) in [
        (None, None),
        (Some(""), Some("00")),
        // A share group whose record is cut short.
        (Some("000b 00026731"), Some("0000")),
        (Some("0001 000267"), None),
        (Some("0001 7fff 31"), None),
        (Some(OFFSET_KEY_HEX), Some("0009 00")),
        (Some(OFFSET_KEY_HEX), Some("0003 00")),
        (Some(GROUP_KEY_HEX), Some("0003 ffff")),
        (
            Some(GROUP_KEY_HEX),
            Some("0003 000163 00000005 ffff ffff 0000018bcfe56800 7fffffff"),
        ),
        (Some(GROUP_KEY_HEX), Some("0004 ffffffffff")),
        (Some(GROUP_KEY_HEX), Some("0004 80808080")),
    ] {
        let key = key.map(bytes);
        let value = value.map(bytes);
        replay.record(key.as_deref(), value.as_deref());
    }
    let Restored { groups, unknown, .. } = replay.finish();
    assert_eq!(unknown, 11);
    assert_eq!(groups[&Name::from("g1")].offsets[&partition()], committed());
}

#[test]
fn the_last_record_of_a_key_counts() {
    let mut replay = Replay::default();
    let (offset, group) = (bytes(OFFSET_KEY_HEX), bytes(GROUP_KEY_HEX));
    replay.record(Some(&offset), Some(&bytes(OFFSET_VALUE_HEX)));
    replay.record(Some(&group), Some(&bytes(GROUP_VALUE_HEX)));
    replay.record(Some(&offset), None);
    let kept = replay.groups[&Name::from("g1")].clone();
    assert_eq!(kept.metadata.map(|(metadata, _)| metadata), Some(metadata()));
    assert_eq!(kept.offsets.len(), 0);
    replay.record(Some(&group), None);
    replay.record(Some(&group), None);
    assert_eq!(replay.finish().groups.len(), 0);
}

const TOPIC_HEX: &str = "000102030405060708090a0b0c0d0e0f";

fn assignment(indexes: &[i32]) -> Assignment {
    let topic = TopicId(std::array::from_fn(|n| u8::try_from(n).unwrap()));
    let indexes = indexes.iter();
    indexes.map(|index| (topic, PartitionIndex(*index))).collect()
}

/// A group of the consumer protocol with one member, and what Kafka writes for it: keys and values.
fn consumers() -> (RestoredConsumers, Vec<(GroupRecord, String, String)>) {
    let id = Name::from("c-1");
    let restored = RestoredConsumers {
        metadata: Some(ConsumerMetadata {
            epoch: Epoch(5),
            topics_hash: 7,
        }),
        members: BTreeMap::from([(
            id.clone(),
            ConsumerMember {
                instance: None,
                rack: None,
                client_id: Name::from("c"),
                client_host: Name::from("/h"),
                topics: [Name::from("t")].into(),
                regex: Some(Name::from("t*")),
                rebalance_timeout_ms: 60_000,
                assignor: Some(Name::from("uniform")),
            },
        )]),
        targets_epoch: Some(Epoch(5)),
        targets: BTreeMap::from([(id.clone(), assignment(&[0, 1]))]),
        current: BTreeMap::from([(
            id.clone(),
            CurrentAssignment {
                epoch: Epoch(5),
                previous_epoch: Epoch(4),
                stage: MemberStage::Unrevoked,
                assigned: assignment(&[0]),
                revoking: assignment(&[1]),
            },
        )]),
        regexes: BTreeMap::from([(
            Name::from("t*"),
            ResolvedRegex {
                topics: [Name::from("t")].into(),
                version: 7,
                resolved_ms: 1_700_000_000_000,
            },
        )]),
    };
    let group = "0002 6731";
    let member = "0002 6731 0003632d31";
    let records = vec![
        (
            metadata_record("g1", restored.metadata.unwrap()),
            format!("0003 {group}"),
            "0000 00000005 01 00 08 0000000000000007".to_owned(),
        ),
        (
            member_record("g1", &id, &restored.members[&id]),
            format!("0005 {member}"),
            "0000 00 00 0263 032f68 02 0274 03742a 0000ea60 08756e69666f726d 00".to_owned(),
        ),
        (
            targets_record("g1", Epoch(5)),
            format!("0006 {group}"),
            "0000 00000005 00".to_owned(),
        ),
        (
            target_record("g1", &id, &restored.targets[&id]),
            format!("0007 {member}"),
            format!("0000 02 {TOPIC_HEX} 03 00000000 00000001 00 00"),
        ),
        (
            current_record("g1", &id, &restored.current[&id]),
            format!("0008 {member}"),
            format!(
                "0000 00000005 00000004 01 02 {TOPIC_HEX} 02 00000000 00 02 {TOPIC_HEX} 02 00000001 00 00"
            ),
        ),
        (
            regex_record("g1", &Name::from("t*"), &restored.regexes[&Name::from("t*")]),
            "0010 0002 6731 0002 742a".to_owned(),
            "0000 02 0274 0000000000000007 0000018bcfe56800 00".to_owned(),
        ),
    ];
    (restored, records)
}

#[test]
fn groups_of_the_consumer_protocol_are_written_and_read_as_kafka_does() {
    let (restored, records) = consumers();
    let mut replay = Replay::default();
    for (record, key, value) in &records {
        assert_eq!(hex(&record.key), hex(&bytes(key)));
        assert_eq!(hex(record.value.as_ref().unwrap()), hex(&bytes(value)), "{key}");
        replay.record(Some(&bytes(key)), Some(&bytes(value)));
    }
    // What Kafka up to 4.0 kept of the topics.
    replay.record(Some(&bytes("0004 0002 6731")), Some(&bytes("0000 01 00")));
    assert_eq!(replay.groups[&Name::from("g1")].consumers, restored);
    for (_, key, _) in &records {
        replay.record(Some(&bytes(key)), None);
    }
    let Restored { groups, unknown, .. } = replay.finish();
    assert_eq!((groups.len(), unknown), (0, 0));
}

#[test]
fn what_newer_versions_add_is_passed_over() {
    let mut replay = Replay::default();
    for (key, value) in [
        (
            "0003 0002 6731",
            "0000 00000005 02 00 08 0000000000000007 05 01 ff",
        ),
        ("0006 0002 6731", "0000 00000004 01 00 02 0102"),
        ("0005 0002 6731 0003632d31", "0001"),
        ("0007 0002 6731 0003632d31", "0000 7f"),
    ] {
        replay.record(Some(&bytes(key)), Some(&bytes(value)));
    }
    let Restored { groups, unknown, .. } = replay.finish();
    assert_eq!(unknown, 2);
    let restored = &groups[&Name::from("g1")].consumers;
    assert_eq!(
        restored.metadata.map(|it| (it.epoch, it.topics_hash)),
        Some((Epoch(5), 7))
    );
    assert_eq!(restored.targets_epoch, Some(Epoch(4)));
}
