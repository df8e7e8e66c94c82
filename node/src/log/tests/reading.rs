//! Reading: no gap at any size, from memory, from files, across their seams; times; damage.

use super::*;

/// How many ways a log of these batches can lie: segments, tail, opened anew, with holes.
/// Its name, the log, and base and next offsets of its batches.
type Layout = (String, Bench, Log, Vec<(i64, i64)>);

fn layouts() -> Vec<Layout> {
    let sizes: [&[&[usize]]; 4] = [
        &[&[1], &[1], &[1], &[1], &[1], &[1]],
        &[&[10, 20], &[300], &[1], &[700], &[5, 5, 5, 5], &[90]],
        &[&[900], &[1], &[900], &[1]],
        &[&[40], &[50], &[60], &[70, 1], &[80], &[90], &[100, 2], &[110]],
    ];
    let mut out = Vec::new();
    for (number, batches) in sizes.into_iter().enumerate() {
        for segment_bytes in [150, 500, 1 << 30] {
            for tail_bytes_max in [0, 600, 1 << 20] {
                for step in [1, 3] {
                    let config = Config {
                        segment_bytes,
                        tail_bytes_max,
                        index_interval_bytes: 200,
                        ..config()
                    };
                    let bench = Bench::new(config);
                    let mut log = bench.log();
                    let mut expected = Vec::new();
                    for sizes in batches {
                        let base = log.end().value() + step - 1;
                        let batch = batch(sizes).stamp(Offset(base), EPOCH).unwrap();
                        log.append_copy(vec![batch], CopyEpochs::Keep).unwrap();
                        expected.push((base, log.end().value()));
                    }
                    let name =
                        format!("{number}: segments {segment_bytes} tail {tail_bytes_max} step {step}");
                    out.push((name, bench, log, expected));
                }
            }
        }
    }
    out
}

#[test]
fn no_read_of_any_size_leaves_a_gap() {
    for (name, bench, log, expected) in layouts() {
        let total = log.reader().size_bytes() as usize;
        let check = |reader: &LogReader, how: &str| {
            for bytes_max in 1..=total + 1 {
                let all = read_all(reader, Offset(0), bytes_max);
                assert_eq!(all, expected, "{name}, {how}, {bytes_max} bytes at a time");
            }
            for from in 0..reader.end().value() {
                let slice = reader.read_waiting(Offset(from), limits(1)).unwrap();
                let holding = expected.iter().find(|(_, next)| *next > from).unwrap();
                assert_eq!(offsets(&slice), [*holding], "{name}, {how}, from {from}");
                assert_eq!(slice.next.value(), holding.1);
            }
        };
        check(&log.reader(), "as written");
        log.close().unwrap();
        check(&bench.log().reader(), "opened anew");
    }
}

#[test]
fn reads_keep_to_their_limits() {
    for (name, _bench, log, expected) in layouts() {
        let reader = log.reader();
        for until in 0..=log.end().value() {
            for from in [0, until / 2, until] {
                let limits = Limits {
                    until: Offset(until),
                    ..limits(usize::MAX)
                };
                let slice = reader.read_waiting(Offset(from), limits).unwrap();
                let inside = expected.iter().filter(|(_, next)| *next <= until && *next > from);
                assert_eq!(
                    offsets(&slice),
                    inside.copied().collect::<Vec<_>>(),
                    "{name} until {until}"
                );
                assert!(slice.next.value() <= until && slice.next.value() >= from);
            }
        }
        for bytes_max in 0..=400 {
            let limits = Limits {
                oversize: Oversize::Withhold,
                ..limits(bytes_max)
            };
            let slice = reader.read_waiting(Offset(0), limits).unwrap();
            assert!(slice.bytes <= bytes_max, "{name}");
            let given = offsets(&slice);
            assert_eq!(given, expected[..given.len()]);
        }
    }
}

