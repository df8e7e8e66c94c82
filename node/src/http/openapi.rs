//! The API's own description, generated from the handlers: the UI's types are generated from it in turn.

use axum::Json;
use utoipa::OpenApi;

use super::{cluster, links, modules, records, sites, tail, topics, transforms};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Headwater",
        description = "Topics, modules, transforms and links of a node. Times are milliseconds since 1970, sizes bytes.",
        license(name = "Apache-2.0")
    ),
    paths(
        cluster::describe,
        cluster::authority,
        topics::list,
        topics::create,
        topics::describe,
        topics::remove,
        topics::alter,
        topics::widen,
        records::browse,
        records::produce,
        tail::tail,
        modules::list,
        modules::upload,
        modules::describe,
        modules::download,
        modules::remove,
        transforms::list,
        transforms::deploy,
        transforms::replace,
        transforms::describe,
        transforms::remove,
        transforms::pause,
        transforms::resume,
        transforms::logs,
        transforms::dry_run,
        sites::list,
        sites::invite,
        sites::enrol,
        sites::revoke,
        links::list,
        links::create,
        links::describe,
        links::remove,
        links::pause,
        links::resume,
    )
)]
struct Document;

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

pub(super) async fn json() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
