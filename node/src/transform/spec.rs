//! What a person asks for when he deploys a transform, and the complete declaration that becomes of it.
//! It owns the defaults and the bounds of limits. It is pure; what depends on the module is checked at deployment.

mod join;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use join::JoinSpec;

use crate::metadata::features::Level;
use crate::metadata::{
    Delivery, Emit, ErrorPolicy, Limits, ModuleRef, Placement, StartAt, Transform, WindowShape, World,
};

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
const YEAR_MS: i64 = 366 * 24 * 3_600_000;
/// How many hopping windows may overlap: a record is folded once into each.
const OVERLAPPING_MAX: i64 = 1000;

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
    /// The size of tumbling windows: short for a `window` of that kind.
    #[serde(default)]
    pub window_ms: Option<i64>,
    #[serde(default)]
    pub window: Option<WindowSpec>,
    #[serde(default)]
    pub lateness_ms: Option<i64>,
    #[serde(default)]
    pub idle_close_ms: Option<i64>,
    #[serde(default)]
    pub emit: Option<Emit>,
    /// By default late records go the way of failed ones.
    #[serde(default)]
    pub late_sink: Option<String>,
    /// By default the module's parameter `ttl`, if it has one; else entries stay.
    #[serde(default)]
    pub state_ttl_ms: Option<i64>,
    /// A second source: the module is given what comes of joining both. The module `join` says it by its parameters.
    #[serde(default)]
    pub join: Option<JoinSpec>,
    /// Table name to topic. A table that is not named here is the topic of its name.
    #[serde(default)]
    pub lookups: BTreeMap<String, String>,
}

impl TransformSpec {
    /// One that leaves out all that has a default.
    pub(crate) fn new(name: &str, module: ModuleRef, source: &str, sink: &str) -> Self {
        Self {
            name: name.to_owned(),
            module,
            params: BTreeMap::new(),
            source: source.to_owned(),
            sinks: vec![sink.to_owned()],
            dead_letter: None,
            on_error: None,
            delivery: None,
            placement: None,
            limits: LimitsSpec::default(),
            start: None,
            window_ms: None,
            window: None,
            lateness_ms: None,
            idle_close_ms: None,
            emit: None,
            late_sink: None,
            state_ttl_ms: None,
            join: None,
            lookups: BTreeMap::new(),
        }
    }
}

/// How windows are cut. Each kind has lengths of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    pub kind: WindowKind,
    #[serde(default)]
    pub size_ms: Option<i64>,
    #[serde(default)]
    pub advance_ms: Option<i64>,
    #[serde(default)]
    pub gap_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowKind {
    Tumbling,
    Hopping,
    Sliding,
    Session,
}

impl WindowKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tumbling => "tumbling",
            Self::Hopping => "hopping",
            Self::Sliding => "sliding",
            Self::Session => "session",
        }
    }
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
    #[error("window_ms and window both say how windows are cut: give one of them")]
    TwoWindows,
    #[error("{kind} windows need window.{field}")]
    NeedsLength { kind: &'static str, field: &'static str },
    #[error("{kind} windows have no window.{field}")]
    HasNoLength { kind: &'static str, field: &'static str },
    #[error("emit: update is not for session windows: where a session ends is known when it closes")]
    UpdatesOfSessions,
    #[error(
        "session windows need a module that can merge accumulators: {0} does not export headwater:module/merging"
    )]
    CannotMerge(String),
    #[error("parameter {name:?} is {value:?}, expected {expected}")]
    JoinParam {
        name: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("{0} is for two streams: give join.within_ms, too")]
    OnlyForStreams(&'static str),
    #[error("an outer join is for two streams: give join.within_ms, or take a left one")]
    OuterTable,
    #[error(
        "a table's key is that of its records: a record that deletes has no value to find another one in"
    )]
    KeyOfTable,
    #[error("{0:?} is no JSON pointer, such as /order/id")]
    Pointer(String),
    #[error("{0}")]
    NotPartitionedAlike(String),
    #[error("a join cannot be tried on records of one topic: deploy it with a sink of its own")]
    JoinNotTried,
}

