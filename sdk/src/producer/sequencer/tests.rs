//! One partition's sequencer against a broker's rules, with a network that loses what it likes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::PartitionIndex;
use headwater_protocol::record::{BatchBuilder, BatchOptions, NewRecord};
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;
use crate::door;
use crate::producer::delivery::{Completion, Delivery, Ledger};
use crate::producer::stamp;
use crate::testing::PartitionLog;

#[derive(Clone, Copy, Debug)]
enum Step {
    Take {
        count: u32,
    },
    Send,
    /// The broker serves the oldest request.
    Serve,
    /// It refuses it instead.
    Refuse(ErrorCode),
    /// The oldest answer arrives.
    Answer,
    /// The connection breaks: requests and answers on their way are lost.
    Break,
    /// Much time passes.
    Expire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u32..5).prop_map(|count| Step::Take { count }),
        6 => Just(Step::Send),
        6 => Just(Step::Serve),
        6 => Just(Step::Answer),
        1 => Just(Step::Break),
        1 => Just(Step::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
        1 => Just(Step::Refuse(ErrorCode::MESSAGE_TOO_LARGE)),
        1 => Just(Step::Refuse(ErrorCode::INVALID_RECORD)),
        1 => Just(Step::Refuse(ErrorCode::INVALID_PRODUCER_EPOCH)),
        1 => Just(Step::Expire),
    ];
    prop::collection::vec(step, 1..200)
}

struct World {
    sequencer: Sequencer,
    log: PartitionLog,
    /// Requests on their way, oldest first.
    network: VecDeque<(u64, Bytes)>,
    answers: VecDeque<(u64, Outcome)>,
    deliveries: Vec<Delivery>,
    ledger: Arc<Ledger>,
    now: Instant,
    next_id: i64,
}

const TIMEOUT: Duration = Duration::from_secs(60);

impl World {
    fn new() -> Self {
        let mut world = Self {
            sequencer: Sequencer::new(Numbering::Idempotent, 5),
            log: PartitionLog::default(),
            network: VecDeque::new(),
            answers: VecDeque::new(),
            deliveries: Vec::new(),
            ledger: Ledger::new(),
            now: door::now(),
            next_id: 0,
        };
        world.identify();
        world
    }

    fn identify(&mut self) {
        self.next_id += 1;
        // Near the end of the numbers, so that they go round.
        self.sequencer.identify(Identity {
            id: ProducerId(self.next_id),
            epoch: ProducerEpoch(i16::MAX - 2),
        });
    }

    fn take(&mut self, count: u32) {
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        let completion = Completion::new(PartitionIndex(0));
        for index in 0..count {
            let value = self.deliveries.len().to_string();
            builder
                .append(&NewRecord {
                    value: Some(value.as_bytes()),
                    ..Default::default()
                })
                .unwrap();
            self.deliveries.push(completion.delivery(index));
        }
        let mut duty = Duty::new(completion, self.ledger.ticket());
        duty.covers(count);
        let stamp = self.sequencer.number(count);
        let bytes = stamp::build(&mut builder, stamp).unwrap().unwrap();
        let memory = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let deadline = self.now + TIMEOUT;
        let _memory = Arc::new(memory);
        self.sequencer.push(Batch {
            bytes: bytes.into(),
            stamp,
            count,
            duty,
            deadline,
            maybe_written: false,
            _memory,
        });
    }

    fn settle(&mut self, number: u64, outcome: Outcome) {
        let backoff = Backoff {
            first: Duration::from_millis(2),
            max: Duration::from_millis(4),
        };
        let needs = self.sequencer.settle(number, outcome, self.now, &backoff, 1);
        if needs.identity {
            self.identify();
        }
    }

    fn step(&mut self, step: Step) {
        self.now += Duration::from_millis(1);
        match step {
            Step::Take { count } if self.sequencer.may_send(self.now) && !self.sequencer.has_queued() => {
                self.take(count);
            }
            Step::Send if self.sequencer.may_send(self.now) => self.network.extend(self.sequencer.send()),
            Step::Take { .. } | Step::Send => {}
            Step::Serve => {
                if let Some((number, bytes)) = self.network.pop_front() {
                    let outcome = match self.log.append(bytes) {
                        Ok(offset) => Outcome::of(0, offset, -1, None),
                        Err(code) => Outcome::of(code.0, -1, -1, None),
                    };
                    self.answers.push_back((number, outcome));
                }
            }
            Step::Refuse(code) => {
                if let Some((number, _)) = self.network.pop_front() {
                    self.answers
                        .push_back((number, Outcome::of(code.0, -1, -1, None)));
                }
            }
            Step::Answer => {
                if let Some((number, outcome)) = self.answers.pop_front() {
                    self.settle(number, outcome);
                }
            }
            Step::Break => {
                let answers = std::mem::take(&mut self.answers)
                    .into_iter()
                    .map(|(number, _)| number);
                let requests = std::mem::take(&mut self.network)
                    .into_iter()
                    .map(|(number, _)| number);
                for number in answers.chain(requests).collect::<Vec<_>>() {
                    self.settle(number, Outcome::Lost("broken".to_owned()));
                }
            }
            Step::Expire => {
                self.now += TIMEOUT;
                self.sequencer.expire(self.now, TIMEOUT);
            }
        }
    }

    /// Everything goes well from now on.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            if self.sequencer.is_idle() {
                return;
            }
            for step in [Step::Send, Step::Serve, Step::Answer] {
                self.step(step);
            }
        }
        panic!("it does not come to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_record_is_in_the_log_once_and_in_order(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.finish();
        let log: Vec<usize> = world.log.values().iter().map(|value| value.parse().unwrap()).collect();
        prop_assert!(log.windows(2).all(|pair| pair[0] < pair[1]), "out of order or twice: {:?}", log);
        for (value, delivery) in world.deliveries.iter().enumerate() {
            let offset = log.binary_search(&value).ok();
            match delivery.try_receipt() {
                Some(Ok(receipt)) => {
                    prop_assert!(offset.is_some(), "{} was acknowledged and is not there", value);
                    if let Some(told) = receipt.offset {
                        prop_assert_eq!(told.0 as usize, offset.unwrap());
                    }
                }
                Some(Err(error)) => {
                    prop_assert!(error.maybe_written() || offset.is_none(), "{} failed and is there: {}", value, error);
                }
                None => prop_assert!(false, "{} has no outcome", value),
            }
        }
    }
}

#[test]
fn a_duplicate_counts_as_written() {
    let mut world = World::new();
    world.take(2);
    let (number, _) = world.sequencer.send().unwrap();
    world.settle(
        number,
        Outcome::of(ErrorCode::DUPLICATE_SEQUENCE_NUMBER.0, -1, -1, None),
    );
    assert_eq!(world.deliveries[1].try_receipt().unwrap().unwrap().offset, None);
}

#[test]
fn after_a_failure_one_batch_is_tried_alone() {
    let mut world = World::new();
    let mut sent = Vec::new();
    for _ in 0..3 {
        world.take(1);
        sent.push(world.sequencer.send().unwrap().0);
    }
    sent.into_iter()
        .for_each(|number| world.settle(number, Outcome::Lost(String::new())));
    assert!(!world.sequencer.may_send(world.now), "it waits first");
    world.now += Duration::from_secs(1);
    assert!(world.sequencer.may_send(world.now));
    world.sequencer.send().unwrap();
    assert!(!world.sequencer.may_send(world.now));
}
