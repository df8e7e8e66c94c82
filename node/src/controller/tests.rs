//! What the controller allows, refuses and writes, change by change.

use super::change::{ConfigChange, ConfigOperation, TopicRef};
use super::decide::{Context, Decision, Tell, decide};
use super::*;
use crate::config::BrokerConfig;
use crate::metadata::image::Addresses;
use crate::metadata::{
    Delivery, Direction, Emit, ErrorPolicy, Flow, FlowMode, GapPolicy, Image, Limits, Link, LinkRole,
    MirrorSource, ModuleRef, Node, Placement, Record, StartAt, Transform, World,
};
use headwater_protocol::ids::{NodeId, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// A cluster on which changes are decided and folded, one after another.
struct Cluster {
    image: Image,
    topics: u8,
    /// What the node that decides supports.
    supported: Supported,
}

impl Cluster {
    fn of(nodes: i32) -> Self {
        let mut cluster = Self {
            image: Image::default(),
            topics: 0,
            supported: Supported::default(),
        };
        cluster.image.apply(
            Offset(0),
            &Record::Cluster {
                cluster_id: "c".to_owned(),
            },
        );
        for id in 1..=nodes {
            let addresses = Addresses {
                tcp: format!("n{id}:1"),
                tls: String::new(),
                quic: format!("n{id}:2"),
                http: format!("n{id}:3"),
            };
            cluster
                .ask(Change::RegisterNode(Node::new(NodeId(id), addresses, None)))
                .expect("node");
            cluster.take_part(id).expect("it takes part");
        }
        cluster
    }

    /// Another process of a node.
    fn process(&self, id: i32, incarnation: &str) -> Node {
        Node {
            incarnation: incarnation.to_owned(),
            ..self.image.nodes[&NodeId(id)].clone()
        }
    }

    /// The leader of the one partition asks for another in-sync set.
    fn in_sync(&mut self, leader: i32, in_sync: &[i32]) -> Result<Outcome, ProposeError> {
        let topic = &self.image.topics["t"];
        let state = &topic.partitions[0];
        let change = InSyncChange {
            topic: topic.id,
            index: headwater_protocol::ids::PartitionIndex(0),
            node: NodeId(leader),
            node_epoch: self.image.nodes[&NodeId(leader)].epoch,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            in_sync: in_sync.iter().copied().map(NodeId).collect(),
            epochs: Vec::new(),
        };
        self.ask(Change::AlterInSync(change))
    }

    fn take_part(&mut self, id: i32) -> Result<Outcome, ProposeError> {
        let node = NodeId(id);
        let epoch = self.image.nodes[&node].epoch;
        self.ask(Change::UnfenceNode { node, epoch })
    }

    fn ask(&mut self, change: Change) -> Result<Outcome, ProposeError> {
        self.topics += 1;
        let context = Context {
            broker: BrokerConfig::new(BTreeMap::new()),
            topic_id: TopicId([self.topics; 16]),
            voters: BTreeSet::from([NodeId(1)]),
            supported: self.supported.clone(),
        };
        let Decision { records, tell } = decide(change, &self.image, &context)?;
        for record in &records {
            self.image.apply(self.image.offset.plus(1), record);
        }
        Ok(tell.outcome(&self.image))
    }

    fn refuse(&mut self, change: Change) -> String {
        let before = self.image.clone();
        let error = self.ask(change).expect_err("must be refused");
        assert_eq!(self.image, before);
        error.to_string()
    }

    fn create(&mut self, topic: NewTopic) -> Arc<Topic> {
        match self.ask(Change::CreateTopic(topic)).expect("created") {
            Outcome::Topic(topic) => topic,
            other => panic!("{other:?}"),
        }
    }
}

fn with(name: &str, change: impl FnOnce(&mut NewTopic)) -> Change {
    let mut topic = NewTopic::named(name);
    change(&mut topic);
    Change::CreateTopic(topic)
}

#[test]
fn a_topic_is_created_as_asked_and_refused_with_the_reason() {
    let mut cluster = Cluster::of(1);
    let topic = cluster.create(NewTopic {
        partitions: 3,
        ..NewTopic::named("orders")
    });
    assert_eq!(topic.partitions.len(), 3);
    assert_eq!(topic.partitions[2].replicas, [NodeId(1)]);
    assert_eq!(
        cluster.image.topic_by_id(topic.id).map(|it| &*it.name),
        Some("orders")
    );
    for (change, expected) in [
        (with("orders", |_| ()), "topic \"orders\" exists already"),
        (with("", |_| ()), "topic name \"\" is not valid: it is empty"),
        (
            with("..", |_| ()),
            "topic name \"..\" is not valid: it cannot be \".\" or \"..\"",
        ),
        (
            with("a/b", |_| ()),
            "topic name \"a/b\" is not valid: only letters, digits, '.', '_' and '-' may be used",
        ),
        (
            with("__cluster_metadata", |_| ()),
            "topic name \"__cluster_metadata\" is not valid: it belongs to the cluster",
        ),
        (
            with("t", |it| it.partitions = 0),
            "partition count is not valid: 0, at least 1 is needed",
        ),
        (
            with("t", |it| it.partitions = 10_001),
            "partition count is not valid: 10001, at most 10000 are possible",
        ),
        (
            with("t", |it| it.replication_factor = 2),
            "replication factor 2 is not possible: the cluster has 1 nodes",
        ),
        (
            with("t", |it| it.replication_factor = 0),
            "replication factor 0 is not possible: at least 1 is needed",
        ),
        (
            with("t", |it| _ = it.assignments.insert(0, vec![NodeId(9)])),
            "replica assignment is not valid: partition 0 has node 9, which is not known",
        ),
        (
            with("t", |it| _ = it.assignments.insert(1, vec![NodeId(1)])),
            "replica assignment is not valid: partitions must be numbered from 0 without gaps",
        ),
        (
            with("t", |it| {
                _ = it.configs.insert("retention.m".to_owned(), "1".to_owned())
            }),
            "unknown key \"retention.m\", did you mean \"retention.ms\"?",
        ),
        (
            with("t", |it| {
                _ = it.configs.insert("cleanup.policy".to_owned(), "shred".to_owned())
            }),
            "cleanup.policy=\"shred\" is not valid: one of delete, compact",
        ),
        (
            with("t", |it| it.id = Some(topic.id)),
            &format!("a topic with the id {} exists already", topic.id),
        ),
    ] {
        assert_eq!(cluster.refuse(change), expected);
    }
}

#[test]
fn validating_only_shows_the_topic_and_writes_nothing() {
    let mut cluster = Cluster::of(1);
    let before = cluster.image.clone();
    let would_be = cluster.create(NewTopic {
        partitions: 2,
        validate_only: true,
        ..NewTopic::named("t")
    });
    assert_eq!(would_be.partitions.len(), 2);
    assert_eq!(cluster.image, before);
}

#[test]
fn replicas_are_spread_over_nodes_without_a_repeat() {
    let mut cluster = Cluster::of(3);
    for (name, partitions) in [("a", 4), ("b", 5)] {
        cluster.create(NewTopic {
            partitions,
            replication_factor: 2,
            ..NewTopic::named(name)
        });
    }
    let (mut held, mut led) = (BTreeMap::new(), BTreeMap::new());
    for partition in cluster.image.topics.values().flat_map(|topic| &topic.partitions) {
        assert_eq!(partition.replicas.len(), 2);
        assert_ne!(partition.replicas[0], partition.replicas[1]);
        *led.entry(partition.leader).or_insert(0) += 1;
        for replica in &partition.replicas {
            *held.entry(*replica).or_insert(0) += 1;
        }
    }
    assert!(held.values().all(|count| *count == 6), "{held:?}");
    assert!(led.values().all(|count| (2..=4).contains(count)), "{led:?}");
}

#[test]
fn leaders_are_spread_where_every_node_has_all_of_a_topic() {
    let mut cluster = Cluster::of(3);
    // The nodes hold unlike much already.
    cluster.create(NewTopic {
        partitions: 2,
        ..NewTopic::named("a")
    });
    cluster.create(NewTopic {
        partitions: 12,
        replication_factor: 3,
        ..NewTopic::named("b")
    });
    for partition in &cluster.image.topics["b"].partitions {
        assert_eq!(partition.replicas.iter().collect::<BTreeSet<_>>().len(), 3);
    }
    let mut led = BTreeMap::new();
    for partition in cluster.image.topics.values().flat_map(|topic| &topic.partitions) {
        assert_eq!(partition.leader, partition.replicas[0]);
        *led.entry(partition.leader).or_insert(0) += 1;
    }
    assert!(
        led.len() == 3 && led.values().all(|count| (4..=5).contains(count)),
        "{led:?}"
    );
}

#[test]
fn partitions_are_only_added() {
    let mut cluster = Cluster::of(1);
    cluster.create(NewTopic {
        partitions: 2,
        ..NewTopic::named("t")
    });
    let add = |count, assignments: Vec<Vec<NodeId>>| Change::CreatePartitions {
        topic: "t".to_owned(),
        count,
        assignments,
        validate_only: false,
    };
    assert_eq!(
        cluster.refuse(add(2, vec![])),
        "partition count is not valid: 2, the topic has 2 already"
    );
    assert_eq!(
        cluster.refuse(add(4, vec![vec![NodeId(1)]])),
        "replica assignment is not valid: 1 assignments for 2 new partitions"
    );
    cluster.ask(add(4, vec![])).expect("added");
    assert_eq!(cluster.image.topics["t"].partitions.len(), 4);
}

#[test]
fn properties_are_set_removed_and_lists_changed() {
    let mut cluster = Cluster::of(1);
    cluster.create(NewTopic::named("t"));
    let alter = |key: &str, operation| Change::AlterTopicConfig {
        topic: "t".to_owned(),
        changes: vec![ConfigChange {
            key: key.to_owned(),
            operation,
        }],
        validate_only: false,
    };
    for (key, operation, expected) in [
        (
            "retention.ms",
            ConfigOperation::Set("1h".to_owned()),
            Some("3600000"),
        ),
        ("retention.ms", ConfigOperation::Remove, None),
        (
            "cleanup.policy",
            ConfigOperation::Append("compact".to_owned()),
            Some("delete,compact"),
        ),
        (
            "cleanup.policy",
            ConfigOperation::Append("compact".to_owned()),
            Some("delete,compact"),
        ),
        (
            "cleanup.policy",
            ConfigOperation::Subtract("delete".to_owned()),
            Some("compact"),
        ),
    ] {
        cluster.ask(alter(key, operation)).expect(key);
        let found = cluster.image.topics["t"].configs.get(key).map(String::as_str);
        assert_eq!(found, expected, "{key}");
    }
    assert_eq!(
        cluster.refuse(alter(
            "cleanup.policy",
            ConfigOperation::Subtract("compact".to_owned())
        )),
        "cleanup.policy=\"\" is not valid: delete, compact, or both"
    );
    assert_eq!(
        cluster.refuse(alter("retention.ms", ConfigOperation::Append("1".to_owned()))),
        "retention.ms cannot be set here: it is not a list that could be added to or taken from"
    );
    let broker = |key: &str, value: &str| Change::AlterBrokerConfig {
        changes: vec![ConfigChange {
            key: key.to_owned(),
            operation: ConfigOperation::Set(value.to_owned()),
        }],
        validate_only: false,
    };
    cluster.ask(broker("num.partitions", "4")).expect("live");
    assert_eq!(cluster.image.broker_configs["num.partitions"], "4");
    cluster.ask(broker("1/log.scrub.interval.ms", "5")).expect("live");
    assert_eq!(cluster.image.broker_configs["1/log.scrub.interval.ms"], "5");
    assert_eq!(
        cluster.refuse(broker("1/num.partitions", "4")),
        "num.partitions cannot be set here: it holds for all nodes: set it for the broker without a name"
    );
    assert_eq!(
        cluster.refuse(broker("77/log.scrub.interval.ms", "5")),
        "node \"77\" is not known"
    );
    assert_eq!(
        cluster.refuse(broker("listen.tcp", "x:1")),
        "listen.tcp cannot be set here: it belongs to one node and takes effect at its start"
    );
}

#[test]
fn what_is_not_set_may_be_removed_from_a_node_whatever_its_name() {
    let mut cluster = Cluster::of(1);
    let alter = |key: &str, operation| Change::AlterBrokerConfig {
        changes: vec![ConfigChange {
            key: key.to_owned(),
            operation,
        }],
        validate_only: false,
    };
    // Kafka's tool for moving replicas removes this one from each node, when a move is done.
    let unknown = "1/replica.alter.log.dirs.io.max.bytes.per.second";
    cluster
        .ask(alter(unknown, ConfigOperation::Remove))
        .expect("nothing to remove");
    assert!(cluster.image.broker_configs.is_empty());
    let refused = cluster.refuse(alter(unknown, ConfigOperation::Set("1".to_owned())));
    assert!(refused.starts_with("unknown key"), "{refused}");
}

#[test]
fn producer_ids_are_handed_out_once() {
    let mut cluster = Cluster::of(1);
    let mut next = 0;
    for _ in 0..3 {
        let Ok(Outcome::ProducerIds(block)) = cluster.ask(Change::AllocateProducerIds) else {
            panic!()
        };
        assert_eq!(block.first.value(), next);
        next += block.count;
    }
}

fn module(version: &str, digest: &str) -> Module {
    Module {
        name: "filter".to_owned(),
        version: version.to_owned(),
        digest: digest.to_owned(),
        size: 1,
        world: World::Filter,
        description: String::new(),
        params: Vec::new(),
        imports: Vec::new(),
        builtin: false,
        created_ms: 0,
    }
}

fn transform(source: &str, sink: &str) -> Transform {
    Transform {
        name: "keep-late".to_owned(),
        module: ModuleRef {
            name: "filter".to_owned(),
            version: "1.0.0".to_owned(),
        },
        params: BTreeMap::new(),
        source: source.to_owned(),
        sinks: vec![sink.to_owned()],
        dead_letter: format!("{source}.dead-letter"),
        on_error: ErrorPolicy::DeadLetter,
        delivery: Delivery::AtLeastOnce,
        placement: Placement::Any,
        limits: Limits {
            memory_bytes: 1,
            cpu_ms_per_batch: 1,
            output_bytes: 1,
            batch_bytes: 1,
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
        lookups: BTreeMap::new(),
        paused: false,
        revision: 0,
        created_ms: 7,
    }
}

#[test]
fn what_is_in_use_is_not_removed() {
    let mut cluster = Cluster::of(1);
    cluster.create(NewTopic::named("in"));
    assert_eq!(
        cluster.refuse(Change::PutTransform(transform("in", "out"))),
        "module \"filter 1.0.0\" is not known"
    );
    for _ in 0..2 {
        cluster
            .ask(Change::PutModule(module("1.0.0", "aa")))
            .expect("the same again is fine");
    }
    assert_eq!(
        cluster.refuse(Change::PutModule(module("1.0.0", "bb"))),
        "module \"filter 1.0.0\" exists already"
    );
    assert_eq!(
        cluster.refuse(Change::PutTransform(transform("in", "in"))),
        "topic \"in\" is the source and would be fed with its own outputs"
    );
    for revision in 1..3 {
        cluster
            .ask(Change::PutTransform(transform("in", "out")))
            .expect("deployed");
        assert_eq!(cluster.image.transforms["keep-late"].revision, revision);
    }
    let delete = || Change::DeleteTopic {
        topic: TopicRef::Name("in".to_owned()),
    };
    let remove = || Change::RemoveModule {
        name: "filter".to_owned(),
        version: "1.0.0".to_owned(),
    };
    assert_eq!(
        cluster.refuse(delete()),
        "topic \"in\" is used by transform \"keep-late\""
    );
    assert_eq!(
        cluster.refuse(remove()),
        "module \"filter 1.0.0\" is used by transform \"keep-late\""
    );
    cluster
        .ask(Change::RemoveTransform {
            name: "keep-late".to_owned(),
        })
        .expect("removed");
    cluster.ask(delete()).expect("deleted");
    cluster.ask(remove()).expect("removed");
    assert!(cluster.image.topics.is_empty() && cluster.image.modules.is_empty());
}

#[test]
fn a_flow_that_could_copy_nothing_is_refused() {
    let mut cluster = Cluster::of(1);
    let put = |topics: &[&str], prefix: &str| {
        Change::PutLink(Link {
            name: "l".to_owned(),
            site: "s".to_owned(),
            role: LinkRole::Core,
            flows: vec![Flow {
                direction: Direction::Up,
                mode: FlowMode::Mirror,
                topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
                prefix: prefix.to_owned(),
                on_gap: GapPolicy::MarkGap,
            }],
            paused: false,
            revision: 0,
            created_ms: 0,
        })
    };
    for (topics, prefix, word) in [
        (&[][..], "", "no topic"),
        (&["a", ""], "", "pattern"),
        (&["a b"], "", "pattern"),
        (&["a"], "s/", "prefix"),
    ] {
        let refused = cluster.refuse(put(topics, prefix));
        assert!(refused.contains(word), "{refused}");
    }
    cluster.ask(put(&["*", "a-*.b"], "s.")).expect("link");
}

#[test]
fn a_link_that_is_removed_leaves_ordinary_topics() {
    let mut cluster = Cluster::of(1);
    let link = Link {
        name: "l".to_owned(),
        site: "s".to_owned(),
        role: LinkRole::Core,
        flows: Vec::new(),
        paused: false,
        revision: 0,
        created_ms: 0,
    };
    cluster.ask(Change::PutLink(link)).expect("link");
    let mirror = MirrorSource {
        link: "l".to_owned(),
        site: "s".to_owned(),
        topic: "t".to_owned(),
        topic_id: TopicId([9; 16]),
    };
    cluster.create(NewTopic {
        mirror: Some(mirror),
        ..NewTopic::named("copy")
    });
    cluster
        .ask(Change::RemoveLink { name: "l".to_owned() })
        .expect("removed");
    assert_eq!(cluster.image.topics["copy"].mirror, None);
    assert!(cluster.image.links.is_empty());
    assert_eq!(
        cluster.refuse(Change::RemoveLink { name: "l".to_owned() }),
        "link \"l\" is not known"
    );
}

#[test]
fn a_decision_that_changes_nothing_writes_nothing() {
    let mut cluster = Cluster::of(1);
    let context = Context {
        broker: BrokerConfig::new(BTreeMap::new()),
        topic_id: TopicId([1; 16]),
        voters: BTreeSet::from([NodeId(1)]),
        supported: Supported::default(),
    };
    let node = cluster.process(1, "again");
    cluster
        .ask(Change::RegisterNode(node.clone()))
        .expect("registered");
    let decision = decide(Change::RegisterNode(node), &cluster.image, &context).expect("allowed");
    assert_eq!(
        decision,
        Decision {
            records: vec![],
            tell: Tell::Node(NodeId(1))
        }
    );
}

/// Leader, in-sync set and eligible replicas of the one partition.
fn standing(cluster: &Cluster) -> (i32, Vec<i32>, Vec<i32>) {
    let state = &cluster.image.topics["t"].partitions[0];
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.value()).collect();
    (state.leader.value(), ids(&state.isr), ids(&state.eligible))
}

fn replicated(nodes: i32) -> Cluster {
    let mut cluster = Cluster::of(nodes);
    let mut topic = NewTopic::named("t");
    topic.partitions = 1;
    topic.replication_factor = 3;
    topic.configs = BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]);
    cluster.create(topic);
    cluster
}

