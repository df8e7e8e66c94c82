//! The consumer protocol (KIP-848): members say what they want and have, and are told what they may have.

use super::super::super::request::{
    Assignment, ConsumerDescription, ConsumerHeartbeat, Epoch, GroupKind, Reconciled,
};
use super::*;

impl Lab {
    pub(super) fn beat_as(&mut self, beat: ConsumerHeartbeat) -> CallId {
        let call = self.call();
        self.ids += 1;
        let (now, fresh) = (self.now(), self.ids);
        self.state.consumer_heartbeat(now, call, beat, fresh);
        self.settle();
        call
    }

    pub(super) fn told(&mut self, call: CallId) -> Result<Reconciled, GroupError> {
        match self.answers.remove(&call) {
            Some(Answer::Reconciled(result)) => result,
            other => panic!("no answer to a heartbeat: {other:?}"),
        }
    }

    fn say(&mut self, beat: ConsumerHeartbeat) -> Result<Reconciled, GroupError> {
        let call = self.beat_as(beat);
        self.told(call)
    }

    /// The epoch that the member is told, and what it may have, if that is told.
    fn hear(&mut self, beat: ConsumerHeartbeat) -> (i32, Option<String>) {
        let told = self.say(beat).unwrap();
        (told.epoch.0, told.assignment.as_ref().map(text))
    }

    pub(super) fn seen(&self) -> ConsumerDescription {
        self.state
            .describe_consumers(GROUP)
            .expect("it is of the consumer protocol")
            .expect("it is there")
    }

    fn without_members(&mut self) {
        assert_eq!(self.hear(joins("a", &["t"])).0, 1);
        self.say(stays("a", -1)).unwrap();
    }
}

/// As `t0,1 u2`.
fn text(assignment: &Assignment) -> String {
    let topics = assignment.topics().iter().map(|(topic, indexes)| {
        let indexes: Vec<_> = indexes.iter().map(|index| index.value().to_string()).collect();
        format!("{}{}", char::from(topic.bytes()[0]), indexes.join(","))
    });
    topics.collect::<Vec<_>>().join(" ")
}

fn having(partitions: &[(&str, i32)]) -> Option<Assignment> {
    let partitions = partitions.iter();
    Some(
        partitions
            .map(|(topic, index)| (topic_id(topic), PartitionIndex(*index)))
            .collect(),
    )
}

fn owning(range: std::ops::Range<i32>) -> Option<Assignment> {
    Some(
        range
            .map(|index| (topic_id("t"), PartitionIndex(index)))
            .collect(),
    )
}

pub(super) fn joins(member: &str, topics: &[&str]) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        epoch: Epoch::JOINING,
        rebalance_timeout: Some(REBALANCE),
        topics: Some(topics.iter().map(|topic| Name::from(*topic)).collect()),
        owned: having(&[]),
        ..stays(member, 0)
    }
}

pub(super) fn stays(member: &str, epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        who: who(member),
        epoch: Epoch(epoch),
        chooses_id: true,
        rack: None,
        client_id: Name::from("c"),
        client_host: Name::from("/h"),
        rebalance_timeout: None,
        topics: None,
        regex: None,
        assignor: None,
        owned: None,
    }
}

fn stays_with(member: &str, epoch: i32, owned: Option<Assignment>) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        owned,
        ..stays(member, epoch)
    }
}

fn matching(member: &str, regex: &str) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        regex: Some(Name::from(regex)),
        ..joins(member, &[])
    }
}

pub(super) fn of_instance(beat: ConsumerHeartbeat, instance: &str) -> ConsumerHeartbeat {
    let who = Identity {
        instance: Some(Name::from(instance)),
        ..beat.who
    };
    ConsumerHeartbeat { who, ..beat }
}

