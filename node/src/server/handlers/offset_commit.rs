//! OffsetCommit (key 8): answered when the offsets are on all in-sync replicas.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use super::groups;
use crate::group::{self, Commit, Generation, GroupError, NewOffset, TopicPartition};
use crate::metadata::Image;
use crate::server::errors;
use crate::server::request::Context;

/// From this version on topics are named by id.
const BY_ID_SINCE: i16 = 10;
/// From this version on a client understands that there is no such group (KIP-848). Before, its generation was wrong.
const GROUP_NOT_FOUND_SINCE: i16 = 9;
/// From this version on a client understands that its epoch is stale.
const EPOCHS_SINCE: i16 = 9;

/// Where each partition of the request stands: refused already, or by what it is committed.
type Asked = Vec<(OffsetCommitRequestTopic, Vec<Result<TopicPartition, ErrorCode>>)>;

pub(in crate::server) async fn handle(
    context: &Context,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let image = context.services().view.image();
    let who = groups::identity(
        &request.group_id,
        &request.member_id,
        request.group_instance_id.as_ref(),
    );
    let generation = Generation(request.generation_id_or_member_epoch);
    let by_id = context.version >= BY_ID_SINCE;
    let topics = request.topics.into_iter();
    let mut asked: Asked = topics
        .map(|topic| {
            let partitions = look_up(&image, &topic, by_id);
            (topic, partitions)
        })
        .collect();
    // Versions that do not have it say -1.
    let kept_for = u64::try_from(request.retention_time_ms).ok();
    let offsets = offsets(&mut asked, kept_for.map(Duration::from_millis));
    let committed = match who {
        // Nothing is left to commit: there is nobody to ask.
        Ok(_) if offsets.is_empty() => Ok(Vec::new()),
        Ok(who) => {
            let commit = Commit {
                who,
                generation,
                offsets,
                knows_epochs: context.version >= EPOCHS_SINCE,
                transaction: None,
            };
            let committed = context.services().groups.commit(commit).await;
            committed.map_err(|error| match error {
                GroupError::GroupNotFound if context.version < GROUP_NOT_FOUND_SINCE => {
                    GroupError::IllegalGeneration
                }
                error => error,
            })
        }
        Err(error) => Err(error),
    };
    OffsetCommitResponse {
        topics: answered(asked, committed),
        ..OffsetCommitResponse::default()
    }
}

fn look_up(
    image: &Image,
    topic: &OffsetCommitRequestTopic,
    by_id: bool,
) -> Vec<Result<TopicPartition, ErrorCode>> {
    let name = groups::topic_name(image, &topic.name, topic.topic_id, by_id);
    let partition = |wanted: &OffsetCommitRequestPartition| {
        let name = name.as_ref().map_err(|code| *code)?;
        groups::known_partition(image, name, wanted.partition_index)
    };
    topic.partitions.iter().map(partition).collect()
}

/// What is to be committed. What cannot be is marked so.
fn offsets(asked: &mut Asked, kept_for: Option<Duration>) -> Vec<(TopicPartition, NewOffset)> {
    let mut offsets = Vec::new();
    for (topic, partitions) in asked {
        for (wanted, partition) in topic.partitions.iter().zip(partitions) {
            let Ok(known) = partition else { continue };
            let text = wanted
                .committed_metadata
                .as_ref()
                .map_or("", |text| text.as_str());
            match group::name(text) {
                Ok(metadata) => {
                    let new = NewOffset {
                        offset: Offset(wanted.committed_offset),
                        leader_epoch: LeaderEpoch(wanted.committed_leader_epoch),
                        metadata,
                        kept_for,
                    };
                    offsets.push((known.clone(), new));
                }
                Err(_) => *partition = Err(ErrorCode::OFFSET_METADATA_TOO_LARGE),
            }
        }
    }
    offsets
}

fn answered(
    asked: Asked,
    committed: Result<group::PerPartition, GroupError>,
) -> Vec<OffsetCommitResponseTopic> {
    let results: Result<BTreeMap<_, _>, _> = committed.map(|results| results.into_iter().collect());
    let code = |partition: Result<TopicPartition, ErrorCode>| match (partition, &results) {
        (Err(code), _) => code,
        (Ok(_), Err(error)) => errors::of_group(error),
        (Ok(partition), Ok(results)) => match results.get(&partition) {
            Some(Ok(())) => ErrorCode::NONE,
            Some(Err(error)) => errors::of_group(error),
            None => ErrorCode::UNKNOWN_SERVER_ERROR,
        },
    };
    let topic = |(topic, partitions): (OffsetCommitRequestTopic, Vec<_>)| {
        let wanted = topic.partitions.iter().zip(partitions);
        let partitions = wanted.map(|(wanted, partition)| OffsetCommitResponsePartition {
            partition_index: wanted.partition_index,
            error_code: code(partition).0,
            ..OffsetCommitResponsePartition::default()
        });
        OffsetCommitResponseTopic {
            partitions: partitions.collect(),
            name: topic.name,
            topic_id: topic.topic_id,
            ..OffsetCommitResponseTopic::default()
        }
    };
    asked.into_iter().map(topic).collect()
}
