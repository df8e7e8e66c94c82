//! What machines watch: metrics as Prometheus text, and whether the node is alive and ready.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use super::Api;
use crate::telemetry::health;

/// The content type of the Prometheus text format, version 0.0.4.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
}

#[utoipa::path(
    get, path = "/metrics", tag = "telemetry",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain"))
)]
pub(super) async fn scrape(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], api.metrics.render())
}

#[utoipa::path(
    get, path = "/healthz", tag = "telemetry",
    responses(
        (status = 200, description = "The node is alive: one line per part", body = String, content_type = "text/plain"),
        (status = 503, description = "A part has failed for good", body = String, content_type = "text/plain")
    )
)]
pub(super) async fn alive(State(api): State<Api>) -> impl IntoResponse {
    answer(api.health.is_alive(), &api)
}

#[utoipa::path(
    get, path = "/readyz", tag = "telemetry",
    responses(
        (status = 200, description = "The node takes requests: one line per part", body = String, content_type = "text/plain"),
        (status = 503, description = "A part is not ready", body = String, content_type = "text/plain")
    )
)]
pub(super) async fn ready(State(api): State<Api>) -> impl IntoResponse {
    answer(api.health.is_ready(), &api)
}

/// One line per part, so that a person who looks sees which one it is.
fn answer(good: bool, api: &Api) -> (StatusCode, String) {
    let line = |(part, state): (&str, &health::State)| match state {
        health::State::Starting => format!("{part}: starting\n"),
        health::State::Ready => format!("{part}: ready\n"),
        health::State::Degraded(reason) => format!("{part}: degraded, {reason}\n"),
        health::State::Failed(reason) => format!("{part}: failed, {reason}\n"),
        health::State::Stopping => format!("{part}: stopping\n"),
    };
    let text = api
        .health
        .parts()
        .iter()
        .map(|(part, state)| line((part, state)))
        .collect();
    (
        if good {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        text,
    )
}
