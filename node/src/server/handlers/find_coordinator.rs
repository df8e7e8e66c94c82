//! FindCoordinator (key 10): the node that coordinates a group. Any node can tell.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use headwater_protocol::primitives::Str;

use super::addresses;
use super::refusal::Refusal;
use crate::server::errors;
use crate::server::request::Context;

/// From this version on many are asked for at once (KIP-699).
const BATCHED_SINCE: i16 = 4;
const GROUP: i8 = 0;

/// Where a coordinator is reached.
struct Place {
    node_id: i32,
    host: Str,
    port: i32,
}

pub(in crate::server) async fn handle(
    context: &Context,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if context.version < BATCHED_SINCE {
        return single(find(context, request.key_type, &request.key).await);
    }
    let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
    for key in request.coordinator_keys {
        let found = find(context, request.key_type, &key).await;
        coordinators.push(one_of_many(key, found));
    }
    FindCoordinatorResponse {
        coordinators,
        ..FindCoordinatorResponse::default()
    }
}

async fn find(context: &Context, key_type: i8, key: &str) -> Result<Place, Refusal> {
    if key_type != GROUP {
        let message =
            "only consumer groups have coordinators here: transactions and share groups are not served";
        return Err(Refusal::new(ErrorCode::INVALID_REQUEST, message));
    }
    let services = context.services();
    let node = match services.groups.coordinator_of(key).await {
        Ok(node) => node,
        Err(error) => return Err(Refusal::new(errors::of_group(&error), error.to_string())),
    };
    let image = services.view.image();
    let place = image
        .nodes
        .get(&node)
        .and_then(|node| addresses::of(node, context.listener()));
    let unreachable = || {
        let message =
            format!("node {node}, which coordinates the group, is not reached by this kind of listener");
        Refusal::new(ErrorCode::COORDINATOR_NOT_AVAILABLE, message)
    };
    let (host, port) = place.ok_or_else(unreachable)?;
    Ok(Place {
        node_id: node.value(),
        host,
        port,
    })
}

fn single(found: Result<Place, Refusal>) -> FindCoordinatorResponse {
    match found {
        Ok(place) => FindCoordinatorResponse {
            node_id: place.node_id,
            host: place.host,
            port: place.port,
            ..FindCoordinatorResponse::default()
        },
        Err(refusal) => FindCoordinatorResponse {
            error_code: refusal.code.0,
            error_message: refusal.text(),
            node_id: -1,
            port: -1,
            ..FindCoordinatorResponse::default()
        },
    }
}

fn one_of_many(key: Str, found: Result<Place, Refusal>) -> Coordinator {
    match found {
        Ok(place) => Coordinator {
            key,
            node_id: place.node_id,
            host: place.host,
            port: place.port,
            ..Coordinator::default()
        },
        Err(refusal) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: refusal.code.0,
            error_message: refusal.text(),
            ..Coordinator::default()
        },
    }
}
