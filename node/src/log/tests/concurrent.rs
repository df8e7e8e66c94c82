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
