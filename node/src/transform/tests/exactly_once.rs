//! Outputs come once, whenever a pipeline dies, and whoever was thought dead writes no more.

use headwater_protocol::ids::TopicId;

use super::*;
use crate::metadata::Transform;
use crate::partition::PartitionName;
use crate::transform::changelog::{Changes, Commit, Owner};
use crate::transform::state_log::{self, Committer, Means, Outputs, Step, Taken, Way};
use crate::transform::status::Cells;

/// Values of a partition whether or not they are committed, in the order of the log.
async fn everything(rig: &Rig, topic: &str) -> usize {
    let partition = rig.partition(topic, 0);
    let end = partition.watermarks().borrow().log_end;
    let (mut from, mut count) = (Offset::ZERO, 0);
    while from < end {
        let request = ReadRequest {
            from,
            max_bytes: 1 << 20,
            isolation: Isolation::Uncommitted,
            min_one: true,
            current_epoch: None,
            up_to_log_end: true,
        };
        let outcome = partition.read(request).await.unwrap();
        for batch in Batches::new(outcome.contiguous()).map(Result::unwrap) {
            if !batch.header().is_control() {
                count += batch.header().record_count as usize;
            }
        }
        from = outcome.next;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_appended_and_not_committed_before_a_crash_comes_once() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.deploy("hostile/trap_on_record_7", |_| ()).await.unwrap();
    let values = numbered(0, 40);
    rig.append("in", 0, &records(&values[..20])).await;
    rig.committed("trap-on-record-7", 0, 20).await;
    rig.outside.end_none();
    rig.append("in", 0, &records(&values[20..])).await;
    rig.outside.stuck().await;
    // All of it is in the logs, outputs and position, and nothing of it is seen.
    assert_eq!(everything(&rig, "out").await, 39);
    assert_eq!(rig.values("out", 0).await.len(), 19);
    assert_eq!(rig.position("trap-on-record-7", 0).await, Some(Offset(20)));
    let rig = rig.crash().await;
    // Had the position gone before the outputs, they would be missing now; had it come behind them, they would be there twice.
    rig.committed("trap-on-record-7", 0, 40).await;
    let expected: Vec<_> = values.iter().filter(|value| *value != "v7").cloned().collect();
    assert_eq!(rig.values("out", 0).await, expected);
    let letters = rig.read("in.dead-letter", 0).await;
    assert_eq!(letters.len(), 1, "the letter of the first half, once");
    assert_eq!(
        everything(&rig, "out").await,
        59,
        "what was given up is in the log still"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_thought_dead_commits_nothing_more() {
    let rig = Rig::new().await;
    rig.topic("out", 1).await;
    let id: Arc<str> = "headwater-transform-t-0".into();
    let name = rig.partition("out", 0).name().clone();
    let outside = &rig.outside;
    let write = |writer: &Writer, value: &str, sequence: i32| {
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        let record = NewRecord {
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
        let batch = builder.build().unwrap().unwrap();
        let mut sequence = sequence;
        let stamped = stamp::in_transaction(batch, writer.producer, writer.epoch, &mut sequence);
        let write = Write {
            to: name.clone(),
            batches: stamped.unwrap(),
        };
        outside.write(writer.clone(), vec![write])
    };
    let first = outside.begin(Arc::clone(&id)).await.unwrap();
    write(&first, "lost", 0).await.unwrap();
    let second = outside.begin(id).await.unwrap();
    assert_eq!(write(&first, "late", 1).await, Err(OutsideError::Fenced));
    assert_eq!(outside.commit(first).await, Err(OutsideError::Fenced));
    // One transaction follows the other, each in an epoch of its own.
    write(&second, "a", 0).await.unwrap();
    let third = outside.commit(second.clone()).await.unwrap();
    assert_ne!(third, second);
    write(&third, "b", 0).await.unwrap();
    write(&third, "c", 1).await.unwrap();
    outside.commit(third).await.unwrap();
    rig.reached("out", 0, 3).await;
    assert_eq!(rig.values("out", 0).await, ["a", "b", "c"]);
}

/// A pipeline of which nothing runs but its end: it has taken a state over, and commits.
struct Stub {
    committer: Committer,
    found: Option<Commit>,
}

impl Stub {
    async fn start(rig: &Rig, transform: &Transform, state: &PartitionName) -> Self {
        let outside = Arc::clone(&rig.outside) as Arc<dyn Outside>;
        let taken = state_log::take_over(&*outside, &rig.sys.clock, transform, state).await;
        let Taken { way, found } = taken.unwrap();
        let is_alone = matches!(way, Way::Alone { .. });
        assert_eq!(is_alone, transform.delivery == Delivery::AtLeastOnce);
        let means = Means {
            tasks: rig.sys.tasks.child("stub"),
            clock: rig.sys.clock.clone(),
            outside,
            log: state.clone(),
            cells: Cells::new(&Metrics::default(), "stub", state.index),
        };
        Self {
            committer: Committer::start(means, way, found.log_bytes),
            found: found.restored.commit,
        }
    }

    /// Commits a position, and is done.
    async fn end_at(self, position: i64, delivery: Delivery) -> Result<(), String> {
        let step = Step {
            outputs: match delivery {
                Delivery::ExactlyOnce => Outputs::Held(Vec::new()),
                Delivery::AtLeastOnce => Outputs::Sent(Vec::new()),
            },
            commit: Commit::new(TopicId([1; 16]), Offset(position), None, Owner::default()),
            changes: Changes::default(),
        };
        self.committer.hand_over(step).await;
        self.committer.finish().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_belongs_to_whoever_took_it_over_last() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.topic("state", 1).await;
    rig.deploy("examples/longest", |spec| spec.window_ms = Some(100))
        .await
        .unwrap();
    let state = rig.partition("state", 0).name().clone();
    let of = |delivery| Transform {
        name: "stub".to_owned(),
        delivery,
        ..(*rig.view.image().transforms["longest"]).clone()
    };
    let (once, least) = (Delivery::ExactlyOnce, Delivery::AtLeastOnce);
    let mut position = 0;
    for (earlier, later) in [(once, once), (once, least), (least, least), (least, once)] {
        let first = Stub::start(&rig, &of(earlier), &state).await;
        let second = Stub::start(&rig, &of(later), &state).await;
        let late = first.end_at(position + 1, earlier).await.unwrap_err();
        assert!(late.ends_with("another pipeline has taken over"), "{late}");
        position += 2;
        second.end_at(position, later).await.unwrap();
        let third = Stub::start(&rig, &of(once), &state).await;
        let found = third.found.as_ref().map(|commit| commit.position);
        assert_eq!(found, Some(Offset(position)), "{earlier:?}, {later:?}");
        third.committer.finish().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_delivery_keeps_position_and_windows() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    let (once, least) = (Delivery::ExactlyOnce, Delivery::AtLeastOnce);
    for (round, delivery) in [once, least, once].into_iter().enumerate() {
        let deployed = rig.deploy("examples/longest", |spec| {
            spec.window_ms = Some(100);
            spec.delivery = Some(delivery);
        });
        deployed.await.unwrap();
        let at = round as i64 * 20;
        let values: Vec<_> = (at..at + 20).map(|at| format!("k{at}")).collect();
        let timed = values.iter().zip(at..).map(|(value, at)| (at, &**value));
        rig.append("in", 0, &timed.collect::<Vec<_>>()).await;
        rig.committed("longest", 0, at + 20).await;
    }
    rig.append("in", 0, &[(500, "end")]).await;
    rig.reached("out", 0, 60).await;
    let mut sent = rig.values("out", 0).await;
    sent.sort();
    let mut expected: Vec<_> = (0..60).map(|at| format!("k{at}")).collect();
    expected.sort();
    assert_eq!(sent, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sink_will_not_take_is_found_before_anything_is_written() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    // Records of 1970 are refused.
    rig.topic_with("out", 1, &[("message.timestamp.before.max.ms", "3600000")])
        .await;
    rig.deploy("hostile/trap_on_record_7", |_| ()).await.unwrap();
    let now_ms = rig.sys.clock.unix_ms();
    let records = [
        (now_ms, "a"),
        (1, "old"),
        (now_ms, "b"),
        (2, "older"),
        (now_ms, "c"),
    ];
    rig.append("in", 0, &records).await;
    rig.committed("trap-on-record-7", 0, 5).await;
    assert_eq!(rig.values("out", 0).await, ["a", "b", "c"]);
    assert_eq!(rig.values("in.dead-letter", 0).await, ["old", "older"]);
    assert_eq!(everything(&rig, "out").await, 3);
}
