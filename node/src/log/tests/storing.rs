//! Appending: stamps, segments, a full disk, failures, memory.

use std::io::ErrorKind;

use super::*;
use crate::sys::disk::Open;
use crate::sys::disk::memory::Operation;

#[test]
fn batches_get_the_next_offsets_and_the_epoch_and_stay_whole() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    let shared = batch(&[10, 20]);
    let kept = shared.clone();
    let appended = log
        .append(vec![batch(&[5]), shared, batch(&[1, 2, 3])], EPOCH)
        .unwrap();
    assert_eq!((appended.base, appended.next), (Offset(0), Offset(6)));
    let slice = log.reader().read_waiting(Offset(0), limits(9999)).unwrap();
    assert_eq!(offsets(&slice), [(0, 1), (1, 3), (3, 6)]);
    for batch in Batches::new(joined(&slice)) {
        assert_eq!(batch.unwrap().header().partition_leader_epoch, EPOCH);
    }
    assert_eq!(kept.base_offset(), Offset(0), "what others hold is not changed");
    let nothing = log.append(vec![], EPOCH).unwrap();
    assert_eq!((nothing.base, nothing.next), (Offset(6), Offset(6)));
}

#[test]
fn a_full_segment_begins_the_next_with_the_offset_in_its_name() {
    let bench = Bench::new(Config {
        segment_bytes: 400,
        ..config()
    });
    let mut log = bench.log();
    let rolls: Vec<_> = (0..6)
        .map(|_| log.append(vec![batch(&[50, 50])], EPOCH).unwrap().rolled_at)
        .collect();
    assert_eq!(rolls, [None, None, Some(Offset(4)), None, Some(Offset(8)), None]);
    let names: Vec<_> = bench
        .disk
        .list(Path::new(FOLDER))
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert!(
        names.contains(&"00000000000000000008.log".to_owned()),
        "{names:?}"
    );
    assert!(
        names.contains(&"00000000000000000004.timeindex".to_owned()),
        "{names:?}"
    );
    assert_eq!(read_all(&log.reader(), Offset(0), 1).len(), 6);
    // A batch larger than any segment has one of its own.
    let large = log.append(vec![batch(&[1000])], EPOCH).unwrap();
    assert_eq!(large.rolled_at, Some(Offset(12)));
}

#[test]
fn a_segment_rolls_when_its_records_or_its_days_are_old() {
    let bench = Bench::new(Config {
        segment_ms: 1000,
        ..config()
    });
    let mut log = bench.log();
    let append = |log: &mut Log, time| log.append(vec![batch_at(time, &[1])], EPOCH).unwrap().rolled_at;
    assert_eq!(append(&mut log, 5_000), None);
    assert_eq!(append(&mut log, 5_999), None);
    assert_eq!(append(&mut log, 6_000), Some(Offset(2)));
    bench.sys.clock.advance(std::time::Duration::from_millis(999));
    assert_eq!(log.maintain(Offset(0)).unwrap().rolled_at, None);
    bench.sys.clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(log.maintain(Offset(0)).unwrap().rolled_at, Some(Offset(3)));
    bench.sys.clock.advance(std::time::Duration::from_secs(9));
    assert_eq!(
        log.maintain(Offset(0)).unwrap().rolled_at,
        None,
        "an empty segment stays"
    );
}

/// A log with one batch in a segment of 1,000 bytes, on a disk that takes so many bytes more.
fn with_room(bytes: u64) -> (Bench, Log) {
    let bench = Bench::new(Config {
        segment_bytes: 1000,
        ..config()
    });
    let mut log = bench.log();
    log.append(vec![batch(&[300])], EPOCH).unwrap();
    log.flush_now().unwrap();
    bench.disk.leave_room(bytes);
    (bench, log)
}

