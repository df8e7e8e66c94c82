//! What the handlers of the transaction APIs have in common, and the way of a produce to its transaction.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_protocol::ids::{PartitionIndex, ProducerEpoch, ProducerId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_partitions_to_txn::AddPartitionsToTxnTopic;
use headwater_protocol::primitives::Str;

use crate::metadata::Image;
use crate::partition::{Partition, Verified};
use crate::server::request::Context;
use crate::transaction::{Add, Producer, TopicPartition, TransactionError, TransactionalId};

/// How long a write waits for its transaction, and how often it asks.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);

pub(super) fn producer(id: i64, epoch: i16) -> Producer {
    Producer {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
    }
}

/// An error as a coordinator tells it; `old` clients know no `PRODUCER_FENCED` (KIP-588).
pub(super) fn code_of(error: TransactionError, old: bool) -> ErrorCode {
    match error {
        TransactionError::NotCoordinator => ErrorCode::NOT_COORDINATOR,
        TransactionError::Loading => ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        TransactionError::NotAvailable => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        TransactionError::Concurrent => ErrorCode::CONCURRENT_TRANSACTIONS,
        TransactionError::InvalidId => ErrorCode::INVALID_REQUEST,
        TransactionError::InvalidTimeout => ErrorCode::INVALID_TRANSACTION_TIMEOUT,
        TransactionError::Fenced if old => ErrorCode::INVALID_PRODUCER_EPOCH,
        TransactionError::Fenced => ErrorCode::PRODUCER_FENCED,
        TransactionError::UnknownProducer => ErrorCode::INVALID_PRODUCER_ID_MAPPING,
        TransactionError::InvalidState => ErrorCode::INVALID_TXN_STATE,
        TransactionError::NeedsProducerId => ErrorCode::UNKNOWN_SERVER_ERROR,
    }
}

/// The partitions that a request names, and those of them that are not there.
pub(super) fn partitions(
    image: &Image,
    topics: &[AddPartitionsToTxnTopic],
) -> (BTreeSet<TopicPartition>, BTreeSet<TopicPartition>) {
    let named = topics.iter().flat_map(|topic| {
        let name: std::sync::Arc<str> = topic.name.as_str().into();
        topic.partitions.iter().map(move |index| TopicPartition {
            topic: std::sync::Arc::clone(&name),
            index: PartitionIndex(*index),
        })
    });
    named.partition(|partition| {
        let topic = image.topic(&partition.topic);
        topic.is_some_and(|topic| topic.partition(partition.index).is_some())
    })
}

/// Makes sure that a partition is part of its producer's transaction before a batch of it is appended. `adds`: the client leaves
/// it to us to say so to the coordinator (KIP-890); else it said so itself. What is returned goes with the append.
pub(super) async fn open(
    context: &Context,
    partition: &Partition,
    id: &Str,
    producer: Producer,
    adds: bool,
) -> Result<Option<Verified>, TransactionError> {
    let services = context.services();
    let name = partition.name();
    let part = TopicPartition {
        topic: std::sync::Arc::clone(&name.topic),
        index: name.index,
    };
    let add = Add {
        id: TransactionalId::from(id.as_str()),
        producer,
        partitions: BTreeSet::from([part]),
        verify_only: !adds,
    };
    let clock = &services.sys.clock;
    let until = clock.now() + PATIENCE;
    loop {
        // Anew each time: the marker of the last transaction may have come meanwhile, and ends nothing of this one.
        let Err(verified) = partition.transaction_of(producer.id, producer.epoch) else {
            return Ok(None);
        };
        match services.transactions.add_anywhere(add.clone()).await {
            Ok(()) => return Ok(Some(verified)),
            // The producer's last transaction is being carried out, or the coordinator is moving: soon over.
            Err(
                TransactionError::Concurrent
                | TransactionError::NotCoordinator
                | TransactionError::Loading
                | TransactionError::NotAvailable,
            ) if clock.now() < until => clock.sleep(PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// As `open` fails, told to whoever writes a partition: what may go later is told as an error that clients repeat.
pub(super) fn code_of_open(error: TransactionError) -> ErrorCode {
    match error {
        TransactionError::Fenced => ErrorCode::INVALID_PRODUCER_EPOCH,
        TransactionError::UnknownProducer => ErrorCode::INVALID_PRODUCER_ID_MAPPING,
        TransactionError::InvalidState | TransactionError::InvalidId => ErrorCode::INVALID_TXN_STATE,
        TransactionError::Concurrent
        | TransactionError::NotCoordinator
        | TransactionError::Loading
        | TransactionError::NotAvailable
        | TransactionError::InvalidTimeout
        | TransactionError::NeedsProducerId => ErrorCode::NOT_ENOUGH_REPLICAS,
    }
}
