//! IncrementalAlterConfigs (key 44, KIP-339): single changes of properties.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::incremental_alter_configs::{
    AlterConfigsResourceResponse, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::configs::{self, Outcome, Wanted};
use super::refusal::Refusal;
use crate::controller::change::{ConfigChange, ConfigOperation};
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let wanted = request.resources.into_iter().map(|resource| Wanted {
        kind: resource.resource_type,
        name: resource.resource_name,
        changes: resource.configs.into_iter().map(change).collect(),
    });
    let outcomes = configs::propose_each(context, wanted, request.validate_only).await;
    let response = |outcome: Outcome| AlterConfigsResourceResponse {
        error_code: outcome.code,
        error_message: outcome.message,
        resource_type: outcome.kind,
        resource_name: outcome.name,
        ..AlterConfigsResourceResponse::default()
    };
    IncrementalAlterConfigsResponse {
        responses: outcomes.into_iter().map(response).collect(),
        ..IncrementalAlterConfigsResponse::default()
    }
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
