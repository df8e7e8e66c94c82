//! Dead letters of a transform: shown, counted, written back to the source.

mod model;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use headwater_protocol::ids::{Offset, PartitionIndex};

use self::model::{
    DeadLetterPage, DeadLetterQuery, DeadLetterSummary, Redrive, RedriveRequest, SummaryQuery,
};
use crate::http::Api;
use crate::http::error::{ApiError, Body, ErrorBody, Path, Query};
use crate::transform::{Cursor, Filter, LetterError, Order, PageQuery, RedriveState, Refusal};

const LIMIT_DEFAULT: usize = 50;
const SUMMARY_OFFSETS_DEFAULT: i64 = 20_000;

/// The letters of a transform, the newest first; or from an offset on, the oldest first.
#[utoipa::path(
    get, path = "/api/v1/transforms/{name}/dead-letters", tag = "transforms",
    params(("name" = String, Path), DeadLetterQuery),
    responses((status = 200, body = DeadLetterPage), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(in crate::http) async fn dead_letters(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<DeadLetterQuery>,
) -> Result<Json<DeadLetterPage>, ApiError> {
    let cursor = query.cursor.as_deref().map(str::parse::<Cursor>).transpose();
    let cursor = cursor.map_err(|error| ApiError::bad_request("INVALID_CURSOR", error.to_string()))?;
    let asked = PageQuery {
        filter: Filter {
            reason: query.reason,
            version: query.version,
            source_partition: query.source_partition.map(PartitionIndex),
            since_ms: query.since_ms,
            until_ms: query.until_ms,
        },
        partition: query.partition.map(PartitionIndex),
        order: query
            .offset
            .map_or(Order::Newest, |offset| Order::From(Offset(offset.max(0)))),
        cursor: cursor.unwrap_or_default(),
        limit: query.limit.unwrap_or(LIMIT_DEFAULT),
    };
    let page = api.dead_letters.page(&name, asked).await.map_err(refused)?;
    Ok(Json(DeadLetterPage::of(page)))
}

/// How many letters there are of each reason, module and version, among the newest records of the dead-letter topic.
#[utoipa::path(
    get, path = "/api/v1/transforms/{name}/dead-letters/summary", tag = "transforms",
    params(("name" = String, Path), SummaryQuery),
    responses((status = 200, body = DeadLetterSummary), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(in crate::http) async fn summary(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<SummaryQuery>,
) -> Result<Json<DeadLetterSummary>, ApiError> {
    let offsets = query.scan.unwrap_or(SUMMARY_OFFSETS_DEFAULT);
    let summary = api.dead_letters.summary(&name, offsets).await.map_err(refused)?;
    Ok(Json(DeadLetterSummary::of(summary)))
}

/// Writes one letter back to the transform's source, edited or not; or begins to write many.
#[utoipa::path(
    post, path = "/api/v1/transforms/{name}/dead-letters/redrive", tag = "transforms",
    params(("name" = String, Path)), request_body = RedriveRequest,
    responses(
        (status = 200, body = Redrive, description = "The one letter is written"),
        (status = 202, body = Redrive, description = "The redrive has begun"),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)
    )
)]
pub(in crate::http) async fn redrive(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(body): Body<RedriveRequest>,
) -> Result<(StatusCode, Json<Redrive>), ApiError> {
    let (again, mode) = (body.again(), body.mode());
    let done = match body.one()? {
        Some((letter, edit)) => {
            api.dead_letters
                .redrive_one(&name, letter, edit, again, mode)
                .await
        }
        None => api.dead_letters.redrive(&name, &body.many()?),
    };
    let redrive = done.map_err(refused)?;
    let status = match redrive.state {
        RedriveState::Running => StatusCode::ACCEPTED,
        RedriveState::Done | RedriveState::Cancelled | RedriveState::Failed => StatusCode::OK,
    };
    Ok((status, Json(Redrive::of(redrive))))
}

