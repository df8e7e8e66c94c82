//! What is asked and in which order, and what answers mean: by the requests that come out.

use super::*;
use crate::sys::clock::Clock;
use bytes::Bytes;
use headwater_protocol::kafka::fetch::{EpochEndOffset, FetchableTopicResponse};

const TOPIC: TopicId = TopicId([7; 16]);
const LIMITS: Limits = Limits {
    partition_bytes_max: 1000,
    response_bytes_max: 5000,
    wait_max: Duration::from_millis(500),
    backoff_max: Duration::from_millis(100),
};

fn key(index: i32) -> Key {
    (TOPIC, PartitionIndex(index))
}

fn at(next: i64) -> Position {
    Position {
        next: Offset(next),
        epoch: LeaderEpoch(3),
        log_start: Offset(0),
    }
}

/// A session over these partitions, each ready at offset 0.
fn ready(indexes: &[i32], now: Instant) -> Session {
    let mut session = Session::new(NodeId(2), LIMITS);
    let wanted = indexes.iter().map(|index| (key(*index), LeaderEpoch(4)));
    let tasks = session.assign(&wanted.collect());
    assert_eq!(tasks.len(), indexes.len());
    assert!(
        session.next(now, None).is_none(),
        "nobody knows yet where to go on"
    );
    for task in tasks {
        assert!(matches!(task.work, Work::Follow));
        session.done(task.key, task.epoch, Some(at(0)), now);
    }
    session
}

/// The partitions and offsets a request names, and those it forgets.
fn named(request: &FetchRequest) -> (Vec<(i32, i64)>, Vec<i32>) {
    let wanted = request.topics.iter().flat_map(|topic| &topic.partitions);
    let forgotten = request
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| &topic.partitions);
    (
        wanted
            .map(|wanted| (wanted.partition, wanted.fetch_offset))
            .collect(),
        forgotten.copied().collect(),
    )
}

fn answer(session_id: i32, partitions: Vec<PartitionData>) -> FetchResponse {
    FetchResponse {
        session_id,
        responses: vec![FetchableTopicResponse {
            topic_id: TOPIC.into(),
            partitions,
            ..FetchableTopicResponse::default()
        }],
        ..FetchResponse::default()
    }
}

fn data(index: i32, records: &'static [u8]) -> PartitionData {
    PartitionData {
        partition_index: index,
        high_watermark: 5,
        records: Some(Records::from(Bytes::from_static(records))),
        ..PartitionData::default()
    }
}

fn works(taken: Taken) -> Vec<(i32, &'static str)> {
    let name = |work: &Work| match work {
        Work::Follow => "follow",
        Work::Append { .. } => "append",
        Work::Note { .. } => "note",
        Work::Truncate { .. } => "truncate",
        Work::Restart { .. } => "restart",
    };
    let tasks = taken.tasks.iter();
    tasks.map(|task| (task.key.1.value(), name(&task.work))).collect()
}

#[test]
fn a_slow_partition_holds_up_nobody() {
    let now = Clock::manual(0).now();
    let mut session = ready(&[0, 1], now);
    let request = session.next(now, Some(BrokerEpoch(9))).expect("all are ready");
    assert_eq!(named(&request), (vec![(0, 0), (1, 0)], vec![]));
    assert_eq!((request.session_id, request.session_epoch), (0, 0));
    assert_eq!(
        (
            request.replica_state.replica_id,
            request.replica_state.replica_epoch
        ),
        (2, 9)
    );
    assert!(session.next(now, None).is_none());
    let taken = session.answered(answer(77, vec![data(0, b"records"), data(1, b"")]), now);
    assert_eq!(works(taken.unwrap()), [(0, "append"), (1, "note")]);
    // The other is asked for while the first is written.
    let request = session.next(now, None).expect("partition 1 waits for records");
    assert_eq!(named(&request), (vec![], vec![]));
    assert_eq!((request.session_id, request.session_epoch), (77, 1));
    assert!(session.next(now, None).is_none(), "there is nothing new");
    // Done: that is news, which do not wait for the answer.
    session.done(key(0), LeaderEpoch(4), Some(at(3)), now);
    let request = session.next(now, None).expect("news");
    assert_eq!(named(&request), (vec![(0, 3)], vec![]));
    assert_eq!(request.session_epoch, 2);
    // The answer to the first of both says nothing of partition 0, whatever it says.
    let taken = session.answered(answer(77, vec![data(0, b"records"), data(1, b"records")]), now);
    assert_eq!(works(taken.unwrap()), [(1, "append")]);
    let taken = session.answered(answer(77, vec![data(0, b"more")]), now);
    assert_eq!(works(taken.unwrap()), [(0, "append")]);
    assert!(session.next(now, None).is_none(), "both are busy");
}

