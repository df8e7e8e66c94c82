//! Who writes to a partition with sequence numbers (KIP-664).
//!
//! Owns the translation of this call only.

use headwater_protocol::ids::{NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId};
use headwater_protocol::kafka::describe_producers::{DescribeProducersRequest, ProducerState, TopicRequest};
use headwater_protocol::primitives::Str;

use super::topics::{accepted, unanswered};
use super::{Admin, Kind};
use crate::client::Target;
use crate::error::Error;

/// An idempotent producer, as a partition's leader remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// Of its last record.
    pub last_sequence: i32,
    /// When it wrote last, in milliseconds since 1970.
    pub last_timestamp_ms: i64,
    /// Of the coordinator that ended its last transaction here; `None`: none did.
    pub coordinator_epoch: Option<i32>,
    /// Where the transaction begins that it has open here; `None`: it has none.
    pub open_from: Option<Offset>,
}

impl Admin {
    /// The idempotent producers that the partition's leader remembers.
    pub async fn describe_producers(
        &self,
        topic: &str,
        partition: PartitionIndex,
    ) -> Result<Vec<ActiveProducer>, Error> {
        let what = format!("describe the producers of {topic}-{partition}");
        let leader = self.leader_of(topic, partition).await?;
        let target = leader.map_or(Target::Any, Target::Node);
        let request = DescribeProducersRequest {
            topics: vec![TopicRequest {
                name: Str::from(topic),
                partition_indexes: vec![partition.value()],
                ..Default::default()
            }],
            ..Default::default()
        };
        self.ask(Kind::Question, target, &what, &request, |answer| {
            let topic = answer.topics.into_iter().next();
            let told = topic.and_then(|topic| topic.partitions.into_iter().next());
            let told = told.ok_or_else(|| unanswered(&what))?;
            accepted(&what, told.error_code, told.error_message.as_ref())?;
            Ok(told.active_producers.iter().map(read).collect())
        })
        .await
    }

    /// Who leads a partition, fresh from the cluster.
    pub(super) async fn leader_of(
        &self,
        topic: &str,
        partition: PartitionIndex,
    ) -> Result<Option<NodeId>, Error> {
        let known = self.describe_topic(topic).await?;
        let index = usize::try_from(partition.value()).ok();
        let state = index.and_then(|index| known.partitions.get(index));
        let state = state.ok_or_else(|| Error::UnknownPartition {
            topic: topic.to_owned(),
            partition,
            count: known.partitions.len(),
        })?;
        Ok(state.leader)
    }
}

pub(super) fn read(state: &ProducerState) -> ActiveProducer {
    ActiveProducer {
        id: ProducerId(state.producer_id),
        epoch: ProducerEpoch(i16::try_from(state.producer_epoch).unwrap_or(i16::MAX)),
        last_sequence: state.last_sequence,
        last_timestamp_ms: state.last_timestamp,
        coordinator_epoch: Some(state.coordinator_epoch).filter(|epoch| *epoch >= 0),
        open_from: Some(Offset(state.current_txn_start_offset)).filter(|offset| offset.0 >= 0),
    }
}