impl TransformSpec {
    /// The declaration with everything filled in. `world` is that of the module, `level` the one in force.
    pub fn complete(self, world: World, level: Level, now_ms: i64) -> Result<Transform, SpecError> {
        self.check_names()?;
        let limits = self.limits.complete()?;
        let shape = self.check_windows(world)?;
        if let Some(ttl_ms) = self.state_ttl_ms {
            in_range("state_ttl_ms", ttl_ms, (1, YEAR_MS))?;
        }
        let (window_ms, window) = match shape {
            // As every version knows it.
            Some(WindowShape::Tumbling { size_ms }) => (Some(size_ms), None),
            other => (None, other),
        };
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
            window_ms,
            window,
            late_sink: self.late_sink,
            state_ttl_ms: self.state_ttl_ms,
            join: self.join.map(JoinSpec::complete).transpose()?.map(Box::new),
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
        if let Some(late) = self.late_sink.as_ref().filter(|late| self.sinks.contains(late)) {
            return Err(SpecError::SinkTwice(late.clone()));
        }
        let twice = self
            .sinks
            .iter()
            .enumerate()
            .find(|(index, sink)| self.sinks[..*index].contains(sink));
        twice.map_or(Ok(()), |(_, sink)| Err(SpecError::SinkTwice(sink.clone())))
    }

    fn check_windows(&self, world: World) -> Result<Option<WindowShape>, SpecError> {
        let only = [
            ("window_ms", self.window_ms.is_some()),
            ("window", self.window.is_some()),
            ("lateness_ms", self.lateness_ms.is_some()),
            ("idle_close_ms", self.idle_close_ms.is_some()),
            ("emit", self.emit.is_some()),
            ("late_sink", self.late_sink.is_some()),
        ];
        if world != World::Aggregate {
            let wrong = only.iter().find(|(_, is_set)| *is_set);
            return wrong.map_or(Ok(None), |(field, _)| Err(SpecError::OnlyForAggregates(field)));
        }
        let shape = shape_of(self.window_ms, self.window)?.ok_or(SpecError::NoWindow)?;
        if matches!(shape, WindowShape::Session { .. }) && self.emit == Some(Emit::Update) {
            return Err(SpecError::UpdatesOfSessions);
        }
        in_range("lateness_ms", self.lateness_ms.unwrap_or(0), (0, YEAR_MS))?;
        in_range("idle_close_ms", self.idle_close_ms.unwrap_or(1), (1, YEAR_MS))?;
        Ok(Some(shape))
    }
}

/// How windows are cut, in either way of saying it. None: it was not said.
pub(crate) fn shape_of(
    window_ms: Option<i64>,
    window: Option<WindowSpec>,
) -> Result<Option<WindowShape>, SpecError> {
    match (window_ms, window) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(SpecError::TwoWindows),
        (Some(size_ms), None) => {
            in_range("window_ms", size_ms, (1, YEAR_MS))?;
            Ok(Some(WindowShape::Tumbling { size_ms }))
        }
        (None, Some(window)) => window.shape().map(Some),
    }
}

