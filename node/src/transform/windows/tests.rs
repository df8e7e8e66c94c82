//! Windows against models that take one record at a time, however the records are cut into batches.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::answer::NO_GROUP;
use super::slots::SLOT_BYTES;
use super::*;

const SETTINGS: Settings = Settings {
    shape: WindowShape::Tumbling { size_ms: 10 },
    lateness_ms: 5,
};

/// One emitted result: window start and end, key, ids of the records in it.
type Emitted = (i64, i64, u8, Vec<u8>);
/// What was emitted, in order, and the ids of the records that were late.
type Outcome = (Vec<Emitted>, Vec<usize>);

/// The definitions, written down as plainly as possible: a record at a time, closing as soon as one may.
fn model(settings: Settings, records: &[(i64, u8)]) -> Outcome {
    let lateness_ms = settings.lateness_ms;
    match settings.shape {
        WindowShape::Tumbling { size_ms } => aligned(size_ms, size_ms, lateness_ms, records),
        WindowShape::Hopping { size_ms, advance_ms } => aligned(size_ms, advance_ms, lateness_ms, records),
        WindowShape::Sliding { size_ms } => sliding(size_ms, lateness_ms, records),
        WindowShape::Session { gap_ms } => sessions(gap_ms, lateness_ms, records),
    }
}

fn aligned(size_ms: i64, advance_ms: i64, lateness_ms: i64, records: &[(i64, u8)]) -> Outcome {
    let mut open: BTreeMap<(i64, u8), Vec<u8>> = BTreeMap::new();
    let (mut emitted, mut late) = (Vec::new(), Vec::new());
    let mut watermark = i64::MIN;
    for (id, (at, key)) in records.iter().enumerate() {
        let starts = (at - size_ms + 1..=*at).filter(|start| start.rem_euclid(advance_ms) == 0);
        let starts: Vec<i64> = starts.filter(|start| start + size_ms > watermark).collect();
        if starts.is_empty() {
            late.push(id);
            continue;
        }
        for start in starts {
            open.entry((start, *key)).or_default().push(id as u8);
        }
        watermark = watermark.max(at - lateness_ms);
        let still = open.split_off(&(watermark - size_ms + 1, 0));
        let closed = std::mem::replace(&mut open, still).into_iter();
        emitted.extend(closed.map(|((start, key), ids)| (start, start + size_ms, key, ids)));
    }
    let rest = open.into_iter();
    emitted.extend(rest.map(|((start, key), ids)| (start, start + size_ms, key, ids)));
    (emitted, late)
}

fn sliding(size_ms: i64, lateness_ms: i64, records: &[(i64, u8)]) -> Outcome {
    let mut counted: Vec<usize> = Vec::new();
    let mut due: BTreeSet<(i64, u8)> = BTreeSet::new();
    let (mut emitted, mut late) = (Vec::new(), Vec::new());
    let mut watermark = i64::MIN;
    let tell = |(start, key): (i64, u8), counted: &[usize], emitted: &mut Vec<Emitted>| {
        let within = |id: &&usize| {
            let (at, of) = records[**id];
            of == key && (start..start + size_ms).contains(&at)
        };
        let ids: Vec<u8> = counted.iter().filter(within).map(|id| *id as u8).collect();
        if !ids.is_empty() {
            emitted.push((start, start + size_ms, key, ids));
        }
    };
    for (id, (at, key)) in records.iter().enumerate() {
        if at + size_ms <= watermark {
            late.push(id);
            continue;
        }
        counted.push(id);
        // It ends one window, which may be closed, and begins one behind itself.
        if at + 1 > watermark {
            due.insert((at - size_ms + 1, *key));
        }
        due.insert((at + 1, *key));
        watermark = watermark.max(at - lateness_ms);
        let still = due.split_off(&(watermark - size_ms + 1, 0));
        let closed = std::mem::replace(&mut due, still);
        closed
            .into_iter()
            .for_each(|window| tell(window, &counted, &mut emitted));
    }
    due.into_iter()
        .for_each(|window| tell(window, &counted, &mut emitted));
    (emitted, late)
}

