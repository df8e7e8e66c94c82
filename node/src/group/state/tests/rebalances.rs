//! From one generation to the next.

use super::*;

#[test]
fn a_group_begins_when_its_delay_is_over_and_the_leader_assigns() {
    let mut lab = Lab::new();
    let (one, two) = (lab.join_as(&old_join("")), lab.join_as(&old_join("")));
    lab.pass(DELAY - Duration::from_millis(1));
    assert!(lab.waits(one) && lab.waits(two));
    assert_eq!(lab.stage(), Stage::PreparingRebalance);
    // The second one came meanwhile: there may be a third.
    lab.pass(DELAY + Duration::from_millis(1));
    let (one, two) = (lab.joined(one).unwrap(), lab.joined(two).unwrap());
    assert_eq!((&*one.member, &*two.member), (&*id(1), &*id(2)));
    assert_eq!((&*one.leader, &*two.leader), (&*id(1), &*id(1)));
    assert_eq!((one.generation, two.generation), (Generation(1), Generation(1)));
    assert_eq!(one.protocol.as_deref(), Some("range"));
    assert_eq!((one.members.len(), two.members.len()), (2, 0));
    assert_eq!(one.members[1].metadata, protocol("range", "t").metadata);

    lab.holds = true;
    let second = lab.sync(&id(2), 1, &[]);
    let first = lab.sync(&id(1), 1, &[(&id(1), "p0"), (&id(2), "p1"), ("stranger", "p2")]);
    assert!(lab.waits(first) && lab.waits(second), "it is not kept yet");
    assert_eq!(lab.stage(), Stage::CompletingRebalance);
    lab.let_go();
    assert_eq!(lab.synced(first), Ok("p0".to_owned()));
    assert_eq!(lab.synced(second), Ok("p1".to_owned()));
    assert_eq!(lab.stage(), Stage::Stable);
    let again = lab.sync(&id(2), 1, &[]);
    assert_eq!(lab.synced(again), Ok("p1".to_owned()));

    let mut other = lab.read_back();
    assert_eq!(other.state.describe(GROUP), lab.state.describe(GROUP));
    assert_eq!(other.beat(&id(2), 1), Ok(()));
    assert_eq!(other.state.live_bytes(), lab.state.live_bytes());
}

#[test]
fn the_delay_ends_at_the_rebalance_timeout_whoever_comes() {
    let mut lab = Lab::new();
    let mut calls = Vec::new();
    for _ in 0..40 {
        calls.push(lab.join_as(&old_join("")));
        lab.pass(Duration::from_secs(2));
    }
    let first = lab.joined(calls[0]).unwrap();
    assert_eq!(first.generation, Generation(1));
    assert_eq!(first.members.len(), 30, "those of the first minute");
}