#[test]
fn others_take_over_from_a_node_that_is_lost_and_it_returns_as_a_follower() {
    let mut cluster = replicated(3);
    assert_eq!(standing(&cluster), (1, vec![1, 2, 3], vec![]));
    let (node, epoch) = (NodeId(1), cluster.image.nodes[&NodeId(1)].epoch);
    cluster.ask(Change::FenceNode { node, epoch }).expect("fenced");
    assert_eq!(standing(&cluster), (2, vec![2, 3], vec![]));
    // A new process of it is fenced until it has caught up, and the old one is nobody any more.
    let process = cluster.process(1, "second");
    cluster.ask(Change::RegisterNode(process)).expect("registered");
    assert!(
        cluster
            .refuse(Change::UnfenceNode { node, epoch })
            .contains("by now")
    );
    cluster.take_part(1).expect("it takes part");
    assert_eq!(standing(&cluster), (2, vec![2, 3], vec![]));
    cluster.in_sync(2, &[2, 3, 1]).expect("it has caught up");
    assert_eq!(standing(&cluster), (2, vec![2, 3, 1], vec![]));
}

#[test]
fn a_process_that_starts_anew_gives_up_what_it_led_even_unnoticed() {
    let mut cluster = replicated(3);
    let process = cluster.process(1, "second");
    cluster.ask(Change::RegisterNode(process)).expect("registered");
    assert_eq!(standing(&cluster), (2, vec![2, 3], vec![]));
}

