//! The API's own description, generated from the handlers: the UI's types are generated from it in turn.
//!
//! The copy beside the UI is held to it by a test; `cargo xtask ui --types` writes both anew.

use axum::Json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::error::ErrorBody;
use super::{
    cluster, groups, links, metrics, modules, records, sites, tail, topics, transactions, transforms,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Headwater",
        description = "Topics, groups, transactions, modules, transforms and links of a node. Times are milliseconds since 1970, sizes bytes.",
        license(name = "Apache-2.0")
    ),
    paths(
        cluster::describe,
        cluster::health::health,
        cluster::quorum::quorum,
        cluster::partitions::partitions,
        cluster::authority,
        topics::list,
        topics::create,
        topics::describe,
        topics::remove,
        topics::alter,
        topics::widen,
        topics::scrub,
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
        transforms::state,
        transforms::dry_run,
        transforms::dead_letters,
        transforms::summary,
        transforms::redrive,
        transforms::redrives,
        transforms::redrive_of,
        transforms::cancel_redrive,
        groups::list,
        groups::describe,
        groups::remove,
        groups::set_offsets,
        transactions::list,
        transactions::describe,
        transactions::producers,
        transactions::hanging,
        transactions::abort,
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
        json,
        metrics::scrape,
        metrics::alive,
        metrics::ready,
    ),
    components(schemas(ErrorBody, tail::Skipped, cluster::partitions::Ailment)),
    modifiers(&Shared)
)]
struct Document;

/// Adds to each operation what no handler has to say: an id of its own, and how it is refused before its handler is
/// asked.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let Some(route) = path.strip_prefix("/api/v1/") else {
                continue;
            };
            let subject = route.split(['/', '.']).next().unwrap_or(route);
            let reads = [&mut item.get].into_iter().map(|it| (it, false));
            let changes = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            for (operation, changes) in reads.chain(changes.into_iter().map(|it| (it, true))) {
                if let Some(operation) = operation {
                    // A handler's name, which the macro takes, is one only within its module.
                    operation.operation_id =
                        operation.operation_id.take().map(|id| format!("{subject}_{id}"));
                    refuse(operation, changes);
                }
            }
        }
    }
}

fn refuse(operation: &mut Operation, changes: bool) {
    let takes_json = match &operation.request_body {
        Some(RefOr::T(body)) => body.content.contains_key("application/json"),
        Some(RefOr::Ref(_)) | None => false,
    };
    let mut refusals = Vec::new();
    if takes_json || operation.parameters.is_some() {
        refusals.push((
            "400",
            "The request cannot be read, or asks for what there cannot be",
        ));
    }
    if takes_json {
        refusals.push(("413", "The body is too large"));
        refusals.push(("415", "The body is not said to be JSON"));
        refusals.push((
            "422",
            "The body is JSON of another shape, or is refused for what it says",
        ));
    }
    if changes {
        refusals.push((
            "403",
            "A page of another origin asks for it, or the core refuses it",
        ));
        refusals.push(("408", "The request was not read and answered in two minutes"));
        refusals.push(("500", "The change could not be stored"));
        refusals.push(("503", "The node is stopping, or cannot do this now"));
    }
    let body = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("ErrorBody")))
        .build();
    for (status, description) in refusals {
        let refusal = ResponseBuilder::new()
            .description(description)
            .content("application/json", body.clone());
        let known = &mut operation.responses.responses;
        known
            .entry(status.to_owned())
            .or_insert_with(|| refusal.build().into());
    }
}

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "cluster",
    responses((status = 200, description = "This document", body = Object))
)]
pub(super) async fn json() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Where the UI's build finds the description.
    const COPY: &str = "../web-ui/src/api/openapi.json";

    #[test]
    fn each_operation_has_an_id_of_its_own() {
        let document = serde_json::to_value(super::document()).expect("plain values");
        let mut ids: Vec<_> = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .flat_map(|item| item.as_object().expect("an item").values())
            .map(|operation| operation["operationId"].as_str().expect("an id").to_owned())
            .collect();
        assert!(ids.len() > 30, "{ids:?}");
        ids.sort();
        let several: Vec<_> = ids.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(several.is_empty(), "{several:?}");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the copy is a file of the source tree")]
    fn the_copy_beside_the_ui_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(COPY);
        let mut document = super::document().to_pretty_json().expect("plain values");
        document.push('\n');
        if std::env::var_os("WRITE_OPENAPI").is_some() {
            std::fs::write(&path, &document).expect("the copy can be written");
        }
        let copy = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            copy == document,
            "{COPY} is out of date: run `cargo xtask ui --types`"
        );
    }
}
