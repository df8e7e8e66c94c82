//! Modules: upload, list, describe, remove.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::error::{ApiError, ErrorBody, Path, Query};
use crate::metadata::{self, ParamKind, World};
use crate::transform::ModuleError;

/// A little above what the engine takes, so that its own, better refusal is heard.
pub(super) const UPLOAD_BYTES_MAX: usize = 40 << 20;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route(
            "/modules",
            get(list)
                .post(upload)
                .layer(DefaultBodyLimit::max(UPLOAD_BYTES_MAX)),
        )
        .route("/modules/{name}/{version}", get(describe).delete(remove))
        .route("/modules/{name}/{version}/wasm", get(download))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Module {
    name: String,
    version: String,
    /// SHA-256 of the component, in hex.
    digest: String,
    size: u64,
    world: WorldName,
    description: String,
    params: Vec<Param>,
    /// The host interfaces it imports: the list of its permissions.
    imports: Vec<String>,
    /// Shipped inside the binary.
    builtin: bool,
    created_ms: i64,
    /// The transforms that run it.
    used_by: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum WorldName {
    Filter,
    Map,
    Aggregate,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Param {
    name: String,
    kind: ParamKindName,
    required: bool,
    #[schema(required)]
    default: Option<String>,
    description: String,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ParamKindName {
    Text,
    Integer,
    Float,
    Boolean,
    Duration,
    Table,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadQuery {
    /// In place of what the module calls itself.
    #[param(nullable = false)]
    name: Option<String>,
    #[param(nullable = false)]
    version: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/modules", tag = "modules", responses((status = 200, body = [Module])))]
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<Module>> {
    let image = api.view.image();
    Json(image.modules.values().map(|module| shape(&api, module)).collect())
}

#[utoipa::path(
    post, path = "/api/v1/modules", tag = "modules", params(UploadQuery),
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "A WebAssembly component of one of the module worlds"),
    responses((status = 201, body = Module), (status = 409, body = ErrorBody), (status = 413, body = ErrorBody), (status = 422, body = ErrorBody))
)]
pub(super) async fn upload(
    State(api): State<Api>,
    Query(query): Query<UploadQuery>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<(StatusCode, Json<Module>), ApiError> {
    let module = api
        .transforms
        .upload(body?, query.name, query.version)
        .await
        .map_err(|error| {
            let status = match error.code() {
                "MODULE_EXISTS" => StatusCode::CONFLICT,
                "TOO_LARGE" => StatusCode::PAYLOAD_TOO_LARGE,
                "UNUSABLE" => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            let refusal = ApiError::new(status, error.code(), error.to_string());
            match error.hint() {
                Some(hint) => refusal.hint(hint),
                None => refusal,
            }
        })?;
    Ok((StatusCode::CREATED, Json(shape(&api, &module))))
}

#[utoipa::path(
    get, path = "/api/v1/modules/{name}/{version}", tag = "modules",
    params(("name" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = Module), (status = 404, body = ErrorBody))
)]
pub(super) async fn describe(
    State(api): State<Api>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<Module>, ApiError> {
    Ok(Json(shape(&api, &*find(&api, &name, &version)?)))
}

#[utoipa::path(
    get, path = "/api/v1/modules/{name}/{version}/wasm", tag = "modules",
    params(("name" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/wasm"), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(super) async fn download(
    State(api): State<Api>,
    Path((name, version)): Path<(String, String)>,
) -> Result<impl IntoResponse, ApiError> {
    let bytes = api.transforms.wasm(&name, &version).await.map_err(module_error)?;
    Ok(([(header::CONTENT_TYPE, "application/wasm")], bytes))
}

#[utoipa::path(
    delete, path = "/api/v1/modules/{name}/{version}", tag = "modules",
    params(("name" = String, Path), ("version" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn remove(
    State(api): State<Api>,
    Path((name, version)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    api.transforms
        .remove_module(&name, &version)
        .await
        .map_err(module_error)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn module_error(error: ModuleError) -> ApiError {
    let message = error.to_string();
    match error {
        ModuleError::Unknown { .. } => ApiError::not_found("UNKNOWN_MODULE", message),
        ModuleError::Unusable(_) => ApiError::unavailable("UNUSABLE", message),
        ModuleError::Propose(error) => error.into(),
    }
}

fn find(api: &Api, name: &str, version: &str) -> Result<Arc<metadata::Module>, ApiError> {
    let image = api.view.image();
    let found = image.module(name, version).cloned();
    found
        .ok_or_else(|| ApiError::not_found("UNKNOWN_MODULE", format!("module {name} {version} is not known")))
}

fn shape(api: &Api, module: &metadata::Module) -> Module {
    let image = api.view.image();
    let uses = |transform: &&Arc<metadata::Transform>| {
        transform.module.name == module.name && transform.module.version == module.version
    };
    Module {
        name: module.name.clone(),
        version: module.version.clone(),
        digest: module.digest.clone(),
        size: module.size,
        world: match module.world {
            World::Filter => WorldName::Filter,
            World::Map => WorldName::Map,
            World::Aggregate => WorldName::Aggregate,
        },
        description: module.description.clone(),
        params: module.params.iter().map(param).collect(),
        imports: module.imports.clone(),
        builtin: module.builtin,
        created_ms: module.created_ms,
        used_by: image
            .transforms
            .values()
            .filter(uses)
            .map(|transform| transform.name.clone())
            .collect(),
    }
}

fn param(param: &metadata::ParamSpec) -> Param {
    Param {
        name: param.name.clone(),
        kind: match param.kind {
            ParamKind::Text => ParamKindName::Text,
            ParamKind::Integer => ParamKindName::Integer,
            ParamKind::Float => ParamKindName::Float,
            ParamKind::Boolean => ParamKindName::Boolean,
            ParamKind::Duration => ParamKindName::Duration,
            ParamKind::Table => ParamKindName::Table,
        },
        required: param.required,
        default: param.default.clone(),
        description: param.description.clone(),
    }
}
