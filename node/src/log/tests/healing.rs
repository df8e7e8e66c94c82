//! Bit rot and lost files: found, not handed out, and repaired from another replica at whatever step the power goes.

use super::*;
use crate::sys::disk::Open;
use crate::sys::disk::memory::Operation;

fn small() -> Config {
    Config {
        segment_bytes: 900,
        index_interval_bytes: 200,
        tail_bytes_max: 0,
        ..config()
    }
}

fn file(base: Offset, part: folder::Part) -> PathBuf {
    folder::path(Path::new(FOLDER), base, part)
}

fn fill(log: &mut Log, batches: i64) {
    for number in 0..batches {
        let epoch = LeaderEpoch(3 + (number / 5) as i32);
        log.append(vec![batch_at(1_000 + number, &[100, 90])], epoch)
            .unwrap();
    }
}

fn bases(log: &Log) -> Vec<Offset> {
    log.shared
        .segments
        .load()
        .iter()
        .map(|segment| segment.base())
        .collect()
}

/// All that a scrub finds, and the bytes it read.
fn scrub(log: &Log) -> (Vec<Damaged>, u64) {
    let (mut at, mut found, mut bytes) = (Some(log.reader().begin_scrub()), Vec::new(), 0);
    while let Some(from) = at {
        let step = log.reader().scrub(from).unwrap();
        found.extend(step.damaged);
        bytes += step.bytes;
        at = step.next;
    }
    (found, bytes)
}

fn batches(reader: &LogReader, from: Offset, until: Offset) -> Vec<BatchView> {
    let limits = Limits {
        until,
        ..limits(1 << 20)
    };
    let (mut at, mut all) = (from, Vec::new());
    while at < until {
        let slice = reader.read_waiting(at, limits).unwrap();
        at = slice.next;
        all.extend(Batches::new(joined(&slice)).map(Result::unwrap));
    }
    all
}

/// Repairs what is damaged from another replica.
fn repair(log: &mut Log, good: &LogReader, damaged: &Damaged) -> Result<bool, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let until = log.close_segment(damaged.from, damaged.until);
    let damaged = Damaged {
        until: until.map_err(|error| text(&error))?,
        ..damaged.clone()
    };
    let reader = log.reader();
    let mut repair = reader
        .begin_repair(&damaged, 900, Other::Same)
        .map_err(|error| text(&error))?;
    let found = batches(good, damaged.from, damaged.until);
    repair.append(found).map_err(|error| text(&error))?;
    let repaired = repair.finish().map_err(|error| text(&error))?;
    log.adopt(repaired).map_err(|error| text(&error))
}

fn content(log: &Log) -> Vec<Bytes> {
    let all = batches(&log.reader(), log.start(), log.end());
    all.into_iter().map(|batch| batch.into_bytes()).collect()
}

/// Two replicas of one log: one to be damaged, one to repair it from.
fn replicas() -> (Bench, Log, Bench, Log) {
    let (bench, other) = (Bench::new(small()), Bench::new(small()));
    let (mut log, mut good) = (bench.log(), other.log());
    fill(&mut log, 20);
    fill(&mut good, 20);
    log.flush_now().unwrap();
    (bench, log, other, good)
}

#[test]
fn every_flipped_byte_of_a_closed_segment_is_found_and_none_is_handed_out() {
    let (bench, log, _other, good) = replicas();
    let base = bases(&log)[1];
    let path = file(base, folder::Part::Log);
    let whole = bench.disk.content(&path).unwrap();
    assert_eq!(scrub(&log), (Vec::new(), log.reader().size_bytes()));
    let expected = content(&good);
    for (at, byte) in whole.iter().enumerate() {
        for bit in [0x01, 0x80] {
            bench.disk.corrupt(&path, at, &[byte ^ bit]);
            let (found, _) = scrub(&log);
            assert_eq!(found.len(), 1, "byte {at}");
            assert_eq!(found[0].from, base);
            let mut next = Offset(0);
            for (number, expected) in expected.iter().enumerate() {
                // One that reads on from where the last read ended, and one that comes from nowhere.
                for _ in 0..2 {
                    if let Ok(slice) = log.reader().read_waiting(next, limits(1)) {
                        assert_eq!(joined(&slice), *expected, "byte {at}, batch {number}");
                    }
                    log.shared.hints.clear();
                }
                next = next.plus(2);
            }
            bench.disk.corrupt(&path, at, &[*byte]);
        }
    }
    assert_eq!(scrub(&log).0, []);
}

