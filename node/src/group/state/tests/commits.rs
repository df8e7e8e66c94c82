//! Offsets: who commits, when it is seen, and when it goes.

use super::*;
use headwater_protocol::ids::{ProducerEpoch, ProducerId};
use headwater_protocol::record::ControlKind;

const P7: ProducerId = ProducerId(7);
const P8: ProducerId = ProducerId(8);

fn commit_in(lab: &mut Lab, producer: ProducerId, topic: &str, offset: i64) {
    let call = lab.call();
    let transaction = InTransaction {
        producer,
        epoch: ProducerEpoch(0),
        verified: None,
    };
    let commit = Commit {
        who: nobody(),
        generation: Generation(-1),
        offsets: vec![(partition(topic, 0), new_offset(offset))],
        knows_epochs: true,
        transaction: Some(transaction),
    };
    let now = lab.now();
    lab.state.commit(now, call, &commit);
    lab.settle();
    assert_eq!(lab.outcome(call), Ok(()));
}

#[test]
fn a_commit_is_seen_when_it_is_kept() {
    let mut lab = Lab::new();
    lab.holds = true;
    let call = lab.commit(nobody(), -1, 5);
    assert!(lab.waits(call));
    assert_eq!(lab.committed("t"), None);
    lab.let_go();
    assert_eq!(lab.outcome(call), Ok(()));
    assert_eq!(lab.committed("t"), Some(5));
    assert_eq!(lab.read_back().committed("t"), Some(5));
    for (refused, told) in [
        (AppendRefused::NotNow, GroupError::NotAvailable),
        (AppendRefused::TooLarge, GroupError::CommitTooLarge),
    ] {
        lab.refuses = Some(refused);
        let call = lab.commit(nobody(), -1, 6);
        lab.let_go();
        assert_eq!(lab.outcome(call), Err(told));
        assert_eq!(lab.committed("t"), Some(5));
    }
    assert_eq!(lab.read_back().state.live_bytes(), lab.state.live_bytes());
}

#[test]
fn a_marker_ends_what_lies_in_front_of_it_however_often_it_is_told_of() {
    let mut lab = Lab::new();
    let seen = |lab: &Lab| (lab.committed("t"), lab.committed("u"));
    let (aborted, committed) = (ControlKind::Abort, ControlKind::Commit);
    commit_in(&mut lab, P7, "t", 5);
    commit_in(&mut lab, P7, "u", 6);
    lab.state.transaction_ended(P7, aborted, Offset(1));
    lab.state.transaction_ended(P7, committed, Offset(2));
    assert_eq!(seen(&lab), (None, Some(6)));
    // One marker told of twice, in front of what comes next.
    commit_in(&mut lab, P7, "t", 7);
    lab.state.transaction_ended(P7, aborted, Offset(1));
    lab.state.transaction_ended(P7, committed, Offset(2));
    assert_eq!(seen(&lab), (None, Some(6)), "neither aborted nor committed yet");
    lab.state.transaction_ended(P7, committed, Offset(3));
    assert_eq!(seen(&lab), (Some(7), Some(6)));
    assert!(!lab.state.has_pending());
}

#[test]
fn of_two_transactions_the_commit_that_lies_behind_holds_whichever_ends_first() {
    for order in [[P7, P8], [P8, P7]] {
        let mut lab = Lab::new();
        commit_in(&mut lab, P7, "t", 5);
        commit_in(&mut lab, P8, "t", 6);
        for producer in order {
            lab.state
                .transaction_ended(producer, ControlKind::Commit, Offset(9));
        }
        assert_eq!(lab.committed("t"), Some(6), "{order:?}");
    }
}

#[test]
fn a_group_comes_of_a_commit_only_if_it_is_kept() {
    let mut lab = Lab::new();
    lab.refuses = Some(AppendRefused::NotNow);
    let call = lab.commit(nobody(), -1, 6);
    assert_eq!(lab.outcome(call), Err(GroupError::NotAvailable));
    assert_eq!(lab.state.list(), []);
    assert!(lab.state.is_settled());
}