#[test]
fn a_full_disk_refuses_serves_reads_and_recovers_by_itself() {
    let (bench, mut log) = with_room(200);
    for sizes in [300, 900] {
        let refused = log.append(vec![batch(&[10]), batch(&[sizes])], EPOCH);
        assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
        assert_eq!(log.end(), Offset(1));
        assert_eq!(read_all(&log.reader(), Offset(0), 9999), [(0, 1)]);
    }
    log.append(vec![batch(&[20])], EPOCH).unwrap();
    bench.disk.set_capacity(u64::MAX);
    log.append(vec![batch(&[300])], EPOCH).unwrap();
    log.close().unwrap();
    assert_eq!(
        read_all(&bench.log().reader(), Offset(0), 9999),
        [(0, 1), (1, 2), (2, 3)]
    );
}

#[test]
fn a_segment_that_a_full_disk_has_no_room_for_leaves_nothing_behind() {
    let (bench, mut log) = with_room(0);
    let refused = log.append(vec![batch(&[900])], EPOCH);
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
    bench.disk.set_capacity(u64::MAX);
    // It fits into the old segment: nothing may begin where it lies.
    log.append(vec![batch(&[20])], EPOCH).unwrap();
    log.append(vec![batch(&[900])], EPOCH).unwrap();
    log.flush_now().unwrap();
    bench.disk.crash();
    drop(log);
    let left = bench.disk.open(
        Path::new(FOLDER).join("00000000000000000001.log").as_path(),
        Open::Read,
    );
    assert_eq!(
        left.map(drop).map_err(|error| error.kind()),
        Err(ErrorKind::NotFound)
    );
    assert_eq!(
        read_all(&bench.log().reader(), Offset(0), 9999),
        [(0, 1), (1, 2), (2, 3)]
    );
}

#[test]
fn an_epoch_that_a_full_disk_has_no_room_for_begins_when_there_is_some() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    let begin = |log: &mut Log, epoch| log.begin_epoch(LeaderEpoch(epoch)).and_then(|()| log.flush_now());
    // Of a log that is new not even the names are there yet; later a part of the entry fits.
    for (epoch, rooms) in [(3, &[0, 30][..]), (7, &[10])] {
        for room in rooms {
            bench.disk.leave_room(*room);
            let refused = begin(&mut log, epoch);
            assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
            assert!(log.broken().is_none());
        }
        bench.disk.set_capacity(u64::MAX);
        begin(&mut log, epoch).unwrap();
        assert_eq!(log.reader().epochs().latest(), LeaderEpoch(epoch));
        log.append(vec![batch(&[10])], LeaderEpoch(epoch)).unwrap();
    }
    // The record fits, its epoch does not.
    let sizes = |log: &Log| log.shared.segments.load()[0].bytes();
    let before = sizes(&log);
    log.append(vec![batch(&[10])], LeaderEpoch(7)).unwrap();
    bench.disk.leave_room(sizes(&log) - before + 5);
    let next = batch(&[10]).stamp(log.end(), LeaderEpoch(9)).unwrap();
    let refused = log.append_copy(vec![next.clone()], CopyEpochs::Keep);
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
    assert_eq!(log.reader().epochs().latest(), LeaderEpoch(7));
    bench.disk.set_capacity(u64::MAX);
    log.append_copy(vec![next], CopyEpochs::Keep).unwrap();
    log.close().unwrap();
    let log = bench.log();
    assert!(log.epochs.is_whole());
    let known: Vec<_> = log
        .reader()
        .epochs()
        .entries()
        .iter()
        .map(|known| known.epoch.value())
        .collect();
    assert_eq!(known, [3, 7, 9]);
    assert_eq!(log.end(), Offset(4));
}

