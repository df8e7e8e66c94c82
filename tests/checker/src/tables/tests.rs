//! Each thing that can be wrong with a table, beside a history in which nothing is.

use super::*;

/// Two flights of one key and one of another, in order; an hour that was told twice; what was joined, in any order; no dead letter.
const GOOD: &str = r#"
{"event":"table","table":"late","rows":"once"}
{"event":"wanted","table":"late","id":"1","key":"ABE","row":"33"}
{"event":"wanted","table":"late","id":"2","key":"LAS","row":"16"}
{"event":"wanted","table":"late","id":"3","key":"ABE","row":"20"}
{"event":"table","table":"hours","rows":"updated"}
{"event":"wanted","table":"hours","id":"ABE 17","key":"ABE","row":"2,53"}
{"event":"table","table":"joined","rows":"unordered"}
{"event":"wanted","table":"joined","id":"1 17","key":"ABE","row":"33,2"}
{"event":"wanted","table":"joined","id":"3 18","key":"ABE","row":"20,null"}
{"event":"table","table":"dead","rows":"none"}
{"event":"found","table":"late","partition":0,"offset":0,"id":"1","key":"ABE","row":"33"}
{"event":"found","table":"late","partition":0,"offset":4,"id":"3","key":"ABE","row":"20"}
{"event":"found","table":"late","partition":1,"offset":0,"id":"2","key":"LAS","row":"16"}
{"event":"found","table":"hours","partition":0,"offset":0,"id":"ABE 17","key":"ABE","row":"1,33"}
{"event":"found","table":"hours","partition":0,"offset":2,"id":"ABE 17","key":"ABE","row":"2,53"}
{"event":"found","table":"joined","partition":0,"offset":1,"id":"3 18","key":"ABE","row":"20,null"}
{"event":"found","table":"joined","partition":0,"offset":2,"id":"1 17","key":"ABE","row":"33,2"}
{"event":"rest","client":"compare","topic":"late","partition":0,"stable":6,"end":6}
"#;

fn judge(delivery: Delivery, history: &str) -> TablesVerdict {
    let mut tables = Tables::new(delivery);
    let lines = history.lines().filter(|line| !line.is_empty());
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    tables.read(lines.as_bytes()).expect("it is in memory");
    tables.verdict()
}

/// The good history with some text replaced, and with these lines behind it.
fn altered(delivery: Delivery, (from, to): (&str, &str), with: &str) -> TablesVerdict {
    assert!(GOOD.contains(from), "{from}");
    judge(delivery, &format!("{}\n{with}", GOOD.replace(from, to)))
}

fn found(table: &str, partition: u32, id: &str, key: &str, row: &str) -> String {
    format!(
        r#"{{"event":"found","table":"{table}","partition":{partition},"offset":90,"id":"{id}","key":"{key}","row":"{row}"}}"#
    )
}

const AS_IT_IS: (&str, &str) = ("late", "late");

#[test]
fn a_good_history_holds() {
    for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
        let verdict = judge(delivery, GOOD);
        assert!(verdict.holds(), "{verdict}");
        let sum = |sum: &Sum| (sum.wanted, sum.found, sum.again);
        let sums: Vec<_> = verdict.sums.iter().map(sum).collect();
        assert_eq!(
            sums,
            [(0, 0, 0), (1, 2, 1), (2, 2, 0), (3, 3, 0)],
            "dead, hours, joined, late"
        );
    }
}

