//! From images to plans.

use headwater_protocol::ids::Offset;

use super::*;
use crate::metadata::image::Addresses;
use crate::metadata::{Delivery, Emit, Limits, Node};
use crate::metadata::{ModuleRef, ParamSpec, PartitionState, Record, StartAt, Upstream, World};

const HERE: NodeId = NodeId(1);

fn transform() -> Transform {
    Transform {
        name: "clean".to_owned(),
        module: ModuleRef {
            name: "join".to_owned(),
            version: "1".to_owned(),
        },
        params: BTreeMap::from([("with".to_owned(), "airports".to_owned())]),
        source: "raw".to_owned(),
        sinks: vec!["good".to_owned()],
        dead_letter: "raw.dead-letter".to_owned(),
        on_error: ErrorPolicy::DeadLetter,
        delivery: Delivery::AtLeastOnce,
        placement: Placement::Any,
        limits: Limits {
            memory_bytes: 0,
            cpu_ms_per_batch: 0,
            output_bytes: 0,
            batch_bytes: 0,
        },
        start: StartAt::Earliest,
        window_ms: None,
        lateness_ms: 0,
        idle_close_ms: None,
        emit: Emit::Close,
        window: None,
        late_sink: None,
        state_ttl_ms: None,
        join: None,
        lookups: BTreeMap::from([("airports".to_owned(), "airports-v2".to_owned())]),
        paused: false,
        revision: 4,
        created_ms: 0,
    }
}

fn module() -> Module {
    let param = ParamSpec {
        name: "with".to_owned(),
        kind: ParamKind::Table,
        required: true,
        default: None,
        description: String::new(),
    };
    Module {
        name: "join".to_owned(),
        version: "1".to_owned(),
        digest: "d".to_owned(),
        size: 1,
        world: World::Map,
        description: String::new(),
        params: vec![param],
        imports: Vec::new(),
        builtin: false,
        created_ms: 0,
    }
}

/// An image with the module and these topics, all led here but the last partition of each.
fn image(topics: &[(&str, i32)]) -> Image {
    let mut image = Image::default();
    let mut add = |record: &Record| image.apply(image.offset.plus(1), record);
    add(&Record::Module(module()));
    for (number, (name, partitions)) in topics.iter().enumerate() {
        let id = TopicId([number as u8 + 1; 16]);
        add(&Record::Topic {
            id,
            name: (*name).to_owned(),
            internal: false,
            mirror: None,
        });
        for index in 0..*partitions {
            let leader = if index + 1 == *partitions && index > 0 {
                NodeId(2)
            } else {
                HERE
            };
            let state = PartitionState::fresh(vec![leader]);
            add(&Record::Partition {
                topic: id,
                index: PartitionIndex(index),
                state,
            });
        }
    }
    image
}

const ALL: [(&str, i32); 5] = [
    ("raw", 3),
    ("good", 1),
    ("raw.dead-letter", 1),
    ("__transform_state.clean", 3),
    ("airports-v2", 1),
];

fn check(transform: Transform, image: &Image) -> Plan {
    plan(&Arc::new(transform), image, HERE)
}

#[test]
fn everything_there_runs_on_the_partitions_led_here() {
    let Plan::Run(run) = check(transform(), &image(&ALL)) else {
        panic!("it can run")
    };
    assert_eq!(run.partitions, [PartitionIndex(0), PartitionIndex(1)]);
    assert_eq!(&*run.tables["airports"].name, "airports-v2");
    let Plan::Run(again) = check(transform(), &image(&ALL)) else {
        panic!("it can run")
    };
    assert_eq!(run.fingerprint(), again.fingerprint());
    let mut more = ALL;
    more[1].1 = 2;
    let Plan::Run(changed) = check(transform(), &image(&more)) else {
        panic!("it can run")
    };
    assert_ne!(run.fingerprint(), changed.fingerprint());
}

#[test]
fn both_sides_of_a_join_have_as_many_partitions() {
    let join = |left_key: Option<&str>| Transform {
        join: Some(Box::new(Join {
            topic: "other".to_owned(),
            kind: crate::metadata::JoinKind::Inner,
            with: crate::metadata::JoinWith::Table,
            left_key: left_key.map(str::to_owned),
            right_key: None,
        })),
        ..transform()
    };
    let with = |partitions| image(&[&ALL[..], &[("other", partitions)]].concat());
    let Plan::Run(run) = check(join(None), &with(3)) else {
        panic!("it can run")
    };
    assert_eq!(&*run.right.clone().unwrap().name, "other");
    let Plan::Run(alone) = check(transform(), &with(3)) else {
        panic!("it can run")
    };
    assert_ne!(run.fingerprint(), alone.fingerprint());
    for (plan, said) in [
        (check(join(None), &with(2)), "they have 3 and 2 partitions"),
        (check(join(Some("/id")), &with(3)), "cannot be joined by \"/id\""),
        (check(join(None), &image(&ALL)), "does not exist"),
    ] {
        assert!(
            matches!(&plan, Plan::Blocked { reason } if reason.contains(said)),
            "{plan:?}"
        );
    }
}

