//! Who comes in, who stays, who goes.

use super::*;

#[test]
fn a_member_takes_its_id_first_and_joins_by_it() {
    let mut lab = Lab::new();
    let call = lab.join("");
    let Err(GroupError::MemberIdRequired(promised)) = lab.joined(call) else {
        panic!("no id")
    };
    assert_eq!(&*promised, id(1));
    assert_eq!(lab.beat(&promised, 0), Err(GroupError::UnknownMember));
    let call = lab.join(&promised);
    assert!(lab.waits(call));
    lab.pass(DELAY);
    assert_eq!(&*lab.joined(call).unwrap().member, id(1));
}

#[test]
fn an_id_that_nobody_comes_back_with_is_waited_for_a_session_and_no_longer() {
    let mut lab = Lab::new();
    lab.stable(&["a"]);
    let call = lab.join("");
    assert!(matches!(lab.joined(call), Err(GroupError::MemberIdRequired(_))));
    assert_eq!(lab.stage(), Stage::Stable, "it is no member yet");
    let one = lab.join(&id(1));
    lab.pass(SESSION - Duration::from_millis(1));
    assert!(lab.waits(one));
    lab.pass(Duration::from_millis(1));
    assert_eq!(lab.joined(one).unwrap().generation, Generation(2));
    let late = lab.join(&id(2));
    assert_eq!(lab.joined(late), Err(GroupError::UnknownMember));

    // A group that was made for it is none.
    let mut lab = Lab::new();
    lab.join("");
    lab.pass(SESSION);
    assert_eq!(lab.stage(), Stage::Dead);
    assert_eq!(lab.state.list(), []);
}

