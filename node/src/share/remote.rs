//! What one node asks another's share coordinator, in Kafka's messages: both ends of it.
//!
//! A request that means all of the group's partitions names `NOWHERE` and nothing else; Kafka's brokers do not ask for that.
//! One that names none means none.

use super::coordinator::{Ask, Told};
use super::error::Unkept;
use super::keeper::judge;
use super::request::{Kept, KeptBatch, KeptState, Name, Place, Seen};
use crate::peer::Peers;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId};
use headwater_protocol::kafka::delete_share_group_state as delete;
use headwater_protocol::kafka::initialize_share_group_state as initialize;
use headwater_protocol::kafka::read_share_group_state as read;
use headwater_protocol::kafka::read_share_group_state_summary as summary;
use headwater_protocol::kafka::write_share_group_state as write;
use headwater_protocol::kafka::{ErrorCode, Request};
use headwater_protocol::primitives::{Str, Uuid};
use std::time::Duration;

/// How long another node may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What an answer names that is about no partition, and a request that is about all.
const NOWHERE: Place = (TopicId([0; 16]), PartitionIndex(-1));
const NO_START: i64 = -1;

/// Asks the coordinator on another node.
pub(super) async fn ask(peers: &Peers, node: NodeId, group: &Name, ask: Ask) -> Result<Told, Unkept> {
    match ask {
        Ask::Read(places) => {
            let answer = call(peers, node, &read_request(group, &places), 0).await?;
            let results = answer.results.into_iter();
            let results = results.flat_map(|topic| {
                let partitions = topic.partitions.into_iter();
                partitions.map(move |partition| {
                    let place = place_of(topic.topic_id, partition.partition);
                    (place, check(partition.error_code).map(|()| kept_of(partition)))
                })
            });
            // The leader knows in which epoch it has asked.
            let results = results.zip(places).map(|((place, kept), (_, epoch))| {
                let leader_epoch = epoch;
                (place, kept.map(|kept| Kept { leader_epoch, ..kept }))
            });
            whole(results.collect()).map(Told::Read)
        }
        Ask::Write(writes) => {
            let answer = call(peers, node, &write_request(group, writes), 1).await?;
            let results = answer.results.into_iter();
            let results = results.flat_map(|topic| {
                let partitions = topic.partitions.into_iter();
                partitions.map(move |it| (place_of(topic.topic_id, it.partition), check(it.error_code)))
            });
            whole(results.collect()).map(Told::Done)
        }
        Ask::Initialize(places) => {
            let answer = call(peers, node, &initialize_request(group, &places), 0).await?;
            let results = answer.results.into_iter();
            let results = results.flat_map(|topic| {
                let partitions = topic.partitions.into_iter();
                partitions.map(move |it| (place_of(topic.topic_id, it.partition), check(it.error_code)))
            });
            whole(results.collect()).map(Told::Done)
        }
        Ask::Delete(places) => {
            let answer = call(peers, node, &delete_request(group, places), 0).await?;
            let results = answer.results.into_iter();
            let results = results.flat_map(|topic| {
                let partitions = topic.partitions.into_iter();
                partitions.map(move |it| (place_of(topic.topic_id, it.partition), check(it.error_code)))
            });
            whole(results.collect()).map(Told::Done)
        }
        Ask::See(places) => {
            let answer = call(peers, node, &summary_request(group, places), 1).await?;
            let results = answer.results.into_iter();
            let results = results.flat_map(|topic| {
                let partitions = topic.partitions.into_iter();
                partitions.map(move |it| {
                    let place = place_of(topic.topic_id, it.partition);
                    (place, check(it.error_code).map(|()| seen_of(&it)))
                })
            });
            let seen = whole(results.collect())?.into_iter();
            seen.map(|(place, seen)| seen.map(|seen| (place, seen)))
                .collect::<Result<_, _>>()
                .map(Told::Seen)
        }
    }
}

