//! What a sender does for the transactions of its producer: it names partitions to the coordinator where the flow asks for
//! it, tells the transaction what was refused, and drops what a failed or aborted one has left.
//!
//! Owns which partitions are being named. It must never send a batch of one that was not.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, AddPartitionsToTxnTopic,
};
use headwater_protocol::primitives::Str;

use super::{Done, Sender};
use crate::door::Instant;
use crate::producer::batcher::PartitionKey;
use crate::producer::delivery::SendError;
use crate::producer::transaction::{Ask, Flow};

/// The last version of Produce in which partitions are named first.
const PRODUCE_NAMED_UNTIL: i16 = 11;
/// The last version in which one producer names its own; later ones are for brokers.
const ADD_OWN_UNTIL: i16 = 3;
const WHAT: &str = "add partitions to the transaction";

/// Which partitions are to become part of the transaction.
#[derive(Default)]
pub(super) struct Adding {
    waiting: BTreeSet<PartitionKey>,
    /// Some are being named.
    busy: bool,
    /// What waits is being dropped.
    doomed: bool,
}

impl Sender {
    /// The newest version in which batches are sent now.
    pub(super) fn newest_produce(&self) -> i16 {
        match &self.shared.transaction {
            Some(transaction) if transaction.flow() == Flow::Named => PRODUCE_NAMED_UNTIL,
            Some(_) | None => i16::MAX,
        }
    }

    /// What everything that waits fails with, if it does.
    pub(super) fn doom(&self) -> Option<SendError> {
        self.shared.transaction.as_ref()?.doom()
    }

    /// Looks at every partition when its transaction has failed or is aborted.
    pub(super) fn heed_transaction(&mut self) {
        if self.shared.transaction.is_none() {
            return;
        }
        let doomed = self.doom().is_some();
        if doomed && !self.adding.doomed {
            self.adding.waiting.clear();
            self.dirty.extend(self.parts.keys());
        }
        self.adding.doomed = doomed;
    }

    /// Whether a batch of this partition may be sent. If not, it is being seen to.
    pub(super) fn admits(&mut self, key: PartitionKey) -> bool {
        let Some(transaction) = &self.shared.transaction else {
            return true;
        };
        let admits = transaction.admits(key);
        if !admits {
            self.adding.waiting.insert(key);
        }
        admits
    }

    /// Names the partitions that wait for it, all at once, unless that is under way.
    pub(super) fn add_partitions(&mut self, now: Instant) {
        let (Some(transaction), Some(coordinator)) = (&self.shared.transaction, &self.coordinator) else {
            return;
        };
        if self.adding.busy || self.adding.waiting.is_empty() {
            return;
        }
        let Some(identity) = transaction.identity() else {
            return;
        };
        self.adding.busy = true;
        let keys: Vec<PartitionKey> = std::mem::take(&mut self.adding.waiting).into_iter().collect();
        let mut topics: BTreeMap<u32, AddPartitionsToTxnTopic> = BTreeMap::new();
        for key in &keys {
            let Some(part) = self.parts.get(key) else { continue };
            let topic = topics.entry(key.0).or_insert_with(|| AddPartitionsToTxnTopic {
                name: Str::from(&*part.topic.name),
                ..Default::default()
            });
            topic.partitions.push(key.1 as i32);
        }
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: Str::from(&*transaction.id),
            v3_and_below_producer_id: identity.id.value(),
            v3_and_below_producer_epoch: identity.epoch.value(),
            v3_and_below_topics: topics.into_values().collect(),
            ..Default::default()
        };
        let number = transaction.announce();
        let (transaction, coordinator) = (transaction.clone(), coordinator.clone());
        let timeout = self.shared.config.delivery_timeout;
        self.work.push(Box::pin(async move {
            let ask = Ask {
                request: &request,
                newest: ADD_OWN_UNTIL,
                deadline: now + timeout,
            };
            match coordinator.ask(ask, code).await {
                Ok(_) => transaction.added(number, &keys),
                Err(refusal) => {
                    let error = refusal.into_error(WHAT, timeout, |code| transaction.refused(code, WHAT));
                    transaction.fail(&error.or_must_abort());
                }
            }
            Done::Added
        }));
    }

    pub(super) fn added(&mut self) {
        self.adding.busy = false;
        self.dirty.extend(self.parts.keys());
    }

    /// A batch was refused for good.
    pub(super) fn refused(&self, code: ErrorCode) {
        if let Some(transaction) = &self.shared.transaction {
            transaction.refused(code, "a batch was refused");
        }
    }
}

/// What an answer refuses: of those that were not tried only because of others, the others.
fn code(answer: &AddPartitionsToTxnResponse) -> ErrorCode {
    let topics = answer.results_by_topic_v3_and_below.iter();
    let codes = topics.flat_map(|topic| &topic.results_by_partition);
    let codes = codes.map(|partition| ErrorCode(partition.partition_error_code));
    let mut refused: Vec<ErrorCode> = codes.filter(|code| *code != ErrorCode::NONE).collect();
    refused.sort_by_key(|code| *code == ErrorCode::OPERATION_NOT_ATTEMPTED);
    refused.first().copied().unwrap_or(ErrorCode::NONE)
}
