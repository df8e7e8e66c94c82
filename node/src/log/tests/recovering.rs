//! Opening after a clean end, a kill, a loss of power, and damage.

use super::*;
use crate::sys::disk::Open;
use crate::sys::disk::memory::Operation;

fn path(base: i64, part: folder::Part) -> PathBuf {
    folder::path(Path::new(FOLDER), Offset(base), part)
}

fn fill(log: &mut Log, batches: usize) {
    for n in 0..batches {
        log.append(vec![batch(&[100 + n % 7])], EPOCH).unwrap();
    }
}

#[test]
fn a_new_log_is_empty_and_stays_so() {
    let bench = Bench::new(config());
    for _ in 0..2 {
        let opened = bench.open();
        assert_eq!(opened.recovery, Recovery::default());
        assert_eq!((opened.log.start(), opened.log.end()), (Offset(0), Offset(0)));
        bench.disk.kill();
    }
}

#[test]
fn a_new_log_waits_for_the_device_with_its_first_record_and_not_before() {
    let bench = Bench::new(config());
    let before = bench.disk.calls(Operation::Sync);
    let mut log = bench.log();
    assert_eq!(bench.disk.calls(Operation::Sync) - before, 0);
    fill(&mut log, 1);
    log.flush_now().unwrap();
    drop(log);
    bench.disk.crash();
    assert_eq!(bench.log().end(), Offset(1));
}

#[test]
fn what_a_killed_process_did_not_sync_is_synced_with_the_first_record_of_the_next() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    log.begin_epoch(LeaderEpoch(3)).unwrap();
    drop(log);
    bench.disk.kill();
    let mut log = bench.log();
    log.append(vec![batch(&[10])], LeaderEpoch(3)).unwrap();
    log.close().unwrap();
    bench.disk.crash();
    let log = bench.log();
    assert_eq!(log.end(), Offset(1));
    assert_eq!(log.reader().epochs().epoch_at(Offset(0)), LeaderEpoch(3));
}

#[test]
fn a_log_to_which_nothing_was_added_costs_nothing_to_close() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    fill(&mut log, 3);
    log.close().unwrap();
    let before = bench.disk.calls(Operation::Sync);
    bench.log().close().unwrap();
    assert_eq!(bench.disk.calls(Operation::Sync) - before, 0);
}

#[test]
fn where_a_new_log_begins_is_durable_before_any_record() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    log.restart_at(Offset(7)).unwrap();
    drop(log);
    bench.disk.crash();
    assert_eq!((bench.log().start(), bench.log().end()), (Offset(7), Offset(7)));
}

#[test]
fn after_a_clean_end_nothing_is_checked() {
    let bench = Bench::new(Config {
        segment_bytes: 1000,
        ..config()
    });
    let mut log = bench.log();
    fill(&mut log, 20);
    log.close().unwrap();
    bench.disk.crash();
    let before = bench.disk.calls(Operation::Read);
    let opened = bench.open();
    let reads = bench.disk.calls(Operation::Read) - before;
    assert_eq!(opened.recovery, Recovery::default());
    assert!(reads <= 6, "{reads} reads");
    let synced = opened.log.synced().borrow().clone();
    assert_eq!((opened.log.end(), synced.offset), (Offset(20), Offset(20)));
    assert_eq!(read_all(&opened.log.reader(), Offset(0), 500).len(), 20);
}

#[test]
fn after_a_kill_all_is_there_and_only_the_end_is_checked() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    for _ in 0..3 {
        log.append(vec![batch(&[700_000])], EPOCH).unwrap();
        log.flush();
    }
    let total = log.reader().size_bytes();
    drop(log);
    bench.disk.kill();
    let opened = bench.open();
    assert_eq!(opened.log.end(), Offset(3));
    assert_eq!(opened.recovery.cut, None);
    assert!(
        opened.recovery.checked_bytes < total / 2,
        "{:?} of {total}",
        opened.recovery
    );
    assert_eq!(
        opened.log.synced().borrow().offset,
        Offset(3),
        "and it is durable now"
    );
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_batch_and_reported() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    fill(&mut log, 5);
    let whole = log.reader().size_bytes();
    fill(&mut log, 1);
    drop(log);
    let file = bench.disk.open(&path(0, folder::Part::Log), Open::Write).unwrap();
    for (keep, cut) in [(whole + 150, 150), (whole + 13, 13)] {
        file.truncate(keep).unwrap();
        let Opened { mut log, recovery } = bench.open();
        let told = recovery.cut.unwrap();
        assert_eq!((told.at, told.bytes, told.segments), (Offset(5), cut, 0));
        assert_eq!(read_all(&log.reader(), Offset(0), 300).len(), 5);
        fill(&mut log, 1);
        assert_eq!(read_all(&log.reader(), Offset(0), 300).len(), 6);
    }
}

