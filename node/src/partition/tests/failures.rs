//! What outlives crashes, a device that fails, and a disk that is full.

use super::transactions::{bounds, committed, marker, send};
use super::*;
use headwater_protocol::record::ControlKind;
use std::path::PathBuf;

#[tokio::test]
async fn what_was_acknowledged_survives_every_crash() {
    let mut rig = Rig::new().await;
    rig.topic(1, &[("segment.bytes", "2000")]).await;
    let mut written = 0;
    for round in 0..30 {
        let partition = rig.get("t");
        let count = 1 + round % 7;
        for _ in 0..4 {
            let ticket = partition
                .append(plain(written, count), ALL)
                .await
                .expect("appended");
            ticket.done().await.expect("committed");
            written += count;
        }
        // Nobody waits for this one: it may be there afterwards, whole, or not at all.
        let options = AppendOptions {
            acks: Acks::None,
            ..ALL
        };
        let ticket = partition
            .submit(plain(written, 2), options)
            .await
            .expect("queued");
        drop(ticket);
        rig = rig.crash().await;
        let found = consume(&rig.get("t"), 0).await;
        assert!(
            found.len() == written || found.len() == written + 2,
            "{} of {written}",
            found.len()
        );
        assert_eq!(found, numbered(found.len()), "round {round}");
        written = found.len();
    }
}

#[tokio::test]
async fn what_a_start_finds_counts_as_soon_as_it_is_synced() {
    let mut rig = Rig::threaded().await;
    rig.topic(1, &[]).await;
    for round in 0..300 {
        let partition = rig.get("t");
        let mut marks = partition.watermarks();
        let all = marks.wait_for(|marks| marks.high_watermark == Offset(round));
        let known = tokio::time::timeout(Duration::from_secs(20), all).await;
        known
            .unwrap_or_else(|_| panic!("round {round}: nobody told that the log is synced"))
            .expect("it runs");
        let ticket = partition.append(plain(0, 1), ALL).await.expect("appended");
        ticket.done().await.expect("committed");
        rig = rig.crash_onto(with_threads()).await;
    }
}

