//! [`Draft`]: one produce request while batches are put into it, and what its answer says of each.
//!
//! Pure. It must never hold two batches of one partition: a broker takes one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, NodeId, TopicId};
use headwater_protocol::kafka::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use headwater_protocol::primitives::{Records, Str, Uuid};

use crate::door::Instant;
use crate::producer::Acks;
use crate::producer::batcher::{PartitionKey, Topic};
use crate::producer::sequencer::Outcome;
use crate::routing::{Broker, Cluster, LeaderHint};

/// One batch of a request: its partition, and the number its sequencer knows it by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: PartitionKey,
    pub(super) number: u64,
}

#[derive(Default)]
pub(super) struct Draft {
    topics: BTreeMap<u32, TopicProduceData>,
    entries: Vec<Entry>,
    partitions: BTreeSet<PartitionKey>,
    bytes: usize,
    deadline: Option<Instant>,
}

impl Draft {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn has(&self, partition: PartitionKey) -> bool {
        self.partitions.contains(&partition)
    }

    /// No less than the request will take.
    pub(super) fn bytes(&self) -> usize {
        const PER_REQUEST: usize = 256;
        const PER_BATCH: usize = 64;
        let names: usize = self
            .topics
            .values()
            .map(|topic| topic.name.len() + PER_BATCH)
            .sum();
        PER_REQUEST + self.bytes + names + PER_BATCH * self.entries.len()
    }

    /// The earliest deadline of the batches.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn add(
        &mut self,
        entry: Entry,
        topic: &Topic,
        cluster: &Cluster,
        bytes: Bytes,
        deadline: Instant,
    ) {
        self.bytes += bytes.len();
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        let data = self
            .topics
            .entry(entry.key.0)
            .or_insert_with(|| TopicProduceData {
                name: Str::from(&*topic.name),
                topic_id: cluster
                    .topic(&topic.name)
                    .map_or(Uuid::ZERO, |known| known.id.into()),
                ..Default::default()
            });
        let records = Some(Records::from(bytes));
        data.partition_data.push(PartitionProduceData {
            index: entry.key.1 as i32,
            records,
            ..Default::default()
        });
        self.partitions.insert(entry.key);
        self.entries.push(entry);
    }

    pub(super) fn finish(
        self,
        acks: Acks,
        timeout: Duration,
        transactional_id: Option<&str>,
    ) -> (ProduceRequest, Vec<Entry>) {
        let request = ProduceRequest {
            transactional_id: transactional_id.map(Str::from),
            acks: acks.code(),
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: self.topics.into_values().collect(),
            ..Default::default()
        };
        (request, self.entries)
    }
}

/// What an answer says of each partition; `topic_of` finds a topic by name, or by id where there is no name.
pub(super) fn outcomes(
    answer: &ProduceResponse,
    topic_of: impl Fn(&str, TopicId) -> Option<u32>,
) -> BTreeMap<PartitionKey, (Outcome, Option<LeaderHint>)> {
    let mut outcomes = BTreeMap::new();
    for topic in &answer.responses {
        let Some(index) = topic_of(&topic.name, topic.topic_id.into()) else {
            continue;
        };
        for partition in &topic.partition_responses {
            let Ok(number) = u32::try_from(partition.index) else {
                continue;
            };
            let message = partition
                .record_errors
                .iter()
                .find_map(|record| record.batch_index_error_message.as_deref());
            let message = partition.error_message.as_deref().or(message);
            let (code, time) = (partition.error_code, partition.log_append_time_ms);
            let outcome = Outcome::of(code, partition.base_offset, time, message);
            outcomes.insert(
                (index, number),
                (outcome, hint(answer, &partition.current_leader)),
            );
        }
    }
    outcomes
}

fn hint(
    answer: &ProduceResponse,
    leader: &headwater_protocol::kafka::produce::LeaderIdAndEpoch,
) -> Option<LeaderHint> {
    if leader.leader_id < 0 {
        return None;
    }
    let endpoint = answer
        .node_endpoints
        .iter()
        .find(|endpoint| endpoint.node_id == leader.leader_id);
    let broker = endpoint.and_then(|endpoint| {
        let rack = endpoint.rack.as_ref().map(ToString::to_string);
        Some(Broker {
            host: endpoint.host.to_string(),
            port: u16::try_from(endpoint.port).ok()?,
            rack,
        })
    });
    let (leader, leader_epoch) = (NodeId(leader.leader_id), LeaderEpoch(leader.leader_epoch));
    Some(LeaderHint {
        leader,
        leader_epoch,
        broker,
    })
}
