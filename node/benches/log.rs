//! What one log does alone, on the disk it is given: `cargo bench -p headwater --bench log -- [FOLDER]`.
//!
//! Prints one JSON object a line. Figures of a disk are of that disk, and of how full its cache is: run it twice.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures the machine"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater::log::{Config, Limits, Log, LogReader, Logs, Oversize};
use headwater::sys::Sys;
use headwater::sys::clock::thread_cpu_time;
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{BatchBuilder, BatchOptions, BatchView, NewRecord, RECORDS_BYTES_MAX};

const EPOCH: LeaderEpoch = LeaderEpoch(0);
const MIB: usize = 1 << 20;

fn main() {
    let folder = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let folder = folder.unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let root = Path::new(&folder).join(format!("headwater-bench-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::spawn(run(root.clone())).await.unwrap();
    });
    std::fs::remove_dir_all(root).unwrap();
}

async fn run(root: std::path::PathBuf) {
    batches();
    std::fs::create_dir_all(&root).unwrap();
    let sys = Sys::real(&root);
    let logs = Logs::new(&sys, 64 * MIB);
    let body = MIB - 100;
    // The first pass warms the page cache's free list up.
    for name in ["warm-up: append 1 MiB", "append 1 MiB"] {
        let mut log = open(&logs, "plain");
        let took = time(|| (0..1024).for_each(|_| append(&mut log, body)));
        report(
            name,
            &[("mb_per_s", 1024.0 * MIB as f64 / 1e6 / took.as_secs_f64())],
        );
        if name == "append 1 MiB" {
            reads(&log.reader()).await;
        }
        log.remove().unwrap();
    }
    for in_flight in [1, 2, 4, 8] {
        let name = format!("append 1 MiB, synced, {in_flight} in flight");
        synced_throughput(&logs, &name, body, 600, in_flight).await;
    }
    synced_latency(&logs).await;
    many(&logs);
}

fn open(logs: &Logs, folder: &str) -> Log {
    logs.open(Path::new(folder), Config::default()).unwrap().log
}

