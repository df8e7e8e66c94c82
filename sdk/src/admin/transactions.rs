//! Transactions: which there are and where they stand, those that hang, and getting rid of them (KIP-664).
//!
//! Owns the translation of these calls, and what makes a transaction a hanging one. It must never call one hanging that a
//! coordinator may know of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::{NodeId, PartitionIndex, ProducerEpoch, ProducerId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_producers::{DescribeProducersRequest, TopicRequest};
use headwater_protocol::kafka::describe_transactions::{DescribeTransactionsRequest, TransactionState};
use headwater_protocol::kafka::init_producer_id::InitProducerIdRequest;
use headwater_protocol::kafka::list_transactions::{ListTransactionsRequest, ListTransactionsResponse};
use headwater_protocol::kafka::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use headwater_protocol::primitives::Str;

use super::coordinator::Ask;
use super::groups::by_topic;
use super::producers::{ActiveProducer, read as read_producer};
use super::topics::{accepted, unanswered};
use super::{Admin, Kind};
use crate::client::Target;
use crate::consumer::TopicPartition;
use crate::door;
use crate::error::Error;

/// Where brokers keep what coordinators know.
const STATE_TOPIC: &str = "__transaction_state";

/// A producer id and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// Which transactions are listed. By default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    /// By Kafka's names of their states, such as `Ongoing`; empty: any.
    pub states: Vec<String>,
    /// Empty: any.
    pub producer_ids: Vec<ProducerId>,
    /// Only those that have been open for longer. Needs a broker of Kafka 3.8 or later.
    pub open_for: Option<Duration>,
}

/// A transactional id, as its coordinator lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionListing {
    pub transactional_id: String,
    pub coordinator: NodeId,
    pub producer_id: ProducerId,
    /// `Empty`, `Ongoing`, `PrepareCommit`, `PrepareAbort`, `CompleteCommit` or `CompleteAbort`.
    pub state: String,
}

/// A transactional id and where its transaction stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionDescription {
    pub transactional_id: String,
    pub coordinator: NodeId,
    /// As in [`TransactionListing::state`].
    pub state: String,
    pub producer: ProducerIdentity,
    /// After so long its coordinator aborts it.
    pub timeout: Duration,
    /// In milliseconds since 1970; `None`: none is open.
    pub started_ms: Option<i64>,
    /// Those that are part of it and have no marker yet.
    pub partitions: BTreeSet<TopicPartition>,
}

/// A transaction that one partition has open, as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    pub partition: TopicPartition,
    pub producer: ActiveProducer,
}

impl Admin {
    /// The transactional ids of all brokers, by name.
    pub async fn list_transactions(
        &self,
        filter: &TransactionFilter,
    ) -> Result<Vec<TransactionListing>, Error> {
        self.client.refresh().await?;
        let open_for = filter.open_for.map(|time| time.as_millis());
        let request = ListTransactionsRequest {
            state_filters: filter.states.iter().map(Str::from).collect(),
            producer_id_filters: filter.producer_ids.iter().map(|id| id.value()).collect(),
            duration_filter: open_for.map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            ..ListTransactionsRequest::default()
        };
        let brokers: Vec<NodeId> = self.client.cluster().brokers.keys().copied().collect();
        let mut listed = Vec::new();
        for broker in brokers {
            let what = "list transactions";
            let read = |answer: ListTransactionsResponse| {
                accepted(what, answer.error_code, None)?;
                match answer.unknown_state_filters.is_empty() {
                    true => Ok(answer.transaction_states),
                    false => Err(Error::Usage("a transaction has no such state")),
                }
            };
            let target = Target::Node(broker);
            let found = self.ask(Kind::Question, target, what, &request, read).await?;
            listed.extend(found.into_iter().map(|state| TransactionListing {
                transactional_id: state.transactional_id.into(),
                coordinator: broker,
                producer_id: ProducerId(state.producer_id),
                state: state.transaction_state.into(),
            }));
        }
        listed.sort();
        listed.dedup();
        Ok(listed)
    }

    /// Where the transaction of a transactional id stands. An id that nobody uses is refused.
    pub async fn describe_transaction(&self, id: &str) -> Result<TransactionDescription, Error> {
        let what = format!("describe the transaction of {id:?}");
        let request = DescribeTransactionsRequest {
            transactional_ids: vec![Str::from(id)],
            ..DescribeTransactionsRequest::default()
        };
        let read = |node, mut answer: headwater_protocol::kafka::describe_transactions::DescribeTransactionsResponse| {
            let state = answer.transaction_states.pop().ok_or_else(|| unanswered(&what))?;
            accepted(&what, state.error_code, None)?;
            Ok(described(node, state))
        };
        self.ask_coordinator(&Ask::of_transaction(id, &what), &request, read)
            .await
    }

