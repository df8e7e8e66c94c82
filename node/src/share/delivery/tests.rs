//! The rules of delivery, one by one, and at random against a list of offsets.

use super::super::request::{Ack, Acknowledge, Acquire, Acquired, KeptBatch, KeptState, Name, Span};
use super::*;
use proptest::prelude::*;

const LOCK: Duration = Duration::from_secs(30);
const RULES: Rules = Rules {
    lock: LOCK,
    deliveries_max: 3,
    in_flight_max: 10,
};

struct Lab {
    delivery: Delivery,
    now: Instant,
}

fn now() -> Instant {
    crate::sys::clock::Clock::manual(0).now()
}

/// As `0-4x1 7-7x2`.
fn text(acquired: &[Acquired]) -> String {
    let one = |it: &Acquired| format!("{}-{}x{}", it.first, it.last, it.count);
    acquired.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn span(first: i64, last: i64) -> Span {
    Span {
        first: Offset(first),
        last: Offset(last),
        is_hidden: false,
    }
}

fn hidden(first: i64, last: i64) -> Span {
    Span {
        is_hidden: true,
        ..span(first, last)
    }
}

fn word(first: i64, last: i64, ack: Ack) -> Acknowledge {
    Acknowledge {
        first: Offset(first),
        last: Offset(last),
        ack,
    }
}

impl Lab {
    fn new() -> Self {
        Self {
            delivery: Delivery::restored(Offset(0), &[]),
            now: now(),
        }
    }

    fn next(&mut self) -> Option<i64> {
        self.delivery.next(Offset(0), &RULES).map(Offset::value)
    }

    /// What a member gets that reads where it is told to.
    fn acquire(&mut self, by: &str, spans: &[Span], records_max: usize) -> String {
        let Some(from) = self.delivery.next(Offset(0), &RULES) else {
            return "none".to_owned();
        };
        let spans: Vec<Span> = spans.iter().filter(|span| span.last >= from).copied().collect();
        let wanted = Acquire {
            by: Name::from(by),
            from,
            spans,
            records_max,
            is_strict: false,
            batch_size: 100,
        };
        text(&self.delivery.acquire(self.now, &wanted, &RULES))
    }

    fn say(&mut self, by: &str, words: &[Acknowledge]) -> Result<Option<WriteNumber>, InvalidState> {
        self.delivery.acknowledge(self.now, by, words, &RULES)
    }

    /// What is written down: the start, and batches as `1-2:archived x2`.
    fn write(&mut self) -> String {
        let (number, start, batches) = self.delivery.begin_write();
        self.delivery.written(number);
        kept(start, &batches)
    }

    fn restart(&mut self) {
        let (_, start, batches) = self.delivery.begin_write();
        self.delivery = Delivery::restored(start, &batches);
    }
}

fn kept(start: Offset, batches: &[KeptBatch]) -> String {
    let one = |it: &KeptBatch| format!(" {}-{}:{}x{}", it.first, it.last, it.state.code(), it.count);
    let batches: String = batches.iter().map(one).collect();
    format!("{start}{batches}")
}

#[test]
fn records_are_given_once_until_their_lock_runs_out() {
    let mut lab = Lab::new();
    let log = [span(0, 2), span(3, 5)];
    assert_eq!(lab.acquire("a", &log, 1), "0-2x1");
    assert_eq!(lab.next(), Some(3));
    assert_eq!(lab.acquire("b", &log, 10), "3-5x1");
    assert_eq!(lab.acquire("b", &log, 10), "");
    lab.now += LOCK / 2;
    assert!(!lab.delivery.expire(lab.now, &RULES));
    assert_eq!(lab.say("b", &[word(3, 5, Ack::Renew)]), Ok(None));
    lab.now += LOCK / 2;
    assert!(lab.delivery.expire(lab.now, &RULES));
    assert_eq!(lab.next(), Some(0));
    assert_eq!(lab.say("a", &[word(0, 2, Ack::Accept)]), Err(InvalidState));
    assert_eq!(lab.acquire("c", &log, 10), "0-2x2");
    assert!(lab.delivery.next_deadline().is_some());
    lab.now += LOCK;
    assert!(lab.delivery.expire(lab.now, &RULES));
    assert_eq!(lab.delivery.next_deadline(), None);
    assert_eq!(lab.acquire("c", &log, 10), "0-2x3 3-5x2");
    // What was delivered often enough is not delivered again.
    assert!(lab.delivery.release("c", &RULES));
    assert_eq!(lab.next(), Some(3));
    assert_eq!(lab.delivery.start, Offset(3));
}

#[test]
fn a_record_that_is_kept_for_long_does_not_let_what_is_behind_it_grow() {
    let mut lab = Lab::new();
    assert_eq!(lab.acquire("slow", &[span(0, 0)], 1), "0-0x1");
    let mut offset = 1;
    while lab.next() == Some(offset) {
        assert_ne!(lab.acquire("a", &[span(offset, offset)], 1), "");
        let ack = if offset % 2 == 0 { Ack::Accept } else { Ack::Reject };
        lab.say("a", &[word(offset, offset, ack)]).unwrap();
        lab.write();
        offset += 1;
    }
    assert_eq!(lab.next(), None);
    assert_eq!(lab.delivery.runs.len(), RUNS_MAX);
    lab.say("slow", &[word(0, 0, Ack::Accept)]).unwrap();
    lab.write();
    assert_eq!(lab.next(), Some(offset));
    assert_eq!(lab.delivery.runs.len(), 0);
}

#[test]
fn what_is_said_of_what_was_given_up_holds_when_the_start_is_written_down() {
    let mut lab = Lab::new();
    let log = [span(0, 1)];
    for _ in 0..RULES.deliveries_max {
        assert_ne!(lab.acquire("a", &log, 10), "");
        lab.now += LOCK;
        assert!(lab.delivery.expire(lab.now, &RULES));
    }
    assert_eq!(lab.delivery.start, Offset(2));
    // The start has moved and is not written down.
    let late = lab.say("a", &[word(0, 1, Ack::Accept)]).unwrap();
    let (number, start, _) = lab.delivery.begin_write();
    assert_eq!((late, start), (Some(number), Offset(2)));
    assert_eq!(lab.say("a", &[word(0, 1, Ack::Accept)]), Ok(Some(number)));
    lab.delivery.written(number);
    assert_eq!(lab.say("a", &[word(0, 1, Ack::Accept)]), Ok(None));
}

#[test]
fn what_is_said_holds_when_it_is_written_down() {
    let mut lab = Lab::new();
    let log = [span(0, 9)];
    assert_eq!(lab.acquire("a", &log, 1), "0-9x1");
    let words = [
        word(0, 1, Ack::Accept),
        word(2, 2, Ack::Release),
        word(3, 3, Ack::Reject),
        word(4, 4, Ack::Gap),
    ];
    let first = lab.say("a", &words).unwrap().unwrap();
    assert!(lab.delivery.is_dirty());
    // None of it holds yet, and nobody can say it again.
    assert_eq!(lab.say("a", &[word(0, 0, Ack::Accept)]), Err(InvalidState));
    assert_eq!(lab.next(), None);
    let (number, start, batches) = lab.delivery.begin_write();
    assert_eq!(number, first);
    assert_eq!(kept(start, &batches), "2 2-2:0x1 3-4:4x1");
    // What is said meanwhile is of the next write.
    let second = lab.say("a", &[word(5, 5, Ack::Accept)]).unwrap().unwrap();
    assert!(second > first);
    assert!(lab.delivery.written(number));
    assert_eq!(lab.next(), Some(2));
    assert_eq!(lab.acquire("b", &log, 1), "2-2x2");
    assert_eq!(lab.write(), "2 2-2:0x1 3-4:4x1 5-5:2x1");
    // What lies before the start is done with, whatever is said.
    assert_eq!(lab.say("x", &[word(0, 1, Ack::Accept)]), Ok(None));
    assert_eq!(lab.say("b", &[word(2, 3, Ack::Accept)]), Err(InvalidState));
    lab.say("b", &[word(2, 2, Ack::Accept)]).unwrap();
    assert_eq!(lab.write(), "6");
    assert_eq!(lab.delivery.start, Offset(6));
    assert_eq!(lab.delivery.in_flight, 4);
}

#[test]
fn no_more_are_given_than_may_be_in_flight() {
    let mut lab = Lab::new();
    let log = [span(0, 7), span(8, 15)];
    assert_eq!(lab.acquire("a", &log, 100), "0-9x1");
    assert_eq!(lab.next(), None);
    lab.say("a", &[word(3, 4, Ack::Accept)]).unwrap();
    lab.write();
    assert_eq!(lab.next(), Some(10));
    assert_eq!(lab.acquire("b", &log, 100), "10-11x1");
    assert_eq!(lab.acquire("b", &log, 100), "none");
}

#[test]
fn what_nobody_is_to_see_is_passed_over() {
    let mut lab = Lab::new();
    // Given up, a marker, and gaps that compaction left.
    let log = [hidden(0, 1), span(3, 3), hidden(4, 4), span(7, 8)];
    assert_eq!(lab.acquire("a", &log, 100), "3-3x1 7-8x1");
    assert_eq!(lab.delivery.start, Offset(3));
    lab.say("a", &[word(3, 3, Ack::Accept), word(7, 8, Ack::Accept)])
        .unwrap();
    assert_eq!(lab.write(), "9");
    assert_eq!(lab.acquire("a", &[hidden(9, 12)], 100), "");
    assert_eq!(lab.next(), Some(13));
}

#[test]
fn records_that_the_log_has_deleted_are_done_with() {
    let mut lab = Lab::new();
    assert_eq!(lab.acquire("a", &[span(0, 9)], 1), "0-9x1");
    assert_eq!(lab.delivery.next(Offset(4), &RULES), Some(Offset(10)));
    assert_eq!(
        lab.say("a", &[word(0, 5, Ack::Accept)]).map(|it| it.is_some()),
        Ok(true)
    );
    assert_eq!(lab.write(), "6");
    assert_eq!(lab.delivery.next(Offset(20), &RULES), Some(Offset(20)));
    assert_eq!(lab.delivery.in_flight, 0);
}

#[test]
fn strict_members_get_no_record_more() {
    let mut delivery = Delivery::restored(Offset(0), &[]);
    let wanted = Acquire {
        by: Name::from("a"),
        from: Offset(0),
        spans: vec![span(0, 3), span(4, 7)],
        records_max: 5,
        is_strict: true,
        batch_size: 4,
    };
    assert_eq!(text(&delivery.acquire(now(), &wanted, &RULES)), "0-3x1 4-4x1");
    let wanted = Acquire {
        from: Offset(5),
        batch_size: 100,
        is_strict: false,
        records_max: 1,
        ..wanted
    };
    assert_eq!(text(&delivery.acquire(now(), &wanted, &RULES)), "5-7x1");
}

#[test]
fn batches_that_make_no_sense_are_sorted_out() {
    let batch = |first, last, state, count| KeptBatch {
        first: Offset(first),
        last: Offset(last),
        state,
        count,
    };
    let batches = [
        batch(8, 9, KeptState::Acknowledged, 1),
        batch(0, 4, KeptState::Acknowledged, 1),
        batch(3, 6, KeptState::Available, 2),
        batch(6, 2, KeptState::Archived, 2),
    ];
    let mut delivery = Delivery::restored(Offset(2), &batches);
    let (_, start, batches) = delivery.begin_write();
    assert_eq!(kept(start, &batches), "5 5-6:0x2 8-9:2x1");
    assert_eq!(delivery.in_flight, 3);
}

/// What a simple broker would know of one offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Available(i16),
    Acquired(usize, i16, u32),
    Done,
}

