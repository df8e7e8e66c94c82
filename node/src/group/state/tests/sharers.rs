//! Share groups (KIP-932): members come and go, and every partition is read by somebody.

use super::super::super::request::{
    Assignment, Epoch, GroupKind, Reconciled, ShareDescription, ShareHeartbeat,
};
use super::consumers;
use super::*;

impl Lab {
    fn share_as(&mut self, beat: ShareHeartbeat) -> CallId {
        let call = self.call();
        let now = self.now();
        self.state.share_heartbeat(now, call, beat);
        self.settle();
        call
    }

    fn share(&mut self, beat: ShareHeartbeat) -> Result<Reconciled, GroupError> {
        let call = self.share_as(beat);
        self.told(call)
    }

    /// The epoch that the member is told, and what it is to read, if that is told.
    fn hear_share(&mut self, beat: ShareHeartbeat) -> (i32, Option<String>) {
        let told = self.share(beat).unwrap();
        (told.epoch.0, told.assignment.as_ref().map(text))
    }

    fn sharers(&self) -> ShareDescription {
        let described = self.state.describe_sharers(GROUP);
        described.expect("it is a share group").expect("it is there")
    }
}

fn text(assignment: &Assignment) -> String {
    let indexes = assignment.iter().map(|(_, index)| index.value().to_string());
    indexes.collect::<Vec<_>>().join(",")
}

fn joins(member: &str) -> ShareHeartbeat {
    ShareHeartbeat {
        topics: Some([Name::from("t")].into()),
        ..stays(member, 0)
    }
}

fn stays(member: &str, epoch: i32) -> ShareHeartbeat {
    ShareHeartbeat {
        group: Name::from(GROUP),
        member: Name::from(member),
        epoch: Epoch(epoch),
        rack: None,
        client_id: Name::from("c"),
        client_host: Name::from("/h"),
        topics: None,
    }
}

#[test]
fn members_share_the_partitions_and_nobody_waits_for_anybody() {
    let mut lab = Lab::new();
    lab.make_topic("t", 2);
    assert_eq!(lab.hear_share(joins("a")), (1, Some("0,1".to_owned())));
    assert_eq!(lab.hear_share(stays("a", 1)), (1, None));
    assert_eq!(lab.hear_share(joins("b")), (2, Some("1".to_owned())));
    assert_eq!(lab.hear_share(stays("a", 1)), (2, Some("0".to_owned())));
    // More members than partitions.
    assert_eq!(lab.hear_share(joins("c")), (3, Some("0".to_owned())));
    assert_eq!(lab.share(joins("d")), Err(GroupError::GroupFull));
    assert_eq!(lab.share(stays("b", -1)).unwrap().epoch, Epoch::LEAVING);
    assert_eq!(lab.hear_share(stays("c", 3)), (4, Some("1".to_owned())));
    // The topic grows.
    lab.make_topic("t", 3);
    assert_eq!(lab.hear_share(stays("c", 4)), (5, Some("1".to_owned())));
    assert_eq!(lab.hear_share(stays("a", 2)), (5, Some("0,2".to_owned())));
    assert_eq!(lab.sharers().members.len(), 2);
    assert_eq!(lab.read_back().sharers(), lab.sharers());
}

#[test]
fn whoever_is_not_a_member_or_of_another_epoch_is_refused() {
    let mut lab = Lab::new();
    lab.make_topic("t", 2);
    assert_eq!(lab.share(stays("a", 1)), Err(GroupError::GroupNotFound));
    lab.hear_share(joins("a"));
    lab.hear_share(joins("b"));
    // One answer may be lost.
    assert_eq!(lab.hear_share(stays("b", 2)), (2, None));
    lab.hear_share(stays("a", 1));
    assert_eq!(lab.hear_share(stays("a", 1)), (2, Some("0".to_owned())));
    for (beat, error) in [
        (stays("a", 9), GroupError::FencedEpoch),
        (stays("x", 1), GroupError::UnknownMember),
        (stays("x", -1), GroupError::UnknownMember),
        (
            stays("a", -2),
            GroupError::InvalidRequest("there is no such epoch"),
        ),
        (stays("", 0), GroupError::InvalidRequest("a member id is needed")),
        (
            stays("z", 0),
            GroupError::InvalidRequest("who joins says what it subscribes to"),
        ),
    ] {
        assert_eq!(lab.share(beat.clone()), Err(error), "{beat:?}");
    }
    // Whoever begins anew is told everything.
    assert_eq!(lab.hear_share(joins("a")), (2, Some("0".to_owned())));
}