async fn call<R: Request>(
    peers: &Peers,
    node: NodeId,
    request: &R,
    version: i16,
) -> Result<R::Response, Unkept> {
    let client_id = Str::from_static("headwater-share");
    let answer = peers.ask(node, request, version, &client_id, PATIENCE).await;
    answer.map_err(|error| {
        tracing::debug!(%node, %error, "the share coordinator did not answer");
        judge(&error)
    })
}

/// What was refused altogether is no answer.
fn whole<T>(results: Vec<(Place, Result<T, Unkept>)>) -> Result<Vec<(Place, Result<T, Unkept>)>, Unkept> {
    let is_whole = |unkept: &Unkept| matches!(unkept, Unkept::Again | Unkept::Unknown);
    let errors = results.iter().filter_map(|(_, result)| result.as_ref().err());
    match errors.copied().find(is_whole) {
        Some(unkept) => Err(unkept),
        None => Ok(results),
    }
}

fn read_request(group: &Name, places: &[(Place, LeaderEpoch)]) -> read::ReadShareGroupStateRequest {
    let topic = |(place, epoch): &(Place, LeaderEpoch)| read::ReadStateData {
        topic_id: place.0.into(),
        partitions: vec![read::PartitionData {
            partition: place.1.value(),
            leader_epoch: epoch.value(),
            ..read::PartitionData::default()
        }],
        ..read::ReadStateData::default()
    };
    read::ReadShareGroupStateRequest {
        group_id: Str::from(&**group),
        topics: places.iter().map(topic).collect(),
        ..read::ReadShareGroupStateRequest::default()
    }
}

fn write_request(group: &Name, writes: Vec<(Place, Kept)>) -> write::WriteShareGroupStateRequest {
    let batch = |batch: KeptBatch| write::StateBatch {
        first_offset: batch.first.value(),
        last_offset: batch.last.value(),
        delivery_state: batch.state.code(),
        delivery_count: batch.count,
        ..write::StateBatch::default()
    };
    let topic = |(place, kept): (Place, Kept)| write::WriteStateData {
        topic_id: place.0.into(),
        partitions: vec![write::PartitionData {
            partition: place.1.value(),
            state_epoch: kept.state_epoch,
            leader_epoch: kept.leader_epoch.value(),
            start_offset: kept.start.map_or(NO_START, Offset::value),
            state_batches: kept.batches.into_iter().map(batch).collect(),
            ..write::PartitionData::default()
        }],
        ..write::WriteStateData::default()
    };
    write::WriteShareGroupStateRequest {
        group_id: Str::from(&**group),
        topics: writes.into_iter().map(topic).collect(),
        ..write::WriteShareGroupStateRequest::default()
    }
}

fn initialize_request(
    group: &Name,
    places: &[(Place, Option<Offset>)],
) -> initialize::InitializeShareGroupStateRequest {
    let topic = |(place, start): &(Place, Option<Offset>)| initialize::InitializeStateData {
        topic_id: place.0.into(),
        partitions: vec![initialize::PartitionData {
            partition: place.1.value(),
            start_offset: start.map_or(NO_START, Offset::value),
            ..initialize::PartitionData::default()
        }],
        ..initialize::InitializeStateData::default()
    };
    initialize::InitializeShareGroupStateRequest {
        group_id: Str::from(&**group),
        topics: places.iter().map(topic).collect(),
        ..initialize::InitializeShareGroupStateRequest::default()
    }
}

fn delete_request(group: &Name, places: Option<Vec<Place>>) -> delete::DeleteShareGroupStateRequest {
    let topic = |place: Place| delete::DeleteStateData {
        topic_id: place.0.into(),
        partitions: vec![delete::PartitionData {
            partition: place.1.value(),
            ..delete::PartitionData::default()
        }],
        ..delete::DeleteStateData::default()
    };
    delete::DeleteShareGroupStateRequest {
        group_id: Str::from(&**group),
        topics: named(places).into_iter().map(topic).collect(),
        ..delete::DeleteShareGroupStateRequest::default()
    }
}

