//! Transactions of one partition: what a `read_committed` consumer sees, what is refused, and what a crash leaves.

use super::compaction::{COMPACT, SMALL, keyed_with, later};
use super::*;
use crate::partition::transactions::Aborted;
use headwater_protocol::record::{ControlKind, EndTransaction};

/// A batch of a transaction.
pub(super) fn part(producer: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    let options = BatchOptions {
        producer: ProducerStamp {
            id: ProducerId(producer),
            epoch: ProducerEpoch(epoch),
            base_sequence: sequence,
        },
        transactional: true,
        ..BatchOptions::PLAIN
    };
    batch(options, &values(sequence as usize, count))
}

pub(super) fn marker(producer: i64, epoch: i16, kind: ControlKind, coordinator_epoch: i32) -> Marker {
    Marker {
        producer: ProducerId(producer),
        epoch: ProducerEpoch(epoch),
        end: EndTransaction {
            kind,
            coordinator_epoch,
        },
    }
}

/// As after the coordinator said that the transaction is open.
fn verified(partition: &Partition, producer: i64, epoch: i16) -> AppendOptions {
    let open = partition.transaction_of(ProducerId(producer), ProducerEpoch(epoch));
    AppendOptions {
        verified: open.err(),
        ..ALL
    }
}

pub(super) async fn send(partition: &Partition, producer: i64, epoch: i16, sequence: i32, count: usize) {
    let options = verified(partition, producer, epoch);
    let batch = part(producer, epoch, sequence, count);
    let sent = partition.submit(batch, options).await.expect("let in");
    sent.await.expect("appended");
}

pub(super) async fn committed(partition: &Partition, from: i64, max_bytes: usize) -> ReadOutcome {
    let request = ReadRequest {
        isolation: Isolation::Committed,
        max_bytes,
        ..request(from)
    };
    partition.read(request).await.expect("it can be read")
}

pub(super) fn bounds(aborted: &[Aborted]) -> Vec<(i64, i64)> {
    let bounds = |aborted: &Aborted| (aborted.producer.value(), aborted.first.value());
    aborted.iter().map(bounds).collect()
}

#[tokio::test]
async fn what_is_open_is_not_shown_and_what_was_aborted_is_named() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    send(&partition, 1, 0, 0, 2).await;
    send(&partition, 2, 0, 0, 1).await;
    partition
        .submit(plain(0, 1), ALL)
        .await
        .expect("let in")
        .await
        .expect("appended");
    assert_eq!(last_stable(&partition), 0);
    assert!(committed(&partition, 0, 1 << 20).await.records.is_empty());
    assert_eq!(consume(&partition, 0).await.len(), 4);

    let abort = marker(1, 0, ControlKind::Abort, 0);
    let at = partition.end_transaction(abort).await.expect("ended");
    assert_eq!(at.base_offset, Offset(4));
    assert_eq!(last_stable(&partition), 2);
    let commit = marker(2, 0, ControlKind::Commit, 0);
    partition.end_transaction(commit).await.expect("ended");
    assert_eq!(last_stable(&partition), 6);
    let all = committed(&partition, 0, 1 << 20).await;
    assert_eq!((all.next, bounds(&all.aborted)), (Offset(6), vec![(1, 0)]));
    let hidden = |offset: i64| {
        let batches = Batches::new(all.contiguous()).map(|batch| batch.expect("whole"));
        batches
            .filter(|batch| batch.base_offset() == Offset(offset))
            .any(|batch| all.hides(batch.header()))
    };
    assert!(hidden(0) && !hidden(2) && !hidden(3));
    let behind = committed(&partition, 5, 1 << 20).await;
    assert_eq!(bounds(&behind.aborted), []);

    // The next transaction of a producer goes on where its sequence was.
    send(&partition, 1, 0, 2, 1).await;
    assert_eq!(last_stable(&partition), 6);
    let commit = marker(1, 0, ControlKind::Commit, 0);
    partition.end_transaction(commit).await.expect("ended");
    assert_eq!(last_stable(&partition), 8);
}

#[tokio::test]
async fn what_fits_no_open_transaction_is_refused() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    let submit = async |batch: Bytes, options: AppendOptions| match partition.submit(batch, options).await {
        Ok(sent) => sent.await,
        Err(error) => Err(error),
    };
    let unverified = submit(part(1, 0, 0, 1), ALL).await;
    assert!(
        matches!(unverified, Err(AppendError::InvalidTransaction(_))),
        "{unverified:?}"
    );

    // A marker that came after the coordinator was asked: the batch would be in no transaction.
    let asked = verified(&partition, 1, 0);
    let abort = marker(1, 0, ControlKind::Abort, 3);
    partition.end_transaction(abort).await.expect("ended");
    let late = submit(part(1, 0, 0, 1), asked).await;
    assert!(
        matches!(late, Err(AppendError::InvalidTransaction(_))),
        "{late:?}"
    );

    send(&partition, 1, 0, 0, 1).await;
    let again = submit(part(1, 0, 0, 1), ALL).await.expect("a duplicate");
    assert!(again.duplicate);
    let outside = batch(
        BatchOptions {
            producer: ProducerStamp {
                id: ProducerId(1),
                epoch: ProducerEpoch(0),
                base_sequence: 1,
            },
            ..BatchOptions::PLAIN
        },
        &values(1, 1),
    );
    let outside = submit(outside, ALL).await;
    assert!(
        matches!(outside, Err(AppendError::InvalidTransaction(_))),
        "{outside:?}"
    );

    let of_before = partition
        .end_transaction(marker(1, 0, ControlKind::Commit, 2))
        .await;
    assert_eq!(
        of_before,
        Err(AppendError::CoordinatorFenced { found: 2, current: 3 })
    );
    // A marker of the next epoch fences, and the sequence begins anew (KIP-890).
    partition
        .end_transaction(marker(1, 1, ControlKind::Commit, 3))
        .await
        .expect("ended");
    let fenced = submit(part(1, 0, 1, 1), verified(&partition, 1, 0)).await;
    assert!(
        matches!(fenced, Err(AppendError::InvalidProducerEpoch { .. })),
        "{fenced:?}"
    );
    let gap = submit(part(1, 1, 1, 1), verified(&partition, 1, 1)).await;
    assert!(
        matches!(gap, Err(AppendError::OutOfOrderSequence { expected: 0, .. })),
        "{gap:?}"
    );
    send(&partition, 1, 1, 0, 1).await;
}

