//! ElectLeaders (key 43, KIP-183, KIP-460): the preferred replica leads again, or anybody where nobody leads.

use std::collections::BTreeMap;

use headwater_protocol::ids::{NodeId, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult, TopicPartitions,
};
use headwater_protocol::primitives::Str;

use super::refusal::Refusal;
use crate::controller::{Change, Leaders, PartitionRef};
use crate::metadata::{Image, PartitionState};
use crate::server::request::Context;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// One partition that was asked for.
struct Asked {
    topic: Str,
    index: i32,
    /// None: there is no such partition.
    found: Option<(PartitionRef, PartitionState)>,
}

pub(in crate::server) async fn handle(
    context: &Context,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let mut response = ElectLeadersResponse::default();
    let leaders = match request.election_type {
        PREFERRED => Leaders::Preferred,
        UNCLEAN => Leaders::Unclean,
        _ => {
            response.error_code = ErrorCode::INVALID_REQUEST.0;
            return response;
        }
    };
    let names_all = request.topic_partitions.is_none();
    let before = context.services().view.image();
    let asked = match request.topic_partitions {
        Some(topics) => named(topics, &before),
        None => all(&before),
    };
    let partitions = asked
        .iter()
        .filter_map(|asked| Some(asked.found.as_ref()?.0))
        .collect();
    let change = Change::ElectLeaders {
        leaders,
        partitions: Some(partitions),
    };
    if let Err(error) = context.services().controller.propose(change).await {
        response.error_code = Refusal::from(error).code.0;
        return response;
    }
    let after = context.services().view.image();
    let mut results: BTreeMap<Str, Vec<PartitionResult>> = BTreeMap::new();
    for asked in asked {
        let result = result(&asked, leaders, &after);
        // Of all partitions, those that are led well already are not worth a word.
        if !(names_all && result.error_code == ErrorCode::ELECTION_NOT_NEEDED.0) {
            results.entry(asked.topic).or_default().push(result);
        }
    }
    let results = results
        .into_iter()
        .map(|(topic, partition_result)| ReplicaElectionResult {
            topic,
            partition_result,
            ..ReplicaElectionResult::default()
        });
    response.replica_election_results = results.collect();
    response
}

fn named(topics: Vec<TopicPartitions>, image: &Image) -> Vec<Asked> {
    let of_topic = |topic: TopicPartitions| {
        let indexes = topic.partitions.into_iter();
        let name = topic.topic;
        indexes
            .map(move |index| asked(&name, index, image))
            .collect::<Vec<_>>()
    };
    topics.into_iter().flat_map(of_topic).collect()
}

fn all(image: &Image) -> Vec<Asked> {
    let topics = image.topics.values();
    let of_topic = topics.flat_map(|topic| {
        let name = Str::from(&*topic.name);
        topic.indexes().map(move |index| (name.clone(), index))
    });
    of_topic
        .map(|(name, index)| asked(&name, index.value(), image))
        .collect()
}

fn asked(name: &Str, index: i32, image: &Image) -> Asked {
    let at = PartitionIndex(index);
    let found = image.topic(name).and_then(|topic| {
        let state = topic.partition(at)?.clone();
        Some((
            PartitionRef {
                topic: topic.id,
                index: at,
            },
            state,
        ))
    });
    Asked {
        topic: name.clone(),
        index,
        found,
    }
}

/// What became of one partition, by what it was before and is after.
fn result(asked: &Asked, leaders: Leaders, after: &Image) -> PartitionResult {
    let now = asked.found.as_ref().and_then(|(at, before)| {
        let state = after.topic_by_id(at.topic)?.partition(at.index)?;
        Some((before, state))
    });
    let (code, message) = match now {
        None => (
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            Some("there is no such partition"),
        ),
        Some((before, after)) => outcome(before, after, leaders),
    };
    PartitionResult {
        partition_id: asked.index,
        error_code: code.0,
        error_message: message.map(Str::from_static),
        ..PartitionResult::default()
    }
}

fn outcome(
    before: &PartitionState,
    after: &PartitionState,
    leaders: Leaders,
) -> (ErrorCode, Option<&'static str>) {
    let is_as_wanted = |state: &PartitionState| match leaders {
        Leaders::Preferred => state.replicas.first() == Some(&state.leader),
        Leaders::Unclean => state.leader != NodeId::NONE,
    };
    match leaders {
        _ if is_as_wanted(before) => (
            ErrorCode::ELECTION_NOT_NEEDED,
            Some("it is led as it should be already"),
        ),
        _ if is_as_wanted(after) => (ErrorCode::NONE, None),
        Leaders::Preferred => (
            ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE,
            Some("the preferred replica is away, or not in sync"),
        ),
        Leaders::Unclean => (
            ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE,
            Some("none of the replicas is there"),
        ),
    }
}