#[test]
fn a_newcomer_makes_the_others_join_again() {
    let mut lab = Lab::new();
    lab.stable(&["a", "b"]);
    let three = lab.join_as(&old_join(""));
    assert_eq!(lab.stage(), Stage::PreparingRebalance);
    assert_eq!(lab.beat(&id(1), 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(lab.beat(&id(2), 1), Err(GroupError::RebalanceInProgress));
    let one = lab.join(&id(1));
    assert!(lab.waits(one));
    let two = lab.join(&id(2));
    let told = lab.joined(one).unwrap();
    assert_eq!((told.generation, told.members.len()), (Generation(2), 3));
    assert_eq!(&*lab.joined(two).unwrap().leader, id(1));
    assert_eq!(&*lab.joined(three).unwrap().leader, id(1));
    assert_eq!(lab.beat(&id(1), 1), Err(GroupError::IllegalGeneration));
}

#[test]
fn whoever_does_not_come_in_time_is_out() {
    let mut lab = Lab::new();
    lab.stable(&["a", "b"]);
    let three = lab.join_as(&old_join(""));
    let two = lab.join(&id(2));
    for _ in 0..8 {
        // It is there, and does not join.
        assert_eq!(lab.beat(&id(1), 1), Err(GroupError::RebalanceInProgress));
        lab.pass(SESSION - Duration::from_secs(1));
        if !lab.waits(two) {
            break;
        }
    }
    let told = lab.joined(two).unwrap();
    assert_eq!(&*told.leader, id(2), "another leads");
    assert_eq!(told.members.len(), 2);
    assert!(lab.joined(three).is_ok());
    assert_eq!(lab.beat(&id(1), 2), Err(GroupError::UnknownMember));
}

#[test]
fn the_protocol_is_one_that_all_support_and_most_like_best() {
    let mut lab = Lab::new();
    let with = |names: &[&str]| Join {
        protocols: names.iter().map(|name| protocol(name, "t")).collect(),
        ..old_join("")
    };
    let calls = [
        lab.join_as(&with(&["x", "a", "b"])),
        lab.join_as(&with(&["b", "a"])),
        lab.join_as(&with(&["b", "a", "x"])),
    ];
    let stranger = lab.join_as(&with(&["y"]));
    assert_eq!(lab.joined(stranger), Err(GroupError::InconsistentProtocol));
    let other_kind = Join {
        protocol_type: Name::from("connect"),
        ..with(&["b"])
    };
    let stranger = lab.join_as(&other_kind);
    assert_eq!(lab.joined(stranger), Err(GroupError::InconsistentProtocol));
    lab.pass(2 * DELAY);
    for call in calls {
        assert_eq!(lab.joined(call).unwrap().protocol.as_deref(), Some("b"));
    }
}

#[test]
fn whoever_never_asks_for_its_assignment_is_out() {
    let mut lab = Lab::new();
    let (one, two) = (lab.join_as(&old_join("")), lab.join_as(&old_join("")));
    lab.pass(2 * DELAY);
    assert!(lab.joined(one).is_ok() && lab.joined(two).is_ok());
    // The leader is alive, and does not assign.
    let waiting = lab.sync(&id(2), 1, &[]);
    for _ in 0..7 {
        assert_eq!(lab.beat(&id(1), 1), Ok(()));
        lab.pass(SESSION - Duration::from_secs(1));
    }
    assert_eq!(lab.synced(waiting), Err(GroupError::RebalanceInProgress));
    assert_eq!(lab.beat(&id(1), 1), Err(GroupError::UnknownMember));
    let two = lab.join(&id(2));
    assert_eq!(&*lab.joined(two).unwrap().leader, id(2));
}

#[test]
fn what_cannot_be_kept_is_divided_anew() {
    let mut lab = Lab::new();
    let one = lab.join_as(&old_join(""));
    lab.pass(DELAY);
    assert!(lab.joined(one).is_ok());
    for (refused, told) in [
        (AppendRefused::NotNow, GroupError::NotAvailable),
        (AppendRefused::TooLarge, GroupError::GroupTooLarge),
    ] {
        lab.refuses = Some(refused);
        let generation = lab.state.groups[GROUP].generation.0;
        let sync = lab.sync(&id(1), generation, &[(&id(1), "p0")]);
        assert_eq!(lab.synced(sync), Err(told));
        assert_eq!(lab.stage(), Stage::PreparingRebalance);
        let again = lab.join(&id(1));
        assert_eq!(lab.joined(again).unwrap().generation, Generation(generation + 1));
    }
    lab.refuses = None;
    let sync = lab.sync(&id(1), 3, &[(&id(1), "p0")]);
    assert_eq!(lab.synced(sync), Ok("p0".to_owned()));
}

#[test]
fn an_assignment_that_comes_too_late_is_nobodys() {
    let mut lab = Lab::new();
    let one = lab.join_as(&old_join(""));
    lab.pass(DELAY);
    assert!(lab.joined(one).is_ok());
    lab.holds = true;
    let sync = lab.sync(&id(1), 1, &[(&id(1), "p0")]);
    let two = lab.join_as(&old_join(""));
    assert_eq!(lab.synced(sync), Err(GroupError::RebalanceInProgress));
    lab.let_go();
    assert_eq!(lab.stage(), Stage::PreparingRebalance);
    let one = lab.join(&id(1));
    assert_eq!(lab.joined(one).unwrap().generation, Generation(2));
    assert!(lab.joined(two).is_ok());
}

#[test]
fn joining_again_with_nothing_new_changes_nothing_but_for_the_leader() {
    let mut lab = Lab::new();
    lab.stable(&["a", "b"]);
    let two = lab.join(&id(2));
    let told = lab.joined(two).unwrap();
    assert_eq!((told.generation, told.members.len()), (Generation(1), 0));
    assert_eq!(lab.stage(), Stage::Stable);
    let other = Join {
        protocols: vec![protocol("range", "u")],
        ..join(&id(2))
    };
    lab.join_as(&other);
    assert_eq!(
        lab.stage(),
        Stage::PreparingRebalance,
        "it is subscribed to another topic"
    );

    let mut lab = Lab::new();
    lab.stable(&["a", "b"]);
    let one = lab.join(&id(1));
    assert!(lab.waits(one));
    let two = lab.join(&id(2));
    assert_eq!(lab.joined(one).unwrap().generation, Generation(2));
    // Its answer was lost: it hears the same again.
    assert!(lab.joined(two).is_ok());
    let two = lab.join(&id(2));
    assert_eq!(lab.joined(two).unwrap().generation, Generation(2));
    assert_eq!(lab.stage(), Stage::CompletingRebalance);
}

#[test]
fn a_join_sent_twice_leaves_the_first_one_behind() {
    let mut lab = Lab::new();
    lab.stable(&["a", "b"]);
    let first = lab.join(&id(1));
    let second = lab.join(&id(1));
    assert_eq!(lab.joined(first), Err(GroupError::RebalanceInProgress));
    let _two = lab.join(&id(2));
    assert!(lab.joined(second).is_ok());
}
