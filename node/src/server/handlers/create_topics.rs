//! CreateTopics (key 19): one change per topic, each with its own outcome.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use headwater_protocol::primitives::Str;

use super::configs::source_code;
use super::refusal::Refusal;
use crate::config::topic;
use crate::controller::{Change, NewTopic, Outcome};
use crate::metadata::Topic;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let twice = twice(&request.topics);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic.name.clone();
        let created = if twice.contains(&name) {
            Err(Refusal::new(
                ErrorCode::INVALID_REQUEST,
                "the request names the topic more than once",
            ))
        } else {
            create(context, topic, request.validate_only).await
        };
        topics.push(created.unwrap_or_else(|refusal| CreatableTopicResult {
            name,
            error_code: refusal.code.0,
            error_message: refusal.text(),
            configs: Some(Vec::new()),
            ..CreatableTopicResult::default()
        }));
    }
    CreateTopicsResponse {
        topics,
        ..CreateTopicsResponse::default()
    }
}

fn twice(topics: &[CreatableTopic]) -> BTreeSet<Str> {
    let mut seen = BTreeSet::new();
    topics
        .iter()
        .filter(|topic| !seen.insert(&topic.name))
        .map(|topic| topic.name.clone())
        .collect()
}

async fn create(
    context: &Context,
    topic: CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, Refusal> {
    let new = new_topic(topic, validate_only)?;
    let services = context.services();
    let applied = services.controller.propose(Change::CreateTopic(new)).await?;
    let Outcome::Topic(made) = applied.outcome else {
        return Err(Refusal::new(
            ErrorCode::UNKNOWN_SERVER_ERROR,
            "the controller answered without a topic",
        ));
    };
    if !validate_only {
        // Clients produce at once: the partitions must be there when they hear of the topic.
        services.registry.reconciled(applied.offset).await;
    }
    Ok(result(context, &made))
}

fn new_topic(topic: CreatableTopic, validate_only: bool) -> Result<NewTopic, Refusal> {
    let invalid = |message: &str| Refusal::new(ErrorCode::INVALID_REQUEST, message);
    let mut configs = BTreeMap::new();
    for config in topic.configs {
        let value = config
            .value
            .ok_or_else(|| Refusal::new(ErrorCode::INVALID_CONFIG, "a property has no value"))?;
        configs.insert(config.name.to_string(), value.to_string());
    }
    let mut assignments = BTreeMap::new();
    for assignment in topic.assignments {
        let brokers = assignment.broker_ids.into_iter().map(NodeId).collect();
        if assignments.insert(assignment.partition_index, brokers).is_some() {
            return Err(invalid("a partition is assigned more than once"));
        }
    }
    if !assignments.is_empty() && (topic.num_partitions != -1 || topic.replication_factor != -1) {
        return Err(invalid(
            "with assignments, partitions and replication factor must be -1",
        ));
    }
    Ok(NewTopic {
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments,
        configs,
        validate_only,
        ..NewTopic::named(topic.name.to_string())
    })
}

fn result(context: &Context, topic: &Topic) -> CreatableTopicResult {
    let services = context.services();
    let described = topic::describe(&topic.configs, &services.broker(&services.view.image()));
    let configs = described.into_iter().map(|property| CreatableTopicConfigs {
        name: Str::from_static(property.name),
        value: Some(Str::from(property.value)),
        read_only: false,
        config_source: source_code(property.source),
        is_sensitive: false,
        ..CreatableTopicConfigs::default()
    });
    // Both are bounded by the controller, far below what the wire can say.
    CreatableTopicResult {
        name: Str::from(&*topic.name),
        topic_id: topic.id.into(),
        num_partitions: topic.partitions.len() as i32,
        replication_factor: topic
            .partitions
            .first()
            .map_or(0, |partition| partition.replicas.len() as i16),
        configs: Some(configs.collect()),
        ..CreatableTopicResult::default()
    }
}
