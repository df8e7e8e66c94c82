//! Values of a join: where a key stands in one, and how two become one. It parses a value once and copies it as it stands.

use serde::de::IgnoredAny;
use serde_json::Value;

/// Where the key of a side's records stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyAt {
    /// It is the record's own.
    Record,
    /// In its value, at this JSON pointer.
    Value(String),
}

impl KeyAt {
    pub(crate) fn of(pointer: Option<&String>) -> Self {
        pointer.map_or(Self::Record, |pointer| Self::Value(pointer.clone()))
    }
}

/// A value that cannot be joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("the value is not JSON: {0}")]
    NotJson(String),
    #[error("{pointer} is {kind}, which cannot be a key")]
    Unusable { pointer: String, kind: &'static str },
}

impl From<serde_json::Error> for ValueError {
    fn from(error: serde_json::Error) -> Self {
        Self::NotJson(error.to_string())
    }
}

/// Checks that a value is JSON, and reads the key in it, if that is where it stands. None: it has none.
pub(crate) fn check_value(value: &[u8], key: &KeyAt) -> Result<Option<Vec<u8>>, ValueError> {
    let KeyAt::Value(pointer) = key else {
        serde_json::from_slice::<IgnoredAny>(value)?;
        return Ok(None);
    };
    let parsed: Value = serde_json::from_slice(value)?;
    let unusable = |kind| ValueError::Unusable {
        pointer: pointer.clone(),
        kind,
    };
    match parsed.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone().into_bytes())),
        Some(Value::Bool(value)) => Ok(Some(value.to_string().into_bytes())),
        Some(Value::Number(number)) => Ok(Some(number_text(number).into_bytes())),
        Some(Value::Array(_)) => Err(unusable("an array")),
        Some(Value::Object(_)) => Err(unusable("an object")),
    }
}

/// Numbers that are equal have one text: 7.0 is 7.
fn number_text(number: &serde_json::Number) -> String {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= WHOLE_MAX => {
            (float as i64).to_string()
        }
        Some(_) | None => number.to_string(),
    }
}

/// Writes the value of a pair: an object of what each side has, or null.
pub(crate) fn put_pair(left: Option<&[u8]>, right: Option<&[u8]>, to: &mut Vec<u8>) {
    to.clear();
    to.extend_from_slice(b"{\"left\":");
    to.extend_from_slice(left.unwrap_or(b"null"));
    to.extend_from_slice(b",\"right\":");
    to.extend_from_slice(right.unwrap_or(b"null"));
    to.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_where_it_stands() {
        let at = |pointer: &str| KeyAt::Value(pointer.to_owned());
        let value = br#"{"id":7.0,"who":{"name":"a\u0062","tags":[1,true]},"none":null,"big":1e300}"#;
        for (key, expected) in [
            (KeyAt::Record, Ok(None)),
            (at("/id"), Ok(Some("7"))),
            (at("/who/name"), Ok(Some("ab"))),
            (at("/who/tags/1"), Ok(Some("true"))),
            (at("/none"), Ok(None)),
            (at("/nothing/here"), Ok(None)),
            (at("/big"), Ok(Some("1e+300"))),
            (at("/who"), Err("/who is an object, which cannot be a key")),
            (
                at("/who/tags"),
                Err("/who/tags is an array, which cannot be a key"),
            ),
        ] {
            let read = check_value(value, &key).map_err(|error| error.to_string());
            let expected = expected.map(|key| key.map(|key| key.as_bytes().to_vec()));
            assert_eq!(read, expected.map_err(str::to_owned), "{key:?}");
        }
        for broken in [&b""[..], b"{", b"text", b"1 2", b"\xff"] {
            assert!(check_value(broken, &KeyAt::Record).is_err());
            assert!(check_value(broken, &at("/id")).is_err());
        }
    }

    #[test]
    fn a_pair_is_json_whatever_is_missing() {
        let mut text = Vec::new();
        put_pair(Some(b" 1 "), None, &mut text);
        assert_eq!(text, br#"{"left": 1 ,"right":null}"#);
        put_pair(None, Some(b"[]"), &mut text);
        assert_eq!(text, br#"{"left":null,"right":[]}"#);
    }
}