#[test]
fn a_segment_that_is_missing_or_short_is_found_and_never_passed_over() {
    for (which, keep) in [(0, None), (2, None), (2, Some(0)), (2, Some(250)), (0, Some(0))] {
        let (bench, log, _other, good) = replicas();
        let all = bases(&log);
        let whole = good.shared.segments.load()[which].bytes();
        log.close().unwrap();
        let path = file(all[which], folder::Part::Log);
        match keep {
            None => bench.disk.remove_file(&path).unwrap(),
            Some(keep) => bench
                .disk
                .open(&path, Open::Write)
                .unwrap()
                .truncate(keep)
                .unwrap(),
        }
        let Opened { mut log, .. } = bench.open();
        assert_eq!((log.start(), log.end()), (good.start(), good.end()));
        let mut at = Offset(0);
        let mut refused = 0;
        while at < log.end() {
            match log.reader().read_waiting(at, limits(1)) {
                Ok(slice) => {
                    assert!(slice.bytes > 0, "offset {at} was passed over");
                    at = slice.next;
                }
                Err(ReadError::Corrupt(damaged)) => {
                    refused += 1;
                    at = damaged.until;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(refused, 1, "segment {which} kept {keep:?} of {whole}");
        let (found, _) = scrub(&log);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(repair(&mut log, &good.reader(), &found[0]), Ok(true));
        assert_eq!(scrub(&log).0, []);
        assert_eq!(content(&log), content(&good));
        assert_eq!(bases(&log), all);
        log.close().unwrap();
        assert_eq!(content(&bench.log()), content(&good));
    }
}

#[test]
fn what_is_appended_to_is_closed_before_it_is_repaired() {
    let (bench, mut log, _other, good) = replicas();
    let active = *bases(&log).last().unwrap();
    bench.disk.corrupt(&file(active, folder::Part::Log), 80, b"?!");
    let (found, _) = scrub(&log);
    assert_eq!(found.len(), 1);
    assert_eq!(repair(&mut log, &good.reader(), &found[0]), Ok(true));
    assert_eq!(scrub(&log).0, []);
    assert_eq!(content(&log), content(&good));
    log.append(vec![batch(&[7])], LeaderEpoch(9)).unwrap();
    log.close().unwrap();
    assert_eq!(bench.log().end(), good.end().plus(1));
}

#[test]
fn a_lying_index_is_made_anew() {
    for part in [folder::Part::Index, folder::Part::TimeIndex] {
        let (bench, log, _other, good) = replicas();
        let base = bases(&log)[1];
        log.close().unwrap();
        let log = bench.log();
        let path = file(base, part);
        let whole = bench.disk.content(&path).unwrap();
        for (at, byte) in whole.iter().enumerate() {
            bench.disk.corrupt(&path, at, &[byte ^ 0x10]);
            assert_eq!(scrub(&log).0, []);
            assert_eq!(bench.disk.content(&path).unwrap(), whole, "byte {at} of {part:?}");
        }
        bench.disk.remove_file(&path).unwrap();
        assert_eq!(scrub(&log).0, []);
        assert_eq!(bench.disk.content(&path).unwrap(), whole);
        assert_eq!(content(&log), content(&good));
    }
}

/// What is known of the damage then is more than is missing still.
#[test]
fn of_two_segments_that_are_missing_the_later_one_may_be_repaired_first() {
    let (bench, log, _other, good) = replicas();
    let all = bases(&log);
    log.close().unwrap();
    for base in &all[1..3] {
        bench.disk.remove_file(&file(*base, folder::Part::Log)).unwrap();
    }
    let Opened { mut log, .. } = bench.open();
    for from in [all[2], all[1]] {
        let damaged = Damaged {
            from,
            until: all[3],
            position: 0,
            reason: "the records are missing".to_owned(),
        };
        assert_eq!(
            repair(&mut log, &good.reader(), &damaged),
            Ok(true),
            "from {from}"
        );
    }
    assert_eq!(content(&log), content(&good));
    assert_eq!(scrub(&log).0, []);
}

#[test]
fn a_crash_at_any_step_of_a_repair_loses_nothing() {
    for operation in [
        Operation::Open,
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
    ] {
        for how_many in 0..40 {
            let (bench, mut log, _other, good) = replicas();
            let base = bases(&log)[1];
            let path = file(base, folder::Part::Log);
            let rotten = {
                bench.disk.corrupt(&path, 100, b"????");
                bench.disk.content(&path).unwrap()
            };
            let (found, _) = scrub(&log);
            bench.disk.fail(operation, how_many, std::io::ErrorKind::Other);
            let done = repair(&mut log, &good.reader(), &found[0]);
            let has_failed = done.is_err();
            bench.disk.crash();
            drop(log);
            let mut log = bench.log();
            assert_eq!(log.end(), good.end(), "{operation:?} {how_many}");
            let (found, _) = scrub_keeping(&bench, &log, base, &rotten);
            for damaged in &found {
                assert_eq!(repair(&mut log, &good.reader(), damaged), Ok(true));
            }
            assert_eq!(scrub(&log).0, []);
            assert_eq!(content(&log), content(&good), "{operation:?} {how_many}");
            let left = bench.disk.list(Path::new(FOLDER)).unwrap();
            let left: Vec<_> = left
                .iter()
                .filter(|entry| entry.name.contains("repair") || entry.name.contains("damaged"))
                .collect();
            assert!(left.is_empty(), "{left:?}");
            if !has_failed {
                break;
            }
            assert!(how_many < 39, "it never goes well");
        }
    }
}

/// A scrub; until it has read the new segment, what was there before is in one of the files.
fn scrub_keeping(bench: &Bench, log: &Log, base: Offset, rotten: &[u8]) -> (Vec<Damaged>, u64) {
    let held = |part| bench.disk.content(&file(base, part));
    let is_kept = held(folder::Part::Log).as_deref() == Some(rotten)
        || held(folder::Part::Damaged).as_deref() == Some(rotten);
    assert!(
        is_kept,
        "what was damaged is gone before the repair was read again"
    );
    scrub(log)
}

#[test]
fn what_does_not_fit_is_not_taken() {
    let (bench, log, _other, good) = replicas();
    let all = bases(&log);
    bench.disk.corrupt(&file(all[1], folder::Part::Log), 100, b"????");
    let (found, _) = scrub(&log);
    let reader = log.reader();
    let begin = || reader.begin_repair(&found[0], 900, Other::Same).unwrap();
    let wanted = batches(&good.reader(), all[1], all[2]);
    // Too little.
    let mut short = begin();
    short.append(wanted[..1].to_vec()).unwrap();
    assert!(!short.is_full());
    // Not from here.
    let mut elsewhere = begin();
    let later = batches(&good.reader(), all[2], all[3]);
    assert!(matches!(elsewhere.append(later), Err(RepairError::Unfit { .. })));
    // Of another history.
    let mut other = begin();
    let forged = wanted[0].clone().stamp(all[1], LeaderEpoch(77));
    let forged = forged.unwrap_or_else(|shared| {
        let head = shared.stamped_header(all[1], LeaderEpoch(77));
        let bytes = [&head[..], &shared.bytes()[HEADER_BYTES..]].concat();
        BatchView::parse(bytes.into()).unwrap()
    });
    assert!(matches!(
        other.append(vec![forged]),
        Err(RepairError::Unfit { .. })
    ));
    // Not what was written.
    let mut rotten = begin();
    let mut bytes = wanted[0].bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let bytes = BatchView::parse(bytes.into()).unwrap();
    assert!(matches!(
        rotten.append(vec![bytes]),
        Err(RepairError::Unfit { .. })
    ));
    assert!(begin().finish().is_err(), "nothing at all");
}

#[test]
fn without_a_checkpoint_a_damaged_segment_takes_nothing_with_it() {
    let (bench, log, _other, good) = replicas();
    let all = bases(&log);
    log.close().unwrap();
    bench
        .disk
        .remove_file(&Path::new(FOLDER).join(folder::CHECKPOINT))
        .unwrap();
    bench.disk.corrupt(&file(all[1], folder::Part::Log), 300, b"????");
    let Opened { mut log, recovery } = bench.open();
    assert_eq!(recovery.cut, None);
    assert_eq!(log.end(), good.end());
    let (found, _) = scrub(&log);
    assert_eq!(found.len(), 1);
    assert_eq!(repair(&mut log, &good.reader(), &found[0]), Ok(true));
    assert_eq!(content(&log), content(&good));
}

#[test]
fn epochs_that_leave_numbers_out_hide_no_flipped_one() {
    let bench = Bench::new(small());
    let mut log = bench.log();
    for number in 0..20 {
        // Reigns without a record leave numbers out.
        log.append(vec![batch(&[100, 90])], LeaderEpoch(8 * (number / 4)))
            .unwrap();
    }
    let base = bases(&log)[1];
    let path = file(base, folder::Part::Log);
    let whole = bench.disk.content(&path).unwrap();
    assert_eq!(whole.len() % 3, 0, "three batches of one size");
    log.close().unwrap();
    // Once the history was damaged, it may lack epochs: no batch is refused for that, then or later.
    let epochs = Path::new(FOLDER).join(folder::EPOCHS);
    let (log, batch_bytes) = (bench.log(), whole.len() / 3);
    for batch in 0..3 {
        let at = batch * batch_bytes + 15;
        bench.disk.corrupt(&path, at, &[whole[at] ^ 0x01]);
        assert_eq!(scrub(&log).0.len(), 1, "the epoch of batch {batch}");
        bench.disk.corrupt(&path, at, &[whole[at]]);
    }
    drop(log);
    bench.disk.corrupt(&epochs, 16 + 5, b"?");
    for _ in 0..3 {
        let mut log = bench.log();
        assert_eq!(scrub(&log).0, []);
        assert_eq!(read_all(&log.reader(), Offset(0), 300).len(), 20);
        log.begin_epoch(LeaderEpoch(40)).unwrap();
        log.close().unwrap();
    }
}

#[test]
fn a_scrub_ends_though_records_come_faster_than_it_reads() {
    let bench = Bench::new(small());
    let mut log = bench.log();
    let append = |log: &mut Log| {
        log.append(vec![batch(&[100, 90])], EPOCH).unwrap();
    };
    (0..20).for_each(|_| append(&mut log));
    let segments = bases(&log).len();
    let (mut at, mut steps) = (Some(log.reader().begin_scrub()), 0);
    while let Some(from) = at {
        at = log.reader().scrub(from).unwrap().next;
        steps += 1;
        assert!(steps <= segments, "it goes on behind what was there");
        (0..10).for_each(|_| append(&mut log));
    }
}

/// The checksum does not cover a batch's offset.
#[test]
fn a_replay_does_not_end_at_an_offset_that_has_rotten() {
    let (bench, log, _other, _good) = replicas();
    let all = bases(&log);
    let highest = 1;
    bench
        .disk
        .corrupt(&file(all[1], folder::Part::Log), highest, &[0x10]);
    for checked_until in [Offset::ZERO, log.end()] {
        let replayed = log.reader().replay(Offset::ZERO, checked_until, |_, _| ());
        let Err(ReadError::Corrupt(damaged)) = replayed else {
            panic!("{replayed:?}");
        };
        assert_eq!((damaged.from, damaged.until), (all[1], all[2]));
    }
}