const MEMBERS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    Acquire {
        member: usize,
        max: usize,
        strict: bool,
    },
    Acknowledge {
        member: usize,
        first: i64,
        length: i64,
        ack: i8,
    },
    Release(usize),
    Pass(u32),
    Restart,
    LogStart(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let member = 0..MEMBERS.len();
    let step = prop_oneof![
        4 => (member.clone(), 1..9usize, any::<bool>())
            .prop_map(|(member, max, strict)| Step::Acquire { member, max, strict }),
        6 => (member.clone(), 0..40i64, 1..6i64, 0..5i8)
            .prop_map(|(member, first, length, ack)| Step::Acknowledge { member, first, length, ack }),
        1 => member.prop_map(Step::Release),
        2 => (0..20u32).prop_map(Step::Pass),
        1 => Just(Step::Restart),
        1 => (0..30i64).prop_map(Step::LogStart),
    ];
    proptest::collection::vec(step, 1..80)
}

/// A log of 40 records in batches of up to four.
fn log() -> Vec<Span> {
    (0..40).step_by(4).map(|first| span(first, first + 3)).collect()
}

/// A list with an entry for each offset that was given once.
struct Model {
    start: i64,
    log_start: i64,
    fates: Vec<Fate>,
    time: u32,
}

impl Model {
    fn at(&mut self, offset: i64) -> Option<&mut Fate> {
        self.fates.get_mut(usize::try_from(offset).ok()?)
    }