#[test]
fn chunks_of_a_large_log_join_without_a_gap() {
    let bench = Bench::new(Config {
        segment_bytes: 5 << 20,
        tail_bytes_max: 300_000,
        ..config()
    });
    let mut log = bench.log();
    let sizes = [70_000, 10, 1_500_000, 16_000, 400_000, 1 << 20, 100, 33_000];
    for round in 0..3 {
        for size in sizes {
            log.append(vec![batch(&[size + round]), batch(&[50, 60])], EPOCH)
                .unwrap();
        }
    }
    let count = 6 * sizes.len();
    for bytes_max in [
        1,
        300,
        16_384,
        16_385,
        100_000,
        1 << 20,
        (1 << 20) + 61,
        3 << 20,
        usize::MAX,
    ] {
        let all = read_all(&log.reader(), Offset(0), bytes_max);
        assert_eq!(all.len(), count, "{bytes_max}");
        assert!(all.windows(2).all(|pair| pair[0].1 == pair[1].0), "{bytes_max}");
    }
}

#[test]
fn an_offset_outside_of_the_log_is_refused() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    log.append(vec![batch(&[1, 2]), batch(&[3])], EPOCH).unwrap();
    log.trim_to(Offset(1)).unwrap();
    let reader = log.reader();
    for asked in [0, 4] {
        let Err(ReadError::OutOfRange { start, end, .. }) = reader.read_waiting(Offset(asked), limits(9))
        else {
            panic!("{asked} was read")
        };
        assert_eq!((start, end), (Offset(1), Offset(3)));
    }
    assert_eq!(
        offsets(&reader.read_waiting(Offset(1), limits(9)).unwrap()),
        [(0, 2)],
        "the batch it lies in"
    );
    let at_end = reader.read_waiting(Offset(3), limits(9)).unwrap();
    assert_eq!((at_end.bytes, at_end.next), (0, Offset(3)));
}

#[tokio::test]
async fn a_read_that_must_wait_waits_elsewhere() {
    let bench = Bench::new(Config {
        tail_bytes_max: 0,
        ..config()
    });
    let mut log = bench.log();
    log.append(vec![batch(&[100]), batch(&[200])], EPOCH).unwrap();
    let reader = log.reader();
    assert_eq!(
        reader.read_now(Offset(0), limits(1)).unwrap(),
        None,
        "where it lies is not known yet"
    );
    let slice = reader.read(Offset(0), limits(1)).await.unwrap();
    assert_eq!(offsets(&slice), [(0, 1)]);
    let onward = reader
        .read_now(slice.next, limits(1))
        .unwrap()
        .expect("a sequential read goes on at once");
    assert_eq!(offsets(&onward), [(1, 2)]);
}

#[test]
fn damage_is_found_before_it_is_handed_out_and_hides_nothing_else() {
    let bench = Bench::new(Config {
        tail_bytes_max: 0,
        index_interval_bytes: 1,
        ..config()
    });
    let mut log = bench.log();
    for size in [200, 201, 202] {
        log.append(vec![batch(&[size])], EPOCH).unwrap();
    }
    let first = log.reader().read_waiting(Offset(0), limits(1)).unwrap().bytes;
    let file = folder::path(Path::new(FOLDER), Offset(0), folder::Part::Log);
    bench.disk.corrupt(&file, first + 100, b"?");
    let reader = log.reader();
    assert_eq!(
        offsets(&reader.read_waiting(Offset(0), limits(9999)).unwrap()),
        [(0, 1)]
    );
    let Err(ReadError::Corrupt(damaged)) = reader.read_waiting(Offset(1), limits(9999)) else {
        panic!("damage was handed out")
    };
    assert_eq!((damaged.from, damaged.until), (Offset(0), Offset(3)));
    assert_eq!(damaged.position, first as u64);
    assert_eq!(
        offsets(&reader.read_waiting(Offset(2), limits(9999)).unwrap()),
        [(2, 3)]
    );
}

