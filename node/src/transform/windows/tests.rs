//! Windows against a model that takes one record at a time, however the records are cut into batches.

use proptest::prelude::*;

use super::*;

const SETTINGS: Settings = Settings {
    size_ms: 10,
    lateness_ms: 5,
};

/// One emitted result: window start, key, ids of the records in it.
type Emitted = (i64, u8, Vec<u8>);

/// The definition, written down as plainly as possible: a record at a time, closing as soon as one may.
fn model(settings: Settings, records: &[(i64, u8)]) -> (Vec<Emitted>, Vec<usize>) {
    let mut open: BTreeMap<(i64, u8), Vec<u8>> = BTreeMap::new();
    let (mut emitted, mut late) = (Vec::new(), Vec::new());
    let mut watermark = i64::MIN;
    for (id, (at, key)) in records.iter().enumerate() {
        let start = at.div_euclid(settings.size_ms) * settings.size_ms;
        if start + settings.size_ms <= watermark {
            late.push(id);
            continue;
        }
        open.entry((start, *key)).or_default().push(id as u8);
        watermark = watermark.max(at - settings.lateness_ms);
        let still = open.split_off(&(watermark - settings.size_ms + 1, 0));
        emitted.extend(open.into_iter().map(|((start, key), ids)| (start, key, ids)));
        open = still;
    }
    emitted.extend(open.into_iter().map(|((start, key), ids)| (start, key, ids)));
    (emitted, late)
}

fn emit(windows: &mut Windows, bytes_max: usize, emitted: &mut Vec<Emitted>) {
    loop {
        let closed = windows.closed(bytes_max);
        if closed.is_empty() {
            return;
        }
        windows.remove(&closed);
        emitted.extend(
            closed
                .iter()
                .map(|it| (it.start_ms, it.key[0], it.state.to_vec())),
        );
    }
}

/// Runs batches through windows whose "guest" appends each record's id to the accumulator.
fn run(
    settings: Settings,
    records: &[(i64, u8)],
    cuts: &[usize],
    bytes_max: usize,
) -> (Vec<Emitted>, Vec<usize>) {
    let mut windows = Windows::new(settings);
    let (mut emitted, mut late) = (Vec::new(), Vec::new());
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
        let mut states: Vec<Vec<u8>> = assignment
            .groups
            .iter()
            .map(|group| group.state.as_deref().unwrap_or_default().to_vec())
            .collect();
        for (index, number) in assignment.numbers.iter().enumerate() {
            if *number != NO_GROUP {
                states[*number as usize].push((from + index) as u8);
            }
        }
        late.extend(assignment.late.iter().map(|index| from + *index as usize));
        let states: Vec<_> = states.iter().map(|state| Some(&state[..])).collect();
        windows.apply(&assignment, &states);
        // Going through a restore must make no difference.
        let groups: Vec<_> = windows
            .groups()
            .map(|(key, state)| (key, Arc::clone(state)))
            .collect();
        let restored = Windows::restore(settings, windows.watermark_ms(), groups);
        assert_eq!(restored.bytes(), windows.bytes());
        windows = restored;
        emit(&mut windows, bytes_max, &mut emitted);
        from = to;
    }
    windows.close_all();
    emit(&mut windows, bytes_max, &mut emitted);
    assert!(windows.is_empty());
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
    for expected in [3 + 3 + GROUP_OVERHEAD_BYTES, 0] {
        let before = windows.bytes();
        let assignment = windows.assign(&records);
        assert_eq!(Windows::growth(&assignment, &states), expected);
        windows.apply(&assignment, &states);
        assert_eq!(windows.bytes() - before, expected);
    }
}

proptest! {
    #[test]
    fn batches_of_any_cut_agree_with_the_model(
        records in prop::collection::vec((-60i64..60, 0u8..4), 0..60),
        mut cuts in prop::collection::vec(0usize..60, 0..6),
        lateness_ms in 0i64..30,
        size_ms in 1i64..25,
        bytes_max in 1usize..1000,
    ) {
        cuts.sort_unstable();
        let settings = Settings { size_ms, lateness_ms };
        prop_assert_eq!(run(settings, &records, &cuts, bytes_max), model(settings, &records));
    }
}
