//! Trying a module on records that are there, without a trace.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use headwater_protocol::ids::{Offset, PartitionIndex};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::model::{GuestLog, ModuleName, WindowSettings};
use crate::http::Api;
use crate::http::data::{Data, Header, RecordView};
use crate::http::error::{ApiError, Body, ErrorBody};
use crate::http::modules::module_error;
use crate::metadata::ModuleRef;
use crate::transform::{self, DryRunError, Fate, OwnedHeader, Tried, WouldSend};

const LIMIT_MAX: usize = 1000;

fn twenty() -> usize {
    20
}

/// What to try.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct DryRun {
    module: ModuleName,
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// The topic whose records are tried.
    source: String,
    /// All partitions if absent.
    partition: Option<i32>,
    /// The newest records if absent.
    offset: Option<i64>,
    #[serde(default = "twenty")]
    limit: usize,
    #[serde(default)]
    lookups: BTreeMap<String, String>,
    /// For aggregates: the length of a tumbling window; short for `window` of that kind.
    window_ms: Option<i64>,
    /// For aggregates: how windows are cut; tumbling ones of an hour if both are absent.
    window: Option<WindowSettings>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DryRunReport {
    results: Vec<DryRunResult>,
    /// Spent in the module.
    cpu_us: u64,
    log: Vec<GuestLog>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DryRunResult {
    input: RecordView,
    outcome: Outcome,
    outputs: Vec<DryRunOutput>,
    #[schema(required)]
    error: Option<String>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum Outcome {
    Kept,
    Dropped,
    Mapped,
    Failed,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DryRunOutput {
    /// Empty: the transform's first sink.
    topic: String,
    #[schema(required)]
    key: Option<Data>,
    #[schema(required)]
    value: Option<Data>,
    headers: Vec<Header>,
}

#[utoipa::path(
    post, path = "/api/v1/transforms/dry-run", tag = "transforms", request_body = DryRun,
    responses((status = 200, body = DryRunReport), (status = 404, body = ErrorBody))
)]
pub(in crate::http) async fn dry_run(
    State(api): State<Api>,
    Body(body): Body<DryRun>,
) -> Result<Json<DryRunReport>, ApiError> {
    let run = transform::DryRun {
        module: ModuleRef {
            name: body.module.name,
            version: body.module.version,
        },
        params: body.params,
        source: body.source,
        partition: body.partition.map(PartitionIndex),
        offset: body.offset.map(Offset),
        limit: body.limit.clamp(1, LIMIT_MAX),
        lookups: body.lookups,
        window_ms: body.window_ms,
        window: body.window.map(WindowSettings::spec),
    };
    let report = api.transforms.dry_run(run).await.map_err(refused)?;
    Ok(Json(shown(report)))
}

/// A report as the API, and whoever tries a module without a node, shows it.
pub(in crate::http) fn shown(report: transform::DryRunReport) -> DryRunReport {
    DryRunReport {
        results: report.results.into_iter().map(result).collect(),
        cpu_us: report.cpu_us,
        log: report.log.into_iter().map(GuestLog::of).collect(),
    }
}

fn refused(error: DryRunError) -> ApiError {
    let message = error.to_string();
    let unprocessable = |code| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message.clone());
    match error {
        DryRunError::Module(error) => module_error(error),
        DryRunError::NoTopic(_) => ApiError::not_found("UNKNOWN_TOPIC", message),
        DryRunError::Params(_) => unprocessable("INVALID_PARAMETER"),
        DryRunError::Windows(_) => unprocessable("INVALID_TRANSFORM"),
        DryRunError::Table(_) => unprocessable("TABLE"),
        DryRunError::SetUp(_) => unprocessable("REFUSED_BY_MODULE"),
        DryRunError::Read(_) | DryRunError::Unusable(_) => ApiError::unavailable("UNUSABLE", message),
    }
}

fn result(tried: Tried) -> DryRunResult {
    let input = tried.input;
    DryRunResult {
        input: RecordView {
            partition: input.partition.0,
            offset: input.offset.0,
            timestamp_ms: input.timestamp_ms,
            key: input.key.as_deref().map(Data::of),
            value: input.value.as_deref().map(Data::of),
            headers: headers(input.headers),
        },
        outcome: match tried.fate {
            Fate::Kept => Outcome::Kept,
            Fate::Dropped => Outcome::Dropped,
            Fate::Mapped => Outcome::Mapped,
            Fate::Failed => Outcome::Failed,
        },
        outputs: tried.outputs.into_iter().map(output).collect(),
        error: tried.error,
    }
}

fn output(output: WouldSend) -> DryRunOutput {
    DryRunOutput {
        topic: output.topic.unwrap_or_default(),
        key: output.key.as_deref().map(Data::of),
        value: output.value.as_deref().map(Data::of),
        headers: headers(output.headers),
    }
}

fn headers(headers: Vec<OwnedHeader>) -> Vec<Header> {
    let header = |(name, value): OwnedHeader| Header {
        name,
        value: value.as_deref().map(Data::of),
    };
    headers.into_iter().map(header).collect()
}
