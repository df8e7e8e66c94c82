//! Health by example: each thing that may be the matter with a partition, and what adds up.

use super::*;
use crate::metadata::image::Addresses;
use crate::metadata::{Node, Record};
use headwater_protocol::ids::{LeaderEpoch, Offset, TopicId};

/// Nodes 1 to 4, of which 2 asked to stop and 4 is fenced, and one topic of `partitions`.
fn image(min_in_sync: usize, partitions: &[PartitionState]) -> Image {
    let mut records = Vec::new();
    for (id, state) in [
        (1, NodeState::Active),
        (2, NodeState::ShuttingDown),
        (3, NodeState::Active),
        (4, NodeState::Fenced),
    ] {
        let addresses = Addresses::default();
        let mut node = Node::new(NodeId(id), addresses, None);
        node.state = state;
        records.push(Record::Node(node));
    }
    let topic = TopicId([7; 16]);
    records.push(Record::Topic {
        id: topic,
        name: "t".to_owned(),
        internal: false,
        mirror: None,
    });
    records.push(Record::TopicConfig {
        topic,
        key: "min.insync.replicas".to_owned(),
        value: Some(min_in_sync.to_string()),
    });
    for (index, state) in (0..).zip(partitions) {
        records.push(Record::Partition {
            topic,
            index: PartitionIndex(index),
            state: state.clone(),
        });
    }
    let mut image = Image::default();
    image.apply_all(Offset(0), &records);
    image
}

fn partition(leader: i32, replicas: &[i32], isr: &[i32]) -> PartitionState {
    let nodes = |ids: &[i32]| ids.iter().copied().map(NodeId).collect();
    PartitionState {
        leader: NodeId(leader),
        leader_epoch: LeaderEpoch(1),
        replicas: nodes(replicas),
        isr: nodes(isr),
        ..PartitionState::default()
    }
}

const NOBODY: i32 = NodeId::NONE.0;

#[test]
fn each_partition_has_the_ailments_that_its_state_shows() {
    let adding = PartitionState {
        adding: vec![NodeId(3)],
        ..partition(1, &[1, 2, 3], &[1, 2])
    };
    let cases = [
        (
            "all in sync",
            2,
            partition(1, &[1, 2, 3], &[1, 2, 3]),
            "",
            Condition::Healthy,
        ),
        (
            "led by one that stops",
            2,
            partition(2, &[1, 2, 3], &[1, 2, 3]),
            "",
            Condition::Healthy,
        ),
        (
            "one out",
            1,
            partition(1, &[1, 2, 3], &[1, 2]),
            "replicas",
            Condition::UnderReplicated,
        ),
        (
            "one out, none to spare",
            2,
            partition(1, &[1, 2, 3], &[1, 2]),
            "at replicas",
            Condition::UnderReplicated,
        ),
        (
            "two out",
            2,
            partition(1, &[1, 2, 3], &[1]),
            "under replicas",
            Condition::UnderMinInSync,
        ),
        (
            "in sync and none to spare",
            2,
            partition(1, &[1, 2], &[1, 2]),
            "at",
            Condition::Healthy,
        ),
        (
            "its only replica",
            1,
            partition(1, &[1], &[1]),
            "",
            Condition::Healthy,
        ),
        (
            "asks for more than there are",
            2,
            partition(1, &[1], &[1]),
            "under",
            Condition::UnderMinInSync,
        ),
        (
            "nobody leads",
            2,
            partition(NOBODY, &[1, 4], &[4]),
            "leader under replicas",
            Condition::Leaderless,
        ),
        (
            "who leads is fenced",
            1,
            partition(4, &[4], &[4]),
            "leader",
            Condition::Leaderless,
        ),
        (
            "who leads is not known",
            1,
            partition(9, &[9], &[9]),
            "leader",
            Condition::Leaderless,
        ),
        ("one is being added", 1, adding, "moving", Condition::Healthy),
    ];
    for (what, min_in_sync, state, expected, worst) in cases {
        let image = image(min_in_sync, std::slice::from_ref(&state));
        let broker = BrokerConfig::new(Default::default());
        let [examined] = examine(&image, &broker).collect::<Vec<_>>()[..] else {
            panic!("{what}: not one partition")
        };
        let has = |word: &str| expected.split(' ').any(|it| it == word);
        let ailments = Ailments {
            is_leaderless: has("leader"),
            is_under_min_in_sync: has("under"),
            is_at_min_in_sync: has("at"),
            is_under_replicated: has("replicas"),
            is_moving: has("moving"),
        };
        assert_eq!(examined.ailments, ailments, "{what}");
        assert_eq!(examined.ailments.worst(), worst, "{what}");
        assert_eq!(examined.min_in_sync, min_in_sync, "{what}");
    }
}

#[test]
fn counts_and_loads_add_up() {
    let partitions = [
        partition(1, &[1, 2, 3], &[1, 2, 3]),
        partition(2, &[2, 3, 1], &[2, 3]),
        partition(NOBODY, &[4, 3], &[4]),
        partition(4, &[4], &[4]),
    ];
    let image = image(2, &partitions);
    let mut counts = Counts::default();
    for examined in examine(&image, &BrokerConfig::new(Default::default())) {
        counts.add(examined.ailments);
    }
    let expected = Counts {
        partitions: 4,
        leaderless: 2,
        under_min_in_sync: 2,
        at_min_in_sync: 1,
        under_replicated: 2,
        moving: 0,
    };
    assert_eq!(counts, expected);
    let load = |leads, follows| Load { leads, follows };
    let expected = [
        (NodeId(1), load(1, 1)),
        (NodeId(2), load(1, 1)),
        (NodeId(3), load(0, 3)),
        (NodeId(4), load(0, 2)),
    ];
    assert_eq!(loads(&image), BTreeMap::from(expected));
}

#[test]
fn a_partition_without_a_leader_waits_for_those_who_hold_all_of_it() {
    let lost = PartitionState {
        eligible: vec![NodeId(3)],
        ..partition(NOBODY, &[1, 3, 4], &[4])
    };
    let image = image(2, std::slice::from_ref(&lost));
    assert_eq!(waits_for(&image, &lost), [NodeId(4), NodeId(3)]);
    assert!(waits_for(&image, &partition(1, &[1, 3], &[1])).is_empty());
}
