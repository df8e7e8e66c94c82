//! DeleteTopics (key 20): by name, or by id from version 6 on.

use headwater_protocol::ids::TopicId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use headwater_protocol::primitives::Str;

use super::refusal::Refusal;
use crate::controller::Change;
use crate::controller::change::TopicRef;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let named = request.topic_names.into_iter().map(|name| DeleteTopicState {
        name: Some(name),
        ..DeleteTopicState::default()
    });
    let mut responses = Vec::new();
    for topic in request.topics.into_iter().chain(named) {
        responses.push(delete(context, topic).await);
    }
    DeleteTopicsResponse {
        responses,
        ..DeleteTopicsResponse::default()
    }
}

async fn delete(context: &Context, topic: DeleteTopicState) -> DeletableTopicResult {
    let id = TopicId::from(topic.topic_id);
    let target = match &topic.name {
        Some(name) => TopicRef::Name(name.to_string()),
        None => TopicRef::Id(id),
    };
    let known = match &target {
        TopicRef::Name(name) => context.services().view.topic(name),
        TopicRef::Id(id) => context.services().view.topic_by_id(*id),
    };
    let mut result = DeletableTopicResult {
        name: known.as_ref().map(|known| Str::from(&*known.name)).or(topic.name),
        topic_id: known.as_ref().map_or(id, |known| known.id).into(),
        ..DeletableTopicResult::default()
    };
    if known.as_ref().is_some_and(|known| known.internal) {
        result.error_code = ErrorCode::INVALID_TOPIC_EXCEPTION.0;
        result.error_message = Some(Str::from_static("the topic is internal"));
        return result;
    }
    match context
        .services()
        .controller
        .propose(Change::DeleteTopic { topic: target })
        .await
    {
        Ok(applied) => context.services().registry.reconciled(applied.offset).await,
        Err(error) => {
            let refusal = Refusal::from(error);
            result.error_code = refusal.code.0;
            result.error_message = refusal.text();
        }
    }
    result
}
