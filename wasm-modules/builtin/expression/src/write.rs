//! Appends JSON to a buffer.

use std::io::Write;

use crate::number::Number;

/// A text as a JSON string. What is not UTF-8 becomes U+FFFD.
pub fn put_json_text(to: &mut Vec<u8>, text: &[u8]) {
    to.push(b'"');
    for chunk in text.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' | b'\\' => to.extend_from_slice(&[b'\\', byte]),
                b'\n' => to.extend_from_slice(b"\\n"),
                b'\r' => to.extend_from_slice(b"\\r"),
                b'\t' => to.extend_from_slice(b"\\t"),
                0..0x20 => {
                    write!(to, "\\u{byte:04x}").expect("a Vec takes everything");
                }
                _ => to.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            to.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    to.push(b'"');
}

/// A number in the shortest form that reads back as the same.
pub fn put_number(to: &mut Vec<u8>, number: Number) {
    match number {
        Number::Integer(value) => write!(to, "{value}"),
        // As `Debug` writes it: `3.0`, `0.1`, `1e300`, all of them JSON.
        Number::Float(value) => write!(to, "{value:?}"),
    }
    .expect("a Vec takes everything");
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