#[test]
fn a_corrupt_batch_ends_the_log_with_everything_behind_it() {
    let bench = Bench::new(Config {
        segment_bytes: 600,
        ..config()
    });
    let mut log = bench.log();
    fill(&mut log, 12);
    let segments: Vec<_> = log
        .shared
        .segments
        .load()
        .iter()
        .map(|s| s.base().value())
        .collect();
    assert_eq!(segments, [0, 3, 6, 9]);
    drop(log);
    bench.disk.corrupt(&path(3, folder::Part::Log), 250, b"?");
    let Opened { log, recovery } = bench.open();
    let cut = recovery.cut.unwrap();
    assert_eq!((cut.at, cut.segments), (Offset(4), 2));
    assert!(cut.reason.contains("checksum"), "{}", cut.reason);
    assert_eq!(read_all(&log.reader(), Offset(0), 300).len(), 4);
    drop(log);
    assert_eq!(bench.open().log.end(), Offset(4));
}

#[test]
fn without_checkpoint_or_indexes_everything_is_found_again() {
    let bench = Bench::new(Config {
        segment_bytes: 600,
        ..config()
    });
    let mut log = bench.log();
    fill(&mut log, 12);
    log.begin_epoch(LeaderEpoch(8)).unwrap();
    fill_in(&mut log, LeaderEpoch(8), 2);
    let epochs = log.reader().epochs();
    log.close().unwrap();
    for entry in bench.disk.list(Path::new(FOLDER)).unwrap() {
        if !entry.name.ends_with(".log") {
            bench
                .disk
                .remove_file(&Path::new(FOLDER).join(entry.name))
                .unwrap();
        }
    }
    let Opened { log, recovery } = bench.open();
    assert_eq!(recovery.cut, None);
    assert_eq!(recovery.checked_bytes, log.reader().size_bytes());
    assert_eq!(read_all(&log.reader(), Offset(0), 300).len(), 14);
    assert_eq!(log.reader().epochs(), epochs);
}

fn fill_in(log: &mut Log, epoch: LeaderEpoch, batches: usize) {
    for _ in 0..batches {
        log.append(vec![batch(&[100])], epoch).unwrap();
    }
}

#[test]
fn indexes_torn_by_a_crash_are_not_believed() {
    let bench = Bench::new(Config {
        index_interval_bytes: 1,
        ..config()
    });
    let mut log = bench.log();
    for n in 0..30 {
        log.append(vec![batch_at(1000 + n, &[40_000])], EPOCH).unwrap();
    }
    log.flush();
    drop(log);
    bench
        .disk
        .corrupt(&path(0, folder::Part::TimeIndex), 64, &[0; 80]);
    let Opened { log, recovery } = bench.open();
    assert_eq!(
        recovery.checked_bytes,
        log.reader().size_bytes(),
        "checked from the front"
    );
    for n in 0..30 {
        assert_eq!(
            log.reader()
                .find_time(1000 + n, Offset(99))
                .unwrap()
                .unwrap()
                .offset,
            Offset(n)
        );
    }
}

#[test]
fn what_was_synced_and_is_gone_keeps_its_place() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    fill(&mut log, 6);
    log.close().unwrap();
    let file = bench.disk.open(&path(0, folder::Part::Log), Open::Write).unwrap();
    let bytes = file.bytes().unwrap();
    file.truncate(bytes - 10).unwrap();
    let Opened { mut log, recovery } = bench.open();
    assert_eq!(recovery.cut, None, "it was durable: nothing is given up");
    let [lost] = &*recovery.lost else {
        panic!("{recovery:?}")
    };
    assert_eq!((lost.from, lost.until), (Offset(0), Offset(6)));
    assert_eq!((log.start(), log.end()), (Offset(0), Offset(6)));
    // What is whole is served, the rest is refused, and the log goes on behind it.
    fill(&mut log, 1);
    assert_eq!(
        offsets(&log.reader().read_waiting(Offset(4), limits(1)).unwrap()),
        [(4, 5)]
    );
    assert!(matches!(
        log.reader().read_waiting(Offset(5), limits(1)),
        Err(ReadError::Corrupt(_))
    ));
    assert_eq!(read_all(&log.reader(), Offset(6), 300), [(6, 7)]);
    log.close().unwrap();
    bench.disk.remove_file(&path(0, folder::Part::Log)).unwrap();
    bench.disk.remove_file(&path(6, folder::Part::Log)).unwrap();
    let Opened { log, recovery } = bench.open();
    assert_eq!((log.start(), log.end()), (Offset(0), Offset(7)));
    assert!(!recovery.lost.is_empty());
    assert!(matches!(
        log.reader().read_waiting(Offset(0), limits(1)),
        Err(ReadError::Corrupt(_))
    ));
}

#[test]
fn snapshots_come_back_with_the_log() {
    let bench = Bench::new(Config {
        segment_bytes: 600,
        ..config()
    });
    let mut log = bench.log();
    assert_eq!(log.latest_snapshot().unwrap(), None);
    fill(&mut log, 4);
    log.store_snapshot(Offset(3), b"three").unwrap();
    log.store_snapshot(Offset(4), b"four").unwrap();
    log.close().unwrap();
    let mut log = bench.log();
    assert_eq!(
        log.latest_snapshot().unwrap(),
        Some((Offset(4), Bytes::from("four")))
    );
    log.truncate_to(Offset(3)).unwrap();
    assert_eq!(
        log.latest_snapshot().unwrap(),
        Some((Offset(3), Bytes::from("three")))
    );
    log.restart_at(Offset(90)).unwrap();
    assert_eq!(log.latest_snapshot().unwrap(), None);
}
