//! Transactions that are open in a partition while no coordinator knows of them, found and aborted.
//!
//! It owns what makes one hanging. It must never abort one that a coordinator may know of: that would be aborted in one of
//! its partitions and committed in the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use headwater_protocol::ids::{NodeId, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, ProducerState, TopicRequest,
};
use headwater_protocol::kafka::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use headwater_protocol::primitives::Str;

use super::seen::{Filter, found};
use super::{
    AbortHanging, HangingList, HangingTransaction, PartitionProducer, Place, TransactionList,
    TransactionPartition,
};
use crate::http::Api;
use crate::http::error::ApiError;
use crate::http::nodes::ask;
use crate::http::topics;
use crate::metadata::topic::TRANSACTIONS_TOPIC;

const DESCRIBE_VERSION: i16 = 0;
const WRITE_VERSION: i16 = 1;

/// A transaction that a partition has open.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    place: Place,
    producer: PartitionProducer,
    open_from: i64,
}

/// What coordinators told.
struct Known {
    transactions: TransactionList,
    /// Every coordinator has told.
    is_complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// To its coordinator, who will end it.
    Known,
    Hangs,
    /// Whoever may know it does not answer.
    Unknown,
}

pub(super) async fn find(
    api: &Api,
    topic: Option<&str>,
    open_for: Duration,
) -> Result<HangingList, ApiError> {
    let places = match topic {
        Some(name) => {
            let count = topics::find(api, name)?.partitions.len();
            (0..count).map(|index| (name.to_owned(), index as i32)).collect()
        }
        None => all_places(api),
    };
    let (mut open, mut unsearched) = open_in(api, &places).await;
    let now_ms = api.sys.clock.unix_ms();
    open.retain(|open| has_been_open(open, now_ms, open_for));
    if open.is_empty() {
        return Ok(list(open, unsearched, Vec::new()));
    }
    let known = known_of(api, &open).await;
    let undecided = open.iter().filter(|open| judge(open, &known) == Verdict::Unknown);
    unsearched.extend(undecided.map(|open| TransactionPartition {
        topic: open.place.0.clone(),
        partition: open.place.1,
    }));
    unsearched.sort();
    unsearched.dedup();
    open.retain(|open| judge(open, &known) == Verdict::Hangs);
    // One that was ended while the coordinators were asked hangs no more.
    let places: BTreeSet<Place> = open.iter().map(|open| open.place.clone()).collect();
    let (now_open, _) = open_in(api, &places).await;
    open.retain(|open| now_open.contains(open));
    Ok(list(open, unsearched, known.transactions.unanswered))
}

pub(super) async fn abort(api: &Api, wanted: &AbortHanging) -> Result<(), ApiError> {
    let place = (wanted.topic.clone(), wanted.partition);
    let leader = leader(api, &place)?;
    let (open, unsearched) = open_in(api, &BTreeSet::from([place])).await;
    if !unsearched.is_empty() {
        return Err(unreachable(leader));
    }
    let is_wanted =
        |open: &&Open| open.producer.producer_id == wanted.producer_id && open.open_from == wanted.open_from;
    let found = open.iter().find(is_wanted).ok_or_else(|| {
        let message = format!(
            "producer {} has no transaction open from offset {} on in partition {} of {:?}",
            wanted.producer_id, wanted.open_from, wanted.partition, wanted.topic
        );
        ApiError::conflict("NOT_OPEN", message).hint("It was ended meanwhile.")
    })?;
    let known = known_of(api, &open).await;
    if judge(found, &known) != Verdict::Hangs {
        let message = "a coordinator may know of the transaction";
        let hint = "It is aborted when its time is up. If a node does not answer, wait for it.";
        return Err(ApiError::conflict("NOT_HANGING", message).hint(hint));
    }
    mark(api, leader, found).await
}

/// Who writes to a partition, as its leader knows.
pub(super) async fn producers(api: &Api, place: &Place) -> Result<Vec<PartitionProducer>, ApiError> {
    let leader = leader(api, place)?;
    let asked = describe(api, leader, std::slice::from_ref(place)).await?;
    let mut told = asked.topics.into_iter().flat_map(|topic| topic.partitions);
    let told = told.next().ok_or_else(|| unreachable(leader))?;
    match ErrorCode(told.error_code) {
        ErrorCode::NONE => Ok(told.active_producers.iter().map(producer).collect()),
        code => Err(ApiError::unavailable(
            "NO_LEADER",
            format!("node {leader} says {code}"),
        )),
    }
}