    fn in_flight(&self) -> usize {
        let from = usize::try_from(self.start).unwrap().min(self.fates.len());
        self.fates[from..].iter().filter(|it| **it != Fate::Done).count()
    }

    fn give_up(&mut self, is_concerned: impl Fn(&Fate) -> bool) {
        for fate in self.fates.iter_mut().filter(|fate| is_concerned(fate)) {
            if let Fate::Acquired(_, count, _) = *fate {
                *fate = after(count);
            }
        }
        self.move_start();
    }

    fn move_start(&mut self) {
        while self.at(self.start) == Some(&mut Fate::Done) {
            self.start += 1;
        }
    }
}

fn after(count: i16) -> Fate {
    if count >= RULES.deliveries_max {
        Fate::Done
    } else {
        Fate::Available(count)
    }
}

fn check(delivery: &Delivery, model: &Model) {
    assert_eq!(delivery.start.value(), model.start);
    assert_eq!(delivery.in_flight, model.in_flight());
    let mut at = delivery.start;
    let mut before: Option<&Run> = None;
    for (first, run) in &delivery.runs {
        assert_eq!(*first, at, "runs cover everything");
        let is_same = |it: &Run| it.count == run.count && it.phase == run.phase;
        assert!(!before.is_some_and(is_same), "neighbours differ");
        for offset in first.value()..=run.last.value() {
            let fate = model.fates[usize::try_from(offset).unwrap()];
            let ours = match &run.phase {
                Phase::Available => Fate::Available(run.count),
                Phase::Acquired { by, .. } => {
                    let member = MEMBERS.iter().position(|it| **it == **by).unwrap();
                    let Fate::Acquired(_, _, until) = fate else {
                        panic!("{offset} is {fate:?}, not acquired");
                    };
                    Fate::Acquired(member, run.count, until)
                }
                Phase::Done(_) => Fate::Done,
                Phase::Settling { .. } => panic!("everything is written"),
            };
            assert_eq!(ours, fate, "of {offset}");
        }
        at = run.last.plus(1);
        before = Some(run);
    }
    assert_eq!(at, delivery.end);
}