#[test]
fn only_members_of_the_generation_commit_while_there_are_members() {
    let check = |who: Identity, generation, expected: Result<(), GroupError>| {
        let mut lab = Lab::new();
        lab.stable(&["a"]);
        let call = lab.commit(who.clone(), generation, 1);
        assert_eq!(lab.outcome(call), expected, "{who:?} in {generation}");
    };
    check(who(&id(1)), 1, Ok(()));
    check(who(&id(1)), 0, Err(GroupError::IllegalGeneration));
    check(who(&id(1)), -1, Err(GroupError::IllegalGeneration));
    check(who("stranger"), 1, Err(GroupError::UnknownMember));
    check(nobody(), -1, Err(GroupError::UnknownMember));
    let fenced = Identity {
        instance: Some(Name::from("i")),
        ..who(&id(1))
    };
    check(fenced, 1, Err(GroupError::UnknownMember));
}

#[test]
fn without_members_anybody_commits_who_names_no_generation() {
    let mut lab = Lab::new();
    let call = lab.commit(who("m"), 1, 1);
    assert_eq!(lab.outcome(call), Err(GroupError::GroupNotFound), "no such group");
    let call = lab.commit(nobody(), -1, 1);
    assert_eq!(lab.outcome(call), Ok(()));
    let call = lab.commit(who("m"), 1, 2);
    assert_eq!(
        lab.outcome(call),
        Err(GroupError::UnknownMember),
        "an empty group"
    );
    lab.stable(&["a"]);
    assert_eq!(lab.leave(who(&id(1))), Ok(()));
    let call = lab.commit(nobody(), -1, 3);
    assert_eq!(lab.outcome(call), Ok(()));
    assert_eq!(lab.committed("t"), Some(3));
}

#[test]
fn a_commit_goes_on_while_members_join_and_not_while_the_leader_assigns() {
    let mut lab = Lab::new();
    lab.stable(&["a", "b"]);
    let _three = lab.join_as(&old_join(""));
    let call = lab.commit(who(&id(1)), 1, 1);
    assert_eq!(lab.outcome(call), Ok(()));
    lab.join(&id(1));
    lab.join(&id(2));
    assert_eq!(lab.stage(), Stage::CompletingRebalance);
    let call = lab.commit(who(&id(1)), 2, 2);
    assert_eq!(lab.outcome(call), Err(GroupError::RebalanceInProgress));
    let call = lab.commit(who(&id(1)), 1, 2);
    assert_eq!(lab.outcome(call), Err(GroupError::IllegalGeneration));
}

#[test]
fn metadata_that_is_too_large_fails_its_partition_alone() {
    let mut lab = Lab::new();
    let call = lab.call();
    let long = NewOffset {
        metadata: Name::from("seventeen letters"),
        ..new_offset(1)
    };
    let commit = Commit {
        who: nobody(),
        generation: Generation::NONE,
        offsets: vec![(partition("t", 0), long), (partition("t", 1), new_offset(2))],
        knows_epochs: true,
        transaction: None,
    };
    let now = lab.now();
    lab.state.commit(now, call, &commit);
    lab.settle();
    let expected = vec![
        (partition("t", 0), Err(GroupError::MetadataTooLarge)),
        (partition("t", 1), Ok(())),
    ];
    assert_eq!(
        lab.answers.remove(&call),
        Some(Answer::PerPartition(Ok(expected)))
    );
    let all = lab.state.offsets(GROUP, None);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].0, partition("t", 1));
}

#[test]
fn offsets_expire_from_when_the_group_became_empty() {
    let mut lab = Lab::new();
    lab.stable(&["a"]);
    let call = lab.commit(who(&id(1)), 1, 1);
    assert_eq!(lab.outcome(call), Ok(()));
    for _ in 0..8 * 24 * 60 * 60 / 9 {
        lab.pass(Duration::from_secs(9));
        assert_eq!(lab.beat(&id(1), 1), Ok(()));
    }
    assert_eq!(lab.committed("t"), Some(1), "it is subscribed to the topic");
    assert_eq!(lab.leave(who(&id(1))), Ok(()));
    lab.pass(7 * DAY - Duration::from_secs(1));
    assert_eq!(lab.committed("t"), Some(1));
    lab.pass(Duration::from_secs(601));
    assert_eq!(lab.committed("t"), None);
    assert_eq!(lab.state.list(), [], "nothing is left of the group");
    assert_eq!(lab.read_back().state.list(), []);
    assert_eq!(lab.state.live_bytes(), 0);
}