#[test]
fn an_in_sync_set_is_changed_by_the_leader_of_the_newest_epoch_only() {
    let mut cluster = replicated(4);
    let (topic, index) = (
        cluster.image.topics["t"].id,
        headwater_protocol::ids::PartitionIndex(0),
    );
    let state = cluster.image.topics["t"].partitions[0].clone();
    let [leader, second, ..] = state.replicas[..] else {
        panic!("three replicas")
    };
    let asked = InSyncChange {
        topic,
        index,
        node: leader,
        node_epoch: cluster.image.nodes[&leader].epoch,
        leader_epoch: state.leader_epoch,
        partition_epoch: state.partition_epoch,
        in_sync: vec![leader],
        epochs: Vec::new(),
    };
    let stranger = cluster
        .image
        .nodes
        .keys()
        .copied()
        .find(|id| !state.replicas.contains(id));
    let wrong = |change: &dyn Fn(&mut InSyncChange)| {
        let mut wrong = asked.clone();
        change(&mut wrong);
        Change::AlterInSync(wrong)
    };
    for (change, reason) in [
        (wrong(&|it| it.node = second), "is registered in epoch"),
        (wrong(&|it| it.leader_epoch = 7.into()), "is led by node"),
        (
            wrong(&|it| it.partition_epoch = 7),
            "the partition has epoch 0 by now",
        ),
        (
            wrong(&|it| it.in_sync = vec![second]),
            "a leader is in its own in-sync set",
        ),
        (
            wrong(&|it| it.epochs.push((second, BrokerEpoch(0)))),
            "takes no part",
        ),
        (
            wrong(&|it| it.in_sync.push(stranger.expect("four nodes"))),
            "holds no replica",
        ),
    ] {
        let said = cluster.refuse(change);
        assert!(said.contains(reason), "{said}");
    }
    cluster.ask(Change::AlterInSync(asked.clone())).expect("allowed");
    // The same again: its basis is gone.
    let said = cluster.refuse(Change::AlterInSync(asked));
    assert_eq!(said, "the partition has epoch 1 by now");
    let (_, in_sync, eligible) = standing(&cluster);
    assert_eq!(
        (in_sync.len(), eligible.len()),
        (1, 2),
        "they hold all that is committed"
    );
}

