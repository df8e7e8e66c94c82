//! The web UI from inside the binary: built files as they are, and the one page for every other path.

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The page may load nothing from elsewhere, and nobody may frame it.
const POLICY: &str =
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";
/// Names carry a hash of the content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

pub(super) async fn page(request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = request.uri().path().trim_start_matches('/');
    let (found, cache) = match files::get(path) {
        Some(file) if path.starts_with("assets/") => (Some(file), FOR_EVER),
        Some(file) => (Some(file), "no-cache"),
        // A page of an older binary asks for its own files: it must not take the new page for one of them.
        None if path.starts_with("assets/") => return StatusCode::NOT_FOUND.into_response(),
        None => (files::get("index.html"), "no-cache"),
    };
    let Some((bytes, kind)) = found else {
        let text = "This node was built without the web UI: `cargo xtask build` makes one with it.\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The built files, where there are any.
mod files {
    include!(concat!(env!("OUT_DIR"), "/ui.rs"));

    /// A file and its content type.
    pub(super) fn get(path: &str) -> Option<(&'static [u8], &'static str)> {
        let (_, bytes) = FILES.iter().find(|(name, _)| *name == path)?;
        let kind = match path.rsplit_once('.').map(|(_, extension)| extension) {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("json") => "application/json",
            Some("woff2") => "font/woff2",
            Some(_) | None => "application/octet-stream",
        };
        Some((bytes, kind))
    }
}
