//! The watermark rules, one by one, and all together against random steps.

use super::*;
use crate::sys::clock::Clock;
use headwater_protocol::ids::BrokerEpoch;
use proptest::prelude::*;

const LAG: Duration = Duration::from_secs(10);
const DURABLE: Rules = Rules {
    write_caching: false,
    min_in_sync: 1,
    lag_max: LAG,
};
const CACHED: Rules = Rules {
    write_caching: true,
    ..DURABLE
};

fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn leadership(leader: i32, epoch: i32, isr: &[i32]) -> PartitionState {
    PartitionState {
        leader: NodeId(leader),
        leader_epoch: LeaderEpoch(epoch),
        replicas: nodes(&[1, 2, 3]),
        isr: nodes(isr),
        ..PartitionState::default()
    }
}

fn found(log_end: i64, synced: i64, committed: i64, epoch: i32) -> Found {
    Found {
        log_start: Offset(0),
        own: Progress {
            log_end: Offset(log_end),
            synced: Offset(synced),
        },
        committed: Offset(committed),
        epoch: LeaderEpoch(epoch),
    }
}

fn now() -> Instant {
    // One for all: what differs is added to it.
    static CLOCK: std::sync::OnceLock<Clock> = std::sync::OnceLock::new();
    CLOCK.get_or_init(|| Clock::manual(0)).now()
}

fn leader(epoch: i32, isr: &[i32], log_end: i64) -> State {
    State::new(
        NodeId(1),
        leadership(1, epoch, isr),
        found(log_end, log_end, 0, epoch - 1),
        DURABLE,
        now(),
    )
}

fn fetch(state: &mut State, replica: i32, offset: i64) {
    fetch_at(state, replica, offset, now());
}

fn fetch_at(state: &mut State, replica: i32, offset: i64, at: Instant) {
    let fetch = ReplicaFetch {
        replica: NodeId(replica),
        broker_epoch: Some(BrokerEpoch(1)),
        leader_epoch: state.leader_epoch(),
        offset: Offset(offset),
        log_start: Offset(0),
        log_end: state.watermarks().log_end,
        at,
    };
    state.replica_fetched(fetch, true);
}

fn committed(state: &State) -> i64 {
    state.watermarks().high_watermark.value()
}

#[test]
fn one_replica_commits_what_is_synced_or_cached() {
    for (rules, before, after) in [(DURABLE, 0, 5), (CACHED, 7, 7)] {
        let alone = PartitionState {
            replicas: nodes(&[1]),
            ..leadership(1, 0, &[1])
        };
        let mut state = State::new(NodeId(1), alone, found(0, 0, 0, -1), rules, now());
        state.appended(Offset(7), now());
        assert_eq!(committed(&state), before);
        state.synced(Offset(5));
        assert_eq!(committed(&state), after);
    }
}

#[test]
fn the_slowest_replica_in_sync_holds_the_watermark() {
    let mut state = leader(3, &[1, 2, 3], 9);
    assert_eq!(committed(&state), 0);
    fetch(&mut state, 2, 4);
    assert_eq!(committed(&state), 0);
    fetch(&mut state, 3, 6);
    assert_eq!(committed(&state), 4);
    // It leaves the set: the others decide.
    state.lead(leadership(1, 3, &[1, 3]), now());
    assert_eq!(committed(&state), 6);
    // A new reign knows nothing of the others yet, and takes nothing back.
    state.lead(leadership(1, 4, &[1, 3]), now());
    assert_eq!(committed(&state), 6);
    fetch(&mut state, 3, 2);
    assert_eq!(committed(&state), 6);
    // What was said in another reign says nothing in this one.
    let stale = ReplicaFetch {
        replica: NodeId(3),
        broker_epoch: None,
        leader_epoch: LeaderEpoch(3),
        offset: Offset(9),
        log_start: Offset(0),
        log_end: Offset(9),
        at: now(),
    };
    state.replica_fetched(stale, true);
    assert_eq!(committed(&state), 6);
}

