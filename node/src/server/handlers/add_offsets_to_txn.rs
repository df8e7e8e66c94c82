//! AddOffsetsToTxn (key 25): a group's offsets become part of a transaction (KIP-98).

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::transactions::{code_of, producer};
use crate::metadata::topic::OFFSETS_TOPIC;
use crate::server::errors;
use crate::server::request::Context;
use crate::transaction::{Add, TopicPartition, TransactionalId};

/// Before this version clients know no `PRODUCER_FENCED`.
const FENCED_SINCE: i16 = 2;

pub(in crate::server) async fn handle(
    context: &Context,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let code = match add(context, &request).await {
        Ok(()) => ErrorCode::NONE,
        Err(code) => code,
    };
    AddOffsetsToTxnResponse {
        error_code: code.0,
        ..AddOffsetsToTxnResponse::default()
    }
}

async fn add(context: &Context, request: &AddOffsetsToTxnRequest) -> Result<(), ErrorCode> {
    let services = context.services();
    // The offsets' topic is made now if nobody needed it before.
    let coordinator = services.groups.coordinator_of(&request.group_id).await;
    coordinator.map_err(|error| errors::of_group(&error))?;
    let index = services.groups.offsets_partition(&request.group_id);
    let index = index.ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
    let offsets = TopicPartition {
        topic: Arc::from(OFFSETS_TOPIC),
        index,
    };
    let add = Add {
        id: TransactionalId::from(request.transactional_id.as_str()),
        producer: producer(request.producer_id, request.producer_epoch),
        partitions: BTreeSet::from([offsets]),
        verify_only: false,
    };
    let added = services.transactions.add(add).await;
    added.map_err(|error| code_of(error, context.version < FENCED_SINCE))
}