impl WindowSpec {
    /// The shape, if the lengths are those of its kind and within bounds.
    fn shape(self) -> Result<WindowShape, SpecError> {
        let kind = self.kind.name();
        let lengths = [
            ("size_ms", "window.size_ms", self.size_ms),
            ("advance_ms", "window.advance_ms", self.advance_ms),
            ("gap_ms", "window.gap_ms", self.gap_ms),
        ];
        let needed: &[&str] = match self.kind {
            WindowKind::Tumbling | WindowKind::Sliding => &["size_ms"],
            WindowKind::Hopping => &["size_ms", "advance_ms"],
            WindowKind::Session => &["gap_ms"],
        };
        for (field, full, value) in lengths {
            match (needed.contains(&field), value) {
                (true, None) => return Err(SpecError::NeedsLength { kind, field }),
                (false, Some(_)) => return Err(SpecError::HasNoLength { kind, field }),
                (true, Some(value)) => in_range(full, value, (1, YEAR_MS))?,
                (false, None) => {}
            }
        }
        let [size_ms, advance_ms, gap_ms] = lengths.map(|(_, _, value)| value.unwrap_or(1));
        Ok(match self.kind {
            WindowKind::Tumbling => WindowShape::Tumbling { size_ms },
            WindowKind::Sliding => WindowShape::Sliding { size_ms },
            WindowKind::Session => WindowShape::Session { gap_ms },
            WindowKind::Hopping => {
                let least = (size_ms + OVERLAPPING_MAX - 1) / OVERLAPPING_MAX;
                in_range("window.advance_ms", advance_ms, (least, size_ms))?;
                WindowShape::Hopping { size_ms, advance_ms }
            }
        })
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
        let late = check(
            &|spec| {
                spec.window_ms = Some(5);
                spec.late_sink = Some("good".to_owned());
            },
            World::Aggregate,
        );
        assert_eq!(late, SpecError::SinkTwice("good".to_owned()));
        let error = check(&|spec| spec.limits.memory_bytes = Some(5), World::Map);
        assert_eq!(
            error.to_string(),
            "memory_bytes is 5, it must be between 1048576 and 1073741824"
        );
        assert!(serde_json::from_str::<TransformSpec>(&PLAIN.replace("sinks", "sink")).is_err());
    }

    #[test]
    fn each_kind_of_window_has_its_lengths() {
        let check = |window: &str| -> Result<(Option<i64>, Option<WindowShape>), String> {
            let mut spec = spec(PLAIN);
            spec.window = Some(serde_json::from_str(window).unwrap());
            let completed = spec.complete(World::Aggregate, Level::NEWEST, 0);
            completed
                .map(|transform| (transform.window_ms, transform.window))
                .map_err(|error| error.to_string())
        };
        let hopping = WindowShape::Hopping {
            size_ms: 10,
            advance_ms: 3,
        };
        for (window, expected) in [
            (r#"{"kind":"tumbling","size_ms":10}"#, Ok((Some(10), None))),
            (
                r#"{"kind":"hopping","size_ms":10,"advance_ms":3}"#,
                Ok((None, Some(hopping))),
            ),
            (
                r#"{"kind":"sliding","size_ms":10}"#,
                Ok((None, Some(WindowShape::Sliding { size_ms: 10 }))),
            ),
            (
                r#"{"kind":"session","gap_ms":10}"#,
                Ok((None, Some(WindowShape::Session { gap_ms: 10 }))),
            ),
            (r#"{"kind":"session"}"#, Err("session windows need window.gap_ms")),
            (
                r#"{"kind":"sliding","size_ms":1,"advance_ms":1}"#,
                Err("sliding windows have no window.advance_ms"),
            ),
            (
                r#"{"kind":"hopping","size_ms":10,"advance_ms":11}"#,
                Err("window.advance_ms is 11, it must be between 1 and 10"),
            ),
            (
                r#"{"kind":"hopping","size_ms":5000,"advance_ms":4}"#,
                Err("window.advance_ms is 4, it must be between 5 and 5000"),
            ),
            (
                r#"{"kind":"tumbling","size_ms":0}"#,
                Err("window.size_ms is 0, it must be between 1 and 31622400000"),
            ),
        ] {
            assert_eq!(check(window), expected.map_err(str::to_owned), "{window}");
        }
        let mut both = spec(PLAIN);
        both.window = Some(serde_json::from_str(r#"{"kind":"session","gap_ms":10}"#).unwrap());
        both.emit = Some(Emit::Update);
        assert_eq!(
            both.clone().complete(World::Aggregate, Level::NEWEST, 0),
            Err(SpecError::UpdatesOfSessions)
        );
        both.window_ms = Some(10);
        assert_eq!(
            both.complete(World::Aggregate, Level::NEWEST, 0),
            Err(SpecError::TwoWindows)
        );
    }
}
