//! EndTxn (key 26): a producer commits or aborts its transaction. It is answered when that is decided and kept; the markers follow. From
//! version 5 on the producer goes on in the next epoch (KIP-890).

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::end_txn::{EndTxnRequest, EndTxnResponse};

use super::init_producer_id;
use super::transactions::{code_of, producer};
use crate::server::request::Context;
use crate::transaction::{End, Producer, TransactionError, TransactionalId};

const BUMPS_EPOCH_SINCE: i16 = 5;
/// Before this version clients know no `PRODUCER_FENCED`.
const FENCED_SINCE: i16 = 2;

pub(in crate::server) async fn handle(context: &Context, request: EndTxnRequest) -> EndTxnResponse {
    let bumps_epoch = context.version >= BUMPS_EPOCH_SINCE;
    let end = End {
        id: TransactionalId::from(request.transactional_id.as_str()),
        producer: producer(request.producer_id, request.producer_epoch),
        commit: request.committed,
        bumps_epoch,
        fresh: None,
    };
    match ended(context, end).await {
        Ok(next) if bumps_epoch => EndTxnResponse {
            producer_id: next.id.value(),
            producer_epoch: next.epoch.value(),
            ..EndTxnResponse::default()
        },
        Ok(_) => EndTxnResponse::default(),
        Err(code) => EndTxnResponse {
            error_code: code.0,
            ..EndTxnResponse::default()
        },
    }
}

async fn ended(context: &Context, end: End) -> Result<Producer, ErrorCode> {
    let transactions = &context.services().transactions;
    let ended = match transactions.end(end.clone()).await {
        Err(TransactionError::NeedsProducerId) => {
            let fresh = Some(init_producer_id::fresh(context).await?);
            transactions.end(End { fresh, ..end }).await
        }
        ended => ended,
    };
    ended.map_err(|error| code_of(error, context.version < FENCED_SINCE))
}