fn summary_request(group: &Name, places: Option<Vec<Place>>) -> summary::ReadShareGroupStateSummaryRequest {
    let topic = |place: Place| summary::ReadStateSummaryData {
        topic_id: place.0.into(),
        partitions: vec![summary::PartitionData {
            partition: place.1.value(),
            ..summary::PartitionData::default()
        }],
        ..summary::ReadStateSummaryData::default()
    };
    summary::ReadShareGroupStateSummaryRequest {
        group_id: Str::from(&**group),
        topics: named(places).into_iter().map(topic).collect(),
        ..summary::ReadShareGroupStateSummaryRequest::default()
    }
}

/// What another node asks for, by the message it came in. Some fields may be out of range: they are refused as such.
pub(crate) trait Asks: Request {
    fn group(&self) -> &Str;

    fn ask(&self) -> Option<Ask>;

    fn answer(&self, told: Result<Told, Unkept>) -> Self::Response;

    /// For whoever may not ask.
    fn refuse(&self) -> Self::Response {
        self.answer(Err(Unkept::Refused))
    }
}

impl Asks for read::ReadShareGroupStateRequest {
    fn group(&self) -> &Str {
        &self.group_id
    }

    fn ask(&self) -> Option<Ask> {
        let places = self.topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|it| {
                (
                    place_of(topic.topic_id, it.partition),
                    LeaderEpoch(it.leader_epoch),
                )
            })
        });
        Some(Ask::Read(places.collect()))
    }

    fn answer(&self, told: Result<Told, Unkept>) -> read::ReadShareGroupStateResponse {
        let results = match told {
            Ok(Told::Read(results)) => results,
            Ok(Told::Done(_) | Told::Seen(_)) => Vec::new(),
            Err(unkept) => vec![(NOWHERE, Err(unkept))],
        };
        let batch = |batch: KeptBatch| read::StateBatch {
            first_offset: batch.first.value(),
            last_offset: batch.last.value(),
            delivery_state: batch.state.code(),
            delivery_count: batch.count,
            ..read::StateBatch::default()
        };
        let result = |(place, result): (Place, Result<Kept, Unkept>)| {
            let code = code(&result);
            let mut told = read::PartitionResult {
                partition: place.1.value(),
                error_code: code.0,
                ..read::PartitionResult::default()
            };
            if let Ok(kept) = result {
                told.state_epoch = kept.state_epoch;
                told.start_offset = kept.start.map_or(NO_START, Offset::value);
                told.state_batches = kept.batches.into_iter().map(batch).collect();
            }
            read::ReadStateResult {
                topic_id: place.0.into(),
                partitions: vec![told],
                ..read::ReadStateResult::default()
            }
        };
        read::ReadShareGroupStateResponse {
            results: results.into_iter().map(result).collect(),
            ..read::ReadShareGroupStateResponse::default()
        }
    }
}

impl Asks for write::WriteShareGroupStateRequest {
    fn group(&self) -> &Str {
        &self.group_id
    }

    fn ask(&self) -> Option<Ask> {
        let mut writes = Vec::new();
        for topic in &self.topics {
            for partition in &topic.partitions {
                let mut batches = Vec::with_capacity(partition.state_batches.len());
                for batch in &partition.state_batches {
                    let batch = KeptBatch {
                        first: Offset(batch.first_offset),
                        last: Offset(batch.last_offset),
                        state: KeptState::of(batch.delivery_state)?,
                        count: batch.delivery_count,
                    };
                    batches.push(Some(batch).filter(KeptBatch::is_sound)?);
                }
                let kept = Kept {
                    state_epoch: partition.state_epoch,
                    leader_epoch: LeaderEpoch(partition.leader_epoch),
                    start: start_of(partition.start_offset),
                    batches,
                };
                writes.push((place_of(topic.topic_id, partition.partition), kept));
            }
        }
        Some(Ask::Write(writes))
    }

