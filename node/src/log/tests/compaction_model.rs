//! Any order of appends, compactions, truncations and crashes, against a list of all records that were written.
//!
//! What is left is written once and as it was; the last value of every key is there at its offset; below the point up to
//! which the log was compacted nothing else is, but tombstones that are not due. What the log says of its producers and
//! epochs does not change.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::Duration;

use headwater_protocol::ids::{ProducerEpoch, ProducerId};
use headwater_protocol::record::{Compression, ProducerStamp};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::sys::disk::memory::Operation;

const DELETE_RETENTION_MS: i64 = 5_000;

#[derive(Debug, Clone)]
enum Step {
    Append {
        producer: u8,
        compressed: bool,
        records: Vec<(u8, bool)>,
    },
    NewEpoch,
    Flush,
    Compact {
        keys: usize,
        interrupted: Option<(u8, End)>,
    },
    Truncate(u16),
    Pass(u16),
    Close,
    Kill,
    Crash,
}

/// How a compaction does not come to its end.
#[derive(Debug, Clone, Copy)]
enum End {
    Dropped,
    Killed,
    Crashed,
    /// That many renames go well when a file takes its place.
    RenameFails(u8),
    /// The same, and then the power goes.
    CrashedAtRename(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        Just(End::Dropped),
        Just(End::Killed),
        Just(End::Crashed),
        (0u8..8).prop_map(End::RenameFails),
        (0u8..8).prop_map(End::CrashedAtRename),
    ];
    let append = (
        0u8..5,
        any::<bool>(),
        vec((0u8..12, prop::bool::weighted(0.8)), 1..6),
    );
    prop_oneof![
        20 => append.prop_map(|(producer, compressed, records)| Step::Append { producer, compressed, records }),
        2 => Just(Step::NewEpoch),
        6 => Just(Step::Flush),
        6 => (prop_oneof![Just(1_000usize), 1usize..12], prop::option::of((0u8..20, end)))
            .prop_map(|(keys, interrupted)| Step::Compact { keys, interrupted }),
        2 => any::<u16>().prop_map(Step::Truncate),
        3 => (0u16..4_000).prop_map(Step::Pass),
        1 => Just(Step::Close),
        2 => Just(Step::Kill),
        2 => Just(Step::Crash),
    ]
}

/// One batch as it was written.
#[derive(Debug, Clone, Copy)]
struct Written {
    base: i64,
    next: i64,
    epoch: i32,
    producer: u8,
    last_sequence: i32,
}

struct Model {
    bench: Bench,
    log: Option<Log>,
    records: Vec<Stored>,
    batches: Vec<Written>,
    /// Synced, and not to be truncated.
    committed: i64,
    end: i64,
    epoch: i32,
    /// When a compaction met a tombstone first, by its offset.
    met: BTreeMap<i64, i64>,
    next_value: u32,
}

impl Model {
    fn new(segment_bytes: u64, tail_bytes_max: usize) -> Self {
        let bench = Bench::new(Config {
            segment_bytes,
            tail_bytes_max,
            index_interval_bytes: 150,
            ..config()
        });
        let log = Some(bench.log());
        Self {
            bench,
            log,
            records: Vec::new(),
            batches: Vec::new(),
            committed: 0,
            end: 0,
            epoch: 0,
            met: BTreeMap::new(),
            next_value: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("the log is open between steps")
    }

    fn now_ms(&self) -> i64 {
        self.bench.sys.clock.unix_ms()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append {
                producer,
                compressed,
                records,
            } => self.append(producer, compressed, &records),
            Step::NewEpoch => self.epoch += 1,
            Step::Flush => self.flush(),
            Step::Compact { keys, interrupted } => self.compact(keys, interrupted),
            Step::Truncate(to) => {
                let to = self.committed + i64::from(to) % (self.end - self.committed + 1);
                let end = self.log().truncate_to(Offset(to)).unwrap().value();
                assert!(end >= self.committed && end <= to);
                self.cut(end);
            }
            Step::Pass(ms) => self.bench.sys.clock.advance(Duration::from_millis(u64::from(ms))),
            Step::Close => {
                self.log.take().unwrap().close().unwrap();
                self.reopen();
            }
            Step::Kill => {
                self.log = None;
                self.bench.disk.kill();
                self.reopen();
            }
            Step::Crash => self.crash(),
        }
        self.check();
    }