#[tokio::test]
async fn a_crash_forgets_no_transaction() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[("segment.bytes", "16384")]).await;
    send(&partition, 1, 0, 0, 1).await;
    partition
        .end_transaction(marker(1, 0, ControlKind::Abort, 5))
        .await
        .expect("ended");
    // Segments enough for snapshots.
    for sequence in 0..4 {
        send(&partition, 2, 0, sequence * 400, 400).await;
    }
    send(&partition, 3, 0, 0, 1).await;
    partition
        .end_transaction(marker(2, 0, ControlKind::Abort, 5))
        .await
        .expect("ended");
    let before = committed(&partition, 0, 1 << 20).await;
    assert_eq!(bounds(&before.aborted), [(1, 0), (2, 2)]);
    let stable = last_stable(&partition);
    assert_eq!(stable, 1602, "the third is open");

    let rig = rig.crash().await;
    let partition = rig.get("t");
    assert_eq!(last_stable(&partition), stable);
    let after = committed(&partition, 0, 1 << 20).await;
    assert_eq!((after.next, after.aborted), (before.next, before.aborted));
    let old = marker(1, 0, ControlKind::Commit, 4);
    let fenced = partition.end_transaction(old).await;
    assert_eq!(
        fenced,
        Err(AppendError::CoordinatorFenced { found: 4, current: 5 })
    );
    // It is still open: no coordinator need be asked.
    assert_eq!(partition.transaction_of(ProducerId(3), ProducerEpoch(0)), Ok(()));
    partition
        .end_transaction(marker(3, 0, ControlKind::Commit, 5))
        .await
        .expect("ended");
    assert_eq!(last_stable(&partition), 1605);
}

#[tokio::test]
async fn compaction_drops_what_was_aborted_and_leaves_nothing_open() {
    let mut rig = Rig::new().await;
    let set = [COMPACT, SMALL, ("delete.retention.ms", "0")];
    let partition = rig.any_topic(1, "c", &set, None, false).await;
    // Of two keys the last value is an aborted one. The third producer is heard of once.
    for number in 0..60_u32 {
        let (producer, epoch) = (if number == 0 { 3 } else { i64::from(number % 2) }, 0);
        let options = BatchOptions {
            producer: ProducerStamp {
                id: ProducerId(producer),
                epoch: ProducerEpoch(epoch),
                base_sequence: if number == 0 { 0 } else { (number as i32 - 1) / 2 },
            },
            transactional: true,
            ..BatchOptions::PLAIN
        };
        let kind = match number % 2 {
            0 => ControlKind::Commit,
            _ => ControlKind::Abort,
        };
        let sent = partition.submit(
            keyed_with(options, &[(number / 2 % 2, number)]),
            verified(&partition, producer, epoch),
        );
        sent.await.expect("let in").await.expect("appended");
        let end = marker(producer, epoch, kind, 0);
        partition.end_transaction(end).await.expect("ended");
    }
    let end = *partition.watermarks().borrow();
    assert_eq!(end.last_stable, end.log_end);
    later(&rig, 60).await;
    let left = |found: Vec<(i64, String)>| {
        let values = found.into_iter().filter(|(_, value)| value.starts_with("value"));
        values.collect::<Vec<_>>()
    };
    let found = left(consume(&partition, 0).await);
    assert!(found.len() < 8, "{found:?}");
    check_markers(&partition).await;
    for number in [56, 58] {
        let value = format!("value {number}");
        assert!(found.iter().any(|(_, it)| *it == value), "{value} of {found:?}");
    }
    // Whatever a start makes of what is left, nothing is open, and all that is there is seen.
    let rig = rig.crash().await;
    let partition = rig.get("c");
    let marks = *partition.watermarks().borrow();
    assert_eq!((marks.last_stable, marks.log_end), (end.log_end, end.log_end));
    assert_eq!(left(consume(&partition, 0).await), found);
    check_markers(&partition).await;
}

/// Of each aborted transaction that a consumer is told of, the marker is there: until then it passes over whatever else the
/// producer wrote.
async fn check_markers(partition: &Partition) {
    let outcome = committed(partition, 0, 1 << 20).await;
    let markers: Vec<Offset> = Batches::new(outcome.contiguous())
        .map(|batch| batch.expect("whole"))
        .filter(|batch| batch.header().is_control() && batch.header().record_count > 0)
        .map(|batch| batch.base_offset())
        .collect();
    for aborted in &outcome.aborted {
        assert!(markers.contains(&aborted.marker), "{aborted:?} of {markers:?}");
    }
}
