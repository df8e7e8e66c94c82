//! InitProducerId: an id that nobody else has, for idempotent producers.

use headwater_protocol::ids::ProducerId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use tokio::sync::Mutex;

use crate::controller::{Change, Outcome, ProducerIdBlock, ProposeError};
use crate::server::errors;
use crate::server::request::Context;

/// The ids this node may still hand out: the controller gives them in blocks, so that most producers cost no change
/// of the metadata.
#[derive(Default)]
pub(in crate::server) struct Ids {
    block: Mutex<Option<ProducerIdBlock>>,
}

pub(in crate::server) async fn handle(
    context: &Context,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    // Transactions are not served yet: a client that wants one is told so at once, for good.
    let next = match request.transactional_id {
        Some(id) if id.is_empty() => Err(ErrorCode::INVALID_REQUEST),
        Some(_) => Err(ErrorCode::UNSUPPORTED_VERSION),
        None => next(context).await.map_err(|error| errors::of_propose(&error)),
    };
    match next {
        Ok(id) => InitProducerIdResponse {
            producer_id: id.value(),
            producer_epoch: 0,
            ..Default::default()
        },
        Err(code) => InitProducerIdResponse {
            error_code: code.0,
            producer_id: ProducerId::NONE.value(),
            producer_epoch: -1,
            ..Default::default()
        },
    }
}

async fn next(context: &Context) -> Result<ProducerId, ProposeError> {
    let mut block = context.caller.shared.producer_ids.block.lock().await;
    let ProducerIdBlock { first, count } = match *block {
        Some(block) if block.count > 0 => block,
        Some(_) | None => match context
            .services()
            .controller
            .propose(Change::AllocateProducerIds)
            .await?
            .outcome
        {
            Outcome::ProducerIds(new) => new,
            Outcome::Done
            | Outcome::Topic(_)
            | Outcome::Module(_)
            | Outcome::Node(_)
            | Outcome::Partition(_) => {
                let reason = "the controller answered another question".to_owned();
                return Err(ProposeError::Storage(reason));
            }
        },
    };
    *block = Some(ProducerIdBlock {
        first: ProducerId(first.value() + 1),
        count: count - 1,
    });
    Ok(first)
}