fn acquire(lab: &mut Lab, model: &mut Model, member: usize, max: usize, strict: bool) {
    let from = lab.delivery.next(Offset(model.log_start), &RULES);
    model.start = model.start.max(model.log_start);
    while (model.fates.len() as i64) < model.start {
        model.fates.push(Fate::Done);
    }
    model.move_start();
    let Some(from) = from else {
        assert!(model.in_flight() >= RULES.in_flight_max);
        return;
    };
    let spans: Vec<Span> = log().into_iter().filter(|span| span.last >= from).collect();
    let wanted = Acquire {
        by: Name::from(MEMBERS[member]),
        from,
        spans,
        records_max: max,
        is_strict: strict,
        batch_size: 3,
    };
    let given = lab.delivery.acquire(lab.now, &wanted, &RULES);
    let total: i64 = given.iter().map(|it| it.last.since(it.first) + 1).sum();
    assert!(!strict || total <= max as i64);
    for acquired in &given {
        for offset in acquired.first.value()..=acquired.last.value() {
            let fate = Fate::Acquired(member, acquired.count, model.time + 30);
            match model.at(offset) {
                Some(known) => {
                    assert_eq!(*known, Fate::Available(acquired.count - 1), "{offset} was free");
                    *known = fate;
                }
                None => {
                    assert_eq!((offset, acquired.count), (model.fates.len() as i64, 1));
                    model.fates.push(fate);
                }
            }
        }
    }
    assert!(model.in_flight() <= RULES.in_flight_max.max(model.in_flight() - total as usize));
}