fn all_places(api: &Api) -> BTreeSet<Place> {
    let image = api.view.image();
    let places = image.topics.values().flat_map(|topic| {
        let name = topic.name.to_string();
        (0..topic.partitions.len()).map(move |index| (name.clone(), index as i32))
    });
    places.collect()
}

/// What some partitions have open, and those of them whose leader does not tell.
async fn open_in(api: &Api, places: &BTreeSet<Place>) -> (Vec<Open>, Vec<TransactionPartition>) {
    let mut unsearched: BTreeSet<Place> = places.clone();
    let mut leaders: BTreeMap<NodeId, Vec<Place>> = BTreeMap::new();
    for place in places {
        if let Ok(leader) = leader(api, place) {
            leaders.entry(leader).or_default().push(place.clone());
        }
    }
    let asked = leaders
        .into_iter()
        .map(|(leader, places)| async move { describe(api, leader, &places).await });
    let mut open = Vec::new();
    for answer in join_all(asked).await.into_iter().flatten() {
        for topic in answer.topics {
            let told = topic.partitions.into_iter();
            for partition in told.filter(|it| it.error_code == ErrorCode::NONE.0) {
                let place = (topic.name.to_string(), partition.partition_index);
                unsearched.remove(&place);
                let producers = partition.active_producers.iter().map(producer);
                open.extend(producers.filter_map(|producer| {
                    Some(Open {
                        place: place.clone(),
                        open_from: producer.open_from?,
                        producer,
                    })
                }));
            }
        }
    }
    let place = |(topic, partition)| TransactionPartition { topic, partition };
    (open, unsearched.into_iter().map(place).collect())
}

async fn describe(
    api: &Api,
    leader: NodeId,
    places: &[Place],
) -> Result<DescribeProducersResponse, ApiError> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in places {
        topics.entry(topic).or_default().push(*index);
    }
    let topics = topics.into_iter().map(|(name, partition_indexes)| TopicRequest {
        name: Str::from(name),
        partition_indexes,
        ..TopicRequest::default()
    });
    let request = DescribeProducersRequest {
        topics: topics.collect(),
        ..DescribeProducersRequest::default()
    };
    ask(api, leader, DESCRIBE_VERSION, &request).await
}

/// What coordinators know of the producers of some open transactions.
async fn known_of(api: &Api, open: &[Open]) -> Known {
    let producers: BTreeSet<i64> = open.iter().map(|open| open.producer.producer_id).collect();
    let filter = Filter {
        producers: producers.into_iter().collect(),
        ..Filter::default()
    };
    let transactions = found(api, &filter).await;
    // What belongs to a partition that nobody leads is known to nobody at the moment.
    let topic = api.view.topic(TRANSACTIONS_TOPIC);
    let is_led = topic.is_none_or(|topic| topic.partitions.iter().all(|it| it.leader != NodeId::NONE));
    Known {
        is_complete: is_led && transactions.unanswered.is_empty(),
        transactions,
    }
}

fn has_been_open(open: &Open, now_ms: i64, open_for: Duration) -> bool {
    let ms = now_ms.saturating_sub(open.producer.last_timestamp_ms);
    u128::try_from(ms).is_ok_and(|ms| ms > open_for.as_millis())
}

/// Whether nobody will end it. While a coordinator does not answer, one that no other knows of may be known to that one.
fn judge(open: &Open, known: &Known) -> Verdict {
    let transactions = &known.transactions.transactions;
    let mut of_producer = transactions
        .iter()
        .filter(|it| it.producer_id == open.producer.producer_id);
    let place = TransactionPartition {
        topic: open.place.0.clone(),
        partition: open.place.1,
    };
    match of_producer.next() {
        Some(transaction) if transaction.partitions.contains(&place) => Verdict::Known,
        Some(_) => Verdict::Hangs,
        None if known.is_complete => Verdict::Hangs,
        None => Verdict::Unknown,
    }
}

async fn mark(api: &Api, leader: NodeId, open: &Open) -> Result<(), ApiError> {
    let request = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: open.producer.producer_id,
            producer_epoch: i16::try_from(open.producer.producer_epoch).unwrap_or(i16::MAX),
            transaction_result: false,
            topics: vec![WritableTxnMarkerTopic {
                name: Str::from(&*open.place.0),
                partition_indexes: vec![open.place.1],
                ..WritableTxnMarkerTopic::default()
            }],
            // No coordinator ended one here before; any may be the first.
            coordinator_epoch: open.producer.coordinator_epoch.unwrap_or(0),
            ..WritableTxnMarker::default()
        }],
        ..WriteTxnMarkersRequest::default()
    };
    let answer = ask(api, leader, WRITE_VERSION, &request).await?;
    let topics = answer.markers.into_iter().flat_map(|marker| marker.topics);
    let written = topics.flat_map(|topic| topic.partitions).next();
    match written.map(|partition| ErrorCode(partition.error_code)) {
        Some(ErrorCode::NONE) => Ok(()),
        Some(code) if code.is_retriable() => Err(ApiError::unavailable(
            "NO_LEADER",
            format!("node {leader} says {code}"),
        )),
        Some(code) => Err(ApiError::conflict(
            "REFUSED",
            format!("node {leader} says {code}"),
        )),
        None => Err(unreachable(leader)),
    }
}

