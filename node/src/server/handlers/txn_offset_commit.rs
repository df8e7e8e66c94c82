//! TxnOffsetCommit (key 28): a group's offsets are committed with a transaction (KIP-98, KIP-447). From version 5 on the group's
//! coordinator says so to the transaction's by itself (KIP-890).

use std::collections::BTreeMap;

use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
};

use super::groups;
use super::transactions::{code_of_open, open, producer};
use crate::group::{self, Commit, Generation, GroupError, InTransaction, NewOffset, TopicPartition};
use crate::metadata::topic::OFFSETS_TOPIC;
use crate::server::errors;
use crate::server::request::Context;

const ADDS_SINCE: i16 = 5;

type Results = BTreeMap<TopicPartition, ErrorCode>;

pub(in crate::server) async fn handle(
    context: &Context,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let results = commit(context, &request).await;
    let code = |topic: &str, index: i32| match &results {
        Ok(results) => {
            let key = TopicPartition {
                topic: topic.into(),
                index: headwater_protocol::ids::PartitionIndex(index),
            };
            results
                .get(&key)
                .copied()
                .unwrap_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
        }
        Err(code) => *code,
    };
    let topics = request.topics.iter().map(|topic| TxnOffsetCommitResponseTopic {
        partitions: topic
            .partitions
            .iter()
            .map(|partition| TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: code(&topic.name, partition.partition_index).0,
                ..TxnOffsetCommitResponsePartition::default()
            })
            .collect(),
        name: topic.name.clone(),
        ..TxnOffsetCommitResponseTopic::default()
    });
    TxnOffsetCommitResponse {
        topics: topics.collect(),
        ..TxnOffsetCommitResponse::default()
    }
}

async fn commit(context: &Context, request: &TxnOffsetCommitRequest) -> Result<Results, ErrorCode> {
    // Versions of this API know no GROUP_ID_NOT_FOUND, and no epochs of members.
    let of_group = |error| match error {
        GroupError::GroupNotFound | GroupError::StaleEpoch => ErrorCode::ILLEGAL_GENERATION,
        error => errors::of_group(&error),
    };
    let who = groups::identity(
        &request.group_id,
        &request.member_id,
        request.group_instance_id.as_ref(),
    );
    let who = who.map_err(of_group)?;
    let services = context.services();
    let producer = producer(request.producer_id, request.producer_epoch);
    let index = services.groups.offsets_partition(&request.group_id);
    let index = index.ok_or(ErrorCode::NOT_COORDINATOR)?;
    let partition = services.registry.get(OFFSETS_TOPIC, index);
    let partition = partition.filter(crate::partition::Partition::is_leader);
    let partition = partition.ok_or(ErrorCode::NOT_COORDINATOR)?;
    let adds = context.version >= ADDS_SINCE;
    let opened = open(context, &partition, &request.transactional_id, producer, adds).await;
    let verified = opened.map_err(|error| match code_of_open(error) {
        // What a produce repeats, a commit repeats by another code.
        ErrorCode::NOT_ENOUGH_REPLICAS => ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        code => code,
    })?;
    let (offsets, mut results) = offsets(context, request).map_err(of_group)?;
    if offsets.is_empty() {
        return Ok(results);
    }
    let commit = Commit {
        who,
        // Versions that have none say -1.
        generation: Generation(request.generation_id),
        offsets,
        knows_epochs: true,
        transaction: Some(InTransaction {
            producer: producer.id,
            epoch: producer.epoch,
            verified,
        }),
    };
    let committed = services.groups.commit(commit).await.map_err(of_group)?;
    let code = |result: Result<(), _>| result.map_or_else(of_group, |()| ErrorCode::NONE);
    results.extend(
        committed
            .into_iter()
            .map(|(partition, result)| (partition, code(result))),
    );
    Ok(results)
}

/// What is to be committed, and what cannot be. A partition that is not there is in neither.
fn offsets(
    context: &Context,
    request: &TxnOffsetCommitRequest,
) -> Result<(Vec<(TopicPartition, NewOffset)>, Results), GroupError> {
    let image = context.services().view.image();
    let (mut offsets, mut results) = (Vec::new(), Results::new());
    for topic in &request.topics {
        let name = group::name(&topic.name)?;
        for wanted in &topic.partitions {
            let Ok(known) = groups::known_partition(&image, &name, wanted.partition_index) else {
                continue;
            };
            let text = wanted
                .committed_metadata
                .as_ref()
                .map_or("", |text| text.as_str());
            let Ok(metadata) = group::name(text) else {
                results.insert(known, ErrorCode::OFFSET_METADATA_TOO_LARGE);
                continue;
            };
            let new = NewOffset {
                offset: Offset(wanted.committed_offset),
                leader_epoch: LeaderEpoch(wanted.committed_leader_epoch),
                metadata,
                kept_for: None,
            };
            offsets.push((known, new));
        }
    }
    Ok((offsets, results))
}
