//! A reader of JSON that does what the documentation says and nothing to be fast: a byte at a time, from the start for
//! every field.

use crate::path::{Path, Step};
use crate::text::Text;

type At = Result<usize, usize>;

/// Each field as it stands, or where the value stops being JSON before the last of them was found.
pub(super) fn find(paths: &[Path], json: &[u8]) -> Result<Vec<Option<Vec<u8>>>, usize> {
    let mut found = vec![None; paths.len()];
    let start = space(json, 0);
    let all: Vec<_> = (0..paths.len()).collect();
    let end = value(json, start, paths, &all, 0, &mut found)?;
    if found.iter().any(Option::is_none) {
        let end = space(json, end);
        if end != json.len() {
            return Err(end);
        }
    }
    Ok(found)
}

/// Passes the value at `at`, where the paths in `here` have led after `depth` steps.
fn value(
    json: &[u8],
    at: usize,
    paths: &[Path],
    here: &[usize],
    depth: usize,
    found: &mut Vec<Option<Vec<u8>>>,
) -> At {
    let leads_on = |wanted: &dyn Fn(&Step) -> bool| -> Vec<usize> {
        let next = |path: &&usize| paths[**path].steps.get(depth).is_some_and(wanted);
        here.iter().filter(next).copied().collect()
    };
    let into_object = !leads_on(&|step| matches!(step, Step::Member(_))).is_empty();
    let into_array = !leads_on(&|step| matches!(step, Step::Element(_))).is_empty();
    let end = match json.get(at) {
        Some(b'{') if into_object => parts(json, at, b'}', found, |at, _, found| {
            let end = string(json, at)?;
            let inside = Text::escaped(&json[at + 1..end - 1]);
            let colon = space(json, end);
            if json.get(colon) != Some(&b':') {
                return Err(colon);
            }
            let on = leads_on(&|step| matches!(step, Step::Member(name) if inside.is(name.as_bytes())));
            value(json, space(json, colon + 1), paths, &on, depth + 1, found)
        })?,
        Some(b'[') if into_array => parts(json, at, b']', found, |at, number, found| {
            let on = leads_on(&|step| *step == Step::Element(number));
            value(json, at, paths, &on, depth + 1, found)
        })?,
        _ => skip(json, at)?,
    };
    for path in here.iter().filter(|path| paths[**path].steps.len() == depth) {
        found[*path].get_or_insert_with(|| json[at..end].to_vec());
    }
    Ok(end)
}

/// Walks what stands between brackets; stops early once everything was found.
fn parts(
    json: &[u8],
    at: usize,
    close: u8,
    found: &mut Vec<Option<Vec<u8>>>,
    mut part: impl FnMut(usize, usize, &mut Vec<Option<Vec<u8>>>) -> At,
) -> At {
    let mut at = space(json, at + 1);
    if json.get(at) == Some(&close) {
        return Ok(at + 1);
    }
    for number in 0.. {
        at = part(at, number, found)?;
        if found.iter().all(Option::is_some) {
            break;
        }
        at = space(json, at);
        match json.get(at) {
            Some(b',') => at = space(json, at + 1),
            Some(byte) if *byte == close => return Ok(at + 1),
            _ => return Err(at),
        }
    }
    Ok(at)
}

fn space(json: &[u8], at: usize) -> usize {
    let spaces = json[at.min(json.len())..].iter();
    at + spaces
        .take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t'))
        .count()
}

/// Passes a value that nobody looks into.
fn skip(json: &[u8], at: usize) -> At {
    match json.get(at) {
        Some(b'"') => string(json, at),
        Some(b'-' | b'0'..=b'9') => {
            let rest = json[at..].iter();
            let number =
                rest.take_while(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
            Ok(at + number.count())
        }
        Some(b'{' | b'[') => {
            let (mut at, mut depth) = (at, 0);
            loop {
                match json.get(at) {
                    None => return Err(at),
                    Some(b'"') => {
                        at = string(json, at)?;
                        continue;
                    }
                    Some(b'{' | b'[') => depth += 1,
                    Some(b'}' | b']') => depth -= 1,
                    Some(_) => {}
                }
                at += 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
        }
        Some(_) => {
            let words = ["true", "false", "null"];
            let word = words.iter().find(|word| json[at..].starts_with(word.as_bytes()));
            word.map(|word| at + word.len()).ok_or(at)
        }
        None => Err(at),
    }
}

fn string(json: &[u8], at: usize) -> At {
    if json.get(at) != Some(&b'"') {
        return Err(at);
    }
    let mut at = at + 1;
    loop {
        match json.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return Err(json.len()),
        }
    }
}
