//! ApiVersions: which APIs are served, in which versions.

use headwater_protocol::kafka::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use headwater_protocol::kafka::{ApiKey, ErrorCode};

use crate::server::dispatch;
use crate::server::request::Context;

pub(in crate::server) async fn handle(context: &Context, request: ApiVersionsRequest) -> ApiVersionsResponse {
    if context.version >= 3 {
        let (name, version) = (&request.client_software_name, &request.client_software_version);
        if !is_software_text(name) || !is_software_text(version) {
            let error_code = ErrorCode::INVALID_REQUEST.0;
            return ApiVersionsResponse {
                error_code,
                ..ApiVersionsResponse::default()
            };
        }
        tracing::trace!(
            peer = %context.caller.peer.address,
            client = context.client_id.as_deref(),
            software = name.as_str(),
            version = version.as_str(),
            "a client introduced itself"
        );
    }
    ApiVersionsResponse {
        api_keys: ranges(),
        ..ApiVersionsResponse::default()
    }
}

/// Everything that is served.
pub(in crate::server) fn ranges() -> Vec<ApiVersion> {
    let range = |key: ApiKey| {
        let versions = key.versions();
        // Older librdkafka compresses only for brokers that claim the first versions of Produce; it never uses them.
        let min_version = if key == ApiKey::Produce {
            0
        } else {
            *versions.start()
        };
        ApiVersion {
            api_key: key as i16,
            min_version,
            max_version: *versions.end(),
            ..ApiVersion::default()
        }
    };
    dispatch::served().map(range).collect()
}

/// Letters and digits, with dots and dashes between them (KIP-511).
fn is_software_text(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes
            .iter()
            .all(|byte| plain(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_plain() {
        for (text, plain) in [
            ("apache-kafka-java", true),
            ("4.3.0", true),
            ("x", true),
            ("", false),
            ("-x", false),
            ("x.", false),
            ("a b", false),
            ("é", false),
        ] {
            assert_eq!(is_software_text(text), plain, "{text:?}");
        }
    }

    #[test]
    fn produce_is_claimed_from_its_first_version() {
        let ranges = ranges();
        let produce = ranges.iter().find(|range| range.api_key == 0).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
        assert!(ranges.is_sorted_by_key(|range| range.api_key));
    }
}