fn batch(value_bytes: usize) -> BatchView {
    thread_local! {
        static VALUE: Vec<u8> = vec![7; MIB];
    }
    let mut builder = BatchBuilder::with_capacity(BatchOptions::PLAIN, value_bytes + 200);
    VALUE.with(|value| {
        let record = NewRecord {
            value: Some(&value[..value_bytes]),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
    });
    BatchView::parse(builder.build().unwrap().unwrap()).unwrap()
}

fn append(log: &mut Log, value_bytes: usize) {
    log.append(vec![batch(value_bytes)], EPOCH).unwrap();
}

async fn synced_throughput(logs: &Logs, name: &str, body: usize, count: i64, in_flight: i64) {
    let mut log = open(logs, "synced");
    let mut synced = log.synced();
    let begin = Instant::now();
    for sent in 1..=count {
        append(&mut log, body);
        log.flush();
        synced
            .wait_for(|synced| sent - synced.offset.value() < in_flight)
            .await
            .unwrap();
    }
    synced
        .wait_for(|synced| synced.offset.value() == count)
        .await
        .unwrap();
    let took = begin.elapsed();
    report(
        name,
        &[("mb_per_s", count as f64 * MIB as f64 / 1e6 / took.as_secs_f64())],
    );
    log.remove().unwrap();
}

async fn synced_latency(logs: &Logs) {
    let mut log = open(logs, "latency");
    let mut synced = log.synced();
    let mut times = Vec::new();
    for sent in 1..=3000 {
        let begin = Instant::now();
        append(&mut log, 100);
        log.flush();
        synced
            .wait_for(|synced| synced.offset.value() == sent)
            .await
            .unwrap();
        times.push(begin.elapsed());
    }
    report_times("append 1 record, synced", times);
    let mut times = Vec::new();
    for _ in 0..20_000 {
        let begin = Instant::now();
        append(&mut log, 100);
        times.push(begin.elapsed());
    }
    report_times("append 1 record", times);
    log.remove().unwrap();
}

async fn reads(reader: &LogReader) {
    let limits = Limits {
        bytes_max: MIB,
        oversize: Oversize::Give,
        until: reader.end(),
    };
    let near_end = Offset(reader.end().value() - 4);
    let begin = Instant::now();
    for _ in 0..20_000 {
        assert!(reader.read(near_end, limits).await.unwrap().bytes > 0);
    }
    report(
        "read 1 MiB from the tail",
        &[("us", begin.elapsed().as_secs_f64() * 1e6 / 20_000.0)],
    );
    for name in ["read 1 MiB from the page cache", "again"] {
        let (mut bytes, mut at, begin) = (0, Offset(0), Instant::now());
        while at < reader.end() {
            let slice = reader.read(at, limits).await.unwrap();
            (bytes, at) = (bytes + slice.bytes, slice.next);
        }
        report(
            name,
            &[("gb_per_s", bytes as f64 / 1e9 / begin.elapsed().as_secs_f64())],
        );
    }
}

/// A thousand logs, left as a killed process leaves them, opened by two threads.
fn many(logs: &Logs) {
    const COUNT: usize = 1000;
    for number in 0..COUNT {
        let mut log = open(logs, &format!("many/{number}"));
        (0..10).for_each(|_| append(&mut log, 20_000));
    }
    let open_all = || {
        std::thread::scope(|scope| {
            for half in 0..2 {
                scope.spawn(move || {
                    for number in (half..COUNT).step_by(2) {
                        let folder = format!("many/{number}");
                        std::hint::black_box(logs.open(Path::new(&folder), Config::default()).unwrap());
                    }
                });
            }
        });
    };
    report(
        "open 1000 logs of 200 kB after a kill",
        &[("ms", time(open_all).as_secs_f64() * 1e3)],
    );
}

/// The codec, on 1,000 records of 100 bytes with keys of 8.
fn batches() {
    let value = [7; 100];
    let mut builder = BatchBuilder::with_capacity(BatchOptions::PLAIN, 200_000);
    let mut encode = || {
        for number in 0..1000u64 {
            let key = number.to_be_bytes();
            let record = NewRecord {
                timestamp_ms: 5,
                key: Some(&key),
                value: Some(&value),
                headers: &[],
            };
            builder.append(&record).unwrap();
        }
        builder.build().unwrap().unwrap()
    };
    let encoded: Bytes = encode();
    let per_second = |took: Duration| 1.0 / took.as_secs_f64();
    let took = cpu_time(|| (0..1000).for_each(|_| drop(std::hint::black_box(encode()))));
    report("encode 100 B records", &[("m_per_s", per_second(took))]);
    let check = || {
        BatchView::parse(encoded.clone())
            .unwrap()
            .check_produced()
            .unwrap()
    };
    let took = cpu_time(|| (0..1000).for_each(|_| check()));
    report("check a batch of 118 kB", &[("us", took.as_secs_f64() * 1e3)]);
    let mut copy = vec![0; encoded.len()];
    let took = cpu_time(|| (0..1000).for_each(|_| std::hint::black_box(&mut copy).copy_from_slice(&encoded)));
    report("copy a batch of 118 kB", &[("us", took.as_secs_f64() * 1e3)]);
    let view = BatchView::parse(encoded.clone()).unwrap();
    let took = cpu_time(|| (0..1000).for_each(|_| view.check_records(RECORDS_BYTES_MAX).unwrap()));
    report("walk 100 B records", &[("m_per_s", per_second(took))]);
    let took = cpu_time(|| {
        for _ in 0..1000 {
            view.records(RECORDS_BYTES_MAX)
                .unwrap()
                .into_iter()
                .for_each(|record| drop(std::hint::black_box(record)));
        }
    });
    report(
        "walk 100 B records that outlive the walk",
        &[("m_per_s", per_second(took))],
    );
}

/// CPU time of this thread, which a busy machine does not change.
fn cpu_time(work: impl FnOnce()) -> Duration {
    let begin = thread_cpu_time();
    work();
    thread_cpu_time() - begin
}

fn time(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

fn report_times(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    report(
        what,
        &[("p50_ms", at(0.5)), ("p99_ms", at(0.99)), ("p999_ms", at(0.999))],
    );
}

fn report(what: &str, figures: &[(&str, f64)]) {
    let figures: Vec<_> = figures
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value:.3}"))
        .collect();
    println!("{{\"what\":\"{what}\",{}}}", figures.join(","));
}
