//! Metadata: the nodes, the topics, who leads which partition; unknown topics are created when the node is so set.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_protocol::ids::TopicId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use headwater_protocol::primitives::Str;

use super::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS, addresses};
use crate::controller::{Change, NewTopic, ProposeError};
use crate::metadata::topic::is_reserved;
use crate::metadata::{Image, Node, Topic};
use crate::server::errors;
use crate::server::request::Context;
use crate::transport::ListenerKind;

/// How long a new topic may take to be opened here before the client is told of it all the same.
const OPENING: Duration = Duration::from_secs(5);

pub(in crate::server) async fn handle(context: &Context, request: MetadataRequest) -> MetadataResponse {
    let MetadataRequest {
        topics: asked,
        allow_auto_topic_creation: may_create,
        ..
    } = request;
    let services = context.services();
    let operations = if request.include_topic_authorized_operations {
        TOPIC_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    // In the first version, no topics means all of them.
    let asked = asked.filter(|topics| context.version >= 1 || !topics.is_empty());
    let mut image = services.view.image();
    let mut topics = Vec::new();
    match asked {
        None => topics.extend(image.topics.values().map(|topic| described(topic, operations))),
        Some(asked) => {
            // Named a thousand times, a large topic would fill the memory with one small request.
            let mut told = BTreeSet::new();
            for wanted in asked {
                if !told.insert((wanted.name.clone(), wanted.topic_id)) {
                    continue;
                }
                let wanted = by_id_alone(wanted);
                let mut found = lookup(&image, &wanted, operations);
                if let (Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), true, Some(name)) =
                    (&found, may_create, &wanted.name)
                    && !is_reserved(name)
                    && services.broker(&image).auto_create_topics()
                {
                    let created = create(context, name).await;
                    image = services.view.image();
                    found = created.and_then(|()| lookup(&image, &wanted, operations));
                }
                topics.push(found.unwrap_or_else(|code| unknown(wanted, code, context.version)));
            }
        }
    }
    let cluster_operations = if request.include_cluster_authorized_operations {
        CLUSTER_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    MetadataResponse {
        brokers: image
            .nodes
            .values()
            .filter_map(|node| broker(node, context.listener()))
            .collect(),
        cluster_id: Some(Str::from(&image.cluster_id)),
        controller_id: services.node_id().value(),
        topics,
        cluster_authorized_operations: cluster_operations,
        ..MetadataResponse::default()
    }
}

/// Whoever gives an id means that, whatever the name: Java's client leaves it empty.
fn by_id_alone(wanted: MetadataRequestTopic) -> MetadataRequestTopic {
    match TopicId::from(wanted.topic_id) {
        TopicId::NONE => wanted,
        _ => MetadataRequestTopic { name: None, ..wanted },
    }
}

fn lookup(
    image: &Image,
    wanted: &MetadataRequestTopic,
    operations: i32,
) -> Result<MetadataResponseTopic, ErrorCode> {
    let found = match &wanted.name {
        Some(name) => image.topic(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        None => image
            .topic_by_id(wanted.topic_id.into())
            .ok_or(ErrorCode::UNKNOWN_TOPIC_ID),
    };
    found.map(|topic| described(topic, operations))
}

/// Creates a topic that somebody asked for, and waits until it can be used.
async fn create(context: &Context, name: &str) -> Result<(), ErrorCode> {
    let services = context.services();
    let applied = match services
        .controller
        .propose(Change::CreateTopic(NewTopic::named(name)))
        .await
    {
        Ok(applied) => applied,
        // Somebody was faster.
        Err(ProposeError::TopicExists(_)) => return Ok(()),
        Err(error) => return Err(errors::of_propose(&error)),
    };
    tracing::info!(
        topic = name,
        client = context.client_id.as_deref(),
        "topic created because it was asked for"
    );
    // Not opened in time: clients ask again by themselves.
    let _ = services
        .sys
        .clock
        .timeout(OPENING, services.registry.reconciled(applied.offset))
        .await;
    Ok(())
}

fn described(topic: &Topic, operations: i32) -> MetadataResponseTopic {
    let partitions = topic
        .indexes()
        .zip(&topic.partitions)
        .map(|(index, state)| MetadataResponsePartition {
            partition_index: index.value(),
            leader_id: state.leader.value(),
            leader_epoch: state.leader_epoch.value(),
            replica_nodes: state.replicas.iter().map(|node| node.value()).collect(),
            isr_nodes: state.isr.iter().map(|node| node.value()).collect(),
            ..MetadataResponsePartition::default()
        });
    MetadataResponseTopic {
        name: Some(Str::from(&*topic.name)),
        topic_id: topic.id.into(),
        is_internal: topic.internal,
        partitions: partitions.collect(),
        topic_authorized_operations: operations,
        ..MetadataResponseTopic::default()
    }
}

fn unknown(wanted: MetadataRequestTopic, code: ErrorCode, version: i16) -> MetadataResponseTopic {
    // Before version 12 there is always a name.
    let name = wanted.name.or_else(|| (version < 12).then(Str::default));
    MetadataResponseTopic {
        error_code: code.0,
        name,
        topic_id: wanted.topic_id,
        topic_authorized_operations: OPERATIONS_NOT_ASKED,
        ..MetadataResponseTopic::default()
    }
}

fn broker(node: &Node, listener: ListenerKind) -> Option<MetadataResponseBroker> {
    let (host, port) = addresses::of(node, listener)?;
    let rack = node.rack.as_ref().map(Str::from);
    Some(MetadataResponseBroker {
        node_id: node.id.value(),
        host,
        port,
        rack,
        ..MetadataResponseBroker::default()
    })
}
