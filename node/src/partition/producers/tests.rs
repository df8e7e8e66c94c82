//! The sequence rules, first as a story, then against a model that remembers everything.

use super::*;
use headwater_protocol::ids::LeaderEpoch;
use proptest::prelude::*;

fn batch(producer: i64, epoch: i16, sequence: i32, count: i32) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(0),
        batch_length: 100,
        partition_leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: sequence,
        record_count: count,
    }
}

/// Producers with a log end: appends what may be appended.
#[derive(Default)]
struct Log {
    producers: Producers,
    end: i64,
}

impl Log {
    fn send(&mut self, mut batch: BatchHeader) -> Result<i64, SequenceError> {
        match self.producers.check(&batch, Offset(self.end))? {
            Verdict::Duplicate { base_offset, .. } => Ok(base_offset.value()),
            Verdict::Append => {
                batch.base_offset = Offset(self.end);
                self.end = batch.next_offset().value();
                self.producers.record(&batch, -1, 0);
                Ok(batch.base_offset.value())
            }
        }
    }
}

#[test]
fn a_producer_is_held_to_its_sequence() {
    let mut log = Log::default();
    let fenced = |found, current| SequenceError::Fenced {
        producer: ProducerId(1),
        found: ProducerEpoch(found),
        current: ProducerEpoch(current),
    };
    let order = |found, expected| SequenceError::OutOfOrder {
        producer: ProducerId(1),
        found,
        expected,
    };
    // (epoch, sequence, records) in order, and what becomes of them.
    let story = [
        ((0, 0, 3), Ok(0)),
        ((0, 3, 1), Ok(3)),
        ((0, 5, 1), Err(order(5, 4))),
        ((0, 3, 1), Ok(3)),
        ((0, 0, 3), Ok(0)),
        ((0, 0, 2), Err(order(0, 4))),
        ((0, 4, 1), Ok(4)),
        ((0, 5, 1), Ok(5)),
        ((0, 6, 1), Ok(6)),
        ((0, 7, 1), Ok(7)),
        // Five batches later the first is no longer remembered.
        ((0, 0, 3), Err(order(0, 8))),
        ((0, 3, 1), Ok(3)),
        // A new epoch begins at 0 and fences the old one.
        ((1, 8, 1), Err(order(8, 0))),
        ((1, 0, 1), Ok(8)),
        ((0, 8, 1), Err(fenced(0, 1))),
        ((1, 1, 1), Ok(9)),
    ];
    for (step, ((epoch, sequence, count), expected)) in story.into_iter().enumerate() {
        assert_eq!(
            log.send(batch(1, epoch, sequence, count)),
            expected,
            "step {step}"
        );
    }
    // Another producer is not concerned, and a forgotten one may go on where it was.
    assert_eq!(log.send(batch(2, 0, 77, 1)), Ok(10));
    log.producers.expire(10_000, 5_000);
    assert_eq!(log.producers.producer_count(), 0);
    assert_eq!(log.send(batch(1, 1, 2, 1)), Ok(11));
}

#[test]
fn sequences_wrap_to_zero() {
    let mut log = Log::default();
    assert_eq!(log.send(batch(2, 0, 0, 1)), Ok(0));
    assert_eq!(log.send(batch(1, 0, i32::MAX - 1, 1)), Ok(1));
    // Three records: MAX, 0, 1.
    assert_eq!(log.send(batch(1, 0, i32::MAX, 3)), Ok(2));
    assert_eq!(log.send(batch(1, 0, i32::MAX, 3)), Ok(2));
    assert_eq!(log.send(batch(1, 0, 2, 1)), Ok(5));
}

#[test]
fn an_unknown_producer_begins_at_zero_where_there_never_was_a_record() {
    let mut log = Log::default();
    let overtakes = SequenceError::OutOfOrder {
        producer: ProducerId(1),
        found: 3,
        expected: 0,
    };
    assert_eq!(
        log.send(batch(1, 0, 3, 1)),
        Err(overtakes),
        "the first batch was refused"
    );
    assert_eq!(log.send(batch(1, 0, 0, 3)), Ok(0));
    assert_eq!(log.send(batch(1, 0, 3, 1)), Ok(3));
    assert_eq!(log.send(batch(2, 0, 7, 1)), Ok(4), "it may have been forgotten");
}

