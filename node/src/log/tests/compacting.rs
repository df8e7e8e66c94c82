//! Compaction case by case: what stays, what it looks like, and who reads meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_protocol::ids::{ProducerEpoch, ProducerId};
use headwater_protocol::record::{Compression, ControlKind, EndTransaction, ProducerStamp};

use super::*;
use crate::sys::disk::Open;

/// Each batch of these tests fills a segment.
fn one_each() -> Config {
    Config {
        segment_bytes: 14,
        tail_bytes_max: 0,
        ..config()
    }
}

fn producer(id: i64, base_sequence: i32) -> BatchOptions {
    BatchOptions {
        producer: ProducerStamp {
            id: ProducerId(id),
            epoch: ProducerEpoch(0),
            base_sequence,
        },
        ..BatchOptions::PLAIN
    }
}

/// Appends batches, and one more that stays in the segment that is appended to.
fn filled(bench: &Bench, batches: Vec<BatchView>) -> Log {
    let mut log = bench.log();
    for batch in batches {
        log.append(vec![batch], EPOCH).unwrap();
    }
    log.append(vec![keyed(BatchOptions::PLAIN, 9_000, &[(999, Some(0))])], EPOCH)
        .unwrap();
    log.flush_now().unwrap();
    log
}

fn left(log: &Log) -> Vec<(i64, u32, Option<u32>)> {
    let all = stored(&all_batches(&log.reader(), log.start()));
    all.iter().map(|it| (it.offset, it.key, it.value)).collect()
}

/// Base offset, number of records and delete horizon of every batch but the last.
fn shape(log: &Log) -> Vec<(i64, i32, Option<i64>)> {
    let all = all_batches(&log.reader(), log.start());
    let shape = all.iter().map(|batch| {
        let header = batch.header();
        (
            header.base_offset.value(),
            header.record_count,
            header.delete_horizon_ms(),
        )
    });
    let mut shape: Vec<_> = shape.collect();
    shape.pop();
    shape
}

fn plain(records: &[KeyValue]) -> BatchView {
    keyed(BatchOptions::PLAIN, 1_000, records)
}

#[test]
fn the_last_of_each_key_stays_where_it_was() {
    for codec in Compression::ALL {
        let bench = Bench::new(one_each());
        let options = BatchOptions::compressed(codec);
        let batches = vec![
            keyed(options, 1_000, &[(1, Some(10)), (2, Some(20)), (3, Some(30))]),
            keyed(options, 2_000, &[(1, Some(11)), (1, Some(12))]),
            keyed(options, 3_000, &[(2, Some(21))]),
        ];
        let mut log = filled(&bench, batches);
        let before = log.reader().size_bytes();
        let summary = compact(&mut log, clean_options()).unwrap();
        assert_eq!(summary.until, Offset(6));
        assert_eq!((summary.records_before, summary.records_after), (6, 3));
        let expected = [
            (2, 3, Some(30)),
            (4, 1, Some(12)),
            (5, 2, Some(21)),
            (6, 999, Some(0)),
        ];
        assert_eq!(left(&log), expected, "{codec:?}");
        assert!(log.reader().size_bytes() < before);
        assert_eq!(
            log.shared.segments.load().len(),
            2,
            "small segments are put together"
        );
        let first = &all_batches(&log.reader(), log.start())[0];
        assert_eq!(first.header().compression(), codec);
        assert_eq!(first.header().max_timestamp, 1_002);
        drop(log);
        assert_eq!(left(&bench.log()), expected);
        // There is nothing to do until something is written.
        assert_eq!(bench.log().reader().compacted_until(), Offset(6));
        let dirt = bench.log().reader().dirt(&dirt_until(Offset(7))).unwrap();
        assert_eq!((dirt.from, dirt.dirty_bytes), (Offset(6), 0));
    }
}

