//! The parameters `group-by` and `time`: which group a record belongs to, and when it happened.
//!
//! A group's key is its values as JSON, divided by commas, each in its one form: `"ATL"`, `"ATL",7`. So equal values
//! make equal keys however they were written, and the result can name them again.

use headwater_expression::{
    Elements, Fields, ParseError, Parser, Path, Slot, Value, View, parse_time_ms, put_json_text, put_number,
};
use headwater_guest::Error;

/// One value that records are grouped by.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    RecordKey,
    Field(Slot),
}

/// Reads `origin, flight.destination as to`; nothing at all makes one group of everything.
pub(crate) fn parse(source: &str, fields: &mut Fields) -> Result<Vec<Group>, ParseError> {
    let mut parser = Parser::new(source)?;
    let mut groups: Vec<Group> = Vec::new();
    while !parser.at_end() {
        let before = parser.clone();
        let (source, name) = if parser.takes_word("key")? {
            (Source::RecordKey, Some("key".to_owned()))
        } else {
            let path = parser.path()?;
            (
                Source::Field(fields.add(&path)),
                path.last_name().map(str::to_owned),
            )
        };
        let name = if parser.takes_word("as")? {
            Some(parser.name("a name")?.to_owned())
        } else {
            name
        };
        let name = name.ok_or_else(|| before.error("this has no name of its own; say `as NAME`"))?;
        if groups.iter().any(|other| other.name == name) {
            return Err(before.error(format!("there are two called `{name}`; say `as NAME`")));
        }
        groups.push(Group { name, source });
        if !parser.takes(",")? && !parser.at_end() {
            return Err(parser.expected("`,` or `as`"));
        }
    }
    Ok(groups)
}

/// Writes the key of the record's group.
#[inline]
pub(crate) fn put_key(
    groups: &[Group],
    view: &View<'_>,
    texts: &mut Vec<u8>,
    key: &mut Vec<u8>,
) -> Result<(), Error> {
    for (position, group) in groups.iter().enumerate() {
        if position > 0 {
            key.push(b',');
        }
        let slot = match group.source {
            Source::RecordKey => {
                match view.record.key() {
                    Some(text) => put_json_text(key, text),
                    None => key.extend_from_slice(b"null"),
                }
                continue;
            }
            Source::Field(slot) => slot,
        };
        match view.field(slot) {
            Value::Text(text) => match text.as_plain() {
                Some(plain) => put_json_text(key, plain),
                None => {
                    texts.clear();
                    text.put(texts);
                    put_json_text(key, texts);
                }
            },
            Value::Number(number) => put_number(key, number.simplest()),
            value @ (Value::Null | Value::Boolean(_)) => value.put_json(key),
            value @ (Value::Nested(_) | Value::BadNumber(_)) => {
                return Err(Error::new(format!(
                    "{} is {}, which cannot be grouped by",
                    view.path(slot),
                    value.kind()
                )));
            }
        }
    }
    Ok(())
}

/// The values of a key that `put_key` wrote, as JSON, with their names.
pub(crate) fn named<'a>(groups: &'a [Group], key: &'a [u8]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    groups
        .iter()
        .map(|group| group.name.as_str())
        .zip(Elements::new(key).flatten())
}

/// The key of the record that is sent for a group: the value itself if there is one, plain if it is text; a JSON array
/// if there are more; none for null, and where nothing is grouped by.
pub(crate) fn put_sent_key<'t>(groups: &[Group], key: &[u8], to: &'t mut Vec<u8>) -> Option<&'t [u8]> {
    to.clear();
    match (groups, Value::of_json(key)) {
        ([], _) | ([_], Value::Null) => return None,
        ([_], Value::Text(text)) => text.put(to),
        ([_], _) => to.extend_from_slice(key),
        _ => {
            to.push(b'[');
            to.extend_from_slice(key);
            to.push(b']');
        }
    }
    Some(to)
}

/// Where the event time comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Time {
    RecordTimestamp,
    Field(Slot),
}

impl Time {
    /// Reads the parameter `time`.
    pub(crate) fn parse(source: &str, fields: &mut Fields) -> Result<Self, ParseError> {
        if source.trim() == "timestamp" {
            return Ok(Self::RecordTimestamp);
        }
        Ok(Self::Field(fields.add(&Path::parse(source)?)))
    }

    #[inline]
    pub(crate) fn of(self, view: &View<'_>) -> Result<i64, Error> {
        let slot = match self {
            Self::RecordTimestamp => return Ok(view.record.timestamp_ms()),
            Self::Field(slot) => slot,
        };
        let refused =
            |what: &str| Error::new(format!("{} is {what}, which is no event time", view.path(slot)));
        match view.field(slot) {
            Value::Text(text) => {
                let time_ms = text.as_plain().and_then(parse_time_ms);
                time_ms.ok_or_else(|| refused(&format!("'{}'", String::from_utf8_lossy(text.raw()))))
            }
            Value::Number(number) => {
                let millis = number.to_f64().floor();
                match number {
                    headwater_expression::Number::Integer(millis) => Ok(millis),
                    // Doubles are whole milliseconds far beyond any date; outside i64 there is no time at all.
                    headwater_expression::Number::Float(_) if millis.abs() < 9e15 => Ok(millis as i64),
                    headwater_expression::Number::Float(_) => Err(refused("a number out of range")),
                }
            }
            Value::Null => Err(refused("missing or null")),
            value @ (Value::Boolean(_) | Value::Nested(_) | Value::BadNumber(_)) => {
                Err(refused(value.kind()))
            }
        }
    }
}
