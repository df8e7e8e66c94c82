//! The module as a whole: the golden files, and the short way of joining against the long one.

use headwater_guest::testing::{TestRecord, configure, encode_batch, set_table, transform};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// The node's tests run the same files through the component.
#[test]
fn golden_files_hold() {
    headwater_golden_native::check_mapping::<Enrich>("enrich");
}

#[test]
fn a_table_that_is_not_there_is_refused_by_name() {
    let refused = configure::<Enrich>(&[("table", "none"), ("key", "origin")]);
    let message = refused.err().map(|error| error.to_string());
    assert_eq!(
        message.as_deref(),
        Some("parameter 'table': there is no lookup table 'none'")
    );
}

/// Objects with names that collide and names that do not, space here and there, and sometimes a piece too many.
fn object() -> impl Strategy<Value = String> {
    let member = select(vec![
        "\"k\":\"one\"",
        "\"k\":\"two\"",
        "\"k\":7",
        "\"k\" : \"none\"",
        "\"k\":[1]",
        "\"city\":\"x\"",
        "\"town\":{\"a\":[1,2]}",
        "\"\\u0063ity\":2",
        " \"a\":1",
        "\"b\":\"\\\"}\" ",
        "\"c\":-1.5e3",
    ]);
    let noise = select(vec!["}", "{", ",", "\"", " ", "]", "x"]);
    (
        vec(member, 0..6),
        prop_oneof![6 => Just(None), 1 => (noise, any::<prop::sample::Index>()).prop_map(Some)],
    )
        .prop_map(|(members, noise)| {
            let mut text = format!("{{{}}}", members.join(","));
            if let Some((noise, at)) = noise {
                text.insert_str(at.index(text.len() + 1), noise);
            }
            text
        })
}

/// What must become of a record: read no further than the key, then join by the long way.
fn expected(module: &mut Enrich, entries: &[(String, String)], value: &str) -> Result<String, String> {
    let buffer = encode_batch(&[TestRecord::value(value)]);
    let record = Batch::new(&buffer).records().next().expect("one record");
    let has_key = module.key_of(&record).map_err(|error| error.to_string())?;
    let entry = entries
        .iter()
        .find(|(key, _)| has_key && key.as_bytes() == module.lookup_key);
    let Some((_, entry)) = entry else {
        return Ok(value.to_owned());
    };
    let mut splice = Splice::default();
    match splice.join(value.as_bytes(), entry.as_bytes(), &module.addition) {
        Ok(joined) => Ok(String::from_utf8_lossy(joined).into_owned()),
        Err(error) => Err(error.in_table("t").to_string()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_short_way_joins_as_the_long_one(
        values in vec(object(), 1..8),
        entries in vec(object(), 3),
        fields in select(vec!["", "city", "city as town, k as city", "a, b, c", "none"]),
        field in select(vec!["", "", "town", "new"]),
    ) {
        let keys = ["one", "two", "7"].map(str::to_owned);
        let entries: Vec<_> = keys.into_iter().zip(entries).collect();
        set_table("t", entries.iter().map(|(key, entry)| (key.as_str(), entry.as_str())));
        let params = [("table", "t"), ("key", "k"), ("fields", fields), ("as", field)];
        let mut module: Enrich = configure(&params).expect("these are sound");
        let records: Vec<_> = values.iter().map(|value| TestRecord::value(value.as_str())).collect();
        let answer = transform(&mut module, &records);
        for (index, value) in values.iter().enumerate() {
            let sent = answer.sent.iter().find(|sent| sent.index == index);
            let sent = sent.and_then(|sent| sent.record.value.clone());
            let failed = answer.failures.iter().find(|(failed, _)| *failed == index);
            let seen = match (sent, failed) {
                (Some(value), None) => Ok(String::from_utf8_lossy(&value).into_owned()),
                (None, Some((_, message))) => Err(message.clone()),
                other => return Err(TestCaseError::fail(format!("{value}: {other:?}"))),
            };
            prop_assert_eq!(seen, expected(&mut module, &entries, value), "{}", value);
        }
    }
}
