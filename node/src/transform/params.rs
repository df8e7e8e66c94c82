//! A module's parameters: how values are written, and the complete list an instance is configured with.
//! It owns those rules. It is pure.

use std::collections::BTreeMap;

use crate::metadata::{ParamKind, ParamSpec};

const VALUE_BYTES_MAX: usize = 64 << 10;

/// Why parameters do not fit a module. All are the caller's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    #[error("the module has no parameter {name:?}{}", nearest.as_ref().map_or(String::new(), |it| format!(", did you mean {it:?}?")))]
    Unknown { name: String, nearest: Option<String> },
    #[error("parameter {name:?} is required: {description}")]
    Missing { name: String, description: String },
    #[error("parameter {name:?} {reason}")]
    Invalid { name: String, reason: String },
}

/// The complete list: what was given, checked, and the defaults of the rest.
pub(crate) fn complete(
    specs: &[ParamSpec],
    given: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, ParamError> {
    if let Some(name) = given
        .keys()
        .find(|name| specs.iter().all(|spec| spec.name != **name))
    {
        return Err(ParamError::Unknown {
            name: name.clone(),
            nearest: nearest(specs, name),
        });
    }
    let mut complete = Vec::with_capacity(specs.len());
    for spec in specs {
        let Some(value) = given.get(&spec.name).or(spec.default.as_ref()) else {
            if spec.required {
                let (name, description) = (spec.name.clone(), spec.description.clone());
                return Err(ParamError::Missing { name, description });
            }
            continue;
        };
        check_value(spec.kind, value).map_err(|reason| ParamError::Invalid {
            name: spec.name.clone(),
            reason,
        })?;
        complete.push((spec.name.clone(), value.clone()));
    }
    Ok(complete)
}

fn nearest(specs: &[ParamSpec], name: &str) -> Option<String> {
    let distance = |spec: &&ParamSpec| strsim::damerau_levenshtein(&spec.name, name);
    let nearest = specs.iter().min_by_key(distance)?;
    (distance(&nearest) <= 3.max(name.len() / 3)).then(|| nearest.name.clone())
}

/// Checks how a value is written. The reason completes the sentence "the value ...".
pub(crate) fn check_value(kind: ParamKind, value: &str) -> Result<(), String> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("is longer than {VALUE_BYTES_MAX} bytes"));
    }
    let is_sound = match kind {
        ParamKind::Text => true,
        ParamKind::Integer => value.parse::<i64>().is_ok(),
        ParamKind::Float => value.parse::<f64>().is_ok_and(f64::is_finite),
        ParamKind::Boolean => matches!(value, "true" | "false"),
        ParamKind::Duration => is_duration(value),
        ParamKind::Table => !value.is_empty(),
    };
    if is_sound {
        return Ok(());
    }
    let expected = match kind {
        ParamKind::Text => "text",
        ParamKind::Integer => "a decimal number of at most 64 bits",
        ParamKind::Float => "a decimal number",
        ParamKind::Boolean => "true or false",
        ParamKind::Duration => "a number and a unit (ns, us, ms, s, m, h, d), such as 1500ms",
        ParamKind::Table => "the name of a lookup table",
    };
    Err(format!("is {value:?}, expected {expected}"))
}

/// What a module's parameter `ttl` says, if it has one of that kind and it can be read.
pub(crate) fn ttl_ms(specs: &[ParamSpec], given: &BTreeMap<String, String>) -> Option<i64> {
    let is_ttl = |spec: &&ParamSpec| spec.name == "ttl" && spec.kind == ParamKind::Duration;
    let spec = specs.iter().find(is_ttl)?;
    let value = given.get(&spec.name).or(spec.default.as_ref())?;
    duration_ms(value)
}

/// A duration in milliseconds, of which a part counts as whole. None: it is not written as one.
pub(crate) fn duration_ms(value: &str) -> Option<i64> {
    let (number, unit) = duration(value)?;
    let unit_ms = match unit {
        "ns" => 1e-6,
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3_600e3,
        _ => 86_400e3,
    };
    // A cast ends at the largest number.
    Some((number * unit_ms).ceil() as i64)
}

fn is_duration(value: &str) -> bool {
    duration(value).is_some()
}

/// A number and its unit.
fn duration(value: &str) -> Option<(f64, &str)> {
    let units = ["ns", "us", "ms", "s", "m", "h", "d"];
    let at = value
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(value.len());
    let (number, unit) = value.split_at(at);
    let number = number.parse::<f64>().ok().filter(|number| number.is_finite())?;
    units.contains(&unit).then_some((number, unit))
}

/// Lower-case letters, digits and hyphens.
pub(crate) fn is_plain_name(name: &str, bytes_max: usize) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=bytes_max).contains(&name.len()) && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, kind: ParamKind, required: bool, default: Option<&str>) -> ParamSpec {
        let default = default.map(str::to_owned);
        ParamSpec {
            name: name.to_owned(),
            kind,
            required,
            default,
            description: "what it is".to_owned(),
        }
    }

    fn check(given: &[(&str, &str)]) -> Result<Vec<(String, String)>, ParamError> {
        let specs = [
            spec("where", ParamKind::Text, true, None),
            spec("times", ParamKind::Integer, false, Some("3")),
            spec("grace", ParamKind::Duration, false, None),
        ];
        let given = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        complete(&specs, &given.collect())
    }

    #[test]
    fn defaults_fill_what_is_not_given() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            check(&[("where", "a > 1")]),
            Ok(vec![pair("where", "a > 1"), pair("times", "3")])
        );
    }

    #[test]
    fn a_time_to_live_is_read_where_a_module_has_one() {
        let given = |value: &str| BTreeMap::from([("ttl".to_owned(), value.to_owned())]);
        let ttl = [spec("ttl", ParamKind::Duration, false, None)];
        let defaulted = [spec("ttl", ParamKind::Duration, false, Some("2d"))];
        for (specs, given, expected) in [
            (&ttl[..], given("1.5s"), Some(1_500)),
            (&ttl, given("1us"), Some(1)),
            (&ttl, given("soon"), None),
            (&ttl, BTreeMap::new(), None),
            (&defaulted, BTreeMap::new(), Some(172_800_000)),
            (&[spec("ttl", ParamKind::Text, false, None)], given("1s"), None),
        ] {
            assert_eq!(ttl_ms(specs, &given), expected, "{given:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let text = |given: &[(&str, &str)]| check(given).unwrap_err().to_string();
        assert_eq!(
            text(&[("wher", "x")]),
            "the module has no parameter \"wher\", did you mean \"where\"?"
        );
        assert_eq!(
            text(&[("where", "x"), ("completely-else", "")]),
            "the module has no parameter \"completely-else\""
        );
        assert_eq!(text(&[]), "parameter \"where\" is required: what it is");
        assert_eq!(
            text(&[("where", "x"), ("times", "many")]),
            "parameter \"times\" is \"many\", expected a decimal number of at most 64 bits"
        );
        for (value, is_sound) in [
            ("1500ms", true),
            ("2.5s", true),
            ("1h", true),
            ("h", false),
            ("3", false),
            ("-1s", false),
        ] {
            assert_eq!(
                check(&[("where", "x"), ("grace", value)]).is_ok(),
                is_sound,
                "{value}"
            );
        }
    }
}
