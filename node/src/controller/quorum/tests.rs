//! The metadata log on a disk that crashes: what was committed is there, in one piece.

use super::*;
use crate::sys::disk::memory::MemoryDisk;
use crate::sys::random::Random;
use std::sync::Arc;

fn machine(disk: &MemoryDisk) -> Sys {
    Sys {
        disk: Arc::new(disk.clone()),
        ..Sys::simulated(1)
    }
}

fn broker_config(key: usize, value: usize) -> Record {
    Record::BrokerConfig {
        key: format!("key-{key}"),
        value: Some(format!("{value}-{}", "x".repeat(1000))),
    }
}

fn fold_all(image: &mut Image, groups: &[Vec<Record>]) {
    for record in groups.iter().flatten() {
        image.apply(image.offset.plus(1), record);
    }
}

#[tokio::test]
async fn what_was_committed_survives_a_crash_in_one_piece() {
    let disk = MemoryDisk::new(Random::seeded(7));
    let mut expected = Image::default();
    for round in 0..8 {
        let sys = machine(&disk);
        let (mut quorum, image) = Quorum::open(&sys, &sys.tasks).await.expect("it opens");
        assert_eq!(image, expected, "round {round}");
        for step in 0..3 {
            let groups = vec![
                vec![broker_config(0, round), broker_config(1, step)],
                vec![broker_config(2, step)],
            ];
            quorum.commit(&groups).await.expect("there is room");
            fold_all(&mut expected, &groups);
        }
        drop(quorum);
        disk.crash();
    }
}

#[tokio::test]
async fn snapshots_bound_what_a_start_reads() {
    let disk = MemoryDisk::new(Random::seeded(7));
    let sys = machine(&disk);
    let (mut quorum, mut image) = Quorum::open(&sys, &sys.tasks).await.expect("it opens");
    for round in 0..3000 {
        let groups = vec![vec![broker_config(round % 10, round)]];
        quorum.commit(&groups).await.expect("there is room");
        fold_all(&mut image, &groups);
        quorum.snapshot_if_due(&image).await.expect("it can be written");
    }
    let kept = offsets_on(&sys);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(quorum.log.as_ref().expect("ours").start() > Offset::ZERO);
    quorum.close().await;
    let (quorum, again) = Quorum::open(&sys, &sys.tasks).await.expect("it opens");
    assert_eq!(again, image);
    assert!(quorum.bytes_since_snapshot <= SNAPSHOT_EVERY_BYTES + 2000);
    drop(quorum);

    // The newest is damaged, and the log does not reach back to the other one: that is said, not guessed.
    let newest = format!("metadata/snapshots/{}", kept.last().expect("two"));
    disk.corrupt(Path::new(&newest), 200, b"?");
    let error = Quorum::open(&sys, &sys.tasks)
        .await
        .map(drop)
        .expect_err("records are missing");
    assert!(matches!(error, OpenError::Gap { .. }), "{error}");
}

fn offsets_on(sys: &Sys) -> Vec<String> {
    let entries = sys.disk.list(Path::new("metadata/snapshots")).expect("listed");
    entries.into_iter().map(|entry| entry.name).collect()
}
