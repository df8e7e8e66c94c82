//! Two sources joined through a whole node and its crashes.

use super::*;
use crate::metadata::{Join, JoinKind, JoinWith};
use crate::transform::changelog::Right;

/// A record: key, value (none deletes) and timestamp.
type Keyed<'a> = (&'a str, Option<&'a str>, i64);

impl Rig {
    async fn keyed(&self, topic: &str, records: &[Keyed<'_>]) {
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        for (key, value, timestamp_ms) in records {
            let record = NewRecord {
                timestamp_ms: *timestamp_ms,
                key: Some(key.as_bytes()),
                value: value.map(str::as_bytes),
                headers: &[],
            };
            builder.append(&record).unwrap();
        }
        let options = AppendOptions {
            acks: Acks::All,
            current_epoch: None,
            origin: Origin::Client,
            verified: None,
        };
        let batch = builder.build().unwrap().unwrap();
        let ticket = self.partition(topic, 0).append(batch, options).await.unwrap();
        ticket.done().await.unwrap();
    }

    /// Waits until both positions of a join are committed.
    async fn joined(&self, left: i64, right: i64) -> Right {
        let state = self.awaited("__transform_state.join", 0).await;
        let mut watermarks = state.watermarks();
        let wait = async {
            loop {
                watermarks.borrow_and_update();
                let commit = self.restored("join", 0).await.commit;
                if let Some((position, second)) = commit.and_then(|it| Some((it.position, it.right?)))
                    && position >= Offset(left)
                    && second.position >= Offset(right)
                {
                    return second;
                }
                watermarks.changed().await.unwrap();
            }
        };
        let reached = tokio::time::timeout(PATIENCE, wait).await;
        let reached = reached.unwrap_or_else(|_| panic!("not {left} and {right}: {:#?}", self.states()));
        self.settled("join").await;
        reached
    }
}

fn params(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// A cluster with the module deployed by parameters alone.
async fn deployed(pairs: &[(&str, &str)]) -> Rig {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.topic("right", 1).await;
    let pairs = [&[("with", "right")], pairs].concat();
    let joining = rig.deploy("join", |spec| spec.params = params(&pairs));
    joining.await.unwrap();
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_meets_the_table_as_it_was_at_its_time() {
    let rig = deployed(&[("kind", "left")]).await;
    // Both are there before either is read: the order is that of the times.
    rig.transforms.pause("join").await.unwrap();
    rig.keyed(
        "right",
        &[("a", Some("1"), 10), ("a", Some("2"), 20), ("a", None, 30)],
    )
    .await;
    let orders = [("a", 5), ("a", 10), ("a", 25), ("b", 26), ("a", 40)];
    rig.keyed("in", &orders.map(|(key, at)| (key, Some("\"o\""), at)))
        .await;
    rig.transforms.resume("join").await.unwrap();
    rig.joined(5, 3).await;
    let met = |right: &str| format!(r#"{{"left":"o","right":{right}}}"#);
    let expected = ["null", "1", "2", "null", "null"].map(met);
    assert_eq!(rig.values("out", 0).await, expected);
    let status = rig.transforms.status("join").unwrap();
    assert_eq!(
        (status.totals.records_in, status.totals.records_out, status.lag),
        (8, 5, 0)
    );
    assert!(
        rig.restored("join", 0).await.joins.is_empty(),
        "the tombstone took the entry"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_and_both_positions_survive_the_power() {
    let rig = deployed(&[("fields", "left.o, right")]).await;
    rig.keyed(
        "right",
        &[("a", Some("1"), 1), ("b", Some("2"), 1), ("c", Some("3"), 1)],
    )
    .await;
    rig.joined(0, 3).await;
    rig.keyed(
        "in",
        &[("a", Some(r#"{"o":1}"#), 2), ("x", Some(r#"{"o":2}"#), 2)],
    )
    .await;
    rig.joined(2, 3).await;
    let rig = rig.crash().await;
    rig.keyed("right", &[("b", None, 3), ("c", Some("4"), 3)]).await;
    rig.joined(2, 5).await;
    // What was appended in a transaction that never ended is given up, and comes once.
    rig.outside.end_none();
    rig.keyed(
        "in",
        &[("a", Some(r#"{"o":3}"#), 4), ("b", Some(r#"{"o":4}"#), 4)],
    )
    .await;
    rig.outside.stuck().await;
    let rig = rig.crash().await;
    rig.keyed("in", &[("c", Some(r#"{"o":5}"#), 5)]).await;
    rig.joined(5, 5).await;
    assert_eq!(
        rig.values("out", 0).await,
        [
            r#"{"o":1,"right":1}"#,
            r#"{"o":3,"right":1}"#,
            r#"{"o":5,"right":4}"#
        ]
    );
    assert_eq!(rig.transforms.status("join").unwrap().lag, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_a_join_goes_on_from_both_positions_too() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.topic("right", 1).await;
    let joining = rig.deploy("join", |spec| {
        spec.params = params(&[("with", "right")]);
        spec.delivery = Some(Delivery::AtLeastOnce);
    });
    joining.await.unwrap();
    rig.keyed("right", &[("a", Some("1"), 1)]).await;
    rig.joined(0, 1).await;
    let rig = rig.crash().await;
    rig.keyed("in", &[("a", Some("2"), 2)]).await;
    rig.joined(1, 1).await;
    let rig = rig.crash().await;
    rig.keyed("in", &[("a", Some("3"), 3)]).await;
    rig.joined(2, 1).await;
    let expected = [r#"{"left":2,"right":1}"#, r#"{"left":3,"right":1}"#];
    assert_eq!(rig.values("out", 0).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_joined_is_a_dead_letter_of_its_side() {
    let rig = deployed(&[("within", "10ms")]).await;
    rig.keyed("right", &[("a", Some("no JSON"), 0), ("a", Some("{}"), 100)])
        .await;
    rig.joined(0, 2).await;
    rig.keyed(
        "in",
        &[("a", Some("{"), 100), ("a", Some("1"), 50), ("a", Some("2"), 100)],
    )
    .await;
    rig.joined(3, 2).await;
    assert_eq!(rig.values("out", 0).await, [r#"{"left":2,"right":{}}"#]);
    let letters = rig.read("in.dead-letter", 0).await;
    let told = letters.iter().map(|(value, headers)| {
        let header = |name: &str| &*headers[name];
        let [reason, topic, offset] = ["reason", "topic", "offset"].map(|it| format!("headwater-error-{it}"));
        (&**value, header(&reason), header(&topic), header(&offset))
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("no JSON", "rejected", "right", "0"),
            ("{", "rejected", "in", "0"),
            ("1", "late", "in", "1"),
        ]
    );
    let totals = rig.transforms.status("join").unwrap().totals;
    assert_eq!((totals.records_in, totals.failed, totals.late), (5, 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_streams_meet_over_a_crash_and_what_met_nothing_is_told_when_its_time_is_over() {
    let rig = deployed(&[("kind", "outer"), ("within", "10ms"), ("grace", "5ms")]).await;
    rig.keyed("in", &[("a", Some("1"), 100), ("b", Some("2"), 101)])
        .await;
    rig.joined(2, 0).await;
    let rig = rig.crash().await;
    rig.keyed(
        "right",
        &[("a", Some("3"), 108), ("a", Some("4"), 112), ("c", Some("5"), 98)],
    )
    .await;
    let right = rig.joined(2, 3).await;
    assert_eq!(right.clock_ms, Some(112));
    // The time of either side counts; a tombstone is no record, and has a time all the same.
    rig.keyed("in", &[("z", None, 200)]).await;
    rig.joined(3, 3).await;
    let mut sent = rig.values("out", 0).await;
    assert_eq!(sent.remove(0), r#"{"left":1,"right":3}"#);
    assert_eq!(
        sent,
        [
            r#"{"left":null,"right":5}"#,
            r#"{"left":2,"right":null}"#,
            r#"{"left":null,"right":4}"#
        ]
    );
    assert!(rig.restored("join", 0).await.joins.is_empty(), "nothing is kept");
    assert_eq!(rig.read("in.dead-letter", 0).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_module_may_stand_behind_a_join_and_fail_on_it() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.topic("right", 1).await;
    let joining = rig.deploy("filter", |spec| {
        spec.name = "join".to_owned();
        spec.params = params(&[("where", "left.n > right.n")]);
        spec.join = Some(JoinSpec {
            topic: "right".to_owned(),
            kind: None,
            within_ms: None,
            grace_ms: None,
            left_key: Some("/who".to_owned()),
            right_key: None,
        });
    });
    joining.await.unwrap();
    rig.keyed(
        "right",
        &[("a", Some(r#"{"n":1}"#), 0), ("b", Some(r#"{"n":"x"}"#), 0)],
    )
    .await;
    rig.joined(0, 2).await;
    let orders = [
        r#"{"who":"a","n":2}"#,
        r#"{"who":"a","n":0}"#,
        r#"{"who":"b","n":3}"#,
        r#"{"n":3}"#,
    ];
    rig.keyed("in", &orders.map(|order| ("-", Some(order), 1))).await;
    rig.joined(4, 2).await;
    let joined = format!(r#"{{"left":{},"right":{{"n":1}}}}"#, orders[0]);
    assert_eq!(rig.values("out", 0).await, [joined]);
    let letters = rig.read("in.dead-letter", 0).await;
    let [(value, headers)] = &letters[..] else {
        panic!("one letter, not {letters:?}");
    };
    assert_eq!(*value, format!(r#"{{"left":{},"right":{{"n":"x"}}}}"#, orders[2]));
    assert_eq!(
        (
            &*headers["headwater-error-offset"],
            &*headers["headwater-error-joined"]
        ),
        ("2", "true")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_join_begins_its_right_side_anew_and_keeps_its_place_in_the_left_one() {
    let rig = deployed(&[]).await;
    rig.keyed("right", &[("a", Some("1"), 0)]).await;
    rig.joined(0, 1).await;
    rig.keyed("in", &[("a", Some("1"), 1)]).await;
    rig.joined(1, 1).await;
    let pairs = [("with", "right"), ("within", "10ms"), ("fields", "right as r")];
    let again = rig.deploy("join", |spec| spec.params = params(&pairs));
    again.await.unwrap();
    rig.keyed("in", &[("a", Some("2"), 2)]).await;
    let right = rig.joined(2, 1).await;
    let with = JoinWith::Stream {
        within_ms: 10,
        grace_ms: 0,
    };
    let expected = Join {
        topic: "right".to_owned(),
        kind: JoinKind::Inner,
        with,
        left_key: None,
        right_key: None,
    };
    assert_eq!(right.join, expected);
    assert_eq!(
        rig.values("out", 0).await,
        [r#"{"left":1,"right":1}"#, r#"{"r":1}"#]
    );
    // One record of either side, and nothing of the table.
    assert_eq!(rig.restored("join", 0).await.joins.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_are_not_partitioned_alike_are_refused_with_a_way_out() {
    let rig = Rig::new().await;
    rig.topic("in", 2).await;
    rig.topic("right", 3).await;
    let refuse = async |pairs: &[(&str, &str)]| {
        let refused = rig.deploy("join", |spec| spec.params = params(pairs)).await;
        refused.unwrap_err().to_string()
    };
    assert_eq!(
        refuse(&[("with", "right")]).await,
        "topics \"in\" and \"right\" cannot be joined: they have 2 and 3 partitions, and must have as many as each other, with \
         records of a key in the same one. Write one of them into a topic with 3 partitions by a transform with the module \
         `filter` and the parameter `where=true`, and join that topic"
    );
    rig.topic("same", 2).await;
    let by_field = refuse(&[("with", "same"), ("left-key", "/id")]).await;
    assert!(
        by_field.starts_with("topic \"in\" cannot be joined by \"/id\""),
        "{by_field}"
    );
    // The way out is one.
    let moved = rig.deploy("filter", |spec| {
        spec.params = params(&[("where", "true")]);
        spec.source = "right".to_owned();
        spec.sinks = vec!["same".to_owned()];
    });
    moved.await.unwrap();
    // A topic that comes later is looked at then.
    let pairs = [("with", "later")];
    let joining = rig.deploy("join", |spec| spec.params = params(&pairs));
    joining.await.unwrap();
    let state = rig.transforms.status("join").unwrap().state;
    assert_eq!(
        state.reason(),
        Some("the topic to join with, \"later\", does not exist")
    );
}
