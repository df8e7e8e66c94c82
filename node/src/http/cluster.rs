//! The cluster as a whole: who is in it, and what it has done.

pub(super) mod health;
pub(super) mod partitions;
pub(super) mod quorum;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use headwater_protocol::ids::NodeId;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, ErrorBody};
use crate::config::BrokerConfig;
use crate::controller::health::{Load, loads};
use crate::metadata::features::{self, Supported};
use crate::metadata::{Image, LinkRole, Node, NodeState};
use crate::telemetry::names;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/cluster", get(describe))
        .route("/cluster/health", get(health::health))
        .route("/cluster/quorum", get(quorum::quorum))
        .route("/cluster/partitions", get(partitions::partitions))
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
    /// The node that leads the quorum; null: nobody does, or this node does not know.
    #[schema(required)]
    pub controller_id: Option<i32>,
    pub nodes: Vec<ClusterNode>,
    pub features: Vec<ClusterFeature>,
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
    pub tls: String,
    pub quic: String,
    pub http: String,
    #[schema(required)]
    pub rack: Option<String>,
    pub state: ClusterNodeState,
    /// Rises with each start.
    pub epoch: i64,
    /// Of the binary that it runs; null: it did not say.
    #[schema(required)]
    pub version: Option<String>,
    /// Partitions that it leads, and those it has a copy of.
    pub leads: u64,
    pub follows: u64,
    /// Bytes of its logs; null: only the node itself knows, and this is another one.
    #[schema(required)]
    pub size_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ClusterNodeState {
    Active,
    /// It is silent or has not caught up: it leads nothing and is in no in-sync set.
    Fenced,
    /// It asked to stop, and hands over what it leads.
    ShuttingDown,
}

impl From<NodeState> for ClusterNodeState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::Active => Self::Active,
            NodeState::Fenced => Self::Fenced,
            NodeState::ShuttingDown => Self::ShuttingDown,
        }
    }
}

/// A feature and its levels (KIP-584).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClusterFeature {
    pub name: String,
    /// The level in force; null: none was ever set.
    #[schema(required)]
    pub finalized: Option<i16>,
    /// The highest level that every node supports; null: some node does not know the feature.
    #[schema(required)]
    pub possible: Option<i16>,
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

/// Nodes as the API names them.
pub(super) fn ids(nodes: &[NodeId]) -> Vec<i32> {
    nodes.iter().map(|node| node.0).collect()
}

/// Looks at all partitions of the cluster where nobody waits for this thread.
async fn look<T: Send + 'static>(
    api: &Api,
    work: impl FnOnce(&Image, &BrokerConfig) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let (image, broker) = (api.view.image(), api.broker());
    let looking = api
        .sys
        .tasks
        .blocking("look at the cluster", move || work(&image, &broker));
    looking
        .await
        .map_err(|_| ApiError::unavailable("STOPPING", "the node is stopping"))
}

#[utoipa::path(
    get, path = "/api/v1/cluster", tag = "cluster",
    responses((status = 200, body = Cluster), (status = 503, body = ErrorBody))
)]
pub(super) async fn describe(State(api): State<Api>) -> Result<Json<Cluster>, ApiError> {
    let loads = look(&api, |image, _| loads(image)).await?;
    let image = api.view.image();
    let role = if !image.upstreams.is_empty() {
        Role::Edge
    } else if image.links.values().any(|link| link.role == LinkRole::Core) {
        Role::Core
    } else {
        Role::Standalone
    };
    let partitions = api.registry.list();
    let size_bytes = partitions.iter().map(|partition| partition.size_bytes()).sum();
    let me = api.config.node_id;
    let nodes = image.nodes.values().map(|node| {
        let load = loads.get(&node.id).copied().unwrap_or_default();
        described(node, load, (node.id == me).then_some(size_bytes))
    });
    Ok(Json(Cluster {
        cluster_id: image.cluster_id.clone(),
        node_id: me.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role,
        started_ms: api.started_ms,
        uptime_ms: api.sys.clock.unix_ms() - api.started_ms,
        controller_id: api.controller.quorum().leader.map(|leader| leader.0),
        nodes: nodes.collect(),
        features: levels(&image),
        totals: Totals {
            topics: image.topics.len() as u64,
            partitions: partitions.len() as u64,
            size_bytes,
            records_in: api.metrics.total(&names::TOPIC_RECORDS_IN),
            bytes_in: api.metrics.total(&names::TOPIC_BYTES_IN),
            bytes_out: api.metrics.total(&names::TOPIC_BYTES_OUT),
            connections: api.metrics.total(&names::CONNECTIONS),
        },
        build: Build {
            wasm: cfg!(feature = "wasm"),
            ui: cfg!(feature = "ui"),
        },
    }))
}

/// Every feature that this binary or the cluster knows.
fn levels(image: &Image) -> Vec<ClusterFeature> {
    let this = Supported::default();
    let mut names: Vec<&str> = this.iter().map(|(name, _)| name).collect();
    names.extend(image.features.keys().map(String::as_str));
    names.sort_unstable();
    names.dedup();
    let feature = |name: &str| ClusterFeature {
        name: name.to_owned(),
        finalized: image.finalized(name).map(|level| level.0),
        possible: features::possible(image, name).map(|level| level.0),
    };
    names.into_iter().map(feature).collect()
}

fn described(node: &Node, load: Load, size_bytes: Option<u64>) -> ClusterNode {
    ClusterNode {
        id: node.id.0,
        tcp: node.addresses.tcp.clone(),
        tls: node.addresses.tls.clone(),
        quic: node.addresses.quic.clone(),
        http: node.addresses.http.clone(),
        rack: node.rack.clone(),
        state: node.state.into(),
        epoch: node.epoch.0,
        version: Some(node.version.clone()).filter(|version| !version.is_empty()),
        leads: load.leads as u64,
        follows: load.follows as u64,
        size_bytes,
    }
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
