//! What every declared property has in common: a name, a kind that checks its text, a default and a meaning.

use super::units;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::Write as _;

/// A property: how it is called, what it may hold, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Property {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    /// What it does, for people; the first line of its documentation.
    pub doc: &'static str,
}

/// What a property's text must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// A whole number.
    Number {
        min: i64,
        max: i64,
    },
    /// A number of bytes; units may be written.
    Bytes {
        min: i64,
        max: i64,
    },
    /// A number of milliseconds; units may be written.
    Ms {
        min: i64,
        max: i64,
    },
    Ratio,
    OneOf(&'static [&'static str]),
    /// Some of these, with commas between.
    ListOf(&'static [&'static str]),
    Text,
}

/// Why a property was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PropertyError {
    #[error("unknown key {key:?}{}", hint(.nearest))]
    Unknown {
        key: String,
        nearest: Option<Cow<'static, str>>,
    },
    #[error("{key}={value:?} is not valid: {reason}")]
    Invalid {
        key: String,
        value: String,
        reason: String,
    },
    /// The key is known, but not there where it was given.
    #[error("{key} cannot be set here: {reason}")]
    Misplaced { key: String, reason: Cow<'static, str> },
}

fn hint(nearest: &Option<Cow<'static, str>>) -> String {
    nearest
        .as_ref()
        .map_or_else(String::new, |name| format!(", did you mean {name:?}?"))
}

impl Property {
    /// Checks a text and brings it into the form that is kept: numbers without units, booleans in lower case.
    pub fn normalize(&self, value: &str) -> Result<String, PropertyError> {
        let value = value.trim();
        let refuse = |reason: String| PropertyError::Invalid {
            key: self.name.to_owned(),
            value: value.chars().take(80).collect(),
            reason,
        };
        match self.kind {
            Kind::Bool => match value.to_ascii_lowercase().as_str() {
                text @ ("true" | "false") => Ok(text.to_owned()),
                _ => Err(refuse("true or false".to_owned())),
            },
            Kind::Number { min, max } => {
                bounded(value.parse().ok(), min, max, "a whole number").map_err(refuse)
            }
            Kind::Bytes { min, max } => {
                bounded(units::parse_bytes(value), min, max, "a number of bytes").map_err(refuse)
            }
            Kind::Ms { min, max } => {
                bounded(units::parse_ms(value), min, max, "a number of milliseconds").map_err(refuse)
            }
            Kind::Ratio => match value.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio.to_string()),
                Ok(_) | Err(_) => Err(refuse("a number from 0 to 1".to_owned())),
            },
            Kind::OneOf(choices) => one_of(value, choices).map_err(refuse),
            Kind::ListOf(choices) => {
                let mut items = Vec::with_capacity(choices.len());
                for item in list_items(value) {
                    let item = one_of(item, choices).map_err(refuse)?;
                    // What is kept is bounded, whatever was written: said twice is said once.
                    if !items.contains(&item) {
                        items.push(item);
                    }
                }
                Ok(items.join(","))
            }
            Kind::Text => Ok(value.to_owned()),
        }
    }
}

/// The longest text that is compared with the names.
const NAME_BYTES_MEANT: usize = 100;

/// The items of a list property.
pub fn list_items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn bounded(value: Option<i64>, min: i64, max: i64, what: &str) -> Result<String, String> {
    match value {
        Some(number) if (min..=max).contains(&number) => Ok(number.to_string()),
        Some(_) | None => {
            let mut reason = format!("{what}, at least {min}");
            if max != i64::MAX {
                let _ = write!(reason, " and at most {max}");
            }
            Err(reason)
        }
    }
}

fn one_of(value: &str, choices: &[&str]) -> Result<String, String> {
    match choices.iter().find(|choice| choice.eq_ignore_ascii_case(value)) {
        Some(choice) => Ok((*choice).to_owned()),
        None => Err(format!("one of {}", choices.join(", "))),
    }
}

/// The declared name nearest to what was written, if any is near enough to be meant.
pub fn nearest(written: &str, names: impl Iterator<Item = &'static str>) -> Option<Cow<'static, str>> {
    // Likeness costs the product of the lengths, and nobody means a name by a page of text.
    if written.len() > NAME_BYTES_MEANT {
        return None;
    }
    names
        .map(|name| (strsim::jaro_winkler(written, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| Cow::Borrowed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_short_however_long_it_was_written() {
        let property = |kind| Property {
            name: "x",
            kind,
            default: "",
            doc: "",
        };
        let list = property(Kind::ListOf(&["delete", "compact"]));
        let long = "compact, delete,".repeat(10_000);
        assert_eq!(list.normalize(&long), Ok("compact,delete".to_owned()));
        let ratio = property(Kind::Ratio);
        let long = format!("0.5{}", "0".repeat(10_000));
        assert_eq!(ratio.normalize(&long), Ok("0.5".to_owned()));
    }

    #[test]
    fn a_name_is_guessed_from_what_may_be_one() {
        let names = || ["retention.ms", "retention.bytes"].into_iter();
        assert_eq!(nearest("retention.mss", names()), Some("retention.ms".into()));
        assert_eq!(nearest(&"retention.ms".repeat(100), names()), None);
    }
}
