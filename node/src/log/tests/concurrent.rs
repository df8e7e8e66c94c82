//! One owner and many readers at once, on the machine's own disk and threads.

use super::*;

const BATCHES: i64 = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_follow_the_owner_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let sys = Sys::real(folder.path());
    let logs = Logs::new(&sys, 200_000);
    let config = Config {
        segment_bytes: 300_000,
        tail_bytes_max: 60_000,
        ..config()
    };
    let opened = logs.open(Path::new(FOLDER), config.clone()).unwrap();
    let mut log = opened.log;
    let mut readers = Vec::new();
    for bytes_max in [1, 3_000, 70_000, 1 << 20] {
        let reader = log.reader();
        readers.push(
            sys.tasks
                .spawn("reader", crate::sys::task::Kind::BestEffort, async move {
                    follow(reader, bytes_max).await;
                }),
        );
    }
    let written = sys.tasks.blocking("owner", move || {
        for n in 0..BATCHES {
            let size = if n % 50 == 0 {
                40_000
            } else {
                100 + (n as usize * 37) % 3_000
            };
            log.append(vec![batch(&[size])], EPOCH).unwrap();
            log.flush();
        }
        log
    });
    let log = written.await.unwrap();
    for reader in readers {
        reader.await.expect("no reader met a gap");
    }
    let mut synced = log.synced();
    synced
        .wait_for(|synced| synced.offset == Offset(BATCHES))
        .await
        .unwrap();
    drop(log);
    let Opened { log, recovery } = logs.open(Path::new(FOLDER), config).unwrap();
    assert_eq!((log.end(), recovery.cut), (Offset(BATCHES), None));
    assert_eq!(read_all(&log.reader(), Offset(0), 100_000).len() as i64, BATCHES);
}

/// Reads only what is synced, as a consumer does, until all of it has been seen.
async fn follow(reader: LogReader, bytes_max: usize) {
    let mut synced = reader.synced();
    let mut at = Offset(0);
    while at < Offset(BATCHES) {
        let until = synced.wait_for(|synced| synced.offset > at).await.unwrap().offset;
        let slice = reader
            .read(
                at,
                Limits {
                    until,
                    ..limits(bytes_max)
                },
            )
            .await
            .unwrap();
        for (base, next) in offsets(&slice) {
            assert_eq!(base, at.value());
            at = Offset(next);
        }
        assert!(at <= until);
    }
}

/// Reads from the front to the end, over and over, until the owner is done. Every key is there with a value that is
/// not older than the one that was seen before.
async fn read_over_and_over(reader: LogReader, done: tokio_util::sync::CancellationToken) -> usize {
    let mut seen = std::collections::BTreeMap::<u32, Option<u32>>::new();
    let mut rounds = 0;
    while !done.is_cancelled() || rounds == 0 {
        let (mut at, mut last) = (Offset(0), -1);
        let mut found = std::collections::BTreeMap::new();
        while at < reader.end() {
            let slice = reader.read(at, limits(3_000)).await.unwrap();
            assert!(slice.next > at, "a read at {at} went nowhere");
            at = slice.next;
            let batches: Vec<BatchView> = Batches::new(joined(&slice)).map(Result::unwrap).collect();
            for record in stored(&batches) {
                assert!(record.offset > last, "{record:?} after {last}");
                last = record.offset;
                found.insert(record.key, record.value);
            }
        }
        for (key, value) in &seen {
            assert!(found[key] >= *value, "key {key} went back");
        }
        seen = found;
        rounds += 1;
    }
    rounds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_go_on_while_segments_give_way_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let sys = Sys::real(folder.path());
    let logs = Logs::new(&sys, 200_000);
    let config = Config {
        segment_bytes: 4_000,
        tail_bytes_max: 1_000,
        ..config()
    };
    let mut log = logs.open(Path::new(FOLDER), config.clone()).unwrap().log;
    log.append(vec![keyed(BatchOptions::PLAIN, 1_000, &[(0, Some(0))])], EPOCH)
        .unwrap();
    let done = tokio_util::sync::CancellationToken::new();
    let kind = crate::sys::task::Kind::BestEffort;
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let reading = read_over_and_over(log.reader(), done.clone());
            sys.tasks.spawn("reader", kind, reading)
        })
        .collect();
    let written = sys.tasks.blocking("owner", move || {
        let mut swaps = 0;
        for n in 1..1_500_u32 {
            let records = [(n % 20, Some(n)), (n % 7, Some(n))];
            log.append(vec![keyed(BatchOptions::PLAIN, 1_000, &records)], EPOCH)
                .unwrap();
            if n % 100 == 0 {
                log.flush_now().unwrap();
                compact(&mut log, clean_options()).unwrap();
                swaps += 1;
            }
        }
        (log, swaps)
    });
    let (log, swaps) = written.await.unwrap();
    done.cancel();
    for reader in readers {
        assert!(reader.await.expect("no reader met anything else") > 0);
    }
    assert_eq!(swaps, 14);
    drop(log);
    let opened = logs.open(Path::new(FOLDER), config).unwrap();
    let left = stored(&all_batches(&opened.log.reader(), Offset(0)));
    let last: std::collections::BTreeMap<u32, i64> = left.iter().map(|it| (it.key, it.offset)).collect();
    assert_eq!(last.len(), 20);
    assert!(left.len() < 400, "{} records are left of 3,000", left.len());
}
