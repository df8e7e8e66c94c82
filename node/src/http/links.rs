//! Links: what they carry and how they are doing.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, Body, ErrorBody, Path};
use crate::controller::Change;
use crate::link::{FlowState, LinkReport, LinkState, PartitionReport};
use crate::metadata::{Direction, Flow, FlowMode, GapPolicy, Link as Declared, LinkRole};

/// What a source holds back for a copy that is offline, unless the flow says otherwise.
const HOLD_BYTES_DEFAULT: u64 = 16 << 30;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/links", get(list).post(create))
        .route("/links/{link}", get(describe).delete(remove))
        .route("/links/{link}/pause", post(pause))
        .route("/links/{link}/resume", post(resume))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FlowDirection {
    /// Edge to core.
    Up,
    /// Core to edge.
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FlowModeName {
    /// Same offsets, same bytes.
    Mirror,
}

/// What happens to records that were never copied and that the source would delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OnGap {
    /// The source keeps them, up to `hold_bytes` per partition.
    Hold,
    /// They go; the copy goes on behind the gap.
    MarkGap,
}

fn mirror() -> FlowModeName {
    FlowModeName::Mirror
}

fn hold() -> OnGap {
    OnGap::Hold
}

/// One direction of copying.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowSpec {
    pub direction: FlowDirection,
    #[serde(default = "mirror")]
    pub mode: FlowModeName,
    /// Topic names; `*` stands for any characters.
    pub topics: Vec<String>,
    /// Put before a topic's name at the copy.
    #[serde(default)]
    pub prefix: String,
    #[serde(default = "hold")]
    pub on_gap: OnGap,
    pub hold_bytes: Option<u64>,
}

impl FlowSpec {
    /// What a link does when nobody says: every topic of the site, under the site's name.
    pub(super) fn everything_up(site: &str) -> Self {
        Self {
            direction: FlowDirection::Up,
            mode: FlowModeName::Mirror,
            topics: vec!["*".to_owned()],
            prefix: format!("{site}."),
            on_gap: OnGap::Hold,
            hold_bytes: None,
        }
    }

