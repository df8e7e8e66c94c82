//! Questions about the state of a transform: what is told is committed, of one moment, and only told by who runs it.

use ::bytes::Bytes;

use super::*;

fn query(keys: Keys) -> StateQuery {
    StateQuery {
        partition: PartitionIndex(0),
        keys,
        after: None,
        limit: 10,
    }
}

fn all() -> StateQuery {
    query(Keys::Prefix(Bytes::new()))
}

fn counts(view: &StateView) -> Vec<(&[u8], u64)> {
    let count = |value: &Bytes| u64::from_le_bytes((&**value).try_into().unwrap());
    view.entries
        .iter()
        .map(|(key, value)| (&**key, count(value)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_shown_as_it_is_committed_and_after_a_crash_as_it_was() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.deploy("examples/tally", |_| ()).await.unwrap();
    let empty = rig.transforms.state("tally", all()).await.unwrap();
    assert_eq!((empty.position, empty.entries.len()), (Offset(0), 0));
    rig.append("in", 0, &[(1, "a/1"), (2, "b/1"), (3, "a/2")]).await;
    rig.committed("tally", 0, 3).await;
    let view = rig.transforms.state("tally", all()).await.unwrap();
    assert_eq!(
        (view.position, view.right, view.has_more),
        (Offset(3), None, false)
    );
    assert_eq!(counts(&view), [(&b"a"[..], 2), (b"b", 1)]);
    // What is not committed is not told: the question waits for it, and is let go with the pipeline.
    rig.outside.end_none();
    rig.append("in", 0, &[(4, "a/3")]).await;
    rig.outside.stuck().await;
    let transforms = rig.transforms.clone();
    let asking = transforms.state("tally", all());
    let (told, rig) = futures_util::future::join(asking, rig.crash()).await;
    assert_eq!(told, Err(QueryError::NotRunning(PartitionIndex(0))));
    rig.committed("tally", 0, 4).await;
    let one = rig
        .transforms
        .state("tally", query(Keys::One(Bytes::from_static(b"a"))))
        .await;
    let one = one.unwrap();
    assert_eq!((one.position, counts(&one)), (Offset(4), vec![(&b"a"[..], 3)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_tell_says_why() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.deploy("examples/tally", |_| ()).await.unwrap();
    let other = StateQuery {
        partition: PartitionIndex(7),
        ..all()
    };
    assert_eq!(
        rig.transforms.state("none", all()).await,
        Err(QueryError::UnknownTransform("none".to_owned()))
    );
    assert_eq!(
        rig.transforms.state("tally", other).await,
        Err(QueryError::UnknownPartition(PartitionIndex(7)))
    );
}