#[test]
fn a_partition_goes_to_another_member_when_its_owner_has_let_it_go() {
    let mut lab = Lab::new();
    lab.make_topic("t", 4);
    assert_eq!(lab.hear(joins("a", &["t"])), (1, Some("t0,1,2,3".to_owned())));
    assert_eq!(lab.hear(stays("a", 1)), (1, None));
    // The newcomer is in the newest epoch, and has nothing yet.
    assert_eq!(lab.hear(joins("b", &["t"])), (2, Some(String::new())));
    assert_eq!(lab.seen().stage, Stage::Reconciling);
    // The other one is to give up first, and stays in its epoch until it has.
    assert_eq!(lab.hear(stays("a", 1)), (1, Some("t0,1".to_owned())));
    assert_eq!(lab.hear(stays_with("a", 1, owning(0..4))), (1, None));
    assert_eq!(lab.hear(stays("b", 2)), (2, None));
    assert_eq!(lab.hear(stays_with("a", 1, owning(0..2))), (2, None));
    assert_eq!(lab.hear(stays("b", 2)), (2, Some("t2,3".to_owned())));
    assert_eq!(lab.seen().stage, Stage::Stable);
    // When it goes, what it had is free at once.
    assert_eq!(lab.say(stays("b", -1)).unwrap().epoch, Epoch::LEAVING);
    assert_eq!(lab.seen().stage, Stage::Assigning);
    assert_eq!(lab.hear(stays("a", 2)), (3, Some("t0,1,2,3".to_owned())));
    assert_eq!(lab.state.rebalances(), 3);
}

#[test]
fn whoever_is_behind_or_ahead_is_fenced_unless_it_missed_one_answer() {
    let mut lab = Lab::new();
    lab.make_topic("t", 2);
    lab.hear(joins("a", &["t"]));
    assert_eq!(lab.say(stays("a", 2)), Err(GroupError::FencedEpoch));
    assert_eq!(lab.say(stays("b", 1)), Err(GroupError::UnknownMember));
    lab.hear(joins("b", &["t"]));
    lab.hear(stays_with("a", 1, owning(0..2)));
    assert_eq!(lab.hear(stays_with("a", 1, owning(0..1))).0, 2);
    // It did not hear of its new epoch.
    assert_eq!(lab.say(stays("a", 1)), Err(GroupError::FencedEpoch));
    assert_eq!(
        lab.say(stays_with("a", 1, owning(0..2))),
        Err(GroupError::FencedEpoch)
    );
    let told = lab.hear(stays_with("a", 1, owning(0..1)));
    assert_eq!(told, (2, Some("t0".to_owned())));
    // It begins anew, by the same id.
    assert_eq!(lab.hear(joins("a", &["t"])), (2, Some("t0".to_owned())));
    let other = Lab::new().say(stays("a", 1));
    assert_eq!(other, Err(GroupError::GroupNotFound));
}

#[test]
fn a_silent_member_and_one_that_gives_nothing_up_are_out() {
    let mut lab = Lab::new();
    lab.make_topic("t", 2);
    lab.hear(joins("a", &["t"]));
    lab.hear(joins("b", &["t"]));
    assert_eq!(lab.hear(stays("a", 1)), (1, Some("t0".to_owned())));
    for _ in 0..7 {
        lab.pass(SESSION - Duration::from_millis(1));
        lab.say(stays_with("a", 1, owning(0..2))).unwrap_or_else(|error| {
            assert_eq!(error, GroupError::UnknownMember);
            lab.say(stays("b", 2)).unwrap()
        });
        lab.say(stays("b", 2))
            .or_else(|_| lab.say(stays("b", 3)))
            .unwrap();
    }
    // It had a minute to give its second partition up.
    assert_eq!(lab.say(stays("a", 1)), Err(GroupError::UnknownMember));
    assert_eq!(lab.seen().members.len(), 1);
    assert_eq!(text(&lab.seen().members[0].assigned), "t0,1");
    lab.pass(SESSION);
    assert_eq!(lab.stage_of_consumers(), Stage::Empty);
    assert_eq!(lab.say(stays("b", 3)), Err(GroupError::UnknownMember));
}

impl Lab {
    fn stage_of_consumers(&self) -> Stage {
        self.seen().stage
    }
}