#[test]
fn a_proposed_set_counts_until_it_is_decided() {
    let mut state = leader(3, &[1, 2], 10);
    fetch(&mut state, 2, 10);
    // Replica 3 has caught up, and the watermark waits for it from then on.
    fetch(&mut state, 3, 10);
    assert_eq!(committed(&state), 10);
    let wanted = state.in_sync_wanted(now()).expect("it may join");
    assert_eq!(wanted, nodes(&[1, 2, 3]));
    let members = state.propose(wanted);
    assert_eq!(members[2].broker_epoch, Some(BrokerEpoch(1)));
    assert_eq!(state.in_sync_wanted(now()), None, "one proposal at a time");
    state.appended(Offset(20), now());
    state.synced(Offset(20));
    fetch(&mut state, 2, 20);
    assert_eq!(committed(&state), 10);
    let committed_set = PartitionState {
        partition_epoch: 1,
        ..leadership(1, 3, &[1, 2, 3])
    };
    assert!(state.lead(committed_set, now()));
    assert!(!state.has_proposal());
    // Metadata from before the change is not believed.
    assert!(!state.lead(leadership(1, 3, &[1, 2]), now()));
    assert_eq!(committed(&state), 10);
    fetch(&mut state, 3, 20);
    assert_eq!(committed(&state), 20);
}

#[test]
fn one_that_does_not_keep_up_is_proposed_away_and_holds_the_watermark_until_then() {
    let mut state = leader(3, &[1, 2], 10);
    fetch(&mut state, 2, 10);
    state.appended(Offset(20), now());
    state.synced(Offset(20));
    assert_eq!(state.in_sync_wanted(now() + LAG), None);
    let late = now() + LAG + Duration::from_millis(1);
    let wanted = state.in_sync_wanted(late).expect("it is slow");
    assert_eq!(wanted, nodes(&[1]));
    state.propose(wanted);
    assert_eq!(committed(&state), 10);
    state.drop_proposal();
    assert_eq!(committed(&state), 10);
    let alone = PartitionState {
        partition_epoch: 1,
        ..leadership(1, 3, &[1])
    };
    state.lead(alone, late);
    assert_eq!(committed(&state), 20);
}

#[test]
fn one_behind_the_beginning_of_the_reign_does_not_join() {
    let mut state = leader(4, &[1], 0);
    state.appended(Offset(10), now());
    let mut state = {
        state.synced(Offset(10));
        state.lead(leadership(1, 5, &[1]), now());
        state
    };
    assert_eq!((state.epoch_start(), committed(&state)), (Offset(10), 10));
    fetch(&mut state, 2, 9);
    assert_eq!(state.in_sync_wanted(now()), None);
    fetch(&mut state, 2, 10);
    assert_eq!(state.in_sync_wanted(now()), Some(nodes(&[1, 2])));
}

#[test]
fn nothing_is_committed_while_too_few_are_in_sync() {
    let rules = Rules {
        min_in_sync: 2,
        ..DURABLE
    };
    let mut state = leader(3, &[1, 2], 10);
    state.set_rules(rules);
    fetch(&mut state, 2, 10);
    assert_eq!(committed(&state), 10);
    state.lead(leadership(1, 3, &[1]), now());
    assert!(!state.has_enough_in_sync());
    state.appended(Offset(20), now());
    state.synced(Offset(20));
    fetch(&mut state, 2, 20);
    assert_eq!(committed(&state), 10);
    state.lead(leadership(1, 3, &[1, 2]), now());
    assert_eq!(committed(&state), 20);
}

#[test]
fn an_epoch_led_before_the_log_was_opened_is_not_led_again() {
    let open = |replicas: &[i32], seen: i32, epoch: i32| {
        let state = PartitionState {
            replicas: nodes(replicas),
            ..leadership(1, epoch, &[1])
        };
        let mut state = State::new(NodeId(1), state, found(5, 5, 3, seen), DURABLE, now());
        let role = state.role();
        let next = PartitionState {
            replicas: nodes(replicas),
            ..leadership(1, epoch + 1, &[1])
        };
        state.lead(next, now());
        (role, state.role())
    };
    assert_eq!(open(&[1, 2], 4, 4), (Role::Idle, Role::Leader));
    assert_eq!(open(&[1, 2], 3, 4), (Role::Leader, Role::Leader));
    assert_eq!(
        open(&[1], 4, 4),
        (Role::Leader, Role::Leader),
        "nobody else has records of it"
    );
    assert_eq!(
        open(&[1], 6, 4),
        (Role::Idle, Role::Idle),
        "the metadata is behind"
    );
}

