//! What a person asks for to be joined, in a declaration or by the parameters of the module `join`.
//! It is pure; whether both topics are partitioned alike is checked where they are known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{SpecError, YEAR_MS, in_range};
use crate::metadata::{Join, JoinKind, JoinWith, ParamKind, ParamSpec};
use crate::transform::params;

/// The module whose parameters say what is joined.
const MODULE: &str = "join";
const KEY_BYTES_MAX: usize = 1024;

/// A second source, and how its records are joined with those of the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinSpec {
    /// The right side.
    pub topic: String,
    /// By default inner.
    #[serde(default)]
    pub kind: Option<JoinKind>,
    /// How far apart in time two records may be that meet. Absent: the right side is a table, the latest value of each key.
    #[serde(default)]
    pub within_ms: Option<i64>,
    /// How late a record may come and still meet others.
    #[serde(default)]
    pub grace_ms: Option<i64>,
    /// Where the key stands in values of the left side, as a JSON pointer. Absent: it is the record's own.
    #[serde(default)]
    pub left_key: Option<String>,
    #[serde(default)]
    pub right_key: Option<String>,
}

impl JoinSpec {
    /// What the parameters of a module say, if it is the one that comes for joins.
    pub(crate) fn of_params(
        module: &str,
        specs: &[ParamSpec],
        given: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, SpecError> {
        let is_ours = |spec: &ParamSpec| spec.name == "with" && spec.kind == ParamKind::Text;
        if module != MODULE || !specs.iter().any(is_ours) {
            return Ok(None);
        }
        let said = |name: &str| {
            let default = specs.iter().find(|spec| spec.name == name);
            let value = given
                .get(name)
                .or_else(|| default.and_then(|spec| spec.default.as_ref()));
            value.map(|value| value.trim()).filter(|value| !value.is_empty())
        };
        let wrong = |name: &'static str, value: &str, expected: &'static str| SpecError::JoinParam {
            name,
            value: value.to_owned(),
            expected,
        };
        let duration = |name: &'static str| {
            let read = |value: &str| {
                let expected = "a number and a unit, such as 1500ms";
                params::duration_ms(value).ok_or_else(|| wrong(name, value, expected))
            };
            said(name).map(read).transpose()
        };
        // That it is missing is said by whoever completes the parameters.
        let Some(topic) = said("with") else {
            return Ok(None);
        };
        let kind = match said("kind") {
            None => None,
            Some("inner") => Some(JoinKind::Inner),
            Some("left") => Some(JoinKind::Left),
            Some("outer") => Some(JoinKind::Outer),
            Some(other) => return Err(wrong("kind", other, "inner, left or outer")),
        };
        Ok(Some(Self {
            topic: topic.to_owned(),
            kind,
            within_ms: duration("within")?,
            grace_ms: duration("grace")?,
            left_key: said("left-key").map(str::to_owned),
            right_key: said("right-key").map(str::to_owned),
        }))
    }

    /// The join with everything filled in.
    pub(super) fn complete(self) -> Result<Join, SpecError> {
        let kind = self.kind.unwrap_or(JoinKind::Inner);
        let with = match self.within_ms {
            Some(within_ms) => {
                in_range("join.within_ms", within_ms, (0, YEAR_MS))?;
                let grace_ms = self.grace_ms.unwrap_or(0);
                in_range("join.grace_ms", grace_ms, (0, YEAR_MS))?;
                JoinWith::Stream { within_ms, grace_ms }
            }
            None if self.grace_ms.is_some() => return Err(SpecError::OnlyForStreams("join.grace_ms")),
            None if kind == JoinKind::Outer => return Err(SpecError::OuterTable),
            None if self.right_key.is_some() => return Err(SpecError::KeyOfTable),
            None => JoinWith::Table,
        };
        for pointer in [&self.left_key, &self.right_key].into_iter().flatten() {
            if !pointer.starts_with('/') || pointer.len() > KEY_BYTES_MAX {
                return Err(SpecError::Pointer(pointer.clone()));
            }
        }
        Ok(Join {
            topic: self.topic,
            kind,
            with,
            left_key: self.left_key,
            right_key: self.right_key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(json: &str) -> Result<Join, String> {
        let spec: JoinSpec = serde_json::from_str(json).unwrap();
        spec.complete().map_err(|error| error.to_string())
    }

    #[test]
    fn a_join_is_with_a_table_or_within_a_time() {
        let table = complete(r#"{"topic":"t"}"#).unwrap();
        assert_eq!((table.kind, table.with), (JoinKind::Inner, JoinWith::Table));
        let stream = complete(r#"{"topic":"t","kind":"outer","within_ms":5,"right_key":"/id"}"#).unwrap();
        let with = JoinWith::Stream {
            within_ms: 5,
            grace_ms: 0,
        };
        assert_eq!((stream.kind, stream.with), (JoinKind::Outer, with));
        for (json, expected) in [
            (
                r#"{"topic":"t","kind":"outer"}"#,
                "an outer join is for two streams: give join.within_ms, or take a left one",
            ),
            (
                r#"{"topic":"t","grace_ms":5}"#,
                "join.grace_ms is for two streams: give join.within_ms, too",
            ),
            (
                r#"{"topic":"t","right_key":"/id"}"#,
                "a table's key is that of its records: a record that deletes has no value to find another one in",
            ),
            (
                r#"{"topic":"t","left_key":"id"}"#,
                "\"id\" is no JSON pointer, such as /order/id",
            ),
            (
                r#"{"topic":"t","within_ms":-1}"#,
                "join.within_ms is -1, it must be between 0 and 31622400000",
            ),
        ] {
            assert_eq!(complete(json).unwrap_err(), expected, "{json}");
        }
    }

    #[test]
    fn the_parameters_of_its_own_module_say_the_same() {
        let specs = ["with", "kind", "within", "left-key"].map(|name| ParamSpec {
            name: name.to_owned(),
            kind: if name == "within" {
                ParamKind::Duration
            } else {
                ParamKind::Text
            },
            required: name == "with",
            default: (name == "kind").then(|| "left".to_owned()),
            description: String::new(),
        });
        let read = |module: &str, given: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            JoinSpec::of_params(module, &specs, &given.iter().map(owned).collect())
                .map_err(|error| error.to_string())
        };
        let expected: JoinSpec =
            serde_json::from_str(r#"{"topic":"t","kind":"left","within_ms":1500,"left_key":"/id"}"#).unwrap();
        let given = [("with", " t"), ("within", "1.5s"), ("left-key", "/id")];
        assert_eq!(read("join", &given), Ok(Some(expected)));
        assert_eq!(
            read("filter", &given),
            Ok(None),
            "it may call its parameters so, too"
        );
        assert_eq!(read("join", &[]), Ok(None));
        assert_eq!(
            read("join", &[("with", "t"), ("kind", "both")]).unwrap_err(),
            "parameter \"kind\" is \"both\", expected inner, left or outer"
        );
        assert!(read("join", &[("with", "t"), ("within", "soon")]).is_err());
    }
}