/// The redrives of a transform that this node remembers since it was started, the newest first.
#[utoipa::path(
    get, path = "/api/v1/transforms/{name}/redrives", tag = "transforms", params(("name" = String, Path)),
    responses((status = 200, body = [Redrive]), (status = 404, body = ErrorBody))
)]
pub(in crate::http) async fn redrives(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Vec<Redrive>>, ApiError> {
    let redrives = api.dead_letters.redrives(&name).map_err(refused)?;
    Ok(Json(redrives.into_iter().map(Redrive::of).collect()))
}

#[utoipa::path(
    get, path = "/api/v1/transforms/{name}/redrives/{id}", tag = "transforms",
    params(("name" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = Redrive), (status = 404, body = ErrorBody))
)]
pub(in crate::http) async fn redrive_of(
    State(api): State<Api>,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<Redrive>, ApiError> {
    let redrive = api.dead_letters.redrive_of(&name, &id).map_err(refused)?;
    Ok(Json(Redrive::of(redrive)))
}

/// Cancels a redrive; what it wrote stays written. One that has ended stays as it is.
#[utoipa::path(
    delete, path = "/api/v1/transforms/{name}/redrives/{id}", tag = "transforms",
    params(("name" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = Redrive), (status = 404, body = ErrorBody))
)]
pub(in crate::http) async fn cancel_redrive(
    State(api): State<Api>,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<Redrive>, ApiError> {
    let redrive = api.dead_letters.cancel(&name, &id).await.map_err(refused)?;
    Ok(Json(Redrive::of(redrive)))
}

fn refused(error: LetterError) -> ApiError {
    let message = error.to_string();
    match error {
        LetterError::UnknownTransform(_) => ApiError::not_found("UNKNOWN_TRANSFORM", message),
        LetterError::UnknownPartition { .. } => ApiError::not_found("UNKNOWN_PARTITION", message),
        LetterError::UnknownTopic(_) => ApiError::not_found("UNKNOWN_TOPIC", message),
        LetterError::NoLetter(_) => ApiError::not_found("UNKNOWN_DEAD_LETTER", message),
        LetterError::UnknownRedrive(_) => ApiError::not_found("UNKNOWN_REDRIVE", message),
        LetterError::NotHere { .. } => {
            ApiError::unavailable("NOT_HERE", message).hint("Ask that node's HTTP.")
        }
        LetterError::NotLed { .. } => {
            ApiError::unavailable("NOT_LEADER", message).hint("Ask that node's HTTP.")
        }
        LetterError::Mirror { .. } => {
            ApiError::conflict("READ_ONLY", message).hint("Redrive where the source is written.")
        }
        LetterError::Refused(why) => refused_letter(&why, message),
        LetterError::Running(_) => ApiError::conflict("REDRIVE_RUNNING", message)
            .hint("Wait for its end, or cancel it (DELETE .../redrives/ID)."),
        LetterError::TooMany(_) => ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REDRIVES", message)
            .hint("Wait for one of them to end."),
        LetterError::Changed => ApiError::conflict("TRANSFORM_CHANGED", message),
        LetterError::Read(_) => ApiError::unavailable("UNREADABLE", message),
        LetterError::NotWritten { .. } | LetterError::Unknown { .. } => {
            ApiError::unavailable("NOT_ACKNOWLEDGED", message)
        }
        LetterError::Stopping => ApiError::unavailable("STOPPING", message),
    }
}

fn refused_letter(why: &Refusal, message: String) -> ApiError {
    let unprocessable = |code| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message.clone());
    match why {
        Refusal::Window => unprocessable("WINDOW_LETTER")
            .hint("The letter holds the window's key and state. Its records were counted; they are in the source still."),
        Refusal::Joined => unprocessable("JOINED_LETTER")
            .hint("The letter holds both sides. Its records are in their topics still: the letter says where the later one is."),
        Refusal::Omitted { .. } => unprocessable("INCOMPLETE_LETTER")
            .hint("Give what is missing: the letter says where in the source the record was."),
        Refusal::OtherSource { .. } => unprocessable("OTHER_SOURCE"),
        Refusal::Already { .. } => {
            ApiError::conflict("ALREADY_REDRIVEN", message).hint("To write it once more, say `again`.")
        }
        Refusal::TooLarge { .. } => {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "MESSAGE_TOO_LARGE", message)
        }
        Refusal::BySource(_) => unprocessable("REFUSED_BY_SOURCE"),
    }
}
