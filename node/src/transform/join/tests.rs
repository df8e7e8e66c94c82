//! Joins against a plain model: it has all records of a run at once and asks, of each, what it may meet.

use proptest::prelude::*;

use super::*;

/// A pair as it is compared: key, time, and the numbers of the records on either side.
type Line = (Option<u8>, i64, Option<u16>, Option<u16>);

/// A record of a run, numbered by its place in it.
#[derive(Debug, Clone, Copy)]
struct Event {
    side: Side,
    key: Option<u8>,
    at_ms: i64,
    has_value: bool,
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Left), Just(Side::Right)]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let key = prop_oneof![1 => Just(None), 12 => (0u8..3).prop_map(Some)];
    let event = (side(), key, -20i64..60, prop::bool::weighted(0.9));
    let event = event.prop_map(|(side, key, at_ms, has_value)| Event {
        side,
        key,
        at_ms,
        has_value,
    });
    prop::collection::vec(event, 0..40)
}

fn kinds() -> impl Strategy<Value = JoinKind> {
    prop_oneof![Just(JoinKind::Inner), Just(JoinKind::Left), Just(JoinKind::Outer)]
}

fn join(kind: JoinKind, with: JoinWith) -> Join {
    Join {
        topic: "right".to_owned(),
        kind,
        with,
        left_key: None,
        right_key: None,
    }
}

/// Runs events through a joiner that is restored from what it kept wherever `restarts` says so.
fn run(join: &Join, events: &[Event], restarts: &[bool]) -> (Vec<Line>, Vec<Taken>, usize) {
    let mut joiner = Joiner::restore(join, usize::MAX, None, []);
    let mut kept: BTreeMap<Arc<[u8]>, Arc<[u8]>> = BTreeMap::new();
    let (mut lines, mut taken) = (Vec::new(), Vec::new());
    for (number, event) in events.iter().enumerate() {
        let (key, value) = (event.key.map(|key| [key]), (number as u16).to_be_bytes());
        let given = Given {
            side: event.side,
            offset: Offset(number as i64),
            timestamp_ms: event.at_ms,
            key: key.as_ref().map(<[u8; 1]>::as_slice),
            value: event.has_value.then_some(value.as_slice()),
            headers: Headers::NONE,
        };
        let number_of = |half: Half<'_>| u16::from_be_bytes(half.value.try_into().unwrap());
        let mut tell = |pair: &Pair<'_>| {
            let (left, right) = (pair.left.map(number_of), pair.right.map(number_of));
            lines.push((pair.key.map(|key| key[0]), pair.timestamp_ms, left, right));
        };
        taken.push(joiner.take(&given, &mut tell).unwrap());
        for (key, value) in joiner.changes() {
            match value {
                Some(value) => kept.insert(key, value),
                None => kept.remove(&key),
            };
        }
        if restarts.get(number) == Some(&true) {
            joiner = Joiner::restore(join, usize::MAX, joiner.clock_ms(), kept.clone());
        }
        let now: BTreeMap<_, _> = joiner.entries().collect();
        assert_eq!(now, kept.iter().collect(), "what is kept is what is there");
    }
    let bytes = kept
        .iter()
        .map(|(key, value)| key.len() + value.len() + ENTRY_OVERHEAD_BYTES);
    assert_eq!(joiner.bytes(), bytes.sum::<usize>());
    (lines, taken, kept.len())
}

/// The latest time of all events up to each.
fn clocks(events: &[Event]) -> Vec<i64> {
    let latest = |(index, _): (usize, &Event)| events[..=index].iter().map(|event| event.at_ms).max();
    events.iter().enumerate().filter_map(latest).collect()
}

/// Of two streams: every two records of a key and of either side that are near enough, unless one came when it was too late for
/// anything; and what met nothing by the time that it was over.
fn plain_streams(kind: JoinKind, within_ms: i64, grace_ms: i64, events: &[Event]) -> (Vec<Line>, Vec<usize>) {
    let clocks = clocks(events);
    let is_over = |event: &Event, clock_ms: i64| event.at_ms + within_ms < clock_ms - grace_ms;
    let is_late = |index: usize| events[index].has_value && is_over(&events[index], clocks[index]);
    let takes_part = |index: &usize| events[*index].has_value && !is_late(*index);
    let all: Vec<usize> = (0..events.len()).filter(takes_part).collect();
    let is_outer = |side| match kind {
        JoinKind::Inner => false,
        JoinKind::Left => side == Side::Left,
        JoinKind::Outer => true,
    };
    let (mut lines, mut met) = (Vec::new(), vec![false; events.len()]);
    for (left, right) in all
        .iter()
        .flat_map(|left| all.iter().map(move |right| (*left, *right)))
    {
        let (one, other) = (&events[left], &events[right]);
        let is_pair = one.side == Side::Left && other.side == Side::Right;
        if is_pair
            && one.key.is_some()
            && one.key == other.key
            && one.at_ms.abs_diff(other.at_ms) <= within_ms as u64
        {
            // The one that was there first must have been there still.
            let (first, second) = (left.min(right), left.max(right));
            if !is_over(&events[first], clocks[second]) {
                (met[left], met[right]) = (true, true);
                lines.push((
                    one.key,
                    one.at_ms.max(other.at_ms),
                    Some(left as u16),
                    Some(right as u16),
                ));
            }
        }
    }
    for index in all {
        let event = &events[index];
        let is_told = event.key.is_none() || is_over(event, *clocks.last().unwrap());
        if is_outer(event.side) && !met[index] && is_told {
            let number = Some(index as u16);
            lines.push(match event.side {
                Side::Left => (event.key, event.at_ms, number, None),
                Side::Right => (event.key, event.at_ms, None, number),
            });
        }
    }
    lines.sort();
    (lines, (0..events.len()).filter(|index| is_late(*index)).collect())
}

