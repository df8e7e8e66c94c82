//! Records keep their form, folds keep their rules, and a snapshot is worth the records it replaces.

use super::image::Addresses;
use super::*;
use headwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, ProducerId};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn partition_state(leader: i32) -> PartitionState {
    PartitionState {
        leader: NodeId(leader),
        leader_epoch: LeaderEpoch(3),
        replicas: vec![NodeId(leader), NodeId(2)],
        isr: vec![NodeId(leader)],
        partition_epoch: 5,
        ..PartitionState::default()
    }
}

/// What is on disk stays readable: these lines may be added to, never changed.
#[test]
fn records_have_golden_bytes() {
    let id = TopicId([7; 16]);
    let addresses = Addresses {
        tcp: "a:1".to_owned(),
        tls: String::new(),
        quic: "a:2".to_owned(),
        http: "a:3".to_owned(),
    };
    let node = Node::new(NodeId(1), addresses, None);
    let mut supporting = Node::new(NodeId(2), Addresses::default(), None);
    let second = BTreeMap::from([(features::VERSION.to_owned(), 2)]);
    supporting.features = features::Supported::up_to(&second).registered();
    for (record, expected) in [
        (
            Record::Cluster {
                cluster_id: "c".to_owned(),
            },
            r#"{"format":1,"type":"cluster","cluster_id":"c"}"#,
        ),
        (
            Record::Node(node),
            r#"{"format":1,"type":"node","id":1,"addresses":{"tcp":"a:1","quic":"a:2","http":"a:3"},"rack":null}"#,
        ),
        (
            Record::Topic {
                id,
                name: "t".to_owned(),
                internal: false,
                mirror: None,
            },
            r#"{"format":1,"type":"topic","id":"BwcHBwcHBwcHBwcHBwcHBw","name":"t","internal":false,"mirror":null}"#,
        ),
        (
            Record::Partition {
                topic: id,
                index: PartitionIndex(0),
                state: partition_state(1),
            },
            r#"{"format":1,"type":"partition","topic":"BwcHBwcHBwcHBwcHBwcHBw","index":0,"leader":1,"leader_epoch":3,"replicas":[1,2],"isr":[1],"partition_epoch":5}"#,
        ),
        (
            Record::TopicConfig {
                topic: id,
                key: "retention.ms".to_owned(),
                value: Some("1".to_owned()),
            },
            r#"{"format":1,"type":"topic-config","topic":"BwcHBwcHBwcHBwcHBwcHBw","key":"retention.ms","value":"1"}"#,
        ),
        (
            Record::ProducerIds {
                next: ProducerId(1000),
            },
            r#"{"format":1,"type":"producer-ids","next":1000}"#,
        ),
        (
            Record::FeatureLevel {
                feature: "headwater.version".to_owned(),
                level: features::Level(2),
            },
            r#"{"format":1,"type":"feature-level","feature":"headwater.version","level":2}"#,
        ),
        (
            Record::Node(supporting),
            r#"{"format":1,"type":"node","id":2,"addresses":{"tcp":"","quic":"","http":""},"rack":null,"features":{"headwater.version":{"min":1,"max":2}}}"#,
        ),
        (
            Record::RemoveLink { name: "l".to_owned() },
            r#"{"format":1,"type":"remove-link","name":"l"}"#,
        ),
        (
            Record::RemoveModule {
                name: "filter".to_owned(),
                version: "1.0.0".to_owned(),
            },
            r#"{"format":1,"type":"remove-module","name":"filter","version":"1.0.0"}"#,
        ),
    ] {
        assert_eq!(
            String::from_utf8(record.encode()).expect("JSON is text"),
            expected
        );
        assert_eq!(Record::decode(expected.as_bytes()).expect("readable"), record);
    }
}

#[test]
fn modules_are_read_as_they_were_written() {
    let module = Record::Module(Module {
        name: "filter".to_owned(),
        version: "0.1.0".to_owned(),
        digest: "d".to_owned(),
        size: 1,
        world: World::Filter,
        description: String::new(),
        params: Vec::new(),
        imports: Vec::new(),
        builtin: false,
        created_ms: 0,
    });
    assert_eq!(Record::decode(&module.encode()).expect("readable"), module);
}

