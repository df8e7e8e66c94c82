//! Every failure as the API says it: a status, a code for programs, a sentence and a hint for people.

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::config::properties::PropertyError;
use crate::controller::ProposeError;

/// The body of every answer that is not a success.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorDetail {
    /// For programs; does not change.
    #[schema(example = "TOPIC_EXISTS")]
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do about it.
    #[schema(required)]
    pub hint: Option<String>,
}

/// A failure on its way out.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(super) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    pub(super) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: ErrorDetail {
                code: self.code.to_owned(),
                message: self.message,
                hint: self.hint,
            },
        };
        (self.status, Json(body)).into_response()
    }
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        let message = error.to_string();
        match error {
            ProposeError::TopicExists(_) => Self::conflict("TOPIC_EXISTS", message),
            ProposeError::InvalidTopicName { .. } => Self::bad_request("INVALID_TOPIC_NAME", message)
                .hint("Use letters, digits, dots, dashes and underscores, at most 249 of them."),
            ProposeError::InvalidPartitions(_) => Self::bad_request("INVALID_PARTITIONS", message),
            ProposeError::InvalidReplicationFactor { .. } => {
                Self::bad_request("INVALID_REPLICATION_FACTOR", message)
            }
            ProposeError::NoReassignment(_) => Self::conflict("NO_REASSIGNMENT", message),
            ProposeError::InvalidAssignment(_) => Self::bad_request("INVALID_ASSIGNMENT", message),
            ProposeError::UnknownTopic(_) | ProposeError::UnknownTopicId(_) => {
                Self::not_found("UNKNOWN_TOPIC", message)
            }
            ProposeError::InvalidConfig(PropertyError::Unknown { nearest, .. }) => {
                let refused = Self::bad_request("UNKNOWN_CONFIG", message);
                match nearest {
                    Some(nearest) => refused.hint(format!("Did you mean {nearest}?")),
                    None => refused,
                }
            }
            ProposeError::InvalidConfig(_) => Self::bad_request("INVALID_CONFIG", message),
            ProposeError::Unknown { .. } => Self::not_found("UNKNOWN", message),
            ProposeError::Exists { .. } => Self::conflict("EXISTS", message),
            ProposeError::InUse { .. } => Self::conflict("IN_USE", message),
            ProposeError::InvalidLevel { .. } => Self::conflict("INVALID_LEVEL", message),
            ProposeError::UnsupportedVersion(_) => Self::conflict("UNSUPPORTED_VERSION", message),
            ProposeError::Refused(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "REFUSED", message),
            ProposeError::NotController => Self::unavailable("NOT_CONTROLLER", message),
            ProposeError::Storage(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "STORAGE", message),
            ProposeError::Stopped => Self::unavailable("STOPPING", message),
            ProposeError::TimedOut(_) => Self::unavailable("NO_CONTROLLER", message),
            ProposeError::StaleNode { .. }
            | ProposeError::StaleLeader { .. }
            | ProposeError::StalePartition { .. }
            | ProposeError::IneligibleReplica(_) => Self::conflict("STALE", message),
        }
    }
}

/// A request that axum could not read.
macro_rules! from_rejection {
    ($($rejection:ty),*) => {
        $(impl From<$rejection> for ApiError {
            fn from(rejection: $rejection) -> Self {
                Self::new(rejection.status(), "INVALID_REQUEST", rejection.body_text())
            }
        })*
    };
}
from_rejection!(JsonRejection, PathRejection, QueryRejection, BytesRejection);

/// A JSON body, refused in the API's own words.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Json(value) = Json::<T>::from_request(request, state).await?;
        Ok(Self(value))
    }
}

/// Parts of the path, refused in the API's own words.
pub(super) struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let extract::Path(value) = extract::Path::<T>::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// The query, refused in the API's own words.
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let extract::Query(value) = extract::Query::<T>::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

pub(super) async fn no_such_route(uri: axum::http::Uri) -> ApiError {
    ApiError::not_found("NO_SUCH_ROUTE", format!("the API has no {}", uri.path()))
        .hint("See /api/v1/openapi.json for what there is.")
}

pub(super) async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "METHOD_NOT_ALLOWED",
        format!("{} does not take {method}", uri.path()),
    )
}
