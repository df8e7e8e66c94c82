//! What it costs to compact one log: ten million records over a hundred thousand keys, in random order.
//! `cargo bench -p headwater --bench compaction -- [FOLDER] [RECORDS]`.
//!
//! Prints one JSON object a line, and fails unless what is left is exactly the last value of every key.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures the machine"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use headwater::log::{CleanOptions, Config, DirtRules, Limits, Log, LogReader, Logs, Oversize, Progress};
use headwater::sys::Sys;
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{
    BatchBuilder, BatchOptions, BatchView, Batches, Compression, NewRecord, RECORDS_BYTES_MAX,
};

const RECORDS: u64 = 10_000_000;
const KEYS: u64 = 100_000;
const BATCH_RECORDS: u64 = 500;
const VALUE_BYTES: usize = 100;
const SEGMENT_BYTES: u64 = 128 << 20;
/// The default of `log.cleaner.dedupe.buffer.size`.
const MAP_BYTES: usize = 128 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| !it.starts_with('-'))
        .collect();
    let folder = arguments.first().cloned();
    let folder = folder.unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let records = arguments
        .get(1)
        .map_or(RECORDS, |records| records.parse().unwrap());
    let root = Path::new(&folder).join(format!("headwater-bench-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for codec in [Compression::None, Compression::Lz4] {
        let root = root.clone();
        runtime.block_on(async {
            let done = tokio::spawn(async move { run(&root, records, codec) });
            done.await.unwrap();
        });
    }
    std::fs::remove_dir_all(root).unwrap();
}

fn run(root: &Path, records: u64, codec: Compression) {
    let sys = Sys::real(root);
    let logs = Logs::new(&sys, 0);
    let config = Config {
        segment_bytes: SEGMENT_BYTES,
        retention_ms: None,
        ..Config::default()
    };
    let mut log = logs.open(Path::new("compacted"), config).unwrap().log;
    let last = fill(&mut log, records, codec);
    // What is appended to is not compacted: it is closed first.
    log.flush_now().unwrap();
    let active = log.reader().recovery_point();
    log.close_segment(active, log.end()).unwrap();
    log.flush_now().unwrap();
    let before = log.reader().size_bytes();
    reset_peak();
    let (begin, resting) = (Instant::now(), peak_bytes());
    let passes = compact(&mut log);
    let took = begin.elapsed().as_secs_f64();
    let peak = peak_bytes();
    let after = log.reader().size_bytes();
    verify(&log.reader(), &last);
    println!(
        "{}",
        serde_json::json!({
            "bench": "compaction",
            "codec": codec.name(),
            "records": records,
            "keys": KEYS,
            "map_bytes": MAP_BYTES,
            "passes": passes,
            "seconds": took,
            "records_per_second": records as f64 / took,
            "bytes_before": before,
            "bytes_after": after,
            "rss_peak_bytes": peak,
            "rss_before_bytes": resting,
        })
    );
    log.remove().unwrap();
}

/// Compacts all there is. Returns in how many passes.
fn compact(log: &mut Log) -> u32 {
    let mut passes = 0;
    loop {
        let rules = DirtRules {
            until: log.end(),
            lag_min_ms: 0,
            lag_max_ms: None,
        };
        let dirt = log.reader().dirt(&rules).unwrap();
        if dirt.dirty_bytes == 0 {
            return passes;
        }
        let options = CleanOptions {
            map_bytes: MAP_BYTES,
            segment_bytes: SEGMENT_BYTES,
            delete_retention_ms: 86_400_000,
            producers: BTreeMap::new(),
            aborted: Vec::new(),
        };
        let mut cleaning = log.reader().begin_cleaning(&dirt, options).unwrap();
        loop {
            match cleaning.step().unwrap() {
                Progress::Working(_) => {}
                Progress::Ready(replacement) => assert!(log.replace(*replacement).unwrap()),
                Progress::Over(summary) => {
                    log.note_clean(summary.until);
                    break;
                }
            }
        }
        passes += 1;
    }
}

/// Appends the records. Returns the offset of the last record of each key.
fn fill(log: &mut Log, records: u64, codec: Compression) -> Vec<Option<u64>> {
    let mut last = vec![None; KEYS as usize];
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = 0;
    let mut builder = BatchBuilder::new(BatchOptions::compressed(codec));
    while next < records {
        for offset in next..(next + BATCH_RECORDS).min(records) {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let key = random % KEYS;
            last[key as usize] = Some(offset);
            let record = NewRecord {
                timestamp_ms: 1_700_000_000_000 + offset as i64,
                key: Some(&key.to_be_bytes()),
                value: Some(&value(offset)),
                ..NewRecord::default()
            };
            builder.append(&record).unwrap();
        }
        next = (next + BATCH_RECORDS).min(records);
        let batch = BatchView::parse(builder.build().unwrap().unwrap()).unwrap();
        log.append(vec![batch], LeaderEpoch(0)).unwrap();
    }
    last
}

/// A value that says which record it is of.
fn value(offset: u64) -> [u8; VALUE_BYTES] {
    let mut value = [b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&offset.to_be_bytes());
    value
}

/// Every record is the last of its key, and none of those is missing.
fn verify(reader: &LogReader, last: &[Option<u64>]) {
    let limits = Limits {
        bytes_max: 8 << 20,
        oversize: Oversize::Give,
        until: Offset(i64::MAX),
    };
    let mut found = vec![None; KEYS as usize];
    let mut at = Offset::ZERO;
    while at < reader.end() {
        let slice = reader.read_waiting(at, limits).unwrap();
        for batch in Batches::new(Bytes::from(slice.parts.concat())) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            for record in batch.records(RECORDS_BYTES_MAX).unwrap() {
                let record = record.unwrap();
                let offset = record.offset.value() as u64;
                let key = u64::from_be_bytes(record.key.unwrap()[..].try_into().unwrap());
                assert_eq!(record.value.unwrap(), value(offset)[..]);
                let before = found[key as usize].replace(offset);
                assert_eq!(before, None, "key {key} is there twice");
            }
        }
        at = slice.next;
    }
    assert_eq!(found, last, "what is left is not the last of each key");
}

/// Forgets how much memory the process had at most.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// How much memory the process had at most.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
