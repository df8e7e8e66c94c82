//! Offsets: where a partition begins and ends, what a time or an epoch means, and deleting records.
//!
//! Owns the split of one call by partition leader. It must never ask a broker that is known not to lead.

use std::collections::BTreeMap;

use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex};
use headwater_protocol::kafka::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use headwater_protocol::kafka::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use headwater_protocol::kafka::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use headwater_protocol::kafka::{ErrorCode, Request};
use headwater_protocol::primitives::Str;

use super::Admin;
use crate::client::{Client, Target};
use crate::door;
use crate::error::Error;

/// A consumer, not a replica, asks.
const NO_REPLICA: i32 = -1;

/// A place in a partition, by what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first record that is still there.
    Earliest,
    /// Behind the last record.
    Latest,
    /// The first record with this timestamp (milliseconds) or a later one.
    Timestamp(i64),
    /// The record with the largest timestamp.
    MaxTimestamp,
}

impl OffsetSpec {
    const fn code(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::Timestamp(ms) => ms,
        }
    }
}

/// Whether a reader sees records of transactions that are not committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    #[default]
    ReadUncommitted,
    ReadCommitted,
}

impl Isolation {
    pub(crate) const fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// An offset that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// `None` when no record matches the timestamp.
    pub offset: Option<Offset>,
    /// The timestamp of the record found, when one was asked for by time.
    pub timestamp_ms: Option<i64>,
    pub leader_epoch: Option<LeaderEpoch>,
}

impl Admin {
    /// Looks places up in partitions of a topic.
    pub async fn list_offsets(
        &self,
        topic: &str,
        places: &[(PartitionIndex, OffsetSpec)],
        isolation: Isolation,
    ) -> Result<BTreeMap<PartitionIndex, ListedOffset>, Error> {
        list_offsets(&self.client, topic, places, isolation).await
    }

