//! Transforms as the API writes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::error::ApiError;
use crate::metadata::{
    self, Delivery, Emit, ErrorPolicy, JoinWith, ModuleRef, Placement, StartAt, WindowShape,
};
use crate::transform::{
    self, LastError, LimitsSpec, LogLevel, LogLine, PartitionStatus, RunState, TransformStatus,
};

/// What to deploy.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TransformSpec {
    pub(in crate::http) name: String,
    module: ModuleName,
    /// The module's own parameters; see its description.
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// The topic to read.
    source: String,
    /// The topics to write; the first takes what names none. Missing ones are made.
    #[schema(min_items = 1, max_items = 64)]
    sinks: Vec<String>,
    /// `NAME.dead-letter` of the source if absent.
    dead_letter: Option<String>,
    /// To the dead-letter topic if absent.
    on_error: Option<OnError>,
    /// Exactly once if absent, in a cluster whose nodes all can.
    delivery: Option<DeliveryName>,
    /// `any`, `edge`, `core` or `site:SELECTOR`.
    #[schema(pattern = "^(any|edge|core|site:.+)$")]
    placement: Option<String>,
    limits: Option<LimitSpec>,
    /// The oldest record if absent.
    start: Option<Start>,
    /// For aggregates: the length of a tumbling window; short for `window` of that kind.
    window_ms: Option<i64>,
    /// For aggregates: how windows are cut.
    window: Option<WindowSettings>,
    /// For aggregates: how long after its end a window takes records.
    lateness_ms: Option<i64>,
    /// For aggregates: close all windows when nothing came for so long.
    idle_close_ms: Option<i64>,
    /// Once, when a window closes, if absent. Not for session windows.
    emit: Option<EmitAt>,
    /// For aggregates: the topic for records that come too late, as they are; the way of failed ones if absent.
    late_sink: Option<String>,
    /// Entries of the module's state that were not written for so long, by the records' timestamps, are removed. If
    /// absent: the module's parameter `ttl`, if it has one; else they stay.
    state_ttl_ms: Option<i64>,
    /// A second topic: the module is given what comes of joining both. The module `join` says it by its own parameters.
    join: Option<JoinSettings>,
    /// Lookup tables: the name the module opens, and the compacted topic that fills it.
    #[serde(default)]
    lookups: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ModuleName {
    pub(super) name: String,
    pub(super) version: String,
}

/// What happens to a record that the module fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::http) enum OnError {
    DeadLetter,
    Skip,
    Stop,
    Retry,
}

/// What a crash can do to outputs: those of the last moment come again, or all of them come once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::http) enum DeliveryName {
    AtLeastOnce,
    ExactlyOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum Start {
    Earliest,
    Latest,
}

/// When an aggregate sends a window's result: once, or at every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum EmitAt {
    Close,
    Update,
}

/// How windows of event time are cut.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct WindowSettings {
    kind: WindowKind,
    /// Tumbling, hopping and sliding windows: how long each is.
    #[serde(skip_serializing_if = "Option::is_none")]
    size_ms: Option<i64>,
    /// Hopping windows: from the beginning of one to that of the next; at most the size.
    #[serde(skip_serializing_if = "Option::is_none")]
    advance_ms: Option<i64>,
    /// Session windows: the longest time between two records that belong together.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum WindowKind {
    Tumbling,
    Hopping,
    Sliding,
    Session,
}

impl WindowSettings {
    pub(super) fn spec(self) -> transform::WindowSpec {
        transform::WindowSpec {
            kind: match self.kind {
                WindowKind::Tumbling => transform::WindowKind::Tumbling,
                WindowKind::Hopping => transform::WindowKind::Hopping,
                WindowKind::Sliding => transform::WindowKind::Sliding,
                WindowKind::Session => transform::WindowKind::Session,
            },
            size_ms: self.size_ms,
            advance_ms: self.advance_ms,
            gap_ms: self.gap_ms,
        }
    }

    fn of(shape: WindowShape) -> Self {
        let (kind, size_ms, advance_ms, gap_ms) = match shape {
            WindowShape::Tumbling { size_ms } => (WindowKind::Tumbling, Some(size_ms), None, None),
            WindowShape::Hopping { size_ms, advance_ms } => {
                (WindowKind::Hopping, Some(size_ms), Some(advance_ms), None)
            }
            WindowShape::Sliding { size_ms } => (WindowKind::Sliding, Some(size_ms), None, None),
            WindowShape::Session { gap_ms } => (WindowKind::Session, None, None, Some(gap_ms)),
        };
        Self {
            kind,
            size_ms,
            advance_ms,
            gap_ms,
        }
    }
}