#[test]
fn records_leave_room_that_other_writes_may_take() {
    let mut bench = Bench::new(config());
    bench.logs = Logs::new(&bench.sys, 1 << 20).sparing(10_000);
    let mut log = bench.log();
    log.append(vec![batch(&[300])], EPOCH).unwrap();
    bench.disk.leave_room(10_000);
    let large = || batch(&[300 << 10]);
    let refused = log.append(vec![large()], LeaderEpoch(EPOCH.value() + 1));
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
    log.begin_epoch(LeaderEpoch(EPOCH.value() + 1))
        .expect("room is left");
    bench.disk.leave_room(1 << 20);
    log.append(vec![large()], LeaderEpoch(EPOCH.value() + 1)).unwrap();
    assert_eq!(log.end(), Offset(2));
}

#[test]
fn after_a_failed_write_nothing_is_trusted_until_opened_anew() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    log.append(vec![batch(&[10])], EPOCH).unwrap();
    bench.disk.fail(Operation::Write, 0, ErrorKind::Other);
    assert!(matches!(
        log.append(vec![batch(&[11])], EPOCH),
        Err(AppendError::Broken(_))
    ));
    assert!(matches!(
        log.append(vec![batch(&[12])], EPOCH),
        Err(AppendError::Broken(_))
    ));
    assert!(log.synced().borrow().broken.is_some());
    assert!(log.flush_now().is_err());
    assert_eq!(read_all(&log.reader(), Offset(0), 9999), [(0, 1)]);
    drop(log);
    let mut log = bench.log();
    log.append(vec![batch(&[13])], EPOCH).unwrap();
    assert_eq!(read_all(&log.reader(), Offset(0), 9999), [(0, 1), (1, 2)]);
}

#[test]
fn a_failed_sync_is_never_repeated_and_believed() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    log.append(vec![batch(&[10])], EPOCH).unwrap();
    log.flush();
    assert_eq!(log.synced().borrow().offset, Offset(1));
    log.append(vec![batch(&[11])], EPOCH).unwrap();
    bench.disk.fail(Operation::Sync, 0, ErrorKind::Other);
    log.flush();
    log.flush();
    let synced = log.synced().borrow().clone();
    assert_eq!(synced.offset, Offset(1));
    assert!(synced.broken.unwrap().to_string().contains("sync failed"));
    assert!(matches!(
        log.append(vec![batch(&[12])], EPOCH),
        Err(AppendError::Broken(_))
    ));
}

#[test]
fn many_appends_share_a_sync() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    log.flush_now().unwrap();
    let before = bench.disk.calls(Operation::Sync);
    for _ in 0..100 {
        log.append(vec![batch(&[10])], EPOCH).unwrap();
    }
    log.flush();
    let synced = bench.disk.calls(Operation::Sync) - before;
    assert!(
        synced <= 3,
        "{synced} syncs: one of the segment, one of the epochs, one of their folder"
    );
    assert_eq!(log.synced().borrow().offset, Offset(100));
}

#[test]
fn a_copy_keeps_its_offsets_and_gaps() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    let at = |base: i64, epoch: i32, batch: BatchView| batch.stamp(Offset(base), LeaderEpoch(epoch)).unwrap();
    let first = vec![at(0, 1, batch(&[1, 2])), at(5, 2, batch(&[3]))];
    let appended = log.append_copy(first, CopyEpochs::Keep).unwrap();
    assert_eq!((appended.base, appended.next), (Offset(0), Offset(6)));
    assert_eq!(
        log.reader().epoch_end(LeaderEpoch(1)),
        Some((LeaderEpoch(1), Offset(5)))
    );
    let overlap = log.append_copy(vec![at(5, 2, batch(&[1]))], CopyEpochs::Keep);
    let Err(AppendError::NotContiguous { expected, found }) = overlap else {
        panic!("{overlap:?}")
    };
    assert_eq!((expected, found), (Offset(6), Offset(5)));
    let stale = log.append_copy(vec![at(6, 1, batch(&[1]))], CopyEpochs::Keep);
    assert!(matches!(stale, Err(AppendError::StaleEpoch { .. })), "{stale:?}");
    log.append_copy(vec![at(10, 0, batch(&[1]))], CopyEpochs::Stamp(LeaderEpoch(9)))
        .unwrap();
    for bytes_max in [1, 150, 9999] {
        assert_eq!(
            read_all(&log.reader(), Offset(0), bytes_max),
            [(0, 2), (5, 6), (10, 11)]
        );
        assert_eq!(read_all(&log.reader(), Offset(3), bytes_max), [(5, 6), (10, 11)]);
    }
    assert_eq!(log.reader().epochs().latest(), LeaderEpoch(9));
    log.close().unwrap();
    let mut log = bench.log();
    assert_eq!(log.end(), Offset(11));
    assert_eq!(
        log.append(vec![batch(&[1])], LeaderEpoch(9)).unwrap().base,
        Offset(11)
    );
}

