//! GetTelemetrySubscriptions (key 71, KIP-714): which of its metrics a client is asked for.

use headwater_protocol::kafka::get_telemetry_subscriptions::{
    GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse,
};
use headwater_protocol::primitives::{Str, Uuid};
use headwater_protocol::record::Compression;

use crate::server::client_metrics::{PUSH_BYTES_MAX, Subscription};
use crate::server::request::Context;

/// What clients may compress by, the one that is liked best first.
const COMPRESSIONS: [Compression; 4] = [
    Compression::Zstd,
    Compression::Lz4,
    Compression::Gzip,
    Compression::Snappy,
];

pub(in crate::server) async fn handle(
    context: &Context,
    request: GetTelemetrySubscriptionsRequest,
) -> GetTelemetrySubscriptionsResponse {
    let services = context.services();
    let subscription = Subscription::of(&services.broker(&services.view.image()));
    let client_instance_id = if request.client_instance_id.is_zero() {
        Uuid(services.sys.random.secret::<16>())
    } else {
        request.client_instance_id
    };
    GetTelemetrySubscriptionsResponse {
        client_instance_id,
        subscription_id: subscription.id(),
        accepted_compression_types: COMPRESSIONS.map(|codec| codec.code() as i8).to_vec(),
        push_interval_ms: subscription.interval_ms,
        telemetry_max_bytes: PUSH_BYTES_MAX as i32,
        delta_temporality: false,
        requested_metrics: subscription.prefixes.iter().map(Str::from).collect(),
        ..GetTelemetrySubscriptionsResponse::default()
    }
}
