//! The transactions of the test broker: one coordinator for all ids and groups, with the rules of both flows.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_offsets_to_txn::AddOffsetsToTxnRequest;
use headwater_protocol::kafka::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopicResult,
};
use headwater_protocol::kafka::end_txn::{EndTxnRequest, EndTxnResponse};
use headwater_protocol::kafka::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use headwater_protocol::kafka::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
};

use super::State;

/// The first versions in which a transaction has an epoch of its own, and its partitions are not named.
const PRODUCE_IMPLIES_SINCE: i16 = 12;
const IMPLIES_SINCE: i16 = 5;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    #[default]
    Empty,
    Ongoing,
    Committed,
    Aborted,
}

/// A transactional id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) producer: (i64, i16),
    before: Option<(i64, i16)>,
    pub(crate) stage: Stage,
    partitions: BTreeSet<(String, i32)>,
    groups: BTreeSet<String>,
    offsets: BTreeMap<(String, String, i32), i64>,
}

impl Transaction {
    fn check(&self, id: i64, epoch: i16) -> Result<(), ErrorCode> {
        match (id, epoch) {
            producer if producer == self.producer => Ok(()),
            (id, _) if id == self.producer.0 => Err(ErrorCode::PRODUCER_FENCED),
            _ => Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING),
        }
    }

    fn begin(&mut self) {
        if self.stage != Stage::Ongoing {
            self.stage = Stage::Ongoing;
            self.partitions.clear();
            self.groups.clear();
            self.offsets.clear();
        }
    }
}

impl State {
    pub(super) fn init(&mut self, request: &InitProducerIdRequest) -> InitProducerIdResponse {
        let Some(name) = &request.transactional_id else {
            self.next_producer_id += 1;
            return InitProducerIdResponse {
                producer_id: self.next_producer_id,
                ..Default::default()
            };
        };
        let name = name.to_string();
        let asked = (request.producer_id, request.producer_epoch);
        let known = self.transactions.get(&name).cloned();
        let goes_on =
            |known: &Transaction| asked.0 < 0 || asked == known.producer || Some(asked) == known.before;
        let producer = match &known {
            Some(known) if !goes_on(known) => {
                return InitProducerIdResponse {
                    error_code: ErrorCode::PRODUCER_FENCED.0,
                    ..Default::default()
                };
            }
            Some(known) => (known.producer.0, known.producer.1 + 1),
            None => {
                self.next_producer_id += 1;
                (self.next_producer_id, 0)
            }
        };
        if known.is_some_and(|known| known.stage == Stage::Ongoing) {
            self.finish(&name, false);
        }
        let transaction = self.transactions.entry(name).or_default();
        *transaction = Transaction {
            producer,
            before: (asked.0 >= 0).then_some(asked),
            ..Transaction::default()
        };
        InitProducerIdResponse {
            producer_id: producer.0,
            producer_epoch: producer.1,
            ..Default::default()
        }
    }

    pub(super) fn add_partitions(
        &mut self,
        request: &AddPartitionsToTxnRequest,
    ) -> AddPartitionsToTxnResponse {
        let producer = (
            request.v3_and_below_producer_id,
            request.v3_and_below_producer_epoch,
        );
        let id = &request.v3_and_below_transactional_id;
        let checked = self.transaction(id, producer).map(|transaction| {
            transaction.begin();
            for topic in &request.v3_and_below_topics {
                let places = topic
                    .partitions
                    .iter()
                    .map(|index| (topic.name.to_string(), *index));
                transaction.partitions.extend(places);
            }
        });
        let code = checked.err().map_or(0, |code| code.0);
        add_answer(request, code)
    }

    pub(super) fn add_offsets(&mut self, request: &AddOffsetsToTxnRequest) -> i16 {
        let producer = (request.producer_id, request.producer_epoch);
        let added = self
            .transaction(&request.transactional_id, producer)
            .map(|transaction| {
                transaction.begin();
                transaction.groups.insert(request.group_id.to_string());
            });
        added.err().map_or(0, |code| code.0)
    }

