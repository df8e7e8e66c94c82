//! Truncating, restarting, trimming, retention: what goes, what stays, and what a crash in between leaves.

use std::time::Duration;

use super::*;

fn filled(config: Config, batches: i64) -> (Bench, Log) {
    let bench = Bench::new(config);
    let mut log = bench.log();
    for n in 0..batches {
        log.append(
            vec![batch_at(1_000 * n, &[100, 100])],
            LeaderEpoch((n / 3) as i32),
        )
        .unwrap();
    }
    (bench, log)
}

fn names(bench: &Bench) -> Vec<String> {
    bench
        .disk
        .list(Path::new(FOLDER))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect()
}

#[test]
fn truncation_takes_whole_batches_from_the_end() {
    for to in 0..=20 {
        let (bench, mut log) = filled(
            Config {
                segment_bytes: 800,
                ..config()
            },
            10,
        );
        let end = log.truncate_to(Offset(to)).unwrap();
        assert_eq!(end, Offset(to / 2 * 2));
        let expected: Vec<_> = (0..to / 2).map(|n| (2 * n, 2 * n + 2)).collect();
        let epochs = log.reader().epochs();
        assert!(epochs.entries().iter().all(|entry| entry.start < end));
        assert_eq!(read_all(&log.reader(), Offset(0), 150), expected, "to {to}");
        assert_eq!(
            log.reader().find_max_time(end).unwrap().map(|found| found.offset),
            (to > 1).then(|| end.plus(-1))
        );
        log.append(vec![batch(&[7])], LeaderEpoch(50)).unwrap();
        let mut expected = expected;
        expected.push((end.value(), end.value() + 1));
        for bytes_max in [1, 9999] {
            assert_eq!(read_all(&log.reader(), Offset(0), bytes_max), expected);
        }
        log.flush();
        drop(log);
        bench.disk.crash();
        let log = bench.log();
        assert_eq!(read_all(&log.reader(), Offset(0), 150), expected);
        assert_eq!(log.reader().epochs().latest(), LeaderEpoch(50));
    }
}

#[test]
fn truncation_is_durable_and_what_is_written_after_it_is_checked() {
    let (bench, mut log) = filled(config(), 10);
    log.flush_now().unwrap();
    log.truncate_to(Offset(8)).unwrap();
    for _ in 0..6 {
        log.append(vec![batch(&[99, 99])], LeaderEpoch(9)).unwrap();
    }
    drop(log);
    bench.disk.crash();
    let log = bench.log();
    let all = read_all(&log.reader(), Offset(0), 9999);
    assert!(all.len() >= 4, "the synced part is there");
    for slice in all.iter().skip(4) {
        let read = log.reader().read_waiting(Offset(slice.0), limits(1)).unwrap();
        let batch = BatchView::parse(joined(&read)).unwrap();
        assert_eq!(
            batch.header().partition_leader_epoch,
            LeaderEpoch(9),
            "nothing comes back from before"
        );
    }
}

#[test]
fn truncation_outside_of_the_log_is_refused_or_nothing() {
    let (_bench, mut log) = filled(config(), 4);
    log.trim_to(Offset(2)).unwrap();
    assert_eq!(log.truncate_to(Offset(8)).unwrap(), Offset(8));
    assert_eq!(log.truncate_to(Offset(99)).unwrap(), Offset(8));
    assert!(matches!(
        log.truncate_to(Offset(1)),
        Err(ChangeError::OutOfRange { .. })
    ));
}

#[test]
fn a_restart_empties_the_log_and_goes_on_elsewhere() {
    for (at, crashes) in [(100, true), (3, true), (0, false), (8, true)] {
        let (bench, mut log) = filled(
            Config {
                segment_bytes: 500,
                ..config()
            },
            6,
        );
        log.flush_now().unwrap();
        log.restart_at(Offset(at)).unwrap();
        if crashes {
            drop(log);
            bench.disk.crash();
            log = bench.log();
        }
        assert_eq!((log.start(), log.end()), (Offset(at), Offset(at)));
        assert!(log.reader().epochs().entries().is_empty());
        assert_eq!(
            names(&bench).iter().filter(|name| name.ends_with(".log")).count(),
            1
        );
        log.append(vec![batch(&[1])], EPOCH).unwrap();
        assert_eq!(read_all(&log.reader(), Offset(at), 10), [(at, at + 1)]);
    }
}