#[test]
fn what_is_refused_while_the_log_takes_nothing_has_not_happened() {
    let mut lab = Lab::new();
    lab.make_topic("t", 2);
    lab.refuses = Some(AppendRefused::NotNow);
    assert_eq!(lab.say(joins("a", &["t"])), Err(GroupError::NotAvailable));
    assert_eq!(lab.state.list(), []);
    lab.refuses = None;
    lab.hear(joins("a", &["t"]));
    lab.refuses = Some(AppendRefused::NotNow);
    assert_eq!(lab.say(joins("b", &["t"])), Err(GroupError::NotAvailable));
    assert_eq!(lab.say(stays("a", -1)), Err(GroupError::NotAvailable));
    // Nothing is to be written for it.
    assert_eq!(lab.hear(stays("a", 1)), (1, None));
    // It cannot be taken out either, until the log takes that.
    lab.pass(2 * SESSION);
    assert_eq!(lab.seen().members.len(), 1);
    lab.refuses = None;
    lab.pass(Duration::from_secs(2));
    assert_eq!(lab.stage_of_consumers(), Stage::Empty);
}

#[test]
fn what_comes_while_the_group_is_written_waits_and_is_written_together() {
    let mut lab = Lab::new();
    lab.make_topic("t", 3);
    lab.holds = true;
    let first = lab.beat_as(joins("a", &["t"]));
    let others = [lab.beat_as(joins("b", &["t"])), lab.beat_as(joins("c", &["t"]))];
    assert_eq!(lab.held.len(), 1);
    assert!(lab.waits(first));
    assert_eq!(lab.state.describe_consumers(GROUP), Ok(None));
    lab.let_go();
    assert_eq!(text(&lab.told(first).unwrap().assignment.unwrap()), "t0,1,2");
    lab.let_go();
    for call in others {
        assert_eq!(lab.told(call).unwrap().assignment, having(&[]));
    }
    assert_eq!(lab.seen().epoch, Epoch(3));
}

#[test]
fn a_member_is_not_silent_while_it_waits() {
    let mut lab = Lab::new();
    lab.make_topic("t", 2);
    lab.hear(joins("a", &["t"]));
    lab.hear(joins("b", &["t"]));
    lab.hear(stays("a", 1));
    lab.hear(stays_with("a", 1, owning(0..1)));
    lab.hear(stays("b", 2));
    lab.holds = true;
    // The first one is being written, the second one changes nothing.
    let calls = [
        lab.beat_as(joins("c", &["t"])),
        lab.beat_as(stays("a", 2)),
        lab.beat_as(stays("b", 2)),
    ];
    lab.pass(SESSION - Duration::from_millis(1));
    lab.let_go();
    for call in calls {
        assert_eq!(lab.told(call).map(|told| told.epoch), Ok(Epoch(3)));
    }
    lab.holds = false;
    lab.pass(SESSION / 2);
    assert!(lab.say(stays("a", 3)).is_ok());
    assert!(lab.say(stays("b", 3)).is_ok());
}

#[test]
fn heartbeats_of_a_wrong_epoch_are_no_sign_of_life() {
    let mut lab = Lab::new();
    lab.make_topic("t", 1);
    lab.hear(joins("a", &["t"]));
    for _ in 0..3 {
        lab.pass(SESSION / 4);
        assert_eq!(lab.say(stays("a", 7)), Err(GroupError::FencedEpoch));
    }
    lab.pass(SESSION / 4);
    assert_eq!(lab.stage_of_consumers(), Stage::Empty);
}

