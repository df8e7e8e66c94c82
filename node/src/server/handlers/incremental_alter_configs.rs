//! IncrementalAlterConfigs (key 44, KIP-339): single changes of properties.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::configs::Resource;
use super::refusal::Refusal;
use crate::controller::Change;
use crate::controller::change::{ConfigChange, ConfigOperation};
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let mut response = AlterConfigsResourceResponse {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            error_message: None,
            ..AlterConfigsResourceResponse::default()
        };
        if let Err(refusal) = alter(context, resource, request.validate_only).await {
            response.error_code = refusal.code.0;
            response.error_message = refusal.text();
        }
        responses.push(response);
    }
    IncrementalAlterConfigsResponse {
        responses,
        ..IncrementalAlterConfigsResponse::default()
    }
}

async fn alter(
    context: &Context,
    resource: AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let changes = resource
        .configs
        .into_iter()
        .map(change)
        .collect::<Result<Vec<_>, _>>()?;
    propose(
        context,
        resource.resource_type,
        &resource.resource_name,
        changes,
        validate_only,
    )
    .await
}

/// Proposes the changes of one resource.
pub(super) async fn propose(
    context: &Context,
    kind: i8,
    name: &str,
    changes: Vec<ConfigChange>,
    validate_only: bool,
) -> Result<(), Refusal> {
    let change = match Resource::read(context, kind, name)? {
        Resource::Topic(topic) => Change::AlterTopicConfig {
            topic,
            changes,
            validate_only,
        },
        // A cluster of one: what is set for this node is set for all.
        Resource::Broker | Resource::AllBrokers => Change::AlterBrokerConfig {
            changes,
            validate_only,
        },
    };
    context.services().controller.propose(change).await?;
    Ok(())
}

fn change(config: AlterableConfig) -> Result<ConfigChange, Refusal> {
    let key = config.name.to_string();
    let value = |value: Option<headwater_protocol::primitives::Str>| {
        let missing = || Refusal::new(ErrorCode::INVALID_REQUEST, format!("{key} is given no value"));
        value.map(|value| value.to_string()).ok_or_else(missing)
    };
    let operation = match config.config_operation {
        0 => ConfigOperation::Set(value(config.value)?),
        1 => ConfigOperation::Remove,
        2 => ConfigOperation::Append(value(config.value)?),
        3 => ConfigOperation::Subtract(value(config.value)?),
        other => {
            return Err(Refusal::new(
                ErrorCode::INVALID_REQUEST,
                format!("operation {other} is not known"),
            ));
        }
    };
    Ok(ConfigChange { key, operation })
}
