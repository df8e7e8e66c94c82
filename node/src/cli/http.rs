//! The HTTP API as a client sees it: one request, one JSON answer, or one failure in the server's own words.
//!
//! Owns the connection of each call. It must never retry: what may be tried again is the caller's to know.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::failure::Failure;
use crate::sys::clock::Clock;

const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Uploads compile a module, which takes a while on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// One node's API. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Http {
    address: String,
    client: Client<HttpConnector, Full<Bytes>>,
    clock: Clock,
}

impl Http {
    /// `host:port`, or `http://host:port`.
    pub(super) fn new(address: &str) -> Result<Self, Failure> {
        let plain = address
            .strip_prefix("http://")
            .unwrap_or(address)
            .trim_end_matches('/');
        let is_sound = !plain.contains('/') && format!("http://{plain}/").parse::<Uri>().is_ok();
        if !is_sound || plain.is_empty() {
            return Err(Failure::usage(format!("{address:?} is not an HTTP address"))
                .hint("write host:port, such as 127.0.0.1:8080"));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Self {
            address: plain.to_owned(),
            client: Client::builder(TokioExecutor::new()).build(connector),
            clock: Clock::system(),
        })
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json(Method::POST, path, Some(body)).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json(Method::PUT, path, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.json(Method::DELETE, path, None).await
    }

    /// A POST of bytes that are not JSON.
    pub(super) async fn upload(
        &self,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Value, Failure> {
        let (status, answer) = self.call(Method::POST, path, content_type, body).await?;
        read(status, &answer)
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let (status, answer) = self.call(method, path, "application/json", body).await?;
        read(status, &answer)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let url = format!("http://{}/api/v1{path}", self.address);
        let host =
            HeaderValue::from_str(&self.address).map_err(|_| self.unreachable("the address is no host"))?;
        let mut request = Request::builder().method(method).uri(url).header(HOST, host);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|why| Failure::usage(why.to_string()))?;
        let exchange = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|why| self.unreachable(&root(&why)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|why| self.unreachable(&format!("its answer broke off: {why}")))?;
            Ok((status, body.to_bytes()))
        };
        self.clock
            .timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(self.unreachable(&format!("no answer within {} s", TIMEOUT.as_secs()))))
    }

    fn unreachable(&self, why: &str) -> Failure {
        Failure::new(format!("cannot reach http://{}: {why}", self.address))
            .hint("--http says where a node's HTTP is; `headwater node` prints it when it is ready")
    }
}

/// The innermost cause: the one that names what happened.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The answer's JSON, null if it has none, or the failure it tells of.
fn read(status: StatusCode, body: &[u8]) -> Result<Value, Failure> {
    let value = match body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).trim().to_owned())),
    };
    if status.is_success() {
        return Ok(value);
    }
    let error = &value["error"];
    let Some(message) = error["message"].as_str() else {
        let said = value
            .as_str()
            .map_or_else(String::new, |text| format!(": {text}"));
        return Err(Failure::new(format!("the node answered {status}{said}")));
    };
    let failure = Failure::new(message);
    Err(match error["hint"].as_str() {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

/// A name as one segment of a path.
pub(super) fn segment(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte))
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_speak_the_servers_words() {
        let refused = br#"{"error":{"code":"TOPIC_EXISTS","message":"topic exists","hint":"alter it"}}"#;
        let shown = read(StatusCode::CONFLICT, refused).map_err(|why| why.to_string());
        assert_eq!(shown, Err("headwater: topic exists\nhint: alter it".to_owned()));
        let shown = read(StatusCode::BAD_GATEWAY, b"oops").map_err(|why| why.to_string());
        assert_eq!(
            shown,
            Err("headwater: the node answered 502 Bad Gateway: oops".to_owned())
        );
        assert!(read(StatusCode::NO_CONTENT, b"").is_ok_and(|value| value.is_null()));
    }

    #[test]
    fn names_become_segments() {
        assert_eq!(segment("a.b-c_d"), "a.b-c_d");
        assert_eq!(segment("a/b ?"), "a%2Fb%20%3F");
    }

    #[test]
    fn addresses_are_checked() {
        for address in ["", "http://", "a b", "host:1/x"] {
            assert!(Http::new(address).is_err(), "{address:?}");
        }
        assert_eq!(
            Http::new("http://h:1/").ok().map(|http| http.address),
            Some("h:1".into())
        );
    }
}