/// A second topic, the right side, and how its records are joined with those of the source, the left side. Both must have as
/// many partitions as each other. The module is given records whose value is `{"left":..,"right":..}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct JoinSettings {
    topic: String,
    /// Inner if absent. Outer ones need `within_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<JoinKind>,
    /// How far apart in time two records may be that meet. If absent the right side is a table: the latest value of each key.
    #[serde(skip_serializing_if = "Option::is_none")]
    within_ms: Option<i64>,
    /// How late a record may come and still meet others.
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_ms: Option<i64>,
    /// Where the key stands in values of the left side, as a JSON pointer; the record's own key if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_key: Option<String>,
    /// The same of the right side; not of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    right_key: Option<String>,
}

/// Which records that meet nothing are sent all the same: none, those of the left side, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum JoinKind {
    Inner,
    Left,
    Outer,
}

impl JoinSettings {
    fn spec(self) -> transform::JoinSpec {
        transform::JoinSpec {
            topic: self.topic,
            kind: self.kind.map(|kind| match kind {
                JoinKind::Inner => metadata::JoinKind::Inner,
                JoinKind::Left => metadata::JoinKind::Left,
                JoinKind::Outer => metadata::JoinKind::Outer,
            }),
            within_ms: self.within_ms,
            grace_ms: self.grace_ms,
            left_key: self.left_key,
            right_key: self.right_key,
        }
    }

    fn of(join: &metadata::Join) -> Self {
        let (within_ms, grace_ms) = match join.with {
            JoinWith::Table => (None, None),
            JoinWith::Stream { within_ms, grace_ms } => (Some(within_ms), Some(grace_ms)),
        };
        Self {
            topic: join.topic.clone(),
            kind: Some(match join.kind {
                metadata::JoinKind::Inner => JoinKind::Inner,
                metadata::JoinKind::Left => JoinKind::Left,
                metadata::JoinKind::Outer => JoinKind::Outer,
            }),
            within_ms,
            grace_ms,
            left_key: join.left_key.clone(),
            right_key: join.right_key.clone(),
        }
    }
}

/// What one instance may use. What is absent has the default.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct LimitSpec {
    memory_bytes: Option<u64>,
    cpu_ms_per_batch: Option<u64>,
    output_bytes: Option<u64>,
    batch_bytes: Option<u64>,
}

impl TransformSpec {
    /// What is deployed; what is left out has the defaults that `transform` sets.
    pub(super) fn into_declaration(self) -> Result<transform::TransformSpec, ApiError> {
        Ok(transform::TransformSpec {
            placement: self.placement.as_deref().map(placement).transpose()?,
            name: self.name,
            module: ModuleRef {
                name: self.module.name,
                version: self.module.version,
            },
            params: self.params,
            source: self.source,
            sinks: self.sinks,
            dead_letter: self.dead_letter,
            on_error: self.on_error.map(|policy| match policy {
                OnError::DeadLetter => ErrorPolicy::DeadLetter,
                OnError::Skip => ErrorPolicy::Skip,
                OnError::Stop => ErrorPolicy::Stop,
                OnError::Retry => ErrorPolicy::Retry,
            }),
            delivery: self.delivery.map(|delivery| match delivery {
                DeliveryName::AtLeastOnce => Delivery::AtLeastOnce,
                DeliveryName::ExactlyOnce => Delivery::ExactlyOnce,
            }),
            limits: self.limits.map_or_else(LimitsSpec::default, |limits| LimitsSpec {
                memory_bytes: limits.memory_bytes,
                cpu_ms_per_batch: limits.cpu_ms_per_batch,
                output_bytes: limits.output_bytes,
                batch_bytes: limits.batch_bytes,
            }),
            start: self.start.map(|start| match start {
                Start::Earliest => StartAt::Earliest,
                Start::Latest => StartAt::Latest,
            }),
            window_ms: self.window_ms,
            window: self.window.map(WindowSettings::spec),
            late_sink: self.late_sink,
            state_ttl_ms: self.state_ttl_ms,
            join: self.join.map(JoinSettings::spec),
            lateness_ms: self.lateness_ms,
            idle_close_ms: self.idle_close_ms,
            emit: self.emit.map(|emit| match emit {
                EmitAt::Close => Emit::Close,
                EmitAt::Update => Emit::Update,
            }),
            lookups: self.lookups,
        })
    }
}

