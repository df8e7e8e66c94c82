//! The last stable offset and the aborted index, first as a story, then against a model that remembers everything.

use super::*;
use proptest::prelude::*;

const P1: ProducerId = ProducerId(1);
const P2: ProducerId = ProducerId(2);
const EPOCH: ProducerEpoch = ProducerEpoch(0);

fn bounds(found: &[Aborted]) -> Vec<(i64, i64, i64)> {
    let bounds = |aborted: &Aborted| {
        (
            aborted.producer.value(),
            aborted.first.value(),
            aborted.marker.value(),
        )
    };
    found.iter().map(bounds).collect()
}

#[test]
fn nothing_is_stable_behind_an_open_transaction_or_a_marker_that_may_be_lost() {
    let mut transactions = Transactions::default();
    assert_eq!(transactions.first_unstable(), None);
    transactions.record(P1, EPOCH, Offset(10));
    transactions.record(P2, EPOCH, Offset(12));
    transactions.record(P1, EPOCH, Offset(14));
    assert_eq!(transactions.first_unstable(), Some(Offset(10)));
    transactions.end(P1, Offset(16), ControlKind::Commit);
    transactions.committed(Offset(16));
    assert_eq!(
        transactions.first_unstable(),
        Some(Offset(10)),
        "the marker may be lost"
    );
    transactions.committed(Offset(17));
    assert_eq!(transactions.first_unstable(), Some(Offset(12)));
    transactions.end(P2, Offset(17), ControlKind::Abort);
    transactions.committed(Offset(18));
    assert_eq!(transactions.first_unstable(), None);
    assert_eq!(bounds(&transactions.take_aborted()), [(2, 12, 17)]);
    assert_eq!(transactions.take_aborted(), []);
}

#[test]
fn what_was_not_written_is_taken_back() {
    let mut transactions = Transactions::default();
    transactions.record(P1, EPOCH, Offset(10));
    transactions.committed(Offset(11));
    let before = transactions.clone();
    let opened = transactions.record(P2, EPOCH, Offset(11));
    let newer = transactions.record(P1, ProducerEpoch(1), Offset(12));
    let ended = transactions.end(P1, Offset(13), ControlKind::Abort);
    let nothing = transactions.end(P1, Offset(14), ControlKind::Abort);
    for undo in [nothing, ended, newer, opened] {
        transactions.undo(undo);
    }
    assert_eq!(transactions, before);
}

/// One step of a log: a batch, a marker, or the watermark's move to the end.
#[derive(Debug, Clone, Copy)]
enum Step {
    Batch(i64),
    Marker(i64, ControlKind),
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4i64).prop_map(Step::Batch),
        1 => (0..4i64).prop_map(|producer| Step::Marker(producer, ControlKind::Abort)),
        1 => (0..4i64).prop_map(|producer| Step::Marker(producer, ControlKind::Commit)),
        1 => Just(Step::Commit),
    ]
}

proptest! {
    #[test]
    fn the_index_finds_what_a_model_finds(steps in prop::collection::vec(step(), 0..200)) {
        let (mut transactions, mut index) = (Transactions::default(), AbortedIndex::default());
        let mut open: BTreeMap<i64, i64> = BTreeMap::new();
        // First, marker, producer.
        let mut ended: Vec<(i64, i64)> = Vec::new();
        let mut aborted: Vec<(i64, i64, i64)> = Vec::new();
        let (mut end, mut watermark) = (0, 0);
        for step in steps {
            match step {
                Step::Batch(producer) => {
                    transactions.record(ProducerId(producer), EPOCH, Offset(end));
                    open.entry(producer).or_insert(end);
                    end += 1;
                }
                Step::Marker(producer, kind) => {
                    transactions.end(ProducerId(producer), Offset(end), kind);
                    if let Some(first) = open.remove(&producer) {
                        ended.push((first, end));
                        if kind == ControlKind::Abort {
                            aborted.push((producer, first, end));
                        }
                    }
                    end += 1;
                }
                Step::Commit => watermark = end,
            }
            transactions.committed(Offset(watermark));
            index.extend(transactions.take_aborted());
            let undecided = open.values().copied();
            let lost = ended.iter().filter(|(_, marker)| *marker >= watermark).map(|(first, _)| *first);
            let expected = undecided.chain(lost).min();
            prop_assert_eq!(transactions.first_unstable(), expected.map(Offset));
        }
        for from in 0..=end {
            for until in from..=end {
                let overlaps = |(_, first, marker): &&(i64, i64, i64)| *marker >= from && *first < until;
                let expected: Vec<_> = aborted.iter().filter(overlaps).copied().collect();
                prop_assert_eq!(bounds(&index.overlapping(Offset(from), Offset(until))), expected);
            }
            let mut trimmed = index.clone();
            trimmed.trim(Offset(from));
            let kept = aborted.iter().filter(|(_, _, marker)| *marker >= from).count();
            prop_assert_eq!(trimmed.iter().len(), kept);
        }
    }
}
