//! Static members (KIP-345): a process that comes back under its instance id is the same member.

use super::*;

/// Static members 1 and 2 in generation 1, stable; 1 leads.
fn stable() -> Lab {
    let mut lab = Lab::new();
    let calls = [
        lab.join_as(&static_join("", "i1")),
        lab.join_as(&static_join("", "i2")),
    ];
    lab.pass(2 * DELAY);
    for call in calls {
        assert!(lab.joined(call).is_ok());
    }
    lab.sync(&static_id(2), 1, &[]);
    lab.sync(&static_id(1), 1, &[(&static_id(1), "p0"), (&static_id(2), "p1")]);
    assert_eq!(lab.stage(), Stage::Stable);
    lab
}

fn static_id(n: u128) -> String {
    named(n, n)
}

/// The nth id that was given out, to this instance.
fn named(instance: u128, n: u128) -> String {
    format!("i{instance}-00000000-0000-0000-0000-{n:012x}")
}

#[test]
fn a_process_that_comes_back_takes_over_without_a_rebalance() {
    let mut lab = stable();
    lab.holds = true;
    let call = lab.join_as(&static_join("", "i2"));
    assert!(lab.waits(call), "it is not kept yet");
    lab.let_go();
    let told = lab.joined(call).unwrap();
    let new = named(2, 3);
    assert_eq!(&*told.member, new);
    assert_eq!((told.generation, told.members.len()), (Generation(1), 0));
    assert!(!told.skip_assignment);
    assert_eq!(lab.stage(), Stage::Stable);
    let call = lab.sync(&new, 1, &[]);
    assert_eq!(lab.synced(call), Ok("p1".to_owned()));
    // The former process is told that it is not the one any more.
    let former = Identity {
        instance: Some(Name::from("i2")),
        ..who(&static_id(2))
    };
    let beat = Heartbeat {
        who: former.clone(),
        generation: Generation(1),
    };
    let now = lab.now();
    assert_eq!(lab.state.heartbeat(now, &beat), Err(GroupError::FencedInstance));
    let call = lab.commit(former.clone(), 1, 1);
    assert_eq!(lab.outcome(call), Err(GroupError::FencedInstance));
    assert_eq!(lab.leave(former), Err(GroupError::FencedInstance));
    assert_eq!(lab.beat(&static_id(2), 1), Err(GroupError::UnknownMember));
    lab.let_go();
    assert_eq!(lab.read_back().state.describe(GROUP), lab.state.describe(GROUP));
}

#[test]
fn a_leader_that_comes_back_need_not_assign() {
    let mut lab = stable();
    let call = lab.join_as(&static_join("", "i1"));
    let told = lab.joined(call).unwrap();
    assert!(told.skip_assignment);
    assert_eq!((&*told.leader, told.members.len()), (&*named(1, 3), 2));
    assert_eq!(lab.stage(), Stage::Stable);
    // An older client is not told that it leads.
    let call = lab.join_as(&Join {
        may_skip_assignment: false,
        ..static_join("", "i1")
    });
    let told = lab.joined(call).unwrap();
    assert_eq!((&*told.leader, told.members.len()), (&*named(1, 3), 0));
    assert_eq!(&*told.member, named(1, 4));
}

#[test]
fn what_cannot_be_kept_leaves_the_former_process_in_its_place() {
    let mut lab = stable();
    lab.refuses = Some(AppendRefused::NotNow);
    let call = lab.join_as(&static_join("", "i2"));
    assert_eq!(lab.joined(call), Err(GroupError::NotAvailable));
    lab.refuses = None;
    assert_eq!(lab.beat(&static_id(2), 1), Ok(()));
    let call = lab.sync(&static_id(2), 1, &[]);
    assert_eq!(lab.synced(call), Ok("p1".to_owned()));
    assert_eq!(lab.beat(&named(2, 3), 1), Err(GroupError::UnknownMember));
    // Its session ends as before.
    lab.pass(SESSION);
    assert_eq!(lab.beat(&static_id(2), 1), Err(GroupError::UnknownMember));
}

#[test]
fn one_with_another_protocol_makes_the_group_rebalance() {
    let mut lab = Lab::new();
    let both = |instance| Join {
        protocols: vec![protocol("range", "t"), protocol("sticky", "t")],
        ..static_join("", instance)
    };
    let calls = [lab.join_as(&both("i1")), lab.join_as(&both("i2"))];
    lab.pass(2 * DELAY);
    for call in calls {
        assert_eq!(lab.joined(call).unwrap().protocol.as_deref(), Some("range"));
    }
    lab.sync(&static_id(1), 1, &[]);
    lab.sync(&static_id(2), 1, &[]);
    let call = lab.join_as(&Join {
        protocols: vec![protocol("sticky", "t")],
        ..static_join("", "i2")
    });
    assert!(lab.waits(call));
    assert_eq!(lab.stage(), Stage::PreparingRebalance);
    let one = Join {
        who: Identity {
            instance: Some(Name::from("i1")),
            ..who(&static_id(1))
        },
        ..both("i1")
    };
    let one = lab.join_as(&one);
    assert_eq!(lab.joined(one).unwrap().protocol.as_deref(), Some("sticky"));
    assert!(lab.joined(call).is_ok());
}

#[test]
fn a_restart_within_the_session_keeps_the_group_waiting_for_it_and_no_longer() {
    let mut lab = stable();
    // Both are away when somebody new comes: nobody is thrown out before its session ends.
    let newcomer = lab.join_as(&old_join(""));
    assert!(lab.waits(newcomer));
    lab.pass(SESSION);
    let told = lab.joined(newcomer).unwrap();
    assert_eq!(told.members.len(), 1);
    assert_eq!(&*told.leader, &*told.member);
}

#[test]
fn an_operator_removes_a_member_by_its_instance() {
    let mut lab = stable();
    let by_instance = |instance: &str| Identity {
        instance: Some(Name::from(instance)),
        ..nobody()
    };
    assert_eq!(lab.leave(by_instance("i3")), Err(GroupError::UnknownMember));
    assert_eq!(lab.leave(by_instance("i2")), Ok(()));
    assert_eq!(lab.leave(by_instance("i2")), Err(GroupError::UnknownMember));
    assert_eq!(lab.beat(&static_id(2), 1), Err(GroupError::UnknownMember));
    assert_eq!(lab.beat(&static_id(1), 1), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_process_that_waits_is_told_when_another_takes_its_place() {
    let mut lab = Lab::new();
    let first = lab.join_as(&static_join("", "i1"));
    let second = lab.join_as(&static_join("", "i1"));
    assert_eq!(lab.joined(first), Err(GroupError::FencedInstance));
    lab.pass(2 * DELAY);
    assert_eq!(&*lab.joined(second).unwrap().member, named(1, 2));
    let sync = {
        let other = lab.join_as(&static_join("", "i2"));
        let again = lab.join_as(&Join {
            who: Identity {
                instance: Some(Name::from("i1")),
                ..who(&named(1, 2))
            },
            ..static_join("", "i1")
        });
        assert!(lab.joined(other).is_ok() && lab.joined(again).is_ok());
        lab.sync(&named(2, 3), 2, &[])
    };
    let third = lab.join_as(&static_join("", "i2"));
    assert_eq!(lab.synced(sync), Err(GroupError::FencedInstance));
    assert!(lab.waits(third), "the leader may have assigned to the former id");
    assert_eq!(lab.stage(), Stage::PreparingRebalance);
}
