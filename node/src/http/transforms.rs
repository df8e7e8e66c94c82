//! Transforms: deploy, watch, pause, try.

mod dry_run;
mod letters;
mod model;
mod state;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};

pub(super) use self::dry_run::{dry_run, shown};
pub(super) use self::letters::{cancel_redrive, dead_letters, redrive, redrive_of, redrives, summary};
use self::model::{GuestLog, Transform, TransformSpec};
pub(super) use self::state::state;
use super::Api;
use super::error::{ApiError, Body, ErrorBody, Path};
use super::modules::module_error;
use crate::metadata;
use crate::transform::DeployError;

// For the OpenAPI document, which names each handler's generated companion.
pub(super) use self::dry_run::__path_dry_run;
pub(super) use self::letters::{
    __path_cancel_redrive, __path_dead_letters, __path_redrive, __path_redrive_of, __path_redrives,
    __path_summary,
};
pub(super) use self::state::__path_state;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/transforms", get(list).post(deploy))
        .route("/transforms/dry-run", post(dry_run))
        .route("/transforms/{name}", get(describe).put(replace).delete(remove))
        .route("/transforms/{name}/pause", post(pause))
        .route("/transforms/{name}/resume", post(resume))
        .route("/transforms/{name}/logs", get(logs))
        .route("/transforms/{name}/state", get(state))
        .route("/transforms/{name}/dead-letters", get(dead_letters))
        .route("/transforms/{name}/dead-letters/summary", get(summary))
        .route("/transforms/{name}/dead-letters/redrive", post(redrive))
        .route("/transforms/{name}/redrives", get(redrives))
        .route(
            "/transforms/{name}/redrives/{id}",
            get(redrive_of).delete(cancel_redrive),
        )
}

#[utoipa::path(get, path = "/api/v1/transforms", tag = "transforms", responses((status = 200, body = [Transform])))]
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<Transform>> {
    let image = api.view.image();
    Json(
        image
            .transforms
            .values()
            .map(|declared| shape(&api, declared))
            .collect(),
    )
}

#[utoipa::path(
    post, path = "/api/v1/transforms", tag = "transforms", request_body = TransformSpec,
    responses((status = 201, body = Transform), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn deploy(
    State(api): State<Api>,
    Body(spec): Body<TransformSpec>,
) -> Result<(StatusCode, Json<Transform>), ApiError> {
    if api.view.image().transforms.contains_key(&spec.name) {
        return Err(ApiError::conflict(
            "TRANSFORM_EXISTS",
            format!("transform {:?} exists already", spec.name),
        )
        .hint("Choose another name, or replace it (PUT; --replace on the command line)."));
    }
    Ok((StatusCode::CREATED, put(&api, spec).await?))
}

#[utoipa::path(
    put, path = "/api/v1/transforms/{name}", tag = "transforms", params(("name" = String, Path)),
    request_body = TransformSpec,
    responses((status = 200, body = Transform), (status = 404, body = ErrorBody))
)]
pub(super) async fn replace(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(spec): Body<TransformSpec>,
) -> Result<Json<Transform>, ApiError> {
    find(&api, &name)?;
    if spec.name != name {
        return Err(ApiError::bad_request(
            "NAME_DIFFERS",
            format!("the path names {name:?}, the body {:?}", spec.name),
        ));
    }
    put(&api, spec).await
}

async fn put(api: &Api, spec: TransformSpec) -> Result<Json<Transform>, ApiError> {
    let deployed = api
        .transforms
        .deploy(spec.into_declaration()?)
        .await
        .map_err(deploy_error)?;
    Ok(Json(shape(api, &deployed)))
}

fn deploy_error(error: DeployError) -> ApiError {
    let message = error.to_string();
    let refused = |code| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message.clone());
    match error {
        DeployError::Module(error) => module_error(error),
        DeployError::Spec(_) => refused("INVALID_TRANSFORM"),
        DeployError::Params(_) => refused("INVALID_PARAMETER"),
        #[cfg(feature = "wasm")]
        DeployError::SetUp(_) => refused("REFUSED_BY_MODULE"),
        DeployError::Unusable(_) => ApiError::unavailable("UNUSABLE", message),
        DeployError::Propose(error) => error.into(),
    }
}

#[utoipa::path(
    get, path = "/api/v1/transforms/{name}", tag = "transforms", params(("name" = String, Path)),
    responses((status = 200, body = Transform), (status = 404, body = ErrorBody))
)]
pub(super) async fn describe(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Transform>, ApiError> {
    Ok(Json(shape(&api, &*find(&api, &name)?)))
}

#[utoipa::path(
    delete, path = "/api/v1/transforms/{name}", tag = "transforms", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody))
)]
pub(super) async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    api.transforms.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    post, path = "/api/v1/transforms/{name}/pause", tag = "transforms", params(("name" = String, Path)),
    responses((status = 200, body = Transform), (status = 404, body = ErrorBody))
)]
pub(super) async fn pause(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Transform>, ApiError> {
    api.transforms.pause(&name).await?;
    Ok(Json(shape(&api, &*find(&api, &name)?)))
}

#[utoipa::path(
    post, path = "/api/v1/transforms/{name}/resume", tag = "transforms", params(("name" = String, Path)),
    responses((status = 200, body = Transform), (status = 404, body = ErrorBody))
)]
pub(super) async fn resume(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Transform>, ApiError> {
    api.transforms.resume(&name).await?;
    Ok(Json(shape(&api, &*find(&api, &name)?)))
}

#[utoipa::path(
    get, path = "/api/v1/transforms/{name}/logs", tag = "transforms", params(("name" = String, Path)),
    responses((status = 200, body = [GuestLog]), (status = 404, body = ErrorBody))
)]
pub(super) async fn logs(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Vec<GuestLog>>, ApiError> {
    find(&api, &name)?;
    Ok(Json(
        api.transforms.logs(&name).into_iter().map(GuestLog::of).collect(),
    ))
}

fn find(api: &Api, name: &str) -> Result<Arc<metadata::Transform>, ApiError> {
    let found = api.view.image().transforms.get(name).cloned();
    found.ok_or_else(|| ApiError::not_found("UNKNOWN_TRANSFORM", format!("transform {name:?} is not known")))
}

fn shape(api: &Api, declared: &metadata::Transform) -> Transform {
    Transform::of(
        declared,
        api.transforms.status(&declared.name),
        api.started_ms,
        api.sys.clock.unix_ms(),
    )
}
