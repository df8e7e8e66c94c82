//! Reads JSON where it stands, without building a tree: finds where values end and walks the members of an object.
//! It checks what it passes (strings close, containers balance, words are spelled right), not what it need not look
//! at: the inside of a number or a nested container that nobody asked for.

use std::fmt;

use crate::text::Text;

/// Where a text stops being JSON, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson {
    pub at: usize,
}

impl fmt::Display for NotJson {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the value is not JSON (byte {})", self.at)
    }
}

impl std::error::Error for NotJson {}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

#[inline(always)]
pub(crate) fn skip_space(json: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = json.get(at) {
        at += 1;
    }
    at
}

/// Where the value that starts at `at` ends.
#[inline]
pub(crate) fn skip_value(json: &[u8], at: usize) -> Result<usize, NotJson> {
    match json.get(at) {
        Some(b'"') => string(json, at).map(|string| string.end),
        Some(b'-' | b'0'..=b'9') => Ok(skip_number(json, at)),
        Some(b'{' | b'[') => skip_container(json, at),
        Some(b't') => skip_word(json, at, b"true"),
        Some(b'f') => skip_word(json, at, b"false"),
        Some(b'n') => skip_word(json, at, b"null"),
        _ => Err(NotJson { at }),
    }
}

/// As `skip_value`, and whether it is a string that has escapes.
#[inline]
pub(crate) fn skip_and_look(json: &[u8], at: usize) -> Result<(usize, bool), NotJson> {
    if json.get(at) == Some(&b'"') {
        let string = string(json, at)?;
        return Ok((string.end, string.text.as_plain().is_none()));
    }
    skip_value(json, at).map(|end| (end, false))
}

#[inline(always)]
fn skip_number(json: &[u8], mut at: usize) -> usize {
    at += 1;
    // Digits, eight at a time: how many there are is what no processor foresees.
    if let Some(chunk) = json.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*chunk);
        // The lowest high bit that is set marks the first byte that is no digit; those above it may be wrong.
        let others = (word.wrapping_add(ONES * 0x46) | word.wrapping_sub(ONES * 0x30)) & HIGHS;
        at += (others.trailing_zeros() / 8) as usize;
    }
    while let Some(b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E') = json.get(at) {
        at += 1;
    }
    at
}

fn skip_word(json: &[u8], at: usize, word: &[u8]) -> Result<usize, NotJson> {
    if json[at..].starts_with(word) {
        Ok(at + word.len())
    } else {
        Err(NotJson { at })
    }
}

/// Counts depth instead of recursing, so that no nesting, however deep, takes stack.
fn skip_container(json: &[u8], mut at: usize) -> Result<usize, NotJson> {
    let mut depth = 0usize;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                at = string(json, at)?.end;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Err(NotJson { at })
}

/// A string found in JSON: its inside, and where it ends (behind the quote).
pub(crate) struct Quoted<'a> {
    pub(crate) text: Text<'a>,
    pub(crate) end: usize,
}

/// Reads the string whose opening quote stands at `at`.
#[inline]
pub(crate) fn string(json: &[u8], at: usize) -> Result<Quoted<'_>, NotJson> {
    let start = at + 1;
    let mut at = start;
    let mut escaped = false;
    loop {
        at = find_quote_or_backslash(json, at);
        match json.get(at) {
            Some(b'"') => {
                let text = if escaped {
                    Text::escaped(&json[start..at])
                } else {
                    Text::plain(&json[start..at])
                };
                return Ok(Quoted { text, end: at + 1 });
            }
            Some(_) => {
                escaped = true;
                at += 2;
            }
            None => return Err(NotJson { at: json.len() }),
        }
    }
}

/// The position of the next `"` or `\`, or the end. Eight bytes at a time.
#[inline(always)]
fn find_quote_or_backslash(json: &[u8], mut at: usize) -> usize {
    const QUOTES: u64 = ONES * b'"' as u64;
    const BACKSLASHES: u64 = ONES * b'\\' as u64;
    // The lowest high bit that is set marks the first zero byte exactly; those above it may be wrong.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(chunk) = json.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*chunk);
        let hits = zeros(word ^ QUOTES) | zeros(word ^ BACKSLASHES);
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = json.get(at) {
        if matches!(byte, b'"' | b'\\') {
            return at;
        }
        at += 1;
    }
    json.len()
}

/// Whether a text is one JSON value with nothing but space around it.
///
/// # Errors
/// Where it is not.
pub fn check(json: &[u8]) -> Result<(), NotJson> {
    expect_end(json, skip_value(json, skip_space(json, 0))?)
}

pub(crate) fn expect_end(json: &[u8], at: usize) -> Result<(), NotJson> {
    let at = skip_space(json, at);
    if at == json.len() {
        Ok(())
    } else {
        Err(NotJson { at })
    }
}

/// Walks values that are divided by commas, as between the brackets of an array. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    json: &'a [u8],
    at: Option<usize>,
}

impl<'a> Elements<'a> {
    /// No text at all has no elements.
    #[must_use]
    pub fn new(json: &'a [u8]) -> Self {
        Self {
            json,
            at: (!json.is_empty()).then_some(0),
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], NotJson>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = skip_space(self.json, self.at.take()?);
        let end = match skip_value(self.json, start) {
            Ok(end) => end,
            Err(error) => return Some(Err(error)),
        };
        let comma = skip_space(self.json, end);
        match self.json.get(comma) {
            Some(b',') => self.at = Some(comma + 1),
            Some(_) => return Some(Err(NotJson { at: comma })),
            None => {}
        }
        Some(Ok(&self.json[start..end]))
    }
}

