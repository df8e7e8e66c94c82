//! Epochs, and questions about offsets.

use super::*;

#[tokio::test]
async fn epochs_are_checked_and_kept() {
    let mut rig = Rig::new().await;
    let partition_0 = rig.topic(1, &[]).await;
    partition_0
        .append(plain(0, 4), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    rig.say(&[partition(TopicId([1; 16]), 0, 5)]).await;
    while partition_0.leader_epoch() != LeaderEpoch(5) {
        tokio::task::yield_now().await;
    }
    partition_0
        .append(plain(4, 2), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    let with = |epoch| AppendOptions {
        current_epoch: Some(LeaderEpoch(epoch)),
        ..ALL
    };
    let (asked, current) = (LeaderEpoch(0), LeaderEpoch(5));
    let fenced = EpochError::Fenced { asked, current };
    assert_eq!(
        partition_0.append(plain(6, 1), with(0)).await.expect_err("old"),
        AppendError::Epoch(fenced)
    );
    let unknown = EpochError::Unknown {
        asked: LeaderEpoch(6),
        current,
    };
    let read = ReadRequest {
        current_epoch: Some(LeaderEpoch(6)),
        ..request(0)
    };
    assert_eq!(
        partition_0.read(read).await.expect_err("new"),
        ReadError::Unavailable(unknown.into())
    );
    for (epoch, expected) in [(0, (0, 4)), (3, (0, 4)), (5, (5, 6)), (9, (-1, -1))] {
        let end = partition_0
            .epoch_end(LeaderEpoch(epoch), Some(current))
            .await
            .expect("known");
        assert_eq!((end.epoch.value(), end.end.value()), expected, "epoch {epoch}");
    }
}

#[tokio::test]
async fn offsets_are_looked_up_and_records_deleted() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    partition
        .append(plain(0, 4), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    let check = async |query, expected: Option<(i64, i64)>| {
        let found = partition
            .list_offset(query, Isolation::Uncommitted, None)
            .await
            .expect("answered");
        assert_eq!(
            found.map(|it| (it.offset.value(), it.timestamp_ms)),
            expected,
            "{query:?}"
        );
    };
    check(OffsetQuery::Earliest, Some((0, -1))).await;
    check(OffsetQuery::Latest, Some((4, -1))).await;
    check(OffsetQuery::At(NOW), Some((0, NOW))).await;
    check(OffsetQuery::At(NOW + 1), None).await;
    check(OffsetQuery::MaxTimestamp, Some((0, NOW))).await;

    assert_eq!(partition.delete_records(Some(Offset(3))).await, Ok(Offset(3)));
    assert_eq!(partition.delete_records(Some(Offset(1))).await, Ok(Offset(3)));
    let beyond = LookupError::OutOfRange {
        asked: Offset(5),
        start: Offset(3),
        end: Offset(4),
    };
    assert_eq!(partition.delete_records(Some(Offset(5))).await, Err(beyond));
    check(OffsetQuery::Earliest, Some((3, -1))).await;
    let gone = ReadError::OutOfRange {
        asked: Offset(2),
        start: Offset(3),
        end: Offset(4),
    };
    assert_eq!(partition.read(request(2)).await.expect_err("gone"), gone);
    assert_eq!(partition.delete_records(None).await, Ok(Offset(4)));
    let rig = rig.crash().await;
    assert_eq!(rig.get("t").watermarks().borrow().log_start, Offset(4));
}
