//! DescribeConfigs (key 32): properties of topics and brokers, with where each value comes from.

use std::collections::BTreeSet;

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};
use headwater_protocol::primitives::Str;

use super::configs::{Resource, source_code, type_code};
use super::refusal::Refusal;
use crate::config::server::{self, When};
use crate::config::topic::{self, Described};
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let shape = Shape {
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    // Named a thousand times, a resource would fill the memory with one small request.
    let mut told = BTreeSet::new();
    let results = request
        .resources
        .into_iter()
        .filter(|resource| told.insert((resource.resource_type, resource.resource_name.clone())))
        .map(|resource| describe(context, resource, &shape))
        .collect();
    DescribeConfigsResponse {
        results,
        ..DescribeConfigsResponse::default()
    }
}

/// How much is asked for.
struct Shape {
    synonyms: bool,
    documentation: bool,
}

fn describe(context: &Context, resource: DescribeConfigsResource, shape: &Shape) -> DescribeConfigsResult {
    let mut result = DescribeConfigsResult {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        error_message: None,
        ..DescribeConfigsResult::default()
    };
    match properties(context, &resource) {
        Ok((properties, is_broker)) => {
            let wanted = |name: &str| match &resource.configuration_keys {
                Some(keys) => keys.is_empty() || keys.iter().any(|key| &**key == name),
                None => true,
            };
            let wanted = properties.into_iter().filter(|property| wanted(property.name));
            result.configs = wanted.map(|property| entry(property, is_broker, shape)).collect();
        }
        Err(refusal) => {
            result.error_code = refusal.code.0;
            result.error_message = refusal.text();
        }
    }
    result
}

fn properties(
    context: &Context,
    resource: &DescribeConfigsResource,
) -> Result<(Vec<Described>, bool), Refusal> {
    let services = context.services();
    let broker = services.broker(&services.view.image());
    match Resource::read(context, resource.resource_type, &resource.resource_name)? {
        Resource::Topic(name) => {
            let topic = context.services().view.topic(&name).ok_or_else(|| {
                Refusal::new(
                    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    format!("topic {name:?} is not known"),
                )
            })?;
            Ok((topic::describe(&topic.configs, &broker), false))
        }
        Resource::Broker => Ok((broker.describe(), true)),
        Resource::AllBrokers => {
            let mut set = broker.of_all_nodes().describe();
            set.retain(|property| property.source == topic::Source::Cluster);
            Ok((set, true))
        }
        Resource::Group(group) => Ok((broker.describe_group(&group), false)),
    }
}

fn entry(property: Described, is_broker: bool, shape: &Shape) -> DescribeConfigsResourceResult {
    let read_only = is_broker && server::find(property.name).is_ok_and(|known| known.change == When::Start);
    let is_sensitive = is_broker && server::is_secret(property.name);
    let synonyms = property
        .synonyms
        .into_iter()
        .filter(|_| shape.synonyms && !is_sensitive);
    DescribeConfigsResourceResult {
        name: Str::from_static(property.name),
        value: (!is_sensitive).then(|| Str::from(property.value)),
        read_only,
        config_source: source_code(property.source),
        is_sensitive,
        synonyms: synonyms
            .map(|(name, value, source)| DescribeConfigsSynonym {
                name: Str::from_static(name),
                value: Some(Str::from(value)),
                source: source_code(source),
                ..DescribeConfigsSynonym::default()
            })
            .collect(),
        config_type: type_code(property.kind),
        documentation: shape.documentation.then(|| Str::from_static(property.doc)),
        ..DescribeConfigsResourceResult::default()
    }
}
