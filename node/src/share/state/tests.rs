//! The rules of sessions and of what is written down when, with a coordinator that does what it is told to do.

use super::super::request::{Ack, KeptState, Open, Span};
use super::sessions::Opened;
use super::*;
use crate::sys::clock::Clock;
use headwater_protocol::ids::{PartitionIndex, TopicId};
use std::time::Duration;

const LOCK: Duration = Duration::from_secs(30);
const EPOCH: LeaderEpoch = LeaderEpoch(3);

fn settings() -> Settings {
    Settings {
        rules: Rules {
            lock: LOCK,
            deliveries_max: 2,
            in_flight_max: 100,
        },
        sessions_max: 3,
    }
}

fn place(index: i32) -> Place {
    (TopicId([1; 16]), PartitionIndex(index))
}

fn key(index: i32) -> Key {
    Key {
        group: Name::from("g"),
        place: place(index),
    }
}

fn open(member: &str, epoch: i32, adds: &[i32]) -> Open {
    Open {
        group: Name::from("g"),
        member: Name::from(member),
        epoch,
        adds: adds.iter().map(|index| place(*index)).collect(),
        forgets: Vec::new(),
        may_begin: true,
    }
}

fn word(first: i64, last: i64, ack: Ack) -> Acknowledge {
    Acknowledge {
        first: Offset(first),
        last: Offset(last),
        ack,
    }
}

struct Lab {
    state: State,
    now: Instant,
    calls: u64,
    answers: BTreeMap<CallId, Answer>,
    /// What is kept, as the coordinator would have it.
    kept: BTreeMap<Key, Kept>,
    /// Writes that the coordinator has not done.
    writes: Vec<(Name, Vec<Write>)>,
    news: Vec<Key>,
    ended: Vec<SessionId>,
    /// The latest one of each member.
    sessions: BTreeMap<String, SessionId>,
    refuses: Option<Unkept>,
}

impl Lab {
    fn new() -> Self {
        Self {
            state: State::new(settings()),
            now: Clock::manual(0).now(),
            calls: 0,
            answers: BTreeMap::new(),
            kept: BTreeMap::new(),
            writes: Vec::new(),
            news: Vec::new(),
            ended: Vec::new(),
            sessions: BTreeMap::new(),
            refuses: None,
        }
    }

    /// Does what the state wants done, but for writes.
    fn settle(&mut self) {
        loop {
            let effects = self.state.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Answer { call, answer } => {
                        assert_eq!(self.answers.insert(call, answer), None, "a call is answered once");
                    }
                    Effect::Read { key, epoch, reading } => {
                        let none = Kept {
                            state_epoch: 1,
                            leader_epoch: epoch,
                            start: Some(Offset(10)),
                            batches: Vec::new(),
                        };
                        let kept = self.kept.entry(key.clone()).or_insert(none);
                        kept.state_epoch += 1;
                        let kept = kept.clone();
                        let result = self.refuses.map_or(Ok(kept), |unkept| Err(unkept.into()));
                        self.state.read(&key, reading, result);
                    }
                    Effect::Write { group, writes } => self.writes.push((group, writes)),
                    Effect::News(key) => self.news.push(key),
                    Effect::Dropped(_) => {}
                    Effect::Ended(id) => self.ended.push(id),
                }
            }
        }
    }

    /// Does the writes that are on their way.
    fn write(&mut self) {
        for (group, writes) in std::mem::take(&mut self.writes) {
            let mut results = Vec::new();
            for write in writes {
                let key = Key {
                    group: Name::clone(&group),
                    place: write.place,
                };
                let result = self.refuses.map_or(Ok(()), Err);
                if result.is_ok() {
                    let kept = self.kept.get_mut(&key).unwrap();
                    assert_eq!(kept.state_epoch, write.state_epoch);
                    kept.start = Some(write.start);
                    kept.batches = write.batches;
                }
                results.push((write.place, write.mark, result));
            }
            self.state.written(&group, results);
        }
        self.settle();
    }

    fn call(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    fn next(&mut self, index: i32, epoch: LeaderEpoch) -> Result<Option<i64>, ShareError> {
        let call = self.call();
        self.state.next(call, &key(index), epoch, Offset(0));
        self.settle();
        match self.answers.remove(&call) {
            Some(Answer::Next(next)) => next.map(|next| next.map(Offset::value)),
            other => panic!("no answer: {other:?}"),
        }
    }

    /// What a member gets of a log that ends at 20.
    fn acquire(&mut self, member: &str, index: i32) -> Vec<(i64, i64, i16)> {
        let Ok(Some(from)) = self.next(index, EPOCH) else {
            return Vec::new();
        };
        if from >= 20 {
            return Vec::new();
        }
        let spans = vec![Span {
            first: Offset(from),
            last: Offset(19),
            is_hidden: false,
        }];
        let wanted = Acquire {
            by: Name::from(member),
            from: Offset(from),
            spans,
            records_max: 100,
            is_strict: false,
            batch_size: 100,
        };
        let session = match self.sessions.get(member) {
            Some(session) => *session,
            None => self.begin(member, &[index]),
        };
        let acquired = self
            .state
            .acquire(self.now, session, (&key(index), EPOCH), &wanted);
        acquired
            .iter()
            .map(|it| (it.first.value(), it.last.value(), it.count))
            .collect()
    }

    fn say(&mut self, member: &str, index: i32, words: &[Acknowledge]) -> CallId {
        let call = self.call();
        let by = Name::from(member);
        self.state
            .acknowledge(self.now, call, (&key(index), EPOCH), &by, words);
        self.settle();
        call
    }

    fn told(&mut self, call: CallId) -> Option<Result<(), ShareError>> {
        match self.answers.remove(&call)? {
            Answer::Acknowledged(result) => Some(result),
            other @ Answer::Next(_) => panic!("another answer: {other:?}"),
        }
    }

    fn begin(&mut self, member: &str, adds: &[i32]) -> SessionId {
        let opened = self.state.open(&open(member, 0, adds)).unwrap();
        assert_eq!(opened.begun, Some(opened.session));
        self.sessions.insert(member.to_owned(), opened.session);
        opened.session
    }
}