/// Of a table: for each record of the left side the last of the right side's records of its key before it.
fn plain_table(kind: JoinKind, events: &[Event]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (index, event) in events.iter().enumerate() {
        if event.side != Side::Left || !event.has_value {
            continue;
        }
        let is_entry = |at: &usize| events[*at].side == Side::Right && events[*at].key == event.key;
        let last = (0..index).rev().find(is_entry);
        let entry = last.filter(|at| event.key.is_some() && events[*at].has_value);
        if entry.is_some() || kind == JoinKind::Left {
            lines.push((
                event.key,
                event.at_ms,
                Some(index as u16),
                entry.map(|at| at as u16),
            ));
        }
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streams_are_joined_as_the_model_says_with_a_restore_at_any_point(
        kind in kinds(),
        within_ms in 0i64..15,
        grace_ms in 0i64..20,
        events in events(),
        restarts in prop::collection::vec(any::<bool>(), 40),
    ) {
        let with = JoinWith::Stream { within_ms, grace_ms };
        let (mut lines, taken, _) = run(&join(kind, with), &events, &restarts);
        lines.sort();
        let (expected, late) = plain_streams(kind, within_ms, grace_ms, &events);
        prop_assert_eq!(lines, expected);
        let seen: Vec<usize> = (0..taken.len()).filter(|at| taken[*at] == Taken::Late).collect();
        prop_assert_eq!(seen, late);
    }

    #[test]
    fn a_table_is_looked_up_as_the_model_says_with_a_restore_at_any_point(
        kind in prop_oneof![Just(JoinKind::Inner), Just(JoinKind::Left)],
        events in events(),
        restarts in prop::collection::vec(any::<bool>(), 40),
    ) {
        let (lines, ..) = run(&join(kind, JoinWith::Table), &events, &restarts);
        prop_assert_eq!(lines, plain_table(kind, &events));
    }
}

fn event(side: Side, key: u8, at_ms: i64) -> Event {
    Event {
        side,
        key: Some(key),
        at_ms,
        has_value: true,
    }
}

#[test]
fn nothing_is_kept_longer_than_it_can_be_met() {
    let with = JoinWith::Stream {
        within_ms: 10,
        grace_ms: 5,
    };
    let begin = [event(Side::Left, 1, 0), event(Side::Right, 2, 1)];
    let kept = |at_ms| {
        let events = [&begin[..], &[event(Side::Left, 3, at_ms)]].concat();
        run(&join(JoinKind::Inner, with), &events, &[]).2
    };
    assert_eq!((kept(15), kept(16), kept(17)), (3, 2, 1));
}

#[test]
fn it_is_bounded_and_times_do_not_overflow() {
    let with = JoinWith::Stream {
        within_ms: 10,
        grace_ms: 5,
    };
    let mut joiner = Joiner::restore(&join(JoinKind::Outer, with), 1_000, None, []);
    let value = vec![0; ENTRY_BYTES_MAX];
    let mut give = |timestamp_ms: i64, value: &[u8]| {
        let given = Given {
            side: Side::Left,
            offset: Offset(timestamp_ms),
            timestamp_ms,
            key: Some(b"k"),
            value: Some(value),
            headers: Headers::NONE,
        };
        joiner.take(&given, &mut |_| ())
    };
    assert_eq!(give(i64::MIN, b"v"), Ok(Taken::Used));
    assert_eq!(give(i64::MAX, b"v"), Ok(Taken::Used));
    assert_eq!(give(0, b"v"), Ok(Taken::Late));
    assert!(matches!(give(i64::MAX, &value), Err(TakeError::Entry { .. })));
    assert_eq!(
        give(i64::MAX, &value[..2_000]),
        Err(TakeError::State { limit: 1_000 })
    );
}

#[test]
fn what_is_kept_is_written_so() {
    let with = JoinWith::Stream {
        within_ms: 10,
        grace_ms: 0,
    };
    for (with, name, value) in [
        (JoinWith::Table, "02 00000001 07", "0000"),
        (
            with,
            "02 00000001 07 8000000000000005 0000000000000000",
            "00 00000000 00000000 0000",
        ),
    ] {
        let mut joiner = Joiner::restore(&join(JoinKind::Left, with), usize::MAX, None, []);
        let given = Given {
            side: Side::Right,
            offset: Offset(0),
            timestamp_ms: 5,
            key: Some(&[7]),
            value: Some(&[0, 0]),
            headers: Headers::NONE,
        };
        joiner.take(&given, &mut |_| ()).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let kept: Vec<_> = joiner
            .entries()
            .map(|(key, value)| (hex(key), hex(value)))
            .collect();
        assert_eq!(kept, [(name.replace(' ', ""), value.replace(' ', ""))]);
    }
}