#[test]
fn missing_topics_are_created_with_the_partitions_of_the_source() {
    let Plan::Create(topics) = check(transform(), &image(&[ALL[0], ALL[4]])) else {
        panic!("topics are missing")
    };
    let shape: Vec<_> = topics
        .iter()
        .map(|it| (&*it.name, it.partitions, it.internal))
        .collect();
    let expected = [
        ("good", 3, false),
        ("raw.dead-letter", 1, false),
        ("__transform_state.clean", 3, true),
    ];
    assert_eq!(shape, expected);
    assert_eq!(topics[2].configs["retention.ms"], "-1");
    let skipping = Transform {
        on_error: ErrorPolicy::Skip,
        ..transform()
    };
    let Plan::Create(topics) = check(skipping, &image(&[ALL[0], ALL[4]])) else {
        panic!("topics are missing")
    };
    assert_eq!(topics.len(), 2, "no dead letters, no topic for them");
}

#[test]
fn missing_topics_have_the_replicas_of_the_source_as_far_as_there_are_nodes() {
    let check = |nodes: i32, replicas: i32, expected: i16| {
        let mut image = image(&[ALL[0], ALL[4]]);
        let mut add = |record: &Record| image.apply(image.offset.plus(1), record);
        for id in 1..=nodes {
            add(&Record::Node(Node::new(NodeId(id), Addresses::default(), None)));
        }
        let state = PartitionState::fresh((1..=replicas).map(NodeId).collect());
        add(&Record::Partition {
            topic: TopicId([1; 16]),
            index: PartitionIndex(0),
            state,
        });
        let Plan::Create(topics) = check(transform(), &image) else {
            panic!("topics are missing")
        };
        let factors: Vec<_> = topics.iter().map(|it| it.replication_factor).collect();
        assert_eq!(factors, [expected; 3], "{nodes} nodes, {replicas} replicas");
    };
    check(3, 3, 3);
    check(3, 2, 2);
    check(2, 3, 2);
    check(3, 1, -1);
}

#[test]
fn the_changelog_grows_with_the_source() {
    let mut grown = ALL;
    grown[0].1 = 5;
    let expected = Plan::GrowState {
        topic: "__transform_state.clean".to_owned(),
        count: 5,
    };
    assert_eq!(check(transform(), &image(&grown)), expected);
}

#[test]
fn what_is_not_there_is_named() {
    let reason = |transform, topics: &[(&str, i32)]| match check(transform, &image(topics)) {
        Plan::Blocked { reason } => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        reason(transform(), &ALL[1..]),
        "source topic \"raw\" does not exist"
    );
    assert_eq!(
        reason(transform(), &ALL[..4]),
        "lookup topic \"airports-v2\" does not exist"
    );
    let other = ModuleRef {
        name: "join".to_owned(),
        version: "2".to_owned(),
    };
    assert_eq!(
        reason(
            Transform {
                module: other,
                ..transform()
            },
            &ALL
        ),
        "module join 2 is not known"
    );
}

#[test]
fn placement_follows_the_link() {
    let mut edge = image(&ALL);
    let upstream = Upstream {
        link: "core".to_owned(),
        site: "harbour".to_owned(),
        cluster_id: String::new(),
        core_quic: String::new(),
        core_ca_pem: String::new(),
        certificate_pem: String::new(),
        key_file: String::new(),
    };
    edge.apply(Offset(100), &Record::Upstream(upstream));
    let core = image(&ALL);
    let runs = |placement, image: &Image| {
        matches!(
            check(
                Transform {
                    placement,
                    ..transform()
                },
                image
            ),
            Plan::Run(_)
        )
    };
    assert!(runs(Placement::Edge, &edge) && !runs(Placement::Edge, &core));
    assert!(!runs(Placement::Core, &edge) && runs(Placement::Core, &core));
    assert!(runs(Placement::Site("harbour".to_owned()), &edge));
    assert!(!runs(Placement::Site("other".to_owned()), &edge));
    assert_eq!(
        check(
            Transform {
                paused: true,
                ..transform()
            },
            &core
        ),
        Plan::Rest(Rest::Paused)
    );
}