#[test]
fn sessions_go_on_by_their_epochs() {
    let mut lab = Lab::new();
    assert_eq!(
        lab.state.open(&open("a", 1, &[])),
        Err(ShareError::SessionNotFound)
    );
    let acknowledges = Open {
        may_begin: false,
        ..open("a", 0, &[])
    };
    assert_eq!(
        lab.state.open(&acknowledges),
        Err(ShareError::InvalidSessionEpoch)
    );
    let first = lab.begin("a", &[0, 1, 2]);
    let places = |opened: Opened| -> Vec<i32> { opened.places.iter().map(|it| it.1.value()).collect() };
    // Everybody has his turn.
    assert_eq!(places(lab.state.open(&open("a", 1, &[])).unwrap()), [1, 2, 0]);
    assert_eq!(
        lab.state.open(&open("a", 1, &[])),
        Err(ShareError::InvalidSessionEpoch)
    );
    let forgets = Open {
        forgets: vec![place(1)],
        ..open("a", 2, &[5])
    };
    assert_eq!(places(lab.state.open(&forgets).unwrap()), [5, 0, 2]);
    // Whoever begins anew has another session.
    let second = lab.begin("a", &[0]);
    assert_ne!(first, second);
    lab.settle();
    assert_eq!(lab.ended, [first]);
    lab.state.gone(first);
    assert!(lab.state.open(&open("a", 1, &[])).is_ok());
    lab.begin("b", &[]);
    lab.begin("c", &[]);
    assert_eq!(lab.state.open(&open("d", 0, &[])), Err(ShareError::SessionLimit));
    assert!(lab.state.open(&open("a", -1, &[])).is_ok());
    lab.state.close(&Name::from("g"), &Name::from("a"));
    assert_eq!(
        lab.state.open(&open("a", 2, &[])),
        Err(ShareError::SessionNotFound)
    );
    lab.begin("d", &[]);
}

#[test]
fn a_session_names_no_more_than_it_may() {
    let mut lab = Lab::new();
    let most: Vec<i32> = (0..10_000).collect();
    lab.begin("a", &most);
    let opened = lab.state.open(&open("a", 1, &[5, 10_000, 10_001])).unwrap();
    assert_eq!(opened.places.len(), 10_000);
    assert_eq!(opened.refused, [place(10_000), place(10_001)]);
    lab.state.close(&Name::from("g"), &Name::from("a"));
}

