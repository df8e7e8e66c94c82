//! The cluster as a whole: who is in it, and what it has done.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use crate::metadata::LinkRole;
use crate::telemetry::names;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/cluster", get(describe))
        .route("/cluster/ca.pem", get(authority))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Cluster {
    pub cluster_id: String,
    pub node_id: i32,
    pub version: String,
    pub role: Role,
    pub started_ms: i64,
    pub uptime_ms: i64,
    pub controller_id: i32,
    pub nodes: Vec<ClusterNode>,
    pub totals: Totals,
    pub build: Build,
}

/// What this cluster is to its links.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Core,
    Edge,
    Standalone,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClusterNode {
    pub id: i32,
    /// Addresses as clients are told, `host:port`; empty where the listener is off.
    pub tcp: String,
    pub quic: String,
    pub http: String,
    #[schema(required)]
    pub rack: Option<String>,
}

/// Counts since the node was started, and sizes now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Totals {
    pub topics: u64,
    pub partitions: u64,
    pub size_bytes: u64,
    pub records_in: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub connections: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Build {
    /// Whether this binary runs modules.
    pub wasm: bool,
    pub ui: bool,
}

#[utoipa::path(get, path = "/api/v1/cluster", tag = "cluster", responses((status = 200, body = Cluster)))]
pub(super) async fn describe(State(api): State<Api>) -> Json<Cluster> {
    let image = api.view.image();
    let role = if !image.upstreams.is_empty() {
        Role::Edge
    } else if image.links.values().any(|link| link.role == LinkRole::Core) {
        Role::Core
    } else {
        Role::Standalone
    };
    let nodes = image.nodes.values().map(|node| ClusterNode {
        id: node.id.0,
        tcp: node.addresses.tcp.clone(),
        quic: node.addresses.quic.clone(),
        http: node.addresses.http.clone(),
        rack: node.rack.clone(),
    });
    let partitions = api.registry.list();
    Json(Cluster {
        cluster_id: image.cluster_id.clone(),
        node_id: api.config.node_id.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role,
        started_ms: api.started_ms,
        uptime_ms: api.sys.clock.unix_ms() - api.started_ms,
        controller_id: api.config.node_id.0,
        nodes: nodes.collect(),
        totals: Totals {
            topics: image.topics.len() as u64,
            partitions: partitions.len() as u64,
            size_bytes: partitions.iter().map(|partition| partition.size_bytes()).sum(),
            records_in: api.metrics.total(&names::TOPIC_RECORDS_IN),
            bytes_in: api.metrics.total(&names::TOPIC_BYTES_IN),
            bytes_out: api.metrics.total(&names::TOPIC_BYTES_OUT),
            connections: api.metrics.total(&names::CONNECTIONS),
        },
        build: Build {
            wasm: cfg!(feature = "wasm"),
            ui: cfg!(feature = "ui"),
        },
    })
}

#[utoipa::path(
    get,
    path = "/api/v1/cluster/ca.pem",
    tag = "cluster",
    responses((status = 200, description = "The authority to trust for TLS and QUIC", body = String, content_type = "application/x-pem-file"))
)]
pub(super) async fn authority(State(api): State<Api>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/x-pem-file")],
        api.authority.certificate_pem().to_owned(),
    )
}
