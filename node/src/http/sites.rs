//! Sites: invite and revoke them on the core, enrol on the edge.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, Body, ErrorBody, Path};
use super::links::FlowSpec;
use crate::link::{EnrolError, Invitation, InviteError, RevokeError, SiteReport};
use crate::metadata::SiteState;

const TTL_DEFAULT_MS: u64 = 24 * 3600 * 1000;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/sites", get(list))
        .route("/sites/invitations", post(invite))
        .route("/sites/enrol", post(enrol))
        .route("/sites/{site}/revoke", post(revoke))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Site {
    pub name: String,
    pub state: SiteStateName,
    pub invited_ms: i64,
    pub expires_ms: i64,
    #[schema(required)]
    pub enrolled_ms: Option<i64>,
    /// SHA-256 of its certificate, in hex.
    #[schema(required)]
    pub fingerprint: Option<String>,
    pub connected: bool,
    #[schema(required)]
    pub last_seen_ms: Option<i64>,
    #[schema(required)]
    pub address: Option<String>,
    #[schema(required)]
    pub rtt_ms: Option<f64>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SiteStateName {
    Invited,
    Enrolled,
    Revoked,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Invite {
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub name: String,
    /// How long the token can be used; a day if absent.
    pub ttl_ms: Option<u64>,
    /// Where the site is to dial, `host:port`; this node's advertised QUIC address if absent.
    pub core: Option<String>,
    /// What the link is to carry; everything up, under the site's name and a dot, if absent.
    pub flows: Option<Vec<FlowSpec>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InvitationMade {
    /// Shown once; it is nowhere stored.
    pub token: String,
    pub expires_ms: i64,
    pub site: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Enrol {
    #[schema(pattern = "^hwt_")]
    pub token: String,
    pub link: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EnrolledSite {
    pub site: String,
    /// The address of the core that answered.
    pub core: String,
    pub link: String,
}

#[utoipa::path(get, path = "/api/v1/sites", tag = "links", responses((status = 200, body = [Site])))]
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<Site>> {
    Json(api.links.sites().into_iter().map(shape).collect())
}

fn shape(report: SiteReport) -> Site {
    Site {
        name: report.site.name,
        state: match report.site.state {
            SiteState::Invited => SiteStateName::Invited,
            SiteState::Enrolled => SiteStateName::Enrolled,
            SiteState::Revoked => SiteStateName::Revoked,
        },
        invited_ms: report.site.invited_ms,
        expires_ms: report.site.expires_ms,
        enrolled_ms: report.site.enrolled_ms,
        fingerprint: report.site.cert_fingerprint,
        connected: report.connected,
        last_seen_ms: report.last_seen_ms,
        address: report.address,
        rtt_ms: report.rtt_ms,
    }
}

#[utoipa::path(
    post, path = "/api/v1/sites/invitations", tag = "links", request_body = Invite,
    responses((status = 201, body = InvitationMade), (status = 409, body = ErrorBody))
)]
pub(super) async fn invite(
    State(api): State<Api>,
    Body(body): Body<Invite>,
) -> Result<(StatusCode, Json<InvitationMade>), ApiError> {
    let flows = body
        .flows
        .unwrap_or_else(|| vec![FlowSpec::everything_up(&body.name)]);
    let invitation = Invitation {
        site: body.name,
        ttl: Duration::from_millis(body.ttl_ms.unwrap_or(TTL_DEFAULT_MS)),
        core: body.core.into_iter().collect(),
        link: None,
        flows: flows.into_iter().map(FlowSpec::into_flow).collect(),
    };
    let made = api.links.invite(invitation).await.map_err(|error| {
        let message = error.to_string();
        match error {
            InviteError::Propose(error) => error.into(),
            InviteError::Enrolled { .. } => ApiError::conflict("SITE_ENROLLED", message),
            InviteError::NoAddress => ApiError::conflict("NO_ADDRESS", message),
            InviteError::Name { .. } | InviteError::Ttl { .. } | InviteError::Pattern { .. } => {
                ApiError::bad_request("INVALID_INVITATION", message)
            }
        }
    })?;
    let made = InvitationMade {
        token: made.token,
        expires_ms: made.expires_ms,
        site: made.site,
    };
    Ok((StatusCode::CREATED, Json(made)))
}

#[utoipa::path(
    post, path = "/api/v1/sites/enrol", tag = "links", request_body = Enrol,
    responses((status = 200, body = EnrolledSite), (status = 409, body = ErrorBody), (status = 502, body = ErrorBody))
)]
pub(super) async fn enrol(
    State(api): State<Api>,
    Body(body): Body<Enrol>,
) -> Result<Json<EnrolledSite>, ApiError> {
    let enrolled = api
        .links
        .enrol(&body.token, body.link.as_deref())
        .await
        .map_err(|error| {
            let message = error.to_string();
            match error {
                EnrolError::Token(_) | EnrolError::Expired | EnrolError::NoAddress => {
                    ApiError::bad_request("INVALID_TOKEN", message)
                }
                EnrolError::LinkExists { .. } => ApiError::conflict("LINK_EXISTS", message),
                EnrolError::Dial(_) | EnrolError::Timeout { .. } | EnrolError::Broken(_) => {
                    ApiError::new(StatusCode::BAD_GATEWAY, "CORE_UNREACHABLE", message)
                        .hint("Check that the core's UDP port can be reached from here.")
                }
                EnrolError::Refused { .. } | EnrolError::Granted(_) => {
                    ApiError::new(StatusCode::FORBIDDEN, "CORE_REFUSED", message)
                }
                EnrolError::Key(_) | EnrolError::Store(_) => {
                    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "KEY_STORE", message)
                }
                EnrolError::Propose(error) => error.into(),
            }
        })?;
    Ok(Json(EnrolledSite {
        site: enrolled.site,
        core: enrolled.core,
        link: enrolled.link,
    }))
}

#[utoipa::path(
    post, path = "/api/v1/sites/{site}/revoke", tag = "links", params(("site" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody))
)]
pub(super) async fn revoke(State(api): State<Api>, Path(site): Path<String>) -> Result<StatusCode, ApiError> {
    api.links.revoke(&site).await.map_err(|error| match error {
        RevokeError::Unknown { .. } => ApiError::not_found("UNKNOWN_SITE", error.to_string()),
        RevokeError::Propose(error) => error.into(),
    })?;
    Ok(StatusCode::NO_CONTENT)
}