#[test]
fn a_tombstone_goes_when_its_horizon_is_over() {
    let bench = Bench::new(one_each());
    let batches = vec![
        plain(&[(1, Some(10))]),
        plain(&[(1, None), (2, Some(20))]),
        plain(&[(3, Some(30))]),
    ];
    let mut log = filled(&bench, batches);
    let now_ms = bench.sys.clock.unix_ms();
    compact(&mut log, clean_options()).unwrap();
    let horizon_ms = Some(now_ms + 1_000);
    // The log's first batch is the first of its epoch.
    assert_eq!(shape(&log), [(0, 0, None), (1, 2, horizon_ms), (3, 1, None)]);
    let expected = [
        (1, 1, None),
        (2, 2, Some(20)),
        (3, 3, Some(30)),
        (4, 999, Some(0)),
    ];
    assert_eq!(left(&log), expected);
    let times: Vec<i64> = stored(&all_batches(&log.reader(), Offset(0)))
        .iter()
        .map(|it| it.timestamp_ms)
        .collect();
    assert_eq!(
        times,
        [1_000, 1_001, 1_000, 9_000],
        "times count from the horizon"
    );
    assert_eq!(
        log.reader().find_time(1_001, Offset(4)).unwrap().unwrap().offset,
        Offset(2)
    );
    let dirty_again = |log: &mut Log| {
        log.append(vec![plain(&[(4, Some(40))])], EPOCH).unwrap();
        log.flush_now().unwrap();
        compact(log, clean_options()).unwrap();
    };
    bench.sys.clock.advance(Duration::from_millis(999));
    dirty_again(&mut log);
    assert!(left(&log).contains(&(1, 1, None)), "a millisecond too early");
    assert_eq!(shape(&log)[1], (1, 2, horizon_ms), "the horizon is set once");
    bench.sys.clock.advance(Duration::from_millis(1));
    dirty_again(&mut log);
    assert!(!left(&log).contains(&(1, 1, None)));
    assert_eq!(shape(&log)[1], (1, 1, horizon_ms));
}

#[test]
fn the_last_batch_of_a_producer_stays_without_its_records() {
    let bench = Bench::new(one_each());
    let batches = vec![
        plain(&[(5, Some(1))]),
        keyed(producer(7, 0), 1_000, &[(1, Some(1)), (2, Some(1))]),
        keyed(producer(7, 2), 2_000, &[(1, Some(2)), (2, Some(2))]),
        keyed(producer(8, 0), 3_000, &[(1, Some(3)), (2, Some(3))]),
        plain(&[(1, Some(4)), (2, Some(4)), (5, Some(4))]),
    ];
    let mut log = filled(&bench, batches);
    let producers = BTreeMap::from([(ProducerId(7), Offset(4))]);
    let options = CleanOptions {
        producers,
        ..clean_options()
    };
    compact(&mut log, options).unwrap();
    // The second one's state has expired.
    assert_eq!(shape(&log), [(0, 0, None), (3, 0, None), (7, 3, None)]);
    let kept = *all_batches(&log.reader(), Offset(3))[0].header();
    assert_eq!((kept.producer_id, kept.last_sequence()), (ProducerId(7), 3));
    assert_eq!((kept.next_offset(), kept.max_timestamp), (Offset(5), 2_001));
    // Nobody finds a record by the time of a batch that has none.
    let newest = log.reader().find_max_time(Offset(10)).unwrap().unwrap();
    assert_eq!((newest.offset, newest.timestamp_ms), (Offset(9), 1_002));
    let mut seen = Vec::new();
    log.reader()
        .replay(Offset(0), Offset::ZERO, |header, _| {
            seen.push((header.producer_id, header.last_sequence()))
        })
        .unwrap();
    assert!(seen.contains(&(ProducerId(7), 3)));
    // Once it is not remembered any more, it goes.
    log.append(vec![plain(&[(6, Some(1))])], EPOCH).unwrap();
    log.flush_now().unwrap();
    compact(&mut log, clean_options()).unwrap();
    assert_eq!(shape(&log)[..2], [(0, 0, None), (7, 3, None)]);
}

fn mark(id: i64, kind: ControlKind) -> BatchView {
    let end = EndTransaction {
        kind,
        coordinator_epoch: 0,
    };
    let options = BatchOptions {
        control: true,
        transactional: true,
        ..producer(id, -1)
    };
    let (key, value) = (end.key(), end.value());
    let mut builder = BatchBuilder::new(options);
    let record = NewRecord {
        timestamp_ms: 1_000,
        key: Some(&key),
        value: Some(&value),
        ..NewRecord::default()
    };
    builder.append(&record).unwrap();
    BatchView::parse(builder.build().unwrap().unwrap()).unwrap()
}

