//! Elections by example, and what holds after any number of comings and goings.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SAFE: Rules = Rules {
    min_insync: 2,
    unclean: false,
    cached: false,
};

fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn state(leader: i32, isr: &[i32], eligible: &[i32]) -> PartitionState {
    PartitionState {
        leader: NodeId(leader),
        leader_epoch: LeaderEpoch(5),
        replicas: nodes(&[1, 2, 3]),
        isr: nodes(isr),
        eligible: nodes(eligible),
        partition_epoch: 9,
        ..PartitionState::default()
    }
}

/// What is left when `gone` goes while `active` are there: leader, in-sync set, eligible replicas.
fn left(
    before: &PartitionState,
    gone: i32,
    active: &[i32],
    rules: Rules,
) -> Option<(i32, Vec<i32>, Vec<i32>)> {
    let next = without(before, NodeId(gone), Departure::Lost, rules, |node| {
        active.contains(&node.value())
    })?;
    assert_eq!(next.partition_epoch, before.partition_epoch + 1);
    assert_eq!(
        next.leader != before.leader,
        next.leader_epoch != before.leader_epoch
    );
    let ids = |nodes: Vec<NodeId>| nodes.into_iter().map(NodeId::value).collect();
    Some((next.leader.value(), ids(next.isr), ids(next.eligible)))
}

#[test]
fn a_lost_leader_is_followed_by_one_in_sync() {
    let whole = state(1, &[1, 2, 3], &[]);
    assert_eq!(left(&whole, 1, &[2, 3], SAFE), Some((2, vec![2, 3], vec![])));
    assert_eq!(left(&whole, 3, &[1, 2], SAFE), Some((1, vec![1, 2], vec![])));
    // The second is in sync and away as well.
    assert_eq!(left(&whole, 1, &[3], SAFE), Some((3, vec![2, 3], vec![])));
}

#[test]
fn who_leaves_a_set_too_small_to_commit_stays_eligible() {
    let two = state(1, &[1, 2], &[]);
    assert_eq!(left(&two, 2, &[1, 3], SAFE), Some((1, vec![1], vec![2])));
    // The last one in sync goes: the eligible one leads, and the last one is eligible in turn.
    let one = state(1, &[1], &[2]);
    assert_eq!(left(&one, 1, &[2, 3], SAFE), Some((2, vec![2], vec![1])));
    // Nobody may lead: the last one keeps its place, and 3 must not lead though it is there.
    let alone = state(1, &[1], &[]);
    assert_eq!(left(&alone, 1, &[2, 3], SAFE), Some((-1, vec![1], vec![])));
    let unclean = Rules {
        unclean: true,
        ..SAFE
    };
    assert_eq!(left(&alone, 1, &[2, 3], unclean), Some((2, vec![2], vec![])));
}

#[test]
fn a_crash_ends_eligibility_where_acknowledged_records_may_be_in_memory() {
    let cached = Rules { cached: true, ..SAFE };
    let two = state(1, &[1, 2], &[]);
    assert_eq!(left(&two, 2, &[1, 3], cached), Some((1, vec![1], vec![])));
}

#[test]
fn the_only_replica_is_left_alone_and_a_handover_needs_a_successor() {
    let only = PartitionState::fresh(nodes(&[1]));
    assert_eq!(left(&only, 1, &[], SAFE), None);
    let alone = state(1, &[1], &[]);
    let handed = without(&alone, NodeId(1), Departure::Handover, SAFE, |_| true);
    assert_eq!(handed, None);
    let two = state(1, &[1, 2], &[]);
    let handed = without(&two, NodeId(1), Departure::Handover, SAFE, |_| true).expect("2 takes over");
    assert_eq!((handed.leader, handed.isr), (NodeId(2), nodes(&[2])));
}

#[test]
fn a_partition_without_a_leader_waits_for_one_that_may_lead() {
    let lost = state(-1, &[1], &[2]);
    let revive = |active: &[i32]| {
        revived(&lost, SAFE, |node| active.contains(&node.value())).map(|next| next.leader.value())
    };
    assert_eq!(revive(&[3]), None);
    assert_eq!(revive(&[2]), Some(2));
    assert_eq!(revive(&[1, 2, 3]), Some(1));
}

#[derive(Debug, Clone)]
enum Step {
    Lose(i32),
    Return(i32),
    Shrink(i32),
    Grow(i32),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 1..=3i32;
    prop_oneof![
        node.clone().prop_map(Step::Lose),
        node.clone().prop_map(Step::Return),
        node.clone().prop_map(Step::Shrink),
        node.prop_map(Step::Grow),
    ]
}