#[test]
fn offsets_of_topics_that_nobody_is_subscribed_to_expire_by_themselves() {
    let mut lab = Lab::new();
    lab.stable(&["a"]);
    for topic in ["t", "u"] {
        let call = lab.commit_of(who(&id(1)), 1, topic, 1);
        assert_eq!(lab.outcome(call), Ok(()));
    }
    for _ in 0..8 * 24 * 60 * 60 / 9 {
        lab.pass(Duration::from_secs(9));
        assert_eq!(lab.beat(&id(1), 1), Ok(()));
    }
    assert_eq!((lab.committed("t"), lab.committed("u")), (Some(1), None));
}

#[test]
fn offsets_without_members_expire_from_their_commit() {
    let mut lab = Lab::new();
    let call = lab.commit_of(nobody(), -1, "t", 1);
    assert_eq!(lab.outcome(call), Ok(()));
    lab.pass(4 * DAY);
    let call = lab.commit_of(nobody(), -1, "u", 1);
    assert_eq!(lab.outcome(call), Ok(()));
    lab.pass(4 * DAY);
    assert_eq!((lab.committed("t"), lab.committed("u")), (None, Some(1)));
    lab.pass(4 * DAY);
    assert_eq!(lab.state.list(), []);
    assert_eq!(lab.state.next_deadline(), None, "nothing is looked for");
}

#[test]
fn an_old_client_says_how_long_its_offset_is_kept() {
    let mut lab = Lab::new();
    let kept = NewOffset {
        kept_for: Some(DAY),
        ..new_offset(1)
    };
    let commit = Commit {
        who: nobody(),
        generation: Generation::NONE,
        offsets: vec![(partition("t", 0), kept)],
        knows_epochs: true,
        transaction: None,
    };
    let (call, now) = (lab.call(), lab.now());
    lab.state.commit(now, call, &commit);
    lab.settle();
    assert_eq!(lab.outcome(call), Ok(()));
    let call = lab.commit_of(nobody(), -1, "u", 1);
    assert_eq!(lab.outcome(call), Ok(()));
    // Written anew, it expires when it would have.
    lab.log = lab.state.snapshot().collect();
    let mut lab = lab.read_back();
    lab.pass(DAY - Duration::from_secs(1));
    assert_eq!((lab.committed("t"), lab.committed("u")), (Some(1), Some(1)));
    lab.pass(Duration::from_secs(601));
    assert_eq!((lab.committed("t"), lab.committed("u")), (None, Some(1)));
}

#[test]
fn what_is_being_committed_anew_does_not_expire() {
    let mut lab = Lab::new();
    let call = lab.commit(nobody(), -1, 1);
    assert_eq!(lab.outcome(call), Ok(()));
    lab.pass(7 * DAY - Duration::from_secs(1));
    lab.holds = true;
    let call = lab.commit(nobody(), -1, 2);
    lab.pass(Duration::from_secs(1200));
    lab.let_go();
    assert_eq!(lab.outcome(call), Ok(()));
    assert_eq!(lab.committed("t"), Some(2));
    assert_eq!(lab.read_back().committed("t"), Some(2));
}

#[test]
fn offsets_of_deleted_topics_go() {
    let mut lab = Lab::new();
    for topic in ["t", "u"] {
        let call = lab.commit_of(nobody(), -1, topic, 1);
        assert_eq!(lab.outcome(call), Ok(()));
    }
    lab.state.forget_topics(|topic| topic == "u");
    lab.settle();
    for lab in [&lab, &lab.read_back()] {
        assert_eq!((lab.committed("t"), lab.committed("u")), (None, Some(1)));
    }
    lab.state.forget_topics(|_| false);
    lab.settle();
    assert_eq!(lab.state.list(), []);
}

