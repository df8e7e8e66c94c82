//! Made-up histories: a good one, and for each property one that violates it and nothing else.

use proptest::prelude::*;

use crate::{Event, Judge, Kind, Property, Verdict};

/// A history in the making; times rise by themselves.
#[derive(Default)]
struct History {
    judge: Judge,
    now: u64,
}

impl History {
    fn event(&mut self, kind: Kind, client: &str, fill: impl FnOnce(&mut Event<'_>)) -> &mut Self {
        self.now += 100;
        let mut event = Event::new(kind, client, 0);
        event.at = Some(self.now);
        fill(&mut event);
        // Through text, so that the format is in every test.
        let line = serde_json::to_vec(&event).expect("an event is JSON");
        self.judge.line(&line);
        self
    }

    fn invoke(&mut self, client: &str, sequence: u64) -> &mut Self {
        self.event(Kind::Invoke, client, |event| event.sequence = Some(sequence))
    }

    fn ok(&mut self, client: &str, sequence: u64, offset: u64) -> &mut Self {
        self.event(Kind::Ok, client, |event| {
            (event.sequence, event.offset) = (Some(sequence), Some(offset));
        })
    }

    fn ended(&mut self, kind: Kind, client: &str, sequence: u64) -> &mut Self {
        self.event(kind, client, |event| event.sequence = Some(sequence))
    }

    fn sent(&mut self, client: &str, sequence: u64, offset: u64) -> &mut Self {
        self.invoke(client, sequence).ok(client, sequence, offset)
    }

    fn start(&mut self, client: &str, offset: u64) -> &mut Self {
        self.event(Kind::Start, client, |event| event.offset = Some(offset))
    }

    fn read(&mut self, client: &str, offset: u64, (producer, sequence): (&str, u64)) -> &mut Self {
        self.now += 100;
        let mut event = Event::new(Kind::Read, client, 0);
        (event.offset, event.sequence, event.producer) = (Some(offset), Some(sequence), Some(producer));
        self.judge.event(&event);
        self
    }

    /// Reads the whole log when all is over.
    fn closing(&mut self, log: &[(&str, u64)]) -> &mut Self {
        self.event(Kind::Closing, "closing", |_| {}).start("closing", 0);
        for (offset, record) in (0..).zip(log) {
            self.read("closing", offset, *record);
        }
        self.event(Kind::End, "closing", |event| {
            event.offset = Some(log.len() as u64)
        })
    }

    fn replica(&mut self, node: &str, batches: &[(u64, u64, i64, u64)]) -> &mut Self {
        for (base, last, epoch, digest) in batches {
            self.event(Kind::Batch, node, |event| {
                (event.offset, event.last) = (Some(*base), Some(*last));
                (event.epoch, event.digest) = (Some(*epoch), Some(*digest));
            });
        }
        let end = batches.last().map_or(0, |batch| batch.1 + 1);
        self.event(Kind::Replica, node, |event| {
            (event.offset, event.last) = (Some(0), Some(end))
        })
    }

    fn verdict(&mut self) -> Verdict {
        std::mem::take(&mut self.judge).verdict()
    }
}

/// Fails unless these properties, and no others, are violated.
fn check(violated: &[(Property, u64)], make: impl FnOnce(&mut History)) -> Verdict {
    let mut history = History::default();
    make(&mut history);
    let verdict = history.verdict();
    for property in Property::ALL {
        let expected = violated
            .iter()
            .find(|(known, _)| *known == property)
            .map_or(0, |(_, count)| *count);
        assert_eq!(verdict.count(property), expected, "{property:?}\n{verdict}");
    }
    assert_eq!(verdict.holds(), violated.is_empty());
    verdict
}

const P: &str = "p";
const Q: &str = "q";

#[test]
fn a_good_history_holds() {
    let verdict = check(&[], |history| {
        history.sent(P, 0, 0).invoke(Q, 0).sent(P, 1, 1).ok(Q, 0, 2);
        // Three that nobody heard of again: one is there, two are not.
        history
            .invoke(P, 2)
            .ended(Kind::Unknown, P, 2)
            .invoke(P, 3)
            .invoke(P, 4)
            .ended(Kind::Fail, P, 4);
        history
            .start("c", 0)
            .read("c", 0, (P, 0))
            .read("c", 1, (P, 1))
            .start("c", 0)
            .read("c", 0, (P, 0));
        history.closing(&[(P, 0), (P, 1), (Q, 0), (P, 2)]);
        history
            .replica("n1", &[(0, 1, 0, 7), (2, 3, 1, 8)])
            .replica("n2", &[(0, 1, 0, 7)]);
    });
    let volume = verdict.volume;
    assert_eq!(
        (volume.invoked, volume.acknowledged, volume.in_log, volume.read),
        (6, 3, 4, 3)
    );
    assert_eq!((volume.unknown, volume.failed, volume.unfinished), (1, 1, 1));
    assert_eq!(
        (volume.batches_compared, volume.replicas, volume.partitions),
        (1, 2, 1)
    );
}

#[test]
fn an_acknowledged_record_that_is_not_there_is_lost() {
    check(&[(Property::Lost, 1)], |history| {
        history.sent(P, 0, 0).sent(P, 1, 1).closing(&[(P, 0)]);
    });
    // Acknowledged without an offset.
    check(&[(Property::Lost, 1)], |history| {
        history
            .sent(P, 0, 0)
            .invoke(P, 1)
            .ended(Kind::Ok, P, 1)
            .closing(&[(P, 0)]);
    });
}

#[test]
fn a_record_that_is_there_twice_is_a_duplicate() {
    check(&[(Property::Duplicate, 1)], |history| {
        history.sent(P, 0, 0).closing(&[(P, 0), (P, 0)]);
    });
    // Also behind others, where it is in the wrong place too, and behind what was sent later.
    let violated = [
        (Property::Duplicate, 1),
        (Property::Reordered, 1),
        (Property::RealTime, 1),
    ];
    check(&violated, |history| {
        history
            .sent(P, 0, 0)
            .sent(P, 1, 1)
            .closing(&[(P, 0), (P, 1), (P, 0)]);
    });
}

#[test]
fn a_producer_s_records_stand_in_the_order_they_were_sent() {
    check(&[(Property::Reordered, 1)], |history| {
        history
            .invoke(P, 0)
            .invoke(P, 1)
            .ok(P, 1, 0)
            .ok(P, 0, 1)
            .closing(&[(P, 1), (P, 0)]);
    });
}

#[test]
fn what_nobody_sent_is_a_phantom() {
    check(&[(Property::Phantom, 1)], |history| {
        history.sent(P, 0, 0).closing(&[(P, 0), ("stranger", 4)]);
    });
    check(&[(Property::Phantom, 1)], |history| {
        history.sent(P, 0, 0).start("c", 1);
        history
            .event(Kind::Alien, "c", |event| event.offset = Some(1))
            .closing(&[(P, 0)]);
    });
}

#[test]
fn what_was_refused_is_not_written() {
    check(&[(Property::FailedYetWritten, 1)], |history| {
        history
            .sent(P, 0, 0)
            .invoke(P, 1)
            .ended(Kind::Fail, P, 1)
            .closing(&[(P, 0), (P, 1)]);
    });
}

#[test]
fn an_offset_holds_one_record() {
    // For two consumers.
    check(&[(Property::TwoContents, 1)], |history| {
        history
            .sent(P, 0, 0)
            .invoke(Q, 0)
            .start("c", 0)
            .read("c", 0, (Q, 0))
            .closing(&[(P, 0)]);
    });
    // For a producer and a consumer: acknowledged at one place, found at another.
    check(&[(Property::TwoContents, 1)], |history| {
        history
            .invoke(Q, 0)
            .invoke(P, 0)
            .ok(P, 0, 1)
            .closing(&[(P, 0), (Q, 0)]);
    });
}

#[test]
fn what_was_read_stays() {
    check(&[(Property::Vanished, 1)], |history| {
        history
            .sent(P, 0, 0)
            .invoke(P, 1)
            .start("c", 1)
            .read("c", 1, (P, 1))
            .closing(&[(P, 0)]);
    });
}

#[test]
fn a_consumer_goes_forward_without_gaps() {
    check(&[(Property::ReadAgain, 1)], |history| {
        history.sent(P, 0, 0).sent(P, 1, 1).closing(&[(P, 0), (P, 1)]);
        history
            .start("c", 0)
            .read("c", 0, (P, 0))
            .read("c", 1, (P, 1))
            .read("c", 0, (P, 0));
    });
    check(&[(Property::ReadGap, 2)], |history| {
        history
            .sent(P, 0, 0)
            .sent(P, 1, 1)
            .sent(P, 2, 2)
            .closing(&[(P, 0), (P, 1), (P, 2)]);
        history
            .start("c", 0)
            .read("c", 1, (P, 1))
            .start("d", 0)
            .read("d", 0, (P, 0))
            .read("d", 2, (P, 2));
    });
}

#[test]
fn what_was_acknowledged_before_stands_before() {
    check(&[(Property::RealTime, 1)], |history| {
        history.sent(P, 0, 1).sent(Q, 0, 0).closing(&[(Q, 0), (P, 0)]);
    });
    // Under way at the same time, either order is right.
    check(&[], |history| {
        history
            .invoke(Q, 0)
            .sent(P, 0, 1)
            .ok(Q, 0, 0)
            .closing(&[(Q, 0), (P, 0)]);
    });
}

#[test]
fn replicas_agree_below_the_lowest_end() {
    let other = [(0, 1, 0, 7), (2, 3, 1, 9), (4, 4, 1, 1)];
    check(&[(Property::Diverged, 1)], |history| {
        history
            .replica("n1", &[(0, 1, 0, 7), (2, 3, 1, 8), (4, 4, 1, 1)])
            .replica("n2", &other);
    });
    // Other cuts between batches, the same records: still not the same bytes.
    check(&[(Property::Diverged, 1)], |history| {
        history
            .replica("n1", &[(0, 3, 0, 7)])
            .replica("n2", &[(0, 1, 0, 7), (2, 3, 0, 7)]);
    });
    // An epoch that differs is another leader's batch.
    check(&[(Property::Diverged, 1)], |history| {
        history
            .replica("n1", &[(0, 1, 0, 7)])
            .replica("n2", &[(0, 1, 1, 7)]);
    });
}

#[test]
fn a_replica_has_no_gap_and_no_falling_epoch() {
    check(&[(Property::BrokenReplica, 2)], |history| {
        history.replica("n1", &[(0, 1, 1, 7), (3, 3, 1, 8), (4, 4, 0, 8)]);
    });
}

#[test]
fn a_history_that_says_nothing_is_not_good() {
    check(&[(Property::History, 1)], |_| {});
    // The log was never read, or not to its end.
    check(&[(Property::History, 1)], |history| {
        history.sent(P, 0, 0);
    });
    check(&[(Property::History, 1)], |history| {
        history.sent(P, 0, 0).closing(&[(P, 0)]);
        history.event(Kind::End, "closing", |event| event.offset = Some(2));
    });
    check(&[(Property::History, 3)], |history| {
        history.sent(P, 0, 0).invoke(P, 0).ok(P, 0, 0).closing(&[(P, 0)]);
        history.judge.line(b"{\"event\":\"mystery\",\"client\":\"c\"}\n");
    });
}

#[test]
fn a_last_line_that_was_cut_off_is_passed_over() {
    let mut judge = Judge::default();
    let lines = b"{\"event\":\"invoke\",\"client\":\"p\",\"partition\":0,\"sequence\":0,\"at\":1}\n{\"event\":\"ok\",\"cl";
    judge.read(&lines[..]).expect("bytes can be read");
    let verdict = judge.verdict();
    assert_eq!(verdict.volume.unfinished, 1);
}

/// A log as a broker without mistakes makes it: records of a few producers, each acknowledged or in doubt, some in doubt
/// not written.
fn good_log() -> impl Strategy<Value = Vec<(usize, bool, bool)>> {
    proptest::collection::vec((0..3_usize, any::<bool>(), any::<bool>()), 1..60)
}

proptest! {
    /// No false alarm on a log without mistakes; and whatever single record of it is taken out, doubled or swapped with
    /// its neighbour is found, if anybody was told of it.
    #[test]
    fn mistakes_are_found_and_no_others(plan in good_log(), mistake in 0..4_u8, place in any::<prop::sample::Index>()) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let mut history = History::default();
        let mut sequences = [0_u64; 3];
        let mut log = Vec::new();
        for (producer, acknowledged, written) in plan {
            let (name, sequence) = (NAMES[producer], sequences[producer]);
            sequences[producer] += 1;
            history.invoke(name, sequence);
            if acknowledged {
                history.ok(name, sequence, log.len() as u64);
            }
            if acknowledged || written {
                log.push((name, sequence, acknowledged));
            }
        }
        prop_assume!(log.iter().any(|(_, _, acknowledged)| *acknowledged));
        let at = place.index(log.len());
        let must_be_found = match mistake {
            0 => false,
            1 => log.remove(at).2,
            2 => { log.insert(at, log[at]); true }
            _ => {
                let next = (at + 1).min(log.len() - 1);
                log.swap(at, next);
                at != next && (log[at].2 || log[next].2)
            }
        };
        let log: Vec<(&str, u64)> = log.iter().map(|(name, sequence, _)| (*name, *sequence)).collect();
        let verdict = history.closing(&log).verdict();
        if mistake == 0 {
            prop_assert!(verdict.holds(), "{verdict}");
        }
        if must_be_found {
            prop_assert!(!verdict.holds(), "mistake {mistake} at {at} of {log:?}\n{verdict}");
        }
    }
}
