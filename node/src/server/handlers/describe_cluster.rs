//! DescribeCluster (key 60, KIP-700).

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use headwater_protocol::primitives::Str;

use super::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, addresses};
use crate::metadata::NodeState;
use crate::server::request::Context;

/// `EndpointType.BROKER`; controllers are not reached by themselves here.
const BROKERS: i8 = 1;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let asked = request.include_cluster_authorized_operations;
    let operations = if asked {
        CLUSTER_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    let image = context.services().view.image();
    let mut response = DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: Str::from(image.cluster_id.as_str()),
        cluster_authorized_operations: operations,
        error_message: None,
        ..DescribeClusterResponse::default()
    };
    if request.endpoint_type != BROKERS {
        response.error_code = ErrorCode::MISMATCHED_ENDPOINT_TYPE.0;
        response.error_message = Some(Str::from_static("only brokers can be described here"));
        return response;
    }
    response.controller_id = context.services().node_id().0;
    response.brokers = image
        .nodes
        .values()
        .filter(|node| request.include_fenced_brokers || node.state != NodeState::Fenced)
        .filter_map(|node| {
            let (host, port) = addresses::of(node, context.listener())?;
            Some(DescribeClusterBroker {
                broker_id: node.id.0,
                host,
                port,
                rack: node.rack.as_deref().map(Str::from),
                is_fenced: node.state == NodeState::Fenced,
                ..DescribeClusterBroker::default()
            })
        })
        .collect();
    response
}