proptest! {
    /// A record is committed when at least two are in sync, and is then on all of them. Whoever leads holds it.
    #[test]
    fn no_leader_lacks_a_committed_record(steps in prop::collection::vec(step(), 1..60)) {
        let mut state = state(1, &[1, 2, 3], &[]);
        let mut active: BTreeSet<i32> = [1, 2, 3].into();
        // Committed records by number; what each replica holds.
        let mut committed = 0u32;
        let mut held = BTreeMap::from([(1, 0u32), (2, 0), (3, 0)]);
        for step in steps {
            let is_active = |node: NodeId| active.contains(&node.value());
            let next = match step {
                Step::Lose(node) => {
                    active.remove(&node);
                    let is_active = |node: NodeId| active.contains(&node.value());
                    without(&state, NodeId(node), Departure::Lost, SAFE, is_active)
                }
                Step::Return(node) => {
                    active.insert(node);
                    let is_active = |node: NodeId| active.contains(&node.value());
                    revived(&state, SAFE, is_active)
                }
                Step::Shrink(node) if is_active(state.leader) && state.leader.value() != node => {
                    let kept: Vec<NodeId> =
                        state.isr.iter().copied().filter(|it| it.value() != node).collect();
                    (kept.len() < state.isr.len()).then(|| resized(&state, &kept, SAFE))
                }
                Step::Grow(node) if is_active(state.leader) && is_active(NodeId(node)) => {
                    // It has caught up with the leader before it is proposed.
                    let leader = held[&state.leader.value()];
                    held.insert(node, leader);
                    let mut grown = state.isr.clone();
                    if !grown.contains(&NodeId(node)) {
                        grown.push(NodeId(node));
                    }
                    (grown.len() > state.isr.len()).then(|| resized(&state, &grown, SAFE))
                }
                Step::Shrink(_) | Step::Grow(_) => None,
            };
            if let Some(next) = next {
                if next.leader != state.leader && next.leader != NodeId::NONE {
                    prop_assert!(
                        held[&next.leader.value()] >= committed,
                        "{} leads without record {committed}: {state:?} -> {next:?}", next.leader
                    );
                    // Followers truncate to the new leader when they meet it; only what is committed is certain.
                    let leader = held[&next.leader.value()];
                    held.values_mut().for_each(|has| *has = (*has).min(leader));
                }
                state = next;
            }
            // All in sync are there and enough: one more record is committed.
            let all_there = state.isr.iter().all(|node| active.contains(&node.value()));
            if state.leader != NodeId::NONE && state.isr.len() >= SAFE.min_insync && all_there {
                committed = state.isr.iter().map(|node| held[&node.value()]).max().unwrap_or(0) + 1;
                for node in &state.isr {
                    held.insert(node.value(), committed);
                }
            }
        }
    }
}

#[test]
fn elections_are_counted_by_what_the_new_leader_is_known_to_hold() {
    let topic = TopicId([3; 16]);
    let record = |state: PartitionState| Record::Partition {
        topic,
        index: PartitionIndex(0),
        state,
    };
    let in_epoch = |epoch: i32, state: PartitionState| PartitionState {
        leader_epoch: LeaderEpoch(epoch),
        ..state
    };
    let mut image = Image::default();
    let named = Record::Topic {
        id: topic,
        name: "t".to_owned(),
        internal: false,
        mirror: None,
    };
    let before = state(1, &[1, 2], &[3]);
    image.amend(&[named, record(before.clone())]);
    let none = NodeId::NONE.value();
    for (what, after, clean, unclean) in [
        ("in sync", vec![in_epoch(6, state(2, &[2], &[]))], 1, 0),
        ("eligible", vec![in_epoch(6, state(3, &[3], &[]))], 1, 0),
        ("same reign", vec![state(1, &[1], &[2])], 0, 0),
        ("nobody", vec![in_epoch(6, state(none, &[2], &[]))], 0, 0),
        (
            "two after one another",
            vec![
                in_epoch(6, state(none, &[2], &[])),
                in_epoch(7, state(1, &[1], &[])),
                in_epoch(8, state(1, &[1], &[])),
            ],
            1,
            1,
        ),
    ] {
        let records: Vec<Record> = after.into_iter().map(record).collect();
        assert_eq!(elected(&image, &records), Elected { clean, unclean }, "{what}");
    }
    let fresh = Record::Partition {
        topic,
        index: PartitionIndex(1),
        state: before,
    };
    assert_eq!(elected(&image, &[fresh]), Elected::default());
}