    fn answer(&self, told: Result<Told, Unkept>) -> write::WriteShareGroupStateResponse {
        let result = |(place, result): (Place, Result<(), Unkept>)| write::WriteStateResult {
            topic_id: place.0.into(),
            partitions: vec![write::PartitionResult {
                partition: place.1.value(),
                error_code: code(&result).0,
                ..write::PartitionResult::default()
            }],
            ..write::WriteStateResult::default()
        };
        write::WriteShareGroupStateResponse {
            results: done(told).into_iter().map(result).collect(),
            ..write::WriteShareGroupStateResponse::default()
        }
    }
}

impl Asks for initialize::InitializeShareGroupStateRequest {
    fn group(&self) -> &Str {
        &self.group_id
    }

    fn ask(&self) -> Option<Ask> {
        let places = self.topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|it| (place_of(topic.topic_id, it.partition), start_of(it.start_offset)))
        });
        Some(Ask::Initialize(places.collect()))
    }

    fn answer(&self, told: Result<Told, Unkept>) -> initialize::InitializeShareGroupStateResponse {
        let result = |(place, result): (Place, Result<(), Unkept>)| initialize::InitializeStateResult {
            topic_id: place.0.into(),
            partitions: vec![initialize::PartitionResult {
                partition: place.1.value(),
                error_code: code(&result).0,
                ..initialize::PartitionResult::default()
            }],
            ..initialize::InitializeStateResult::default()
        };
        initialize::InitializeShareGroupStateResponse {
            results: done(told).into_iter().map(result).collect(),
            ..initialize::InitializeShareGroupStateResponse::default()
        }
    }
}

impl Asks for delete::DeleteShareGroupStateRequest {
    fn group(&self) -> &Str {
        &self.group_id
    }

    fn ask(&self) -> Option<Ask> {
        let places = self.topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|it| place_of(topic.topic_id, it.partition))
        });
        Some(Ask::Delete(meant(places.collect())))
    }

    fn answer(&self, told: Result<Told, Unkept>) -> delete::DeleteShareGroupStateResponse {
        let result = |(place, result): (Place, Result<(), Unkept>)| delete::DeleteStateResult {
            topic_id: place.0.into(),
            partitions: vec![delete::PartitionResult {
                partition: place.1.value(),
                error_code: code(&result).0,
                ..delete::PartitionResult::default()
            }],
            ..delete::DeleteStateResult::default()
        };
        delete::DeleteShareGroupStateResponse {
            results: done(told).into_iter().map(result).collect(),
            ..delete::DeleteShareGroupStateResponse::default()
        }
    }
}

impl Asks for summary::ReadShareGroupStateSummaryRequest {
    fn group(&self) -> &Str {
        &self.group_id
    }

    fn ask(&self) -> Option<Ask> {
        let places = self.topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|it| place_of(topic.topic_id, it.partition))
        });
        Some(Ask::See(meant(places.collect())))
    }

    fn answer(&self, told: Result<Told, Unkept>) -> summary::ReadShareGroupStateSummaryResponse {
        let results: Vec<(Place, Result<Seen, Unkept>)> = match told {
            Ok(Told::Seen(seen)) => seen.into_iter().map(|(place, seen)| (place, Ok(seen))).collect(),
            Ok(Told::Done(_) | Told::Read(_)) => Vec::new(),
            Err(unkept) => vec![(NOWHERE, Err(unkept))],
        };
        let result = |(place, result): (Place, Result<Seen, Unkept>)| {
            let code = code(&result);
            let mut told = summary::PartitionResult {
                partition: place.1.value(),
                error_code: code.0,
                ..summary::PartitionResult::default()
            };
            if let Ok(seen) = result {
                told.state_epoch = seen.state_epoch;
                told.leader_epoch = seen.leader_epoch.value();
                told.start_offset = seen.start.map_or(NO_START, Offset::value);
                told.delivery_complete_count = i32::try_from(seen.complete).unwrap_or(i32::MAX);
            }
            summary::ReadStateSummaryResult {
                topic_id: place.0.into(),
                partitions: vec![told],
                ..summary::ReadStateSummaryResult::default()
            }
        };
        summary::ReadShareGroupStateSummaryResponse {
            results: results.into_iter().map(result).collect(),
            ..summary::ReadShareGroupStateSummaryResponse::default()
        }
    }
}

