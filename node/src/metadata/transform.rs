//! What the metadata says about a transform: a module, its parameters, where it reads and writes, and its limits.

use super::features::Level;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A deployed transform.
///
/// - `sinks` is never empty; the first is where outputs without a sink of their own go.
/// - `revision` rises with every change of the declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transform {
    pub name: String,
    pub module: ModuleRef,
    pub params: BTreeMap<String, String>,
    pub source: String,
    pub sinks: Vec<String>,
    pub dead_letter: String,
    pub on_error: ErrorPolicy,
    /// Declarations from before there was a choice say nothing.
    #[serde(default, skip_serializing_if = "Delivery::is_at_least_once")]
    pub delivery: Delivery,
    pub placement: Placement,
    pub limits: Limits,
    pub start: StartAt,
    pub window_ms: Option<i64>,
    pub lateness_ms: i64,
    pub idle_close_ms: Option<i64>,
    pub emit: Emit,
    /// Windows of another shape than tumbling ones, which `window_ms` stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowShape>,
    /// Where records go that came after all their windows had closed, in place of the way of failed ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_sink: Option<String>,
    /// Entries of the keyed state that were not written for so long, by the records' timestamps, are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_ttl_ms: Option<i64>,
    /// A second source: the module is given what comes of joining both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Box<Join>>,
    /// Lookup tables: the name the module opens, and the compacted topic that fills it.
    pub lookups: BTreeMap<String, String>,
    pub paused: bool,
    pub revision: i64,
    pub created_ms: i64,
}

impl Transform {
    /// How the windows of an aggregate are cut. None: it has none.
    pub fn shape(&self) -> Option<WindowShape> {
        let tumbling = |size_ms| WindowShape::Tumbling { size_ms };
        self.window.or_else(|| self.window_ms.map(tumbling))
    }

    /// The level of the nodes that run it as it is meant.
    pub fn level(&self) -> Level {
        if self.join.is_some() {
            return Level::JOINS;
        }
        if self.window.is_some() || self.late_sink.is_some() || self.state_ttl_ms.is_some() {
            return Level::WINDOWS;
        }
        match self.delivery {
            Delivery::AtLeastOnce => Level::FIRST,
            Delivery::ExactlyOnce => Level::EXACTLY_ONCE,
        }
    }
}

/// How windows of event time are cut. All lengths are positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum WindowShape {
    /// One after the other, from multiples of the size.
    Tumbling { size_ms: i64 },
    /// One begins at every multiple of the advance, which is not longer than the size: they overlap.
    Hopping { size_ms: i64, advance_ms: i64 },
    /// One for every set of records that such a span of time can hold (`SlidingWindows` of Kafka Streams).
    Sliding { size_ms: i64 },
    /// Of each key, the records that follow one another with no longer gap between them.
    Session { gap_ms: i64 },
}

/// How records of a second topic, the right side, are joined with those of the source, the left side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    pub topic: String,
    pub kind: JoinKind,
    pub with: JoinWith,
    /// Where the key stands in a value of the left side, as a JSON pointer. None: it is the record's own.
    pub left_key: Option<String>,
    /// The same of the right side.
    pub right_key: Option<String>,
}

/// Which records without a partner are sent all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JoinKind {
    Inner,
    Left,
    Outer,
}

/// What the right side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum JoinWith {
    /// The latest value of each key.
    Table,
    /// Records, each of which meets those of the other side that are no further away in time.
    Stream { within_ms: i64, grace_ms: i64 },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModuleRef {
    pub name: String,
    pub version: String,
}

/// What happens to a record that the module fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorPolicy {
    DeadLetter,
    Skip,
    Stop,
    Retry,
}

/// What a crash can do to outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Those of the last moment may come twice.
    #[default]
    AtLeastOnce,
    /// Outputs, state and position are committed in one transaction.
    ExactlyOnce,
}

impl Delivery {
    /// As all were before there was a choice.
    pub const fn is_at_least_once(&self) -> bool {
        matches!(self, Self::AtLeastOnce)
    }
}

/// Which nodes run the transform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Wherever the source partition leads.
    Any,
    /// Only on edge nodes.
    Edge,
    /// Only on core nodes.
    Core,
    /// Only at sites that the selector names.
    Site(String),
}

/// What one instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub memory_bytes: u64,
    pub cpu_ms_per_batch: u64,
    pub output_bytes: u64,
    pub batch_bytes: u64,
}

/// Where a new transform begins in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartAt {
    Earliest,
    Latest,
}

/// When an aggregate sends a window's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Emit {
    /// Once, when the window closes.
    Close,
    /// After every batch that changed it.
    Update,
}
