//! Text as it stands in JSON: compared and searched without taking its escapes apart first.

use std::cmp::Ordering;
use std::str::Chars;

use headwater_guest::bytes::{put, same};

/// The inside of a JSON string, or a plain text.
///
/// - `escaped` is false only if `raw` holds no escape.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Text<'a> {
    /// Text that means itself.
    #[must_use]
    pub fn plain(raw: &'a [u8]) -> Self {
        Self { raw, escaped: false }
    }

    /// The inside of a JSON string that has escapes.
    #[must_use]
    pub fn escaped(raw: &'a [u8]) -> Self {
        Self { raw, escaped: true }
    }

    /// As it stands.
    #[must_use]
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// As it stands, if that is what it means.
    #[must_use]
    pub fn as_plain(self) -> Option<&'a [u8]> {
        (!self.escaped).then_some(self.raw)
    }

    /// Appends what it means.
    pub fn put(self, to: &mut Vec<u8>) {
        match self.as_plain() {
            Some(plain) => put(to, plain),
            None => to.extend(self.bytes()),
        }
    }

    #[inline]
    #[must_use]
    pub fn is(self, plain: &[u8]) -> bool {
        if self.escaped {
            self.bytes().eq(plain.iter().copied())
        } else {
            same(self.raw, plain)
        }
    }

    #[must_use]
    pub fn starts_with(self, prefix: Text<'_>) -> bool {
        match (self.as_plain(), prefix.as_plain()) {
            (Some(text), Some(prefix)) => text.starts_with(prefix),
            _ => starts_with(self.bytes(), prefix),
        }
    }

    #[must_use]
    pub fn ends_with(self, suffix: Text<'_>) -> bool {
        match (self.as_plain(), suffix.as_plain()) {
            (Some(text), Some(suffix)) => text.ends_with(suffix),
            _ => {
                let length = suffix.bytes().count();
                self.bytes()
                    .count()
                    .checked_sub(length)
                    .is_some_and(|skip| self.bytes().skip(skip).eq(suffix.bytes()))
            }
        }
    }

    #[must_use]
    pub fn contains(self, part: Text<'_>) -> bool {
        if let (Some(text), Some(part)) = (self.as_plain(), part.as_plain()) {
            let Some((first, rest)) = part.split_first() else {
                return true;
            };
            return (0..text.len()).any(|at| text[at] == *first && text[at + 1..].starts_with(rest));
        }
        let mut from = self.bytes();
        loop {
            if starts_with(from.clone(), part) {
                return true;
            }
            if from.next().is_none() {
                return false;
            }
        }
    }

    /// The bytes of what it means, in UTF-8. An escape that means nothing (`\x`, half a surrogate pair) becomes U+FFFD.
    fn bytes(self) -> Bytes<'a> {
        Bytes {
            raw: self.raw,
            escaped: self.escaped,
            pending: [0; 4],
            first: 0,
            last: 0,
        }
    }
}

fn starts_with(mut text: Bytes<'_>, prefix: Text<'_>) -> bool {
    prefix.bytes().all(|byte| text.next() == Some(byte))
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.as_plain(), other.as_plain()) {
            (Some(left), Some(right)) => same(left, right),
            (Some(left), None) => other.is(left),
            (None, Some(right)) => self.is(right),
            (None, None) => self.bytes().eq(other.bytes()),
        }
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    /// By code point, which is the order of the bytes of UTF-8.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.as_plain(), other.as_plain()) {
            (Some(left), Some(right)) => left.cmp(right),
            _ => self.bytes().cmp(other.bytes()),
        }
    }
}

#[derive(Clone)]
struct Bytes<'a> {
    raw: &'a [u8],
    escaped: bool,
    pending: [u8; 4],
    first: u8,
    last: u8,
}

