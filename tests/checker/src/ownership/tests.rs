//! Each rule broken once, beside a history that keeps them all.

use super::*;

/// One partition of six records: a member is killed after three, another goes on where the commit was.
const GOOD: &str = r#"
{"event":"begun","client":"one","at":0}
{"event":"begun","client":"two","at":0}
{"event":"assigned","client":"one/0","generation":1,"partitions":[0],"at":10}
{"event":"read","client":"one/0","generation":1,"partition":0,"begin":0,"end":3}
{"event":"committed","client":"one/0","partition":0,"offset":2,"asked_at":20,"at":25}
{"event":"begun","client":"one","at":3000}
{"event":"assigned","client":"two/0","generation":2,"partitions":[0],"at":9000}
{"event":"read","client":"two/0","generation":2,"partition":0,"begin":2,"end":6}
{"event":"committed","client":"two/0","partition":0,"offset":6,"asked_at":9500,"at":9600}
{"event":"last","client":"final","partition":0,"end":6,"committed":6}
"#;

/// The good history without the lines that hold `without`, and with these.
fn altered(without: &str, with: &str) -> OwnershipVerdict {
    let kept = GOOD
        .lines()
        .filter(|line| without.is_empty() || !line.contains(without));
    let lines: Vec<&str> = kept.chain([with]).filter(|line| !line.is_empty()).collect();
    let mut ownership = Ownership::default();
    let text = format!("{}\n", lines.join("\n"));
    ownership.read(text.as_bytes()).expect("it is in memory");
    ownership.verdict()
}

#[test]
fn a_good_history_holds_and_tells_how_long_nobody_was_there() {
    let verdict = altered("", "");
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.idle_us, [6_000]);
}

#[test]
fn each_broken_rule_is_found_and_no_other() {
    let cases = [
        (
            Rule::AtLeastOnce,
            r#""begin":2"#,
            r#"{"event":"read","client":"two/0","generation":2,"partition":0,"begin":4,"end":6}"#,
        ),
        (
            Rule::OneOwner,
            "",
            r#"{"event":"read","client":"one/1","generation":2,"partition":0,"begin":2,"end":3}"#,
        ),
        (
            Rule::Forward,
            "",
            r#"{"event":"committed","client":"one/0","partition":0,"offset":3,"asked_at":9700,"at":9800}"#,
        ),
        (
            Rule::Kept,
            r#""event":"last""#,
            r#"{"event":"last","client":"final","partition":0,"end":6,"committed":5}"#,
        ),
        (Rule::Told, r#""event":"last""#, ""),
        (Rule::Told, "", "{}"),
    ];
    for (rule, without, with) in cases {
        let verdict = altered(without, with);
        assert_eq!(verdict.count(rule), 1, "{rule:?}: {verdict}");
        assert_eq!(verdict.found.kinds(), 1, "{rule:?}: {verdict}");
    }
    let overlapping =
        r#"{"event":"committed","client":"one/0","partition":0,"offset":3,"asked_at":9550,"at":9800}"#;
    assert!(
        altered("", overlapping).holds(),
        "it was on its way before the other was acknowledged"
    );
}
