//! What a person asks for when he deploys a transform, and the complete declaration that becomes of it.
//! It owns the defaults and the bounds of limits. It is pure; what depends on the module is checked at deployment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metadata::features::Level;
use crate::metadata::{Delivery, Emit, ErrorPolicy, Limits, ModuleRef, Placement, StartAt, Transform, World};

const MEMORY_BYTES: u64 = 32 << 20;
const MEMORY_BYTES_RANGE: (u64, u64) = (1 << 20, 1 << 30);
const CPU_MS: u64 = 100;
const CPU_MS_RANGE: (u64, u64) = (10, 60_000);
const OUTPUT_BYTES: u64 = 8 << 20;
const OUTPUT_BYTES_RANGE: (u64, u64) = (64 << 10, 256 << 20);
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_BYTES_RANGE: (u64, u64) = (1 << 10, 64 << 20);
/// The name of a transform, so that the topics named after it stay within a topic's name.
const NAME_BYTES_MAX: usize = 100;
const SINKS_MAX: usize = 64;

/// A transform to be deployed. What is left out has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformSpec {
    pub name: String,
    pub module: ModuleRef,
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    pub source: String,
    pub sinks: Vec<String>,
    /// By default `SOURCE.dead-letter`.
    #[serde(default)]
    pub dead_letter: Option<String>,
    #[serde(default)]
    pub on_error: Option<ErrorPolicy>,
    /// By default exactly once, as soon as every node of the cluster can.
    #[serde(default)]
    pub delivery: Option<Delivery>,
    #[serde(default)]
    pub placement: Option<Placement>,
    #[serde(default)]
    pub limits: LimitsSpec,
    #[serde(default)]
    pub start: Option<StartAt>,
    #[serde(default)]
    pub window_ms: Option<i64>,
    #[serde(default)]
    pub lateness_ms: Option<i64>,
    #[serde(default)]
    pub idle_close_ms: Option<i64>,
    #[serde(default)]
    pub emit: Option<Emit>,
    /// Table name to topic. A table that is not named here is the topic of its name.
    #[serde(default)]
    pub lookups: BTreeMap<String, String>,
}

/// Limits of one instance; what is left out has a default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSpec {
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    #[serde(default)]
    pub cpu_ms_per_batch: Option<u64>,
    #[serde(default)]
    pub output_bytes: Option<u64>,
    #[serde(default)]
    pub batch_bytes: Option<u64>,
}

/// Why a declaration is not valid. All are the caller's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("the name {0:?} must have 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' and '-'")]
    Name(String),
    #[error("a transform needs 1 to {SINKS_MAX} sinks, this one has {0}")]
    Sinks(usize),
    #[error("sink {0:?} is named twice")]
    SinkTwice(String),
    #[error("{field} is {value}, it must be between {min} and {max}")]
    OutOfRange {
        field: &'static str,
        value: i64,
        min: i64,
        max: i64,
    },
    #[error("an aggregate needs window_ms: the size of its windows")]
    NoWindow,
    #[error("{0} is only for aggregates")]
    OnlyForAggregates(&'static str),
}

impl TransformSpec {
    /// The declaration with everything filled in. `world` is that of the module, `level` the one in force.
    pub fn complete(self, world: World, level: Level, now_ms: i64) -> Result<Transform, SpecError> {
        self.check_names()?;
        let limits = self.limits.complete()?;
        self.check_windows(world)?;
        let dead_letter = self
            .dead_letter
            .unwrap_or_else(|| format!("{}.dead-letter", self.source));
        Ok(Transform {
            name: self.name,
            module: self.module,
            params: self.params,
            dead_letter,
            source: self.source,
            sinks: self.sinks,
            on_error: self.on_error.unwrap_or(ErrorPolicy::DeadLetter),
            delivery: self.delivery.unwrap_or(match level >= Level::EXACTLY_ONCE {
                true => Delivery::ExactlyOnce,
                false => Delivery::AtLeastOnce,
            }),
            placement: self.placement.unwrap_or(Placement::Any),
            limits,
            start: self.start.unwrap_or(StartAt::Earliest),
            window_ms: self.window_ms,
            lateness_ms: self.lateness_ms.unwrap_or(0),
            idle_close_ms: self.idle_close_ms,
            emit: self.emit.unwrap_or(Emit::Close),
            lookups: self.lookups,
            paused: false,
            // The controller counts revisions.
            revision: 0,
            created_ms: now_ms,
        })
    }