#[test]
fn what_was_refused_has_to_come_before_what_was_sent_after_it() {
    let mut log = Log::default();
    log.send(batch(1, 0, 0, 1)).expect("first");
    let before = log.producers.clone();
    let bytes = before.encode(&AbortedIndex::default());
    for (known, producer, sequence) in [(true, 1, 1), (false, 2, 0), (false, 3, 70)] {
        let first = log.producers.record(&batch(producer, 0, sequence, 2), -1, 0);
        let second = log.producers.record(&batch(producer, 0, sequence + 2, 1), -1, 0);
        log.producers.undo(second);
        log.producers.undo(first);
        assert_eq!(log.producers == before, known);
        assert_eq!(
            log.producers.encode(&AbortedIndex::default()),
            bytes,
            "the next start knows nothing of it"
        );
        assert!(
            log.send(batch(producer, 0, sequence + 2, 1)).is_err(),
            "producer {producer}"
        );
        let end = log.end;
        assert_eq!(log.send(batch(producer, 0, sequence, 2)), Ok(end));
        assert_eq!(log.send(batch(producer, 0, sequence + 2, 1)), Ok(end + 2));
        log = Log {
            producers: before.clone(),
            end: log.end,
        };
    }
}

#[test]
fn the_longest_silent_are_forgotten_when_there_are_too_many() {
    let mut producers = Producers::default();
    for id in 0..=PRODUCERS_MAX as i64 {
        producers.record(&batch(id, 0, 0, 1), -1, id);
    }
    let left = producers.producer_count();
    assert!(left <= PRODUCERS_MAX && left > PRODUCERS_MAX / 2, "{left}");
    assert!(producers.entries.contains_key(&ProducerId(PRODUCERS_MAX as i64)));
    assert!(!producers.entries.contains_key(&ProducerId(0)));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let mut producers = Producers::default();
    producers.record(&batch(1, 0, 0, 1), -1, 5);
    let bytes = producers.encode(&AbortedIndex::default());
    for cut in 0..bytes.len() {
        assert!(Producers::decode(&bytes[..cut]).is_err(), "{cut}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Producers::decode(&damaged).is_err(), "{at}");
    }
}

/// Resends in any order within the last five, new batches, gaps: the log must hold every sequence once, in order.
fn steps() -> impl Strategy<Value = Vec<(i64, usize, i32)>> {
    prop::collection::vec((0..3i64, 0..8usize, 1..4i32), 1..200)
}

proptest! {
    #[test]
    fn nothing_is_appended_twice_or_out_of_order(steps in steps()) {
        let mut log = Log::default();
        // What each producer sent and where it went: (sequence, count, offset).
        let mut sent: BTreeMap<i64, Vec<(i32, i32, i64)>> = BTreeMap::new();
        for (producer, back, count) in steps {
            let history = sent.entry(producer).or_default();
            let next = history.last().map_or(0, |(sequence, count, _)| sequence + count);
            if back == 7 {
                // A gap: never taken once the producer is known.
                if !history.is_empty() {
                    prop_assert!(log.send(batch(producer, 0, next + 1, count)).is_err());
                }
                continue;
            }
            if back > 0 && back <= history.len() {
                let (sequence, count, offset) = history[history.len() - back];
                let answer = log.send(batch(producer, 0, sequence, count));
                if back <= BATCHES_MAX {
                    prop_assert_eq!(answer, Ok(offset));
                } else {
                    prop_assert!(answer.is_err());
                }
                continue;
            }
            let end = log.end;
            prop_assert_eq!(log.send(batch(producer, 0, next, count)), Ok(end));
            history.push((next, count, end));
        }
        prop_assert_eq!(Producers::decode(&log.producers.encode(&AbortedIndex::default())), Ok(log.producers.clone()));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut sealed = crc32c(&bytes).to_be_bytes().to_vec();
        sealed.extend_from_slice(&bytes);
        let _ = Producers::decode(&sealed);
    }
}
