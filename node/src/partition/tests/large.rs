//! Appends that are large enough to be written on another thread.

use super::*;

/// One batch of one record of so many bytes, which begins with its number.
fn one(sequence: i32, bytes: usize) -> Bytes {
    let producer = ProducerStamp {
        id: ProducerId(7),
        epoch: ProducerEpoch(0),
        base_sequence: sequence,
    };
    let options = BatchOptions {
        producer,
        ..BatchOptions::PLAIN
    };
    batch(options, &[format!("{sequence:<10}{}", "x".repeat(bytes - 10))])
}

#[tokio::test]
async fn large_and_small_appends_keep_their_order() {
    let mut rig = Rig::threaded().await;
    let partition = rig.topic(1, &[]).await;
    let sizes = [10, 600_000, 20, 300_000, 300_000, 30, 900_000, 40];
    let mut pending = Vec::new();
    for sequence in 0..24 {
        let appended = partition.submit(one(sequence, sizes[sequence as usize % sizes.len()]), ALL);
        pending.push(appended.await.expect("queued"));
    }
    for (base, pending) in (0..).zip(pending) {
        assert_eq!(pending.await.expect("committed").base_offset, Offset(base));
    }
    let found = consume(&partition, 0).await;
    let numbers = found
        .iter()
        .map(|(offset, value)| (*offset, value.len(), value[..10].trim().parse::<i64>().ok()));
    let expected = (0..24_i64).map(|at| (at, sizes[at as usize % sizes.len()], Some(at)));
    assert_eq!(numbers.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_large_append_that_a_full_disk_refused_is_no_duplicate_later() {
    let mut rig = Rig::threaded().await;
    let partition = rig.topic(1, &[]).await;
    rig.disk.set_capacity(0);
    assert_eq!(
        partition.append(one(0, 500_000), ALL).await.expect_err("full"),
        AppendError::DiskFull
    );
    assert!(partition.is_disk_full());
    rig.disk.set_capacity(1 << 30);
    let ticket = partition
        .append(one(0, 500_000), ALL)
        .await
        .expect("there is room");
    assert!(!ticket.done().await.expect("committed").duplicate);
    assert!(!partition.is_disk_full());
    assert_eq!(consume(&partition, 0).await.len(), 1);
}