#[test]
fn a_node_hands_over_before_it_stops_and_preferred_leaders_come_back() {
    let mut cluster = replicated(3);
    let (node, epoch) = (NodeId(1), cluster.image.nodes[&NodeId(1)].epoch);
    cluster
        .ask(Change::ShutDownNode { node, epoch })
        .expect("allowed");
    assert_eq!(standing(&cluster), (2, vec![2, 3], vec![]));
    let process = cluster.process(1, "second");
    cluster.ask(Change::RegisterNode(process)).expect("registered");
    cluster.take_part(1).expect("it takes part");
    cluster.in_sync(2, &[2, 3, 1]).expect("it has caught up");
    let elect = Change::ElectLeaders {
        leaders: Leaders::Preferred,
        partitions: None,
    };
    cluster.ask(elect).expect("allowed");
    assert_eq!(standing(&cluster).0, 1);
}

#[test]
fn a_node_on_another_data_directory_is_not_what_it_was() {
    let mut cluster = replicated(3);
    let mut process = cluster.process(1, "second");
    process.directory = "a".to_owned();
    cluster
        .ask(Change::RegisterNode(process.clone()))
        .expect("first told");
    process.incarnation = "third".to_owned();
    process.directory = "b".to_owned();
    let said = cluster.refuse(Change::RegisterNode(process));
    assert!(said.contains("what it held is gone"), "{said}");
}

