//! DeleteShareGroupOffsets (key 92, KIP-932): what was delivered of some topics to a share group without members is forgotten.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse, DeleteShareGroupOffsetsResponseTopic,
};

use super::share;
use crate::server::errors;
use crate::server::request::Context;
use crate::share::Place;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    match delete(context, &request).await {
        Ok(responses) => DeleteShareGroupOffsetsResponse {
            responses,
            ..DeleteShareGroupOffsetsResponse::default()
        },
        Err(code) => DeleteShareGroupOffsetsResponse {
            error_code: code.0,
            ..DeleteShareGroupOffsetsResponse::default()
        },
    }
}

async fn delete(
    context: &Context,
    request: &DeleteShareGroupOffsetsRequest,
) -> Result<Vec<DeleteShareGroupOffsetsResponseTopic>, ErrorCode> {
    let group = share::empty_group(context, &request.group_id).await?;
    let image = context.services().view.image();
    let mut places: Vec<Place> = Vec::new();
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let known = image.topic(&topic.topic_name);
        if let Some(known) = known {
            places.extend(known.indexes().map(|index| (known.id, index)));
        }
        let code = match known {
            Some(_) => ErrorCode::NONE,
            None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        };
        responses.push(DeleteShareGroupOffsetsResponseTopic {
            topic_name: topic.topic_name.clone(),
            topic_id: known.map(|topic| topic.id.into()).unwrap_or_default(),
            error_code: code.0,
            ..DeleteShareGroupOffsetsResponseTopic::default()
        });
    }
    if !places.is_empty() {
        let forgotten = context.services().shares.forget(&group, Some(places)).await;
        forgotten.map_err(|error| errors::of_share(&error))?;
    }
    Ok(responses)
}