fn sessions(gap_ms: i64, lateness_ms: i64, records: &[(i64, u8)]) -> Outcome {
    /// First and last record, key, ids.
    type Session = (i64, i64, u8, Vec<u8>);
    let mut open: Vec<Session> = Vec::new();
    let (mut emitted, mut late) = (Vec::new(), Vec::new());
    let mut watermark = i64::MIN;
    let mut close = |open: &mut Vec<Session>, watermark: i64| {
        let (mut closed, still): (Vec<_>, Vec<_>) = std::mem::take(open)
            .into_iter()
            .partition(|session| session.1 + gap_ms < watermark);
        *open = still;
        closed.sort_by_key(|session| (session.1, session.2));
        let closed = closed.into_iter();
        emitted.extend(closed.map(|(first, last, key, ids)| (first, last + 1, key, ids)));
    };
    for (id, (at, key)) in records.iter().enumerate() {
        let (mut touched, rest): (Vec<_>, Vec<_>) = open
            .into_iter()
            .partition(|(first, last, of, _)| of == key && (first - gap_ms..=last + gap_ms).contains(at));
        open = rest;
        if touched.is_empty() && at + gap_ms < watermark {
            late.push(id);
            continue;
        }
        touched.sort_by_key(|session| session.0);
        let first = touched.iter().map(|session| session.0).min();
        let last = touched.iter().map(|session| session.1).max();
        let mut ids: Vec<u8> = touched.into_iter().flat_map(|session| session.3).collect();
        ids.push(id as u8);
        let (first, last) = (first.unwrap_or(*at).min(*at), last.unwrap_or(*at).max(*at));
        open.push((first, last, *key, ids));
        watermark = watermark.max(at - lateness_ms);
        close(&mut open, watermark);
    }
    close(&mut open, i64::MAX);
    (emitted, late)
}

fn emit(windows: &mut Windows, bytes_max: usize, emitted: &mut Vec<Emitted>, log: &mut Log) {
    loop {
        log.extend(windows.sweep());
        let closed = windows.closed(bytes_max);
        if closed.is_empty() {
            return;
        }
        log.extend(windows.remove(&closed));
        let each = closed.iter();
        emitted.extend(each.map(|it| (it.start_ms, it.end_ms, it.key[0], it.state.to_vec())));
    }
}

/// What a changelog would hold.
#[derive(Default)]
struct Log(BTreeMap<GroupKey, Arc<[u8]>>);

impl Log {
    fn extend(&mut self, changes: Vec<GroupChange>) {
        for (key, kept) in changes {
            match kept {
                Some(kept) => self.0.insert(key, kept),
                None => self.0.remove(&key),
            };
        }
    }
}

/// The "guest": it appends each record's id to the accumulator, and joins accumulators by writing one behind the other.
fn fold(assignment: &Assignment<'_>, from: usize) -> Vec<Option<Vec<u8>>> {
    let states = assignment.groups.iter().map(|group| group.state.as_deref());
    let mut states: Vec<Option<Vec<u8>>> = states.map(|state| state.map(<[u8]>::to_vec)).collect();
    let turns = assignment.turns();
    for turn in 0..turns {
        for Merge { from, into, .. } in assignment.merges(turn) {
            let both = from.map(|group| states[group].clone().expect("a session has an accumulator"));
            states[into] = Some(both.concat());
        }
        for (index, number) in assignment.numbers(turn, turns).iter().enumerate() {
            if *number != NO_GROUP {
                let state = states[*number as usize].get_or_insert_default();
                state.push((from + index) as u8);
            }
        }
    }
    states
}