impl Bytes<'_> {
    /// Takes the escape behind a backslash, and sets its bytes but the first aside.
    fn escape(&mut self) -> u8 {
        let Some((letter, rest)) = self.raw.split_first() else {
            return self.character(char::REPLACEMENT_CHARACTER);
        };
        self.raw = rest;
        match letter {
            b'"' | b'\\' | b'/' => *letter,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let unit = self.unit();
                self.character(unit)
            }
            _ => self.character(char::REPLACEMENT_CHARACTER),
        }
    }

    /// The character of a `\u` escape, and of a second one that completes a surrogate pair.
    fn unit(&mut self) -> char {
        let Some(high) = self.hex() else {
            return char::REPLACEMENT_CHARACTER;
        };
        let before = self.raw;
        if (0xd800..0xdc00).contains(&high)
            && let Some(rest) = self.raw.strip_prefix(b"\\u")
        {
            self.raw = rest;
            match self.hex() {
                Some(low @ 0xdc00..0xe000) => {
                    let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                    return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                }
                _ => self.raw = before,
            }
        }
        char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self) -> Option<u32> {
        let (digits, rest) = self.raw.split_at_checked(4)?;
        let mut value = 0;
        for digit in digits {
            value = value * 16 + char::from(*digit).to_digit(16)?;
        }
        self.raw = rest;
        Some(value)
    }

    fn character(&mut self, character: char) -> u8 {
        let length = character.encode_utf8(&mut self.pending).len();
        (self.first, self.last) = (1, length as u8);
        self.pending[0]
    }
}

impl Iterator for Bytes<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.first < self.last {
            self.first += 1;
            return Some(self.pending[usize::from(self.first) - 1]);
        }
        let (byte, rest) = self.raw.split_first()?;
        self.raw = rest;
        if self.escaped && *byte == b'\\' {
            Some(self.escape())
        } else {
            Some(*byte)
        }
    }
}

/// Reads the inside of a quoted literal of the language: the escapes of JSON, and `\'`.
pub(crate) fn unescape_literal(inside: &str) -> String {
    let mut chars: Chars<'_> = inside.chars();
    let mut plain = String::with_capacity(inside.len());
    while let Some(letter) = chars.next() {
        let rest = chars.as_str();
        if letter == '\\' && rest.starts_with('\'') {
            continue;
        }
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        let mut bytes = Bytes {
            raw: rest.as_bytes(),
            escaped: true,
            pending: [0; 4],
            first: 0,
            last: 0,
        };
        let mut decoded = vec![bytes.escape()];
        decoded.extend_from_slice(&bytes.pending[usize::from(bytes.first)..usize::from(bytes.last)]);
        plain.push_str(&String::from_utf8_lossy(&decoded));
        chars = rest[rest.len() - bytes.raw.len()..].chars();
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(raw: &str) -> String {
        let mut bytes = Vec::new();
        Text::escaped(raw.as_bytes()).put(&mut bytes);
        String::from_utf8(bytes).expect("UTF-8 in, UTF-8 out")
    }

    #[test]
    fn escapes_mean_what_json_says() {
        for (raw, expected) in [
            (r"a\nb", "a\nb"),
            (r#"\"\\\/\b\f\r\t"#, "\"\\/\u{8}\u{c}\r\t"),
            (r"\u0041\u00e9\u20AC", "Aé€"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d!", "\u{fffd}!"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"\ude00", "\u{fffd}"),
            (r"\u12", "\u{fffd}12"),
            (r"\x", "\u{fffd}"),
            ("é\\n", "é\n"),
        ] {
            assert_eq!(meaning(raw), expected, "{raw}");
        }
    }

    #[test]
    fn escaped_and_plain_text_compare_by_meaning() {
        let plain = |text| Text::plain(str::as_bytes(text));
        let escaped = |text| Text::escaped(str::as_bytes(text));
        assert_eq!(escaped(r"\u0041TL"), plain("ATL"));
        assert_eq!(escaped(r"\u0041TL"), escaped(r"AT\u004c"));
        assert_ne!(escaped(r"\u0041TL"), plain("ATLX"));
        assert!(escaped(r"\u0041") < plain("B") && plain("\\") > escaped(r"\u0041"));
        assert!(escaped(r"one\ttwo").contains(plain("\tt")));
        assert!(!escaped(r"one\ttwo").contains(plain("\\t")));
        assert!(escaped(r"one\ttwo").starts_with(plain("one\t")));
        assert!(escaped(r"one\ttwo").ends_with(plain("\ttwo")));
        assert!(!escaped(r"\t").ends_with(plain("xx\t")));
        assert!(plain("abab").contains(plain("bab")) && plain("a").contains(plain("")));
        assert!(!plain("ab").contains(plain("abc")));
    }

    #[test]
    fn literals_of_the_language_may_escape() {
        assert_eq!(unescape_literal(r"it\'s \u0041\\ é"), "it's A\\ é");
    }
}