fn acknowledge(lab: &mut Lab, model: &mut Model, member: usize, word: Acknowledge) {
    let offsets = word.first.value().max(model.start)..=word.last.value();
    let is_held = |model: &mut Model, offset| matches!(model.at(offset), Some(Fate::Acquired(it, _, _)) if *it == member);
    let is_valid = offsets.clone().all(|offset| is_held(model, offset));
    let said = lab.say(MEMBERS[member], &[word]);
    assert_eq!(said.is_ok(), is_valid, "{word:?}");
    if !is_valid {
        return;
    }
    let time = model.time;
    for offset in offsets {
        let fate = model.at(offset).unwrap();
        let Fate::Acquired(_, count, until) = fate else {
            panic!("it was seen to above");
        };
        match word.ack {
            Ack::Renew => *until = time + 30,
            Ack::Release => *fate = after(*count),
            Ack::Accept | Ack::Gap | Ack::Reject => *fate = Fate::Done,
        }
    }
    lab.write();
    model.move_start();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_is_as_if_each_offset_were_kept_by_itself(steps in steps()) {
        let mut lab = Lab::new();
        let mut model = Model { start: 0, log_start: 0, fates: Vec::new(), time: 0 };
        for step in steps {
            match step {
                Step::Acquire { member, max, strict } => acquire(&mut lab, &mut model, member, max, strict),
                Step::Acknowledge { member, first, length, ack } => {
                    let ack = Ack::of(ack).unwrap();
                    acknowledge(&mut lab, &mut model, member, word(first, first + length - 1, ack));
                }
                Step::Release(member) => {
                    lab.delivery.release(MEMBERS[member], &RULES);
                    model.give_up(|fate| matches!(fate, Fate::Acquired(it, _, _) if *it == member));
                }
                Step::Pass(seconds) => {
                    lab.now += Duration::from_secs(seconds.into());
                    model.time += seconds;
                    lab.delivery.expire(lab.now, &RULES);
                    let time = model.time;
                    model.give_up(|fate| matches!(fate, Fate::Acquired(_, _, until) if *until <= time));
                }
                Step::Restart => {
                    lab.restart();
                    // Deliveries that nobody has said anything of have not happened.
                    for fate in &mut model.fates {
                        if let Fate::Acquired(_, count, _) = *fate {
                            *fate = Fate::Available(count - 1);
                        }
                    }
                    while model.fates.last() == Some(&Fate::Available(0))
                        && model.fates.len() as i64 > model.start
                    {
                        model.fates.pop();
                    }
                    model.move_start();
                }
                Step::LogStart(start) => model.log_start = model.log_start.max(start),
            }
            check(&lab.delivery, &model);
        }
    }
}