#[test]
fn a_session_that_is_lost_is_begun_anew() {
    let now = Clock::manual(0).now();
    let mut session = ready(&[0, 1], now);
    session.next(now, None).unwrap();
    session.answered(answer(77, vec![]), now).unwrap();
    session.next(now, None).unwrap();
    let lost = FetchResponse {
        error_code: ErrorCode::FETCH_SESSION_ID_NOT_FOUND.0,
        ..FetchResponse::default()
    };
    assert_eq!(works(session.answered(lost, now).unwrap()), []);
    let request = session.next(now, None).unwrap();
    assert_eq!((request.session_id, request.session_epoch), (0, 0));
    assert_eq!(named(&request).0.len(), 2);
    // A leader that declines sessions is told everything each time.
    session
        .answered(answer(0, vec![data(0, b"records")]), now)
        .unwrap();
    let request = session.next(now, None).unwrap();
    assert_eq!((request.session_id, request.session_epoch), (0, 0));
    assert_eq!(named(&request).0, [(1, 0)]);
    let other = FetchResponse {
        error_code: ErrorCode::CLUSTER_AUTHORIZATION_FAILED.0,
        ..FetchResponse::default()
    };
    assert_eq!(
        session.answered(other, now).unwrap_err(),
        ErrorCode::CLUSTER_AUTHORIZATION_FAILED
    );
}

#[test]
fn what_is_assigned_elsewhere_is_forgotten_and_a_new_epoch_begins_anew() {
    let now = Clock::manual(0).now();
    let mut session = ready(&[0, 1, 2], now);
    session.next(now, None).unwrap();
    session.answered(answer(77, vec![]), now).unwrap();
    let wanted = BTreeMap::from([(key(1), LeaderEpoch(5)), (key(2), LeaderEpoch(4))]);
    let tasks = session.assign(&wanted);
    assert_eq!(tasks.len(), 1);
    assert_eq!((tasks[0].key, tasks[0].epoch), (key(1), LeaderEpoch(5)));
    let request = session.next(now, None).unwrap();
    assert_eq!(named(&request), (vec![], vec![0]));
    // What was begun in the old epoch ends without effect.
    session.done(key(1), LeaderEpoch(4), Some(at(9)), now);
    assert!(session.next(now, None).is_none());
    session.done(key(1), LeaderEpoch(5), Some(at(2)), now);
    assert_eq!(named(&session.next(now, None).unwrap()).0, [(1, 2)]);
}

#[test]
fn what_the_leader_says_of_a_partition_is_its_own_affair() {
    let now = Clock::manual(0).now();
    let mut session = ready(&[0, 1, 2, 3], now);
    session.next(now, None).unwrap();
    let mut parted = data(0, b"");
    parted.diverging_epoch = EpochEndOffset {
        epoch: 2,
        end_offset: 4,
        ..EpochEndOffset::default()
    };
    let mut behind = data(1, b"");
    behind.error_code = ErrorCode::OFFSET_OUT_OF_RANGE.0;
    behind.log_start_offset = 100;
    let mut fenced = data(2, b"");
    fenced.error_code = ErrorCode::FENCED_LEADER_EPOCH.0;
    let taken = session
        .answered(answer(77, vec![parted, behind, fenced]), now)
        .unwrap();
    assert_eq!(taken.refused, [(key(2), ErrorCode::FENCED_LEADER_EPOCH)]);
    assert_eq!(works(taken), [(0, "truncate"), (1, "restart")]);
    // The fenced one rests, and the one that failed here is asked anew where it is.
    session.done(key(0), LeaderEpoch(4), None, now);
    assert_eq!(session.wakes_at(), Some(now + BACKOFF));
    assert_eq!(session.wake(now).len(), 0);
    let later = now + BACKOFF;
    let woken = session.wake(later);
    assert_eq!(woken.len(), 1);
    assert!(matches!(woken[0].work, Work::Follow));
    let request = session.next(later, None).unwrap();
    assert_eq!(named(&request).0, [(2, 0)]);
    assert_eq!(session.wakes_at(), None);
}

#[test]
fn a_replica_gains_while_it_comes_nearer_by_half_of_what_it_copies() {
    let now = Clock::manual(0).now();
    let mut session = ready(&[0], now);
    // The leader's watermark when it is given a hundred more.
    for (next, high_watermark, expected) in [
        (100, 1000, true),
        (200, 1020, true),
        (300, 1080, false),
        (400, 1130, true),
        (500, 1300, false),
    ] {
        session.next(now, None).expect("it is ready");
        let data = PartitionData {
            high_watermark,
            ..data(0, b"records")
        };
        let taken = session.answered(answer(77, vec![data]), now).unwrap();
        let [
            Task {
                work: Work::Append { is_gaining, .. },
                ..
            },
        ] = taken.tasks[..]
        else {
            panic!("{:?}", taken.tasks);
        };
        assert_eq!(is_gaining, expected, "{next}");
        session.done(key(0), LeaderEpoch(4), Some(at(next)), now);
    }
}
