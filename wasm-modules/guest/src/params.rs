//! The parameters a transform gives its module, parsed with errors that say which one and what was expected.
//! It owns the text forms of the kinds; which parameters exist is the module's [`Metadata`].

use crate::error::Error;
use crate::lookup::Table;
use crate::metadata::Metadata;

/// The parameters of one instance: declared names only, defaults filled in.
#[derive(Clone, Debug)]
pub struct Params {
    values: Vec<(String, String)>,
}

impl Params {
    /// Checks the given values against what is declared. The host does the same first, so this speaks only in tests
    /// and under a host that forgot to.
    ///
    /// # Errors
    /// A name that is not declared or stands twice, or a required parameter that is missing.
    pub fn new(mut given: Vec<(String, String)>, metadata: &Metadata) -> Result<Self, Error> {
        for (position, (name, _)) in given.iter().enumerate() {
            if !metadata.params.iter().any(|param| param.name == *name) {
                return Err(Error::new(format!(
                    "there is no parameter '{name}'; {} has {}",
                    metadata.name,
                    names(metadata)
                )));
            }
            if given[..position].iter().any(|(earlier, _)| earlier == name) {
                return Err(Error::new(format!("parameter '{name}' is given twice")));
            }
        }
        for param in &metadata.params {
            if given.iter().any(|(name, _)| *name == param.name) {
                continue;
            }
            match &param.default {
                Some(value) => given.push((param.name.clone(), value.clone())),
                None if param.required => {
                    return Err(Error::new(format!("parameter '{}' is required", param.name)));
                }
                None => {}
            }
        }
        Ok(Self { values: given })
    }

    /// The value as it was written, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// When there is no such parameter.
    pub fn text(&self, name: &str) -> Result<&str, Error> {
        self.get(name)
            .ok_or_else(|| Error::new(format!("parameter '{name}' is required")))
    }

    /// # Errors
    /// When it is missing or no whole number of 64 bits.
    pub fn integer(&self, name: &str) -> Result<i64, Error> {
        let text = self.text(name)?;
        text.trim()
            .parse()
            .map_err(|_| wrong(name, text, "a whole number"))
    }

    /// # Errors
    /// When it is missing or no finite number.
    pub fn float(&self, name: &str) -> Result<f64, Error> {
        let text = self.text(name)?;
        let value: Option<f64> = text.trim().parse().ok();
        value
            .filter(|value| value.is_finite())
            .ok_or_else(|| wrong(name, text, "a number"))
    }

    /// # Errors
    /// When it is missing or neither `true` nor `false`.
    pub fn boolean(&self, name: &str) -> Result<bool, Error> {
        let text = self.text(name)?;
        text.trim()
            .parse()
            .map_err(|_| wrong(name, text, "'true' or 'false'"))
    }

    /// Milliseconds, a part of one counted as whole.
    ///
    /// # Errors
    /// When it is missing or no duration.
    pub fn duration_ms(&self, name: &str) -> Result<i64, Error> {
        let text = self.text(name)?;
        parse_duration_ms(text)
            .ok_or_else(|| wrong(name, text, "a duration such as '500ms', '30s', '1.5h' or '7d'"))
    }

    /// Opens the lookup table the parameter names.
    ///
    /// # Errors
    /// When it is missing or the host has no such table.
    pub fn table(&self, name: &str) -> Result<Table, Error> {
        let table = self.text(name)?;
        Table::open(table.trim()).map_err(|error| Error::new(format!("parameter '{name}': {error}")))
    }
}

fn names(metadata: &Metadata) -> String {
    if metadata.params.is_empty() {
        return "none".into();
    }
    let quoted: Vec<String> = metadata
        .params
        .iter()
        .map(|param| format!("'{}'", param.name))
        .collect();
    quoted.join(", ")
}

fn wrong(name: &str, text: &str, expected: &str) -> Error {
    Error::new(format!("parameter '{name}' is '{text}', but must be {expected}"))
}

/// Reads a decimal number and a unit (ns, us, ms, s, m, h, d) as milliseconds, a part of one counted as whole.
#[must_use]
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    const NANOS_PER_MS: u128 = 1_000_000;
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|letter: char| letter.is_ascii_alphabetic())?);
    let unit_nanos: u128 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => NANOS_PER_MS,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    let number = number.trim();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') || fraction.len() > 18
    {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let whole: u128 = whole.parse::<u64>().ok()?.into();
    let nanos = (whole * scale + fraction)
        .checked_mul(unit_nanos)?
        .div_ceil(scale);
    i64::try_from(nanos.div_ceil(NANOS_PER_MS)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Param, ParamKind};

    fn metadata() -> Metadata {
        Metadata::new("late", "1.0.0", "")
            .param(Param::new("where", ParamKind::Text, "").required())
            .param(Param::new("limit", ParamKind::Integer, "").default("10"))
            .param(Param::new("share", ParamKind::Float, ""))
            .param(Param::new("strict", ParamKind::Boolean, ""))
            .param(Param::new("wait", ParamKind::Duration, ""))
    }

    fn params(given: &[(&str, &str)]) -> Result<Params, String> {
        let given = given
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        Params::new(given, &metadata()).map_err(Error::into_message)
    }

    #[test]
    fn defaults_are_filled_in_and_values_parsed() {
        let params = params(&[
            ("where", "x"),
            ("share", " -2.5e3"),
            ("strict", "true"),
            ("wait", "1.5s"),
        ])
        .expect("valid");
        assert_eq!(params.text("where"), Ok("x"));
        assert_eq!(params.integer("limit"), Ok(10));
        assert_eq!(params.float("share"), Ok(-2500.0));
        assert_eq!(params.boolean("strict"), Ok(true));
        assert_eq!(params.duration_ms("wait"), Ok(1500));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(
            params(&[("were", "x")]).expect_err("unknown"),
            "there is no parameter 'were'; late has 'where', 'limit', 'share', 'strict', 'wait'"
        );
        assert_eq!(params(&[]).expect_err("missing"), "parameter 'where' is required");
        assert_eq!(
            params(&[("where", "a"), ("where", "b")]).expect_err("twice"),
            "parameter 'where' is given twice"
        );
        let params = params(&[
            ("where", "x"),
            ("limit", "ten"),
            ("share", "NaN"),
            ("strict", "yes"),
            ("wait", "5"),
        ])
        .expect("declared");
        let message = |error: Result<(), Error>| error.expect_err("wrong").into_message();
        assert_eq!(
            message(params.integer("limit").map(drop)),
            "parameter 'limit' is 'ten', but must be a whole number"
        );
        assert_eq!(
            message(params.float("share").map(drop)),
            "parameter 'share' is 'NaN', but must be a number"
        );
        assert_eq!(
            message(params.boolean("strict").map(drop)),
            "parameter 'strict' is 'yes', but must be 'true' or 'false'"
        );
        assert_eq!(
            message(params.duration_ms("wait").map(drop)),
            "parameter 'wait' is '5', but must be a duration such as '500ms', '30s', '1.5h' or '7d'"
        );
    }

    #[test]
    fn durations_are_exact() {
        for (text, expected) in [
            ("0s", Some(0)),
            ("1500ms", Some(1500)),
            ("2.5s", Some(2500)),
            ("1h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("1 m", Some(60_000)),
            ("1ns", Some(1)),
            ("1000001us", Some(1001)),
            ("0.1d", Some(8_640_000)),
            ("1", None),
            ("s", None),
            ("-1s", None),
            ("1.s", None),
            (".5s", None),
            ("1e3s", None),
            ("1w", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(parse_duration_ms(text), expected, "{text}");
        }
    }
}
