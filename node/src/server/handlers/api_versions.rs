//! ApiVersions: which APIs are served, in which versions; which levels of features are supported, and which in force.

use headwater_protocol::kafka::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use headwater_protocol::kafka::{ApiKey, ErrorCode};
use headwater_protocol::primitives::Str;

use crate::config::BrokerConfig;
use crate::metadata::Image;
use crate::metadata::features::{self, Supported};
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
    let services = context.services();
    let image = services.view.image();
    ApiVersionsResponse {
        api_keys: ranges(&services.broker(&image)),
        supported_features: supported(&Supported::up_to(&services.config.feature_levels_max)),
        // As in Kafka: the metadata by which it is so.
        finalized_features_epoch: image.offset.value(),
        finalized_features: finalized(&image),
        ..ApiVersionsResponse::default()
    }
}

/// Kafka's own feature by which clients leave it to the brokers to add partitions to transactions, and have an epoch for each of
/// them (KIP-890). What is served here serves both flows.
const TRANSACTION_VERSION: &str = "transaction.version";
const TRANSACTIONS: features::LevelRange = features::LevelRange {
    min: features::Level(0),
    max: features::Level(2),
};

/// Kafka's own feature of the consumer protocol (KIP-848).
const GROUP_VERSION: &str = "group.version";
const GROUPS: features::LevelRange = features::LevelRange {
    min: features::Level(0),
    max: features::Level(1),
};

/// Kafka's own feature of share groups (KIP-932).
const SHARE_VERSION: &str = "share.version";
const SHARES: features::LevelRange = features::LevelRange {
    min: features::Level(0),
    max: features::Level(1),
};

fn supported(supported: &Supported) -> Vec<SupportedFeatureKey> {
    let key = |(name, range): (&str, features::LevelRange)| SupportedFeatureKey {
        name: Str::from(name),
        min_version: range.min.0,
        max_version: range.max.0,
        ..SupportedFeatureKey::default()
    };
    let kafkas = [
        (GROUP_VERSION, GROUPS),
        (SHARE_VERSION, SHARES),
        (TRANSACTION_VERSION, TRANSACTIONS),
    ];
    supported.iter().chain(kafkas).map(key).collect()
}

/// The levels in force; the lowest one is, too, where none was ever told.
fn finalized(image: &Image) -> Vec<FinalizedFeatureKey> {
    let others = image
        .features
        .iter()
        .filter(|(name, _)| *name != features::VERSION);
    let others = others.map(|(name, level)| (name.as_str(), *level));
    let key = |(name, level): (&str, features::Level)| FinalizedFeatureKey {
        name: Str::from(name),
        max_version_level: level.0,
        min_version_level: level.0,
        ..FinalizedFeatureKey::default()
    };
    let kafkas = [
        (GROUP_VERSION, GROUPS.max),
        (SHARE_VERSION, SHARES.max),
        (TRANSACTION_VERSION, TRANSACTIONS.max),
    ];
    let all = std::iter::once((features::VERSION, image.level()))
        .chain(others)
        .chain(kafkas);
    all.map(key).collect()
}

/// Everything that is served. Clients are told of their own metrics where somebody wants them: they would ask now and then
/// what to push, for nothing.
pub(in crate::server) fn ranges(broker: &BrokerConfig) -> Vec<ApiVersion> {
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
    let asks_for_metrics = !broker.client_metrics().is_empty();
    let is_told = |key: &ApiKey| match key {
        ApiKey::GetTelemetrySubscriptions | ApiKey::PushTelemetry => asks_for_metrics,
        _ => true,
    };
    dispatch::served().filter(is_told).map(range).collect()
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
    use std::collections::BTreeMap;

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
        let ranges = ranges(&BrokerConfig::new(BTreeMap::new()));
        let produce = ranges.iter().find(|range| range.api_key == 0).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
        assert!(ranges.is_sorted_by_key(|range| range.api_key));
    }
}