fn done(told: Result<Told, Unkept>) -> Vec<(Place, Result<(), Unkept>)> {
    match told {
        Ok(Told::Done(results)) => results,
        Ok(Told::Read(_) | Told::Seen(_)) => Vec::new(),
        Err(unkept) => vec![(NOWHERE, Err(unkept))],
    }
}

/// None: all of them.
fn named(places: Option<Vec<Place>>) -> Vec<Place> {
    places.unwrap_or_else(|| vec![NOWHERE])
}

fn meant(places: Vec<Place>) -> Option<Vec<Place>> {
    (places != [NOWHERE]).then_some(places)
}

fn place_of(topic: Uuid, partition: i32) -> Place {
    (topic.into(), PartitionIndex(partition))
}

fn start_of(offset: i64) -> Option<Offset> {
    (offset >= 0).then_some(Offset(offset))
}

/// A batch of a state that is not known here is not read: its records are delivered again.
fn kept_of(partition: read::PartitionResult) -> Kept {
    let batches = partition.state_batches.into_iter().filter_map(|batch| {
        let batch = KeptBatch {
            first: Offset(batch.first_offset),
            last: Offset(batch.last_offset),
            state: KeptState::of(batch.delivery_state)?,
            count: batch.delivery_count,
        };
        Some(batch).filter(KeptBatch::is_sound)
    });
    Kept {
        state_epoch: partition.state_epoch,
        leader_epoch: LeaderEpoch::NONE,
        start: start_of(partition.start_offset),
        batches: batches.collect(),
    }
}

fn seen_of(partition: &summary::PartitionResult) -> Seen {
    Seen {
        state_epoch: partition.state_epoch,
        leader_epoch: LeaderEpoch(partition.leader_epoch),
        start: start_of(partition.start_offset),
        complete: partition.delivery_complete_count.max(0).into(),
    }
}

fn code<T>(result: &Result<T, Unkept>) -> ErrorCode {
    match result {
        Ok(_) => ErrorCode::NONE,
        Err(Unkept::Again) => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        Err(Unkept::FencedLeader) => ErrorCode::FENCED_LEADER_EPOCH,
        Err(Unkept::FencedState) => ErrorCode::FENCED_STATE_EPOCH,
        Err(Unkept::NoRoom) => ErrorCode::MESSAGE_TOO_LARGE,
        Err(Unkept::Refused) => ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
        Err(Unkept::Unknown) => ErrorCode::UNKNOWN_SERVER_ERROR,
    }
}

fn check(code: i16) -> Result<(), Unkept> {
    match ErrorCode(code) {
        ErrorCode::NONE => Ok(()),
        ErrorCode::NOT_COORDINATOR
        | ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => Err(Unkept::Again),
        ErrorCode::FENCED_LEADER_EPOCH => Err(Unkept::FencedLeader),
        ErrorCode::FENCED_STATE_EPOCH => Err(Unkept::FencedState),
        ErrorCode::MESSAGE_TOO_LARGE => Err(Unkept::NoRoom),
        _ => Err(Unkept::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_said_and_none_is_none() {
        let one: Place = (TopicId([7; 16]), PartitionIndex(3));
        for places in [None, Some(Vec::new()), Some(vec![one])] {
            let group = Name::from("g");
            let delete = delete_request(&group, places.clone()).ask();
            assert!(matches!(delete, Some(Ask::Delete(meant)) if meant == places));
            let see = summary_request(&group, places.clone()).ask();
            assert!(matches!(see, Some(Ask::See(meant)) if meant == places));
        }
    }
}
