//! The reader of JSON against two others: serde_json, for what is JSON, and a plain one of our own, for everything
//! else. Both are slow and simple; the reader must find what they find, on any bytes, whatever it read before.

mod damage;
mod plain;
mod tree;

use headwater_guest::Batch;
use headwater_guest::testing::{TestRecord, encode_batch};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::{Elements, Fields, Members, Parser, Path, Value, check};
use damage::{damaged, document};
use tree::Tree;

/// The fields that are asked for: at the top, below, in arrays, the whole, and one that is hardly ever there.
const PATHS: [&str; 9] = [
    "a",
    "b",
    "delay",
    "`x y`",
    "a.b",
    "b[1]",
    "b[0].a",
    "$",
    "`never there`",
];

/// Every set of them that a bit mask can name; together with the missing one a value is read to its end.
fn paths(mask: usize) -> Vec<Path> {
    let chosen = PATHS.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
    chosen
        .map(|(_, path)| Path::parse(path).expect("these are paths"))
        .collect()
}

/// What the reader under test finds: each field as it stands, or where the value stops being JSON.
fn found(fields: &mut Fields, slots: &[crate::Slot], json: &[u8]) -> Result<Vec<Option<Vec<u8>>>, String> {
    let buffer = encode_batch(&[TestRecord::value(json)]);
    let record = Batch::new(&buffer).records().next().expect("one record");
    let view = fields.view(&record).map_err(|error| error.to_string())?;
    Ok(slots
        .iter()
        .map(|slot| view.raw(*slot).map(<[u8]>::to_vec))
        .collect())
}

fn same_as_plain(documents: &[Vec<u8>], mask: usize) -> Result<(), TestCaseError> {
    let paths = paths(mask);
    let mut fields = Fields::default();
    let slots: Vec<_> = paths.iter().map(|path| fields.add(path)).collect();
    for json in documents {
        let seen = found(&mut fields, &slots, json);
        let expected = plain::find(&paths, json);
        let expected = expected.map_err(|at| format!("the value is not JSON (byte {at})"));
        prop_assert_eq!(seen, expected, "{}", String::from_utf8_lossy(json));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// JSON is read as serde_json reads it, number for number and text for text.
    #[test]
    fn what_is_json_has_its_values(json in document(), mask in 1usize..512) {
        let tree: Tree = serde_json::from_str(&json).expect("only JSON is made");
        let paths = paths(mask);
        let mut fields = Fields::default();
        let slots: Vec<_> = paths.iter().map(|path| fields.add(path)).collect();
        let buffer = encode_batch(&[TestRecord::value(json.as_str())]);
        let record = Batch::new(&buffer).records().next().expect("one record");
        let view = fields.view(&record).map_err(|error| TestCaseError::fail(error.to_string()))?;
        for (path, slot) in paths.iter().zip(slots) {
            let expected = tree.at(path);
            prop_assert_eq!(view.raw(slot).is_some(), expected.is_some(), "{} of {}", path, json);
            let value = view.field(slot);
            prop_assert!(expected.unwrap_or(&Tree::Null).is(&value), "{} of {} is {:?}", path, json, value);
        }
        prop_assert_eq!(check(json.as_bytes()), Ok(()));
    }

    /// The members of an object are walked as serde_json walks them.
    #[test]
    fn members_are_those_of_the_object(json in document()) {
        let tree: Tree = serde_json::from_str(&json).expect("only JSON is made");
        match (Members::new(json.as_bytes()), &tree) {
            (Ok(members), Tree::Object(expected)) => {
                let members: Vec<_> = members.collect::<Result<_, _>>()
                    .map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(members.len(), expected.len());
                for (member, (name, value)) in members.iter().zip(expected) {
                    prop_assert!(member.name.is(name.as_bytes()), "{}", name);
                    prop_assert!(value.is(&Value::of_json(member.value)), "{}", name);
                }
            }
            (found, _) => prop_assert_eq!(found.is_ok(), matches!(tree, Tree::Object(_))),
        }
    }

    /// Whatever the bytes are, and whatever was read before them, the answer is that of the plain reader: the same
    /// fields, or the same byte that is wrong.
    #[test]
    fn damage_is_found_where_it_is(
        documents in proptest::collection::vec(damaged(), 1..6), mask in 1usize..512,
    ) {
        same_as_plain(&documents, mask)?;
    }

    /// Where serde_json still reads damaged bytes, the values are its values.
    #[test]
    fn what_survives_damage_has_its_values(json in damaged()) {
        let Ok(tree) = serde_json::from_slice::<Tree>(&json) else { return Ok(()) };
        prop_assert!(tree.is(&Value::of_json(json.trim_ascii())), "{}", String::from_utf8_lossy(&json));
        prop_assert_eq!(check(&json), Ok(()));
    }

    /// Any expression over any bytes has a value or a reason, and so do the walkers.
    #[test]
    fn nothing_panics(json in damaged()) {
        for source in [
            "a > 15 or b = 'x'", "delay % 7 + 1 / a", "contains(a, 'x') and starts_with(b, a)", "a in (1, 'x', null)",
            "exists(a.b) or not exists(b[1])", "-delay * 1e300 * 1e300", "ends_with(`x y`, '\\n')", "$ = 1",
        ] {
            let mut fields = Fields::default();
            let mut parser = Parser::new(source).expect("it is sound");
            let expression = parser.expression(&mut fields).expect("it is sound");
            let buffer = encode_batch(&[TestRecord::value(json.clone())]);
            let record = Batch::new(&buffer).records().next().expect("one record");
            if let Ok(view) = fields.view(&record) {
                let mut out = Vec::new();
                if let Ok(value) = expression.value(&view) {
                    value.put_json(&mut out);
                }
            }
        }
        for member in Members::new(&json).into_iter().flatten().flatten() {
            let mut text = Vec::new();
            member.name.put(&mut text);
            prop_assert!(json[member.start..member.end].ends_with(member.value));
        }
        prop_assert!(Elements::new(&json).count() <= json.len());
    }
}

#[test]
fn depth_and_size_are_no_danger() {
    let deep =
        |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let long = "9".repeat(100_000);
    let documents = [
        deep("[", "]", 200_000),
        deep("{\"a\":", "}", 200_000),
        format!("{{\"a\":{}}}", "[".repeat(200_000)),
        format!("{{\"b\":{{\"a\":{}}}", deep("{\"b\":", "}", 100_000)),
        format!("{{\"a\":{long},\"b\":-{long}.{long}e{long}}}"),
        format!("{{\"a\":\"{}\",\"b\":1}}", "\\u0041".repeat(50_000)),
        format!("{{\"{}\":1,\"a\":2}}", "n".repeat(100_000)),
        format!("{{{}\"delay\":7}}", "\"a\":1,".repeat(50_000)),
    ];
    let documents: Vec<_> = documents.into_iter().map(String::into_bytes).collect();
    for mask in [1, 2, 8, 16, 64, 128, 256, 511] {
        same_as_plain(&documents, mask).expect("both readers agree");
    }
}