    pub(super) fn into_flow(self) -> Flow {
        Flow {
            direction: match self.direction {
                FlowDirection::Up => Direction::Up,
                FlowDirection::Down => Direction::Down,
            },
            mode: match self.mode {
                FlowModeName::Mirror => FlowMode::Mirror,
            },
            topics: self.topics,
            prefix: self.prefix,
            on_gap: match self.on_gap {
                OnGap::Hold => GapPolicy::Hold {
                    bytes: self.hold_bytes.unwrap_or(HOLD_BYTES_DEFAULT),
                },
                OnGap::MarkGap => GapPolicy::MarkGap,
            },
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateLink {
    /// The site's name if absent.
    pub name: Option<String>,
    /// An invited or enrolled site.
    pub site: String,
    pub flows: Vec<FlowSpec>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Link {
    pub name: String,
    pub site: String,
    pub role: LinkRoleName,
    pub state: LinkStateName,
    pub since_ms: i64,
    #[schema(required)]
    pub last_seen_ms: Option<i64>,
    #[schema(required)]
    pub rtt_ms: Option<f64>,
    /// UDP payload since the node was started.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Bytes of record batches copied to this end since the node was started.
    pub payload_bytes: u64,
    pub reconnects: u64,
    #[schema(required)]
    pub error: Option<String>,
    pub flows: Vec<LinkFlow>,
}

/// Which end of a link this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LinkRoleName {
    Core,
    Edge,
}

/// How a link is doing as a whole.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LinkStateName {
    Connected,
    Disconnected,
    Paused,
    /// Connected or not: some partition cannot go on without a person.
    Stuck,
}

/// How the copy of one partition is doing.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FlowStateName {
    Waiting,
    CatchingUp,
    CaughtUp,
    Gap,
    Diverged,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LinkFlow {
    pub direction: FlowDirection,
    pub mode: FlowModeName,
    pub topics: Vec<String>,
    pub prefix: String,
    pub on_gap: OnGap,
    #[schema(required)]
    pub hold_bytes: Option<u64>,
    pub partitions: Vec<FlowPartition>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FlowPartition {
    pub topic: String,
    pub copy: String,
    pub partition: i32,
    pub source_end: i64,
    /// Everything below is safe at the copy.
    pub copied: i64,
    pub backlog_records: i64,
    /// Bytes of the batches from the one that holds `copied` to the end of the log; known at the source only.
    #[schema(required)]
    pub backlog_bytes: Option<u64>,
    pub state: FlowStateName,
    #[schema(required)]
    pub detail: Option<String>,
    #[schema(required)]
    pub last_progress_ms: Option<i64>,
}

#[utoipa::path(get, path = "/api/v1/links", tag = "links", responses((status = 200, body = [Link])))]
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<Link>> {
    Json(api.links.links().await.into_iter().map(shape).collect())
}

#[utoipa::path(
    get, path = "/api/v1/links/{link}", tag = "links", params(("link" = String, Path)),
    responses((status = 200, body = Link), (status = 404, body = ErrorBody))
)]
pub(super) async fn describe(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Link>, ApiError> {
    find(&api, &name).await.map(Json)
}

#[utoipa::path(
    post, path = "/api/v1/links", tag = "links", request_body = CreateLink,
    responses((status = 201, body = Link), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn create(
    State(api): State<Api>,
    Body(body): Body<CreateLink>,
) -> Result<(StatusCode, Json<Link>), ApiError> {
    if !api.view.image().sites.contains_key(&body.site) {
        return Err(
            ApiError::not_found("UNKNOWN_SITE", format!("no site {:?} is known here", body.site))
                .hint("Invite the site first; links are declared on the core."),
        );
    }
    let name = body.name.unwrap_or_else(|| body.site.clone());
    let link = Declared {
        name: name.clone(),
        site: body.site,
        role: LinkRole::Core,
        flows: body.flows.into_iter().map(FlowSpec::into_flow).collect(),
        paused: false,
        revision: 0,
        created_ms: api.sys.clock.unix_ms(),
    };
    api.controller.propose(Change::PutLink(link)).await?;
    Ok((StatusCode::CREATED, Json(find(&api, &name).await?)))
}

#[utoipa::path(
    delete, path = "/api/v1/links/{link}", tag = "links", params(("link" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody))
)]
pub(super) async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    let image = api.view.image();
    // An edge that has not met its core yet knows the way there and not the link.
    let change = if image.links.contains_key(&name) || !image.upstreams.contains_key(&name) {
        Change::RemoveLink { name }
    } else {
        Change::RemoveUpstream { link: name }
    };
    api.controller.propose(change).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    post, path = "/api/v1/links/{link}/pause", tag = "links", params(("link" = String, Path)),
    responses((status = 200, body = Link), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn pause(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<Link>, ApiError> {
    set_paused(&api, name, true).await
}

#[utoipa::path(
    post, path = "/api/v1/links/{link}/resume", tag = "links", params(("link" = String, Path)),
    responses((status = 200, body = Link), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn resume(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<Link>, ApiError> {
    set_paused(&api, name, false).await
}

async fn set_paused(api: &Api, name: String, paused: bool) -> Result<Json<Link>, ApiError> {
    let link = find(api, &name).await?;
    if link.role == LinkRoleName::Edge {
        return Err(
            ApiError::conflict("DECLARED_ON_CORE", "the link is declared on its core")
                .hint("Pause and resume it there."),
        );
    }
    api.controller
        .propose(Change::SetLinkPaused {
            name: name.clone(),
            paused,
        })
        .await?;
    find(api, &name).await.map(Json)
}

async fn find(api: &Api, name: &str) -> Result<Link, ApiError> {
    let found = api
        .links
        .links()
        .await
        .into_iter()
        .find(|report| report.link.name == name);
    found
        .map(shape)
        .ok_or_else(|| ApiError::not_found("UNKNOWN_LINK", format!("link {name:?} is not known")))
}

fn shape(report: LinkReport) -> Link {
    Link {
        name: report.link.name,
        site: report.link.site,
        role: match report.link.role {
            LinkRole::Core => LinkRoleName::Core,
            LinkRole::Edge => LinkRoleName::Edge,
        },
        state: match report.state {
            LinkState::Connected => LinkStateName::Connected,
            LinkState::Disconnected => LinkStateName::Disconnected,
            LinkState::Paused => LinkStateName::Paused,
            LinkState::Stuck => LinkStateName::Stuck,
        },
        since_ms: report.since_ms,
        last_seen_ms: report.last_seen_ms,
        rtt_ms: report.rtt_ms,
        bytes_sent: report.bytes_sent,
        bytes_received: report.bytes_received,
        payload_bytes: report.payload_bytes,
        reconnects: report.reconnects,
        error: report.error,
        flows: report
            .flows
            .into_iter()
            .map(|flow| flow_shape(flow.flow, flow.partitions))
            .collect(),
    }
}

fn flow_shape(flow: Flow, partitions: Vec<PartitionReport>) -> LinkFlow {
    let (on_gap, hold_bytes) = match flow.on_gap {
        GapPolicy::Hold { bytes } => (OnGap::Hold, Some(bytes)),
        GapPolicy::MarkGap => (OnGap::MarkGap, None),
    };
    LinkFlow {
        direction: match flow.direction {
            Direction::Up => FlowDirection::Up,
            Direction::Down => FlowDirection::Down,
        },
        mode: match flow.mode {
            FlowMode::Mirror => FlowModeName::Mirror,
        },
        topics: flow.topics,
        prefix: flow.prefix,
        on_gap,
        hold_bytes,
        partitions: partitions.into_iter().map(partition_shape).collect(),
    }
}

fn partition_shape(partition: PartitionReport) -> FlowPartition {
    FlowPartition {
        topic: partition.topic,
        copy: partition.copy,
        partition: partition.partition,
        source_end: partition.source_end.0,
        copied: partition.copied.0,
        backlog_records: partition.backlog_records,
        backlog_bytes: partition.backlog_bytes,
        state: match partition.state {
            FlowState::Waiting => FlowStateName::Waiting,
            FlowState::CatchingUp => FlowStateName::CatchingUp,
            FlowState::CaughtUp => FlowStateName::CaughtUp,
            FlowState::Gap => FlowStateName::Gap,
            FlowState::Diverged => FlowStateName::Diverged,
        },
        detail: partition.detail,
        last_progress_ms: partition.last_progress_ms,
    }
}