#[test]
fn what_is_said_is_answered_when_it_is_written_down() {
    let mut lab = Lab::new();
    lab.begin("a", &[0]);
    assert_eq!(lab.acquire("a", 0), [(10, 19, 1)]);
    let first = lab.say("a", 0, &[word(10, 11, Ack::Accept)]);
    let second = lab.say("a", 0, &[word(12, 12, Ack::Accept)]);
    let wrong = lab.say("b", 0, &[word(13, 13, Ack::Accept)]);
    assert_eq!(lab.told(wrong), Some(Err(ShareError::InvalidState)));
    assert_eq!((lab.told(first), lab.told(second)), (None, None));
    // One write of a group at a time: the second word goes with the next one.
    assert_eq!(lab.writes.len(), 1);
    lab.write();
    assert_eq!(lab.told(first), Some(Ok(())));
    assert_eq!(lab.told(second), None);
    assert_eq!(lab.kept[&key(0)].start, Some(Offset(12)));
    lab.write();
    assert_eq!(lab.told(second), Some(Ok(())));
    assert_eq!(lab.kept[&key(0)].start, Some(Offset(13)));
    let renewed = lab.say("a", 0, &[word(13, 19, Ack::Renew)]);
    assert_eq!(lab.told(renewed), Some(Ok(())));
    assert!(lab.writes.is_empty());
}

#[test]
fn partitions_of_a_group_are_written_together() {
    let mut lab = Lab::new();
    lab.begin("a", &[0, 1, 2]);
    for index in 0..3 {
        lab.acquire("a", index);
    }
    let calls = [0, 1, 2].map(|index| lab.say("a", index, &[word(10, 19, Ack::Accept)]));
    lab.write();
    let [(_, writes)] = &lab.writes[..] else {
        panic!("one write at a time");
    };
    assert_eq!(writes.len(), 2);
    lab.write();
    assert!(calls.iter().all(|call| lab.told(*call) == Some(Ok(()))));
}

#[test]
fn every_partition_of_a_group_has_its_turn_to_be_written() {
    let mut lab = Lab::new();
    let count = i32::try_from(WRITES_MAX).unwrap() + 10;
    let all: Vec<i32> = (0..count).collect();
    lab.begin("a", &all);
    for index in 0..count {
        lab.acquire("a", index);
    }
    let first: Vec<CallId> = all
        .iter()
        .map(|index| lab.say("a", *index, &[word(10, 10, Ack::Accept)]))
        .collect();
    lab.write();
    // The first ones have something to be written again; still, it goes on with those that were never.
    assert_eq!(lab.writes[0].1.len(), WRITES_MAX);
    for index in 0..count {
        lab.say("a", index, &[word(11, 11, Ack::Accept)]);
    }
    lab.write();
    lab.write();
    assert!(first.iter().all(|call| lab.told(*call) == Some(Ok(()))));
}

#[test]
fn records_of_a_member_that_is_gone_are_for_others() {
    let mut lab = Lab::new();
    let session = lab.begin("a", &[0]);
    lab.begin("b", &[0]);
    assert_eq!(lab.acquire("a", 0), [(10, 19, 1)]);
    assert_eq!(lab.acquire("b", 0), []);
    lab.state.gone(session);
    lab.settle();
    assert_eq!(lab.news, [key(0)]);
    // What it asked for before comes too late.
    assert_eq!(lab.acquire("a", 0), []);
    assert_eq!(lab.acquire("b", 0), [(10, 19, 2)]);
    // That they were delivered once is written down.
    lab.write();
    let batches = &lab.kept[&key(0)].batches;
    assert_eq!((batches[0].state, batches[0].count), (KeptState::Available, 1));
}

#[test]
fn locks_run_out() {
    let mut lab = Lab::new();
    lab.begin("a", &[0]);
    lab.acquire("a", 0);
    let due = lab.state.next_deadline().unwrap();
    assert_eq!(due, lab.now + LOCK);
    lab.now = due;
    lab.state.tick(lab.now);
    lab.settle();
    assert_eq!(lab.news, [key(0)]);
    assert_eq!(lab.state.next_deadline(), None);
    let late = lab.say("a", 0, &[word(10, 10, Ack::Accept)]);
    assert_eq!(lab.told(late), Some(Err(ShareError::InvalidState)));
    assert_eq!(lab.acquire("b", 0), [(10, 19, 2)]);
    // Twice is enough.
    lab.now += LOCK;
    lab.state.tick(lab.now);
    lab.write();
    lab.write();
    assert_eq!(lab.next(0, EPOCH), Ok(Some(20)));
    assert_eq!(lab.kept[&key(0)].start, Some(Offset(20)));
}