#[test]
fn a_group_without_members_can_be_deleted_with_what_is_on_its_way() {
    let mut lab = Lab::new();
    let delete = |lab: &mut Lab| {
        let call = lab.call();
        lab.state.delete_group(call, &Name::from(GROUP));
        lab.settle();
        call
    };
    let call = delete(&mut lab);
    assert_eq!(lab.outcome(call), Err(GroupError::GroupNotFound));
    lab.stable(&["a"]);
    let call = delete(&mut lab);
    assert_eq!(lab.outcome(call), Err(GroupError::NonEmptyGroup));
    assert_eq!(lab.leave(who(&id(1))), Ok(()));
    lab.holds = true;
    let commit = lab.commit(nobody(), -1, 1);
    let call = delete(&mut lab);
    assert_eq!(lab.stage(), Stage::Dead);
    let late = lab.commit(nobody(), -1, 2);
    assert_eq!(lab.outcome(late), Err(GroupError::NotAvailable));
    let late = lab.join_as(&old_join(""));
    assert_eq!(lab.joined(late), Err(GroupError::NotAvailable));
    lab.let_go();
    assert_eq!(lab.outcome(commit), Ok(()));
    assert_eq!(lab.outcome(call), Ok(()));
    for lab in [&lab, &lab.read_back()] {
        assert_eq!(lab.state.list(), []);
        assert_eq!(lab.committed("t"), None);
        assert_eq!(lab.state.live_bytes(), 0);
    }
}

#[test]
fn offsets_can_be_deleted_of_topics_that_nobody_is_subscribed_to() {
    let mut lab = Lab::new();
    let delete = |lab: &mut Lab, topic: &str| {
        let call = lab.call();
        lab.state
            .delete_offsets(call, &Name::from(GROUP), &[partition(topic, 0)]);
        lab.settle();
        lab.outcome(call)
    };
    assert_eq!(delete(&mut lab, "t"), Err(GroupError::GroupNotFound));
    lab.stable(&["a"]);
    for topic in ["t", "u"] {
        let call = lab.commit_of(who(&id(1)), 1, topic, 1);
        assert_eq!(lab.outcome(call), Ok(()));
    }
    assert_eq!(delete(&mut lab, "t"), Err(GroupError::SubscribedToTopic));
    assert_eq!(delete(&mut lab, "u"), Ok(()));
    assert_eq!(delete(&mut lab, "never"), Ok(()));
    for lab in [&lab, &lab.read_back()] {
        assert_eq!((lab.committed("t"), lab.committed("u")), (Some(1), None));
    }
    assert_eq!(lab.leave(who(&id(1))), Ok(()));
    assert_eq!(delete(&mut lab, "t"), Ok(()));
    assert_eq!(lab.committed("t"), None);
}

#[test]
fn the_whole_of_it_reads_back_as_the_same() {
    let mut lab = Lab::new();
    lab.stable(&["a", "b"]);
    for (topic, offset) in [("t", 1), ("u", 2), ("t", 3)] {
        let call = lab.commit_of(who(&id(1)), 1, topic, offset);
        assert_eq!(lab.outcome(call), Ok(()));
    }
    // In the middle of a rebalance: what was kept last counts.
    let _three = lab.join_as(&old_join(""));
    let stable = lab.read_back();
    let snapshot: Vec<_> = lab.state.snapshot().collect();
    let bytes: usize = snapshot.iter().map(GroupRecord::bytes).sum();
    assert!(
        bytes.abs_diff(lab.state.live_bytes()) * 4 < bytes,
        "about as much as it says"
    );
    lab.log = snapshot;
    let again = lab.read_back();
    assert_eq!(again.state.describe(GROUP), stable.state.describe(GROUP));
    assert_eq!(
        again.state.offsets(GROUP, None),
        stable.state.offsets(GROUP, None)
    );
}
