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
    let proposed = context
        .services()
        .controller
        .propose(Change::UnregisterNode { node })
        .await;
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
