//! What the metadata makes of partitions: come, go, mirror, internal, retention.

use super::*;

#[tokio::test]
async fn partitions_come_change_and_go_with_the_metadata() {
    let mut rig = Rig::new().await;
    let first = rig.topic(1, &[]).await;
    first
        .append(plain(0, 5), ALL)
        .await
        .expect("appended")
        .done()
        .await
        .expect("committed");
    let id = TopicId([1; 16]);

    rig.say(&[config(id, "max.message.bytes", "80")]).await;
    while first.config().max_message_bytes != 80 {
        tokio::task::yield_now().await;
    }
    let error = first.append(plain(0, 5), ALL).await.expect_err("too large now");
    assert!(
        matches!(error, AppendError::TooLarge { limit: 80, .. }),
        "{error}"
    );

    rig.say(&[partition(id, 1, 0)]).await;
    assert!(rig.registry.get_by_id(id, PartitionIndex(1)).is_some());
    assert_eq!(rig.registry.list().len(), 2);

    // Deleted and made again by the same name: another log.
    let again = TopicId([2; 16]);
    rig.say(&[
        Record::RemoveTopic { id },
        Record::Topic {
            id: again,
            name: "t".to_owned(),
            internal: false,
            mirror: None,
        },
        partition(again, 0, 0),
    ])
    .await;
    assert!(rig.registry.get_by_id(id, PartitionIndex(0)).is_none());
    assert_eq!(consume(&rig.get("t"), 0).await, []);
    assert_eq!(
        first.append(plain(0, 1), ALL).await.expect_err("gone"),
        AppendError::Stopped
    );
    let folders = rig.disk.list(Path::new("topics")).expect("listed");
    let names: Vec<_> = folders.into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [format!("{again}-0")]);
}

#[tokio::test]
async fn a_replica_given_to_another_node_is_deleted_even_if_that_happened_while_this_one_was_down() {
    let mut rig = Rig::new().await;
    rig.topic(1, &[]).await;
    let id = TopicId([1; 16]);
    rig.say(&[partition(id, 1, 0), partition(id, 2, 0)]).await;
    let given = |index| Record::Partition {
        topic: id,
        index: PartitionIndex(index),
        state: PartitionState::fresh(vec![NodeId(2)]),
    };
    let folders = |rig: &Rig| -> Vec<String> {
        let entries = rig.disk.list(Path::new("topics")).expect("listed");
        entries.into_iter().map(|entry| entry.name).collect()
    };
    rig.say(&[given(1)]).await;
    assert_eq!(folders(&rig), [format!("{id}-0"), format!("{id}-2")]);
    // What the metadata never heard of stays.
    let stranger = TopicId([9; 16]);
    let folder = Path::new("topics").join(format!("{stranger}-0"));
    rig.disk.create_folder(&folder).expect("made");
    rig.disk.sync_folder(Path::new("topics")).expect("synced");
    rig.image.apply(rig.image.offset.plus(1), &given(2));
    let rig = rig.crash().await;
    assert_eq!(folders(&rig), [format!("{id}-0"), format!("{stranger}-0")]);
    assert_eq!(rig.registry.list().len(), 1);
}

#[tokio::test]
async fn a_mirror_is_written_by_its_link_only() {
    let mut rig = Rig::new().await;
    let mirror = MirrorSource {
        link: "up".to_owned(),
        site: "s".to_owned(),
        topic: "t".to_owned(),
        topic_id: TopicId([9; 16]),
    };
    let copy = rig.any_topic(1, "copy", &[], Some(mirror), false).await;
    let refused = copy
        .append(plain(0, 1), ALL)
        .await
        .expect_err("not ours to write");
    assert_eq!(
        refused,
        AppendError::ReadOnlyMirror {
            link: "up".to_owned()
        }
    );
    let at = |offset, from| {
        batch(
            BatchOptions {
                base_offset: Offset(offset),
                ..BatchOptions::PLAIN
            },
            &values(from, 2),
        )
    };
    for (offset, from) in [(0, 0), (2, 2), (10, 10)] {
        copy.append_copy(at(offset, from))
            .await
            .expect("it goes on")
            .done()
            .await
            .expect("committed");
    }
    let found: Vec<_> = consume(&copy, 0)
        .await
        .into_iter()
        .map(|(offset, _)| offset)
        .collect();
    assert_eq!(found, [0, 1, 2, 3, 10, 11]);
    let back = copy.append_copy(at(5, 5)).await.expect_err("behind the end");
    assert_eq!(
        back,
        AppendError::NotContiguous {
            expected: Offset(12),
            found: Offset(5)
        }
    );
    copy.restart_at(Offset(100)).await.expect("emptied");
    let marks = *copy.watermarks().borrow();
    assert_eq!(
        (marks.log_start, marks.high_watermark, marks.log_end),
        (Offset(100), Offset(100), Offset(100))
    );
    copy.append_copy(at(100, 0))
        .await
        .expect("it goes on")
        .done()
        .await
        .expect("committed");
    assert_eq!(consume(&copy, 100).await.len(), 2);
}

#[tokio::test]
async fn internal_topics_are_closed_to_clients_save_one() {
    let mut rig = Rig::new().await;
    let closed = rig.any_topic(1, "__audit", &[], None, true).await;
    assert_eq!(
        closed.append(plain(0, 1), ALL).await.expect_err("closed"),
        AppendError::Internal
    );
    let ours = AppendOptions {
        origin: Origin::Internal,
        verified: None,
        ..ALL
    };
    closed.append(plain(0, 1), ours).await.expect("open to the node");
    let open = rig.any_topic(2, "_schemas", &[], None, true).await;
    open.append(plain(0, 1), ALL).await.expect("open to clients");
}

#[tokio::test]
async fn retention_lets_old_segments_go_unless_they_are_held() {
    let mut rig = Rig::new().await;
    let partition = rig
        .topic(1, &[("segment.bytes", "1000"), ("retention.bytes", "2000")])
        .await;
    partition.hold(Some(Offset(30)), u64::MAX);
    for from in 0..100 {
        partition
            .append(plain(from, 1), ALL)
            .await
            .expect("appended")
            .done()
            .await
            .expect("committed");
    }
    let mut marks = partition.watermarks();
    rig.sys.clock.advance(Duration::from_secs(61));
    marks
        .wait_for(|marks| marks.log_start > Offset(0))
        .await
        .expect("it runs");
    assert!(marks.borrow().log_start <= Offset(30), "what is held stays");
    partition.hold(None, 0);
    rig.sys.clock.advance(Duration::from_secs(61));
    marks
        .wait_for(|marks| marks.log_start > Offset(50))
        .await
        .expect("it runs");
    assert!(partition.size_bytes() <= 4000);
    let start = partition.watermarks().borrow().log_start.value();
    assert_eq!(consume(&partition, start).await, numbered(100)[start as usize..]);
}