#[test]
fn each_thing_that_is_wrong_is_found_and_no_other() {
    let late = r#"{"event":"found","table":"late","partition":0,"offset":4,"id":"3","key":"ABE","row":"20"}"#;
    let later = late.replace(
        r#""id":"3","key":"ABE","row":"20""#,
        r#""id":"1","key":"ABE","row":"33""#,
    );
    let again = found("late", 0, "3", "ABE", "20");
    let cases = [
        (Wrong::Missing, (late, ""), String::new()),
        (Wrong::Doubled, AS_IT_IS, again),
        (
            Wrong::Doubled,
            AS_IT_IS,
            found("joined", 0, "1 17", "ABE", "33,2"),
        ),
        (
            Wrong::Doubled,
            AS_IT_IS,
            found("hours", 0, "ABE 17", "ABE", "2,53"),
        ),
        (
            Wrong::Different,
            (
                r#""offset":4,"id":"3","key":"ABE","row":"20""#,
                r#""offset":4,"id":"3","key":"ABE","row":"21""#,
            ),
            String::new(),
        ),
        (
            Wrong::Different,
            AS_IT_IS,
            found("hours", 0, "ABE 17", "ABE", "3,73"),
        ),
        (Wrong::Strange, AS_IT_IS, found("late", 0, "4", "ABE", "20")),
        (Wrong::Strange, AS_IT_IS, found("dead", 0, "1", "", "late")),
        (Wrong::Hangs, (r#""stable":6"#, r#""stable":5"#), String::new()),
        (Wrong::Told, AS_IT_IS, "half a li".to_owned()),
        (Wrong::Told, AS_IT_IS, found("of nobody", 0, "1", "ABE", "33")),
        (
            Wrong::Told,
            (
                r#"{"event":"rest","#,
                r#"{"event":"table","table":"idle","rows":"none","#,
            ),
            String::new(),
        ),
        (
            Wrong::Told,
            AS_IT_IS,
            r#"{"event":"table","table":"empty","rows":"once"}"#.to_owned(),
        ),
    ];
    for (wrong, change, with) in cases {
        let verdict = altered(Delivery::ExactlyOnce, change, &with);
        assert_eq!(verdict.count(wrong), 1, "{wrong:?}: {verdict}");
        assert_eq!(verdict.found.kinds(), 1, "{wrong:?}: {verdict}");
    }
    // The first of the key comes behind the last of it: in its place, or in another partition.
    let first =
        r#"{"event":"found","table":"late","partition":0,"offset":0,"id":"1","key":"ABE","row":"33"}"#;
    let pair =
        r#"{"event":"found","table":"joined","partition":0,"offset":2,"id":"1 17","key":"ABE","row":"33,2"}"#;
    for (gone, with) in [
        (first, later),
        (first, found("late", 2, "1", "ABE", "33")),
        (pair, found("joined", 1, "1 17", "ABE", "33,2")),
    ] {
        let verdict = altered(Delivery::ExactlyOnce, (gone, ""), &with);
        assert_eq!(verdict.count(Wrong::Disordered), 1, "{verdict}");
        assert_eq!(verdict.found.kinds(), 1, "{verdict}");
    }
}

#[test]
fn at_least_once_what_comes_again_is_counted_and_nothing_else_is_forgiven() {
    let again = found("late", 0, "1", "ABE", "33");
    let verdict = altered(Delivery::AtLeastOnce, AS_IT_IS, &again);
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.sums[3].again, 1);
    let told = found("hours", 0, "ABE 17", "ABE", "2,53");
    let verdict = altered(Delivery::AtLeastOnce, AS_IT_IS, &told);
    assert!(verdict.holds(), "{verdict}");
    let other = found("late", 0, "1", "ABE", "34");
    let verdict = altered(Delivery::AtLeastOnce, AS_IT_IS, &other);
    assert_eq!(verdict.count(Wrong::Different), 1, "{verdict}");
    let lost = r#"{"event":"found","table":"late","partition":1,"offset":0,"id":"2","key":"LAS","row":"16"}"#;
    let verdict = altered(Delivery::AtLeastOnce, (lost, ""), "");
    assert_eq!(verdict.count(Wrong::Missing), 1, "{verdict}");
}

#[test]
fn what_is_wrong_is_named_with_its_key() {
    let lost = r#"{"event":"found","table":"late","partition":1,"offset":0,"id":"2","key":"LAS","row":"16"}"#;
    let again = found("late", 0, "3", "ABE", "20");
    let said = altered(Delivery::ExactlyOnce, (lost, ""), &again).to_string();
    for named in [
        "late: 2 of LAS: 16",
        "late 0, offset 90: 3 of ABE: 20",
        "VIOLATED",
    ] {
        assert!(said.contains(named), "{named}: {said}");
    }
}
