//! JSON at random, and what wear and accidents make of it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Space that may stand between the parts of JSON.
fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![12 => Just(""), 1 => select(vec![" ", "\n", "\t", "\r\n", "   "])]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (-2_000i64..2_000).prop_map(|number| number.to_string()),
        2 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        2 => any::<f64>().prop_filter_map("JSON has no others", |number| {
            number.is_finite().then(|| format!("{number:?}"))
        }),
        1 => "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
    ]
}

/// The inside of a string, escapes and all.
fn inside() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[a-z :,\\[\\]{}]{0,9}",
        1 => select(vec!["\\n", "\\\"", "\\\\", "\\/", "\\u0041", "\\u00e9", "\\ud83d\\ude00", "\\t"])
            .prop_map(str::to_owned),
        1 => select(vec!["é", "😀", "\u{7f}", "日本"]).prop_map(str::to_owned),
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// Few names, so that some are there twice; some written otherwise than they are meant.
fn name() -> impl Strategy<Value = String> {
    let known = [
        "a",
        "b",
        "delay",
        "x y",
        "origin",
        "\\u0061",
        "d\\u0065lay",
        "x\\u0020y",
        "",
        "ab",
    ];
    prop_oneof![8 => select(known.to_vec()).prop_map(str::to_owned), 1 => inside()]
}

/// A text that is JSON.
pub(super) fn document() -> impl Strategy<Value = String> {
    let word = select(vec!["true", "false", "null"]).prop_map(str::to_owned);
    let text = inside().prop_map(|inside| format!("\"{inside}\""));
    let leaf = prop_oneof![3 => number(), 1 => word, 3 => text];
    let value = leaf.prop_recursive(5, 40, 8, |value| {
        let spaced = (space(), value, space())
            .prop_map(|(before, value, behind)| format!("{before}{value}{behind}"))
            .boxed();
        let member = (space(), name(), space(), spaced.clone())
            .prop_map(|(before, name, behind, value)| format!("{before}\"{name}\"{behind}:{value}"));
        let array =
            (space(), vec(spaced, 0..6)).prop_map(|(space, elements)| bracketed('[', space, &elements, ']'));
        let object =
            (space(), vec(member, 0..8)).prop_map(|(space, members)| bracketed('{', space, &members, '}'));
        prop_oneof![1 => array, 3 => object]
    });
    (space(), value, space()).prop_map(|(before, value, behind)| format!("{before}{value}{behind}"))
}

fn bracketed(open: char, space: &str, parts: &[String], close: char) -> String {
    let space = if parts.is_empty() { space } else { "" };
    format!("{open}{space}{}{close}", parts.join(","))
}

#[derive(Clone, Debug)]
enum Wear {
    Cut(Index),
    CutFront(Index),
    Flip(Index, u8),
    Insert(Index, u8),
    Remove(Index, usize),
    Repeat(Index, usize),
}

fn wear() -> impl Strategy<Value = Wear> {
    let byte = || {
        let telling = b"{}[]\",:\\ 0-9.eE+tfnu\n\xff\xc3\x00".to_vec();
        prop_oneof![4 => select(telling), 1 => any::<u8>()]
    };
    let at = any::<Index>;
    prop_oneof![
        at().prop_map(Wear::Cut),
        at().prop_map(Wear::CutFront),
        (at(), byte()).prop_map(|(at, byte)| Wear::Flip(at, byte)),
        (at(), byte()).prop_map(|(at, byte)| Wear::Insert(at, byte)),
        (at(), 1usize..10).prop_map(|(at, count)| Wear::Remove(at, count)),
        (at(), 1usize..30).prop_map(|(at, count)| Wear::Repeat(at, count)),
    ]
}

impl Wear {
    fn apply(&self, json: &mut Vec<u8>) {
        let (Self::Cut(at)
        | Self::CutFront(at)
        | Self::Flip(at, _)
        | Self::Insert(at, _)
        | Self::Remove(at, _)
        | Self::Repeat(at, _)) = self;
        let at = at.index(json.len() + 1);
        let end = |count: usize| (at + count).min(json.len());
        match self {
            Self::Cut(_) => json.truncate(at),
            Self::CutFront(_) => drop(json.drain(..at)),
            Self::Flip(_, byte) if at < json.len() => json[at] = *byte,
            Self::Flip(_, byte) | Self::Insert(_, byte) => json.insert(at, *byte),
            Self::Remove(_, count) => drop(json.drain(at..end(*count))),
            Self::Repeat(_, count) => {
                let again = json[at..end(*count)].to_vec();
                drop(json.splice(at..at, again));
            }
        }
    }
}

/// JSON with some wear, or none; or nothing but noise of its signs.
pub(super) fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let worn = (document(), vec(wear(), 0..4)).prop_map(|(json, wears)| {
        let mut json = json.into_bytes();
        wears.iter().for_each(|wear| wear.apply(&mut json));
        json
    });
    let noise = vec(select(b"{}[]\",:\\ 01-.etrufalsn\"a\":\xff".to_vec()), 0..60);
    prop_oneof![6 => worn, 1 => noise, 1 => vec(any::<u8>(), 0..40)]
}