fn placement(text: &str) -> Result<Placement, ApiError> {
    match text {
        "any" => Ok(Placement::Any),
        "edge" => Ok(Placement::Edge),
        "core" => Ok(Placement::Core),
        other => match other.strip_prefix("site:") {
            Some(selector) if !selector.is_empty() => Ok(Placement::Site(selector.to_owned())),
            Some(_) | None => Err(ApiError::bad_request(
                "INVALID_PLACEMENT",
                format!("placement {other:?} is none of any, edge, core, site:SELECTOR"),
            )),
        },
    }
}

/// A transform: what was deployed, with every default filled in, and how it is doing.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Transform {
    name: String,
    module: ModuleName,
    params: BTreeMap<String, String>,
    source: String,
    sinks: Vec<String>,
    dead_letter: String,
    on_error: OnError,
    delivery: DeliveryName,
    placement: String,
    limits: Limits,
    start: Start,
    /// The length of tumbling windows; null for others.
    #[schema(required)]
    window_ms: Option<i64>,
    /// How windows are cut; null for what is no aggregate.
    #[schema(required)]
    window: Option<WindowSettings>,
    #[schema(required)]
    late_sink: Option<String>,
    #[schema(required)]
    state_ttl_ms: Option<i64>,
    #[schema(required)]
    join: Option<JoinSettings>,
    lateness_ms: i64,
    #[schema(required)]
    idle_close_ms: Option<i64>,
    emit: EmitAt,
    lookups: BTreeMap<String, String>,
    state: StateName,
    /// Why it retries or has stopped.
    #[schema(required)]
    reason: Option<String>,
    created_ms: i64,
    revision: i64,
    totals: TransformTotals,
    #[schema(required)]
    last_error: Option<TransformError>,
    partitions: Vec<TransformPartition>,
}

/// What one instance may use.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(in crate::http) struct Limits {
    memory_bytes: u64,
    cpu_ms_per_batch: u64,
    output_bytes: u64,
    batch_bytes: u64,
}

/// What a transform, or its part on one partition, is doing.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum StateName {
    Starting,
    Running,
    Retrying,
    Paused,
    Stopped,
}

impl StateName {
    fn of(state: &RunState) -> Self {
        match state {
            RunState::Starting => Self::Starting,
            RunState::Running => Self::Running,
            RunState::Retrying { .. } => Self::Retrying,
            RunState::Paused => Self::Paused,
            RunState::Stopped { .. } => Self::Stopped,
        }
    }
}