fn run(settings: Settings, records: &[(i64, u8)], cuts: &[usize], bytes_max: usize) -> Outcome {
    let mut windows = Windows::new(settings);
    let (mut emitted, mut late) = (Vec::new(), Vec::new());
    let mut log = Log::default();
    let mut from = 0;
    for to in cuts.iter().copied().chain([records.len()]) {
        let to = to.clamp(from, records.len());
        let keys: Vec<[u8; 1]> = records[from..to].iter().map(|(_, key)| [*key]).collect();
        let keyed: Vec<_> = records[from..to]
            .iter()
            .zip(&keys)
            .map(|((at, _), key)| {
                Some(Keyed {
                    event_time_ms: *at,
                    key: &key[..],
                })
            })
            .collect();
        let assignment = windows.assign(&keyed);
        late.extend(assignment.late.iter().map(|index| from + *index as usize));
        let states = fold(&assignment, from);
        let states: Vec<_> = states.iter().map(Option::as_deref).collect();
        let (growth, before) = (windows.growth(&assignment, &states), windows.bytes());
        // What is undone leaves no trace.
        let all: Vec<_> = windows.groups().collect();
        let watermark_ms = windows.watermark_ms();
        windows.apply(&assignment, &states);
        windows.undo();
        assert_eq!((windows.watermark_ms(), windows.bytes()), (watermark_ms, before));
        assert_eq!(windows.groups().collect::<Vec<_>>(), all);
        log.extend(windows.apply(&assignment, &states).kept);
        windows.keep();
        assert!(
            windows.bytes() <= before + growth,
            "it grew by more than was said"
        );
        // Going through a restore, from what was kept so far, must make no difference.
        assert_eq!(windows.groups().collect::<BTreeMap<_, _>>(), log.0);
        let restored = Windows::restore(settings, windows.watermark_ms(), log.0.clone());
        assert_eq!(restored.bytes(), windows.bytes());
        windows = restored;
        emit(&mut windows, bytes_max, &mut emitted, &mut log);
        from = to;
    }
    windows.close_all();
    emit(&mut windows, bytes_max, &mut emitted, &mut log);
    log.extend(windows.sweep());
    assert!(windows.is_empty() && log.0.is_empty(), "{:?} is left", log.0);
    assert_eq!(windows.bytes(), 0);
    (emitted, late)
}

#[test]
fn a_window_closes_when_the_watermark_reaches_its_end() {
    let keyed = |at| {
        [Some(Keyed {
            event_time_ms: at,
            key: b"k",
        })]
    };
    let mut windows = Windows::new(SETTINGS);
    for (at, open) in [(3, 1), (14, 2), (15, 1)] {
        let records = keyed(at);
        let assignment = windows.assign(&records);
        windows.apply(&assignment, &[Some(b"s")]);
        let closed = windows.closed(usize::MAX);
        windows.remove(&closed);
        assert_eq!(windows.groups().count(), open, "after event time {at}");
    }
    assert_eq!(windows.assign(&keyed(9)).late, [0], "the window 0..10 is closed");
    assert_eq!(windows.assign(&keyed(10)).late, [] as [u32; 0]);
}

#[test]
fn a_batch_that_was_not_applied_leaves_no_trace() {
    let mut windows = Windows::new(SETTINGS);
    let records = [Some(Keyed {
        event_time_ms: 1_000,
        key: b"k",
    })];
    windows.assign(&records);
    assert_eq!(windows.watermark_ms(), None);
    assert!(windows.is_empty());
    windows.close_all();
    assert_eq!(windows.watermark_ms(), None);
}

#[test]
fn times_at_the_edge_of_the_range_are_windows_too() {
    let mut windows = Windows::new(SETTINGS);
    let records = [i64::MIN, -1, 0, i64::MAX].map(|at| {
        Some(Keyed {
            event_time_ms: at,
            key: b"k".as_slice(),
        })
    });
    let assignment = windows.assign(&records);
    assert_eq!(assignment.groups.len(), 4);
    assert_eq!(assignment.groups[1].start_ms, -10);
    windows.apply(&assignment, &[Some(b"s".as_slice()); 4]);
    windows.close_all();
    assert_eq!(windows.closed(usize::MAX).len(), 4);
}

