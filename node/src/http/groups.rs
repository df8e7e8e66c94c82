//! Consumer groups and share groups: who is in them, how far they are, and setting that anew.
//!
//! A group is known to its coordinator alone: whichever node is asked here asks that one.

mod ask;
mod reset;
mod seen;
mod share;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use headwater_protocol::kafka::delete_groups::DeleteGroupsRequest;
use headwater_protocol::primitives::Str;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, Body, ErrorBody, Path};
use super::{Api, nodes};

const DELETE_VERSION: i16 = 2;

/// A partition: its topic and its index.
type Place = (String, i32);

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/groups", get(list))
        .route("/groups/{group}", get(describe).delete(remove))
        .route("/groups/{group}/offsets", post(set_offsets))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupList {
    pub groups: Vec<GroupSummary>,
    /// Nodes that did not answer: groups that they coordinate are missing.
    pub unanswered: Vec<i32>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupSummary {
    pub group: String,
    pub kind: GroupKind,
    pub state: GroupState,
    /// `consumer` for groups of consumers, `share` for share groups; empty where only offsets were ever committed.
    pub protocol_type: String,
    /// The node that coordinates it.
    pub coordinator: i32,
    pub members: u64,
    /// The topics that its members read, or that it has committed offsets of.
    pub topics: Vec<String>,
    /// Records behind what was committed, over all partitions; in a share group those of them that are not done with.
    /// Null: that of some partition is not known.
    #[schema(required)]
    pub lag: Option<i64>,
}

/// How its members read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum GroupKind {
    /// Each partition by one of them, as one of them divides them.
    Classic,
    /// Each partition by one of them, as the coordinator deals them out (KIP-848).
    Consumer,
    /// Several of them from one partition, record by record (KIP-932).
    Share,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum GroupState {
    /// Without members.
    Empty,
    /// It waits for its members to join.
    PreparingRebalance,
    /// Its leader divides the partitions.
    CompletingRebalance,
    /// The consumer protocol: there is something new to be dealt out.
    Assigning,
    /// The consumer protocol: some members have not come to what was dealt out.
    Reconciling,
    Stable,
    /// It is being deleted.
    Dead,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupDetail {
    pub group: String,
    pub kind: GroupKind,
    pub state: GroupState,
    pub protocol_type: String,
    pub coordinator: i32,
    /// How partitions are assigned; empty unless the group is stable.
    pub assignor: String,
    pub members: Vec<GroupMember>,
    /// What is assigned, and what was committed.
    pub partitions: Vec<GroupPartition>,
    #[schema(required)]
    pub lag: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupMember {
    pub member_id: String,
    /// Set for static members.
    #[schema(required)]
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    /// The member's epoch; null in the classic protocol.
    #[schema(required)]
    pub epoch: Option<i32>,
    /// How many partitions it has. Members of a share group may have the same.
    pub partitions: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupPartition {
    pub topic: String,
    pub partition: i32,
    /// Where its reader goes on, or where a share group starts: all before is done with. Null: nothing was committed, or
    /// nothing delivered to the share group.
    #[schema(required)]
    pub committed_offset: Option<i64>,
    /// Null: the partition is gone, or its leader does not answer.
    #[schema(required)]
    pub high_watermark: Option<i64>,
    /// Records behind what was committed; in a share group those of them that are not done with. Null: it is not known.
    #[schema(required)]
    pub lag: Option<i64>,
    /// Who alone reads it; null: nobody, or it is a share group's.
    #[schema(required)]
    pub member_id: Option<String>,
    /// Who reads it: nobody, one, or any number in a share group.
    pub member_ids: Vec<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetOffsets {
    /// Which partitions; empty: all that the group has committed, or a share group was delivered from.
    #[serde(default)]
    pub topics: Vec<SetOffsetsTopic>,
    pub to: SetOffsetsTo,
    /// The offset, the time in milliseconds since 1970, or by how many records; for these ways alone.
    pub value: Option<i64>,
    /// Only say what would be set.
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetOffsetsTopic {
    pub topic: String,
    /// All of them if absent.
    pub partitions: Option<Vec<i32>>,
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SetOffsetsTo {
    /// The first record that is there.
    Earliest,
    /// Behind the last record.
    Latest,
    Offset,
    /// The first record of this time or later; behind the last one, if there is none.
    Time,
    /// So many records forth, or back if negative.
    By,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OffsetsSet {
    pub dry_run: bool,
    pub partitions: Vec<OffsetSet>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OffsetSet {
    pub topic: String,
    pub partition: i32,
    /// Null: nothing was committed, or delivered to the share group.
    #[schema(required)]
    pub before: Option<i64>,
    pub after: i64,
}

#[utoipa::path(get, path = "/api/v1/groups", tag = "groups", responses((status = 200, body = GroupList)))]
pub(super) async fn list(State(api): State<Api>) -> Json<GroupList> {
    Json(seen::all(&api).await)
}

#[utoipa::path(
    get, path = "/api/v1/groups/{group}", tag = "groups", params(("group" = String, Path)),
    responses(
        (status = 200, body = GroupDetail), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)
    )
)]
pub(super) async fn describe(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<GroupDetail>, ApiError> {
    seen::one(&api, &name).await.map(Json)
}

/// Deletes a group without members, and all it has committed or was delivered.
#[utoipa::path(
    delete, path = "/api/v1/groups/{group}", tag = "groups", params(("group" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    let node = ask::coordinator(&api, &name).await?;
    let request = DeleteGroupsRequest {
        groups_names: vec![Str::from(&*name)],
        ..DeleteGroupsRequest::default()
    };
    let answer = nodes::ask(&api, node, DELETE_VERSION, &request).await?;
    let result = answer.results.first().ok_or_else(|| ask::unknown(&name))?;
    ask::check(&name, result.error_code)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets where a group without members goes on.
#[utoipa::path(
    post, path = "/api/v1/groups/{group}/offsets", tag = "groups", params(("group" = String, Path)),
    request_body = SetOffsets,
    responses(
        (status = 200, body = OffsetsSet), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)
    )
)]
pub(super) async fn set_offsets(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(body): Body<SetOffsets>,
) -> Result<Json<OffsetsSet>, ApiError> {
    reset::run(&api, &name, body).await.map(Json)
}
