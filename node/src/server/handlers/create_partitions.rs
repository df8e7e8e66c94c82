//! CreatePartitions (key 37): widens topics.

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};

use super::refusal::Refusal;
use crate::controller::Change;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        results.push(widen(context, topic, request.validate_only).await);
    }
    CreatePartitionsResponse {
        results,
        ..CreatePartitionsResponse::default()
    }
}

async fn widen(
    context: &Context,
    topic: CreatePartitionsTopic,
    validate_only: bool,
) -> CreatePartitionsTopicResult {
    let assignments = topic.assignments.unwrap_or_default().into_iter();
    let change = Change::CreatePartitions {
        topic: topic.name.to_string(),
        count: topic.count,
        assignments: assignments
            .map(|each| each.broker_ids.into_iter().map(NodeId).collect())
            .collect(),
        validate_only,
    };
    let mut result = CreatePartitionsTopicResult {
        name: topic.name,
        ..CreatePartitionsTopicResult::default()
    };
    result.error_message = None;
    match context.services().controller.propose(change).await {
        Ok(applied) if !validate_only => context.services().registry.reconciled(applied.offset).await,
        Ok(_) => {}
        Err(error) => {
            let refusal = Refusal::from(error);
            result.error_code = refusal.code.0;
            result.error_message = refusal.text();
        }
    }
    result
}
