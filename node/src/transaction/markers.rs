//! Marks the end of a transaction in every partition it wrote to, wherever that is led.
//!
//! It gives up only where nothing is left to be marked, or where a newer coordinator has decided.

use super::request::{Producer, TopicPartition, by_topic};
use super::state::Decided;
use crate::metadata::View;
use crate::partition::{AppendError, Marker, Registry};
use crate::peer::Peers;
use crate::sys::Sys;
use futures_util::future::join_all;
use headwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use headwater_protocol::primitives::Str;
use headwater_protocol::record::{ControlKind, EndTransaction};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const VERSION: i16 = 1;
/// How long another node may take for its markers.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pauses between attempts, at first and at most; a change of the metadata ends them.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What marking takes.
#[derive(Clone)]
pub(super) struct Markers {
    pub(super) me: NodeId,
    pub(super) sys: Sys,
    pub(super) view: View,
    pub(super) registry: Registry,
    pub(super) peers: Peers,
}

/// What became of one marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Marked,
    /// A newer coordinator has decided: this one is not asked any more.
    Fenced,
    /// Its partition is led elsewhere, or cannot write at the moment.
    Again,
}

impl Markers {
    /// Returns the producer whose transaction is marked everywhere.
    pub(super) async fn mark(self, decided: Decided, coordinator: LeaderEpoch) -> Decided {
        let marker = marker_of(&decided, coordinator);
        let mut left: BTreeSet<TopicPartition> = decided.partitions.clone();
        let mut images = self.view.watch();
        let mut pause = RETRY_MIN;
        loop {
            images.borrow_and_update();
            let mut by_leader: BTreeMap<NodeId, Vec<TopicPartition>> = BTreeMap::new();
            let image = self.view.image();
            left.retain(|partition| match image.topic(&partition.topic) {
                Some(topic) => {
                    let leader = topic.partition(partition.index).map(|state| state.leader);
                    let leader = leader.unwrap_or(NodeId::NONE);
                    by_leader.entry(leader).or_default().push(partition.clone());
                    true
                }
                // It was deleted, with whatever was in it.
                None => false,
            });
            let leaders = by_leader
                .into_iter()
                .filter(|(leader, _)| *leader != NodeId::NONE);
            let sent = leaders.map(|(leader, partitions)| self.send(leader, marker, partitions));
            for (partition, outcome) in join_all(sent).await.into_iter().flatten() {
                if outcome != Outcome::Again {
                    left.remove(&partition);
                }
            }
            if left.is_empty() {
                return decided;
            }
            tokio::select! {
                biased;
                changed = images.changed() => if changed.is_err() { std::future::pending::<()>().await },
                () = self.sys.clock.sleep(pause) => {}
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn send(
        &self,
        leader: NodeId,
        marker: Marker,
        partitions: Vec<TopicPartition>,
    ) -> Vec<(TopicPartition, Outcome)> {
        if leader != self.me {
            return self.send_to(leader, marker, partitions).await;
        }
        let written = partitions.into_iter().map(async |partition| {
            let outcome = match self.registry.get(&partition.topic, partition.index) {
                Some(found) => match found.end_transaction(marker).await {
                    Ok(_) => Outcome::Marked,
                    Err(error) => judge(&error),
                },
                None => Outcome::Again,
            };
            (partition, outcome)
        });
        join_all(written).await
    }

    async fn send_to(
        &self,
        leader: NodeId,
        marker: Marker,
        partitions: Vec<TopicPartition>,
    ) -> Vec<(TopicPartition, Outcome)> {
        let request = request_of(marker, &partitions);
        let client_id = Str::from_static("headwater-coordinator");
        let answer = self
            .peers
            .ask(leader, &request, VERSION, &client_id, PATIENCE)
            .await;
        let mut outcomes = BTreeMap::new();
        match answer {
            Ok(answer) => {
                let topics = answer.markers.into_iter().flat_map(|marker| marker.topics);
                for topic in topics {
                    let name: std::sync::Arc<str> = topic.name.as_str().into();
                    for partition in topic.partitions {
                        let key = TopicPartition {
                            topic: std::sync::Arc::clone(&name),
                            index: PartitionIndex(partition.partition_index),
                        };
                        outcomes.insert(key, judge_code(ErrorCode(partition.error_code)));
                    }
                }
            }
            Err(error) => tracing::debug!(%leader, %error, "markers were not taken"),
        }
        let outcome = |partition: TopicPartition| {
            let outcome = outcomes.get(&partition).copied().unwrap_or(Outcome::Again);
            (partition, outcome)
        };
        partitions.into_iter().map(outcome).collect()
    }
}

fn marker_of(decided: &Decided, coordinator: LeaderEpoch) -> Marker {
    let Producer { id, epoch } = decided.producer;
    Marker {
        producer: id,
        epoch,
        end: EndTransaction {
            kind: match decided.commit {
                true => ControlKind::Commit,
                false => ControlKind::Abort,
            },
            coordinator_epoch: coordinator.value(),
        },
    }
}

fn request_of(marker: Marker, partitions: &[TopicPartition]) -> WriteTxnMarkersRequest {
    let topic = |(name, partition_indexes): (&str, Vec<i32>)| WritableTxnMarkerTopic {
        name: Str::from(name),
        partition_indexes,
        ..WritableTxnMarkerTopic::default()
    };
    WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: marker.producer.value(),
            producer_epoch: marker.epoch.value(),
            transaction_result: marker.end.kind == ControlKind::Commit,
            coordinator_epoch: marker.end.coordinator_epoch,
            topics: by_topic(partitions).into_iter().map(topic).collect(),
            ..WritableTxnMarker::default()
        }],
        ..WriteTxnMarkersRequest::default()
    }
}

fn judge(error: &AppendError) -> Outcome {
    match error {
        AppendError::InvalidProducerEpoch { .. } | AppendError::CoordinatorFenced { .. } => Outcome::Fenced,
        _ => Outcome::Again,
    }
}

fn judge_code(code: ErrorCode) -> Outcome {
    match code {
        ErrorCode::NONE => Outcome::Marked,
        ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::TRANSACTION_COORDINATOR_FENCED => Outcome::Fenced,
        _ => Outcome::Again,
    }
}