fn leader(api: &Api, place: &Place) -> Result<NodeId, ApiError> {
    let (name, index) = place;
    let topic = topics::find(api, name)?;
    let partition = topic.partition(PartitionIndex(*index)).ok_or_else(|| {
        let message = format!("topic {name:?} has no partition {index}");
        ApiError::not_found("UNKNOWN_PARTITION", message)
    })?;
    match partition.leader {
        NodeId::NONE => Err(ApiError::unavailable(
            "NO_LEADER",
            format!("nobody leads partition {index} of {name:?}"),
        )),
        leader => Ok(leader),
    }
}

fn unreachable(node: NodeId) -> ApiError {
    ApiError::unavailable(
        "NODE_UNREACHABLE",
        format!("node {node} does not tell of the partition"),
    )
}

fn producer(state: &ProducerState) -> PartitionProducer {
    PartitionProducer {
        producer_id: state.producer_id,
        producer_epoch: state.producer_epoch,
        last_sequence: state.last_sequence,
        last_timestamp_ms: state.last_timestamp,
        coordinator_epoch: Some(state.coordinator_epoch).filter(|epoch| *epoch >= 0),
        open_from: Some(state.current_txn_start_offset).filter(|offset| *offset >= 0),
    }
}

fn list(open: Vec<Open>, unsearched: Vec<TransactionPartition>, unanswered: Vec<i32>) -> HangingList {
    let hanging = open.into_iter().map(|open| HangingTransaction {
        topic: open.place.0,
        partition: open.place.1,
        producer_id: open.producer.producer_id,
        producer_epoch: open.producer.producer_epoch,
        open_from: open.open_from,
        last_timestamp_ms: open.producer.last_timestamp_ms,
    });
    HangingList {
        hanging: hanging.collect(),
        unsearched,
        unanswered,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TransactionStage, TransactionSummary};
    use super::*;

    fn open(producer_id: i64, partition: i32) -> Open {
        Open {
            place: ("t".to_owned(), partition),
            producer: PartitionProducer {
                producer_id,
                producer_epoch: 0,
                last_sequence: 0,
                last_timestamp_ms: 1_000,
                coordinator_epoch: None,
                open_from: Some(5),
            },
            open_from: 5,
        }
    }

    fn known(producer_id: i64, partition: i32, is_complete: bool) -> Known {
        let partitions = vec![TransactionPartition {
            topic: "t".to_owned(),
            partition,
        }];
        let transactions = TransactionList {
            transactions: vec![TransactionSummary {
                transactional_id: "id".to_owned(),
                state: TransactionStage::Ongoing,
                coordinator: 1,
                producer_id,
                producer_epoch: 0,
                timeout_ms: 60_000,
                started_ms: Some(0),
                partitions,
            }],
            unanswered: Vec::new(),
        };
        Known {
            transactions,
            is_complete,
        }
    }

    #[test]
    fn one_hangs_where_no_coordinator_knows_that_the_partition_is_part_of_it() {
        let check = |known: &Known, expected, why: &str| {
            assert_eq!(judge(&open(7, 1), known), expected, "{why}");
        };
        check(&known(7, 1, true), Verdict::Known, "it is known");
        check(
            &known(7, 0, true),
            Verdict::Hangs,
            "the partition is not part of it",
        );
        check(
            &known(7, 0, false),
            Verdict::Hangs,
            "its coordinator has answered",
        );
        check(&known(8, 1, true), Verdict::Hangs, "nobody knows the producer");
        check(&known(8, 1, false), Verdict::Unknown, "who is silent may know it");
    }

    #[test]
    fn how_long_one_has_been_open_counts_from_its_last_record() {
        let long = |now_ms| has_been_open(&open(7, 1), now_ms, Duration::from_millis(100));
        assert!(!long(1_100) && long(1_101));
        assert!(!long(0), "a clock that is behind");
    }
}
