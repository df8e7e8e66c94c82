//! Reassignments by example, and what holds whatever else happens meanwhile.

use super::super::elections::{Departure, resized, revived, without};
use super::*;
use headwater_protocol::ids::LeaderEpoch;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const RULES: Rules = Rules {
    min_insync: 2,
    unclean: false,
    cached: false,
};

fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn held_by(replicas: &[i32], isr: &[i32]) -> PartitionState {
    PartitionState {
        leader: NodeId(isr[0]),
        leader_epoch: LeaderEpoch(4),
        replicas: nodes(replicas),
        isr: nodes(isr),
        ..PartitionState::default()
    }
}

/// The state that is moved on to `target`, with everybody there.
fn to(state: &PartitionState, target: &[i32]) -> PartitionState {
    moved(state, &nodes(target), RULES, |_| true).expect("somebody is left")
}

/// The state after its leader has taken these to be in sync.
fn in_sync(state: &PartitionState, ids: &[i32]) -> PartitionState {
    let mut next = resized(state, &nodes(ids), RULES);
    finish(&mut next, RULES, |_| true);
    next
}

/// Replicas, adding, removing, in-sync set, leader, epoch.
fn check(state: &PartitionState, expected: [&[i32]; 4], leader: i32, epoch: i32) {
    let [replicas, adding, removing, isr] = expected.map(nodes);
    assert_eq!(
        (&state.replicas, &state.adding, &state.removing, &state.isr),
        (&replicas, &adding, &removing, &isr)
    );
    assert_eq!(
        (state.leader, state.leader_epoch),
        (NodeId(leader), LeaderEpoch(epoch))
    );
}

#[test]
fn who_is_removed_goes_when_all_who_are_added_are_in_sync() {
    let moving = to(&held_by(&[1, 2], &[1, 2]), &[3, 4]);
    check(&moving, [&[3, 4, 1, 2], &[3, 4], &[1, 2], &[1, 2]], 1, 4);
    let moving = in_sync(&moving, &[1, 2, 3]);
    check(&moving, [&[3, 4, 1, 2], &[3, 4], &[1, 2], &[1, 2, 3]], 1, 4);
    check(
        &in_sync(&moving, &[1, 2, 3, 4]),
        [&[3, 4], &[], &[], &[3, 4]],
        3,
        5,
    );
}

#[test]
fn where_nobody_has_to_catch_up_it_is_done_at_once() {
    let whole = held_by(&[1, 2, 3], &[1, 2, 3]);
    check(&to(&whole, &[2, 1]), [&[2, 1], &[], &[], &[1, 2]], 1, 5);
    check(&to(&whole, &[3, 2]), [&[3, 2], &[], &[], &[2, 3]], 3, 5);
    check(&to(&whole, &[3, 2, 1]), [&[3, 2, 1], &[], &[], &[1, 2, 3]], 1, 4);
}

#[test]
fn who_stays_must_be_enough_to_go_on_writing() {
    // 3 is behind: without 1 only 2 would be in sync, and two are asked for.
    let moving = to(&held_by(&[1, 2, 3], &[1, 2]), &[2, 3]);
    check(&moving, [&[2, 3, 1], &[], &[1], &[1, 2]], 1, 4);
    check(&in_sync(&moving, &[1, 2, 3]), [&[2, 3], &[], &[], &[2, 3]], 2, 5);
    // More than there are is never asked for.
    check(
        &to(&held_by(&[1, 2], &[1, 2]), &[2]),
        [&[2], &[], &[], &[2]],
        2,
        5,
    );
}

#[test]
fn another_target_starts_from_those_who_were_there_before() {
    let moving = in_sync(&to(&held_by(&[1, 2], &[1, 2]), &[3, 4]), &[1, 2, 3]);
    check(&to(&moving, &[2, 4]), [&[2, 4, 1], &[4], &[1], &[1, 2]], 1, 5);
    let back = moved(&moving, &origin(&moving), RULES, |_| true).expect("they are all in sync");
    check(&back, [&[1, 2], &[], &[], &[1, 2]], 1, 5);
}