#[test]
fn a_static_member_that_means_to_come_back_keeps_what_it_has() {
    let mut lab = Lab::new();
    lab.make_topic("t", 4);
    lab.hear(of_instance(joins("a", &["t"]), "i"));
    lab.hear(of_instance(joins("b", &["t"]), "j"));
    lab.hear(of_instance(stays_with("a", 1, owning(0..2)), "i"));
    let has = lab.hear(of_instance(stays("b", 2), "j")).1;
    assert_eq!(has, Some("t2,3".to_owned()));
    let another = lab.say(of_instance(joins("c", &["t"]), "j"));
    assert_eq!(another, Err(GroupError::UnreleasedInstance));
    assert_eq!(
        lab.say(stays("b", -2)),
        Err(GroupError::InvalidRequest(
            "only static members leave for a while"
        ))
    );
    assert_eq!(
        lab.say(of_instance(stays("b", -2), "j")).unwrap().epoch,
        Epoch::AWAY
    );
    assert_eq!(lab.hear(of_instance(stays("a", 2), "i")), (2, None));
    // Its new process has another id, the same epoch as before, and the same partitions.
    assert_eq!(
        lab.hear(of_instance(joins("c", &["t"]), "j")),
        (2, Some("t2,3".to_owned()))
    );
    let former = lab.say(of_instance(stays("b", 2), "j"));
    assert_eq!(former, Err(GroupError::FencedInstance));
    assert_eq!(
        lab.say(of_instance(stays("b", 2), "k")),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(lab.seen().members.len(), 2);
    // One that does not come back is out when its session ends.
    lab.say(of_instance(stays("c", -2), "j")).unwrap();
    lab.pass(SESSION / 2);
    lab.hear(of_instance(stays("a", 2), "i"));
    lab.pass(SESSION / 2);
    assert_eq!(
        lab.hear(of_instance(stays("a", 2), "i")),
        (3, Some("t0,1,2,3".to_owned()))
    );
}

#[test]
fn new_partitions_and_topics_are_seen_by_the_next_heartbeat() {
    let mut lab = Lab::new();
    assert_eq!(lab.hear(joins("a", &["t", "u"])), (1, Some(String::new())));
    lab.make_topic("t", 1);
    assert_eq!(lab.hear(stays("a", 1)), (2, Some("t0".to_owned())));
    lab.make_topic("x", 1);
    assert_eq!(lab.hear(stays("a", 2)), (2, None));
    lab.make_topic("t", 3);
    lab.make_topic("u", 1);
    assert_eq!(lab.hear(stays("a", 2)), (3, Some("t0,1,2 u0".to_owned())));
    lab.change_metadata(&[Record::RemoveTopic { id: topic_id("t") }]);
    assert_eq!(lab.hear(stays("a", 3)), (3, Some("u0".to_owned())));
    assert_eq!(lab.hear(stays_with("a", 3, having(&[("u", 0)]))), (4, None));
}

#[test]
fn a_regular_expression_stands_for_the_topics_that_it_matches_as_a_whole() {
    let mut lab = Lab::new();
    for topic in ["orders", "payments"] {
        lab.make_topic(topic, 1);
    }
    assert_eq!(
        lab.hear(matching("a", "order|(p|z).*")),
        (1, Some("p0".to_owned()))
    );
    for invalid in ["pay(", "((a{0,1000}){0,1000}){0,1000}", "*"] {
        let told = lab.say(matching("b", invalid));
        assert!(matches!(told, Err(GroupError::InvalidRegex(_))), "{told:?}");
    }
    lab.make_topic("zebras", 1);
    assert_eq!(lab.hear(stays("a", 1)), (2, Some("p0 z0".to_owned())));
    let anew = ConsumerHeartbeat {
        regex: Some(Name::from("orders|zebras")),
        ..stays("a", 2)
    };
    assert_eq!(lab.hear(anew), (2, Some("z0".to_owned())));
    assert_eq!(
        lab.hear(stays_with("a", 2, having(&[("z", 0)]))),
        (3, Some("o0 z0".to_owned()))
    );
    // By name instead.
    let named = ConsumerHeartbeat {
        regex: Some(Name::from("")),
        topics: Some([Name::from("zebras")].into()),
        ..stays("a", 3)
    };
    assert_eq!(lab.hear(named), (3, Some("z0".to_owned())));
    assert_eq!(lab.seen().members[0].regex, None);
}

#[test]
fn members_choose_how_partitions_are_dealt_out() {
    let mut lab = Lab::new();
    lab.make_topic("t", 3);
    lab.make_topic("u", 3);
    let by_range = |member: &str| ConsumerHeartbeat {
        assignor: Some(Name::from("range")),
        ..joins(member, &["t", "u"])
    };
    lab.hear(by_range("a"));
    lab.hear(by_range("b"));
    let seen = lab.seen();
    let targets: Vec<_> = seen.members.iter().map(|member| text(&member.target)).collect();
    assert_eq!(targets, ["t0,1 u0,1", "t2 u2"]);
    assert_eq!(seen.assignor.name(), "range");
    let unknown = ConsumerHeartbeat {
        assignor: Some(Name::from("sticky")),
        ..joins("c", &["t"])
    };
    assert_eq!(lab.say(unknown), Err(GroupError::UnsupportedAssignor));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let check = |beat: ConsumerHeartbeat| {
        let told = Lab::new().say(beat);
        assert!(matches!(told, Err(GroupError::InvalidRequest(_))), "{told:?}");
    };
    check(joins("", &["t"]));
    check(joins("a", &[]));
    check(stays("a", -3));
    check(stays("", 1));
    check(of_instance(joins("a", &["t"]), ""));
    check(ConsumerHeartbeat {
        rebalance_timeout: None,
        ..joins("a", &["t"])
    });
    check(ConsumerHeartbeat {
        owned: owning(0..1),
        ..joins("a", &["t"])
    });
    check(ConsumerHeartbeat {
        owned: None,
        ..joins("a", &["t"])
    });
    check(ConsumerHeartbeat {
        rack: Some(Name::from(" ")),
        ..joins("a", &["t"])
    });
    // Older clients are given an id.
    let mut lab = Lab::new();
    let told = lab.say(ConsumerHeartbeat {
        chooses_id: false,
        ..joins("", &["t"])
    });
    assert_eq!(told.unwrap().member.len(), 22);
}

#[test]
fn a_full_group_takes_nobody_in() {
    let mut lab = Lab::with(Settings {
        consumer_size_max: 1,
        ..settings()
    });
    lab.make_topic("t", 1);
    lab.hear(of_instance(joins("a", &["t"]), "i"));
    assert_eq!(lab.say(joins("b", &["t"])), Err(GroupError::GroupFull));
    // One that comes back is in already.
    lab.say(of_instance(stays("a", -2), "i")).unwrap();
    assert_eq!(lab.hear(of_instance(joins("b", &["t"]), "i")).0, 1);
}

#[test]
fn members_commit_and_read_in_their_epoch() {
    let mut lab = Lab::new();
    lab.make_topic("t", 1);
    lab.hear(joins("a", &["t"]));
    let check = |lab: &mut Lab, member: &str, epoch: i32, expected: Result<(), GroupError>| {
        let call = lab.commit(who(member), epoch, 5);
        assert_eq!(lab.outcome(call), expected, "{member:?} in {epoch}");
    };
    check(&mut lab, "a", 1, Ok(()));
    check(&mut lab, "a", 2, Err(GroupError::StaleEpoch));
    check(&mut lab, "b", 1, Err(GroupError::UnknownMember));
    check(&mut lab, "", -1, Err(GroupError::UnknownMember));
    let reads = |lab: &Lab, member: &str, epoch: i32| {
        lab.state
            .check_reader(GROUP, Some(&(Name::from(member), Epoch(epoch))))
    };
    assert_eq!(reads(&lab, "a", 1), Ok(()));
    assert_eq!(reads(&lab, "a", 0), Err(GroupError::StaleEpoch));
    assert_eq!(reads(&lab, "b", 1), Err(GroupError::UnknownMember));
    assert_eq!(lab.state.check_reader(GROUP, None), Ok(()));
    let deleted = lab.call();
    lab.state
        .delete_offsets(deleted, &Name::from(GROUP), &[partition("t", 0)]);
    lab.settle();
    assert_eq!(lab.outcome(deleted), Err(GroupError::SubscribedToTopic));
    lab.say(stays("a", -1)).unwrap();
    check(&mut lab, "", -1, Ok(()));
    assert_eq!(lab.committed("t"), Some(5));
}

#[test]
fn groups_without_members_change_their_protocol() {
    let mut lab = Lab::new();
    lab.make_topic("t", 1);
    // From the classic protocol, with what was committed.
    lab.stable(&["a"]);
    let call = lab.commit(who(&id(1)), 1, 7);
    assert_eq!(lab.outcome(call), Ok(()));
    assert_eq!(lab.say(joins("a", &["t"])), Err(GroupError::OtherProtocol));
    assert_eq!(
        lab.state.describe_consumers(GROUP),
        Err(GroupError::OtherProtocol)
    );
    assert_eq!(lab.leave(who(&id(1))), Ok(()));
    assert_eq!(lab.hear(joins("a", &["t"])), (1, Some("t0".to_owned())));
    assert_eq!(lab.state.describe(GROUP), None);
    assert_eq!(lab.state.list()[0].kind, GroupKind::Consumer);
    assert_eq!(lab.committed("t"), Some(7));
    assert_eq!(lab.beat(&id(1), 1), Err(GroupError::UnknownMember));
    // And back.
    let call = lab.join_as(&old_join(""));
    assert_eq!(lab.joined(call), Err(GroupError::InconsistentProtocol));
    lab.say(stays("a", -1)).unwrap();
    let call = lab.join_as(&old_join("x"));
    assert_eq!(lab.joined(call), Err(GroupError::UnknownMember));
    let call = lab.join_as(&old_join(""));
    lab.pass(2 * DELAY);
    assert_eq!(lab.joined(call).unwrap().generation, Generation(1));
    assert_eq!(lab.state.list()[0].kind, GroupKind::Classic);
    assert_eq!(lab.committed("t"), Some(7));
    let other = lab.read_back();
    assert_eq!(other.state.list()[0].kind, GroupKind::Classic);
    assert_eq!(other.committed("t"), Some(7));
}

#[test]
fn another_node_reads_the_group_from_the_log() {
    let mut lab = Lab::new();
    lab.make_topic("t", 4);
    lab.hear(of_instance(joins("a", &["t"]), "i"));
    lab.hear(matching("b", "t"));
    lab.hear(of_instance(stays("a", 1), "i"));
    let mut other = lab.read_back();
    assert_eq!(other.seen(), lab.seen());
    assert_eq!(other.state.live_bytes(), lab.state.live_bytes());
    assert_eq!(
        other.hear(of_instance(stays_with("a", 1, owning(0..2)), "i")).0,
        2
    );
    assert_eq!(other.hear(stays("b", 2)).1, Some("t2,3".to_owned()));
    // What is written anew is the same.
    let mut rewritten = Lab::new();
    rewritten.log = other.state.snapshot().collect();
    rewritten.image = other.image.clone();
    assert_eq!(rewritten.read_back().seen(), other.seen());
    other.pass(SESSION);
    assert_eq!(other.stage_of_consumers(), Stage::Empty);
}

#[test]
fn a_group_without_members_is_deleted_and_nothing_of_it_stays() {
    let mut lab = Lab::new();
    lab.make_topic("t", 1);
    lab.hear(joins("a", &["t"]));
    let delete = |lab: &mut Lab| {
        let call = lab.call();
        lab.state.delete_group(call, &Name::from(GROUP));
        lab.settle();
        lab.outcome(call)
    };
    assert_eq!(delete(&mut lab), Err(GroupError::NonEmptyGroup));
    lab.say(stays("a", -1)).unwrap();
    assert_eq!(delete(&mut lab), Ok(()));
    assert_eq!((lab.state.list(), lab.state.live_bytes()), (Vec::new(), 0));
    assert_eq!(lab.read_back().state.list(), []);
    // One that nobody deletes goes when nothing is committed.
    lab.without_members();
    lab.pass(Duration::from_secs(601));
    assert_eq!(lab.state.list(), []);
    assert_eq!(lab.read_back().state.list(), []);
}