#[tokio::test]
async fn a_failed_sync_takes_one_partition_offline_and_no_other() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    partition
        .append(plain(0, 1), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    rig.disk.fail(Operation::Sync, 0, io::ErrorKind::Other);
    let ticket = partition
        .append(plain(1, 1), ALL)
        .await
        .expect("it is in the log");
    assert!(matches!(ticket.done().await, Err(TicketError::Offline { .. })));
    let error = partition
        .append(plain(1, 1), ALL)
        .await
        .expect_err("not trusted any more");
    assert!(matches!(error, AppendError::Offline { .. }), "{error}");
    assert_eq!(consume(&partition, 0).await, numbered(1));
    let other = rig.any_topic(2, "other", &[], None, false).await;
    other
        .append(plain(0, 1), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    assert!(rig.health.is_ready() && rig.health.is_alive());
    let rig = rig.crash().await;
    let partition = rig.get("t");
    let committed = consume(&partition, 0).await.len();
    let ticket = partition
        .append(plain(committed, 1), ALL)
        .await
        .expect("opened anew");
    ticket.done().await.expect("committed");
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_recovers_by_itself() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[]).await;
    partition
        .append(idempotent(0, 1), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    rig.disk.set_capacity(0);
    for _ in 0..3 {
        assert_eq!(
            partition.append(idempotent(1, 1), ALL).await.expect_err("full"),
            AppendError::DiskFull
        );
    }
    assert!(partition.is_disk_full());
    assert_eq!(consume(&partition, 0).await, numbered(1));
    rig.disk.set_capacity(1 << 30);
    let ticket = partition
        .append(idempotent(1, 1), ALL)
        .await
        .expect("the refused one is not a duplicate");
    assert!(!ticket.done().await.expect("committed").duplicate);
    assert!(!partition.is_disk_full());
    assert_eq!(consume(&partition, 0).await, numbered(2));
}

#[tokio::test]
async fn a_reign_that_a_full_disk_puts_off_begins_when_there_is_room() {
    let mut rig = Rig::new().await;
    let topic = rig.topic(1, &[]).await;
    let ticket = topic.append(idempotent(0, 1), ALL).await.expect("appended");
    ticket.done().await.expect("committed");
    rig.disk.leave_room(0);
    rig.say(&[partition(TopicId([1; 16]), 0, 5)]).await;
    while topic.leader_epoch() != LeaderEpoch(5) {
        tokio::task::yield_now().await;
    }
    assert!(topic.is_disk_full());
    assert!(!topic.is_leader(), "nobody is served before the epoch is on disk");
    assert_eq!(
        topic.append(idempotent(1, 1), ALL).await.expect_err("not yet"),
        AppendError::NotLeader
    );
    assert_eq!(topic.offline(), None);
    rig.disk.set_capacity(1 << 30);
    rig.sys.clock.advance(Duration::from_secs(1));
    while !topic.is_leader() {
        tokio::task::yield_now().await;
    }
    assert!(!topic.is_disk_full());
    let ticket = topic.append(idempotent(1, 1), ALL).await.expect("there is room");
    assert_eq!(
        ticket.done().await.expect("committed").leader_epoch,
        LeaderEpoch(5)
    );
    assert_eq!(consume(&topic, 0).await, numbered(2));
}

#[tokio::test]
async fn a_stop_syncs_everything_and_the_next_start_checks_nothing() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[("write.caching", "true")]).await;
    partition.append(idempotent(0, 3), ALL).await.expect("appended");
    assert_eq!(rig.registry.stop(Duration::from_secs(1)).await, 0);
    assert_eq!(
        partition.append(plain(0, 1), ALL).await.expect_err("stopped"),
        AppendError::Stopped
    );
    let rig = rig.crash().await;
    let partition = rig.get("t");
    assert_eq!(consume(&partition, 0).await, numbered(3));
    let again = partition.append(idempotent(0, 3), ALL).await.expect("known");
    assert!(again.appended.duplicate);
}

