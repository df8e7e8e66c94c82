//! Each promise broken once, beside a history that keeps them all.

use super::*;

/// Two transfers committed, one aborted, one of unknown outcome; two records copied.
const GOOD: &str = r#"
{"event":"begun","client":"bank","transfer":"a"}
{"event":"ended","client":"bank","transfer":"a","outcome":"committed"}
{"event":"begun","client":"bank","transfer":"b"}
{"event":"ended","client":"bank","transfer":"b","outcome":"aborted"}
{"event":"begun","client":"bank","transfer":"c"}
{"event":"begun","client":"bank","transfer":"d"}
{"event":"ended","client":"bank","transfer":"d","outcome":"unknown"}
{"event":"leg","client":"along","partition":0,"offset":3,"transfer":"a","amount":-5}
{"event":"leg","client":"final","partition":0,"offset":3,"transfer":"a","amount":-5}
{"event":"leg","client":"final","partition":1,"offset":7,"transfer":"a","amount":5}
{"event":"leg","client":"final","partition":0,"offset":9,"transfer":"d","amount":-1}
{"event":"leg","client":"final","partition":0,"offset":10,"transfer":"d","amount":1}
{"event":"source","client":"final","partition":0,"offset":0}
{"event":"source","client":"final","partition":0,"offset":1}
{"event":"copy","client":"final","partition":0,"offset":4,"of":0}
{"event":"copy","client":"final","partition":0,"offset":6,"of":1}
{"event":"rest","client":"final","topic":"ledger","partition":0,"stable":11,"end":11}
"#;

fn judge(lines: &str) -> EffectsVerdict {
    let mut effects = Effects::default();
    let lines = lines.trim_start();
    effects.read(lines.as_bytes()).expect("it is in memory");
    effects.verdict()
}

/// The good history without the lines that hold `without`, and with these.
fn altered(without: &str, with: &str) -> EffectsVerdict {
    let kept = GOOD
        .lines()
        .filter(|line| without.is_empty() || !line.contains(without));
    let mut lines: Vec<&str> = kept.collect();
    lines.push(with);
    judge(&format!("{}\n", lines.join("\n").trim_end()))
}

#[test]
fn a_good_history_holds() {
    let verdict = judge(GOOD);
    assert!(verdict.holds(), "{verdict}");
}

#[test]
fn each_broken_promise_is_found_and_no_other() {
    let leg = |client: &str, offset: u64, transfer: &str, amount: i64| {
        format!(
            r#"{{"event":"leg","client":"{client}","partition":1,"offset":{offset},"transfer":"{transfer}","amount":{amount}}}"#
        )
    };
    let cases = [
        (Promise::Whole, r#""offset":7"#, String::new()),
        (Promise::Whole, r#""offset":10"#, leg("final", 20, "d", 2)),
        (Promise::Kept, r#""transfer":"a","amount""#, String::new()),
        (Promise::NothingAborted, "", leg("final", 20, "b", 1)),
        (Promise::Stable, "", leg("along", 20, "c", 1)),
        (Promise::Once, "", leg("final", 20, "a", 5)),
        (
            Promise::Begun,
            r#""event":"begun","client":"bank","transfer":"d""#,
            String::new(),
        ),
        (
            Promise::Once,
            "",
            r#"{"event":"copy","client":"final","partition":0,"offset":8,"of":1}"#.to_owned(),
        ),
        (
            Promise::InOrder,
            r#""offset":4,"of":0"#,
            r#"{"event":"copy","client":"final","partition":0,"offset":8,"of":0}"#.to_owned(),
        ),
        (Promise::Kept, r#""of":1"#, String::new()),
        (
            Promise::Begun,
            "",
            r#"{"event":"copy","client":"final","partition":0,"offset":8,"of":2}"#.to_owned(),
        ),
        (
            Promise::NoneHangs,
            "",
            r#"{"event":"rest","client":"final","topic":"copies","partition":0,"stable":3,"end":4}"#
                .to_owned(),
        ),
        (Promise::Told, r#""event":"rest""#, String::new()),
        (Promise::Told, "", "{}".to_owned()),
    ];
    for (promise, without, with) in cases {
        let verdict = altered(without, &with);
        assert_eq!(verdict.count(promise), 1, "{promise:?}: {verdict}");
        assert_eq!(verdict.found.kinds(), 1, "{promise:?}: {verdict}");
    }
}
