//! The language as its users see it: expressions over values, answers and refusals.

use headwater_guest::testing::{TestRecord, encode_batch};
use headwater_guest::{Batch, Error};

use crate::{Expression, Fields, Parser, Path};

fn parse(source: &str, fields: &mut Fields) -> Result<Expression, String> {
    let mut read = || -> Result<Expression, crate::ParseError> {
        let mut parser = Parser::new(source)?;
        let expression = parser.expression(fields)?;
        parser.expect_end()?;
        Ok(expression)
    };
    read().map_err(|error| error.to_string())
}

/// The value of an expression for a record, as JSON; or the failure.
fn of_record(source: &str, record: TestRecord) -> Result<String, String> {
    let mut fields = Fields::default();
    let expression = parse(source, &mut fields).unwrap_or_else(|error| panic!("{source}: {error}"));
    let buffer = encode_batch(&[record]);
    let record = Batch::new(&buffer).records().next().expect("one record");
    let mut compute = || -> Result<String, Error> {
        let view = fields.view(&record)?;
        let mut json = Vec::new();
        expression.value(&view)?.put_json(&mut json);
        Ok(String::from_utf8(json).expect("JSON is UTF-8"))
    };
    compute().map_err(|error| error.to_string())
}

fn check(cases: &[(&str, &str, &str)]) {
    for (source, value, expected) in cases {
        let seen = of_record(source, TestRecord::value(*value))
            .unwrap_or_else(|failure| format!("failed: {failure}"));
        assert_eq!(seen, *expected, "{source} of {value}");
    }
}

const FLIGHT: &str =
    r#"{"date":"2001-01-01T00:01:00","delay":33,"distance":2176,"origin":"LAS","destination":"PHL"}"#;

#[test]
fn flights_are_judged() {
    check(&[
        ("delay > 15", FLIGHT, "true"),
        ("delay > 15 and origin = 'LAS'", FLIGHT, "true"),
        ("delay > 15 and not origin = 'LAS'", FLIGHT, "false"),
        ("origin in ('ATL', 'LAS')", FLIGHT, "true"),
        ("origin not in ('ATL', 'LAS')", FLIGHT, "false"),
        ("distance / 2 >= 1088", FLIGHT, "true"),
        ("distance % 100", FLIGHT, "76"),
        ("-delay + 2 * 3 - (1 - 2)", FLIGHT, "-26"),
        ("date >= '2001-01-01' and date < '2001-01-02'", FLIGHT, "true"),
        (
            "STARTS_WITH(origin, 'L') AND Contains(origin, \"A\") and ends_with(origin, 'S')",
            FLIGHT,
            "true",
        ),
        ("origin = destination or delay=33", FLIGHT, "true"),
    ]);
}

#[test]
fn and_binds_tighter_than_or_and_not_tighter_than_both() {
    check(&[
        ("true or false and false", "{}", "true"),
        ("(true or false) and false", "{}", "false"),
        ("not true or true", "{}", "true"),
        ("not (true or true)", "{}", "false"),
        ("not not true", "{}", "true"),
        ("1 + 2 * 3 = 7 and 10 - 4 - 3 = 3", "{}", "true"),
    ]);
}