#[test]
fn a_copy_that_does_not_fit_begins_no_epoch() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    let at = |base: i64, epoch: i32, size| batch(&[size]).stamp(Offset(base), LeaderEpoch(epoch)).unwrap();
    log.append_copy(vec![at(0, 1, 10)], CopyEpochs::Keep).unwrap();
    bench.disk.leave_room(1_000);
    let refused = log.append_copy(vec![at(1, 1, 10), at(2, 5, 5_000)], CopyEpochs::Keep);
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
    // The leader sends less at once, up to where the next epoch begins.
    log.append_copy(vec![at(1, 1, 10)], CopyEpochs::Keep).unwrap();
    assert_eq!(log.reader().epochs().latest(), LeaderEpoch(1));
}

#[test]
fn an_old_epoch_is_refused_and_a_new_one_begins_at_the_end() {
    let bench = Bench::new(config());
    let mut log = bench.log();
    log.append(vec![batch(&[1, 1])], LeaderEpoch(4)).unwrap();
    let refused = log.append(vec![batch(&[1])], LeaderEpoch(3));
    assert!(
        matches!(refused, Err(AppendError::StaleEpoch { .. })),
        "{refused:?}"
    );
    log.begin_epoch(LeaderEpoch(6)).unwrap();
    log.begin_epoch(LeaderEpoch(6)).unwrap();
    let reader = log.reader();
    assert_eq!(
        reader.epoch_end(LeaderEpoch(5)),
        Some((LeaderEpoch(4), Offset(2)))
    );
    assert_eq!(
        reader.epoch_end(LeaderEpoch(6)),
        Some((LeaderEpoch(6), Offset(2)))
    );
    log.flush();
    drop(log);
    bench.disk.crash();
    assert_eq!(bench.log().reader().epochs().latest(), LeaderEpoch(6));
}

#[test]
fn tails_stay_within_the_share_of_memory_they_have() {
    let mut bench = Bench::new(Config {
        tail_bytes_max: 40_000,
        ..config()
    });
    bench.logs = Logs::new(&bench.sys, 100_000);
    let mut logs: Vec<Log> = (0..5)
        .map(|n| {
            bench
                .logs
                .open(Path::new(&format!("topics/{n}")), bench.config.clone())
                .unwrap()
                .log
        })
        .collect();
    for round in 0..200 {
        for log in &mut logs {
            log.append(vec![batch(&[if round % 7 == 0 { 20_000 } else { 500 }])], EPOCH)
                .unwrap();
            let at = Offset((log.end().value() - 3).max(0));
            assert!(!log.reader().read_waiting(at, limits(1)).unwrap().parts.is_empty());
            assert!(bench.logs.tail_bytes() <= 100_000, "{}", bench.logs.tail_bytes());
        }
    }
    assert!(bench.logs.tail_bytes() > 50_000, "the memory is used");
    let first = logs.remove(0);
    assert_eq!(read_all(&first.reader(), Offset(0), 30_000).len(), 200);
    drop((first, logs));
    assert_eq!(bench.logs.tail_bytes(), 0);
}
