//! UnregisterBroker (key 64): a node that holds nothing leaves the cluster.

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::unregister_broker::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::refusal::Refusal;
use crate::controller::{Change, ProposeError};
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let node = NodeId(request.broker_id);
    let mut response = UnregisterBrokerResponse {
        error_message: None,
        ..UnregisterBrokerResponse::default()
    };
    let services = context.services();
    // It may be decided long after its client gave up, and another node have that number by then.
    let as_of = Some(services.view.image().offset);
    let leave = Change::UnregisterNode { node, as_of };
    let proposed = services.controller.propose(leave).await;
    if let Err(error) = proposed {
        let is_unknown = matches!(error, ProposeError::Unknown { .. });
        let mut refusal = Refusal::from(error);
        if is_unknown {
            refusal.code = ErrorCode::BROKER_ID_NOT_REGISTERED;
        }
        response.error_code = refusal.code.0;
        response.error_message = refusal.text();
    }
    response
}