    /// Deletes all records before an offset, in several partitions, and returns where each begins now.
    /// `Offset(-1)` stands for the high watermark.
    pub async fn delete_records(
        &self,
        topic: &str,
        before: &[(PartitionIndex, Offset)],
    ) -> Result<BTreeMap<PartitionIndex, Offset>, Error> {
        let timeout_ms = self.timeout_ms();
        let build = |asked: &[Asked<Offset>]| DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: Str::from(topic),
                partitions: asked
                    .iter()
                    .map(|asked| DeleteRecordsPartition {
                        partition_index: asked.partition.0,
                        offset: asked.what.0,
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }],
            timeout_ms,
            ..Default::default()
        };
        by_leader(&self.client, topic, "delete records", before, build, |answer| {
            let partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
            partitions
                .map(|p| {
                    (
                        PartitionIndex(p.partition_index),
                        p.error_code,
                        Offset(p.low_watermark),
                    )
                })
                .collect()
        })
        .await
    }

    /// Where a leader's reign ended: the epoch that was found (the one asked for or the last before it) and
    /// the offset behind its last record.
    pub async fn epoch_end(
        &self,
        topic: &str,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
    ) -> Result<(LeaderEpoch, Offset), Error> {
        let build = |asked: &[Asked<LeaderEpoch>]| OffsetForLeaderEpochRequest {
            replica_id: NO_REPLICA,
            topics: vec![OffsetForLeaderTopic {
                topic: Str::from(topic),
                partitions: asked
                    .iter()
                    .map(|asked| OffsetForLeaderPartition {
                        partition: asked.partition.0,
                        current_leader_epoch: asked.epoch.0,
                        leader_epoch: asked.what.0,
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let places = [(partition, epoch)];
        let found = by_leader(&self.client, topic, "epoch end", &places, build, |answer| {
            let partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
            let place = |p: &_| end_of(p);
            partitions
                .map(|p| (PartitionIndex(p.partition), p.error_code, place(&p)))
                .collect()
        });
        found
            .await?
            .remove(&partition)
            .ok_or_else(|| super::topics::unanswered("epoch end"))
    }
}

fn end_of(
    answer: &headwater_protocol::kafka::offset_for_leader_epoch::EpochEndOffset,
) -> (LeaderEpoch, Offset) {
    (LeaderEpoch(answer.leader_epoch), Offset(answer.end_offset))
}

/// Looks places up, each at the leader of its partition.
pub(crate) async fn list_offsets(
    client: &Client,
    topic: &str,
    places: &[(PartitionIndex, OffsetSpec)],
    isolation: Isolation,
) -> Result<BTreeMap<PartitionIndex, ListedOffset>, Error> {
    let timeout_ms = i32::try_from(client.config().request_timeout.as_millis()).unwrap_or(i32::MAX);
    let build = |asked: &[Asked<OffsetSpec>]| ListOffsetsRequest {
        replica_id: NO_REPLICA,
        isolation_level: isolation.code(),
        topics: vec![ListOffsetsTopic {
            name: Str::from(topic),
            partitions: asked
                .iter()
                .map(|asked| ListOffsetsPartition {
                    partition_index: asked.partition.0,
                    current_leader_epoch: asked.epoch.0,
                    timestamp: asked.what.code(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }],
        timeout_ms,
        ..Default::default()
    };
    by_leader(client, topic, "list offsets", places, build, |answer| {
        let partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        let listed =
            |p: &headwater_protocol::kafka::list_offsets::ListOffsetsPartitionResponse| ListedOffset {
                offset: (p.offset >= 0).then_some(Offset(p.offset)),
                timestamp_ms: (p.timestamp >= 0).then_some(p.timestamp),
                leader_epoch: (p.leader_epoch >= 0).then_some(LeaderEpoch(p.leader_epoch)),
            };
        partitions
            .map(|p| (PartitionIndex(p.partition_index), p.error_code, listed(&p)))
            .collect()
    })
    .await
}

/// One partition's part of a call.
struct Asked<K> {
    partition: PartitionIndex,
    epoch: LeaderEpoch,
    what: K,
}

/// Splits a call by leader and repeats the parts whose leader had moved, until all are answered or the time
/// is up. Such calls give the same result when they are made twice.
async fn by_leader<K: Copy, R: Request, T>(
    client: &Client,
    topic: &str,
    what: &str,
    places: &[(PartitionIndex, K)],
    build: impl Fn(&[Asked<K>]) -> R,
    read: impl Fn(R::Response) -> Vec<(PartitionIndex, i16, T)>,
) -> Result<BTreeMap<PartitionIndex, T>, Error> {
    let what = format!("{what} of {topic:?}");
    let timeout = client.config().request_timeout;
    let deadline = door::now() + timeout;
    let mut left: BTreeMap<PartitionIndex, K> = places.iter().copied().collect();
    let mut found = BTreeMap::new();
    let mut failures = 0;
    loop {
        let mut last = None;
        for (node, asked) in split(client, topic, &left).await? {
            let time = deadline.saturating_duration_since(door::now());
            let Some(node) = node else {
                let partition = asked.first().map_or(PartitionIndex(-1), |asked| asked.partition);
                last = Some(Error::NoLeader {
                    topic: topic.to_owned(),
                    partition,
                });
                continue;
            };
            match client.call(Target::Node(node), &build(&asked), time).await {
                Ok(answer) => {
                    for (partition, code, value) in read(answer) {
                        if code == ErrorCode::NONE.0 {
                            left.remove(&partition);
                            found.insert(partition, value);
                            continue;
                        }
                        let failure = Error::refused(format!("{what} partition {partition}"), code, None);
                        if !failure.is_retriable() {
                            return Err(failure);
                        }
                        last = Some(failure);
                    }
                }
                Err(failure) if failure.is_retriable() => last = Some(failure),
                Err(failure) => return Err(failure),
            }
        }
        if left.is_empty() {
            return Ok(found);
        }
        failures += 1;
        let pause = client.config().backoff.pause(failures, door::random_u64());
        if door::now() + pause >= deadline {
            let last = last.map_or_else(
                || "not every partition was answered".to_owned(),
                |last| last.to_string(),
            );
            return Err(Error::TimedOut { what, timeout, last });
        }
        door::sleep_until(door::now() + pause).await;
        // When nobody can be reached the next attempt says so.
        let _ = client.metadata().refresh().await;
    }
}

/// The partitions grouped by leader; those without one under `None`.
async fn split<K: Copy>(
    client: &Client,
    topic: &str,
    places: &BTreeMap<PartitionIndex, K>,
) -> Result<BTreeMap<Option<NodeId>, Vec<Asked<K>>>, Error> {
    let known = client.topic(topic).await?;
    let mut groups: BTreeMap<Option<NodeId>, Vec<Asked<K>>> = BTreeMap::new();
    for (&partition, &what) in places {
        let state = usize::try_from(partition.0)
            .ok()
            .and_then(|index| known.partitions.get(index));
        let state = state.ok_or_else(|| Error::UnknownPartition {
            topic: topic.to_owned(),
            partition,
            count: known.partitions.len(),
        })?;
        groups.entry(state.leader).or_default().push(Asked {
            partition,
            epoch: state.leader_epoch,
            what,
        });
    }
    Ok(groups)
}
