//! Appends: order, offsets, duplicates, and when they are acknowledged.

use super::*;

#[tokio::test]
async fn what_is_appended_is_read_in_order() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    let mut pending = Vec::new();
    for (acks, from, count) in [(Acks::None, 0, 3), (Acks::Leader, 3, 1), (Acks::All, 4, 2)] {
        let options = AppendOptions { acks, ..ALL };
        pending.push((
            from,
            partition
                .submit(plain(from, count), options)
                .await
                .expect("queued"),
        ));
    }
    for (from, pending) in pending {
        let appended = pending.await.expect("appended");
        assert_eq!(
            (appended.base_offset.value(), appended.duplicate),
            (from as i64, false)
        );
    }
    let ticket = partition.append(plain(6, 1), ALL).await.expect("appended");
    assert_eq!(ticket.done().await.expect("committed").last_offset, Offset(6));
    assert_eq!(consume(&partition, 0).await, numbered(7));
    assert_eq!(consume(&partition, 5).await, numbered(7)[5..]);
    let marks = *partition.watermarks().borrow();
    assert_eq!(
        (marks.high_watermark, marks.log_end, marks.log_start),
        (Offset(7), Offset(7), Offset(0))
    );
}

#[tokio::test]
async fn appends_of_many_get_offsets_without_a_gap() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    let appends = (0..500).map(|_| {
        let partition = partition.clone();
        async move {
            let pending = partition.submit(plain(0, 3), ALL).await.expect("queued");
            pending.await.expect("committed").base_offset.value()
        }
    });
    let mut bases = futures_util::future::join_all(appends).await;
    bases.sort_unstable();
    assert_eq!(bases, (0..500).map(|number| number * 3).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_retry_is_a_duplicate_even_across_a_crash() {
    let mut rig = Rig::new().await;
    let mut partition = rig.topic(1, &[]).await;
    let mut sent = 0;
    for round in 0..6 {
        for _ in 0..7 {
            let appended = partition
                .append(idempotent(sent, 2), ALL)
                .await
                .expect("in order");
            assert_eq!(
                appended.done().await.expect("committed").base_offset.value(),
                i64::from(sent)
            );
            sent += 2;
        }
        if round % 2 == 0 {
            rig = rig.crash().await;
            partition = rig.get("t");
        }
        for back in 1..=5 {
            let sequence = sent - 2 * back;
            let again = partition
                .append(idempotent(sequence, 2), ALL)
                .await
                .expect("known");
            let appended = again.done().await.expect("committed");
            assert_eq!(
                (appended.base_offset.value(), appended.duplicate),
                (i64::from(sequence), true)
            );
        }
        let error = partition
            .append(idempotent(sent + 1, 1), ALL)
            .await
            .expect_err("a gap");
        assert_eq!(
            error,
            AppendError::OutOfOrderSequence {
                producer: ProducerId(7),
                found: sent + 1,
                expected: sent
            }
        );
    }
    assert_eq!(consume(&partition, 0).await, numbered(sent as usize));
}

#[tokio::test]
async fn acks_all_needs_enough_replicas() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[("min.insync.replicas", "2")]).await;
    let error = partition
        .append(plain(0, 1), ALL)
        .await
        .expect_err("one is not two");
    assert_eq!(
        error,
        AppendError::NotEnoughReplicas {
            in_sync: 1,
            required: 2
        }
    );
    let options = AppendOptions {
        acks: Acks::Leader,
        ..ALL
    };
    partition
        .append(plain(0, 1), options)
        .await
        .expect("the leader alone is enough");
}

#[tokio::test]
async fn write_caching_commits_before_the_sync() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[("write.caching", "true")]).await;
    let mut before = rig.disk.calls(Operation::Sync);
    for round in 0..10 {
        if round == 1 {
            // The first record waited until the names of a new log were durable.
            before = rig.disk.calls(Operation::Sync);
        }
        partition
            .append(plain(round, 1), ALL)
            .await
            .expect("appended")
            .done()
            .await
            .expect("committed");
    }
    assert_eq!(rig.disk.calls(Operation::Sync), before);
    assert_eq!(consume(&partition, 0).await, numbered(10));
    assert_eq!(rig.registry.stop(Duration::from_secs(1)).await, 0);
    assert!(rig.disk.calls(Operation::Sync) > before);
}