#[test]
fn one_that_was_added_leads_no_more_when_it_is_taken_back() {
    let mut moving = in_sync(&to(&held_by(&[1, 2], &[1, 2]), &[3, 4]), &[1, 2, 3]);
    moving.leader = NodeId(3);
    check(&to(&moving, &[1, 2]), [&[1, 2], &[], &[], &[1, 2]], 1, 5);
    // Nobody who was there before holds everything any more.
    moving.isr = nodes(&[3]);
    assert_eq!(moved(&moving, &nodes(&[1, 2]), RULES, |_| true), None);
    moving.eligible = nodes(&[2]);
    let back = to(&moving, &[1, 2]);
    check(&back, [&[1, 2], &[], &[], &[2]], 2, 5);
    assert_eq!(back.eligible, []);
}

#[test]
fn alone_and_with_others_a_replica_leads_in_different_epochs() {
    let grown = to(&held_by(&[1], &[1]), &[2, 1]);
    check(&grown, [&[2, 1], &[2], &[], &[1]], 1, 5);
    let grown = in_sync(&grown, &[1, 2]);
    check(&grown, [&[2, 1], &[], &[], &[1, 2]], 1, 5);
    check(&to(&grown, &[1]), [&[1], &[], &[], &[1]], 1, 6);
}

#[derive(Debug, Clone)]
enum Step {
    Lose(i32),
    Return(i32),
    /// It has fetched all there is.
    Grow(i32),
    Shrink(i32),
    Move(Vec<i32>),
    Back,
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 1..=4i32;
    let target = Just(vec![1, 2, 3, 4]).prop_shuffle();
    let target = (target, 1..=3usize).prop_map(|(mut target, count)| {
        target.truncate(count);
        target
    });
    prop_oneof![
        1 => node().prop_map(Step::Lose),
        1 => node().prop_map(Step::Return),
        3 => node().prop_map(Step::Grow),
        1 => node().prop_map(Step::Shrink),
        2 => target.prop_map(Step::Move),
        1 => Just(Step::Back),
    ]
}

/// One partition, who is there, and what each of its replicas holds.
struct Model {
    state: PartitionState,
    active: BTreeSet<i32>,
    held: BTreeMap<i32, u32>,
    committed: u32,
    /// By epoch, whether its leader was alone.
    alone: BTreeMap<LeaderEpoch, bool>,
}

impl Model {
    fn next(&mut self, step: Step) -> Option<PartitionState> {
        let state = &self.state;
        match step {
            Step::Lose(node) => {
                self.active.remove(&node);
                let is_active = |node: NodeId| self.active.contains(&node.value());
                without(state, NodeId(node), Departure::Lost, RULES, is_active)
            }
            Step::Return(node) => {
                self.active.insert(node);
                revived(state, RULES, |node| self.active.contains(&node.value()))
            }
            Step::Grow(node) => {
                let is_active = |node: NodeId| self.active.contains(&node.value());
                let id = NodeId(node);
                if !is_active(state.leader) || !is_active(id) || !state.replicas.contains(&id) {
                    return None;
                }
                let has = self.held.get(&state.leader.value()).copied().unwrap_or(0);
                self.held.insert(node, has);
                let grown = [state.isr.clone(), vec![id]].concat();
                self.resized(&grown)
            }
            Step::Shrink(node) => {
                let is_led = self.active.contains(&state.leader.value()) && state.leader != NodeId(node);
                let kept: Vec<NodeId> = state
                    .isr
                    .iter()
                    .copied()
                    .filter(|it| it.value() != node)
                    .collect();
                is_led.then(|| self.resized(&kept)).flatten()
            }
            Step::Move(target) => {
                let is_active = |node: NodeId| self.active.contains(&node.value());
                let next = moved(state, &nodes(&target), RULES, is_active)?;
                elections::finish(state, next)
            }
            Step::Back if state.is_moving() => {
                let is_active = |node: NodeId| self.active.contains(&node.value());
                let next = moved(state, &origin(state), RULES, is_active)?;
                elections::finish(state, next)
            }
            Step::Back => None,
        }
    }