#[test]
fn a_silent_member_is_out_when_its_session_ends() {
    let mut lab = Lab::new();
    lab.stable(&["a", "b"]);
    for _ in 0..5 {
        lab.pass(SESSION - Duration::from_millis(1));
        assert_eq!(lab.beat(&id(1), 1), Ok(()));
        assert_eq!(lab.beat(&id(2), 1), Ok(()));
    }
    lab.pass(SESSION - Duration::from_millis(1));
    assert_eq!(lab.beat(&id(1), 1), Ok(()));
    lab.pass(Duration::from_millis(1));
    assert_eq!(lab.beat(&id(1), 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(lab.beat(&id(2), 1), Err(GroupError::UnknownMember));
    let one = lab.join(&id(1));
    assert_eq!(lab.joined(one).unwrap().members.len(), 1);
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut lab = Lab::new();
    lab.stable(&["a"]);
    for offset in 0..5 {
        lab.pass(SESSION - Duration::from_millis(1));
        let call = lab.commit(who(&id(1)), 1, offset);
        assert_eq!(lab.outcome(call), Ok(()));
    }
    assert_eq!(lab.stage(), Stage::Stable);
}

#[test]
fn a_group_that_all_have_left_is_empty_and_says_so_in_the_log() {
    let mut lab = Lab::new();
    lab.stable(&["a", "b"]);
    let call = lab.commit(who(&id(1)), 1, 7);
    assert_eq!(lab.outcome(call), Ok(()));
    assert_eq!(lab.leave(who(&id(2))), Ok(()));
    assert_eq!(lab.leave(who(&id(2))), Err(GroupError::UnknownMember));
    assert_eq!(lab.leave(who(&id(1))), Ok(()));
    assert_eq!(lab.stage(), Stage::Empty);
    for lab in [&mut lab.read_back(), &mut lab] {
        assert_eq!(lab.stage(), Stage::Empty);
        assert_eq!(lab.committed("t"), Some(7));
        assert_eq!(lab.beat(&id(1), 1), Err(GroupError::UnknownMember));
        assert_eq!(lab.state.groups[GROUP].generation, Generation(2));
    }
    // Leaving while one waits.
    let call = lab.join_as(&old_join(""));
    let newcomer = id(3);
    assert_eq!(lab.leave(who(&newcomer)), Ok(()));
    assert_eq!(lab.joined(call), Err(GroupError::UnknownMember));
    lab.pass(DELAY);
    assert_eq!(lab.stage(), Stage::Empty);
}

#[test]
fn members_that_were_read_back_have_a_session_to_be_heard_of() {
    let mut lab = Lab::new();
    lab.stable(&["a", "b"]);
    let mut lab = lab.read_back();
    lab.pass(SESSION - Duration::from_millis(1));
    assert_eq!(lab.beat(&id(2), 1), Ok(()));
    lab.pass(Duration::from_millis(1));
    assert_eq!(lab.beat(&id(1), 1), Err(GroupError::UnknownMember));
    assert_eq!(lab.beat(&id(2), 1), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_full_group_takes_nobody_and_a_smaller_limit_lets_the_last_ones_go() {
    let two = Settings {
        size_max: 2,
        ..settings()
    };
    let mut lab = Lab::with(two.clone());
    lab.stable(&["a", "b"]);
    let call = lab.join_as(&old_join(""));
    assert_eq!(lab.joined(call), Err(GroupError::GroupFull));
    assert_eq!(lab.stage(), Stage::Stable);

    let mut lab = Lab::new();
    lab.stable(&["a", "b", "c"]);
    lab.state.settings = two;
    let mut lab = lab.read_back();
    assert_eq!(lab.stage(), Stage::PreparingRebalance);
    let (one, two) = (lab.join(&id(1)), lab.join(&id(2)));
    let three = lab.join(&id(3));
    assert_eq!(lab.joined(three), Err(GroupError::GroupFull));
    assert_eq!(lab.joined(one).unwrap().members.len(), 2);
    assert!(lab.joined(two).is_ok());
}

#[test]
fn what_a_join_must_be() {
    let mut lab = Lab::new();
    for (join, error) in [
        (
            Join {
                session_timeout: Duration::from_millis(5999),
                ..join("")
            },
            GroupError::InvalidSessionTimeout,
        ),
        (
            Join {
                session_timeout: Duration::from_secs(1801),
                ..join("")
            },
            GroupError::InvalidSessionTimeout,
        ),
        (
            Join {
                protocols: Vec::new(),
                ..join("")
            },
            GroupError::InconsistentProtocol,
        ),
        (
            Join {
                protocol_type: Name::from(""),
                ..join("")
            },
            GroupError::InconsistentProtocol,
        ),
        (join("somebody"), GroupError::UnknownMember),
    ] {
        let call = lab.join_as(&join);
        assert_eq!(lab.joined(call), Err(error));
        assert_eq!(lab.state.list(), [], "no group comes of it");
    }
}

#[test]
fn a_sync_is_of_the_group_the_generation_and_the_protocol() {
    let mut lab = Lab::new();
    let call = lab.sync(&id(1), 1, &[]);
    assert_eq!(lab.synced(call), Err(GroupError::UnknownMember));
    lab.stable(&["a"]);
    let call = lab.sync("stranger", 1, &[]);
    assert_eq!(lab.synced(call), Err(GroupError::UnknownMember));
    let call = lab.sync(&id(1), 2, &[]);
    assert_eq!(lab.synced(call), Err(GroupError::IllegalGeneration));
    for (protocol_type, protocol) in [(Some("connect"), None), (None, Some("sticky"))] {
        let call = lab.call();
        let sync = SyncGroup {
            who: who(&id(1)),
            generation: Generation(1),
            protocol_type: protocol_type.map(Name::from),
            protocol: protocol.map(Name::from),
            assignments: Vec::new(),
        };
        let now = lab.now();
        lab.state.sync(now, call, &sync);
        lab.settle();
        assert_eq!(lab.synced(call), Err(GroupError::InconsistentProtocol));
    }
}

#[test]
fn a_member_that_was_never_answered_is_not_kept_for_ever() {
    let mut lab = Lab::new();
    lab.stable(&["a"]);
    // A newcomer whose client is gone; the other one never joins again, and never goes silent.
    let newcomer = lab.join_as(&Join {
        rebalance_timeout: Duration::from_secs(1200),
        ..old_join("")
    });
    for _ in 0..40 {
        lab.pass(SESSION - Duration::from_secs(1));
        let _ = lab.beat(&id(1), 1);
        if !lab.waits(newcomer) {
            break;
        }
    }
    assert_eq!(
        lab.joined(newcomer),
        Err(GroupError::UnknownMember),
        "after five minutes"
    );
}