    fn append(&mut self, producer: u8, compressed: bool, records: &[(u8, bool)]) {
        let now_ms = self.now_ms();
        let last = self.last_of(producer).map(|it| it.last_sequence);
        let base_sequence = last.map_or(0, |last| last + 1);
        let stamp = ProducerStamp {
            id: ProducerId(i64::from(producer)),
            epoch: ProducerEpoch(0),
            base_sequence,
        };
        let codec = if compressed {
            Compression::Lz4
        } else {
            Compression::None
        };
        let options = BatchOptions {
            producer: if producer == 0 { ProducerStamp::NONE } else { stamp },
            ..BatchOptions::compressed(codec)
        };
        let records: Vec<KeyValue> = records
            .iter()
            .map(|(key, has_value)| {
                self.next_value += 1;
                (u32::from(*key), has_value.then_some(self.next_value))
            })
            .collect();
        let (base, epoch) = (self.end, self.epoch);
        let batch = keyed(options, now_ms, &records);
        self.log().append(vec![batch], LeaderEpoch(epoch)).unwrap();
        for (index, (key, value)) in records.iter().enumerate() {
            let index = index as i64;
            self.records.push(Stored {
                offset: base + index,
                timestamp_ms: now_ms + index,
                key: *key,
                value: *value,
            });
        }
        self.end = base + records.len() as i64;
        self.batches.push(Written {
            base,
            next: self.end,
            epoch,
            producer,
            last_sequence: base_sequence + records.len() as i32 - 1,
        });
    }

    fn flush(&mut self) {
        self.log().flush();
        self.committed = self.end;
    }

    fn last_of(&self, producer: u8) -> Option<Written> {
        let of = |it: &&Written| it.producer == producer && producer > 0;
        self.batches.iter().rev().find(of).copied()
    }

    fn compact(&mut self, keys: usize, interrupted: Option<(u8, End)>) {
        let committed = |it: &&Written| it.next <= self.committed && it.producer > 0;
        let producers = self.batches.iter().filter(committed);
        let producers = producers.map(|it| (ProducerId(i64::from(it.producer)), Offset(it.next - 1)));
        let options = CleanOptions {
            // As many as may be: a table is filled to four fifths.
            map_bytes: 24 * (keys * 5 / 4 + 1),
            segment_bytes: 900,
            delete_retention_ms: DELETE_RETENTION_MS,
            producers: producers.collect(),
            ..clean_options()
        };
        let (committed, now_ms) = (Offset(self.committed), self.now_ms());
        let reader = self.log().reader();
        let dirt = reader.dirt(&dirt_until(committed)).unwrap();
        let mut cleaning = reader.begin_cleaning(&dirt, options).unwrap();
        let mut steps = 0;
        // Whatever the pass may reach.
        for record in &self.records {
            if record.offset < dirt.until.value() && record.value.is_none() {
                self.met.entry(record.offset).or_insert(now_ms);
            }
        }
        loop {
            match cleaning.step().unwrap() {
                Progress::Working(_) => {}
                Progress::Ready(replacement) => {
                    if let Some((_, End::RenameFails(skip) | End::CrashedAtRename(skip))) = interrupted {
                        let disk = &self.bench.disk;
                        disk.fail(Operation::Rename, u64::from(skip), ErrorKind::Other);
                    }
                    let replaced = self.log().replace(*replacement);
                    let Ok(replaced) = replaced else {
                        match interrupted {
                            Some((_, End::CrashedAtRename(_))) => self.crash(),
                            _ => self.step(Step::Kill),
                        }
                        return;
                    };
                    assert!(replaced);
                    self.check();
                }
                Progress::Over(summary) => {
                    self.bench.disk.forget_faults();
                    assert!(keys < 1_000 || summary.until == dirt.until);
                    assert!(dirt.dirty_bytes == 0 || summary.until > dirt.from, "no progress");
                    self.log().note_clean(summary.until);
                    self.check_compacted(summary.until.value());
                    return;
                }
            }
            steps += 1;
            if let Some((after, end)) = interrupted
                && steps > after
            {
                self.bench.disk.forget_faults();
                match end {
                    End::Dropped | End::RenameFails(_) => {}
                    End::Killed => self.step(Step::Kill),
                    End::Crashed | End::CrashedAtRename(_) => self.crash(),
                }
                return;
            }
        }
    }

    fn crash(&mut self) {
        self.log = None;
        self.bench.disk.crash();
        self.reopen();
    }

    fn reopen(&mut self) {
        let log = self.bench.log();
        let end = log.end().value();
        assert!(end >= self.committed && end <= self.end, "{end}");
        self.log = Some(log);
        self.cut(end);
        self.committed = end;
        self.epoch = self.epoch.max(self.log().reader().epochs().latest().value());
    }

    fn cut(&mut self, end: i64) {
        self.records.retain(|record| record.offset < end);
        self.batches.retain(|batch| batch.next <= end);
        self.end = end;
    }