#[test]
fn transforms_are_written_as_before_until_they_need_a_newer_node() {
    let before = r#"{"format":1,"type":"transform","name":"t","module":{"name":"m","version":"1"},"params":{},"source":"in","sinks":["out"],"dead_letter":"dead","on_error":"dead-letter","placement":"any","limits":{"memory_bytes":1,"cpu_ms_per_batch":1,"output_bytes":1,"batch_bytes":1},"start":"earliest","window_ms":5,"lateness_ms":0,"idle_close_ms":null,"emit":"close","lookups":{},"paused":false,"revision":1,"created_ms":7}"#;
    let read = Record::decode(before.as_bytes()).expect("readable");
    assert_eq!(String::from_utf8(read.encode()).expect("JSON is text"), before);
    let Record::Transform(plain) = read else {
        panic!("a transform")
    };
    assert_eq!(plain.shape(), Some(WindowShape::Tumbling { size_ms: 5 }));
    assert_eq!(Record::Transform(plain.clone()).level(), features::Level::FIRST);
    let changes: [fn(&mut Transform); 3] = [
        |it| it.window = Some(WindowShape::Session { gap_ms: 5 }),
        |it| it.late_sink = Some("late".to_owned()),
        |it| it.state_ttl_ms = Some(5),
    ];
    for change in changes {
        let mut newer = plain.clone();
        change(&mut newer);
        let newer = Record::Transform(newer);
        assert_eq!(newer.level(), features::Level::WINDOWS);
        assert_eq!(Record::decode(&newer.encode()).expect("readable"), newer);
    }
    for with in [
        JoinWith::Table,
        JoinWith::Stream {
            within_ms: 5,
            grace_ms: 1,
        },
    ] {
        let joining = Record::Transform(Transform {
            join: Some(Box::new(Join {
                topic: "right".to_owned(),
                kind: JoinKind::Left,
                with,
                left_key: Some("/id".to_owned()),
                right_key: None,
            })),
            ..plain.clone()
        });
        assert_eq!(joining.level(), features::Level::JOINS);
        assert_eq!(Record::decode(&joining.encode()).expect("readable"), joining);
    }
}

