//! The log against a model, and its promises one by one.

mod compacting;
mod compaction_model;
mod concurrent;
mod cutting;
mod healing;
mod model;
mod reading;
mod recovering;
mod storing;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{BatchBuilder, BatchOptions, BatchView, Batches, NewRecord};

use super::*;
use crate::sys::disk::memory::MemoryDisk;
use crate::sys::task::Blocking;

const EPOCH: LeaderEpoch = LeaderEpoch(3);
const FOLDER: &str = "topics/t-0";

/// A log in memory, to be closed, killed and opened again.
struct Bench {
    sys: Sys,
    disk: MemoryDisk,
    logs: Logs,
    config: Config,
}

impl Bench {
    fn new(config: Config) -> Self {
        let mut sys = Sys::simulated(1);
        let disk = MemoryDisk::new(sys.random.fork());
        sys.disk = Arc::new(disk.clone());
        sys.tasks = Tasks::root("test", Blocking::Inline);
        disk.create_folder(Path::new("topics")).unwrap();
        Self {
            logs: Logs::new(&sys, 1 << 30),
            sys,
            disk,
            config,
        }
    }

    fn open(&self) -> Opened {
        self.logs.open(Path::new(FOLDER), self.config.clone()).unwrap()
    }

    fn log(&self) -> Log {
        self.open().log
    }
}

fn config() -> Config {
    Config {
        retention_ms: None,
        index_interval_bytes: 300,
        ..Config::default()
    }
}

/// One batch of records with these value sizes, at a given time.
fn batch_at(timestamp_ms: i64, sizes: &[usize]) -> BatchView {
    let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
    for (index, size) in sizes.iter().enumerate() {
        let value = vec![b'a' + (index % 26) as u8; *size];
        let record = NewRecord {
            timestamp_ms: timestamp_ms + index as i64,
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
    }
    BatchView::parse(builder.build().unwrap().unwrap()).unwrap()
}

fn batch(sizes: &[usize]) -> BatchView {
    batch_at(1_000, sizes)
}

fn limits(bytes_max: usize) -> Limits {
    Limits {
        bytes_max,
        oversize: Oversize::Give,
        until: Offset(i64::MAX),
    }
}

/// What a slice holds, as one run of bytes.
fn joined(slice: &Slice) -> Bytes {
    let bytes = Bytes::from(slice.parts.concat());
    assert_eq!(bytes.len(), slice.bytes);
    bytes
}

/// Base and next offsets of the batches in a slice, each of which must be whole.
fn offsets(slice: &Slice) -> Vec<(i64, i64)> {
    let batches = Batches::new(joined(slice)).map(|batch| {
        let batch = batch.unwrap();
        batch.check_crc().unwrap();
        (batch.base_offset().value(), batch.next_offset().value())
    });
    batches.collect()
}

/// Everything in the log from `from` on, read in steps of `bytes_max`.
fn read_all(reader: &LogReader, from: Offset, bytes_max: usize) -> Vec<(i64, i64)> {
    let (mut at, mut all) = (from, Vec::new());
    while at < reader.end() {
        let slice = reader.read_waiting(at, limits(bytes_max)).unwrap();
        assert!(slice.next > at, "a read at {at} went nowhere");
        all.extend(offsets(&slice));
        at = slice.next;
    }
    all
}

/// One record: a key, and a value unless it is a tombstone.
type KeyValue = (u32, Option<u32>);

/// One batch of records with keys.
fn keyed(options: BatchOptions, timestamp_ms: i64, records: &[KeyValue]) -> BatchView {
    let mut builder = BatchBuilder::new(options);
    for (index, (key, value)) in records.iter().enumerate() {
        let (key, value) = (key.to_be_bytes(), value.map(u32::to_be_bytes));
        let record = NewRecord {
            timestamp_ms: timestamp_ms + index as i64,
            key: Some(&key),
            value: value.as_ref().map(|value| &value[..]),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
    }
    BatchView::parse(builder.build().unwrap().unwrap()).unwrap()
}

/// What a record says, where it lies and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    offset: i64,
    timestamp_ms: i64,
    key: u32,
    value: Option<u32>,
}

/// All batches from `from` on.
fn all_batches(reader: &LogReader, from: Offset) -> Vec<BatchView> {
    let (mut at, mut all) = (from, Vec::new());
    while at < reader.end() {
        let slice = reader.read_waiting(at, limits(1 << 20)).unwrap();
        assert!(slice.next > at, "a read at {at} went nowhere");
        all.extend(Batches::new(joined(&slice)).map(Result::unwrap));
        at = slice.next;
    }
    all.iter().for_each(|batch| batch.check_crc().unwrap());
    all
}

fn stored(batches: &[BatchView]) -> Vec<Stored> {
    let records = batches
        .iter()
        .flat_map(|batch| batch.records(1 << 20).unwrap().into_iter());
    let number = |bytes: &Bytes| u32::from_be_bytes(bytes[..].try_into().unwrap());
    let records = records.map(|record| {
        let record = record.unwrap();
        Stored {
            offset: record.offset.value(),
            timestamp_ms: record.timestamp_ms,
            key: number(record.key.as_ref().unwrap()),
            value: record.value.as_ref().map(number),
        }
    });
    records.collect()
}

fn clean_options() -> CleanOptions {
    CleanOptions {
        map_bytes: 1 << 20,
        segment_bytes: 1 << 20,
        delete_retention_ms: 1_000,
        producers: std::collections::BTreeMap::new(),
        aborted: Vec::new(),
    }
}

fn dirt_until(until: Offset) -> DirtRules {
    DirtRules {
        until,
        lag_min_ms: 0,
        lag_max_ms: None,
    }
}

/// Compacts all that may be.
fn compact(log: &mut Log, options: CleanOptions) -> Result<Summary, CleanError> {
    let reader = log.reader();
    let dirt = reader.dirt(&dirt_until(log.end()))?;
    let mut cleaning = reader.begin_cleaning(&dirt, options)?;
    loop {
        match cleaning.step()? {
            Progress::Working(_) => {}
            Progress::Ready(replacement) => assert!(log.replace(*replacement).unwrap()),
            Progress::Over(summary) => {
                log.note_clean(summary.until);
                return Ok(summary);
            }
        }
    }
}
