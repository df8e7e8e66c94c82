//! FindCoordinator (key 10): the node that coordinates a group or a transactional id, or keeps what was delivered to a share group.
//! Any node can tell.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use headwater_protocol::primitives::Str;

use super::addresses;
use super::refusal::Refusal;
use super::transactions::code_of;
use crate::server::errors;
use crate::server::request::Context;

/// From this version on many are asked for at once (KIP-699).
const BATCHED_SINCE: i16 = 4;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

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
    let services = context.services();
    let node = match key_type {
        GROUP => {
            let found = services.groups.coordinator_of(key).await;
            found.map_err(|error| Refusal::new(errors::of_group(&error), error.to_string()))?
        }
        TRANSACTION => {
            let found = services.transactions.coordinator_of(key).await;
            found.map_err(|error| Refusal::new(code_of(error, false), error.to_string()))?
        }
        SHARE => {
            let malformed =
                "a share coordinator's key is a group, a topic id and a partition, with colons between";
            let group =
                share_group(key).ok_or_else(|| Refusal::new(ErrorCode::INVALID_REQUEST, malformed))?;
            let found = services.shares.coordinator_of(group).await;
            found.map_err(|error| Refusal::new(errors::of_share(&error), error.to_string()))?
        }
        _ => {
            let message = "only groups, transactions and share groups have coordinators";
            return Err(Refusal::new(ErrorCode::INVALID_REQUEST, message));
        }
    };
    let image = services.view.image();
    let place = image
        .nodes
        .get(&node)
        .and_then(|node| addresses::of(node, context.listener()));
    let unreachable = || {
        let message = format!("node {node}, which coordinates it, is not reached by this kind of listener");
        Refusal::new(ErrorCode::COORDINATOR_NOT_AVAILABLE, message)
    };
    let (host, port) = place.ok_or_else(unreachable)?;
    Ok(Place {
        node_id: node.value(),
        host,
        port,
    })
}

/// The group in a share coordinator's key: all of it is kept in one place.
fn share_group(key: &str) -> Option<&str> {
    let (rest, _partition) = key.rsplit_once(':')?;
    let (group, _topic) = rest.rsplit_once(':')?;
    (!group.is_empty()).then_some(group)
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