#[test]
fn what_cannot_be_written_down_is_delivered_again() {
    for (unkept, error) in [
        (Unkept::Unknown, ShareError::NotAvailable),
        (Unkept::FencedState, ShareError::NotLeader),
    ] {
        let mut lab = Lab::new();
        lab.begin("a", &[0]);
        lab.acquire("a", 0);
        let call = lab.say("a", 0, &[word(10, 11, Ack::Accept)]);
        let later = lab.say("a", 0, &[word(12, 12, Ack::Accept)]);
        lab.refuses = Some(unkept);
        lab.write();
        assert_eq!(lab.told(call), Some(Err(error)));
        assert_eq!(lab.told(later), Some(Err(error)));
        assert_eq!(lab.state.held_count(), 0);
        assert_eq!(lab.state.next_deadline(), None);
        let lost = lab.say("a", 0, &[word(12, 12, Ack::Accept)]);
        assert_eq!(lab.told(lost), Some(Err(ShareError::InvalidState)));
        assert_eq!(lab.next(0, EPOCH), Err(error));
        lab.refuses = None;
        assert_eq!(lab.acquire("b", 0), [(10, 19, 1)]);
    }
}

#[test]
fn another_reign_begins_with_what_is_kept() {
    let mut lab = Lab::new();
    lab.begin("a", &[0]);
    lab.acquire("a", 0);
    let call = lab.say("a", 0, &[word(10, 11, Ack::Accept)]);
    lab.write();
    assert_eq!(lab.told(call), Some(Ok(())));
    let waits = lab.say("a", 0, &[word(12, 12, Ack::Accept)]);
    let newer = LeaderEpoch(EPOCH.value() + 1);
    assert_eq!(lab.next(0, newer), Ok(Some(12)));
    assert_eq!(lab.told(waits), Some(Err(ShareError::NotLeader)));
    assert_eq!(lab.next(0, EPOCH), Err(ShareError::NotLeader));
    let old = lab.say("a", 0, &[word(13, 13, Ack::Accept)]);
    assert_eq!(lab.told(old), Some(Err(ShareError::NotLeader)));
    assert_eq!(lab.acquire("a", 0), []);
    // What becomes of the former reign's write is of no interest.
    lab.kept.get_mut(&key(0)).unwrap().state_epoch -= 1;
    lab.write();
    assert_eq!(lab.state.held_count(), 1);
}

#[test]
fn a_partition_that_no_session_names_is_forgotten_when_nobody_has_anything_of_it() {
    let mut lab = Lab::new();
    lab.begin("a", &[0, 1]);
    lab.begin("b", &[1]);
    lab.acquire("a", 0);
    lab.acquire("a", 1);
    let forgets = Open {
        forgets: vec![place(0), place(1)],
        ..open("a", 1, &[])
    };
    lab.state.open(&forgets).unwrap();
    // It may speak of what it has.
    assert_eq!(lab.state.held_count(), 2);
    let call = lab.say("a", 0, &[word(10, 19, Ack::Accept)]);
    lab.write();
    assert_eq!(lab.told(call), Some(Ok(())));
    assert_eq!(lab.state.held_count(), 1);
    lab.state.close(&Name::from("g"), &Name::from("b"));
    lab.now += LOCK;
    lab.state.tick(lab.now);
    lab.settle();
    lab.write();
    assert_eq!(lab.state.held_count(), 0);
    assert_eq!(lab.state.next_deadline(), None);
}

#[test]
fn a_group_without_sessions_is_forgotten_when_all_is_written_down() {
    let mut lab = Lab::new();
    lab.begin("a", &[0]);
    lab.acquire("a", 0);
    let call = lab.say("a", 0, &[word(10, 11, Ack::Accept)]);
    lab.state.close(&Name::from("g"), &Name::from("a"));
    lab.settle();
    assert_eq!(lab.state.held_count(), 1);
    lab.write();
    assert_eq!(lab.told(call), Some(Ok(())));
    lab.write();
    assert_eq!((lab.state.held_count(), lab.state.session_count()), (0, 0));
    assert_eq!(lab.kept[&key(0)].start, Some(Offset(12)));
    assert_eq!(lab.kept[&key(0)].batches[0].count, 1);
}