    /// As [`Admin::describe_transaction`], of several. Those that nobody uses are absent.
    pub async fn describe_transactions<T: AsRef<str>>(
        &self,
        ids: &[T],
    ) -> Result<BTreeMap<String, TransactionDescription>, Error> {
        let mut found = BTreeMap::new();
        for id in ids {
            match self.describe_transaction(id.as_ref()).await {
                Ok(description) => drop(found.insert(id.as_ref().to_owned(), description)),
                Err(error) if error.code() == Some(ErrorCode::TRANSACTIONAL_ID_NOT_FOUND) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Transactions that these partitions have had open for longer than `open_for` while no coordinator knows that they are
    /// part of one: nobody will end them, and readers of what is committed wait for ever. Take `open_for` longer than any
    /// transaction may be open, which is 15 minutes by default.
    pub async fn find_hanging_transactions(
        &self,
        partitions: &[TopicPartition],
        open_for: Duration,
    ) -> Result<Vec<OpenTransaction>, Error> {
        let now_ms = door::unix_ms();
        let has_been_open = |open: &OpenTransaction| {
            let ms = now_ms.saturating_sub(open.producer.last_timestamp_ms);
            u128::try_from(ms).is_ok_and(|ms| ms > open_for.as_millis())
        };
        let mut suspects = self.open_transactions(partitions).await?;
        suspects.retain(has_been_open);
        if suspects.is_empty() {
            return Ok(suspects);
        }
        self.check_coordinators().await?;
        let known = self.transactions_of(&suspects).await?;
        suspects.retain(|open| is_hanging(open, known.get(&open.producer.id)));
        // One that was ended while the coordinators were asked hangs no more.
        let mut places: Vec<_> = suspects.iter().map(|open| open.partition.clone()).collect();
        places.dedup();
        let now_open = self.open_transactions(&places).await?;
        suspects.retain(|open| now_open.contains(open));
        Ok(suspects)
    }

    /// Fails unless every transactional id has a coordinator: what belongs to none at the moment would be taken for hanging.
    async fn check_coordinators(&self) -> Result<(), Error> {
        let topic = match self.describe_topic(STATE_TOPIC).await {
            Ok(topic) => topic,
            // Nobody ever began a transaction here.
            Err(Error::UnknownTopic(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let unled = topic.partitions.iter().position(|it| it.leader.is_none());
        unled.map_or(Ok(()), |index| {
            Err(Error::NoLeader {
                topic: STATE_TOPIC.to_owned(),
                partition: PartitionIndex(index as i32),
            })
        })
    }

    /// The transactions that some partitions have open, as their leaders know them.
    pub async fn open_transactions(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<OpenTransaction>, Error> {
        let mut by_leader: BTreeMap<NodeId, Vec<TopicPartition>> = BTreeMap::new();
        for partition in partitions {
            let leader = self.leader_of(&partition.topic, partition.partition).await?;
            let leader = leader.ok_or_else(|| Error::NoLeader {
                topic: partition.topic.to_string(),
                partition: partition.partition,
            })?;
            by_leader.entry(leader).or_default().push(partition.clone());
        }
        let mut open = Vec::new();
        for (leader, partitions) in by_leader {
            open.extend(self.open_at(leader, &partitions).await?);
        }
        Ok(open)
    }

    async fn open_at(
        &self,
        leader: NodeId,
        partitions: &[TopicPartition],
    ) -> Result<Vec<OpenTransaction>, Error> {
        let what = format!("describe the producers at node {leader}");
        let topics = by_topic(partitions).into_iter();
        let request = DescribeProducersRequest {
            topics: topics
                .map(|(name, partitions)| TopicRequest {
                    name: Str::from(name),
                    partition_indexes: partitions.iter().map(|it| it.partition.value()).collect(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        self.ask(Kind::Question, Target::Node(leader), &what, &request, |answer| {
            let mut open = Vec::new();
            for topic in answer.topics {
                let name: Arc<str> = topic.name.as_str().into();
                for told in topic.partitions {
                    accepted(&what, told.error_code, told.error_message.as_ref())?;
                    let producers = told.active_producers.iter().map(read_producer);
                    let producers = producers.filter(|producer| producer.open_from.is_some());
                    open.extend(producers.map(|producer| OpenTransaction {
                        partition: TopicPartition {
                            topic: Arc::clone(&name),
                            partition: PartitionIndex(told.partition_index),
                        },
                        producer,
                    }));
                }
            }
            Ok(open)
        })
        .await
    }

    /// What coordinators know of the producers of some open transactions.
    async fn transactions_of(
        &self,
        open: &[OpenTransaction],
    ) -> Result<BTreeMap<ProducerId, TransactionDescription>, Error> {
        let producers: BTreeSet<ProducerId> = open.iter().map(|open| open.producer.id).collect();
        let filter = TransactionFilter {
            producer_ids: producers.into_iter().collect(),
            ..TransactionFilter::default()
        };
        let listed = self.list_transactions(&filter).await?;
        let ids: Vec<&str> = listed.iter().map(|it| &*it.transactional_id).collect();
        let described = self.describe_transactions(&ids).await?;
        let by_producer = described.into_values().map(|it| (it.producer.id, it));
        Ok(by_producer.collect())
    }

    /// Ends a hanging transaction in its partition: what it wrote is never seen by readers of what is committed.
    ///
    /// It is for those that [`Admin::find_hanging_transactions`] found: what the coordinator still knows of would be aborted
    /// in this partition alone.
    pub async fn abort_transaction(&self, open: &OpenTransaction) -> Result<(), Error> {
        let TopicPartition { topic, partition } = &open.partition;
        let what = format!("abort the transaction in {}", open.partition);
        let leader = self.leader_of(topic, *partition).await?;
        let target = leader.map_or(Target::Any, Target::Node);
        let request = WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: open.producer.id.value(),
                producer_epoch: open.producer.epoch.value(),
                transaction_result: false,
                topics: vec![WritableTxnMarkerTopic {
                    name: Str::from(&**topic),
                    partition_indexes: vec![partition.value()],
                    ..Default::default()
                }],
                // No coordinator ended one here before; any may be the first.
                coordinator_epoch: open.producer.coordinator_epoch.unwrap_or(0),
                ..Default::default()
            }],
            ..Default::default()
        };
        // Sent twice, it could end a later transaction of the same epoch.
        self.ask(
            Kind::Change,
            target,
            &what,
            &request,
            |answer: WriteTxnMarkersResponse| {
                let topics = answer.markers.into_iter().flat_map(|marker| marker.topics);
                let partition = topics.flat_map(|topic| topic.partitions).next();
                let partition = partition.ok_or_else(|| unanswered(&what))?;
                accepted(&what, partition.error_code, None)
            },
        )
        .await
    }

    /// Fences whoever produces under these transactional ids; what they have open is aborted. Gives the producer that is in
    /// their place, which nobody uses.
    pub async fn fence_producers<T: AsRef<str>>(
        &self,
        ids: &[T],
    ) -> Result<BTreeMap<String, ProducerIdentity>, Error> {
        let mut fenced = BTreeMap::new();
        for id in ids {
            let id = id.as_ref();
            let what = format!("fence the producer of {id:?}");
            let request = InitProducerIdRequest {
                transactional_id: Some(Str::from(id)),
                // Nobody will begin a transaction.
                transaction_timeout_ms: 1,
                ..InitProducerIdRequest::default()
            };
            let read = |_, answer: headwater_protocol::kafka::init_producer_id::InitProducerIdResponse| {
                accepted(&what, answer.error_code, None)?;
                Ok(ProducerIdentity {
                    id: ProducerId(answer.producer_id),
                    epoch: ProducerEpoch(answer.producer_epoch),
                })
            };
            // Fenced twice is fenced.
            let identity = self
                .ask_coordinator(&Ask::of_transaction(id, &what), &request, read)
                .await?;
            fenced.insert(id.to_owned(), identity);
        }
        Ok(fenced)
    }
}

/// Whether nobody will end it: there is no coordinator that knows of it. `known` is what one knows of its producer.
fn is_hanging(open: &OpenTransaction, known: Option<&TransactionDescription>) -> bool {
    known.is_none_or(|known| !known.partitions.contains(&open.partition))
}

fn described(coordinator: NodeId, state: TransactionState) -> TransactionDescription {
    let partitions = state.topics.iter().flat_map(|topic| {
        let name: Arc<str> = topic.topic.as_str().into();
        topic.partitions.iter().map(move |index| TopicPartition {
            topic: Arc::clone(&name),
            partition: PartitionIndex(*index),
        })
    });
    TransactionDescription {
        coordinator,
        producer: ProducerIdentity {
            id: ProducerId(state.producer_id),
            epoch: ProducerEpoch(state.producer_epoch),
        },
        timeout: Duration::from_millis(u64::try_from(state.transaction_timeout_ms).unwrap_or(0)),
        started_ms: Some(state.transaction_start_time_ms).filter(|ms| *ms >= 0),
        partitions: partitions.collect(),
        transactional_id: state.transactional_id.into(),
        state: state.transaction_state.into(),
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::ids::Offset;

    use super::*;

    #[test]
    fn one_hangs_where_no_coordinator_knows_that_the_partition_is_part_of_it() {
        let place = |index| TopicPartition {
            topic: "t".into(),
            partition: PartitionIndex(index),
        };
        let open = OpenTransaction {
            partition: place(1),
            producer: ActiveProducer {
                id: ProducerId(7),
                epoch: ProducerEpoch(0),
                last_sequence: 3,
                last_timestamp_ms: 0,
                coordinator_epoch: None,
                open_from: Some(Offset(5)),
            },
        };
        let known = |index| TransactionDescription {
            transactional_id: "id".into(),
            coordinator: NodeId(1),
            state: "Ongoing".into(),
            producer: ProducerIdentity {
                id: ProducerId(7),
                epoch: ProducerEpoch(0),
            },
            timeout: Duration::from_secs(60),
            started_ms: Some(0),
            partitions: BTreeSet::from([place(index)]),
        };
        assert!(is_hanging(&open, None), "nobody knows the producer");
        assert!(is_hanging(&open, Some(&known(0))), "it is in another transaction");
        assert!(!is_hanging(&open, Some(&known(1))));
    }
}