/// One member of an object: its name, and its value as it stands.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    pub name: Text<'a>,
    pub value: &'a [u8],
    /// Where the name's opening quote stands.
    pub start: usize,
    /// Where the value ends.
    pub end: usize,
}

/// Walks the members of a text that is one JSON object with nothing but space around it. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    json: &'a [u8],
    at: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    First,
    Next,
    Done,
}

impl<'a> Members<'a> {
    /// # Errors
    /// When the text does not start as an object does.
    pub fn new(json: &'a [u8]) -> Result<Self, NotJson> {
        let at = skip_space(json, 0);
        if json.get(at) != Some(&b'{') {
            return Err(NotJson { at });
        }
        Ok(Self {
            json,
            at: at + 1,
            state: State::First,
        })
    }

    fn step(&mut self) -> Result<Option<Member<'a>>, NotJson> {
        let mut at = skip_space(self.json, self.at);
        match (self.json.get(at), self.state) {
            (Some(b'}'), _) => return expect_end(self.json, at + 1).map(|()| None),
            (Some(b','), State::Next) => at = skip_space(self.json, at + 1),
            (_, State::First) => {}
            _ => return Err(NotJson { at }),
        }
        let start = at;
        let (name, value_at) = member_name(self.json, at)?;
        let end = skip_value(self.json, value_at)?;
        self.at = end;
        self.state = State::Next;
        Ok(Some(Member {
            name,
            value: &self.json[value_at..end],
            start,
            end,
        }))
    }
}

/// Reads a member's name and the colon at `at`; answers where the value starts.
#[inline]
pub(crate) fn member_name(json: &[u8], at: usize) -> Result<(Text<'_>, usize), NotJson> {
    if json.get(at) != Some(&b'"') {
        return Err(NotJson { at });
    }
    let name = string(json, at)?;
    let colon = skip_space(json, name.end);
    if json.get(colon) != Some(&b':') {
        return Err(NotJson { at: colon });
    }
    Ok((name.text, skip_space(json, colon + 1)))
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, NotJson>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done {
            return None;
        }
        let step = self.step().transpose();
        if !matches!(step, Some(Ok(_))) {
            self.state = State::Done;
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_they_end() {
        for (json, end) in [
            (r#""" x"#, Ok(2)),
            (r#""a\"b", 1"#, Ok(6)),
            (r#""0123456789abcdef\\" "#, Ok(20)),
            ("-12.5e+3,", Ok(8)),
            ("true,", Ok(4)),
            ("nul", Err(0)),
            (r#"{"a":[1,{"b":"}]"}]} "#, Ok(20)),
            ("[[[", Err(3)),
            (r#""open"#, Err(5)),
            (r#""open\"#, Err(6)),
            ("", Err(0)),
            ("}", Err(0)),
        ] {
            assert_eq!(
                skip_value(json.as_bytes(), 0),
                end.map_err(|at| NotJson { at }),
                "{json}"
            );
        }
    }

    #[test]
    fn depth_takes_no_stack() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert_eq!(check(deep.as_bytes()), Ok(()));
    }

    #[test]
    fn one_value_and_no_more() {
        assert_eq!(check(b" {} \n"), Ok(()));
        assert_eq!(check(b"{} {}"), Err(NotJson { at: 3 }));
        assert_eq!(check(b""), Err(NotJson { at: 0 }));
        assert_eq!(check(b"\xff"), Err(NotJson { at: 0 }));
    }

    #[test]
    fn members_are_walked() {
        let walk = |json: &str| -> Result<Vec<(String, String)>, usize> {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Members::new(json.as_bytes())
                .and_then(|members| {
                    members
                        .map(|member| member.map(|member| (text(member.name.raw()), text(member.value))))
                        .collect()
                })
                .map_err(|error| error.at)
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(walk(" { } "), Ok(vec![]));
        assert_eq!(
            walk(r#"{"a" : 1 , "b":{"c":2}}"#),
            Ok(vec![pair("a", "1"), pair("b", r#"{"c":2}"#)])
        );
        assert_eq!(walk(r#"{"a":1,"a":2}"#), Ok(vec![pair("a", "1"), pair("a", "2")]));
        for (json, at) in [
            (r#"{"a":1,}"#, 7),
            (r#"{,"a":1}"#, 1),
            (r#"{"a" 1}"#, 5),
            (r#"{"a":1"#, 6),
            (r#"{a:1}"#, 1),
            (r#"{"a":1 "b":2}"#, 7),
            (r#"{"a":1}}"#, 7),
            ("[1]", 0),
        ] {
            assert_eq!(walk(json), Err(at), "{json}");
        }
    }

    #[test]
    fn elements_are_walked() {
        let walk = |json: &'static str| Elements::new(json.as_bytes()).collect::<Result<Vec<_>, _>>();
        assert_eq!(walk(""), Ok(vec![]));
        assert_eq!(
            walk(r#""a,b" , 1,[2,3]"#),
            Ok(vec![&br#""a,b""#[..], b"1", b"[2,3]"])
        );
        assert_eq!(walk("1,"), Err(NotJson { at: 2 }));
        assert_eq!(walk("1 2"), Err(NotJson { at: 2 }));
    }
}
