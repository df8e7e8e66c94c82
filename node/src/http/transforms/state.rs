//! The keyed state of a transform, shown as it is committed.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use headwater_protocol::ids::PartitionIndex;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::Api;
use crate::http::data::Data;
use crate::http::error::{ApiError, ErrorBody, Path, Query};
use crate::transform::{Keys, QueryError, StateQuery, StateView};

const LIMIT_DEFAULT: usize = 50;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct StateParameters {
    /// Of the source; 0 if absent.
    #[param(nullable = false, minimum = 0)]
    partition: Option<i32>,
    /// This key alone.
    #[param(nullable = false)]
    key: Option<String>,
    /// Keys that begin so; all if absent.
    #[param(nullable = false)]
    prefix: Option<String>,
    /// How `key` and `prefix` are written: `utf8`, or `base64`.
    #[param(nullable = false, inline)]
    encoding: Option<Encoding>,
    /// `next` of the page before; everything else as it was.
    #[param(nullable = false)]
    after: Option<String>,
    /// How many at most; 50 if absent, never more than 500.
    #[param(nullable = false)]
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Utf8,
    Base64,
}

impl Encoding {
    fn read(self, name: &str, text: &str) -> Result<Bytes, ApiError> {
        match self {
            Self::Utf8 => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Self::Base64 => STANDARD.decode(text).map(Bytes::from).map_err(|error| {
                ApiError::bad_request("INVALID_BASE64", format!("{name} is no base64: {error}"))
            }),
        }
    }
}

impl StateParameters {
    fn query(self) -> Result<StateQuery, ApiError> {
        let encoding = self.encoding.unwrap_or_default();
        let keys = match (self.key, self.prefix) {
            (Some(_), Some(_)) => {
                let message = "give a key or a prefix, not both";
                return Err(ApiError::bad_request("KEY_AND_PREFIX", message));
            }
            (Some(key), None) => Keys::One(encoding.read("key", &key)?),
            (None, prefix) => Keys::Prefix(encoding.read("prefix", &prefix.unwrap_or_default())?),
        };
        let after = self.after.map(|after| Encoding::Base64.read("after", &after));
        Ok(StateQuery {
            partition: PartitionIndex(self.partition.unwrap_or(0)),
            keys,
            after: after.transpose()?,
            limit: self.limit.unwrap_or(LIMIT_DEFAULT),
        })
    }
}

/// Entries of the keyed state of a transform on one partition.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct StatePage {
    partition: i32,
    /// The state is the one in which everything of the source before it was dealt with.
    position: i64,
    /// The same in the second topic of a join.
    #[schema(required)]
    right_position: Option<i64>,
    /// In the order of their keys' bytes.
    entries: Vec<StateEntry>,
    /// Asks for the next page as `after`; null: there is none.
    #[schema(required)]
    next: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct StateEntry {
    key: Data,
    value: Data,
}

impl StatePage {
    fn of(partition: PartitionIndex, view: &StateView) -> Self {
        let last = view.entries.last().filter(|_| view.has_more);
        let entry = |(key, value): &(Bytes, Bytes)| StateEntry {
            key: Data::of(key),
            value: Data::of(value),
        };
        Self {
            partition: partition.value(),
            position: view.position.value(),
            right_position: view.right.map(|right| right.value()),
            entries: view.entries.iter().map(entry).collect(),
            next: last.map(|(key, _)| STANDARD.encode(key)),
        }
    }
}

/// The keyed state of a transform on one partition, as it is committed, page by page in the order of keys. The pages of a state
/// that changes meanwhile are of different moments: each says of which.
#[utoipa::path(
    get, path = "/api/v1/transforms/{name}/state", tag = "transforms",
    params(("name" = String, Path), StateParameters),
    responses((status = 200, body = StatePage), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(in crate::http) async fn state(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(parameters): Query<StateParameters>,
) -> Result<Json<StatePage>, ApiError> {
    let query = parameters.query()?;
    let partition = query.partition;
    let view = api.transforms.state(&name, query).await.map_err(refused)?;
    Ok(Json(StatePage::of(partition, &view)))
}

fn refused(error: QueryError) -> ApiError {
    let message = error.to_string();
    match error {
        QueryError::UnknownTransform(_) => ApiError::not_found("UNKNOWN_TRANSFORM", message),
        QueryError::UnknownPartition(_) => ApiError::not_found("UNKNOWN_PARTITION", message),
        QueryError::NotHere { .. } => {
            ApiError::unavailable("NOT_HERE", message).hint("Ask that node's HTTP.")
        }
        QueryError::NotRunning(_) => ApiError::unavailable("NOT_RUNNING", message)
            .hint("Its status says what it is doing; ask again when it runs."),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn query(parameters: Value) -> Result<StateQuery, String> {
        let parameters: StateParameters = serde_json::from_value(parameters).unwrap();
        parameters.query().map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_query_is_for_a_key_or_a_prefix_in_text_or_base64() {
        let all = query(json!({})).unwrap();
        assert_eq!(all.keys, Keys::Prefix(Bytes::new()));
        assert_eq!(
            (all.partition, all.after, all.limit),
            (PartitionIndex(0), None, LIMIT_DEFAULT)
        );
        let one = query(json!({
            "partition": 2, "key": "/w==", "encoding": "base64", "limit": 7, "after": "YQ==",
        }));
        let one = one.unwrap();
        assert_eq!(one.keys, Keys::One(Bytes::from_static(b"\xff")));
        assert_eq!((one.partition, one.limit), (PartitionIndex(2), 7));
        assert_eq!(one.after, Some(Bytes::from_static(b"a")));
        for bad in [
            json!({ "key": "a", "prefix": "a" }),
            json!({ "prefix": "_w==", "encoding": "base64" }),
            json!({ "after": "a" }),
        ] {
            assert!(query(bad.clone()).is_err(), "{bad}");
        }
    }
}
