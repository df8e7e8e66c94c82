//! ListConfigResources (key 74, KIP-1142; before, ListClientMetricsResources of KIP-714): what has properties.

use std::collections::BTreeSet;

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};
use headwater_protocol::primitives::Str;

use super::configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::config::Dynamic;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let asked: BTreeSet<i8> = match (context.version, request.resource_types.is_empty()) {
        (0, _) => BTreeSet::from([CLIENT_METRICS]),
        (_, true) => BTreeSet::from([TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP]),
        (_, false) => request.resource_types.into_iter().collect(),
    };
    let image = context.services().view.image();
    let mut response = ListConfigResourcesResponse::default();
    for kind in asked {
        let names: Vec<Str> = match kind {
            TOPIC => image.topics.keys().map(|name| Str::from(&**name)).collect(),
            BROKER => image.nodes.keys().map(|id| Str::from(id.to_string())).collect(),
            // They have no properties here.
            BROKER_LOGGER | CLIENT_METRICS => Vec::new(),
            GROUP => {
                let keys = image.broker_configs.keys().map(|key| Dynamic::read(key));
                let groups: BTreeSet<&str> = keys.filter_map(|dynamic| dynamic.group).collect();
                groups.into_iter().map(Str::from).collect()
            }
            _ => {
                response.error_code = ErrorCode::UNSUPPORTED_VERSION.0;
                response.config_resources.clear();
                return response;
            }
        };
        let resource = |resource_name| ConfigResource {
            resource_name,
            resource_type: kind,
            ..ConfigResource::default()
        };
        response.config_resources.extend(names.into_iter().map(resource));
    }
    response
}
