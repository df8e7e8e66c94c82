//! Appends JSON to a buffer.

use std::fmt;

use headwater_guest::bytes::put;

use crate::number::Number;

/// A text as a JSON string. What is not UTF-8 becomes U+FFFD.
#[inline]
pub fn put_json_text(to: &mut Vec<u8>, text: &[u8]) {
    to.push(b'"');
    if means_itself(text) {
        put(to, text);
    } else {
        put_escaped(to, text);
    }
    to.push(b'"');
}

#[cold]
fn put_escaped(to: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' | b'\\' => to.extend_from_slice(&[b'\\', byte]),
                b'\n' => to.extend_from_slice(b"\\n"),
                b'\r' => to.extend_from_slice(b"\\r"),
                b'\t' => to.extend_from_slice(b"\\t"),
                0..0x20 => {
                    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
                    to.extend_from_slice(b"\\u00");
                    to.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
                }
                _ => to.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            to.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Whether a text is ASCII of which nothing has to be escaped. Eight bytes at a time.
#[inline]
fn means_itself(text: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    const fn below(word: u64, limit: u8) -> u64 {
        word.wrapping_sub(ONES * limit as u64) & !word
    }
    let is_plain = |word: u64| {
        let quotes = below(word ^ (ONES * b'"' as u64), 1);
        let backslashes = below(word ^ (ONES * b'\\' as u64), 1);
        (word | below(word, 0x20) | quotes | backslashes) & HIGHS == 0
    };
    let (words, rest) = text.as_chunks();
    words.iter().all(|word| is_plain(u64::from_le_bytes(*word)))
        && rest
            .iter()
            .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

/// A number in the shortest form that reads back as the same.
pub fn put_number(to: &mut Vec<u8>, number: Number) {
    match number {
        Number::Integer(value) => put_integer(to, value),
        // As `Debug` writes it: `3.0`, `0.1`, `1e300`, all of them JSON.
        Number::Float(value) => put_shown(to, format_args!("{value:?}")),
    }
}

/// What a formatter writes. Not by `std::io::Write`, whose errors would come along in every module.
pub fn put_shown(to: &mut Vec<u8>, shown: fmt::Arguments<'_>) {
    struct Appended<'a>(&'a mut Vec<u8>);

    impl fmt::Write for Appended<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }

    fmt::write(&mut Appended(to), shown).expect("a Vec takes everything");
}

/// An integer in decimal.
pub fn put_integer(to: &mut Vec<u8>, value: i64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        to.push(b'-');
    }
    put(to, &digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        let mut json = Vec::new();
        put_json_text(&mut json, b"a\"\\\n\x01\xc3\xa9\xff");
        assert_eq!(
            String::from_utf8(json).expect("UTF-8"),
            "\"a\\\"\\\\\\n\\u0001é\u{fffd}\""
        );
    }

    /// 0x7f is left as it is, wherever in the text it stands.
    #[test]
    fn every_byte_is_written_the_same_way_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let mut alone = Vec::new();
            put_escaped(&mut alone, &[byte]);
            for length in 1..20 {
                for at in 0..length {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    let mut json = Vec::new();
                    put_json_text(&mut json, &text);
                    let (before, behind) = ("x".repeat(at), "x".repeat(length - at - 1));
                    let expected = [b"\"", before.as_bytes(), &alone, behind.as_bytes(), b"\""].concat();
                    assert_eq!(json, expected, "{byte} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn integers_are_those_of_the_library() {
        for value in [0, 1, -1, 9, 10, -10, 99, 100, 123_456_789, i64::MAX, i64::MIN] {
            let mut json = Vec::new();
            put_integer(&mut json, value);
            assert_eq!(json, value.to_string().as_bytes());
        }
    }

    #[test]
    fn numbers_read_back() {
        for number in [0.1, 3.0, -0.0, 1e300, 5e-324, 1e16, 123456.789] {
            let mut json = Vec::new();
            put_number(&mut json, Number::Float(number));
            let read = Number::parse(&json).expect("it is JSON").to_f64();
            assert_eq!(
                read.to_bits(),
                number.to_bits(),
                "{}",
                String::from_utf8_lossy(&json)
            );
        }
    }
}