    fn check_names(&self) -> Result<(), SpecError> {
        let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=NAME_BYTES_MAX).contains(&self.name.len()) || !self.name.bytes().all(is_sound) {
            return Err(SpecError::Name(self.name.clone()));
        }
        if !(1..=SINKS_MAX).contains(&self.sinks.len()) {
            return Err(SpecError::Sinks(self.sinks.len()));
        }
        let twice = self
            .sinks
            .iter()
            .enumerate()
            .find(|(index, sink)| self.sinks[..*index].contains(sink));
        twice.map_or(Ok(()), |(_, sink)| Err(SpecError::SinkTwice(sink.clone())))
    }

    fn check_windows(&self, world: World) -> Result<(), SpecError> {
        let only = [
            ("window_ms", self.window_ms.is_some()),
            ("lateness_ms", self.lateness_ms.is_some()),
            ("idle_close_ms", self.idle_close_ms.is_some()),
            ("emit", self.emit.is_some()),
        ];
        if world != World::Aggregate {
            let wrong = only.iter().find(|(_, is_set)| *is_set);
            return wrong.map_or(Ok(()), |(field, _)| Err(SpecError::OnlyForAggregates(field)));
        }
        let window_ms = self.window_ms.ok_or(SpecError::NoWindow)?;
        const YEAR_MS: i64 = 366 * 24 * 3_600_000;
        in_range("window_ms", window_ms, (1, YEAR_MS))?;
        in_range("lateness_ms", self.lateness_ms.unwrap_or(0), (0, YEAR_MS))?;
        in_range("idle_close_ms", self.idle_close_ms.unwrap_or(1), (1, YEAR_MS))
    }
}

impl LimitsSpec {
    pub(crate) fn complete(self) -> Result<Limits, SpecError> {
        Ok(Limits {
            memory_bytes: limit(
                "memory_bytes",
                self.memory_bytes,
                MEMORY_BYTES,
                MEMORY_BYTES_RANGE,
            )?,
            cpu_ms_per_batch: limit("cpu_ms_per_batch", self.cpu_ms_per_batch, CPU_MS, CPU_MS_RANGE)?,
            output_bytes: limit(
                "output_bytes",
                self.output_bytes,
                OUTPUT_BYTES,
                OUTPUT_BYTES_RANGE,
            )?,
            batch_bytes: limit("batch_bytes", self.batch_bytes, BATCH_BYTES, BATCH_BYTES_RANGE)?,
        })
    }
}

fn limit(
    field: &'static str,
    value: Option<u64>,
    default: u64,
    (min, max): (u64, u64),
) -> Result<u64, SpecError> {
    let value = value.unwrap_or(default);
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    in_range(field, signed(value), (signed(min), signed(max)))?;
    Ok(value)
}

fn in_range(field: &'static str, value: i64, (min, max): (i64, i64)) -> Result<(), SpecError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(SpecError::OutOfRange {
            field,
            value,
            min,
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> TransformSpec {
        serde_json::from_str(json).unwrap()
    }

    const PLAIN: &str =
        r#"{"name":"clean","module":{"name":"filter","version":"1"},"source":"raw","sinks":["good"]}"#;

    #[test]
    fn what_is_left_out_has_a_default() {
        let transform = spec(PLAIN).complete(World::Filter, Level::NEWEST, 7).unwrap();
        assert_eq!(transform.dead_letter, "raw.dead-letter");
        assert_eq!(transform.on_error, ErrorPolicy::DeadLetter);
        assert_eq!(
            (transform.limits.memory_bytes, transform.limits.cpu_ms_per_batch),
            (32 << 20, 100)
        );
        assert_eq!((transform.start, transform.created_ms), (StartAt::Earliest, 7));
        assert_eq!(transform.delivery, Delivery::ExactlyOnce);
        let old = spec(PLAIN).complete(World::Filter, Level::FEATURES, 7).unwrap();
        assert_eq!(old.delivery, Delivery::AtLeastOnce, "some node knows no better");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let check = |change: &dyn Fn(&mut TransformSpec), world| {
            let mut spec = spec(PLAIN);
            change(&mut spec);
            spec.complete(world, Level::NEWEST, 0).map(drop).unwrap_err()
        };
        assert_eq!(check(&|_| (), World::Aggregate), SpecError::NoWindow);
        assert_eq!(
            check(&|spec| spec.window_ms = Some(5), World::Map),
            SpecError::OnlyForAggregates("window_ms")
        );
        assert_eq!(check(&|spec| spec.sinks.clear(), World::Map), SpecError::Sinks(0));
        let twice = SpecError::SinkTwice("good".to_owned());
        assert_eq!(
            check(&|spec| spec.sinks.push("good".to_owned()), World::Map),
            twice
        );
        assert_eq!(
            check(&|spec| spec.name = "a/b".to_owned(), World::Map),
            SpecError::Name("a/b".to_owned())
        );
        let error = check(&|spec| spec.limits.memory_bytes = Some(5), World::Map);
        assert_eq!(
            error.to_string(),
            "memory_bytes is 5, it must be between 1048576 and 1073741824"
        );
        assert!(serde_json::from_str::<TransformSpec>(&PLAIN.replace("sinks", "sink")).is_err());
    }
}