fn transactional(id: i64, sequence: i32, records: &[KeyValue]) -> BatchView {
    let options = BatchOptions {
        transactional: true,
        ..producer(id, sequence)
    };
    keyed(options, 1_000, records)
}

fn aborted(id: i64, first: i64, last: i64) -> Aborted {
    Aborted {
        producer: ProducerId(id),
        first: Offset(first),
        last: Offset(last),
    }
}

#[test]
fn what_was_aborted_goes_and_its_marker_follows() {
    let mark = |kind| mark(7, kind);
    let transactional = |sequence, records: &[KeyValue]| transactional(7, sequence, records);
    let bench = Bench::new(one_each());
    let batches = vec![
        plain(&[(1, Some(1))]),
        transactional(0, &[(1, Some(2))]),
        mark(ControlKind::Abort),
        transactional(1, &[(2, Some(3))]),
        mark(ControlKind::Commit),
        plain(&[(3, Some(3))]),
    ];
    let mut log = filled(&bench, batches);
    let options = CleanOptions {
        aborted: vec![aborted(7, 1, 2)],
        ..clean_options()
    };
    let again = |log: &mut Log, key| {
        log.append(vec![plain(&[(key, Some(key))])], EPOCH).unwrap();
        log.flush_now().unwrap();
        compact(log, options.clone()).unwrap();
    };
    compact(&mut log, options.clone()).unwrap();
    let now_ms = bench.sys.clock.unix_ms();
    let bases = |log: &Log| -> Vec<i64> { shape(log).iter().map(|it| it.0).collect() };
    // The aborted value is not the last of its key, the one before is. Its marker is still needed.
    assert_eq!(bases(&log), [0, 2, 3, 4, 5]);
    again(&mut log, 10);
    assert_eq!(
        shape(&log)[1],
        (2, 1, Some(now_ms + 1_000)),
        "nothing is left to mark"
    );
    bench.sys.clock.advance(Duration::from_millis(1_000));
    again(&mut log, 11);
    assert_eq!(bases(&log)[..4], [0, 3, 4, 5]);
}

#[test]
fn what_is_committed_after_an_abort_replaces_what_was_there() {
    let bench = Bench::new(one_each());
    let batches = vec![
        transactional(7, 0, &[(2, Some(1))]),
        mark(7, ControlKind::Abort),
        plain(&[(1, Some(1))]),
        transactional(7, 1, &[(1, None)]),
        mark(7, ControlKind::Commit),
        plain(&[(3, Some(3))]),
    ];
    let mut log = filled(&bench, batches);
    let options = CleanOptions {
        aborted: vec![aborted(7, 0, 1)],
        ..clean_options()
    };
    compact(&mut log, options).unwrap();
    let bases: Vec<i64> = shape(&log).iter().map(|it| it.0).collect();
    assert!(bases.contains(&3), "{bases:?}");
    assert!(!bases.contains(&2), "its key is deleted: {bases:?}");
}

#[test]
fn a_transaction_whose_marker_is_gone_takes_nothing_else_with_it() {
    let bench = Bench::new(one_each());
    let batches = vec![
        transactional(7, 0, &[(1, Some(1))]),
        transactional(8, 0, &[(2, Some(2))]),
        mark(7, ControlKind::Abort),
        mark(8, ControlKind::Commit),
        plain(&[(3, Some(3))]),
    ];
    let mut log = filled(&bench, batches);
    let options = CleanOptions {
        aborted: vec![aborted(7, 0, 2)],
        ..clean_options()
    };
    let mut again = |batches: Vec<BatchView>| -> Vec<i64> {
        for batch in batches {
            log.append(vec![batch], EPOCH).unwrap();
        }
        log.flush_now().unwrap();
        compact(&mut log, options.clone()).unwrap();
        bench.sys.clock.advance(Duration::from_millis(1_000));
        shape(&log).iter().map(|it| it.0).collect()
    };
    again(Vec::new());
    again(vec![plain(&[(10, Some(1))])]);
    let left = again(vec![plain(&[(11, Some(1))])]);
    assert!(!left.contains(&2), "its marker is gone: {left:?}");
    let later = vec![
        transactional(7, 1, &[(4, Some(4))]),
        mark(7, ControlKind::Commit),
        plain(&[(12, Some(1))]),
    ];
    assert!(again(later).contains(&7), "what the producer wrote later stays");
}