    /// What holds at all times.
    fn check(&mut self) {
        let (now_ms, start) = (self.now_ms(), self.log().start());
        let reader = self.log().reader();
        let batches = all_batches(&reader, start);
        let left = stored(&batches);
        let written: BTreeMap<i64, Stored> = self.records.iter().map(|it| (it.offset, *it)).collect();
        for record in &left {
            assert_eq!(written.get(&record.offset), Some(record));
        }
        let found: BTreeSet<i64> = left.iter().map(|record| record.offset).collect();
        let mut last: BTreeMap<u32, Stored> = BTreeMap::new();
        for record in &self.records {
            last.insert(record.key, *record);
        }
        for record in last.values().filter(|record| !found.contains(&record.offset)) {
            let since = self.met.get(&record.offset).copied();
            let is_due = since.is_some_and(|since| now_ms >= since + DELETE_RETENTION_MS);
            assert!(record.value.is_none() && is_due, "{record:?} is gone at {now_ms}");
        }
        self.check_batches(&batches);
        self.check_reads(&reader, &batches);
        let mut at = Some(reader.begin_scrub());
        while let Some(from) = at {
            let step = reader.scrub(from).unwrap();
            assert_eq!(step.damaged, None);
            at = step.next;
        }
    }

    /// Producers and epochs are what they were.
    fn check_batches(&self, batches: &[BatchView]) {
        for producer in 1..5 {
            let of = |it: &&BatchView| it.header().producer_id == ProducerId(i64::from(producer));
            let last = batches.iter().rev().find(of).map(|it| *it.header());
            let last = last.map(|it| (it.next_offset().value(), it.last_sequence()));
            let expected = self.last_of(producer).map(|it| (it.next, it.last_sequence));
            assert_eq!(last, expected, "producer {producer}");
        }
        let firsts = |all: &mut dyn Iterator<Item = (i32, i64)>| {
            let mut firsts = BTreeMap::new();
            for (epoch, base) in all {
                firsts.entry(epoch).or_insert(base);
            }
            firsts
        };
        let mut found = batches.iter().map(|batch| {
            let header = batch.header();
            (header.partition_leader_epoch.value(), header.base_offset.value())
        });
        let mut written = self.batches.iter().map(|batch| (batch.epoch, batch.base));
        assert_eq!(firsts(&mut found), firsts(&mut written));
        let bounds: BTreeSet<(i64, i64)> = self.batches.iter().map(|it| (it.base, it.next)).collect();
        for batch in batches {
            let bound = (batch.base_offset().value(), batch.next_offset().value());
            assert!(bounds.contains(&bound), "{bound:?}");
        }
        assert_eq!(batches.last().map_or(0, |it| it.next_offset().value()), self.end);
    }

    /// A read from anywhere begins with the batch that holds the offset, or the next one.
    fn check_reads(&self, reader: &LogReader, batches: &[BatchView]) {
        for from in 0..self.end {
            let slice = reader.read_waiting(Offset(from), limits(1)).unwrap();
            let expected = batches.iter().find(|batch| batch.next_offset() > Offset(from));
            assert_eq!(&joined(&slice), expected.unwrap().bytes(), "from {from}");
        }
    }

    /// Below `until` only the last record of each key is left, and no tombstone that is due.
    fn check_compacted(&mut self, until: i64) {
        let now_ms = self.now_ms();
        let mut last: BTreeMap<u32, i64> = BTreeMap::new();
        for record in self.records.iter().filter(|record| record.offset < until) {
            last.insert(record.key, record.offset);
        }
        let start = self.log().start();
        let batches = all_batches(&self.log().reader(), start);
        let left = stored(&batches);
        for record in left.iter().filter(|record| record.offset < until) {
            let newest = last.get(&record.key);
            assert_eq!(newest, Some(&record.offset), "{record:?} was replaced");
        }
        for batch in batches
            .iter()
            .filter(|batch| batch.next_offset() <= Offset(until))
        {
            let records = stored(std::slice::from_ref(batch));
            let has_tombstone = records.iter().any(|record| record.value.is_none());
            let horizon_ms = batch.header().delete_horizon_ms();
            let may_stay = horizon_ms.is_some_and(|horizon_ms| horizon_ms > now_ms);
            assert!(
                !has_tombstone || may_stay,
                "{records:?} with {horizon_ms:?} at {now_ms}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]
    #[test]
    fn what_is_left_is_the_last_of_each_key(
        steps in vec(any_step(), 1..70),
        segment_bytes in prop_oneof![Just(200u64), Just(500)],
        tail_bytes_max in prop_oneof![Just(0usize), Just(600), Just(1 << 20)],
    ) {
        let mut model = Model::new(segment_bytes, tail_bytes_max);
        for step in steps {
            model.step(step);
        }
        // However it went: one pass over everything that is there.
        model.flush();
        model.append(0, false, &[(0, true); 5]);
        model.append(0, false, &[(0, true); 5]);
        model.flush();
        model.compact(1_000, None);
        model.check();
    }
}