#[test]
fn growth_is_what_apply_adds() {
    let mut windows = Windows::new(SETTINGS);
    let records = [1, 2, 11].map(|at| {
        Some(Keyed {
            event_time_ms: at,
            key: b"key".as_slice(),
        })
    });
    let states: [Option<&[u8]>; 2] = [Some(b"one"), None];
    for expected in [3 + 3 + SLOT_BYTES, 0] {
        let before = windows.bytes();
        let assignment = windows.assign(&records);
        assert_eq!(windows.growth(&assignment, &states), expected);
        windows.apply(&assignment, &states);
        assert_eq!(windows.bytes() - before, expected);
    }
}

#[test]
fn hopping_windows_share_records() {
    let shape = WindowShape::Hopping {
        size_ms: 10,
        advance_ms: 5,
    };
    let settings = Settings {
        shape,
        lateness_ms: 0,
    };
    let (emitted, late) = run(settings, &[(1, 0), (7, 0), (12, 0), (2, 0)], &[2], 1000);
    let expected: [Emitted; 4] = [
        (-5, 5, 0, vec![0]),
        (0, 10, 0, vec![0, 1]),
        (5, 15, 0, vec![1, 2]),
        (10, 20, 0, vec![2]),
    ];
    assert_eq!((emitted, late), (expected.to_vec(), vec![3]));
}

#[test]
fn sliding_windows_are_those_that_differ() {
    let shape = WindowShape::Sliding { size_ms: 10 };
    let settings = Settings {
        shape,
        lateness_ms: 0,
    };
    let (emitted, _) = run(settings, &[(10, 0), (14, 0), (30, 0)], &[], 1000);
    let expected: [Emitted; 4] = [
        (1, 11, 0, vec![0]),
        (5, 15, 0, vec![0, 1]),
        (11, 21, 0, vec![1]),
        (21, 31, 0, vec![2]),
    ];
    assert_eq!(emitted, expected);
}

#[test]
fn a_record_between_two_sessions_makes_them_one() {
    let shape = WindowShape::Session { gap_ms: 5 };
    let settings = Settings {
        shape,
        lateness_ms: 100,
    };
    let records = [(0, 0), (10, 0), (3, 1), (11, 0), (5, 0), (30, 0)];
    for cuts in [&[][..], &[2], &[4], &[1, 2, 3, 4, 5]] {
        let (emitted, late) = run(settings, &records, cuts, 1000);
        let expected: [Emitted; 3] = [
            (3, 4, 1, vec![2]),
            (0, 12, 0, vec![0, 1, 3, 4]),
            (30, 31, 0, vec![5]),
        ];
        assert_eq!((emitted, late), (expected.to_vec(), vec![]), "{cuts:?}");
    }
}

#[test]
fn what_a_node_of_before_kept_of_tumbling_windows_is_read() {
    let kept = ((10, Arc::from(*b"key")), Arc::from(*b"state"));
    let windows = Windows::restore(SETTINGS, Some(3), [kept.clone()]);
    let open = windows.all();
    assert_eq!(
        (open[0].start_ms, open[0].end_ms, &*open[0].state),
        (10, 20, &b"state"[..])
    );
    assert_eq!(windows.groups().collect::<Vec<_>>(), [kept]);
}

fn shapes() -> impl Strategy<Value = WindowShape> {
    prop_oneof![
        (1i64..25).prop_map(|size_ms| WindowShape::Tumbling { size_ms }),
        (1i64..25, 1i64..25).prop_map(|(one, other)| WindowShape::Hopping {
            size_ms: one.max(other),
            advance_ms: one.min(other),
        }),
        (1i64..25).prop_map(|size_ms| WindowShape::Sliding { size_ms }),
        (1i64..25).prop_map(|gap_ms| WindowShape::Session { gap_ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn batches_of_any_cut_agree_with_the_model(
        shape in shapes(),
        records in prop::collection::vec((-60i64..60, 0u8..3), 0..60),
        mut cuts in prop::collection::vec(0usize..60, 0..6),
        lateness_ms in 0i64..30,
        bytes_max in 1usize..1000,
    ) {
        cuts.sort_unstable();
        let settings = Settings { shape, lateness_ms };
        prop_assert_eq!(run(settings, &records, &cuts, bytes_max), model(settings, &records));
    }
}