#[test]
fn what_is_not_committed_or_too_young_or_appended_to_is_not_touched() {
    let bench = Bench::new(one_each());
    let batches: Vec<BatchView> = (0..4)
        .map(|n| keyed(BatchOptions::PLAIN, 1_000 * n, &[(1, Some(n as u32))]))
        .collect();
    let log = filled(&bench, batches);
    let reader = log.reader();
    let until = |rules| reader.dirt(&rules).unwrap().until;
    assert_eq!(until(dirt_until(Offset(5))), Offset(4), "not what is appended to");
    assert_eq!(until(dirt_until(Offset(2))), Offset(2));
    let now_ms = bench.sys.clock.unix_ms();
    let young = DirtRules {
        lag_min_ms: now_ms - 2_500,
        ..dirt_until(Offset(5))
    };
    assert_eq!(until(young), Offset(3), "the last one is younger than that");
    let old = DirtRules {
        lag_max_ms: Some(now_ms - 1),
        ..dirt_until(Offset(5))
    };
    assert!(reader.dirt(&old).unwrap().is_overdue);
    let dirt = reader.dirt(&dirt_until(Offset(5))).unwrap();
    assert!(!dirt.is_overdue);
    assert_eq!(dirt.ratio_millionths(), 1_000_000);
}

#[test]
fn a_pass_over_what_changes_under_it_gives_up() {
    let bench = Bench::new(one_each());
    let batches = (0..6).map(|n| plain(&[(1, Some(n))])).collect();
    let mut log = filled(&bench, batches);
    let options = || CleanOptions {
        segment_bytes: 14,
        ..clean_options()
    };
    let reader = log.reader();
    let dirt = reader.dirt(&dirt_until(log.end())).unwrap();
    let mut cleaning = reader.begin_cleaning(&dirt, options()).unwrap();
    let replacement = loop {
        if let Progress::Ready(replacement) = cleaning.step().unwrap() {
            break replacement;
        }
    };
    log.trim_to(Offset(2)).unwrap();
    assert!(!log.replace(*replacement).unwrap());
    let ended = loop {
        match cleaning.step() {
            Ok(Progress::Over(_)) => panic!("it went on over what is gone"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, CleanError::Changed), "{ended}");
    let offsets: Vec<i64> = left(&log).iter().map(|it| it.0).collect();
    assert_eq!(offsets, [2, 3, 4, 5, 6]);
    compact(&mut log, options()).unwrap();
    log.restart_at(Offset(40)).unwrap();
    assert_eq!(
        log.reader().dirt(&dirt_until(Offset(40))).unwrap().from,
        Offset(40)
    );
    assert!(!log.reader().may_be_compacted(Offset(39)));
}

#[test]
fn damage_ends_the_pass_and_is_named() {
    let bench = Bench::new(one_each());
    let batches = (0..6).map(|n| plain(&[(1, Some(n))])).collect();
    let mut log = filled(&bench, batches);
    let path = folder::path(Path::new(FOLDER), Offset(3), folder::Part::Log);
    bench.disk.corrupt(&path, 70, &[0xff]);
    let error = compact(&mut log, clean_options()).unwrap_err();
    let CleanError::Read(ReadError::Corrupt(damaged)) = error else {
        panic!("{error}");
    };
    assert_eq!((damaged.from, damaged.until), (Offset(3), Offset(4)));
    assert_eq!(log.shared.segments.load().len(), 7, "nothing has changed");
}

#[test]
fn whoever_reads_meanwhile_misses_nothing() {
    let bench = Bench::new(Config {
        segment_bytes: 400,
        tail_bytes_max: 0,
        ..config()
    });
    let batches = (0..40)
        .map(|n| plain(&[(n % 7, Some(n)), (100 + n, Some(n))]))
        .collect();
    let mut log = filled(&bench, batches);
    let reader = log.reader();
    // A reader in the middle of a segment, which goes on by where its last read ended.
    let slice = reader.read_waiting(Offset(0), limits(200)).unwrap();
    let mut at = slice.next;
    let mut seen = stored(
        &Batches::new(joined(&slice))
            .map(Result::unwrap)
            .collect::<Vec<_>>(),
    );
    let dirt = reader.dirt(&dirt_until(log.end())).unwrap();
    let options = CleanOptions {
        segment_bytes: 1_000,
        ..clean_options()
    };
    let mut cleaning = reader.begin_cleaning(&dirt, options).unwrap();
    let mut swaps = 0;
    loop {
        match cleaning.step().unwrap() {
            Progress::Working(_) => {}
            Progress::Ready(replacement) => {
                assert!(log.replace(*replacement).unwrap());
                swaps += 1;
                let slice = reader.read_waiting(at, limits(200)).unwrap();
                at = slice.next;
                let batches: Vec<BatchView> = Batches::new(joined(&slice)).map(Result::unwrap).collect();
                seen.extend(stored(&batches));
            }
            Progress::Over(_) => break,
        }
    }
    assert!(swaps > 3);
    seen.extend(stored(&all_batches(&reader, at)));
    let last: BTreeMap<u32, Option<u32>> = seen.iter().map(|it| (it.key, it.value)).collect();
    for key in 0..7 {
        let newest = (0..40).rev().find(|n| n % 7 == key);
        assert_eq!(last[&key], newest);
    }
    assert!((0..40).all(|n| last[&(100 + n)] == Some(n)));
    assert!(seen.windows(2).all(|pair| pair[0].offset < pair[1].offset));
}

#[test]
fn a_copy_of_a_compacted_log_is_the_same() {
    let bench = Bench::new(one_each());
    let batches = (0..30).map(|n| plain(&[(n % 3, Some(n))])).collect();
    let mut log = filled(&bench, batches);
    compact(&mut log, clean_options()).unwrap();
    let other = Bench::new(one_each());
    let mut copy = other.log();
    for batch in all_batches(&log.reader(), Offset(0)) {
        copy.append_copy(vec![batch], CopyEpochs::Keep).unwrap();
    }
    copy.flush_now().unwrap();
    assert_eq!(left(&copy), left(&log));
    assert_eq!(*copy.reader().epochs(), *log.reader().epochs());
    // It is compacted on its own, and comes back after a crash.
    compact(&mut copy, clean_options()).unwrap();
    drop(copy);
    other.disk.crash();
    let mut copy = other.log();
    assert_eq!(left(&copy), left(&log));
    // Into a gap: where the last batch before it ends.
    let end = copy.truncate_to(Offset(20)).unwrap();
    assert_eq!(end, Offset(1));
    assert!(copy.reader().dirt(&dirt_until(end)).unwrap().from <= end);
}

#[test]
fn an_index_of_a_compacted_segment_is_there_from_the_start() {
    let bench = Bench::new(Config {
        index_interval_bytes: 100,
        ..one_each()
    });
    let batches = (0..20).map(|n| plain(&[(n, Some(n))])).collect();
    let mut log = filled(&bench, batches);
    compact(&mut log, clean_options()).unwrap();
    for part in [folder::Part::Index, folder::Part::TimeIndex] {
        let path = folder::path(Path::new(FOLDER), Offset(0), part);
        let file = bench.disk.open(&path, Open::Read).unwrap();
        assert!(file.bytes().unwrap() >= 8 * 10, "{part:?}");
    }
    let names = bench.disk.list(Path::new(FOLDER)).unwrap();
    let parts = names.iter().filter_map(|entry| folder::parse(&entry.name));
    let mut logs = Vec::new();
    for (offset, part) in parts {
        match part {
            folder::Part::Log => logs.push(offset.value()),
            folder::Part::Index | folder::Part::TimeIndex => {}
            part => panic!("{part:?} of {offset} is left"),
        }
    }
    assert_eq!(logs, [0, 20], "what was compacted, and what is appended to");
}