    fn resized(&self, isr: &[NodeId]) -> Option<PartitionState> {
        let is_news = isr.iter().collect::<BTreeSet<_>>().len() == isr.len() && isr != self.state.isr;
        let mut next = is_news.then(|| resized(&self.state, isr, RULES))?;
        finish(&mut next, RULES, |node| self.active.contains(&node.value()));
        Some(next)
    }

    fn take(&mut self, next: PartitionState) -> Result<(), TestCaseError> {
        let within = |set: &[NodeId]| set.iter().all(|node| next.replicas.contains(node));
        prop_assert!(
            within(&next.isr) && within(&next.eligible) && within(&next.adding),
            "{next:?}"
        );
        prop_assert!(within(&next.removing) && !next.isr.is_empty(), "{next:?}");
        prop_assert!(
            next.leader == NodeId::NONE || next.isr.contains(&next.leader),
            "{next:?}"
        );
        prop_assert!(
            next.leader_epoch >= self.state.leader_epoch && next.partition_epoch > self.state.partition_epoch
        );
        let leaves = |node: &NodeId| !next.replicas.contains(node);
        prop_assert!(
            next.leader == NodeId::NONE
                || next.leader_epoch > self.state.leader_epoch
                || !self.state.replicas.iter().any(leaves),
            "what it fetched counts still: {next:?}"
        );
        // Who holds it no more has deleted it.
        self.held.retain(|node, _| next.replicas.contains(&NodeId(*node)));
        if next.leader != NodeId::NONE {
            let has = self.held.get(&next.leader.value()).copied().unwrap_or(0);
            if next.leader != self.state.leader {
                prop_assert!(has >= self.committed, "{:?} -> {next:?}", self.state);
                self.held.values_mut().for_each(|held| *held = (*held).min(has));
            }
            let is_alone = next.replicas.len() == 1;
            let was_alone = *self.alone.entry(next.leader_epoch).or_insert(is_alone);
            prop_assert_eq!(was_alone, is_alone, "in epoch {}", next.leader_epoch);
        }
        self.state = next;
        Ok(())
    }

    /// All in sync are there and enough: one more record is committed.
    fn write(&mut self) {
        let PartitionState {
            leader,
            replicas,
            isr,
            ..
        } = &self.state;
        let all_there = isr.iter().all(|node| self.active.contains(&node.value()));
        if *leader != NodeId::NONE && isr.len() >= RULES.min_insync.min(replicas.len()) && all_there {
            let most = isr.iter().filter_map(|node| self.held.get(&node.value())).max();
            self.committed = most.copied().unwrap_or(0) + 1;
            for node in isr {
                self.held.insert(node.value(), self.committed);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_leader_lacks_a_committed_record_wherever_it_is_moved(steps in prop::collection::vec(step(), 1..60)) {
        let state = held_by(&[1, 2], &[1, 2]);
        let mut model = Model {
            alone: BTreeMap::from([(state.leader_epoch, false)]),
            state,
            active: [1, 2, 3, 4].into(),
            held: BTreeMap::new(),
            committed: 0,
        };
        for step in steps {
            if let Some(next) = model.next(step) {
                model.take(next)?;
            }
            model.write();
        }
    }

    /// Whoever is added catches up in the end, and then the replicas are those that were asked for.
    #[test]
    fn a_reassignment_ends_when_everybody_is_there(
        steps in prop::collection::vec(step(), 0..30),
        target in Just(vec![1, 2, 3, 4]).prop_shuffle(),
        count in 1..=3usize,
    ) {
        let state = held_by(&[1, 2, 3], &[1, 2, 3]);
        let mut model = Model {
            alone: BTreeMap::from([(state.leader_epoch, false)]),
            state,
            active: [1, 2, 3, 4].into(),
            held: BTreeMap::new(),
            committed: 0,
        };
        let target = &target[..count];
        let returns = (1..=4).map(Step::Return);
        let grows = (1..=4).map(Step::Grow);
        let ends = returns.chain([Step::Move(target.to_vec())]).chain(grows);
        for step in steps.into_iter().chain(ends) {
            if let Some(next) = model.next(step) {
                model.take(next)?;
            }
        }
        let is_refused = model.state.replicas.len() != count && !model.state.is_moving();
        prop_assert!(is_refused || model.state.replicas == nodes(target), "{:?}", model.state);
    }
}