#[test]
fn replicas_are_moved_and_the_reason_is_told_where_they_are_not() {
    let mut cluster = replicated(4);
    let ask = |topic: &str, index: i32, replicas: Option<&[i32]>, factor| {
        Change::Reassign(Reassignment {
            topic: topic.to_owned(),
            index: headwater_protocol::ids::PartitionIndex(index),
            replicas: replicas.map(|ids| ids.iter().copied().map(NodeId).collect()),
            factor,
        })
    };
    let free = |replicas: &[i32]| ask("t", 0, Some(replicas), Factor::Free);
    for (change, reason) in [
        (
            ask("t", 7, Some(&[1]), Factor::Free),
            "topic \"t-7\" is not known",
        ),
        (
            ask("t", -1, Some(&[1]), Factor::Free),
            "topic \"t--1\" is not known",
        ),
        (ask("u", 0, None, Factor::Free), "topic \"u-0\" is not known"),
        (
            ask("t", 0, None, Factor::Free),
            "no reassignment of partition t-0 is under way",
        ),
        (free(&[]), "replica assignment is not valid: no replica is named"),
        (
            free(&[1, 2, 1]),
            "replica assignment is not valid: a node is named twice",
        ),
        (
            free(&[1, 9]),
            "replica assignment is not valid: node 9 is not known",
        ),
        (
            free(&[1, -2]),
            "replica assignment is not valid: node -2 is not known",
        ),
        (
            ask("t", 0, Some(&[1, 2]), Factor::Fixed),
            "replication factor 2 is not possible: there are 3 replicas, and their number is not to change",
        ),
    ] {
        assert_eq!(cluster.refuse(change), reason);
    }
    cluster.ask(free(&[2, 3, 4])).expect("allowed");
    assert_eq!(standing(&cluster), (1, vec![1, 2, 3], vec![]));
    cluster.in_sync(1, &[1, 2, 3, 4]).expect("4 has caught up");
    assert_eq!(standing(&cluster), (2, vec![2, 3, 4], vec![]));
    assert!(!cluster.image.topics["t"].partitions[0].is_moving());
    // Taken back before it has ended.
    cluster.ask(free(&[1, 3, 4])).expect("allowed");
    cluster.ask(ask("t", 0, None, Factor::Free)).expect("taken back");
    // Meanwhile more partitions have as many replicas as there were.
    cluster.ask(free(&[1, 2, 4])).expect("allowed");
    cluster
        .ask(Change::CreatePartitions {
            topic: "t".to_owned(),
            count: 2,
            assignments: Vec::new(),
            validate_only: false,
        })
        .expect("added");
    assert_eq!(cluster.image.topics["t"].partitions[1].replicas.len(), 3);
    cluster.ask(ask("t", 0, None, Factor::Free)).expect("taken back");
    let state = &cluster.image.topics["t"].partitions[0];
    let expected: Vec<NodeId> = [2, 4, 3].map(NodeId).to_vec();
    assert_eq!((state.is_moving(), &state.replicas), (false, &expected));
}