#[test]
fn a_damaged_index_is_rebuilt_and_a_lost_one_too() {
    let bench = Bench::new(Config {
        segment_bytes: 2_000,
        tail_bytes_max: 0,
        index_interval_bytes: 1,
        ..config()
    });
    let mut log = bench.log();
    for n in 0..20 {
        log.append(vec![batch_at(1_000 + 10 * n, &[400])], EPOCH).unwrap();
    }
    log.close().unwrap();
    let path = |part| folder::path(Path::new(FOLDER), Offset(0), part);
    bench
        .disk
        .corrupt(&path(folder::Part::Index), 8, &[0, 0, 0, 3, 0, 0, 0, 7]);
    let second = folder::path(Path::new(FOLDER), Offset(4), folder::Part::TimeIndex);
    bench.disk.remove_file(&second).unwrap();
    let log = bench.log();
    let reader = log.reader();
    for from in 0..20 {
        let slice = reader.read_waiting(Offset(from), limits(1)).unwrap();
        assert_eq!(offsets(&slice), [(from, from + 1)]);
        let found = reader.find_time(1_000 + 10 * from, Offset(99)).unwrap().unwrap();
        assert_eq!(found.offset, Offset(from));
    }
}

#[test]
fn records_are_found_by_time() {
    let bench = Bench::new(Config {
        segment_bytes: 700,
        index_interval_bytes: 1,
        ..config()
    });
    let mut log = bench.log();
    assert_eq!(log.reader().find_time(0, Offset(99)).unwrap(), None);
    assert_eq!(log.reader().find_max_time(Offset(99)).unwrap(), None);
    // Times go up and down; a batch's records are one millisecond apart.
    let times = [100, 200, 150, 400, 300, 500, 50, 450];
    for time in times {
        log.append(vec![batch_at(time, &[100, 100, 100])], EPOCH).unwrap();
    }
    let at: Vec<i64> = times
        .iter()
        .flat_map(|time| [*time, time + 1, time + 2])
        .collect();
    let check = |log: &Log, start: i64| {
        let reader = log.reader();
        for wanted in 0..520 {
            let offset = (start..24).find(|offset| at[*offset as usize] >= wanted);
            let found = reader.find_time(wanted, Offset(24)).unwrap();
            assert_eq!(
                found.map(|found| found.offset.value()),
                offset,
                "time {wanted} from {start}"
            );
            if let Some(found) = found {
                assert_eq!(found.timestamp_ms, at[found.offset.value() as usize]);
                assert_eq!(found.leader_epoch, EPOCH);
            }
        }
        for until in [3, 9, 12, 15, 24] {
            if until <= start {
                continue;
            }
            let max = (start..until).max_by_key(|o| (at[*o as usize], -*o)).unwrap();
            let found = reader.find_max_time(Offset(until)).unwrap().unwrap();
            // Batches count whole: the start may lie inside of one.
            assert_eq!(found.offset.value(), max, "max until {until} from {start}");
        }
        assert_eq!(
            reader.find_time(502, Offset(17)).unwrap(),
            None,
            "behind what may be seen"
        );
    };
    check(&log, 0);
    log.trim_to(Offset(3)).unwrap();
    check(&log, 3);
    log.trim_to(Offset(10)).unwrap();
    check(&log, 10);
    log.close().unwrap();
    check(&bench.log(), 10);
}

#[test]
fn headers_are_shown_again_from_any_batch_on() {
    for (name, _bench, log, expected) in layouts() {
        for from in 0..=log.end().value() {
            let mut seen = Vec::new();
            let visit = |header: &BatchHeader, _| {
                seen.push((header.base_offset.value(), header.next_offset().value()))
            };
            log.reader().replay(Offset(from), Offset::ZERO, visit).unwrap();
            let wanted: Vec<_> = expected
                .iter()
                .filter(|(_, next)| *next > from)
                .copied()
                .collect();
            assert_eq!(seen, wanted, "{name} from {from}");
        }
    }
}

#[test]
fn the_bytes_from_an_offset_on_are_what_a_reader_gets() {
    for (name, _bench, log, _) in layouts() {
        let reader = log.reader();
        for from in 0..=reader.end().value() {
            let (mut at, mut read) = (Offset(from), 0);
            while at < reader.end() {
                let slice = reader.read_waiting(at, limits(1 << 20)).unwrap();
                read += slice.bytes as u64;
                at = slice.next;
            }
            assert_eq!(
                reader.bytes_from_waiting(Offset(from)).unwrap(),
                read,
                "{name}, from {from}"
            );
        }
    }
}