#[test]
fn paths_lead_anywhere() {
    let value =
        r#" {"a":{"b":[{"c":1},{"c":[[7]]}],"odd name":2},"a.b":3,"key":4,"é":5, "x":{"y":{"z":6}}} "#;
    check(&[
        ("a.b[0].c", value, "1"),
        ("a.b[1].c[0][0]", value, "7"),
        ("a.b[2].c", value, "null"),
        ("a.`odd name`", value, "2"),
        ("a['odd name'] + $['a.b']", value, "5"),
        ("$.key", value, "4"),
        ("é", value, "5"),
        ("x.y.z", value, "6"),
        ("x.y", value, r#"{"z":6}"#),
        ("x.y.z + a.b[0].c", value, "7"),
        ("exists(x.y) and exists(x.y.z) and not exists(x.z)", value, "true"),
        ("a.b.c", value, "null"),
        ("$[1]", "[1, 2]", "2"),
        ("[1]", "[1, 2]", "2"),
        ("$", " 12 ", "12"),
        ("$.a", "12", "null"),
        ("$.a", "[]", "null"),
        ("$[0]", "{}", "null"),
    ]);
}

#[test]
fn wanted_fields_may_lie_in_each_other() {
    let value = r#"{"a":{"b":1,"c":2},"d":3}"#;
    check(&[
        ("a.b + d", value, "4"),
        ("exists(a) and a.c = 2", value, "true"),
        (
            "a.c = 2 and exists(a.b) and exists($) and exists(a)",
            value,
            "true",
        ),
    ]);
}

#[test]
fn null_and_missing() {
    let value = r#"{"n":null,"t":"x","f":false}"#;
    check(&[
        ("n is null and missing is null and t is not null", value, "true"),
        ("exists(n) and not exists(missing)", value, "true"),
        ("n = null and missing = n", value, "true"),
        ("t != null and missing != 'x'", value, "true"),
        ("missing > 5 or missing <= 5 or n < 'a'", value, "false"),
        ("not (missing > 5)", value, "true"),
        ("missing + 1", value, "null"),
        ("missing in (1, null)", value, "true"),
        ("contains(missing, 'x')", value, "false"),
        ("f or missing", value, "false"),
        ("not f", value, "true"),
    ]);
}

#[test]
fn kinds_that_do_not_fit() {
    let value = r#"{"t":"20","n":20,"o":{"x":1},"a":[1],"b":true,"huge":1e400,"odd":1-2}"#;
    check(&[
        ("t > 15", value, "failed: t is text, not a number"),
        ("15 < t", value, "failed: t is text, not a number"),
        ("n > 'a'", value, "failed: n is a number, not text"),
        ("t = 20 or n = '20' or b = 'true'", value, "false"),
        ("t != 20", value, "true"),
        (
            "o = 1",
            value,
            "failed: o is an object, not a value that can be compared",
        ),
        (
            "1 = a",
            value,
            "failed: a is an array, not a value that can be compared",
        ),
        ("o < 1", value, "failed: o is an object, not a number"),
        ("t + 1", value, "failed: t is text, not a number"),
        ("-b", value, "failed: b is a boolean, not a number"),
        ("n and b", value, "failed: n is a number, not true or false"),
        ("contains(n, '2')", value, "failed: n is a number, not text"),
        (
            "huge > 1",
            value,
            "failed: huge is a malformed or huge number, not a number",
        ),
        (
            "odd > 1",
            value,
            "failed: odd is a malformed or huge number, not a number",
        ),
        ("n / 0", value, "failed: division by zero"),
        ("n % 0", value, "failed: division by zero"),
        (
            "1e308 * 10 > n",
            value,
            "failed: the result is beyond what a float can hold",
        ),
        ("b = true", value, "true"),
    ]);
}

#[test]
fn numbers_are_exact_while_they_can_be() {
    let value =
        r#"{"max":9223372036854775807,"beyond":9223372036854775808,"third":0.1,"big":9007199254740993}"#;
    check(&[
        ("max = 9223372036854775807", value, "true"),
        ("max < beyond", value, "true"),
        ("big = 9007199254740992", value, "false"),
        ("big = 9007199254740992.0", value, "false"),
        ("max + 1", value, "9.223372036854776e18"),
        ("max - 1", value, "9223372036854775806"),
        ("third + 0.2", value, "0.30000000000000004"),
        ("7 / 2", value, "3.5"),
        ("6 / 2 = 3", value, "true"),
        ("-9223372036854775808 - 1", value, "-9.223372036854776e18"),
        ("1e2 = 100 and 1.0 = 1 and -0.0 = 0", value, "true"),
    ]);
}

#[test]
fn texts_compare_by_meaning() {
    let value = r#"{"n\u0061me":"\u0041TL","quote":"a\"b","smile":"\ud83d\ude00","zürich":"Zürich"}"#;
    check(&[
        ("name = 'ATL'", value, "true"),
        ("name < 'B'", value, "true"),
        (r#"quote = 'a"b' and quote = "a\"b""#, value, "true"),
        ("smile = '😀'", value, "true"),
        ("zürich = 'Z\\u00fcrich'", value, "true"),
        ("contains(quote, '\"')", value, "true"),
        ("name", value, r#""\u0041TL""#),
    ]);
}

#[test]
fn json_is_read_as_far_as_needed() {
    check(&[
        ("a", "", "failed: the value is not JSON (byte 0)"),
        ("a", "hello", "failed: the value is not JSON (byte 0)"),
        ("a", r#"{"b":1"#, "failed: the value is not JSON (byte 6)"),
        (
            "a",
            r#"{"b":1} {"a":2}"#,
            "failed: the value is not JSON (byte 8)",
        ),
        ("a", r#"{"b" "a"}"#, "failed: the value is not JSON (byte 5)"),
        ("a", r#"{"a":tru}"#, "failed: the value is not JSON (byte 5)"),
        ("a", r#"{"a":1, and then nonsense"#, "1"),
        ("a", r#"{"a":1,"a":2}"#, "1"),
        ("1 = 1", "hello", "true"),
        ("a", "\u{feff}{}", "failed: the value is not JSON (byte 0)"),
    ]);
}

#[test]
fn the_record_itself() {
    let record = || {
        TestRecord::value("no JSON")
            .key("k1")
            .timestamp_ms(1500)
            .header("site", "a")
            .header("site", "b")
    };
    let of = |source: &str| of_record(source, record());
    assert_eq!(
        of("key = 'k1' and timestamp >= 1500 and offset = 0"),
        Ok("true".into())
    );
    assert_eq!(
        of("header('site') = 'b' and header('other') is null"),
        Ok("true".into())
    );
    assert_eq!(of("KEY"), Ok("\"k1\"".into()));
    let tombstone = TestRecord::tombstone("k1");
    assert_eq!(
        of_record("delay is null and key = 'k1'", tombstone.clone()),
        Ok("true".into())
    );
    assert_eq!(of_record("delay > 1", tombstone), Ok("false".into()));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (source, expected) in [
        ("", "character 1: expected a field, a value or `(`, found the end"),
        (
            "delay >",
            "character 8: expected a field, a value or `(`, found the end",
        ),
        (
            "delay > 15 and",
            "character 15: expected a field, a value or `(`, found the end",
        ),
        (
            "delay 15",
            "character 7: expected an operator or the end, found `15`",
        ),
        ("(delay > 15", "character 12: expected `)`, found the end"),
        (
            "1 < delay < 15",
            "character 11: one comparison at a time: join two with `and`",
        ),
        (
            "delay > 'a' + 1",
            "character 9: this is a text, but a number is needed",
        ),
        ("'a' > 1", "character 7: a text never compares with a number"),
        (
            "delay > null",
            "character 9: only numbers and texts have an order",
        ),
        (
            "delay and 5",
            "character 11: this is a number, but true or false is needed",
        ),
        (
            "not 5",
            "character 5: this is a number, but true or false is needed",
        ),
        (
            "delay in (1, x)",
            "character 14: expected a number, a text, true, false or null, found `x`",
        ),
        ("delay is 5", "character 10: expected `null`, found `5`"),
        ("delay not 5", "character 11: expected `in`, found `5`"),
        (
            "upper(x) = 'A'",
            "character 1: there is no function `upper`; there are exists, header, starts_with, ends_with and contains",
        ),
        (
            "exists(5)",
            "character 8: expected the name of a field, found `5`",
        ),
        (
            "header(site) = 'a'",
            "character 8: expected a name in quotes, found `site`",
        ),
        ("contains(a)", "character 11: expected `,`, found `)`"),
        (
            "contains(1, 'a')",
            "character 10: this is a number, but a text is needed",
        ),
        (
            "a[-1] = 1",
            "character 3: expected a position or a name in quotes, found `-`",
        ),
        ("a. = 1", "character 4: expected the name of a field, found `=`"),
        (
            "and",
            "character 1: expected a field, a value or `(`, found `and`",
        ),
        (
            "a = 1e999",
            "character 5: `1e999` is no number that can be computed with",
        ),
    ] {
        assert_eq!(
            parse(source, &mut Fields::default()).map(drop),
            Err(expected.into()),
            "{source}"
        );
    }
}

#[test]
fn nothing_nests_without_end() {
    for source in [
        "(".repeat(100_000),
        "not ".repeat(16_000),
        "- ".repeat(30_000),
        "a[0]".repeat(1000),
    ] {
        parse(&source, &mut Fields::default()).expect_err("too deep");
    }
    let wide = vec!["a = 1"; 5000].join(" or ");
    parse(&wide, &mut Fields::default()).expect("wide is not deep");
    let error = parse(&"x".repeat(100_000), &mut Fields::default()).expect_err("too long");
    assert_eq!(error, "character 1: longer than 65536 bytes");
}

#[test]
fn a_condition_is_true_or_false() {
    let condition = |source: &str| {
        Parser::new(source)?
            .condition(&mut Fields::default())
            .map(drop)
            .map_err(|error| error.to_string())
            .map_err(|message| crate::ParseError {
                character: 0,
                message,
            })
    };
    assert!(condition("flag").is_ok() && condition("a = 1").is_ok());
    assert_eq!(
        condition("a + 1").expect_err("a number").message,
        "character 1: this is a number, but true or false is needed"
    );
}

#[test]
fn paths_are_shown_as_they_are_written() {
    for path in ["a.b[0].c", "$", "[3]", "odd"] {
        assert_eq!(Path::parse(path).expect("a path").to_string(), path);
    }
    assert_eq!(Path::parse("a.b[0]").expect("a path").last_name(), Some("b"));
    assert_eq!(
        Path::parse("a b").expect_err("two").to_string(),
        "character 3: expected an operator or the end, found `b`"
    );
}