#[test]
fn a_record_of_a_newer_build_is_named_as_such() {
    let newer = br#"{"format":2,"type":"something-new"}"#;
    let error = Record::decode(newer).expect_err("unknown");
    assert_eq!(
        error.to_string(),
        "metadata record of format 2, this build knows up to 1: it was written by a newer one"
    );
    let unknown = br#"{"format":1,"type":"something-new"}"#;
    assert_eq!(
        Record::decode(unknown).expect_err("unknown").to_string(),
        "metadata record \"something-new\" is not known to this build: it was written by a newer one"
    );
    // Wherever it is in what another node sends.
    let sent = br#"{"Append":{"entries":[{"payload":{"Normal":{"format":1,"records":[{"type":"something-new"}]}}}]}}"#;
    assert!(
        matches!(record::newer_in(sent), Some(record::RecordError::Unknown { kind }) if kind == "something-new")
    );
    assert!(record::newer_in(br#"{"Append":{"entries":[{"type":"cluster"},7]}"#).is_none());
    let malformed = Record::decode(br#"{"format":1,"type":"cluster"}"#);
    assert!(matches!(malformed, Err(record::RecordError::Malformed(_))));
    assert!(Record::decode(b"{}").is_err() && Record::decode(b"\xff").is_err());
    let added = br#"{"format":1,"type":"cluster","cluster_id":"c","added":true}"#;
    assert_eq!(
        Record::decode(added).expect("readable"),
        Record::Cluster {
            cluster_id: "c".to_owned()
        }
    );
}

/// What tells an unknown type from a damaged record.
#[test]
fn every_type_of_record_is_in_the_list_of_types() {
    let error = serde_json::from_str::<Record>(r#"{"type":"?"}"#).expect_err("unknown");
    let said = error.to_string();
    let known: Vec<&str> = said.split('`').skip(3).step_by(2).collect();
    assert_eq!(known, record::TYPES, "{said}");
}

fn fold(records: &[Record]) -> Image {
    let mut image = Image::default();
    for (offset, record) in (0..).zip(records) {
        image.apply(Offset(offset), record);
    }
    image
}

fn topic(id: u8, name: &str) -> Record {
    Record::Topic {
        id: TopicId([id; 16]),
        name: name.to_owned(),
        internal: false,
        mirror: None,
    }
}

#[test]
fn a_delta_names_what_changed() {
    let partition = |id| Record::Partition {
        topic: TopicId([id; 16]),
        index: PartitionIndex(0),
        state: partition_state(1),
    };
    let before = fold(&[
        topic(1, "kept"),
        partition(1),
        topic(2, "gone"),
        topic(3, "again"),
        topic(4, "same"),
    ]);
    let mut after = before.clone();
    let config = Record::TopicConfig {
        topic: TopicId([1; 16]),
        key: "retention.ms".to_owned(),
        value: Some("1".to_owned()),
    };
    let records = [
        config,
        Record::RemoveTopic { id: TopicId([2; 16]) },
        Record::RemoveTopic { id: TopicId([3; 16]) },
        topic(5, "again"),
        topic(4, "same"),
    ];
    for (offset, record) in (100..).zip(&records) {
        after.apply(Offset(offset), record);
    }
    let delta = Delta::between(&before, &after);
    let names = |topics: &[Arc<Topic>]| topics.iter().map(|it| it.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&delta.topics_changed), ["kept", "again"]);
    assert_eq!(names(&delta.topics_removed), ["gone", "again"]);
    assert!(!delta.modules && !delta.transforms && !delta.links && !delta.nodes);
    assert_eq!(Delta::between(&after, &after.clone()).topics_changed, []);
}

#[tokio::test]
async fn a_view_shows_images_in_order_and_wakes_those_who_wait() {
    let (publisher, view) = View::new(Image::default());
    let waiting = view.clone();
    let waited = async move {
        waiting.reached(Offset(1)).await.unwrap();
        waiting.image().offset
    };
    let publish = async {
        for offset in 0..3 {
            let image = Image {
                offset: Offset(offset),
                ..Image::default()
            };
            publisher.publish(Arc::new(image));
            tokio::task::yield_now().await;
        }
    };
    let (seen, ()) = tokio::join!(waited, publish);
    assert!(seen >= Offset(1));
    drop(publisher);
    assert_eq!(view.reached(Offset(2)).await, Ok(()));
    assert_eq!(view.reached(Offset(99)).await, Err(Ended));
}

fn record() -> impl Strategy<Value = Record> {
    let key = prop_oneof![Just("a"), Just("b")];
    let value = prop::option::of(prop_oneof![Just("1".to_owned()), Just("2".to_owned())]);
    prop_oneof![
        (0..4u8, 0..3u8).prop_map(|(id, name)| topic(id, &format!("{id}-{name}"))),
        (0..4u8).prop_map(|id| Record::RemoveTopic {
            id: TopicId([id; 16])
        }),
        (0..4u8, 1..4i32).prop_map(|(id, leader)| Record::Partition {
            topic: TopicId([id; 16]),
            index: PartitionIndex(0),
            state: partition_state(leader),
        }),
        (0..4u8, key.clone(), value.clone()).prop_map(|(id, key, value)| Record::TopicConfig {
            topic: TopicId([id; 16]),
            key: key.to_owned(),
            value,
        }),
        (key, value).prop_map(|(key, value)| Record::BrokerConfig {
            key: key.to_owned(),
            value
        }),
        (0..9i64).prop_map(|next| Record::ProducerIds {
            next: ProducerId(next)
        }),
    ]
}

proptest! {
    #[test]
    fn a_snapshot_is_worth_the_records_it_replaces(records in prop::collection::vec(record(), 0..60)) {
        // A topic keeps its name for life.
        let mut names = BTreeMap::new();
        let records: Vec<_> = records
            .into_iter()
            .filter(|record| match record {
                Record::Topic { id, name, .. } => names.entry(*id).or_insert_with(|| name.clone()) == name,
                _ => true,
            })
            .collect();
        let image = fold(&records);
        let again: Vec<_> = image
            .to_records()
            .iter()
            .map(|record| Record::decode(&record.encode()).expect("written by us"))
            .collect();
        prop_assert_eq!(Image::from_snapshot(image.offset, &again), image);
    }
}