#[tokio::test]
async fn a_log_that_could_not_be_opened_is_tried_again() {
    let mut rig = Rig::new().await;
    rig.disk.fail(Operation::Open, 0, io::ErrorKind::Other);
    let partition = rig.topic(1, &[]).await;
    assert!(partition.offline().is_some());
    let error = partition.append(plain(0, 1), ALL).await.expect_err("offline");
    assert!(matches!(error, AppendError::Offline { .. }), "{error}");
    assert!(matches!(
        partition.read(request(0)).await,
        Err(ReadError::Unavailable(Unavailable::Offline { .. }))
    ));
    rig.sys.clock.advance(Duration::from_secs(11));
    while rig.get("t").offline().is_some() {
        tokio::task::yield_now().await;
    }
    rig.get("t")
        .append(plain(0, 1), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
}

/// Node 1 leads, and node 2 holds a replica, too.
fn reign(epoch: i32) -> Record {
    Record::Partition {
        topic: TopicId([1; 16]),
        index: PartitionIndex(0),
        state: PartitionState {
            leader: NodeId(1),
            leader_epoch: LeaderEpoch(epoch),
            replicas: vec![NodeId(1), NodeId(2)],
            isr: vec![NodeId(1)],
            ..PartitionState::default()
        },
    }
}

async fn append_whole(partition: &Partition, batch: Bytes) -> Result<(), AppendError> {
    let ticket = partition.append(batch, ALL).await?;
    ticket.done().await.map(drop).map_err(AppendError::Unacknowledged)
}

/// Where the log lies.
fn folder() -> PathBuf {
    Path::new("topics").join(format!("{}-0", TopicId([1; 16])))
}

fn files_of(disk: &MemoryDisk, folder: &Path, kind: &str) -> Vec<String> {
    let files = disk.list(folder).expect("it is there");
    let names = files.into_iter().map(|file| file.name);
    names.filter(|name| name.ends_with(kind)).collect()
}

fn remove_snapshots(disk: &MemoryDisk, folder: &Path) {
    for name in files_of(disk, folder, ".snapshot") {
        disk.remove_file(&folder.join(name)).expect("removed");
    }
    disk.sync_folder(folder).expect("synced");
}

/// All that lies there.
async fn batches(partition: &Partition) -> Vec<BatchView> {
    let all = partition.read(request(0)).await.expect("it can be read");
    Batches::new(all.contiguous())
        .map(|batch| batch.expect("whole"))
        .collect()
}

/// Repairs what is damaged with the batches of a log that is whole from front on.
async fn repair(partition: &Partition, damaged: &Damaged, whole: Vec<BatchView>) {
    let (mut repair, until) = partition.begin_repair(damaged).await.expect("begun");
    let lost = whole.into_iter().take_while(|batch| batch.base_offset() < until);
    repair.append(lost.collect()).expect("they fit");
    let repaired = repair.finish().expect("it is whole");
    partition
        .adopt_repair(repaired)
        .await
        .expect("it is put in place");
}

/// What the producer wrote last is gone from this replica, and others hold it.
#[tokio::test]
async fn while_damage_hides_what_a_producer_wrote_last_it_is_asked_to_wait() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[("segment.bytes", "500")]).await;
    for sequence in 0..8 {
        append_whole(&partition, idempotent(sequence * 2, 2))
            .await
            .expect("appended");
    }
    for from in 0..8 {
        append_whole(&partition, plain(from, 2)).await.expect("appended");
    }
    rig.say(&[reign(1)]).await;
    let folder = folder();
    // The segment with its last batch, at 14.
    let segments = files_of(&rig.disk, &folder, ".log").into_iter();
    let last = segments
        .filter(|name| name.as_str() <= "00000000000000000014.log")
        .max();
    let last = folder.join(last.expect("it is there"));
    rig.disk.remove_file(&last).expect("removed");
    remove_snapshots(&rig.disk, &folder);
    let mut rig = rig.crash().await;
    rig.say(&[reign(2)]).await;
    let partition = rig.get("t");
    for sequence in [14, 16] {
        let refused = append_whole(&partition, idempotent(sequence, 2)).await;
        assert!(
            matches!(refused, Err(AppendError::Unread { .. })),
            "{sequence}: {refused:?}"
        );
    }
    append_whole(&partition, plain(0, 1))
        .await
        .expect("it repeats nothing");
    rig.sys.clock.advance(Duration::from_secs(31));
    let refused = append_whole(&partition, idempotent(16, 2)).await;
    assert!(
        matches!(refused, Err(AppendError::OutOfOrderSequence { .. })),
        "nobody has it: {refused:?}"
    );
}

/// A start believes the header of a batch that was synced before, and its bits may have rotten since.
#[tokio::test]
async fn a_transaction_that_only_damage_opened_ends_with_the_repair() {
    let mut rig = Rig::new().await;
    let partition = rig.topic(1, &[("segment.bytes", "500")]).await;
    for sequence in 0..16 {
        append_whole(&partition, idempotent(sequence, 1))
            .await
            .expect("appended");
    }
    let whole = batches(&partition).await;
    let folder = folder();
    remove_snapshots(&rig.disk, &folder);
    let first = folder.join("00000000000000000000.log");
    let (attributes_at, transactional) = (22, 0x10);
    let content = rig.disk.content(&first).expect("it is there");
    let rotten = content[attributes_at] | transactional;
    rig.disk.corrupt(&first, attributes_at, &[rotten]);
    rig = rig.crash().await;
    assert_eq!(last_stable(&rig.get("t")), 0);
    let partition = rig.get("t");
    for value in 0..16 {
        append_whole(&partition, plain(value, 1)).await.expect("appended");
    }
    assert_ne!(
        files_of(&rig.disk, &folder, ".snapshot"),
        [""; 0],
        "what is wrong is written down, too"
    );
    let damaged = Damaged {
        from: Offset::ZERO,
        until: Offset(16),
        position: 0,
        reason: "its bits have rotten".to_owned(),
    };
    repair(&partition, &damaged, whole).await;
    assert_eq!(last_stable(&partition), 32);
    let rig = rig.restart().await;
    assert_eq!(last_stable(&rig.get("t")), 32);
}