#[test]
fn a_restart_cut_short_by_a_crash_is_finished_at_the_next_start() {
    use crate::sys::disk::memory::Operation;
    for step in 0..4 {
        let (bench, mut log) = filled(
            Config {
                segment_bytes: 500,
                ..config()
            },
            6,
        );
        log.flush_now().unwrap();
        bench.disk.fail(Operation::Sync, step, std::io::ErrorKind::Other);
        let restarted = log.restart_at(Offset(50));
        drop(log);
        bench.disk.crash();
        let log = bench.log();
        match (log.start().value(), log.end().value()) {
            (50, 50) => assert_eq!(read_all(&log.reader(), Offset(50), 10), []),
            (0, 12) => {
                assert!(restarted.is_err());
                assert_eq!(read_all(&log.reader(), Offset(0), 10).len(), 6);
            }
            other => panic!("neither the old log nor the new one: {other:?}"),
        }
    }
}

#[test]
fn trimming_hides_at_once_and_frees_whole_segments() {
    let (bench, mut log) = filled(
        Config {
            segment_bytes: 500,
            ..config()
        },
        10,
    );
    let before = log.reader().size_bytes();
    log.trim_to(Offset(7)).unwrap();
    assert!(log.reader().size_bytes() < before);
    assert_eq!(read_all(&log.reader(), Offset(7), 1)[0], (6, 8));
    assert_eq!(log.reader().epochs().entries()[0].start, Offset(7));
    assert!(matches!(
        log.trim_to(Offset(21)),
        Err(ChangeError::OutOfRange { .. })
    ));
    log.trim_to(Offset(3)).unwrap();
    drop(log);
    bench.disk.crash();
    assert!(bench.log().start() == Offset(7));
    let mut log = bench.log();
    log.trim_to(log.end()).unwrap();
    assert_eq!(log.start(), log.end());
}

#[test]
fn retention_by_size_removes_the_oldest_segments_first() {
    let (_bench, mut log) = filled(
        Config {
            segment_bytes: 800,
            retention_bytes: Some(1500),
            ..config()
        },
        12,
    );
    let maintained = log.maintain(Offset(6)).unwrap();
    assert_eq!(maintained.start, Offset(4), "what is still needed stays");
    let maintained = log.maintain(log.end()).unwrap();
    assert_eq!(maintained.start, Offset(12));
    assert!(maintained.removed_bytes > 0);
    let size = log.reader().size_bytes();
    assert!((1500..2300).contains(&size), "{size}");
    assert_eq!(log.maintain(log.end()).unwrap().removed_bytes, 0);
}

#[test]
fn retention_by_time_removes_what_is_old_even_the_newest_segment() {
    let (bench, mut log) = filled(
        Config {
            segment_bytes: 800,
            retention_ms: Some(5_000),
            ..config()
        },
        12,
    );
    bench.sys.clock.set_unix_ms(10_500);
    let maintained = log.maintain(log.end()).unwrap();
    assert_eq!((maintained.start, maintained.rolled_at), (Offset(12), None));
    bench.sys.clock.advance(Duration::from_secs(60));
    let maintained = log.maintain(log.end()).unwrap();
    assert_eq!(
        (maintained.start, maintained.rolled_at),
        (Offset(24), Some(Offset(24)))
    );
    assert_eq!(log.reader().size_bytes(), 0);
    log.append(vec![batch(&[1])], LeaderEpoch(99)).unwrap();
    log.close().unwrap();
    let log = bench.log();
    assert_eq!((log.start(), log.end()), (Offset(24), Offset(25)));
    assert_eq!(
        names(&bench).iter().filter(|name| name.ends_with(".log")).count(),
        1
    );
}

#[test]
fn a_removed_log_leaves_nothing() {
    let (bench, log) = filled(config(), 3);
    log.remove().unwrap();
    assert!(bench.disk.list(Path::new("topics")).unwrap().is_empty());
    assert_eq!(bench.log().end(), Offset(0));
}

#[test]
fn a_truncation_without_room_changes_nothing_and_may_be_tried_again() {
    let (bench, mut log) = filled(config(), 4);
    log.begin_epoch(LeaderEpoch(9)).unwrap();
    log.flush_now().unwrap();
    let end = log.end();
    bench.disk.set_capacity(0);
    let refused = log.truncate_to(end);
    assert!(matches!(refused, Err(ChangeError::Full)), "{refused:?}");
    let latest = |log: &Log| log.reader().epochs().latest();
    assert_eq!(latest(&log), LeaderEpoch(9));
    bench.disk.set_capacity(u64::MAX);
    assert_eq!(log.truncate_to(end).unwrap(), end);
    assert_eq!(latest(&log), LeaderEpoch(1), "the one without a record is gone");
    log.append(vec![batch_at(9_000, &[100])], LeaderEpoch(2)).unwrap();
}
