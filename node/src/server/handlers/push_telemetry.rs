//! PushTelemetry (key 72, KIP-714): a client says how it does.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::push_telemetry::{PushTelemetryRequest, PushTelemetryResponse};
use headwater_protocol::record::Compression;

use crate::server::client_metrics::{
    Instance, PUSH_BYTES_MAX, Point, Subscription, UNFOLDED_BYTES_MAX, otlp,
};
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: PushTelemetryRequest,
) -> PushTelemetryResponse {
    let shared = &context.caller.shared;
    let code = match push(context, request).await {
        Ok(()) => {
            shared.client_metrics.accepted.increment();
            ErrorCode::NONE
        }
        Err(code) => {
            shared.client_metrics.refused.increment();
            code
        }
    };
    PushTelemetryResponse {
        error_code: code.0,
        ..PushTelemetryResponse::default()
    }
}

async fn push(context: &Context, request: PushTelemetryRequest) -> Result<(), ErrorCode> {
    let services = context.services();
    let subscription = Subscription::of(&services.broker(&services.view.image()));
    if request.client_instance_id.is_zero() {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    if request.subscription_id != subscription.id() {
        return Err(ErrorCode::UNKNOWN_SUBSCRIPTION_ID);
    }
    if request.metrics.len() > PUSH_BYTES_MAX {
        return Err(ErrorCode::TELEMETRY_TOO_LARGE);
    }
    let codec =
        u8::try_from(request.compression_type).map_err(|_| ErrorCode::UNSUPPORTED_COMPRESSION_TYPE)?;
    let codec = Compression::from_code(codec).map_err(|_| ErrorCode::UNSUPPORTED_COMPRESSION_TYPE)?;
    let instance = Instance {
        id: request.client_instance_id,
        client: context.client_id.as_deref().unwrap_or_default().to_owned(),
    };
    let clients = &context.caller.shared.client_metrics;
    let now = services.sys.clock.now();
    if !clients.admit(&instance, &subscription, request.terminating, now) {
        return Err(ErrorCode::THROTTLING_QUOTA_EXCEEDED);
    }
    let metrics = request.metrics;
    let reading = services.sys.tasks.blocking("client metrics", move || {
        let unfolded = codec.unfold(metrics, UNFOLDED_BYTES_MAX).map_err(drop)?;
        let points = otlp::points(&unfolded, |name| subscription.wants(name)).map_err(drop)?;
        Ok::<Vec<Point>, ()>(points)
    });
    let points = reading.await.map_err(|_| ErrorCode::UNKNOWN_SERVER_ERROR)?;
    let points = points.map_err(|()| ErrorCode::INVALID_RECORD)?;
    clients.put(&instance, points);
    if request.terminating {
        clients.forget(instance.id);
    }
    Ok(())
}