#[tokio::test]
async fn a_header_that_nobody_has_checked_refuses_no_batch_as_out_of_sequence() {
    for is_rotten in [true, false] {
        let mut rig = Rig::new().await;
        let partition = rig.topic(1, &[("segment.bytes", "500")]).await;
        append_whole(&partition, idempotent(0, 2))
            .await
            .expect("appended");
        for from in 0..8 {
            append_whole(&partition, plain(from, 2)).await.expect("appended");
        }
        rig.say(&[reign(1)]).await;
        let folder = folder();
        remove_snapshots(&rig.disk, &folder);
        let first = folder.join("00000000000000000000.log");
        let last_of_base_sequence = 56;
        if is_rotten {
            rig.disk.corrupt(&first, last_of_base_sequence, &[8]);
        }
        let mut rig = rig.crash().await;
        rig.say(&[reign(2)]).await;
        let partition = rig.get("t");
        let sequence = if is_rotten { 2 } else { 20 };
        let unsure = append_whole(&partition, idempotent(sequence, 2)).await;
        assert!(matches!(unsure, Err(AppendError::Unread { .. })), "{unsure:?}");
        let sure = append_whole(&partition, idempotent(sequence, 2)).await;
        match is_rotten {
            true => {
                assert!(matches!(sure, Err(AppendError::Unread { .. })), "{sure:?}");
                assert_eq!(partition.damaged().len(), 1, "it is found");
            }
            false => {
                assert!(
                    matches!(sure, Err(AppendError::OutOfOrderSequence { .. })),
                    "{sure:?}"
                );
                append_whole(&partition, idempotent(2, 2))
                    .await
                    .expect("it comes next");
            }
        }
    }
}

/// Without the marker what it aborted would seem to be part of the transaction that comes next.
#[tokio::test]
async fn what_a_rotten_marker_aborted_is_shown_to_nobody() {
    for is_rotten in [true, false] {
        let mut rig = Rig::new().await;
        let partition = rig.topic(1, &[("segment.bytes", "500")]).await;
        send(&partition, 1, 0, 0, 2).await;
        let abort = marker(1, 0, ControlKind::Abort, 0);
        partition.end_transaction(abort).await.expect("ended");
        for from in 0..8 {
            append_whole(&partition, plain(from, 2)).await.expect("appended");
        }
        send(&partition, 1, 0, 2, 2).await;
        let commit = marker(1, 0, ControlKind::Commit, 0);
        partition.end_transaction(commit).await.expect("ended");
        let end = last_stable(&partition);
        let whole = batches(&partition).await;
        rig.say(&[reign(1)]).await;
        let folder = folder();
        remove_snapshots(&rig.disk, &folder);
        if is_rotten {
            let first = folder.join("00000000000000000000.log");
            let (attributes, control) = (22, 0x20);
            let at = whole[0].header().total_bytes() + attributes;
            let content = rig.disk.content(&first).expect("it is there");
            rig.disk.corrupt(&first, at, &[content[at] & !control]);
        }
        let mut rig = rig.crash().await;
        rig.say(&[reign(2)]).await;
        let partition = rig.get("t");
        // Behind the check, which does not wait for anything here.
        append_whole(&partition, plain(0, 1)).await.expect("appended");
        if is_rotten {
            assert_eq!(last_stable(&partition), 0);
            let damaged = partition.damaged();
            assert_eq!(damaged.len(), 1, "it is found");
            repair(&partition, &damaged[0], whole).await;
        }
        assert_eq!(last_stable(&partition), end + 1);
        let all = committed(&partition, 0, 1 << 20).await;
        assert_eq!(bounds(&all.aborted), [(1, 0)]);
    }
}