#[test]
fn a_follower_is_committed_as_far_as_its_log_reaches() {
    let mut state = State::new(
        NodeId(2),
        leadership(1, 3, &[1, 2]),
        found(5, 5, 4, 3),
        DURABLE,
        now(),
    );
    assert_eq!((state.role(), committed(&state)), (Role::Follower, 4));
    state.leader_committed(Offset(9));
    assert_eq!(committed(&state), 5);
    state.appended(Offset(12), now());
    state.leader_committed(Offset(9));
    assert_eq!(committed(&state), 9);
    state.leader_committed(Offset(7));
    assert_eq!(committed(&state), 9);
    state.truncated(Offset(9));
    assert_eq!(state.watermarks().log_end, Offset(9));
}

#[test]
#[should_panic(expected = "below the high watermark")]
fn what_is_committed_is_never_truncated() {
    let mut state = State::new(
        NodeId(2),
        leadership(1, 3, &[1, 2]),
        found(5, 5, 4, 3),
        DURABLE,
        now(),
    );
    state.truncated(Offset(3));
}

#[test]
fn an_epoch_is_compared_when_it_is_given() {
    let (old, new) = (LeaderEpoch(2), LeaderEpoch(4));
    let current = LeaderEpoch(3);
    assert_eq!(check_epoch(None, current), Ok(()));
    assert_eq!(check_epoch(Some(current), current), Ok(()));
    assert_eq!(
        check_epoch(Some(old), current),
        Err(EpochError::Fenced { asked: old, current })
    );
    assert_eq!(
        check_epoch(Some(new), current),
        Err(EpochError::Unknown { asked: new, current })
    );
}

#[derive(Debug, Clone)]
enum Step {
    Append(i64),
    Sync,
    Caching(bool),
    Trim,
    /// A replica fetches at a share of the log, in percent.
    Fetch(i32, i64),
    Propose,
    Decide(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..50i64).prop_map(Step::Append),
        4 => Just(Step::Sync),
        1 => any::<bool>().prop_map(Step::Caching),
        1 => Just(Step::Trim),
        6 => (2..4i32, 0..=100i64).prop_map(|(replica, at)| Step::Fetch(replica, at)),
        2 => Just(Step::Propose),
        2 => any::<bool>().prop_map(Step::Decide),
        1 => (0..15u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn watermarks_are_ordered_never_fall_and_are_held_by_everybody_in_sync(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut state = leader(1, &[1, 2, 3], 0);
        let mut reached = std::collections::BTreeMap::from([(2, 0), (3, 0)]);
        let (mut at, mut asked) = (now(), None);
        for step in steps {
            let before = state.watermarks();
            match step {
                Step::Append(count) => state.appended(before.log_end.plus(count), at),
                Step::Sync => state.synced(before.log_end),
                Step::Caching(on) => state.set_rules(if on { CACHED } else { DURABLE }),
                Step::Trim => state.trimmed(before.high_watermark),
                Step::Fetch(replica, percent) => {
                    let offset = before.log_end.value() * percent / 100;
                    // What a replica once had on its disk it has for good.
                    let offset = offset.max(reached[&replica]);
                    reached.insert(replica, offset);
                    fetch_at(&mut state, replica, offset, at);
                }
                Step::Propose => {
                    if let Some(wanted) = state.in_sync_wanted(at) {
                        prop_assert!(wanted.contains(&NodeId(1)));
                        asked = Some(wanted.clone());
                        state.propose(wanted);
                    }
                }
                Step::Decide(yes) => if let Some(isr) = asked.take() {
                    if yes {
                        let partition_epoch = state.leadership().partition_epoch + 1;
                        let next = PartitionState { isr, partition_epoch, ..state.leadership().clone() };
                        state.lead(next, at);
                    } else {
                        state.drop_proposal();
                    }
                },
                Step::Wait(seconds) => {
                    at += Duration::from_secs(seconds);
                    state.give_up_slow(at);
                }
            }
            let now = state.watermarks();
            prop_assert!(now.log_start <= now.last_stable && now.last_stable <= now.high_watermark);
            prop_assert!(now.high_watermark <= now.log_end && now.synced <= now.log_end);
            prop_assert!(now.high_watermark >= before.high_watermark && now.log_start >= before.log_start);
            if now.high_watermark > before.high_watermark {
                let counted = state.leadership().isr.iter().chain(asked.iter().flatten());
                for replica in counted.filter(|replica| **replica != NodeId(1)) {
                    prop_assert!(reached[&replica.value()] >= now.high_watermark.value());
                }
            }
        }
    }
}
