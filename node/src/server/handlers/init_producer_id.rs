//! InitProducerId: an id that nobody else has, for idempotent producers; or the next epoch of a transactional id, which fences
//! whoever had it before (KIP-98, KIP-360).

use std::time::Duration;

use headwater_protocol::ids::{ProducerEpoch, ProducerId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use headwater_protocol::primitives::Str;

use super::transactions::{code_of, producer};
use crate::server::errors;
use crate::server::request::Context;
use crate::transaction::{Begin, Producer, TransactionError, TransactionalId};

pub(in crate::server) async fn handle(
    context: &Context,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let next = match &request.transactional_id {
        Some(id) => begun(context, id, &request).await,
        None => fresh(context).await.map(|id| Producer {
            id,
            epoch: ProducerEpoch(0),
        }),
    };
    match next {
        Ok(producer) => InitProducerIdResponse {
            producer_id: producer.id.value(),
            producer_epoch: producer.epoch.value(),
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

/// An id that nobody else has.
pub(super) async fn fresh(context: &Context) -> Result<ProducerId, ErrorCode> {
    let ids = &context.caller.shared.producer_ids;
    let next = ids.next(&context.services().controller).await;
    next.map_err(|error| errors::of_propose(&error))
}

async fn begun(context: &Context, id: &Str, request: &InitProducerIdRequest) -> Result<Producer, ErrorCode> {
    let before = match (request.producer_id, request.producer_epoch) {
        (-1, -1) => None,
        (id, epoch) if id >= 0 && epoch >= 0 => Some(producer(id, epoch)),
        _ => return Err(ErrorCode::INVALID_REQUEST),
    };
    let begin = Begin {
        id: TransactionalId::from(id.as_str()),
        timeout: Duration::from_millis(u64::try_from(request.transaction_timeout_ms).unwrap_or(0)),
        before,
        fresh: None,
    };
    let transactions = &context.services().transactions;
    let begun = match transactions.begin(begin.clone()).await {
        Err(TransactionError::NeedsProducerId) => {
            let fresh = Some(fresh(context).await?);
            transactions.begin(Begin { fresh, ..begin }).await
        }
        begun => begun,
    };
    begun.map_err(|error| code_of(error, context.version < FENCED_SINCE))
}

/// Before this version clients know no `PRODUCER_FENCED`.
const FENCED_SINCE: i16 = 4;
