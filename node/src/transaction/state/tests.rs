//! The rules, first as stories, then at random against what a client may rely on.

use super::super::request::End;
use super::*;
use crate::sys::clock::Clock;
use headwater_protocol::ids::PartitionIndex;
use proptest::prelude::*;
use std::sync::Arc;

const ID: &str = "orders";

/// A coordinator's state, with a log that takes what is written when it is told to.
struct Lab {
    state: State,
    start: Instant,
    now_ms: i64,
    next_call: u64,
    answers: BTreeMap<CallId, Result<Producer, TransactionError>>,
    writes: Vec<WriteId>,
    marks: Vec<Decided>,
    kept: Vec<Record>,
    on_their_way: BTreeMap<WriteId, Record>,
}

type Call = Result<Producer, TransactionError>;

impl Lab {
    fn new() -> Self {
        let settings = Settings {
            timeout_max: Duration::from_secs(900),
            expiration: Duration::from_secs(3600),
        };
        Self {
            state: State::new(settings),
            start: Clock::manual(0).now(),
            now_ms: 1_000_000,
            next_call: 0,
            answers: BTreeMap::new(),
            writes: Vec::new(),
            marks: Vec::new(),
            kept: Vec::new(),
            on_their_way: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        let ms = u64::try_from(self.now_ms).expect("time goes on");
        Now {
            at: self.start + Duration::from_millis(ms),
            unix_ms: self.now_ms,
        }
    }

    fn collect(&mut self) {
        for effect in self.state.take_effects() {
            match effect {
                Effect::Answer { call, answer } => {
                    assert!(
                        self.answers.insert(call, answer.result()).is_none(),
                        "{call:?} is answered once"
                    );
                }
                Effect::Write { write, record } => {
                    self.writes.push(write);
                    self.on_their_way.insert(write, record);
                }
                Effect::Mark(decided) => self.marks.push(decided),
            }
        }
    }

    /// All that is on its way is kept, and what comes of it.
    fn settle(&mut self) {
        self.collect();
        while !self.writes.is_empty() {
            self.end_write(Ok(()));
        }
    }

    fn end_write(&mut self, result: Result<(), NotNow>) {
        let write = self.writes.remove(0);
        let record = self.on_their_way.remove(&write).expect("it was written");
        if result.is_ok() {
            self.kept.push(record);
        }
        let now = self.now();
        self.state.written(write, result, now);
        self.collect();
    }

    fn call(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    fn begin_as(&mut self, before: Option<Producer>, fresh: Option<i64>) -> Call {
        let (call, now) = (self.call(), self.now());
        let begin = Begin {
            id: Arc::from(ID),
            timeout: Duration::from_secs(60),
            before,
            fresh: fresh.map(ProducerId),
        };
        self.state.begin(now, call, &begin);
        self.settle();
        self.answers[&call]
    }

    fn begin(&mut self) -> Call {
        match self.begin_as(None, None) {
            Err(TransactionError::NeedsProducerId) => self.begin_as(None, Some(7)),
            begun => begun,
        }
    }

    fn add(&mut self, producer: Producer, indexes: &[i32], verify_only: bool) -> Call {
        let (call, now) = (self.call(), self.now());
        let add = Add {
            id: Arc::from(ID),
            producer,
            partitions: indexes.iter().map(|index| partition(*index)).collect(),
            verify_only,
        };
        self.state.add(now, call, &add);
        self.settle();
        self.answers[&call]
    }

    fn end(&mut self, producer: Producer, commit: bool, bumps_epoch: bool) -> Call {
        let (call, now) = (self.call(), self.now());
        let end = End {
            id: Arc::from(ID),
            producer,
            commit,
            bumps_epoch,
            fresh: None,
        };
        self.state.end(now, call, &end);
        self.settle();
        self.answers[&call]
    }

    /// The markers that wait are written.
    fn mark(&mut self) {
        for decided in std::mem::take(&mut self.marks) {
            let now = self.now();
            self.state.marked(&decided.id, decided.producer, now);
            self.settle();
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        let now = self.now();
        self.state.tick(now);
        self.settle();
    }

    fn stage(&self) -> Stage {
        self.state.describe(ID).expect("it is known").stage
    }

    /// Another node takes over with what was kept.
    fn fail_over(&mut self) {
        let mut replay = store::Replay::default();
        for record in &self.kept {
            replay.record(Some(&record.key), record.value.as_deref());
        }
        let (known, unknown) = replay.finish();
        assert_eq!(unknown, 0);
        self.state = State::new(self.state.settings.clone());
        self.writes.clear();
        self.on_their_way.clear();
        self.marks.clear();
        let now = self.now();
        self.state.restore(known, now);
        self.collect();
    }
}

fn partition(index: i32) -> TopicPartition {
    TopicPartition {
        topic: Arc::from("t"),
        index: PartitionIndex(index),
    }
}

fn producer(id: i64, epoch: i16) -> Producer {
    Producer {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
    }
}

#[test]
fn a_transaction_of_the_old_flow() {
    let mut lab = Lab::new();
    let first = lab.begin().expect("begun");
    assert_eq!(first, producer(7, 0));
    assert_eq!(lab.add(first, &[0, 1], false), Ok(first));
    assert_eq!(lab.add(first, &[0], false), Ok(first));
    assert_eq!(lab.add(first, &[1], true), Ok(first));
    assert_eq!(lab.add(first, &[2], true), Err(TransactionError::InvalidState));
    assert_eq!(lab.end(first, true, false), Ok(first));
    assert_eq!(lab.stage(), Stage::PrepareCommit);
    // Until all is marked, nothing new begins.
    assert_eq!(lab.add(first, &[0], false), Err(TransactionError::Concurrent));
    assert_eq!(lab.end(first, true, false), Err(TransactionError::Concurrent));
    assert_eq!(lab.end(first, false, false), Err(TransactionError::InvalidState));
    assert_eq!(lab.begin(), Err(TransactionError::Concurrent));
    assert_eq!(lab.marks.len(), 1);
    assert_eq!(
        lab.marks[0].partitions,
        BTreeSet::from([partition(0), partition(1)])
    );
    assert!(lab.marks[0].commit);
    lab.mark();
    assert_eq!(lab.stage(), Stage::CompleteCommit);
    assert_eq!(lab.end(first, true, false), Ok(first), "its answer was lost");
    assert_eq!(lab.end(first, false, false), Err(TransactionError::InvalidState));
    assert_eq!(lab.add(first, &[2], false), Ok(first), "the next one");
    let marks = lab.marks.len();
    assert_eq!(lab.end(first, false, false), Ok(first));
    assert_eq!(lab.marks.len(), marks + 1);
    assert_eq!(lab.marks[0].partitions, BTreeSet::from([partition(2)]));
}

#[test]
fn each_transaction_of_the_new_flow_has_an_epoch_of_its_own() {
    let mut lab = Lab::new();
    let first = lab.begin().expect("begun");
    lab.add(first, &[0], false).expect("added");
    let next = lab.end(first, true, true).expect("ended");
    assert_eq!(next, producer(7, 1));
    assert_eq!(lab.marks[0].producer, next, "the marker fences the epoch before");
    assert_eq!(lab.end(first, true, true), Err(TransactionError::Concurrent));
    assert_eq!(
        lab.end(next, false, true),
        Err(TransactionError::Concurrent),
        "the next one has to wait, however it ends"
    );
    lab.mark();
    assert_eq!(lab.end(first, true, true), Ok(next), "its answer was lost");
    assert_eq!(lab.add(first, &[0], false), Err(TransactionError::Fenced));
    // A transaction into which nothing came is aborted, too.
    let later = lab.end(next, false, true).expect("ended");
    assert_eq!(later, producer(7, 2));
    assert_eq!(lab.marks[0].partitions, BTreeSet::new());
    lab.mark();
    assert_eq!(lab.end(later, true, true), Err(TransactionError::InvalidState));
    lab.add(later, &[0], false).expect("added");
    assert_eq!(lab.end(next, false, true), Err(TransactionError::Fenced));
}

#[test]
fn whoever_begins_fences_who_was_there() {
    let mut lab = Lab::new();
    let first = lab.begin().expect("begun");
    lab.add(first, &[0], false).expect("added");
    // What was open is aborted first.
    assert_eq!(lab.begin(), Err(TransactionError::Concurrent));
    assert_eq!(lab.stage(), Stage::PrepareAbort);
    assert_eq!(lab.marks[0].producer, producer(7, 1));
    lab.mark();
    let second = lab.begin().expect("begun");
    assert_eq!(second, producer(7, 2));
    assert_eq!(lab.add(first, &[0], false), Err(TransactionError::Fenced));
    assert_eq!(lab.end(first, true, false), Err(TransactionError::Fenced));
    let stranger = lab.add(producer(8, 0), &[0], false);
    assert_eq!(stranger, Err(TransactionError::UnknownProducer));
    // Who says what it was goes on, once; its answer may be lost (KIP-360).
    let third = lab.begin_as(Some(second), None).expect("begun");
    assert_eq!(third, producer(7, 3));
    assert_eq!(lab.begin_as(Some(second), None), Ok(third));
    assert_eq!(lab.begin_as(Some(first), None), Err(TransactionError::Fenced));
}

#[test]
fn epochs_that_are_used_up_are_followed_by_another_id() {
    let mut lab = Lab::new();
    lab.begin().expect("begun");
    let last = producer(7, EPOCH_MAX.value());
    let used_up = |entry: &mut Entry| entry.kept.as_mut().expect("kept").producer = last;
    used_up(lab.state.known.get_mut(ID).expect("known"));
    assert_eq!(lab.begin_as(None, None), Err(TransactionError::NeedsProducerId));
    assert_eq!(lab.begin_as(None, Some(8)), Ok(producer(8, 0)));

    used_up(lab.state.known.get_mut(ID).expect("known"));
    lab.add(last, &[0], false).expect("added");
    assert_eq!(lab.end(last, true, true), Err(TransactionError::NeedsProducerId));
    let (call, now) = (lab.call(), lab.now());
    let end = End {
        id: Arc::from(ID),
        producer: last,
        commit: true,
        bumps_epoch: true,
        fresh: Some(ProducerId(9)),
    };
    lab.state.end(now, call, &end);
    lab.settle();
    assert_eq!(lab.answers[&call], Ok(producer(9, 0)));
    assert_eq!(lab.marks[0].producer, producer(7, i16::MAX));
    let early = lab.add(producer(9, 0), &[0], false);
    assert_eq!(early, Err(TransactionError::Concurrent));
    lab.mark();
    assert_eq!(
        lab.end(last, true, true),
        Ok(producer(9, 0)),
        "its answer was lost"
    );
    assert_eq!(lab.add(producer(9, 0), &[0], false), Ok(producer(9, 0)));
}

#[test]
fn what_takes_too_long_is_aborted_and_what_nobody_uses_is_forgotten() {
    let mut lab = Lab::new();
    let first = lab.begin().expect("begun");
    lab.pass(100_000);
    lab.add(first, &[0], false).expect("added");
    lab.pass(59_999);
    assert_eq!(lab.stage(), Stage::Ongoing);
    lab.pass(1);
    assert_eq!(lab.stage(), Stage::PrepareAbort);
    assert_eq!(lab.end(first, true, false), Err(TransactionError::Fenced));
    lab.mark();
    assert_eq!(lab.stage(), Stage::CompleteAbort);
    lab.pass(3_599_999);
    assert!(lab.state.describe(ID).is_some());
    lab.pass(1);
    assert_eq!(lab.state.describe(ID), None);
    assert_eq!(lab.state.next_deadline(), None);
    assert_eq!(
        lab.add(first, &[0], false),
        Err(TransactionError::UnknownProducer)
    );
}

#[test]
fn what_cannot_be_written_changes_nothing_and_is_tried_again() {
    let mut lab = Lab::new();
    let first = lab.begin().expect("begun");
    lab.add(first, &[0], false).expect("added");
    let (call, now) = (lab.call(), lab.now());
    let end = End {
        id: Arc::from(ID),
        producer: first,
        commit: true,
        bumps_epoch: false,
        fresh: None,
    };
    lab.state.end(now, call, &end);
    lab.collect();
    assert_eq!(lab.answers.get(&call), None, "it is not kept yet");
    assert_eq!(lab.add(first, &[0], true), Err(TransactionError::Concurrent));
    let refused = |lab: &mut Lab| lab.end_write(Err(NotNow));
    // The `add` above settled the write; begin one that is refused.
    assert_eq!(lab.answers[&call], Ok(first));
    lab.state.marked(&Arc::from(ID), first, now);
    lab.collect();
    refused(&mut lab);
    assert_eq!(lab.stage(), Stage::PrepareCommit);
    lab.pass(1_000);
    assert_eq!(lab.stage(), Stage::CompleteCommit);
}

#[test]
fn a_decision_outlives_its_coordinator() {
    let mut lab = Lab::new();
    let first = lab.begin().expect("begun");
    lab.add(first, &[0, 3], false).expect("added");
    lab.end(first, true, false).expect("ended");
    lab.fail_over();
    assert_eq!(lab.marks.len(), 1);
    assert!(lab.marks[0].commit);
    assert_eq!(
        lab.marks[0].partitions,
        BTreeSet::from([partition(0), partition(3)])
    );
    lab.mark();
    assert_eq!(lab.stage(), Stage::CompleteCommit);
    lab.fail_over();
    assert_eq!(lab.marks, []);
    // An open one is open still, and ends by itself.
    lab.add(first, &[1], false).expect("added");
    lab.fail_over();
    assert_eq!(lab.stage(), Stage::Ongoing);
    lab.pass(60_000);
    assert_eq!(lab.stage(), Stage::PrepareAbort);
}

/// What a producer does, or what happens to its coordinator.
#[derive(Debug, Clone, Copy)]
enum Step {
    Begin,
    Add(i32),
    End { commit: bool, bumps_epoch: bool },
    Mark,
    Pass(i64),
    FailOver,
}

fn step() -> impl Strategy<Value = Step> {
    let end = (any::<bool>(), any::<bool>());
    prop_oneof![
        1 => Just(Step::Begin),
        4 => (0..3i32).prop_map(Step::Add),
        3 => end.prop_map(|(commit, bumps_epoch)| Step::End { commit, bumps_epoch }),
        3 => Just(Step::Mark),
        1 => (0..40_000i64).prop_map(Step::Pass),
        1 => Just(Step::FailOver),
    ]
}

proptest! {
    /// A transaction that was said to be committed is marked committed, one that was not is never; epochs never fall.
    #[test]
    fn what_was_decided_is_what_is_marked(steps in prop::collection::vec(step(), 1..120)) {
        let mut lab = Lab::new();
        let mut me = producer(-1, -1);
        let mut decided: Option<bool> = None;
        for step in steps {
            match step {
                Step::Begin => if let Ok(begun) = lab.begin() {
                    prop_assert!(begun.id != me.id || begun.epoch > me.epoch);
                    (me, decided) = (begun, None);
                },
                Step::Add(index) => if lab.add(me, &[index], false).is_ok() {
                    decided = None;
                },
                Step::End { commit, bumps_epoch } => {
                    let was_open = lab.state.describe(ID).is_some_and(|it| it.stage == Stage::Ongoing);
                    if let Ok(next) = lab.end(me, commit, bumps_epoch) {
                        if was_open {
                            decided = Some(commit);
                        }
                        me = next;
                    }
                }
                Step::Mark => {
                    for mark in &lab.marks {
                        if mark.producer == me && let Some(commit) = decided {
                            prop_assert!(mark.commit == commit || mark.partitions.is_empty());
                        }
                        if mark.commit && mark.producer == me {
                            prop_assert_eq!(decided, Some(true));
                        }
                    }
                    lab.mark();
                }
                Step::Pass(ms) => lab.pass(ms),
                Step::FailOver => lab.fail_over(),
            }
            let waiting = lab.marks.len();
            prop_assert!(waiting <= 1, "{} decisions at once", waiting);
        }
    }
}