#[test]
fn a_node_leaves_when_it_holds_nothing_and_has_no_vote() {
    let mut cluster = replicated(4);
    let leave_as_of = |id, as_of| Change::UnregisterNode {
        node: NodeId(id),
        as_of,
    };
    let leave = |id| leave_as_of(id, None);
    let holder = cluster.image.topics["t"].partitions[0].replicas[1].value();
    for (id, reason) in [
        (9, "node \"9\" is not known"),
        (1, "node 1 has a vote in the quorum: take it away first"),
        (
            holder,
            &format!("node {holder} holds replicas of 1 partitions: move them to other nodes first"),
        ),
    ] {
        assert_eq!(cluster.refuse(leave(id)), reason);
    }
    let free = (2..=4).find(|id| {
        !cluster.image.topics["t"].partitions[0]
            .replicas
            .contains(&NodeId(*id))
    });
    let free = free.expect("three of four hold it");
    cluster.ask(leave(free)).expect("it may go");
    assert!(!cluster.image.nodes.contains_key(&NodeId(free)));
    // It may come back, on another data directory even.
    let mut process = cluster.process(1, "new");
    (process.id, process.directory) = (NodeId(free), "other".to_owned());
    let before = cluster.image.offset;
    cluster.ask(Change::RegisterNode(process)).expect("it joins anew");
    // Who asked before that meant another one.
    assert_eq!(
        cluster.refuse(leave_as_of(free, Some(before))),
        format!("node {free} has registered since this was asked")
    );
    let after = Some(cluster.image.offset);
    cluster.ask(leave_as_of(free, after)).expect("it may go again");
}