/// Counts since the node was started.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TransformTotals {
    records_in: u64,
    records_out: u64,
    failed: u64,
    dropped: u64,
    late: u64,
    /// Records of the source that are not read yet.
    lag: u64,
    /// Read, on average since the node was started.
    records_per_second: f64,
    /// Spent in the module.
    cpu_ms: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TransformError {
    message: String,
    at_ms: i64,
    partition: i32,
    #[schema(required)]
    offset: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TransformPartition {
    partition: i32,
    state: StateName,
    #[schema(required)]
    reason: Option<String>,
    /// The first offset that is not dealt with.
    position: i64,
    high_watermark: i64,
    lag: u64,
    records_in: u64,
    records_out: u64,
    failed: u64,
    dropped: u64,
    late: u64,
    /// Event time up to which windows are closed.
    #[schema(required)]
    watermark_ms: Option<i64>,
    state_bytes: u64,
    #[schema(required)]
    last_error: Option<TransformError>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct GuestLog {
    at_ms: i64,
    level: Level,
    partition: i32,
    message: String,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl GuestLog {
    pub(super) fn of(line: LogLine) -> Self {
        Self {
            at_ms: line.at_ms,
            level: match line.level {
                LogLevel::Debug => Level::Debug,
                LogLevel::Info => Level::Info,
                LogLevel::Warn => Level::Warn,
                LogLevel::Error => Level::Error,
            },
            partition: line.partition.0,
            message: line.message,
        }
    }
}

impl Transform {
    pub(super) fn of(
        declared: &metadata::Transform,
        status: Option<TransformStatus>,
        started_ms: i64,
        now_ms: i64,
    ) -> Self {
        let waiting = if declared.paused {
            RunState::Paused
        } else {
            RunState::Starting
        };
        let status = status.unwrap_or_else(|| TransformStatus {
            state: waiting,
            totals: transform::Totals::default(),
            lag: 0,
            last_error: None,
            partitions: Vec::new(),
        });
        let since_ms = (now_ms - declared.created_ms.max(started_ms)).max(1);
        Self {
            name: declared.name.clone(),
            module: ModuleName {
                name: declared.module.name.clone(),
                version: declared.module.version.clone(),
            },
            params: declared.params.clone(),
            source: declared.source.clone(),
            sinks: declared.sinks.clone(),
            dead_letter: declared.dead_letter.clone(),
            on_error: on_error(declared.on_error),
            delivery: match declared.delivery {
                Delivery::AtLeastOnce => DeliveryName::AtLeastOnce,
                Delivery::ExactlyOnce => DeliveryName::ExactlyOnce,
            },
            placement: placement_text(&declared.placement),
            limits: Limits {
                memory_bytes: declared.limits.memory_bytes,
                cpu_ms_per_batch: declared.limits.cpu_ms_per_batch,
                output_bytes: declared.limits.output_bytes,
                batch_bytes: declared.limits.batch_bytes,
            },
            start: match declared.start {
                StartAt::Earliest => Start::Earliest,
                StartAt::Latest => Start::Latest,
            },
            window_ms: declared.window_ms,
            window: declared.shape().map(WindowSettings::of),
            late_sink: declared.late_sink.clone(),
            state_ttl_ms: declared.state_ttl_ms,
            join: declared.join.as_deref().map(JoinSettings::of),
            lateness_ms: declared.lateness_ms,
            idle_close_ms: declared.idle_close_ms,
            emit: match declared.emit {
                Emit::Close => EmitAt::Close,
                Emit::Update => EmitAt::Update,
            },
            lookups: declared.lookups.clone(),
            state: StateName::of(&status.state),
            reason: status.state.reason().map(str::to_owned),
            created_ms: declared.created_ms,
            revision: declared.revision,
            totals: totals(&status, since_ms),
            last_error: status.last_error.map(error),
            partitions: status.partitions.into_iter().map(partition).collect(),
        }
    }
}

fn totals(status: &TransformStatus, since_ms: i64) -> TransformTotals {
    TransformTotals {
        records_in: status.totals.records_in,
        records_out: status.totals.records_out,
        failed: status.totals.failed,
        dropped: status.totals.dropped,
        late: status.totals.late,
        lag: status.lag,
        records_per_second: status.totals.records_in as f64 * 1000.0 / since_ms as f64,
        cpu_ms: status.totals.cpu_ms,
    }
}

fn error(error: LastError) -> TransformError {
    TransformError {
        message: error.message,
        at_ms: error.at_ms,
        partition: error.partition.0,
        offset: error.offset.map(|offset| offset.0),
    }
}

fn partition(status: PartitionStatus) -> TransformPartition {
    TransformPartition {
        partition: status.partition.0,
        state: StateName::of(&status.state),
        reason: status.state.reason().map(str::to_owned),
        position: status.position.map_or(0, |offset| offset.0),
        high_watermark: status.high_watermark.map_or(0, |offset| offset.0),
        lag: status.lag,
        records_in: status.totals.records_in,
        records_out: status.totals.records_out,
        failed: status.totals.failed,
        dropped: status.totals.dropped,
        late: status.totals.late,
        watermark_ms: status.watermark_ms,
        state_bytes: status.state_bytes,
        last_error: status.last_error.map(error),
    }
}

fn on_error(policy: ErrorPolicy) -> OnError {
    match policy {
        ErrorPolicy::DeadLetter => OnError::DeadLetter,
        ErrorPolicy::Skip => OnError::Skip,
        ErrorPolicy::Stop => OnError::Stop,
        ErrorPolicy::Retry => OnError::Retry,
    }
}

fn placement_text(placement: &Placement) -> String {
    match placement {
        Placement::Any => "any".to_owned(),
        Placement::Edge => "edge".to_owned(),
        Placement::Core => "core".to_owned(),
        Placement::Site(selector) => format!("site:{selector}"),
    }
}
