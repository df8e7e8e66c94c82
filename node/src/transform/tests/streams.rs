//! Windows that are no tumbling ones, late records, and state that expires, through a whole node and its crashes.

use super::*;
use crate::transform::spec::{WindowKind, WindowSpec};

fn params(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn sessions(gap_ms: i64) -> Option<WindowSpec> {
    Some(WindowSpec {
        kind: WindowKind::Session,
        size_ms: None,
        advance_ms: None,
        gap_ms: Some(gap_ms),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_and_is_joined_after_a_crash() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    let deployed = rig.deploy("aggregate", |spec| {
        spec.params = params(&[
            ("compute", "count() as n, sum(v) as s"),
            ("time", "t"),
            ("window-times", "epoch-ms"),
        ]);
        spec.window = sessions(5);
        spec.lateness_ms = Some(20);
        spec.late_sink = Some("late".to_owned());
    });
    deployed.await.unwrap();
    rig.append("in", 0, &[(1, r#"{"t":0,"v":1}"#), (1, r#"{"t":10,"v":2}"#)])
        .await;
    rig.committed("aggregate", 0, 2).await;
    let rig = rig.crash().await;
    // It joins the two, the next closes them, and the last comes too late for them.
    let records = [r#"{"t":5,"v":4}"#, r#"{"t":100,"v":8}"#, r#"{"t":6,"v":16}"#];
    rig.append("in", 0, &records.map(|value| (1, value))).await;
    rig.reached("late", 0, 1).await;
    rig.reached("out", 0, 1).await;
    rig.committed("aggregate", 0, 5).await;
    assert_eq!(
        rig.values("out", 0).await,
        [r#"{"window_start":0,"window_end":11,"n":3,"s":7}"#]
    );
    let late = rig.read("late", 0).await;
    assert_eq!(late, [(records[2].to_owned(), BTreeMap::new())], "as it was");
    assert_eq!(rig.transforms.status("aggregate").unwrap().totals.late, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_join_two_sessions_is_a_dead_letter() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    let deployed = rig.deploy("aggregate", |spec| {
        spec.params = params(&[("compute", "max(v) as most"), ("time", "t")]);
        spec.window = sessions(5);
        spec.lateness_ms = Some(20);
    });
    deployed.await.unwrap();
    let records = [
        r#"{"t":0,"v":1}"#,
        r#"{"t":10,"v":"text"}"#,
        r#"{"t":5,"v":null}"#,
        r#"{"t":12,"v":"more"}"#,
        // It fits neither session by itself, and closes both.
        r#"{"t":100,"v":3}"#,
    ];
    rig.append("in", 0, &records.map(|value| (1, value))).await;
    rig.reached("out", 0, 2).await;
    rig.committed("aggregate", 0, 5).await;
    let letters = rig.read("in.dead-letter", 0).await;
    let [(value, headers)] = &letters[..] else {
        panic!("one letter, not {letters:?}");
    };
    assert_eq!(value, records[2]);
    assert_eq!(headers["headwater-error-reason"], "rejected");
    assert_eq!(
        headers["headwater-error-message"],
        "it joins two sessions: most: text has no order among numbers"
    );
    let sent = rig.values("out", 0).await;
    assert!(
        sent[0].ends_with(r#""most":1}"#) && sent[1].ends_with(r#""most":"text"}"#),
        "{sent:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_refused_to_a_module_that_cannot_merge() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    let refused = rig
        .deploy("examples/longest", |spec| spec.window = sessions(5))
        .await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "session windows need a module that can merge accumulators: longest does not export headwater:module/merging"
    );
    // What needs no merging is open to it.
    let hopping = WindowSpec {
        kind: WindowKind::Hopping,
        size_ms: Some(10),
        advance_ms: Some(5),
        gap_ms: None,
    };
    let deployed = rig.deploy("examples/longest", |spec| spec.window = Some(hopping));
    deployed.await.unwrap();
    rig.append("in", 0, &[(7, "a"), (40, "b")]).await;
    rig.reached("out", 0, 2).await;
    assert_eq!(rig.values("out", 0).await, ["a", "a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_shows_windows_of_other_shapes() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    let module = rig.upload("aggregate").await;
    let records = [r#"{"t":100}"#, r#"{"t":108}"#, r#"{"t":104}"#, r#"{"t":130}"#];
    rig.append("in", 0, &records.map(|value| (1, value))).await;
    let hopping = Some(WindowSpec {
        kind: WindowKind::Hopping,
        size_ms: Some(10),
        advance_ms: Some(5),
        gap_ms: None,
    });
    for (window, expected) in [
        // The third record joins the first two.
        (sessions(5), vec![(100, 109, 3), (130, 131, 1)]),
        (
            hopping,
            vec![
                (95, 105, 2),
                (100, 110, 3),
                (105, 115, 1),
                (125, 135, 1),
                (130, 140, 1),
            ],
        ),
    ] {
        let dry_run = DryRun {
            module: module.clone(),
            params: params(&[
                ("compute", "count() as n"),
                ("time", "t"),
                ("window-times", "epoch-ms"),
            ]),
            source: "in".to_owned(),
            partition: None,
            offset: None,
            limit: 10,
            lookups: BTreeMap::new(),
            window_ms: None,
            window,
        };
        let report = rig.transforms.dry_run(dry_run).await.unwrap();
        assert!(report.results.iter().all(|tried| tried.fate == Fate::Kept));
        let sent = &report.results.last().unwrap().outputs;
        let sent = sent.iter().map(|output| output.value.clone().unwrap());
        let sent: Vec<_> = sent.map(|value| String::from_utf8(value).unwrap()).collect();
        let result = |(start, end, n)| format!(r#"{{"window_start":{start},"window_end":{end},"n":{n}}}"#);
        assert_eq!(sent, expected.into_iter().map(result).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_is_remembered_through_a_crash_and_for_its_time() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    let deployed = rig.deploy("dedup", |spec| spec.params = params(&[("ttl", "10ms")]));
    deployed.await.unwrap();
    // The module's own parameter says how long entries stay.
    assert_eq!(rig.view.image().transforms["dedup"].state_ttl_ms, Some(10));
    rig.append("in", 0, &[(1, "a"), (2, "b"), (3, "a")]).await;
    rig.committed("dedup", 0, 3).await;
    let rig = rig.crash().await;
    rig.append("in", 0, &[(4, "a"), (20, "c")]).await;
    rig.committed("dedup", 0, 5).await;
    rig.append("in", 0, &[(21, "a"), (22, "a")]).await;
    rig.committed("dedup", 0, 7).await;
    assert_eq!(rig.values("out", 0).await, ["a", "b", "c", "a"]);
    let restored = rig.restored("dedup", 0).await;
    let left: Vec<&[u8]> = restored.entries.keys().map(|key| &**key).collect();
    assert_eq!(left, [b"a", b"c"], "b is forgotten");
    assert_eq!(restored.commit.unwrap().clock_ms, Some(22));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_from_before_gets_a_time_to_live_and_loses_it_again() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    let module = "examples/deduplicate";
    rig.deploy(module, |_| ()).await.unwrap();
    rig.append("in", 0, &[(1, "a"), (2, "a")]).await;
    rig.committed("deduplicate", 0, 2).await;
    rig.deploy(module, |spec| spec.state_ttl_ms = Some(10))
        .await
        .unwrap();
    rig.append("in", 0, &[(100, "a"), (105, "b")]).await;
    rig.committed("deduplicate", 0, 4).await;
    rig.append("in", 0, &[(115, "c")]).await;
    rig.committed("deduplicate", 0, 5).await;
    // The first is gone by now: its time began with the first record after the change.
    rig.append("in", 0, &[(116, "a")]).await;
    rig.committed("deduplicate", 0, 6).await;
    rig.deploy(module, |_| ()).await.unwrap();
    rig.append("in", 0, &[(9_000, "a"), (9_000, "d")]).await;
    rig.committed("deduplicate", 0, 8).await;
    assert_eq!(rig.values("out", 0).await, ["a", "b", "c", "a", "d"]);
    let restored = rig.restored("deduplicate", 0).await;
    assert_eq!(&*restored.entries[&b"a"[..]], b"a", "without a stamp");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_of_another_shape_do_not_come_back_after_a_crash() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    let module = "examples/longest";
    let deployed = rig.deploy(module, |spec| spec.window_ms = Some(100));
    deployed.await.unwrap();
    rig.append("in", 0, &[(1, "before")]).await;
    rig.committed("longest", 0, 1).await;
    rig.deploy(module, |spec| spec.window_ms = Some(50))
        .await
        .unwrap();
    rig.append("in", 0, &[(60, "a")]).await;
    rig.committed("longest", 0, 2).await;
    let rig = rig.crash().await;
    rig.append("in", 0, &[(500, "end")]).await;
    rig.reached("out", 0, 1).await;
    rig.committed("longest", 0, 3).await;
    assert_eq!(rig.values("out", 0).await, ["a"]);
}