    pub(super) fn commit_offsets(
        &mut self,
        request: &TxnOffsetCommitRequest,
        version: i16,
        refused: Option<i16>,
    ) -> TxnOffsetCommitResponse {
        let producer = (request.producer_id, request.producer_epoch);
        let group = request.group_id.to_string();
        let generation = self.generation;
        let committed = self
            .transaction(&request.transactional_id, producer)
            .and_then(|transaction| {
                if version >= IMPLIES_SINCE {
                    transaction.begin();
                } else if !transaction.groups.contains(&group) {
                    return Err(ErrorCode::INVALID_TXN_STATE);
                }
                if request.generation_id >= 0 && request.generation_id != generation {
                    return Err(ErrorCode::ILLEGAL_GENERATION);
                }
                for topic in &request.topics {
                    for it in &topic.partitions {
                        let place = (group.clone(), topic.name.to_string(), it.partition_index);
                        transaction.offsets.insert(place, it.committed_offset);
                    }
                }
                Ok(())
            });
        let code = refused.unwrap_or_else(|| committed.err().map_or(0, |code| code.0));
        let topics = request.topics.iter().map(|topic| TxnOffsetCommitResponseTopic {
            name: topic.name.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|it| TxnOffsetCommitResponsePartition {
                    partition_index: it.partition_index,
                    error_code: code,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        });
        TxnOffsetCommitResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }

    pub(super) fn end(&mut self, request: &EndTxnRequest, version: i16) -> EndTxnResponse {
        match self.ended(request, version) {
            Ok((producer_id, producer_epoch)) if version >= IMPLIES_SINCE => EndTxnResponse {
                producer_id,
                producer_epoch,
                ..Default::default()
            },
            Ok(_) => EndTxnResponse::default(),
            Err(code) => EndTxnResponse {
                error_code: code.0,
                ..Default::default()
            },
        }
    }

    fn ended(&mut self, request: &EndTxnRequest, version: i16) -> Result<(i64, i16), ErrorCode> {
        let id = request.transactional_id.to_string();
        let producer = (request.producer_id, request.producer_epoch);
        let bumps = version >= IMPLIES_SINCE;
        let wanted = if request.committed {
            Stage::Committed
        } else {
            Stage::Aborted
        };
        let known = self
            .transactions
            .get(&id)
            .ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        if bumps && known.before == Some(producer) && known.stage == wanted {
            return Ok(known.producer);
        }
        let transaction = self.transaction(&id, producer)?;
        match transaction.stage {
            Stage::Ongoing => {}
            stage if stage == wanted && !bumps => return Ok(producer),
            _ if bumps && !request.committed => {
                transaction.partitions.clear();
                transaction.offsets.clear();
            }
            _ => return Err(ErrorCode::INVALID_TXN_STATE),
        }
        self.finish(&id, request.committed);
        let transaction = self.transactions.get_mut(&id).unwrap();
        if bumps {
            transaction.before = Some(producer);
            transaction.producer.1 += 1;
        }
        Ok(transaction.producer)
    }

    /// Writes what markers say.
    fn finish(&mut self, id: &str, commit: bool) {
        let transaction = self.transactions.get_mut(id).unwrap();
        transaction.stage = if commit { Stage::Committed } else { Stage::Aborted };
        let (producer, places) = (
            transaction.producer.0,
            std::mem::take(&mut transaction.partitions),
        );
        let offsets = std::mem::take(&mut transaction.offsets);
        for (topic, index) in places {
            let logs = self.topics.get_mut(&topic);
            if let Some(log) = logs.and_then(|logs| logs.get_mut(index as usize)) {
                log.end_transaction(producer, commit);
            }
        }
        if commit {
            self.offsets.extend(offsets);
        }
    }

    /// Whether a batch of a transaction may be written.
    pub(super) fn admit(
        &mut self,
        id: &str,
        producer: (i64, i16),
        place: (String, i32),
        version: i16,
    ) -> Result<(), ErrorCode> {
        let transaction = self.transaction(id, producer);
        let transaction = transaction.map_err(|code| match code {
            ErrorCode::PRODUCER_FENCED => ErrorCode::INVALID_PRODUCER_EPOCH,
            code => code,
        })?;
        if version >= PRODUCE_IMPLIES_SINCE {
            transaction.begin();
            transaction.partitions.insert(place);
            return Ok(());
        }
        match transaction.stage == Stage::Ongoing && transaction.partitions.contains(&place) {
            true => Ok(()),
            false => Err(ErrorCode::INVALID_TXN_STATE),
        }
    }

    fn transaction(&mut self, id: &str, producer: (i64, i16)) -> Result<&mut Transaction, ErrorCode> {
        let transaction = self.transactions.get_mut(id);
        let transaction = transaction.ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        transaction.check(producer.0, producer.1)?;
        Ok(transaction)
    }
}

pub(super) fn add_answer(request: &AddPartitionsToTxnRequest, code: i16) -> AddPartitionsToTxnResponse {
    let topics = request
        .v3_and_below_topics
        .iter()
        .map(|topic| AddPartitionsToTxnTopicResult {
            name: topic.name.clone(),
            results_by_partition: topic
                .partitions
                .iter()
                .map(|index| AddPartitionsToTxnPartitionResult {
                    partition_index: *index,
                    partition_error_code: code,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        });
    AddPartitionsToTxnResponse {
        results_by_topic_v3_and_below: topics.collect(),
        ..Default::default()
    }
}
