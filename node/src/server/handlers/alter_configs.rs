//! AlterConfigs (key 33), the older form: the whole set of a resource's properties; what is not named goes back to its
//! default.

use std::collections::BTreeSet;

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
};

use super::configs::{self, Outcome, Resource, Wanted};
use super::refusal::Refusal;
use crate::config::Dynamic;
use crate::controller::change::{ConfigChange, ConfigOperation};
use crate::metadata::Image;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let wanted = request.resources.into_iter().map(|resource| Wanted {
        kind: resource.resource_type,
        name: resource.resource_name.clone(),
        changes: replacement(context, resource),
    });
    let outcomes = configs::propose_each(context, wanted, request.validate_only).await;
    let response = |outcome: Outcome| AlterConfigsResourceResponse {
        error_code: outcome.code,
        error_message: outcome.message,
        resource_type: outcome.kind,
        resource_name: outcome.name,
        ..AlterConfigsResourceResponse::default()
    };
    AlterConfigsResponse {
        responses: outcomes.into_iter().map(response).collect(),
        ..AlterConfigsResponse::default()
    }
}

/// The changes that leave the resource with what is named and nothing else.
fn replacement(context: &Context, resource: AlterConfigsResource) -> Result<Vec<ConfigChange>, Refusal> {
    let mut changes = Vec::with_capacity(resource.configs.len());
    let mut named = BTreeSet::new();
    for config in resource.configs {
        let value = config.value.ok_or_else(|| {
            Refusal::new(
                ErrorCode::INVALID_REQUEST,
                format!("{} is given no value", &*config.name),
            )
        })?;
        named.insert(config.name.to_string());
        changes.push(ConfigChange {
            key: config.name.to_string(),
            operation: ConfigOperation::Set(value.to_string()),
        });
    }
    let set = set_now(context, resource.resource_type, &resource.resource_name)?;
    let dropped = set.into_iter().filter(|key| !named.contains(key));
    changes.extend(dropped.map(|key| ConfigChange {
        key,
        operation: ConfigOperation::Remove,
    }));
    Ok(changes)
}

/// The properties that the resource itself sets.
fn set_now(context: &Context, kind: i8, name: &str) -> Result<Vec<String>, Refusal> {
    let image = context.services().view.image();
    match Resource::read(context, kind, name)? {
        Resource::Topic(topic) => {
            let known = image.topic(&topic).ok_or_else(|| {
                Refusal::new(
                    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    format!("topic {topic:?} is not known"),
                )
            })?;
            Ok(known.configs.keys().cloned().collect())
        }
        Resource::Broker => Ok(set_of(&image, Some(context.services().node_id()))),
        Resource::AllBrokers => Ok(set_of(&image, None)),
        Resource::Group(group) => {
            let keys = image.broker_configs.keys().map(|key| Dynamic::read(key));
            let keys = keys.filter(|dynamic| dynamic.group == Some(&*group));
            Ok(keys
                .map(|dynamic| Dynamic::name_of_group(dynamic.name).to_owned())
                .collect())
        }
    }
}

/// What is set for one node, or for all of them together.
fn set_of(image: &Image, node: Option<NodeId>) -> Vec<String> {
    let keys = image.broker_configs.keys().map(|key| Dynamic::read(key));
    let keys = keys.filter(|dynamic| dynamic.node == node && dynamic.group.is_none());
    keys.map(|dynamic| dynamic.name.to_owned()).collect()
}