#[test]
fn a_silent_member_is_out_and_the_group_stays() {
    let mut lab = Lab::new();
    lab.make_topic("t", 2);
    lab.hear_share(joins("a"));
    lab.hear_share(joins("b"));
    lab.pass(SESSION / 2);
    lab.hear_share(stays("b", 2));
    lab.pass(SESSION / 2);
    assert_eq!(lab.hear_share(stays("b", 2)), (3, Some("0,1".to_owned())));
    lab.pass(2 * SESSION);
    assert_eq!(lab.sharers().stage, Stage::Empty);
    lab.pass(30 * DAY);
    assert_eq!(lab.sharers().stage, Stage::Empty);
    let mut other = lab.read_back();
    let listed = other.state.list();
    assert_eq!((listed.len(), listed[0].kind), (1, GroupKind::Share));
    assert_eq!(&*listed[0].protocol_type, "share");
    let call = other.call();
    other.state.delete_group(call, &Name::from(GROUP));
    other.settle();
    assert_eq!(other.outcome(call), Ok(()));
    assert_eq!(other.state.list(), []);
    assert_eq!(other.read_back().state.list(), []);
    assert_eq!(other.state.live_bytes(), 0);
}

#[test]
fn a_group_is_of_one_kind() {
    let mut lab = Lab::new();
    lab.make_topic("t", 2);
    lab.hear_share(joins("a"));
    let consumer = lab.beat_as(consumers::joins("c", &["t"]));
    assert_eq!(lab.told(consumer), Err(GroupError::OtherProtocol));
    let classic = lab.join("");
    assert_eq!(lab.joined(classic), Err(GroupError::InconsistentProtocol));
    let commit = lab.commit(nobody(), -1, 5);
    assert_eq!(lab.outcome(commit), Err(GroupError::OtherProtocol));
    assert_eq!(lab.stage(), Stage::Dead);
    assert_eq!(
        lab.state.describe_consumers(GROUP),
        Err(GroupError::OtherProtocol)
    );
    let call = lab.call();
    lab.state.delete_group(call, &Name::from(GROUP));
    lab.settle();
    assert_eq!(lab.outcome(call), Err(GroupError::NonEmptyGroup));
    let mut other = Lab::new();
    other.make_topic("t", 2);
    other.commit(nobody(), -1, 5);
    assert_eq!(other.share(joins("a")), Err(GroupError::OtherProtocol));
    assert_eq!(
        other.state.describe_sharers(GROUP),
        Err(GroupError::OtherProtocol)
    );
}

#[test]
fn what_cannot_be_written_is_not_told_and_a_silent_member_goes_later() {
    let mut lab = Lab::new();
    lab.make_topic("t", 1);
    lab.refuses = Some(AppendRefused::NotNow);
    assert_eq!(lab.share(joins("a")), Err(GroupError::NotAvailable));
    assert_eq!(lab.state.list(), []);
    lab.refuses = None;
    lab.hear_share(joins("a"));
    lab.refuses = Some(AppendRefused::NotNow);
    lab.pass(SESSION);
    assert_eq!(lab.sharers().members.len(), 1);
    lab.refuses = None;
    lab.pass(Duration::from_secs(1));
    assert_eq!(lab.sharers().members.len(), 0);
}

#[test]
fn heartbeats_that_come_while_the_group_is_written_are_written_together() {
    let mut lab = Lab::new();
    lab.make_topic("t", 4);
    lab.holds = true;
    let calls: Vec<CallId> = ["a", "b", "c"].map(|id| lab.share_as(joins(id))).into();
    assert!(calls.iter().all(|call| lab.waits(*call)));
    lab.let_go();
    lab.let_go();
    let epochs: Vec<i32> = calls
        .iter()
        .map(|call| lab.told(*call).unwrap().epoch.0)
        .collect();
    assert_eq!(epochs, [1, 2, 3]);
    assert!(lab.state.live_bytes() > 0);
}
