//! What every request of the API passes before its handler: where it comes from, and what its body may cost.
//!
//! It owns the memory that bodies share. It must never judge what a request asks for.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::sys::budget::Budget;
use crate::sys::clock::Clock;

/// All bodies on their way in share this much; who comes when it is taken waits.
const BODIES_BYTES: usize = 128 << 20;
/// From the head of a request with a body to its answer. Compiling the largest module takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone)]
pub(super) struct Guard {
    bodies: Budget,
    clock: Clock,
}

impl Guard {
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            bodies: Budget::new(BODIES_BYTES),
            clock,
        })
    }
}

pub(super) async fn pass(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    if let Err(refused) = check_origin(request.headers()) {
        return refused.into_response();
    }
    let answered = async {
        let _memory = guard.bodies.acquire(body_bytes(request.headers())).await;
        next.run(request).await
    };
    guard.clock.timeout(PATIENCE, answered).await.unwrap_or_else(|_| {
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "TIMEOUT",
            format!(
                "the request was not read and answered in {} s",
                PATIENCE.as_secs()
            ),
        )
        .into_response()
    })
}

/// What a body may hold of memory: what it says of itself, or what the largest takes.
fn body_bytes(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH);
    let said = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let unsaid = if chunked {
        super::modules::UPLOAD_BYTES_MAX
    } else {
        0
    };
    said.unwrap_or(unsaid).clamp(1, super::modules::UPLOAD_BYTES_MAX)
}

/// A browser sends whatever page it shows with a request: pages of other origins change nothing here.
fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let own = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        // Browsers send the one or the other; what sends neither is a program.
        (None, None) => true,
        (None, Some(origin)) => {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some_and(|authority| {
                text("host").is_some_and(|host| host.eq_ignore_ascii_case(authority))
            })
        }
    };
    if own {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "CROSS_ORIGIN",
        "a page of another origin asked for a change",
    )
    .hint("Use this node's own page. A proxy in front of it must pass the Host header on."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), value.parse().expect("a header"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn only_own_pages_and_programs_change_anything() {
        for (allowed, pairs) in [
            (true, &[("host", "node:8080")][..]),
            (true, &[("host", "node:8080"), ("origin", "http://node:8080")]),
            (true, &[("host", "Node:8080"), ("origin", "http://node:8080")]),
            (
                true,
                &[("sec-fetch-site", "same-origin"), ("origin", "https://proxy")],
            ),
            (true, &[("sec-fetch-site", "none")]),
            (false, &[("host", "node:8080"), ("origin", "http://node:8081")]),
            (false, &[("host", "node:8080"), ("origin", "http://evil.example")]),
            (false, &[("host", "node:8080"), ("origin", "null")]),
            (false, &[("sec-fetch-site", "cross-site")]),
            (
                false,
                &[
                    ("sec-fetch-site", "same-site"),
                    ("origin", "http://node:8080"),
                    ("host", "node:8080"),
                ],
            ),
        ] {
            assert_eq!(check_origin(&headers(pairs)).is_ok(), allowed, "{pairs:?}");
        }
    }

    #[test]
    fn a_body_takes_what_it_says_within_the_largest() {
        let most = super::super::modules::UPLOAD_BYTES_MAX;
        for (bytes, pairs) in [
            (1, &[][..]),
            (100, &[("content-length", "100")]),
            (most, &[("content-length", "99999999999999")]),
            (1, &[("content-length", "soon")]),
            (most, &[("transfer-encoding", "chunked")]),
        ] {
            assert_eq!(body_bytes(&headers(pairs)), bytes, "{pairs:?}");
        }
    }
}
